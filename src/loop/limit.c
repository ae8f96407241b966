#include "loop/limit.h"

#include "base/time.h"

void gw_limit_init(uv_loop_t *loop, struct gw_limit *limit, void *data)
{
    (void)uv_timer_init(loop, &limit->timer);
    limit->timer.data = limit;
    limit->data = data;
}

static void on_timer(uv_timer_t *timer)
{
    struct gw_limit *limit = timer->data;
    if (limit->over) {
        limit->over = false;
        limit->due_ms = 0;
        limit->cb(limit);
        return;
    }
    limit->over = true;
    (void)uv_timer_start(timer, on_timer, 1, 0); // with 0 it would come before the descriptors again
}

void gw_limit_start(struct gw_limit *limit, gw_limit_cb *cb, uint64_t ms)
{
    limit->cb = cb;
    limit->over = false;
    limit->due_ms = gw_now_ms() + ms;
    uv_update_time(limit->timer.loop);
    (void)uv_timer_start(&limit->timer, on_timer, ms, 0);
}

void gw_limit_shift(struct gw_limit *limit, uint64_t ms)
{
    uint64_t now = gw_now_ms(), due = limit->due_ms + ms;
    if (limit->due_ms > 0)
        gw_limit_start(limit, limit->cb, due > now ? due - now : 0);
}

void gw_limit_stop(struct gw_limit *limit)
{
    limit->over = false;
    limit->due_ms = 0;
    (void)uv_timer_stop(&limit->timer);
}
