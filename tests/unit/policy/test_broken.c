/* Policies that are broken on purpose: whatever they do, the host gets its answer, soon, and the next
 * question is answered rightly. */
#include "unit/policy/policy_fixture.h"

#include "base/time.h"

#include <errno.h>

/* Under valgrind everything takes twenty times as long, so that time runs out before memory does. */
static bool is_slow(void)
{
    return getenv("GWHOST_SLOW") != NULL;
}

/* At load: refused with this code, naming file and line. */
static const struct {
    const char *name, *where, *words;
    int code;
} at_load[] = {
    {"syntax_error", ".lua:4: ", "unexpected symbol", -EINVAL},
    {"loop_at_load", ".lua:2: ", "longer than 50 ms", -ETIME},
    {"loop_at_load_no_hook", ".lua:1: ", "cannot be interrupted", -ETIME},
    {"hog_at_load", ".lua:1: ", "more than 16 MiB", -ENOMEM},
    {"returns_number", ".lua:1: ", "must return a table, not a number", -EINVAL},
    {"returns_nothing", ".lua:1: ", "must return a table, not nothing", -EINVAL},
    {"wrong_api", ".lua:1: ", "api is 2", -EINVAL},
    {"unknown_hook", ".lua:4: ", "did you mean 'drain_budget'?", -EINVAL},
    {"hook_not_function", ".lua:2: ", "must be a function, not a number", -EINVAL},
    {"missing_module", ".lua:1: ", "not_there/init.lua", -EINVAL},
    {"module_escape", ".lua:1: ", "is not a module name", -EINVAL},
    {"binary_chunk", ".lua:1: ", "not Lua text", -EINVAL},
    {"global_at_load", ".lua:2: ", "global 'budget'", -EINVAL},
    {"finalizer", ".lua:2: ", "__gc", -EINVAL},
};

static void a_broken_file_is_refused_with_file_and_line(void **state)
{
    for (size_t i = 0; i < sizeof at_load / sizeof *at_load; i++) {
        if (is_slow() && at_load[i].code == -ENOMEM)
            continue;
        char *path = gw_asprintf(SOURCE_DIR "/tests/fixtures/policies/%s.lua", at_load[i].name);
        char *where = gw_asprintf("/%s%s", at_load[i].name, at_load[i].where);
        struct gw_policy *p = NULL;
        struct gw_err err = {0};
        uint64_t start_ms = gw_now_ms();
        int rc = gw_policy_load(path, LUA_DIR, &p, &err);
        uint64_t took_ms = gw_now_ms() - start_ms;
        print_message("%-22s %3llu ms  %s\n", at_load[i].name, (unsigned long long)took_ms, err.text);
        assert_null(p);
        // On a machine under load one that hoards memory may run out of time first.
        bool late = at_load[i].code == -ENOMEM && rc == -ETIME;
        if (!late) {
            assert_int_equal(rc, at_load[i].code);
            assert_has(err.text, where);
        }
        assert_has(err.text, late ? "longer than 50 ms" : at_load[i].words);
        assert_true(took_ms < 1000);
        free(path);
        free(where);
    }
}

static void a_file_that_is_not_there_is_named(void **state)
{
    struct gw_policy *p = NULL;
    struct gw_err err;
    assert_int_equal(gw_policy_load(BROKEN("no_such"), LUA_DIR, &p, &err), -ENOENT);
    assert_has(err.text, "no_such.lua");
}

/* In a hook: the built-in answer, and these words. */
static const struct {
    const char *name, *where, *words;
} in_hook[] = {
    {"loop", ".lua:9: ", "longer than 50 ms"},
    {"pcall_loop", ".lua:", "longer than 50 ms"},
    {"hog_slowly", ".lua:", ""},
    {"pcall_once", ".lua:", "longer than 50 ms"},
    {"xpcall_handler", ".lua:", "longer than"},
    {"close_loop", ".lua:", "longer than 50 ms"},
    {"memory_hog", ".lua:8: ", "more than 16 MiB"},
    {"pcall_hog", ".lua:", "longer than"},
    {"rep_bomb", ".lua:8: ", "more than 16 MiB"},
    {"rep_loop", ".lua:", ""},
    {"format_bomb", ".lua:", "longer than"},
    {"format_tostring", ".lua:8: ", "cannot be interrupted"},
    {"tostring_loop", ".lua:9: ", "stack overflow"},
    {"backtracking", ".lua:8: ", "cannot be interrupted"},
    {"sort_bomb", ".lua:", "longer than"},
    {"gsub_bomb", ".lua:8: ", "cannot be interrupted"},
    {"concat_bomb", ".lua:", ""},
    {"recursion", ".lua:", "more than 16 MiB"},
    {"index_chain", ".lua:12: ", "'__index' chain too long"},
    {"date_loop", ".lua:", "longer than"},
    {"global_in_hook", ".lua:9: ", "global 'last_budget'"},
    {"error_table", ".lua:9: ", "error with a table"},
    {"error_message_table", ".lua:9: ", "the moon is full"},
    {"error_nil", ".lua:9: ", "error with nil"},
    {"wrong_type", ".lua:8: ", "wrong answer of drain_budget: a table with the field \"budget\""},
    {"negative", ".lua:8: ", "wrong answer of drain_budget: a budget of -5"},
    {"answers_nothing", ".lua:8: ", "wrong answer of drain_budget: a budget of nil"},
    {"late_require", ".lua:9: ", "required while loading"},
};

static void a_broken_hook_costs_less_than_a_tenth_of_a_second_and_the_next_question_is_answered(void **state)
{
    uint64_t worst_us = 0;
    for (size_t i = 0; i < sizeof in_hook / sizeof *in_hook; i++) {
        char *path = gw_asprintf(SOURCE_DIR "/tests/fixtures/policies/%s.lua", in_hook[i].name);
        char *where = gw_asprintf("/%s%s", in_hook[i].name, in_hook[i].where);
        struct gw_policy *p = NULL;
        struct gw_err err = {0};
        if (gw_policy_load(path, LUA_DIR, &p, &err) < 0)
            fail_msg("%s", err.text);
        for (int again = 0; again < 2; again++) {
            struct gw_budget_answer budget;
            struct gw_decision d = ask_budget(p, "", &budget);
            print_message("%-20s %6llu us  %s\n", in_hook[i].name, (unsigned long long)d.us, d.error);
            assert_true(d.failed);
            assert_true(d.builtin);
            assert_string_equal(d.hook, "drain_budget");
            assert_int_equal(budget.budget_ms, 300000);
            assert_string_equal(d.answer, "300000");
            if (!is_slow() || strstr(d.error, "ran longer than") == NULL) {
                // On a machine under load one that hoards memory may run out of time first.
                bool late = strstr(in_hook[i].words, "MiB") != NULL && strstr(d.error, "ran longer than") != NULL;
                if (!late) {
                    assert_has(d.error, where);
                    assert_has(d.error, in_hook[i].words);
                }
            }
            assert_true(d.us < 1000000);
            worst_us = d.us > worst_us ? d.us : worst_us;

            struct gw_mode_answer mode;
            d = ask_mode(p, "\"update\":true", &mode);
            assert_false(d.failed);
            assert_false(d.builtin);
            assert_int_equal(mode.mode, GW_MODE_RESPAWN);
            assert_string_equal(d.why, "fixture");
        }
        gw_policy_free(p);
        free(path);
        free(where);
    }
    print_message("the slowest lost %llu us\n", (unsigned long long)worst_us);
}

static void a_broken_hook_that_authorizes_means_no(void **state)
{
    struct gw_policy *p =
        policy_of("return { authorize_sigusr1 = function(ctx) return ctx.nothing.there end }");
    enum gw_authorization a = GW_ALLOW;
    struct gw_decision d = ask_signal(p, "", &a);
    assert_int_equal(a, GW_DENY);
    assert_true(d.failed);
    assert_string_equal(d.answer, "false");
    gw_policy_free(p);
}

static void a_state_that_spent_its_time_is_made_afresh(void **state)
{
    struct gw_policy *p = policy_of("local asked = 0\n"
                                    "return { drain_budget = function()\n"
                                    "  asked = asked + 1\n"
                                    "  while asked == 2 do end\n"
                                    "  return asked\n"
                                    "end }");
    struct gw_budget_answer budget;
    (void)ask_budget(p, "", &budget);
    assert_int_equal(budget.budget_ms, 1);
    assert_true(ask_budget(p, "", &budget).failed);
    assert_false(ask_budget(p, "", &budget).failed);
    assert_int_equal(budget.budget_ms, 1);
    gw_policy_free(p);
}

static void jumps_leave_nothing_behind(void **state)
{
    struct gw_policy *p = NULL;
    struct gw_err err;
    int rounds = getenv("GWHOST_LONG") != NULL ? 500 : 10;
    assert_int_equal(gw_policy_load(BROKEN("backtracking"), LUA_DIR, &p, &err), 0);
    for (int i = 0; i < rounds; i++) {
        struct gw_budget_answer budget;
        assert_true(ask_budget(p, "", &budget).failed);
    }
    FILE *maps = fopen("/proc/self/maps", "re");
    int regions = 0;
    char line[512];
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long from, to;
        regions += sscanf(line, "%lx-%lx", &from, &to) == 2 && strstr(line, "---p") != NULL &&
                   to - from > (32UL << 20) && to - from < (64UL << 20);
    }
    (void)fclose(maps);
    assert_in_range(regions, 1, 2); // one is the policy's
    gw_policy_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_broken_file_is_refused_with_file_and_line),
        cmocka_unit_test(a_file_that_is_not_there_is_named),
        cmocka_unit_test(a_broken_hook_costs_less_than_a_tenth_of_a_second_and_the_next_question_is_answered),
        cmocka_unit_test(a_broken_hook_that_authorizes_means_no),
        cmocka_unit_test(a_state_that_spent_its_time_is_made_afresh),
        cmocka_unit_test(jumps_leave_nothing_behind),
    };
    return cmocka_run_group_tests(tests, start_timer, end_timer);
}
