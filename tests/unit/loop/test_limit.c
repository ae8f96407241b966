/* A limit whose time is over while the process did not run judges only after what has come. */
#include "loop/limit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char said[64];
static int fds[2];

static void say(const char *word)
{
    (void)strncat(said, word, sizeof said - strlen(said) - 1);
}

static void on_limit(struct gw_limit *limit)
{
    say(limit->data);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    char byte;
    assert_int_equal(read(fds[0], &byte, 1), 1);
    say("came ");
    if (poll->data != NULL)
        gw_limit_stop(poll->data);
    (void)uv_poll_stop(poll);
}

static void close_all(uv_handle_t *handle, void *ud)
{
    uv_close(handle, NULL);
}

/* The process stands still for longer than its limit; a byte arrives meanwhile. */
static void stand_still(bool stops)
{
    uv_loop_t loop;
    struct gw_limit limit;
    uv_poll_t poll;
    said[0] = '\0';
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(uv_poll_init(&loop, &poll, fds[0]), 0);
    poll.data = stops ? &limit : NULL;
    assert_int_equal(uv_poll_start(&poll, UV_READABLE, on_readable), 0);
    gw_limit_init(&loop, &limit, "over ");
    gw_limit_start(&limit, on_limit, 5);
    struct timespec still = {.tv_nsec = 30 * 1000 * 1000};
    (void)nanosleep(&still, NULL);
    assert_int_equal(write(fds[1], "x", 1), 1);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    uv_walk(&loop, close_all, NULL);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

static void what_has_come_is_looked_at_before_the_limit_judges(void **state)
{
    stand_still(false);
    assert_string_equal(said, "came over ");
}

static void what_has_come_may_stop_it(void **state)
{
    stand_still(true);
    assert_string_equal(said, "came ");
}

static void start_again(struct gw_limit *limit)
{
    say("one ");
    limit->data = "two ";
    gw_limit_start(limit, on_limit, 0);
}

static void one_that_is_over_can_be_started_again(void **state)
{
    uv_loop_t loop;
    struct gw_limit limit;
    said[0] = '\0';
    assert_int_equal(uv_loop_init(&loop), 0);
    gw_limit_init(&loop, &limit, NULL);
    gw_limit_start(&limit, start_again, 0);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_string_equal(said, "one two ");
    uv_walk(&loop, close_all, NULL);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_has_come_is_looked_at_before_the_limit_judges),
        cmocka_unit_test(what_has_come_may_stop_it),
        cmocka_unit_test(one_that_is_over_can_be_started_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
