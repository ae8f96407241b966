/* What callers ask about tasks: submit, get, list, cancel. */
#include "base/err.h"
#include "base/json.h"
#include "base/str.h"
#include "base/time.h"
#include "work/inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_DEFAULT 100
#define LIST_MAX 1000
#define CANCEL_TRIES 4

/* ---- submit ---- */

static int check_text(const char *name, const char *text, struct gw_err *err)
{
    if (text != NULL && !gw_utf8_valid(text, strlen(text)))
        return gw_err_set(err, -EINVAL, "%s is not UTF-8", name);
    return 0;
}

static int check_spec(const struct gw_task_spec *spec, const struct gw_lane *lane, struct gw_err *err)
{
    if (lane == NULL || !lane->configured)
        return gw_err_set(err, -EINVAL, "unknown lane '%s'", spec->lane != NULL ? spec->lane : "main");
    if (spec->handler == NULL || *spec->handler == '\0')
        return gw_err_set(err, -EINVAL, "handler is missing");
    if (spec->timeout_ms < 0)
        return gw_err_set(err, -EINVAL, "timeout_ms is negative");
    if ((unsigned)spec->priority > GW_PRIORITY_LOW)
        return gw_err_set(err, -EINVAL, "unknown priority");
    int rc = check_text("handler", spec->handler, err);
    if (rc == 0)
        rc = check_text("label", spec->label, err);
    if (rc == 0)
        rc = check_text("title", spec->title, err);
    if (rc == 0)
        rc = check_text("the idempotency key", spec->idempotency_key, err);
    return rc;
}

/* Whether anything new is taken at all. */
static int admit(const struct gw_work *w, const struct gw_lane *lane, struct gw_err *err)
{
    if (w->generation == 0 || (w->fenced && !w->accept_queue))
        return gw_err_set(err, -ESHUTDOWN, "draining: no new work is taken");
    if (gw_lane_full(lane))
        return gw_err_set(err, -EBUSY, "lane '%s' is full: %lld tasks are waiting", lane->name,
                          (long long)(lane->queued + lane->submitting));
    return 0;
}

static void fill_task(struct gw_work *w, const struct gw_task_spec *spec, const struct gw_lane *lane,
                      struct gw_op *op)
{
    struct gw_task *t = &op->task;
    gw_work_make_id(w, 't', t->id);
    t->handler = gw_strdup(spec->handler);
    t->lane = gw_strdup(lane->name);
    t->label = gw_strdup(spec->label);
    t->title = gw_strdup(spec->title);
    t->priority = spec->priority;
    t->timeout_ms = spec->timeout_ms;
    t->retry_on_crash = spec->retry_on_crash;
    t->retry_on_interrupt = spec->retry_on_interrupt;
    t->created_at = gw_wall_ms();
    if (spec->input != NULL) {
        t->input = json_deep_copy(spec->input);
        op->input = gw_json_text(spec->input);
    }
    op->key = gw_strdup(spec->idempotency_key);
    op->body_sha256 = gw_strdup(spec->body_sha256);
}

void gw_task_submit(struct gw_work *w, const struct gw_task_spec *spec, gw_submit_cb *cb, void *ud)
{
    struct gw_op *op = gw_op_new(GW_OP_SUBMIT);
    struct gw_lane *lane = gw_lane_find(w, spec->lane != NULL ? spec->lane : "main");
    op->cb.submit = cb;
    op->ud = ud;
    op->code = check_spec(spec, lane, &op->err);
    if (op->code != 0) {
        gw_work_refuse(w, op);
        return;
    }
    if (!w->opened) // no id is sure to be new
        op->code = gw_err_set(&op->err, -EIO, "the task store is not open");
    if (op->code != 0) {
        gw_work_refuse(w, op);
        return;
    }
    op->refuse = admit(w, lane, &op->err);
    if (op->refuse != 0 && (spec->idempotency_key == NULL || w->handed)) {
        op->code = op->refuse;
        op->lane = gw_strdup(lane->name);
        gw_work_refuse(w, op);
        return;
    }
    // A key may name what was accepted before: that is answered even where nothing new is.
    fill_task(w, spec, lane, op);
    op->lane = gw_strdup(lane->name);
    if (op->refuse == 0)
        lane->submitting++;
    gw_work_post(w, op);
}

static void submitted(struct gw_work *w, struct gw_op *op)
{
    bool ok = op->code == 0, fresh = ok && !op->existing;
    if (op->lane != NULL) {
        struct gw_lane *lane = gw_lane_find(w, op->lane);
        if (op->refuse == 0)
            lane->submitting--;
        if (op->code == -ESHUTDOWN && lane->refused++ == 0 && w->ops.refusing != NULL)
            w->ops.refusing(w->ud, lane->name);
        if (fresh) {
            struct gw_waiting t = {.priority = op->task.priority, .created_at = op->task.created_at};
            memcpy(t.id, op->task.id, sizeof t.id);
            gw_lane_queue(lane, &t);
            w->submitted++;
        }
    }
    op->cb.submit(op->ud, op->code, ok ? &op->task : NULL, op->existing, ok ? NULL : &op->err);
    if (fresh)
        gw_work_tell_changed(w, &op->task);
}

/* ---- get, list ---- */

/* A progress that was reported is visible although it may not be written yet. */
static void overlay(struct gw_work *w, struct gw_task *t)
{
    if (t->status != GW_TASK_RUNNING)
        return;
    const struct gw_live *live = gw_live_find(w, t->id);
    if (live == NULL || live->state != GW_LIVE_RUNNING || live->task.progress == NULL)
        return;
    free(t->progress);
    t->progress = gw_strdup(live->task.progress);
}

void gw_task_get(struct gw_work *w, const char *id, gw_task_cb *cb, void *ud)
{
    struct gw_op *op = gw_op_new(GW_OP_GET);
    (void)snprintf(op->id, sizeof op->id, "%s", id);
    op->cb.task = cb;
    op->ud = ud;
    gw_work_post(w, op);
}

void gw_task_list(struct gw_work *w, const struct gw_task_filter *filter, gw_tasks_cb *cb, void *ud)
{
    struct gw_op *op = gw_op_new(GW_OP_LIST);
    op->status = filter->status;
    op->limit = filter->limit == 0 ? LIST_DEFAULT : filter->limit > LIST_MAX ? LIST_MAX : filter->limit;
    if (filter->after != NULL)
        (void)snprintf(op->id, sizeof op->id, "%s", filter->after);
    op->cb.tasks = cb;
    op->ud = ud;
    int64_t seq;
    if (filter->after != NULL && !gw_task_id_seq(filter->after, &seq)) {
        op->code = gw_err_set(&op->err, -EINVAL, "'%.40s' is no task's id", filter->after);
        gw_work_refuse(w, op);
        return;
    }
    gw_work_post(w, op);
}

static void answer_task(struct gw_work *w, struct gw_op *op)
{
    if (op->code == -ENOENT)
        (void)gw_err_set(&op->err, -ENOENT, "no task '%s'", op->id);
    // A task that is final already is shown beside the refusal.
    bool shown = op->code == 0 || op->code == -EALREADY;
    if (shown)
        overlay(w, &op->task);
    op->cb.task(op->ud, op->code, shown ? &op->task : NULL, op->code == 0 ? NULL : &op->err);
}

/* ---- cancel ---- */

void gw_task_cancel(struct gw_work *w, const char *id, gw_task_cb *cb, void *ud)
{
    struct gw_op *op = gw_op_new(GW_OP_CANCEL);
    (void)snprintf(op->id, sizeof op->id, "%s", id);
    op->now_ms = gw_wall_ms();
    op->cb.task = cb;
    op->ud = ud;
    gw_work_post(w, op);
}

/* Its row runs. Returns false when the store must be asked again, behind what is on its way there. */
static bool cancel_running(struct gw_work *w, struct gw_op *op)
{
    struct gw_live *t = gw_live_find(w, op->id);
    if (t != NULL && t->state == GW_LIVE_RUNNING) {
        if (t->end_as == GW_TASK_QUEUED)
            gw_live_end_as(w, t, GW_TASK_CANCELLED, gw_now_ms());
        op->code = 0;
        return true;
    }
    // Finishing, or cut: it ends without us, unless it goes back to the queue.
    return ++op->tries >= CANCEL_TRIES;
}

/* Takes op, which may be on its way to the store again. */
static void cancelled(struct gw_work *w, struct gw_op *op)
{
    if (op->code == 0) {
        struct gw_lane *lane = gw_lane_find(w, op->task.lane);
        struct gw_live *t = gw_live_find(w, op->id);
        bool starting = t != NULL && (t->state == GW_LIVE_STARTING || t->unstart);
        if (lane != NULL && !starting) // one that is starting was taken off the queue then
            gw_lane_forget(lane, op->id);
        w->finished++;
        gw_work_tell_changed(w, &op->task);
    } else if (op->code == -EALREADY) {
        if (op->task.status == GW_TASK_RUNNING && !cancel_running(w, op)) {
            gw_work_post(w, op);
            return;
        }
        if (op->code != 0)
            (void)gw_err_set(&op->err, -EALREADY, "task '%s' has ended already", op->id);
    }
    answer_task(w, op);
    gw_op_free(op);
}

void gw_request_answered(struct gw_work *w, struct gw_op *op)
{
    switch (op->kind) {
    case GW_OP_SUBMIT:
        submitted(w, op);
        break;
    case GW_OP_GET:
        answer_task(w, op);
        break;
    case GW_OP_LIST:
        for (size_t i = 0; i < op->task_count; i++)
            overlay(w, &op->tasks[i]);
        op->cb.tasks(op->ud, op->code, op->tasks, op->task_count, op->next_id[0] != '\0' ? op->next_id : NULL,
                     op->code == 0 ? NULL : &op->err);
        break;
    case GW_OP_CANCEL:
        cancelled(w, op);
        return;
    default:
        gw_assert(!"an op that callers ask for");
    }
    gw_op_free(op);
}
