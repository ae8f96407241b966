/* The table of states and events is whole, and its page tells the same. */
#include "lifecycle/machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void each_pair_has_one_row(void **state)
{
    for (int s = 0; s < GW_STATES; s++)
        for (int e = 0; e < GW_EVENTS; e++)
            assert_true(gw_machine_step((enum gw_state)s, (enum gw_event)e).known);
}

static void every_state_can_reach_its_end(void **state)
{
    for (int from = 0; from < GW_STATES; from++) {
        int reached[GW_STATES] = {0};
        reached[from] = 1;
        for (int round = 0; round < GW_STATES; round++)
            for (int s = 0; s < GW_STATES; s++)
                for (int e = 0; reached[s] && e < GW_EVENTS; e++)
                    reached[gw_machine_step((enum gw_state)s, (enum gw_event)e).to] = 1;
        assert_true(reached[GW_EXITED]);
    }
}

static void a_stop_is_never_lost(void **state)
{
    for (int s = 0; s < GW_STATES; s++) {
        struct gw_step step = gw_machine_step((enum gw_state)s, GW_EV_STOP);
        bool ends = step.to == GW_EXITED || step.to == GW_DRAINING_TO_STOP || step.to == GW_STOPPING ||
                    step.to == GW_WINDING_DOWN;
        // While connections arrive it waits for them: they would be cut otherwise.
        bool waits = s == GW_ARRIVING && (step.effects & GW_FX_REMEMBER) != 0;
        assert_true(ends || waits);
    }
}

static void a_restart_is_carried_out_remembered_or_said_to_be_ignored(void **state)
{
    for (int s = 0; s < GW_STATES; s++) {
        struct gw_step step = gw_machine_step((enum gw_state)s, GW_EV_RESTART);
        assert_true((step.effects & (GW_FX_REMEMBER | GW_FX_PREPARE | GW_FX_REACQUIRE | GW_FX_IGNORE)) != 0);
    }
}

static void work_is_marked_before_the_application_is_closed(void **state)
{
    enum gw_state draining[] = {GW_DRAINING, GW_DRAINING_TO_STOP};
    for (int i = 0; i < 2; i++) {
        struct gw_step step = gw_machine_step(draining[i], GW_EV_DRAIN_OVER);
        assert_true((step.effects & GW_FX_CUT) != 0 && (step.effects & GW_FX_CLOSE_APP) != 0);
        assert_true(GW_FX_CUT < GW_FX_CLOSE_APP); // effects run in the order of the enum
    }
}

static void nothing_leaves_the_end(void **state)
{
    for (int e = 0; e < GW_EVENTS; e++) {
        struct gw_step step = gw_machine_step(GW_EXITED, (enum gw_event)e);
        assert_int_equal(step.to, GW_EXITED);
        assert_int_equal(step.effects & ~(uint32_t)GW_FX_IGNORE, 0);
    }
}

static void a_new_generation_starts_behind_the_boundary_only(void **state)
{
    for (int s = 0; s < GW_STATES; s++)
        for (int e = 0; e < GW_EVENTS; e++) {
            struct gw_step step = gw_machine_step((enum gw_state)s, (enum gw_event)e);
            if ((step.effects & (GW_FX_START | GW_FX_HAND_OVER)) != 0)
                assert_true(s == GW_SWITCHING || s == GW_HANDING_OVER);
            if (step.to == GW_SWITCHING && s != GW_SWITCHING)
                assert_true((step.effects & GW_FX_BOUNDARY) != 0);
        }
}

static void only_who_hands_over_ends_because_another_serves(void **state)
{
    for (int s = 0; s < GW_STATES; s++) {
        struct gw_step step = gw_machine_step((enum gw_state)s, GW_EV_SERVING);
        assert_int_equal((step.effects & GW_FX_DEPART) != 0, s == GW_HANDING_OVER);
        step = gw_machine_step((enum gw_state)s, GW_EV_SUCCESSOR_LOST);
        assert_int_equal((step.effects & GW_FX_TAKE_BACK) != 0, s == GW_HANDING_OVER);
    }
}

static void a_standby_owns_nothing_before_its_word(void **state)
{
    for (int e = 0; e < GW_EVENTS; e++) {
        struct gw_step step = gw_machine_step(GW_STANDING_BY, (enum gw_event)e);
        // `stay`: an image that was gone back to
        assert_int_equal((step.effects & GW_FX_TAKE_OVER) != 0, e == GW_EV_GO || e == GW_EV_STAY);
    }
}

/* One line of the page: "| in | on | to | effects |". Pairs without effects that stay are left out. */
static void print_row(char *out, size_t size, enum gw_state s, enum gw_event e, struct gw_step step)
{
    int n = snprintf(out, size, "| %s | %s | %s |", gw_state_name(s), gw_event_name(e), gw_state_name(step.to));
    for (uint32_t bit = 1; bit <= GW_FX_IGNORE; bit <<= 1)
        if ((step.effects & bit) != 0)
            n += snprintf(out + n, size - (size_t)n, " %s", gw_effect_name((enum gw_effect)bit));
    (void)snprintf(out + n, size - (size_t)n, " |\n");
}

static void the_page_prints_the_same_table(void **state)
{
    FILE *f = fopen(SOURCE_DIR "/src/lifecycle/README.md", "re");
    assert_non_null(f);
    static char page[65536];
    size_t n = fread(page, 1, sizeof page - 1, f);
    page[n] = '\0';
    (void)fclose(f);
    size_t rows = 0, printed = 0;
    for (const char *p = page; (p = strstr(p, "\n| ")) != NULL; p++)
        printed++;
    for (int s = 0; s < GW_STATES; s++)
        for (int e = 0; e < GW_EVENTS; e++) {
            struct gw_step step = gw_machine_step((enum gw_state)s, (enum gw_event)e);
            if (step.effects == 0 && step.to == (enum gw_state)s)
                continue;
            char row[512];
            print_row(row, sizeof row, (enum gw_state)s, (enum gw_event)e, step);
            if (strstr(page, row) == NULL)
                print_error("src/lifecycle/README.md lacks: %s", row);
            assert_non_null(strstr(page, row));
            rows++;
        }
    assert_int_equal(printed, rows + 2); // and the head of the table with its rule
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--print") == 0) {
        puts("| in | on | to | and do |\n| --- | --- | --- | --- |");
        for (int s = 0; s < GW_STATES; s++)
            for (int e = 0; e < GW_EVENTS; e++) {
                struct gw_step step = gw_machine_step((enum gw_state)s, (enum gw_event)e);
                char row[512];
                print_row(row, sizeof row, (enum gw_state)s, (enum gw_event)e, step);
                if (step.effects != 0 || step.to != (enum gw_state)s)
                    (void)fputs(row, stdout);
            }
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_pair_has_one_row),
        cmocka_unit_test(every_state_can_reach_its_end),
        cmocka_unit_test(a_stop_is_never_lost),
        cmocka_unit_test(a_restart_is_carried_out_remembered_or_said_to_be_ignored),
        cmocka_unit_test(work_is_marked_before_the_application_is_closed),
        cmocka_unit_test(nothing_leaves_the_end),
        cmocka_unit_test(a_new_generation_starts_behind_the_boundary_only),
        cmocka_unit_test(only_who_hands_over_ends_because_another_serves),
        cmocka_unit_test(a_standby_owns_nothing_before_its_word),
        cmocka_unit_test(the_page_prints_the_same_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
