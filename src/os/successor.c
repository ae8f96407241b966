#include "os/successor.h"

#include "base/err.h"
#include "base/str.h"
#include "os/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REAP_MS = 2000, TRACED_STEPS = 100 };

/* Between fork and exec: async-signal-safe calls only. The signal mask stays: what is blocked here is what the
 * successor blocks first, so no signal finds it without a hand to take it. */
_Noreturn static void become(const struct gw_successor_spec *spec, char *const *argv, char *const *env, int report)
{
    (void)setsid();
    (void)signal(SIGPIPE, SIG_DFL);
    struct rlimit rl;
    if (spec->nofile > 0 && getrlimit(RLIMIT_NOFILE, &rl) == 0) {
        rl.rlim_cur = spec->nofile < rl.rlim_max ? spec->nofile : rl.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &rl);
    }
    unsigned low = (unsigned)(spec->pair_fd < report ? spec->pair_fd : report);
    unsigned high = (unsigned)(spec->pair_fd < report ? report : spec->pair_fd);
    if (low > 3)
        (void)close_range(3, low - 1, 0);
    if (high > low + 1)
        (void)close_range(low + 1, high - 1, 0);
    (void)close_range(high + 1, ~0u, 0);
    (void)fcntl(spec->pair_fd, F_SETFD, 0);
    gw_proc_exec(execve, spec->program, argv, env);
    int code = errno;
    (void)!write(report, &code, sizeof code);
    _exit(127);
}

static bool is_left_out(const char *pair)
{
    static const char *const names[] = {"GWHOST_HANDOVER=", "LISTEN_PID=", "LISTEN_FDS=", "LISTEN_FDNAMES=",
                                        "WATCHDOG_PID="};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strncmp(pair, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

/* Our environment with GWHOST_HANDOVER at its end, which the caller frees with the array. */
static char **make_env(int pair_fd)
{
    size_t n = 0, out = 0;
    while (environ[n] != NULL)
        n++;
    char **env = gw_calloc(n + 2, sizeof *env);
    for (size_t i = 0; i < n; i++)
        if (!is_left_out(environ[i]))
            env[out++] = environ[i];
    env[out] = gw_asprintf("GWHOST_HANDOVER=%d", pair_fd);
    return env;
}

static void free_env(char **env)
{
    size_t last = 0;
    while (env[last + 1] != NULL)
        last++;
    free(env[last]);
    free(env);
}

static const char *what_to_do(int code)
{
    switch (code) {
    case EACCES:
        return "make it executable (chmod +x)";
    case ENOENT:
        return "give a file that exists";
    case ENOEXEC:
        return "give a program of this machine";
    default:
        return "try again";
    }
}

/* fork(2), with a descriptor of the new process. A sibling is the child of our parent from its birth on, which only
 * clone(2) can do; that it runs none of the C library's fork handlers does not matter before an exec. */
static pid_t fork_with_pidfd(bool sibling, int *ret_pidfd)
{
    if (sibling) {
        struct clone_args args = {.flags = CLONE_PARENT | CLONE_PIDFD, .pidfd = (uint64_t)(uintptr_t)ret_pidfd};
        return (pid_t)syscall(SYS_clone3, &args, sizeof args);
    }
    pid_t pid = fork();
    if (pid <= 0)
        return pid;
    *ret_pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (*ret_pidfd >= 0)
        return pid;
    int code = errno;
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    errno = code;
    return -1;
}

/* Forks and waits for the exec: the pipe closes with it, or brings its errno. */
static int start(const struct gw_successor_spec *spec, char *const *argv, char *const *env, struct gw_successor *ret)
{
    struct gw_successor s = {.pidfd = -1, .sibling = spec->sibling};
    int pipe_fds[2], code = 0;
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return -errno;
    s.pid = fork_with_pidfd(spec->sibling, &s.pidfd);
    if (s.pid == 0)
        become(spec, argv, env, pipe_fds[1]);
    int failed = s.pid < 0 ? -errno : 0;
    (void)close(pipe_fds[1]);
    ssize_t n = 0;
    while (s.pid > 0 && (n = read(pipe_fds[0], &code, sizeof code)) < 0 && errno == EINTR)
        ;
    (void)close(pipe_fds[0]);
    if (s.pid < 0)
        return failed;
    if (n == (ssize_t)sizeof code) {
        gw_successor_kill(&s, NULL, 0);
        return -code;
    }
    *ret = s;
    return 0;
}

void gw_successor_signal(const struct gw_successor *s, int signal)
{
    if (s->pid > 0)
        (void)syscall(SYS_pidfd_send_signal, s->pidfd, signal, NULL, 0);
}

void gw_successor_kill(struct gw_successor *s, char *words, size_t size)
{
    if (size > 0)
        words[0] = '\0';
    if (s->pid <= 0)
        return;
    // Its session is named by its pid, which is its own only as long as nobody has reaped it.
    if (syscall(SYS_pidfd_send_signal, s->pidfd, SIGKILL, NULL, 0) == 0)
        (void)kill(-s->pid, SIGKILL);
    int status = 0;
    struct pollfd ended = {.fd = s->pidfd, .events = POLLIN};
    while (poll(&ended, 1, REAP_MS) < 0 && errno == EINTR)
        ;
    bool reaped = false;
    for (int i = 0; i < TRACED_STEPS && !s->sibling && !reaped; i++) {
        if (i > 0)
            (void)poll(NULL, 0, 1); // whoever traces it has not let go of it yet
        reaped = waitpid(s->pid, &status, WNOHANG) == s->pid;
    }
    if (reaped && size > 0 && WIFEXITED(status))
        (void)snprintf(words, size, " (it exited with %d)", WEXITSTATUS(status));
    else if (reaped && size > 0 && WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
        (void)snprintf(words, size, " (signal %d ended it)", WTERMSIG(status));
    gw_successor_leave(s);
}

static volatile int stops_to = -1; // a pidfd that stays open until the end

static void pass_on(int sig)
{
    (void)syscall(SYS_pidfd_send_signal, stops_to, sig, NULL, 0);
}

void gw_successor_pass_on_stops(struct gw_successor *s)
{
    static const int stops[] = {SIGTERM, SIGINT, SIGQUIT};
    struct sigaction sa = {.sa_handler = pass_on, .sa_flags = SA_RESTART};
    sigset_t set;
    if (s->pid <= 0)
        return;
    stops_to = s->pidfd;
    *s = (struct gw_successor){.pidfd = -1};
    (void)sigemptyset(&set);
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        (void)sigaddset(&set, stops[i]);
        (void)sigaction(stops[i], &sa, NULL);
    }
    (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL); // what has come meanwhile goes on now
}

void gw_successor_leave(struct gw_successor *s)
{
    if (s->pid > 0)
        (void)close(s->pidfd);
    *s = (struct gw_successor){.pidfd = -1};
}

int gw_successor_spawn(const struct gw_successor_spec *spec, struct gw_successor *ret_successor, struct gw_err *err)
{
    size_t n = 0;
    while (spec->argv[n] != NULL)
        n++;
    char **argv = gw_calloc(n + 1, sizeof *argv), **env = make_env(spec->pair_fd);
    memcpy(argv, spec->argv, n * sizeof *argv);
    if (strcmp(spec->program, "/proc/self/exe") != 0)
        argv[0] = (char *)(uintptr_t)spec->program;
    int rc = start(spec, argv, env, ret_successor);
    free_env(env);
    free(argv);
    if (rc < 0)
        return gw_err_set(err, rc, "cannot start '%s': %s; %s", spec->program, gw_strerror(rc), what_to_do(-rc));
    return 0;
}
