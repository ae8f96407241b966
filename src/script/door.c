#include "script/door.h"

#include "base/err.h"
#include "base/str.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TEXT_MAX = 480,      /* what fits into a struct gw_err */
    LEVELS_MAX = 64,     /* how far up a position is looked for */
    MESSAGE_SEARCH = 256 /* entries of an error table that are looked at */
};

// ---- describing ----

static bool describe_table(lua_State *L, int idx, char *ret_text, size_t size)
{
    // By hand: a lookup by name would have to make a string, and that can raise.
    if (!lua_checkstack(L, 3))
        return false;
    int seen = 0;
    lua_pushnil(L);
    while (lua_next(L, idx) != 0) {
        if (lua_type(L, -2) == LUA_TSTRING && lua_type(L, -1) == LUA_TSTRING &&
            strcmp(lua_tostring(L, -2), "message") == 0) {
            size_t n;
            const char *s = lua_tolstring(L, -1, &n);
            gw_one_line(s, n, ret_text, size);
            lua_pop(L, 2);
            return true;
        }
        lua_pop(L, 1);
        if (++seen == MESSAGE_SEARCH) {
            lua_pop(L, 1);
            break;
        }
    }
    return false;
}

void gw_lua_describe(lua_State *L, int idx, char *ret_text, size_t size)
{
    gw_assert(size > 0);
    idx = lua_absindex(L, idx);
    switch (lua_type(L, idx)) {
    case LUA_TSTRING: {
        size_t n;
        const char *s = lua_tolstring(L, idx, &n);
        gw_one_line(s, n, ret_text, size);
        return;
    }
    case LUA_TNUMBER:
        if (lua_isinteger(L, idx))
            (void)snprintf(ret_text, size, "%lld", (long long)lua_tointeger(L, idx));
        else
            (void)snprintf(ret_text, size, "%.14g", (double)lua_tonumber(L, idx));
        return;
    case LUA_TBOOLEAN:
        (void)snprintf(ret_text, size, "%s", lua_toboolean(L, idx) ? "true" : "false");
        return;
    case LUA_TNIL:
    case LUA_TNONE:
        (void)snprintf(ret_text, size, "nil");
        return;
    case LUA_TTABLE:
        if (describe_table(L, idx, ret_text, size))
            return;
        break;
    default:
        break;
    }
    (void)snprintf(ret_text, size, "a %s value", lua_typename(L, lua_type(L, idx)));
}

// ---- the call ----

/* Length of a leading "NAME:LINE:", or 0. */
static size_t position_length(const char *s)
{
    for (const char *colon = strchr(s, ':'); colon != NULL; colon = strchr(colon + 1, ':')) {
        size_t digits = strspn(colon + 1, "0123456789");
        if (colon > s && digits > 0 && colon[1 + digits] == ':')
            return (size_t)(colon - s) + digits + 2;
        if (strpbrk(s, " \n") != NULL && strpbrk(s, " \n") < colon)
            break;
    }
    return 0;
}

/* The whole name of the chunk whose shortened name (Lua keeps 59 characters of it) begins s, or NULL. */
static const char *whole_name(lua_State *L, const char *s, size_t *ret_short, lua_Debug *ar)
{
    for (int level = 0; level < LEVELS_MAX && lua_getstack(L, level, ar); level++) {
        if (!lua_getinfo(L, "S", ar) || *ar->source != '@')
            continue;
        size_t n = strlen(ar->short_src);
        if (strncmp(s, ar->short_src, n) == 0 && s[n] == ':') {
            *ret_short = n;
            return ar->source + 1;
        }
    }
    return NULL;
}

/* "FILE:LINE: message" for the error value at the stack's bottom. A struct gw_err cuts between characters. */
static void explain(lua_State *L, struct gw_err *ret)
{
    char said[TEXT_MAX];
    lua_Debug ar;
    gw_lua_describe(L, 1, said, sizeof said);
    if (lua_type(L, 1) == LUA_TSTRING) {
        size_t cut = 0;
        const char *name = whole_name(L, said, &cut, &ar);
        if (name != NULL || position_length(said) > 0) {
            (void)gw_err_set(ret, -EINVAL, "%s%s", name != NULL ? name : "", said + cut);
            return;
        }
    }
    bool found = false;
    for (int level = 0; !found && level < LEVELS_MAX && lua_getstack(L, level, &ar); level++)
        found = lua_getinfo(L, "Sl", &ar) && ar.currentline > 0;
    const char *kind = lua_isstring(L, 1) ? "" : "error with ";
    if (found)
        (void)gw_err_set(ret, -EINVAL, "%s:%d: %s%s", ar.source + (*ar.source == '@'), ar.currentline, kind,
                         said);
    else
        (void)gw_err_set(ret, -EINVAL, "%s%s", kind, said);
}

static int on_error(lua_State *L)
{
    struct gw_err e;
    explain(L, &e);
    lua_pushstring(L, e.text);
    return 1;
}

// The text, a NUL, the traceback: one string, so that nothing has to be passed beside the call.
static int on_error_traced(lua_State *L)
{
    struct gw_err e;
    explain(L, &e);
    lua_pushlstring(L, e.text, strlen(e.text) + 1);
    luaL_traceback(L, L, NULL, 1);
    lua_concat(L, 2);
    return 1;
}

int gw_lua_call(lua_State *L, int nargs, int nresults, char **ret_traceback, struct gw_err *err)
{
    if (ret_traceback != NULL)
        *ret_traceback = NULL;
    int base = lua_gettop(L) - nargs;
    gw_assert(base >= 1);
    if (!lua_checkstack(L, 2)) {
        lua_settop(L, base - 1);
        return gw_err_set(err, -ENOMEM, "out of memory");
    }
    lua_pushcfunction(L, ret_traceback != NULL ? on_error_traced : on_error); // no upvalue: cannot fail
    lua_insert(L, base);
    int status = lua_pcall(L, nargs, nresults, base);
    lua_remove(L, base);
    if (status == LUA_OK)
        return 0;
    int rc;
    if (status == LUA_ERRMEM) {
        rc = gw_err_set(err, -ENOMEM, "out of memory");
    } else {
        // LUA_ERRERR brings a message of Lua's own, in which there is no NUL.
        char text[TEXT_MAX];
        size_t n = 0;
        const char *s = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &n) : NULL;
        size_t said = s != NULL ? strlen(s) : 0;
        if (s != NULL)
            gw_one_line(s, said, text, sizeof text);
        else
            gw_lua_describe(L, -1, text, sizeof text);
        if (said < n && ret_traceback != NULL)
            *ret_traceback = gw_memdup0(s + said + 1, n - said - 1);
        rc = gw_err_set(err, -EINVAL, "%s", text);
    }
    lua_settop(L, base - 1);
    return rc;
}

int gw_lua_protect(lua_State *L, lua_CFunction fn, void *ud, struct gw_err *err)
{
    if (!lua_checkstack(L, 4))
        return gw_err_set(err, -ENOMEM, "out of memory");
    lua_pushcfunction(L, fn);
    lua_pushlightuserdata(L, ud);
    return gw_lua_call(L, 1, 0, NULL, err);
}

// ---- memory ----

void *gw_lua_alloc(void *memory, void *ptr, size_t osize, size_t nsize)
{
    struct gw_lua_memory *m = memory;
    size_t old = ptr != NULL ? osize : 0; // without a block, osize tells the kind of object
    if (nsize == 0) {
        free(ptr);
        m->used -= old;
        return NULL;
    }
    if (nsize > old && m->limit > 0 && m->used - old + nsize > m->limit)
        return NULL;
    void *p = realloc(ptr, nsize);
    if (p == NULL)
        return NULL;
    m->used += nsize - old;
    if (m->used > m->peak)
        m->peak = m->used;
    return p;
}
