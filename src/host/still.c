/* still.c - a process that stood still goes on as if no time had passed.
 *
 * A stopped process, a frozen group of processes or a machine that slept finds on its way on that all its times are over,
 * and nobody had a chance to keep them. The loop shows it: it began to wait before one of them was due and returned far
 * behind it, although a timer stood for it. When it began is not known, but it was not before the wait; so all that this
 * host has set itself gets the whole of it on top, before a timer is looked at. What others have set (a health budget of
 * the other process, a supervisor's end) goes on by their clocks. */
#include "host/inside.h"

enum { STOOD_STILL_MS = 1000 };

static void shift(struct gw_host *h, struct gw_limit *const *limits, size_t n, uint64_t ms)
{
    for (size_t i = 0; i < n; i++)
        gw_limit_shift(limits[i], ms);
    h->drain.accepted_ms += ms;
    h->drain.changed_ms += ms;
    h->drain.closing_ms += ms;
    if (h->net != NULL)
        gw_net_stood_still(h->net, ms);
    gw_sentry_shift(h->sentry, ms);
    gw_log(GW_WARN, "host.stood_still", json_pack("{sI}", "ms", (json_int_t)ms),
           "this process did not run for up to %llu ms; its budgets go on where they were", (unsigned long long)ms);
}

static void on_prepare(uv_prepare_t *prepare)
{
    struct gw_host *h = prepare->data;
    uv_update_time(&h->loop); // how long is waited is reckoned from now, whatever the callbacks before took
    h->still.since_ms = gw_now_ms();
}

static void on_check(uv_check_t *check)
{
    struct gw_host *h = check->data;
    struct gw_limit *const limits[] = {&h->start_limit, &h->close_limit, &h->drain.limit, &h->succession.limit};
    const size_t n = sizeof limits / sizeof *limits;
    uint64_t now = gw_now_ms(), since = h->still.since_ms, nearest = UINT64_MAX;
    for (size_t i = 0; i <= n; i++) {
        uint64_t due = i < n ? limits[i]->due_ms : h->net != NULL ? gw_net_due(h->net) : 0;
        if (due > since && due < nearest)
            nearest = due;
    }
    if (nearest < now && now - nearest > STOOD_STILL_MS)
        shift(h, limits, n, now - since);
}

void gw_still_open(struct gw_host *h)
{
    (void)uv_prepare_init(&h->loop, &h->still.prepare);
    (void)uv_check_init(&h->loop, &h->still.check);
    h->still.prepare.data = h->still.check.data = h;
    (void)uv_prepare_start(&h->still.prepare, on_prepare);
    (void)uv_check_start(&h->still.check, on_check);
    uv_unref((uv_handle_t *)&h->still.prepare);
    uv_unref((uv_handle_t *)&h->still.check);
}

void gw_still_close(struct gw_host *h)
{
    (void)uv_prepare_stop(&h->still.prepare);
    (void)uv_check_stop(&h->still.check);
}
