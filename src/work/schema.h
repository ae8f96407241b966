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
    GW_SQL_PRUNE_INPUTS,
    GW_SQL_PRUNE,
    GW_SQL_STATEMENTS,
};

/* Columns behind the task's own, in the statements that read one. */
#define GW_SQL_COLUMN_BODY 19
#define GW_SQL_COLUMN_INPUT 20

struct gw_rows {
    struct gw_db *db;                         /* owned */
    struct gw_stmt *stmts[GW_SQL_STATEMENTS]; /* owned */
};
