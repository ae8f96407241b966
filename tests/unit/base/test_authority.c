/* Host and Origin: what they may be, and what is the same. */
#include "base/authority.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void hosts_and_ports_are_read_by_their_grammar(void **state)
{
    static const struct {
        const char *text;
        int port;
        bool address, loopback;
    } good[] = {{"a", -1, false, false},
                {"a.example:80", 80, false, false},
                {"LocalHost:65535", 65535, false, true},
                {"localhost.", -1, false, false},
                {"a_b-c~!$&'()*+,;=%2f:0", 0, false, false},
                {"...", -1, false, false}, // a name by the grammar, and no address
                {"1.2.3", -1, false, false},
                {"256.0.0.1", -1, false, false},
                {"127.0.0.1.evil.example", -1, false, false},
                {"127.9.9.9:1", 1, true, true},
                {"192.0.2.1", -1, true, false},
                {"[::1]", -1, true, true},
                {"[::1]:", -1, true, true},
                {"[fe80::1]:18789", 18789, true, false},
                {"[::ffff:1.2.3.4]:1", 1, true, false}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct gw_authority a;
        if (!gw_authority_read(good[i].text, strlen(good[i].text), &a))
            fail_msg("%s is refused", good[i].text);
        if (a.port != good[i].port || a.address != good[i].address || gw_authority_is_loopback(&a) != good[i].loopback)
            fail_msg("%s: port %d, address %d", good[i].text, a.port, a.address);
    }
    static const char *const bad[] = {"",          ":80",       "x:abc",        "x:65536",        "x:1:2",     "x:-1",
                                      "[::1",      "[]",        "[evil]",       "[::1]x",         "[::1]80",   "[127.0.0.1]",
                                      "a b",       "a/b",       "u@h",          "a\\b",           "a\"",       "<a>",
                                      "a%2",       "a%zz",      "\xc3\xa9",     "a\x7f",          "a:80 ",     "a^",
                                      "[::1%25lo]", "localhost:80:evil", "x:99999999999999999999", "::1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct gw_authority a;
        if (gw_authority_read(bad[i], strlen(bad[i]), &a))
            fail_msg("%s is taken", bad[i]);
    }
    struct gw_authority a;
    assert_false(gw_authority_read("a\0b", 3, &a));
    assert_false(gw_authority_read("1.2.3.4\0", 8, &a));
}

static void an_origin_is_compared_with_a_host_by_the_port_of_its_scheme(void **state)
{
    static const struct {
        const char *origin, *host;
        bool same;
    } rows[] = {{"http://a.example", "A.EXAMPLE", true},
                {"http://a.example", "a.example:80", true},
                {"https://a.example:443", "a.example", true},
                {"https://a.example", "a.example:80", false},
                {"http://a.example:8080", "a.example:8080", true},
                {"http://a.example:8080", "a.example", false},
                {"http://a.example.evil", "a.example", false},
                {"http://[::1]:9", "[::1]:9", true},
                {"app://a", "a", true}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct gw_authority a, b;
        int port = 0;
        assert_true(gw_origin_read(rows[i].origin, &a, &port));
        assert_true(gw_authority_read(rows[i].host, strlen(rows[i].host), &b));
        if (gw_authority_equal(&a, &b, port) != rows[i].same)
            fail_msg("%s and %s", rows[i].origin, rows[i].host);
    }
    static const char *const bad[] = {"", "null", "a.example", "http:/a", "http://", "://a", "http://a/", "http://u@a", "ht tp://a",
                                      "-x://a", "http://a?b"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct gw_authority a;
        int port = 0;
        if (gw_origin_read(bad[i], &a, &port))
            fail_msg("%s is taken", bad[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_and_ports_are_read_by_their_grammar),
        cmocka_unit_test(an_origin_is_compared_with_a_host_by_the_port_of_its_scheme),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
