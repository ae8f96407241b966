#include "work/batch.h"

#include "base/time.h"

#include <errno.h>

#define DOUBT_MS 5000 /* how long an answer waits until it is known to be true */

/* Ends are kept until they are written. */
static bool must(enum gw_op_kind kind)
{
    return kind == GW_OP_FINISH || kind == GW_OP_CUT || kind == GW_OP_BOUNDARY;
}

static bool any_writes(const struct gw_ops *ops)
{
    for (const struct gw_op *op = ops->head; op != NULL; op = op->next)
        if (gw_op_writes(op->kind))
            return true;
    return false;
}

static int apply(struct gw_batch *b, struct gw_op *op, struct gw_err *err)
{
    return gw_op_apply(op, b->rows, b->boot_id, b->retain.clock_ms - GW_KEY_MS, err);
}

/* Carries out all of them in one transaction, or none. *ret_doubt: a commit that failed at its very end is in the log
 * as whole as any other, and a crash now would bring it back. */
static int attempt(struct gw_batch *b, struct gw_ops *ops, bool writes, bool *ret_doubt, struct gw_err *err)
{
    *ret_doubt = false;
    if (writes)
        gw_rows_clock(b->rows, gw_retain_clock(&b->retain, gw_wall_ms(), gw_now_ms()));
    int rc = writes ? gw_rows_begin(b->rows, err) : 0;
    for (struct gw_op *op = ops->head; rc == 0 && op != NULL; op = op->next)
        rc = apply(b, op, err);
    if (rc == 0 && writes) {
        rc = gw_rows_commit(b->rows, err);
        *ret_doubt = rc != 0 && gw_rows_unsynced(b->rows);
    }
    if (rc != 0)
        gw_rows_rollback(b->rows);
    return rc;
}

static void count(struct gw_batch *b, const struct gw_ops *ops)
{
    struct gw_weight ended = {0, 0};
    for (const struct gw_op *op = ops->head; op != NULL; op = op->next)
        gw_op_ends(op, &ended);
    gw_retain_add(&b->retain, &ended, gw_now_ms());
}

static void refuse(struct gw_op *op, const struct gw_err *why)
{
    gw_op_unanswer(op);
    op->err = *why;
    op->err.code = op->code = -EIO;
}

/* After a failed attempt: ends once more without what may have been too much, reads on their own. What is not true
 * as long as the log may say otherwise is not answered yet. */
static void salvage(struct gw_batch *b, struct gw_ops *ops, bool usable, bool doubt, const struct gw_err *why)
{
    struct gw_ops ends = {0}, others = {0};
    bool smaller = false, again;
    for (struct gw_op *op; (op = gw_ops_take(ops)) != NULL;) {
        smaller = smaller || !must(op->kind);
        gw_ops_add(must(op->kind) ? &ends : &others, op);
    }
    bool wrote = usable && ends.head != NULL && smaller && attempt(b, &ends, true, &again, NULL) == 0;
    if (wrote)
        count(b, &ends);
    doubt = doubt && !wrote && gw_rows_probe(b->rows, NULL) != 0;
    gw_ops_append(wrote ? ops : &b->kept, &ends);
    for (struct gw_op *op; (op = gw_ops_take(&others)) != NULL;) {
        struct gw_err err = *why;
        bool writes = gw_op_writes(op->kind);
        if (writes || b->rows == NULL || apply(b, op, &err) != 0)
            refuse(op, &err);
        if (doubt && writes && b->doubt.head == NULL)
            b->doubt_ms = gw_now_ms();
        gw_ops_add(doubt && writes ? &b->doubt : ops, op);
    }
}

/* Puts those that were refused in front of ops once it is true that they were; or, after a while, tells those who
 * asked that it is not known. A start that may be in the log must not be taken back at all. */
static void settle(struct gw_batch *b, bool wrote, struct gw_ops *ops)
{
    struct gw_ops told = {0}, wait = {0};
    bool over = b->doubt.head != NULL && gw_now_ms() - b->doubt_ms >= DOUBT_MS;
    for (struct gw_op *op; (op = gw_ops_take(&b->doubt)) != NULL;) {
        bool asked = op->kind == GW_OP_SUBMIT || op->kind == GW_OP_CANCEL;
        if (!wrote && over && asked)
            op->code = gw_err_set(&op->err, -EINPROGRESS, "the task store failed, and it is not known whether this was "
                                  "taken: ask again with the same Idempotency-Key, or look for it once the store is well");
        gw_ops_add(wrote || (over && asked) ? &told : &wait, op);
    }
    b->doubt = wait;
    gw_ops_append(&told, ops);
    *ops = told;
}

bool gw_batch_gather(struct gw_batch *b, struct gw_ops *io_ops, bool try)
{
    struct gw_ops ops = b->kept;
    b->kept = (struct gw_ops){0};
    gw_ops_append(&ops, io_ops);
    *io_ops = ops;
    return try || any_writes(&ops) || b->doubt.head != NULL;
}

int gw_batch_run(struct gw_batch *b, struct gw_ops *io_ops, bool writes, int code, struct gw_err *err)
{
    bool usable = code == 0, doubt = false;
    if (usable)
        code = attempt(b, io_ops, writes, &doubt, err);
    if (code == 0)
        count(b, io_ops);
    else
        salvage(b, io_ops, usable, doubt, err);
    settle(b, code == 0 && writes, io_ops);
    return code;
}

bool gw_batch_waits(const struct gw_batch *b)
{
    return b->kept.head != NULL || b->doubt.head != NULL;
}
