/* Sizes, numbers and time-outs. */
#include "support/net_rig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static struct rig rig;

static void with(struct gw_net_limits limits)
{
    rig_open(&rig, &limits);
}

static int after(void **state)
{
    rig_close(&rig);
    return 0;
}

static char *long_header(size_t n)
{
    static const char head[] = "GET /h HTTP/1.1\r\nHost: a\r\nX: ", tail[] = "\r\n\r\n";
    char *text = gw_calloc(1, n + 1);
    memset(text, 'x', n);
    memcpy(text, head, sizeof head - 1);
    memcpy(text + n - (sizeof tail - 1), tail, sizeof tail - 1);
    return text;
}

static void a_header_may_have_16_kib_and_no_byte_more(void **state)
{
    with(gw_net_limits_default());
    char *text = long_header(16384);
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, text);
    free(text);
    rig_expect(c, "GET /h? ");
    text = long_header(16385);
    c = rig_connect(&rig);
    rig_send(c, text);
    rig_expect_end(c);
    assert_true(rig_has(c, "HTTP/1.1 431 ") && rig_has(c, "\"too_large\""));
    c = rig_connect(&rig);
    rig_dribble(c, text, 16385);
    rig_expect_end(c);
    assert_true(rig_has(c, "HTTP/1.1 431 "));
    free(text);
}

static void a_target_that_is_too_long_is_told_from_a_header_that_is(void **state)
{
    with(gw_net_limits_default());
    static char text[20000] = "GET /";
    memset(text + 5, 'a', sizeof text - 6);
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, text);
    rig_expect_end(c);
    assert_true(rig_has(c, "HTTP/1.1 414 URI Too Long\r\n") && rig_has(c, "the limit is 16384 bytes"));
}

static void a_header_that_never_ends_is_refused(void **state)
{
    with(gw_net_limits_default());
    struct rig_client *c = rig_connect(&rig);
    char *text = long_header(20000);
    rig_send_bytes(c, text, 19000);
    free(text);
    rig_expect_end(c);
    assert_true(rig_has(c, "HTTP/1.1 431 "));
    assert_false(c->reset);
}

static void a_body_may_be_greater_than_the_header_limit(void **state)
{
    with(gw_net_limits_default());
    struct rig_client *c = rig_connect(&rig);
    struct gw_buf text = {0};
    gw_buf_addf(&text, "POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", 1048576);
    size_t head = text.len;
    gw_buf_reserve(&text, 1048576);
    memset(text.data + head, 'b', 1048576);
    text.len += 1048576;
    rig_send_bytes(c, text.data, text.len);
    rig_until(&rig, rig.kept_count == 1);
    assert_int_equal(gw_request_info(rig.kept[0])->body_len, 1048576);
    assert_memory_equal(gw_request_info(rig.kept[0])->body, text.data + head, 1048576);
    gw_answer(rig.kept[0], 200, NULL, 0, "got it", 6);
    rig_expect(c, "got it");
    gw_buf_fini(&text);
}

static void chunks_may_not_add_up_to_more_than_the_limit(void **state)
{
    struct gw_net_limits limits = gw_net_limits_default();
    limits.body_bytes = 10;
    with(limits);
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n5\r\n12345\r\n0\r\n\r\n");
    rig_expect(c, "POST /a? 1234512345");
    rig_send(c, "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n6\r\n123456\r\n0\r\n\r\n");
    rig_expect_end(c);
    assert_true(rig_has(c, "HTTP/1.1 413 "));
}

static void chunk_extensions_and_trailers_are_bounded(void **state)
{
    struct gw_net_limits limits = gw_net_limits_default();
    limits.body_bytes = limits.header_bytes = 1000;
    with(limits);
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;");
    struct gw_buf junk = {0};
    for (int i = 0; i < 4000; i++)
        gw_buf_adds(&junk, "e");
    rig_send_bytes(c, junk.data, junk.len);
    gw_buf_fini(&junk);
    rig_expect_end(c);
    assert_true(rig_has(c, "HTTP/1.1 413 "));
}

static void a_trickling_header_is_late_in_total(void **state)
{
    struct gw_net_limits limits = gw_net_limits_default();
    limits.header_ms = 100;
    limits.header_bytes = 16 << 20; // which a fast machine does not send in that time
    with(limits);
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET / HTTP/1.1\r\nX: ");
    uint64_t start = uv_hrtime();
    while (!c->eof && !rig.late) { // as many bytes as it likes: none of them prolongs it
        rig_send(c, "a");
        rig_turn(&rig);
    }
    assert_true(uv_hrtime() - start >= 80000000);
    assert_true(rig_has(c, "HTTP/1.1 408 ") && rig_has(c, "Connection: close\r\n"));
    assert_int_equal(gw_net_counts(rig.net).timed_out, 1);
}

static void a_connection_that_says_nothing_is_closed(void **state)
{
    struct gw_net_limits limits = gw_net_limits_default();
    limits.header_ms = 20;
    with(limits);
    struct rig_client *c = rig_connect(&rig);
    rig_expect_end(c);
    assert_int_equal(c->in.len, 0);
    assert_int_equal(gw_net_counts(rig.net).timed_out, 1);
}

static void a_late_body_is_told_so(void **state)
{
    struct gw_net_limits limits = gw_net_limits_default();
    limits.body_ms = 20;
    with(limits);
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
    rig_expect_end(c);
    assert_true(rig_has(c, "HTTP/1.1 408 "));
    assert_int_equal(rig.requests, 0);
}

static void idleness_begins_anew_with_each_answer(void **state)
{
    struct gw_net_limits limits = gw_net_limits_default();
    limits.idle_ms = 60000;
    with(limits);
    struct rig_client *c = rig_connect(&rig);
    uint64_t last = 0;
    for (int i = 0; i < 3; i++) {
        rig_forget(c);
        rig_send(c, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        rig_expect(c, "GET /a? ");
        rig_settle(&rig);
        struct gw_list *idle = &rig.net->deadlines.lists[GW_TO_IDLE];
        assert_int_equal(gw_net_counts(rig.net).idle, 1);
        uint64_t at = gw_container(idle->next, struct gw_timed, link)->at_ms;
        assert_true(at > last);
        last = at;
        do // until the clock has moved on
            uv_update_time(&rig.loop);
        while (uv_now(&rig.loop) + 60000 <= at);
    }
}

static void an_idle_connection_is_closed_after_its_time(void **state)
{
    struct gw_net_limits limits = gw_net_limits_default();
    limits.idle_ms = 20;
    with(limits);
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    rig_expect_end(c);
    assert_true(rig_has(c, "GET /a? "));
    assert_false(c->reset);
}

static void a_request_in_hand_has_no_deadline(void **state)
{
    struct gw_net_limits limits = gw_net_limits_default();
    limits.header_ms = limits.body_ms = limits.idle_ms = 5;
    with(limits);
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    rig_until(&rig, rig.kept_count == 1);
    rig_settle(&rig);
    assert_int_equal(rig.net->deadlines.armed_ms, 0);
    gw_answer(rig.kept[0], 200, NULL, 0, "at last", 7);
    rig_expect(c, "at last");
}

static void connections_beyond_the_limit_wait_and_are_served(void **state)
{
    struct gw_net_limits limits = gw_net_limits_default();
    limits.connections = 2;
    with(limits);
    struct rig_client *a = rig_connect(&rig), *b = rig_connect(&rig), *c = rig_connect(&rig);
    rig_send(a, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    rig_send(b, "GET /b HTTP/1.1\r\nHost: a\r\n\r\n");
    rig_send(c, "GET /c HTTP/1.1\r\nHost: a\r\n\r\n");
    rig_expect(a, "GET /a? ");
    rig_expect(b, "GET /b? ");
    rig_settle(&rig);
    assert_int_equal(rig.requests, 2);
    assert_true(gw_net_counts(rig.net).accept_paused);
    rig_hang_up(a);
    rig_expect(c, "GET /c? ");
    assert_int_equal(gw_net_counts(rig.net).open, 2);
}

static void that_there_is_no_room_is_said_once_until_there_is(void **state)
{
    struct gw_net_limits limits = gw_net_limits_default();
    limits.connections = 8;
    with(limits);
    struct rig_client *c[12];
    for (int i = 0; i < 12; i++)
        c[i] = rig_connect(&rig);
    rig_until(&rig, gw_net_counts(rig.net).accept_paused);
    assert_int_equal(rig.full_said, 1);
    assert_int_equal(rig.full_code, 0);
    for (int i = 0; i < 4; i++) { // each is followed by one that waits
        rig_hang_up(c[i]);
        rig_settle(&rig);
    }
    assert_int_equal(gw_net_counts(rig.net).open, 8);
    assert_int_equal(rig.full_said, 1);
    assert_int_equal(rig.room_said, 0);
    for (int i = 4; i < 7; i++)
        rig_hang_up(c[i]);
    rig_until(&rig, gw_net_counts(rig.net).open == 5);
    assert_int_equal(rig.room_said, 1);
    for (int i = 0; i < 4; i++)
        (void)rig_connect(&rig);
    rig_until(&rig, gw_net_counts(rig.net).accept_paused);
    assert_int_equal(rig.full_said, 2);
}

static void of_those_who_wait_when_accepting_ends_no_more_than_said_are_taken(void **state)
{
    struct gw_net_limits limits = gw_net_limits_default();
    limits.connections = 2;
    limits.beyond = 3;
    with(limits);
    for (int i = 0; i < 9; i++)
        (void)rig_connect(&rig);
    rig_until(&rig, gw_net_counts(rig.net).accept_paused);
    gw_net_accept_rest(rig.net);
    assert_int_equal(gw_net_counts(rig.net).open, 5);
}

static void without_descriptors_connections_wait_and_are_served(void **state)
{
    with(gw_net_limits_default());
    const char *preload = getenv("LD_PRELOAD");
    if (preload != NULL && strstr(preload, "vgpreload") != NULL)
        skip(); // valgrind accepts beyond the limit and then closes what it has accepted
    struct rlimit old, none;
    (void)getrlimit(RLIMIT_NOFILE, &old);
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /c HTTP/1.1\r\nHost: a\r\n\r\n");
    none = old;
    none.rlim_cur = 3;
    (void)setrlimit(RLIMIT_NOFILE, &none);
    rig_until(&rig, gw_net_counts(rig.net).accept_paused);
    assert_int_equal(gw_net_counts(rig.net).open, 0);
    assert_int_equal(rig.full_said, 1);
    assert_int_equal(rig.full_code, -EMFILE);
    (void)setrlimit(RLIMIT_NOFILE, &old);
    rig_expect(c, "GET /c? ");
    assert_false(gw_net_counts(rig.net).accept_paused);
}

static void a_listening_socket_that_is_shut_down_does_not_spin(void **state)
{
    with(gw_net_limits_default());
    (void)shutdown(rig.listener, SHUT_RD);
    rig_until(&rig, gw_net_counts(rig.net).accept_paused);
    gw_net_unlisten(rig.net);
    rig_until(&rig, !gw_net_counts(rig.net).accept_paused);
}

#define THEN_CLOSED(name) cmocka_unit_test_teardown(name, after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        THEN_CLOSED(a_header_may_have_16_kib_and_no_byte_more),
        THEN_CLOSED(a_header_that_never_ends_is_refused),
        THEN_CLOSED(a_body_may_be_greater_than_the_header_limit),
        THEN_CLOSED(chunks_may_not_add_up_to_more_than_the_limit),
        THEN_CLOSED(a_target_that_is_too_long_is_told_from_a_header_that_is),
        THEN_CLOSED(chunk_extensions_and_trailers_are_bounded),
        THEN_CLOSED(a_trickling_header_is_late_in_total),
        THEN_CLOSED(a_connection_that_says_nothing_is_closed),
        THEN_CLOSED(a_late_body_is_told_so),
        THEN_CLOSED(idleness_begins_anew_with_each_answer),
        THEN_CLOSED(an_idle_connection_is_closed_after_its_time),
        THEN_CLOSED(a_request_in_hand_has_no_deadline),
        THEN_CLOSED(connections_beyond_the_limit_wait_and_are_served),
        THEN_CLOSED(that_there_is_no_room_is_said_once_until_there_is),
        THEN_CLOSED(of_those_who_wait_when_accepting_ends_no_more_than_said_are_taken),
        THEN_CLOSED(without_descriptors_connections_wait_and_are_served),
        THEN_CLOSED(a_listening_socket_that_is_shut_down_does_not_spin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
