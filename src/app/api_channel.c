/* api_channel.c - streamed answers and WebSockets of the core, given to Lua. lua/gwhost/meta.lua is the reference for
 * what scripts see. */
#include "app/lua_app.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

/* A WebSocket or a stream as the application sees it; the userdata holds one of these. */
struct channel {
    struct gw_link link;
    struct gw_lua_app *app;
    struct gw_ws *ws;         /* NULL once it has ended */
    struct gw_stream *stream;
    unsigned uses;            /* the connection, and each coroutine that serves it */
    struct gw_link sendings;  /* that wait for room, in order */
};

/* One coroutine that waits until its client takes what it gives. A userdata, whose user value that is. */
struct sending {
    struct gw_link link;
    struct channel *channel; /* held */
    struct gw_wait *wait;
    int ref; /* of this, in the registry */
    enum gw_ws_kind kind;
};

/* The object stays reachable, under its own address, while anything of ours points to it. */
static void hold(struct channel *c)
{
    c->uses++;
}

static void drop(struct channel *c)
{
    if (--c->uses > 0)
        return;
    lua_pushnil(c->app->L);
    lua_rawsetp(c->app->L, LUA_REGISTRYINDEX, c);
}

static struct channel *channel_new(struct gw_lua_app *app, lua_State *L, const char *type, struct gw_link *list)
{
    struct channel *c = gw_object_new(L, type, sizeof *c);
    c->app = app;
    c->uses = 1;
    gw_link_init(&c->sendings);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, c);
    gw_link_add(list, &c->link);
    return c;
}

// ---- what clients are given ----

static int give(struct channel *c, enum gw_ws_kind kind, const char *data, size_t n)
{
    return c->ws != NULL       ? gw_ws_send(c->ws, kind, data, n)
           : c->stream != NULL ? gw_stream_write(c->stream, data, n)
                               : -EPIPE;
}

static int push_given(lua_State *L, void *ud)
{
    const int *rc = ud;
    if (*rc == 0) {
        lua_pushboolean(L, 1);
        return 1;
    }
    lua_pushnil(L);
    lua_pushstring(L, *rc == -EAGAIN ? "slow" : "closed");
    return 2;
}

static void sending_over(struct sending *s)
{
    struct channel *c = s->channel;
    gw_link_remove(&s->link);
    luaL_unref(c->app->L, LUA_REGISTRYINDEX, s->ref);
    drop(c);
}

static const char *sending_data(const struct sending *s, size_t *ret_n)
{
    lua_State *L = s->channel->app->L;
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref);
    (void)lua_getiuservalue(L, -1, 1);
    const char *data = lua_tolstring(L, -1, ret_n); // the reference keeps it
    lua_pop(L, 2);
    return data;
}

/* It waits no longer: its task is ended, or the whole application. What it gave to a WebSocket is the connection's
 * then, which lives on: a message that was answered is gone from there. */
static void sending_cancel(struct gw_wait *wait)
{
    struct sending *s = wait->ud;
    size_t n;
    const char *data = sending_data(s, &n);
    if (s->channel->app->deaf && s->channel->ws != NULL)
        (void)gw_ws_push(s->channel->ws, s->kind, data, n);
    sending_over(s);
    free(wait);
}

/* There is room, or nobody is there any more. */
static void give_on(struct channel *c)
{
    hold(c);
    while (!gw_link_empty(&c->sendings)) {
        struct sending *s = (struct sending *)c->sendings.next;
        size_t n;
        const char *data = sending_data(s, &n);
        int rc = give(c, s->kind, data, n);
        if (rc == -EAGAIN)
            break;
        struct gw_wait *wait = s->wait;
        sending_over(s);
        gw_wait_end(wait, push_given, &rc);
    }
    drop(c);
}

/* Gives data at idx, at once or, if it waits, once those before it have been given. */
static int give_lua(lua_State *L, struct channel *c, int idx, enum gw_ws_kind kind, bool waits)
{
    size_t n;
    const char *data = luaL_checklstring(L, idx, &n);
    int rc = gw_link_empty(&c->sendings) ? give(c, kind, data, n) : -EAGAIN;
    if (rc != -EAGAIN || !waits)
        return push_given(L, &rc);
    struct gw_wait *wait = gw_wait_begin(L, sending_cancel, NULL);
    struct sending *s = lua_newuserdatauv(L, sizeof *s, 1);
    *s = (struct sending){.channel = c, .wait = wait, .kind = kind};
    lua_pushvalue(L, idx);
    lua_setiuservalue(L, -2, 1);
    s->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    wait->ud = s;
    hold(c);
    gw_link_add(&c->sendings, &s->link);
    return gw_wait_yield(L, wait);
}

// ---- streams ----

static struct channel *check_stream(lua_State *L)
{
    return luaL_checkudata(L, 1, "gwhost.Stream");
}

static int stream_write(lua_State *L)
{
    return give_lua(L, check_stream(L), 2, GW_WS_TEXT, false);
}

static int stream_write_wait(lua_State *L)
{
    return give_lua(L, check_stream(L), 2, GW_WS_TEXT, true);
}

/* Once its function has returned it is whole. A stream that runs is waited for as any request is. */
static void stream_done(struct gw_coro *coro, int nresults, const struct gw_err *err)
{
    struct channel *c = coro->ud;
    struct gw_lua_app *app = coro->app;
    if (err != NULL)
        gw_lua_app_error(app, "a streamed answer", err);
    if (c->stream != NULL && err != NULL)
        gw_stream_cut(c->stream);
    else if (c->stream != NULL)
        gw_stream_end(c->stream);
    drop(c);
    app->request_count--;
    gw_lua_app_settle(app);
}

void gw_app_channel_stream(struct gw_lua_app *app, lua_State *L, struct gw_stream *stream)
{
    struct channel *c = channel_new(app, L, "gwhost.Stream", &app->streams);
    c->stream = stream;
    gw_stream_set_data(stream, c);
    if (L != app->L)
        lua_xmove(L, app->L, 2);
    hold(c);
    app->request_count++;
    gw_coro_go(app, 1, stream_done, c, NULL);
}

void gw_app_http_stream_ready(struct gw_app *base, struct gw_stream *stream)
{
    struct channel *c = gw_stream_data(stream);
    if (c != NULL)
        give_on(c);
}

void gw_app_http_stream_closed(struct gw_app *base, struct gw_stream *stream)
{
    struct channel *c = gw_stream_data(stream);
    if (c == NULL)
        return;
    c->stream = NULL;
    gw_link_remove(&c->link);
    give_on(c);
    drop(c);
}

// ---- WebSockets ----

static struct channel *check_ws(lua_State *L)
{
    return luaL_checkudata(L, 1, "gwhost.WebSocket");
}

static int send_message(lua_State *L, bool waits)
{
    struct channel *c = check_ws(L);
    size_t n;
    const char *data = luaL_checklstring(L, 2, &n);
    const char *kind = gw_app_opt_text(L, 3, "text");
    luaL_argcheck(L, strcmp(kind, "text") == 0 || strcmp(kind, "binary") == 0, 3, "give 'text' or 'binary'");
    bool text = kind[0] == 't';
    if (text && !gw_utf8_valid(data, n))
        return luaL_argerror(L, 2, "a text message is valid UTF-8; send it as 'binary'");
    return give_lua(L, c, 2, text ? GW_WS_TEXT : GW_WS_BINARY, waits);
}

static int ws_send(lua_State *L)
{
    return send_message(L, false);
}

static int ws_send_wait(lua_State *L)
{
    return send_message(L, true);
}

void gw_app_http_ws_ready(struct gw_app *base, struct gw_ws *ws)
{
    struct channel *c = gw_ws_data(ws);
    if (c != NULL)
        give_on(c);
}

static int ws_close(lua_State *L)
{
    struct channel *c = check_ws(L);
    lua_Integer code = luaL_optinteger(L, 2, 1000);
    luaL_argcheck(L, code >= 1000 && code <= 4999, 2, "a close code is 1000 to 4999");
    if (c->ws != NULL)
        gw_ws_end(c->ws, (unsigned)code, gw_app_opt_text(L, 3, ""));
    return 0;
}

static int ws_subscribe(lua_State *L)
{
    struct channel *c = check_ws(L);
    if (c->ws != NULL)
        gw_hub_attach_ws(c->ws);
    return 0;
}

static int ws_get(lua_State *L)
{
    struct channel *c = check_ws(L);
    if (lua_type(L, 2) == LUA_TSTRING && strcmp(lua_tostring(L, 2), "protocol") == 0) {
        lua_pushstring(L, c->ws != NULL ? gw_ws_protocol(c->ws) : NULL);
        return 1;
    }
    if (lua_type(L, 2) != LUA_TSTRING || strcmp(lua_tostring(L, 2), "value") != 0)
        return 0;
    size_t n = 0;
    const char *value = c->ws != NULL ? gw_ws_value(c->ws, &n) : "";
    lua_pushlstring(L, value, n);
    return 1;
}

static int ws_set(lua_State *L)
{
    struct channel *c = check_ws(L);
    if (lua_type(L, 2) != LUA_TSTRING || strcmp(lua_tostring(L, 2), "value") != 0)
        return 0;
    size_t n = 0;
    const char *value = lua_isnil(L, 3) ? "" : luaL_checklstring(L, 3, &n);
    if (c->ws != NULL && gw_ws_set_value(c->ws, value, n) < 0)
        return luaL_error(L, "ws.value holds at most 64 KiB, not %d bytes", (int)n);
    lua_pushboolean(L, 1);
    return 1;
}

/* A handler of a WebSocket has returned: its next message may come. One at a time keeps them in order. */
static void ws_handled(struct gw_coro *coro, int nresults, const struct gw_err *err)
{
    struct channel *c = coro->ud;
    struct gw_lua_app *app = coro->app;
    if (err != NULL) {
        gw_lua_app_error(app, "a WebSocket handler", err);
        if (c->ws != NULL)
            gw_ws_end(c->ws, 1011, "the application failed");
    } else if (c->ws != NULL && !app->closing) {
        gw_ws_resume(c->ws);
    }
    drop(c);
}

void gw_app_channel_open(struct gw_lua_app *app, struct gw_ws *ws, bool resumed)
{
    lua_State *L = app->L;
    if (!gw_app_http_push_server(app, "websocket")) {
        gw_ws_end(ws, 1012, "the application serves no WebSockets any more");
        gw_ws_set_data(ws, NULL);
        return;
    }
    struct channel *c = channel_new(app, L, "gwhost.WebSocket", &app->sockets);
    c->ws = ws;
    gw_ws_set_data(ws, c);
    gw_app_http_push_request(L, gw_ws_info(ws));
    lua_pushboolean(L, resumed);
    hold(c);
    gw_coro_go(app, 3, ws_handled, c, NULL);
}

void gw_app_http_ws_adopt(struct gw_app *base, struct gw_ws *ws)
{
    gw_app_channel_open((struct gw_lua_app *)base, ws, true);
}

void gw_app_http_ws_message(struct gw_app *base, struct gw_ws *ws, enum gw_ws_kind kind, const char *data,
                            size_t n)
{
    struct gw_lua_app *app = (struct gw_lua_app *)base;
    lua_State *L = app->L;
    struct channel *c = gw_ws_data(ws);
    if (c == NULL)
        return;
    lua_rawgetp(L, LUA_REGISTRYINDEX, c);
    if (gw_object_field(L, -1, "on_message") != LUA_TFUNCTION) {
        lua_pop(L, 2);
        return;
    }
    lua_remove(L, -2);
    gw_ws_pause(ws);
    hold(c);
    lua_pushlstring(L, data, n);
    lua_pushstring(L, kind == GW_WS_TEXT ? "text" : "binary");
    gw_coro_go(app, 2, ws_handled, c, NULL);
}

static void closed_done(struct gw_coro *coro, int nresults, const struct gw_err *err)
{
    if (err != NULL)
        gw_lua_app_error(coro->app, "ws.on_close", err);
}

void gw_app_http_ws_closed(struct gw_app *base, struct gw_ws *ws, unsigned code)
{
    struct gw_lua_app *app = (struct gw_lua_app *)base;
    lua_State *L = app->L;
    struct channel *c = gw_ws_data(ws);
    if (c == NULL)
        return;
    c->ws = NULL;
    gw_link_remove(&c->link);
    give_on(c);
    lua_rawgetp(L, LUA_REGISTRYINDEX, c);
    if (gw_object_field(L, -1, "on_close") == LUA_TFUNCTION) {
        lua_pushinteger(L, code);
        gw_coro_go(app, 1, closed_done, NULL, NULL);
    } else {
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    drop(c);
}

// ---- the end ----

void gw_app_channel_release(struct gw_lua_app *app)
{
    while (!gw_link_empty(&app->sockets)) {
        struct channel *c = (struct channel *)app->sockets.next;
        gw_link_remove(&c->link);
        gw_ws_set_data(c->ws, NULL); // the connection stays; the next generation adopts it
        c->ws = NULL;
    }
    while (!gw_link_empty(&app->streams)) {
        struct channel *c = (struct channel *)app->streams.next;
        gw_link_remove(&c->link);
        gw_stream_set_data(c->stream, NULL);
        gw_stream_cut(c->stream);
        c->stream = NULL;
    }
}

void gw_api_channel(lua_State *L)
{
    static const luaL_Reg stream[] = {{"write", stream_write}, {"write_wait", stream_write_wait}, {NULL, NULL}};
    static const luaL_Reg websocket[] = {{"send", ws_send}, {"send_wait", ws_send_wait}, {"close", ws_close},
                                         {"subscribe", ws_subscribe}, {"__get", ws_get}, {"__set", ws_set}, {NULL, NULL}};
    gw_object_type(L, "gwhost.Stream", stream, NULL);
    gw_object_type(L, "gwhost.WebSocket", websocket, NULL);
}
