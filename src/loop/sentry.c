#include "loop/sentry.h"

#include "base/err.h"
#include "base/str.h"
#include "base/time.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <uv.h>

static const int taken[] = {SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGHUP};
enum {
    KINDS = sizeof taken / sizeof *taken,
    DEPTH = 16,
    TURN_MS = 1000, /* for a loop that could not run, before a deadline that has passed meanwhile strikes */
    PASS_ON_MS = 1000, /* a stop that the loop has not taken by then is told to the heir */
    AGAIN_MS = 100, /* a thread that could not be had is asked for again, and the loop takes the signals */
};

/* One ring a kind, written by the sentry and read by the loop: when one is full, more of that kind are not
 * recorded, as the kernel itself keeps but one pending, and no other kind is lost for it. */
struct ring {
    struct gw_signal records[DEPTH];
    atomic_uint head, tail; /* written by the sentry; read by the loop */
};

/* What the sentry knows beside its deadlines. */
struct watch {
    uint64_t turn_ms;    /* until then the loop has its turn, whatever has passed */
    uint64_t turned_for; /* the deadline that it had one for: there is no second */
    uint64_t pass_on_ms; /* when the heir is told of a stop; UINT64_MAX: nobody has asked for one */
};

struct gw_sentry {
    uv_async_t wake;  /* data: this */
    uv_timer_t again; /* data: this; runs while there is no thread */
    int handles;      /* that are not closed yet */
    struct gw_sentry_config config;
    struct watch watch; /* the thread's, or the loop's while there is none */
    bool threaded;      /* the loop's own: there is a thread */
    struct ring rings[KINDS];
    atomic_uint_least64_t deadline;      /* the loop's */
    atomic_uint_least64_t stop_deadline; /* our own, until the loop has taken the stop */
    atomic_int heir;                     /* a pidfd that is the loop's; -1: none */
    atomic_bool quit;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    atomic_bool pausing; /* wanted; standing: it is so */
    bool standing;
    pid_t process;
    void (*closed)(void *ud);
    void *closed_ud;
};

static int nudge(void)
{
    return SIGRTMIN + 3; // only says: look at the deadlines again
}

static sigset_t signal_set(bool with_nudge)
{
    sigset_t set;
    (void)sigemptyset(&set);
    for (int i = 0; i < KINDS; i++)
        (void)sigaddset(&set, taken[i]);
    (void)sigaddset(&set, SIGCONT); // goes on whoever blocks it; tells that this process stood still
    if (with_nudge)
        (void)sigaddset(&set, nudge());
    return set;
}

/* What whoever started us has set is not ours: an ignored SIGCHLD would take the ends of children away. A terminal's
 * stops stay as they are; what is blocked here for the sentry is never ignored. */
static bool is_kept(int sig)
{
    return sig == SIGKILL || sig == SIGSTOP || sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU;
}

int gw_sentry_block(struct gw_err *err)
{
    sigset_t set = signal_set(true);
    // Exactly these: they are never let through in between, for one that waits is somebody's wish.
    int rc = pthread_sigmask(SIG_SETMASK, &set, NULL);
    if (rc != 0)
        return gw_err_set(err, -rc, "cannot block signals: %s", gw_strerror(rc));
    struct sigaction is;
    for (int sig = 1; sig < NSIG; sig++)
        if (!is_kept(sig) && sigaction(sig, NULL, &is) == 0 && is.sa_handler == SIG_IGN)
            (void)signal(sig, SIG_DFL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);
    return 0;
}

static void record(struct gw_sentry *s, int kind, const siginfo_t *si)
{
    struct ring *ring = &s->rings[kind];
    unsigned head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    if (head - atomic_load_explicit(&ring->tail, memory_order_acquire) >= DEPTH)
        return;
    struct gw_signal *sig = &ring->records[head % DEPTH];
    *sig = (struct gw_signal){.number = si->si_signo, .code = si->si_code};
    if (si->si_code <= 0 || si->si_code == SI_USER) {
        sig->pid = si->si_pid;
        sig->uid = si->si_uid;
    }
    // At once: a sender such as kill(1) is gone a moment later.
    sig->alive = sig->pid > 0 && gw_proc_read(sig->pid, &sig->sender);
    sig->descends = sig->alive ? gw_proc_descends(&sig->sender, s->process) : -1;
    atomic_store_explicit(&ring->head, head + 1, memory_order_release);
}

/* The nearest deadline; *ret_stop: it is that of a stop which the loop has not taken. */
static uint64_t nearest(const struct gw_sentry *s, bool *ret_stop)
{
    uint64_t at = atomic_load(&s->deadline), stop = atomic_load(&s->stop_deadline);
    *ret_stop = stop < at;
    return *ret_stop ? stop : at;
}

/* Waits for a signal until at_ms. Returns its number, or less than 0. */
static int wait_until(const sigset_t *set, uint64_t at_ms, uint64_t now_ms, siginfo_t *ret)
{
    if (at_ms == UINT64_MAX)
        return sigwaitinfo(set, ret);
    uint64_t left = at_ms > now_ms ? at_ms - now_ms : 0;
    struct timespec ts = {.tv_sec = (time_t)(left / 1000), .tv_nsec = (long)(left % 1000) * 1000000};
    return sigtimedwait(set, ret, &ts);
}

/* No signal waits, and the time for which one was waited is over. */
static void judge(struct gw_sentry *s)
{
    struct watch *w = &s->watch;
    bool stop;
    uint64_t at = nearest(s, &stop), now = gw_now_ms();
    if (atomic_load(&s->stop_deadline) == UINT64_MAX) {
        w->pass_on_ms = UINT64_MAX;
    } else if (w->pass_on_ms <= now) {
        gw_sentry_signal_heir(s, SIGTERM);
        w->pass_on_ms = UINT64_MAX;
    }
    if (at <= now && now - at >= TURN_MS && w->turned_for != at && w->turn_ms <= now) {
        w->turned_for = at; // nobody was there to strike in time, so nobody was there to do anything else either
        w->turn_ms = now + TURN_MS;
    }
    if (at > now || w->turn_ms > now)
        return;
    s->config.expired(s->config.ud, stop);
    atomic_store(&s->deadline, UINT64_MAX);
    atomic_store(&s->stop_deadline, UINT64_MAX);
}

static void take(struct gw_sentry *s, int sig, const siginfo_t *si)
{
    struct watch *w = &s->watch;
    if (sig == SIGCONT) {
        bool stop;
        w->turned_for = nearest(s, &stop);
        w->turn_ms = gw_now_ms() + TURN_MS;
        return;
    }
    for (int i = 0; i < KINDS; i++)
        if (sig == taken[i])
            record(s, i, si);
    uint64_t none = UINT64_MAX;
    if (sig == SIGQUIT && s->config.quit != NULL)
        s->config.quit();
    if ((sig == SIGTERM || sig == SIGINT || sig == SIGQUIT) &&
        atomic_compare_exchange_strong(&s->stop_deadline, &none, gw_now_ms() + s->config.stop_grace_ms))
        w->pass_on_ms = gw_now_ms() + PASS_ON_MS;
    (void)uv_async_send(&s->wake);
}

/* Takes no signal until it may go on: those wait in the kernel. */
static void stand(struct gw_sentry *s)
{
    (void)pthread_mutex_lock(&s->lock);
    s->standing = true;
    (void)pthread_cond_broadcast(&s->changed);
    while (atomic_load(&s->pausing))
        (void)pthread_cond_wait(&s->changed, &s->lock);
    s->standing = false;
    (void)pthread_mutex_unlock(&s->lock);
}

static void *run(void *arg)
{
    struct gw_sentry *s = arg;
    const struct watch *w = &s->watch;
    (void)pthread_setname_np(pthread_self(), "gwhost-sentry");
    sigset_t set = signal_set(true);
    while (!atomic_load(&s->quit)) {
        if (atomic_load(&s->pausing)) {
            stand(s);
            continue;
        }
        bool stop;
        siginfo_t si;
        uint64_t until = nearest(s, &stop);
        if (until < w->turn_ms)
            until = w->turn_ms;
        // What has come is taken before a deadline is judged, however long it has passed.
        int sig = wait_until(&set, until < w->pass_on_ms ? until : w->pass_on_ms, gw_now_ms(), &si);
        if (sig < 0 && errno == EAGAIN)
            judge(s);
        else if (sig > 0 && sig != nudge())
            take(s, sig, &si);
    }
    return NULL;
}

static void tell(struct gw_sentry *s)
{
    // The order of taken[]: a stop is told first, whatever came with it.
    for (int i = 0; i < KINDS; i++) {
        struct ring *ring = &s->rings[i];
        unsigned tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
        while (tail != atomic_load_explicit(&ring->head, memory_order_acquire)) {
            struct gw_signal sig = ring->records[tail % DEPTH];
            atomic_store_explicit(&ring->tail, ++tail, memory_order_release);
            s->config.signal(s->config.ud, &sig);
        }
    }
}

static void on_wake(uv_async_t *wake)
{
    tell(wake->data);
}

static void on_closed(uv_handle_t *handle)
{
    struct gw_sentry *s = handle->data;
    if (--s->handles > 0)
        return;
    if (s->closed != NULL)
        s->closed(s->closed_ud);
    (void)pthread_cond_destroy(&s->changed);
    (void)pthread_mutex_destroy(&s->lock);
    free(s);
}

static void close_handles(struct gw_sentry *s)
{
    uv_close((uv_handle_t *)&s->again, on_closed);
    uv_close((uv_handle_t *)&s->wake, on_closed);
}

static int start_thread(struct gw_sentry *s)
{
    int rc = -pthread_create(&s->thread, NULL, run, s);
    s->threaded = rc == 0;
    return rc;
}

static void on_again(uv_timer_t *again)
{
    struct gw_sentry *s = again->data;
    const struct timespec none = {0};
    sigset_t set = signal_set(false);
    siginfo_t si;
    int sig;
    while ((sig = sigtimedwait(&set, &si, &none)) > 0)
        take(s, sig, &si);
    judge(s);
    if (start_thread(s) == 0)
        (void)uv_timer_stop(&s->again);
}

int gw_sentry_open(uv_loop_t *loop, const struct gw_sentry_config *config, struct gw_sentry **ret_sentry,
                   struct gw_err *err)
{
    struct gw_sentry *s = gw_calloc(1, sizeof *s);
    s->config = *config;
    s->process = getpid();
    atomic_init(&s->deadline, UINT64_MAX);
    atomic_init(&s->stop_deadline, UINT64_MAX);
    atomic_init(&s->heir, -1);
    int rc = uv_async_init(loop, &s->wake, on_wake);
    if (rc < 0) {
        free(s);
        return gw_err_set(err, rc, "cannot watch for signals: %s", gw_strerror(rc));
    }
    (void)uv_timer_init(loop, &s->again);
    uv_unref((uv_handle_t *)&s->again);
    s->wake.data = s->again.data = s;
    s->handles = 2;
    s->watch = (struct watch){.turned_for = UINT64_MAX, .pass_on_ms = UINT64_MAX};
    (void)pthread_mutex_init(&s->lock, NULL);
    (void)pthread_cond_init(&s->changed, NULL);
    rc = start_thread(s);
    if (rc < 0 && config->patient)
        rc = uv_timer_start(&s->again, on_again, AGAIN_MS, AGAIN_MS);
    if (rc < 0) {
        close_handles(s);
        return gw_err_set(err, rc, "cannot start the thread that takes signals: %s (a limit of processes: ulimit -u, "
                          "TasksMax=, pids.max)", gw_strerror(rc));
    }
    *ret_sentry = s;
    return 0;
}

static void poke(struct gw_sentry *s)
{
    if (s->threaded)
        (void)pthread_kill(s->thread, nudge());
}

void gw_sentry_arm(struct gw_sentry *s, uint64_t deadline_ms)
{
    if (atomic_exchange(&s->deadline, deadline_ms) > deadline_ms)
        poke(s);
}

void gw_sentry_shift(struct gw_sentry *s, uint64_t ms)
{
    uint64_t at = atomic_load(&s->deadline);
    if (at != UINT64_MAX)
        (void)atomic_compare_exchange_strong(&s->deadline, &at, at + ms);
}

void gw_sentry_heir(struct gw_sentry *s, int pidfd)
{
    atomic_store(&s->heir, pidfd);
}

void gw_sentry_signal_heir(struct gw_sentry *s, int signal)
{
    int pidfd = atomic_load(&s->heir);
    if (pidfd >= 0)
        (void)syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0);
}

void gw_sentry_taken(struct gw_sentry *s)
{
    atomic_store(&s->stop_deadline, UINT64_MAX);
}

void gw_sentry_pause(struct gw_sentry *s)
{
    // The thread stays: another one might not be had, and this one ends with the image.
    (void)pthread_mutex_lock(&s->lock);
    atomic_store(&s->pausing, true);
    poke(s);
    while (s->threaded && !s->standing)
        (void)pthread_cond_wait(&s->changed, &s->lock);
    (void)pthread_mutex_unlock(&s->lock);
    tell(s);
}

void gw_sentry_resume(struct gw_sentry *s)
{
    (void)pthread_mutex_lock(&s->lock);
    atomic_store(&s->pausing, false);
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
}

void gw_sentry_close(struct gw_sentry *s, void (*cb)(void *ud), void *ud)
{
    atomic_store(&s->quit, true);
    poke(s);
    if (s->threaded)
        (void)pthread_join(s->thread, NULL);
    tell(s);
    s->closed = cb;
    s->closed_ud = ud;
    close_handles(s);
}

const char *gw_signal_name(int number)
{
    switch (number) {
    case SIGTERM:
        return "SIGTERM";
    case SIGINT:
        return "SIGINT";
    case SIGQUIT:
        return "SIGQUIT";
    case SIGUSR1:
        return "SIGUSR1";
    case SIGUSR2:
        return "SIGUSR2";
    case SIGHUP:
        return "SIGHUP";
    default:
        return "signal";
    }
}
