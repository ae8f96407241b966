/* Durations, UTF-8, growable bytes, errors. */
#include "base/err.h"
#include "base/json.h"
#include "base/sha.h"
#include "base/str.h"
#include "base/time.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void durations_have_units_and_nothing_else(void **state)
{
    uint64_t ms = 7;
    static const struct {
        const char *text;
        uint64_t ms;
    } good[] = {{"250ms", 250}, {"30s", 30000}, {"5m", 300000}, {"1h", 3600000}, {"12", 12000}, {"0", 0}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(gw_parse_duration(good[i].text, &ms));
        assert_int_equal(ms, good[i].ms);
    }
    static const char *const bad[] = {"", "s", "-1", "1.5s", "1 s", "1d", "ms", "1ss", "99999999999999s", NULL};
    for (int i = 0; bad[i] != NULL; i++)
        assert_false(gw_parse_duration(bad[i], &ms));
    assert_false(gw_parse_duration(NULL, &ms));
}

static void a_cut_never_splits_a_character(void **state)
{
    static const char s[] = "a\xc3\xa9\xe2\x82\xac"; // a, e with acute, euro sign: 1 + 2 + 3 bytes
    static const size_t want[] = {0, 1, 1, 3, 3, 3, 6, 6};
    for (size_t max = 0; max < sizeof want / sizeof *want; max++)
        assert_int_equal(gw_utf8_clip(s, max), want[max]);
}

static void bad_bytes_are_replaced_one_by_one(void **state)
{
    static const char s[] = "ok \xff\xc3( \xed\xa0\x80 \xf4\x90\x80\x80.";
    struct gw_buf b = {0};
    gw_utf8_repair(&b, s, sizeof s - 1);
    assert_true(gw_utf8_valid(b.data, b.len));
    assert_non_null(strstr(b.data, "ok \xef\xbf\xbd\xef\xbf\xbd( "));
    gw_buf_fini(&b);
    assert_false(gw_utf8_valid("\xc0\x80", 2));
    assert_true(gw_utf8_valid("\xf0\x9f\x98\x80", 4));
}

static void bytes_grow_and_shrink(void **state)
{
    struct gw_buf b = {0};
    for (int i = 0; i < 1000; i++)
        gw_buf_addf(&b, "%d,", i);
    assert_int_equal(strlen(b.data), b.len);
    gw_buf_drop(&b, 2);
    assert_memory_equal(b.data, "1,2,3,", 6);
    gw_buf_drop(&b, b.len);
    assert_int_equal(b.len, 0);
    gw_buf_fini(&b);
}

static void a_prefix_goes_before_the_words(void **state)
{
    struct gw_err err;
    assert_int_equal(gw_err_set(&err, -ENOENT, "open '%s'", "x"), -ENOENT);
    assert_int_equal(gw_err_prefix(&err, "load %d", 3), -ENOENT);
    assert_string_equal(err.text, "load 3: open 'x'");
    char long_text[2000];
    memset(long_text, 'y', sizeof long_text);
    long_text[sizeof long_text - 1] = '\0';
    gw_err_set(&err, -1, "%s", long_text);
    gw_err_prefix(&err, "p");
    assert_memory_equal(err.text, "p: yyy", 6);
    assert_true(strlen(err.text) < sizeof err.text);
    assert_int_equal(gw_err_set(NULL, -5, "nobody listens"), -5);
}

static void secrets_are_equal_only_when_they_are(void **state)
{
    assert_true(gw_equal_secret("abc", 3, "abc", 3));
    assert_false(gw_equal_secret("abc", 3, "abd", 3));
    assert_false(gw_equal_secret("abc", 3, "abcabc", 6));
    assert_false(gw_equal_secret("", 0, "abc", 3));
    assert_false(gw_equal_secret("abc", 3, "", 0));
}

static void json_keeps_integers_and_refuses_doubled_keys(void **state)
{
    json_t *v;
    struct gw_err err;
    assert_int_equal(gw_json_parse("[9007199254740993]", 18, &v, &err), 0);
    assert_int_equal(json_integer_value(json_array_get(v, 0)), 9007199254740993);
    json_decref(v);
    assert_int_equal(gw_json_parse("{\"a\":1,\"a\":2}", 13, &v, &err), -EINVAL);
    assert_non_null(strstr(err.text, "line 1"));
    assert_int_equal(gw_json_parse("{} x", 4, &v, &err), -EINVAL);
    assert_int_equal(gw_json_parse("\xef\xbb\xbf[]", 5, &v, &err), 0); // an editor's mark
    json_decref(v);
    assert_int_equal(gw_json_parse("\xef\xbb\xbf", 3, &v, &err), -EINVAL);
    assert_int_equal(gw_json_parse("\xef\xbb", 2, &v, &err), -EINVAL);
    v = gw_json_stringn("\xff!", 2);
    assert_string_equal(json_string_value(v), "\xef\xbf\xbd!");
    json_decref(v);
}

static void digests_match_the_published_vectors(void **state)
{
    char hex[65], accept[29];
    gw_sha256_hex("abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    gw_ws_accept_key("dGhlIHNhbXBsZSBub25jZQ==", accept);
    assert_string_equal(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

/* The same numbers are good, and mean the same, at every door: these are what the doors ask. */
static void milliseconds_have_one_range_and_lose_their_fraction(void **state)
{
    static const struct {
        const char *json;
        int64_t from_0, from_1; /* -1: refused */
    } cases[] = {{"-1", -1, -1},       {"-0.5", -1, -1},
                 {"0", 0, -1},         {"0.0", 0, -1},
                 {"0.5", 1, -1},       {"1", 1, 1},
                 {"1500.7", 1500, 1500}, {"315360000000", GW_MS_MAX, GW_MS_MAX},
                 {"315360000001", -1, -1}, {"315360000000.5", -1, -1},
                 {"9007199254740992", -1, -1}, {"9223372036854775807", -1, -1},
                 {"1e300", -1, -1},    {"-1e300", -1, -1},
                 {"\"5\"", -1, -1},    {"true", -1, -1},
                 {"null", -1, -1},     {"[5]", -1, -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int min = 0; min < 2; min++) {
            int64_t ms = -1, want = min == 0 ? cases[i].from_0 : cases[i].from_1;
            json_t *v = NULL;
            assert_int_equal(gw_json_parse(cases[i].json, strlen(cases[i].json), &v, NULL), 0);
            assert_int_equal(gw_json_ms(v, min, &ms), want >= 0);
            assert_int_equal(ms, want);
            json_decref(v);
        }
    int64_t ms;
    assert_false(gw_ms_floor(0.0 / 0.0, 0, &ms));
}

static void a_duration_is_at_most_ten_years(void **state)
{
    uint64_t ms = 0;
    assert_true(gw_parse_duration("87600h", &ms));
    assert_int_equal(ms, GW_MS_MAX);
    assert_true(gw_parse_duration("315360000000ms", &ms));
    static const char *const bad[] = {"87601h", "315360000001ms", "999999999999h", "315360001", "-1", "1.5s", "5d", "", "s"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(gw_parse_duration(bad[i], &ms));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations_have_units_and_nothing_else),
        cmocka_unit_test(a_cut_never_splits_a_character),
        cmocka_unit_test(bad_bytes_are_replaced_one_by_one),
        cmocka_unit_test(bytes_grow_and_shrink),
        cmocka_unit_test(a_prefix_goes_before_the_words),
        cmocka_unit_test(secrets_are_equal_only_when_they_are),
        cmocka_unit_test(json_keeps_integers_and_refuses_doubled_keys),
        cmocka_unit_test(digests_match_the_published_vectors),
        cmocka_unit_test(milliseconds_have_one_range_and_lose_their_fraction),
        cmocka_unit_test(a_duration_is_at_most_ten_years),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
