#include "unit/app/app_fixture.h"

/* Leaves in the globals `documented` and `there` two sorted lists of names, one name a line. */
static const char compare[] =
    "local documented, there = {}, {}\n"
    "local class\n"
    "for line in io.lines('" SOURCE_DIR "/lua/gwhost/meta.lua') do\n"
    "  class = line:match('^%-%-%-@class ([%w.]+)') or class\n"
    "  local object, method = line:match('^function (%w+):([%w_]+)%(')\n"
    "  if object then documented[#documented + 1] = object .. ':' .. method end\n"
    "  local name = line:match('^function gwhost%.([%w_]+)%(') or line:match('^gwhost%.([%w_]+) = nil$')\n"
    "  if name then documented[#documented + 1] = name end\n"
    "  local member = class == 'gwhost.Json' and line:match('^%-%-%-@field ([%w_]+)')\n"
    "  if member then documented[#documented + 1] = 'json.' .. member end\n"
    "end\n"
    "for name, value in pairs(require('gwhost')) do\n"
    "  there[#there + 1] = name\n"
    "  if name == 'json' then for member in pairs(value) do there[#there + 1] = 'json.' .. member end end\n"
    "end\n"
    "for name, value in pairs(debug.getregistry()) do\n"
    "  local object = type(name) == 'string' and type(value) == 'table' and value.__methods and name:match('^gwhost%.(%w+)$')\n"
    "  if object then for method in pairs(value.__methods) do there[#there + 1] = object .. ':' .. method end end\n"
    "end\n"
    "table.sort(documented) table.sort(there)\n"
    "_G.documented, _G.there = table.concat(documented, '\\n'), table.concat(there, '\\n')\n";

static void meta_names_exactly_the_functions_that_the_module_has(void **state)
{
    struct fixture f;
    fixture_open(&f, "package.loaded.opened = true " EMPTY_APP);
    fixture_run(&f, compare);
    lua_getglobal(f.L, "documented");
    lua_getglobal(f.L, "there");
    const char *documented = lua_tostring(f.L, -2), *there = lua_tostring(f.L, -1);
    // An empty list on both sides would be equal, too.
    assert_non_null(strstr(there, "WebSocket:subscribe"));
    assert_non_null(strstr(there, "json.decode"));
    assert_non_null(strstr(there, "submit"));
    assert_string_equal(documented, there);
    lua_settop(f.L, 0);
    fixture_close(&f);
}

static void an_object_shows_its_methods_and_hides_its_metatable(void **state)
{
    struct fixture f;
    fixture_open(&f, EMPTY_APP);
    fixture_run(&f, "local child = assert(require('gwhost').spawn({ argv = { 'true' } }))\n"
                    "assert(math.type(child.pid) == 'integer')\n"
                    "assert(type(child.wait) == 'function' and child.nothing == nil)\n"
                    "child.wait = 5 child.own = 6\n"
                    "assert(type(child.wait) == 'function' and child.own == 6)\n"
                    "assert(getmetatable(child) == 'gwhost')\n"
                    "assert(not pcall(child.wait, {}))\n");
    fixture_close(&f);
}

static void what_waits_says_that_it_needs_a_coroutine(void **state)
{
    struct fixture f;
    fixture_open(&f, EMPTY_APP);
    fixture_run(&f, "local ok, err = pcall(require('gwhost').sleep, 1)\n"
                    "assert(not ok and err:find('gwhost.go', 1, true), err)\n");
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(meta_names_exactly_the_functions_that_the_module_has),
        cmocka_unit_test(an_object_shows_its_methods_and_hides_its_metatable),
        cmocka_unit_test(what_waits_says_that_it_needs_a_coroutine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
