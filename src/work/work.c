#include "work/work.h"

#include "base/err.h"
#include "base/sha.h"
#include "base/str.h"
#include "base/time.h"
#include "work/inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBE_FIRST_MS 100
#define PROBE_MAX_MS 1000
#define ID_BITS 15 /* of the number in an id: it counts within the millisecond in the 48 bits above */

/* ---- ids ---- */

void gw_work_make_id(struct gw_work *w, char kind, char ret_id[40])
{
    // Where there are more in a millisecond, or the clock went back, the numbers run ahead of the clock.
    uint64_t now = (uint64_t)gw_wall_ms() << ID_BITS;
    w->last_seq = now > w->last_seq ? now : w->last_seq + 1;
    (void)snprintf(ret_id, 40, "%c%016llx%s", kind, (unsigned long long)w->last_seq, w->id_suffix);
}

/* Behind the last one of an earlier boot, whatever the clock says now. */
static void go_on_behind(struct gw_work *w, const char *max_id)
{
    int64_t seq;
    if (gw_task_id_seq(max_id, &seq) && (uint64_t)seq > w->last_seq)
        w->last_seq = (uint64_t)seq;
}

/* ---- life ---- */

static void add_lane(struct gw_work *w, struct gw_lane *l)
{
    w->lanes = gw_realloc(w->lanes, (w->lane_count + 1) * sizeof(struct gw_lane *));
    w->lanes[w->lane_count++] = l;
    w->lane_counts = gw_realloc(w->lane_counts, w->lane_count * sizeof *w->lane_counts);
}

static int check_lanes(const struct gw_work_config *config, struct gw_err *err)
{
    for (size_t i = 0; i < config->lane_count; i++) {
        const char *name = config->lanes[i].name;
        if (name == NULL || *name == '\0')
            return gw_err_set(err, -EINVAL, "a lane has no name");
        for (size_t j = 0; j < i; j++)
            if (strcmp(config->lanes[j].name, name) == 0)
                return gw_err_set(err, -EINVAL, "lane '%s' is named twice", name);
    }
    return 0;
}

static void make_lanes(struct gw_work *w, const struct gw_work_config *config)
{
    for (size_t i = 0; i < config->lane_count; i++) {
        const struct gw_lane_spec *spec = &config->lanes[i];
        add_lane(w, gw_lane_new(spec->name, spec->concurrency, spec->queue_limit, true));
    }
    if (gw_lane_find(w, "main") == NULL)
        add_lane(w, gw_lane_new("main", 4, -1, true));
}

/* The queues as they are in the store. */
static void fill_lanes(struct gw_work *w, const struct gw_store_found *found)
{
    for (size_t i = 0; i < w->lane_count; i++)
        w->lanes[i]->queued = 0;
    for (size_t i = 0; i < found->lane_count; i++) {
        struct gw_lane *l = gw_lane_find(w, found->lanes[i].lane);
        if (l == NULL) // nothing waits for ever, and nothing of it crowds the others
            add_lane(w, l = gw_lane_new(found->lanes[i].lane, 1, -1, false));
        l->queued = found->lanes[i].queued - (int64_t)l->starting;
    }
    for (size_t i = 0; i < w->lane_count; i++)
        w->lanes[i]->stale = w->lanes[i]->more = true;
}

/* What the opening ended or queued again is told like any other change, from the first dispatch. */
static void tell_swept(struct gw_work *w, struct gw_store_found *found)
{
    struct gw_op *op = gw_op_new(GW_OP_BOUNDARY);
    op->tasks = found->swept;
    op->task_count = found->swept_count;
    found->swept = NULL;
    found->swept_count = 0;
    gw_work_refuse(w, op);
}

int gw_work_open(const struct gw_work_config *config, struct gw_work **ret_work, struct gw_err *err)
{
    const struct gw_store_config store = {.dir = config->state_dir,
                                          .boot_id = config->boot_id,
                                          .newer = config->newer,
                                          .retry_after_crash = config->retry_after_crash,
                                          .keep = config->keep};
    struct gw_store *made;
    int rc = check_lanes(config, err);
    if (rc == 0)
        rc = gw_store_new(&store, &made, err);
    if (rc != 0)
        return rc;
    struct gw_work *w = gw_calloc(1, sizeof *w);
    w->store = made;
    w->boot_id = gw_strdup(config->boot_id);
    w->ops = *config->ops;
    w->ud = config->ud;
    struct gw_link *lists[] = {&w->live,        &w->gone, &w->news,     &w->unstored,
                               &w->task_aborts, &w->runs, &w->cut_runs, &w->run_aborts};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        gw_link_init(lists[i]);
    make_lanes(w, config);
    gw_random_hex(4, w->id_suffix);
    w->sick = true;
    w->probe_at_ms = UINT64_MAX;
    gw_store_open(w->store, config->goes_on);
    *ret_work = w;
    return 0;
}

/* What the thread has found in the file. */
static void take_found(struct gw_work *w, struct gw_store_found *found)
{
    const struct gw_work_opened told = {.moved = found->moved,
                                        .put_back = found->lost.known,
                                        .saved = found->lost.saved,
                                        .swept = found->swept,
                                        .swept_count = found->swept_count,
                                        .commits = found->older.commits,
                                        .acknowledged = found->older.acknowledged,
                                        .acknowledged_at_ms = found->older.at_ms};
    fill_lanes(w, found);
    go_on_behind(w, found->max_id);
    w->open = w->opened = true;
    if (w->ops.opened != NULL)
        w->ops.opened(w->ud, &told);
    if (found->swept_count > 0)
        tell_swept(w, found);
    gw_store_found_fini(found);
    free(found);
}

static void forget_live(struct gw_work *w)
{
    while (!gw_link_alone(&w->live))
        gw_live_release(w, gw_link_of(w->live.next, struct gw_live, all));
    while (!gw_link_alone(&w->gone))
        gw_live_release(w, gw_link_of(w->gone.next, struct gw_live, all));
}

void gw_work_let_go(struct gw_work *w)
{
    gw_live_store_progress(w, &w->staged);
    (void)gw_work_flush(w);
    w->handed = w->letting_go = true;
    gw_store_let_go(w->store);
}

void gw_work_take_back(struct gw_work *w)
{
    w->handed = w->letting_go = false;
    gw_store_open(w->store, true);
}

bool gw_work_is_open(const struct gw_work *w)
{
    return w->open;
}

void gw_work_tidy(struct gw_work *w)
{
    gw_store_tidy(w->store);
}

struct gw_work *gw_work_close(struct gw_work *w, unsigned max_ms, bool goes_on)
{
    if (w == NULL)
        return NULL;
    gw_assert(!w->dispatching);
    struct gw_ops last = {0};
    gw_live_store_progress(w, &last);
    gw_ops_append(&w->staged, &last);
    (void)gw_work_flush(w);
    forget_live(w);
    gw_run_free_all(w);
    if (!gw_store_close(w->store, max_ms, goes_on))
        return w;
    for (struct gw_op *op; (op = gw_ops_take(&w->local)) != NULL;)
        gw_op_free(op);
    for (size_t i = 0; i < w->lane_count; i++)
        gw_lane_free(w->lanes[i]);
    free(w->lanes);
    free(w->lane_counts);
    free(w->table);
    free(w->heap);
    free(w->boot_id);
    free(w);
    return NULL;
}

/* ---- to and from the store ---- */

uint64_t gw_work_flush(struct gw_work *w)
{
    struct gw_ops ops = {0};
    bool writes = false;
    for (const struct gw_op *op = w->staged.head; op != NULL; op = op->next)
        writes = writes || gw_op_writes(op->kind);
    if (writes) // progress rides along, it is no reason for a commit of its own
        gw_live_store_progress(w, &ops);
    gw_ops_append(&ops, &w->staged);
    return gw_store_push(w->store, &ops);
}

void gw_work_post(struct gw_work *w, struct gw_op *op)
{
    gw_ops_add(&w->staged, op);
    if (!w->dispatching)
        (void)gw_work_flush(w);
}

void gw_work_wake(struct gw_work *w)
{
    if (!w->dispatching)
        gw_store_wake(w->store);
}

void gw_work_refuse(struct gw_work *w, struct gw_op *op)
{
    gw_ops_add(&w->local, op);
    gw_work_wake(w);
}

void gw_work_tell_changed(struct gw_work *w, const struct gw_task *t)
{
    if (w->ops.changed != NULL)
        w->ops.changed(w->ud, t);
}

static void swept(struct gw_work *w, struct gw_op *op)
{
    for (size_t i = 0; i < op->task_count; i++) {
        if (gw_task_status_final(op->tasks[i].status))
            w->finished++;
        gw_work_tell_changed(w, &op->tasks[i]);
    }
}

static void answered(struct gw_work *w, struct gw_op *op)
{
    switch (op->kind) {
    case GW_OP_SUBMIT:
    case GW_OP_CANCEL:
    case GW_OP_GET:
    case GW_OP_LIST:
        gw_request_answered(w, op); // which takes it
        return;
    case GW_OP_START:
        gw_live_started(w, op);
        break;
    case GW_OP_FINISH:
        gw_live_finished(w, op);
        break;
    case GW_OP_CUT:
        gw_drain_cut_done(w, op);
        break;
    case GW_OP_BOUNDARY:
        swept(w, op);
        break;
    case GW_OP_LOAD:
        gw_lane_loaded(w, op);
        break;
    case GW_OP_PROGRESS:
    case GW_OP_PROBE:
        break;
    }
    gw_op_free(op);
}

static void take_health(struct gw_work *w, const struct gw_store_health *health)
{
    bool open = health->state == GW_STORE_OPEN, sick = !open || health->code != 0;
    bool down = health->state != GW_STORE_CLOSED && (health->code != 0 || (w->down && !open));
    w->open = open;
    w->unwritten = health->kept;
    w->store_bytes = health->file_bytes;
    w->store_log_bytes = health->log_bytes;
    if (sick != w->sick) {
        w->sick = sick;
        for (size_t i = 0; !sick && i < w->lane_count; i++)
            w->lanes[i]->stale = true; // answers came out of order while ends were kept back
    }
    if (down == w->down)
        return;
    w->down = down;
    w->probe_wait_ms = PROBE_FIRST_MS;
    w->probe_at_ms = down ? gw_now_ms() + PROBE_FIRST_MS : UINT64_MAX;
    if (w->ops.store_health != NULL)
        w->ops.store_health(w->ud, health->code, down ? &health->err : NULL);
}

/* The store is another process's now, or cannot be. */
static void look_let_go(struct gw_work *w, const struct gw_store_health *health)
{
    if (!w->letting_go || (health->state != GW_STORE_CLOSED && !health->held))
        return;
    w->letting_go = false;
    w->handed = health->state == GW_STORE_CLOSED;
    w->ops.let_go(w->ud, w->handed ? 0 : health->code, &health->err);
}

void gw_work_dispatch(struct gw_work *w)
{
    struct gw_ops ops;
    struct gw_store_health health;
    gw_assert(!w->dispatching);
    w->dispatching = true;
    w->hold = false;
    struct gw_store_found *found;
    gw_store_answers(w->store, &ops, &health, &found);
    if (found != NULL)
        take_found(w, found);
    gw_ops_append(&ops, &w->local);
    take_health(w, &health);
    for (struct gw_op *op; (op = gw_ops_take(&ops)) != NULL;)
        answered(w, op);
    gw_live_news(w);
    gw_drain_tell_aborts(w);
    gw_drain_look(w);
    for (size_t i = 0; i < w->lane_count; i++)
        gw_lane_pump(w, w->lanes[i]);
    look_let_go(w, &health);
    w->dispatching = false;
    if (w->staged.head != NULL)
        (void)gw_work_flush(w);
    bool quiet = w->running == w->excused_tasks && w->run_count == w->excused_runs;
    if (w->hold || w->local.head != NULL || !gw_link_alone(&w->news) || !gw_link_alone(&w->task_aborts) ||
        !gw_link_alone(&w->run_aborts) || (quiet && (w->drain_watch || w->idle_watch)))
        gw_store_wake(w->store);
}

int gw_work_fd(const struct gw_work *w)
{
    return gw_store_fd(w->store);
}

uint64_t gw_work_deadline(const struct gw_work *w)
{
    uint64_t at = w->heap_used > 0 ? w->heap[0]->deadline_ms : UINT64_MAX;
    if (w->down && !w->handed && w->probe_at_ms < at)
        at = w->probe_at_ms;
    for (size_t i = 0; !w->fenced && i < w->lane_count; i++)
        if (w->lanes[i]->slow_at_ms != 0 && w->lanes[i]->slow_at_ms < at)
            at = w->lanes[i]->slow_at_ms;
    return at;
}

void gw_work_tick(struct gw_work *w, uint64_t now_ms)
{
    gw_live_tick(w, now_ms);
    for (size_t i = 0; !w->fenced && i < w->lane_count; i++)
        gw_lane_tick(w, w->lanes[i], now_ms);
    if (w->down && !w->handed && now_ms >= w->probe_at_ms) {
        gw_store_open(w->store, false); // if its thread could not be started
        w->probe_wait_ms = w->probe_wait_ms * 2 < PROBE_MAX_MS ? w->probe_wait_ms * 2 : PROBE_MAX_MS;
        w->probe_at_ms = now_ms + w->probe_wait_ms;
        gw_work_post(w, gw_op_new(GW_OP_PROBE));
    }
}

/* ---- generations ---- */

void gw_work_start(struct gw_work *w, unsigned generation)
{
    gw_assert(!w->dispatching && generation > w->generation && !w->handed);
    bool again = w->generation != 0;
    w->generation = generation;
    w->fenced = w->accept_queue = w->drain_watch = false;
    w->open_since_ms = gw_now_ms();
    for (size_t i = 0; i < w->lane_count; i++) {
        struct gw_lane *l = w->lanes[i];
        l->waiting = 0;
        l->more = true;
        l->stale = l->stale || again;
        l->slow_at_ms = l->warned_ms = 0;
    }
    gw_store_wake(w->store);
}

void gw_work_boundary(struct gw_work *w)
{
    gw_assert(!w->dispatching);
    struct gw_op *op = gw_op_new(GW_OP_BOUNDARY);
    op->generation = w->generation;
    op->now_ms = gw_wall_ms();
    op->items = gw_calloc((size_t)w->running + 1, sizeof *op->items);
    gw_live_store_progress(w, &w->staged);
    for (struct gw_link *l = w->live.next; l != &w->live; l = l->next) {
        const struct gw_live *t = gw_link_of(l, struct gw_live, all);
        if (t->state == GW_LIVE_STARTING)
            memcpy(op->items[op->item_count++].id, t->task.id, sizeof t->task.id);
    }
    gw_work_post(w, op);
    forget_live(w);
    gw_run_free_all(w);
    w->fenced = true; // until gw_work_start()
    w->drain_watch = w->idle_watch = false;
}

struct gw_work_counts gw_work_counts(const struct gw_work *w)
{
    struct gw_work_counts c = {
        .tasks = w->running, .runs = w->run_count, .excused_tasks = w->excused_tasks, .excused_runs = w->excused_runs,
        .submitted = w->submitted, .finished = w->finished, .unwritten = w->unwritten,
        .store_bytes = w->store_bytes, .store_log_bytes = w->store_log_bytes};
    for (size_t i = 0; i < w->lane_count; i++)
        c.queued += w->lanes[i]->queued;
    return c;
}
