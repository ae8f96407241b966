/* db.h - the one door to sqlite3: a connection, prepared statements, errors as negative errno.
 *
 * Everything here belongs to one thread at a time, the store's (thread 3). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gw_err;
struct gw_db;
struct gw_stmt;

/* Opens path for reading and writing, making it (0600) when absent. Nothing is written to the file yet.
 * Returns 0, or -EUCLEAN (not a database, or a damaged one), -EBUSY (locked by another process), -ENOSPC,
 * -EROFS, -EIO or the errno of opening, with the path in err. The same codes come from all functions here. */
int gw_db_open(const char *path, unsigned busy_ms, struct gw_db **ret_db, struct gw_err *err);
/* Statements must be freed before. */
enum gw_db_end {
    GW_DB_END_CLEAN,  /* the log is written back and removed */
    GW_DB_END_MARKED, /* it stays beside the file, the mark of an unclean end */
    GW_DB_END_GOES_ON /* it stays, and nothing waits for the disk: who opens the file next does so at once */
};
void gw_db_close(struct gw_db *db, enum gw_db_end end);
/* Writes the log back as far as nobody has to wait for it. */
void gw_db_checkpoint(struct gw_db *db);

int gw_db_exec(struct gw_db *db, const char *sql, struct gw_err *err);
/* The first column of the first row of sql as a number. */
int gw_db_int(struct gw_db *db, const char *sql, int64_t *ret, struct gw_err *err);
/* Looks through the whole file, for at most max_ms. Returns 0, or -EUCLEAN with the first fault in err. */
int gw_db_check(struct gw_db *db, unsigned max_ms, struct gw_err *err);
/* True from BEGIN to its COMMIT or ROLLBACK; a failed statement may have rolled back by itself. */
bool gw_db_in_transaction(const struct gw_db *db);
/* Damage was met since the file was opened. */
bool gw_db_damaged(const struct gw_db *db);
/* The last failure was one to make durable what had been written: a commit is in the log then, whole. */
bool gw_db_unsynced(const struct gw_db *db);
/* Rows changed by the last statement. */
int64_t gw_db_changes(const struct gw_db *db);

int gw_db_prepare(struct gw_db *db, const char *sql, struct gw_stmt **ret_stmt, struct gw_err *err);
void gw_stmt_free(struct gw_stmt *s); /* NULL is fine */
/* Parameters count from 1. The text must live until gw_stmt_reset(); NULL is SQL's NULL. */
void gw_stmt_text(struct gw_stmt *s, int i, const char *text);
void gw_stmt_int(struct gw_stmt *s, int i, int64_t value);
/* 1: there is a row; 0: done; or a negative errno. */
int gw_stmt_step(struct gw_stmt *s, struct gw_err *err);
void gw_stmt_reset(struct gw_stmt *s);
/* For statements without rows: step and reset. */
int gw_stmt_run(struct gw_stmt *s, struct gw_err *err);
/* Columns count from 0. Text is valid until the next step or reset; NULL for SQL's NULL. */
const char *gw_stmt_column_text(struct gw_stmt *s, int i, size_t *ret_len);
int64_t gw_stmt_column_int(struct gw_stmt *s, int i);
