/* Requests and their answers, as clients send them. */
#include "support/net_rig.h"

#include <stdlib.h>
#include <string.h>

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

static void a_request_is_answered_and_the_connection_stays(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /a?b=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect(c, "\r\n\r\nGET /a?b=1 ");
    assert_true(rig_has(c, "HTTP/1.1 200 OK\r\n"));
    assert_true(rig_has(c, "Content-Length: 11\r\n"));
    assert_true(rig_has(c, "Content-Type: text/plain\r\n"));
    assert_true(rig_has(c, "Gwhost-Generation: 0123abcd.1\r\n"));
    assert_int_equal(rig_count(c, "Date: "), 1);
    assert_false(rig_has(c, "Connection:"));
    rig_forget(c);
    rig_send(c, "GET /again HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect(c, "GET /again? ");
    assert_int_equal(gw_net_counts(rig.net).answered, 2);
    assert_int_equal(gw_net_counts(rig.net).idle, 1);
}

static void bytes_may_come_one_at_a_time(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    static const char text[] = "POST /long/path?query=yes HTTP/1.1\r\nHost: example.org:80\r\nX-Empty:\r\nX-Some: a b \r\n"
                               "Content-Length: 5\r\n\r\nhello";
    rig_dribble(c, text, sizeof text - 1);
    rig_expect(c, "POST /long/path?query=yes hello");
    static const char chunks[] = "POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                                 "3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: t\r\n\r\n";
    rig_dribble(c, chunks, sizeof chunks - 1);
    rig_expect(c, "POST /c? abcde");
    assert_int_equal(rig.requests, 2);
}

static void headers_arrive_whole_although_split(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    static const char text[] = "GET /later HTTP/1.1\r\nHost: x\r\nX-Empty:\r\nX-Spaced:  a b \t\r\nX-Last: z\r\n\r\n";
    rig_dribble(c, text, sizeof text - 1);
    rig_until(&rig, rig.kept_count == 1);
    const struct gw_request_info *info = gw_request_info(rig.kept[0]);
    assert_int_equal(info->header_count, 4);
    assert_string_equal(info->headers[1].name, "X-Empty");
    assert_string_equal(info->headers[1].value, "");
    assert_string_equal(gw_request_header(rig.kept[0], "x-spaced"), "a b");
    assert_string_equal(gw_request_header(rig.kept[0], "X-LAST"), "z");
    assert_null(gw_request_header(rig.kept[0], "X-None"));
    assert_true(info->local);
    assert_int_equal(strncmp(info->peer, "127.0.0.1:", 10), 0);
    gw_answer(rig.kept[0], 204, NULL, 0, NULL, 0);
    rig_expect(c, "HTTP/1.1 204 No Content\r\n");
    assert_false(rig_has(c, "Content-Length"));
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /later HTTP/1.1\r\nHost: x\r\n\r\n"
                "GET /3 HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect(c, "GET /1? ");
    rig_until(&rig, rig.kept_count == 1);
    rig_settle(&rig);
    assert_int_equal(rig.requests, 2); // the third waits for the second's answer
    gw_answer(rig.kept[0], 200, NULL, 0, "second", 6);
    rig_expect(c, "GET /3? ");
    assert_true(strstr(c->in.data, "GET /1") < strstr(c->in.data, "second"));
    assert_true(strstr(c->in.data, "second") < strstr(c->in.data, "GET /3"));
}

static void a_hundred_pipelined_requests_are_all_answered(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    struct gw_buf all = {0};
    for (int i = 0; i < 100; i++)
        gw_buf_addf(&all, "\r\nGET /n%d HTTP/1.1\r\nHost: x\r\n\r\n", i);
    rig_send_bytes(c, all.data, all.len);
    gw_buf_fini(&all);
    rig_expect(c, "GET /n99? ");
    assert_int_equal(rig_count(c, "HTTP/1.1 200 OK\r\n"), 100);
}

static void pipelined_requests_of_a_half_closed_client_are_all_answered(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /later HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n"
                "GET /3 HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_half_close(c);
    rig_until(&rig, rig.kept_count == 1 && rig.gone == 1);
    gw_answer(rig.kept[0], 200, NULL, 0, "first", 5);
    rig_expect_end(c);
    assert_false(c->reset);
    assert_true(rig_has(c, "first") && rig_has(c, "GET /2? ") && rig_has(c, "GET /3? "));
    assert_int_equal(rig_count(c, "Connection: close\r\n"), 1); // with the last one only
}

static void a_half_closed_client_gets_a_late_answer(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_half_close(c);
    rig_until(&rig, rig.gone == 1);
    gw_answer(rig.kept[0], 200, NULL, 0, "late", 4);
    rig_expect(c, "Connection: close\r\nContent-Length: 4\r\n\r\nlate");
    rig_expect_end(c);
    assert_false(c->reset);
}

static void a_client_that_is_gone_is_told_of_and_the_answer_goes_nowhere(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_until(&rig, rig.kept_count == 1);
    rig_reset(c);
    rig_until(&rig, rig.gone == 1 && gw_net_counts(rig.net).open == 0);
    assert_int_equal(gw_net_counts(rig.net).in_flight, 1);
    assert_string_equal(gw_request_info(rig.kept[0])->path, "/later");
    gw_answer(rig.kept[0], 200, NULL, 0, "x", 1);
    assert_int_equal(gw_net_counts(rig.net).in_flight, 0);
}

static void connection_close_ends_the_connection_after_the_answer(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    rig_expect_end(c);
    assert_true(rig_has(c, "Connection: close\r\n") && rig_has(c, "GET /a? "));
    assert_false(c->reset);
    c = rig_connect(&rig);
    rig_send(c, "GET /later HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    rig_until(&rig, rig.kept_count == 1);
    gw_answer(rig.kept[0], 200, NULL, 0, "later", 5);
    rig_expect_end(c);
    assert_true(rig_has(c, "\r\n\r\nlater"));
}

static void what_follows_a_last_request_does_not_cut_its_answer(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    struct gw_buf text = {0};
    gw_buf_adds(&text, "GET /big?300000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    for (int i = 0; i < 20000; i++)
        gw_buf_adds(&text, "more than asked");
    rig_send_bytes(c, text.data, text.len);
    gw_buf_fini(&text);
    rig_expect_end(c);
    assert_false(c->reset);
    assert_true(c->in.len > 300000);
    assert_int_equal(rig.requests, 1);
}

static void http_1_0_closes_unless_asked_to_stay(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /old HTTP/1.0\r\n\r\n");
    rig_expect_end(c);
    assert_true(rig_has(c, "HTTP/1.1 200 OK") && rig_has(c, "Connection: close\r\n") && rig_has(c, "GET /old? "));
    c = rig_connect(&rig);
    rig_send(c, "GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    rig_expect(c, "GET /old? ");
    assert_true(rig_has(c, "Connection: keep-alive\r\n"));
    rig_send(c, "GET /two HTTP/1.0\r\n\r\n");
    rig_expect(c, "GET /two? ");
    rig_expect_end(c);
}

static void head_gets_the_length_but_no_body(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "HEAD /h HTTP/1.1\r\nHost: x\r\n\r\nGET /g HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect(c, "GET /g? ");
    assert_true(rig_has(c, "Content-Length: 9\r\n\r\nHTTP/1.1 200 OK"));
}

static void a_body_is_asked_for_when_the_client_expects_it(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "POST /e HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    rig_expect(c, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_int_equal(rig.requests, 0);
    rig_send(c, "ok");
    rig_expect(c, "POST /e? ok");
    assert_int_equal(rig_count(c, "100 Continue"), 1);
    rig_forget(c);
    rig_send(c, "POST /e HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nno");
    rig_expect(c, "POST /e? no");
    assert_false(rig_has(c, "100 Continue")); // it did not wait
}

static void targets_are_split_into_path_and_query(void **state)
{
    static const struct {
        const char *target, *seen;
    } rows[] = {{"/", "GET /? "},
                {"/a%20b?c?d", "GET /a%20b?c?d "},
                {"http://other.example/p?q", "GET /p?q "},
                {"http://other.example", "GET /? "},
                {"http://other.example?q", "GET /?q "}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct rig_client *c = rig_connect(&rig);
        char *text = gw_asprintf("GET %s HTTP/1.1\r\nHost: x\r\n\r\n", rows[i].target);
        rig_send(c, text);
        free(text);
        rig_expect(c, rows[i].seen);
    }
}

static void headers_that_are_ours_or_unclean_are_left_out(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_until(&rig, rig.kept_count == 1);
    static const struct gw_header headers[] = {{"Content-Length", "99"},
                                               {"connection", "close"},
                                               {"X-Bad", "a\r\nX-In: 1"},
                                               {"X In", "1"},
                                               {"X-Good", "yes"}};
    gw_answer(rig.kept[0], 200, headers, 5, "body", 4);
    rig_expect(c, "\r\n\r\nbody");
    assert_true(rig_has(c, "X-Good: yes\r\n") && rig_has(c, "Content-Length: 4\r\n"));
    static const char *const absent[] = {"99", "close", "X-Bad", "X-In", "X In"};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        assert_false(rig_has(c, absent[i]));
}

static void a_status_that_is_no_answer_becomes_500(void **state)
{
    static const int bad[] = {-1, 0, 101, 199, 600, 99999};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct rig_client *c = rig_connect(&rig);
        rig_send(c, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
        rig_until(&rig, rig.kept_count == i + 1);
        gw_answer(rig.kept[i], bad[i], NULL, 0, "x", 1);
        rig_expect(c, "HTTP/1.1 500 ");
    }
}

static void errors_have_the_contracts_body_and_retry_after(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_until(&rig, rig.kept_count == 1);
    gw_answer_error(rig.kept[0], 503, "draining", "not \"now\"", 1500);
    rig_expect(c, "{\"error\":{\"code\":\"draining\",\"message\":\"not \\\"now\\\"\",\"retry_after_ms\":1500}}");
    assert_true(rig_has(c, "HTTP/1.1 503 ") && rig_has(c, "Retry-After: 2\r\n"));
}

static void an_answer_that_says_close_is_the_last(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    gw_net_say_close(rig.net, true);
    rig_send(c, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect_end(c);
    assert_true(rig_has(c, "Connection: close\r\n") && rig_has(c, "GET /a? "));
}

static void the_host_of_an_absolute_target_is_the_host(void **state)
{
    static const struct {
        const char *text, *host, *path;
    } rows[] = {{"GET http://b.example:80/later?q HTTP/1.1\r\nHost: a.example\r\n\r\n", "b.example:80", "/later"},
                {"GET HTTPS://[::1]/later HTTP/1.1\r\nX: y\r\nhost:\r\n\r\n", "[::1]", "/later"},
                {"GET http://b/later HTTP/1.0\r\n\r\n", "b", "/later"},
                {"GET /later HTTP/1.1\r\nHost:\r\n\r\n", "", "/later"},
                {"GET /later?http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "a", "/later"}};
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        rig_send(rig_connect(&rig), rows[i].text);
        rig_until(&rig, rig.kept_count == i + 1);
        assert_string_equal(gw_request_header(rig.kept[i], "Host"), rows[i].host);
        assert_string_equal(gw_request_info(rig.kept[i])->path, rows[i].path);
    }
    for (unsigned i = 0; i < rig.kept_count; i++)
        gw_answer(rig.kept[i], 200, NULL, 0, "", 0);
}

#define IN_A_RIG(name) cmocka_unit_test_setup_teardown(name, before, after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_RIG(a_request_is_answered_and_the_connection_stays),
        IN_A_RIG(bytes_may_come_one_at_a_time),
        IN_A_RIG(headers_arrive_whole_although_split),
        IN_A_RIG(pipelined_requests_are_answered_in_order),
        IN_A_RIG(a_hundred_pipelined_requests_are_all_answered),
        IN_A_RIG(pipelined_requests_of_a_half_closed_client_are_all_answered),
        IN_A_RIG(a_half_closed_client_gets_a_late_answer),
        IN_A_RIG(a_client_that_is_gone_is_told_of_and_the_answer_goes_nowhere),
        IN_A_RIG(connection_close_ends_the_connection_after_the_answer),
        IN_A_RIG(what_follows_a_last_request_does_not_cut_its_answer),
        IN_A_RIG(http_1_0_closes_unless_asked_to_stay),
        IN_A_RIG(head_gets_the_length_but_no_body),
        IN_A_RIG(a_body_is_asked_for_when_the_client_expects_it),
        IN_A_RIG(targets_are_split_into_path_and_query),
        IN_A_RIG(headers_that_are_ours_or_unclean_are_left_out),
        IN_A_RIG(a_status_that_is_no_answer_becomes_500),
        IN_A_RIG(errors_have_the_contracts_body_and_retry_after),
        IN_A_RIG(an_answer_that_says_close_is_the_last),
        IN_A_RIG(the_host_of_an_absolute_target_is_the_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
