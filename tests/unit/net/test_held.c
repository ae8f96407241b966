/* Requests that wait for the next generation. */
#include "support/net_rig.h"

#include <stdlib.h>
#include <string.h>

static struct rig rig;

static int before(void **state)
{
    struct gw_net_limits limits = gw_net_limits_default();
    limits.held = 70;
    rig_open(&rig, &limits);
    rig.holding = true;
    return 0;
}

static int after(void **state)
{
    rig_close(&rig);
    return 0;
}

static struct rig_client *ask(const char *path)
{
    struct rig_client *c = rig_connect(&rig);
    char *text = gw_asprintf("GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
    unsigned long requests = rig.requests;
    rig_send(c, text);
    free(text);
    rig_until(&rig, rig.requests > requests);
    return c;
}

static void held_requests_are_released_in_order_of_arrival(void **state)
{
    struct rig_client *c[3] = {ask("/1"), ask("/2"), ask("/3")};
    assert_int_equal(gw_net_counts(rig.net).held, 3);
    assert_int_equal(gw_net_counts(rig.net).in_flight, 0);
    rig.holding = false;
    rig.order.len = 0;
    gw_net_release(rig.net);
    assert_int_equal(rig.order.len, 0); // from the loop, not from within
    rig_expect(c[2], "GET /3? ");
    rig_expect(c[0], "GET /1? ");
    rig_expect(c[1], "GET /2? ");
    assert_string_equal(rig.order.data, "/1 /2 /3 ");
    assert_int_equal(gw_net_counts(rig.net).held, 0);
}

static void one_too_many_is_refused_and_the_others_are_answered(void **state)
{
    struct rig_client *c[71];
    for (int i = 0; i < 71; i++)
        c[i] = ask("/x");
    rig_expect(c[70], "\"code\":\"draining\"");
    assert_true(rig_has(c[70], "HTTP/1.1 503 ") && rig_has(c[70], "Retry-After: 1\r\n"));
    assert_int_equal(gw_net_counts(rig.net).held, 70);
    rig.holding = false;
    gw_net_release(rig.net);
    for (int i = 0; i < 70; i++)
        rig_expect(c[i], "GET /x? "); // more than one turn's worth
}

static void a_released_request_may_be_held_again(void **state)
{
    struct rig_client *c = ask("/x");
    gw_net_release(rig.net);
    rig_until(&rig, rig.requests == 2);
    assert_int_equal(gw_net_counts(rig.net).held, 1);
    rig.holding = false;
    gw_net_release(rig.net);
    rig_expect(c, "GET /x? ");
}

static void what_is_pipelined_behind_a_held_request_waits_too(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_until(&rig, rig.requests == 1);
    rig_settle(&rig);
    assert_int_equal(rig.requests, 1);
    rig.holding = false;
    gw_net_release(rig.net);
    rig_expect(c, "GET /2? ");
    assert_true(rig_has(c, "GET /1? "));
}

static void a_held_request_of_a_client_that_resets_is_dropped(void **state)
{
    struct rig_client *c = ask("/x");
    rig_reset(c);
    rig_until(&rig, gw_net_counts(rig.net).open == 0);
    assert_int_equal(gw_net_counts(rig.net).held, 0);
    gw_net_release(rig.net);
    rig_settle(&rig);
    assert_int_equal(rig.requests, 1);
}

static void a_held_request_of_a_half_closed_client_is_answered(void **state)
{
    struct rig_client *c = ask("/x");
    rig_half_close(c);
    rig_settle(&rig);
    assert_int_equal(gw_net_counts(rig.net).held, 1);
    rig.holding = false;
    gw_net_release(rig.net);
    rig_expect(c, "GET /x? ");
    rig_expect_end(c);
}

static void all_can_be_refused(void **state)
{
    struct rig_client *a = ask("/a"), *b = ask("/b");
    gw_net_release(rig.net); // on their way to the owner, and still refused
    gw_net_refuse_held(rig.net, 503, "stopping", "the host stops");
    rig_expect(a, "\"code\":\"stopping\"");
    rig_expect(b, "\"code\":\"stopping\"");
    struct rig_client *c = ask("/c");
    gw_net_refuse_held(rig.net, 503, "stopping", "the host stops");
    rig_expect(c, "\"code\":\"stopping\"");
    assert_int_equal(gw_net_counts(rig.net).held, 0);
}

static void one_that_waits_too_long_is_answered_503(void **state)
{
    struct gw_net_limits limits = gw_net_limits_default();
    limits.held_ms = 30;
    rig_open(&rig, &limits);
    rig.holding = true;
    struct rig_client *c = ask("/x");
    rig_expect(c, "{\"error\":{\"code\":\"draining\",\"message\":\"come back\",\"retry_after_ms\":1000}}");
    assert_true(rig_has(c, "HTTP/1.1 503 ") && rig_has(c, "Retry-After: 1\r\n"));
    assert_int_equal(gw_net_counts(rig.net).held, 0);
    rig.holding = false;
    rig_send(c, "GET /next HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect(c, "GET /next? ");
}

#define IN_A_RIG(name) cmocka_unit_test_setup_teardown(name, before, after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_RIG(held_requests_are_released_in_order_of_arrival),
        IN_A_RIG(one_too_many_is_refused_and_the_others_are_answered),
        IN_A_RIG(a_released_request_may_be_held_again),
        IN_A_RIG(what_is_pipelined_behind_a_held_request_waits_too),
        IN_A_RIG(a_held_request_of_a_client_that_resets_is_dropped),
        IN_A_RIG(a_held_request_of_a_half_closed_client_is_answered),
        IN_A_RIG(all_can_be_refused),
        cmocka_unit_test_teardown(one_that_waits_too_long_is_answered_503, after),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
