/* retain.h - what is kept of tasks that have ended, and of idempotency keys, and for how long.
 *
 * Age is not counted by the wall clock, which may jump and would take everything with it. It has a clock that is
 * kept in the database: never ahead of the wall's, and where that is ahead it follows at twice the time that passes,
 * and by at most an hour at each opening. So what is kept may be kept longer, and is not lost at once. */
#pragma once

#include "work/rows.h"

#define GW_KEY_MS (24LL * 3600 * 1000) /* how long a key names its task, whatever else is submitted */

struct gw_retain {
    struct gw_retention keep; /* 0: no limit */
    struct gw_weight kept;    /* in the file */
    int64_t clock_ms;
    uint64_t clock_at_ms, look_at_ms; /* monotonic */
    bool due, pruning;
};

/* The clock at an opening; before: as it was kept, 0: never. */
void gw_retain_begin(struct gw_retain *t, int64_t before_ms, int64_t wall_ms, uint64_t now_ms);
/* The clock now. */
int64_t gw_retain_clock(struct gw_retain *t, int64_t wall_ms, uint64_t now_ms);
/* Weighs what is in the file. */
int gw_retain_weigh(struct gw_retain *t, struct gw_rows *rows, struct gw_err *err);
/* Says whether there may be something to do, after that has ended. */
void gw_retain_add(struct gw_retain *t, const struct gw_weight *ended, uint64_t now_ms);
/* One small step of its own, with one commit at most, so that work never waits long behind it. due says whether
 * another follows. What fails is found and said by the next batch. */
void gw_retain_step(struct gw_retain *t, struct gw_rows *rows);
