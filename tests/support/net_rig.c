#include "support/net_rig.h"

#include "base/err.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;
    while (readdir(dir) != NULL)
        n++;
    (void)closedir(dir);
    return n;
}

/* ---- the owner ---- */

static void answer_text(struct gw_request *req)
{
    const struct gw_request_info *info = gw_request_info(req);
    static const struct gw_header headers[] = {{"Content-Type", "text/plain"}};
    char *text = gw_asprintf("%s %s?%s %.*s", info->method, info->path, info->query, (int)info->body_len, info->body);
    gw_answer(req, 200, headers, 1, text, strlen(text));
    free(text);
}

static void answer_big(struct gw_request *req)
{
    size_t n = (size_t)atol(gw_request_info(req)->query);
    char *body = gw_calloc(1, n + 1);
    memset(body, 'x', n);
    gw_answer(req, 200, NULL, 0, body, n);
    free(body);
}

static void closed(void *ud)
{
    ((struct rig *)ud)->closed = true;
}

static void wound_down(void *ud)
{
    ((struct rig *)ud)->wound_down = true;
}

static void on_request(void *ud, struct gw_request *req)
{
    struct rig *r = ud;
    const char *path = gw_request_info(req)->path;
    r->requests++;
    gw_buf_addf(&r->order, "%s ", path);
    if (r->holding || strcmp(path, "/hold") == 0) {
        gw_net_hold(r->net, req, "draining", "come back");
    } else if (strcmp(path, "/later") == 0) {
        assert_true(r->kept_count < RIG_KEPT);
        r->kept[r->kept_count++] = req;
    } else if (strcmp(path, "/stream") == 0) {
        r->stream = gw_stream_begin(req, 200, NULL, 0);
    } else if (strcmp(path, "/events") == 0) {
        gw_hub_attach(r->net, req);
    } else if (strcmp(path, "/ws") == 0 && gw_request_info(req)->upgrade) {
        r->ws = gw_ws_accept(req, NULL);
        if (r->ws_subscribe)
            gw_hub_attach_ws(r->ws);
        if (!r->ws_stay_paused)
            gw_ws_resume(r->ws);
    } else if (strcmp(path, "/big") == 0) {
        answer_big(req);
    } else if (strcmp(path, "/close") == 0) {
        gw_net_close(r->net, closed, r);
    } else if (strcmp(path, "/wind") == 0) {
        gw_net_wind_down(r->net, 1001, "stopping", 20, wound_down, r);
        answer_text(req);
    } else {
        answer_text(req);
    }
}

static void on_gone(void *ud, struct gw_request *req)
{
    ((struct rig *)ud)->gone++;
}

static void on_stream_closed(void *ud, struct gw_stream *s)
{
    struct rig *r = ud;
    r->streams_closed++;
    if (r->stream == s)
        r->stream = NULL;
}

static void on_message(void *ud, struct gw_ws *ws, enum gw_ws_kind kind, const char *data, size_t n)
{
    struct rig *r = ud;
    gw_buf_add(&r->messages, data, n);
    gw_buf_adds(&r->messages, " ");
    if (n == 3 && memcmp(data, "end", 3) == 0)
        gw_ws_end(ws, 4000, "as you wish");
    else if (n == 5 && memcmp(data, "pause", 5) == 0)
        gw_ws_pause(ws);
    else
        (void)gw_ws_send(ws, kind, data, n);
}

static void on_ws_closed(void *ud, struct gw_ws *ws, unsigned code)
{
    struct rig *r = ud;
    r->ws_closed++;
    r->ws_code = code;
    if (r->ws == ws)
        r->ws = NULL;
}

static void on_stream_ready(void *ud, struct gw_stream *s)
{
    ((struct rig *)ud)->streams_ready++;
}

static void on_ws_ready(void *ud, struct gw_ws *ws)
{
    ((struct rig *)ud)->ws_ready++;
}

static void on_accepting(void *ud, bool is_paused, int code)
{
    struct rig *r = ud;
    *(is_paused ? &r->full_said : &r->room_said) += 1;
    r->full_code = code;
}

static const struct gw_net_ops ops = {.request = on_request,
                                      .accepting = on_accepting,
                                      .request_gone = on_gone,
                                      .stream_closed = on_stream_closed,
                                      .ws_message = on_message,
                                      .ws_closed = on_ws_closed,
                                      .stream_ready = on_stream_ready,
                                      .ws_ready = on_ws_ready};

/* ---- life ---- */

static void on_guard(uv_timer_t *timer)
{
    ((struct rig *)timer->data)->late = true;
}

void rig_open(struct rig *r, const struct gw_net_limits *limits)
{
    uv_loop_t first; // what libuv opens once for the process stays open
    assert_int_equal(uv_loop_init(&first), 0);
    assert_int_equal(uv_loop_close(&first), 0);
    *r = (struct rig){.fds_before = count_fds()};
    assert_int_equal(uv_loop_init(&r->loop), 0);
    assert_int_equal(uv_timer_init(&r->loop, &r->guard), 0);
    r->guard.data = r;
    (void)uv_timer_start(&r->guard, on_guard, 10000, 0);
    assert_int_equal(gw_net_open(&r->loop, limits, &ops, r, &r->net, NULL), 0);
    gw_net_tag(r->net, "0123abcd.1");
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof name;
    r->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(r->listener, (struct sockaddr *)&name, len), 0);
    assert_int_equal(listen(r->listener, 128), 0);
    assert_int_equal(getsockname(r->listener, (struct sockaddr *)&name, &len), 0);
    r->port = ntohs(name.sin_port);
    assert_int_equal(gw_net_listen(r->net, r->listener, "test", NULL), 0);
    for (int i = 0; i < RIG_CLIENTS; i++)
        r->clients[i].fd = -1;
}

static void adopt_ws(void *ud, struct gw_ws *ws)
{
    struct rig *r = ud;
    r->ws = ws;
    if (!r->ws_stay_paused)
        gw_ws_resume(ws);
}

static void adopt_batch(struct gw_net *net, const struct gw_net_batch *batch)
{
    int fds[GW_NET_BATCH];
    char *text = json_dumps(batch->head, 0);
    json_t *head = json_loads(text, 0, NULL);
    for (size_t i = 0; i < batch->fd_count; i++)
        fds[i] = fcntl(batch->fds[i], F_DUPFD_CLOEXEC, 3);
    struct gw_err err = {0};
    char *blob = gw_memdup0(batch->blob.data != NULL ? batch->blob.data : "", batch->blob.len);
    if (gw_net_adopt(net, head, blob, batch->blob.len, fds, batch->fd_count, &err) != 0)
        fail_msg("not adopted: %s", err.text);
    free(blob);
    json_decref(head);
    free(text);
}

void rig_move(struct rig *r)
{
    struct gw_net *old = r->net, *fresh = NULL;
    struct gw_net_batch batch;
    uint64_t behind = 0;
    // As a successor does: it stands by while the other one still drains.
    assert_int_equal(gw_net_open(&r->loop, &old->limits, &ops, r, &fresh, NULL), 0);
    gw_net_freeze(fresh);
    uv_sleep(r->stood_by_ms);
    gw_net_freeze(old);
    assert_int_equal(gw_net_listen(fresh, r->listener, "test", NULL), 0);
    while (gw_net_describe(old, &behind, &batch)) {
        adopt_batch(fresh, &batch);
        gw_net_batch_fini(&batch);
    }
    assert_int_equal(gw_net_counts(fresh).open, gw_net_counts(old).open);
    gw_net_events_from(fresh, gw_net_events(old));
    assert_int_equal(gw_net_let_go(old), 0);
    if (r->publish_frozen)
        gw_hub_publish(fresh, "state", "{\"frozen\":1}");
    gw_net_close(old, NULL, NULL);
    r->net = fresh;
    r->ws = NULL;
    gw_net_tag(fresh, "0123abcd.2");
    gw_net_thaw(fresh);
    gw_ws_each(fresh, adopt_ws, r);
    r->moves++;
}

static bool quiet(const struct rig *r)
{
    struct gw_net_counts n = gw_net_counts(r->net);
    return n.open == 0 && n.in_flight == 0 && n.held == 0 && n.streams == 0 && n.websockets == 0;
}

void rig_close_now(struct rig *r)
{
    if (!r->closed && !r->net->closing)
        gw_net_close(r->net, closed, r);
    rig_until(r, r->closed);
    for (int i = 0; i < RIG_CLIENTS; i++)
        if (r->clients[i].fd >= 0)
            rig_hang_up(&r->clients[i]);
    uv_close((uv_handle_t *)&r->guard, NULL);
    (void)uv_run(&r->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&r->loop), 0);
    (void)close(r->listener);
    for (int i = 0; i < RIG_CLIENTS; i++)
        gw_buf_fini(&r->clients[i].in);
    gw_buf_fini(&r->messages);
    gw_buf_fini(&r->order);
    assert_int_equal(count_fds(), r->fds_before);
}

void rig_close(struct rig *r)
{
    for (int i = 0; i < RIG_CLIENTS; i++)
        if (r->clients[i].fd >= 0)
            rig_hang_up(&r->clients[i]);
    rig_until(r, quiet(r));
    assert_int_equal(r->net->deadlines.armed_ms, 0);
    assert_false(uv_is_active((uv_handle_t *)&r->net->deadlines.timer));
    rig_close_now(r);
}

void rig_turn(struct rig *r)
{
    (void)uv_run(&r->loop, UV_RUN_ONCE);
}

void rig_settle(struct rig *r)
{
    for (int i = 0; i < 8; i++)
        (void)uv_run(&r->loop, UV_RUN_NOWAIT);
}

/* ---- clients ---- */

static void on_client(uv_poll_t *poll, int status, int events)
{
    struct rig_client *c = poll->data;
    static char piece[65536];
    ssize_t n = recv(c->fd, piece, sizeof piece, MSG_DONTWAIT);
    if (n > 0) {
        gw_buf_add(&c->in, piece, (size_t)n);
    } else if (n == 0 || errno != EAGAIN) {
        c->eof = true;
        c->reset = n < 0;
        (void)uv_poll_stop(&c->poll);
    }
}

static struct rig_client *connect_with(struct rig *r, int receive_bytes)
{
    int i = 0;
    while (i < RIG_CLIENTS && (r->clients[i].fd >= 0 || r->clients[i].in.data != NULL || r->clients[i].rig != NULL))
        i++;
    assert_true(i < RIG_CLIENTS);
    struct rig_client *c = &r->clients[i];
    c->rig = r;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (receive_bytes > 0)
        (void)setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    struct sockaddr_in name = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)r->port)};
    assert_int_equal(connect(c->fd, (struct sockaddr *)&name, sizeof name), 0);
    assert_int_equal(uv_poll_init(&r->loop, &c->poll, c->fd), 0);
    c->poll.data = c;
    rig_deaf(c, false);
    return c;
}

struct rig_client *rig_connect(struct rig *r)
{
    return connect_with(r, 0);
}

struct rig_client *rig_connect_small(struct rig *r)
{
    return connect_with(r, 4096);
}

void rig_hang_up(struct rig_client *c)
{
    uv_close((uv_handle_t *)&c->poll, NULL);
    (void)close(c->fd);
    c->fd = -1;
}

void rig_reset(struct rig_client *c)
{
    struct linger now = {.l_onoff = 1};
    (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    rig_hang_up(c);
}

void rig_half_close(struct rig_client *c)
{
    assert_int_equal(shutdown(c->fd, SHUT_WR), 0);
}

void rig_deaf(struct rig_client *c, bool deaf)
{
    c->deaf = deaf;
    if (deaf)
        (void)uv_poll_stop(&c->poll);
    else
        (void)uv_poll_start(&c->poll, UV_READABLE, on_client);
}

void rig_send_bytes(struct rig_client *c, const void *data, size_t n)
{
    for (size_t sent = 0; sent < n;) {
        ssize_t k = send(c->fd, (const char *)data + sent, n - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k >= 0)
            sent += (size_t)k;
        else if (errno == EAGAIN)
            (void)uv_run(&c->rig->loop, UV_RUN_NOWAIT);
        else
            return; // the other end has had enough: the test looks at what it said
        assert_false(c->rig->late);
    }
}

void rig_send(struct rig_client *c, const char *text)
{
    rig_send_bytes(c, text, strlen(text));
}

void rig_dribble(struct rig_client *c, const void *data, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        rig_send_bytes(c, (const char *)data + i, 1);
        (void)uv_run(&c->rig->loop, UV_RUN_NOWAIT);
        (void)uv_run(&c->rig->loop, UV_RUN_NOWAIT);
    }
}

static bool has_bytes(const struct rig_client *c, const void *data, size_t n)
{
    return c->in.len >= n && memmem(c->in.data, c->in.len, data, n) != NULL;
}

void rig_expect_bytes(struct rig_client *c, const void *data, size_t n)
{
    while (!has_bytes(c, data, n)) {
        if (c->rig->late || c->eof)
            fail_msg("'%.*s' did not come, but: %.2000s", (int)n, (const char *)data, c->in.len > 0 ? c->in.data : "");
        rig_turn(c->rig);
    }
}

void rig_expect(struct rig_client *c, const char *text)
{
    rig_expect_bytes(c, text, strlen(text));
}

void rig_expect_end(struct rig_client *c)
{
    rig_until(c->rig, c->eof);
}

unsigned rig_count(const struct rig_client *c, const char *text)
{
    unsigned n = 0;
    for (const char *s = c->in.len > 0 ? c->in.data : ""; (s = strstr(s, text)) != NULL; s += strlen(text))
        n++;
    return n;
}

bool rig_has(const struct rig_client *c, const char *text)
{
    return has_bytes(c, text, strlen(text));
}

void rig_forget(struct rig_client *c)
{
    c->in.len = 0;
}

/* ---- WebSocket clients ---- */

struct rig_client *rig_ws(struct rig *r)
{
    struct rig_client *c = rig_connect(r);
    rig_send(c, "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    rig_expect(c, "\r\n\r\n");
    assert_true(rig_has(c, "HTTP/1.1 101 "));
    assert_true(rig_has(c, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    rig_forget(c);
    return c;
}

void rig_frame(struct gw_buf *out, unsigned first, const void *payload, size_t n)
{
    static const char key[4] = {0x11, 0x22, 0x33, 0x44};
    char head[10];
    size_t len = gw_frame_header(first & 15, n, head);
    head[0] = (char)first;
    head[1] = (char)(head[1] | 0x80);
    gw_buf_add(out, head, len);
    gw_buf_add(out, key, 4);
    for (size_t i = 0; i < n; i++) {
        char byte = (char)(((const char *)payload)[i] ^ key[i % 4]);
        gw_buf_add(out, &byte, 1);
    }
}

void rig_send_frame(struct rig_client *c, unsigned first, const void *payload, size_t n)
{
    struct gw_buf frame = {0};
    rig_frame(&frame, first, payload, n);
    rig_send_bytes(c, frame.data, frame.len);
    gw_buf_fini(&frame);
}

void rig_expect_frame(struct rig_client *c, unsigned first, const void *payload, size_t n)
{
    char frame[128] = {(char)first, (char)n};
    assert_true(n < 126);
    memcpy(frame + 2, payload, n);
    rig_expect_bytes(c, frame, n + 2);
}

void rig_expect_close(struct rig_client *c, unsigned code)
{
    while (true) {
        for (size_t i = 0; i + 4 <= c->in.len; i++)
            if ((unsigned char)c->in.data[i] == 0x88 && (unsigned char)c->in.data[i + 2] == code >> 8 &&
                (unsigned char)c->in.data[i + 3] == (code & 255))
                return;
        if (c->rig->late || c->eof)
            fail_msg("no close frame with %u came", code);
        rig_turn(c->rig);
    }
}
