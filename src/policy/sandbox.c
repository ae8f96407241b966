#include "policy/sandbox.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stddef.h>

// Its address is the key of math.randomseed in the registry; policies do not see the function.
static const char seed_key;

// ---- read-only views ----

static int refuse_assignment(lua_State *L)
{
    const char *what = lua_tostring(L, lua_upvalueindex(1));
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : luaL_typename(L, 2);
    if (what == NULL)
        return luaL_error(L, "assignment to the global '%s': globals are read-only here, make it local", key);
    return luaL_error(L, "assignment to '%s.%s': the table '%s' is read-only", what, key, what);
}

static int next_of_hidden(lua_State *L)
{
    lua_settop(L, 2);
    return lua_next(L, lua_upvalueindex(1)) != 0 ? 2 : 0;
}

// The iterator keeps the table to itself: a plain `next, t` would hand out what is sealed.
static int pairs_of_hidden(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushcclosure(L, next_of_hidden, 1);
    lua_pushvalue(L, 1);
    lua_pushnil(L);
    return 3;
}

void gw_sandbox_seal(lua_State *L, const char *what)
{
    lua_newtable(L);
    lua_createtable(L, 0, 4);
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "__index");
    lua_pushstring(L, what);
    lua_pushcclosure(L, refuse_assignment, 1);
    lua_setfield(L, -2, "__newindex");
    lua_pushvalue(L, -3);
    lua_pushcclosure(L, pairs_of_hidden, 1);
    lua_setfield(L, -2, "__pairs");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_remove(L, -2);
}

void gw_sandbox_seal_env(lua_State *L)
{
    lua_pushvalue(L, -1);
    gw_sandbox_seal(L, NULL);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "_G");
    lua_remove(L, -2);
}

// ---- the allow-list ----

static const char *const base_names[] = {
    "assert", "error",  "getmetatable", "ipairs",   "next", "pairs",  "pcall",    "rawequal", "rawget",
    "rawlen", "select", "tonumber",     "tostring", "type", "xpcall", "_VERSION", NULL};
static const char *const string_names[] = {"byte",  "char",   "find",  "gmatch",   "gsub", "len",
                                           "lower", "match",  "pack",  "packsize", "rep",  "reverse",
                                           "sub",   "unpack", "upper", NULL};
static const char *const table_names[] = {"concat", "insert", "move",   "pack",
                                          "remove", "sort",   "unpack", NULL};
static const char *const math_names[] = {
    "abs",  "acos",   "asin", "atan", "ceil",       "cos",       "deg",        "exp",  "floor",
    "fmod", "huge",   "log",  "max",  "maxinteger", "min",       "mininteger", "modf", "pi",
    "rad",  "random", "sin",  "sqrt", "tan",        "tointeger", "type",       "ult",  NULL};
static const char *const utf8_names[] = {"char", "charpattern", "codepoint", "codes", "len", "offset", NULL};

/* Pushes a table with the named fields of the table at idx. */
static void push_some(lua_State *L, int idx, const char *const *names)
{
    idx = lua_absindex(L, idx);
    lua_newtable(L);
    for (; *names != NULL; names++) {
        lua_getfield(L, idx, *names);
        lua_setfield(L, -2, *names);
    }
}

/* Pushes what luaopen_* gives, without making it reachable by name. */
static void push_library(lua_State *L, const char *name, lua_CFunction open)
{
    lua_pushcfunction(L, open);
    lua_pushstring(L, name);
    lua_call(L, 1, 1);
}

/* Sets field name of the table below the top to a read-only view of the table at the top. */
static void set_sealed(lua_State *L, const char *name)
{
    gw_sandbox_seal(L, name);
    lua_setfield(L, -2, name);
}

static void add_string(lua_State *L)
{
    push_library(L, LUA_STRLIBNAME, luaopen_string);
    push_some(L, -1, string_names);
    lua_getfield(L, -2, "format");
    gw_library_push_format(L, -1);
    lua_setfield(L, -3, "format");
    lua_pop(L, 1);
    lua_remove(L, -2);
    // ("").rep must reach these functions too, and nobody may reach the metatable.
    lua_pushliteral(L, "");
    int has = lua_getmetatable(L, -1);
    luaL_argcheck(L, has, 1, "strings have no metatable");
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 2);
    set_sealed(L, LUA_STRLIBNAME);
}

static void add_math(lua_State *L)
{
    push_library(L, LUA_MATHLIBNAME, luaopen_math);
    lua_getfield(L, -1, "randomseed");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &seed_key);
    push_some(L, -1, math_names);
    lua_remove(L, -2);
    set_sealed(L, LUA_MATHLIBNAME);
}

static void add_plain(lua_State *L, const char *name, lua_CFunction open, const char *const *names)
{
    push_library(L, name, open);
    push_some(L, -1, names);
    lua_remove(L, -2);
    set_sealed(L, name);
}

void gw_sandbox_open(lua_State *L, const struct gw_frozen *frozen)
{
    luaL_checkstack(L, 12, "sandbox");
    push_library(L, LUA_GNAME, luaopen_base);
    push_some(L, -1, base_names);
    lua_remove(L, -2);
    gw_library_push_setmetatable(L);
    lua_setfield(L, -2, "setmetatable");
    add_string(L);
    add_math(L);
    add_plain(L, LUA_TABLIBNAME, luaopen_table, table_names);
    add_plain(L, LUA_UTF8LIBNAME, luaopen_utf8, utf8_names);
    push_library(L, LUA_OSLIBNAME, luaopen_os);
    gw_library_push_os(L, -1, frozen);
    lua_remove(L, -2);
    set_sealed(L, LUA_OSLIBNAME);
}

void gw_sandbox_seed(lua_State *L, const struct gw_frozen *frozen)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &seed_key);
    lua_pushinteger(L, frozen->seed);
    lua_call(L, 1, 0);
}
