/* op.h - one thing asked of the store: what to do, and what came of it. */
#pragma once

#include "base/err.h"
#include "work/rows.h"

enum gw_op_kind {
    GW_OP_SUBMIT,
    GW_OP_START,
    GW_OP_FINISH,
    GW_OP_PROGRESS,
    GW_OP_CANCEL,
    GW_OP_CUT,      /* items: running rows become interrupted, or queued again */
    GW_OP_BOUNDARY, /* the same for every running row of ours up to generation */
    GW_OP_PROBE,
    GW_OP_GET,
    GW_OP_LIST,
    GW_OP_LOAD, /* the first queued tasks of a lane; with count also how many there are */
};

struct gw_op_item {
    char id[40];
    bool unstart; /* was never executed: queued again, the attempt does not count */
};

/* All pointers are owned. What an op's kind does not name is zero. */
struct gw_op {
    struct gw_op *next;
    enum gw_op_kind kind;
    uint64_t seq;
    /* asked */
    char id[40];
    struct gw_task task; /* submit: all of it; finish: how it ended. Answer: the row as it is now */
    char *input, *result;
    char *key, *body_sha256;
    int refuse; /* submit: only what the key named before is accepted, else this code */
    unsigned generation;
    int64_t now_ms;
    struct gw_op_item *items;
    size_t item_count;
    int status;
    unsigned limit; /* of the page, or of what a lane loads */
    char *lane, *text;
    bool count;
    /* answered */
    int code; /* 0, -ENOENT (no such row, or not in that state), -EALREADY, -EEXIST, refuse, or -EIO */
    struct gw_err err;
    bool existing;
    struct gw_task *tasks;
    size_t task_count;
    char next_id[40];
    struct gw_waiting *waiting;
    size_t waiting_count;
    int64_t queued;
    /* the loop thread's own */
    union {
        gw_submit_cb *submit;
        gw_task_cb *task;
        gw_tasks_cb *tasks;
    } cb;
    void *ud;
    int tries;
};
struct gw_op *gw_op_new(enum gw_op_kind kind);
void gw_op_free(struct gw_op *op);
bool gw_op_writes(enum gw_op_kind kind);

/* Ops in order. Zeroed is empty. */
struct gw_ops {
    struct gw_op *head, *tail; /* owned */
};
void gw_ops_add(struct gw_ops *l, struct gw_op *op);
struct gw_op *gw_ops_take(struct gw_ops *l);               /* the first, or NULL */
void gw_ops_append(struct gw_ops *l, struct gw_ops *more); /* more is empty afterwards */

/* Carries op out within the transaction that is open (reads need none). May be repeated after a roll-back.
 * Keys of before keys_since_ms are forgotten. Returns 0 with op->code and the answer set, or a negative errno when the store failed. Store thread only.
 */
int gw_op_apply(struct gw_op *op, struct gw_rows *rows, const char *boot_id, int64_t keys_since_ms,
                struct gw_err *err);
/* Adds what it ended. */
void gw_op_ends(const struct gw_op *op, struct gw_weight *ret);
/* Takes the answer back: code 0, nothing found. */
void gw_op_unanswer(struct gw_op *op);
