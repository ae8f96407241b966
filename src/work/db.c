#include "work/db.h"

#include "base/err.h"
#include "base/str.h"
#include "base/time.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK_OPS 20000 /* virtual machine steps between two looks at the clock */

struct gw_db {
    sqlite3 *handle; /* owned */
    char *path;      /* owned */
    uint64_t check_until_ms;
    bool damaged, unsynced;
};

struct gw_stmt {
    sqlite3_stmt *handle; /* owned */
    struct gw_db *db;     /* borrowed */
};

static int to_errno(struct gw_db *db, int rc)
{
    switch (rc & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return -EUCLEAN;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return -EBUSY;
    case SQLITE_FULL:
        return -ENOSPC;
    case SQLITE_READONLY:
        return -EROFS;
    case SQLITE_CONSTRAINT:
        return -EEXIST;
    case SQLITE_CANTOPEN: {
        int e = sqlite3_system_errno(db->handle);
        return e > 0 ? -e : -EIO;
    }
    default:
        return -EIO;
    }
}

static int failed(struct gw_db *db, int rc, struct gw_err *err)
{
    int code = to_errno(db, rc);
    gw_assert((rc & 0xff) != SQLITE_NOMEM && (rc & 0xff) != SQLITE_MISUSE);
    if (code == -EUCLEAN)
        db->damaged = true;
    db->unsynced = rc == SQLITE_IOERR_FSYNC;
    int e = sqlite3_system_errno(db->handle);
    if (code == -EBUSY)
        return gw_err_set(err, code, "store '%s' is locked by another process", db->path);
    if (code == -EIO && e > 0)
        return gw_err_set(err, code, "store '%s': %s (%s)", db->path, sqlite3_errstr(rc), strerror(e));
    return gw_err_set(err, code, "store '%s': %s", db->path, sqlite3_errmsg(db->handle));
}

int gw_db_open(const char *path, unsigned busy_ms, struct gw_db **ret_db, struct gw_err *err)
{
    // Made here for its mode, which sqlite gives to the log beside it too. Closed before sqlite opens the
    // file: closing any descriptor of it later would drop sqlite's own POSIX locks.
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (fd < 0) {
        int code = -errno;
        return gw_err_set(err, code, "open store '%s': %s", path, gw_strerror(code));
    }
    (void)close(fd);

    // Statistics of memory cost a lock at each allocation. Refused, harmlessly, once sqlite is in use.
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    struct gw_db *db = gw_calloc(1, sizeof *db);
    db->path = gw_strdup(path);
    int rc = sqlite3_open_v2(path, &db->handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    int code = rc == SQLITE_OK ? 0 : failed(db, rc, err);
    if (code == 0) {
        (void)sqlite3_extended_result_codes(db->handle, 1);
        (void)sqlite3_busy_timeout(db->handle, (int)busy_ms);
        if (sqlite3_db_readonly(db->handle, "main") == 1)
            code = gw_err_set(err, -EROFS, "store '%s' cannot be written", path);
    }
    if (code != 0) {
        gw_db_close(db, GW_DB_END_CLEAN);
        return code;
    }
    *ret_db = db;
    return 0;
}

void gw_db_checkpoint(struct gw_db *db)
{
    (void)sqlite3_wal_checkpoint_v2(db->handle, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
}

void gw_db_close(struct gw_db *db, enum gw_db_end end)
{
    if (db == NULL)
        return;
    int keep = end == GW_DB_END_MARKED ? 1 : 0;
    (void)sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_PERSIST_WAL, &keep);
    (void)sqlite3_db_config(db->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, end == GW_DB_END_GOES_ON, NULL);
    int rc = sqlite3_close(db->handle);
    gw_assert(rc == SQLITE_OK);
    free(db->path);
    free(db);
}

int gw_db_exec(struct gw_db *db, const char *sql, struct gw_err *err)
{
    int rc = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : failed(db, rc, err);
}

int gw_db_int(struct gw_db *db, const char *sql, int64_t *ret, struct gw_err *err)
{
    struct gw_stmt *s;
    int rc = gw_db_prepare(db, sql, &s, err);
    if (rc != 0)
        return rc;
    rc = gw_stmt_step(s, err);
    if (rc >= 0)
        *ret = rc == 1 ? gw_stmt_column_int(s, 0) : 0;
    gw_stmt_free(s);
    return rc < 0 ? rc : 0;
}

static int check_time_over(void *ud)
{
    const struct gw_db *db = ud;
    return gw_now_ms() >= db->check_until_ms;
}

int gw_db_check(struct gw_db *db, unsigned max_ms, struct gw_err *err)
{
    sqlite3_stmt *s;
    int rc = sqlite3_prepare_v2(db->handle, "PRAGMA quick_check(1)", -1, &s, NULL);
    if (rc != SQLITE_OK)
        return failed(db, rc, err);
    db->check_until_ms = gw_now_ms() + max_ms;
    sqlite3_progress_handler(db->handle, CHECK_OPS, check_time_over, db);
    rc = sqlite3_step(s);
    sqlite3_progress_handler(db->handle, 0, NULL, NULL);
    int code = 0;
    if (rc == SQLITE_ROW && strcmp((const char *)sqlite3_column_text(s, 0), "ok") != 0) {
        db->damaged = true;
        code = gw_err_set(err, -EUCLEAN, "store '%s': %s", db->path, (const char *)sqlite3_column_text(s, 0));
    } else if (rc != SQLITE_ROW && rc != SQLITE_DONE && (rc & 0xff) != SQLITE_INTERRUPT) {
        code = failed(db, rc, err);
    }
    (void)sqlite3_finalize(s);
    return code;
}

bool gw_db_in_transaction(const struct gw_db *db)
{
    return sqlite3_get_autocommit(db->handle) == 0;
}

bool gw_db_damaged(const struct gw_db *db)
{
    return db->damaged;
}

bool gw_db_unsynced(const struct gw_db *db)
{
    return db->unsynced;
}

int64_t gw_db_changes(const struct gw_db *db)
{
    return sqlite3_changes64(db->handle);
}

int gw_db_prepare(struct gw_db *db, const char *sql, struct gw_stmt **ret_stmt, struct gw_err *err)
{
    sqlite3_stmt *handle;
    int rc = sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &handle, NULL);
    if (rc != SQLITE_OK)
        return failed(db, rc, err);
    struct gw_stmt *s = gw_calloc(1, sizeof *s);
    s->handle = handle;
    s->db = db;
    *ret_stmt = s;
    return 0;
}

void gw_stmt_free(struct gw_stmt *s)
{
    if (s == NULL)
        return;
    (void)sqlite3_finalize(s->handle);
    free(s);
}

void gw_stmt_text(struct gw_stmt *s, int i, const char *text)
{
    int rc = text != NULL ? sqlite3_bind_text(s->handle, i, text, -1, SQLITE_STATIC)
                          : sqlite3_bind_null(s->handle, i);
    gw_assert(rc == SQLITE_OK);
}

void gw_stmt_int(struct gw_stmt *s, int i, int64_t value)
{
    int rc = sqlite3_bind_int64(s->handle, i, value);
    gw_assert(rc == SQLITE_OK);
}

int gw_stmt_step(struct gw_stmt *s, struct gw_err *err)
{
    int rc = sqlite3_step(s->handle);
    if (rc == SQLITE_ROW)
        return 1;
    return rc == SQLITE_DONE ? 0 : failed(s->db, rc, err);
}

void gw_stmt_reset(struct gw_stmt *s)
{
    (void)sqlite3_reset(s->handle);
    (void)sqlite3_clear_bindings(s->handle);
}

int gw_stmt_run(struct gw_stmt *s, struct gw_err *err)
{
    int rc = gw_stmt_step(s, err);
    gw_stmt_reset(s);
    return rc < 0 ? rc : 0;
}

const char *gw_stmt_column_text(struct gw_stmt *s, int i, size_t *ret_len)
{
    const char *text = (const char *)sqlite3_column_text(s->handle, i);
    if (ret_len != NULL)
        *ret_len = text != NULL ? (size_t)sqlite3_column_bytes(s->handle, i) : 0;
    return text;
}

int64_t gw_stmt_column_int(struct gw_stmt *s, int i)
{
    return sqlite3_column_int64(s->handle, i);
}
