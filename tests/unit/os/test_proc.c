/* What /proc tells about this process and its children. */
#include "os/proc.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void a_name_with_brackets_and_blanks_does_not_confuse(void **state)
{
    struct gw_proc_facts facts;
    (void)prctl(PR_SET_NAME, "a) R 1 (b");
    assert_true(gw_proc_read(getpid(), &facts));
    assert_string_equal(facts.comm, "a) R 1 (b");
    assert_int_equal(facts.ppid, getppid());
    assert_true(facts.start_time > 0);
    assert_true(facts.exe[0] == '/');
}

static void a_dead_process_has_no_facts(void **state)
{
    struct gw_proc_facts facts;
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    (void)waitpid(pid, NULL, 0);
    assert_false(gw_proc_read(pid, &facts));
    assert_false(gw_proc_read(-1, &facts));
}

static void a_grandchild_descends_and_a_stranger_does_not(void **state)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        pid_t grandchild = fork();
        if (grandchild == 0) {
            (void)pause();
            _exit(0);
        }
        (void)!write(ends[1], &grandchild, sizeof grandchild);
        (void)pause();
        _exit(0);
    }
    pid_t grandchild;
    assert_int_equal(read(ends[0], &grandchild, sizeof grandchild), sizeof grandchild);
    struct gw_proc_facts facts;
    assert_true(gw_proc_read(child, &facts));
    assert_int_equal(gw_proc_descends(&facts, getpid()), 1);
    assert_true(gw_proc_read(getpid(), &facts));
    assert_int_equal(gw_proc_descends(&facts, child), 0);
    assert_true(gw_proc_read(grandchild, &facts));
    assert_int_equal(gw_proc_descends(&facts, getpid()), 1);
    // Its parent dies: what was read before cannot be followed any more, and nobody claims to know.
    (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
    assert_int_equal(gw_proc_descends(&facts, getpid()), -1);
    (void)kill(grandchild, SIGKILL);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_with_brackets_and_blanks_does_not_confuse),
        cmocka_unit_test(a_dead_process_has_no_facts),
        cmocka_unit_test(a_grandchild_descends_and_a_stranger_does_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
