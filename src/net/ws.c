/* ws.c - WebSockets: handshake, messages, pings, the closing handshake. */
#include "base/err.h"
#include "base/sha.h"
#include "net/inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OP_CONTINUATION = 0, OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };

/* ---- the end ---- */

static void tell_closed(struct gw_ready *r)
{
    struct gw_ws *ws = gw_container(r, struct gw_ws, ready);
    struct gw_net *net = ws->net;
    gw_list_remove(&ws->link); // the owner may close all of net from within
    bool polite = ws->close_sent && ws->close_received;
    if (net->ops.ws_closed != NULL)
        net->ops.ws_closed(net->ud, ws, polite ? ws->code : 1006);
    gw_ws_free(ws);
}

void gw_ws_free(struct gw_ws *ws)
{
    gw_hub_detach(&ws->sub);
    gw_ready_cancel(&ws->ready);
    gw_list_remove(&ws->link);
    ws->net->counts.websockets--;
    gw_request_free(ws->req);
    gw_buf_fini(&ws->value);
    gw_buf_fini(&ws->message);
    free(ws->protocol);
    free(ws);
}

void gw_ws_conn_gone(struct gw_ws *ws)
{
    ws->conn = NULL;
    ws->req->conn = NULL;
    gw_hub_detach(&ws->sub);
    gw_ready_queue(ws->net, &ws->ready, tell_closed);
}

void gw_ws_finish(struct gw_ws *ws)
{
    struct gw_conn *c = ws->conn;
    c->ws = NULL;
    gw_ws_conn_gone(ws);
    gw_conn_finish(c);
}

/* ---- out ---- */

/* Which codes may be in a close frame. */
static bool is_close_code(unsigned code)
{
    return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
           (code >= 3000 && code <= 4999);
}

void gw_ws_send_frame(struct gw_ws *ws, unsigned opcode, const void *data, size_t n)
{
    char head[10];
    size_t len = gw_frame_header(opcode, n, head);
    struct iovec iov[] = {{head, len}, {(void *)(uintptr_t)data, n}};
    gw_conn_send(ws->conn, iov, n > 0 ? 2 : 1);
}

void gw_ws_send_close(struct gw_ws *ws, unsigned code, const char *reason)
{
    if (ws->close_sent || ws->conn == NULL)
        return;
    char payload[125] = {(char)(code >> 8), (char)code};
    size_t n = code == 1005 ? 0 : 2;
    if (n > 0 && reason != NULL) {
        size_t len = gw_utf8_clip(reason, sizeof payload - 2);
        memcpy(payload + 2, reason, len);
        n += len;
    }
    ws->close_sent = true;
    if (!ws->close_received)
        ws->code = code;
    gw_ws_send_frame(ws, OP_CLOSE, payload, n);
}

int gw_ws_send(struct gw_ws *ws, enum gw_ws_kind kind, const void *data, size_t n)
{
    struct gw_conn *c = ws->conn;
    if (c == NULL || ws->close_sent || ws->close_received)
        return -EPIPE;
    if (!gw_conn_takes(c, n)) {
        ws->blocked = true;
        return -EAGAIN;
    }
    return gw_ws_push(ws, kind, data, n);
}

int gw_ws_push(struct gw_ws *ws, enum gw_ws_kind kind, const void *data, size_t n)
{
    struct gw_conn *c = ws->conn;
    if (c == NULL || ws->close_sent || ws->close_received)
        return -EPIPE;
    gw_ws_send_frame(ws, (unsigned)kind, data, n);
    gw_conn_settle(c);
    return ws->conn != NULL ? 0 : -EPIPE;
}

void gw_ws_ping(struct gw_ws *ws)
{
    gw_ws_send_frame(ws, OP_PING, NULL, 0);
}

void gw_ws_end(struct gw_ws *ws, unsigned code, const char *reason)
{
    struct gw_conn *c = ws->conn;
    if (c == NULL || ws->close_sent)
        return;
    gw_ws_send_close(ws, is_close_code(code) ? code : 1000, reason);
    // What it sent before it learns of the end is looked through for its close frame, paused or not.
    if (c->state == GW_CONN_OPEN) {
        gw_conn_process_soon(c);
        gw_conn_settle(c);
    }
}

static void tell_ready(struct gw_ready *r)
{
    struct gw_ws *ws = gw_container(r, struct gw_ws, ready);
    if (ws->net->ops.ws_ready != NULL)
        ws->net->ops.ws_ready(ws->net->ud, ws);
}

void gw_ws_drained(struct gw_ws *ws)
{
    if (!ws->blocked || gw_conn_unsent(ws->conn) > ws->net->limits.send_buffer_bytes / 2)
        return;
    ws->blocked = false;
    gw_ready_queue(ws->net, &ws->ready, tell_ready);
}

/* ---- in ---- */

/* Ends it for what the client did: says so, and is through once that has gone out. */
static void fail(struct gw_ws *ws, unsigned code, const char *reason)
{
    ws->net->counts.rejected++;
    gw_ws_send_close(ws, code, reason);
    ws->close_received = true; // its framing cannot be trusted any more
}

static void on_close_frame(struct gw_ws *ws, const struct gw_buf *payload)
{
    const uint8_t *p = (const uint8_t *)payload->data;
    unsigned code = payload->len >= 2 ? (unsigned)(p[0] << 8 | p[1]) : 1005;
    bool bad = payload->len == 1 || (payload->len >= 2 && (!is_close_code(code) ||
                                                           !gw_utf8_valid(payload->data + 2, payload->len - 2)));
    if (!ws->close_sent)
        ws->code = bad ? 1002 : code;
    ws->close_received = true;
    gw_ws_send_close(ws, bad ? 1002 : code, NULL);
}

static void on_control(struct gw_ws *ws, const char *data, const struct gw_frame *f)
{
    struct gw_buf payload = {0};
    int r = gw_frame_payload(ws->net, data, f, &payload);
    ws->conn->start += f->size;
    if (r != 0)
        fail(ws, (unsigned)r, "bad frame");
    else if (f->opcode == OP_CLOSE)
        on_close_frame(ws, &payload);
    else if (f->opcode == OP_PING && !ws->close_sent)
        gw_ws_send_frame(ws, OP_PONG, payload.data, payload.len);
    gw_buf_fini(&payload);
}

static void deliver(struct gw_ws *ws)
{
    unsigned kind = ws->kind;
    if (kind == OP_TEXT && !gw_utf8_valid(ws->message.data != NULL ? ws->message.data : "", ws->message.len)) {
        fail(ws, 1007, "not UTF-8");
        return;
    }
    // Taken out first: the owner may end the connection from within.
    struct gw_buf message = ws->message;
    ws->message = (struct gw_buf){0};
    ws->kind = 0;
    struct gw_net *net = ws->net;
    if (net->ops.ws_message != NULL)
        net->ops.ws_message(net->ud, ws, (enum gw_ws_kind)kind, message.data != NULL ? message.data : "", message.len);
    gw_buf_fini(&message);
}

static void on_data(struct gw_ws *ws, const char *data, const struct gw_frame *f)
{
    bool begins = f->opcode != OP_CONTINUATION;
    if (begins == (ws->kind != 0)) {
        fail(ws, 1002, begins ? "a message begins inside another" : "nothing to continue");
        return;
    }
    if (begins)
        ws->kind = f->opcode;
    int r = gw_frame_payload(ws->net, data, f, &ws->message);
    ws->conn->start += f->size;
    if (r != 0)
        fail(ws, (unsigned)r, "bad frame");
    else if (f->fin)
        deliver(ws);
}

/* A message waits for its owner. Pings behind it do not: each is answered, and taken out of what waits. Reading goes on
 * for them, for as much as is read ahead of a request. */
static void answer_ahead(struct gw_ws *ws)
{
    struct gw_conn *c = ws->conn;
    struct gw_net *net = ws->net;
    struct gw_frame f;
    while (gw_conn_unsent(c) <= net->limits.send_buffer_bytes / 2) {
        char *data = c->in.data + c->start + ws->looked;
        size_t n = gw_conn_unread(c) - ws->looked;
        if (gw_frame_peek(data, n, net->limits.ws_message_bytes, &f) != GW_FRAME_WHOLE || f.opcode == OP_CLOSE)
            break; // what is wrong is so when its turn has come
        if (f.opcode != OP_PING) {
            ws->looked += f.size;
            continue;
        }
        struct gw_buf payload = {0};
        int r = gw_frame_payload(net, data, &f, &payload);
        if (r == 0)
            gw_ws_send_frame(ws, OP_PONG, payload.data, payload.len);
        gw_buf_fini(&payload);
        if (r != 0 || c->state != GW_CONN_OPEN)
            break;
        memmove(data, data + f.size, n - f.size);
        c->in.len -= f.size;
    }
    c->no_read = c->state != GW_CONN_OPEN || gw_conn_unread(c) > AHEAD_BYTES;
}

void gw_ws_process(struct gw_conn *c)
{
    struct gw_net *net = c->net;
    unsigned turns = 0;
    c->no_read = false;
    while (c->state == GW_CONN_OPEN && c->ws != NULL && !c->ws->close_received) {
        struct gw_ws *ws = c->ws;
        if (gw_conn_unsent(c) > net->limits.send_buffer_bytes / 2) {
            c->no_read = true; // a client that pings and does not read gets no more pongs than this
            return;
        }
        if (turns++ == FRAMES_A_TURN) {
            c->no_read = true;
            gw_conn_process_soon(c);
            return;
        }
        struct gw_frame f;
        const char *data = c->in.len > 0 ? c->in.data + c->start : "";
        int r = gw_frame_peek(data, gw_conn_unread(c), net->limits.ws_message_bytes - ws->message.len, &f);
        if (r == GW_FRAME_PARTIAL)
            break;
        if (r != GW_FRAME_WHOLE) {
            fail(ws, (unsigned)r, r == 1009 ? "message too large" : "bad frame");
        } else if (f.opcode >= OP_CLOSE) {
            on_control(ws, data, &f);
        } else if (ws->close_sent) {
            c->start += f.size; // it was on its way when we said close
        } else if (ws->paused && f.fin) {
            answer_ahead(ws);
            return;
        } else {
            ws->looked = 0;
            on_data(ws, data, &f);
        }
    }
    if (c->state == GW_CONN_OPEN && c->ws != NULL && c->ws->close_received)
        c->no_read = true; // nothing that follows is looked at
}

void gw_ws_pause(struct gw_ws *ws)
{
    ws->paused = true;
}

void gw_ws_resume(struct gw_ws *ws)
{
    if (!ws->paused)
        return;
    ws->paused = false;
    if (ws->conn != NULL && ws->conn->state == GW_CONN_OPEN)
        gw_conn_process_soon(ws->conn);
}

/* ---- the handshake ---- */

struct gw_ws *gw_ws_accept(struct gw_request *req, const char *protocol)
{
    struct gw_net *net = req->net;
    struct gw_conn *c = req->conn;
    gw_assert(req->info.upgrade);
    struct gw_ws *ws = gw_calloc(1, sizeof *ws);
    ws->net = net;
    ws->conn = c;
    ws->req = req;
    ws->protocol = gw_strdup(protocol);
    ws->paused = true;
    gw_list_append(&net->websockets, &ws->link);
    net->counts.websockets++;
    gw_list_remove(&req->link);
    gw_ready_cancel(&req->ready);
    net->counts.in_flight--;
    req->state = GW_REQ_UPGRADED;
    if (c == NULL) {
        gw_ws_conn_gone(ws);
        return ws;
    }
    char accept[29];
    gw_ws_accept_key(gw_request_header(req, "Sec-WebSocket-Key"), accept);
    const struct gw_header headers[] = {
        {"Upgrade", "websocket"}, {"Sec-WebSocket-Accept", accept}, {"Sec-WebSocket-Protocol", protocol}};
    gw_answer_head(net, 101, headers, protocol != NULL ? 3 : 2);
    gw_buf_adds(&net->head, "Connection: Upgrade\r\n\r\n");
    c->req = NULL;
    c->ws = ws;
    c->start = c->parsed;
    net->counts.answered++;
    gw_conn_keepalive(c);
    struct iovec iov = {net->head.data, net->head.len};
    gw_conn_send(c, &iov, 1);
    if (c->state != GW_CONN_CLOSED) {
        gw_conn_process_soon(c);
        gw_conn_settle(c);
    }
    if (net->winding_down)
        gw_ws_end(ws, net->wind_down.code, net->wind_down.reason);
    return ws;
}

const char *gw_ws_protocol(const struct gw_ws *ws)
{
    return ws->protocol;
}

const struct gw_request_info *gw_ws_info(const struct gw_ws *ws)
{
    return &ws->req->info;
}

void gw_ws_set_data(struct gw_ws *ws, void *data)
{
    ws->data = data;
}

void *gw_ws_data(const struct gw_ws *ws)
{
    return ws->data;
}

int gw_ws_set_value(struct gw_ws *ws, const void *value, size_t n)
{
    if (n > WS_VALUE_BYTES)
        return -E2BIG;
    struct gw_buf copy = {0};
    gw_buf_add(&copy, value, n);
    gw_buf_fini(&ws->value);
    ws->value = copy;
    return 0;
}

const char *gw_ws_value(const struct gw_ws *ws, size_t *ret_n)
{
    *ret_n = ws->value.len;
    return ws->value.data != NULL ? ws->value.data : "";
}

void gw_ws_each(struct gw_net *net, void (*fn)(void *ud, struct gw_ws *ws), void *ud)
{
    // fn may end ws, which takes it out from the loop, later: the list stays as it is.
    for (struct gw_list *l = net->websockets.next, *next; l != &net->websockets; l = next) {
        next = l->next;
        struct gw_ws *ws = gw_container(l, struct gw_ws, link);
        if (ws->conn != NULL && !ws->close_sent)
            fn(ud, ws);
    }
}
