/* outlet.c - goes on with the log when its reader has room again.
 *
 * By a clock and not by watching: what standard error leads to may be shared, and watching would make it one that does
 * not wait for all who share it. It runs only while lines wait. */
#include "host/inside.h"

enum { FIRST_MS = 5, LAST_MS = 1000 };

static void on_look(uv_timer_t *timer)
{
    struct gw_host *h = timer->data;
    if (gw_log_flush())
        return;
    h->log_wait_ms = h->log_wait_ms * 2 < LAST_MS ? h->log_wait_ms * 2 : LAST_MS;
    (void)uv_timer_start(timer, on_look, h->log_wait_ms, 0);
}

static void on_stall(void *host)
{
    struct gw_host *h = host;
    h->log_wait_ms = FIRST_MS;
    (void)uv_timer_start(&h->log_timer, on_look, h->log_wait_ms, 0);
}

void gw_outlet_open(struct gw_host *h)
{
    (void)uv_timer_init(&h->loop, &h->log_timer);
    h->log_timer.data = h;
    gw_log_on_stall(on_stall, h);
}
