/* hub.c - the host's events to everybody who listens: server-sent events and WebSockets. */
#include "net/inside.h"

#include "base/str.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void gw_hub_detach(struct gw_subscriber *sub)
{
    gw_list_remove(&sub->link);
}

/* ---- what was said last ---- */

static void drop_oldest(struct gw_kept_events *k)
{
    struct gw_kept_event *e = &k->ring[k->first];
    k->bytes -= strlen(e->event) + strlen(e->data);
    free(e->event);
    free(e->data);
    k->first = (k->first + 1) % EVENTS_KEPT;
    k->count--;
}

void gw_hub_forget_kept(struct gw_net *net)
{
    while (net->kept.count > 0)
        drop_oldest(&net->kept);
}

static void keep(struct gw_net *net, const char *event, const char *data)
{
    struct gw_kept_events *k = &net->kept;
    if (k->count == EVENTS_KEPT)
        drop_oldest(k);
    k->ring[(k->first + k->count++) % EVENTS_KEPT] = (struct gw_kept_event){gw_strdup(event), gw_strdup(data)};
    k->bytes += strlen(event) + strlen(data);
    while (k->bytes > EVENTS_KEPT_BYTES)
        drop_oldest(k);
    if (strcmp(event, "state") == 0) {
        free(k->state);
        k->state = gw_strdup(data);
    }
}

static void add_event(struct gw_buf *out, uint64_t id, const char *event, const char *data)
{
    gw_buf_addf(out, "id: %" PRIu64 "\nevent: %s\ndata: %s\n\n", id, event, data);
}

/* What a subscriber is told first: what it has missed since `after`, its Last-Event-ID; else where the host is. */
static void begin(struct gw_net *net, const char *after, struct gw_buf *out)
{
    const struct gw_kept_events *k = &net->kept;
    int64_t id = 0;
    uint64_t last = net->last_event_id;
    gw_buf_adds(out, "retry: 1000\n\n"); // come back soon after a restart that closes the stream
    if (after != NULL && gw_parse_int(after, 0, INT64_MAX, &id) && (uint64_t)id <= last && last - (uint64_t)id <= k->count) {
        for (uint64_t missed = last - (uint64_t)id; missed > 0; missed--) {
            const struct gw_kept_event *e = &k->ring[(k->first + k->count - missed) % EVENTS_KEPT];
            add_event(out, last - missed + 1, e->event, e->data);
        }
        return;
    }
    if (after != NULL)
        gw_buf_adds(out, ": what came after that Last-Event-ID is not kept here; this is how it is now\n\n");
    if (k->state != NULL) // without a number: it is no event, and its reader has had those that have one
        gw_buf_addf(out, "event: state\ndata: %s\n\n", k->state);
}

/* ---- who listens ---- */

void gw_hub_attach(struct gw_net *net, struct gw_request *req)
{
    static const struct gw_header headers[] = {{"Content-Type", "text/event-stream"},
                                               {"Cache-Control", "no-cache"},
                                               {"X-Accel-Buffering", "no"}}; // a proxy that collects them tells them late
    struct gw_buf first = {0};
    begin(net, gw_request_header(req, "Last-Event-ID"), &first);
    struct gw_stream *s = gw_stream_begin(req, 200, headers, 3);
    s->internal = true;
    if (s->conn != NULL && (s->silent || net->winding_down)) {
        gw_stream_end(s);
    } else if (s->conn != NULL) {
        s->sub.stream = s;
        gw_list_append(&net->subscribers, &s->sub.link);
        gw_conn_keepalive(s->conn);
        (void)gw_stream_write(s, first.data, first.len);
    }
    gw_buf_fini(&first);
}

void gw_hub_attach_ws(struct gw_ws *ws)
{
    if (ws->conn == NULL || gw_list_linked(&ws->sub.link))
        return;
    ws->sub.ws = ws;
    gw_list_append(&ws->net->subscribers, &ws->sub.link);
}

void gw_hub_ping(struct gw_stream *s)
{
    static const char comment[] = ": ping\n\n";
    (void)gw_stream_write(s, comment, sizeof comment - 1);
}

void gw_hub_probe(struct gw_stream *s)
{
    if (s->internal && !s->probed) {
        s->probed = true;
        gw_hub_ping(s);
    }
}

static void publish_to(struct gw_subscriber *sub, const struct gw_buf *sse, const struct gw_buf *frame)
{
    if (sub->stream != NULL) {
        struct gw_conn *c = sub->stream->conn;
        // Who does not keep up is let go: it knows from the ids what it has missed.
        if (gw_stream_write(sub->stream, sse->data, sse->len) < 0 && c->state != GW_CONN_CLOSED)
            gw_conn_cut(c);
    } else if (gw_ws_send(sub->ws, GW_WS_TEXT, frame->data, frame->len) < 0) {
        struct gw_ws *ws = sub->ws;
        gw_hub_detach(sub);
        gw_ws_end(ws, 1013, "too slow for the events");
    }
}

/* An event while the connections stand still. */
struct gw_missed {
    struct gw_missed *next;
    char *event, *data; /* owned */
};

static void miss(struct gw_net *net, const char *event, const char *data)
{
    struct gw_missed *m = gw_calloc(1, sizeof *m);
    m->event = gw_strdup(event);
    m->data = gw_strdup(data);
    if (net->missed == NULL)
        net->missed_end = &net->missed;
    *net->missed_end = m;
    net->missed_end = &m->next;
}

static struct gw_missed *free_missed(struct gw_missed *m)
{
    struct gw_missed *next = m->next;
    free(m->event);
    free(m->data);
    free(m);
    return next;
}

void gw_hub_forget(struct gw_net *net)
{
    while (net->missed != NULL)
        net->missed = free_missed(net->missed);
}

void gw_hub_catch_up(struct gw_net *net)
{
    struct gw_missed *m = net->missed;
    net->missed = NULL;
    for (; m != NULL; m = free_missed(m))
        gw_hub_publish(net, m->event, m->data);
}

void gw_hub_publish(struct gw_net *net, const char *event, const char *data)
{
    if (net->frozen) {
        miss(net, event, data);
        return;
    }
    net->last_event_id++;
    keep(net, event, data);
    if (gw_list_empty(&net->subscribers) || net->closing)
        return;
    struct gw_buf sse = {0}, frame = {0};
    add_event(&sse, net->last_event_id, event, data);
    gw_buf_addf(&frame, "{\"event\":%s}", data);
    // Sending may take a subscriber out, this one only, and never frees it here.
    for (struct gw_list *l = net->subscribers.next, *next; l != &net->subscribers; l = next) {
        next = l->next;
        publish_to(gw_container(l, struct gw_subscriber, link), &sse, &frame);
    }
    gw_buf_fini(&sse);
    gw_buf_fini(&frame);
}
