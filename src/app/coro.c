/* coro.c - coroutines of an application and what they wait for. */
#include "app/lua_app.h"
#include "app/stand.h"

#include <lauxlib.h>
#include <stdlib.h>

void gw_link_init(struct gw_link *head)
{
    head->next = head->prev = head;
}

void gw_link_add(struct gw_link *head, struct gw_link *link)
{
    link->next = head;
    link->prev = head->prev;
    head->prev->next = link;
    head->prev = link;
}

void gw_link_remove(struct gw_link *link)
{
    if (link->next == NULL)
        return;
    link->next->prev = link->prev;
    link->prev->next = link->next;
    link->next = link->prev = NULL;
}

bool gw_link_empty(const struct gw_link *head)
{
    return head->next == head;
}

/* First result of a wait that ends in an error: the address is the mark. */
static char raise_mark;

struct gw_coro *gw_coro_of(lua_State *thread)
{
    lua_rawgetp(thread, LUA_REGISTRYINDEX, thread);
    struct gw_coro *coro = lua_touserdata(thread, -1);
    lua_pop(thread, 1);
    return coro;
}

static void forget(struct gw_coro *coro)
{
    lua_State *L = coro->app->L;
    gw_app_work_end_runs(&coro->runs);
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, coro->thread);
    luaL_unref(L, LUA_REGISTRYINDEX, coro->ref);
    gw_link_remove(&coro->link);
    coro->app->coro_count--;
    free(coro);
}

/* Goes on with thread; coro is NULL when a script made the coroutine itself. */
static void resume(struct gw_lua_app *app, struct gw_coro *coro, lua_State *thread, int nargs)
{
    int nresults = 0;
    lua_State *outer = gw_stand_enter(thread);
    int rc = lua_resume(thread, app->L, nargs, &nresults);
    (void)gw_stand_enter(outer);
    if (rc == LUA_YIELD) {
        lua_pop(thread, nresults);
        return;
    }
    if (rc == LUA_OK) {
        if (coro != NULL) {
            coro->done(coro, nresults, NULL);
            forget(coro);
        }
        return;
    }
    struct gw_err err;
    char text[400];
    gw_lua_describe(thread, -1, text, sizeof text);
    gw_err_set(&err, -EINVAL, "%s", text);
    (void)lua_resetthread(thread); // runs what is to be closed
    if (coro != NULL) {
        lua_settop(thread, 0);
        coro->done(coro, 0, &err);
        forget(coro);
    } else {
        gw_lua_app_error(app, "a coroutine", &err);
    }
}

void gw_coro_go(struct gw_lua_app *app, int nargs, void (*done)(struct gw_coro *, int, const struct gw_err *),
                void *ud, struct gw_coro **ret_coro)
{
    lua_State *L = app->L;
    struct gw_coro *coro = gw_calloc(1, sizeof *coro);
    *coro = (struct gw_coro){.app = app, .done = done, .ud = ud};
    gw_link_init(&coro->runs);
    coro->thread = lua_newthread(L);
    coro->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pushlightuserdata(L, coro);
    lua_rawsetp(L, LUA_REGISTRYINDEX, coro->thread);
    gw_link_add(&app->coros, &coro->link);
    app->coro_count++;
    if (ret_coro != NULL)
        *ret_coro = coro;
    lua_xmove(L, coro->thread, nargs + 1);
    resume(app, coro, coro->thread, nargs);
}

bool gw_coro_interrupt(struct gw_coro *coro, const char *message)
{
    struct gw_wait *wait = coro->wait;
    if (wait == NULL)
        return false;
    coro->wait = NULL;
    struct gw_lua_app *app = coro->app;
    luaL_unref(app->L, LUA_REGISTRYINDEX, wait->ref);
    gw_link_remove(&wait->link);
    wait->app = NULL;
    wait->cancel(wait);
    lua_pushlightuserdata(coro->thread, &raise_mark);
    lua_pushstring(coro->thread, message);
    resume(app, coro, coro->thread, 2);
    return true;
}

void gw_coro_drop(struct gw_coro *coro)
{
    forget(coro);
}

static int go_on(lua_State *L, int status, lua_KContext ctx)
{
    if (lua_touserdata(L, 1) != &raise_mark)
        return lua_gettop(L);
    lua_settop(L, 2);
    return lua_error(L);
}

struct gw_wait *gw_wait_begin(lua_State *L, void (*cancel)(struct gw_wait *), void *ud)
{
    struct gw_lua_app *app = gw_lua_app_of(L);
    if (!lua_isyieldable(L))
        luaL_error(L, "this waits, so it must be called inside a coroutine: use gwhost.go(function() … end)");
    struct gw_wait *wait = gw_calloc(1, sizeof *wait);
    *wait = (struct gw_wait){.app = app, .thread = L, .cancel = cancel, .ud = ud};
    lua_pushthread(L);
    wait->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    gw_link_add(&app->waits, &wait->link);
    struct gw_coro *coro = gw_coro_of(L);
    if (coro != NULL)
        coro->wait = wait;
    return wait;
}

int gw_wait_yield(lua_State *L, struct gw_wait *wait)
{
    lua_settop(L, 0); // so that the continuation finds nothing but what it is resumed with
    return lua_yieldk(L, 0, 0, go_on);
}

void gw_wait_end(struct gw_wait *wait, int (*push)(lua_State *L, void *ud), void *ud)
{
    struct gw_lua_app *app = wait->app;
    if (app != NULL && !app->deaf) {
        lua_State *thread = wait->thread;
        struct gw_coro *coro = gw_coro_of(thread);
        if (coro != NULL && coro->wait == wait)
            coro->wait = NULL;
        gw_link_remove(&wait->link);
        (void)lua_checkstack(thread, 20);
        int n = push != NULL ? push(thread, ud) : 0;
        lua_pushthread(thread); // keeps it while the reference goes
        lua_xmove(thread, app->L, 1);
        luaL_unref(app->L, LUA_REGISTRYINDEX, wait->ref);
        free(wait);
        resume(app, coro, thread, n);
        lua_pop(app->L, 1);
        return;
    }
    free(wait);
}
