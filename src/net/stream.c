/* stream.c - answers that are written piece by piece. */
#include "base/err.h"
#include "net/inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static void tell_closed(struct gw_ready *r)
{
    struct gw_stream *s = gw_container(r, struct gw_stream, ready);
    struct gw_net *net = s->net;
    gw_list_remove(&s->link); // the owner may close all of net from within
    if (!s->internal && net->ops.stream_closed != NULL)
        net->ops.stream_closed(net->ud, s);
    gw_stream_free(s);
}

void gw_stream_free(struct gw_stream *s)
{
    gw_hub_detach(&s->sub);
    gw_ready_cancel(&s->ready);
    gw_list_remove(&s->link);
    s->net->counts.streams--;
    free(s);
}

void gw_stream_conn_gone(struct gw_stream *s)
{
    s->conn = NULL;
    gw_hub_detach(&s->sub);
    gw_ready_queue(s->net, &s->ready, tell_closed);
}

struct gw_stream *gw_stream_begin(struct gw_request *req, int status, const struct gw_header *headers,
                                  size_t header_count)
{
    struct gw_net *net = req->net;
    struct gw_conn *c = req->conn;
    struct gw_stream *s = gw_calloc(1, sizeof *s);
    s->net = net;
    s->conn = c;
    gw_list_append(&net->streams, &s->link);
    net->counts.streams++;
    if (c == NULL) {
        gw_request_free(req);
        gw_stream_conn_gone(s);
        return s;
    }
    s->chunked = !req->http10;
    s->silent = req->head_only;
    s->keep_alive = s->chunked && gw_answer_keeps(req);
    gw_answer_head(net, status, headers, header_count);
    if (s->chunked)
        gw_buf_adds(&net->head, "Transfer-Encoding: chunked\r\n");
    gw_answer_connection(net, req, s->keep_alive);
    gw_buf_add(&net->head, "\r\n", 2);
    c->req = NULL;
    req->conn = NULL;
    c->stream = s;
    c->continued = false;
    c->start = c->parsed; // its request is dealt with: nobody else may answer it again
    gw_request_free(req);
    struct iovec iov = {net->head.data, net->head.len};
    gw_conn_send(c, &iov, 1);
    gw_conn_settle(c);
    return s;
}

void gw_stream_set_data(struct gw_stream *s, void *data)
{
    s->data = data;
}

void *gw_stream_data(const struct gw_stream *s)
{
    return s->data;
}

int gw_stream_write(struct gw_stream *s, const void *data, size_t n)
{
    struct gw_conn *c = s->conn;
    if (c == NULL)
        return -EPIPE;
    if (n == 0 || s->silent)
        return 0; // an empty chunk would end the body
    if (!gw_conn_takes(c, n)) {
        s->blocked = true;
        return -EAGAIN;
    }
    char size[24];
    int len = snprintf(size, sizeof size, "%zx\r\n", n);
    struct iovec iov[] = {{size, (size_t)len}, {(void *)(uintptr_t)data, n}, {(void *)(uintptr_t) "\r\n", 2}};
    if (s->chunked)
        gw_conn_send(c, iov, 3);
    else
        gw_conn_send(c, iov + 1, 1);
    gw_conn_settle(c);
    return s->conn != NULL ? 0 : -EPIPE;
}

/* Takes it off its connection, which is returned; NULL: stream_closed is on its way already. */
static struct gw_conn *leave(struct gw_stream *s)
{
    struct gw_conn *c = s->conn;
    if (c == NULL)
        return NULL;
    s->conn = NULL;
    c->stream = NULL;
    gw_hub_detach(&s->sub);
    gw_ready_queue(s->net, &s->ready, tell_closed);
    return c;
}

void gw_stream_end(struct gw_stream *s)
{
    struct gw_conn *c = leave(s);
    if (c == NULL)
        return;
    static const char last[] = "0\r\n\r\n";
    struct iovec iov = {(void *)(uintptr_t)last, sizeof last - 1};
    if (s->chunked && !s->silent)
        gw_conn_send(c, &iov, 1);
    if (!s->keep_alive)
        c->last = true;
    if (c->state != GW_CONN_CLOSED)
        gw_conn_answered(c);
}

void gw_stream_cut(struct gw_stream *s)
{
    if (s->silent) { // the answer to HEAD was whole with its header
        gw_stream_end(s);
        return;
    }
    struct gw_conn *c = leave(s);
    if (c == NULL)
        return;
    c->last = true;
    if (s->chunked) { // what was written still goes out; that its last chunk is missing says the rest
        gw_conn_answered(c);
        return;
    }
    // Until the close of the connection is how long it is: only a reset is no end of it.
    static const struct linger reset = {.l_onoff = 1};
    (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    gw_conn_cut(c);
}

static void tell_ready(struct gw_ready *r)
{
    struct gw_stream *s = gw_container(r, struct gw_stream, ready);
    if (!s->internal && s->net->ops.stream_ready != NULL)
        s->net->ops.stream_ready(s->net->ud, s);
}

void gw_stream_drained(struct gw_stream *s)
{
    if (!s->blocked || gw_conn_unsent(s->conn) > s->net->limits.send_buffer_bytes / 2)
        return;
    s->blocked = false;
    gw_ready_queue(s->net, &s->ready, tell_ready);
}
