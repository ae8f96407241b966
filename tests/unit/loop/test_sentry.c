/* Signals with their sender, and the deadline that needs no loop. */
#include "base/err.h"
#include "base/time.h"
#include "loop/sentry.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include <cmocka.h>

struct seen {
    uv_loop_t *loop;
    int count, want;
    struct gw_signal last;
    int kinds[64];
};

static void on_signal(void *ud, const struct gw_signal *sig)
{
    struct seen *seen = ud;
    seen->last = *sig;
    seen->kinds[sig->number]++;
    if (++seen->count == seen->want)
        uv_stop(seen->loop);
}

static void leave(void *ud, bool stop)
{
    _exit(stop ? 43 : 42);
}

static struct gw_sentry *open_sentry(uv_loop_t *loop, struct seen *seen, uint64_t grace_ms)
{
    struct gw_sentry_config config = {.signal = on_signal, .expired = leave, .stop_grace_ms = grace_ms, .ud = seen};
    struct gw_sentry *sentry;
    struct gw_err err;
    seen->loop = loop;
    assert_int_equal(gw_sentry_block(&err), 0);
    assert_int_equal(uv_loop_init(loop), 0);
    assert_int_equal(gw_sentry_open(loop, &config, &sentry, &err), 0);
    return sentry;
}

static void close_sentry(uv_loop_t *loop, struct gw_sentry *sentry)
{
    gw_sentry_close(sentry, NULL, NULL);
    (void)uv_run(loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(loop), 0);
}

static void a_signal_tells_its_sender(void **state)
{
    uv_loop_t loop;
    struct seen seen = {.want = 1};
    struct gw_sentry *sentry = open_sentry(&loop, &seen, 60000);
    pid_t child = fork();
    if (child == 0) {
        (void)kill(getppid(), SIGUSR1);
        (void)pause();
        _exit(0);
    }
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(seen.last.number, SIGUSR1);
    assert_int_equal(seen.last.pid, child);
    assert_int_equal(seen.last.uid, getuid());
    assert_true(seen.last.alive);
    assert_int_equal(seen.last.descends, 1);
    (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
    close_sentry(&loop, sentry);
}

static void one_kind_does_not_crowd_out_another(void **state)
{
    uv_loop_t loop;
    struct seen seen = {0};
    struct gw_sentry *sentry = open_sentry(&loop, &seen, 60000);
    // The loop does not run meanwhile: far more of one kind than are kept, then one of another.
    for (int i = 0; i < 500; i++)
        (void)kill(getpid(), SIGUSR1);
    (void)kill(getpid(), SIGTERM);
    for (int turn = 0; turn < 1000 && seen.kinds[SIGTERM] == 0; turn++)
        (void)uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(seen.kinds[SIGTERM], 1);
    assert_true(seen.kinds[SIGUSR1] >= 1);
    close_sentry(&loop, sentry);
}

static void stuck_until(uint64_t ms)
{
    while (gw_now_ms() < ms)
        ;
}

static pid_t in_a_child(void (*body)(struct gw_sentry *), uint64_t grace_ms)
{
    pid_t child = fork();
    if (child == 0) {
        uv_loop_t loop;
        struct seen seen = {0};
        struct gw_sentry *sentry = open_sentry(&loop, &seen, grace_ms);
        body(sentry);
        stuck_until(gw_now_ms() + 2000);
        _exit(7);
    }
    return child;
}

static int exit_code(pid_t child)
{
    int status;
    (void)waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Runs body in a child whose loop never runs; returns its exit code. */
static int exit_code_of(void (*body)(struct gw_sentry *))
{
    return exit_code(in_a_child(body, 100));
}

static void armed(struct gw_sentry *sentry)
{
    gw_sentry_arm(sentry, gw_now_ms() + 100);
}

static void disarmed(struct gw_sentry *sentry)
{
    gw_sentry_arm(sentry, gw_now_ms() + 200);
    gw_sentry_arm(sentry, UINT64_MAX);
}

static void moved_closer(struct gw_sentry *sentry)
{
    gw_sentry_arm(sentry, gw_now_ms() + 600000);
    gw_sentry_arm(sentry, gw_now_ms() + 100);
}

static void stopped(struct gw_sentry *sentry)
{
    (void)kill(getpid(), SIGTERM);
}

static void a_deadline_strikes_although_the_loop_is_stuck(void **state)
{
    assert_int_equal(exit_code_of(armed), 42);
    assert_int_equal(exit_code_of(moved_closer), 42);
    assert_int_equal(exit_code_of(disarmed), 7);
}

static void a_stop_that_a_stuck_loop_does_not_take_arms_its_own(void **state)
{
    assert_int_equal(exit_code_of(stopped), 43);
}

static void armed_too_late(struct gw_sentry *sentry)
{
    gw_sentry_arm(sentry, gw_now_ms() - 5000);
}

static void moved_in_its_turn(struct gw_sentry *sentry)
{
    gw_sentry_arm(sentry, gw_now_ms() - 5000);
    stuck_until(gw_now_ms() + 300);
    gw_sentry_arm(sentry, gw_now_ms() + 600000);
}

static void one_that_has_long_passed_leaves_the_loop_a_turn(void **state)
{
    assert_int_equal(exit_code_of(moved_in_its_turn), 7);
    assert_int_equal(exit_code_of(armed_too_late), 42);
}

static int told; /* a pipe that the child writes to once it has armed its deadline */

static void armed_and_told(struct gw_sentry *sentry)
{
    gw_sentry_arm(sentry, gw_now_ms() + 300);
    assert_int_equal(write(told, "x", 1), 1);
}

/* As a loop that goes on: it moves the deadline, but not before the process has been continued. */
static void moved_when_it_goes_on(struct gw_sentry *sentry)
{
    uint64_t last = gw_now_ms(), now;
    armed_and_told(sentry);
    while ((now = gw_now_ms()) - last < 200)
        last = now; // until a step of the clock shows that it stood still
    gw_sentry_arm(sentry, gw_now_ms() + 600000);
}

static int exit_code_of_one_that_stood_still(void (*body)(struct gw_sentry *), uint64_t still_ms)
{
    int fds[2];
    char byte;
    assert_int_equal(pipe(fds), 0);
    told = fds[1];
    pid_t child = in_a_child(body, 60000);
    assert_int_equal(read(fds[0], &byte, 1), 1);
    (void)kill(child, SIGSTOP);
    stuck_until(gw_now_ms() + still_ms);
    (void)kill(child, SIGCONT);
    (void)close(fds[0]);
    (void)close(fds[1]);
    return exit_code(child);
}

static void one_who_stood_still_is_not_shot_when_it_goes_on(void **state)
{
    assert_int_equal(exit_code_of_one_that_stood_still(moved_when_it_goes_on, 500), 7);
    assert_int_equal(exit_code_of_one_that_stood_still(armed_and_told, 500), 42);
}

static void a_stop_that_nobody_takes_reaches_the_heir(void **state)
{
    uv_loop_t loop;
    struct seen seen = {0};
    struct gw_sentry *sentry = open_sentry(&loop, &seen, 60000);
    pid_t heir = fork();
    if (heir == 0) {
        sigset_t term;
        (void)sigemptyset(&term);
        (void)sigaddset(&term, SIGTERM);
        (void)pthread_sigmask(SIG_UNBLOCK, &term, NULL);
        for (;;)
            (void)pause();
    }
    int pidfd = (int)syscall(SYS_pidfd_open, heir, 0), status = 0;
    assert_true(pidfd >= 0);
    gw_sentry_heir(sentry, pidfd);
    (void)kill(getpid(), SIGTERM);
    assert_int_equal(waitpid(heir, &status, 0), heir); // the loop does not run meanwhile
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    gw_sentry_heir(sentry, -1);
    (void)close(pidfd);
    close_sentry(&loop, sentry);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_signal_tells_its_sender),
        cmocka_unit_test(one_kind_does_not_crowd_out_another),
        cmocka_unit_test(a_deadline_strikes_although_the_loop_is_stuck),
        cmocka_unit_test(a_stop_that_a_stuck_loop_does_not_take_arms_its_own),
        cmocka_unit_test(one_that_has_long_passed_leaves_the_loop_a_turn),
        cmocka_unit_test(one_who_stood_still_is_not_shot_when_it_goes_on),
        cmocka_unit_test(a_stop_that_nobody_takes_reaches_the_heir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
