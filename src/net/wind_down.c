/* wind_down.c - the polite end of all connections. */
#include "base/err.h"
#include "net/inside.h"

#include <stdlib.h>

static void tell_done(struct gw_ready *r)
{
    struct gw_net *net = gw_container(r, struct gw_net, wind_down.ready);
    void (*cb)(void *ud) = net->wind_down.cb;
    net->wind_down.cb = NULL;
    if (cb != NULL)
        cb(net->wind_down.ud);
}

void gw_wind_down_check(struct gw_net *net)
{
    if (net->winding_down && gw_list_empty(&net->conns) && net->wind_down.cb != NULL)
        gw_ready_queue(net, &net->wind_down.ready, tell_done);
}

void gw_net_say_close(struct gw_net *net, bool say)
{
    net->saying_close = say;
}

bool gw_net_wind_up(struct gw_net *net)
{
    if (!net->winding_down)
        return false;
    net->winding_down = net->saying_close = false;
    net->wind_down.cb = NULL;
    free(net->wind_down.reason);
    net->wind_down.reason = NULL;
    gw_ready_cancel(&net->wind_down.ready);
    for (struct gw_list *l = net->conns.next, *next; l != &net->conns; l = next) {
        next = l->next;
        gw_conn_settle(gw_container(l, struct gw_conn, link)); // idle ones have their ordinary time again
    }
    return true;
}

void gw_net_wind_down(struct gw_net *net, unsigned ws_code, const char *ws_reason, unsigned idle_grace_ms,
                      void (*done)(void *ud), void *ud)
{
    gw_assert(!net->winding_down && !net->closing);
    net->wind_down.code = ws_code;
    net->wind_down.reason = gw_strdup(ws_reason);
    net->wind_down.cb = done;
    net->wind_down.ud = ud;
    net->deadlines.duration_ms[GW_TO_GRACE] = idle_grace_ms;
    gw_net_accept_rest(net); // whoever is in the kernel's queue has been accepted as far as it knows
    gw_net_unlisten(net);
    net->winding_down = true;
    for (struct gw_list *l = net->streams.next, *next; l != &net->streams; l = next) {
        next = l->next;
        struct gw_stream *s = gw_container(l, struct gw_stream, link);
        if (s->internal)
            gw_stream_end(s);
        else
            gw_stream_cut(s);
    }
    for (struct gw_list *l = net->websockets.next, *next; l != &net->websockets; l = next) {
        next = l->next;
        gw_ws_end(gw_container(l, struct gw_ws, link), ws_code, ws_reason);
    }
    for (struct gw_list *l = net->conns.next, *next; l != &net->conns; l = next) {
        next = l->next;
        gw_conn_settle(gw_container(l, struct gw_conn, link));
    }
    gw_wind_down_check(net);
}
