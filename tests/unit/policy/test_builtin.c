/* The built-in answers, as the contract lists them. */
#include "unit/policy/policy_fixture.h"

static void modes_follow_supervisor_update_and_container(void **state)
{
    static const struct {
        const char *facts;
        enum gw_mode mode;
    } rows[] = {
        {"", GW_MODE_IN_PROCESS},
        {"\"supervisor\":\"systemd\"", GW_MODE_SUPERVISED},
        {"\"supervisor\":null,\"update\":true", GW_MODE_RESPAWN},
        {"\"update\":true,\"pid\":1", GW_MODE_REEXEC},
        {"\"update\":true,\"container\":true", GW_MODE_REEXEC},
        {"\"update\":true,\"container\":true,\"supervisor\":\"s6\"", GW_MODE_SUPERVISED},
        {"\"container\":true", GW_MODE_IN_PROCESS},
        {"\"respawn_disabled\":true", GW_MODE_IN_PROCESS},
        {"\"respawn_disabled\":true,\"update\":true", GW_MODE_IN_PROCESS},
        {"\"respawn_disabled\":true,\"supervisor\":\"runit\"", GW_MODE_IN_PROCESS},
        {"\"respawn_disabled\":true,\"supervisor\":\"runit\",\"update\":true", GW_MODE_SUPERVISED},
    };
    struct gw_policy *p = gw_policy_builtin();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct gw_mode_answer m;
        struct gw_decision d = ask_mode(p, rows[i].facts, &m);
        assert_true(d.builtin);
        assert_false(d.failed);
        assert_int_equal(m.mode, rows[i].mode);
        assert_string_equal(d.answer, gw_mode_name(rows[i].mode));
        assert_int_equal(strncmp(d.why, "built-in: ", 10), 0);
    }
    gw_policy_free(p);
}

static void budgets_follow_action_force_and_request(void **state)
{
    static const struct {
        const char *facts;
        int64_t budget_ms;
    } rows[] = {
        {"", 300000},
        {"\"action\":\"stop\"", 0},
        {"\"action\":\"stop\",\"intent\":{\"wait_ms\":5}", 0},
        {"\"force\":true", 0},
        {"\"intent\":{\"force\":true,\"wait_ms\":5}", 0},
        {"\"intent\":{\"wait_ms\":5}", 5},
        {"\"intent\":{\"wait_ms\":5.9}", 5},
        {"\"intent\":{\"wait_ms\":0}", GW_UNLIMITED},
        {"\"intent\":{\"wait_ms\":-1}", 300000},
        {"\"intent\":{\"wait_ms\":\"5\"}", 300000},
        {"\"intent\":{\"reason\":\"x\"}", 300000},
        {"\"intent\":null", 300000},
    };
    struct gw_policy *p = gw_policy_builtin();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct gw_budget_answer b;
        assert_true(ask_budget(p, rows[i].facts, &b).builtin);
        assert_true(b.budget_ms == rows[i].budget_ms);
        assert_false(b.accept_queue);
    }
    gw_policy_free(p);
}

static void signals_are_for_root_and_the_own_user_but_not_for_tasks(void **state)
{
    static const struct {
        const char *facts;
        enum gw_authorization a;
    } rows[] = {
        {"", GW_WHEN_IDLE},
        {"\"sender\":{\"uid\":0,\"descendant\":false}", GW_WHEN_IDLE},
        {"\"sender\":{\"uid\":1001,\"descendant\":false}", GW_DENY},
        {"\"sender\":{\"uid\":0,\"descendant\":true}", GW_DENY},
        {"\"sender\":{\"uid\":1000}", GW_WHEN_IDLE},
        {"\"sender\":{\"uid\":1000,\"descendant\":null},\"exec_running\":true", GW_DENY},
        {"\"sender\":{\"uid\":1000,\"descendant\":false},\"exec_running\":true", GW_WHEN_IDLE},
        {"\"sender\":null", GW_DENY},
        {"\"sender\":{\"uid\":null}", GW_DENY},
        {"\"uid\":null,\"sender\":{\"uid\":null}", GW_DENY},
    };
    struct gw_policy *p = gw_policy_builtin();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        enum gw_authorization a;
        assert_true(ask_signal(p, rows[i].facts, &a).builtin);
        assert_int_equal(a, rows[i].a);
    }
    gw_policy_free(p);
}

static char *line(const char *blockers_text, const char *more)
{
    struct gw_policy *p = gw_policy_builtin();
    struct gw_decision d;
    json_t *f = facts(more), *blockers = json_loads(blockers_text, 0, NULL);
    char *text;
    assert_non_null(blockers);
    gw_policy_format_blockers(p, blockers, f, &text, &d);
    json_decref(blockers);
    json_decref(f);
    gw_policy_free(p);
    return text;
}

static void assert_line(const char *blockers, const char *more, const char *expected)
{
    char *text = line(blockers, more);
    assert_string_equal(text, expected);
    free(text);
}

static void blockers_are_named_part_by_part(void **state)
{
    assert_null(line("[]", ""));
    assert_line(
        "[{\"id\":\"t1\",\"kind\":\"task\",\"run_id\":\"r1\",\"status\":\"running\",\"runtime\":\"exec\","
        "\"label\":\"l\",\"title\":\"a b\"}]",
        "", "task=t1 run=r1 status=running runtime=exec label=l title=a b");
    assert_line("[{\"id\":\"r1\",\"kind\":\"run\",\"status\":\"running\"},{\"id\":\"t2\",\"kind\":\"task\"}]",
                "", "run=r1 status=running; task=t2");
    assert_line("[{\"id\":\"t\",\"kind\":\"task\",\"title\":\"x\\ny\\u0007\"}]", "", "task=t title=x y");
    assert_line("[{\"id\":\"t\",\"kind\":\"task\"}]", "\"blockers_total\":100001", "task=t; +100000 more");
}

static void titles_are_cut_between_characters(void **state)
{
    struct gw_buf expected = {0}, blockers = {0};
    gw_buf_adds(&expected, "task=t title=");
    gw_buf_adds(&blockers, "[{\"id\":\"t\",\"kind\":\"task\",\"title\":\"");
    for (int i = 0; i < 100; i++) {
        gw_buf_adds(&blockers, i % 2 != 0 ? "\xe2\x82\xac" : "z");
        if (i < 80)
            gw_buf_adds(&expected, i % 2 != 0 ? "\xe2\x82\xac" : "z");
    }
    gw_buf_adds(&blockers, "\"}]");
    assert_line(blockers.data, "", expected.data);
    gw_buf_fini(&expected);
    gw_buf_fini(&blockers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(modes_follow_supervisor_update_and_container),
        cmocka_unit_test(budgets_follow_action_force_and_request),
        cmocka_unit_test(signals_are_for_root_and_the_own_user_but_not_for_tasks),
        cmocka_unit_test(blockers_are_named_part_by_part),
        cmocka_unit_test(titles_are_cut_between_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
