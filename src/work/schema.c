#include "work/schema.h"

#include "base/err.h"
#include "base/str.h"
#include "base/time.h"
#include "work/mark.h"
#include "work/rows.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BUSY_MS 250   /* how long another process's lock is waited for */
#define SPARE_PAGES 1024 /* of 4 KiB, free ones that are not given back to the disk */
#define CHECK_MS 1000 /* how long the look through a file may take that was not closed */

/* One step a version, each in a transaction of its own; they only add. A task's row is found by the number in
 * its id, which is also the order of everything, so no index needs to spell an id and all of them grow at
 * their end. A large input must not be copied at each change of its task, so it has a table of its own. The
 * partial index of a lane's queue is as small as the queue; status numbers are those of enum gw_task_status.
 */
static const char *const migrations[] = {
    "CREATE TABLE tasks ("
    " seq INTEGER PRIMARY KEY, id TEXT NOT NULL, handler TEXT NOT NULL, lane TEXT NOT NULL,"
    " label TEXT, title TEXT, priority INTEGER NOT NULL, status INTEGER NOT NULL,"
    " timeout_ms INTEGER NOT NULL DEFAULT 0, retry_on_crash INTEGER NOT NULL DEFAULT 0,"
    " retry_on_interrupt INTEGER NOT NULL DEFAULT 0, created_at INTEGER NOT NULL,"
    " started_at INTEGER NOT NULL DEFAULT 0, ended_at INTEGER NOT NULL DEFAULT 0,"
    " attempts INTEGER NOT NULL DEFAULT 0, boot_id TEXT, generation INTEGER NOT NULL DEFAULT 0,"
    " ended_by_boot_id TEXT, idempotency_key TEXT, body_sha256 TEXT, progress TEXT, error TEXT, input TEXT,"
    " result TEXT);"
    "CREATE TABLE inputs (seq INTEGER PRIMARY KEY, input TEXT NOT NULL);"
    "CREATE INDEX tasks_waiting ON tasks (lane, priority) WHERE status = 0;"
    "CREATE INDEX tasks_status ON tasks (status);"
    "CREATE INDEX tasks_ended ON tasks (ended_at) WHERE status >= 2;"
    "CREATE UNIQUE INDEX tasks_key ON tasks (idempotency_key) WHERE idempotency_key IS NOT NULL;",

    // A key outlives its task: it has a time of its own, and says how the task ended once the row is gone. What a
    // task weighs is beside its end, so that what is kept can be weighed without reading it.
    "CREATE TABLE keys (key TEXT PRIMARY KEY, body_sha256 TEXT, id TEXT NOT NULL, at INTEGER NOT NULL,"
    " status INTEGER) WITHOUT ROWID;"
    "CREATE INDEX keys_at ON keys (at);"
    "INSERT INTO keys SELECT idempotency_key, body_sha256, id, created_at, NULL FROM tasks"
    " WHERE idempotency_key IS NOT NULL;"
    "DROP INDEX tasks_key;"
    // By triggers, so that also the version before, gone back to after an update, keeps them as they should be.
    "CREATE TRIGGER tasks_named AFTER INSERT ON tasks WHEN new.idempotency_key IS NOT NULL BEGIN"
    " INSERT OR REPLACE INTO keys VALUES (new.idempotency_key, new.body_sha256, new.id, new.created_at, NULL); END;"
    "CREATE TRIGGER tasks_gone AFTER DELETE ON tasks WHEN old.idempotency_key IS NOT NULL BEGIN"
    " UPDATE keys SET status = old.status WHERE key = old.idempotency_key AND id = old.id; END;"
    "ALTER TABLE tasks ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;"
    "UPDATE tasks SET bytes = length(result) WHERE length(result) > 512;"
    "UPDATE tasks SET bytes = bytes + (SELECT length(i.input) FROM inputs i WHERE i.seq = tasks.seq)"
    " WHERE seq IN (SELECT seq FROM inputs);"
    "DROP INDEX tasks_ended;"
    "CREATE INDEX tasks_kept ON tasks (ended_at, bytes) WHERE status >= 2;"
    // One row. The clock only ages what is kept, see retain.h.
    "CREATE TABLE store (commits INTEGER NOT NULL, clock INTEGER NOT NULL);"
    "INSERT INTO store SELECT 0, coalesce(max(ended_at), 0) FROM tasks WHERE status >= 2;",
};
#define SCHEMA_VERSION ((int64_t)(sizeof migrations / sizeof migrations[0]))

_Static_assert(GW_TASK_QUEUED == 0 && GW_TASK_RUNNING == 1 && GW_TASK_SUCCEEDED == 2 &&
                   GW_TASK_CANCELLED == 5 && GW_TASK_INTERRUPTED == 6 && GW_TASK_LOST == 7,
               "the statements below spell these numbers");

#define TASK                                                                                                 \
    "SELECT t.id, t.handler, t.lane, t.label, t.title, t.priority, t.status, t.timeout_ms, "                 \
    "t.retry_on_crash,"                                                                                      \
    " t.retry_on_interrupt, t.created_at, t.started_at, t.ended_at, t.attempts, t.boot_id, "                 \
    "t.ended_by_boot_id,"                                                                                    \
    " t.progress, t.error, t.result, t.bytes"

/* INDEXED BY where another index looks as good to the planner but would be sorted, or read whole. */
static const char *const statements[GW_SQL_STATEMENTS] = {
    [GW_SQL_BEGIN] = "BEGIN IMMEDIATE",
    [GW_SQL_COMMIT] = "COMMIT",
    [GW_SQL_INSERT] = "INSERT INTO tasks (seq, id, handler, lane, label, title, priority, status, timeout_ms,"
                      " retry_on_crash, retry_on_interrupt, created_at, idempotency_key, body_sha256, input,"
                      " bytes) VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?)",
    [GW_SQL_INSERT_INPUT] = "INSERT INTO inputs (seq, input) VALUES (?, ?)",
    [GW_SQL_FIND_KEY] = "SELECT id, body_sha256, at, status FROM keys WHERE key = ?",
    [GW_SQL_PRUNE_KEYS] = "DELETE FROM keys WHERE key IN (SELECT key FROM keys WHERE at < ? ORDER BY at LIMIT ?)",
    [GW_SQL_GET] = TASK " FROM tasks t WHERE t.seq = ?1 AND t.id = ?2",
    [GW_SQL_GET_INPUT] = TASK ", coalesce(t.input, i.input) FROM tasks t LEFT JOIN inputs i ON i.seq = t.seq"
                              " WHERE t.seq = ?1 AND t.id = ?2",
    [GW_SQL_START] = "UPDATE tasks SET status = 1, boot_id = ?3, generation = ?4, started_at = ?5,"
                     " attempts = attempts + 1, progress = NULL WHERE seq = ?1 AND id = ?2 AND status = 0",
    [GW_SQL_UNSTART] = "UPDATE tasks SET status = 0, started_at = 0, attempts = attempts - 1"
                       " WHERE seq = ?1 AND id = ?2 AND status = 1 AND boot_id = ?3 AND generation = ?4",
    [GW_SQL_FINISH] =
        "UPDATE tasks SET status = ?5, ended_at = ?6, ended_by_boot_id = ?3, result = ?7, error = ?8,"
        " progress = coalesce(?9, progress), bytes = bytes + coalesce(length(?7), 0)"
        " + coalesce(length(?8), 0)"
        " WHERE seq = ?1 AND id = ?2 AND status = 1 AND boot_id = ?3 AND generation = ?4",
    [GW_SQL_CANCEL] = "UPDATE tasks SET status = 5, ended_at = ?4, ended_by_boot_id = ?3"
                      " WHERE seq = ?1 AND id = ?2 AND status = 0",
    [GW_SQL_PROGRESS] =
        "UPDATE tasks SET progress = ?4 WHERE seq = ?1 AND id = ?2 AND status = 1 AND boot_id = ?3",
    [GW_SQL_END] = "UPDATE tasks SET status = ?4, ended_at = ?5, ended_by_boot_id = ?6, error = ?7"
                   " WHERE seq = ?1 AND id = ?2 AND status = 1 AND boot_id IS ?3",
    [GW_SQL_REQUEUE] = "UPDATE tasks SET status = 0, started_at = 0, progress = NULL"
                       " WHERE seq = ?1 AND id = ?2 AND status = 1 AND boot_id IS ?3",
    [GW_SQL_RUNNING] =
        "SELECT id, boot_id, generation, retry_on_crash, retry_on_interrupt, attempts FROM tasks"
        " WHERE status = 1 ORDER BY seq",
    [GW_SQL_LIST] = TASK " FROM tasks t WHERE t.seq > ?1 ORDER BY t.seq LIMIT ?2",
    [GW_SQL_LIST_STATUS] = TASK " FROM tasks t WHERE t.status = ?3 AND t.seq > ?1 ORDER BY t.seq LIMIT ?2",
    [GW_SQL_WAITING] = "SELECT id, priority, created_at FROM tasks INDEXED BY tasks_waiting"
                       " WHERE status = 0 AND lane = ?"
                       " ORDER BY priority, seq LIMIT ?",
    [GW_SQL_COUNT_LANE] =
        "SELECT ?1, count(*) FROM tasks INDEXED BY tasks_waiting WHERE status = 0 AND lane = ?1",
    [GW_SQL_COUNT_LANES] =
        "SELECT lane, count(*) FROM tasks INDEXED BY tasks_waiting WHERE status = 0 GROUP BY lane",
    [GW_SQL_OLDEST] = "SELECT seq, bytes FROM tasks INDEXED BY tasks_kept WHERE status >= 2 AND ended_at < ?"
                      " ORDER BY ended_at, bytes LIMIT ?",
    [GW_SQL_DELETE_INPUT] = "DELETE FROM inputs WHERE seq = ?",
    [GW_SQL_DELETE] = "DELETE FROM tasks WHERE seq = ?",
    [GW_SQL_TICK] = "UPDATE store SET commits = commits + 1, clock = ?",
};

static void sync_dir(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)fsync(fd);
    (void)close(fd);
}

/* A name beside path that is free. */
static void name_aside(const char *path, const char *why, char **ret)
{
    time_t now = time(NULL);
    struct tm tm;
    char stamp[32];
    (void)gmtime_r(&now, &tm);
    (void)strftime(stamp, sizeof stamp, "%Y-%m-%dT%H-%M-%SZ", &tm);
    char *to = gw_asprintf("%s.%s-%s", path, why, stamp);
    for (int n = 2; access(to, F_OK) == 0; n++) {
        free(to);
        to = gw_asprintf("%s.%s-%s.%d", path, why, stamp, n);
    }
    *ret = to;
}

int gw_rows_move_aside(const char *dir, char **ret_moved, struct gw_err *err)
{
    char *path = gw_asprintf("%s/tasks.db", dir), *to;
    name_aside(path, "corrupt", &to);
    // The log first: a database that is gone with its log left behind would take that log for its own.
    static const char *const parts[] = {"-wal", "-shm", ""};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        char *a = gw_asprintf("%s%s", path, parts[i]), *b = gw_asprintf("%s%s", to, parts[i]);
        int rc = rename(a, b) == 0 || (errno == ENOENT && parts[i][0] != '\0') ? 0 : -errno;
        if (rc != 0)
            (void)gw_err_set(err, rc, "move damaged store '%s' to '%s': %s", a, b, gw_strerror(rc));
        free(a);
        free(b);
        if (rc != 0) {
            free(to);
            free(path);
            return rc;
        }
    }
    free(path);
    sync_dir(dir);
    *ret_moved = to;
    return 0;
}

/* sqlite drops the log of an empty file without a word. */
static bool emptied(const char *path, const char *log)
{
    struct stat a, b;
    return stat(path, &a) == 0 && a.st_size == 0 && stat(log, &b) == 0 && b.st_size > 0;
}

int gw_rows_open(const char *dir, bool goes_on, struct gw_rows **ret_rows, struct gw_err *err)
{
    struct gw_rows *r = gw_calloc(1, sizeof *r);
    int64_t n;
    r->dir = gw_strdup(dir);
    r->file.path = gw_asprintf("%s/tasks.db", dir);
    r->log.path = gw_asprintf("%s-wal", r->file.path);
    r->lock.path = gw_asprintf("%s/gwhost.lock", dir);
    r->mark_fd = -1;
    bool unclean = !goes_on && access(r->log.path, F_OK) == 0; // sqlite removes it when the last one closes
    int rc = emptied(r->file.path, r->log.path)
                 ? gw_err_set(err, -EUCLEAN, "store '%s' is empty, and its log is not", r->file.path)
                 : gw_db_open(r->file.path, BUSY_MS, &r->db, err);
    if (rc == 0) // reading it is what notices a file that is no database
        rc = gw_db_int(r->db, "SELECT count(*) FROM sqlite_schema", &n, err);
    if (rc == 0 && unclean)
        rc = gw_db_check(r->db, CHECK_MS, err);
    if (rc != 0) {
        gw_rows_close(r, false);
        return rc;
    }
    *ret_rows = r;
    return 0;
}

static int migrate(struct gw_rows *r, bool newer, struct gw_err *err)
{
    int64_t version;
    int rc = gw_db_int(r->db, "PRAGMA user_version", &version, err);
    if (rc == 0 && (version < 0 || (version > SCHEMA_VERSION && !newer)))
        return gw_err_set(err, -ENOTSUP, "store '%s' has schema %lld, this program knows up to %lld: start the program "
                          "that made it, or give another --state-dir", r->file.path, (long long)version,
                          (long long)SCHEMA_VERSION);
    for (int64_t v = version; rc == 0 && v < SCHEMA_VERSION; v++) {
        char *sql =
            gw_asprintf("BEGIN IMMEDIATE; %s PRAGMA user_version = %d; COMMIT;", migrations[v], (int)v + 1);
        rc = gw_db_exec(r->db, sql, err);
        free(sql);
        if (rc != 0)
            (void)gw_err_prefix(err, "bring schema to version %d", (int)v + 1);
    }
    return rc;
}

int gw_rows_adopt(struct gw_rows *r, bool newer, struct gw_older *ret_older, struct gw_err *err)
{
    // A log of up to 16 MiB: its pages are the same few over and over, and are written back once.
    int rc = gw_db_exec(r->db,
                        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                        "PRAGMA cache_size = -8192; PRAGMA wal_autocheckpoint = 4000;"
                        "PRAGMA journal_size_limit = 16777216; PRAGMA temp_store = MEMORY;",
                        err);
    if (rc == 0)
        rc = migrate(r, newer, err);
    for (int i = 0; rc == 0 && i < GW_SQL_STATEMENTS; i++)
        rc = gw_db_prepare(r->db, statements[i], &r->stmts[i], err);
    if (rc == 0)
        rc = gw_db_int(r->db, "SELECT commits FROM store", &r->commits, err);
    if (rc == 0)
        rc = gw_db_int(r->db, "SELECT clock FROM store", &r->clock_ms, err);
    if (rc != 0) {
        gw_rows_rollback(r);
        return rc;
    }
    struct gw_mark mark;
    r->mark_fd = gw_mark_open(r->dir, &mark);
    if (mark.commits > r->commits)
        *ret_older = (struct gw_older){r->commits, mark.commits, mark.at_ms};
    return 0;
}

void gw_rows_tidy(struct gw_rows *r)
{
    gw_db_checkpoint(r->db);
}

static void close_as(struct gw_rows *r, enum gw_db_end end)
{
    for (int i = 0; i < GW_SQL_STATEMENTS; i++)
        gw_stmt_free(r->stmts[i]);
    if (r->db != NULL)
        gw_db_close(r->db, end);
    if (r->mark_fd >= 0)
        (void)close(r->mark_fd);
    free(r->dir);
    free(r->file.path);
    free(r->log.path);
    free(r->lock.path);
    free(r);
}

void gw_rows_close(struct gw_rows *r, bool goes_on)
{
    if (r == NULL)
        return;
    // Damage met on the way: the log stays as the mark that makes the next start look through the file.
    bool damaged = r->db != NULL && gw_db_damaged(r->db);
    close_as(r, damaged ? GW_DB_END_MARKED : goes_on ? GW_DB_END_GOES_ON : GW_DB_END_CLEAN);
}

/* ---- the names on disk ---- */

static bool same_name(const struct gw_name *name)
{
    struct stat st;
    return stat(name->path, &st) == 0 && st.st_dev == name->dev && st.st_ino == name->ino;
}

static void remember_name(struct gw_name *name)
{
    struct stat st = {0};
    (void)stat(name->path, &st);
    name->dev = st.st_dev;
    name->ino = st.st_ino;
}

void gw_rows_remember(struct gw_rows *r)
{
    remember_name(&r->file);
    remember_name(&r->log);
    remember_name(&r->lock);
}

bool gw_rows_reachable(const struct gw_rows *r)
{
    return same_name(&r->file) && same_name(&r->log);
}

/* Writes all that the open store holds to path, durably. */
static int save_as(struct gw_rows *r, const char *path, struct gw_err *err)
{
    (void)unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        int code = -errno;
        return gw_err_set(err, code, "write '%s': %s", path, gw_strerror(code));
    }
    (void)close(fd);
    char *sql = gw_asprintf("VACUUM INTO '%s'", path);
    int rc = strchr(path, '\'') != NULL ? gw_err_set(err, -EINVAL, "the name '%s' has a quote in it", path)
                                        : gw_db_exec(r->db, sql, err);
    free(sql);
    if (rc == 0 && (fd = open(path, O_RDONLY | O_CLOEXEC)) >= 0) {
        if (fsync(fd) < 0)
            rc = gw_err_set(err, -errno, "write '%s': %s", path, gw_strerror(-errno));
        (void)close(fd);
    }
    if (rc != 0)
        (void)unlink(path);
    return rc;
}

int gw_rows_put_back(struct gw_rows **io_rows, struct gw_lost_name *ret, struct gw_err *err)
{
    struct gw_rows *r = *io_rows;
    char *dir = gw_strdup(r->dir), *path = gw_strdup(r->file.path), *log = gw_strdup(r->log.path);
    char *shm = gw_asprintf("%s-shm", path), *to = NULL;
    int rc;
    struct stat st;
    bool other = !same_name(&r->file) && lstat(path, &st) == 0, ours = same_name(&r->log) || !other;
    if (r->lock.ino != 0 && !same_name(&r->lock)) { // who comes next finds nobody's folder, and its file would have two owners
        rc = gw_err_set(err, -ESTALE, "'%s' is gone or another's, and with it the folder: stop this host and start it again", r->lock.path);
        goto out;
    }
    if (other && !S_ISREG(st.st_mode)) { // in the way; what is open is better
        rc = gw_err_set(err, -EEXIST, "'%s' is no file: move it away", path);
        goto out;
    }
    if (other)
        name_aside(path, "replaced", &to);
    else
        to = gw_asprintf("%s.new", path);
    rc = save_as(r, to, err);
    if (rc == 0) {
        // Not written back: neither name is that of what is open here, or its log is gone.
        close_as(r, GW_DB_END_GOES_ON);
        *io_rows = NULL;
        if (ours) { // a log that belongs to another file would be taken for its own
            (void)unlink(log);
            (void)unlink(shm);
        }
        if (!other && rename(to, path) < 0)
            rc = gw_err_set(err, -errno, "put '%s' back: %s", path, gw_strerror(-errno));
        sync_dir(dir);
        *ret = (struct gw_lost_name){other ? to : NULL, true};
        if (other)
            to = NULL;
    }
out:
    free(to);
    free(shm);
    free(log);
    free(path);
    free(dir);
    return rc;
}

/* ---- transactions ---- */

int gw_rows_begin(struct gw_rows *r, struct gw_err *err)
{
    return gw_stmt_run(r->stmts[GW_SQL_BEGIN], err);
}

int gw_rows_commit(struct gw_rows *r, struct gw_err *err)
{
    gw_stmt_int(r->stmts[GW_SQL_TICK], 1, r->clock_ms);
    int rc = gw_stmt_run(r->stmts[GW_SQL_TICK], err);
    if (rc == 0)
        rc = gw_stmt_run(r->stmts[GW_SQL_COMMIT], err);
    if (rc != 0)
        return rc;
    const struct gw_mark mark = {++r->commits, gw_wall_ms()};
    gw_mark_write(r->mark_fd, &mark);
    return 0;
}

bool gw_rows_unsynced(const struct gw_rows *r)
{
    return gw_db_unsynced(r->db);
}

void gw_rows_rollback(struct gw_rows *r)
{
    if (gw_db_in_transaction(r->db))
        (void)gw_db_exec(r->db, "ROLLBACK", NULL);
}

void gw_rows_clock(struct gw_rows *r, int64_t clock_ms)
{
    r->clock_ms = clock_ms;
}

int64_t gw_rows_clock_before(const struct gw_rows *r)
{
    return r->clock_ms;
}

int gw_rows_probe(struct gw_rows *r, struct gw_err *err)
{
    int rc = gw_rows_begin(r, err);
    if (rc == 0)
        rc = gw_rows_commit(r, err);
    if (rc != 0)
        gw_rows_rollback(r);
    return rc;
}

void gw_rows_sizes(const struct gw_rows *r, int64_t *ret_file, int64_t *ret_log)
{
    struct stat st;
    *ret_file = stat(r->file.path, &st) == 0 ? st.st_size : 0;
    *ret_log = stat(r->log.path, &st) == 0 ? st.st_size : 0;
}

int gw_rows_give_back(struct gw_rows *r, bool *ret_more, struct gw_err *err)
{
    int64_t vacuum, free_pages, pages;
    int rc = gw_db_int(r->db, "PRAGMA auto_vacuum", &vacuum, err);
    if (rc == 0)
        rc = gw_db_int(r->db, "PRAGMA freelist_count", &free_pages, err);
    if (rc == 0)
        rc = gw_db_int(r->db, "PRAGMA page_count", &pages, err);
    // What is free is used again; a file of which a good part stays free gives it back.
    *ret_more = rc == 0 && vacuum == 2 && free_pages > SPARE_PAGES && free_pages > pages / 4;
    return *ret_more ? gw_db_exec(r->db, "PRAGMA incremental_vacuum(1024)", err) : rc;
}
