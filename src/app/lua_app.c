/* lua_app.c - a Lua application: opened, started, closed, released. */
#include "app/lua_app.h"
#include "app/stand.h"

#include "base/json.h"
#include "base/log.h"
#include "base/time.h"
#include "script/sources.h"
#include "script/value.h"

#include <errno.h>
#include <lauxlib.h>
#include <libgen.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>

enum { ERRORS_SHOWN = 200, STANDS_SHOWN = 20, LOOK_INSTRUCTIONS = 100000 };

void gw_lua_app_error(struct gw_lua_app *app, const char *what, const struct gw_err *err)
{
    // An application that fails at every request must not fill the disk with its log.
    if (++app->errors > ERRORS_SHOWN && app->errors % 1000 != 0)
        return;
    json_t *fields = json_object();
    gw_json_set(fields, "error", gw_json_string(err->text));
    gw_json_set(fields, "count", json_integer((json_int_t)app->errors));
    gw_log(GW_ERROR, "app.error", fields, "%s failed; the application goes on", what);
}

static int no_exit(lua_State *L)
{
    return luaL_error(L, "an application does not end its host: ask with gwhost.restart{} or a signal");
}

static void trim_os(lua_State *L)
{
    lua_getglobal(L, "os");
    lua_pushcfunction(L, no_exit);
    lua_setfield(L, -2, "exit");
    lua_pop(L, 1);
    lua_getglobal(L, "package");
    lua_pushliteral(L, "");
    lua_setfield(L, -2, "cpath");
    lua_pushliteral(L, "");
    lua_setfield(L, -2, "path");
    lua_pushnil(L);
    lua_setfield(L, -2, "loadlib");
    lua_pushnil(L);
    lua_setfield(L, -2, "searchers");
    lua_pop(L, 1);
}

/* Once the time is over it raises again and again, so that no pcall goes on. A coroutine has the hook of who made it. */
static void look_at_clock(lua_State *L, lua_Debug *ar)
{
    struct gw_lua_app *app = gw_lua_app_of(L);
    if (app->chunk_until_ms == 0 || gw_now_ms() < app->chunk_until_ms)
        return;
    lua_sethook(L, look_at_clock, LUA_MASKCOUNT, 1);
    luaL_error(L, "the main chunk runs for too long; what takes time belongs into start(ctx)");
}

void gw_lua_app_rehook(lua_State *L)
{
    if (gw_lua_app_of(L)->chunk_until_ms > 0)
        lua_sethook(L, look_at_clock, LUA_MASKCOUNT, LOOK_INSTRUCTIONS);
    else
        lua_sethook(L, NULL, 0, 0);
}

/* Prepares the state and runs the main chunk; what it returns is kept in ref_app. */
static int open_body(lua_State *L)
{
    struct gw_lua_app *app = lua_touserdata(L, 1);
    luaL_openlibs(L);
    trim_os(L);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "loaded"); // 3
    lua_newtable(L);
    gw_api_host(L);
    gw_api_http(L);
    gw_api_work(L);
    if (app->env.handlers_dir != NULL) {
        lua_pushstring(L, app->env.handlers_dir);
        lua_setfield(L, -2, "handlers_dir");
    }
    lua_pushboolean(L, app->env.allow_exec);
    lua_setfield(L, -2, "allow_exec");
    lua_setfield(L, 3, "gwhost");
    gw_luv_open(app);
    lua_setfield(L, 3, "luv");
    // A table of our own: who clears package.loaded gets the same modules again, not none.
    lua_newtable(L);
    lua_pushnil(L);
    while (lua_next(L, 3)) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_settable(L, -4);
    }
    char *copy = gw_strdup(app->file), *prefixed = gw_asprintf("gwhost.=%s", app->env.lua_dir);
    const char *dirs[] = {dirname(copy), prefixed, app->env.handlers_dir};
    gw_sources_push_require(app->sources, L, dirs, app->env.handlers_dir != NULL ? 3 : 2, 0, -1);
    free(copy);
    free(prefixed);
    lua_setglobal(L, "require");
    struct gw_err err = {0};
    if (gw_sources_compile(app->sources, L, app->file, &err) < 0)
        return luaL_error(L, "%s", err.text);
    gw_lua_app_rehook(L);
    lua_call(L, 0, 1);
    lua_sethook(L, NULL, 0, 0);
    if (!lua_istable(L, -1))
        return luaL_error(L, "%s:1: an application returns a table with start(ctx), not a %s", app->file,
                          luaL_typename(L, -1));
    if (lua_getfield(L, -1, "start") != LUA_TFUNCTION)
        return luaL_error(L, "%s:1: the application's table has no function start(ctx)", app->file);
    lua_pop(L, 1);
    app->ref_app = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

// ---- start ----

static void started(struct gw_coro *coro, int nresults, const struct gw_err *err)
{
    struct gw_lua_app *app = coro->app;
    struct gw_err own;
    app->starting = false;
    if (err == NULL && (nresults == 0 || lua_isnil(coro->thread, -nresults))) {
        gw_err_set(&own, -EINVAL, "%s: start(ctx) returned nothing, not a server with close(self, opts)", app->file);
        err = &own;
    }
    if (err == NULL) {
        lua_pushvalue(coro->thread, -nresults);
        app->ref_server = luaL_ref(coro->thread, LUA_REGISTRYINDEX);
    }
    app->env.ops->started(app->env.ud, &app->base, err != NULL ? err->code : 0, err);
}

struct starting {
    struct gw_lua_app *app;
    const struct gw_app_start *start;
};

/* Leaves start and ctx behind the door, on the main stack. */
static int push_start(lua_State *L)
{
    struct starting *s = lua_touserdata(L, 1);
    const struct gw_app_start *start = s->start;
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->app->ref_app);
    lua_getfield(L, -1, "start");
    lua_createtable(L, 0, 8);
    lua_pushinteger(L, start->generation);
    lua_setfield(L, -2, "generation");
    lua_pushstring(L, start->boot_id);
    lua_setfield(L, -2, "boot_id");
    lua_pushinteger(L, start->startup_started_at_ms);
    lua_setfield(L, -2, "startup_started_at_ms");
    gw_lua_push_json(L, start->listeners, 1);
    lua_setfield(L, -2, "listeners");
    gw_lua_push_json(L, s->app->env.vars, 1);
    lua_setfield(L, -2, "vars");
    lua_pushboolean(L, s->app->env.allow_exec);
    lua_setfield(L, -2, "allow_exec");
    if (start->continuation != NULL) {
        gw_lua_push_json(L, start->continuation, 1);
        lua_setfield(L, -2, "continuation");
    }
    return 2;
}

static void start(struct gw_app *base, const struct gw_app_start *facts)
{
    struct gw_lua_app *app = (struct gw_lua_app *)base;
    struct starting s = {.app = app, .start = facts};
    struct gw_err err = {0};
    app->env = *app->shared; // the store may be another one than when this was opened
    app->generation = facts->generation;
    app->starting = true;
    lua_pushcfunction(app->L, push_start);
    lua_pushlightuserdata(app->L, &s);
    if (gw_lua_call(app->L, 1, 2, NULL, &err) < 0) {
        app->env.ops->started(app->env.ud, base, err.code, &err);
        return;
    }
    gw_coro_go(app, 1, started, NULL, NULL);
}

// ---- close ----

void gw_lua_app_settle(struct gw_lua_app *app)
{
    if (!app->closing || !app->close_returned || app->close_told || app->request_count > 0 ||
        app->execution_count > 0)
        return;
    app->close_told = true;
    app->env.ops->closed(app->env.ud, &app->base, app->close_err.code, &app->close_err);
}

static void closed(struct gw_coro *coro, int nresults, const struct gw_err *err)
{
    struct gw_lua_app *app = coro->app;
    app->close_returned = true;
    if (err != NULL)
        app->close_err = *err;
    gw_lua_app_settle(app);
}

static int get_close(lua_State *L)
{
    struct gw_lua_app *app = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, app->ref_server);
    lua_getfield(L, -1, "close");
    if (!lua_isfunction(L, -1))
        return luaL_error(L, "%s: what start(ctx) returned has no close(self, opts)", app->file);
    lua_insert(L, -2);
    return 2;
}

static void close_app(struct gw_app *base, const char *reason, int64_t restart_expected_ms)
{
    struct gw_lua_app *app = (struct gw_lua_app *)base;
    lua_State *L = app->L;
    app->closing = true;
    lua_pushcfunction(L, get_close);
    lua_pushlightuserdata(L, app);
    if (gw_lua_call(L, 1, 2, NULL, &app->close_err) < 0) {
        app->close_returned = true;
        gw_lua_app_settle(app);
        return;
    }
    lua_createtable(L, 0, 2);
    lua_pushstring(L, reason);
    lua_setfield(L, -2, "reason");
    if (restart_expected_ms >= 0) {
        lua_pushinteger(L, restart_expected_ms);
        lua_setfield(L, -2, "restart_expected_ms");
    }
    gw_coro_go(app, 2, closed, NULL, NULL);
}

// ---- the end ----

static unsigned release(struct gw_app *base, unsigned max_ms)
{
    struct gw_lua_app *app = (struct gw_lua_app *)base;
    app->deaf = true;
    app->memory.limit = 0;
    while (!gw_link_empty(&app->waits)) {
        struct gw_wait *wait = (struct gw_wait *)app->waits.next;
        gw_link_remove(&wait->link);
        wait->app = NULL;
        wait->cancel(wait);
    }
    gw_app_work_release(app);
    while (!gw_link_empty(&app->coros))
        gw_coro_drop((struct gw_coro *)app->coros.next);
    gw_app_http_release(app);
    gw_app_host_release(app);
    return gw_luv_sweep(app, max_ms);
}

static void free_app(struct gw_app *base)
{
    struct gw_lua_app *app = (struct gw_lua_app *)base;
    unsigned left = gw_luv_sweep(app, 0);
    if (left > 0) {
        // A thread of libuv's pool may still write into this state's memory: it stays, on purpose.
        json_t *fields = json_object();
        gw_json_set(fields, "pending", json_integer(left));
        gw_json_set(fields, "bytes", json_integer((json_int_t)app->memory.used));
        gw_log(GW_WARN, "app.leaked", fields, "an operation of the old application cannot be ended; its memory is "
               "given up until the process ends");
        return;
    }
    gw_luv_close_late_files(app);
    lua_close(app->L);
    (void)gw_sources_unref(app->sources);
    free(app->file);
    free(app);
}

static struct gw_app_facts facts(const struct gw_app *base)
{
    const struct gw_lua_app *app = (const struct gw_lua_app *)base;
    return (struct gw_app_facts){.kind = "lua",
                                 .requests = app->request_count,
                                 .executions = app->execution_count,
                                 .coroutines = app->coro_count,
                                 .children = app->child_count,
                                 .memory_bytes = app->memory.used};
}

static void stands(const struct gw_app *base)
{
    const struct gw_lua_app *app = (const struct gw_lua_app *)base;
    unsigned shown = 0;
    for (const struct gw_link *l = app->coros.next; l != &app->coros && shown < STANDS_SHOWN; l = l->next, shown++) {
        struct gw_buf words = {0};
        gw_stand_tell(((const struct gw_coro *)l)->thread, &words);
        if (words.data != NULL)
            gw_log(GW_INFO, "script.waits", json_pack("{so}", "at", gw_json_string(words.data)), "a coroutine waits at %s",
                   words.data);
        gw_buf_fini(&words);
    }
}

static const struct gw_app_class lua_class = {.start = start,
                                              .stands = stands,
                                              .request = gw_app_http_request,
                                              .request_gone = gw_app_http_request_gone,
                                              .ws_adopt = gw_app_http_ws_adopt,
                                              .ws_message = gw_app_http_ws_message,
                                              .ws_closed = gw_app_http_ws_closed,
                                              .ws_ready = gw_app_http_ws_ready,
                                              .stream_ready = gw_app_http_stream_ready,
                                              .stream_closed = gw_app_http_stream_closed,
                                              .owner_of = gw_app_host_owner_of,
                                              .has_handler = gw_app_work_has_handler,
                                              .execute = gw_app_work_execute,
                                              .abort_task = gw_app_work_abort_task,
                                              .abort_run = gw_app_work_abort_run,
                                              .close = close_app,
                                              .facts = facts,
                                              .release = release,
                                              .free = free_app};

int gw_lua_app_open(const struct gw_app_env *env, struct gw_sources *sources, const char *file, unsigned limit_ms,
                    struct gw_app **ret_app, struct gw_err *err)
{
    struct gw_lua_app *app = gw_calloc(1, sizeof *app);
    app->base.class = &lua_class;
    app->env = *env;
    app->shared = env;
    app->sources = gw_sources_ref(sources);
    app->file = gw_strdup(file);
    app->ref_app = app->ref_server = app->ref_request = app->ref_handlers = LUA_NOREF;
    struct gw_link *lists[] = {&app->coros,      &app->waits,   &app->requests, &app->children,
                               &app->executions, &app->sockets, &app->streams,  &app->runs};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        gw_link_init(lists[i]);
    app->L = lua_newstate(gw_lua_alloc, &app->memory);
    gw_assert(app->L != NULL);
    *(struct gw_lua_app **)lua_getextraspace(app->L) = app;
    app->chunk_until_ms = limit_ms > 0 ? gw_now_ms() + limit_ms : 0;
    lua_State *outer = gw_stand_enter(app->L);
    int rc = gw_lua_protect(app->L, open_body, app, err);
    (void)gw_stand_enter(outer);
    app->chunk_until_ms = 0; // a coroutine that it has made keeps the hook, which says nothing any more
    if (rc < 0) {
        rc = gw_sources_judge(sources, rc, err);
        (void)release(&app->base, 1000);
        free_app(&app->base);
        return rc;
    }
    *ret_app = &app->base;
    return 0;
}
