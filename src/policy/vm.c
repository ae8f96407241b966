#include "policy/vm.h"

#include "base/err.h"
#include "base/str.h"
#include "base/time.h"
#include "policy/arena.h"
#include "policy/check.h"
#include "policy/timelimit.h"
#include "script/door.h"
#include "script/sources.h"
#include "script/value.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static const char *const hook_names[GW_HOOK_COUNT] = {"restart_mode", "drain_budget", "format_blockers",
                                                      "authorize_sigusr1"};

const char *gw_hook_name(enum gw_hook h)
{
    return hook_names[h];
}

void gw_faults_add(struct gw_faults *f, const char *fmt, ...)
{
    f->total++;
    if (f->count == sizeof f->text / sizeof *f->text)
        return;
    char *text = f->text[f->count++];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof *f->text, fmt, ap);
    va_end(ap);
    if (n >= (int)sizeof *f->text)
        text[gw_utf8_clip(text, sizeof *f->text - 1)] = '\0';
}

// ---- open and drop ----

struct opening {
    struct gw_vm *vm;
    struct gw_sources *sources;
    const char *path, *lua_dir, *dir; /* borrowed */
    const char *text;
    struct gw_faults *faults;
    struct gw_err *err;
    int failed; /* of compiling, or 0 */
};

static int build(lua_State *L)
{
    struct opening *o = lua_touserdata(L, 1);
    char rule[4096 + 32];
    gw_sandbox_open(L, &o->vm->frozen);
    gw_sandbox_seed(L, &o->vm->frozen);
    int n = snprintf(rule, sizeof rule, "gwhost.policy.=%s", o->lua_dir);
    luaL_argcheck(L, n < (int)sizeof rule, 1, "the path of the Lua folder is too long");
    const char *dirs[] = {rule, o->dir};
    lua_pushvalue(L, -1);
    o->vm->env_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pushvalue(L, -1);
    gw_sandbox_seal_env(L);
    // Modules see the same globals, `require` among them: it goes into the table behind the view.
    gw_sources_push_require(o->sources, L, dirs, o->lua_dir[0] != '\0' ? 2 : 1, -1, 0);
    lua_setfield(L, -3, "require");
    lua_rawsetp(L, LUA_REGISTRYINDEX, o->vm); // the sealed environment, for the main chunk
    return 0;
}

static int run_main(lua_State *L)
{
    struct opening *o = lua_touserdata(L, 1);
    o->failed = gw_sources_compile(o->sources, L, o->path, o->err);
    if (o->failed < 0) {
        lua_pushstring(L, o->err->text);
        return lua_error(L);
    }
    lua_rawgetp(L, LUA_REGISTRYINDEX, o->vm);
    lua_setupvalue(L, -2, 1);
    lua_call(L, 0, 1);
    gw_check_table(L, -1, o->path, o->text, o->vm, o->faults);
    o->vm->policy_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

static int panic(lua_State *L)
{
    gw_assert(!"a Lua error outside of a protected call");
    return 0;
}

/* Reads what must be there, and opens an empty state with the sandbox in it. */
static int prepare(struct opening *o, struct gw_err *err)
{
    struct gw_vm *vm = o->vm;
    size_t len;
    int rc = gw_sources_read(o->sources, o->path, &o->text, &len, err);
    if (rc < 0)
        return rc;
    vm->arena = gw_arena_new();
    if (vm->arena == NULL)
        return gw_err_set(err, -ENOMEM, "%s: no memory for a Lua state", o->path);
    vm->L = lua_newstate(gw_arena_alloc, vm->arena);
    if (vm->L == NULL)
        return gw_err_set(err, -ENOMEM, "%s: no memory for a Lua state", o->path);
    (void)lua_atpanic(vm->L, panic);
    return gw_lua_protect(vm->L, build, o, err);
}

/* Whether text begins with "FILE:" of one of the sources. */
static bool has_position(const struct gw_vm *vm, const char *text)
{
    for (size_t i = 0; i < gw_sources_count(vm->sources); i++) {
        const char *path = gw_sources_path(vm->sources, i);
        size_t n = strlen(path);
        if (strncmp(text, path, n) == 0 && text[n] == ':')
            return true;
    }
    return false;
}

static int open_from(struct opening *o, struct gw_err *err)
{
    int rc = prepare(o, err);
    if (rc < 0)
        return rc;
    o->err = err;
    gw_sources_guard(o->sources, gw_timelimit_pause, gw_timelimit_resume);
    rc = gw_vm_call(o->vm, run_main, o, err);
    gw_sources_guard(o->sources, NULL, NULL);
    if (o->failed < 0 && rc == -EINVAL)
        return o->failed;
    if (rc == -ETIME || rc == -ENOMEM) {
        // Left before it could say where.
        return has_position(o->vm, err->text) ? rc : gw_err_prefix(err, "%s:1", o->path);
    }
    if (rc < 0)
        return rc;
    if (o->faults->count > 0)
        return gw_err_set(err, -EINVAL, "%s", o->faults->text[0]);
    return 0;
}

int gw_vm_open(struct gw_vm *vm, struct gw_sources *sources, const char *path, const char *lua_dir,
               struct gw_faults *faults, struct gw_err *err)
{
    struct gw_err own_err;
    struct gw_faults *own_faults = faults == NULL ? gw_calloc(1, sizeof *own_faults) : NULL;
    const char *slash = strrchr(path, '/');
    gw_assert(slash != NULL && vm->L == NULL);
    char *dir = gw_memdup0(path, slash == path ? 1 : (size_t)(slash - path));
    vm->frozen.now_ms = gw_wall_ms();
    (void)getrandom(&vm->frozen.seed, sizeof vm->frozen.seed, GRND_NONBLOCK);
    vm->sources = sources;
    vm->policy_ref = vm->env_ref = LUA_NOREF;
    for (int h = 0; h < GW_HOOK_COUNT; h++)
        vm->hooks[h] = LUA_NOREF;
    struct opening o = {.vm = vm,
                        .sources = sources,
                        .path = path,
                        .lua_dir = lua_dir != NULL ? lua_dir : "",
                        .dir = dir,
                        .faults = faults != NULL ? faults : own_faults};
    int rc = open_from(&o, err != NULL ? err : &own_err);
    if (rc < 0)
        gw_vm_drop(vm);
    free(dir);
    free(own_faults);
    return rc;
}

void gw_vm_drop(struct gw_vm *vm)
{
    // No lua_close: there is nothing in the state that is not in the arena.
    vm->arena = gw_arena_free(vm->arena);
    vm->L = NULL;
}

// ---- calls ----

int gw_vm_call(struct gw_vm *vm, lua_CFunction fn, void *ud, struct gw_err *err)
{
    bool left;
    gw_assert(vm->L != NULL && !vm->spoiled);
    gw_arena_allow(vm->arena, GW_VM_CALL_BYTES);
    int rc = gw_timelimit_call(vm->L, fn, ud, &left, err);
    if (rc == -ENOMEM)
        (void)gw_err_set(err, rc, "used more than %d MiB", GW_VM_CALL_BYTES >> 20);
    vm->spoiled = rc == -ETIME || rc == -ENOMEM;
    if (!vm->spoiled)
        gw_arena_trim(vm->arena);
    return rc;
}

struct question {
    struct gw_vm *vm;
    enum gw_hook hook;
    const json_t *first, *facts; /* borrowed */
    struct gw_answer_reader *reader;
    bool answered; /* what fails now is the answer, not the hook */
};

static int ask(lua_State *L)
{
    struct question *q = lua_touserdata(L, 1);
    gw_sandbox_seed(L, &q->vm->frozen);
    lua_rawgeti(L, LUA_REGISTRYINDEX, q->vm->hooks[q->hook]);
    int nargs = 1;
    if (q->first != NULL) {
        gw_lua_push_json(L, q->first, 1);
        nargs++;
    }
    gw_lua_push_json(L, q->facts, 1);
    lua_call(L, nargs, 2);
    q->answered = true;
    q->reader->read(L, lua_gettop(L) - 1, q->reader);
    return 0;
}

int gw_vm_ask(struct gw_vm *vm, enum gw_hook h, const json_t *first, const json_t *facts,
              struct gw_answer_reader *reader, struct gw_err *err)
{
    struct question q = {.vm = vm, .hook = h, .first = first, .facts = facts, .reader = reader};
    int rc = gw_vm_call(vm, ask, &q, err);
    if (rc == 0)
        return 0;
    if (q.answered && rc == -EINVAL)
        (void)gw_err_prefix(err, "%s: wrong answer of %s", vm->lines[h], gw_hook_name(h));
    else if (!has_position(vm, err->text))
        (void)gw_err_prefix(err, "%s", vm->lines[h]);
    return rc;
}
