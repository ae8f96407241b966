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
    GW_LOCK_WAIT_MS = 5000,
    GW_RESTART_EXPECTED_MS = 1500,
    GW_AUTHORIZATION_MS = 5000, /* an internal authorization lives this long */
    GW_DEFER_TIMEOUT_MS = 300000,
    GW_START_TIMEOUT_MS = 60000,
    GW_HEALTH_MS = 10000,       /* a successor, to get ready and again to serve */
};
#define GW_NO_END INT64_MAX

/* When the forced exit strikes, counted from acceptance of the restart or stop, in ms; GW_NO_END for an
 * unlimited drain (it is then armed when closing starts, with drain_ms 0). */
int64_t gw_budget_forced_exit(int64_t drain_ms);

/* What is left of a budget after elapsed_ms: 0 when it is used up, GW_NO_END stays. */
int64_t gw_budget_left(int64_t budget_ms, int64_t elapsed_ms);

/* A supervisor that kills stop_timeout_ms after it has asked for the stop, and cannot be asked for more time: the
 * forced exit has to come before, and the drain before that. The forced exit is min(5,000, a tenth) earlier than
 * the supervisor; of what is left, 25,000 or at most half are kept for closing; the drain gets the rest. */
struct gw_budget_fit {
    int64_t drain_ms;  /* at most what was asked for */
    int64_t forced_ms; /* of the forced exit, counted from the same moment */
    bool cut;          /* less than was asked for */
};
struct gw_budget_fit gw_budget_fit(int64_t drain_ms, int64_t stop_timeout_ms);
