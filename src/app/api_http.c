/* api_http.c - gwhost.serve: requests, streamed answers and WebSockets of the core, given to Lua.
 * lua/gwhost/meta.lua is the reference for what scripts see. */
#include "app/lua_app.h"
#include "base/json.h"
#include "script/value.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { HEADERS_MAX = 64 };

/* A request in the application's hands. */
struct pending {
    struct gw_link link;
    struct gw_lua_app *app;
    struct gw_request *req; /* NULL once answered */
};

/* A WebSocket or a stream as the application sees it; the userdata holds one of these. */
struct channel {
    struct gw_link link;
    struct gw_lua_app *app;
    struct gw_ws *ws;         /* NULL once it has ended */
    struct gw_stream *stream;
    unsigned uses;            /* the connection, and each coroutine that serves it */
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

static int api_serve(lua_State *L)
{
    struct gw_lua_app *app = gw_lua_app_of(L);
    luaL_checktype(L, 1, LUA_TTABLE);
    static const char *const known[] = {"request", "websocket", "upgrade", "public", "listeners", NULL};
    lua_pushnil(L);
    while (lua_next(L, 1)) {
        bool ok = false;
        for (int i = 0; lua_type(L, -2) == LUA_TSTRING && known[i] != NULL; i++)
            ok = ok || strcmp(lua_tostring(L, -2), known[i]) == 0;
        if (!ok)
            return luaL_error(L, "serve: unknown field '%s'", luaL_tolstring(L, -2, NULL));
        lua_pop(L, 1);
    }
    static const char *const functions[] = {"request", "websocket", "upgrade"};
    for (int i = 0; i < 3; i++)
        if (lua_getfield(L, 1, functions[i]) != LUA_TFUNCTION && !lua_isnil(L, -1))
            return luaL_error(L, "serve: %s is a %s, not a function", functions[i], luaL_typename(L, -1));
    lua_getfield(L, 1, "public");
    app->base.public_http = lua_toboolean(L, -1);
    luaL_unref(L, LUA_REGISTRYINDEX, app->ref_request);
    lua_pushvalue(L, 1);
    app->ref_request = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

/* Pushes the field of what was given to gwhost.serve(), or nil. */
static bool push_server_function(struct gw_lua_app *app, const char *name)
{
    lua_State *L = app->L;
    if (lua_rawgeti(L, LUA_REGISTRYINDEX, app->ref_request) != LUA_TTABLE) {
        lua_pop(L, 1);
        return false;
    }
    int type = lua_getfield(L, -1, name);
    lua_remove(L, -2);
    if (type == LUA_TFUNCTION)
        return true;
    lua_pop(L, 1);
    return false;
}

static void push_request(lua_State *L, const struct gw_request_info *info)
{
    lua_createtable(L, 0, 10);
    lua_pushstring(L, info->method);
    lua_setfield(L, -2, "method");
    lua_pushstring(L, info->path);
    lua_setfield(L, -2, "path");
    lua_pushstring(L, info->query);
    lua_setfield(L, -2, "query");
    lua_pushstring(L, info->target);
    lua_setfield(L, -2, "target");
    lua_pushlstring(L, info->body, info->body_len);
    lua_setfield(L, -2, "body");
    lua_pushstring(L, info->peer);
    lua_setfield(L, -2, "peer");
    lua_pushboolean(L, info->upgrade);
    lua_setfield(L, -2, "upgrade");
    lua_pushinteger(L, (lua_Integer)info->id);
    lua_setfield(L, -2, "connection");
    lua_createtable(L, 0, (int)info->header_count);
    for (size_t i = 0; i < info->header_count; i++) {
        // Names in lower case; a header that comes twice is joined as RFC 9110 says.
        char name[128];
        size_t n = strlen(info->headers[i].name);
        if (n >= sizeof name)
            continue;
        for (size_t k = 0; k <= n; k++) {
            char c = info->headers[i].name[k];
            name[k] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
        }
        if (lua_getfield(L, -1, name) == LUA_TSTRING)
            lua_pushfstring(L, "%s, %s", lua_tostring(L, -1), info->headers[i].value);
        else
            lua_pushstring(L, info->headers[i].value);
        lua_setfield(L, -3, name);
        lua_pop(L, 1);
    }
    lua_setfield(L, -2, "headers");
}

// ---- answers ----

static void internal_error(struct gw_request *req)
{
    gw_answer_error(req, 500, "internal", "the application failed to answer; the log says how", 0);
}

static struct channel *channel_new(struct gw_lua_app *app, lua_State *L, const char *type, struct gw_link *list)
{
    struct channel *c = gw_object_new(L, type, sizeof *c);
    c->app = app;
    c->uses = 1;
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, c);
    gw_link_add(list, &c->link);
    return c;
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

/* One call's work, so that what may raise is in one protected place. */
struct reply {
    struct gw_lua_app *app;
    struct gw_request *req; /* NULL once it has been answered */
    int value;              /* registry reference of what the handler returned */
};

static size_t read_headers(lua_State *L, int idx, struct gw_header *headers)
{
    size_t n = 0;
    if (lua_isnil(L, idx))
        return 0;
    luaL_checktype(L, idx, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING || n == HEADERS_MAX)
            luaL_error(L, "an answer's headers are at most %d strings by name", HEADERS_MAX);
        // The table keeps both alive while we use them.
        headers[n++] = (struct gw_header){lua_tostring(L, -2), lua_tostring(L, -1)};
        lua_pop(L, 1);
    }
    return n;
}

static bool has_header(const struct gw_header *headers, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcasecmp(headers[i].name, name) == 0)
            return true;
    return false;
}

static int reply_body(lua_State *L)
{
    struct reply *r = lua_touserdata(L, 1);
    struct gw_header headers[HEADERS_MAX + 1];
    lua_settop(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, r->value); // 2
    if (!lua_istable(L, 2))
        return luaL_error(L, "a request handler returned a %s, not an answer {status=, headers=, body=}",
                          luaL_typename(L, 2));
    lua_getfield(L, 2, "status"); // 3
    lua_Integer status = luaL_optinteger(L, 3, 200);
    if (status < 200 || status > 599)
        return luaL_error(L, "an answer's status is %d, not 200 to 599", (int)status);
    lua_getfield(L, 2, "headers"); // 4
    size_t n = read_headers(L, 4, headers);
    lua_getfield(L, 2, "events"); // 5
    struct gw_request *req = r->req;
    if (lua_toboolean(L, 5)) {
        r->req = NULL;
        gw_hub_attach(r->app->env.net, req);
        return 0;
    }
    if (lua_getfield(L, 2, "stream") == LUA_TFUNCTION) { // 6
        struct channel *c = channel_new(r->app, L, "gwhost.Stream", &r->app->streams); // 7
        r->req = NULL;
        c->stream = gw_stream_begin(req, (int)status, headers, n);
        gw_stream_set_data(c->stream, c);
        if (L != r->app->L)
            lua_xmove(L, r->app->L, 2);
        hold(c);
        r->app->request_count++;
        gw_coro_go(r->app, 1, stream_done, c, NULL);
        return 0;
    }
    lua_getfield(L, 2, "body"); // 7
    if (lua_isnil(L, 7) || lua_type(L, 7) == LUA_TSTRING) {
        size_t len = 0;
        const char *body = lua_tolstring(L, 7, &len);
        r->req = NULL;
        gw_answer(req, (int)status, headers, n, body, len);
        return 0;
    }
    json_t *json;
    struct gw_err err = {0};
    if (gw_lua_to_json(L, 7, &json, &err) < 0)
        return luaL_error(L, "an answer's body: %s", err.text);
    char *text = gw_json_text(json);
    json_decref(json);
    if (!has_header(headers, n, "content-type"))
        headers[n++] = (struct gw_header){"Content-Type", "application/json"};
    r->req = NULL;
    gw_answer(req, (int)status, headers, n, text, strlen(text));
    free(text);
    return 0;
}

/* Answers req with the value on top of thread's stack, popping it. */
static void answer(struct gw_lua_app *app, struct gw_request *req, lua_State *thread)
{
    struct reply r = {.app = app, .req = req, .value = luaL_ref(thread, LUA_REGISTRYINDEX)};
    struct gw_err err = {0};
    if (gw_lua_protect(app->L, reply_body, &r, &err) < 0)
        gw_lua_app_error(app, "a request handler", &err);
    luaL_unref(app->L, LUA_REGISTRYINDEX, r.value);
    if (r.req != NULL)
        internal_error(r.req);
}

static void pending_free(struct pending *p)
{
    gw_link_remove(&p->link);
    p->app->request_count--;
    free(p);
}

static void request_done(struct gw_coro *coro, int nresults, const struct gw_err *err)
{
    struct pending *p = coro->ud;
    struct gw_lua_app *app = p->app;
    struct gw_request *req = p->req;
    pending_free(p);
    if (err != NULL) {
        gw_lua_app_error(app, "a request handler", err);
        internal_error(req);
    } else {
        lua_settop(coro->thread, nresults > 0 ? lua_gettop(coro->thread) - nresults + 1 : 0);
        if (nresults == 0)
            lua_pushnil(coro->thread);
        answer(app, req, coro->thread);
    }
    gw_lua_app_settle(app);
}

static void ws_open(struct gw_lua_app *app, struct gw_ws *ws, bool resumed);

static void upgrade_done(struct gw_coro *coro, int nresults, const struct gw_err *err)
{
    struct pending *p = coro->ud;
    struct gw_lua_app *app = p->app;
    bool accept = err == NULL && nresults > 0 && lua_isboolean(coro->thread, -nresults) &&
                  lua_toboolean(coro->thread, -nresults);
    if (!accept) {
        request_done(coro, nresults, err);
        return;
    }
    struct gw_request *req = p->req;
    pending_free(p);
    struct gw_ws *ws = gw_ws_accept(req, NULL);
    if (ws != NULL)
        ws_open(app, ws, false);
    gw_lua_app_settle(app);
}

void gw_app_http_request(struct gw_app *base, struct gw_request *req)
{
    struct gw_lua_app *app = (struct gw_lua_app *)base;
    const struct gw_request_info *info = gw_request_info(req);
    bool socket = info->upgrade && push_server_function(app, "websocket");
    if (socket) {
        lua_pop(app->L, 1);
        if (!push_server_function(app, "upgrade")) {
            struct gw_ws *ws = gw_ws_accept(req, NULL);
            if (ws != NULL)
                ws_open(app, ws, false);
            return;
        }
    } else if (!push_server_function(app, "request")) {
        gw_answer_error(req, 404, "not_found", "the application serves no requests: it has not called "
                        "gwhost.serve{request=…}", 0);
        return;
    }
    struct pending *p = gw_calloc(1, sizeof *p);
    *p = (struct pending){.app = app, .req = req};
    gw_link_add(&app->requests, &p->link);
    app->request_count++;
    gw_request_set_data(req, p);
    push_request(app->L, info);
    gw_coro_go(app, 1, socket ? upgrade_done : request_done, p, NULL);
}

void gw_app_http_request_gone(struct gw_app *base, struct gw_request *req)
{
    // The handler goes on: what it does may matter to others. Its answer goes nowhere.
}

// ---- streams ----

static struct channel *check_stream(lua_State *L)
{
    return luaL_checkudata(L, 1, "gwhost.Stream");
}

static int stream_write(lua_State *L)
{
    struct channel *c = check_stream(L);
    size_t n;
    const char *data = luaL_checklstring(L, 2, &n);
    int rc = c->stream != NULL ? gw_stream_write(c->stream, data, n) : -EPIPE;
    if (rc == 0) {
        lua_pushboolean(L, 1);
        return 1;
    }
    lua_pushnil(L);
    lua_pushstring(L, rc == -EAGAIN ? "slow" : "closed");
    return 2;
}

void gw_app_http_stream_closed(struct gw_app *base, struct gw_stream *stream)
{
    struct channel *c = gw_stream_data(stream);
    if (c == NULL)
        return;
    c->stream = NULL;
    gw_link_remove(&c->link);
    drop(c);
}

// ---- WebSockets ----

static struct channel *check_ws(lua_State *L)
{
    return luaL_checkudata(L, 1, "gwhost.WebSocket");
}

static int ws_send(lua_State *L)
{
    struct channel *c = check_ws(L);
    size_t n;
    const char *data = luaL_checklstring(L, 2, &n);
    const char *kind = luaL_optstring(L, 3, "text");
    luaL_argcheck(L, strcmp(kind, "text") == 0 || strcmp(kind, "binary") == 0, 3, "give 'text' or 'binary'");
    bool text = kind[0] == 't';
    if (text && !gw_utf8_valid(data, n))
        return luaL_argerror(L, 2, "a text message is valid UTF-8; send it as 'binary'");
    int rc = c->ws != NULL ? gw_ws_send(c->ws, text ? GW_WS_TEXT : GW_WS_BINARY, data, n) : -EPIPE;
    if (rc == 0) {
        lua_pushboolean(L, 1);
        return 1;
    }
    lua_pushnil(L);
    lua_pushstring(L, rc == -EAGAIN ? "slow" : "closed");
    return 2;
}

static int ws_close(lua_State *L)
{
    struct channel *c = check_ws(L);
    lua_Integer code = luaL_optinteger(L, 2, 1000);
    luaL_argcheck(L, code >= 1000 && code <= 4999, 2, "a close code is 1000 to 4999");
    if (c->ws != NULL)
        gw_ws_end(c->ws, (unsigned)code, luaL_optstring(L, 3, ""));
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

static void ws_open(struct gw_lua_app *app, struct gw_ws *ws, bool resumed)
{
    lua_State *L = app->L;
    if (!push_server_function(app, "websocket")) {
        gw_ws_end(ws, 1012, "the application serves no WebSockets any more");
        gw_ws_set_data(ws, NULL);
        return;
    }
    struct channel *c = channel_new(app, L, "gwhost.WebSocket", &app->sockets);
    c->ws = ws;
    gw_ws_set_data(ws, c);
    push_request(L, gw_ws_info(ws));
    lua_pushboolean(L, resumed);
    hold(c);
    gw_coro_go(app, 3, ws_handled, c, NULL);
}

void gw_app_http_ws_adopt(struct gw_app *base, struct gw_ws *ws)
{
    ws_open((struct gw_lua_app *)base, ws, true);
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

void gw_app_http_release(struct gw_lua_app *app)
{
    while (!gw_link_empty(&app->requests)) {
        struct pending *p = (struct pending *)app->requests.next;
        gw_answer_error(p->req, 503, "aborted", "the gateway restarted before this was answered", 1000);
        pending_free(p);
    }
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

void gw_api_http(lua_State *L)
{
    static const luaL_Reg functions[] = {{"serve", api_serve}, {NULL, NULL}};
    static const luaL_Reg stream[] = {{"write", stream_write}, {NULL, NULL}};
    static const luaL_Reg websocket[] = {{"send", ws_send},   {"close", ws_close}, {"subscribe", ws_subscribe},
                                         {"__get", ws_get},   {"__set", ws_set},   {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
    gw_object_type(L, "gwhost.Stream", stream, NULL);
    gw_object_type(L, "gwhost.WebSocket", websocket, NULL);
}
