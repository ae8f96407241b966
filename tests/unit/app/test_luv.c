/* What gw_luv_sweep() relies on inside luv. Another luv that fails here needs luv.c to be looked at again
 * before it is used: a state would be closed while libuv may still call it. */
#include "unit/app/app_fixture.h"

#include <dirent.h>

static unsigned descriptors(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir) != NULL)
        n++;
    (void)closedir(dir);
    return n;
}

/* Lua functions for the tests: how many handles and requests in flight the registry holds under integer keys. */
static const char count[] =
    "local registry = debug.getregistry()\n"
    "assert(type(registry.uv_handle) == 'table', 'luv keeps no set of handle metatables')\n"
    "assert(type(registry.uv_req) == 'table', 'luv has no uv_req')\n"
    "assert(type(registry.uv_fs) == 'table', 'luv has no uv_fs')\n"
    "function counted()\n"
    "  local handles, requests = 0, 0\n"
    "  for key, value in pairs(registry) do\n"
    "    if math.type(key) == 'integer' and type(value) == 'userdata' then\n"
    "      local meta = debug.getmetatable(value)\n"
    "      if meta and registry.uv_handle[meta] then handles = handles + 1 end\n"
    "      if meta and (meta == registry.uv_req or meta == registry.uv_fs) then requests = requests + 1 last = value end\n"
    "    end\n"
    "  end\n"
    "  return handles, requests\n"
    "end\n"
    "uv = require('luv')\n"
    "function expect(handles, requests)\n"
    "  local h, r = counted()\n"
    "  assert(h == handles and r == requests, ('%d handles, %d requests'):format(h, r))\n"
    "end\n";

static void luv_is_the_version_that_the_sweep_was_written_for(void **state)
{
    struct fixture f;
    fixture_open(&f, EMPTY_APP);
    fixture_run(&f, "local v = require('luv').version_string() assert(v:find('^1%.44%.'), v)");
    fixture_close(&f);
}

static void every_live_handle_is_in_the_registry_until_its_close_callback_ran(void **state)
{
    struct fixture f;
    fixture_open(&f, EMPTY_APP);
    fixture_run(&f, count);
    fixture_run(&f, "expect(0, 0) a, b, c = uv.new_timer(), uv.new_tcp(), uv.new_pipe(false) expect(3, 0)\n"
                    "a:close() expect(3, 0)");
    (void)uv_run(&f.loop, UV_RUN_NOWAIT);
    fixture_run(&f, "expect(2, 0) collectgarbage() collectgarbage() expect(2, 0)");
    fixture_close(&f);
}

static void every_kind_of_handle_has_its_metatable_in_the_set(void **state)
{
    struct fixture f;
    fixture_open(&f, EMPTY_APP);
    fixture_run(&f, count);
    fixture_run(&f, "local made = { uv.new_timer(), uv.new_tcp(), uv.new_udp(), uv.new_pipe(false), uv.new_prepare(),\n"
                    "  uv.new_check(), uv.new_idle(), uv.new_async(function() end), uv.new_fs_event(), uv.new_fs_poll() }\n"
                    "expect(#made, 0)\n"
                    "for name in pairs(uv) do\n"
                    "  assert(not name:find('^new_') or ('timer tcp udp pipe prepare check idle async fs_event fs_poll poll')\n"
                    "    :find(name:sub(5), 1, true), name .. ' makes a handle that this test does not know')\n"
                    "end");
    fixture_close(&f);
}

static void a_request_has_data_while_it_is_in_flight_and_none_afterwards(void **state)
{
    struct fixture f;
    fixture_open(&f, EMPTY_APP);
    fixture_run(&f, count);
    static const char *const begin[] = {"uv.fs_stat('/', function() done = true end)",
                                        "uv.getaddrinfo('127.0.0.1', nil, {}, function() done = true end)"};
    for (int i = 0; i < 2; i++) {
        fixture_run(&f, begin[i]);
        fixture_run(&f, "done = false expect(0, 1)");
        lua_getglobal(f.L, "last");
        uv_req_t *req = lua_touserdata(f.L, -1);
        assert_non_null(req->data);
        (void)uv_run(&f.loop, UV_RUN_DEFAULT);
        assert_null(req->data);
        lua_settop(f.L, 0);
        fixture_run(&f, "assert(done) last = nil expect(0, 0)");
    }
    fixture_close(&f);
}

static void count_call(uv_timer_t *timer)
{
    ++*(int *)timer->data;
}

static void a_sweep_ends_what_is_ours_and_leaves_the_loops_other_handles(void **state)
{
    struct fixture f;
    unsigned before = descriptors();
    fixture_open(&f, EMPTY_APP);
    int calls = 0;
    uv_timer_t core;
    (void)uv_timer_init(&f.loop, &core);
    core.data = &calls;
    (void)uv_timer_start(&core, count_call, 0, 1);
    fixture_run(&f, "local uv = require('luv') local function nop() error('a callback after the release') end\n"
                    "for i = 1, 20 do uv.new_timer():start(50, 1, nop) end\n"
                    "local s = uv.new_tcp() s:bind('127.0.0.1', 0) s:listen(8, nop)\n"
                    "local c = uv.new_tcp() c:connect('127.0.0.1', s:getsockname().port, nop)\n"
                    "uv.new_timer():close(nop)\n"
                    "for i = 1, 8 do uv.fs_open('/dev/null', 'r', 420, nop) uv.fs_stat('/', nop) end\n"
                    "uv.getaddrinfo('127.0.0.1', nil, {}, nop)");
    assert_int_equal(f.app->class->release(f.app, 5000), 0);
    assert_false(uv_is_closing((uv_handle_t *)&core));
    int at_release = calls;
    while (calls < at_release + 3)
        (void)uv_run(&f.loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&core, NULL);
    while (uv_run(&f.loop, UV_RUN_DEFAULT) != 0)
        ;
    f.app->class->free(f.app);
    assert_null(gw_sources_unref(f.sources));
    assert_int_equal(uv_loop_close(&f.loop), 0);
    tempdir_remove(f.dir);
    assert_int_equal(descriptors(), before); // files that opened late are closed, too
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(luv_is_the_version_that_the_sweep_was_written_for),
        cmocka_unit_test(every_live_handle_is_in_the_registry_until_its_close_callback_ran),
        cmocka_unit_test(every_kind_of_handle_has_its_metatable_in_the_set),
        cmocka_unit_test(a_request_has_data_while_it_is_in_flight_and_none_afterwards),
        cmocka_unit_test(a_sweep_ends_what_is_ours_and_leaves_the_loops_other_handles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
