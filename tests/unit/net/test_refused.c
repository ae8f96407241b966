/* Input that two programs in a row could read as different requests, and other input that is none. */
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

struct row {
    const char *text;
    size_t n;
    const char *status;
};
#define ROW(text, status) {text, sizeof(text) - 1, status}
#define GET "GET / HTTP/1.1\r\nHost: a\r\n"
#define POST "POST / HTTP/1.1\r\nHost: a\r\n"

static const struct row rows[] = {
    ROW("GET / HTTP/1.1\r\n\r\n", "400"),
    ROW("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400"),
    ROW("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "400"),
    ROW("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400"),
    ROW("GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", "400"),
    ROW("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", "400"),
    ROW("GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    ROW("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    ROW("GET http://a:65536/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    ROW("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    ROW("GET * HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    ROW("OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    ROW("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
    ROW("GET / HTTP/2.0\r\nHost: a\r\n\r\n", "505"),
    ROW("GET / HTTP/1.2\r\nHost: a\r\n\r\n", "505"),
    ROW("GET / HTTP/1.10\r\nHost: a\r\n\r\n", "400"),
    ROW("GET / HTTP/ 1.1\r\nHost: a\r\n\r\n", "400"),
    ROW("GET / HTTP/11\r\nHost: a\r\n\r\n", "400"),
    ROW("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "400"),
    ROW("GET / HTTP/1.1\rHost: a\r\n\r\n", "400"),
    ROW("GET /\r\n\r\n", "400"),
    ROW(GET "X: a\r\n b\r\n\r\n", "400"),
    ROW(GET "X: a\r\n\tb\r\n\r\n", "400"),
    ROW("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400"),
    ROW("GET / HTTP/1.1\r\n: a\r\nHost: a\r\n\r\n", "400"),
    ROW(GET ": a\r\n\r\n", "400"),
    ROW(GET ":\r\n\r\n", "400"),
    ROW(GET "X:\r\n:a\r\n\r\n", "400"),
    ROW("GET / HTTP/1.1\nHost: a\n\n", "400"),
    ROW("GET / HTTP/1.1\r\nHost: a\n\r\n", "400"),
    ROW(GET "X: a\n\r\n", "400"),
    ROW("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    ROW("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    ROW("GET / RTSP/1.0\r\nHost: a\r\n\r\n", "400"),
    ROW("DESCRIBE / RTSP/1.0\r\nHost: a\r\n\r\n", "400"),
    ROW(GET "X: a\0b\r\n\r\n", "400"),
    ROW("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    ROW(POST "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", "400"),
    ROW(POST "Transfer-Encoding: gzip\r\n\r\n", "400"),
    ROW(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
    ROW(POST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", "400"),
    ROW(POST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
    ROW("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
    ROW(POST "Content-Length: -1\r\n\r\n", "400"),
    ROW(POST "Content-Length: +1\r\n\r\na", "400"),
    ROW(POST "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", "400"),
    ROW(POST "Content-Length: 1, 1\r\n\r\na", "400"),
    ROW(POST "Content-Length: 99999999999999999999999\r\n\r\n", "400"),
    ROW(POST "Content-Length: 1048577\r\n\r\n", "413"),
    ROW(POST "Expect: 100-continue\r\nContent-Length: 1048577\r\n\r\n", "413"),
    ROW(POST "Expect: tea\r\nContent-Length: 1\r\n\r\na", "417"),
    ROW(POST "Transfer-Encoding: chunked\r\n\r\nzz\r\n", "400"),
    ROW(POST "Transfer-Encoding: chunked\r\n\r\n-1\r\n", "400"),
    ROW(POST "Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", "400"),
    ROW(POST "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", "400"),
    ROW(POST "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", "400"),
    ROW("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
    ROW("get / HTTP/1.1\r\nHost: a\r\n\r\n", "501"),
    ROW("BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n", "501"),
    ROW("(GET) / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    ROW(POST "Transfer-Encoding: chunked\r\n\r\n0\r\n\n", "400"),
    ROW(POST "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\n", "400"),
    ROW(POST "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n", "400"),
    ROW(POST "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n z\r\n\r\n", "400"),
    ROW(POST "Transfer-Encoding: chunked\r\n\r\n0\r\n: y\r\n\r\n", "400"),
    ROW(POST "Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n", "400"),
    ROW("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400"),
};

/* Refused with the status, not handed out, and the connection ended without a reset. */
static void refused(struct rig_client *c, const struct row *row)
{
    rig_expect_end(c);
    char *start = gw_asprintf("HTTP/1.1 %s", row->status);
    bool right = c->in.len > 0 && strncmp(c->in.data, start, strlen(start)) == 0 && rig_has(c, "Connection: close\r\n");
    if (!right || rig.requests > 0 || c->reset)
        fail_msg("'%s' was answered: %s", row->text, c->in.len > 0 ? c->in.data : "not at all");
    free(start);
}

static void each_is_refused_in_one_piece(void **state)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct rig_client *c = rig_connect(&rig);
        rig_send_bytes(c, rows[i].text, rows[i].n);
        refused(c, &rows[i]);
    }
    assert_int_equal(gw_net_counts(rig.net).rejected, sizeof rows / sizeof *rows);
}

static void each_is_refused_byte_for_byte(void **state)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct rig_client *c = rig_connect(&rig);
        rig_dribble(c, rows[i].text, rows[i].n);
        refused(c, &rows[i]);
    }
}

static void what_follows_a_refused_request_is_never_read_as_one(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "GET /first HTTP/1.1\r\nHost: a\r\n\r\nBAD\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    rig_expect_end(c);
    assert_true(rig_has(c, "GET /first? ") && rig_has(c, "HTTP/1.1 400"));
    assert_int_equal(rig.requests, 1);
}

static void a_method_that_is_no_proxys_says_what_is_allowed(void **state)
{
    struct rig_client *c = rig_connect(&rig);
    rig_send(c, "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n");
    rig_expect_end(c);
    assert_true(rig_has(c, "Allow: GET, HEAD, POST\r\n"));
    assert_true(rig_has(c, "{\"error\":{\"code\":\"method_not_allowed\""));
}

#define IN_A_RIG(name) cmocka_unit_test_setup_teardown(name, before, after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_RIG(each_is_refused_in_one_piece),
        IN_A_RIG(each_is_refused_byte_for_byte),
        IN_A_RIG(what_follows_a_refused_request_is_never_read_as_one),
        IN_A_RIG(a_method_that_is_no_proxys_says_what_is_allowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
