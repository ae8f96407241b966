/* What the owner may do when: closing everything from within a callback, and closing with all in hand. */
#include "support/net_rig.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct rig rig;

static int before(void **state)
{
    rig_open(&rig, NULL);
    return 0;
}

static int after_now(void **state)
{
    rig_close_now(&rig);
    return 0;
}

static void closing_ends_whatever_is_in_hand(void **state)
{
    static const char *const all[] = {"GET /later HTTP/1.1\r\nHost: x\r\n\r\n",
                                      "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n",
                                      "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n",
                                      "GET /events HTTP/1.1\r\nHost: x\r\n\r\n",
                                      "GET /unfinished HTTP/1.1\r\nHos",
                                      "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab",
                                      "GET /idle HTTP/1.1\r\nHost: x\r\n\r\n",
                                      "BAD\r\n\r\n",
                                      "GET /big?12000000 HTTP/1.1\r\nHost: x\r\n\r\n"};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct rig_client *c = rig_connect_small(&rig);
        rig_deaf(c, true);
        rig_send(c, all[i]);
    }
    struct rig_client *ws = rig_ws(&rig);
    rig_send_frame(ws, 0x01, "unfinished", 10);
    rig_until(&rig, rig.requests == 7);
    rig_settle(&rig);
    gw_net_release(rig.net); // one is on its way
    struct gw_net_counts n = gw_net_counts(rig.net);
    assert_int_equal(n.open, 10);
    assert_int_equal(n.in_flight, 1);
    assert_int_equal(n.held, 1);
    assert_int_equal(n.streams, 2);
    assert_int_equal(n.websockets, 1);
    gw_net_close(rig.net, NULL, NULL);
    rig.closed = true; // nobody is called but the loop
    assert_int_equal(rig.gone + rig.streams_closed + rig.ws_closed, 0);
}

static void it_may_be_closed_from_within_a_request(void **state)
{
    struct rig_client *c = rig_connect(&rig), *other = rig_connect(&rig);
    rig_send(other, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_until(&rig, rig.kept_count == 1);
    rig_send(c, "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /close HTTP/1.1\r\nHost: x\r\n\r\nGET /3 HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_until(&rig, rig.closed);
    assert_int_equal(rig.requests, 3);
    rig_expect_end(other);
}

static void on_closed(void *ud)
{
    ((struct rig *)ud)->closed = true;
}

static void close_at_stream_end(void *ud, struct gw_stream *s)
{
    struct rig *r = ud;
    gw_net_close(r->net, on_closed, r);
}

static void close_at_ws_end(void *ud, struct gw_ws *ws, unsigned code)
{
    struct rig *r = ud;
    gw_net_close(r->net, on_closed, r);
}

static void close_at_message(void *ud, struct gw_ws *ws, enum gw_ws_kind kind, const char *data, size_t n)
{
    struct rig *r = ud;
    gw_net_close(r->net, on_closed, r);
}

static void close_at_gone(void *ud, struct gw_request *req)
{
    struct rig *r = ud;
    gw_net_close(r->net, on_closed, r);
}

static void it_may_be_closed_from_within_the_end_of_a_stream(void **state)
{
    rig.net->ops.stream_closed = close_at_stream_end;
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_until(&rig, rig.stream != NULL);
    gw_stream_end(rig.stream);
    rig_until(&rig, rig.closed);
}

static void it_may_be_closed_from_within_the_end_of_a_websocket(void **state)
{
    rig.net->ops.ws_closed = close_at_ws_end;
    struct rig_client *c = rig_ws(&rig);
    rig_send_frame(c, 0x88, "\x03\xe8", 2);
    rig_until(&rig, rig.closed);
}

static void it_may_be_closed_from_within_a_message(void **state)
{
    rig.net->ops.ws_message = close_at_message;
    struct rig_client *c = rig_ws(&rig);
    rig_send_frame(c, 0x81, "one", 3);
    rig_send_frame(c, 0x81, "two", 3);
    rig_until(&rig, rig.closed);
}

static void it_may_be_closed_from_within_request_gone(void **state)
{
    rig.net->ops.request_gone = close_at_gone;
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_until(&rig, rig.kept_count == 1);
    rig_hang_up(c);
    rig_until(&rig, rig.closed);
}

static void answers_to_clients_that_went_are_all_accepted(void **state)
{
    for (int i = 0; i < 5; i++)
        rig_send(rig_connect(&rig), "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_until(&rig, rig.kept_count == 5);
    for (int i = 0; i < 5; i++)
        rig_reset(&rig.clients[i]);
    rig_until(&rig, rig.gone == 5);
    gw_answer(rig.kept[0], 200, NULL, 0, "x", 1);
    gw_answer_error(rig.kept[1], 500, "aborted", "x", 0);
    struct gw_stream *s = gw_stream_begin(rig.kept[2], 200, NULL, 0);
    assert_int_equal(gw_stream_write(s, "x", 1), -EPIPE);
    gw_stream_end(s);
    gw_hub_attach(rig.net, rig.kept[3]);
    gw_net_hold(rig.net, rig.kept[4], "draining", "x");
    rig_until(&rig, rig.streams_closed == 1 && gw_net_counts(rig.net).streams == 0);
    assert_int_equal(gw_net_counts(rig.net).in_flight, 0);
}

static void a_websocket_accepted_too_late_is_closed(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /later HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    rig_until(&rig, rig.kept_count == 1);
    assert_true(gw_request_info(rig.kept[0])->upgrade);
    rig_reset(c);
    rig_until(&rig, rig.gone == 1);
    struct gw_ws *ws = gw_ws_accept(rig.kept[0], NULL);
    assert_string_equal(gw_ws_info(ws)->path, "/later");
    assert_int_equal(gw_ws_send(ws, GW_WS_TEXT, "x", 1), -EPIPE);
    rig_until(&rig, rig.ws_closed == 1);
    assert_int_equal(rig.ws_code, 1006);
    assert_int_equal(gw_net_counts(rig.net).in_flight, 0);
}

static void a_unix_client_is_local(void **state)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    struct sockaddr_storage peer = {.ss_family = AF_UNIX};
    assert_non_null(gw_conn_adopt(rig.net, ends[0], &peer));
    static const char text[] = "GET /later HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_int_equal(send(ends[1], text, sizeof text - 1, 0), sizeof text - 1);
    rig_until(&rig, rig.kept_count == 1);
    assert_string_equal(gw_request_info(rig.kept[0])->peer, "unix");
    assert_true(gw_request_info(rig.kept[0])->local);
    gw_answer(rig.kept[0], 200, NULL, 0, "", 0);
    (void)close(ends[1]);
    rig_until(&rig, gw_net_counts(rig.net).open == 0);
}

#define IN_A_RIG(name) cmocka_unit_test_setup_teardown(name, before, after_now)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_RIG(closing_ends_whatever_is_in_hand),
        IN_A_RIG(it_may_be_closed_from_within_a_request),
        IN_A_RIG(it_may_be_closed_from_within_the_end_of_a_stream),
        IN_A_RIG(it_may_be_closed_from_within_the_end_of_a_websocket),
        IN_A_RIG(it_may_be_closed_from_within_a_message),
        IN_A_RIG(it_may_be_closed_from_within_request_gone),
        IN_A_RIG(answers_to_clients_that_went_are_all_accepted),
        IN_A_RIG(a_websocket_accepted_too_late_is_closed),
        IN_A_RIG(a_unix_client_is_local),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
