/* Connections go on in another process: moved at every byte of what a client sends, it notices nothing. */
#include "support/net_rig.h"

#include "base/err.h"
#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static struct rig rig;

static int before(void **state)
{
    rig_open(&rig, NULL);
    return 0;
}

static int after(void **state)
{
    rig_close(&rig);
    return 0;
}

/* Sends text with a move, or a freeze and thaw in place, behind its first n bytes. */
static void send_around(struct rig_client *c, const char *text, size_t len, size_t n, bool in_place)
{
    rig_send_bytes(c, text, n);
    rig_settle(&rig);
    if (in_place) {
        gw_net_freeze(rig.net);
        gw_net_thaw(rig.net);
    } else {
        rig_move(&rig);
    }
    rig_send_bytes(c, text + n, len - n);
}

/* The same text at every of its bytes, on one connection; each time the client gets `answer`, `times` times. */
static void at_every_byte(const char *text, const char *answer, unsigned times)
{
    struct rig_client *c = rig_connect(&rig);
    size_t len = strlen(text);
    for (size_t n = 0; n <= len; n++) {
        rig_forget(c);
        send_around(c, text, len, n, n % 5 == 4);
        rig_until(&rig, rig_count(c, answer) >= times);
        rig_settle(&rig);
        assert_int_equal(rig_count(c, answer), times);
        assert_int_equal(rig_count(c, "HTTP/1.1 200"), times);
        assert_false(c->eof || c->reset);
    }
    assert_int_equal(gw_net_counts(rig.net).open, 1);
}

static void a_header_moves_at_every_byte(void **state)
{
    at_every_byte("GET /a?b=c HTTP/1.1\r\nHost: x\r\nX-Long: some words\r\n\r\n", "GET /a?b=c ", 1);
}

static void a_body_moves_at_every_byte(void **state)
{
    at_every_byte("POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello world", "POST /p? hello world", 1);
}

static void a_chunked_body_moves_at_every_byte(void **state)
{
    at_every_byte("POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: t\r\n\r\n",
                  "POST /p? hello world", 1);
}

static void three_requests_in_a_row_move_at_every_byte(void **state)
{
    static const char text[] = "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nPOST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
                               "GET /3 HTTP/1.1\r\nHost: x\r\n\r\n";
    struct rig_client *c = rig_connect(&rig);
    for (size_t n = 0; n < sizeof text; n++) {
        rig_forget(c);
        rig.order.len = 0;
        send_around(c, text, sizeof text - 1, n, false);
        rig_expect(c, "GET /3? ");
        assert_string_equal(rig.order.data, "/1 /2 /3 ");
        assert_int_equal(rig_count(c, "HTTP/1.1 200"), 3);
    }
}

static void the_client_is_told_to_go_on_once(void **state)
{
    static const char text[] =
        "POST /p HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody";
    struct rig_client *c = rig_connect(&rig);
    for (size_t n = 0; n < sizeof text; n++) {
        rig_forget(c);
        send_around(c, text, sizeof text - 1, n, false);
        rig_expect(c, "POST /p? body");
        // Needed only by a client whose body has not begun when the header is complete.
        bool waits = n == sizeof text - 1 - 4;
        assert_true(rig_count(c, "100 Continue") <= 1);
        assert_true(!waits || rig_count(c, "100 Continue") == 1);
    }
}

static void a_slow_reader_gets_each_byte_once(void **state)
{
    struct rig_client *c = rig_connect_small(&rig);
    rig_deaf(c, true);
    rig_send(c, "GET /big?5000000 HTTP/1.1\r\nHost: x\r\n\r\nGET /last HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_settle(&rig);
    for (int i = 0; i < 6; i++) {
        size_t had = c->in.len;
        rig_move(&rig);
        rig_deaf(c, false);
        rig_until(&rig, c->in.len > had + 100000);
        rig_deaf(c, true);
    }
    rig_deaf(c, false);
    rig_expect(c, "GET /last? ");
    size_t x = 0;
    for (size_t i = 0; i < c->in.len; i++)
        x += c->in.data[i] == 'x';
    assert_int_equal(x, 5000000 + 1); // and the one of text/plain
}

static void an_answer_that_ends_the_connection_still_does(void **state)
{
    struct rig_client *c = rig_connect_small(&rig);
    rig_deaf(c, true);
    rig_send(c, "GET /big?5000000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    rig_settle(&rig);
    rig_move(&rig);
    rig_deaf(c, false);
    rig_expect_end(c);
    assert_true(c->in.len > 5000000);
    assert_false(c->reset);
}

static void events_go_on_with_increasing_ids(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect(c, "retry");
    gw_hub_publish(rig.net, "state", "{\"n\":1}");
    rig.publish_frozen = true;
    rig_move(&rig);
    gw_hub_publish(rig.net, "state", "{\"n\":2}");
    rig_move(&rig);
    gw_hub_publish(rig.net, "state", "{\"n\":3}");
    rig_expect(c, "{\"n\":3}\n\n");
    assert_int_equal(rig_count(c, "{\"frozen\":1}"), 2);
    for (int id = 1; id <= 5; id++) {
        char line[32];
        (void)snprintf(line, sizeof line, "id: %d\n", id);
        assert_int_equal(rig_count(c, line), 1);
    }
    assert_int_equal(gw_net_counts(rig.net).streams, 1);
}

static void a_websocket_frame_moves_at_every_byte(void **state)
{
    struct rig_client *c = rig_ws(&rig);
    struct gw_buf frame = {0};
    char text[140];
    memset(text, 'm', sizeof text);
    rig_frame(&frame, 0x81, text, sizeof text); // two more bytes of length
    for (size_t n = 0; n <= frame.len; n++) {
        rig_forget(c);
        send_around(c, frame.data, frame.len, n, n % 7 == 6);
        rig_until(&rig, c->in.len >= sizeof text + 4);
        assert_int_equal(c->in.len, sizeof text + 4);
    }
    gw_buf_fini(&frame);
    assert_int_equal(gw_net_counts(rig.net).websockets, 1);
    assert_string_equal(gw_ws_info(rig.ws)->path, "/ws");
    assert_true(gw_ws_info(rig.ws)->upgrade);
}

static void a_fragmented_message_moves_at_every_byte(void **state)
{
    struct rig_client *c = rig_ws(&rig);
    struct gw_buf frames = {0};
    rig_frame(&frames, 0x01, "one ", 4);
    rig_frame(&frames, 0x89, "ping", 4);
    rig_frame(&frames, 0x00, "two ", 4);
    rig_frame(&frames, 0x80, "three", 5);
    for (size_t n = 0; n <= frames.len; n++) {
        rig_forget(c);
        rig.messages.len = 0;
        send_around(c, frames.data, frames.len, n, false);
        rig_until(&rig, c->in.len >= 6 + 15);
        assert_int_equal(c->in.len, 6 + 15); // the pong and the message, each once
        assert_string_equal(rig.messages.data, "one two three ");
    }
    gw_buf_fini(&frames);
}

static void a_websocket_keeps_value_subscription_and_what_waits(void **state)
{
    rig.ws_subscribe = true;
    struct rig_client *c = rig_ws(&rig);
    assert_int_equal(gw_ws_set_value(rig.ws, "a\0b", 3), 0);
    rig.ws_stay_paused = true;
    gw_ws_pause(rig.ws);
    rig_send_frame(c, 0x81, "waits", 5);
    rig_settle(&rig);
    rig_move(&rig);
    rig_settle(&rig);
    assert_int_equal(rig.messages.len, 0);
    size_t n;
    const char *value = gw_ws_value(rig.ws, &n);
    assert_int_equal(n, 3);
    assert_memory_equal(value, "a\0b", 3);
    gw_ws_resume(rig.ws);
    rig_expect_frame(c, 0x81, "waits", 5);
    gw_hub_publish(rig.net, "state", "{\"n\":1}");
    rig_expect(c, "{\"event\":{\"n\":1}}");
}

static void a_closing_handshake_goes_on(void **state)
{
    struct rig_client *c = rig_ws(&rig);
    gw_ws_end(rig.ws, 4001, "bye");
    rig_expect_close(c, 4001);
    rig_move(&rig);
    rig_send_frame(c, 0x88, "\x0f\xa1", 2);
    rig_expect_end(c);
    rig_until(&rig, rig.ws_closed == 1);
    assert_int_equal(rig.ws_code, 4001);
}

static void a_held_request_is_answered_once_by_who_comes_next(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig.holding = true;
    rig_send(c, "POST /held HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
    rig_until(&rig, gw_net_counts(rig.net).held == 1);
    rig_move(&rig);
    rig_until(&rig, gw_net_counts(rig.net).held == 1);
    rig.holding = false;
    gw_net_release(rig.net);
    rig_expect(c, "POST /held? hi");
    assert_int_equal(rig_count(c, "HTTP/1.1"), 1);
    assert_int_equal(rig_count(c, "Gwhost-Generation: 0123abcd.2"), 1);
}

static struct gw_conn *only_conn(void)
{
    return gw_container(rig.net->conns.next, struct gw_conn, link);
}

static void ages_move_along(void **state)
{
    enum { AGED_MS = 200 };
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect(c, "GET /a?");
    struct rig_client *half = rig_connect(&rig);
    rig_send(half, "GET /half");
    rig_settle(&rig);
    uint64_t idle = only_conn()->timed.at_ms;
    uint64_t header = gw_container(rig.net->conns.prev, struct gw_conn, link)->timed.at_ms;
    rig.stood_by_ms = AGED_MS; // so that a new age would be another one, as would one with the time of standing by
    rig_move(&rig);
    rig_settle(&rig);
    assert_int_equal(only_conn()->timed.class, GW_TO_IDLE);
    assert_in_range(only_conn()->timed.at_ms, idle, idle + AGED_MS - 1);
    assert_int_equal(gw_container(rig.net->conns.prev, struct gw_conn, link)->timed.class, GW_TO_HEADER);
    assert_in_range(gw_container(rig.net->conns.prev, struct gw_conn, link)->timed.at_ms, header, header + AGED_MS - 1);
    assert_int_equal(gw_net_counts(rig.net).idle, 1);
    rig_send(half, " HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect(half, "GET /half?");
}

static void a_client_that_has_gone_meanwhile_is_noticed(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect(c, "GET /a?");
    gw_net_freeze(rig.net);
    rig_hang_up(c);
    rig_move(&rig);
    rig_until(&rig, gw_net_counts(rig.net).open == 0);
}

static void many_connections_move_in_batches(void **state)
{
    enum { MANY = 450 };
    static int clients[MANY];
    struct sockaddr_storage name;
    socklen_t len = sizeof name;
    struct rlimit files;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    files.rlim_cur = files.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
    if (files.rlim_max < 4 * MANY)
        skip(); // the client's, the old one's and the next one's of each are open at once
    assert_int_equal(getsockname(rig.listener, (struct sockaddr *)&name, &len), 0);
    for (int i = 0; i < MANY; i++) {
        clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(clients[i], (struct sockaddr *)&name, len), 0);
        rig_until(&rig, gw_net_counts(rig.net).open == (unsigned)i + 1);
    }
    rig_move(&rig);
    static const char text[] = "GET /x HTTP/1.1\r\nHost: x\r\n\r\n";
    for (int i = 0; i < MANY; i++)
        assert_int_equal(write(clients[i], text, sizeof text - 1), sizeof text - 1);
    rig_until(&rig, rig.requests == MANY);
    for (int i = 0; i < MANY; i++)
        (void)close(clients[i]);
    rig_until(&rig, gw_net_counts(rig.net).open == 0);
}

/* Offers head with copies of these descriptors to a fresh frozen net. Returns what it says; what it did not take
 * over is still open. */
static int offer(const char *head_text, const char *blob, size_t blob_bytes, const int *from, size_t count,
                 struct gw_err *err)
{
    struct gw_net *net;
    int fds[4];
    json_t *head = json_loads(head_text, 0, NULL);
    assert_non_null(head);
    const struct gw_net_ops ops = rig.net->ops;
    assert_int_equal(gw_net_open(&rig.loop, NULL, &ops, &rig, &net, NULL), 0);
    gw_net_freeze(net);
    for (size_t i = 0; i < count; i++)
        fds[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 3);
    int rc = gw_net_adopt(net, head, blob, blob_bytes, fds, count, err);
    assert_int_equal(gw_net_counts(net).open, rc < 0 ? 0 : (int)count - rc);
    for (size_t i = 0; i < count; i++)
        if (rc != 0)
            assert_int_equal(close(fds[i]), 0);
    gw_net_close(net, NULL, NULL);
    json_decref(head);
    return rc;
}

static void refused(const char *head_text, const char *blob, size_t blob_bytes, const int *from, size_t count)
{
    struct gw_err err = {0};
    assert_true(offer(head_text, blob, blob_bytes, from, count, &err) < 0);
    assert_true(err.text[0] != '\0');
}

static void what_is_not_understood_is_refused_whole(void **state)
{
#define ONE(more) "{\"version\":1,\"frozen_ms\":0,\"connections\":[{\"id\":1,\"peer\":\"p\",\"messages\":0" more "}]}"
    struct rig_client *c = rig_connect(&rig);
    int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    refused("{\"version\":2,\"frozen_ms\":0,\"connections\":[]}", "", 0, NULL, 0);
    refused("{}", "", 0, NULL, 0);
    refused("[]", "", 0, NULL, 0);
    refused("{\"version\":1,\"frozen_ms\":0,\"connections\":[]}", "", 0, &c->fd, 1);
    refused("{\"version\":1,\"frozen_ms\":0,\"connections\":[7]}", "", 0, &c->fd, 1);
    refused(ONE(""), "", 0, &c->fd, 1);
    refused(ONE(",\"protocol\":\"gopher\""), "", 0, &c->fd, 1);
    refused(ONE(",\"protocol\":\"http\""), "", 0, NULL, 0);
    refused(ONE(",\"protocol\":\"http\""), "x", 1, &c->fd, 1);
    refused(ONE(",\"protocol\":\"http\",\"raw\":2"), "x", 1, &c->fd, 1);
    refused(ONE(",\"protocol\":\"http\",\"raw\":-1"), "x", 1, &c->fd, 1);
    refused(ONE(",\"protocol\":\"http\",\"raw\":\"x\""), "x", 1, &c->fd, 1);
    refused(ONE(",\"protocol\":\"http\",\"value\":1"), "x", 1, &c->fd, 1);
    refused(ONE(",\"protocol\":\"websocket\",\"kind\":0,\"code\":0"), "", 0, &c->fd, 1);
    refused(ONE(",\"protocol\":\"http\",\"deadline\":99"), "", 0, &c->fd, 1);
    refused(ONE(",\"protocol\":\"websocket\",\"kind\":0,\"code\":0,\"head\":0,\"fragment\":1"), "x", 1, &c->fd, 1);
    refused(ONE(",\"protocol\":\"websocket\",\"kind\":1,\"code\":0,\"head\":0,\"fragment\":2000000"), "x", 1, &c->fd, 1);
    // One that is no connection is left to who offers it, and the others are taken.
    assert_int_equal(offer(ONE(",\"protocol\":\"http\""), "", 0, &file, 1, NULL), 1);
    assert_int_equal(offer(ONE(",\"protocol\":\"http\""), "", 0, &rig.listener, 1, NULL), 1);
    assert_int_equal(offer(ONE(",\"protocol\":\"http\""), "", 0, &c->fd, 1, NULL), 0);
    (void)close(file);
}

int main(void)
{
#define moves(test) cmocka_unit_test_setup_teardown(test, before, after)
    const struct CMUnitTest tests[] = {
        moves(a_header_moves_at_every_byte),
        moves(a_body_moves_at_every_byte),
        moves(a_chunked_body_moves_at_every_byte),
        moves(three_requests_in_a_row_move_at_every_byte),
        moves(the_client_is_told_to_go_on_once),
        moves(a_slow_reader_gets_each_byte_once),
        moves(an_answer_that_ends_the_connection_still_does),
        moves(events_go_on_with_increasing_ids),
        moves(a_websocket_frame_moves_at_every_byte),
        moves(a_fragmented_message_moves_at_every_byte),
        moves(a_websocket_keeps_value_subscription_and_what_waits),
        moves(a_closing_handshake_goes_on),
        moves(a_held_request_is_answered_once_by_who_comes_next),
        moves(ages_move_along),
        moves(a_client_that_has_gone_meanwhile_is_noticed),
        moves(many_connections_move_in_batches),
        moves(what_is_not_understood_is_refused_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
