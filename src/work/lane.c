#include "base/err.h"
#include "base/str.h"
#include "base/time.h"
#include "work/inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOW_WATER 64 /* read on when fewer are left in the window */
#define SLOW_MS 2000 /* a task that waits longer is worth a warning */
#define SLOW_AGAIN_MS 30000

struct gw_lane *gw_lane_new(const char *name, unsigned concurrency, int64_t queue_limit, bool configured)
{
    struct gw_lane *l = gw_calloc(1, sizeof *l);
    l->name = gw_strdup(name);
    l->concurrency = concurrency;
    l->queue_limit = queue_limit;
    l->configured = configured;
    return l;
}

void gw_lane_free(struct gw_lane *l)
{
    free(l->name);
    free(l);
}

struct gw_lane *gw_lane_find(struct gw_work *w, const char *name)
{
    for (size_t i = 0; i < w->lane_count; i++)
        if (strcmp(w->lanes[i]->name, name) == 0)
            return w->lanes[i];
    return NULL;
}

bool gw_lane_full(const struct gw_lane *l)
{
    // What a free slot will take at once does not wait.
    int64_t slots = l->concurrency > l->active ? (int64_t)(l->concurrency - l->active) : 0;
    return l->queue_limit >= 0 && l->queued + l->submitting >= l->queue_limit + slots;
}

static int order(const struct gw_waiting *a, const struct gw_waiting *b)
{
    return a->priority != b->priority ? (a->priority < b->priority ? -1 : 1) : strcmp(a->id, b->id);
}

static void remove_at(struct gw_lane *l, size_t i)
{
    memmove(&l->window[i], &l->window[i + 1], (--l->waiting - i) * sizeof l->window[0]);
}

/* Puts t into the window, unless it belongs behind what is only in the store. */
static void insert(struct gw_lane *l, const struct gw_waiting *t)
{
    size_t at = l->waiting;
    while (at > 0 && order(t, &l->window[at - 1]) < 0)
        at--;
    if (at == l->waiting && l->more)
        return;
    if (l->waiting == GW_LANE_WINDOW) {
        l->more = true;
        if (at == l->waiting)
            return;
        l->waiting--;
    }
    memmove(&l->window[at + 1], &l->window[at], (l->waiting - at) * sizeof l->window[0]);
    l->window[at] = *t;
    l->waiting++;
}

void gw_lane_queue(struct gw_lane *l, const struct gw_waiting *t)
{
    l->queued++;
    insert(l, t);
}

void gw_lane_forget(struct gw_lane *l, const char *id)
{
    l->queued--;
    for (size_t i = 0; i < l->waiting; i++) {
        if (strcmp(l->window[i].id, id) == 0) {
            remove_at(l, i);
            return;
        }
    }
}

/* Reads the beginning of the queue again. Answers come in order, so what it holds is exact when it comes:
 * what was committed before is in it, what is still on its way to the store is known here. */
static void load(struct gw_work *w, struct gw_lane *l)
{
    struct gw_op *op = gw_op_new(GW_OP_LOAD);
    op->lane = gw_strdup(l->name);
    op->limit = GW_LANE_WINDOW;
    op->count = l->stale;
    l->stale = false;
    l->loading = true;
    gw_work_post(w, op);
}

void gw_lane_loaded(struct gw_work *w, struct gw_op *op)
{
    struct gw_lane *l = gw_lane_find(w, op->lane);
    l->loading = false;
    if (op->code != 0) {
        l->stale = true; // read again once the store is well
        return;
    }
    l->waiting = 0;
    for (size_t i = 0; i < op->waiting_count; i++)
        if (gw_live_find(w, op->waiting[i].id) == NULL) // not one that is being started meanwhile
            l->window[l->waiting++] = op->waiting[i];
    l->more = op->waiting_count == op->limit;
    if (op->count)
        l->queued = op->queued - (int64_t)l->starting;
}

/* Monotonic ms since when t has waited for its lane. What passed before this generation served is no fault of
 * the lane's. */
static uint64_t waiting_since(const struct gw_work *w, const struct gw_waiting *t)
{
    int64_t age = gw_wall_ms() - t->created_at;
    uint64_t now = gw_now_ms(), since = age <= 0 ? now : (uint64_t)age < now ? now - (uint64_t)age : 0;
    return since > w->open_since_ms ? since : w->open_since_ms;
}

/* Of the whole window: one of low priority may wait longer than the first. */
static uint64_t longest_since(const struct gw_work *w, const struct gw_lane *l)
{
    uint64_t oldest = UINT64_MAX;
    for (size_t i = 0; i < l->waiting; i++) {
        uint64_t since = waiting_since(w, &l->window[i]);
        oldest = since < oldest ? since : oldest;
    }
    return oldest;
}

static void arm_slow(const struct gw_work *w, struct gw_lane *l)
{
    uint64_t at = longest_since(w, l) + SLOW_MS;
    if (l->warned_ms != 0 && at < l->warned_ms + SLOW_AGAIN_MS)
        at = l->warned_ms + SLOW_AGAIN_MS;
    l->slow_at_ms = at;
}

void gw_lane_pump(struct gw_work *w, struct gw_lane *l)
{
    if (w->generation == 0 || w->fenced || w->sick) {
        l->slow_at_ms = 0;
        return;
    }
    if (w->hold)
        return;
    while (l->active < l->concurrency && l->waiting > 0) {
        char id[40];
        memcpy(id, l->window[0].id, sizeof id);
        remove_at(l, 0);
        l->queued--;
        gw_live_start(w, l, id);
    }
    if (!l->loading && (l->stale || (l->more && l->waiting < LOW_WATER)))
        load(w, l);
    if (l->waiting == 0 || l->concurrency == 0)
        l->slow_at_ms = 0;
    else if (l->slow_at_ms == 0)
        arm_slow(w, l);
}

void gw_lane_tick(struct gw_work *w, struct gw_lane *l, uint64_t now_ms)
{
    if (l->slow_at_ms == 0 || now_ms < l->slow_at_ms)
        return;
    uint64_t since = l->waiting > 0 ? longest_since(w, l) : now_ms;
    if (now_ms >= since + SLOW_MS) {
        l->warned_ms = now_ms;
        if (w->ops.slow_lane != NULL)
            w->ops.slow_lane(w->ud, l->name, (int64_t)(now_ms - since), l->queued);
    }
    if (l->waiting > 0)
        arm_slow(w, l);
    else
        l->slow_at_ms = 0;
}

size_t gw_work_lanes(const struct gw_work *w, const struct gw_lane_counts **ret_lanes)
{
    for (size_t i = 0; i < w->lane_count; i++) {
        const struct gw_lane *l = w->lanes[i];
        w->lane_counts[i] = (struct gw_lane_counts){.name = l->name,
                                                    .active = l->active,
                                                    .concurrency = l->concurrency,
                                                    .refused = l->refused,
                                                    .queued = l->queued,
                                                    .configured = l->configured};
    }
    *ret_lanes = w->lane_counts;
    return w->lane_count;
}
