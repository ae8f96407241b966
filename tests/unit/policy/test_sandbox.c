/* What a policy sees, and what it cannot reach. */
#include "unit/policy/policy_fixture.h"

/* Runs text as a hook's body; its answer is a number, 1 when all is well. */
static struct gw_decision run(const char *body, int64_t *ret)
{
    char *text = gw_asprintf("return { drain_budget = function(ctx) %s end }", body);
    struct gw_policy *p = policy_of(text);
    struct gw_budget_answer b;
    struct gw_decision d = ask_budget(p, "", &b);
    *ret = b.budget_ms;
    gw_policy_free(p);
    free(text);
    return d;
}

static void assert_good(const char *body)
{
    int64_t n;
    struct gw_decision d = run(body, &n);
    if (d.failed || n != 1)
        fail_msg("%s: %s, %lld", body, d.error, (long long)n);
}

static void assert_error(const char *body, const char *words)
{
    int64_t n;
    struct gw_decision d = run(body, &n);
    if (!d.failed)
        fail_msg("%s: no error", body);
    assert_has(d.error, words);
}

static void only_the_allow_list_is_there(void **state)
{
    assert_good(
        "for _, n in ipairs{'io','debug','coroutine','package','load','loadstring','loadfile','dofile',"
        "'collectgarbage','print','rawset','warn','arg','module'} do assert(_G[n] == nil, n) end return 1");
    assert_good(
        "local n = {} for k in pairs(_G) do n[#n + 1] = k end table.sort(n) assert(table.concat(n, ' ') == "
        "'_G _VERSION assert error getmetatable ipairs math next os pairs pcall rawequal rawget rawlen "
        "require "
        "select setmetatable string table tonumber tostring type utf8 xpcall', table.concat(n, ' ')) return "
        "1");
    assert_good("local n = {} for k in pairs(os) do n[#n + 1] = k end table.sort(n) "
                "assert(table.concat(n, ' ') == 'clock date difftime time') return 1");
    assert_good("assert(string.dump == nil and math.randomseed == nil) return 1");
}

static void libraries_work_as_in_any_lua(void **state)
{
    assert_good("assert(('%d-%s-%5.2f-%q'):format(7, 'x', 1.5, 'q') == '7-x- 1.50-\"q\"') return 1");
    assert_good(
        "assert(('%s'):format(setmetatable({}, {__tostring = function() return 'T' end})) == 'T') return 1");
    assert_good("assert(not pcall(string.format, '%d', 'x')) return 1");
    assert_good("assert(('abc'):upper() == 'ABC' and ('a,b'):find(',', 1, true) == 2) return 1");
    assert_good("local t = {3, 1, 2} table.sort(t) assert(table.concat(t, ',') == '1,2,3') return 1");
    assert_good("assert(utf8.len('äö') == 2 and math.max(1, 2) == 2 and #('x'):rep(10) == 10) return 1");
    assert_good("local r = math.random() assert(r >= 0 and r < 1) return 1");
    assert_good("local ok, e = xpcall(function() error('x', 0) end, function(m) return m .. 'y' end) "
                "assert(not ok and e == 'xy') return 1");
    assert_good("local t = setmetatable({}, {__index = {a = 1}}) return t.a");
}

static void time_stands_still(void **state)
{
    assert_good(
        "local a, c = os.time(), os.clock() for _ = 1, 1e5 do end assert(os.time() == a and os.clock() == c) "
        "return 1");
    assert_good("assert(os.date('!%Y-%m-%d %H:%M:%S', 86399) == '1970-01-01 23:59:59') return 1");
    assert_good("local d = os.date('*t') assert(os.time(d) == os.time()) return 1");
    assert_good("local d = {year = 2024, month = 14, day = 1} os.time(d) assert(d.month == 2 and d.year == "
                "2025) return 1");
    assert_good("assert(os.difftime(10, 4) == 6.0) return 1");
    assert_good("assert(not pcall(os.date, '%Ez') and not pcall(os.time, {}) and not pcall(os.date, "
                "('%c'):rep(500))) "
                "return 1");
}

static void nothing_shared_can_be_changed(void **state)
{
    assert_error("string.rep = nil return 1", "'string.rep'");
    assert_error("os.date = nil return 1", "'os.date'");
    assert_error("_G.x = 1 return 1", "global 'x'");
    assert_error("x = 1 return 1", "global 'x'");
    assert_error("table.insert(string, 1) return 1", "'string.");
    assert_good(
        "assert(getmetatable('') == false and getmetatable(_G) == false and getmetatable(string) == false) "
        "return 1");
    assert_good("assert(not pcall(setmetatable, _G, {}) and not pcall(setmetatable, string, nil)) return 1");
    assert_good("assert(not pcall(setmetatable, '', {})) return 1");
    assert_good("assert(next(_G) == nil and rawget(string, 'rep') == nil) return 1");
    // What pairs hands out is not the table behind the view either.
    assert_good("local _, t = pairs(string) assert(t == string) return 1");
}

static void strings_reach_the_sandbox_and_not_lua_itself(void **state)
{
    assert_good("assert((''):len() == 0 and (''):rep(3) == '') return 1");
    assert_error("return (''):dump()", "nil value");
    assert_good("assert(('').format == string.format) return 1");
}

static void finalizers_and_bytecode_are_refused(void **state)
{
    assert_error("setmetatable({}, {__gc = function() end}) return 1", "__gc");
    assert_error("setmetatable({}, {__gc = true}) return 1", "__gc");
    assert_good("local m = {} local t = setmetatable({}, m) m.__gc = function() error('ran') end t = nil "
                "for i = 1, 1e4 do local _ = {i} end return 1");
    assert_good(
        "local t = setmetatable({}, {__metatable = 1}) assert(not pcall(setmetatable, t, {})) return 1");
    assert_good("assert(not pcall(setmetatable, {}, 5) and not pcall(setmetatable, 5, {})) return 1");
}

static void memory_is_given_back_after_a_question_that_used_much(void **state)
{
    struct gw_policy *p = policy_of("local megabyte = ('x'):rep(64)\n"
                                    "for _ = 1, 14 do megabyte = megabyte .. megabyte end\n"
                                    "return { drain_budget = function(ctx)\n"
                                    "  local t = {} for i = 1, 10 do t[i] = megabyte .. i end\n"
                                    "  return #t end }");
    for (int i = 0; i < 20; i++) {
        struct gw_budget_answer b;
        struct gw_decision d = ask_budget(p, "", &b);
        if (d.failed)
            fail_msg("%d: %s", i, d.error);
        assert_int_equal(b.budget_ms, 10);
    }
    gw_policy_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_allow_list_is_there),
        cmocka_unit_test(libraries_work_as_in_any_lua),
        cmocka_unit_test(time_stands_still),
        cmocka_unit_test(nothing_shared_can_be_changed),
        cmocka_unit_test(strings_reach_the_sandbox_and_not_lua_itself),
        cmocka_unit_test(finalizers_and_bytecode_are_refused),
        cmocka_unit_test(memory_is_given_back_after_a_question_that_used_much),
    };
    return cmocka_run_group_tests(tests, start_timer, end_timer);
}
