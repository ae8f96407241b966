/* The end of a generation's work: nothing new, wait for what there is, cut what does not end. */
#include "base/err.h"
#include "base/str.h"
#include "base/time.h"
#include "work/inside.h"

#include <stdlib.h>
#include <string.h>

#define MARK_MS 1000 /* how long a cut waits for its mark in the store */

void gw_work_fence(struct gw_work *w, bool accept_queue)
{
    for (size_t i = 0; !w->fenced && i < w->lane_count; i++)
        w->lanes[i]->refused = 0;
    w->fenced = true;
    w->accept_queue = accept_queue;
    w->drain_watch = true;
    gw_work_wake(w);
}

static void abort_run(struct gw_work *w, struct gw_run *run, enum gw_abort why)
{
    run->abort_why = why;
    if (gw_link_alone(&run->aborts))
        gw_link_add(&w->run_aborts, &run->aborts);
    gw_work_wake(w);
}

unsigned gw_work_abort_compacting(struct gw_work *w)
{
    unsigned n = 0;
    for (struct gw_link *l = w->runs.next; l != &w->runs; l = l->next) {
        struct gw_run *run = gw_link_of(l, struct gw_run, all);
        if (!run->compacting)
            continue;
        abort_run(w, run, GW_ABORT_COMPACTING);
        n++;
    }
    return n;
}

static unsigned cut_tasks(struct gw_work *w, const char *lane, struct gw_op *op)
{
    unsigned n = 0;
    op->items = gw_calloc(w->running + 1, sizeof *op->items);
    for (struct gw_link *next, *l = w->live.next; l != &w->live; l = next) {
        struct gw_live *t = gw_link_of(l, struct gw_live, all);
        next = l->next;
        if (lane != NULL && strcmp(t->lane->name, lane) != 0)
            continue;
        // One that is finishing is not marked: its own end is on its way to the store, ahead of this.
        if (t->state != GW_LIVE_FINISHING) {
            struct gw_op_item *item = &op->items[op->item_count++];
            memcpy(item->id, t->task.id, sizeof item->id);
            item->unstart = t->unstart = t->state == GW_LIVE_STARTING;
            n++;
            if (t->executing)
                gw_live_abort(w, t, GW_ABORT_DRAIN);
        }
        gw_live_leave(w, t);
    }
    return n;
}

static unsigned cut_runs(struct gw_work *w)
{
    unsigned n = w->run_count;
    while (!gw_link_alone(&w->runs)) {
        struct gw_run *run = gw_link_of(w->runs.next, struct gw_run, all);
        gw_link_remove(&run->all);
        gw_link_add(&w->cut_runs, &run->all);
        run->cut = true;
        abort_run(w, run, GW_ABORT_DRAIN);
    }
    w->run_count = w->excused_runs = 0;
    return n;
}

void gw_work_cut(struct gw_work *w, const char *lane, unsigned *ret_tasks, unsigned *ret_runs)
{
    struct gw_op *op = gw_op_new(GW_OP_CUT);
    op->generation = w->generation;
    op->now_ms = gw_wall_ms();
    gw_live_store_progress(w, &w->staged); // how far they came is part of what is kept of them
    unsigned before = w->running, tasks = cut_tasks(w, lane, op);
    unsigned runs = lane == NULL ? cut_runs(w) : 0;
    if (tasks > 0)
        gw_work_post(w, op);
    else
        gw_op_free(op);
    // Marked before it is told. A store that does not answer in time keeps the mark in its queue; were the
    // host to die before it is written, the next boot finds the tasks running and calls them lost.
    if (w->running < before)
        (void)gw_store_wait(w->store, gw_work_flush(w), MARK_MS);
    gw_work_wake(w);
    if (ret_tasks != NULL)
        *ret_tasks = tasks;
    if (ret_runs != NULL)
        *ret_runs = runs;
}

void gw_drain_cut_done(struct gw_work *w, struct gw_op *op)
{
    for (size_t i = 0; i < op->item_count; i++) {
        struct gw_live *t = gw_live_find(w, op->items[i].id);
        if (op->items[i].unstart && t != NULL && t->unstart)
            gw_live_release(w, t);
    }
    for (size_t i = 0; i < op->task_count; i++) {
        const struct gw_task *t = &op->tasks[i];
        struct gw_lane *l = gw_lane_find(w, t->lane);
        if (t->status == GW_TASK_QUEUED && l != NULL) {
            l->queued++;
            l->stale = true;
        } else if (gw_task_status_final(t->status)) {
            w->finished++;
        }
        gw_work_tell_changed(w, t);
    }
}

void gw_drain_tell_aborts(struct gw_work *w)
{
    while (!gw_link_alone(&w->task_aborts)) {
        struct gw_live *t = gw_link_of(w->task_aborts.next, struct gw_live, aborts);
        char id[sizeof t->task.id];
        gw_link_remove(&t->aborts);
        memcpy(id, t->task.id, sizeof id); // the executor may end it meanwhile
        w->ops.abort_task(w->ud, id, t->abort_why);
    }
    while (!gw_link_alone(&w->run_aborts)) {
        struct gw_run *run = gw_link_of(w->run_aborts.next, struct gw_run, aborts);
        gw_link_remove(&run->aborts);
        w->ops.abort_run(w->ud, run, run->abort_why);
    }
}

void gw_work_keep_ends(struct gw_work *w, bool keep)
{
    w->keep_ends = keep;
    gw_work_wake(w);
}

/* What has ended and only waits for a store that is ill: its end is kept for as long as this process lives. */
static unsigned unwritten(const struct gw_work *w)
{
    unsigned n = 0;
    for (const struct gw_link *l = w->live.next; w->down && w->keep_ends && l != &w->live; l = l->next) {
        const struct gw_live *t = gw_link_of(l, struct gw_live, all);
        n += t->state == GW_LIVE_FINISHING && !t->excused;
    }
    return n;
}

static bool quiet(const struct gw_work *w)
{
    return w->running == w->excused_tasks && w->run_count == w->excused_runs;
}

static bool drained(const struct gw_work *w)
{
    return w->running - w->excused_tasks == unwritten(w) && w->run_count == w->excused_runs;
}

void gw_drain_look(struct gw_work *w)
{
    if (quiet(w) && w->idle_watch) {
        // Whoever waits for this moment wants to fence in it: nothing starts before the next dispatch.
        w->idle_watch = false;
        w->hold = true;
        w->ops.idle(w->ud);
    }
    if (w->drain_watch && drained(w)) {
        w->drain_watch = false;
        w->ops.drained(w->ud);
    }
}

void gw_work_watch_idle(struct gw_work *w)
{
    w->idle_watch = true;
    gw_work_wake(w);
}

void gw_work_unwatch_idle(struct gw_work *w)
{
    w->idle_watch = false;
}

bool gw_work_excuse(struct gw_work *w, const char *id)
{
    struct gw_live *t = gw_live_find(w, id);
    bool found = t != NULL && t->state != GW_LIVE_GONE;
    if (found && !t->excused) {
        t->excused = true;
        w->excused_tasks++;
    }
    for (struct gw_link *l = w->runs.next; !found && l != &w->runs; l = l->next) {
        struct gw_run *run = gw_link_of(l, struct gw_run, all);
        found = strcmp(run->id, id) == 0;
        if (found && !run->excused) {
            run->excused = true;
            w->excused_runs++;
        }
    }
    gw_work_wake(w);
    return found;
}

void gw_work_unexcuse(struct gw_work *w)
{
    for (struct gw_link *l = w->live.next; w->excused_tasks > 0 && l != &w->live; l = l->next) {
        struct gw_live *t = gw_link_of(l, struct gw_live, all);
        w->excused_tasks -= t->excused;
        t->excused = false;
    }
    for (struct gw_link *l = w->runs.next; w->excused_runs > 0 && l != &w->runs; l = l->next) {
        struct gw_run *run = gw_link_of(l, struct gw_run, all);
        w->excused_runs -= run->excused;
        run->excused = false;
    }
}

size_t gw_work_blockers(struct gw_work *w, struct gw_blocker *blockers, size_t max, size_t *ret_total)
{
    uint64_t now = gw_now_ms();
    size_t n = 0;
    *ret_total = (size_t)(w->running - w->excused_tasks) + (w->run_count - w->excused_runs);
    for (struct gw_link *l = w->live.next; l != &w->live && n < max; l = l->next) {
        const struct gw_live *t = gw_link_of(l, struct gw_live, all);
        if (t->excused)
            continue;
        blockers[n++] =
            (struct gw_blocker){.id = t->task.id,
                                .kind = "task",
                                .status = w->down && t->state == GW_LIVE_FINISHING
                                              ? "waits_for_store"
                                              : gw_task_status_name(GW_TASK_RUNNING),
                                .runtime = t->task.handler,
                                .lane = t->lane->name,
                                .label = t->task.label,
                                .title = t->task.title,
                                .progress = t->task.progress,
                                .age_ms = t->started_ms != 0 ? (int64_t)(now - t->started_ms) : 0};
    }
    for (struct gw_link *l = w->runs.next; l != &w->runs && n < max; l = l->next) {
        const struct gw_run *run = gw_link_of(l, struct gw_run, all);
        if (run->excused)
            continue;
        blockers[n++] = (struct gw_blocker){.id = run->id,
                                            .kind = "run",
                                            .status = run->compacting ? "compacting" : "running",
                                            .runtime = run->handler,
                                            .run_id = run->id,
                                            .label = run->label,
                                            .title = run->title,
                                            .progress = run->progress,
                                            .age_ms = (int64_t)(now - run->started_ms)};
    }
    return n;
}
