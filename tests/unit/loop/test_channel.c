/* Letters arrive whole, once, in order, with their descriptors; what is no letter ends the channel. */
#include "base/err.h"
#include "base/str.h"
#include "loop/channel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include <cmocka.h>

struct end {
    struct gw_channel *channel;
    struct gw_buf types;
    unsigned letters, acknowledged, fds;
    size_t blob_bytes;
    int taken, code;
    bool closes; /* in the middle of a letter */
};

static uv_loop_t loop;

static void received(void *ud, struct gw_letter *letter)
{
    struct end *e = ud;
    e->letters++;
    e->fds += (unsigned)letter->fd_count;
    e->blob_bytes += letter->blob_bytes;
    gw_buf_addf(&e->types, "%s ", letter->type);
    if (letter->fd_count > 0 && e->taken == 0) {
        e->taken = letter->fds[0];
        letter->fds[0] = -1;
    }
    if (e->closes)
        e->channel = gw_channel_close(e->channel);
}

static void acknowledged(void *ud)
{
    ((struct end *)ud)->acknowledged++;
}

static void ended(void *ud, const struct gw_err *why)
{
    ((struct end *)ud)->code = why->code;
}

static const struct gw_channel_ops ops = {.received = received, .acknowledged = acknowledged, .ended = ended};

static void open_pair(struct end *a, struct end *b)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(gw_channel_open(&loop, pair[0], &ops, a, &a->channel, NULL), 0);
    assert_int_equal(gw_channel_open(&loop, pair[1], &ops, b, &b->channel, NULL), 0);
}

static int count_fds(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d) != NULL)
        n++;
    (void)closedir(d);
    return n;
}

static void close_pair(struct end *a, struct end *b)
{
    a->channel = gw_channel_close(a->channel);
    b->channel = gw_channel_close(b->channel);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    gw_buf_fini(&a->types);
    gw_buf_fini(&b->types);
}

#define until(what)                                                                                                    \
    for (int turns = 0; !(what); turns++) {                                                                            \
        assert_true(turns < 10000);                                                                                    \
        (void)uv_run(&loop, UV_RUN_ONCE);                                                                              \
    }

static void letters_arrive_in_order_and_are_acknowledged(void **state)
{
    struct end a = {0}, b = {0};
    open_pair(&a, &b);
    gw_channel_send(a.channel, "one", json_object(), NULL, 0, NULL, 0);
    gw_channel_send(a.channel, "two", json_object(), "xy", 2, NULL, 0);
    gw_channel_send(b.channel, "back", json_object(), NULL, 0, NULL, 0);
    assert_false(gw_channel_quiet(a.channel));
    until(gw_channel_quiet(a.channel) && gw_channel_quiet(b.channel));
    assert_string_equal(b.types.data, "one two ");
    assert_string_equal(a.types.data, "back ");
    assert_int_equal(a.acknowledged, 1);
    assert_int_equal(b.blob_bytes, 2);
    close_pair(&a, &b);
}

static void large_letters_pass_both_ways_at_once(void **state)
{
    static char big[3 << 20];
    struct end a = {0}, b = {0};
    open_pair(&a, &b);
    for (int i = 0; i < 3; i++) {
        gw_channel_send(a.channel, "big", json_object(), big, sizeof big, NULL, 0);
        gw_channel_send(b.channel, "big", json_object(), big, sizeof big, NULL, 0);
    }
    until(a.letters == 3 && b.letters == 3 && gw_channel_quiet(a.channel) && gw_channel_quiet(b.channel));
    assert_int_equal(a.blob_bytes, 3 * sizeof big);
    close_pair(&a, &b);
}

static void descriptors_ride_along_and_none_is_lost(void **state)
{
    int before = count_fds();
    struct end a = {0}, b = {0};
    open_pair(&a, &b);
    int fds[GW_LETTER_FDS], file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    for (size_t i = 0; i < GW_LETTER_FDS; i++)
        fds[i] = file;
    gw_channel_send(b.channel, "first", json_object(), NULL, 0, NULL, 0);
    for (int i = 0; i < 3; i++)
        gw_channel_send(a.channel, "many", json_object(), "z", 1, fds, GW_LETTER_FDS);
    gw_channel_send(a.channel, "none", json_object(), NULL, 0, NULL, 0);
    until(gw_channel_quiet(a.channel) && gw_channel_quiet(b.channel));
    assert_int_equal(b.fds, 3 * GW_LETTER_FDS);
    struct stat here, there;
    assert_int_equal(fstat(file, &here), 0);
    assert_int_equal(fstat(b.taken, &there), 0);
    assert_int_equal(here.st_ino, there.st_ino);
    assert_int_equal(fcntl(b.taken, F_GETFD), FD_CLOEXEC);
    (void)close(b.taken);
    (void)close(file);
    close_pair(&a, &b);
    assert_int_equal(count_fds(), before);
}

static void what_was_said_before_the_end_is_heard(void **state)
{
    struct end a = {0}, b = {0};
    open_pair(&a, &b);
    gw_channel_send(a.channel, "last", json_object(), NULL, 0, NULL, 0);
    a.channel = gw_channel_close(a.channel);
    until(b.code != 0);
    assert_string_equal(b.types.data, "last ");
    assert_int_equal(b.code, -EPIPE);
    close_pair(&a, &b);
}

static void garbage_ends_it(void **state)
{
    static const char *const all[] = {"GET / HTTP/1.1\r\n\r\n", "\x02\0\0\0", NULL};
    static const size_t sizes[] = {18, 4};
    for (int i = 0; all[i] != NULL; i++) {
        struct end a = {0};
        int pair[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        assert_int_equal(uv_loop_init(&loop), 0);
        assert_int_equal(gw_channel_open(&loop, pair[0], &ops, &a, &a.channel, NULL), 0);
        assert_int_equal(write(pair[1], all[i], sizes[i]), sizes[i]);
        (void)close(pair[1]);
        until(a.code != 0);
        assert_int_equal(a.code, i == 0 ? -EPROTO : -EPIPE);
        assert_int_equal(a.letters, 0);
        struct end none = {0};
        close_pair(&a, &none);
    }
}

static void it_may_be_closed_by_who_reads_a_letter(void **state)
{
    struct end a = {0}, b = {.closes = true};
    open_pair(&a, &b);
    gw_channel_send(a.channel, "one", json_object(), NULL, 0, NULL, 0);
    gw_channel_send(a.channel, "two", json_object(), NULL, 0, NULL, 0);
    until(a.code != 0);
    assert_int_equal(b.letters, 1);
    close_pair(&a, &b);
}

static void it_can_be_waited_for_without_the_loop(void **state)
{
    struct end a = {0}, b = {0};
    open_pair(&a, &b);
    assert_false(gw_channel_wait(b.channel, 1));
    gw_channel_send(a.channel, "one", json_object(), NULL, 0, NULL, 0);
    assert_true(gw_channel_wait(b.channel, 10000));
    assert_int_equal(b.letters, 1);
    assert_true(gw_channel_wait(a.channel, 10000));
    assert_int_equal(a.acknowledged, 1);
    close_pair(&a, &b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(letters_arrive_in_order_and_are_acknowledged),
        cmocka_unit_test(large_letters_pass_both_ways_at_once),
        cmocka_unit_test(descriptors_ride_along_and_none_is_lost),
        cmocka_unit_test(what_was_said_before_the_end_is_heard),
        cmocka_unit_test(garbage_ends_it),
        cmocka_unit_test(it_may_be_closed_by_who_reads_a_letter),
        cmocka_unit_test(it_can_be_waited_for_without_the_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
