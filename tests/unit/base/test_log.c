/* Log lines as machines and people read them. */
#include "base/json.h"
#include "base/log.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static int ends[2];

static size_t line(char *out, size_t size)
{
    ssize_t n = read(ends[0], out, size - 1);
    out[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

static int open_pipe(void **state)
{
    return pipe2(ends, O_CLOEXEC | O_NONBLOCK);
}

static int close_pipe(void **state)
{
    (void)close(ends[0]);
    return close(ends[1]);
}

static void a_json_line_is_one_object_with_all_common_fields(void **state)
{
    char text[4096];
    gw_log_setup(GW_LOG_JSON, GW_INFO, ends[1]);
    gw_log_identity("0123");
    gw_log_generation(3);
    gw_log(GW_WARN, "a.b", json_pack("{sisn}", "n", 5, "nothing"), "says \"%s\"\n", "hi\xff");
    size_t n = line(text, sizeof text);
    assert_int_equal(text[n - 1], '\n');
    assert_ptr_equal(strchr(text, '\n'), text + n - 1);
    json_t *o;
    assert_int_equal(gw_json_parse(text, n, &o, NULL), 0);
    assert_string_equal(json_string_value(json_object_get(o, "event")), "a.b");
    assert_string_equal(json_string_value(json_object_get(o, "level")), "warn");
    assert_string_equal(json_string_value(json_object_get(o, "boot_id")), "0123");
    assert_int_equal(json_integer_value(json_object_get(o, "generation")), 3);
    assert_int_equal(json_integer_value(json_object_get(o, "n")), 5);
    assert_true(json_is_null(json_object_get(o, "nothing")));
    assert_int_equal(json_integer_value(json_object_get(o, "pid")), getpid());
    json_decref(o);
}

static void fields_cannot_replace_common_ones(void **state)
{
    json_t *fields = json_pack("{siss}", "pid", 1, "x", "y");
    json_t *o = gw_log_object(GW_INFO, "e", fields, "m");
    assert_int_equal(json_integer_value(json_object_get(o, "pid")), getpid());
    assert_string_equal(json_string_value(json_object_get(o, "x")), "y");
    json_decref(o);
    json_decref(fields);
}

static void text_quotes_what_is_not_one_word(void **state)
{
    char text[4096];
    gw_log_setup(GW_LOG_TEXT, GW_INFO, ends[1]);
    gw_log(GW_INFO, "a.b", json_pack("{ssss}", "bare", "word", "quoted", "two words\nline"), "message");
    (void)line(text, sizeof text);
    assert_non_null(strstr(text, "a.b"));
    assert_non_null(strstr(text, " bare=word"));
    assert_non_null(strstr(text, " quoted=\"two words\\nline\""));
    assert_null(strchr(text, 27));
}

static void text_does_not_say_a_thing_twice(void **state)
{
    char text[4096];
    gw_log_setup(GW_LOG_TEXT, GW_INFO, ends[1]);
    gw_log(GW_INFO, "a.b", json_pack("{sssnss}", "said", "hello", "none", "new", "world"), "it says hello");
    (void)line(text, sizeof text);
    assert_null(strstr(text, "said="));
    assert_null(strstr(text, "none="));
    assert_non_null(strstr(text, " new=world"));
}

static void lines_below_the_level_are_not_written(void **state)
{
    char text[64];
    gw_log_setup(GW_LOG_JSON, GW_WARN, ends[1]);
    gw_log(GW_INFO, "quiet", json_pack("{si}", "n", 1), "no");
    assert_int_equal(line(text, sizeof text), 0);
}

static void stalled(void *ud)
{
    ++*(int *)ud;
}

/* Reads all that is there into out, which has room for size bytes. */
static size_t drink(char *out, size_t size)
{
    size_t n = 0;
    for (ssize_t rc; n < size - 1 && (rc = read(ends[0], out + n, size - 1 - n)) > 0;)
        n += (size_t)rc;
    out[n] = '\0';
    return n;
}

static void a_reader_that_stops_is_not_waited_for_and_what_is_lost_is_said(void **state)
{
    static char text[4 << 20];
    const int group[2] = {ends[0], ends[1]};
    char filler[1000];
    int stalls = 0;
    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    (void)fcntl(ends[1], F_SETFL, 0); // one that waits, as a service manager gives it
    memset(filler, 'x', sizeof filler - 1);
    filler[sizeof filler - 1] = '\0';
    unsigned long lost = gw_log_lost();
    gw_log_setup(GW_LOG_TEXT, GW_INFO, ends[1]);
    gw_log_on_stall(stalled, &stalls);
    for (int i = 0; i < 3000; i++)
        gw_log(GW_INFO, "filler", NULL, "%d %s", i, filler);
    assert_true(stalls >= 1);
    assert_true(gw_log_lost() > lost + 1000);
    size_t n = 0;
    while (!gw_log_flush())
        n += drink(text + n, sizeof text - n);
    gw_log(GW_INFO, "after", NULL, "goes on");
    n += drink(text + n, sizeof text - n);
    // Whole lines in their order, then how many are missing.
    int expected = 0, number;
    unsigned long said = 0;
    for (char *l = text, *end; (end = strchr(l, '\n')) != NULL; l = end + 1) {
        *end = '\0';
        const char *word = strstr(l, "filler");
        if (word != NULL && sscanf(word, "filler %d", &number) == 1) {
            assert_int_equal(number, expected++);
            assert_int_equal(strlen(strchr(word, 'x')), sizeof filler - 1);
        } else if (strstr(l, "log.lost") != NULL) {
            assert_int_equal(sscanf(strstr(l, "log.lost") + 8, "%lu lines", &said), 1);
        } else {
            assert_non_null(strstr(l, "goes on"));
            assert_true(said > 0); // before anything that comes later
        }
    }
    assert_int_equal(expected + said, 3000);
    gw_log_on_stall(NULL, NULL);
    gw_log_setup(GW_LOG_TEXT, GW_INFO, STDERR_FILENO);
    (void)close(ends[0]);
    (void)close(ends[1]);
    memcpy(ends, group, sizeof ends);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_json_line_is_one_object_with_all_common_fields),
        cmocka_unit_test(fields_cannot_replace_common_ones),
        cmocka_unit_test(text_quotes_what_is_not_one_word),
        cmocka_unit_test(text_does_not_say_a_thing_twice),
        cmocka_unit_test(lines_below_the_level_are_not_written),
        cmocka_unit_test(a_reader_that_stops_is_not_waited_for_and_what_is_lost_is_said),
    };
    return cmocka_run_group_tests(tests, open_pipe, close_pipe);
}
