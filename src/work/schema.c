#include "work/schema.h"

#include "base/err.h"
#include "base/str.h"
#include "work/rows.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define BUSY_MS 250   /* how long another process's lock is waited for */
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
    " t.progress, t.error, t.result, t.body_sha256"

/* INDEXED BY where another index looks as good to the planner but would be sorted, or read whole. */
static const char *const statements[GW_SQL_STATEMENTS] = {
    [GW_SQL_BEGIN] = "BEGIN IMMEDIATE",
    [GW_SQL_COMMIT] = "COMMIT",
    [GW_SQL_INSERT] = "INSERT INTO tasks (seq, id, handler, lane, label, title, priority, status, timeout_ms,"
                      " retry_on_crash, retry_on_interrupt, created_at, idempotency_key, body_sha256, input)"
                      " VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?)",
    [GW_SQL_INSERT_INPUT] = "INSERT INTO inputs (seq, input) VALUES (?, ?)",
    [GW_SQL_FIND_KEY] = TASK " FROM tasks t WHERE t.idempotency_key = ?",
    [GW_SQL_GET] = TASK " FROM tasks t WHERE t.seq = ?1 AND t.id = ?2",
    [GW_SQL_GET_INPUT] = TASK ", coalesce(t.input, i.input) FROM tasks t LEFT JOIN inputs i ON i.seq = t.seq"
                              " WHERE t.seq = ?1 AND t.id = ?2",
    [GW_SQL_START] = "UPDATE tasks SET status = 1, boot_id = ?3, generation = ?4, started_at = ?5,"
                     " attempts = attempts + 1, progress = NULL WHERE seq = ?1 AND id = ?2 AND status = 0",
    [GW_SQL_UNSTART] = "UPDATE tasks SET status = 0, started_at = 0, attempts = attempts - 1"
                       " WHERE seq = ?1 AND id = ?2 AND status = 1 AND boot_id = ?3 AND generation = ?4",
    [GW_SQL_FINISH] =
        "UPDATE tasks SET status = ?5, ended_at = ?6, ended_by_boot_id = ?3, result = ?7, error = ?8,"
        " progress = coalesce(?9, progress)"
        " WHERE seq = ?1 AND id = ?2 AND status = 1 AND boot_id = ?3 AND generation = ?4",
    [GW_SQL_CANCEL] = "UPDATE tasks SET status = 5, ended_at = ?4, ended_by_boot_id = ?3"
                      " WHERE seq = ?1 AND id = ?2 AND status = 0",
    [GW_SQL_PROGRESS] = "UPDATE tasks SET progress = ?3 WHERE seq = ?1 AND id = ?2 AND status = 1",
    [GW_SQL_END] = "UPDATE tasks SET status = ?3, ended_at = ?4, ended_by_boot_id = ?5, error = ?6"
                   " WHERE seq = ?1 AND id = ?2 AND status = 1",
    [GW_SQL_REQUEUE] = "UPDATE tasks SET status = 0, started_at = 0, progress = NULL"
                       " WHERE seq = ?1 AND id = ?2 AND status = 1",
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
    [GW_SQL_PRUNE_INPUTS] =
        "DELETE FROM inputs WHERE seq IN (SELECT seq FROM tasks WHERE status >= 2 AND ended_at < ?1"
        " ORDER BY ended_at, seq LIMIT ?2)",
    [GW_SQL_PRUNE] =
        "DELETE FROM tasks WHERE seq IN (SELECT seq FROM tasks WHERE status >= 2 AND ended_at < ?1"
        " ORDER BY ended_at, seq LIMIT ?2)",
};

static void sync_dir(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)fsync(fd);
    (void)close(fd);
}

int gw_rows_move_aside(const char *dir, char **ret_moved, struct gw_err *err)
{
    char *path = gw_asprintf("%s/tasks.db", dir);
    time_t now = time(NULL);
    struct tm tm;
    char stamp[32];
    (void)gmtime_r(&now, &tm);
    (void)strftime(stamp, sizeof stamp, "%Y-%m-%dT%H-%M-%SZ", &tm);
    char *to = gw_asprintf("%s.corrupt-%s", path, stamp);
    for (int n = 2; access(to, F_OK) == 0; n++) {
        free(to);
        to = gw_asprintf("%s.corrupt-%s.%d", path, stamp, n);
    }
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

int gw_rows_open(const char *dir, bool goes_on, struct gw_rows **ret_rows, struct gw_err *err)
{
    char *path = gw_asprintf("%s/tasks.db", dir), *wal = gw_asprintf("%s-wal", path);
    bool unclean = !goes_on && access(wal, F_OK) == 0; // sqlite removes it when the last one closes
    struct gw_rows *r = gw_calloc(1, sizeof *r);
    int64_t n;
    int rc = gw_db_open(path, BUSY_MS, &r->db, err);
    if (rc == 0) // reading it is what notices a file that is no database
        rc = gw_db_int(r->db, "SELECT count(*) FROM sqlite_schema", &n, err);
    if (rc == 0 && unclean)
        rc = gw_db_check(r->db, CHECK_MS, err);
    free(path);
    free(wal);
    if (rc != 0) {
        gw_rows_close(r, false);
        return rc;
    }
    *ret_rows = r;
    return 0;
}

static int migrate(struct gw_rows *r, struct gw_err *err)
{
    int64_t version;
    int rc = gw_db_int(r->db, "PRAGMA user_version", &version, err);
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

int gw_rows_adopt(struct gw_rows *r, struct gw_err *err)
{
    // A log of up to 16 MiB: its pages are the same few over and over, and are written back once.
    int rc = gw_db_exec(r->db,
                        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -8192;"
                        "PRAGMA wal_autocheckpoint = 4000;"
                        "PRAGMA journal_size_limit = 16777216; PRAGMA temp_store = MEMORY;",
                        err);
    if (rc == 0)
        rc = migrate(r, err);
    for (int i = 0; rc == 0 && i < GW_SQL_STATEMENTS; i++)
        rc = gw_db_prepare(r->db, statements[i], &r->stmts[i], err);
    if (rc != 0)
        gw_rows_rollback(r);
    return rc;
}

void gw_rows_tidy(struct gw_rows *r)
{
    gw_db_checkpoint(r->db);
}

void gw_rows_close(struct gw_rows *r, bool goes_on)
{
    if (r == NULL)
        return;
    for (int i = 0; i < GW_SQL_STATEMENTS; i++)
        gw_stmt_free(r->stmts[i]);
    // Damage met on the way: the log stays as the mark that makes the next start look through the file.
    if (r->db != NULL)
        gw_db_close(r->db, gw_db_damaged(r->db) ? GW_DB_END_MARKED : goes_on ? GW_DB_END_GOES_ON : GW_DB_END_CLEAN);
    free(r);
}

int gw_rows_begin(struct gw_rows *r, struct gw_err *err)
{
    return gw_stmt_run(r->stmts[GW_SQL_BEGIN], err);
}

int gw_rows_commit(struct gw_rows *r, struct gw_err *err)
{
    return gw_stmt_run(r->stmts[GW_SQL_COMMIT], err);
}

void gw_rows_rollback(struct gw_rows *r)
{
    if (gw_db_in_transaction(r->db))
        (void)gw_db_exec(r->db, "ROLLBACK", NULL);
}

int gw_rows_probe(struct gw_rows *r, struct gw_err *err)
{
    int64_t version;
    int rc = gw_db_int(r->db, "PRAGMA user_version", &version, err);
    if (rc != 0)
        return rc;
    char sql[64];
    (void)snprintf(sql, sizeof sql, "PRAGMA user_version = %d", (int)version);
    return gw_db_exec(r->db, sql, err);
}
