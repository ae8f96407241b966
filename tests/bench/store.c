/* store - what the store can do on this disk: group commit against a commit for each, and a long queue.
 *
 * bench_store [DIR [SECONDS [QUEUED]]]: DIR is where the store goes (default: the current folder). Flushes to
 * disk are counted where sqlite asks libc for them. */
#include "base/err.h"
#include "base/str.h"
#include "base/time.h"
#include "work/db.h"
#include "work/work.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_ulong flushes;

int fdatasync(int fd)
{
    flushes++;
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    flushes++;
    return (int)syscall(SYS_fsync, fd);
}

struct bench {
    struct gw_work *w;
    char dir[256];
    uint64_t accepted, failed, executed, until_ms;
    bool refill, opened;
    json_t *input;
};

static void submit(struct bench *b);

static void on_accepted(void *ud, int code, const struct gw_task *task, bool existing,
                        const struct gw_err *err)
{
    struct bench *b = ud;
    (void)task, (void)existing, (void)err;
    if (code == 0)
        b->accepted++;
    else
        b->failed++;
    if (b->refill && gw_now_ms() < b->until_ms)
        submit(b);
}

static void submit(struct bench *b)
{
    const struct gw_task_spec spec = {.handler = "echo", .input = b->input, .priority = GW_PRIORITY_NORMAL};
    gw_task_submit(b->w, &spec, on_accepted, b);
}

static void on_execute(void *ud, const struct gw_task *task)
{
    struct bench *b = ud;
    b->executed++;
    (void)gw_task_finish(b->w, task->id, 1, GW_TASK_SUCCEEDED, NULL, NULL);
}

static void on_abort_task(void *ud, const char *id, enum gw_abort why)
{
    (void)ud, (void)id, (void)why;
}

static void on_abort_run(void *ud, struct gw_run *run, enum gw_abort why)
{
    (void)ud, (void)run, (void)why;
}

static void on_nothing(void *ud)
{
    (void)ud;
}

static void on_opened(void *ud, const struct gw_work_opened *opened)
{
    struct bench *b = ud;
    (void)opened;
    b->opened = true;
}

static const struct gw_work_ops ops = {.execute = on_execute,
                                       .abort_task = on_abort_task,
                                       .abort_run = on_abort_run,
                                       .drained = on_nothing,
                                       .idle = on_nothing,
                                       .opened = on_opened};

static void die(const struct gw_err *err)
{
    (void)fprintf(stderr, "%s\n", err->text);
    exit(1);
}

static void open_work(struct bench *b, unsigned concurrency)
{
    struct gw_lane_spec lane = {"main", concurrency, -1};
    struct gw_work_config config = {.state_dir = b->dir,
                                    .boot_id = "bench",
                                    .lanes = &lane,
                                    .lane_count = 1,
                                    .retry_after_crash = true,
                                    .ops = &ops,
                                    .ud = b};
    struct gw_err err;
    b->opened = false;
    if (gw_work_open(&config, &b->w, &err) != 0)
        die(&err);
    while (!b->opened) {
        struct pollfd p = {.fd = gw_work_fd(b->w), .events = POLLIN};
        if (poll(&p, 1, 1000) > 0)
            gw_work_dispatch(b->w);
    }
    gw_work_start(b->w, 1);
}

static void turn(struct bench *b, int ms)
{
    struct pollfd p = {.fd = gw_work_fd(b->w), .events = POLLIN};
    if (poll(&p, 1, ms) > 0)
        gw_work_dispatch(b->w);
    if (b->failed > 0) {
        (void)fprintf(stderr, "a submit failed\n");
        exit(1);
    }
}

static void remove_store(const struct bench *b)
{
    static const char *const names[] = {"tasks.db", "tasks.db-wal", "tasks.db-shm"};
    for (size_t i = 0; i < 3; i++) {
        char *path = gw_asprintf("%s/%s", b->dir, names[i]);
        (void)unlink(path);
        free(path);
    }
}

/* Accepts a second with that many submitters, each with one request at a time. */
static double accepts(struct bench *b, unsigned submitters, unsigned ms, double *ret_per_flush)
{
    open_work(b, 0);
    b->accepted = b->failed = 0;
    b->refill = true;
    uint64_t began = gw_now_us(), flushed = flushes;
    b->until_ms = gw_now_ms() + ms;
    for (unsigned i = 0; i < submitters; i++)
        submit(b);
    while (gw_now_ms() < b->until_ms)
        turn(b, 10);
    double seconds = (double)(gw_now_us() - began) / 1e6, rate = (double)b->accepted / seconds;
    *ret_per_flush = (double)b->accepted / (double)(flushes - flushed);
    b->refill = false;
    b->w = gw_work_close(b->w, 10000, false);
    remove_store(b);
    return rate;
}

static long rss_kib(void)
{
    long pages = 0, total = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f != NULL) {
        if (fscanf(f, "%ld %ld", &total, &pages) != 2)
            pages = 0;
        (void)fclose(f);
    }
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void make_queue(struct bench *b, long n)
{
    open_work(b, 0);
    b->w = gw_work_close(b->w, 10000, false);
    char *path = gw_asprintf("%s/tasks.db", b->dir);
    char *sql =
        gw_asprintf("BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %ld)"
                    " INSERT INTO tasks (seq, id, handler, lane, priority, status, created_at)"
                    " SELECT i, printf('t%%016x00000000', i), 'echo', 'main', 1, 0, 1 FROM n; COMMIT",
                    n);
    struct gw_db *db;
    struct gw_err err;
    if (gw_db_open(path, 1000, &db, &err) != 0 || gw_db_exec(db, sql, &err) != 0)
        die(&err);
    gw_db_close(db, GW_DB_END_CLEAN);
    free(sql);
    free(path);
}

/* Microseconds for one of the first n tasks of the queue, from the end of the one before to its own. */
static double round_trip(struct bench *b, unsigned n)
{
    uint64_t began = gw_now_us(), want = gw_work_counts(b->w).finished + n;
    while (gw_work_counts(b->w).finished < want)
        turn(b, 100);
    return (double)(gw_now_us() - began) / n;
}

static void long_queue(struct bench *b, long n, bool unclean)
{
    long before = rss_kib();
    if (unclean) {
        char *wal = gw_asprintf("%s/tasks.db-wal", b->dir);
        FILE *f = fopen(wal, "w");
        if (f != NULL)
            (void)fclose(f);
        free(wal);
    }
    uint64_t began = gw_now_us();
    open_work(b, 1);
    double open_ms = (double)(gw_now_us() - began) / 1000;
    double us = round_trip(b, 400);
    b->accepted = 0;
    b->refill = true;
    b->until_ms = gw_now_ms() + 1000;
    submit(b);
    while (gw_now_ms() < b->until_ms)
        turn(b, 10);
    b->refill = false;
    printf("%8ld queued%s: open %.0f ms, %.0f us a task run, %lu accepts/s beside, memory +%ld KiB\n", n,
           unclean ? " (not closed)" : "", open_ms, us, (unsigned long)b->accepted, rss_kib() - before);
    b->w = gw_work_close(b->w, 10000, false);
}

int main(int argc, char **argv)
{
    static struct bench b;
    (void)snprintf(b.dir, sizeof b.dir, "%s/bench-store-XXXXXX", argc > 1 ? argv[1] : ".");
    unsigned ms = argc > 2 ? (unsigned)atoi(argv[2]) * 1000 : 3000;
    long queued = argc > 3 ? atol(argv[3]) : 1000000;
    if (mkdtemp(b.dir) == NULL) {
        perror(b.dir);
        return 1;
    }
    b.input = json_pack("{s:s}", "hello", "world");
    double one_flush, many_flush;
    double one = accepts(&b, 1, ms, &one_flush), many = accepts(&b, 64, ms, &many_flush);
    printf("one submitter: %.0f accepts/s, %.1f accepts a flush\n", one, one_flush);
    printf("64 submitters: %.0f accepts/s, %.1f accepts a flush, %.1f times as many\n", many, many_flush,
           many / one);
    static const bool unclean[] = {false, true};
    const long lengths[] = {1000, queued};
    for (size_t k = 0; k < 2; k++) {
        make_queue(&b, lengths[k]);
        for (size_t i = 0; i < 2; i++)
            long_queue(&b, lengths[k], unclean[i]);
        remove_store(&b);
    }
    json_decref(b.input);
    return rmdir(b.dir) == 0 ? 0 : 1;
}
