#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/json.h"
#include "script/door.h"
#include "script/value.h"

#include <errno.h>
#include <lauxlib.h>
#include <lualib.h>

static lua_State *open_state(void)
{
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    luaL_requiref(L, "json", gw_lua_open_json, 1);
    lua_pop(L, 1);
    return L;
}

/* Pushes the value of a Lua expression. */
static void push_expression(lua_State *L, const char *expression)
{
    lua_pushfstring(L, "return %s", expression);
    if (luaL_dostring(L, lua_tostring(L, -1)) != LUA_OK)
        fail_msg("%s: %s", expression, lua_tostring(L, -1));
    lua_remove(L, -2);
}

static void assert_json(lua_State *L, const char *expression, const char *expected)
{
    json_t *v = NULL;
    struct gw_err err;
    push_expression(L, expression);
    if (gw_lua_to_json(L, -1, &v, &err) < 0)
        fail_msg("%s: %s", expression, err.text);
    char *text = gw_json_text(v);
    assert_string_equal(text, expected);
    free(text);
    json_decref(v);
    lua_pop(L, 1);
    assert_int_equal(lua_gettop(L), 0);
}

static void values_become_json(void **state)
{
    lua_State *L = open_state();
    assert_json(L, "nil", "null");
    assert_json(L, "json.null", "null");
    assert_json(L, "true", "true");
    assert_json(L, "9007199254740993", "9007199254740993");
    assert_json(L, "math.mininteger", "-9223372036854775808");
    assert_json(L, "1.5", "1.5");
    assert_json(L, "1.0", "1.0");
    assert_json(L, "'a\\0b\\xff'", "\"a\\u0000b\xef\xbf\xbd\"");
    assert_json(L, "{}", "{}");
    assert_json(L, "json.array{}", "[]");
    assert_json(L, "json.array()", "[]");
    assert_json(L, "{1, {2}, 'x'}", "[1,[2],\"x\"]");
    assert_json(L, "{a = {b = {}}}", "{\"a\":{\"b\":{}}}");
    assert_json(L, "json.object{10, 20}", "{\"1\":10,\"2\":20}");
    assert_json(L, "{1, json.null, 3}", "[1,null,3]");
    lua_close(L);
}

static void assert_refused(lua_State *L, const char *expression, const char *words)
{
    json_t *v = NULL;
    struct gw_err err;
    push_expression(L, expression);
    assert_int_equal(gw_lua_to_json(L, -1, &v, &err), -EINVAL);
    assert_string_equal(err.text, words);
    assert_null(v);
    lua_pop(L, 1);
    assert_int_equal(lua_gettop(L), 0);
}

static void what_json_cannot_say_is_refused_with_its_place(void **state)
{
    lua_State *L = open_state();
    assert_refused(L, "{items = {1, 2, {title = print}}}", "items[3].title: a function cannot be JSON");
    assert_refused(L, "{a = 0/0}", "a: a number that is not finite");
    assert_refused(L, "{1, a = 2}", "a table with both names and numbers as keys");
    assert_refused(L, "{[1] = 1, [3] = 3}", "a list with holes");
    assert_refused(L, "{[0] = 1}", "a list with holes");
    assert_refused(L, "{[1.5] = 1}", "a number as key of a table");
    assert_refused(L, "{x = {[true] = 1}}", "x: a boolean as key of a table");
    assert_refused(L, "json.array{a = 1}", "a table with both names and numbers as keys");
    assert_refused(L, "(function() local t = {} t.x = {y = t} return t end)()",
                   "x.y: a table that contains itself");
    lua_close(L);
}

static void nesting_ends_at_sixty_four_levels(void **state)
{
    lua_State *L = open_state();
    json_t *v;
    struct gw_err err;
    push_expression(L, "(function() local t = {} for i = 1, 63 do t = {t} end return t end)()");
    assert_int_equal(gw_lua_to_json(L, -1, &v, &err), 0);
    json_decref(v);
    push_expression(L, "(function() local t = {} for i = 1, 64 do t = {t} end return t end)()");
    assert_int_equal(gw_lua_to_json(L, -1, &v, &err), -EINVAL);
    assert_non_null(strstr(err.text, "more than 64 levels"));
    lua_close(L);
}

struct pushing {
    const json_t *value;
    int null_as_nil;
};

static int do_push(lua_State *L)
{
    struct pushing *p = lua_touserdata(L, 1);
    gw_lua_push_json(L, p->value, p->null_as_nil);
    lua_setglobal(L, "got");
    return 0;
}

static void assert_holds(lua_State *L, const char *json, int null_as_nil, const char *condition)
{
    struct pushing p = {.value = json_loads(json, JSON_DECODE_ANY, NULL), .null_as_nil = null_as_nil};
    struct gw_err err;
    assert_non_null(p.value);
    if (gw_lua_protect(L, do_push, &p, &err) < 0)
        fail_msg("%s", err.text);
    push_expression(L, condition);
    if (!lua_toboolean(L, -1))
        fail_msg("%s: not %s", json, condition);
    lua_pop(L, 1);
    json_decref((json_t *)p.value);
}

static void json_becomes_values(void **state)
{
    lua_State *L = open_state();
    assert_holds(L, "9007199254740993", 0, "got == 9007199254740993 and math.type(got) == 'integer'");
    assert_holds(L, "2.0", 0, "math.type(got) == 'float'");
    assert_holds(L, "null", 0, "got == json.null");
    assert_holds(L, "null", 1, "got == nil");
    assert_holds(L, "[1,null,3]", 1, "got[1] == 1 and got[2] == nil and got[3] == 3");
    assert_holds(L, "{\"a\":{\"b\":[true,\"x\"]},\"n\":null}", 0,
                 "got.a.b[1] == true and got.a.b[2] == 'x' and got.n == json.null");
    assert_holds(L, "[]", 0, "json.encode(got) == '[]'");
    assert_holds(L, "{}", 0, "json.encode(got) == '{}'");
    lua_close(L);
}

static void text_comes_back_as_it_went(void **state)
{
    static const char *const texts[] = {
        "null",       "[]", "{}", "[[],{}]", "{\"a\":[1,2.5,-3,\"\\n\",null,true]}", "9223372036854775807",
        "\"\\u20ac\""};
    lua_State *L = open_state();
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        lua_getglobal(L, "json");
        lua_getfield(L, -1, "encode");
        lua_getfield(L, -2, "decode");
        lua_pushstring(L, texts[i]);
        struct gw_err err;
        if (gw_lua_call(L, 1, 1, NULL, &err) < 0 || gw_lua_call(L, 1, 1, NULL, &err) < 0)
            fail_msg("%s", err.text);
        assert_string_equal(lua_tostring(L, -1),
                            strcmp(texts[i], "\"\\u20ac\"") == 0 ? "\"\xe2\x82\xac\"" : texts[i]);
        lua_settop(L, 0);
    }
    lua_close(L);
}

static void bad_text_and_bad_values_raise(void **state)
{
    static const struct {
        const char *call, *words;
    } rows[] = {
        {"json.decode('{\"a\":1,\"a\":2}')", "duplicate"},
        {"json.decode('[1,')", "line 1, column 3"},
        {"json.decode('{\"a\":\\n!}')", "line 2"},
        {"json.decode('1 2')", "line 1"},
        {"json.decode('')", "line 1"},
        {"json.decode('\"\\xff\"')", "line 1"},
        {"json.decode(('['):rep(100) .. (']'):rep(100))", "more than 64 levels"},
        {"json.decode('99999999999999999999')", "too big"},
        {"json.encode(print)", "a function cannot be JSON"},
        {"json.encode()", "bad argument"},
        {"json.array(5)", "bad argument"},
    };
    lua_State *L = open_state();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct gw_err err;
        assert_int_equal(luaL_loadstring(L, rows[i].call), LUA_OK);
        assert_int_equal(gw_lua_call(L, 0, 0, NULL, &err), -EINVAL);
        if (strstr(err.text, rows[i].words) == NULL)
            fail_msg("%s: %s", rows[i].call, err.text);
    }
    lua_close(L);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_become_json),
        cmocka_unit_test(what_json_cannot_say_is_refused_with_its_place),
        cmocka_unit_test(nesting_ends_at_sixty_four_levels),
        cmocka_unit_test(json_becomes_values),
        cmocka_unit_test(text_comes_back_as_it_went),
        cmocka_unit_test(bad_text_and_bad_values_raise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
