#include "lifecycle/scheduler.h"

#include "base/err.h"
#include "base/json.h"
#include "base/sha.h"
#include "base/str.h"
#include "lifecycle/budget.h"
#include "lifecycle/wish.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEPT = 100,
    STAMPS = 256,
    COOLDOWN_MS = 30000,
    HOUR_MS = 3600000,
    LOOP_COUNT = 30, /* of restarts that the application has asked for itself, within … */
    LOOP_MS = 60000,
};

struct gw_scheduler {
    struct gw_sched_config config;
    struct gw_restart *current, *waiting; /* owned */
    struct gw_restart *done[KEPT];        /* owned; a ring */
    unsigned done_count;                  /* ever */
    uint64_t stamps[STAMPS];              /* when restarts were accepted; a ring */
    unsigned accepted;                    /* ever */
    uint64_t loop[LOOP_COUNT];            /* the last ones that came from the application; 0: none. The oldest is … */
    unsigned loop_at;                     /* … here */
};

struct gw_scheduler *gw_sched_new(const struct gw_sched_config *config)
{
    struct gw_scheduler *s = gw_calloc(1, sizeof *s);
    s->config = *config;
    return s;
}

struct gw_scheduler *gw_sched_free(struct gw_scheduler *s)
{
    if (s == NULL)
        return NULL;
    gw_wish_free(s->current);
    gw_wish_free(s->waiting);
    for (unsigned i = 0; i < KEPT; i++)
        gw_wish_free(s->done[i]);
    free(s);
    return NULL;
}

static struct gw_restart *make(const struct gw_scheduler *s, const struct gw_ask *ask, struct gw_sched_now now)
{
    struct gw_restart *r = gw_calloc(1, sizeof *r);
    char tail[9];
    gw_random_hex(4, tail);
    (void)snprintf(r->id, sizeof r->id, "r%012llx%s", (unsigned long long)now.wall_ms, tail);
    gw_wish_put(r->source, sizeof r->source, ask->source);
    gw_wish_put(r->reason, sizeof r->reason, ask->reason != NULL && *ask->reason != '\0' ? ask->reason : "gateway.restart");
    gw_wish_put(r->signal, sizeof r->signal, ask->signal);
    gw_wish_put(r->exec, sizeof r->exec, ask->exec);
    gw_wish_put(r->requester, sizeof r->requester, ask->requester);
    r->force = ask->force;
    r->update = ask->update;
    r->when_idle = ask->when_idle && !ask->force;
    r->has_intent = ask->has_intent;
    r->wait_ms = ask->wait_ms;
    r->sender = json_incref(ask->sender);
    r->continuation = json_incref(ask->continuation);
    r->asked_at = now.wall_ms;
    r->asked_ms = r->signal_ms = now.ms;
    r->due_ms = s->config.defer_timeout_ms > 0 ? now.ms + s->config.defer_timeout_ms : UINT64_MAX;
    r->report_ms = now.ms + GW_REPORT_MS;
    // An application that restarts its host as soon as it has started would do nothing else any more.
    uint64_t oldest = s->loop[s->loop_at];
    if (oldest > 0 && strcmp(r->source, "app") == 0 && oldest + LOOP_MS > now.ms)
        r->not_before_ms = oldest + LOOP_MS;
    return r;
}

static void finish(struct gw_scheduler *s, struct gw_restart *r, const char *outcome, const char *why)
{
    gw_wish_put(r->outcome, sizeof r->outcome, outcome);
    gw_wish_put(r->why, sizeof r->why, why);
    struct gw_restart **slot = &s->done[s->done_count++ % KEPT];
    gw_wish_free(*slot);
    *slot = r;
    if (s->config.ended != NULL)
        s->config.ended(s->config.ud, r);
}

static uint32_t merge(struct gw_scheduler *s, struct gw_restart *r, struct gw_restart *into)
{
    uint32_t changed = gw_wish_join(into, r);
    gw_wish_put(r->merged_into, sizeof r->merged_into, into->id);
    finish(s, r, "merged", NULL);
    return changed;
}

/* When the cooldown after the last acceptance is over; it holds back only those that wait for an idle moment. */
static uint64_t cool_at(const struct gw_scheduler *s, const struct gw_restart *r)
{
    if (s->accepted == 0 || r->update || r->force)
        return 0;
    return s->stamps[(s->accepted - 1) % STAMPS] + COOLDOWN_MS;
}

/* Whether r may go as far as its own wishes are concerned. What cannot be counted never blocks. */
static bool is_due(const struct gw_scheduler *s, const struct gw_restart *r, struct gw_sched_now now)
{
    if (now.phase == GW_PHASE_FAILED)
        return true;
    if (now.ms < r->not_before_ms)
        return false;
    return !r->when_idle || now.ms >= r->due_ms || (now.pending <= 0 && now.ms >= cool_at(s, r));
}

struct gw_sched_told gw_sched_ask(struct gw_scheduler *s, const struct gw_ask *ask, struct gw_sched_now now)
{
    struct gw_restart *r = make(s, ask, now);
    struct gw_sched_told told = {.answer = GW_ASK_MERGED, .request = r};
    if (now.phase == GW_PHASE_STOPPING) {
        told.answer = GW_ASK_REFUSED;
        r->generation = now.generation;
        finish(s, r, "refused", "stopping");
    } else if (s->current != NULL && now.phase == GW_PHASE_LEAVING) {
        told.into_current = true;
        told.changed = merge(s, r, s->current);
    } else if (s->waiting != NULL) {
        told.changed = merge(s, r, s->waiting);
    } else {
        s->waiting = r;
        told.answer = is_due(s, r, now) ? GW_ASK_ACCEPTED : GW_ASK_DEFERRED;
    }
    return told;
}

struct gw_sched_look gw_sched_look(struct gw_scheduler *s, struct gw_sched_now now)
{
    struct gw_restart *r = s->waiting;
    struct gw_sched_look look = {.what = GW_DO_NOTHING, .next_ms = UINT64_MAX};
    if (r == NULL || r->emitted_ms > 0 || (now.phase != GW_PHASE_RUNNING && now.phase != GW_PHASE_FAILED))
        return look;
    if (is_due(s, r, now)) {
        if (now.ms >= r->due_ms)
            r->when_idle = false; // an ordinary restart now; ctx.deferred_ms tells the policy
        r->emitted_ms = now.ms;
        look.what = GW_DO_GO;
        look.next_ms = now.ms + GW_AUTHORIZATION_MS;
        return look;
    }
    if (now.ms >= r->report_ms) {
        r->report_ms = now.ms + GW_REPORT_MS;
        look.what = GW_DO_REPORT;
    }
    look.watch_idle = r->when_idle && now.pending > 0; // else it is idle already, and only a clock is waited for
    look.next_ms = r->report_ms;
    const uint64_t clocks[] = {r->when_idle ? r->due_ms : UINT64_MAX, cool_at(s, r), r->not_before_ms};
    for (size_t i = 0; i < sizeof clocks / sizeof *clocks; i++)
        if (clocks[i] > now.ms && clocks[i] < look.next_ms)
            look.next_ms = clocks[i];
    return look;
}

const struct gw_restart *gw_sched_accept(struct gw_scheduler *s, struct gw_sched_now now)
{
    struct gw_restart *r = s->waiting;
    if (r == NULL || s->current != NULL)
        return NULL;
    s->waiting = NULL;
    if (r->emitted_ms > 0 && now.ms - r->emitted_ms > GW_AUTHORIZATION_MS) {
        r->generation = now.generation;
        finish(s, r, "expired", "was not accepted within 5 s of being due");
        return NULL;
    }
    s->current = r;
    s->stamps[s->accepted++ % STAMPS] = now.ms;
    if (strcmp(r->source, "app") == 0) {
        s->loop[s->loop_at] = now.ms;
        s->loop_at = (s->loop_at + 1) % LOOP_COUNT;
    }
    return r;
}

bool gw_sched_authorized(struct gw_scheduler *s, struct gw_sched_now now)
{
    struct gw_restart *r = s->waiting;
    if (r == NULL || r->spent)
        return false;
    // What the application asked for itself, and what we have emitted ourselves.
    bool app = strcmp(r->source, "app") == 0 && now.ms - r->asked_ms <= GW_AUTHORIZATION_MS;
    bool own = r->emitted_ms > 0 && now.ms - r->emitted_ms <= GW_AUTHORIZATION_MS;
    if (!app && !own)
        return false;
    r->spent = true;
    r->when_idle = false;
    return true;
}

void gw_sched_end(struct gw_scheduler *s, const char *outcome, const char *why, unsigned generation)
{
    struct gw_restart *r = s->current;
    if (r == NULL)
        return;
    s->current = NULL;
    r->generation = generation;
    finish(s, r, outcome, why);
}

void gw_sched_set_mode(struct gw_scheduler *s, const char *mode)
{
    if (s->current != NULL)
        gw_wish_put(s->current->mode, sizeof s->current->mode, mode);
}

void gw_sched_boundary(struct gw_scheduler *s)
{
    struct gw_restart *r = s->waiting;
    if (r == NULL || !r->when_idle || s->current == NULL)
        return;
    s->waiting = NULL;
    gw_wish_put(r->merged_into, sizeof r->merged_into, s->current->id);
    finish(s, r, "merged", NULL);
}

int gw_sched_cancel(struct gw_scheduler *s, const char *id, struct gw_err *err)
{
    const struct gw_restart *r = gw_sched_find(s, id);
    if (r == NULL)
        return gw_err_set(err, -ENOENT, "there is no request '%s' among the last %d", id, KEPT);
    if (r != s->waiting)
        return gw_err_set(err, -EALREADY, "request '%s' %s%s", id, r->outcome[0] != '\0' ? "has ended: " : "is under way",
                          r->outcome);
    struct gw_restart *waiting = s->waiting;
    s->waiting = NULL;
    finish(s, waiting, "cancelled", NULL);
    return 0;
}

const struct gw_restart *gw_sched_current(const struct gw_scheduler *s)
{
    return s->current;
}

const struct gw_restart *gw_sched_waiting(const struct gw_scheduler *s)
{
    return s->waiting;
}

const struct gw_restart *gw_sched_last(const struct gw_scheduler *s)
{
    for (unsigned i = 0; i < s->done_count && i < KEPT; i++) {
        const struct gw_restart *r = s->done[(s->done_count - 1 - i) % KEPT];
        if (strcmp(r->outcome, "merged") != 0)
            return r;
    }
    return NULL;
}

const struct gw_restart *gw_sched_find(const struct gw_scheduler *s, const char *id)
{
    const struct gw_restart *open[] = {s->current, s->waiting};
    for (int i = 0; i < 2; i++)
        if (open[i] != NULL && strcmp(open[i]->id, id) == 0)
            return open[i];
    for (unsigned i = 0; i < KEPT; i++)
        if (s->done[i] != NULL && strcmp(s->done[i]->id, id) == 0)
            return s->done[i];
    return NULL;
}

void gw_sched_restore(struct gw_scheduler *s, const json_t *object)
{
    struct gw_restart *r = gw_wish_restore(object);
    if (r == NULL)
        return;
    struct gw_restart **slot = &s->done[s->done_count++ % KEPT];
    gw_wish_free(*slot);
    *slot = r;
}

// ---- to the next process ----

json_t *gw_sched_pack(const struct gw_scheduler *s)
{
    json_t *o = json_object(), *stamps = json_array();
    gw_json_set(o, "current", gw_wish_pack(s->current));
    gw_json_set(o, "waiting", gw_wish_pack(s->waiting));
    gw_json_set(o, "accepted", json_integer(s->accepted));
    for (unsigned i = s->accepted > STAMPS ? s->accepted - STAMPS : 0; i < s->accepted; i++)
        (void)json_array_append_new(stamps, json_integer((json_int_t)s->stamps[i % STAMPS]));
    gw_json_set(o, "stamps", stamps);
    json_t *loop = json_array();
    for (unsigned i = 0; i < LOOP_COUNT; i++)
        (void)json_array_append_new(loop, json_integer((json_int_t)s->loop[(s->loop_at + i) % LOOP_COUNT]));
    gw_json_set(o, "loop", loop);
    return o;
}

static uint64_t ms_of(const json_t *o, const char *key, uint64_t none)
{
    const json_t *v = json_object_get(o, key);
    return json_is_integer(v) ? (uint64_t)json_integer_value(v) : none;
}

void gw_sched_unpack(struct gw_scheduler *s, const json_t *packed)
{
    struct gw_restart *own = s->waiting != NULL && !s->waiting->unpacked ? s->waiting : NULL;
    if (own == NULL)
        gw_wish_free(s->waiting);
    gw_wish_free(s->current);
    s->current = gw_wish_unpack(json_object_get(packed, "current"));
    s->waiting = gw_wish_unpack(json_object_get(packed, "waiting"));
    if (own != NULL && s->waiting != NULL)
        (void)merge(s, own, s->waiting);
    else if (own != NULL)
        s->waiting = own;
    const json_t *loop = json_object_get(packed, "loop");
    for (size_t i = 0; i < LOOP_COUNT && json_array_size(loop) == LOOP_COUNT; i++)
        s->loop[i] = (uint64_t)json_integer_value(json_array_get(loop, i));
    s->loop_at = 0;
    const json_t *stamps = json_object_get(packed, "stamps");
    size_t n = json_array_size(stamps);
    uint64_t accepted = ms_of(packed, "accepted", 0);
    if (n > STAMPS || n > accepted)
        return;
    s->accepted = (unsigned)accepted;
    for (size_t i = 0; i < n; i++)
        s->stamps[(accepted - n + i) % STAMPS] = (uint64_t)json_integer_value(json_array_get(stamps, i));
}

int64_t gw_sched_since_last(const struct gw_scheduler *s, uint64_t now_ms)
{
    return s->accepted == 0 ? -1 : (int64_t)(now_ms - s->stamps[(s->accepted - 1) % STAMPS]);
}

unsigned gw_sched_last_hour(const struct gw_scheduler *s, uint64_t now_ms)
{
    unsigned n = 0, kept = s->accepted < STAMPS ? s->accepted : STAMPS;
    for (unsigned i = 0; i < kept; i++)
        if (now_ms - s->stamps[i] < HOUR_MS)
            n++;
    return n;
}

unsigned gw_sched_accepted(const struct gw_scheduler *s)
{
    return s->accepted;
}
