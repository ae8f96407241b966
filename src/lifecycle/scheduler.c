#include "lifecycle/scheduler.h"

#include "base/err.h"
#include "base/json.h"
#include "base/sha.h"
#include "base/str.h"
#include "lifecycle/budget.h"

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

static void drop(struct gw_restart *r)
{
    if (r == NULL)
        return;
    json_decref(r->sender);
    json_decref(r->continuation);
    free(r);
}

struct gw_scheduler *gw_sched_free(struct gw_scheduler *s)
{
    if (s == NULL)
        return NULL;
    drop(s->current);
    drop(s->waiting);
    for (unsigned i = 0; i < KEPT; i++)
        drop(s->done[i]);
    free(s);
    return NULL;
}

/* Copies what fits, cut between characters. */
static void put(char *to, size_t size, const char *from)
{
    size_t n = from != NULL ? gw_utf8_clip(from, size - 1) : 0;
    if (n > 0)
        memcpy(to, from, n);
    to[n] = '\0';
}

static struct gw_restart *make(const struct gw_scheduler *s, const struct gw_ask *ask, struct gw_sched_now now)
{
    struct gw_restart *r = gw_calloc(1, sizeof *r);
    char tail[9];
    gw_random_hex(4, tail);
    (void)snprintf(r->id, sizeof r->id, "r%012llx%s", (unsigned long long)now.wall_ms, tail);
    put(r->source, sizeof r->source, ask->source);
    put(r->reason, sizeof r->reason, ask->reason != NULL && *ask->reason != '\0' ? ask->reason : "gateway.restart");
    put(r->signal, sizeof r->signal, ask->signal);
    put(r->exec, sizeof r->exec, ask->exec);
    put(r->requester, sizeof r->requester, ask->requester);
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
    put(r->outcome, sizeof r->outcome, outcome);
    put(r->why, sizeof r->why, why);
    struct gw_restart **slot = &s->done[s->done_count++ % KEPT];
    drop(*slot);
    *slot = r;
    if (s->config.ended != NULL)
        s->config.ended(s->config.ud, r);
}

// ---- two requests become one ----

static bool join_force(struct gw_restart *into, const struct gw_restart *r)
{
    bool changed = r->force && !into->force;
    into->force = into->force || r->force;
    return changed;
}

static bool join_update(struct gw_restart *into, const struct gw_restart *r)
{
    if (!r->update || into->update)
        return false;
    into->update = true;
    put(into->reason, sizeof into->reason, r->reason);
    put(into->exec, sizeof into->exec, r->exec);
    return true;
}

static bool join_now(struct gw_restart *into, const struct gw_restart *r)
{
    bool waited = into->when_idle;
    into->when_idle = into->when_idle && r->when_idle;
    if (r->not_before_ms < into->not_before_ms)
        into->not_before_ms = r->not_before_ms;
    return waited && !into->when_idle;
}

static bool join_due(struct gw_restart *into, const struct gw_restart *r)
{
    bool changed = r->due_ms < into->due_ms;
    into->due_ms = changed ? r->due_ms : into->due_ms;
    return changed && into->when_idle;
}

/* Not said is no wish, and 0 is the longest. */
static int64_t asked_budget(const struct gw_restart *r)
{
    return r->wait_ms > 0 ? r->wait_ms : r->wait_ms == 0 ? INT64_MAX - 1 : INT64_MAX;
}

static bool join_wait(struct gw_restart *into, const struct gw_restart *r)
{
    bool changed = asked_budget(r) < asked_budget(into);
    into->wait_ms = changed ? r->wait_ms : into->wait_ms;
    into->has_intent = into->has_intent || r->has_intent;
    return changed && !into->force;
}

static bool join_end(struct gw_restart *into, const struct gw_restart *r)
{
    if (strcmp(r->signal, "SIGTERM") != 0 || strcmp(into->signal, "SIGTERM") == 0)
        return false;
    put(into->signal, sizeof into->signal, r->signal);
    into->signal_ms = r->signal_ms;
    json_decref(into->sender);
    into->sender = json_incref(r->sender);
    return true;
}

static bool join_continuation(struct gw_restart *into, const struct gw_restart *r)
{
    bool changed = into->continuation == NULL && r->continuation != NULL;
    if (changed)
        into->continuation = json_incref(r->continuation);
    return changed;
}

/* A row a wish, in the order of enum gw_join. What has no row here stays as it was with the first one: who asked, when,
 * and why. */
static const struct {
    const char *name;
    bool (*join)(struct gw_restart *into, const struct gw_restart *r);
} joins[GW_JOINS] = {
    [GW_JOIN_FORCE] = {"force", join_force},              // sticks
    [GW_JOIN_UPDATE] = {"update", join_update},           // wins over other reasons
    [GW_JOIN_NOW] = {"now", join_now},                    // beats idle
    [GW_JOIN_DUE] = {"due", join_due},                    // the earlier one wins
    [GW_JOIN_WAIT] = {"wait_ms", join_wait},              // the shorter one that was asked for wins
    [GW_JOIN_END] = {"end", join_end},                    // a SIGTERM that must end the process ends it still
    [GW_JOIN_CONTINUATION] = {"continuation", join_continuation}, // the first one is carried
};

const char *gw_join_name(enum gw_join join)
{
    return joins[join].name;
}

static uint32_t merge(struct gw_scheduler *s, struct gw_restart *r, struct gw_restart *into)
{
    uint32_t changed = 0;
    for (int i = 0; i < GW_JOINS; i++)
        changed |= joins[i].join(into, r) ? 1u << i : 0;
    put(r->merged_into, sizeof r->merged_into, into->id);
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
        put(s->current->mode, sizeof s->current->mode, mode);
}

void gw_sched_boundary(struct gw_scheduler *s)
{
    struct gw_restart *r = s->waiting;
    if (r == NULL || !r->when_idle || s->current == NULL)
        return;
    s->waiting = NULL;
    put(r->merged_into, sizeof r->merged_into, s->current->id);
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

json_t *gw_restart_json(const struct gw_restart *r)
{
    if (r == NULL)
        return json_null();
    json_t *o = json_object();
    gw_json_set(o, "request_id", json_string(r->id));
    gw_json_set(o, "source", json_string(r->source));
    gw_json_set(o, "reason", gw_json_string(r->reason));
    gw_json_set(o, "requested_at", json_integer(r->asked_at));
    gw_json_set(o, "outcome", r->outcome[0] != '\0' ? json_string(r->outcome) : NULL);
    if (r->why[0] != '\0')
        gw_json_set(o, "why", gw_json_string(r->why));
    if (r->merged_into[0] != '\0')
        gw_json_set(o, "merged_into", json_string(r->merged_into));
    if (r->mode[0] != '\0')
        gw_json_set(o, "mode", json_string(r->mode));
    if (r->generation > 0)
        gw_json_set(o, "generation", json_integer(r->generation));
    return o;
}

static void take(char *to, size_t size, const json_t *object, const char *key)
{
    put(to, size, json_string_value(json_object_get(object, key)));
}

void gw_sched_restore(struct gw_scheduler *s, const json_t *object)
{
    struct gw_restart *r = gw_calloc(1, sizeof *r);
    take(r->id, sizeof r->id, object, "request_id");
    take(r->source, sizeof r->source, object, "source");
    take(r->reason, sizeof r->reason, object, "reason");
    take(r->outcome, sizeof r->outcome, object, "outcome");
    take(r->why, sizeof r->why, object, "why");
    take(r->merged_into, sizeof r->merged_into, object, "merged_into");
    take(r->mode, sizeof r->mode, object, "mode");
    r->asked_at = json_integer_value(json_object_get(object, "requested_at"));
    r->generation = (unsigned)json_integer_value(json_object_get(object, "generation"));
    r->wait_ms = -1;
    if (r->id[0] == '\0' || r->outcome[0] == '\0') {
        drop(r);
        return;
    }
    struct gw_restart **slot = &s->done[s->done_count++ % KEPT];
    drop(*slot);
    *slot = r;
}

// ---- to the next process ----

static json_t *pack(const struct gw_restart *r)
{
    if (r == NULL)
        return json_null();
    json_t *o = gw_restart_json(r);
    gw_json_set(o, "force", json_boolean(r->force));
    gw_json_set(o, "update", json_boolean(r->update));
    gw_json_set(o, "when_idle", json_boolean(r->when_idle));
    gw_json_set(o, "has_intent", json_boolean(r->has_intent));
    gw_json_set(o, "wait_ms", json_integer(r->wait_ms));
    gw_json_set(o, "signal", json_string(r->signal));
    gw_json_set(o, "signal_ms", json_integer((json_int_t)r->signal_ms));
    gw_json_set(o, "exec", gw_json_string(r->exec));
    gw_json_set(o, "sender", json_incref(r->sender));
    gw_json_set(o, "continuation", json_incref(r->continuation));
    gw_json_set(o, "asked_ms", json_integer((json_int_t)r->asked_ms));
    gw_json_set(o, "due_ms", r->due_ms != UINT64_MAX ? json_integer((json_int_t)r->due_ms) : NULL);
    gw_json_set(o, "report_ms", json_integer((json_int_t)r->report_ms));
    gw_json_set(o, "not_before_ms", json_integer((json_int_t)r->not_before_ms));
    return o;
}

json_t *gw_sched_pack(const struct gw_scheduler *s)
{
    json_t *o = json_object(), *stamps = json_array();
    gw_json_set(o, "current", pack(s->current));
    gw_json_set(o, "waiting", pack(s->waiting));
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

static bool is_set(const json_t *o, const char *key)
{
    return json_is_true(json_object_get(o, key));
}

static uint64_t ms_of(const json_t *o, const char *key, uint64_t none)
{
    const json_t *v = json_object_get(o, key);
    return json_is_integer(v) ? (uint64_t)json_integer_value(v) : none;
}

static struct gw_restart *unpack(const json_t *o)
{
    if (!json_is_object(o) || !json_is_string(json_object_get(o, "request_id")))
        return NULL;
    struct gw_restart *r = gw_calloc(1, sizeof *r);
    take(r->id, sizeof r->id, o, "request_id");
    take(r->source, sizeof r->source, o, "source");
    take(r->reason, sizeof r->reason, o, "reason");
    take(r->mode, sizeof r->mode, o, "mode");
    take(r->signal, sizeof r->signal, o, "signal");
    take(r->exec, sizeof r->exec, o, "exec");
    r->force = is_set(o, "force");
    r->update = is_set(o, "update");
    r->when_idle = is_set(o, "when_idle");
    r->has_intent = is_set(o, "has_intent");
    const json_t *wait = json_object_get(o, "wait_ms");
    r->wait_ms = json_is_integer(wait) ? json_integer_value(wait) : -1;
    r->unpacked = true;
    json_t *sender = json_object_get(o, "sender"), *continuation = json_object_get(o, "continuation");
    r->sender = json_is_object(sender) ? json_incref(sender) : NULL;
    r->continuation = continuation != NULL && !json_is_null(continuation) ? json_incref(continuation) : NULL;
    r->asked_at = (int64_t)ms_of(o, "requested_at", 0);
    r->asked_ms = ms_of(o, "asked_ms", 0);
    r->signal_ms = ms_of(o, "signal_ms", r->asked_ms);
    r->due_ms = ms_of(o, "due_ms", UINT64_MAX);
    r->report_ms = ms_of(o, "report_ms", 0);
    r->not_before_ms = ms_of(o, "not_before_ms", 0);
    return r;
}

void gw_sched_unpack(struct gw_scheduler *s, const json_t *packed)
{
    struct gw_restart *own = s->waiting != NULL && !s->waiting->unpacked ? s->waiting : NULL;
    if (own == NULL)
        drop(s->waiting);
    drop(s->current);
    s->current = unpack(json_object_get(packed, "current"));
    s->waiting = unpack(json_object_get(packed, "waiting"));
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
