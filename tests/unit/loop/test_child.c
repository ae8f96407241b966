/* Commands: their output, their end, what they inherit. */
#include "base/err.h"
#include "loop/child.h"
#include "loop/leftovers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <uv.h>

#include <cmocka.h>

struct ended {
    int calls, exit_code, signal;
    char out[4096];
    size_t out_len;
    uint64_t out_bytes, err_bytes;
};

static void on_end(void *ud, struct gw_child *child, const struct gw_child_result *r)
{
    struct ended *e = ud;
    e->calls++;
    e->exit_code = r->exit_code;
    e->signal = r->signal;
    e->out_len = r->out.len < sizeof e->out - 1 ? r->out.len : sizeof e->out - 1;
    if (e->out_len > 0)
        memcpy(e->out, r->out.data, e->out_len);
    e->out[e->out_len] = '\0';
    e->out_bytes = r->out_bytes;
    e->err_bytes = r->err_bytes;
}

static unsigned open_fds(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d) != NULL)
        n++;
    (void)closedir(d);
    return n;
}

/* Runs sh -c script to its end. */
static struct ended run(const char *script, const char *input, size_t keep)
{
    const char *argv[] = {"sh", "-c", script, NULL};
    struct gw_child_spec spec = {.argv = argv, .keep_bytes = keep};
    struct ended e = {0};
    struct gw_child *child;
    struct gw_err err;
    uv_loop_t loop;
    assert_int_equal(uv_loop_init(&loop), 0);
    unsigned before = open_fds();
    if (input != NULL) {
        spec.input = input;
        spec.input_bytes = strlen(input);
    }
    assert_int_equal(gw_child_spawn(&loop, &spec, on_end, &e, &child, &err), 0);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(e.calls, 1);
    assert_int_equal(open_fds(), before);
    assert_int_equal(uv_loop_close(&loop), 0);
    return e;
}

static void output_and_exit_code_come_back(void **state)
{
    struct ended e = run("echo out; echo err >&2; exit 3", NULL, 100);
    assert_int_equal(e.exit_code, 3);
    assert_string_equal(e.out, "out\n");
    assert_int_equal(e.err_bytes, 4);
}

static void a_signal_is_told_apart_from_an_exit(void **state)
{
    struct ended e = run("kill -9 $$", NULL, 100);
    assert_int_equal(e.signal, SIGKILL);
    assert_int_equal(e.exit_code, -1);
}

static void input_is_given_whole_and_then_ends(void **state)
{
    static char input[300001];
    memset(input, 'x', sizeof input - 1);
    struct ended e = run("wc -c", input, 100);
    assert_int_equal(atoi(e.out), 300000);
}

static void a_child_that_reads_nothing_is_no_trouble(void **state)
{
    static char input[300001];
    memset(input, 'x', sizeof input - 1);
    assert_int_equal(run("exit 0", input, 100).exit_code, 0);
}

static void only_the_end_of_much_output_is_kept(void **state)
{
    struct ended e = run("head -c 5000000 /dev/zero | tr '\\0' a; echo the end", NULL, 1000);
    assert_int_equal(e.out_bytes, 5000008);
    assert_int_equal(e.out_len, 1000);
    assert_non_null(strstr(e.out, "athe end\n"));
}

static void a_grandchild_that_holds_the_pipe_does_not_hold_the_end(void **state)
{
    struct ended e = run("sleep 300 & echo $!", NULL, 100);
    assert_int_equal(e.exit_code, 0);
    int pid = atoi(e.out);
    assert_int_equal(kill(pid, 0), 0); // it lives on: it was not told to end
    (void)kill(pid, SIGKILL);
}

static void nothing_but_stdio_is_inherited(void **state)
{
    int fd = fcntl(0, F_DUPFD, 50); // not CLOEXEC on purpose
    struct ended e = run("ls /proc/self/fd | wc -w", NULL, 100);
    assert_int_equal(atoi(e.out), 4); // 0, 1, 2, and the one that ls opens
    assert_int_equal(close(fd), 0);
}

static void signals_are_as_a_shell_expects_them(void **state)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    struct ended e = run("grep -E 'Sig(Blk|Ign)' /proc/self/status | tr -d ' \\t\\n'", NULL, 200);
    assert_string_equal(e.out, "SigBlk:0000000000000000SigIgn:0000000000000000");
    (void)sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void what_cannot_be_run_says_why(void **state)
{
    uv_loop_t loop;
    struct gw_child *child;
    struct gw_err err;
    struct ended e = {0};
    const char *none[] = {"/nonexistent/program", NULL}, *ok[] = {"true", NULL};
    struct gw_child_spec spec = {.argv = none, .keep_bytes = 10};
    assert_int_equal(uv_loop_init(&loop), 0);
    unsigned with_loop = open_fds();
    assert_int_equal(gw_child_spawn(&loop, &spec, on_end, &e, &child, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent/program"));
    spec = (struct gw_child_spec){.argv = ok, .cwd = "/nonexistent", .keep_bytes = 10};
    assert_int_equal(gw_child_spawn(&loop, &spec, on_end, &e, &child, &err), -ENOENT);
    assert_int_equal(open_fds(), with_loop);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void whoever_ignores_the_request_to_end_is_killed_with_its_group(void **state)
{
    uv_loop_t loop;
    struct gw_child *child;
    struct gw_err err;
    struct ended e = {0};
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    const char *argv[] = {"sh", "-c", "trap '' TERM; sleep 300 & echo ready; wait; sleep 300", NULL};
    struct gw_child_spec spec = {.argv = argv, .keep_bytes = 100};
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(gw_child_spawn(&loop, &spec, on_end, &e, &child, &err), 0);
    pid_t group = gw_child_pid(child);
    gw_child_end(child, 50);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_equal(e.calls, 1);
    assert_true(e.signal == SIGKILL || e.signal == SIGTERM);
    // The rest of the group dies with it; as its reaper we see it end, however long that takes.
    while (waitpid(-group, NULL, 0) > 0)
        ;
    assert_int_equal(kill(-group, 0), -1);
}

static void an_abandoned_child_is_killed_and_says_nothing(void **state)
{
    uv_loop_t loop;
    struct gw_child *child;
    struct gw_err err;
    struct ended e = {0};
    const char *argv[] = {"sleep", "300", NULL};
    struct gw_child_spec spec = {.argv = argv, .keep_bytes = 100};
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(gw_child_spawn(&loop, &spec, on_end, &e, &child, &err), 0);
    gw_child_abandon(child);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_equal(e.calls, 0);
}

static void one_that_nobody_can_wait_for_has_ended_somehow(void **state)
{
    (void)signal(SIGCHLD, SIG_IGN); // the kernel keeps no end of a child then
    struct ended e = run("echo out; read go; exit 3", "go\n", 100); // it ends after it is watched
    (void)signal(SIGCHLD, SIG_DFL);
    assert_int_equal(e.calls, 1);
    assert_int_equal(e.exit_code, -1);
    assert_int_equal(e.signal, 0);
    assert_string_equal(e.out, "out\n");
}

static void what_a_service_manager_says_to_the_host_is_not_passed_on(void **state)
{
    (void)setenv("NOTIFY_SOCKET", "/run/notify", 1);
    (void)setenv("SYSTEMD_EXEC_PID", "1", 1);
    (void)setenv("WATCHDOG_USEC", "1", 1);
    (void)setenv("NOTIFY_SOCKETS", "two", 1);
    struct ended e = run("echo \"${NOTIFY_SOCKET-none} ${SYSTEMD_EXEC_PID-none} ${WATCHDOG_USEC-none} $NOTIFY_SOCKETS\"", NULL, 100);
    assert_string_equal(e.out, "none none none two\n");
    (void)unsetenv("NOTIFY_SOCKET");
    (void)unsetenv("SYSTEMD_EXEC_PID");
    (void)unsetenv("WATCHDOG_USEC");
    (void)unsetenv("NOTIFY_SOCKETS");
}

static bool is_there(pid_t pid)
{
    char path[32];
    (void)snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    FILE *f = fopen(path, "re");
    bool there = f != NULL && getc(f) != EOF; // a dead one has none
    if (f != NULL)
        (void)fclose(f);
    return there;
}

/* A command with this mark that prints the pid of what it leaves, out of its group and session. */
static pid_t leave(uv_loop_t *loop, const char *mark, struct ended *e, struct gw_child **ret_child)
{
    struct gw_err err;
    const char *argv[] = {"sh", "-c", "echo $(setsid sh -c 'echo $$; exec sleep 300 >/dev/null 2>&1' &)", NULL};
    struct gw_child_spec spec = {.argv = argv, .keep_bytes = 100, .mark = mark};
    assert_int_equal(gw_child_spawn(loop, &spec, on_end, e, ret_child, &err), 0);
    while (e->calls == 0)
        (void)uv_run(loop, UV_RUN_ONCE);
    return (pid_t)atoi(e->out);
}

static void what_is_left_of_a_mark_ends_and_nothing_of_another(void **state)
{
    uv_loop_t loop;
    struct gw_child *child;
    struct ended one = {0}, two = {0}, three = {0};
    gw_leftovers_adopt();
    assert_int_equal(uv_loop_init(&loop), 0);
    pid_t of_one = leave(&loop, "one", &one, &child), of_two = leave(&loop, "two", &two, &child);
    assert_true(is_there(of_one) && is_there(of_two)); // a command's end is not yet its task's
    assert_int_equal(gw_leftovers_end(&loop, "one", 10000), 1);
    (void)uv_run(&loop, UV_RUN_DEFAULT); // no longer than it takes
    assert_false(is_there(of_one));
    assert_true(is_there(of_two));
    assert_int_equal(gw_leftovers_end(&loop, "one", 0), 0);
    const char *argv[] = {"sleep", "300", NULL};
    struct gw_child_spec spec = {.argv = argv, .keep_bytes = 100, .mark = "two"};
    struct gw_err err;
    assert_int_equal(gw_child_spawn(&loop, &spec, on_end, &three, &child, &err), 0);
    gw_child_abandon(child);
    gw_child_settle();
    assert_false(is_there(of_two));
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    (void)prctl(PR_SET_CHILD_SUBREAPER, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(output_and_exit_code_come_back),
        cmocka_unit_test(a_signal_is_told_apart_from_an_exit),
        cmocka_unit_test(input_is_given_whole_and_then_ends),
        cmocka_unit_test(a_child_that_reads_nothing_is_no_trouble),
        cmocka_unit_test(only_the_end_of_much_output_is_kept),
        cmocka_unit_test(a_grandchild_that_holds_the_pipe_does_not_hold_the_end),
        cmocka_unit_test(nothing_but_stdio_is_inherited),
        cmocka_unit_test(what_a_service_manager_says_to_the_host_is_not_passed_on),
        cmocka_unit_test(signals_are_as_a_shell_expects_them),
        cmocka_unit_test(one_that_nobody_can_wait_for_has_ended_somehow),
        cmocka_unit_test(what_cannot_be_run_says_why),
        cmocka_unit_test(whoever_ignores_the_request_to_end_is_killed_with_its_group),
        cmocka_unit_test(an_abandoned_child_is_killed_and_says_nothing),
        cmocka_unit_test(what_is_left_of_a_mark_ends_and_nothing_of_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
