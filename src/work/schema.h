/* schema.h - what rows.c and schema.c share: the open store and its prepared statements. */
#pragma once

#include "work/db.h"

/* Each is spelled in schema.c. */
enum gw_row_statement {
    GW_SQL_BEGIN,
    GW_SQL_COMMIT,
    GW_SQL_INSERT,
    GW_SQL_INSERT_INPUT,
    GW_SQL_FIND_KEY,
    GW_SQL_PRUNE_KEYS,
    GW_SQL_GET,
    GW_SQL_GET_INPUT,
    GW_SQL_START,
    GW_SQL_UNSTART,
    GW_SQL_FINISH,
    GW_SQL_CANCEL,
    GW_SQL_PROGRESS,
    GW_SQL_END,
    GW_SQL_REQUEUE,
    GW_SQL_RUNNING,
    GW_SQL_LIST,
    GW_SQL_LIST_STATUS,
    GW_SQL_WAITING,
    GW_SQL_COUNT_LANE,
    GW_SQL_COUNT_LANES,
    GW_SQL_OLDEST,
    GW_SQL_DELETE_INPUT,
    GW_SQL_DELETE,
    GW_SQL_TICK,
    GW_SQL_STATEMENTS,
};

/* The column behind the task's own, in the statement that reads it. */
#define GW_SQL_COLUMN_INPUT 20

/* A name on disk, as it was when the store was opened. */
struct gw_name {
    char *path; /* owned */
    uint64_t dev, ino;
};

struct gw_rows {
    struct gw_db *db;                         /* owned */
    char *dir;                                /* owned */
    struct gw_name file, log, lock; /* the last is what says that the folder is ours */
    int64_t commits;  /* in the file, the last one acknowledged */
    int64_t clock_ms; /* goes into the file with each commit */
    int mark_fd;      /* see mark.h; -1: there is none */
    struct gw_stmt *stmts[GW_SQL_STATEMENTS]; /* owned */
};
