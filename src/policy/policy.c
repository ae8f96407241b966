#include "policy/policy.h"

#include "base/err.h"
#include "base/json.h"
#include "base/sha.h"
#include "base/str.h"
#include "base/time.h"
#include "policy/answer.h"
#include "policy/builtin.h"
#include "policy/timelimit.h"
#include "policy/vm.h"
#include "script/sources.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

struct gw_policy {
    char *path, *lua_dir;       /* owned; path NULL: built-in */
    struct gw_sources *sources; /* a reference; frozen */
    char sha256[65];
    char name[128];
    int64_t loaded_at;
    struct gw_vm vm;
    struct gw_err lost; /* code < 0: the state could not be made again, and why */
};

// ---- life ----

int gw_policy_init(struct gw_err *err)
{
    return gw_timelimit_init(err);
}

void gw_policy_fini(void)
{
    gw_timelimit_fini();
}

static char *absolute(const char *path)
{
    if (*path == '/')
        return gw_strdup(path);
    char *cwd = getcwd(NULL, 0);
    char *whole = gw_asprintf("%s/%s", cwd != NULL ? cwd : "", path);
    free(cwd);
    return whole;
}

/* Takes path, lua_dir and the reference to sources. */
static int open_policy(char *path, char *lua_dir, struct gw_sources *sources, struct gw_policy **ret_policy,
                       struct gw_err *err)
{
    struct gw_policy *p = gw_calloc(1, sizeof *p);
    p->path = path;
    p->lua_dir = lua_dir;
    p->sources = sources;
    int rc = gw_vm_open(&p->vm, sources, path, lua_dir, NULL, err);
    if (rc < 0) {
        rc = gw_sources_judge(sources, rc, err);
        gw_policy_free(p);
        return rc;
    }
    gw_sources_freeze(sources);
    gw_sources_sha256(sources, p->sha256);
    p->loaded_at = gw_wall_ms();
    const char *slash = strrchr(path, '/');
    (void)snprintf(p->name, sizeof p->name, "%.127s", p->vm.name[0] != '\0' ? p->vm.name : slash + 1);
    *ret_policy = p;
    return 0;
}

int gw_policy_load(const char *path, const char *lua_dir, struct gw_policy **ret_policy, struct gw_err *err)
{
    return open_policy(absolute(path), gw_strdup(lua_dir), gw_sources_new(), ret_policy, err);
}

int gw_policy_load_from(struct gw_sources *sources, const char *path, const char *lua_dir,
                        struct gw_policy **ret_policy, struct gw_err *err)
{
    return open_policy(absolute(path), gw_strdup(lua_dir), gw_sources_ref(sources), ret_policy, err);
}

const struct gw_sources *gw_policy_sources(const struct gw_policy *p)
{
    return p->path != NULL ? p->sources : NULL;
}

int gw_policy_reopen(const struct gw_policy *p, struct gw_policy **ret_policy, struct gw_err *err)
{
    if (p->path == NULL) {
        *ret_policy = gw_policy_builtin();
        return 0;
    }
    return open_policy(gw_strdup(p->path), gw_strdup(p->lua_dir), gw_sources_ref(p->sources), ret_policy,
                       err);
}

struct gw_policy *gw_policy_builtin(void)
{
    struct gw_policy *p = gw_calloc(1, sizeof *p);
    gw_sha256_hex("", 0, p->sha256);
    (void)snprintf(p->name, sizeof p->name, "built-in");
    p->loaded_at = gw_wall_ms();
    return p;
}

struct gw_policy *gw_policy_free(struct gw_policy *p)
{
    if (p == NULL)
        return NULL;
    gw_vm_drop(&p->vm);
    p->sources = gw_sources_unref(p->sources);
    free(p->path);
    free(p->lua_dir);
    free(p);
    return NULL;
}

const char *gw_policy_path(const struct gw_policy *p)
{
    return p->path != NULL ? p->path : "built-in";
}

const char *gw_policy_sha256(const struct gw_policy *p)
{
    return p->sha256;
}

const char *gw_policy_name(const struct gw_policy *p)
{
    return p->name;
}

int64_t gw_policy_loaded_at(const struct gw_policy *p)
{
    return p->loaded_at;
}

// ---- asking ----

/* A state that spent its limits may be half changed: it is dropped and made again from what was read. */
static void make_again(struct gw_policy *p)
{
    gw_vm_drop(&p->vm);
    p->vm = (struct gw_vm){0};
    if (gw_vm_open(&p->vm, p->sources, p->path, p->lua_dir, NULL, &p->lost) == 0)
        p->lost.code = 0;
}

static void freeze_facts(struct gw_vm *vm, json_t *facts)
{
    if (!json_is_integer(json_object_get(facts, "now_ms")))
        gw_json_set(facts, "now_ms", json_integer(gw_wall_ms()));
    if (!json_is_integer(json_object_get(facts, "seed"))) {
        uint32_t seed = 0; // small enough for every reader of JSON
        (void)getrandom(&seed, sizeof seed, GRND_NONBLOCK);
        gw_json_set(facts, "seed", json_integer(seed));
    }
    vm->frozen.now_ms = json_integer_value(json_object_get(facts, "now_ms"));
    vm->frozen.seed = json_integer_value(json_object_get(facts, "seed"));
}

static void fail(struct gw_decision *d, const char *error)
{
    d->failed = true;
    gw_one_line(error, strlen(error), d->error, sizeof d->error);
}

/* Asks h. Returns whether words (and the struct around it) hold the policy's answer; otherwise the built-in
 * one applies, and d says why. */
static bool ask(struct gw_policy *p, enum gw_hook h, const json_t *blockers, json_t *facts,
                struct gw_answer_words *words, struct gw_decision *d)
{
    *d = (struct gw_decision){.builtin = true};
    (void)snprintf(d->hook, sizeof d->hook, "%s", gw_hook_name(h));
    gw_json_set(facts, "builtin", gw_builtin_json(h, blockers, facts));
    freeze_facts(&p->vm, facts);
    if (p->path == NULL)
        return false;
    if (p->lost.code < 0) {
        fail(d, p->lost.text);
        return false;
    }
    if (p->vm.hooks[h] == LUA_NOREF)
        return false;
    (void)snprintf(d->line, sizeof d->line, "%s", p->vm.lines[h]);
    struct gw_err err;
    int rc = gw_vm_ask(&p->vm, h, blockers, facts, &words->reader, &err);
    if (p->vm.spoiled)
        make_again(p);
    if (rc < 0) {
        fail(d, err.text);
        return false;
    }
    d->builtin = false;
    (void)snprintf(d->why, sizeof d->why, "%s", words->why);
    (void)snprintf(d->answer, sizeof d->answer, "%s", words->said);
    return true;
}

static void say_builtin(struct gw_decision *d, const char *why)
{
    (void)snprintf(d->why, sizeof d->why, "built-in%s%s", *why != '\0' ? ": " : "", why);
}

void gw_policy_restart_mode(struct gw_policy *p, json_t *facts, struct gw_mode_answer *ret,
                            struct gw_decision *ret_decision)
{
    uint64_t start_us = gw_now_us();
    struct gw_mode_reader r = {.words.reader.read = gw_read_mode};
    if (ask(p, GW_HOOK_RESTART_MODE, NULL, facts, &r.words, ret_decision)) {
        *ret = r.answer;
    } else {
        const char *why;
        *ret = (struct gw_mode_answer){
            .mode = gw_builtin_mode(facts, &why), .health_timeout_ms = -1, .exit_delay_ms = -1};
        say_builtin(ret_decision, why);
        gw_say_mode(ret, ret_decision->answer, sizeof ret_decision->answer);
    }
    ret_decision->us = gw_now_us() - start_us;
}

void gw_policy_drain_budget(struct gw_policy *p, json_t *facts, struct gw_budget_answer *ret,
                            struct gw_decision *ret_decision)
{
    uint64_t start_us = gw_now_us();
    const char *why, *action = json_string_value(json_object_get(facts, "action"));
    struct gw_budget_reader r = {.words.reader.read = gw_read_budget,
                                 .stop = action != NULL && strcmp(action, "stop") == 0,
                                 .builtin_ms = gw_builtin_budget(facts, &why)};
    if (ask(p, GW_HOOK_DRAIN_BUDGET, NULL, facts, &r.words, ret_decision)) {
        *ret = r.answer;
    } else {
        *ret = (struct gw_budget_answer){.budget_ms = r.builtin_ms, .report_every_ms = -1};
        say_builtin(ret_decision, why);
        gw_say_budget(ret, ret_decision->answer, sizeof ret_decision->answer);
    }
    ret_decision->us = gw_now_us() - start_us;
}

void gw_policy_authorize_sigusr1(struct gw_policy *p, json_t *facts, enum gw_authorization *ret,
                                 struct gw_decision *ret_decision)
{
    uint64_t start_us = gw_now_us();
    struct gw_authorization_reader r = {.words.reader.read = gw_read_authorization};
    const char *why;
    if (ask(p, GW_HOOK_AUTHORIZE_SIGUSR1, NULL, facts, &r.words, ret_decision)) {
        *ret = r.answer;
    } else {
        *ret = gw_builtin_authorization(facts, &why);
        say_builtin(ret_decision, why);
        if (ret_decision->failed) {
            // Who may restart is not decided by an accident.
            *ret = GW_DENY;
            ret_decision->builtin = false;
            (void)snprintf(ret_decision->why, sizeof ret_decision->why, "the hook failed");
        }
        (void)snprintf(ret_decision->answer, sizeof ret_decision->answer, "%s", gw_say_authorization(*ret));
    }
    ret_decision->us = gw_now_us() - start_us;
}

void gw_policy_format_blockers(struct gw_policy *p, json_t *blockers, json_t *facts, char **ret_line,
                               struct gw_decision *ret_decision)
{
    uint64_t start_us = gw_now_us();
    struct gw_line_reader r = {.words.reader.read = gw_read_line};
    if (ask(p, GW_HOOK_FORMAT_BLOCKERS, blockers, facts, &r.words, ret_decision)) {
        *ret_line = r.line[0] != '\0' ? gw_strdup(r.line) : NULL;
    } else {
        *ret_line = gw_builtin_line(blockers, facts);
        say_builtin(ret_decision, "");
        const char *line = *ret_line != NULL ? *ret_line : "";
        gw_one_line(line, strlen(line), ret_decision->answer, sizeof ret_decision->answer);
    }
    if (*ret_line == NULL)
        (void)snprintf(ret_decision->answer, sizeof ret_decision->answer, "nil");
    ret_decision->us = gw_now_us() - start_us;
}

const char *const *gw_policy_hook_names(void)
{
    static const char *names[GW_HOOK_COUNT + 1];
    for (int h = 0; h < GW_HOOK_COUNT; h++)
        names[h] = gw_hook_name((enum gw_hook)h);
    return names;
}
