/* WebSockets: messages, control frames, both kinds of end, pausing. */
#include "support/net_rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct rig rig;

static int before(void **state)
{
    struct gw_net_limits limits = gw_net_limits_default();
    limits.ws_message_bytes = 200000;
    limits.send_buffer_bytes = 100000;
    rig_open(&rig, &limits);
    return 0;
}

static int before_in_a_hurry(void **state)
{
    struct gw_net_limits limits = gw_net_limits_default();
    limits.linger_ms = 50;
    rig_open(&rig, &limits);
    return 0;
}

static int after(void **state)
{
    rig_close(&rig);
    return 0;
}

static void expect_messages(const char *all)
{
    rig_until(&rig, rig.messages.len >= strlen(all));
    assert_string_equal(rig.messages.data, all);
}

static void messages_are_echoed_with_their_kind(void **state)
{
    struct rig_client *c = rig_ws(&rig);
    rig_send_frame(c, 0x81, "hello", 5);
    rig_expect_frame(c, 0x81, "hello", 5);
    rig_send_frame(c, 0x82, "\0\xff", 2);
    rig_expect_frame(c, 0x82, "\0\xff", 2);
    rig_send_frame(c, 0x81, "", 0);
    rig_expect_frame(c, 0x81, "", 0);
    assert_int_equal(gw_net_counts(rig.net).websockets, 1);
    assert_int_equal(gw_net_counts(rig.net).in_flight, 0);
    assert_string_equal(gw_ws_info(rig.ws)->path, "/ws");
}

static void frames_may_come_one_byte_at_a_time(void **state)
{
    struct rig_client *c = rig_ws(&rig);
    struct gw_buf frame = {0};
    char text[300];
    memset(text, 'a', sizeof text);
    rig_frame(&frame, 0x81, "short", 5);
    rig_frame(&frame, 0x81, text, sizeof text); // with a longer header
    rig_dribble(c, frame.data, frame.len);
    gw_buf_fini(&frame);
    rig_expect_frame(c, 0x81, "short", 5);
    rig_expect_bytes(c, "\x81\x7e\x01\x2c", 4);
    rig_until(&rig, c->in.len == 7 + 4 + 300);
}

static void a_great_message_comes_back_whole(void **state)
{
    struct rig_client *c = rig_ws(&rig);
    char *text = gw_calloc(1, 200000);
    memset(text, 'g', 200000);
    rig_send_frame(c, 0x82, text, 200000);
    rig_until(&rig, c->in.len == 200010);
    assert_memory_equal(c->in.data, "\x82\x7f\0\0\0\0\0\x03\x0d\x40", 10);
    assert_memory_equal(c->in.data + 10, text, 200000);
    free(text);
}

static void many_frames_in_one_read_keep_their_order(void **state)
{
    struct rig_client *c = rig_ws(&rig);
    struct gw_buf all = {0}, expected = {0};
    for (int i = 0; i < 500; i++) {
        char text[16];
        int n = snprintf(text, sizeof text, "m%d", i);
        rig_frame(&all, 0x81, text, (size_t)n);
        gw_buf_addf(&expected, "%s ", text);
    }
    rig_send_bytes(c, all.data, all.len);
    expect_messages(expected.data);
    gw_buf_fini(&all);
    gw_buf_fini(&expected);
}

static void frames_behind_the_handshake_are_not_lost(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    struct gw_buf all = {0};
    gw_buf_adds(&all, "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    rig_frame(&all, 0x81, "early", 5);
    rig_send_bytes(c, all.data, all.len);
    gw_buf_fini(&all);
    rig_expect_frame(c, 0x81, "early", 5);
}

static void what_is_no_handshake_is_no_upgrade(void **state)
{
    static const char *const bad[] = {
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2hvcnQ=\r\n",
        "Upgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct rig_client *c = rig_connect(&rig);
        char *text = gw_asprintf("GET /ws HTTP/1.1\r\nHost: a\r\n%s\r\n", bad[i]);
        rig_send(c, text);
        free(text);
        rig_expect(c, "GET /ws? "); // answered as an ordinary request
    }
}

static void pings_are_answered_and_pongs_are_not(void **state)
{
    struct rig_client *c = rig_ws(&rig);
    rig_send_frame(c, 0x8a, "unasked", 7);
    rig_send_frame(c, 0x89, "are you there", 13);
    rig_expect_frame(c, 0x8a, "are you there", 13);
    assert_int_equal(c->in.len, 15);
}

static void a_ping_may_come_inside_a_fragmented_message(void **state)
{
    struct rig_client *c = rig_ws(&rig);
    rig_send_frame(c, 0x01, "one ", 4);
    rig_send_frame(c, 0x89, "p", 1);
    rig_expect_frame(c, 0x8a, "p", 1);
    assert_int_equal(rig.messages.len, 0);
    rig_send_frame(c, 0x00, "", 0);
    rig_send_frame(c, 0x80, "two", 3);
    rig_expect_frame(c, 0x81, "one two", 7);
}

static void a_character_may_be_split_over_two_frames(void **state)
{
    struct rig_client *c = rig_ws(&rig);
    rig_send_frame(c, 0x01, "\xc3", 1);
    rig_send_frame(c, 0x80, "\xa9", 1);
    rig_expect_frame(c, 0x81, "\xc3\xa9", 2);
}

struct fault {
    const char *name, *bytes;
    size_t n;
    unsigned code;
};
#define FAULT(name, bytes, code) {name, bytes, sizeof(bytes) - 1, code}

static const struct fault faults[] = {
    FAULT("unmasked", "\x81\x01x", 1002),
    FAULT("reserved bit", "\xc1\x80\0\0\0\0", 1002),
    FAULT("reserved opcode", "\x83\x80\0\0\0\0", 1002),
    FAULT("reserved control opcode", "\x8b\x80\0\0\0\0", 1002),
    FAULT("fragmented ping", "\x09\x80\0\0\0\0", 1002),
    FAULT("long ping", "\x89\xfe\x00\x7e\0\0\0\0", 1002),
    FAULT("not the shortest length", "\x81\xfe\x00\x05\0\0\0\0hello", 1002),
    FAULT("nothing to continue", "\x80\x80\0\0\0\0", 1002),
    FAULT("a message inside another", "\x01\x80\0\0\0\0\x81\x80\0\0\0\0", 1002),
    FAULT("bad UTF-8", "\x81\x82\0\0\0\0\xc0\x80", 1007),
    FAULT("half a character", "\x81\x81\0\0\0\0\xc3", 1007),
    FAULT("too large", "\x82\xff\0\0\0\0\0\x03\x0d\x41\0\0\0\0", 1009),
    FAULT("huge", "\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", 1009),
    FAULT("negative", "\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", 1009),
    FAULT("half a close code", "\x88\x81\0\0\0\0\x03", 1002),
    FAULT("close code 1005", "\x88\x82\0\0\0\0\x03\xed", 1002),
    FAULT("close code 999", "\x88\x82\0\0\0\0\x03\xe7", 1002),
    FAULT("close reason not UTF-8", "\x88\x83\0\0\0\0\x03\xe8\xff", 1002),
};

static void each_fault_ends_it_with_its_code(void **state)
{
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct rig_client *c = rig_ws(&rig);
        rig_send_bytes(c, faults[i].bytes, faults[i].n);
        rig_until(&rig, rig.ws_closed == i + 1);
        if (rig.ws_code != faults[i].code)
            fail_msg("%s: closed with %u", faults[i].name, rig.ws_code);
        rig_expect_close(c, faults[i].code);
        rig_expect_end(c);
        assert_false(c->reset);
    }
}

static void fragments_may_not_add_up_to_more_than_the_limit(void **state)
{
    struct rig_client *c = rig_ws(&rig);
    char *text = gw_calloc(1, 100001);
    rig_send_frame(c, 0x02, text, 100000);
    rig_send_frame(c, 0x80, text, 100001);
    free(text);
    rig_expect_close(c, 1009);
}

static void the_clients_close_is_echoed(void **state)
{
    struct rig_client *c = rig_ws(&rig);
    rig_send_frame(c, 0x88, "\x0f\xa1reason", 8); // 4001
    rig_expect_close(c, 4001);
    rig_expect_end(c);
    rig_until(&rig, rig.ws_closed == 1);
    assert_int_equal(rig.ws_code, 4001);
}

static void a_close_without_code_is_answered_without_code(void **state)
{
    struct rig_client *c = rig_ws(&rig);
    rig_send_frame(c, 0x88, "", 0);
    rig_expect_frame(c, 0x88, "", 0);
    rig_until(&rig, rig.ws_closed == 1);
    assert_int_equal(rig.ws_code, 1005);
}

static void what_is_behind_the_clients_close_is_not_looked_at(void **state)
{
    struct rig_client *c = rig_ws(&rig);
    struct gw_buf all = {0};
    rig_frame(&all, 0x88, "\x03\xe8", 2);
    rig_frame(&all, 0x81, "after", 5);
    rig_send_bytes(c, all.data, all.len);
    gw_buf_fini(&all);
    rig_expect_end(c);
    assert_int_equal(rig.messages.len, 0);
}

static void the_owner_may_end_it_from_within_a_message(void **state)
{
    struct rig_client *c = rig_ws(&rig);
    struct gw_buf all = {0};
    rig_frame(&all, 0x81, "end", 3);
    rig_frame(&all, 0x81, "late", 4); // was on its way
    rig_frame(&all, 0x89, "late", 4);
    rig_send_bytes(c, all.data, all.len);
    gw_buf_fini(&all);
    rig_expect_close(c, 4000);
    assert_true(rig_has(c, "as you wish"));
    assert_int_equal(rig.ws_closed, 0); // the client has not said its close yet
    rig_send_frame(c, 0x88, "\x0f\xa0", 2);
    rig_until(&rig, rig.ws_closed == 1);
    assert_int_equal(rig.ws_code, 4000);
    assert_string_equal(rig.messages.data, "end ");
    rig_expect_end(c);
}

static void a_client_that_does_not_answer_our_close_is_cut(void **state)
{
    struct rig_client *c = rig_ws(&rig);
    gw_ws_end(rig.ws, 1006, "a code that may not be sent"); // becomes 1000
    rig_expect_close(c, 1000);
    assert_int_equal(gw_ws_send(rig.ws, GW_WS_TEXT, "x", 1), -EPIPE);
    rig_until(&rig, rig.ws_closed == 1);
    assert_int_equal(rig.ws_code, 1006);
}

static void a_client_that_is_cut_off_is_told_of_as_1006(void **state)
{
    struct rig_client *c = rig_ws(&rig);
    struct gw_ws *ws = rig.ws;
    rig_reset(c);
    (void)gw_ws_send(ws, GW_WS_TEXT, "x", 1);
    assert_int_equal(gw_ws_send(ws, GW_WS_TEXT, "x", 1), -EPIPE);
    rig_until(&rig, rig.ws_closed == 1);
    assert_int_equal(rig.ws_code, 1006);
}

static void while_paused_messages_wait_and_then_come_in_order(void **state)
{
    rig.ws_stay_paused = true;
    struct rig_client *c = rig_ws(&rig);
    rig_send_frame(c, 0x89, "ping", 4); // answered while paused
    rig_expect_frame(c, 0x8a, "ping", 4);
    rig_send_frame(c, 0x81, "a", 1);
    rig_send_frame(c, 0x01, "b", 1);
    rig_send_frame(c, 0x80, "c", 1);
    rig_send_frame(c, 0x81, "pause", 5);
    rig_send_frame(c, 0x81, "d", 1);
    rig_settle(&rig);
    assert_int_equal(rig.messages.len, 0);
    gw_ws_resume(rig.ws);
    expect_messages("a bc pause ");
    rig_settle(&rig);
    expect_messages("a bc pause ");
    gw_ws_resume(rig.ws);
    expect_messages("a bc pause d ");
    rig_expect_frame(c, 0x81, "d", 1);
}

static void a_ping_behind_a_message_that_waits_is_answered(void **state)
{
    rig.ws_stay_paused = true;
    struct rig_client *c = rig_ws(&rig);
    struct gw_buf b = {0};
    rig_frame(&b, 0x81, "one", 3);
    rig_frame(&b, 0x89, "first", 5);
    rig_frame(&b, 0x01, "t", 1);
    rig_frame(&b, 0x89, "second", 6);
    rig_frame(&b, 0x80, "wo", 2);
    rig_dribble(c, b.data, b.len);
    rig_expect_frame(c, 0x8a, "first", 5);
    rig_expect_frame(c, 0x8a, "second", 6);
    gw_buf_fini(&b);
    rig_send_frame(c, 0x88, "\x03\xe8", 2); // this has its turn after them
    rig_half_close(c);
    rig_settle(&rig);
    assert_int_equal(rig.messages.len, 0);
    assert_int_equal(rig.ws_closed, 0);
    rig.ws_stay_paused = false;
    gw_ws_resume(rig.ws);
    rig_until(&rig, rig.ws_closed == 1);
    assert_string_equal(rig.messages.data, "one two ");
    assert_int_equal(rig.ws_code, 1000);
    assert_int_equal(rig_count(c, "first"), 1);
}

/* What is read while half of the buffer waits can be answered, however long it is. */
static void a_message_of_the_greatest_size_fits_beside_half_a_buffer(void **state)
{
    static char big[1048576];
    memset(big, 'b', sizeof big);
    struct rig_client *c = rig_connect_small(&rig);
    rig_deaf(c, true);
    rig_send(c, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    rig_until(&rig, rig.ws != NULL);
    size_t half = rig.net->limits.send_buffer_bytes / 2, most = rig.net->limits.ws_message_bytes;
    assert_true(most > half && most <= sizeof big);
    while (gw_conn_unsent(rig.ws->conn) + 10000 < half)
        assert_int_equal(gw_ws_send(rig.ws, GW_WS_TEXT, big, 10000), 0);
    assert_true(gw_conn_unsent(rig.ws->conn) > 0);
    assert_int_equal(gw_ws_send(rig.ws, GW_WS_TEXT, big, most), 0);
    assert_int_equal(gw_ws_send(rig.ws, GW_WS_TEXT, big, 1), -EAGAIN);
    assert_int_equal(gw_ws_push(rig.ws, GW_WS_TEXT, "last", 4), 0);
    rig_deaf(c, false);
    rig_until(&rig, rig.ws_ready == 1);
    rig_expect(c, "last");
}

static void while_paused_the_clients_bytes_stay_in_the_kernel(void **state)
{
    rig.ws_stay_paused = true;
    struct rig_client *c = rig_ws(&rig);
    static char piece[60000];
    struct gw_buf frame = {0};
    rig_frame(&frame, 0x82, piece, sizeof piece);
    unsigned sent = 0;
    for (int idle = 0; idle < 5;) { // until nothing more is taken
        ssize_t n = send(c->fd, frame.data, frame.len, MSG_DONTWAIT | MSG_NOSIGNAL);
        (void)uv_run(&rig.loop, UV_RUN_NOWAIT);
        idle = n == (ssize_t)frame.len ? 0 : idle + 1;
        sent += n == (ssize_t)frame.len;
        if (n > 0 && n < (ssize_t)frame.len)
            break;
    }
    gw_buf_fini(&frame);
    assert_true(sent > 4);
    assert_true(rig.ws->conn->in.len < 300000);
    rig_hang_up(c); // noticed when it is resumed
    gw_ws_resume(rig.ws);
    rig_until(&rig, rig.ws_closed == 1);
}

static void a_client_that_goes_while_paused_is_noticed(void **state)
{
    rig.ws_stay_paused = true;
    struct rig_client *c = rig_ws(&rig);
    rig_hang_up(c);
    rig_until(&rig, rig.ws_closed == 1);
    assert_int_equal(rig.ws_code, 1006);
}

static void the_owner_may_end_it_while_a_message_waits(void **state)
{
    rig.ws_stay_paused = true;
    struct rig_client *c = rig_ws(&rig);
    rig_send_frame(c, 0x81, "waits", 5);
    rig_settle(&rig);
    gw_ws_end(rig.ws, 1012, "restarting");
    rig_expect_close(c, 1012);
    rig_send_frame(c, 0x88, "\x03\xf4", 2);
    rig_until(&rig, rig.ws_closed == 1);
    assert_int_equal(rig.ws_code, 1012);
    assert_int_equal(rig.messages.len, 0);
}

static void its_value_is_kept_and_bounded(void **state)
{
    (void)rig_ws(&rig);
    size_t n = 1;
    assert_string_equal(gw_ws_value(rig.ws, &n), "");
    assert_int_equal(n, 0);
    assert_int_equal(gw_ws_set_value(rig.ws, "a\0b", 3), 0);
    char *great = gw_calloc(1, 65537);
    assert_int_equal(gw_ws_set_value(rig.ws, great, 65537), -E2BIG);
    assert_memory_equal(gw_ws_value(rig.ws, &n), "a\0b", 3);
    assert_int_equal(n, 3);
    assert_int_equal(gw_ws_set_value(rig.ws, great, 65536), 0);
    (void)gw_ws_value(rig.ws, &n);
    assert_int_equal(n, 65536);
    free(great);
}

static void a_slow_client_is_told_of_by_eagain_and_then_by_ws_ready(void **state)
{
    struct rig_client *c = rig_ws(&rig);
    rig_deaf(c, true);
    static char piece[50000];
    int r;
    size_t taken = 0;
    while ((r = gw_ws_send(rig.ws, GW_WS_BINARY, piece, sizeof piece)) == 0)
        taken++;
    assert_int_equal(r, -EAGAIN);
    rig_deaf(c, false);
    rig_until(&rig, rig.ws_ready == 1);
    assert_int_equal(gw_ws_send(rig.ws, GW_WS_TEXT, "last", 4), 0);
    rig_expect_frame(c, 0x81, "last", 4);
    assert_int_equal(c->in.len, taken * (sizeof piece + 4) + 6);
}

static void pongs_to_a_client_that_does_not_read_are_bounded(void **state)
{
    struct rig_client *c = rig_ws(&rig);
    rig_deaf(c, true);
    struct gw_buf pings = {0};
    char payload[125] = {0};
    for (int i = 0; i < 400; i++)
        rig_frame(&pings, 0x89, payload, sizeof payload);
    size_t at = 0;
    for (int turns = 0; turns < 300;) { // some more after the pongs have begun to wait
        ssize_t n = send(c->fd, pings.data + at, pings.len - at, MSG_DONTWAIT | MSG_NOSIGNAL);
        at = n > 0 ? (at + (size_t)n) % pings.len : at;
        (void)uv_run(&rig.loop, UV_RUN_NOWAIT);
        turns += gw_conn_unsent(rig.ws->conn) > 0;
        assert_true(gw_conn_unsent(rig.ws->conn) < 100000);
        assert_false(rig.late);
    }
    assert_true(rig.ws->conn->no_read);
    gw_buf_fini(&pings);
}

static void a_close_behind_what_waits_still_goes_out(void **state)
{
    struct rig_client *c = rig_ws(&rig);
    rig_deaf(c, true);
    static char piece[50000];
    while (gw_ws_send(rig.ws, GW_WS_BINARY, piece, sizeof piece) == 0)
        ;
    rig_send_frame(c, 0x88, "\x03\xe8", 2);
    rig_settle(&rig);
    rig_deaf(c, false);
    rig_expect_end(c);
    assert_false(c->reset);
    assert_true(c->in.len > 4);
    assert_memory_equal(c->in.data + c->in.len - 4, "\x88\x02\x03\xe8", 4);
    rig_until(&rig, rig.ws_closed == 1);
    assert_int_equal(rig.ws_code, 1000);
}

static void events_reach_websockets_and_slow_ones_are_ended_with_1013(void **state)
{
    rig.ws_subscribe = true;
    struct rig_client *c = rig_ws(&rig), *slow = rig_ws(&rig);
    rig_deaf(slow, true);
    gw_hub_publish(rig.net, "state", "{\"a\":1}");
    rig_expect_frame(c, 0x81, "{\"event\":{\"a\":1}}", 17);
    static char data[20001];
    memset(data, '7', sizeof data - 1);
    while (rig.ws->close_sent == false) {
        gw_hub_publish(rig.net, "task", data);
        rig_settle(&rig);
        rig_forget(c);
    }
    rig_deaf(slow, false);
    rig_expect_close(slow, 1013);
    rig_until(&rig, rig.ws_closed == 1);
    gw_hub_publish(rig.net, "task", "2");
    rig_expect_frame(c, 0x81, "{\"event\":2}", 11);
}

static void count_one(void *ud, struct gw_ws *ws)
{
    ++*(unsigned *)ud;
    gw_ws_end(ws, 1001, "all of them");
}

static void each_visits_the_open_ones_only(void **state)
{
    struct rig_client *c[3];
    for (int i = 0; i < 3; i++)
        c[i] = rig_ws(&rig);
    unsigned visited = 0;
    gw_ws_end(rig.ws, 1000, "");
    gw_ws_each(rig.net, count_one, &visited);
    assert_int_equal(visited, 2);
    gw_ws_each(rig.net, count_one, &visited);
    assert_int_equal(visited, 2);
    rig_expect_close(c[0], 1001);
    rig_expect_close(c[1], 1001);
    rig_expect_close(c[2], 1000);
}

#define IN_A_RIG(name) cmocka_unit_test_setup_teardown(name, before, after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_RIG(messages_are_echoed_with_their_kind),
        IN_A_RIG(frames_may_come_one_byte_at_a_time),
        IN_A_RIG(a_great_message_comes_back_whole),
        IN_A_RIG(many_frames_in_one_read_keep_their_order),
        IN_A_RIG(frames_behind_the_handshake_are_not_lost),
        IN_A_RIG(what_is_no_handshake_is_no_upgrade),
        IN_A_RIG(pings_are_answered_and_pongs_are_not),
        IN_A_RIG(a_ping_may_come_inside_a_fragmented_message),
        IN_A_RIG(a_character_may_be_split_over_two_frames),
        IN_A_RIG(each_fault_ends_it_with_its_code),
        IN_A_RIG(fragments_may_not_add_up_to_more_than_the_limit),
        IN_A_RIG(the_clients_close_is_echoed),
        IN_A_RIG(a_close_without_code_is_answered_without_code),
        IN_A_RIG(what_is_behind_the_clients_close_is_not_looked_at),
        IN_A_RIG(the_owner_may_end_it_from_within_a_message),
        cmocka_unit_test_setup_teardown(a_client_that_does_not_answer_our_close_is_cut, before_in_a_hurry, after),
        IN_A_RIG(a_client_that_is_cut_off_is_told_of_as_1006),
        IN_A_RIG(while_paused_messages_wait_and_then_come_in_order),
        IN_A_RIG(a_ping_behind_a_message_that_waits_is_answered),
        IN_A_RIG(a_message_of_the_greatest_size_fits_beside_half_a_buffer),
        IN_A_RIG(while_paused_the_clients_bytes_stay_in_the_kernel),
        IN_A_RIG(a_client_that_goes_while_paused_is_noticed),
        IN_A_RIG(the_owner_may_end_it_while_a_message_waits),
        IN_A_RIG(its_value_is_kept_and_bounded),
        IN_A_RIG(a_slow_client_is_told_of_by_eagain_and_then_by_ws_ready),
        IN_A_RIG(pongs_to_a_client_that_does_not_read_are_bounded),
        IN_A_RIG(a_close_behind_what_waits_still_goes_out),
        IN_A_RIG(events_reach_websockets_and_slow_ones_are_ended_with_1013),
        IN_A_RIG(each_visits_the_open_ones_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
