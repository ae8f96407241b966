#include "lifecycle/wish.h"

#include "base/json.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

/* Copies what fits, cut between characters. */
void gw_wish_put(char *to, size_t size, const char *from)
{
    size_t n = from != NULL ? gw_utf8_clip(from, size - 1) : 0;
    if (n > 0)
        memcpy(to, from, n);
    to[n] = '\0';
}

void gw_wish_free(struct gw_restart *r)
{
    if (r == NULL)
        return;
    json_decref(r->sender);
    json_decref(r->continuation);
    free(r);
}

// ---- two become one ----

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
    gw_wish_put(into->reason, sizeof into->reason, r->reason);
    gw_wish_put(into->exec, sizeof into->exec, r->exec);
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
    gw_wish_put(into->signal, sizeof into->signal, r->signal);
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

uint32_t gw_wish_join(struct gw_restart *into, const struct gw_restart *r)
{
    uint32_t changed = 0;
    for (int i = 0; i < GW_JOINS; i++)
        changed |= joins[i].join(into, r) ? 1u << i : 0;
    return changed;
}

// ---- as JSON ----

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
    gw_wish_put(to, size, json_string_value(json_object_get(object, key)));
}

struct gw_restart *gw_wish_restore(const json_t *object)
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
    if (r->id[0] != '\0' && r->outcome[0] != '\0')
        return r;
    gw_wish_free(r);
    return NULL;
}

json_t *gw_wish_pack(const struct gw_restart *r)
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

static bool is_set(const json_t *o, const char *key)
{
    return json_is_true(json_object_get(o, key));
}

static uint64_t ms_of(const json_t *o, const char *key, uint64_t none)
{
    const json_t *v = json_object_get(o, key);
    return json_is_integer(v) ? (uint64_t)json_integer_value(v) : none;
}

struct gw_restart *gw_wish_unpack(const json_t *o)
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
