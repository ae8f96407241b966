/* testing.c - `gwhost policy check` and `gwhost policy test`: a policy looked at without a host. */
#include "base/err.h"
#include "base/json.h"
#include "base/str.h"
#include "policy/answer.h"
#include "policy/builtin.h"
#include "policy/timelimit.h"
#include "policy/policy.h"
#include "policy/vm.h"
#include "script/door.h"
#include "script/sources.h"
#include "script/value.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- check ----

/* Situations that every policy meets; what a hook does wrong in them is a fault. */
static const struct {
    const char *what, *facts;
} situations[] = {
    {"an ordinary restart", "{\"action\":\"restart\",\"source\":\"signal\",\"signal\":\"SIGUSR1\",\"reason\":"
                            "\"gateway.restart\",\"pid\":4000,"
                            "\"uid\":1000,\"sender\":{\"pid\":4001,\"uid\":1000,\"exe\":\"/bin/"
                            "sh\",\"descendant\":false},\"generation\":1,"
                            "\"boot_id\":\"00000000\",\"uptime_ms\":60000,\"force\":false,\"update\":false,"
                            "\"work\":{\"tasks\":2,\"runs\":0,\"queued\":0,\"lanes\":{}},\"elapsed_ms\":0,"
                            "\"restarts\":0,\"vars\":{}}"},
    {"an update under systemd, with a budget asked for",
     "{\"action\":\"restart\",\"source\":\"control\",\"reason\":\"update\",\"pid\":4000,\"uid\":1000,"
     "\"generation\":3,"
     "\"boot_id\":\"00000000\",\"uptime_ms\":60000,\"force\":false,\"update\":true,\"supervisor\":"
     "\"systemd\","
     "\"intent\":{\"force\":false,\"wait_ms\":5000,\"reason\":\"update\"},"
     "\"work\":{\"tasks\":0,\"runs\":1,\"queued\":5,\"lanes\":{}},\"elapsed_ms\":0,\"restarts\":2,\"vars\":{}"
     "}"},
    {"a stop", "{\"action\":\"stop\",\"source\":\"signal\",\"signal\":\"SIGTERM\",\"reason\":\"gateway."
               "stop\",\"pid\":1,\"uid\":0,"
               "\"container\":true,\"sender\":{\"pid\":0,\"uid\":0},\"generation\":1,\"boot_id\":"
               "\"00000000\",\"uptime_ms\":10,"
               "\"force\":false,\"update\":false,\"work\":{\"tasks\":1,\"runs\":0,\"queued\":0,\"lanes\":{}},"
               "\"elapsed_ms\":0,"
               "\"restarts\":0,\"vars\":{}}"},
};
static const char sample_blockers[] =
    "[{\"id\":\"t1\",\"kind\":\"task\",\"status\":\"running\",\"runtime\":\"exec\",\"lane\":\"main\","
    "\"label\":\"nightly\","
    "\"title\":\"a "
    "title\",\"age_ms\":1200},{\"id\":\"r1\",\"kind\":\"run\",\"run_id\":\"r1\",\"status\":\"running\","
    "\"age_ms\":5}]";

static json_t *parsed(const char *text)
{
    json_t *v;
    struct gw_err err;
    int rc = gw_json_parse(text, strlen(text), &v, &err);
    gw_assert(rc == 0);
    return v;
}

static void ask_any(struct gw_policy *p, enum gw_hook h, json_t *facts, struct gw_decision *d)
{
    struct gw_mode_answer mode;
    struct gw_budget_answer budget;
    enum gw_authorization authorization;
    char *line = NULL;
    json_t *blockers = parsed(sample_blockers);
    switch (h) {
    case GW_HOOK_RESTART_MODE:
        gw_policy_restart_mode(p, facts, &mode, d);
        break;
    case GW_HOOK_DRAIN_BUDGET:
        gw_policy_drain_budget(p, facts, &budget, d);
        break;
    case GW_HOOK_FORMAT_BLOCKERS:
        gw_policy_format_blockers(p, blockers, facts, &line, d);
        break;
    default:
        gw_policy_authorize_sigusr1(p, facts, &authorization, d);
        break;
    }
    free(line);
    json_decref(blockers);
}

/* Asks every hook about every situation. Returns how many hooks failed; each is told once. */
static unsigned check_answers(struct gw_policy *p, void (*fault)(void *ud, const char *text), void *ud)
{
    unsigned failed = 0;
    for (int h = 0; h < GW_HOOK_COUNT; h++) {
        for (size_t i = 0; i < sizeof situations / sizeof *situations; i++) {
            struct gw_decision d;
            json_t *facts = parsed(situations[i].facts);
            ask_any(p, (enum gw_hook)h, facts, &d);
            json_decref(facts);
            if (!d.failed)
                continue;
            char *text = gw_asprintf("%s (%s, asked about %s)", d.error, d.hook, situations[i].what);
            fault(ud, text);
            free(text);
            failed++;
            break;
        }
    }
    return failed;
}

unsigned gw_policy_check(const char *path, const char *lua_dir, void (*fault)(void *ud, const char *text),
                         void *ud)
{
    struct gw_policy *p;
    struct gw_err err;
    if (gw_policy_load(path, lua_dir, &p, &err) == 0) {
        unsigned failed = check_answers(p, fault, ud);
        gw_policy_free(p);
        return failed;
    }
    // Once more, for all that is wrong with the table and not only the first of it.
    struct gw_faults *faults = gw_calloc(1, sizeof *faults);
    struct gw_sources *sources = gw_sources_new();
    struct gw_vm *vm = gw_calloc(1, sizeof *vm);
    char *whole = *path == '/' ? gw_strdup(path) : realpath(path, NULL);
    if (whole != NULL)
        (void)gw_vm_open(vm, sources, whole, lua_dir, faults, &err);
    for (unsigned i = 0; i < faults->count; i++)
        fault(ud, faults->text[i]);
    unsigned found = faults->total;
    if (found == 0) {
        fault(ud, err.text);
        found = 1;
    }
    gw_vm_drop(vm);
    free(vm);
    free(whole);
    free(faults);
    gw_sources_unref(sources);
    return found;
}

// ---- test ----

struct session {
    struct gw_vm vm;
    struct gw_sources *sources;     /* a reference */
    char *policy, *tests, *prelude; /* owned: paths */
    const char *lua_dir;            /* borrowed */
    struct gw_err err;
    int list_ref;
    lua_Integer count, current;
    char sentence[256];
};

static enum gw_hook check_hook_name(lua_State *L, int idx)
{
    const char *name = luaL_checkstring(L, idx);
    for (int h = 0; h < GW_HOOK_COUNT; h++)
        if (strcmp(name, gw_hook_name((enum gw_hook)h)) == 0)
            return (enum gw_hook)h;
    luaL_error(L, "'%s' is no hook", name);
    return GW_HOOK_COUNT;
}

/* builtin(hook, facts), builtin("format_blockers", blockers, facts): what the host would decide alone. */
static int builtin(lua_State *L)
{
    enum gw_hook h = check_hook_name(L, 1);
    int first = h == GW_HOOK_FORMAT_BLOCKERS ? 2 : 0, at = first != 0 ? 3 : 2;
    struct gw_err err;
    json_t *facts = NULL, *blockers = NULL, *answer = NULL;
    const char *text = NULL;
    lua_settop(L, 3);
    luaL_checkstack(L, LUA_MINSTACK, NULL);
    char line[GW_LINE_BYTES];
    gw_timelimit_hold();
    int rc = gw_lua_to_json(L, at, &facts, &err);
    if (rc == 0 && first != 0)
        rc = gw_lua_to_json(L, first, &blockers, &err);
    if (rc == 0)
        answer = gw_builtin_json(h, blockers, facts);
    if (json_is_string(answer)) {
        (void)snprintf(line, sizeof line, "%s", json_string_value(answer));
        text = line;
    }
    bool yes = json_is_true(answer), boolean = json_is_boolean(answer), number = json_is_integer(answer);
    int64_t ms = json_integer_value(answer);
    json_decref(facts);
    json_decref(blockers);
    json_decref(answer);
    gw_timelimit_release();
    if (rc < 0)
        return luaL_error(L, "%s", err.text);
    if (boolean)
        lua_pushboolean(L, yes);
    else if (number)
        lua_pushinteger(L, ms);
    else
        lua_pushstring(L, text); // NULL: nil
    return 1;
}

/* accepted(hook, facts, answer, why): raises what the host would say about that answer. */
static int accepted(lua_State *L)
{
    enum gw_hook h = check_hook_name(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 4);
    struct gw_mode_reader mode = {0};
    struct gw_authorization_reader authorization = {0};
    struct gw_line_reader line = {0};
    struct gw_budget_reader budget = {0};
    switch (h) {
    case GW_HOOK_RESTART_MODE:
        gw_read_mode(L, 3, &mode.words.reader);
        break;
    case GW_HOOK_DRAIN_BUDGET:
        lua_getfield(L, 2, "action");
        budget.stop = lua_type(L, -1) == LUA_TSTRING && strcmp(lua_tostring(L, -1), "stop") == 0;
        gw_read_budget(L, 3, &budget.words.reader);
        break;
    case GW_HOOK_FORMAT_BLOCKERS:
        gw_read_line(L, 3, &line.words.reader);
        break;
    default:
        gw_read_authorization(L, 3, &authorization.words.reader);
        break;
    }
    return 0;
}

static void run_file(lua_State *L, struct session *s, const char *path, int env_idx, int nargs)
{
    env_idx = lua_absindex(L, env_idx);
    if (gw_sources_compile(s->sources, L, path, &s->err) < 0) {
        lua_pushstring(L, s->err.text);
        lua_error(L);
    }
    lua_pushvalue(L, env_idx);
    lua_setupvalue(L, -2, 1);
    lua_insert(L, -1 - nargs);
    lua_call(L, nargs, 1);
}

/* Runs the prelude, which returns what test files see beside the sandbox, then the test file. */
static int collect(lua_State *L)
{
    struct session *s = lua_touserdata(L, 1);
    lua_newtable(L); // the environment at 2, of the test file only
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->vm.env_ref);
    lua_pushnil(L);
    while (lua_next(L, -2) != 0) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, 2);
    }
    lua_pop(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->vm.policy_ref);
    lua_pushcfunction(L, builtin);
    lua_pushcfunction(L, accepted);
    run_file(L, s, s->prelude, 2, 3);
    luaL_checktype(L, -1, LUA_TTABLE);
    lua_getfield(L, -1, "tests");
    s->list_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_getfield(L, -1, "api");
    lua_pushnil(L);
    while (lua_next(L, -2) != 0) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, 2);
    }
    lua_settop(L, 2);
    gw_sandbox_seal_env(L);
    run_file(L, s, s->tests, 2, 0);
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->list_ref);
    s->count = (lua_Integer)lua_rawlen(L, -1);
    return 0;
}

static int name_current(lua_State *L)
{
    struct session *s = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->list_ref);
    lua_rawgeti(L, -1, s->current);
    luaL_checktype(L, -1, LUA_TTABLE);
    lua_getfield(L, -1, "sentence");
    gw_lua_describe(L, -1, s->sentence, sizeof s->sentence);
    return 0;
}

static int run_current(lua_State *L)
{
    struct session *s = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->list_ref);
    lua_rawgeti(L, -1, s->current);
    lua_getfield(L, -1, "run");
    lua_call(L, 0, 0);
    return 0;
}

/* A fresh state with the policy and its test file in it. */
static int open_session(struct session *s, struct gw_err *err)
{
    gw_vm_drop(&s->vm);
    s->vm = (struct gw_vm){0};
    int rc = gw_vm_open(&s->vm, s->sources, s->policy, s->lua_dir, NULL, err);
    if (rc < 0)
        return rc;
    const char *text;
    size_t len;
    // Read out here, where nothing can be left by a jump.
    if ((rc = gw_sources_read(s->sources, s->prelude, &text, &len, err)) < 0 ||
        (rc = gw_sources_read(s->sources, s->tests, &text, &len, err)) < 0)
        return rc;
    rc = gw_vm_call(&s->vm, collect, s, err);
    if (rc == -ETIME || rc == -ENOMEM)
        (void)gw_err_prefix(err, "%s:1", s->tests);
    return rc;
}

static int run_one(struct session *s, struct gw_err *err)
{
    int rc = gw_vm_call(&s->vm, name_current, s, err);
    return rc < 0 ? rc : gw_vm_call(&s->vm, run_current, s, err);
}

static int run_all(struct session *s, void (*report)(void *ud, const char *sentence, const char *wrong),
                   void *ud, struct gw_err *err)
{
    int failed = 0, rc = open_session(s, err);
    if (rc < 0)
        return rc;
    lua_Integer count = s->count;
    if (count == 0)
        return gw_err_set(err, -ENOENT, "%s:1: no test in it", s->tests);
    for (s->current = 1; s->current <= count; s->current++) {
        struct gw_err wrong;
        (void)snprintf(s->sentence, sizeof s->sentence, "test %lld", (long long)s->current);
        rc = s->current > 1 ? open_session(s, &wrong) : 0;
        rc = rc < 0 ? rc : run_one(s, &wrong);
        report(ud, s->sentence, rc < 0 ? wrong.text : NULL);
        failed += rc < 0;
    }
    return failed;
}

int gw_policy_test(const char *path, const char *lua_dir,
                   void (*report)(void *ud, const char *sentence, const char *wrong), void *ud,
                   struct gw_err *err)
{
    char *whole = realpath(path, NULL);
    if (whole == NULL)
        return gw_err_set(err, -errno, "%s: %s", path, gw_strerror(-errno));
    size_t n = strlen(whole);
    size_t stem = n > 4 && strcmp(whole + n - 4, ".lua") == 0 ? n - 4 : n;
    struct session *s = gw_calloc(1, sizeof *s);
    s->sources = gw_sources_new();
    s->lua_dir = lua_dir;
    s->policy = whole;
    s->tests = gw_asprintf("%.*s_test.lua", (int)stem, whole);
    s->prelude = gw_asprintf("%s/gwhost/policy/testing.lua", lua_dir);
    int rc = run_all(s, report, ud, err);
    gw_vm_drop(&s->vm);
    gw_sources_unref(s->sources);
    free(s->policy);
    free(s->tests);
    free(s->prelude);
    free(s);
    return rc;
}
