/* Tasks that hold a slot: from the start of their running row to the executor's last word. */
#include "base/err.h"
#include "base/str.h"
#include "base/time.h"
#include "work/inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GRACE_MS 10000 /* an executor that was told to end has this long; it has its own TERM and KILL */
#define ERROR_BYTES 4096
#define PROGRESS_BYTES 1024

/* ---- by id ---- */

static size_t slot_of(const struct gw_work *w, const char *id)
{
    uint64_t h = 14695981039346656037u; // FNV-1a
    for (; *id != '\0'; id++)
        h = (h ^ (unsigned char)*id) * 1099511628211u;
    return (size_t)(h ^ h >> 32) & (w->table_size - 1);
}

struct gw_live *gw_live_find(struct gw_work *w, const char *id)
{
    if (w->table_size == 0)
        return NULL;
    struct gw_live *t = w->table[slot_of(w, id)];
    while (t != NULL && strcmp(t->task.id, id) != 0)
        t = t->chain;
    return t;
}

static void table_link(struct gw_work *w, struct gw_live *t)
{
    struct gw_live **slot = &w->table[slot_of(w, t->task.id)];
    t->chain = *slot;
    *slot = t;
}

static void table_add(struct gw_work *w, struct gw_live *t)
{
    if (w->table_used++ >= w->table_size) {
        struct gw_live **old = w->table;
        size_t n = w->table_size;
        w->table_size = n > 0 ? n * 2 : 64;
        w->table = gw_calloc(w->table_size, sizeof(struct gw_live *));
        for (size_t i = 0; i < n; i++) {
            for (struct gw_live *next, *u = old[i]; u != NULL; u = next) {
                next = u->chain;
                table_link(w, u);
            }
        }
        free(old);
    }
    table_link(w, t);
}

static void table_remove(struct gw_work *w, struct gw_live *t)
{
    struct gw_live **slot = &w->table[slot_of(w, t->task.id)];
    while (*slot != t)
        slot = &(*slot)->chain;
    *slot = t->chain;
    w->table_used--;
}

/* ---- slots ---- */

void gw_live_leave(struct gw_work *w, struct gw_live *t)
{
    if (t->state == GW_LIVE_GONE)
        return;
    if (t->state == GW_LIVE_STARTING)
        t->lane->starting--;
    t->state = GW_LIVE_GONE;
    gw_link_remove(&t->all);
    gw_link_add(&w->gone, &t->all);
    w->running--;
    w->excused_tasks -= t->excused;
    t->excused = false;
    gw_link_remove(&t->news);
    gw_link_remove(&t->unstored);
    gw_deadline_clear(w, t);
}

void gw_live_release(struct gw_work *w, struct gw_live *t)
{
    gw_live_leave(w, t);
    gw_link_remove(&t->all);
    gw_link_remove(&t->aborts);
    table_remove(w, t);
    t->lane->active--;
    gw_task_fini(&t->task);
    free(t);
    gw_work_wake(w); // the slot may be wanted
}

void gw_live_start(struct gw_work *w, struct gw_lane *l, const char *id)
{
    struct gw_live *t = gw_calloc(1, sizeof *t);
    gw_link_init(&t->news);
    gw_link_init(&t->unstored);
    gw_link_init(&t->aborts);
    gw_link_add(&w->live, &t->all);
    w->running++;
    (void)snprintf(t->task.id, sizeof t->task.id, "%s", id);
    table_add(w, t);
    t->lane = l;
    l->active++;
    l->starting++;
    t->state = GW_LIVE_STARTING;
    t->generation = w->generation;

    struct gw_op *op = gw_op_new(GW_OP_START);
    memcpy(op->id, t->task.id, sizeof op->id);
    op->generation = w->generation;
    op->now_ms = gw_wall_ms();
    gw_work_post(w, op);
}

void gw_live_started(struct gw_work *w, struct gw_op *op)
{
    struct gw_live *t = gw_live_find(w, op->id);
    // Cut, or the generation is over: the op that says so is behind this one in the store and undoes it.
    if (t == NULL || t->state != GW_LIVE_STARTING || t->generation != op->generation)
        return;
    if (op->code != 0) {
        struct gw_lane *l = t->lane;
        gw_live_release(w, t);
        if (op->code != -ENOENT) { // else it was cancelled just before
            l->queued++;
            l->stale = true; // it is still queued in the store; started when that is well
        }
        return;
    }
    t->lane->starting--;
    t->state = GW_LIVE_RUNNING;
    t->executing = true;
    t->started_ms = gw_now_ms();
    gw_task_fini(&t->task);
    gw_task_copy(&t->task, &op->task);
    if (op->task.timeout_ms > 0)
        gw_deadline_set(w, t, t->started_ms + (uint64_t)op->task.timeout_ms);
    gw_work_tell_changed(w, &op->task);
    w->ops.execute(w->ud, &op->task); // may finish it already
}

/* ---- the end ---- */

/* Ownership of text and value goes into the op. */
static void post_end(struct gw_work *w, struct gw_live *t, enum gw_task_status status, char *result,
                     json_t *value, char *error)
{
    struct gw_op *op = gw_op_new(GW_OP_FINISH);
    (void)snprintf(op->task.id, sizeof op->task.id, "%s", t->task.id);
    op->task.status = status;
    op->task.ended_at = gw_wall_ms();
    op->task.result = value;
    op->task.error = error;
    op->task.progress = gw_strdup(t->task.progress);
    op->result = result;
    op->generation = t->generation;
    t->state = GW_LIVE_FINISHING;
    gw_deadline_clear(w, t);
    gw_link_remove(&t->unstored);
    gw_work_post(w, op);
}

int gw_task_finish(struct gw_work *w, const char *id, unsigned generation, enum gw_task_status status,
                   const json_t *result, const char *error)
{
    gw_assert(status == GW_TASK_SUCCEEDED || status == GW_TASK_FAILED);
    struct gw_live *t = gw_live_find(w, id);
    if (t == NULL || t->generation != generation || !t->executing)
        return -ENOENT;
    t->executing = false;
    gw_link_remove(&t->aborts);
    if (t->state == GW_LIVE_GONE) {
        // Cut, or ended without the executor: this is only the end of its slot.
        t->lane->stale = true; // it may be queued again, and was left out while it was here
        gw_live_release(w, t);
        return -ENOENT;
    }
    if (t->state != GW_LIVE_RUNNING)
        return -ENOENT;
    if (t->end_as != GW_TASK_QUEUED)
        status = t->end_as;
    json_t *value;
    char *text = gw_task_bound_result(result, &value), *words = NULL;
    if (status == GW_TASK_TIMED_OUT)
        words = gw_asprintf("took longer than its timeout_ms of %lld", (long long)t->task.timeout_ms);
    else if (status != GW_TASK_SUCCEEDED)
        words = gw_task_bound_text(error, ERROR_BYTES);
    post_end(w, t, status, text, value, words);
    return 0;
}

void gw_live_finished(struct gw_work *w, struct gw_op *op)
{
    struct gw_live *t = gw_live_find(w, op->task.id);
    if (op->code == 0 && op->task_count == 1) {
        w->finished++;
        gw_work_tell_changed(w, &op->tasks[0]);
        t = gw_live_find(w, op->task.id);
    }
    if (t == NULL || t->generation != op->generation || t->state == GW_LIVE_STARTING)
        return;
    if (t->executing)
        gw_live_leave(w, t);
    else
        gw_live_release(w, t);
}

/* ---- told to end ---- */

void gw_live_abort(struct gw_work *w, struct gw_live *t, enum gw_abort why)
{
    t->abort_why = why;
    if (gw_link_alone(&t->aborts))
        gw_link_add(&w->task_aborts, &t->aborts);
    gw_work_wake(w);
}

void gw_live_end_as(struct gw_work *w, struct gw_live *t, enum gw_task_status status, uint64_t now_ms)
{
    t->end_as = status;
    gw_deadline_set(w, t, now_ms + GRACE_MS);
    gw_live_abort(w, t, status == GW_TASK_CANCELLED ? GW_ABORT_CANCEL : GW_ABORT_TIMEOUT);
}

void gw_live_tick(struct gw_work *w, uint64_t now_ms)
{
    while (w->heap_used > 0 && w->heap[0]->deadline_ms <= now_ms) {
        struct gw_live *t = w->heap[0];
        if (t->end_as == GW_TASK_QUEUED) {
            gw_live_end_as(w, t, GW_TASK_TIMED_OUT, now_ms);
            continue;
        }
        // The executor had its grace. The task ends, so that nobody waits for what cannot end; the slot stays
        // held, because the work may still be going on.
        post_end(w, t, t->end_as, NULL, NULL, gw_strdup("did not end when told to"));
    }
}

/* ---- progress ---- */

int gw_task_progress(struct gw_work *w, const char *id, unsigned generation, const char *text)
{
    struct gw_live *t = gw_live_find(w, id);
    if (t == NULL || t->generation != generation || t->state != GW_LIVE_RUNNING)
        return -ENOENT;
    free(t->task.progress);
    t->task.progress = gw_task_bound_text(text, PROGRESS_BYTES);
    if (gw_link_alone(&t->unstored))
        gw_link_add(&w->unstored, &t->unstored);
    if (gw_link_alone(&t->news)) {
        gw_link_add(&w->news, &t->news);
        gw_work_wake(w);
    }
    return 0;
}

void gw_live_news(struct gw_work *w)
{
    // Callbacks may report more: that waits for the next dispatch.
    struct gw_link now = w->news;
    if (gw_link_alone(&w->news))
        return;
    now.next->prev = now.prev->next = &now;
    gw_link_init(&w->news);
    while (!gw_link_alone(&now)) {
        struct gw_live *t = gw_link_of(now.next, struct gw_live, news);
        struct gw_task copy;
        gw_link_remove(&t->news);
        gw_task_copy(&copy, &t->task);
        gw_work_tell_changed(w, &copy);
        gw_task_fini(&copy);
    }
}

void gw_live_store_progress(struct gw_work *w, struct gw_ops *ops)
{
    while (!gw_link_alone(&w->unstored)) {
        struct gw_live *t = gw_link_of(w->unstored.next, struct gw_live, unstored);
        struct gw_op *op = gw_op_new(GW_OP_PROGRESS);
        gw_link_remove(&t->unstored);
        memcpy(op->id, t->task.id, sizeof op->id);
        op->text = gw_strdup(t->task.progress);
        gw_ops_add(ops, op);
    }
}
