/* api_http.c - gwhost.serve: requests of the core, given to Lua, and their answers.
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
bool gw_app_http_push_server(struct gw_lua_app *app, const char *name)
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

/* Pushes the list of subprotocols that a handshake offers, in its order. */
static void push_protocols(lua_State *L, const struct gw_request_info *info)
{
    lua_Integer count = 0;
    lua_newtable(L);
    for (size_t i = 0; i < info->header_count; i++) {
        if (strcasecmp(info->headers[i].name, "Sec-WebSocket-Protocol") != 0)
            continue;
        for (const char *s = info->headers[i].value; *s != '\0';) {
            s += strspn(s, ", \t");
            size_t n = strcspn(s, ", \t");
            if (n == 0)
                break;
            lua_pushlstring(L, s, n);
            lua_rawseti(L, -2, ++count);
            s += n;
        }
    }
}

static void push_lower(lua_State *L, const char *name)
{
    luaL_Buffer b;
    size_t n = strlen(name);
    char *out = luaL_buffinitsize(L, &b, n);
    for (size_t i = 0; i < n; i++)
        out[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + 32 : name[i]);
    luaL_pushresultsize(&b, n);
}

/* Makes one string of the list at the top, which it replaces. */
static void join(lua_State *L, const char *between)
{
    luaL_Buffer b;
    int list = lua_gettop(L);
    lua_Integer n = (lua_Integer)lua_rawlen(L, list);
    luaL_buffinit(L, &b);
    for (lua_Integer i = 1; i <= n; i++) {
        if (i > 1)
            luaL_addstring(&b, between);
        lua_rawgeti(L, list, i);
        luaL_addvalue(&b);
    }
    luaL_pushresult(&b);
    lua_replace(L, list);
}

/* Names in lower case; what comes more than once is a list first, then one text: as RFC 9110 5.3 says, and cookies as
 * RFC 6265 5.4 does. */
static void push_headers(lua_State *L, const struct gw_request_info *info)
{
    bool lists = false;
    lua_createtable(L, 0, (int)info->header_count);
    for (size_t i = 0; i < info->header_count; i++) {
        push_lower(L, info->headers[i].name);
        lua_pushvalue(L, -1);
        int before = lua_rawget(L, -3);
        if (before == LUA_TNIL) {
            lua_pop(L, 1);
            lua_pushstring(L, info->headers[i].value);
            lua_rawset(L, -3);
            continue;
        }
        if (before == LUA_TSTRING) {
            lua_createtable(L, 2, 0);
            lua_insert(L, -2);
            lua_rawseti(L, -2, 1);
            lists = true;
        }
        lua_pushstring(L, info->headers[i].value);
        lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
        lua_rawset(L, -3);
    }
    if (!lists)
        return;
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        if (!lua_istable(L, -1)) {
            lua_pop(L, 1);
            continue;
        }
        join(L, strcmp(lua_tostring(L, -2), "cookie") == 0 ? "; " : ", ");
        lua_pushvalue(L, -2);
        lua_insert(L, -2); // headers, key, key, text
        lua_rawset(L, -4);
    }
}

void gw_app_http_push_request(lua_State *L, const struct gw_request_info *info)
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
    if (info->upgrade) {
        push_protocols(L, info);
        lua_setfield(L, -2, "protocols");
    }
    lua_pushinteger(L, (lua_Integer)info->id);
    lua_setfield(L, -2, "connection");
    push_headers(L, info);
    lua_setfield(L, -2, "headers");
}

// ---- answers ----

static void internal_error(struct gw_request *req)
{
    gw_answer_error(req, 500, "internal", "the application failed to answer; the log says how", 0);
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
        headers[n] = (struct gw_header){lua_tostring(L, -2), lua_tostring(L, -1)};
        if (strlen(headers[n].name) != lua_rawlen(L, -2) || strlen(headers[n].value) != lua_rawlen(L, -1))
            luaL_error(L, "an answer's header '%s' holds a NUL", headers[n].name);
        n++;
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
        r->req = NULL;
        gw_app_channel_stream(r->app, L, gw_stream_begin(req, (int)status, headers, n));
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

/* What upgrade() returned behind its true: the subprotocol, one of those that the client offers, or nothing. */
static int choose(lua_State *thread, int nresults, const struct gw_request_info *info, char **ret_protocol,
                  struct gw_err *err)
{
    if (nresults < 2 || lua_isnil(thread, 1 - nresults))
        return 0;
    int chosen = lua_absindex(thread, 1 - nresults);
    push_protocols(thread, info);
    lua_Integer n = (lua_Integer)lua_rawlen(thread, -1);
    bool offered = false;
    for (lua_Integer i = 1; i <= n; i++) {
        lua_rawgeti(thread, -1, i);
        offered = offered || lua_rawequal(thread, -1, chosen);
        lua_pop(thread, 1);
    }
    lua_pop(thread, 1);
    bool text = lua_type(thread, chosen) == LUA_TSTRING;
    if (!offered)
        return gw_err_set(err, -EINVAL, "upgrade(req) chose the subprotocol %s, which the client does not offer "
                          "(req.protocols)", text ? lua_tostring(thread, chosen) : luaL_typename(thread, chosen));
    *ret_protocol = gw_strdup(lua_tostring(thread, chosen));
    return 0;
}

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
    struct gw_err chosen = {0};
    char *protocol = NULL;
    if (choose(coro->thread, nresults, gw_request_info(req), &protocol, &chosen) < 0) {
        request_done(coro, 0, &chosen);
        return;
    }
    pending_free(p);
    struct gw_ws *ws = gw_ws_accept(req, protocol);
    free(protocol);
    if (ws != NULL)
        gw_app_channel_open(app, ws, false);
    gw_lua_app_settle(app);
}

void gw_app_http_request(struct gw_app *base, struct gw_request *req)
{
    struct gw_lua_app *app = (struct gw_lua_app *)base;
    const struct gw_request_info *info = gw_request_info(req);
    bool socket = info->upgrade && gw_app_http_push_server(app, "websocket");
    if (socket) {
        lua_pop(app->L, 1);
        if (!gw_app_http_push_server(app, "upgrade")) {
            struct gw_ws *ws = gw_ws_accept(req, NULL);
            if (ws != NULL)
                gw_app_channel_open(app, ws, false);
            return;
        }
    } else if (!gw_app_http_push_server(app, "request")) {
        gw_answer_error(req, 404, "not_found", "the application serves no requests: it has not called "
                        "gwhost.serve{request=…}", 0);
        return;
    }
    struct pending *p = gw_calloc(1, sizeof *p);
    *p = (struct pending){.app = app, .req = req};
    gw_link_add(&app->requests, &p->link);
    app->request_count++;
    gw_request_set_data(req, p);
    gw_app_http_push_request(app->L, info);
    gw_coro_go(app, 1, socket ? upgrade_done : request_done, p, NULL);
}

void gw_app_http_request_gone(struct gw_app *base, struct gw_request *req)
{
    // The handler goes on: what it does may matter to others. Its answer goes nowhere.
}

// ---- the end ----

void gw_app_http_release(struct gw_lua_app *app)
{
    for (struct gw_link *l = app->requests.next, *next; l != &app->requests; l = next) {
        struct pending *p = (struct pending *)l;
        next = l->next;
        gw_answer_error(p->req, 503, "aborted", "the gateway restarted before this was answered", 1000);
        pending_free(p);
    }
    gw_app_channel_release(app);
}

void gw_api_http(lua_State *L)
{
    static const luaL_Reg functions[] = {{"serve", api_serve}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
    gw_api_channel(L);
}
