/* Clients that do not read, or not soon. */
#include "support/net_rig.h"

#include <string.h>

static struct rig rig;

static int before(void **state)
{
    rig_open(&rig, NULL);
    return 0;
}

static int before_in_a_hurry(void **state)
{
    struct gw_net_limits limits = gw_net_limits_default();
    limits.write_ms = limits.linger_ms = 100;
    rig_open(&rig, &limits);
    return 0;
}

static int after(void **state)
{
    rig_close(&rig);
    return 0;
}

static void a_slow_reader_gets_all_of_a_great_answer(void **state)
{
    struct rig_client *c = rig_connect_small(&rig);
    rig_deaf(c, true);
    rig_send(c, "GET /big?12000000 HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_until(&rig, rig.requests == 1);
    rig_deaf(c, false);
    rig_until(&rig, c->in.len > 12000000);
    rig_send(c, "GET /next HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect(c, "GET /next? ");
    assert_int_equal(gw_net_counts(rig.net).timed_out, 0);
}

static void a_client_that_reads_nothing_is_cut_after_the_write_limit(void **state)
{
    struct rig_client *c = rig_connect_small(&rig);
    rig_deaf(c, true);
    rig_send(c, "GET /big?12000000 HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_until(&rig, gw_net_counts(rig.net).timed_out == 1);
    assert_int_equal(gw_net_counts(rig.net).open, 0);
}

static void progress_begins_the_write_limit_anew(void **state)
{
    struct rig_client *c = rig_connect_small(&rig);
    rig_deaf(c, true);
    rig_send(c, "GET /big?30000000 HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_until(&rig, rig.net->deadlines.count[GW_TO_WRITE] == 1);
    struct gw_list *writes = &rig.net->deadlines.lists[GW_TO_WRITE];
    uint64_t first = gw_container(writes->next, struct gw_timed, link)->at_ms;
    do
        uv_update_time(&rig.loop);
    while (uv_now(&rig.loop) + 30000 <= first);
    rig_deaf(c, false);
    rig_until(&rig, gw_list_empty(writes) || gw_container(writes->next, struct gw_timed, link)->at_ms > first);
    rig_until(&rig, c->in.len > 30000000);
    assert_int_equal(gw_net_counts(rig.net).timed_out, 0);
}

static void pipelined_requests_wait_while_the_client_does_not_read(void **state)
{
    struct rig_client *c = rig_connect_small(&rig);
    rig_deaf(c, true);
    rig_send(c, "GET /big?12000000 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\nGET /3 HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_until(&rig, rig.requests == 1);
    rig_settle(&rig);
    assert_int_equal(rig.requests, 1);
    rig_deaf(c, false);
    rig_until(&rig, rig.requests == 3);
    rig_until(&rig, c->in.len > 12000300); // looked at as a whole only then
    rig_expect(c, "GET /3? ");
}

static void input_behind_a_request_in_hand_is_bounded(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_until(&rig, rig.kept_count == 1);
    static char junk[65536];
    memset(junk, '\n', sizeof junk);
    size_t sent = 0;
    for (int i = 0; i < 400; i++) { // as much as the kernel takes
        ssize_t n = send(c->fd, junk, sizeof junk, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        (void)uv_run(&rig.loop, UV_RUN_NOWAIT);
    }
    assert_true(sent > 4 * AHEAD_BYTES);
    assert_true(rig.kept[0]->conn->in.len <= 2 * AHEAD_BYTES + READ_BYTES);
    gw_answer(rig.kept[0], 200, NULL, 0, "answer", 6);
    rig_expect(c, "answer");
}

static void a_client_that_hangs_up_behind_unread_input_is_noticed(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_until(&rig, rig.kept_count == 1);
    static char junk[1000];
    memset(junk, '\n', sizeof junk);
    while (!rig.kept[0]->conn->no_read) {
        rig_send_bytes(c, junk, sizeof junk);
        rig_settle(&rig);
    }
    rig_send_bytes(c, junk, sizeof junk); // stays in the kernel
    rig_hang_up(c);
    rig_until(&rig, rig.gone == 1);
    gw_answer(rig.kept[0], 200, NULL, 0, "x", 1);
}

static void a_client_that_never_closes_is_cut_after_lingering(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "BAD\r\n\r\n");
    rig_expect_end(c); // our half; it keeps its own open and goes on sending
    assert_true(rig_has(c, "HTTP/1.1 400"));
    assert_int_equal(gw_net_counts(rig.net).open, 1);
    while (gw_net_counts(rig.net).open == 1 && !rig.late) {
        rig_send(c, "more");
        rig_turn(&rig);
    }
    assert_int_equal(gw_net_counts(rig.net).open, 0);
}

#define IN_A_RIG(name) cmocka_unit_test_setup_teardown(name, before, after)
#define IN_A_HURRY(name) cmocka_unit_test_setup_teardown(name, before_in_a_hurry, after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_RIG(a_slow_reader_gets_all_of_a_great_answer),
        IN_A_HURRY(a_client_that_reads_nothing_is_cut_after_the_write_limit),
        IN_A_RIG(progress_begins_the_write_limit_anew),
        IN_A_RIG(pipelined_requests_wait_while_the_client_does_not_read),
        IN_A_RIG(input_behind_a_request_in_hand_is_bounded),
        IN_A_RIG(a_client_that_hangs_up_behind_unread_input_is_noticed),
        IN_A_HURRY(a_client_that_never_closes_is_cut_after_lingering),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
