/* conn.c - one connection: reading, sending, how long it may be silent, and how it ends. */
#include "base/err.h"
#include "net/inside.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void process(struct gw_conn *c);

/* ---- the end ---- */

static void poll_closed(uv_handle_t *handle)
{
    struct gw_conn *c = handle->data;
    struct gw_net *net = c->net;
    gw_buf_fini(&c->in);
    gw_buf_fini(&c->out);
    free(c);
    gw_net_handle_closed(net);
}

void gw_conn_cut(struct gw_conn *c)
{
    if (c->state == GW_CONN_CLOSED)
        return;
    struct gw_net *net = c->net;
    c->state = GW_CONN_CLOSED;
    gw_timeout_clear(net, &c->timed);
    gw_ready_cancel(&c->ready);
    gw_list_remove(&c->link);
    uv_close((uv_handle_t *)&c->poll, poll_closed); // takes the fd out of epoll, so it may go now
    (void)close(c->fd);
    c->fd = -1;
    net->counts.open--;
    if (c->req != NULL)
        gw_request_conn_gone(c->req);
    if (c->stream != NULL)
        gw_stream_conn_gone(c->stream);
    if (c->ws != NULL)
        gw_ws_conn_gone(c->ws);
    c->req = NULL;
    c->stream = NULL;
    c->ws = NULL;
    gw_listener_room(net);
    gw_wind_down_check(net);
}

/* Whether the client is known to be through with sending: then nothing can be lost by closing at once. */
static bool client_is_done(const struct gw_conn *c)
{
    if (c->eof)
        return true;
    if (!c->client_last || gw_conn_unread(c) > 0)
        return false;
    char byte;
    return recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

void gw_conn_finish(struct gw_conn *c)
{
    // Closing with unread input makes the kernel reset the connection, and the client may lose the answer.
    if (client_is_done(c) || shutdown(c->fd, SHUT_WR) < 0) {
        gw_conn_cut(c);
        return;
    }
    c->state = GW_CONN_LINGERING;
    gw_ready_cancel(&c->ready);
    gw_buf_fini(&c->in);
    c->start = c->parsed = 0;
    c->restart_deadline = true;
}

/* ---- sending ---- */

static void empty_out(struct gw_conn *c)
{
    c->out_start = c->out.len = 0;
    if (c->out.cap > KEEP_BYTES)
        gw_buf_fini(&c->out);
}

static void flush(struct gw_conn *c)
{
    while (c->state == GW_CONN_OPEN && gw_conn_unsent(c) > 0) {
        ssize_t n = send(c->fd, c->out.data + c->out_start, gw_conn_unsent(c), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            gw_conn_cut(c);
            return;
        }
        if (n <= 0)
            break;
        c->out_start += (size_t)n;
        if (c->timed.class == GW_TO_WRITE)
            c->restart_deadline = true;
    }
    if (gw_conn_unsent(c) == 0) {
        empty_out(c);
    } else if (c->out_start > c->out.len / 2) { // moved rarely enough to cost little
        gw_buf_drop(&c->out, c->out_start);
        c->out_start = 0;
    }
    if (c->stream != NULL)
        gw_stream_drained(c->stream);
    if (c->ws != NULL)
        gw_ws_drained(c->ws);
}

/* Sends what the kernel takes; iov is left with the rest. Returns false when the connection was cut. */
static bool send_directly(struct gw_conn *c, struct iovec *iov, int count)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)count};
    ssize_t n;
    do
        n = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN) {
        gw_conn_cut(c);
        return false;
    }
    for (int i = 0; i < count && n > 0; i++) {
        size_t taken = (size_t)n < iov[i].iov_len ? (size_t)n : iov[i].iov_len;
        iov[i].iov_base = (char *)iov[i].iov_base + taken;
        iov[i].iov_len -= taken;
        n -= (ssize_t)taken;
    }
    return true;
}

void gw_conn_send(struct gw_conn *c, struct iovec *iov, int count)
{
    if (c->state != GW_CONN_OPEN || c->net->frozen)
        return; // whoever is frozen may not be the one whose connection this is
    if (c->timed.class == GW_TO_PING)
        c->restart_deadline = true;
    size_t total = 0;
    for (int i = 0; i < count; i++)
        total += iov[i].iov_len;
    bool collect = gw_conn_unsent(c) > 0 || (c->corked && total <= KEEP_BYTES);
    if (!collect && !send_directly(c, iov, count))
        return;
    for (int i = 0; i < count; i++)
        if (iov[i].iov_len > 0)
            gw_buf_add(&c->out, iov[i].iov_base, iov[i].iov_len);
}

void gw_conn_cork(struct gw_conn *c)
{
    c->corked = true;
}

void gw_conn_uncork(struct gw_conn *c)
{
    c->corked = false;
    if (c->state == GW_CONN_OPEN && gw_conn_unsent(c) > 0)
        flush(c);
}

/* ---- what to wait for ---- */

static enum gw_timeout wanted_deadline(const struct gw_conn *c)
{
    if (c->state == GW_CONN_LINGERING)
        return GW_TO_LINGER;
    if (gw_conn_unsent(c) > 0)
        return GW_TO_WRITE;
    if (c->ws != NULL)
        return c->ws->close_sent ? GW_TO_LINGER : GW_TO_PING;
    if (c->stream != NULL)
        return c->stream->internal ? GW_TO_PING : GW_TO_NONE;
    if (c->req != NULL)
        return c->req->state != GW_REQ_PARSING ? GW_TO_NONE : c->req->header_len > 0 ? GW_TO_BODY : GW_TO_HEADER;
    if (gw_conn_unread(c) > 0)
        return GW_TO_HEADER;
    if (c->net->winding_down)
        return GW_TO_GRACE;
    return c->messages > 0 ? GW_TO_IDLE : GW_TO_HEADER;
}

static int wanted_events(const struct gw_conn *c)
{
    if (c->state == GW_CONN_LINGERING)
        return UV_READABLE;
    int events = gw_conn_unsent(c) > 0 ? UV_WRITABLE : 0;
    if (c->eof) // nothing to read, but that it has gone altogether is worth to know
        return c->stream != NULL ? events | UV_PRIORITIZED : events;
    if (!c->no_read)
        return events | UV_READABLE;
    return c->hung_up ? events : events | UV_DISCONNECT;
}

static void polled(uv_poll_t *handle, int status, int events);

void gw_conn_settle(struct gw_conn *c)
{
    if (c->state == GW_CONN_CLOSED || c->corked || c->net->frozen)
        return;
    if (c->state == GW_CONN_OPEN && gw_conn_unsent(c) == 0) {
        if (c->ws != NULL && c->ws->close_sent && c->ws->close_received)
            gw_ws_finish(c->ws);
        if (c->state == GW_CONN_OPEN && c->last && c->req == NULL && c->stream == NULL && c->ws == NULL)
            gw_conn_finish(c);
        if (c->state == GW_CONN_CLOSED)
            return;
    }
    enum gw_timeout class = wanted_deadline(c);
    if (class == GW_TO_NONE)
        gw_timeout_clear(c->net, &c->timed);
    else if (class != c->timed.class || c->restart_deadline)
        gw_timeout_set(c->net, &c->timed, class);
    c->restart_deadline = false;
    int events = wanted_events(c);
    if (events == c->polled)
        return;
    c->polled = events;
    if (events != 0)
        (void)uv_poll_start(&c->poll, events, polled);
    else
        (void)uv_poll_stop(&c->poll);
}

static void process_ready(struct gw_ready *r)
{
    process(gw_container(r, struct gw_conn, ready));
}

void gw_conn_process_soon(struct gw_conn *c)
{
    if (c->state == GW_CONN_OPEN)
        gw_ready_queue(c->net, &c->ready, process_ready);
}

void gw_conn_answered(struct gw_conn *c)
{
    c->req = NULL;
    c->continued = false;
    c->start = c->parsed;
    c->messages++;
    c->net->counts.answered++;
    c->restart_deadline = true;
    c->no_read = c->no_read && gw_conn_unread(c) > AHEAD_BYTES;
    if (!c->corked && (gw_conn_unread(c) > 0 || c->eof))
        gw_conn_process_soon(c);
    gw_conn_settle(c);
}

/* ---- input ---- */

/* Reads once. Returns how many bytes came; c may be cut. */
static size_t read_some(struct gw_conn *c)
{
    struct gw_net *net = c->net;
    ssize_t n;
    do
        n = recv(c->fd, net->scratch, sizeof net->scratch, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n > 0) {
        if (c->state == GW_CONN_OPEN)
            gw_buf_add(&c->in, net->scratch, (size_t)n);
        return (size_t)n;
    }
    if (n == 0)
        c->eof = true;
    else if (errno != EAGAIN)
        gw_conn_cut(c);
    return 0;
}

/* Drops what is answered from the front of the input. */
static void compact(struct gw_conn *c)
{
    if (c->start > 0) {
        gw_buf_drop(&c->in, c->start);
        c->parsed = c->parsed > c->start ? c->parsed - c->start : 0; // a WebSocket does not keep it
        c->start = 0;
    }
    if (c->in.len == 0 && c->in.cap > KEEP_BYTES)
        gw_buf_fini(&c->in);
}

/* The client sends no more. Its answers still go out, streams too, for it may have closed its sending half only; if it
 * has gone altogether, what is written to it finds that out. */
static void handle_eof(struct gw_conn *c)
{
    if (c->req != NULL && c->req->state != GW_REQ_PARSING) {
        gw_request_tell_gone(c->req);
        return;
    }
    if (gw_list_linked(&c->ready.link) || (c->ws != NULL && (c->no_read || c->ws->looked > 0)))
        return; // there is input to look at first
    if (c->stream != NULL) {
        gw_hub_probe(c->stream);
        return;
    }
    if (gw_conn_unsent(c) > 0)
        return;
    gw_conn_cut(c);
}

static void process(struct gw_conn *c)
{
    if (c->state != GW_CONN_OPEN)
        return;
    if (c->ws == NULL)
        gw_http_process(c);
    if (c->ws != NULL)
        gw_ws_process(c);
    if (c->state == GW_CONN_OPEN) {
        compact(c);
        if (c->eof)
            handle_eof(c);
    }
    gw_conn_settle(c);
}

static void polled(uv_poll_t *handle, int status, int events)
{
    struct gw_conn *c = handle->data;
    if (status < 0 || (events & UV_PRIORITIZED) != 0) { // the connection was reset
        gw_conn_cut(c);
        return;
    }
    if (c->state == GW_CONN_LINGERING) {
        (void)read_some(c);
        if (c->eof)
            gw_conn_cut(c);
        return;
    }
    bool look = false;
    if ((events & UV_WRITABLE) != 0) {
        flush(c);
        look = gw_conn_unsent(c) == 0; // requests may have waited for this
    }
    if ((events & UV_READABLE) != 0 && c->state == GW_CONN_OPEN && !c->eof) {
        (void)read_some(c);
        look = true;
    }
    if ((events & UV_DISCONNECT) != 0 && c->no_read && c->state == GW_CONN_OPEN) {
        c->hung_up = true;
        if (c->req != NULL)
            gw_request_tell_gone(c->req);
    }
    if (look)
        process(c);
    else
        gw_conn_settle(c);
}

/* Takes what has come in while the loop did not look: being late is the client's fault only if it is late. */
static bool read_late(struct gw_conn *c)
{
    size_t n, total = 0;
    for (int i = 0; i < 32 && c->state == GW_CONN_OPEN && !c->eof && (n = read_some(c)) > 0; i++) {
        total += n;
        if (n < READ_BYTES)
            break;
    }
    return total > 0 || c->eof;
}

void gw_conn_expire(struct gw_timed *t)
{
    struct gw_conn *c = gw_container(t, struct gw_conn, timed);
    enum gw_timeout class = t->class;
    t->class = GW_TO_NONE;
    if (class == GW_TO_LINGER) {
        gw_conn_cut(c);
        return;
    }
    if (class == GW_TO_PING) { // what is silent is ended by proxies; and who has gone without a word is found out
        if (c->ws != NULL)
            gw_ws_ping(c->ws);
        else
            gw_hub_ping(c->stream);
        gw_conn_settle(c);
        return;
    }
    if (class == GW_TO_WRITE) {
        size_t before = gw_conn_unsent(c);
        flush(c);
        if (c->state == GW_CONN_OPEN && gw_conn_unsent(c) == before) {
            c->net->counts.timed_out++;
            gw_conn_cut(c);
        } else {
            process(c);
        }
        return;
    }
    unsigned before = c->messages;
    bool pending = gw_conn_unread(c) > 0, came = read_late(c);
    if (came)
        process(c);
    if (c->state != GW_CONN_OPEN)
        return;
    bool other = c->messages != before || c->stream != NULL || c->ws != NULL || c->last ||
                 (c->req != NULL && c->req->state != GW_REQ_PARSING);
    if (other || (came && !pending)) {
        gw_conn_settle(c); // a message came to its end, or a new one has begun
        return;
    }
    if (gw_conn_unread(c) > 0) {
        gw_http_refuse(c, 408, "bad_request", "the request took too long");
    } else {
        c->net->counts.timed_out += class != GW_TO_GRACE;
        c->last = true;
    }
    gw_conn_settle(c);
}

/* ---- the beginning ---- */

static void name_peer(struct gw_conn *c, const struct sockaddr_storage *peer)
{
    char host[INET6_ADDRSTRLEN] = "";
    if (peer->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)peer;
        (void)inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        (void)snprintf(c->peer, sizeof c->peer, "%s:%u", host, (unsigned)ntohs(in->sin_port));
        c->local = (ntohl(in->sin_addr.s_addr) >> 24) == 127;
    } else if (peer->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)peer;
        unsigned port = ntohs(in6->sin6_port);
        const unsigned char *bytes = in6->sin6_addr.s6_addr;
        if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
            (void)inet_ntop(AF_INET, bytes + 12, host, sizeof host);
            (void)snprintf(c->peer, sizeof c->peer, "%s:%u", host, port);
            c->local = bytes[12] == 127;
        } else {
            (void)inet_ntop(AF_INET6, bytes, host, sizeof host);
            (void)snprintf(c->peer, sizeof c->peer, "[%s]:%u", host, port);
            c->local = IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
        }
    } else {
        (void)snprintf(c->peer, sizeof c->peer, "unix");
        c->local = true;
    }
}

struct gw_conn *gw_conn_take(struct gw_net *net, int fd)
{
    struct gw_conn *c = gw_calloc(1, sizeof *c);
    c->net = net;
    c->fd = fd;
    if (uv_poll_init(net->loop, &c->poll, fd) != 0) {
        free(c);
        return NULL;
    }
    c->poll.data = c;
    net->handles++;
    net->counts.open++;
    gw_list_append(&net->conns, &c->link);
    return c;
}

struct gw_conn *gw_conn_adopt(struct gw_net *net, int fd, const struct sockaddr_storage *peer)
{
    struct gw_conn *c = gw_conn_take(net, fd);
    if (c == NULL) {
        (void)close(fd);
        return NULL;
    }
    c->id = ++net->last_conn_id;
    name_peer(c, peer);
    net->counts.accepted++;
    gw_conn_settle(c);
    return c;
}

void gw_conn_keepalive(struct gw_conn *c)
{
    // A WebSocket or a stream may be silent for hours; a peer that lost its power never says goodbye.
    static const int on = 1, idle_s = 60, interval_s = 15, probes = 4;
    (void)setsockopt(c->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}
