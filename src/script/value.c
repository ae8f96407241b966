#include "script/value.h"

#include "base/err.h"
#include "base/json.h"
#include "base/str.h"
#include "base/time.h"

#include <errno.h>
#include <lauxlib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Their addresses are keys of the registry: a lookup by address takes no memory.
static const char array_key, object_key, box_key;

void gw_lua_mark_array(lua_State *L)
{
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &array_key) == LUA_TTABLE)
        lua_setmetatable(L, -2);
    else
        lua_pop(L, 1);
}

// ---- JSON to Lua ----

static void push(lua_State *L, const json_t *value, int null_as_nil, int depth)
{
    if (depth > GW_LUA_DEPTH_MAX)
        luaL_error(L, "JSON of more than %d levels", GW_LUA_DEPTH_MAX);
    luaL_checkstack(L, 6, "JSON value");
    switch (json_typeof(value)) {
    case JSON_NULL:
        if (null_as_nil)
            lua_pushnil(L);
        else
            lua_pushlightuserdata(L, NULL);
        return;
    case JSON_TRUE:
    case JSON_FALSE:
        lua_pushboolean(L, json_is_true(value));
        return;
    case JSON_INTEGER:
        lua_pushinteger(L, (lua_Integer)json_integer_value(value));
        return;
    case JSON_REAL:
        lua_pushnumber(L, json_real_value(value));
        return;
    case JSON_STRING:
        lua_pushlstring(L, json_string_value(value), json_string_length(value));
        return;
    case JSON_ARRAY: {
        size_t n = json_array_size(value);
        lua_createtable(L, n < 65536 ? (int)n : 65536, 0);
        for (size_t i = 0; i < n; i++) {
            push(L, json_array_get(value, i), null_as_nil, depth + 1);
            lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        gw_lua_mark_array(L); // so that an empty one is still one on its way back
        return;
    }
    case JSON_OBJECT: {
        size_t n = json_object_size(value);
        lua_createtable(L, 0, n < 65536 ? (int)n : 65536);
        // Jansson's iterators want a json_t that is not const; nothing is changed.
        json_t *object = (json_t *)value;
        for (void *it = json_object_iter(object); it != NULL; it = json_object_iter_next(object, it)) {
            lua_pushstring(L, json_object_iter_key(it));
            push(L, json_object_iter_value(it), null_as_nil, depth + 1);
            lua_rawset(L, -3);
        }
        return;
    }
    }
}

void gw_lua_push_json(lua_State *L, const json_t *value, int null_as_nil)
{
    if (value == NULL)
        lua_pushnil(L);
    else
        push(L, value, null_as_nil, 1);
}

// ---- Lua to JSON ----

struct walk {
    struct gw_err *err;
    const void *above[GW_LUA_DEPTH_MAX]; /* the tables around this one, for cycles */
    char path[160];                      /* "result.items[3]"; what does not fit is left out */
    size_t path_len;
};

static int refuse(struct walk *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int refuse(struct walk *w, const char *fmt, ...)
{
    char what[160];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return gw_err_set(w->err, -EINVAL, "%s%s%s", w->path, w->path_len > 0 ? ": " : "", what);
}

static void enter_key(struct walk *w, const char *key)
{
    size_t room = sizeof w->path - w->path_len;
    int n = snprintf(w->path + w->path_len, room, "%s%s", w->path_len > 0 ? "." : "", key);
    if (n >= (int)room)
        w->path[gw_utf8_clip(w->path, sizeof w->path - 1)] = '\0';
    w->path_len = strlen(w->path);
}

static void enter_index(struct walk *w, lua_Integer i)
{
    size_t room = sizeof w->path - w->path_len;
    (void)snprintf(w->path + w->path_len, room, "[%lld]", (long long)i);
    w->path_len = strlen(w->path);
}

static void leave(struct walk *w, size_t len)
{
    w->path_len = len;
    w->path[len] = '\0';
}

enum shape { SHAPE_ARRAY, SHAPE_OBJECT, SHAPE_WRONG };

static bool has_mark(lua_State *L, int idx, const void *key)
{
    if (!lua_getmetatable(L, idx))
        return false;
    lua_rawgetp(L, LUA_REGISTRYINDEX, key);
    bool same = lua_type(L, -1) == LUA_TTABLE && lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return same;
}

/* What the table at idx is, by its keys and its mark; sets err when it is neither. */
static enum shape shape_of(lua_State *L, int idx, struct walk *w)
{
    bool marked_array = has_mark(L, idx, &array_key), marked_object = has_mark(L, idx, &object_key);
    size_t strings = 0, integers = 0;
    lua_Integer max = 0;
    lua_pushnil(L);
    while (lua_next(L, idx) != 0) {
        lua_pop(L, 1);
        if (lua_type(L, -1) == LUA_TSTRING) {
            strings++;
        } else if (lua_isinteger(L, -1)) {
            lua_Integer i = lua_tointeger(L, -1);
            integers++;
            if (i < 1)
                max = LUA_MAXINTEGER;
            else if (i > max)
                max = i;
        } else {
            const char *type = lua_typename(L, lua_type(L, -1));
            lua_pop(L, 1);
            (void)refuse(w, "a %s as key of a table", type);
            return SHAPE_WRONG;
        }
    }
    if (marked_object || integers == 0) {
        if (!marked_array)
            return SHAPE_OBJECT;
        if (strings == 0)
            return SHAPE_ARRAY;
    }
    if (strings > 0) {
        (void)refuse(w, "a table with both names and numbers as keys");
        return SHAPE_WRONG;
    }
    if (max != (lua_Integer)integers) {
        (void)refuse(w, "a list with holes");
        return SHAPE_WRONG;
    }
    return SHAPE_ARRAY;
}

static int convert(lua_State *L, int idx, int depth, json_t **ret, struct walk *w);

static int convert_array(lua_State *L, int idx, int depth, json_t **ret, struct walk *w)
{
    json_t *array = json_array();
    gw_assert(array != NULL);
    size_t here = w->path_len;
    lua_Integer n = (lua_Integer)lua_rawlen(L, idx);
    for (lua_Integer i = 1; i <= n; i++) {
        json_t *item;
        lua_rawgeti(L, idx, i);
        enter_index(w, i);
        int rc = convert(L, lua_gettop(L), depth + 1, &item, w);
        leave(w, here);
        lua_pop(L, 1);
        if (rc < 0) {
            json_decref(array);
            return rc;
        }
        int added = json_array_append_new(array, item);
        gw_assert(added == 0);
    }
    *ret = array;
    return 0;
}

static int convert_object(lua_State *L, int idx, int depth, json_t **ret, struct walk *w)
{
    json_t *object = json_object();
    gw_assert(object != NULL);
    size_t here = w->path_len;
    lua_pushnil(L);
    while (lua_next(L, idx) != 0) {
        char digits[24];
        struct gw_buf repaired = {0};
        const char *key = digits;
        if (lua_type(L, -2) == LUA_TSTRING) {
            size_t n;
            key = lua_tolstring(L, -2, &n);
            if (strlen(key) != n || !gw_utf8_valid(key, n)) {
                gw_utf8_repair(&repaired, key, strlen(key));
                key = repaired.data != NULL ? repaired.data : "";
            }
        } else {
            (void)snprintf(digits, sizeof digits, "%lld", (long long)lua_tointeger(L, -2));
        }
        json_t *item;
        enter_key(w, key);
        int rc = convert(L, lua_gettop(L), depth + 1, &item, w);
        leave(w, here);
        lua_pop(L, 1);
        if (rc == 0)
            gw_json_set(object, key, item);
        gw_buf_fini(&repaired);
        if (rc < 0) {
            lua_pop(L, 1);
            json_decref(object);
            return rc;
        }
    }
    *ret = object;
    return 0;
}

static int convert_table(lua_State *L, int idx, int depth, json_t **ret, struct walk *w)
{
    const void *self = lua_topointer(L, idx);
    for (int i = 0; i < depth; i++)
        if (w->above[i] == self)
            return refuse(w, "a table that contains itself");
    if (depth >= GW_LUA_DEPTH_MAX)
        return refuse(w, "more than %d levels", GW_LUA_DEPTH_MAX);
    if (!lua_checkstack(L, 6))
        return gw_err_set(w->err, -ENOMEM, "out of memory");
    w->above[depth] = self;
    switch (shape_of(L, idx, w)) {
    case SHAPE_ARRAY:
        return convert_array(L, idx, depth, ret, w);
    case SHAPE_OBJECT:
        return convert_object(L, idx, depth, ret, w);
    default:
        return -EINVAL;
    }
}

static int convert(lua_State *L, int idx, int depth, json_t **ret, struct walk *w)
{
    switch (lua_type(L, idx)) {
    case LUA_TNIL:
    case LUA_TNONE:
        *ret = json_null();
        return 0;
    case LUA_TBOOLEAN:
        *ret = json_boolean(lua_toboolean(L, idx));
        return 0;
    case LUA_TNUMBER:
        if (lua_isinteger(L, idx)) {
            *ret = json_integer(lua_tointeger(L, idx));
        } else if (isfinite(lua_tonumber(L, idx))) {
            *ret = json_real(lua_tonumber(L, idx));
        } else {
            return refuse(w, "a number that is not finite");
        }
        gw_assert(*ret != NULL);
        return 0;
    case LUA_TSTRING: {
        size_t n;
        const char *s = lua_tolstring(L, idx, &n);
        *ret = gw_json_stringn(s, n);
        return 0;
    }
    case LUA_TLIGHTUSERDATA:
        if (lua_touserdata(L, idx) == NULL) {
            *ret = json_null();
            return 0;
        }
        break;
    case LUA_TTABLE:
        return convert_table(L, idx, depth, ret, w);
    default:
        break;
    }
    return refuse(w, "a %s cannot be JSON", lua_typename(L, lua_type(L, idx)));
}

int gw_lua_to_json(lua_State *L, int idx, json_t **ret_value, struct gw_err *err)
{
    struct walk w = {.err = err};
    if (!lua_checkstack(L, 6))
        return gw_err_set(err, -ENOMEM, "out of memory");
    return convert(L, lua_absindex(L, idx), 0, ret_value, &w);
}

// ---- the module ----

/* What must be freed though Lua may raise in between. */
struct box {
    json_t *value; /* owned */
    char *text;    /* owned */
};

static void box_clear(struct box *b)
{
    json_decref(b->value);
    free(b->text);
    *b = (struct box){0};
}

static int box_gc(lua_State *L)
{
    box_clear(lua_touserdata(L, 1));
    return 0;
}

static struct box *box_new(lua_State *L)
{
    struct box *b = lua_newuserdatauv(L, sizeof *b, 0);
    *b = (struct box){0};
    lua_rawgetp(L, LUA_REGISTRYINDEX, &box_key);
    lua_setmetatable(L, -2);
    return b;
}

static int json_encode(lua_State *L)
{
    luaL_checkany(L, 1);
    lua_settop(L, 1);
    struct gw_err err;
    struct box *b = box_new(L);
    if (gw_lua_to_json(L, 1, &b->value, &err) < 0)
        return luaL_error(L, "%s", err.text);
    b->text = gw_json_text(b->value);
    lua_pushstring(L, b->text);
    box_clear(b);
    return 1;
}

static int json_decode(lua_State *L)
{
    size_t n;
    const char *text = luaL_checklstring(L, 1, &n);
    struct gw_err err;
    struct box *b = box_new(L);
    if (gw_json_parse(text, n, &b->value, &err) < 0)
        return luaL_error(L, "%s", err.text);
    gw_lua_push_json(L, b->value, 0);
    box_clear(b);
    return 1;
}

static int mark(lua_State *L, const void *key)
{
    if (lua_isnoneornil(L, 1)) {
        lua_settop(L, 0);
        lua_newtable(L);
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_rawgetp(L, LUA_REGISTRYINDEX, key);
    lua_setmetatable(L, 1);
    return 1;
}

static int json_mark_array(lua_State *L)
{
    return mark(L, &array_key);
}

static int json_mark_object(lua_State *L)
{
    return mark(L, &object_key);
}

static void named_metatable(lua_State *L, const char *name, const void *key)
{
    lua_newtable(L);
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__name");
    lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

int gw_lua_open_json(lua_State *L)
{
    static const luaL_Reg functions[] = {{"encode", json_encode},
                                         {"decode", json_decode},
                                         {"array", json_mark_array},
                                         {"object", json_mark_object},
                                         {NULL, NULL}};
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &array_key) != LUA_TTABLE) {
        named_metatable(L, "gwhost.json.array", &array_key);
        named_metatable(L, "gwhost.json.object", &object_key);
        named_metatable(L, "gwhost.json.box", &box_key);
        lua_rawgetp(L, LUA_REGISTRYINDEX, &box_key);
        lua_pushcfunction(L, box_gc);
        lua_setfield(L, -2, "__gc");
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    luaL_newlib(L, functions);
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
    return 1;
}

bool gw_lua_ms(lua_State *L, int idx, int64_t min, int64_t *ret_ms)
{
    if (lua_type(L, idx) != LUA_TNUMBER)
        return false;
    if (!lua_isinteger(L, idx))
        return gw_ms_floor(lua_tonumber(L, idx), min, ret_ms);
    lua_Integer ms = lua_tointeger(L, idx);
    if (ms < min || ms > GW_MS_MAX)
        return false;
    *ret_ms = ms;
    return true;
}
