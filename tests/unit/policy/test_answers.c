/* What hooks may answer, and what is said about the rest. */
#include "unit/policy/policy_fixture.h"

static struct gw_policy *answering(const char *hook, const char *answer)
{
    char *text = gw_asprintf("return { %s = function(ctx) return %s end }", hook, answer);
    struct gw_policy *p = policy_of(text);
    free(text);
    return p;
}

static struct gw_decision mode_of(const char *answer, struct gw_mode_answer *ret)
{
    struct gw_policy *p = answering("restart_mode", answer);
    struct gw_decision d = ask_mode(p, "", ret);
    gw_policy_free(p);
    return d;
}

static struct gw_decision budget_of(const char *answer, const char *more, struct gw_budget_answer *ret)
{
    struct gw_policy *p = answering("drain_budget", answer);
    struct gw_decision d = ask_budget(p, more, ret);
    gw_policy_free(p);
    return d;
}

static struct gw_decision signal_of(const char *answer, enum gw_authorization *ret)
{
    struct gw_policy *p = answering("authorize_sigusr1", answer);
    struct gw_decision d = ask_signal(p, "", ret);
    gw_policy_free(p);
    return d;
}

static void every_mode_can_be_answered_by_its_name(void **state)
{
    struct gw_mode_answer m;
    for (int i = GW_MODE_IN_PROCESS; i <= GW_MODE_SUPERVISED; i++) {
        char *answer = gw_asprintf("'%s', 'because'", gw_mode_name((enum gw_mode)i));
        struct gw_decision d = mode_of(answer, &m);
        assert_false(d.failed);
        assert_int_equal(m.mode, i);
        assert_string_equal(d.answer, gw_mode_name((enum gw_mode)i));
        assert_string_equal(d.why, "because");
        assert_int_equal(m.exec[0], 0);
        assert_true(m.health_timeout_ms < 0 && m.exit_delay_ms < 0);
        free(answer);
    }
}

static void a_mode_can_bring_a_program_and_times(void **state)
{
    struct gw_mode_answer m;
    struct gw_decision d = mode_of("{mode='respawn', why='new', exec='/opt/gwhost', health_timeout_ms=2000.0,"
                                   " exit_delay_ms=0}",
                                   &m);
    assert_false(d.failed);
    assert_string_equal(m.exec, "/opt/gwhost");
    assert_int_equal(m.health_timeout_ms, 2000);
    assert_int_equal(m.exit_delay_ms, 0);
    assert_string_equal(d.why, "new");
    assert_string_equal(d.answer, "respawn exec=/opt/gwhost");
}

static void wrong_modes_are_refused_and_shown(void **state)
{
    static const struct {
        const char *answer, *words;
    } wrong[] = {
        {"'in_proces'", "mode \"in_proces\", which is none of"},
        {"nil", "mode nil"},
        {"true", "mode true"},
        {"7", "mode 7"},
        {"function() end", "mode a function value"},
        {"{}", "mode nil"},
        {"{mode='reexec', wait=1}", "field \"wait\""},
        {"{mode='reexec', 5}", "field 1"},
        {"{mode='respawn', exec='gwhost'}", "exec \"gwhost\", which is not an absolute path"},
        {"{mode='respawn', exec=('/x'):rep(300)}", "at most 511 bytes"},
        {"{mode='respawn', exec='/a\\0b'}", "not an absolute path"},
        {"{mode='respawn', health_timeout_ms=0}", "health_timeout_ms 0"},
        {"{mode='respawn', exit_delay_ms=-1}", "exit_delay_ms -1"},
        {"{mode='respawn', exit_delay_ms='5'}", "exit_delay_ms \"5\""},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct gw_mode_answer m;
        struct gw_decision d = mode_of(wrong[i].answer, &m);
        assert_true(d.failed && d.builtin);
        assert_int_equal(m.mode, GW_MODE_IN_PROCESS);
        assert_has(d.error, ".lua:1: wrong answer of restart_mode: ");
        assert_has(d.error, wrong[i].words);
    }
}

static void budgets_are_whole_numbers_or_unlimited(void **state)
{
    struct gw_budget_answer b;
    assert_string_equal(budget_of("0, 'now'", "", &b).why, "now");
    assert_int_equal(b.budget_ms, 0);
    assert_false(budget_of("60000.0", "", &b).failed);
    assert_int_equal(b.budget_ms, 60000);
    assert_string_equal(budget_of("'unlimited'", "", &b).answer, "unlimited");
    assert_true(b.budget_ms == GW_UNLIMITED);
    assert_true(b.report_every_ms < 0 && !b.accept_queue && b.lane_count == 0);
}

static void a_budget_can_say_more(void **state)
{
    struct gw_budget_answer b;
    struct gw_decision d =
        budget_of("{budget_ms=5000, lanes={bulk=100}, report_every_ms=1000, accept='queue'}, 'x'", "", &b);
    assert_false(d.failed);
    assert_int_equal(b.budget_ms, 5000);
    assert_int_equal(b.report_every_ms, 1000);
    assert_true(b.accept_queue);
    assert_int_equal(b.lane_count, 1);
    assert_string_equal(b.lanes[0].lane, "bulk");
    assert_int_equal(b.lanes[0].budget_ms, 100);
    assert_string_equal(d.answer, "5000 bulk=100 accept=queue");
    d = budget_of("{lanes={a='unlimited', b=1}}", "", &b);
    assert_false(d.failed);
    assert_int_equal(b.budget_ms, 300000);
    assert_int_equal(b.lane_count, 2);
}

static void a_stop_must_end_and_queues_for_nobody(void **state)
{
    struct gw_budget_answer b;
    const char *stop = "\"action\":\"stop\"";
    assert_has(budget_of("'unlimited'", stop, &b).error, "a stop must end");
    assert_int_equal(b.budget_ms, 0);
    assert_has(budget_of("{lanes={a='unlimited'}}", stop, &b).error, "a stop must end");
    assert_false(budget_of("{budget_ms=7, accept='queue'}", stop, &b).failed);
    assert_int_equal(b.budget_ms, 7);
    assert_false(b.accept_queue);
}

static void wrong_budgets_are_refused_and_shown(void **state)
{
    static const struct {
        const char *answer, *words;
    } wrong[] = {
        {"-1", "a budget of -1, which is not an integer >= 0"},
        {"1.5", "a budget of 1.5"},
        {"0/0", "nan"},
        {"math.huge", "a budget of inf"},
        {"math.maxinteger", "more than ten years"},
        {"'60000'", "neither an integer >= 0 nor \"unlimited\""},
        {"'forever'", "\"forever\""},
        {"false", "a budget of false"},
        {"{budget_ms='5'}", "budget_ms \"5\""},
        {"{budget=5}", "field \"budget\""},
        {"{report_every_ms=5}", "report_every_ms 5"},
        {"{accept=true}", "accept true"},
        {"{accept='quiet'}", "accept \"quiet\""},
        {"{lanes=5}", "lanes 5"},
        {"{lanes={5}}", "a lane 1, which is not a name"},
        {"{lanes={a=-5}}", "lane a: -5"},
        {"{lanes={[('n'):rep(64)]=5}}", "which is not a name"},
        {"(function() local l = {} for i = 1, 17 do l['l' .. i] = i end return {lanes = l} end)()",
         "more than 16 lanes"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct gw_budget_answer b;
        struct gw_decision d = budget_of(wrong[i].answer, "", &b);
        assert_true(d.failed && d.builtin);
        assert_int_equal(b.budget_ms, 300000);
        assert_int_equal(b.lane_count, 0);
        assert_has(d.error, ".lua:1: wrong answer of drain_budget: ");
        assert_has(d.error, wrong[i].words);
    }
}

static void a_signal_is_allowed_refused_or_put_off(void **state)
{
    enum gw_authorization a;
    assert_string_equal(signal_of("true, 'ok'", &a).answer, "true");
    assert_int_equal(a, GW_ALLOW);
    assert_string_equal(signal_of("'when_idle'", &a).answer, "when_idle");
    assert_int_equal(a, GW_WHEN_IDLE);
    struct gw_decision d = signal_of("false, 'not today'", &a);
    assert_int_equal(a, GW_DENY);
    assert_string_equal(d.why, "not today");
    assert_false(d.failed || d.builtin);
    static const char *const wrong[] = {"nil", "1", "'true'", "{}", "'yes'"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        a = GW_ALLOW;
        d = signal_of(wrong[i], &a);
        assert_true(d.failed);
        assert_int_equal(a, GW_DENY);
    }
}

static char *line_of(const char *answer, struct gw_decision *d)
{
    struct gw_policy *p = answering("format_blockers", answer);
    json_t *f = facts(""), *blockers = json_loads("[{\"id\":\"t1\",\"kind\":\"task\"}]", 0, NULL);
    char *line;
    gw_policy_format_blockers(p, blockers, f, &line, d);
    json_decref(f);
    json_decref(blockers);
    gw_policy_free(p);
    return line;
}

static void a_line_about_blockers_is_one_line_of_valid_text(void **state)
{
    struct gw_decision d;
    char *line = line_of("'two\\nlines\\27[31m and \\xff'", &d);
    assert_string_equal(line, "two lines [31m and \xef\xbf\xbd");
    free(line);
    line = line_of("('ä'):rep(3000)", &d);
    assert_int_equal(strlen(line), 2000);
    assert_true(gw_utf8_valid(line, strlen(line)));
    assert_true(gw_utf8_valid(d.answer, strlen(d.answer)));
    free(line);
    assert_null(line_of("nil", &d));
    assert_false(d.failed);
    assert_string_equal(d.answer, "nil");
    assert_null(line_of("''", &d));
    line = line_of("42", &d);
    assert_true(d.failed);
    assert_string_equal(line, "task=t1");
    free(line);
}

static void a_reason_that_is_no_text_does_not_spoil_the_answer(void **state)
{
    struct gw_mode_answer m;
    struct gw_decision d = mode_of("'respawn', {message='said\\nso'}", &m);
    assert_false(d.failed);
    assert_string_equal(d.why, "said so");
    d = mode_of("'respawn', ('long '):rep(1000)", &m);
    assert_false(d.failed);
    assert_int_equal(strlen(d.why), 255);
}

static void metamethods_of_an_answer_are_not_run(void **state)
{
    struct gw_budget_answer b;
    struct gw_decision d = budget_of(
        "setmetatable({}, {__index = function() while true do end end, __pairs = function() error('x') end})",
        "", &b);
    assert_false(d.failed);
    assert_int_equal(b.budget_ms, 300000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_mode_can_be_answered_by_its_name),
        cmocka_unit_test(a_mode_can_bring_a_program_and_times),
        cmocka_unit_test(wrong_modes_are_refused_and_shown),
        cmocka_unit_test(budgets_are_whole_numbers_or_unlimited),
        cmocka_unit_test(a_budget_can_say_more),
        cmocka_unit_test(a_stop_must_end_and_queues_for_nobody),
        cmocka_unit_test(wrong_budgets_are_refused_and_shown),
        cmocka_unit_test(a_signal_is_allowed_refused_or_put_off),
        cmocka_unit_test(a_line_about_blockers_is_one_line_of_valid_text),
        cmocka_unit_test(a_reason_that_is_no_text_does_not_spoil_the_answer),
        cmocka_unit_test(metamethods_of_an_answer_are_not_run),
    };
    return cmocka_run_group_tests(tests, start_timer, end_timer);
}
