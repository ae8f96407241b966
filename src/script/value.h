/* value.h - JSON values as Lua values and back.
 *
 * null is the light userdata NULL (gwhost.json.null in Lua); integers stay integers, 64 bits; an empty
 * table is an object unless it has the array metatable (gwhost.json.array{}), a table with keys 1..n is an
 * array, unless it is marked by gwhost.json.object{}. In a state with the module, arrays that come from JSON
 * carry the array metatable. Call both functions inside a protected call. */
#pragma once

#include <jansson.h>
#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

struct gw_err;

enum { GW_LUA_DEPTH_MAX = 64 };

/* Pushes value (NULL: nil); json null becomes the sentinel, or nil when null_as_nil is not 0. Raises at more
 * than GW_LUA_DEPTH_MAX levels or for want of memory. */
void gw_lua_push_json(lua_State *L, const json_t *value, int null_as_nil);

/* Makes a JSON value of what is at idx. Strings that are not UTF-8 are repaired.
 * Returns 0 and the caller's reference, or -EINVAL: a function, a key that is neither string nor integer, a
 * mixed table, NaN or infinity, a cycle or more than GW_LUA_DEPTH_MAX levels; err says which, with the path
 * to it ("items[3].title"), or -ENOMEM. Never raises, runs no metamethods. */
int gw_lua_to_json(lua_State *L, int idx, json_t **ret_value, struct gw_err *err);

/* Marks the table on top as an array, so that it is one even when it is empty. */
void gw_lua_mark_array(lua_State *L);

/* Pushes the module table {encode, decode, null, array, object}. decode raises with line and column. */
int gw_lua_open_json(lua_State *L);

/* Milliseconds from the number at idx; see gw_ms_floor(). Raises nothing. */
bool gw_lua_ms(lua_State *L, int idx, int64_t min, int64_t *ret_ms);
