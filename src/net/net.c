/* net.c - the life of the whole: opening, closing, limits, counts, and the work left for the loop. */
#include "base/err.h"
#include "net/inside.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct gw_net_limits gw_net_limits_default(void)
{
    return (struct gw_net_limits){
        .header_bytes = 16384,
        .body_bytes = 1048576,
        .connections = 10000,
        .beyond = 65536, // more than any queue holds
        .header_ms = 10000,
        .body_ms = 30000,
        .idle_ms = 75000,
        .write_ms = 30000,
        .held = 1024,
        .held_ms = 5000,
        .ping_ms = 25000, // proxies end what is silent for 60 s
        .ws_message_bytes = 1048576,
        .linger_ms = 2000,
        .send_buffer_bytes = 1048576,
    };
}

/* ---- work for the loop ---- */

static void run_ready(uv_idle_t *idle)
{
    struct gw_net *net = idle->data;
    struct gw_list now;
    gw_list_init(&now);
    gw_list_move(&now, &net->ready); // what is queued meanwhile has its turn after the loop looked at sockets
    while (!gw_list_empty(&now)) {
        struct gw_ready *r = gw_container(now.next, struct gw_ready, link);
        gw_list_remove(&r->link);
        r->run(r);
    }
    if (gw_list_empty(&net->ready) && net->idle_active) {
        net->idle_active = false;
        (void)uv_idle_stop(&net->idle);
    }
}

void gw_ready_queue(struct gw_net *net, struct gw_ready *r, void (*run)(struct gw_ready *r))
{
    if (net->closing)
        return;
    r->run = run;
    if (!gw_list_linked(&r->link))
        gw_list_append(&net->ready, &r->link);
    gw_ready_start(net);
}

void gw_ready_start(struct gw_net *net)
{
    if (net->idle_active || net->frozen || gw_list_empty(&net->ready))
        return;
    net->idle_active = true;
    (void)uv_idle_start(&net->idle, run_ready);
}

void gw_ready_cancel(struct gw_ready *r)
{
    gw_list_remove(&r->link);
}

/* ---- life ---- */

int gw_net_open(uv_loop_t *loop, const struct gw_net_limits *limits, const struct gw_net_ops *ops, void *ud,
                struct gw_net **ret_net, struct gw_err *err)
{
    gw_assert(ops->request != NULL);
    struct gw_net *net = gw_calloc(1, sizeof *net);
    net->loop = loop;
    net->ops = *ops;
    net->ud = ud;
    net->limits = limits != NULL ? *limits : gw_net_limits_default();
    struct gw_list *lists[] = {&net->ready,    &net->listeners, &net->conns,      &net->in_hand, &net->held,
                               &net->released, &net->spare,     &net->websockets, &net->streams, &net->subscribers};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        gw_list_init(lists[i]);
    int r = gw_frame_context_open(net);
    if (r < 0) {
        free(net);
        return gw_err_set(err, r, "open a WebSocket decoder: %s", gw_strerror(r));
    }
    (void)uv_idle_init(loop, &net->idle); // cannot fail
    net->idle.data = net;
    net->handles = 1;
    gw_timeout_init(net);
    gw_net_tag(net, "");
    *ret_net = net;
    return 0;
}

static void free_net(struct gw_net *net)
{
    while (!gw_list_empty(&net->spare)) {
        struct gw_request *req = gw_container(net->spare.next, struct gw_request, link);
        gw_list_remove(&req->link);
        net->spare_count = SPARE_REQUESTS; // really free it
        gw_request_free(req);
    }
    wslay_frame_context_free(net->frames);
    gw_buf_fini(&net->head);
    gw_buf_fini(&net->text);
    free(net->tag);
    free(net->wind_down.reason);
    gw_hub_forget_kept(net);
    free(net->kept.state);
    void (*cb)(void *ud) = net->close_cb;
    void *ud = net->close_ud;
    free(net);
    if (cb != NULL)
        cb(ud);
}

void gw_net_handle_closed(struct gw_net *net)
{
    gw_assert(net->handles > 0);
    if (--net->handles == 0)
        free_net(net);
}

static void own_handle_closed(uv_handle_t *handle)
{
    gw_net_handle_closed(handle->data);
}

/* Frees the requests of a list, whoever has them. */
static void drop_requests(struct gw_list *list)
{
    while (!gw_list_empty(list))
        gw_request_free(gw_container(list->next, struct gw_request, link));
}

void gw_net_close(struct gw_net *net, void (*cb)(void *ud), void *ud)
{
    gw_assert(!net->closing);
    gw_hub_forget(net);
    net->closing = true; // from here on nothing is queued and nobody is called
    net->close_cb = cb;
    net->close_ud = ud;
    gw_net_unlisten(net);
    while (!gw_list_empty(&net->conns))
        gw_conn_cut(gw_container(net->conns.next, struct gw_conn, link));
    drop_requests(&net->in_hand);
    drop_requests(&net->held);
    drop_requests(&net->released);
    while (!gw_list_empty(&net->streams))
        gw_stream_free(gw_container(net->streams.next, struct gw_stream, link));
    while (!gw_list_empty(&net->websockets))
        gw_ws_free(gw_container(net->websockets.next, struct gw_ws, link));
    while (!gw_list_empty(&net->ready))
        gw_list_remove(net->ready.next);
    gw_ready_cancel(&net->release); // these may be in a turn that is under way
    gw_ready_cancel(&net->wind_down.ready);
    uv_close((uv_handle_t *)&net->idle, own_handle_closed);
    uv_close((uv_handle_t *)&net->deadlines.timer, own_handle_closed);
}

void gw_net_limit(struct gw_net *net, unsigned connections, unsigned beyond)
{
    net->limits.connections = connections;
    net->limits.beyond = beyond;
}

void gw_net_tag(struct gw_net *net, const char *tag)
{
    char *copy = gw_strdup(tag);
    free(net->tag);
    net->tag = copy;
    net->date_s = 0; // has the common lines made again
}

struct gw_net_counts gw_net_counts(const struct gw_net *net)
{
    struct gw_net_counts counts = net->counts;
    counts.idle = net->deadlines.count[GW_TO_IDLE] + net->deadlines.count[GW_TO_GRACE];
    counts.accept_paused = net->accept_full || gw_list_linked(&net->accept_pause.link);
    return counts;
}
