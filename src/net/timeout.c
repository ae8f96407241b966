/* timeout.c - one timer for the nearest of all deadlines. */
#include "base/err.h"
#include "net/inside.h"

static void timer_fired(uv_timer_t *timer);

/* Arms the timer for the nearest deadline, or stops it when there is none. */
static void rearm(struct gw_net *net)
{
    struct gw_timeouts *d = &net->deadlines;
    uint64_t nearest = 0;
    if (net->frozen)
        return;
    for (int i = 1; i < GW_TO_COUNT; i++) {
        if (gw_list_empty(&d->lists[i]))
            continue;
        uint64_t at = gw_container(d->lists[i].next, struct gw_timed, link)->at_ms;
        if (nearest == 0 || at < nearest)
            nearest = at;
    }
    if (nearest == d->armed_ms)
        return;
    d->armed_ms = nearest;
    if (nearest == 0) {
        (void)uv_timer_stop(&d->timer);
        return;
    }
    uint64_t now = uv_now(net->loop);
    (void)uv_timer_start(&d->timer, timer_fired, nearest > now ? nearest - now : 0, 0);
}

static void expire(struct gw_net *net, struct gw_timed *t)
{
    enum gw_timeout class = t->class;
    gw_list_remove(&t->link);
    net->deadlines.count[class]--;
    if (class == GW_TO_HELD) {
        gw_held_expire(t);
    } else if (class == GW_TO_ACCEPT) {
        t->class = GW_TO_NONE;
        gw_listener_expire(t);
    } else {
        gw_conn_expire(t);
    }
}

static void timer_fired(uv_timer_t *timer)
{
    struct gw_net *net = timer->data;
    struct gw_timeouts *d = &net->deadlines;
    uint64_t now = uv_now(net->loop);
    // What is late now is taken out first: an entry that is set again meanwhile waits for the next time.
    struct gw_list late;
    gw_list_init(&late);
    for (int i = 1; i < GW_TO_COUNT; i++) {
        while (!gw_list_empty(&d->lists[i])) {
            struct gw_timed *t = gw_container(d->lists[i].next, struct gw_timed, link);
            if (t->at_ms > now)
                break;
            gw_list_remove(&t->link);
            gw_list_append(&late, &t->link);
        }
    }
    d->armed_ms = 0;
    while (!gw_list_empty(&late))
        expire(net, gw_container(late.next, struct gw_timed, link));
    if (!net->closing)
        rearm(net);
}

void gw_timeout_init(struct gw_net *net)
{
    struct gw_timeouts *d = &net->deadlines;
    for (int i = 0; i < GW_TO_COUNT; i++)
        gw_list_init(&d->lists[i]);
    d->duration_ms[GW_TO_HEADER] = net->limits.header_ms;
    d->duration_ms[GW_TO_BODY] = net->limits.body_ms;
    d->duration_ms[GW_TO_IDLE] = net->limits.idle_ms;
    d->duration_ms[GW_TO_WRITE] = net->limits.write_ms;
    d->duration_ms[GW_TO_LINGER] = net->limits.linger_ms;
    d->duration_ms[GW_TO_HELD] = net->limits.held_ms;
    d->duration_ms[GW_TO_ACCEPT] = ACCEPT_PAUSE_MS;
    d->duration_ms[GW_TO_PING] = net->limits.ping_ms;
    int r = uv_timer_init(net->loop, &d->timer);
    gw_assert(r == 0);
    d->timer.data = net;
    net->handles++;
}

void gw_timeout_set(struct gw_net *net, struct gw_timed *t, enum gw_timeout class)
{
    struct gw_timeouts *d = &net->deadlines;
    uv_update_time(net->loop); // a callback of the owner may have taken long
    uint64_t at = uv_now(net->loop) + d->duration_ms[class];
    if (t->class == class && t->at_ms == at && gw_list_linked(&t->link))
        return;
    bool nearest = gw_list_linked(&t->link) && t->at_ms == d->armed_ms;
    if (gw_list_linked(&t->link)) {
        gw_list_remove(&t->link);
        d->count[t->class]--;
    }
    t->class = class;
    t->at_ms = at;
    d->count[class]++;
    gw_list_append(&d->lists[class], &t->link);
    if (nearest || d->armed_ms == 0 || at < d->armed_ms)
        rearm(net);
}

void gw_timeout_clear(struct gw_net *net, struct gw_timed *t)
{
    if (!gw_list_linked(&t->link)) {
        t->class = GW_TO_NONE;
        return;
    }
    bool nearest = t->at_ms == net->deadlines.armed_ms;
    gw_list_remove(&t->link);
    net->deadlines.count[t->class]--;
    t->class = GW_TO_NONE;
    if (nearest)
        rearm(net);
}

void gw_timeout_link(struct gw_net *net, struct gw_timed *t)
{
    net->deadlines.count[t->class]++;
    gw_list_append(&net->deadlines.lists[t->class], &t->link);
}

void gw_timeout_shift(struct gw_net *net, uint64_t ms)
{
    for (int i = 1; i < GW_TO_COUNT; i++) {
        struct gw_list *list = &net->deadlines.lists[i];
        for (struct gw_list *l = list->next; l != list; l = l->next)
            gw_container(l, struct gw_timed, link)->at_ms += ms;
    }
}

uint64_t gw_net_due(const struct gw_net *net)
{
    return net->frozen ? 0 : net->deadlines.armed_ms;
}

void gw_net_stood_still(struct gw_net *net, uint64_t ms)
{
    gw_timeout_shift(net, ms);
    net->deadlines.armed_ms = 0;
    gw_timeout_start(net);
}

void gw_timeout_stop(struct gw_net *net)
{
    (void)uv_timer_stop(&net->deadlines.timer);
    net->deadlines.armed_ms = 0;
}

void gw_timeout_start(struct gw_net *net)
{
    uv_update_time(net->loop);
    rearm(net);
}
