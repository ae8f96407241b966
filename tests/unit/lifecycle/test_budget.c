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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_forced_exit_lies_beyond_drain_and_close),
        cmocka_unit_test(without_an_end_there_is_none),
        cmocka_unit_test(what_is_left_is_never_negative),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
