/* library.c - the functions of the sandbox that are not Lua's own.
 *
 * What calls into parts of libc that may hold a lock (strftime, mktime, printf of floats) is held against the
 * jump of the deadline. Such a call gets only plain values: no metamethod, so no code of the policy, runs in
 * it. */
#include "base/err.h"
#include "policy/timelimit.h"
#include "policy/sandbox.h"

#include <lauxlib.h>

enum { FORMAT_BYTES_MAX = 65536, FORMAT_ARGS_MAX = 200, DATE_BYTES_MAX = 256 };

/* Calls the function below its nargs arguments while no jump can happen. */
static void call_held(lua_State *L, int nargs, int nresults)
{
    luaL_checkstack(L, LUA_MINSTACK, NULL);
    gw_timelimit_hold();
    int status = lua_pcall(L, nargs, nresults, 0);
    gw_timelimit_release();
    if (status != LUA_OK)
        (void)lua_error(L);
}

static int format(lua_State *L)
{
    int n = lua_gettop(L);
    size_t len;
    (void)luaL_checklstring(L, 1, &len);
    luaL_argcheck(L, len <= FORMAT_BYTES_MAX, 1, "format longer than 64 KiB");
    luaL_argcheck(L, n <= FORMAT_ARGS_MAX, n, "too many values");
    luaL_checkstack(L, n + LUA_MINSTACK, "format");
    lua_pushvalue(L, lua_upvalueindex(1));
    for (int i = 1; i <= n; i++) {
        // Whatever a __tostring or __name says is asked for out here.
        if (lua_type(L, i) == LUA_TTABLE && lua_getmetatable(L, i)) {
            lua_pop(L, 1);
            (void)luaL_tolstring(L, i, NULL);
        } else {
            lua_pushvalue(L, i);
        }
    }
    call_held(L, n, 1);
    return 1;
}

void gw_library_push_format(lua_State *L, int original_idx)
{
    lua_pushvalue(L, original_idx);
    lua_pushcclosure(L, format, 1);
}

static int set_metatable(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_argexpected(L, lua_isnil(L, 2) || lua_istable(L, 2), 2, "nil or table");
    lua_settop(L, 2);
    if (lua_istable(L, 2)) {
        // Finalizers run with hooks off, at a time nobody chose.
        lua_pushliteral(L, "__gc");
        if (lua_rawget(L, 2) != LUA_TNIL)
            return luaL_error(L, "a policy may not set finalizers (__gc)");
        lua_pop(L, 1);
    }
    if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
        return luaL_error(L, "cannot change a protected metatable");
    lua_setmetatable(L, 1);
    return 1;
}

void gw_library_push_setmetatable(lua_State *L)
{
    lua_pushcfunction(L, set_metatable);
}

// ---- os ----

static const struct gw_frozen *frozen_of(lua_State *L)
{
    return lua_touserdata(L, lua_upvalueindex(1));
}

static lua_Integer now_s(lua_State *L)
{
    int64_t ms = frozen_of(L)->now_ms;
    return ms / 1000 - (ms % 1000 < 0);
}

static int os_clock(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)frozen_of(L)->now_ms / 1000.0);
    return 1;
}

static int os_difftime(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)luaL_checkinteger(L, 1) - (lua_Number)luaL_optinteger(L, 2, 0));
    return 1;
}

static int os_date(lua_State *L)
{
    size_t len;
    const char *fmt = luaL_optlstring(L, 1, "%c", &len);
    luaL_argcheck(L, len <= DATE_BYTES_MAX, 1, "format longer than 256 bytes");
    lua_Integer at = luaL_opt(L, luaL_checkinteger, 2, now_s(L));
    lua_pushvalue(L, lua_upvalueindex(2));
    lua_pushlstring(L, fmt, len);
    lua_pushinteger(L, at);
    call_held(L, 2, 1);
    return 1;
}

static const char *const date_fields[] = {"year", "month", "day",  "hour", "min",
                                          "sec",  "isdst", "yday", "wday"};
enum { DATE_FIELDS = sizeof date_fields / sizeof *date_fields, DATE_FIELDS_READ = 7 };

static int os_time(lua_State *L)
{
    if (lua_isnoneornil(L, 1)) {
        lua_pushinteger(L, now_s(L));
        return 1;
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_createtable(L, 0, DATE_FIELDS); // at 2, plain
    for (int i = 0; i < DATE_FIELDS_READ; i++) {
        if (lua_getfield(L, 1, date_fields[i]) == LUA_TTABLE)
            return luaL_error(L, "field '%s' is not an integer", date_fields[i]);
        lua_setfield(L, 2, date_fields[i]);
    }
    lua_pushvalue(L, lua_upvalueindex(2));
    lua_pushvalue(L, 2);
    call_held(L, 1, 1);
    for (int i = 0; i < DATE_FIELDS; i++) { // they come back normalized
        lua_getfield(L, 2, date_fields[i]);
        lua_setfield(L, 1, date_fields[i]);
    }
    return 1;
}

void gw_library_push_os(lua_State *L, int original_idx, const struct gw_frozen *frozen)
{
    static const struct {
        const char *name;
        lua_CFunction fn;
    } functions[] = {{"clock", os_clock}, {"date", os_date}, {"difftime", os_difftime}, {"time", os_time}};
    original_idx = lua_absindex(L, original_idx);
    lua_newtable(L);
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        // A borrowed pointer to C memory, read only by these functions.
        lua_pushlightuserdata(L, (void *)frozen);
        lua_getfield(L, original_idx, functions[i].name);
        lua_pushcclosure(L, functions[i].fn, 2);
        lua_setfield(L, -2, functions[i].name);
    }
}
