/* api_host.c - gwhost.sleep go log now keep kept status restart spawn, and the files of --handlers.
 * lua/gwhost/meta.lua is the reference for what scripts see. */
#include "app/lua_app.h"
#include "base/json.h"
#include "base/log.h"
#include "base/sha.h"
#include "base/time.h"
#include "loop/child.h"
#include "loop/leftovers.h"
#include "script/sources.h"
#include "script/value.h"

#include <dirent.h>
#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEPT_BYTES = 65536, OUTPUT_BYTES = 24576, ARGS_MAX = 256, STOP_MS = 5000, LEFT_MS = 1000 };

// ---- sleep ----

struct nap {
    uv_timer_t timer; /* data: this */
    struct gw_wait *wait; /* NULL once it has ended */
};

static void free_nap(uv_handle_t *handle)
{
    free(handle->data);
}

static void wake(uv_timer_t *timer)
{
    struct nap *nap = timer->data;
    struct gw_wait *wait = nap->wait;
    uv_close((uv_handle_t *)timer, free_nap);
    gw_wait_end(wait, NULL, NULL);
}

static void cancel_nap(struct gw_wait *wait)
{
    struct nap *nap = wait->ud;
    uv_close((uv_handle_t *)&nap->timer, free_nap);
    free(wait);
}

static int api_sleep(lua_State *L)
{
    lua_Number ms = luaL_checknumber(L, 1);
    luaL_argcheck(L, ms >= 0 && ms <= (lua_Number)GW_MS_MAX, 1, "milliseconds, 0 to ten years");
    struct gw_lua_app *app = gw_lua_app_of(L);
    struct gw_wait *wait = gw_wait_begin(L, cancel_nap, NULL);
    struct nap *nap = gw_calloc(1, sizeof *nap);
    wait->ud = nap;
    nap->wait = wait;
    (void)uv_timer_init(app->env.loop, &nap->timer);
    nap->timer.data = nap;
    uv_update_time(app->env.loop); // a nap counts from now, not from the start of this turn
    (void)uv_timer_start(&nap->timer, wake, (uint64_t)(ms + 0.999), 0);
    return gw_wait_yield(L, wait);
}

static int api_ms(lua_State *L)
{
    int64_t ms, min = luaL_optinteger(L, 2, 0);
    luaL_checkany(L, 1);
    if (gw_lua_ms(L, 1, min, &ms)) {
        lua_pushinteger(L, ms);
        return 1;
    }
    char words[100];
    (void)snprintf(words, sizeof words, GW_MS_WORDS, (int)min);
    lua_pushnil(L);
    lua_pushstring(L, words);
    return 2;
}

// ---- small things ----

static void went(struct gw_coro *coro, int nresults, const struct gw_err *err)
{
    if (err != NULL)
        gw_lua_app_error(coro->app, "a coroutine", err);
}

static int api_go(lua_State *L)
{
    struct gw_lua_app *app = gw_lua_app_of(L);
    luaL_checktype(L, 1, LUA_TFUNCTION);
    int n = lua_gettop(L) - 1;
    if (L != app->L)
        lua_xmove(L, app->L, n + 1);
    gw_coro_go(app, n, went, NULL, NULL);
    return 0;
}

static int api_log(lua_State *L)
{
    enum gw_level level;
    size_t n;
    const char *name = gw_app_text(L, 1), *message = luaL_checklstring(L, 2, &n);
    luaL_argcheck(L, gw_log_level_parse(name, &level), 1, "give debug, info, warn or error");
    json_t *fields = NULL;
    struct gw_err err = {0};
    if (!lua_isnoneornil(L, 3) && gw_lua_to_json(L, 3, &fields, &err) < 0)
        return luaL_error(L, "log fields: %s", err.text);
    struct gw_buf words = {0}; // it may be anything that came from outside: a NUL is shown, and does not end it
    for (size_t at = 0, len; at <= n; at += len + 1) {
        len = strlen(message + at);
        gw_buf_addf(&words, "%s%s", at > 0 ? "\\0" : "", message + at);
    }
    gw_log(level, "app.log", fields, "%s", words.data);
    gw_buf_fini(&words);
    return 0;
}

static int api_now(lua_State *L)
{
    lua_pushinteger(L, gw_wall_ms());
    return 1;
}

static int api_keep(lua_State *L)
{
    const char *key = gw_app_text(L, 1);
    struct gw_lua_app *app = gw_lua_app_of(L);
    if (lua_isnoneornil(L, 2)) {
        (void)json_object_del(app->env.kept, key);
        return 0;
    }
    json_t *value;
    struct gw_err err = {0};
    if (gw_lua_to_json(L, 2, &value, &err) < 0)
        return luaL_error(L, "keep '%s': %s", key, err.text);
    char *text = gw_json_text(value);
    size_t n = strlen(text);
    free(text);
    if (n > KEPT_BYTES) {
        json_decref(value);
        return luaL_error(L, "keep '%s': %d bytes of JSON are more than %d", key, (int)n, KEPT_BYTES);
    }
    gw_json_set(app->env.kept, key, value);
    return 0;
}

static int api_kept(lua_State *L)
{
    json_t *value = json_object_get(gw_lua_app_of(L)->env.kept, gw_app_text(L, 1));
    if (value == NULL)
        return 0;
    gw_lua_push_json(L, value, 1);
    return 1;
}

static int api_status(lua_State *L)
{
    struct gw_lua_app *app = gw_lua_app_of(L);
    json_t *status = app->env.ops->status(app->env.ud);
    gw_lua_push_json(L, status, 1);
    json_decref(status);
    return 1;
}

static int push_failure(lua_State *L, const struct gw_err *err)
{
    lua_pushnil(L);
    lua_pushstring(L, err->text);
    return 2;
}

static int api_restart(lua_State *L)
{
    struct gw_lua_app *app = gw_lua_app_of(L);
    struct gw_app_ask_restart ask = {.wait_ms = -1};
    struct gw_err err = {0};
    if (!lua_isnoneornil(L, 1)) {
        luaL_checktype(L, 1, LUA_TTABLE);
        lua_settop(L, 1);
        lua_getfield(L, 1, "reason");
        ask.reason = gw_app_opt_text(L, 2, NULL);
        lua_getfield(L, 1, "when");
        const char *when = gw_app_opt_text(L, 3, "now");
        if (strcmp(when, "now") != 0 && strcmp(when, "idle") != 0)
            return luaL_error(L, "restart: when is '%s', not 'now' or 'idle'", when);
        ask.when_idle = strcmp(when, "idle") == 0;
        lua_getfield(L, 1, "force");
        ask.force = lua_toboolean(L, 4);
        lua_getfield(L, 1, "wait_ms");
        if (!lua_isnil(L, 5) && !gw_lua_ms(L, 5, 0, &ask.wait_ms))
            return luaL_error(L, "restart: wait_ms " GW_MS_WORDS, 0);
        lua_getfield(L, 1, "source");
        const char *source = gw_app_opt_text(L, 6, "app");
        if (strcmp(source, "app") != 0 && strcmp(source, "http") != 0)
            return luaL_error(L, "restart: source is '%s', not 'app' or 'http'", source);
        ask.http = source[0] == 'h';
        lua_getfield(L, 1, "continuation");
        if (!lua_isnil(L, 7) && gw_lua_to_json(L, 7, &ask.continuation, &err) < 0)
            return luaL_error(L, "restart: continuation: %s", err.text);
    }
    ask.requester = gw_app_work_current(app, L);
    json_t *told = NULL;
    int rc = app->env.ops->restart(app->env.ud, &ask, &told, &err);
    json_decref(ask.continuation);
    if (rc < 0)
        return push_failure(L, &err);
    lua_pushstring(L, json_string_value(json_object_get(told, "request_id")));
    lua_pushstring(L, json_string_value(json_object_get(told, "status")));
    gw_lua_push_json(L, told, 0);
    json_decref(told);
    return 3;
}

static int api_restart_outcome(lua_State *L)
{
    struct gw_lua_app *app = gw_lua_app_of(L);
    json_t *outcome = app->env.ops->restart_outcome(app->env.ud, gw_app_text(L, 1));
    if (outcome == NULL)
        return 0;
    gw_lua_push_json(L, outcome, 0);
    json_decref(outcome);
    return 1;
}

static int api_sha256(lua_State *L)
{
    size_t n;
    const char *text = luaL_checklstring(L, 1, &n);
    char hex[65];
    gw_sha256_hex(text, n, hex);
    lua_pushstring(L, hex);
    return 1;
}

// ---- handlers from a folder ----

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_lua(const struct dirent *e)
{
    size_t n = strlen(e->d_name);
    return e->d_name[0] != '.' && n > 4 && strcmp(e->d_name + n - 4, ".lua") == 0;
}

/* A table of NAME = what DIR/NAME.lua returns, for every file of --handlers. Raises with file and line. */
static int api_handler_files(lua_State *L)
{
    struct gw_lua_app *app = gw_lua_app_of(L);
    lua_newtable(L);
    if (app->env.handlers_dir == NULL)
        return 1;
    struct dirent **entries = NULL;
    int n = scandir(app->env.handlers_dir, &entries, is_lua, by_name);
    if (n < 0)
        return luaL_error(L, "cannot read the handlers folder '%s': %s", app->env.handlers_dir,
                          gw_strerror(errno));
    // The names go into Lua first, so that nothing of ours is held when a file raises.
    lua_createtable(L, n, 0);
    for (int i = 0; i < n; i++) {
        lua_pushlstring(L, entries[i]->d_name, strlen(entries[i]->d_name) - 4);
        lua_rawseti(L, -2, i + 1);
        free(entries[i]);
    }
    free(entries);
    for (int i = 1; i <= n; i++) {
        lua_rawgeti(L, -1, i);
        const char *path = lua_pushfstring(L, "%s/%s.lua", app->env.handlers_dir, lua_tostring(L, -1));
        struct gw_err err = {0};
        if (gw_sources_compile(app->sources, L, path, &err) < 0)
            return luaL_error(L, "%s", err.text);
        lua_call(L, 0, 1);
        if (!lua_isfunction(L, -1))
            return luaL_error(L, "%s: a handler file returns function(task), not a %s; modules that handlers require "
                              "go into a folder below", path, luaL_typename(L, -1));
        lua_pushvalue(L, -3);   // name
        lua_pushvalue(L, -2);   // function
        lua_settable(L, -7);    // handlers[name] = function
        lua_pop(L, 3);
    }
    lua_pop(L, 1);
    return 1;
}

// ---- children ----

struct child {
    struct gw_link link; /* in app->children while it runs */
    struct gw_lua_app *app;
    struct gw_child *process; /* NULL once it has ended */
    struct gw_wait *wait;
    int ref; /* of the object, while it runs */
    pid_t pid;
    struct gw_child_result *result; /* owned; NULL while it runs */
    char owner[40]; /* the task or run that began it, "" : none */
};

static int child_gc(lua_State *L)
{
    struct child *c = lua_touserdata(L, 1);
    if (c->result != NULL) {
        gw_buf_fini(&c->result->out);
        gw_buf_fini(&c->result->err);
        free(c->result);
        c->result = NULL;
    }
    return 0;
}

static void push_output(lua_State *L, const char *key, const struct gw_buf *b)
{
    lua_pushlstring(L, b->data != NULL ? b->data : "", b->len);
    lua_setfield(L, -2, key);
}

static int push_result(lua_State *L, void *ud)
{
    const struct gw_child_result *r = ((struct child *)ud)->result;
    lua_createtable(L, 0, 6);
    if (r->signal != 0 || r->exit_code >= 0) {
        lua_pushinteger(L, r->signal != 0 ? r->signal : r->exit_code);
        lua_setfield(L, -2, r->signal != 0 ? "signal" : "exit_code");
    }
    push_output(L, "stdout", &r->out);
    push_output(L, "stderr", &r->err);
    lua_pushboolean(L, r->out_bytes > r->out.len || r->err_bytes > r->err.len);
    lua_setfield(L, -2, "truncated");
    return 1;
}

static void child_ended(void *ud, struct gw_child *process, const struct gw_child_result *result)
{
    struct child *c = ud;
    struct gw_lua_app *app = c->app;
    c->process = NULL;
    c->result = gw_calloc(1, sizeof *c->result);
    *c->result = *result;
    c->result->out = (struct gw_buf){0};
    c->result->err = (struct gw_buf){0};
    gw_buf_add(&c->result->out, result->out.data, result->out.len);
    gw_buf_add(&c->result->err, result->err.data, result->err.len);
    gw_link_remove(&c->link);
    app->child_count--;
    struct gw_wait *wait = c->wait;
    c->wait = NULL;
    if (wait != NULL)
        gw_wait_end(wait, push_result, c);
    luaL_unref(app->L, LUA_REGISTRYINDEX, c->ref); // last: it may be what keeps c
}

static struct child *check_child(lua_State *L)
{
    return luaL_checkudata(L, 1, "gwhost.Child");
}

static void cancel_child_wait(struct gw_wait *wait)
{
    ((struct child *)wait->ud)->wait = NULL;
    free(wait);
}

static int child_wait(lua_State *L)
{
    struct child *c = check_child(L);
    if (c->result != NULL)
        return push_result(L, c);
    if (c->wait != NULL)
        return luaL_error(L, "another coroutine waits for this child already");
    c->wait = gw_wait_begin(L, cancel_child_wait, c);
    return gw_wait_yield(L, c->wait);
}

static int child_stop(lua_State *L)
{
    struct child *c = check_child(L);
    lua_Integer grace = luaL_optinteger(L, 2, STOP_MS);
    luaL_argcheck(L, grace >= 0 && grace <= 600000, 2, "milliseconds, 0 to 600000");
    if (c->process != NULL)
        gw_child_end(c->process, (unsigned)grace);
    return 0;
}

static int child_get(lua_State *L)
{
    if (strcmp(gw_app_text(L, 2), "pid") != 0)
        return 0;
    lua_pushinteger(L, check_child(L)->pid);
    return 1;
}

/* Reads a list of strings (argv) or a map (env, as KEY=VALUE) into out, whose strings Lua owns: they stay
 * on the stack. */
static int strings(lua_State *L, int idx, bool map, const char *what, const char **out)
{
    int n = 0;
    idx = lua_absindex(L, idx);
    luaL_checktype(L, idx, LUA_TTABLE);
    luaL_checkstack(L, ARGS_MAX + 10, what);
    if (map) {
        lua_pushnil(L);
        while (lua_next(L, idx)) {
            size_t name_bytes, bytes;
            if (n == ARGS_MAX || lua_type(L, -2) != LUA_TSTRING || !lua_isstring(L, -1))
                return luaL_error(L, "spawn: %s is a table of at most %d strings by name", what, ARGS_MAX);
            const char *name = lua_tolstring(L, -2, &name_bytes), *value = lua_tolstring(L, -1, &bytes);
            if (strlen(name) != name_bytes || strlen(value) != bytes)
                return luaL_error(L, "spawn: %s.%s holds a NUL", what, name);
            out[n++] = lua_pushfstring(L, "%s=%s", lua_tostring(L, -2), lua_tostring(L, -1));
            lua_replace(L, -2); // the text takes the value's place, below the key…
            lua_insert(L, -2);  // … and the key goes back on top
        }
    } else {
        int len = (int)lua_rawlen(L, idx);
        if (len < 1 || len > ARGS_MAX)
            return luaL_error(L, "spawn: %s is a list of 1 to %d strings", what, ARGS_MAX);
        for (int i = 1; i <= len; i++) {
            lua_rawgeti(L, idx, i);
            size_t bytes;
            const char *s = lua_tolstring(L, -1, &bytes);
            if (s == NULL || strlen(s) != bytes)
                return luaL_error(L, "spawn: %s[%d] is not a string without NUL", what, i);
            out[n++] = s;
        }
    }
    out[n] = NULL;
    return n;
}

static int api_spawn(lua_State *L)
{
    struct gw_lua_app *app = gw_lua_app_of(L);
    const char *argv[ARGS_MAX + 1], *env[ARGS_MAX + 1];
    struct gw_child_spec spec = {.argv = argv, .keep_bytes = OUTPUT_BYTES, .nofile = app->env.child_nofile};
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_getfield(L, 1, "cwd");
    spec.cwd = gw_app_opt_text(L, -1, NULL);
    lua_getfield(L, 1, "stdin");
    spec.input = luaL_optlstring(L, -1, NULL, &spec.input_bytes);
    lua_getfield(L, 1, "keep_bytes");
    spec.keep_bytes = (size_t)luaL_optinteger(L, -1, OUTPUT_BYTES);
    lua_getfield(L, 1, "argv");
    (void)strings(L, -1, false, "argv", argv);
    if (lua_getfield(L, 1, "env") != LUA_TNIL) {
        (void)strings(L, -1, true, "env", env);
        spec.env = env;
    }
    struct child *c = gw_object_new(L, "gwhost.Child", sizeof *c);
    c->app = app;
    struct gw_err err = {0};
    spec.mark = gw_app_work_spawns(app, L);
    (void)snprintf(c->owner, sizeof c->owner, "%s", spec.mark != NULL ? spec.mark : "");
    if (gw_child_spawn(app->env.loop, &spec, child_ended, c, &c->process, &err) < 0)
        return push_failure(L, &err);
    c->pid = gw_child_pid(c->process);
    lua_pushvalue(L, -1);
    c->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    gw_link_add(&app->children, &c->link);
    app->child_count++;
    return 1;
}

const char *gw_app_host_owner_of(const struct gw_app *base, int pid)
{
    const struct gw_lua_app *app = (const struct gw_lua_app *)base;
    for (const struct gw_link *l = app->children.next; l != &app->children; l = l->next) {
        const struct child *c = (const struct child *)l;
        if (c->pid == pid && c->owner[0] != '\0')
            return c->owner;
    }
    return NULL;
}

void gw_app_host_over(struct gw_lua_app *app, const char *id)
{
    unsigned left = 0;
    for (struct gw_link *l = app->children.next; l != &app->children; l = l->next) {
        struct child *c = (struct child *)l;
        if (strcmp(c->owner, id) != 0 || c->process == NULL)
            continue;
        gw_child_end(c->process, STOP_MS);
        left++;
    }
    left += gw_leftovers_end(app->env.loop, id, left > 0 ? STOP_MS : LEFT_MS);
    if (left > 0)
        gw_log(GW_INFO, "task.leftovers", json_pack("{sssi}", "task_id", id, "processes", (int)left),
               "%s is over; %u processes that it has left behind are ended", id, left);
}

void gw_app_host_release(struct gw_lua_app *app)
{
    while (!gw_link_empty(&app->children)) {
        struct child *c = (struct child *)app->children.next;
        gw_link_remove(&c->link);
        gw_child_abandon(c->process);
        c->process = NULL;
    }
    app->child_count = 0;
    gw_child_settle();
}

void gw_api_host(lua_State *L)
{
    static const luaL_Reg functions[] = {{"sleep", api_sleep},       {"go", api_go},
                                         {"ms", api_ms},
                                         {"log", api_log},           {"now", api_now},
                                         {"keep", api_keep},         {"kept", api_kept},
                                         {"status", api_status},     {"restart", api_restart},
                                         {"restart_outcome", api_restart_outcome},
                                         {"sha256", api_sha256},
                                         {"spawn", api_spawn},       {"handler_files", api_handler_files},
                                         {NULL, NULL}};
    static const luaL_Reg child[] = {
        {"wait", child_wait}, {"stop", child_stop}, {"__get", child_get}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
    gw_object_type(L, "gwhost.Child", child, child_gc);
    (void)gw_lua_open_json(L);
    lua_setfield(L, -2, "json");
}
