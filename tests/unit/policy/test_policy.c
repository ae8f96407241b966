/* Loading, identity, replay, and what a question leaves behind. */
#include "unit/policy/policy_fixture.h"

#include "base/sha.h"
#include "base/time.h"

#include <errno.h>
#include <signal.h>
#include <time.h>

static char *temporary(void)
{
    char dir[64];
    tempdir_make(dir);
    return gw_strdup(dir);
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char *path = gw_asprintf("%s/%s", dir, name);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    free(path);
}

static void remove_all(char *dir, const char *const *names)
{
    for (; *names != NULL; names++) {
        char *path = gw_asprintf("%s/%s", dir, *names);
        (void)unlink(path);
        free(path);
    }
    assert_int_equal(rmdir(dir), 0);
    free(dir);
}

static int64_t budget_ms(struct gw_policy *p)
{
    struct gw_budget_answer b;
    struct gw_decision d = ask_budget(p, "", &b);
    if (d.failed)
        fail_msg("%s", d.error);
    return b.budget_ms;
}

static void a_policy_requires_modules_beside_it_and_shipped_ones(void **state)
{
    char *dir = temporary();
    write_file(dir, "p.lua",
               "local n = require('numbers')\nlocal t = require('gwhost.policy.text')\n"
               "assert(require('numbers') == n)\n"
               "return { name = 'mine', drain_budget = function() return n.five, t.clip('abc', 2) end }");
    write_file(dir, "numbers.lua", "return { five = 5 }");
    char *path = gw_asprintf("%s/p.lua", dir);
    struct gw_policy *p;
    struct gw_err err;
    if (gw_policy_load(path, LUA_DIR, &p, &err) < 0)
        fail_msg("%s", err.text);
    struct gw_budget_answer b;
    struct gw_decision d = ask_budget(p, "", &b);
    assert_int_equal(b.budget_ms, 5);
    assert_string_equal(d.why, "ab");
    assert_string_equal(gw_policy_path(p), path);
    assert_string_equal(gw_policy_name(p), "mine");
    assert_true(gw_wall_ms() - gw_policy_loaded_at(p) < 10000);
    char *line = gw_asprintf("%s:4", path);
    assert_string_equal(d.line, line);
    gw_policy_free(p);
    free(line);
    free(path);
    remove_all(dir, (const char *const[]){"p.lua", "numbers.lua", NULL});
}

static void a_policy_is_made_again_from_what_was_read(void **state)
{
    char *dir = temporary();
    write_file(dir, "p.lua",
               "local n = require('numbers')\n"
               "return { drain_budget = function(ctx) while ctx.vars.loop do end return n end }");
    write_file(dir, "numbers.lua", "return 5");
    char *path = gw_asprintf("%s/p.lua", dir);
    struct gw_policy *p, *again;
    struct gw_err err;
    assert_int_equal(gw_policy_load(path, LUA_DIR, &p, &err), 0);
    char *old = gw_strdup(gw_policy_sha256(p));
    write_file(dir, "p.lua", "this is not Lua");
    write_file(dir, "numbers.lua", "return 6");

    struct gw_budget_answer b;
    assert_true(ask_budget(p, "\"vars\":{\"loop\":\"1\"}", &b).failed);
    assert_int_equal(budget_ms(p), 5);
    assert_int_equal(gw_policy_reopen(p, &again, &err), 0);
    gw_policy_free(p);
    assert_int_equal(budget_ms(again), 5);
    assert_string_equal(gw_policy_sha256(again), old);
    gw_policy_free(again);

    write_file(dir, "p.lua", "return { drain_budget = function() return require('numbers') end }");
    assert_int_equal(gw_policy_load(path, LUA_DIR, &p, &err), 0);
    assert_string_not_equal(gw_policy_sha256(p), old);
    gw_policy_free(p);
    free(old);
    free(path);
    remove_all(dir, (const char *const[]){"p.lua", "numbers.lua", NULL});
}

static void the_hash_of_a_single_file_is_the_one_that_sha256sum_prints(void **state)
{
    const char *text = "return { drain_budget = function() return 1 end }";
    char hex[65];
    gw_sha256_hex(text, strlen(text), hex);
    struct gw_policy *p = policy_of(text);
    assert_string_equal(gw_policy_sha256(p), hex);
    gw_policy_free(p);
}

static void a_relative_path_becomes_absolute(void **state)
{
    struct gw_policy *p;
    struct gw_err err;
    char *cwd = getcwd(NULL, 0);
    assert_int_equal(chdir(SOURCE_DIR), 0);
    assert_int_equal(gw_policy_load("policies/strict.lua", LUA_DIR, &p, &err), 0);
    assert_int_equal(chdir(cwd), 0);
    assert_int_equal(gw_policy_path(p)[0], '/');
    assert_has(gw_policy_path(p), "/policies/strict.lua");
    gw_policy_free(p);
    free(cwd);
}

static void a_module_with_a_mistake_is_named_with_its_line(void **state)
{
    char *dir = temporary();
    write_file(dir, "p.lua", "\n\nreturn require('bad')");
    write_file(dir, "bad.lua", "local x = 1\nx = = 2");
    char *path = gw_asprintf("%s/p.lua", dir);
    struct gw_policy *p;
    struct gw_err err;
    assert_int_equal(gw_policy_load(path, LUA_DIR, &p, &err), -EINVAL);
    assert_has(err.text, "/bad.lua:2: ");
    write_file(dir, "bad.lua", "local x = 1\nlocal y = x.y.z");
    assert_int_equal(gw_policy_load(path, LUA_DIR, &p, &err), -EINVAL);
    assert_has(err.text, "/bad.lua:2: ");
    free(path);
    remove_all(dir, (const char *const[]){"p.lua", "bad.lua", NULL});
}

static void a_policy_inherits_the_hooks_of_another(void **state)
{
    struct gw_policy *p;
    struct gw_err err;
    assert_int_equal(gw_policy_load(SOURCE_DIR "/policies/patient.lua", LUA_DIR, &p, &err), 0);
    enum gw_authorization a;
    struct gw_decision d = ask_signal(p, "", &a);
    assert_int_equal(a, GW_WHEN_IDLE);
    assert_false(d.builtin);
    assert_has(d.line, "/policies/restart.lua:");
    gw_policy_free(p);
}

static void a_missing_hook_means_the_built_in_answer(void **state)
{
    struct gw_policy *p = policy_of("return {}");
    struct gw_budget_answer b;
    struct gw_decision d = ask_budget(p, "", &b);
    assert_true(d.builtin);
    assert_false(d.failed);
    assert_int_equal(b.budget_ms, 300000);
    assert_string_equal(d.why, "built-in: the default");
    assert_string_equal(d.line, "");
    gw_policy_free(p);
}

static void hooks_see_the_facts_and_the_built_in_answer(void **state)
{
    struct gw_policy *p = policy_of("return { drain_budget = function(ctx)\n"
                                    "  assert(ctx.builtin == 'unlimited' and ctx.supervisor == nil)\n"
                                    "  assert(math.type(ctx.last) == 'integer' and ctx.deep[2].x == 'y')\n"
                                    "  return ctx.last end }");
    struct gw_budget_answer b;
    struct gw_decision d = ask_budget(
        p, "\"intent\":{\"wait_ms\":0},\"supervisor\":null,\"last\":9007199,\"deep\":[1,{\"x\":\"y\"}]", &b);
    if (d.failed)
        fail_msg("%s", d.error);
    assert_int_equal(b.budget_ms, 9007199);
    gw_policy_free(p);
}

static void facts_that_were_recorded_replay(void **state)
{
    struct gw_policy *p =
        policy_of("return { drain_budget = function(ctx)\n"
                  "  assert(os.time() * 1000 <= ctx.now_ms and os.date('!%Y') == '2001')\n"
                  "  return math.random(1000000), os.date('!%H:%M:%S') .. ' ' .. os.clock()\n"
                  "end }");
    struct gw_budget_answer first, second;
    const char *recorded = "\"now_ms\":1000000000123,\"seed\":42";
    struct gw_decision a = ask_budget(p, recorded, &first);
    if (a.failed)
        fail_msg("%s", a.error);
    struct gw_decision b = ask_budget(p, recorded, &second);
    assert_int_equal(first.budget_ms, second.budget_ms);
    assert_string_equal(a.why, b.why);
    assert_string_equal(a.why, "01:46:40 1000000000.123");
    (void)ask_budget(p, "\"now_ms\":1000000000123,\"seed\":43", &second);
    assert_int_not_equal(first.budget_ms, second.budget_ms);
    gw_policy_free(p);
}

static void fresh_facts_get_a_clock_and_a_seed(void **state)
{
    struct gw_policy *p = gw_policy_builtin();
    json_t *f = facts("");
    struct gw_mode_answer m;
    struct gw_decision d;
    gw_policy_restart_mode(p, f, &m, &d);
    assert_true(gw_wall_ms() - json_integer_value(json_object_get(f, "now_ms")) < 10000);
    assert_true(json_is_integer(json_object_get(f, "seed")));
    assert_string_equal(json_string_value(json_object_get(f, "builtin")), "in_process");
    json_decref(f);
    gw_policy_free(p);
}

static void no_signal_comes_after_a_question(void **state)
{
    struct gw_policy *p = policy_of("return { drain_budget = function() return 1 end }");
    (void)budget_ms(p);
    // Blocked, a late timer signal would be found pending; waiting for it is bounded by the hard deadline.
    sigset_t timer, old;
    (void)sigemptyset(&timer);
    (void)sigaddset(&timer, SIGRTMIN + 2);
    (void)sigprocmask(SIG_BLOCK, &timer, &old);
    struct timespec wait = {.tv_nsec = 120 * 1000000};
    assert_int_equal(sigtimedwait(&timer, NULL, &wait), -1);
    (void)sigprocmask(SIG_SETMASK, &old, NULL);
    gw_policy_free(p);
}

static void the_timer_signal_from_elsewhere_is_ignored(void **state)
{
    struct gw_policy *p = policy_of("return { drain_budget = function() return 1 end }");
    for (int i = 0; i < 100; i++) {
        assert_int_equal(kill(getpid(), SIGRTMIN + 2), 0);
        assert_int_equal(budget_ms(p), 1);
    }
    gw_policy_free(p);
}

static void ten_thousand_questions_are_answered_alike(void **state)
{
    struct gw_policy *p;
    struct gw_err err;
    assert_int_equal(gw_policy_load(SOURCE_DIR "/policies/restart.lua", LUA_DIR, &p, &err), 0);
    int rounds = getenv("GWHOST_SLOW") != NULL ? 500 : 10000;
    uint64_t start_us = gw_now_us();
    for (int i = 0; i < rounds; i++) {
        struct gw_mode_answer m;
        struct gw_decision d = ask_mode(p, "\"supervisor\":\"systemd\"", &m);
        assert_false(d.failed);
    }
    print_message("a question takes %llu ns\n",
                  (unsigned long long)((gw_now_us() - start_us) * 1000 / (unsigned)rounds));
    gw_policy_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_policy_requires_modules_beside_it_and_shipped_ones),
        cmocka_unit_test(a_policy_is_made_again_from_what_was_read),
        cmocka_unit_test(the_hash_of_a_single_file_is_the_one_that_sha256sum_prints),
        cmocka_unit_test(a_relative_path_becomes_absolute),
        cmocka_unit_test(a_module_with_a_mistake_is_named_with_its_line),
        cmocka_unit_test(a_policy_inherits_the_hooks_of_another),
        cmocka_unit_test(a_missing_hook_means_the_built_in_answer),
        cmocka_unit_test(hooks_see_the_facts_and_the_built_in_answer),
        cmocka_unit_test(facts_that_were_recorded_replay),
        cmocka_unit_test(fresh_facts_get_a_clock_and_a_seed),
        cmocka_unit_test(no_signal_comes_after_a_question),
        cmocka_unit_test(the_timer_signal_from_elsewhere_is_ignored),
        cmocka_unit_test(ten_thousand_questions_are_answered_alike),
    };
    return cmocka_run_group_tests(tests, start_timer, end_timer);
}
