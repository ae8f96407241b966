/* What /proc tells about this process and its children. */
#include "os/proc.h"
#include "support/tempdir.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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

/* What a process finds is tried in a child: its exit code says which condition did not hold. */
static int in_a_child(int (*fn)(void))
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(fn());
    int status = 0;
    (void)waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool leads_to(int fd, const char *path)
{
    char link[64], text[64] = "";
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return readlink(link, text, sizeof text - 1) > 0 && strcmp(text, path) == 0;
}

static int with_nothing_open(void)
{
    (void)close_range(0, ~0u, 0);
    gw_proc_fill_stdio();
    for (int fd = 0; fd < 3; fd++)
        if (!leads_to(fd, "/dev/null"))
            return 1 + fd;
    return fcntl(3, F_GETFD) == -1 ? 0 : 4;
}

static int with_one_closed(void)
{
    (void)close(1);
    gw_proc_fill_stdio();
    return leads_to(1, "/dev/null") && !leads_to(2, "/dev/null") ? 0 : 1;
}

static void closed_standard_streams_lead_to_nowhere(void **state)
{
    assert_int_equal(in_a_child(with_nothing_open), 0);
    assert_int_equal(in_a_child(with_one_closed), 0);
}

static unsigned table_size(void)
{
    char line[128];
    unsigned size = 0;
    FILE *status = fopen("/proc/self/status", "re");
    while (status != NULL && fgets(line, sizeof line, status) != NULL && sscanf(line, "FDSize: %u", &size) != 1)
        ;
    if (status != NULL)
        (void)fclose(status);
    return size;
}

static int grows(void)
{
    struct rlimit rl = {.rlim_cur = 600, .rlim_max = 600};
    int before = dup(0);
    if (setrlimit(RLIMIT_NOFILE, &rl) < 0)
        return 1;
    gw_proc_grow_table(400);
    if (table_size() < 400)
        return 2;
    gw_proc_grow_table(5000); // no more than the limit
    if (table_size() < 600 || table_size() > 1024)
        return 3;
    int after = dup(0);
    return after == before + 1 && gw_proc_nofile() == 600 ? 0 : 4; // nothing stays open
}

static void the_table_of_descriptors_grows_at_once_and_keeps_nothing(void **state)
{
    assert_int_equal(in_a_child(grows), 0);
}

static void a_program_that_is_just_being_written_is_run_a_moment_later(void **state)
{
    char path[80], *argv[] = {path, NULL}, *env[] = {NULL};
    tempdir_name(path, sizeof path, "gwhost-XXXXXX");
    int from = open("/bin/true", O_RDONLY), fd = mkstemp(path);
    assert_true(sendfile(fd, from, NULL, 1 << 20) > 0 && fchmod(fd, 0700) == 0);
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        (void)close(fd);
        gw_proc_exec(execve, path, argv, env);
        _exit(errno == ETXTBSY ? 26 : 127);
    }
    char name[64], text[64] = "";
    do { // until it sleeps between two tries
        (void)snprintf(name, sizeof name, "/proc/%d/syscall", (int)pid);
        int look = open(name, O_RDONLY);
        if (look < 0)
            break; // this kernel does not say
        (void)!read(look, text, sizeof text - 1);
        (void)close(look);
    } while (atoi(text) != SYS_clock_nanosleep && kill(pid, 0) == 0 && waitpid(pid, &status, WNOHANG) == 0);
    (void)close(fd);
    if (status == -1)
        (void)waitpid(pid, &status, 0);
    assert_int_equal(WEXITSTATUS(status), 0);
    fd = open(path, O_WRONLY); // one that stays so is given up
    pid = fork();
    if (pid == 0) {
        gw_proc_exec(execve, path, argv, env);
        _exit(errno == ETXTBSY ? 26 : 127);
    }
    (void)waitpid(pid, &status, 0);
    assert_int_equal(WEXITSTATUS(status), 26);
    (void)close(fd);
    (void)close(from);
    (void)unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_with_brackets_and_blanks_does_not_confuse),
        cmocka_unit_test(a_dead_process_has_no_facts),
        cmocka_unit_test(a_grandchild_descends_and_a_stranger_does_not),
        cmocka_unit_test(closed_standard_streams_lead_to_nowhere),
        cmocka_unit_test(a_program_that_is_just_being_written_is_run_a_moment_later),
        cmocka_unit_test(the_table_of_descriptors_grows_at_once_and_keeps_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
