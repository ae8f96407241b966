/* limit.h - a time limit that looks at what has come before it judges.
 *
 * libuv runs timers before it looks at descriptors. A process that stood still (a stopped or frozen one, a machine
 * that slept) would so find its limits over, while what they waited for lies in the kernel. Here the loop looks at its
 * descriptors once more between the end of the time and the call. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct gw_limit;
typedef void gw_limit_cb(struct gw_limit *limit);

/* Inside its owner; closed with the loop's other handles, by uv_walk() or uv_close() of `timer`. */
struct gw_limit {
    uv_timer_t timer;
    void *data; /* the owner's */
    gw_limit_cb *cb;
    bool over;  /* the time is; descriptors are looked at once more */
    uint64_t due_ms; /* 0: it does not run */
};

void gw_limit_init(uv_loop_t *loop, struct gw_limit *limit, void *data);
/* cb in ms from now, which is not the loop's last look at the clock but the time itself. Anew if it runs already. */
void gw_limit_start(struct gw_limit *limit, gw_limit_cb *cb, uint64_t ms);
void gw_limit_stop(struct gw_limit *limit);
/* One that runs gets ms more. */
void gw_limit_shift(struct gw_limit *limit, uint64_t ms);
