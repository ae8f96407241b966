/* Telling a service manager: to which address, what arrives, and that nothing is waited for. */
#include "base/err.h"
#include "os/notify.h"
#include "support/tempdir.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

/* A bound datagram socket; with '@' an abstract one. */
static int sink(const char *address)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    memcpy(at.sun_path, address, strlen(address));
    if (address[0] == '@')
        at.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(address));
    assert_int_equal(bind(fd, (struct sockaddr *)&at, n), 0);
    return fd;
}

static void received(int fd, const char *expected)
{
    char text[4096];
    ssize_t n = recv(fd, text, sizeof text - 1, MSG_DONTWAIT);
    assert_true(n >= 0);
    text[n] = '\0';
    assert_string_equal(text, expected);
}

static void one_call_is_one_datagram(void **state)
{
    char dir[64], path[100];
    tempdir_make(dir);
    (void)snprintf(path, sizeof path, "%.63s/notify", dir);
    struct gw_notify *n;
    struct gw_err err;
    int fd = sink(path);
    assert_int_equal(gw_notify_open(path, &n, &err), 0);
    assert_int_equal(gw_notify_send(n, "READY=1\nMAINPID=7", &err), 0);
    assert_int_equal(gw_notify_send(n, "STOPPING=1", &err), 0);
    received(fd, "READY=1\nMAINPID=7");
    received(fd, "STOPPING=1");
    // The manager has gone: an error, no signal.
    (void)close(fd);
    assert_int_equal(gw_notify_send(n, "WATCHDOG=1", &err), -ECONNREFUSED);
    assert_non_null(strstr(err.text, "NOTIFY_SOCKET"));
    (void)unlink(path);
    assert_int_equal(gw_notify_send(n, "WATCHDOG=1", &err), -ENOENT);
    assert_null(gw_notify_close(n));
    tempdir_remove(dir);
}

static void an_abstract_name_begins_with_an_at(void **state)
{
    char name[64];
    (void)snprintf(name, sizeof name, "@gwhost-test-%d", (int)getpid());
    struct gw_notify *n;
    struct gw_err err;
    int fd = sink(name);
    assert_int_equal(gw_notify_open(name, &n, &err), 0);
    assert_int_equal(gw_notify_send(n, "READY=1", &err), 0);
    received(fd, "READY=1");
    assert_null(gw_notify_close(n));
    (void)close(fd);
}

static void an_address_that_does_not_fit_is_refused_not_cut(void **state)
{
    struct gw_notify *n = NULL;
    struct gw_err err;
    char long_path[110];
    memset(long_path, 'x', sizeof long_path);
    long_path[0] = '/';
    long_path[108] = '\0';
    assert_int_equal(gw_notify_open(long_path, &n, &err), -ENAMETOOLONG);
    long_path[107] = '\0';
    assert_int_equal(gw_notify_open(long_path, &n, &err), 0);
    n = gw_notify_close(n);
    long_path[0] = '@';
    long_path[107] = 'x';
    assert_int_equal(gw_notify_open(long_path, &n, &err), 0);
    n = gw_notify_close(n);
    long_path[108] = 'x';
    long_path[109] = '\0';
    assert_int_equal(gw_notify_open(long_path, &n, &err), -ENAMETOOLONG);
    static const char *const bad[] = {"", "/", "@", "notify", "vsock:2:1234"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(gw_notify_open(bad[i], &n, &err), -EINVAL);
    assert_null(n);
}

static void a_manager_that_reads_nothing_is_not_waited_for(void **state)
{
    char name[64];
    (void)snprintf(name, sizeof name, "@gwhost-full-%d", (int)getpid());
    struct gw_notify *n;
    struct gw_err err;
    int fd = sink(name), rc = 0;
    assert_int_equal(gw_notify_open(name, &n, &err), 0);
    for (int i = 0; i < 100000 && rc == 0; i++)
        rc = gw_notify_send(n, "STATUS=x", &err);
    assert_int_equal(rc, -EAGAIN);
    assert_null(gw_notify_close(n));
    (void)close(fd);
}

static void nobody_to_tell_is_fine(void **state)
{
    assert_int_equal(gw_notify_send(NULL, "READY=1", NULL), 0);
    assert_null(gw_notify_close(NULL));
}

static void a_watchdog_is_fed_at_half_its_time_when_it_means_us(void **state)
{
    static const struct {
        const char *usec, *pid;
        uint64_t ms;
    } rows[] = {
        {"30000000", NULL, 15000}, {"30000000", "100", 15000}, {"30000000", "101", 0}, {"30000000", "", 0},
        {NULL, "100", 0},          {"0", NULL, 0},             {"-5", NULL, 0},        {"soon", NULL, 0},
        {"1", NULL, 1},            {"3000", NULL, 1},          {"4000", NULL, 2},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(gw_notify_watchdog_ms(rows[i].usec, rows[i].pid, 100), rows[i].ms);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_call_is_one_datagram),
        cmocka_unit_test(an_abstract_name_begins_with_an_at),
        cmocka_unit_test(an_address_that_does_not_fit_is_refused_not_cut),
        cmocka_unit_test(a_manager_that_reads_nothing_is_not_waited_for),
        cmocka_unit_test(nobody_to_tell_is_fine),
        cmocka_unit_test(a_watchdog_is_fed_at_half_its_time_when_it_means_us),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
