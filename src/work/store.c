#include "work/store.h"

#include "base/str.h"
#include "base/time.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define BATCH_OPS 4096     /* in one transaction; bounds how long the first one waits for the last */
#define PRUNE_ROWS 256     /* deleted in one transaction, between two looks at the queue */
#define PRUNE_AGE_MS 60000 /* how often the age of finished rows is looked at, while there is work */

struct gw_store {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more;  /* the thread waits: something was pushed, or stop */
    pthread_cond_t tried; /* the loop waits: opened, a batch was tried, ended */
    int fd;

    /* under the lock */
    struct gw_ops pushed, answered;
    uint64_t last_seq, tried_seq;
    struct gw_store_health health;
    bool opened, stop, ended, abandoned;
    int open_code;
    struct gw_err *open_err;           /* borrowed from the opener, until opened */
    struct gw_store_found *open_found; /* the same */

    /* the thread's own */
    char *dir, *boot_id;
    bool retry_after_crash;
    int64_t retain_ms, retain_rows;
    struct gw_rows *rows;
    struct gw_ops kept; /* ends that could not be written yet */
    int64_t final_rows; /* finished rows in the file */
    bool prune, pruning_rows;
    bool tidy, opens_on, goes_on; /* see gw_store_tidy, config.goes_on, gw_store_close */
    uint64_t next_age_check_ms;
};

/* Ends are kept until they are written. */
static bool must(enum gw_op_kind kind)
{
    return kind == GW_OP_FINISH || kind == GW_OP_CUT || kind == GW_OP_BOUNDARY;
}

static void ops_fini(struct gw_ops *l)
{
    for (struct gw_op *op; (op = gw_ops_take(l)) != NULL;)
        gw_op_free(op);
}

void gw_store_found_fini(struct gw_store_found *f)
{
    for (size_t i = 0; i < f->lane_count; i++)
        free(f->lanes[i].lane);
    for (size_t i = 0; i < f->swept_count; i++)
        gw_task_fini(&f->swept[i]);
    free(f->lanes);
    free(f->swept);
    free(f->moved);
    *f = (struct gw_store_found){0};
}

/* ---- carrying out ---- */

static bool any_writes(const struct gw_ops *ops)
{
    for (const struct gw_op *op = ops->head; op != NULL; op = op->next)
        if (gw_op_writes(op->kind))
            return true;
    return false;
}

/* Carries out all of them in one transaction, or none. */
static int attempt(struct gw_store *s, struct gw_ops *ops, bool writes, struct gw_err *err)
{
    int rc = writes ? gw_rows_begin(s->rows, err) : 0;
    for (struct gw_op *op = ops->head; rc == 0 && op != NULL; op = op->next)
        rc = gw_op_apply(op, s->rows, s->boot_id, err);
    if (rc == 0 && writes)
        rc = gw_rows_commit(s->rows, err);
    if (rc != 0)
        gw_rows_rollback(s->rows);
    return rc;
}

static int64_t ends_in(const struct gw_ops *ops)
{
    int64_t n = 0;
    for (const struct gw_op *op = ops->head; op != NULL; op = op->next)
        n += gw_op_ends(op);
    return n;
}

/* After a failed attempt: ends once more without what may have been too much, reads on their own. */
static void salvage(struct gw_store *s, struct gw_ops *ops, const struct gw_err *why)
{
    struct gw_ops ends = {0}, others = {0};
    bool smaller = false;
    for (struct gw_op *op; (op = gw_ops_take(ops)) != NULL;) {
        smaller = smaller || !must(op->kind);
        gw_ops_add(must(op->kind) ? &ends : &others, op);
    }
    bool wrote = ends.head != NULL && smaller && attempt(s, &ends, true, NULL) == 0;
    if (wrote)
        s->final_rows += ends_in(&ends);
    for (struct gw_op *op = others.head; op != NULL; op = op->next) {
        struct gw_err err = *why;
        if (gw_op_writes(op->kind) || gw_op_apply(op, s->rows, s->boot_id, &err) != 0) {
            gw_op_unanswer(op);
            op->err = err;
            op->err.code = op->code = -EIO;
        }
    }
    gw_ops_append(wrote ? ops : &s->kept, &ends);
    gw_ops_append(ops, &others);
}

/* code: how the batch went, and so whether the store can be written; > 0 when it did not find out. */
static void answer(struct gw_store *s, struct gw_ops *ops, uint64_t seq, int code, const struct gw_err *err)
{
    (void)pthread_mutex_lock(&s->lock);
    gw_ops_append(&s->answered, ops);
    s->tried_seq = seq;
    if (code <= 0)
        s->health.code = code;
    if (code < 0)
        s->health.err = *err;
    gw_store_wake(s);
    (void)pthread_cond_broadcast(&s->tried);
    (void)pthread_mutex_unlock(&s->lock);
}

static void run_batch(struct gw_store *s, struct gw_ops *taken, uint64_t seq)
{
    struct gw_err err = {0};
    struct gw_ops ops = s->kept;
    s->kept = (struct gw_ops){0};
    gw_ops_append(&ops, taken);
    bool writes = any_writes(&ops);
    int code = attempt(s, &ops, writes, &err);
    if (code == 0)
        s->final_rows += ends_in(&ops);
    else
        salvage(s, &ops, &err);
    s->prune = s->prune || s->final_rows > s->retain_rows || gw_now_ms() >= s->next_age_check_ms;
    answer(s, &ops, seq, code == 0 && !writes ? 1 : code, &err);
}

/* One small batch, so that work never waits long behind it. The count has a little play, or every end would
 * bring a deletion with a commit of its own once the limit is reached. */
static void prune_some(struct gw_store *s)
{
    int64_t before = gw_wall_ms() - s->retain_ms, oldest = 0, deleted = 0;
    s->pruning_rows = s->final_rows > s->retain_rows ||
                      (s->pruning_rows && s->final_rows > s->retain_rows - s->retain_rows / 100);
    s->next_age_check_ms = gw_now_ms() + PRUNE_AGE_MS;
    s->prune = false;
    if (!s->pruning_rows &&
        (gw_rows_oldest_end(s->rows, &oldest, NULL) != 0 || oldest == 0 || oldest >= before))
        return;
    if (s->pruning_rows)
        before = INT64_MAX;
    int rc = gw_rows_begin(s->rows, NULL);
    if (rc == 0)
        rc = gw_rows_prune(s->rows, before, PRUNE_ROWS, &deleted, NULL);
    if (rc == 0)
        rc = gw_rows_commit(s->rows, NULL);
    if (rc != 0) {
        gw_rows_rollback(s->rows); // the next batch finds out what is wrong and says so
        return;
    }
    s->final_rows -= deleted;
    s->prune = deleted > 0;
}

/* ---- the thread ---- */

/* What a successor does only once it is told to go: everything here writes. */
static int take_over(struct gw_store *s, struct gw_store_found *found, struct gw_err *err)
{
    const struct gw_sweep sweep = {s->boot_id, UINT32_MAX, s->retry_after_crash, gw_wall_ms()};
    int rc = gw_rows_adopt(s->rows, err);
    if (rc == 0)
        rc = gw_rows_begin(s->rows, err);
    if (rc == 0)
        rc = gw_rows_sweep(s->rows, &sweep, &found->swept, &found->swept_count, err);
    if (rc == 0)
        rc = gw_rows_commit(s->rows, err);
    if (rc == 0)
        rc = gw_rows_count_queued(s->rows, NULL, &found->lanes, &found->lane_count, err);
    if (rc == 0)
        rc = gw_rows_max_id(s->rows, found->max_id, err);
    if (rc == 0)
        rc = gw_rows_count_final(s->rows, &s->final_rows, err);
    return rc;
}

static int open_rows(struct gw_store *s, struct gw_store_found *found, struct gw_err *err)
{
    for (;;) {
        int rc = gw_rows_open(s->dir, s->opens_on, &s->rows, err);
        if (rc == 0 && (rc = take_over(s, found, err)) != 0) {
            gw_rows_rollback(s->rows);
            gw_rows_close(s->rows, false);
        }
        if (rc == 0)
            return 0;
        s->rows = NULL;
        if (rc != -EUCLEAN || found->moved != NULL)
            return rc;
        gw_store_found_fini(found);
        rc = gw_rows_move_aside(s->dir, &found->moved, err);
        if (rc != 0)
            return rc;
    }
}

static void store_free(struct gw_store *s)
{
    ops_fini(&s->pushed);
    ops_fini(&s->answered);
    ops_fini(&s->kept);
    (void)close(s->fd);
    (void)pthread_cond_destroy(&s->more);
    (void)pthread_cond_destroy(&s->tried);
    (void)pthread_mutex_destroy(&s->lock);
    free(s->dir);
    free(s->boot_id);
    free(s);
}

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

static void serve(struct gw_store *s)
{
    for (bool stop = false; !stop;) {
        struct gw_ops ops = {0};
        (void)pthread_mutex_lock(&s->lock);
        while (s->pushed.head == NULL && !s->stop && !s->prune && !s->tidy)
            (void)pthread_cond_wait(&s->more, &s->lock);
        stop = s->stop;
        uint64_t seq = take_batch(s, &ops);
        stop = stop && s->pushed.head == NULL;
        bool tidy = s->tidy && ops.head == NULL && !stop;
        s->tidy = s->tidy && !tidy;
        (void)pthread_mutex_unlock(&s->lock);
        if (tidy)
            gw_rows_tidy(s->rows);
        if (ops.head != NULL || (stop && s->kept.head != NULL))
            run_batch(s, &ops, seq);
        else if (!stop && s->prune)
            prune_some(s);
    }
}

static void *store_main(void *arg)
{
    struct gw_store *s = arg;
    (void)pthread_setname_np(pthread_self(), "gwhost-store");
    int rc = open_rows(s, s->open_found, s->open_err);
    (void)pthread_mutex_lock(&s->lock);
    s->open_code = rc;
    s->opened = true;
    s->prune = true;
    (void)pthread_cond_broadcast(&s->tried);
    (void)pthread_mutex_unlock(&s->lock);
    if (rc != 0)
        return NULL;

    serve(s);
    gw_rows_close(s->rows, s->goes_on);
    s->rows = NULL;
    (void)pthread_mutex_lock(&s->lock);
    s->ended = true;
    bool mine = s->abandoned;
    (void)pthread_cond_broadcast(&s->tried);
    (void)pthread_mutex_unlock(&s->lock);
    if (mine)
        store_free(s);
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

int gw_store_open(const struct gw_store_config *config, struct gw_store **ret_store,
                  struct gw_store_found *ret_found, struct gw_err *err)
{
    struct gw_store *s = gw_calloc(1, sizeof *s);
    pthread_condattr_t monotonic;
    (void)pthread_mutex_init(&s->lock, NULL);
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&s->more, &monotonic);
    (void)pthread_cond_init(&s->tried, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    s->dir = gw_strdup(config->dir);
    s->boot_id = gw_strdup(config->boot_id);
    s->retry_after_crash = config->retry_after_crash;
    s->retain_ms = config->retain_ms;
    s->retain_rows = config->retain_rows;
    s->opens_on = config->goes_on;
    *ret_found = (struct gw_store_found){0};
    s->open_found = ret_found;
    s->open_err = err;
    s->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = s->fd >= 0 ? start_thread(s) : -errno;
    if (rc != 0) {
        store_free(s);
        return gw_err_set(err, rc, "start the store's thread: %s", gw_strerror(rc));
    }
    (void)pthread_mutex_lock(&s->lock);
    while (!s->opened)
        (void)pthread_cond_wait(&s->tried, &s->lock);
    rc = s->open_code;
    (void)pthread_mutex_unlock(&s->lock);
    if (rc != 0) {
        (void)pthread_join(s->thread, NULL);
        store_free(s);
        return rc;
    }
    *ret_store = s;
    return 0;
}

/* ---- the loop thread's side ---- */

static struct timespec deadline_in(unsigned ms)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += (long)(ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

void gw_store_tidy(struct gw_store *s)
{
    (void)pthread_mutex_lock(&s->lock);
    s->tidy = true;
    (void)pthread_cond_signal(&s->more);
    (void)pthread_mutex_unlock(&s->lock);
}

void gw_store_close(struct gw_store *s, unsigned max_ms, bool goes_on)
{
    struct timespec until = deadline_in(max_ms);
    (void)pthread_mutex_lock(&s->lock);
    s->goes_on = goes_on;
    s->stop = true;
    (void)pthread_cond_signal(&s->more);
    while (!s->ended && pthread_cond_timedwait(&s->tried, &s->lock, &until) == 0)
        ;
    bool ended = s->ended;
    s->abandoned = !ended;
    pthread_t thread = s->thread;
    (void)pthread_mutex_unlock(&s->lock);
    if (!ended) {
        (void)pthread_detach(thread);
        return;
    }
    (void)pthread_join(thread, NULL);
    store_free(s);
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

void gw_store_answers(struct gw_store *s, struct gw_ops *ret_ops, struct gw_store_health *ret_health)
{
    uint64_t n;
    (void)!read(s->fd, &n, sizeof n);
    (void)pthread_mutex_lock(&s->lock);
    *ret_ops = s->answered;
    s->answered = (struct gw_ops){0};
    *ret_health = s->health;
    (void)pthread_mutex_unlock(&s->lock);
}
