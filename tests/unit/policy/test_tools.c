/* `policy check`, `policy test`, and the types that ship for editors. */
#include "unit/policy/policy_fixture.h"

#include <errno.h>

struct heard {
    unsigned count, wrong;
    char text[16][512];
};

static void on_fault(void *ud, const char *text)
{
    struct heard *h = ud;
    assert_true(h->count < 16);
    (void)snprintf(h->text[h->count++], sizeof h->text[0], "%s", text);
}

static void on_result(void *ud, const char *sentence, const char *wrong)
{
    struct heard *h = ud;
    assert_true(h->count < 16);
    (void)snprintf(h->text[h->count++], sizeof h->text[0], "%s|%s", sentence, wrong != NULL ? wrong : "");
    h->wrong += wrong != NULL;
}

static bool heard(const struct heard *h, const char *words)
{
    for (unsigned i = 0; i < h->count; i++)
        if (strstr(h->text[i], words) != NULL)
            return true;
    return false;
}

static void check_names_every_fault_with_its_line(void **state)
{
    struct heard h = {0};
    assert_int_equal(gw_policy_check(BROKEN("many_faults"), LUA_DIR, on_fault, &h), 4);
    assert_int_equal(h.count, 4);
    assert_true(heard(&h, "many_faults.lua:2: api is \"1\"; this host knows api 1"));
    assert_true(heard(&h, "many_faults.lua:2: name must be a string, not a number"));
    assert_true(heard(&h, "many_faults.lua:3: restart_mode must be a function, not a string"));
    assert_true(
        heard(&h, "many_faults.lua:4: unknown field 'authorise_sigusr1': did you mean 'authorize_sigusr1'?"));
}

static void check_finds_wrong_answers_by_asking(void **state)
{
    struct heard h = {0};
    assert_int_equal(gw_policy_check(BROKEN("negative"), LUA_DIR, on_fault, &h), 1);
    assert_true(heard(&h, "negative.lua:8: wrong answer of drain_budget"));
    h = (struct heard){0};
    assert_int_equal(gw_policy_check(BROKEN("syntax_error"), LUA_DIR, on_fault, &h), 1);
    assert_true(heard(&h, "syntax_error.lua:4: "));
    h = (struct heard){0};
    assert_int_equal(gw_policy_check(BROKEN("no_such"), LUA_DIR, on_fault, &h), 1);
    assert_true(heard(&h, "no_such.lua"));
}

static void the_shipped_policies_have_no_fault(void **state)
{
    static const char *const shipped[] = {"restart", "strict", "patient"};
    for (size_t i = 0; i < sizeof shipped / sizeof *shipped; i++) {
        struct heard h = {0};
        char *path = gw_asprintf(SOURCE_DIR "/policies/%s.lua", shipped[i]);
        if (gw_policy_check(path, LUA_DIR, on_fault, &h) != 0)
            fail_msg("%s", h.text[0]);
        free(path);
    }
}

static void a_failing_test_is_told_with_its_line_and_the_others_still_run(void **state)
{
    struct heard h = {0};
    struct gw_err err = {0};
    int rc = gw_policy_test(SOURCE_DIR "/tests/fixtures/policies/tested.lua", LUA_DIR, on_result, &h, &err);
    if (rc < 0)
        fail_msg("%s", err.text);
    for (unsigned i = 0; i < h.count; i++)
        print_message("%s\n", h.text[i]);
    assert_int_equal(h.count, 8);
    assert_int_equal(rc, 6);
    assert_int_equal(h.wrong, 6);
    assert_true(heard(&h, "what holds is told as passed|"));
    assert_true(heard(&h, "tested_test.lua:6: got 5, expected 6"));
    assert_true(heard(&h, "tested_test.lua:10: ran longer than 50 ms"));
    assert_true(heard(&h, "in code that cannot be interrupted"));
    assert_true(heard(
        &h,
        "tested_test.lua:18: wrong answer of drain_budget: a budget of -1, which is not an integer >= 0"));
    assert_true(heard(&h, "assignment to the global 'leak'"));
    assert_true(heard(&h, "got {a=1, b={1=2}}, expected {a=1, b={1=3}}"));
    assert_true(heard(&h, "each test has a state of its own|"));
}

static void a_policy_without_tests_says_so(void **state)
{
    struct heard h = {0};
    struct gw_err err = {0};
    assert_int_equal(gw_policy_test(BROKEN("loop"), LUA_DIR, on_result, &h, &err), -ENOENT);
    assert_has(err.text, "loop_test.lua");
    assert_int_equal(gw_policy_test(BROKEN("syntax_error"), LUA_DIR, on_result, &h, &err), -EINVAL);
    assert_has(err.text, "syntax_error.lua:4: ");
}

static void the_types_for_editors_name_the_hooks_that_the_host_knows(void **state)
{
    FILE *f = fopen(LUA_DIR "/gwhost/policy/meta.lua", "re");
    assert_non_null(f);
    char line[512], name[64];
    unsigned typed = 0, known = 0;
    const char *const *hooks = gw_policy_hook_names();
    while (fgets(line, sizeof line, f) != NULL) {
        if (sscanf(line, "---@field %63[a-z0-9_]? fun(", name) != 1 || strstr(line, "? fun(") == NULL)
            continue;
        typed++;
        bool found = false;
        for (int i = 0; hooks[i] != NULL; i++)
            found = found || strcmp(hooks[i], name) == 0;
        if (!found)
            fail_msg("meta.lua types '%s', which is no hook", name);
    }
    (void)fclose(f);
    while (hooks[known] != NULL)
        known++;
    assert_int_equal(typed, known);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_names_every_fault_with_its_line),
        cmocka_unit_test(check_finds_wrong_answers_by_asking),
        cmocka_unit_test(the_shipped_policies_have_no_fault),
        cmocka_unit_test(a_failing_test_is_told_with_its_line_and_the_others_still_run),
        cmocka_unit_test(a_policy_without_tests_says_so),
        cmocka_unit_test(the_types_for_editors_name_the_hooks_that_the_host_knows),
    };
    return cmocka_run_group_tests(tests, start_timer, end_timer);
}
