#include "work/op.h"

#include "base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct gw_op *gw_op_new(enum gw_op_kind kind)
{
    struct gw_op *op = gw_calloc(1, sizeof *op);
    op->kind = kind;
    return op;
}

void gw_op_unanswer(struct gw_op *op)
{
    for (size_t i = 0; i < op->task_count; i++)
        gw_task_fini(&op->tasks[i]);
    free(op->tasks);
    free(op->waiting);
    op->tasks = NULL;
    op->task_count = 0;
    op->waiting = NULL;
    op->waiting_count = 0;
    op->existing = false;
    op->code = 0;
}

void gw_op_free(struct gw_op *op)
{
    if (op == NULL)
        return;
    gw_op_unanswer(op);
    gw_task_fini(&op->task);
    free(op->input);
    free(op->result);
    free(op->key);
    free(op->body_sha256);
    free(op->items);
    free(op->lane);
    free(op->text);
    free(op);
}

bool gw_op_writes(enum gw_op_kind kind)
{
    return kind < GW_OP_GET;
}

void gw_ops_add(struct gw_ops *l, struct gw_op *op)
{
    op->next = NULL;
    if (l->tail != NULL)
        l->tail->next = op;
    else
        l->head = op;
    l->tail = op;
}

struct gw_op *gw_ops_take(struct gw_ops *l)
{
    struct gw_op *op = l->head;
    if (op == NULL)
        return NULL;
    l->head = op->next;
    if (l->head == NULL)
        l->tail = NULL;
    op->next = NULL;
    return op;
}

void gw_ops_append(struct gw_ops *l, struct gw_ops *more)
{
    if (more->head == NULL)
        return;
    if (l->tail != NULL)
        l->tail->next = more->head;
    else
        l->head = more->head;
    l->tail = more->tail;
    *more = (struct gw_ops){0};
}

/* ---- carrying out ---- */

/* The row as it is now replaces what was asked. An op that was rolled back asks again: what it asked is in
 * its other fields, but for submit and finish, whose task is put back by the caller. */
static int read_back(struct gw_rows *rows, const char *id, bool with_input, struct gw_task *ret,
                     bool *ret_found, struct gw_err *err)
{
    struct gw_task t = {0};
    int rc = gw_rows_get(rows, id, with_input, &t, ret_found, err);
    if (rc == 0 && *ret_found) {
        gw_task_fini(ret);
        *ret = t;
    }
    return rc;
}

static int submit(struct gw_rows *rows, struct gw_op *op, int64_t keys_since_ms, struct gw_err *err)
{
    bool found = false, same = false;
    struct gw_task old = {0};
    if (op->key != NULL) {
        int rc = gw_rows_find_key(rows, op->key, op->body_sha256, keys_since_ms, &old, &found, &same, err);
        if (rc != 0)
            return rc;
    }
    if (!found && op->refuse != 0) {
        op->code = op->refuse;
        return 0;
    }
    if (!found)
        return gw_rows_insert(rows, &op->task, op->input, op->key, op->body_sha256, err);
    if (same) {
        op->existing = true;
        gw_task_fini(&op->task);
        op->task = old;
    } else {
        op->code = gw_err_set(&op->err, -EEXIST, "the idempotency key was used for another request");
        gw_task_fini(&old);
    }
    return 0;
}

static int cut(struct gw_rows *rows, struct gw_op *op, const struct gw_owner *by, struct gw_err *err)
{
    op->tasks = gw_calloc(op->item_count + 1, sizeof *op->tasks);
    for (size_t i = 0; i < op->item_count; i++) {
        const struct gw_op_item *item = &op->items[i];
        bool changed, found;
        int rc = item->unstart ? gw_rows_unstart(rows, item->id, by, &changed, err)
                               : gw_rows_interrupt(rows, item->id, by->boot_id, op->now_ms, &changed, err);
        if (rc == 0)
            rc = gw_rows_get(rows, item->id, false, &op->tasks[op->task_count], &found, err);
        if (rc != 0)
            return rc;
        op->task_count += found;
    }
    return 0;
}

static int boundary(struct gw_rows *rows, struct gw_op *op, const struct gw_owner *by, struct gw_err *err)
{
    struct gw_sweep sweep = {.boot_id = by->boot_id, .generation = op->generation, .now_ms = op->now_ms};
    for (size_t i = 0; i < op->item_count; i++) {
        bool changed;
        int rc = gw_rows_unstart(rows, op->items[i].id, by, &changed, err);
        if (rc != 0)
            return rc;
    }
    return gw_rows_sweep(rows, &sweep, &op->tasks, &op->task_count, err);
}

static int load(struct gw_rows *rows, struct gw_op *op, struct gw_err *err)
{
    op->waiting = gw_calloc(op->limit, sizeof *op->waiting);
    int rc = gw_rows_waiting(rows, op->lane, op->waiting, op->limit, &op->waiting_count, err);
    if (rc != 0 || !op->count)
        return rc;
    struct gw_lane_queued *lanes;
    size_t n;
    rc = gw_rows_count_queued(rows, op->lane, &lanes, &n, err);
    op->queued = 0;
    for (size_t i = 0; i < n; i++) {
        op->queued = lanes[i].queued;
        free(lanes[i].lane);
    }
    free(lanes);
    return rc;
}

int gw_op_apply(struct gw_op *op, struct gw_rows *rows, const char *boot_id, int64_t keys_since_ms,
                struct gw_err *err)
{
    const struct gw_owner by = {boot_id, op->generation};
    bool changed = true, found = true;
    int rc = 0;
    gw_op_unanswer(op);
    switch (op->kind) {
    case GW_OP_SUBMIT:
        return submit(rows, op, keys_since_ms, err);
    case GW_OP_START:
        rc = gw_rows_start(rows, op->id, &by, op->now_ms, &changed, err);
        if (rc == 0 && changed)
            rc = read_back(rows, op->id, true, &op->task, &found, err);
        break;
    case GW_OP_FINISH:
        // Its task stays what was asked, for another try; the row as it is now goes beside it.
        rc = gw_rows_finish(rows, &op->task, op->result, &by, &changed, err);
        if (rc == 0 && changed) {
            op->tasks = gw_calloc(1, sizeof *op->tasks);
            rc = gw_rows_get(rows, op->task.id, false, op->tasks, &found, err);
            op->task_count = rc == 0 && found;
        }
        break;
    case GW_OP_PROGRESS:
        rc = gw_rows_progress(rows, op->id, boot_id, op->text, err);
        break;
    case GW_OP_CANCEL:
        rc = gw_rows_cancel(rows, op->id, boot_id, op->now_ms, &changed, err);
        if (rc == 0)
            rc = read_back(rows, op->id, false, &op->task, &found, err);
        if (rc == 0 && found && !changed) {
            op->code = -EALREADY; // running or final: op->task tells which
            changed = true;
        }
        break;
    case GW_OP_CUT:
        rc = cut(rows, op, &by, err);
        break;
    case GW_OP_BOUNDARY:
        rc = boundary(rows, op, &by, err);
        break;
    case GW_OP_PROBE: // the commit itself writes
        break;
    case GW_OP_GET:
        rc = read_back(rows, op->id, true, &op->task, &found, err);
        break;
    case GW_OP_LIST: {
        const struct gw_task_filter filter = {op->status, op->limit, op->id};
        rc = gw_rows_list(rows, &filter, &op->tasks, &op->task_count, op->next_id, err);
        break;
    }
    case GW_OP_LOAD:
        rc = load(rows, op, err);
        break;
    }
    if (rc == 0 && (!changed || !found))
        op->code = -ENOENT;
    return rc;
}

static void add_end(const struct gw_task *t, struct gw_weight *ret)
{
    if (!gw_task_status_final(t->status))
        return;
    ret->rows++;
    ret->bytes += t->bytes + GW_ROW_BYTES;
}

void gw_op_ends(const struct gw_op *op, struct gw_weight *ret)
{
    if (op->kind == GW_OP_CANCEL && op->code == 0)
        add_end(&op->task, ret);
    if (op->kind == GW_OP_FINISH || op->kind == GW_OP_CUT || op->kind == GW_OP_BOUNDARY)
        for (size_t i = 0; i < op->task_count; i++)
            add_end(&op->tasks[i], ret);
}
