/* Streamed answers and the hub's server-sent events. */
#include "support/net_rig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct rig rig;

static int before(void **state)
{
    struct gw_net_limits limits = gw_net_limits_default();
    limits.send_buffer_bytes = 100000;
    rig_open(&rig, &limits);
    return 0;
}

static int after(void **state)
{
    rig_close(&rig);
    return 0;
}

static struct rig_client *stream_of(const char *request)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, request);
    rig_until(&rig, rig.stream != NULL);
    return c;
}

static void a_stream_is_chunked_and_the_connection_stays(void **state)
{
    struct rig_client *c = stream_of("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(gw_stream_write(rig.stream, "hello", 5), 0);
    assert_int_equal(gw_stream_write(rig.stream, "", 0), 0); // would end it on the wire
    assert_int_equal(gw_stream_write(rig.stream, "0123456789abcdef", 16), 0);
    gw_stream_end(rig.stream);
    rig_expect(c, "\r\n\r\n5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n");
    assert_true(rig_has(c, "Transfer-Encoding: chunked\r\n"));
    assert_false(rig_has(c, "Content-Length") || rig_has(c, "Connection:"));
    rig_until(&rig, rig.streams_closed == 1);
    rig_send(c, "GET /next HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect(c, "GET /next? ");
}

static void a_stream_to_http_1_0_lasts_until_close(void **state)
{
    struct rig_client *c = stream_of("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    (void)gw_stream_write(rig.stream, "plain", 5);
    gw_stream_end(rig.stream);
    rig_expect_end(c);
    assert_true(rig_has(c, "Connection: close\r\n\r\nplain"));
    assert_false(rig_has(c, "chunked"));
}

static void head_of_a_stream_has_no_body(void **state)
{
    struct rig_client *c = stream_of("HEAD /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(gw_stream_write(rig.stream, "unseen", 6), 0);
    gw_stream_end(rig.stream);
    rig_send(c, "GET /next HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect(c, "GET /next? ");
    assert_true(rig_has(c, "\r\n\r\nHTTP/1.1 200 OK"));
}

static void a_slow_client_is_told_of_by_eagain(void **state)
{
    struct rig_client *c = rig_connect_small(&rig);
    rig_deaf(c, true);
    rig_send(c, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_until(&rig, rig.stream != NULL);
    static char piece[50000];
    memset(piece, 'p', sizeof piece);
    unsigned taken = 0;
    int r;
    while ((r = gw_stream_write(rig.stream, piece, sizeof piece)) == 0)
        taken++;
    assert_int_equal(r, -EAGAIN);
    rig_deaf(c, false);
    rig_until(&rig, rig.streams_ready == 1);
    assert_int_equal(gw_stream_write(rig.stream, "last one", 8), 0);
    gw_stream_end(rig.stream);
    rig_expect(c, "last one\r\n0\r\n\r\n");
    assert_int_equal(rig_count(c, "c350\r\n"), taken);
    assert_true(c->in.len > (size_t)taken * sizeof piece && c->in.len < ((size_t)taken + 1) * sizeof piece);
}

static void a_stream_whose_client_goes_is_told_so_and_takes_no_more(void **state)
{
    struct rig_client *c = stream_of("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    struct gw_stream *s = rig.stream;
    rig_hang_up(c);
    rig_until(&rig, s->conn == NULL);
    if (rig.stream == s) // not yet told: still usable
        assert_int_equal(gw_stream_write(s, "x", 1), -EPIPE);
    rig_until(&rig, rig.streams_closed == 1);
}

static void a_stream_that_fails_in_the_middle_of_writing_is_told_once(void **state)
{
    struct rig_client *c = stream_of("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_reset(c); // nothing has looked at it yet
    assert_int_equal(gw_stream_write(rig.stream, "x", 1), -EPIPE);
    assert_int_equal(gw_stream_write(rig.stream, "x", 1), -EPIPE);
    gw_stream_end(rig.stream);
    assert_int_equal(rig.streams_closed, 0);
    rig_until(&rig, rig.streams_closed == 1);
    rig_settle(&rig);
    assert_int_equal(rig.streams_closed, 1);
}

static void a_half_closed_client_gets_all_of_a_stream(void **state)
{
    struct rig_client *c = stream_of("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    struct gw_stream *s = rig.stream;
    (void)gw_stream_write(s, "first", 5);
    rig_half_close(c);
    rig_until(&rig, s->conn->eof);
    rig_settle(&rig);
    assert_int_equal(gw_stream_write(s, "rest", 4), 0);
    gw_stream_end(s);
    rig_expect(c, "5\r\nfirst\r\n4\r\nrest\r\n0\r\n\r\n");
    rig_expect_end(c);
    rig_until(&rig, rig.streams_closed == 1);
}

static void what_is_written_to_a_client_that_went_after_its_request_finds_that_out(void **state)
{
    struct rig_client *c = stream_of("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    struct gw_stream *s = rig.stream;
    rig_expect(c, "\r\n\r\n"); // nothing is unread: its end is no reset
    rig_hang_up(c);
    rig_until(&rig, s->conn->eof);
    (void)gw_stream_write(s, "x", 1);
    rig_until(&rig, rig.streams_closed == 1);
}

static void a_stream_that_is_cut_does_not_look_whole(void **state)
{
    struct rig_client *c = stream_of("GET /stream HTTP/1.1\r\nHost: x\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(gw_stream_write(rig.stream, "hello", 5), 0);
    gw_stream_cut(rig.stream);
    rig_expect_end(c);
    assert_true(rig_has(c, "\r\n5\r\nhello\r\n"));
    assert_int_equal(rig_count(c, "\r\n0\r\n"), 0);
    assert_int_equal(rig_count(c, "HTTP/1.1 "), 1);
    rig_until(&rig, rig.streams_closed == 1);
}

static void a_stream_to_http_1_0_that_is_cut_is_reset(void **state)
{
    struct rig_client *c = stream_of("GET /stream HTTP/1.0\r\n\r\n");
    (void)gw_stream_write(rig.stream, "plain", 5);
    rig_expect(c, "plain");
    gw_stream_cut(rig.stream);
    rig_expect_end(c);
    assert_true(c->reset);
    rig_until(&rig, rig.streams_closed == 1);
}

static void winding_down_and_moving_cut_what_an_owner_has_not_ended(void **state)
{
    struct rig_client *c[2];
    for (int i = 0; i < 2; i++) {
        c[i] = stream_of("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
        (void)gw_stream_write(rig.stream, "part", 4);
        rig.stream = NULL;
        rig_expect(c[i], "part\r\n");
        if (i == 0)
            rig_move(&rig);
        else
            rig_send(rig_connect(&rig), "GET /wind HTTP/1.1\r\nHost: x\r\n\r\n");
        rig_expect_end(c[i]);
        assert_int_equal(rig_count(c[i], "\r\n0\r\n"), 0);
    }
}

static void a_subscriber_that_half_closes_stays_while_it_reads(void **state)
{
    struct rig_client *c = stream_of("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    gw_stream_end(rig.stream);
    rig_send(c, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect(c, "retry: 1000\n\n");
    rig_half_close(c);
    rig_expect(c, ": ping\n\n");
    gw_hub_publish(rig.net, "task", "{\"id\":1}");
    rig_expect(c, "{\"id\":1}");
    rig_forget(c);
    rig_hang_up(c);
    gw_hub_publish(rig.net, "task", "{\"id\":2}");
    rig_until(&rig, gw_net_counts(rig.net).streams == 0);
}

static void events_reach_all_subscribers_with_increasing_ids(void **state)
{
    struct rig_client *c[3];
    gw_hub_publish(rig.net, "state", "{\"before\":true}");
    for (int i = 0; i < 3; i++) {
        c[i] = rig_connect(&rig);
        rig_send(c[i], "GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
        rig_expect(c[i], "retry: 1000\n\nevent: state\ndata: {\"before\":true}\n\n");
        assert_true(rig_has(c[i], "Content-Type: text/event-stream\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"));
    }
    gw_hub_publish(rig.net, "state", "{\"state\":\"draining\"}");
    gw_hub_publish(rig.net, "task", "{\"id\":1}");
    for (int i = 0; i < 3; i++) {
        rig_expect(c[i], "id: 3\nevent: task\ndata: {\"id\":1}\n\n");
        assert_true(rig_has(c[i], "id: 2\nevent: state\ndata: {\"state\":\"draining\"}\n\n"));
    }
    rig_hang_up(c[1]);
    rig_until(&rig, gw_net_counts(rig.net).streams == 2);
    gw_hub_publish(rig.net, "task", "{\"id\":2}");
    rig_expect(c[0], "id: 4\n");
    rig_expect(c[2], "id: 4\n");
    assert_int_equal(rig.streams_closed, 0); // they are the hub's own
}

static struct rig_client *come_back(const char *id)
{
    struct rig_client *c = rig_connect(&rig);
    char *text = gw_asprintf("GET /events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: %s\r\n\r\n", id);
    rig_send(c, text);
    free(text);
    rig_expect(c, "retry: 1000\n\n");
    return c;
}

static void who_comes_back_gets_what_it_has_missed_or_is_told_that_it_is_not_kept(void **state)
{
    static const char gap[] = ": what came after that Last-Event-ID is not kept here";
    gw_net_events_from(rig.net, 1000);
    gw_hub_publish(rig.net, "state", "\"s\"");
    gw_hub_publish(rig.net, "task", "\"t\"");
    rig_expect(come_back("1000"), "\n\nid: 1001\nevent: state\ndata: \"s\"\n\nid: 1002\nevent: task\ndata: \"t\"\n\n");
    struct rig_client *c = come_back("1002");
    gw_hub_publish(rig.net, "task", "\"u\"");
    rig_expect(c, "retry: 1000\n\n");
    rig_expect(c, "id: 1003\nevent: task\ndata: \"u\"\n\n");
    assert_int_equal(rig_count(c, "id: "), 1);
    static const char *const unknown[] = {"999", "1004", "0", "-1", "1002x", "99999999999999999999"};
    for (int i = 0; i < 6; i++) {
        c = come_back(unknown[i]);
        rig_expect(c, "\n\nevent: state\ndata: \"s\"\n\n");
        assert_true(rig_has(c, gap));
    }
    for (unsigned i = 0; i < EVENTS_KEPT; i++)
        gw_hub_publish(rig.net, "task", "\"v\"");
    c = come_back("1003");
    rig_expect(c, "id: 1259\n");
    assert_int_equal(rig_count(c, "id: "), EVENTS_KEPT);
    assert_true(rig_has(come_back("1002"), gap));
    static char large[EVENTS_KEPT_BYTES]; // that alone is more than is kept
    memset(large, '1', sizeof large - 1);
    gw_hub_publish(rig.net, "task", large);
    assert_true(rig_has(come_back("1259"), gap));
    assert_false(rig_has(come_back("1260"), gap));
}

static void who_listens_is_sent_something_in_each_time_of_silence(void **state)
{
    rig.net->deadlines.duration_ms[GW_TO_PING] = 30;
    struct rig_client *ws = rig_ws(&rig), *sse = rig_connect(&rig);
    rig_send(sse, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_until(&rig, rig_count(sse, ": ping\n\n") == 3);
    rig_expect_bytes(ws, "\x89\0\x89\0", 4);
    rig_move(&rig); // to a process where nobody is silent for long
    rig_hang_up(ws);
    rig_hang_up(sse);
    rig_until(&rig, gw_net_counts(rig.net).open == 0);
    assert_int_equal(rig.net->deadlines.armed_ms, 0); // nobody listens: nothing wakes up
}

static void head_of_the_events_ends_at_once(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "HEAD /events HTTP/1.1\r\nHost: x\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect(c, "GET /next? ");
    assert_int_equal(gw_net_counts(rig.net).streams, 0);
}

static void a_subscriber_that_is_too_slow_is_ended_and_the_others_are_not(void **state)
{
    struct rig_client *slow = rig_connect_small(&rig), *fast = rig_connect(&rig);
    rig_deaf(slow, true);
    rig_send(slow, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_send(fast, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_until(&rig, gw_net_counts(rig.net).streams == 2);
    static char data[20001];
    memset(data, '7', sizeof data - 1);
    unsigned published = 0;
    while (gw_net_counts(rig.net).streams == 2) {
        gw_hub_publish(rig.net, "task", data);
        char *id = gw_asprintf("id: %u\n", ++published);
        rig_expect(fast, id);
        free(id);
        rig_forget(fast);
        assert_true(published < 5000);
    }
    rig_deaf(slow, false);
    rig_expect_end(slow);
    gw_hub_publish(rig.net, "task", "1");
    rig_expect(fast, "data: 1\n\n");
}

#define IN_A_RIG(name) cmocka_unit_test_setup_teardown(name, before, after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_RIG(a_stream_is_chunked_and_the_connection_stays),
        IN_A_RIG(a_stream_to_http_1_0_lasts_until_close),
        IN_A_RIG(head_of_a_stream_has_no_body),
        IN_A_RIG(a_slow_client_is_told_of_by_eagain),
        IN_A_RIG(a_stream_whose_client_goes_is_told_so_and_takes_no_more),
        IN_A_RIG(a_stream_that_fails_in_the_middle_of_writing_is_told_once),
        IN_A_RIG(a_half_closed_client_gets_all_of_a_stream),
        IN_A_RIG(what_is_written_to_a_client_that_went_after_its_request_finds_that_out),
        IN_A_RIG(a_stream_that_is_cut_does_not_look_whole),
        IN_A_RIG(a_stream_to_http_1_0_that_is_cut_is_reset),
        IN_A_RIG(winding_down_and_moving_cut_what_an_owner_has_not_ended),
        IN_A_RIG(a_subscriber_that_half_closes_stays_while_it_reads),
        IN_A_RIG(events_reach_all_subscribers_with_increasing_ids),
        IN_A_RIG(who_comes_back_gets_what_it_has_missed_or_is_told_that_it_is_not_kept),
        IN_A_RIG(who_listens_is_sent_something_in_each_time_of_silence),
        IN_A_RIG(head_of_the_events_ends_at_once),
        IN_A_RIG(a_subscriber_that_is_too_slow_is_ended_and_the_others_are_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
