/* object.c - userdata with methods and with fields that scripts may set.
 *
 * A type's metatable holds its methods; an object's user value is the table of its fields. Reading looks in
 * the methods first, so that no field can hide one. */
#include "app/lua_app.h"

#include <lauxlib.h>
#include <string.h>

static int index_object(lua_State *L)
{
    lua_getmetatable(L, 1);
    lua_getfield(L, -1, "__methods");
    lua_pushvalue(L, 2);
    if (lua_rawget(L, -2) != LUA_TNIL)
        return 1;
    lua_getfield(L, 3, "__get");
    if (!lua_isnil(L, -1)) {
        lua_pushvalue(L, 1);
        lua_pushvalue(L, 2);
        lua_call(L, 2, 1);
        if (!lua_isnil(L, -1))
            return 1;
    }
    if (lua_getiuservalue(L, 1, 1) != LUA_TTABLE)
        return 0;
    lua_pushvalue(L, 2);
    lua_rawget(L, -2);
    return 1;
}

static int newindex_object(lua_State *L)
{
    lua_getmetatable(L, 1);
    lua_getfield(L, -1, "__set");
    if (!lua_isnil(L, -1)) {
        lua_pushvalue(L, 1);
        lua_pushvalue(L, 2);
        lua_pushvalue(L, 3);
        lua_call(L, 3, 1);
        if (lua_toboolean(L, -1))
            return 0;
    }
    lua_getiuservalue(L, 1, 1);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, 3);
    lua_rawset(L, -3);
    return 0;
}

void gw_object_type(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction gc)
{
    luaL_newmetatable(L, name);
    lua_pushcfunction(L, index_object);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, newindex_object);
    lua_setfield(L, -2, "__newindex");
    lua_newtable(L);
    for (const luaL_Reg *m = methods; m->name != NULL; m++) {
        lua_pushcfunction(L, m->func);
        // __get and __set serve fields whose truth is in C.
        lua_setfield(L, strncmp(m->name, "__", 2) == 0 ? -3 : -2, m->name);
    }
    lua_setfield(L, -2, "__methods");
    if (gc != NULL) {
        lua_pushcfunction(L, gc);
        lua_setfield(L, -2, "__gc");
        lua_pushcfunction(L, gc);
        lua_setfield(L, -2, "__close");
    }
    lua_pushliteral(L, "gwhost");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}

void *gw_object_new(lua_State *L, const char *name, size_t size)
{
    void *object = lua_newuserdatauv(L, size, 1);
    memset(object, 0, size);
    lua_newtable(L);
    lua_setiuservalue(L, -2, 1);
    luaL_setmetatable(L, name);
    return object;
}

const char *gw_app_text(lua_State *L, int idx)
{
    size_t n;
    const char *text = luaL_checklstring(L, idx, &n);
    if (strlen(text) != n)
        luaL_argerror(L, idx, "the text holds a NUL");
    return text;
}

const char *gw_app_opt_text(lua_State *L, int idx, const char *otherwise)
{
    return lua_isnoneornil(L, idx) ? otherwise : gw_app_text(L, idx);
}

int gw_object_field(lua_State *L, int idx, const char *key)
{
    if (lua_getiuservalue(L, idx, 1) != LUA_TTABLE)
        return LUA_TNIL;
    lua_pushstring(L, key);
    int type = lua_rawget(L, -2);
    lua_remove(L, -2);
    return type;
}
