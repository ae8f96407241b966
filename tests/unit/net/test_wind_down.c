/* The polite end of all connections. */
#include "support/net_rig.h"

#include <string.h>

static struct rig rig;

static int before(void **state)
{
    struct gw_net_limits limits = gw_net_limits_default();
    limits.linger_ms = 500;
    rig_open(&rig, &limits);
    return 0;
}

static int after(void **state)
{
    rig_close(&rig);
    return 0;
}

static void on_done(void *ud)
{
    ((struct rig *)ud)->wound_down = true;
}

static void wind_down(unsigned grace_ms)
{
    gw_net_wind_down(rig.net, 1012, "restarting", grace_ms, on_done, &rig);
}

static void without_connections_it_is_done_at_once_but_not_from_within(void **state)
{
    wind_down(60000);
    assert_false(rig.wound_down);
    rig_until(&rig, rig.wound_down);
    assert_int_equal(gw_net_counts(rig.net).listeners, 0);
}

static void idle_connections_are_closed_after_the_grace(void **state)
{
    struct rig_client *c = rig_connect(&rig), *fresh = rig_connect(&rig);
    rig_send(c, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect(c, "GET /a? ");
    uint64_t start = uv_hrtime();
    wind_down(50);
    rig_expect_end(c);
    rig_expect_end(fresh);
    assert_true(uv_hrtime() - start >= 45000000);
    assert_false(c->reset);
    rig_hang_up(c);
    rig_hang_up(fresh);
    rig_until(&rig, rig.wound_down);
}

static void within_the_grace_requests_are_answered_with_close(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect(c, "GET /a? ");
    wind_down(60000);
    rig_forget(c);
    rig_send(c, "GET /b HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect_end(c);
    assert_true(rig_has(c, "GET /b? ") && rig_has(c, "Connection: close\r\n"));
    rig_hang_up(c);
    rig_until(&rig, rig.wound_down);
}

static void a_request_in_hand_is_waited_for(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_until(&rig, rig.kept_count == 1);
    wind_down(1);
    rig_settle(&rig);
    assert_false(rig.wound_down);
    gw_answer(rig.kept[0], 200, NULL, 0, "done", 4);
    rig_expect_end(c);
    assert_true(rig_has(c, "Connection: close\r\n") && rig_has(c, "done"));
    rig_hang_up(c);
    rig_until(&rig, rig.wound_down);
}

static void pipelined_requests_that_are_here_are_all_answered(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /later HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_until(&rig, rig.kept_count == 1);
    wind_down(60000);
    gw_answer(rig.kept[0], 200, NULL, 0, "first", 5);
    rig_expect_end(c);
    assert_true(rig_has(c, "first") && rig_has(c, "GET /2? "));
    assert_int_equal(rig_count(c, "Connection: close\r\n"), 1);
}

static void what_is_in_the_kernels_queue_is_served(void **state)
{
    struct rig_client *c[5];
    for (int i = 0; i < 5; i++) {
        c[i] = rig_connect(&rig);
        rig_send(c[i], "GET /queued HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    assert_int_equal(gw_net_counts(rig.net).open, 0); // the loop has not turned yet
    wind_down(60000);
    for (int i = 0; i < 5; i++) {
        rig_expect_end(c[i]);
        assert_true(rig_has(c[i], "GET /queued? ") && rig_has(c[i], "Connection: close\r\n"));
        rig_hang_up(c[i]);
    }
    rig_until(&rig, rig.wound_down);
}

static void websockets_are_closed_with_the_code_and_events_end(void **state)
{
    struct rig_client *ws = rig_ws(&rig), *sse = rig_connect(&rig);
    rig_send(sse, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect(sse, "retry: 1000\n\n");
    wind_down(60000);
    rig_expect_close(ws, 1012);
    assert_true(rig_has(ws, "restarting"));
    rig_send_frame(ws, 0x88, "\x03\xf4", 2);
    rig_until(&rig, rig.ws_closed == 1);
    assert_int_equal(rig.ws_code, 1012);
    rig_expect(sse, "0\r\n\r\n");
    rig_hang_up(ws);
    rig_hang_up(sse);
    rig_until(&rig, rig.wound_down);
}

static void what_is_accepted_afterwards_ends_too(void **state)
{
    struct rig_client *ws = rig_connect(&rig), *sse = rig_connect(&rig);
    rig_send(ws, "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    rig_send(sse, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
    wind_down(60000);
    rig_expect_close(ws, 1012);
    rig_expect_end(sse);
    rig_until(&rig, rig.wound_down);
}

static void it_may_begin_inside_a_request(void **state)
{
    struct rig_client *c = rig_connect(&rig), *other = rig_connect(&rig);
    rig_send(other, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect(other, "GET /a? ");
    rig_send(c, "GET /wind HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect_end(c);
    assert_true(rig_has(c, "GET /wind? ") && rig_has(c, "Connection: close\r\n"));
    rig_expect_end(other);
    rig_until(&rig, rig.wound_down);
}

#define IN_A_RIG(name) cmocka_unit_test_setup_teardown(name, before, after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_RIG(without_connections_it_is_done_at_once_but_not_from_within),
        IN_A_RIG(idle_connections_are_closed_after_the_grace),
        IN_A_RIG(within_the_grace_requests_are_answered_with_close),
        IN_A_RIG(a_request_in_hand_is_waited_for),
        IN_A_RIG(pipelined_requests_that_are_here_are_all_answered),
        IN_A_RIG(what_is_in_the_kernels_queue_is_served),
        IN_A_RIG(websockets_are_closed_with_the_code_and_events_end),
        IN_A_RIG(what_is_accepted_afterwards_ends_too),
        IN_A_RIG(it_may_begin_inside_a_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
