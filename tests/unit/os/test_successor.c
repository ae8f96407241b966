/* Another process gets one end of a pair and nothing else of ours; what cannot be started is said. */
#include "base/err.h"
#include "base/str.h"
#include "os/successor.h"
#include "support/tempdir.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void it_gets_the_pair_and_a_session_of_its_own(void **state)
{
    int pair[2], stray = open("/dev/null", O_RDONLY); // not CLOEXEC, as a careless library may leave it
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    (void)setenv("LISTEN_FDS", "1", 1);
    char *argv[] = {"sh", "-c",
                    "exec >&$GWHOST_HANDOVER; echo listen=$LISTEN_FDS name=$0; ls /proc/$$/fd; "
                    "cut -d' ' -f1,5,6 /proc/$$/stat", "me", NULL};
    struct gw_successor_spec spec = {.program = "/bin/sh", .argv = argv, .pair_fd = pair[1]};
    struct gw_err err = {0};
    struct gw_successor successor = {.pid = 0};
    assert_int_equal(gw_successor_spawn(&spec, &successor, &err), 0);
    pid_t pid = successor.pid;
    (void)close(pair[1]);
    char text[512] = "", expected[64];
    size_t n = 0;
    for (ssize_t got; n < sizeof text - 1 && (got = read(pair[0], text + n, sizeof text - 1 - n)) > 0;)
        n += (size_t)got;
    char words[64];
    gw_successor_kill(&successor, words, sizeof words);
    assert_int_equal(waitpid(pid, NULL, WNOHANG), -1); // it was reaped
    assert_int_equal(successor.pid, 0);
    assert_non_null(strstr(text, "listen= name=me\n"));
    (void)snprintf(expected, sizeof expected, "\n0\n1\n2\n%d\n", pair[1]);
    assert_non_null(strstr(text, expected)); // the pair, and no stray
    (void)snprintf(expected, sizeof expected, "%d %d %d\n", (int)pid, (int)pid, (int)pid);
    assert_non_null(strstr(text, expected)); // its group and its session
    (void)close(pair[0]);
    (void)close(stray);
}

static struct gw_successor spawn_shell(const char *script, bool sibling)
{
    int pair[2];
    struct gw_err err = {0};
    struct gw_successor successor = {.pid = 0};
    char *argv[] = {"sh", "-c", (char *)(uintptr_t)script, NULL};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    struct gw_successor_spec spec = {.program = "/bin/sh", .argv = argv, .pair_fd = pair[1], .sibling = sibling};
    assert_int_equal(gw_successor_spawn(&spec, &successor, &err), 0);
    (void)close(pair[0]);
    (void)close(pair[1]);
    return successor;
}

static void how_it_ended_by_itself_is_told(void **state)
{
    static const struct {
        const char *script, *words;
    } rows[] = {{"exit 3", " (it exited with 3)"}, {"kill -SEGV $$", " (signal 11 ended it)"}, {"sleep 60", ""}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char words[64];
        siginfo_t si;
        struct gw_successor s = spawn_shell(rows[i].script, false);
        if (rows[i].words[0] != '\0')
            assert_int_equal(waitid(P_PID, (id_t)s.pid, &si, WEXITED | WNOWAIT), 0);
        gw_successor_kill(&s, words, sizeof words);
        assert_string_equal(words, rows[i].words);
    }
}

static void a_sibling_is_our_parents_to_wait_for(void **state)
{
    int told[2];
    pid_t pids[2] = {0};
    assert_int_equal(pipe(told), 0);
    pid_t between = fork();
    if (between == 0) {
        struct gw_successor killed = spawn_shell("sleep 60", true), left = spawn_shell("exit 7", true);
        pids[0] = killed.pid;
        pids[1] = left.pid;
        (void)!write(told[1], pids, sizeof pids);
        gw_successor_kill(&killed, NULL, 0);
        gw_successor_leave(&left);
        _exit(0);
    }
    assert_int_equal(read(told[0], pids, sizeof pids), sizeof pids);
    int status = 0;
    assert_int_equal(waitpid(pids[0], &status, 0), pids[0]);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(waitpid(pids[1], &status, 0), pids[1]);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    assert_int_equal(waitpid(between, &status, 0), between);
    assert_int_equal(status, 0);
    (void)close(told[0]);
    (void)close(told[1]);
}

static void what_cannot_be_started_is_said_with_what_to_do(void **state)
{
    char text[64];
    tempdir_name(text, sizeof text, "gwhost-test-XXXXXX");
    int fd = mkstemp(text), pair[2];
    assert_int_equal(write(fd, "no program\n", 11), 11);
    (void)close(fd);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    char *argv[] = {"x", NULL};
    static const struct {
        mode_t mode;
        int code;
        const char *words;
    } rows[] = {{0600, -EACCES, "chmod +x"}, {0700, -ENOEXEC, "a program"}, {0, -ENOENT, "that exists"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct gw_successor_spec spec = {.program = i < 2 ? text : "/nowhere", .argv = argv, .pair_fd = pair[1]};
        struct gw_err err = {0};
        struct gw_successor successor = {.pid = 0};
        (void)chmod(text, rows[i].mode);
        assert_int_equal(gw_successor_spawn(&spec, &successor, &err), rows[i].code);
        assert_non_null(strstr(err.text, spec.program));
        assert_non_null(strstr(err.text, rows[i].words));
    }
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); // nothing is left to reap
    (void)unlink(text);
    (void)close(pair[0]);
    (void)close(pair[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_gets_the_pair_and_a_session_of_its_own),
        cmocka_unit_test(how_it_ended_by_itself_is_told),
        cmocka_unit_test(a_sibling_is_our_parents_to_wait_for),
        cmocka_unit_test(what_cannot_be_started_is_said_with_what_to_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
