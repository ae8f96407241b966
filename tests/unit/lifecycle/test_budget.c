/* Budgets nest, and having no end survives every sum. */
#include "lifecycle/budget.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void the_forced_exit_lies_beyond_drain_and_close(void **state)
{
    int64_t drains[] = {0, 1, 300000, 86400000};
    for (int i = 0; i < 4; i++)
        assert_true(gw_budget_forced_exit(drains[i]) > drains[i] + GW_CLOSE_MS + GW_MARK_MS + GW_IDLE_GRACE_MS);
    assert_int_equal(gw_budget_forced_exit(300000), 325000);
}

static void without_an_end_there_is_none(void **state)
{
    assert_true(gw_budget_forced_exit(GW_NO_END) == GW_NO_END);
    assert_true(gw_budget_forced_exit(GW_NO_END - 5) == GW_NO_END);
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
        assert_int_equal(fit.forced_ms, rows[i][3]);
        assert_int_equal(fit.cut, rows[i][4]);
        assert_true(rows[i][1] == 0 || fit.forced_ms < rows[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_supervisor_that_kills_is_later_than_the_forced_exit),
        cmocka_unit_test(the_forced_exit_lies_beyond_drain_and_close),
        cmocka_unit_test(without_an_end_there_is_none),
        cmocka_unit_test(what_is_left_is_never_negative),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
