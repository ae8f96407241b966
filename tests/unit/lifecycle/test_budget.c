/* Budgets nest, and having no end survives every sum. */
#include "lifecycle/budget.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static uint64_t forced_exit(uint64_t changed_ms, int64_t drain_ms, int64_t end_ms)
{
    const struct gw_budget_plan plan = {
        .accepted_ms = 1000000,
        .changed_ms = 1000000 + changed_ms,
        .drain_ms = drain_ms,
        .end_at_ms = end_ms > 0 ? 1000000 + (uint64_t)end_ms : UINT64_MAX};
    uint64_t at = gw_budget_forced_exit(&plan);
    return at == UINT64_MAX ? at : at - 1000000;
}

static void the_forced_exit_lies_beyond_drain_and_close(void **state)
{
    int64_t drains[] = {0, 1, 300000, 86400000};
    for (int i = 0; i < 4; i++)
        assert_true(forced_exit(0, drains[i], 0) > (uint64_t)drains[i] + GW_CLOSE_MS + GW_MARK_MS + GW_IDLE_GRACE_MS);
    assert_int_equal(forced_exit(0, 300000, 0), 325000);
}

static void no_change_makes_the_forced_exit_lie_in_the_past(void **state)
{
    static const uint64_t after[] = {0, 10000, 24999, 25000, 26000, 31000, 61000, 299999};
    static const int64_t budgets[] = {0, 1, 1000, 30000, 60000, 300000};
    for (size_t i = 0; i < sizeof after / sizeof *after; i++)
        for (size_t k = 0; k < sizeof budgets / sizeof *budgets; k++) {
            uint64_t at = forced_exit(after[i], budgets[k], 0);
            assert_true(at >= after[i] + GW_FORCED_EXIT_MS);
            assert_true(at >= (uint64_t)budgets[k] + GW_FORCED_EXIT_MS);
            // And it is no later than one of the two asks for.
            assert_true(at == after[i] + GW_FORCED_EXIT_MS || at == (uint64_t)budgets[k] + GW_FORCED_EXIT_MS);
        }
}

static void a_supervisors_end_stays_where_it_is(void **state)
{
    assert_int_equal(forced_exit(0, 60000, 85000), 85000);
    assert_int_equal(forced_exit(70000, 0, 85000), 85000);
    assert_int_equal(forced_exit(20000, 0, 85000), 45000);
    assert_int_equal(forced_exit(0, GW_NO_END, 85000), 85000);
}

static void without_an_end_there_is_none(void **state)
{
    assert_true(forced_exit(0, GW_NO_END, 0) == UINT64_MAX);
    assert_true(forced_exit(5000, GW_NO_END - 5, 0) == UINT64_MAX);
    assert_true(gw_budget_left(GW_NO_END, 1000000) == GW_NO_END);
}

static void what_is_left_is_never_negative(void **state)
{
    assert_int_equal(gw_budget_left(100, 30), 70);
    assert_int_equal(gw_budget_left(100, 100), 0);
    assert_int_equal(gw_budget_left(100, 5000), 0);
}

static void a_supervisor_that_kills_is_later_than_the_forced_exit(void **state)
{
    // asked for, kills after, drain, forced exit, cut
    static const int64_t rows[][5] = {{0, 90000, 0, 25000, 0},          {60000, 0, 60000, 85000, 0},
                                      {60000, 90000, 60000, 85000, 0},  {300000, 90000, 60000, 85000, 1},
                                      {0, 10000, 0, 9000, 0},           {60000, 10000, 4500, 9000, 1},
                                      {GW_NO_END, 10000, 4500, 9000, 1}, {3000, 10000, 3000, 9000, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct gw_budget_fit fit = gw_budget_fit(rows[i][0], rows[i][1]);
        assert_int_equal(fit.drain_ms, rows[i][2]);
        assert_int_equal(forced_exit(0, fit.drain_ms, fit.end_ms), rows[i][3]);
        assert_int_equal(fit.cut, rows[i][4]);
        assert_true(rows[i][1] == 0 || fit.end_ms < rows[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_supervisor_that_kills_is_later_than_the_forced_exit),
        cmocka_unit_test(the_forced_exit_lies_beyond_drain_and_close),
        cmocka_unit_test(no_change_makes_the_forced_exit_lie_in_the_past),
        cmocka_unit_test(a_supervisors_end_stays_where_it_is),
        cmocka_unit_test(without_an_end_there_is_none),
        cmocka_unit_test(what_is_left_is_never_negative),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
