#include "loop/child.h"

#include "base/err.h"
#include "base/time.h"
#include "loop/leftovers.h"
#include "os/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

extern char **environ;

/* P_PIDFD of waitid(2), which this libc names only under newer feature macros. */
enum { WAIT_PIDFD = 3, TURN_BYTES = 1 << 20, DEAD_MS = 1000 };

/* One pipe to or from the child. */
struct end {
    uv_poll_t poll; /* data: the child */
    int fd;         /* owned; -1 when closed */
};

struct gw_child {
    uv_loop_t *loop;
    pid_t pid;
    struct end in, out, err, process; /* process: the pidfd */
    uv_timer_t kill_timer;            /* data: this */
    char *input;                      /* owned; what is left to write */
    size_t input_bytes, input_done, keep;
    bool ending, abandoned;
    char *mark; /* owned; NULL: none */
    int handles; /* not closed yet */
    struct gw_child_result result;
    gw_child_cb *cb;
    void *ud;
    struct gw_child *next; /* of those that are not reaped yet */
};

static struct gw_child *unreaped; // the loop's thread only

bool gw_child_owns(pid_t pid)
{
    for (const struct gw_child *c = unreaped; c != NULL; c = c->next)
        if (c->pid == pid)
            return true;
    return false;
}

static void is_reaped(struct gw_child *c)
{
    for (struct gw_child **p = &unreaped; *p != NULL; p = &(*p)->next)
        if (*p == c) {
            *p = c->next;
            return;
        }
}

/* Another command of the same task has the mark, and what that has started is not over. */
static bool is_in_use(const char *mark)
{
    for (const struct gw_child *c = unreaped; c != NULL; c = c->next)
        if (c->mark != NULL && strcmp(c->mark, mark) == 0)
            return true;
    return false;
}

static void finish(struct gw_child *c)
{
    if (!c->abandoned)
        c->cb(c->ud, c, &c->result);
    gw_buf_fini(&c->result.out);
    gw_buf_fini(&c->result.err);
    free(c->input);
    free(c->mark);
    free(c);
}

static void on_closed(uv_handle_t *handle)
{
    struct gw_child *c = handle->data;
    if (--c->handles == 0)
        finish(c);
}

static void close_end(struct end *e)
{
    if (e->fd < 0)
        return;
    (void)uv_poll_stop(&e->poll);
    // The descriptor may go at once: libuv has dropped it from its set, and the handle does not own it.
    (void)close(e->fd);
    e->fd = -1;
    uv_close((uv_handle_t *)&e->poll, on_closed);
}

/* Keeps the last `keep` bytes; the buffer is cut in halves so that the cost a byte stays constant. */
static void keep_tail(struct gw_buf *b, const char *data, size_t n, size_t keep)
{
    if (n > keep) {
        data += n - keep;
        n = keep;
    }
    gw_buf_add(b, data, n);
    if (b->len > 2 * keep)
        gw_buf_drop(b, b->len - keep);
}

/* Reads what is there, at most TURN_BYTES; returns false at the end of the stream. */
static bool read_some(struct gw_child *c, struct end *e)
{
    static char chunk[65536]; // the loop's thread only, and nothing in it is kept
    bool is_out = e == &c->out;
    for (size_t turn = 0; turn < TURN_BYTES;) {
        ssize_t n = read(e->fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN;
        if (n == 0)
            return false;
        turn += (size_t)n;
        keep_tail(is_out ? &c->result.out : &c->result.err, chunk, (size_t)n, c->keep);
        *(is_out ? &c->result.out_bytes : &c->result.err_bytes) += (uint64_t)n;
    }
    return true;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct gw_child *c = poll->data;
    struct end *e = poll == &c->out.poll ? &c->out : &c->err;
    if (status < 0 || !read_some(c, e))
        close_end(e);
}

static void on_writable(uv_poll_t *poll, int status, int events)
{
    struct gw_child *c = poll->data;
    ssize_t n = status < 0 ? -1 : write(c->in.fd, c->input + c->input_done, c->input_bytes - c->input_done);
    if (n < 0 && (errno == EAGAIN || errno == EINTR) && status >= 0)
        return;
    if (n > 0)
        c->input_done += (size_t)n;
    if (n < 0 || c->input_done == c->input_bytes)
        close_end(&c->in);
}

static void on_ended(uv_poll_t *poll, int status, int events)
{
    struct gw_child *c = poll->data;
    // One who was told to end leaves nothing behind; its group's number is still taken, so this hits no one else.
    if (c->ending || c->abandoned)
        (void)kill(-c->pid, SIGKILL);
    siginfo_t si = {0};
    int rc = waitid((idtype_t)WAIT_PIDFD, (id_t)c->process.fd, &si, WEXITED | WNOHANG);
    bool known = rc == 0 && si.si_pid != 0, exited = known && si.si_code == CLD_EXITED;
    if (!known && (rc == 0 || errno != ECHILD))
        return;
    is_reaped(c);
    if ((c->ending || c->abandoned) && c->mark != NULL && !is_in_use(c->mark))
        (void)gw_leftovers_end(c->loop, c->mark, 0);
    c->result.exit_code = exited ? si.si_status : -1;
    c->result.signal = exited || !known ? 0 : si.si_status;
    // What is in the pipes still counts; whoever else holds them does not.
    if (c->out.fd >= 0)
        (void)read_some(c, &c->out);
    if (c->err.fd >= 0)
        (void)read_some(c, &c->err);
    struct gw_buf *bufs[] = {&c->result.out, &c->result.err};
    for (int i = 0; i < 2; i++)
        if (bufs[i]->len > c->keep)
            gw_buf_drop(bufs[i], bufs[i]->len - c->keep);
    close_end(&c->in);
    close_end(&c->out);
    close_end(&c->err);
    close_end(&c->process);
    uv_close((uv_handle_t *)&c->kill_timer, on_closed);
}

/* Between fork and exec: async-signal-safe calls only. Tells errno over `report` when it fails. */
_Noreturn static void become(const struct gw_child_spec *spec, char *const *env, const int fds[3], int report,
                             pid_t parent)
{
    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127); // the host died before it could be watched
    for (int sig = 1; sig < NSIG; sig++)
        if (sig != SIGKILL && sig != SIGSTOP)
            (void)signal(sig, SIG_DFL);
    // libc keeps the two real-time signals that its threads use from us; whoever started us may have them ignored.
    static const struct {
        void *handler;
        unsigned long flags;
        void *restorer;
        unsigned long mask;
    } by_default;
    for (int sig = 32; sig < 34; sig++)
        (void)syscall(SYS_rt_sigaction, sig, &by_default, NULL, sizeof by_default.mask);
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    struct rlimit rl;
    if (spec->nofile > 0 && getrlimit(RLIMIT_NOFILE, &rl) == 0) {
        rl.rlim_cur = spec->nofile < rl.rlim_max ? spec->nofile : rl.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &rl);
    }
    int ok = 1;
    for (int i = 0; i < 3; i++)
        ok = ok && dup2(fds[i], i) == i; // our descriptors are above 2, so none is overwritten
    ok = ok && (spec->cwd == NULL || chdir(spec->cwd) == 0);
    if (ok) {
        (void)close_range(3, (unsigned)report - 1, 0);
        (void)close_range((unsigned)report + 1, ~0u, 0);
        gw_proc_exec(execvpe, spec->argv[0], (char *const *)spec->argv, env);
    }
    int code = errno;
    (void)!write(report, &code, sizeof code);
    _exit(127);
}

/* What a service manager says to the host and to nobody else: a command that has it could speak for the host, or
 * take it for itself. */
static bool is_for_the_host(const char *pair)
{
    static const char *const names[] = {"NOTIFY_SOCKET=", "WATCHDOG_USEC=", "WATCHDOG_PID=", "LISTEN_PID=",
                                        "LISTEN_FDS=", "LISTEN_FDNAMES=", "SYSTEMD_EXEC_PID="};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strncmp(pair, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

static bool is_a_mark(const char *pair)
{
    return strncmp(pair, GW_TASK_MARK "=", sizeof GW_TASK_MARK) == 0;
}

/* Ours, then extra, then the mark, which nothing replaces. */
static char **merged_env(const char *const *extra, char *mark)
{
    size_t n = 0, m = 0;
    while (environ[n] != NULL)
        n++;
    while (extra != NULL && extra[m] != NULL)
        m++;
    char **env = gw_calloc(n + m + 2, sizeof *env);
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        bool replaced = is_for_the_host(environ[i]) || (mark != NULL && is_a_mark(environ[i]));
        for (size_t k = 0; k < m && !replaced; k++)
            replaced = strncmp(environ[i], extra[k], strcspn(extra[k], "=") + 1) == 0;
        if (!replaced)
            env[count++] = environ[i];
    }
    for (size_t k = 0; k < m; k++)
        if (mark == NULL || !is_a_mark(extra[k]))
            env[count++] = (char *)extra[k];
    if (mark != NULL)
        env[count++] = mark;
    return env;
}

/* A descriptor above 2, so that dup2() in the child cannot hit one that it still needs. */
static int lift(int fd)
{
    if (fd < 0 || fd > 2)
        return fd;
    int higher = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    int code = errno;
    (void)close(fd);
    errno = code;
    return higher;
}

/* Takes *io_fd over once it is watched. */
static int watch(struct gw_child *c, struct end *e, int *io_fd, int events, uv_poll_cb cb)
{
    int rc = uv_poll_init(c->loop, &e->poll, *io_fd); // there may be too much that is watched already
    if (rc < 0)
        return rc;
    e->fd = *io_fd;
    *io_fd = -1;
    e->poll.data = c;
    c->handles++;
    return uv_poll_start(&e->poll, events, cb);
}

/* It runs, but cannot be watched: ends it. The memory goes once its handles are closed. */
static void give_up(struct gw_child *c)
{
    c->abandoned = true;
    (void)kill(-c->pid, SIGKILL);
    while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    is_reaped(c);
    if (c->handles == 0) {
        finish(c);
        return;
    }
    close_end(&c->in);
    close_end(&c->out);
    close_end(&c->err);
    close_end(&c->process);
}

int gw_child_spawn(uv_loop_t *loop, const struct gw_child_spec *spec, gw_child_cb *cb, void *ud,
                   struct gw_child **ret_child, struct gw_err *err)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, errp[2] = {-1, -1}, report[2] = {-1, -1}, pidfd = -1, rc = 0;
    pid_t pid = -1, self = getpid();
    char *pair = spec->mark != NULL ? gw_asprintf(GW_TASK_MARK "=%s", spec->mark) : NULL;
    char **env = merged_env(spec->env, pair);
    if (spec->input == NULL)
        in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if ((spec->input == NULL ? in[0] < 0 : pipe2(in, O_CLOEXEC) < 0) || pipe2(out, O_CLOEXEC) < 0 ||
        pipe2(errp, O_CLOEXEC) < 0 || pipe2(report, O_CLOEXEC) < 0) {
        rc = gw_err_set(err, -errno, "cannot run '%s': %s", spec->argv[0], gw_strerror(errno));
        goto fail;
    }
    in[0] = lift(in[0]);
    out[1] = lift(out[1]);
    errp[1] = lift(errp[1]);
    report[1] = lift(report[1]);
    pid = fork();
    if (pid == 0)
        become(spec, env, (const int[3]){in[0], out[1], errp[1]}, report[1], self);
    if (pid < 0) {
        rc = gw_err_set(err, -errno, "cannot run '%s': %s", spec->argv[0], gw_strerror(errno));
        goto fail;
    }
    (void)setpgid(pid, pid); // whoever is first
    (void)close(report[1]);
    report[1] = -1;
    int code = 0;
    ssize_t n;
    do
        n = read(report[0], &code, sizeof code);
    while (n < 0 && errno == EINTR);
    if (n == (ssize_t)sizeof code) {
        (void)waitpid(pid, NULL, 0);
        rc = gw_err_set(err, -code, "cannot run '%s'%s%s: %s", spec->argv[0], spec->cwd != NULL ? " in " : "",
                        spec->cwd != NULL ? spec->cwd : "", gw_strerror(code));
        goto fail;
    }
    pidfd = (int)syscall(SYS_pidfd_open, pid, 0); // CLOEXEC by definition
    if (pidfd < 0) {
        rc = gw_err_set(err, -errno, "cannot watch '%s': %s", spec->argv[0], gw_strerror(errno));
        (void)kill(-pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        goto fail;
    }
    struct gw_child *c = gw_calloc(1, sizeof *c);
    *c = (struct gw_child){.loop = loop, .pid = pid, .keep = spec->keep_bytes, .cb = cb, .ud = ud, .next = unreaped};
    c->mark = spec->mark != NULL ? gw_strdup(spec->mark) : NULL;
    unreaped = c;
    c->in.fd = c->out.fd = c->err.fd = c->process.fd = -1;
    (void)fcntl(out[0], F_SETFL, O_NONBLOCK);
    (void)fcntl(errp[0], F_SETFL, O_NONBLOCK);
    rc = watch(c, &c->out, &out[0], UV_READABLE, on_readable);
    if (rc == 0)
        rc = watch(c, &c->err, &errp[0], UV_READABLE, on_readable);
    if (rc == 0)
        rc = watch(c, &c->process, &pidfd, UV_READABLE, on_ended);
    if (rc == 0 && spec->input != NULL) {
        (void)fcntl(in[1], F_SETFL, O_NONBLOCK);
        c->input = gw_memdup0(spec->input, spec->input_bytes);
        c->input_bytes = spec->input_bytes;
        rc = watch(c, &c->in, &in[1], UV_WRITABLE, on_writable);
    }
    if (rc < 0) {
        give_up(c);
        rc = gw_err_set(err, rc, "cannot watch '%s': %s", spec->argv[0], gw_strerror(rc));
        goto fail;
    }
    (void)uv_timer_init(loop, &c->kill_timer);
    c->kill_timer.data = c;
    c->handles++;
    (void)close(in[0]);
    (void)close(out[1]);
    (void)close(errp[1]);
    (void)close(report[0]);
    free(env);
    free(pair);
    *ret_child = c;
    return 0;

fail:
    for (int i = 0; i < 2; i++) {
        int fds[] = {in[i], out[i], errp[i], report[i]};
        for (int k = 0; k < 4; k++)
            if (fds[k] >= 0)
                (void)close(fds[k]);
    }
    if (pidfd >= 0)
        (void)close(pidfd);
    free(env);
    free(pair);
    return rc;
}

pid_t gw_child_pid(const struct gw_child *child)
{
    return child->pid;
}

static void on_kill(uv_timer_t *timer)
{
    struct gw_child *c = timer->data;
    (void)kill(-c->pid, SIGKILL);
}

void gw_child_end(struct gw_child *c, unsigned grace_ms)
{
    if (c->process.fd < 0 || c->ending)
        return;
    c->ending = true;
    (void)kill(-c->pid, SIGTERM);
    (void)uv_timer_start(&c->kill_timer, on_kill, grace_ms, 0);
}

void gw_child_abandon(struct gw_child *c)
{
    c->abandoned = true;
    if (c->process.fd >= 0)
        (void)kill(-c->pid, SIGKILL);
}

void gw_child_settle(void)
{
    // Whoever has been killed is dead in a moment; its children are ours only then.
    uint64_t until = gw_now_ms() + DEAD_MS;
    for (struct gw_child *c = unreaped; c != NULL; c = c->next) {
        struct pollfd dead = {.fd = c->process.fd, .events = POLLIN};
        uint64_t now = gw_now_ms();
        if (!c->abandoned || c->mark == NULL)
            continue;
        (void)poll(&dead, 1, now < until ? (int)(until - now) : 0);
        (void)gw_leftovers_end(c->loop, c->mark, 0);
    }
    gw_leftovers_settle(DEAD_MS);
}
