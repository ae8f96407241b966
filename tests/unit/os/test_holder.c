/* Who holds the lock: only a process of which everything is true is signalled. */
#include "base/err.h"
#include "base/str.h"
#include "os/holder.h"
#include "os/lock.h"
#include "os/proc.h"
#include "support/tempdir.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

static char dir[64];
static int dir_fd;
static struct gw_lock *lock;

static int setup(void **state)
{
    tempdir_make(dir);
    dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return dir_fd < 0;
}

static int teardown(void **state)
{
    lock = gw_lock_release(lock);
    (void)close(dir_fd);
    tempdir_remove(dir);
    return 0;
}

static void take(pid_t pid, uint64_t start_time)
{
    struct gw_err err;
    char *info = gw_asprintf("{\"pid\":%d,\"start_time\":%llu}", (int)pid, (unsigned long long)start_time);
    assert_int_equal(gw_lock_acquire(dir_fd, dir, info, &lock, &err), 0);
    free(info);
}

static uint64_t start_time_of(pid_t pid)
{
    struct gw_proc_facts facts;
    assert_true(gw_proc_read(pid, &facts));
    return facts.start_time;
}

static int find(pid_t *ret_pid)
{
    struct gw_err err;
    int fd, rc = gw_holder_open(dir_fd, &fd, ret_pid, &err);
    if (rc == 0)
        (void)close(fd);
    return rc;
}

static void a_free_lock_has_no_holder_whatever_the_file_says(void **state)
{
    pid_t pid;
    assert_int_equal(find(&pid), -ESRCH);
    take(getpid(), start_time_of(getpid()));
    lock = gw_lock_release(lock);
    assert_int_equal(find(&pid), -ESRCH);
}

static void the_holder_is_found(void **state)
{
    pid_t pid = 0;
    take(getpid(), start_time_of(getpid()));
    assert_int_equal(find(&pid), 0);
    assert_int_equal(pid, getpid());
}

static void a_pid_with_another_start_time_is_another_process(void **state)
{
    pid_t pid;
    take(getpid(), start_time_of(getpid()) + 1);
    assert_int_equal(find(&pid), -EUCLEAN);
}

static void a_process_without_the_lock_is_not_the_holder(void **state)
{
    pid_t pid;
    take(getppid(), start_time_of(getppid()));
    assert_int_equal(find(&pid), -EUCLEAN);
}

static void a_file_that_tells_nothing_names_nobody(void **state)
{
    static const char *const contents[] = {"", "garbage", "{}", "{\"pid\":1}", "{\"pid\":-1,\"start_time\":1}", "[]"};
    pid_t pid;
    take(getpid(), 1);
    for (size_t i = 0; i < sizeof contents / sizeof *contents; i++) {
        assert_int_equal(gw_lock_describe(lock, contents[i], NULL), 0);
        assert_int_equal(find(&pid), -EUCLEAN);
    }
}

static void a_successor_that_shares_the_lock_is_found_and_gets_the_signal(void **state)
{
    take(getpid(), 1);
    pid_t child = fork();
    if (child == 0) {
        (void)pause();
        _exit(0);
    }
    char *info = gw_asprintf("{\"pid\":%d,\"start_time\":%llu}", (int)child, (unsigned long long)start_time_of(child));
    assert_int_equal(gw_lock_describe(lock, info, NULL), 0);
    free(info);
    lock = gw_lock_release(lock); // the child's descriptors go on holding it
    struct gw_err err;
    pid_t pid = 0;
    int fd = -1, status = 0;
    assert_int_equal(gw_holder_open(dir_fd, &fd, &pid, &err), 0);
    assert_int_equal(pid, child);
    assert_int_equal(gw_holder_signal(fd, SIGUSR1, &err), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1);
    assert_true(gw_holder_signal(fd, SIGUSR1, &err) < 0);
    (void)close(fd);
}

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    assert_int_equal(gw_lock_describe(lock, text, NULL), 0);
}

static void who_is_named_holds_it_whatever_is_written_there(void **state)
{
    take(getpid(), start_time_of(getpid()));
    assert_int_equal(gw_holder_find(dir_fd).pid, getpid());
    say("{\"pid\":%d,\"start_time\":%llu}", (int)getppid(), (unsigned long long)start_time_of(getppid()));
    assert_int_equal(gw_holder_find(dir_fd).pid, getpid()); // the kernel's table
    say("garbage");
    assert_int_equal(gw_holder_find(dir_fd).pid, getpid());
}

static void the_one_that_took_it_and_is_gone_is_not_named(void **state)
{
    int ends[2];
    take(getpid(), 1);
    assert_int_equal(pipe(ends), 0);
    lock = gw_lock_release(lock);
    pid_t taker = fork();
    if (taker == 0) { // takes it, leaves it to a child, and is gone: /proc/locks goes on naming this one
        take(getpid(), 1);
        pid_t heir = fork();
        if (heir == 0) {
            (void)pause();
            _exit(0);
        }
        (void)!write(ends[1], &heir, sizeof heir);
        _exit(0);
    }
    pid_t heir = 0;
    assert_int_equal(read(ends[0], &heir, sizeof heir), sizeof heir);
    (void)waitpid(taker, NULL, 0);
    assert_int_equal(gw_holder_find(dir_fd).pid, heir);
    (void)kill(heir, SIGKILL);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static void one_in_another_container_or_machine_is_said_to_be_there(void **state)
{
    // Nobody here holds it: that is how it looks from another pid namespace.
    for (int i = 0; i < 2; i++) {
        take(getpid(), 1);
        say("{\"pid\":1,\"start_time\":5,\"host\":\"other\",\"pid_ns\":%llu}", i == 0 ? 7 : (unsigned long long)gw_holder_pid_ns());
        lock = gw_lock_release(lock);
        struct gw_holder holder = gw_holder_find(dir_fd);
        assert_true(holder.elsewhere);
        assert_int_equal(holder.pid, 1);
        assert_string_equal(holder.host, "other");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_free_lock_has_no_holder_whatever_the_file_says, setup, teardown),
        cmocka_unit_test_setup_teardown(the_holder_is_found, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pid_with_another_start_time_is_another_process, setup, teardown),
        cmocka_unit_test_setup_teardown(a_process_without_the_lock_is_not_the_holder, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_that_tells_nothing_names_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(who_is_named_holds_it_whatever_is_written_there, setup, teardown),
        cmocka_unit_test_setup_teardown(the_one_that_took_it_and_is_gone_is_not_named, setup, teardown),
        cmocka_unit_test_setup_teardown(one_in_another_container_or_machine_is_said_to_be_there, setup, teardown),
        cmocka_unit_test_setup_teardown(a_successor_that_shares_the_lock_is_found_and_gets_the_signal, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
