#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/str.h"
#include "script/door.h"

#include <errno.h>
#include <lauxlib.h>
#include <lualib.h>

static lua_State *open_state(void)
{
    lua_State *L = luaL_newstate();
    assert_non_null(L);
    luaL_openlibs(L);
    return L;
}

static void push_chunk(lua_State *L, const char *text, const char *name)
{
    if (luaL_loadbufferx(L, text, strlen(text), name, "t") != LUA_OK)
        fail_msg("%s", lua_tostring(L, -1));
}

/* Calls text and expects it to fail with exactly these words. */
static void assert_fails(const char *text, const char *name, const char *words)
{
    lua_State *L = open_state();
    struct gw_err err = {0};
    lua_pushinteger(L, 77);
    push_chunk(L, text, name);
    assert_int_equal(gw_lua_call(L, 0, 1, NULL, &err), -EINVAL);
    assert_string_equal(err.text, words);
    assert_int_equal(err.code, -EINVAL);
    assert_int_equal(lua_gettop(L), 1);
    assert_int_equal(lua_tointeger(L, 1), 77);
    lua_close(L);
}

static void a_call_pops_its_arguments_and_pushes_its_results(void **state)
{
    lua_State *L = open_state();
    struct gw_err err;
    lua_pushstring(L, "below");
    push_chunk(L, "local a, b = ... return b, a, 3", "=t");
    lua_pushinteger(L, 1);
    lua_pushinteger(L, 2);
    assert_int_equal(gw_lua_call(L, 2, 2, NULL, &err), 0);
    assert_int_equal(lua_gettop(L), 3);
    assert_int_equal(lua_tointeger(L, 2), 2);
    assert_int_equal(lua_tointeger(L, 3), 1);
    lua_close(L);
}

static void errors_are_one_line_with_a_position(void **state)
{
    assert_fails("\nerror('boom')", "@/p/a.lua", "/p/a.lua:2: boom");
    assert_fails("\nerror('boom', 0)", "@/p/a.lua", "/p/a.lua:2: boom");
    assert_fails("\n\nlocal x = nil + 1", "@/p/a.lua",
                 "/p/a.lua:3: attempt to perform arithmetic on a nil value");
    assert_fails("error('two\\n\\tlines\\n')", "@/p/a.lua", "/p/a.lua:1: two lines");
    assert_fails("error('bad \\xff byte')", "@/p/a.lua", "/p/a.lua:1: bad \xef\xbf\xbd byte");
    assert_fails("string.rep()", "@/p/a.lua",
                 "/p/a.lua:1: bad argument #1 to 'rep' (string expected, got no value)");
}

static void errors_that_are_no_strings_are_described(void **state)
{
    assert_fails("\nerror({ code = 1 })", "@/p/a.lua", "/p/a.lua:2: error with a table value");
    assert_fails("\nerror({ message = 'said\\nso' })", "@/p/a.lua", "/p/a.lua:2: error with said so");
    assert_fails("\nerror(nil)", "@/p/a.lua", "/p/a.lua:2: error with nil");
    assert_fails("\nerror(12)", "@/p/a.lua", "/p/a.lua:2: 12");
    assert_fails("\nerror(print)", "@/p/a.lua", "/p/a.lua:2: error with a function value");
    assert_fails("error(setmetatable({}, { __tostring = function() while true do end end }))", "@/p/a.lua",
                 "/p/a.lua:1: error with a table value");
}

static void a_long_path_is_told_whole(void **state)
{
    assert_fails("\nerror('boom')",
                 "@/a/very/long/path/that/lua/would/shorten/to/its/last/characters/in/a/message.lua",
                 "/a/very/long/path/that/lua/would/shorten/to/its/last/characters/in/a/message.lua:2: boom");
    assert_fails("\nerror('boom')", "@/with spaces in it/a.lua", "/with spaces in it/a.lua:2: boom");
}

static void a_very_long_message_is_cut_between_characters(void **state)
{
    lua_State *L = open_state();
    struct gw_err err;
    push_chunk(L, "error(('\xc3\xa4'):rep(5000))", "@a.lua");
    assert_int_equal(gw_lua_call(L, 0, 0, NULL, &err), -EINVAL);
    assert_true(strlen(err.text) > 400);
    assert_true(gw_utf8_valid(err.text, strlen(err.text)));
    lua_close(L);
}

static void a_traceback_is_given_to_who_asks_for_it(void **state)
{
    lua_State *L = open_state();
    struct gw_err err;
    char *trace = NULL;
    push_chunk(
        L, "local function inner() error('deep') end\nlocal function outer() inner() return 1 end\nouter()",
        "@a.lua");
    assert_int_equal(gw_lua_call(L, 0, 0, &trace, &err), -EINVAL);
    assert_string_equal(err.text, "a.lua:1: deep");
    assert_non_null(strstr(trace, "a.lua:2: in upvalue 'outer'") != NULL ? trace
                                                                         : strstr(trace, "a.lua:2: in "));
    free(trace);
    push_chunk(L, "return 1", "@a.lua");
    trace = (char *)"untouched";
    assert_int_equal(gw_lua_call(L, 0, 0, &trace, &err), 0);
    assert_null(trace);
    lua_close(L);
}

static void deep_recursion_is_an_error_like_any_other(void **state)
{
    lua_State *L = open_state();
    struct gw_err err;
    push_chunk(L, "local function f(n) return 1 + f(n + 1) end f(1)", "@a.lua");
    assert_int_equal(gw_lua_call(L, 0, 0, NULL, &err), -EINVAL);
    assert_non_null(strstr(err.text, "a.lua:1: stack overflow"));
    assert_int_equal(lua_gettop(L), 0);
    lua_close(L);
}

static int raise_or_not(lua_State *L)
{
    int *n = lua_touserdata(L, 1);
    if (++*n == 2)
        return luaL_error(L, "second time");
    lua_pushinteger(L, 1);
    return 1;
}

static void a_protected_function_gets_its_pointer_and_leaves_nothing(void **state)
{
    lua_State *L = open_state();
    struct gw_err err;
    int n = 0;
    assert_int_equal(gw_lua_protect(L, raise_or_not, &n, &err), 0);
    assert_int_equal(gw_lua_protect(L, raise_or_not, &n, &err), -EINVAL);
    assert_string_equal(err.text, "second time");
    assert_int_equal(gw_lua_protect(L, raise_or_not, &n, NULL), 0);
    assert_int_equal(lua_gettop(L), 0);
    lua_close(L);
}

static void memory_is_counted_and_limited(void **state)
{
    struct gw_lua_memory m = {0};
    lua_State *L = lua_newstate(gw_lua_alloc, &m);
    assert_non_null(L);
    luaL_openlibs(L);
    struct gw_err err;
    m.limit = m.used + (1 << 20);
    push_chunk(L, "local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end", "@a.lua");
    assert_int_equal(gw_lua_call(L, 0, 0, NULL, &err), -ENOMEM);
    assert_true(m.peak <= m.limit);
    assert_int_equal(lua_gettop(L), 0);
    m.limit = 0;
    push_chunk(L, "return #('x'):rep(4 << 20)", "@a.lua");
    assert_int_equal(gw_lua_call(L, 0, 1, NULL, &err), 0);
    assert_int_equal(lua_tointeger(L, 1), 4 << 20);
    lua_close(L);
    assert_int_equal(m.used, 0);
}

/* Every allocation of a call fails once; each time the stack is as it was and the state goes on. */
static void a_failing_allocation_anywhere_is_an_error_and_no_more(void **state)
{
    struct gw_lua_memory m = {0};
    lua_State *L = lua_newstate(gw_lua_alloc, &m);
    luaL_openlibs(L);
    int failed = 0;
    for (size_t room = 0; room < 6000; room += 24) {
        struct gw_err err;
        push_chunk(L, "local t = { 1, 2, x = {} } error({ message = ('m'):rep(#t) .. tostring(t) })",
                   "@a.lua");
        lua_gc(L, LUA_GCCOLLECT);
        m.limit = m.used + room;
        char *trace;
        int rc = gw_lua_call(L, 0, 0, room % 48 == 0 ? &trace : NULL, &err);
        m.limit = 0;
        if (room % 48 == 0)
            free(trace);
        assert_true(rc == -ENOMEM || rc == -EINVAL);
        failed += rc == -ENOMEM;
        assert_int_equal(lua_gettop(L), 0);
    }
    assert_true(failed > 5);
    lua_close(L);
    assert_int_equal(m.used, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_pops_its_arguments_and_pushes_its_results),
        cmocka_unit_test(errors_are_one_line_with_a_position),
        cmocka_unit_test(errors_that_are_no_strings_are_described),
        cmocka_unit_test(a_long_path_is_told_whole),
        cmocka_unit_test(a_very_long_message_is_cut_between_characters),
        cmocka_unit_test(a_traceback_is_given_to_who_asks_for_it),
        cmocka_unit_test(deep_recursion_is_an_error_like_any_other),
        cmocka_unit_test(a_protected_function_gets_its_pointer_and_leaves_nothing),
        cmocka_unit_test(memory_is_counted_and_limited),
        cmocka_unit_test(a_failing_allocation_anywhere_is_an_error_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
