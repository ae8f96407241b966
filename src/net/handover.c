/* handover.c - connections that go on in another process.
 *
 * A connection is its descriptor, the raw bytes since the last boundary of a message or frame, the bytes that
 * the kernel has not taken yet, and a few facts. The parser holds nothing that these bytes do not say: a request
 * that is half there, or held, is read again from its first byte. */
#include "base/err.h"
#include "base/json.h"
#include "net/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH_BYTES = 1 << 20 };

/* ---- standing still ---- */

void gw_net_freeze(struct gw_net *net)
{
    if (net->frozen)
        return;
    // What an application streamed ends with it; the hub's streams go on.
    for (struct gw_list *l = net->streams.next, *next; l != &net->streams; l = next) {
        next = l->next;
        struct gw_stream *s = gw_container(l, struct gw_stream, link);
        if (!s->internal)
            gw_stream_cut(s);
    }
    net->frozen = true;
    uv_update_time(net->loop);
    net->frozen_ms = uv_now(net->loop);
    for (struct gw_list *l = net->conns.next; l != &net->conns; l = l->next) {
        struct gw_conn *c = gw_container(l, struct gw_conn, link);
        (void)uv_poll_stop(&c->poll);
        c->polled = 0;
    }
    gw_listener_repoll(net);
    gw_timeout_stop(net);
    (void)uv_idle_stop(&net->idle);
    net->idle_active = false;
}

static int by_deadline(const void *a, const void *b)
{
    const struct gw_conn *const *x = a, *const *y = b;
    return (*x)->timed.at_ms < (*y)->timed.at_ms ? -1 : (*x)->timed.at_ms > (*y)->timed.at_ms;
}

/* Ages moved with the connections: their deadlines go into the lists in order. */
static void link_deadlines(struct gw_net *net)
{
    size_t n = 0, cap = 0;
    struct gw_conn **all = NULL;
    for (struct gw_list *l = net->conns.next; l != &net->conns; l = l->next) {
        struct gw_conn *c = gw_container(l, struct gw_conn, link);
        if (!c->adopted || c->timed.class == GW_TO_NONE)
            continue;
        // Who stood by has been frozen for longer than they have: then this takes away.
        c->timed.at_ms += net->frozen_ms - net->adopted_ms;
        if (n == cap) {
            cap = cap > 0 ? cap * 2 : 64;
            all = gw_realloc(all, cap * sizeof(struct gw_conn *));
        }
        all[n++] = c;
    }
    if (n > 0)
        qsort(all, n, sizeof *all, by_deadline);
    for (size_t i = 0; i < n; i++)
        gw_timeout_link(net, &all[i]->timed);
    free(all);
}

void gw_net_thaw(struct gw_net *net)
{
    if (!net->frozen)
        return;
    net->frozen = false;
    // Nobody was late while nobody was looked at: all stand as they did at their freeze, and then as at the thaw.
    link_deadlines(net);
    uv_update_time(net->loop);
    gw_timeout_shift(net, uv_now(net->loop) - net->frozen_ms);
    for (struct gw_list *l = net->conns.next, *next; l != &net->conns; l = next) {
        next = l->next;
        struct gw_conn *c = gw_container(l, struct gw_conn, link);
        // Looked at before it is settled: what it waits for, and since when, shows in its input.
        if (c->adopted && c->state == GW_CONN_OPEN)
            gw_conn_process_soon(c);
        else
            gw_conn_settle(c);
        c->adopted = c->described = false; // they are ours, whoever they were described to
    }
    gw_listener_repoll(net);
    gw_timeout_start(net);
    gw_ready_start(net);
    gw_hub_catch_up(net);
}

/* ---- describing ---- */

static void add_bytes(json_t *o, const char *key, struct gw_buf *blob, const char *data, size_t n)
{
    if (n == 0)
        return;
    gw_json_set(o, key, json_integer((json_int_t)n));
    gw_buf_add(blob, data, n);
}

static void add_flag(json_t *o, const char *key, bool set)
{
    if (set)
        gw_json_set(o, key, json_true());
}

/* The request that opened a WebSocket, as a client would send it, and never longer than it did. */
static void write_head(const struct gw_request_info *info, struct gw_buf *out)
{
    gw_buf_addf(out, "%s %s HTTP/1.1\r\n", info->method, info->target);
    for (size_t i = 0; i < info->header_count; i++) // Host is in the target again, if it came from there
        gw_buf_addf(out, "%s:%s\r\n", info->headers[i].name,
                    *info->target != '/' && strcasecmp(info->headers[i].name, "Host") == 0 ? "" : info->headers[i].value);
    gw_buf_adds(out, "\r\n");
}

static void describe_ws(const struct gw_ws *ws, json_t *o, struct gw_buf *blob)
{
    struct gw_buf head = {0};
    write_head(&ws->req->info, &head);
    add_bytes(o, "head", blob, head.data, head.len);
    gw_buf_fini(&head);
    add_bytes(o, "fragment", blob, ws->message.data, ws->message.len);
    add_bytes(o, "value", blob, ws->value.data, ws->value.len);
    if (ws->protocol != NULL)
        gw_json_set(o, "subprotocol", gw_json_string(ws->protocol));
    gw_json_set(o, "kind", json_integer(ws->kind));
    gw_json_set(o, "code", json_integer(ws->code));
    add_flag(o, "subscribed", gw_list_linked(&ws->sub.link));
    add_flag(o, "close_sent", ws->close_sent);
    add_flag(o, "close_received", ws->close_received);
}

static json_t *describe(const struct gw_conn *c, struct gw_buf *blob)
{
    json_t *o = json_object();
    const char *protocol = c->ws != NULL ? "websocket" : c->stream != NULL ? "sse" : "http";
    gw_json_set(o, "protocol", json_string(protocol));
    gw_json_set(o, "id", json_integer((json_int_t)c->id));
    gw_json_set(o, "peer", json_string(c->peer));
    gw_json_set(o, "messages", json_integer(c->messages));
    if (c->timed.class != GW_TO_NONE && c->timed.class != GW_TO_PING) {
        gw_json_set(o, "deadline", json_integer(c->timed.class));
        gw_json_set(o, "deadline_ms", json_integer((json_int_t)c->timed.at_ms));
    }
    add_flag(o, "local", c->local);
    add_flag(o, "last", c->last);
    add_flag(o, "client_last", c->client_last);
    add_flag(o, "eof", c->eof);
    add_flag(o, "lingering", c->state == GW_CONN_LINGERING);
    add_flag(o, "continued", c->continued);
    add_bytes(o, "raw", blob, c->in.data != NULL ? c->in.data + c->start : "", gw_conn_unread(c));
    add_bytes(o, "unsent", blob, c->out.data != NULL ? c->out.data + c->out_start : "", gw_conn_unsent(c));
    if (c->ws != NULL)
        describe_ws(c->ws, o, blob);
    if (c->stream != NULL) {
        add_flag(o, "chunked", c->stream->chunked);
        add_flag(o, "keep_alive", c->stream->keep_alive);
        add_flag(o, "silent", c->stream->silent);
        add_flag(o, "subscribed", gw_list_linked(&c->stream->sub.link));
    }
    return o;
}

static size_t bytes_of(const struct gw_conn *c)
{
    size_t n = gw_conn_unread(c) + gw_conn_unsent(c);
    return c->ws != NULL ? n + c->ws->message.len + c->ws->value.len : n;
}

bool gw_net_describe(struct gw_net *net, uint64_t *io_after, struct gw_net_batch *ret)
{
    struct gw_net_batch b = {.head = json_object()};
    json_t *list = json_array();
    // New ones are appended with greater ids, and so are adopted ones: the list is in their order.
    for (struct gw_list *l = net->conns.next; l != &net->conns; l = l->next) {
        struct gw_conn *c = gw_container(l, struct gw_conn, link);
        if (c->id <= *io_after || bytes_of(c) > GW_NET_MOVES_BYTES)
            continue;
        if (b.fd_count == GW_NET_BATCH || b.blob.len >= BATCH_BYTES)
            break;
        (void)json_array_append_new(list, describe(c, &b.blob));
        b.fds[b.fd_count++] = c->fd;
        c->described = true;
        *io_after = c->id;
    }
    gw_json_set(b.head, "version", json_integer(GW_NET_HANDOVER_VERSION));
    gw_json_set(b.head, "frozen_ms", json_integer((json_int_t)net->frozen_ms));
    gw_json_set(b.head, "connections", list);
    *ret = b;
    if (b.fd_count > 0)
        return true;
    gw_net_batch_fini(ret);
    return false;
}

unsigned gw_net_let_go(struct gw_net *net)
{
    gw_assert(net->frozen);
    for (struct gw_list *l = net->conns.next, *next; l != &net->conns; l = next) {
        next = l->next;
        struct gw_conn *c = gw_container(l, struct gw_conn, link);
        if (c->described)
            gw_conn_cut(c); // closes, and touches nothing that the other process has too
    }
    return net->counts.open;
}

uint64_t gw_net_events(const struct gw_net *net)
{
    return net->last_event_id;
}

void gw_net_events_from(struct gw_net *net, uint64_t last)
{
    if (last <= net->last_event_id)
        return;
    gw_hub_forget_kept(net); // between these and the next there may be others, which were another process's
    net->last_event_id = last;
}

void gw_net_batch_fini(struct gw_net_batch *b)
{
    json_decref(b->head);
    gw_buf_fini(&b->blob);
    b->head = NULL;
    b->fd_count = 0;
}

/* ---- adopting ---- */

static const char *const pieces[] = {"raw", "unsent", "head", "fragment", "value"}; // in the order of the blob
enum { RAW, UNSENT, HEAD, FRAGMENT, VALUE, PIECES };

static bool is_number(const json_t *o, const char *key, json_int_t max, bool required)
{
    const json_t *v = json_object_get(o, key);
    return v == NULL ? !required : json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) <= max;
}

static bool is_flag(const json_t *o, const char *key)
{
    return json_is_true(json_object_get(o, key));
}

/* Whether o can be taken as it is. *io_bytes grows by what it has in the blob. */
static const char *check_one(const struct gw_net *net, const json_t *o, size_t *io_bytes, size_t blob_bytes)
{
    const char *protocol = json_string_value(json_object_get(o, "protocol"));
    const char *peer = json_string_value(json_object_get(o, "peer"));
    bool ws = protocol != NULL && strcmp(protocol, "websocket") == 0;
    if (protocol == NULL || (!ws && strcmp(protocol, "http") != 0 && strcmp(protocol, "sse") != 0))
        return "protocol";
    if (peer == NULL || strlen(peer) >= sizeof((struct gw_conn *)0)->peer)
        return "peer";
    if (!is_number(o, "id", INT64_MAX, true) || !is_number(o, "messages", UINT32_MAX, true))
        return "id";
    if (!is_number(o, "deadline", GW_TO_LINGER, false) || !is_number(o, "deadline_ms", INT64_MAX, false))
        return "deadline";
    for (int i = 0; i < PIECES; i++) {
        if (!is_number(o, pieces[i], (json_int_t)(blob_bytes - *io_bytes), i == HEAD && ws) || (i >= HEAD && !ws && json_object_get(o, pieces[i]) != NULL))
            return pieces[i];
        *io_bytes += (size_t)json_integer_value(json_object_get(o, pieces[i]));
    }
    if (ws && (!is_number(o, "kind", 2, true) || !is_number(o, "code", 65535, true)))
        return "kind";
    json_int_t fragment = json_integer_value(json_object_get(o, "fragment"));
    if (fragment > (json_int_t)net->limits.ws_message_bytes ||
        (fragment > 0 && json_integer_value(json_object_get(o, "kind")) == 0))
        return "fragment";
    if (json_integer_value(json_object_get(o, "value")) > WS_VALUE_BYTES)
        return "value";
    return NULL;
}

static bool is_connected(int fd)
{
    int type = 0, listening = 0;
    socklen_t len = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_STREAM)
        return false;
    len = sizeof listening;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) == 0 && !listening;
}

static int check(const struct gw_net *net, const json_t *head, size_t blob_bytes, size_t fd_count, struct gw_err *err)
{
    const json_t *list = json_object_get(head, "connections");
    if (json_integer_value(json_object_get(head, "version")) != GW_NET_HANDOVER_VERSION)
        return gw_err_set(err, -EPROTO, "connections are described in a version that is not known here");
    if (!json_is_array(list) || json_array_size(list) != fd_count || !is_number(head, "frozen_ms", INT64_MAX, true))
        return gw_err_set(err, -EPROTO, "the descriptors are not as many as the connections");
    size_t bytes = 0;
    for (size_t i = 0; i < fd_count; i++) {
        const char *field = check_one(net, json_array_get(list, i), &bytes, blob_bytes);
        if (field != NULL)
            return gw_err_set(err, -EPROTO, "connection %zu: the field '%s' is not understood", i, field);
    }
    return bytes == blob_bytes ? 0 : gw_err_set(err, -EPROTO, "%zu bytes are nobody's", blob_bytes - bytes);
}

static void adopt_ws(struct gw_conn *c, const json_t *o, const char *const *data, const size_t *len)
{
    struct gw_net *net = c->net;
    struct gw_ws *ws = gw_calloc(1, sizeof *ws);
    ws->net = net;
    ws->conn = c;
    gw_buf_add(&c->in, data[HEAD], len[HEAD]);
    ws->req = gw_http_read_head(c);
    gw_buf_fini(&c->in);
    c->req = NULL;
    c->start = c->parsed = 0;
    ws->req->state = GW_REQ_UPGRADED;
    ws->paused = true;
    ws->kind = (unsigned)json_integer_value(json_object_get(o, "kind"));
    ws->code = (unsigned)json_integer_value(json_object_get(o, "code"));
    ws->protocol = gw_strdup(json_string_value(json_object_get(o, "subprotocol")));
    ws->close_sent = is_flag(o, "close_sent");
    ws->close_received = is_flag(o, "close_received");
    gw_buf_add(&ws->message, data[FRAGMENT], len[FRAGMENT]);
    gw_buf_add(&ws->value, data[VALUE], len[VALUE]);
    gw_list_append(&net->websockets, &ws->link);
    net->counts.websockets++;
    c->ws = ws;
    if (is_flag(o, "subscribed"))
        gw_hub_attach_ws(ws);
}

static void adopt_sse(struct gw_conn *c, const json_t *o)
{
    struct gw_net *net = c->net;
    struct gw_stream *s = gw_calloc(1, sizeof *s);
    s->net = net;
    s->conn = c;
    s->internal = true;
    s->chunked = is_flag(o, "chunked");
    s->keep_alive = is_flag(o, "keep_alive");
    s->silent = is_flag(o, "silent");
    gw_list_append(&net->streams, &s->link);
    net->counts.streams++;
    c->stream = s;
    if (!is_flag(o, "subscribed"))
        return;
    s->sub.stream = s;
    gw_list_append(&net->subscribers, &s->sub.link);
}

/* Finds the pieces of o at blob. Returns how many bytes they have together. */
static size_t find_pieces(const json_t *o, const char *blob, const char **data, size_t *len)
{
    size_t used = 0;
    for (int i = 0; i < PIECES; i++) {
        data[i] = blob + used;
        len[i] = (size_t)json_integer_value(json_object_get(o, pieces[i]));
        used += len[i];
    }
    return used;
}

static void adopt_one(struct gw_conn *c, const json_t *o, const char *const *data, const size_t *len)
{
    uint64_t id = (uint64_t)json_integer_value(json_object_get(o, "id"));
    const char *protocol = json_string_value(json_object_get(o, "protocol"));
    if (id > c->net->last_conn_id)
        c->id = c->net->last_conn_id = id; // else it has the next number
    else
        c->id = ++c->net->last_conn_id;
    (void)snprintf(c->peer, sizeof c->peer, "%s", json_string_value(json_object_get(o, "peer")));
    c->local = is_flag(o, "local");
    c->messages = (unsigned)json_integer_value(json_object_get(o, "messages"));
    c->last = is_flag(o, "last");
    c->client_last = is_flag(o, "client_last");
    c->eof = is_flag(o, "eof");
    c->continued = is_flag(o, "continued");
    if (is_flag(o, "lingering"))
        c->state = GW_CONN_LINGERING;
    c->timed.class = (enum gw_timeout)json_integer_value(json_object_get(o, "deadline"));
    c->timed.at_ms = (uint64_t)json_integer_value(json_object_get(o, "deadline_ms"));
    if (strcmp(protocol, "websocket") == 0)
        adopt_ws(c, o, data, len);
    else if (strcmp(protocol, "sse") == 0)
        adopt_sse(c, o);
    gw_buf_add(&c->in, data[RAW], len[RAW]);
    gw_buf_add(&c->out, data[UNSENT], len[UNSENT]);
}

int gw_net_adopt(struct gw_net *net, const json_t *head, const char *blob, size_t blob_bytes, int *fds,
                 size_t fd_count, struct gw_err *err)
{
    gw_assert(net->frozen);
    int rc = check(net, head, blob_bytes, fd_count, err), left = 0;
    if (rc < 0)
        return rc;
    const json_t *list = json_object_get(head, "connections");
    net->adopted_ms = (uint64_t)json_integer_value(json_object_get(head, "frozen_ms"));
    for (size_t i = 0; i < fd_count; i++) {
        const json_t *o = json_array_get(list, i);
        const char *data[PIECES];
        size_t len[PIECES];
        blob += find_pieces(o, blob, data, len);
        struct gw_conn *c = is_connected(fds[i]) ? gw_conn_take(net, fds[i]) : NULL;
        if (c == NULL) {
            left++;
            continue;
        }
        fds[i] = -1;
        c->adopted = true;
        adopt_one(c, o, data, len);
    }
    return left;
}
