#include "work/store.h"

#include "base/str.h"
#include "base/time.h"
#include "work/batch.h"
#include "work/opening.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define BATCH_OPS 4096      /* in one transaction; bounds how long the first one waits for the last */
#define OPEN_FIRST_MS 50    /* until an opening is tried again, then longer each time */
#define OPEN_MAX_MS 1000
#define LOOK_MS 60000       /* how often the names are looked at while nothing is written */
#define LET_GO_TRIES 12     /* each waits for another process's lock, see schema.c */

enum want { WANT_NOTHING, WANT_OPEN, WANT_GONE, WANT_END };

struct gw_store {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more;  /* the thread waits: something was pushed or is wanted */
    pthread_cond_t tried; /* the loop waits: a batch was tried, the thread has ended */
    int fd;
    bool started; /* the loop's own: there is a thread */

    /* under the lock */
    struct gw_ops pushed, answered;
    uint64_t last_seq, tried_seq;
    struct gw_store_health health;
    struct gw_store_found *found; /* owned; not taken yet */
    enum want want;
    bool goes_on, closes_on, ended, tidy;

    /* the thread's own, but for what is set before it starts */
    char *dir, *boot_id; /* owned */
    struct gw_opening opening;
    struct gw_batch batch;
    struct gw_store_found *finds;  /* of the opening that is being tried */
    struct gw_err why;             /* it is not open */
    uint64_t open_at_ms, open_wait_ms;
};

static void ops_fini(struct gw_ops *l)
{
    for (struct gw_op *op; (op = gw_ops_take(l)) != NULL;)
        gw_op_free(op);
}

static void found_free(struct gw_store_found *f)
{
    if (f == NULL)
        return;
    gw_store_found_fini(f);
    free(f);
}

/* ---- carrying out ---- */

/* code: how the batch went, and so whether the store can be written; > 0 when it did not find out. */
static void answer(struct gw_store *s, struct gw_ops *ops, uint64_t seq, int code, const struct gw_err *err)
{
    unsigned kept = 0;
    int64_t file = 0, log = 0;
    for (const struct gw_op *op = s->batch.kept.head; op != NULL; op = op->next)
        kept++;
    if (s->batch.rows != NULL)
        gw_rows_sizes(s->batch.rows, &file, &log);
    (void)pthread_mutex_lock(&s->lock);
    gw_ops_append(&s->answered, ops);
    s->tried_seq = seq;
    s->health.kept = kept;
    s->health.file_bytes = file;
    s->health.log_bytes = log;
    if (code <= 0 && s->health.state != GW_STORE_CLOSED)
        s->health.code = code;
    if (code < 0)
        s->health.err = *err;
    gw_store_wake(s);
    (void)pthread_cond_broadcast(&s->tried);
    (void)pthread_mutex_unlock(&s->lock);
}

static void try_open(struct gw_store *s);

/* Whether what is written now will be found again; where the file's name leads elsewhere it is put back first. */
static int look(struct gw_store *s, bool writes, struct gw_err *err)
{
    if (s->batch.rows != NULL && writes && !gw_rows_reachable(s->batch.rows)) {
        struct gw_lost_name lost = {0};
        int rc = gw_rows_put_back(&s->batch.rows, &lost, err);
        if (rc != 0) {
            (void)gw_err_prefix(err, "tasks.db or its log was removed or replaced under this host and cannot be put back");
            return rc;
        }
        s->finds = gw_calloc(1, sizeof *s->finds);
        s->finds->lost = lost;
        try_open(s);
    }
    if (s->batch.rows != NULL)
        return 0;
    *err = s->why;
    return err->code < 0 ? err->code : gw_err_set(err, -ENOTCONN, "the task store is not open");
}

/* try: the store is to be written to, whether there is something to write or not. */
static void run_batch(struct gw_store *s, struct gw_ops *ops, uint64_t seq, bool try)
{
    struct gw_err err = {0};
    bool writes = gw_batch_gather(&s->batch, ops, try);
    int code = look(s, writes, &err);
    code = gw_batch_run(&s->batch, ops, writes, code, &err);
    answer(s, ops, seq, code == 0 && !writes ? 1 : code, &err);
}

/* ---- the file's life ---- */

static void tell(struct gw_store *s, enum gw_store_state state, const struct gw_err *err, bool held)
{
    (void)pthread_mutex_lock(&s->lock);
    s->health.state = state;
    s->health.held = held;
    s->health.code = err != NULL ? err->code : 0;
    if (err != NULL)
        s->health.err = *err;
    if (state == GW_STORE_OPEN && s->finds != NULL) {
        found_free(s->found);
        s->found = s->finds;
        s->finds = NULL;
    }
    if (held && s->want == WANT_GONE)
        s->want = WANT_OPEN;
    gw_store_wake(s);
    (void)pthread_mutex_unlock(&s->lock);
}

static void try_open(struct gw_store *s)
{
    struct gw_err err = {0};
    if (s->finds == NULL)
        s->finds = gw_calloc(1, sizeof *s->finds);
    int rc = gw_opening_try(&s->opening, &s->batch.retain, &s->batch.rows, s->finds, &err);
    s->why = err;
    if (rc == 0) {
        // What this file is from now on is known here, whatever a failed successor makes of it.
        s->opening.ours = false;
        s->opening.newer = true;
        s->open_wait_ms = 0;
        tell(s, GW_STORE_OPEN, NULL, false);
        return;
    }
    s->why.code = rc;
    s->batch.rows = NULL;
    s->open_wait_ms = s->open_wait_ms == 0 ? OPEN_FIRST_MS : s->open_wait_ms * 2;
    s->open_wait_ms = s->open_wait_ms < OPEN_MAX_MS ? s->open_wait_ms : OPEN_MAX_MS;
    s->open_at_ms = gw_now_ms() + s->open_wait_ms;
    tell(s, rc == -ENOTSUP ? GW_STORE_REFUSED : GW_STORE_OPENING, &s->why, false);
}

static bool still_wants(struct gw_store *s, enum want want)
{
    (void)pthread_mutex_lock(&s->lock);
    bool same = s->want == want;
    (void)pthread_mutex_unlock(&s->lock);
    return same;
}

static void let_go(struct gw_store *s, uint64_t seq)
{
    // Another process that has the file for a moment is waited for; the rest is known at once.
    for (int i = 0; gw_batch_waits(&s->batch) && i < LET_GO_TRIES; i++) {
        struct gw_ops none = {0};
        run_batch(s, &none, seq, true);
        if (s->health.code != -EBUSY || !still_wants(s, WANT_GONE))
            break;
    }
    if (gw_batch_waits(&s->batch)) {
        struct gw_err err = s->health.err; // only this thread writes it
        tell(s, s->batch.rows != NULL ? GW_STORE_OPEN : GW_STORE_OPENING, &err, true);
        return;
    }
    gw_rows_close(s->batch.rows, true);
    s->batch.rows = NULL;
    s->why = (struct gw_err){0};
    s->opening.goes_on = true;
    tell(s, GW_STORE_CLOSED, NULL, false);
}

/* ---- the thread ---- */

/* Takes what waits, up to a batch. The lock is held. */
static uint64_t take_batch(struct gw_store *s, struct gw_ops *ret)
{
    uint64_t seq = s->tried_seq;
    for (int n = 0; n < BATCH_OPS && s->pushed.head != NULL; n++) {
        struct gw_op *op = gw_ops_take(&s->pushed);
        seq = op->seq;
        gw_ops_add(ret, op);
    }
    return seq;
}

static struct timespec deadline_in(uint64_t ms)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += (time_t)(ms / 1000);
    t.tv_nsec += (long)(ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

static bool wants_open(const struct gw_store *s)
{
    return s->want == WANT_OPEN && s->batch.rows == NULL && s->health.state != GW_STORE_REFUSED;
}

/* Something is to be done now. The lock is held. */
static bool busy(const struct gw_store *s)
{
    return s->pushed.head != NULL || s->want == WANT_END || (s->want == WANT_GONE && s->health.state != GW_STORE_CLOSED) ||
           (wants_open(s) && gw_now_ms() >= s->open_at_ms) || (s->batch.rows != NULL && (s->batch.retain.due || s->tidy));
}

/* Waits until there is, or until the names are to be looked at: then true. The lock is held. */
static bool wait_for_work(struct gw_store *s)
{
    uint64_t since = gw_now_ms();
    while (!busy(s)) {
        uint64_t now = gw_now_ms(), wait = LOOK_MS;
        if (wants_open(s))
            wait = s->open_at_ms > now ? s->open_at_ms - now : 0;
        else if (now - since >= LOOK_MS)
            return true;
        struct timespec until = deadline_in(wait);
        (void)pthread_cond_timedwait(&s->more, &s->lock, &until);
    }
    return false;
}

static void *store_main(void *arg)
{
    struct gw_store *s = arg;
    (void)pthread_setname_np(pthread_self(), "gwhost-store");
    for (bool end = false; !end;) {
        struct gw_ops ops = {0};
        (void)pthread_mutex_lock(&s->lock);
        bool idle = wait_for_work(s), opens = wants_open(s) && gw_now_ms() >= s->open_at_ms;
        uint64_t seq = take_batch(s, &ops);
        bool last = s->pushed.head == NULL, tidy = s->tidy && ops.head == NULL && s->batch.rows != NULL;
        bool gone = s->want == WANT_GONE && last && s->health.state != GW_STORE_CLOSED;
        end = s->want == WANT_END && last;
        s->tidy = s->tidy && !tidy;
        (void)pthread_mutex_unlock(&s->lock);
        if (opens)
            try_open(s);
        bool lost = idle && s->batch.rows != NULL && !gw_rows_reachable(s->batch.rows);
        if (ops.head != NULL || lost || (end && gw_batch_waits(&s->batch)))
            run_batch(s, &ops, seq, lost);
        else if (tidy)
            gw_rows_tidy(s->batch.rows);
        else if (!gone && !end && s->batch.rows != NULL && s->batch.retain.due)
            gw_retain_step(&s->batch.retain, s->batch.rows);
        if (gone)
            let_go(s, seq);
    }
    gw_rows_close(s->batch.rows, s->closes_on);
    s->batch.rows = NULL;
    (void)pthread_mutex_lock(&s->lock);
    s->ended = true;
    (void)pthread_cond_broadcast(&s->tried);
    (void)pthread_mutex_unlock(&s->lock);
    return NULL;
}

static int start_thread(struct gw_store *s)
{
    // Signals belong to the threads that expect them.
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&s->thread, NULL, store_main, s);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -rc;
}

/* ---- the loop thread's side ---- */

int gw_store_new(const struct gw_store_config *config, struct gw_store **ret_store, struct gw_err *err)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return gw_err_set(err, -errno, "no descriptor for the store: %s", gw_strerror(-errno));
    struct gw_store *s = gw_calloc(1, sizeof *s);
    pthread_condattr_t monotonic;
    (void)pthread_mutex_init(&s->lock, NULL);
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&s->more, &monotonic);
    (void)pthread_cond_init(&s->tried, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    s->fd = fd;
    s->dir = gw_strdup(config->dir);
    s->boot_id = gw_strdup(config->boot_id);
    s->batch.boot_id = s->boot_id;
    s->opening = (struct gw_opening){.dir = s->dir, .boot_id = s->boot_id, .newer = config->newer,
                                     .retry_after_crash = config->retry_after_crash, .ours = true};
    s->batch.retain.keep = config->keep;
    *ret_store = s;
    return 0;
}

void gw_store_open(struct gw_store *s, bool goes_on)
{
    (void)pthread_mutex_lock(&s->lock);
    if (!s->started)
        s->opening.goes_on = goes_on;
    if (s->want != WANT_OPEN && s->health.state == GW_STORE_CLOSED)
        s->health.state = GW_STORE_OPENING;
    s->want = WANT_OPEN;
    s->health.held = false;
    (void)pthread_cond_signal(&s->more);
    (void)pthread_mutex_unlock(&s->lock);
    if (s->started)
        return;
    int rc = start_thread(s);
    s->started = rc == 0;
    if (rc != 0) {
        s->health.code = gw_err_set(&s->health.err, rc, "start the store's thread: %s", gw_strerror(rc));
        gw_store_wake(s);
    }
}

void gw_store_let_go(struct gw_store *s)
{
    (void)pthread_mutex_lock(&s->lock);
    s->want = WANT_GONE;
    s->health.held = false;
    (void)pthread_cond_signal(&s->more);
    (void)pthread_mutex_unlock(&s->lock);
    if (!s->started)
        gw_store_wake(s);
}

void gw_store_tidy(struct gw_store *s)
{
    (void)pthread_mutex_lock(&s->lock);
    s->tidy = true;
    (void)pthread_cond_signal(&s->more);
    (void)pthread_mutex_unlock(&s->lock);
}

static void store_free(struct gw_store *s)
{
    ops_fini(&s->pushed);
    ops_fini(&s->answered);
    ops_fini(&s->batch.kept);
    ops_fini(&s->batch.doubt);
    found_free(s->found);
    found_free(s->finds);
    (void)close(s->fd);
    (void)pthread_cond_destroy(&s->more);
    (void)pthread_cond_destroy(&s->tried);
    (void)pthread_mutex_destroy(&s->lock);
    free(s->dir);
    free(s->boot_id);
    free(s);
}

bool gw_store_close(struct gw_store *s, unsigned max_ms, bool goes_on)
{
    struct timespec until = deadline_in(max_ms);
    (void)pthread_mutex_lock(&s->lock);
    s->closes_on = goes_on;
    s->want = WANT_END;
    (void)pthread_cond_signal(&s->more);
    while (s->started && !s->ended && pthread_cond_timedwait(&s->tried, &s->lock, &until) == 0)
        ;
    bool ended = !s->started || s->ended;
    (void)pthread_mutex_unlock(&s->lock);
    if (!ended)
        return false;
    if (s->started)
        (void)pthread_join(s->thread, NULL);
    store_free(s);
    return true;
}

int gw_store_fd(const struct gw_store *s)
{
    return s->fd;
}

void gw_store_wake(struct gw_store *s)
{
    uint64_t one = 1;
    ssize_t n = write(s->fd, &one, sizeof one);
    gw_assert(n == (ssize_t)sizeof one || errno == EAGAIN);
}

uint64_t gw_store_push(struct gw_store *s, struct gw_ops *ops)
{
    (void)pthread_mutex_lock(&s->lock);
    for (struct gw_op *op = ops->head; op != NULL; op = op->next)
        op->seq = ++s->last_seq;
    uint64_t seq = s->last_seq;
    gw_ops_append(&s->pushed, ops);
    (void)pthread_cond_signal(&s->more);
    (void)pthread_mutex_unlock(&s->lock);
    return seq;
}

bool gw_store_wait(struct gw_store *s, uint64_t seq, unsigned max_ms)
{
    struct timespec until = deadline_in(max_ms);
    (void)pthread_mutex_lock(&s->lock);
    while (s->tried_seq < seq && pthread_cond_timedwait(&s->tried, &s->lock, &until) == 0)
        ;
    bool tried = s->tried_seq >= seq;
    (void)pthread_mutex_unlock(&s->lock);
    return tried;
}

void gw_store_answers(struct gw_store *s, struct gw_ops *ret_ops, struct gw_store_health *ret_health,
                      struct gw_store_found **ret_found)
{
    uint64_t n;
    (void)!read(s->fd, &n, sizeof n);
    (void)pthread_mutex_lock(&s->lock);
    *ret_ops = s->answered;
    s->answered = (struct gw_ops){0};
    *ret_health = s->health;
    *ret_found = s->found;
    s->found = NULL;
    (void)pthread_mutex_unlock(&s->lock);
}
