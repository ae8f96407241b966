/* progress.h - how a restart or stop goes: one live line on a terminal, plain lines elsewhere. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct gw_progress {
    bool quiet, live, colours;
    bool told;             /* phase is that of an event, newer than a status that was asked for */
    bool shown;            /* the live line is on the screen */
    bool draining, stale;  /* stale: what is left has changed, ask for the status */
    uint64_t began_ms;     /* monotonic */
    uint64_t drain_ms;     /* when the drain began */
    int64_t budget_ms;     /* -1: without a limit */
    int64_t tasks, runs;
    char phase[32];
    char blockers[512];
};

/* Standard error is where it goes; quiet: nowhere. */
void gw_progress_init(struct gw_progress *p, bool quiet);

/* Takes in an event of the host; prints what people want to know of it. */
void gw_progress_event(struct gw_progress *p, const json_t *event);

/* Takes in the object of op status. */
void gw_progress_status(struct gw_progress *p, const json_t *status);

/* A line of its own, stamped with the time since the beginning. ud is the progress. */
void gw_progress_say(void *ud, const char *words);

/* Draws the live line afresh. */
void gw_progress_draw(struct gw_progress *p);

/* When it wants to be drawn again (gw_now_ms); UINT64_MAX: only after events. */
uint64_t gw_progress_due(const struct gw_progress *p);

/* Takes the live line away. */
void gw_progress_end(struct gw_progress *p);
