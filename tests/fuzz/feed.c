#include "fuzz/feed.h"

#include "base/err.h"
#include "base/json.h"
#include "base/packet.h"
#include "net/inside.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LATER = 16, TURNS = 4, MOVED = 3 };

struct feeder {
    uv_loop_t loop;
    struct gw_net *net;
    int fd; /* the client's end */
    struct gw_request *later[LATER];
    unsigned later_count;
    struct gw_stream *stream;
    unsigned messages;
    bool settling; /* nothing is put off any more */
    bool closed;
};

/* ---- the owner ---- */

/* As an application does: looks at all that it is given. */
static size_t look_at(const struct gw_request_info *info)
{
    size_t n = strlen(info->method) + strlen(info->target) + strlen(info->path) + strlen(info->query);
    gw_assert(info->body[0] == '\0' || info->body_len > 0);
    for (size_t i = 0; i < info->body_len; i++)
        n += (unsigned char)info->body[i];
    for (size_t i = 0; i < info->header_count; i++) {
        n += strlen(info->headers[i].name) + strlen(info->headers[i].value);
        gw_assert(strpbrk(info->headers[i].value, "\r\n") == NULL && strpbrk(info->headers[i].name, " :\r\n") == NULL);
    }
    return n;
}

static void on_request(void *ud, struct gw_request *req)
{
    struct feeder *f = ud;
    const struct gw_request_info *info = gw_request_info(req);
    char kind = info->path[0] == '/' ? info->path[1] : '\0';
    size_t n = look_at(info);
    if (kind == 'l' && f->later_count < LATER && !f->settling) {
        f->later[f->later_count++] = req;
    } else if (kind == 's' && f->stream == NULL) {
        f->stream = gw_stream_begin(req, 200, NULL, 0);
        (void)gw_stream_write(f->stream, "piece", 5);
    } else if (kind == 'h' && !f->settling) {
        gw_net_hold(f->net, req, "draining", "later");
    } else if (kind == 'e') {
        gw_hub_attach(f->net, req);
    } else if (kind == 'x') {
        gw_answer(req, 204, NULL, 0, NULL, 0);
        gw_net_say_close(f->net, true);
    } else if (info->upgrade) {
        struct gw_ws *ws = gw_ws_accept(req, NULL);
        gw_hub_attach_ws(ws);
        gw_ws_resume(ws);
    } else {
        gw_answer(req, 200, info->headers, info->header_count, info->body, n < info->body_len ? n : info->body_len);
    }
}

static void on_stream_closed(void *ud, struct gw_stream *s)
{
    struct feeder *f = ud;
    if (f->stream == s)
        f->stream = NULL;
}

static void on_message(void *ud, struct gw_ws *ws, enum gw_ws_kind kind, const char *data, size_t n)
{
    struct feeder *f = ud;
    gw_assert(kind == GW_WS_BINARY || gw_utf8_valid(data, n));
    f->messages++;
    if (n > 0 && data[0] == 'e')
        gw_ws_end(ws, (unsigned)n, "as you wish");
    else if (n > 0 && data[0] == 'p')
        gw_ws_pause(ws);
    (void)gw_ws_set_value(ws, data, n);
    (void)gw_ws_send(ws, kind, data, n);
}

static void on_closed(void *ud)
{
    ((struct feeder *)ud)->closed = true;
}

static const struct gw_net_ops ops = {
    .request = on_request, .stream_closed = on_stream_closed, .ws_message = on_message};

/* ---- feeding ---- */

static void turn(struct feeder *f, int times)
{
    static char dropped[65536];
    while (times-- > 0) {
        (void)uv_run(&f->loop, UV_RUN_NOWAIT);
        while (recv(f->fd, dropped, sizeof dropped, MSG_DONTWAIT) > 0)
            ;
    }
}

static void resume_one(void *ud, struct gw_ws *ws)
{
    gw_ws_resume(ws);
}

/* What the owner has put off, it does now. */
static void catch_up(struct feeder *f)
{
    for (unsigned i = 0; i < f->later_count; i++)
        gw_answer(f->later[i], 200, NULL, 0, "late", 4);
    f->later_count = 0;
    if (f->stream != NULL)
        gw_stream_end(f->stream);
    gw_net_release(f->net);
    gw_hub_publish(f->net, "task", "{}");
    gw_ws_each(f->net, resume_one, NULL);
}

/* The next piece's size: all, single bytes, or sizes that go back and forth. */
static size_t piece(uint8_t how, size_t at, size_t left)
{
    size_t n = how == 0 ? left : how == 1 ? 1 : 1 + (at * 31 + how * 7u) % how;
    return n < left ? n : left;
}

static void send_all(struct feeder *f, uint8_t how, const void *data, size_t n)
{
    for (size_t at = 0; at < n;) {
        size_t len = piece(how, at, n - at);
        if (send(f->fd, (const char *)data + at, len, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)len)
            return; // refused, or more than a socket holds
        at += len;
        turn(f, 1);
        if (how % 3 == 2 && at % 5 == 0)
            catch_up(f);
    }
}

static void settle(struct feeder *f)
{
    f->settling = true;
    for (int i = 0; i < 64; i++) {
        catch_up(f);
        turn(f, TURNS);
        struct gw_net_counts n = gw_net_counts(f->net);
        if (n.open == 0 && n.held == 0 && n.in_flight == 0 && n.streams == 0 && n.websockets == 0)
            return;
    }
}

static void begin(struct feeder *f)
{
    struct gw_net_limits limits = gw_net_limits_default();
    limits.header_bytes = 512;
    limits.body_bytes = limits.ws_message_bytes = 2048;
    limits.send_buffer_bytes = 4096;
    limits.held = 2;
    int r = uv_loop_init(&f->loop);
    gw_assert(r == 0);
    r = gw_net_open(&f->loop, &limits, &ops, f, &f->net, NULL);
    gw_assert(r == 0);
}

/* A connected pair: the host's end, and *ret_client. */
static int connect_pair(int *ret_client)
{
    int ends[2];
    int r = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends);
    gw_assert(r == 0);
    *ret_client = ends[1];
    return ends[0];
}

static void assert_nothing_left(struct feeder *f)
{
    settle(f);
    struct gw_net_counts left = gw_net_counts(f->net);
    gw_assert(left.open == 0 && left.held == 0 && left.in_flight == 0);
    gw_assert(left.streams == 0 && left.websockets == 0);
    gw_assert(f->net->deadlines.armed_ms == 0);
}

static void end(struct feeder *f)
{
    gw_net_close(f->net, on_closed, f);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    gw_assert(f->closed);
    int r = uv_loop_close(&f->loop);
    gw_assert(r == 0);
}

void feed(const char *head, uint8_t how, const uint8_t *data, size_t n)
{
    struct feeder f = {0};
    begin(&f);
    struct sockaddr_storage peer = {.ss_family = AF_UNIX};
    struct gw_conn *c = gw_conn_adopt(f.net, connect_pair(&f.fd), &peer);
    gw_assert(c != NULL);
    send_all(&f, 0, head, strlen(head));
    send_all(&f, how, data, n);
    if (how % 2 == 0) {
        turn(&f, TURNS);
        (void)shutdown(f.fd, SHUT_WR);
        turn(&f, TURNS);
        catch_up(&f);
        turn(&f, TURNS);
    }
    if (how % 8 != 7) { // else it is all closed as it stands
        (void)shutdown(f.fd, SHUT_RDWR);
        assert_nothing_left(&f);
    }
    (void)close(f.fd);
    end(&f);
}

void feed_described(const uint8_t *data, size_t n)
{
    static const char more[] = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    struct feeder f = {0};
    struct gw_packet packet;
    struct gw_err err = {0};
    int ours[MOVED], clients[MOVED];
    if (gw_packet_read((const char *)data, n, &packet, NULL) <= 0)
        return;
    size_t count = json_array_size(json_object_get(packet.head, "connections"));
    if (count <= MOVED) {
        begin(&f);
        gw_net_freeze(f.net);
        for (size_t i = 0; i < count; i++)
            ours[i] = connect_pair(&clients[i]);
        int rc = gw_net_adopt(f.net, packet.head, packet.blob, packet.blob_bytes, ours, count, &err);
        gw_assert(rc == 0 || (rc < 0 && err.text[0] != '\0' && gw_net_counts(f.net).open == 0));
        gw_net_thaw(f.net);
        for (size_t i = 0; i < count; i++) {
            f.fd = clients[i];
            send_all(&f, 0, more, sizeof more - 1);
            (void)shutdown(f.fd, SHUT_RDWR);
        }
        // A stream or a closing handshake may be there without its client ever asking for it.
        assert_nothing_left(&f);
        for (size_t i = 0; i < count; i++) {
            (void)close(clients[i]);
            if (ours[i] >= 0)
                (void)close(ours[i]);
        }
        end(&f);
    }
    json_decref(packet.head);
}
