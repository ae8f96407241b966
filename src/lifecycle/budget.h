/* budget.h - how long each phase may take, in milliseconds. Pure numbers.
 *
 * They nest: supervisor > forced exit > drain > close. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    GW_DRAIN_DEFAULT_MS = 300000,
    GW_CLOSE_MS = 20000,        /* an application's close; what is left then is cut */
    GW_FORCED_EXIT_MS = 25000,  /* on top of the drain budget */
    GW_REPORT_MS = 30000,       /* still draining, still deferred */
    GW_MARK_MS = 1000,          /* marking what is cut may wait this long for the store */
    GW_IDLE_GRACE_MS = 1000,    /* idle keep-alive connections at a stop */
    GW_LAST_WORD_MS = 1000,     /* for last answers, however little is left of the time for closing */
    GW_LAST_CALL_MS = 25,       /* who is connecting as listening ends is let in within this time */
    GW_LOCK_WAIT_MS = 5000,
    GW_RETRY_FIRST_MS = 1000,   /* a host that has failed for what may pass tries again; then twice as long … */
    GW_RETRY_MAX_MS = 60000,    /* … up to this */
    GW_RESTART_EXPECTED_MS = 1500,
    GW_AUTHORIZATION_MS = 5000, /* an internal authorization lives this long */
    GW_DEFER_TIMEOUT_MS = 300000,
    GW_START_TIMEOUT_MS = 60000,
    GW_HEALTH_MS = 10000,       /* a successor, to get ready and again to serve */
};
#define GW_NO_END INT64_MAX

/* What the forced exit of a drain is reckoned from, in ms of the monotonic clock and ms. */
struct gw_budget_plan {
    uint64_t accepted_ms;  /* the restart or stop */
    uint64_t changed_ms;   /* the last change of the budget; its acceptance when there was none */
    int64_t drain_ms;      /* GW_NO_END: unlimited */
    int64_t extra_ms;      /* what modes have on top: their health budgets */
    uint64_t end_at_ms;    /* a supervisor's end (gw_budget_fit); UINT64_MAX: there is none */
};
/* When the forced exit strikes: GW_FORCED_EXIT_MS after the drain's end, or after the last change if that is later,
 * so that no change makes that moment lie in the past; never later than a supervisor's end. UINT64_MAX for an
 * unlimited drain: it is armed when closing starts. */
uint64_t gw_budget_forced_exit(const struct gw_budget_plan *plan);

/* What is left of a budget after elapsed_ms: 0 when it is used up, GW_NO_END stays. */
int64_t gw_budget_left(int64_t budget_ms, int64_t elapsed_ms);

/* A supervisor that kills stop_timeout_ms after it has asked for the stop, and cannot be asked for more time: the
 * forced exit has to come before, and the drain before that. The forced exit is min(5,000, a tenth) earlier than
 * the supervisor; of what is left, 25,000 or at most half are kept for closing; the drain gets the rest. */
struct gw_budget_fit {
    int64_t drain_ms; /* at most what was asked for */
    int64_t end_ms;   /* when the forced exit strikes at the latest, counted from the same moment; 0: no supervisor */
    bool cut;         /* less than was asked for */
};
struct gw_budget_fit gw_budget_fit(int64_t drain_ms, int64_t stop_timeout_ms);
