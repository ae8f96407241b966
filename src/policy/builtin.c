#include "policy/builtin.h"

#include "base/err.h"
#include "base/json.h"
#include "base/str.h"
#include "policy/answer.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCKERS_SHOWN = 8, TITLE_CHARS = 80 };

/* Lua's idea of truth: there, not null and not false. */
static bool holds(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return v != NULL && !json_is_null(v) && !json_is_false(v);
}

// ---- restart_mode ----

enum gw_mode gw_builtin_mode(const json_t *facts, const char **ret_why)
{
    bool update = holds(facts, "update"), supervised = holds(facts, "supervisor");
    if (holds(facts, "respawn_disabled") && !(update && supervised)) {
        *ret_why = "starting another process is disabled";
        return GW_MODE_IN_PROCESS;
    }
    if (supervised) {
        *ret_why = "a supervisor starts the next process";
        return GW_MODE_SUPERVISED;
    }
    if (!update) {
        *ret_why = "nothing asks for another process";
        return GW_MODE_IN_PROCESS;
    }
    if (json_integer_value(json_object_get(facts, "pid")) == 1 || holds(facts, "container")) {
        *ret_why = "an update must keep the pid here";
        return GW_MODE_REEXEC;
    }
    *ret_why = "an update needs a new process";
    return GW_MODE_RESPAWN;
}

// ---- drain_budget ----

int64_t gw_builtin_budget(const json_t *facts, const char **ret_why)
{
    const json_t *intent = json_object_get(facts, "intent");
    const char *action = json_string_value(json_object_get(facts, "action"));
    if (action != NULL && strcmp(action, "stop") == 0) {
        *ret_why = "a stop does not wait for work";
        return 0;
    }
    if (holds(facts, "force") || holds(intent, "force")) {
        *ret_why = "forced";
        return 0;
    }
    const json_t *wait = json_object_get(intent, "wait_ms");
    if (json_is_number(wait) && json_number_value(wait) >= 0) {
        *ret_why = "as the request says";
        double real = json_number_value(wait);
        int64_t ms = json_is_integer(wait) ? json_integer_value(wait) : real < 1e15 ? (int64_t)real : 0;
        return ms > 0 ? ms : GW_UNLIMITED;
    }
    *ret_why = "the default";
    return GW_DRAIN_BUDGET_MS;
}

// ---- authorize_sigusr1 ----

enum gw_authorization gw_builtin_authorization(const json_t *facts, const char **ret_why)
{
    const json_t *sender = json_object_get(facts, "sender");
    const json_t *uid = json_object_get(sender, "uid"), *own = json_object_get(facts, "uid");
    const json_t *descendant = json_object_get(sender, "descendant");
    bool root = json_is_integer(uid) && json_integer_value(uid) == 0;
    bool same = json_is_integer(uid) && json_is_integer(own) && json_equal(uid, own);
    if (!root && !same) {
        *ret_why = "the sender is another user";
        return GW_DENY;
    }
    if (json_is_true(descendant)) {
        *ret_why = "the sender descends from the host";
        return GW_DENY;
    }
    if (!json_is_false(descendant) && holds(facts, "exec_running")) {
        *ret_why = "the sender is gone and may have been a running task's";
        return GW_DENY;
    }
    *ret_why = root ? "the sender is root" : "the sender is the host's own user";
    return GW_WHEN_IDLE;
}

// ---- format_blockers ----

/* Length in bytes of the first max characters of s, which is UTF-8. */
static size_t chars(const char *s, size_t max)
{
    size_t n = 0;
    for (; s[n] != '\0'; n++)
        if (((unsigned char)s[n] & 0xc0) != 0x80 && max-- == 0)
            break;
    return n;
}

static void add_part(struct gw_buf *b, const json_t *blocker, const char *name, const char *key)
{
    const char *s = json_string_value(json_object_get(blocker, key));
    if (s == NULL)
        return;
    gw_buf_addf(b, "%s%s=", b->len > 0 && b->data[b->len - 1] != ' ' ? " " : "", name);
    gw_buf_add(b, s, strcmp(key, "title") == 0 ? chars(s, TITLE_CHARS) : strlen(s));
}

static void add_blocker(struct gw_buf *b, const json_t *blocker)
{
    const char *kind = json_string_value(json_object_get(blocker, "kind"));
    bool is_run = kind != NULL && strcmp(kind, "run") == 0;
    if (!is_run)
        add_part(b, blocker, "task", "id");
    add_part(b, blocker, "run", is_run && !holds(blocker, "run_id") ? "id" : "run_id");
    add_part(b, blocker, "status", "status");
    add_part(b, blocker, "runtime", "runtime");
    add_part(b, blocker, "label", "label");
    add_part(b, blocker, "title", "title");
}

char *gw_builtin_line(const json_t *blockers, const json_t *facts)
{
    size_t n = json_array_size(blockers);
    int64_t total = json_integer_value(json_object_get(facts, "blockers_total"));
    if (total < (int64_t)n)
        total = (int64_t)n;
    if (n == 0)
        return NULL;
    struct gw_buf b = {0};
    size_t shown = n < BLOCKERS_SHOWN ? n : BLOCKERS_SHOWN;
    for (size_t i = 0; i < shown; i++) {
        if (i > 0)
            gw_buf_adds(&b, "; ");
        add_blocker(&b, json_array_get(blockers, i));
    }
    if (total > (int64_t)shown)
        gw_buf_addf(&b, "; +%lld more", (long long)total - (long long)shown);
    char line[GW_LINE_BYTES];
    gw_one_line(b.data != NULL ? b.data : "", b.len, line, sizeof line);
    gw_buf_fini(&b);
    return line[0] != '\0' ? gw_strdup(line) : NULL;
}

// ---- for the policy ----

json_t *gw_builtin_json(enum gw_hook h, const json_t *blockers, const json_t *facts)
{
    const char *why;
    switch (h) {
    case GW_HOOK_RESTART_MODE:
        return gw_json_string(gw_mode_name(gw_builtin_mode(facts, &why)));
    case GW_HOOK_DRAIN_BUDGET: {
        int64_t ms = gw_builtin_budget(facts, &why);
        return ms == GW_UNLIMITED ? gw_json_string("unlimited") : json_integer(ms);
    }
    case GW_HOOK_AUTHORIZE_SIGUSR1: {
        enum gw_authorization a = gw_builtin_authorization(facts, &why);
        return a == GW_WHEN_IDLE ? gw_json_string(gw_say_authorization(a)) : json_boolean(a == GW_ALLOW);
    }
    case GW_HOOK_FORMAT_BLOCKERS: {
        char *line = gw_builtin_line(blockers, facts);
        json_t *v = line != NULL ? gw_json_string(line) : json_null();
        free(line);
        return v;
    }
    case GW_HOOK_COUNT:
        break;
    }
    gw_assert(!"a hook that is none");
    return json_null();
}
