#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/sha.h"
#include "base/str.h"
#include "script/door.h"
#include "script/sources.h"
#include "support/tempdir.h"

#include <errno.h>
#include <lauxlib.h>
#include <lualib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* A folder of its own for each test. */
struct place {
    char dir[64];
    struct gw_sources *s;
    lua_State *L;
};

static int set_up(void **state)
{
    struct place *p = gw_calloc(1, sizeof *p);
    tempdir_make(p->dir);
    p->s = gw_sources_new();
    p->L = luaL_newstate();
    luaL_openlibs(p->L);
    *state = p;
    return 0;
}

static const char *const names[] = {"a.lua", "b.lua",   "m.lua",       "x/y.lua",       "x/init.lua",
                                    "fifo",  "big.lua", "lib/p/q.lua", "lib/other.lua", "lib/p",
                                    "lib",   "x",       NULL};

static int tear_down(void **state)
{
    struct place *p = *state;
    lua_close(p->L);
    assert_null(gw_sources_unref(p->s));
    for (int i = 0; names[i] != NULL; i++) {
        char *path = gw_asprintf("%s/%s", p->dir, names[i]);
        if (unlink(path) < 0)
            (void)rmdir(path);
        free(path);
    }
    assert_int_equal(rmdir(p->dir), 0);
    free(p);
    return 0;
}

static char *path_of(const struct place *p, const char *name)
{
    return gw_asprintf("%s/%s", p->dir, name);
}

static void put(const struct place *p, const char *name, const char *text)
{
    char *path = path_of(p, name), *slash = strchr(path + strlen(p->dir) + 1, '/');
    for (; slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(path, 0700);
        *slash = '/';
    }
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    free(path);
}

static void assert_text(struct place *p, const char *name, const char *expected)
{
    char *path = path_of(p, name);
    const char *text;
    size_t n;
    struct gw_err err;
    assert_int_equal(gw_sources_read(p->s, path, &text, &n, &err), 0);
    assert_string_equal(text, expected);
    assert_int_equal(n, strlen(expected));
    free(path);
}

static void a_file_is_read_once_and_kept(void **state)
{
    struct place *p = *state;
    put(p, "a.lua", "return 1");
    assert_text(p, "a.lua", "return 1");
    put(p, "a.lua", "return 2");
    assert_text(p, "a.lua", "return 1");
    char *path = path_of(p, "a.lua");
    assert_int_equal(unlink(path), 0);
    assert_text(p, "a.lua", "return 1");
    assert_int_equal(gw_sources_count(p->s), 1);
    assert_string_equal(gw_sources_path(p->s, 0), path);
    free(path);
}

static void a_file_that_was_not_there_stays_so(void **state)
{
    struct place *p = *state;
    char *path = path_of(p, "a.lua");
    const char *text;
    size_t n;
    struct gw_err err;
    assert_int_equal(gw_sources_read(p->s, path, &text, &n, &err), -ENOENT);
    put(p, "a.lua", "return 1");
    assert_int_equal(gw_sources_read(p->s, path, &text, &n, &err), -ENOENT);
    assert_int_equal(gw_sources_missing_count(p->s), 1);

    // Going back to it needs no descriptor either. What could not be read is another matter, and may be there.
    struct rlimit old, none;
    char *other = path_of(p, "b.lua");
    put(p, "b.lua", "return 2");
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int absent = gw_sources_read(p->s, path, &text, &n, &err), unread = gw_sources_read(p->s, other, &text, &n, &err);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(absent, -ENOENT);
    assert_int_equal(unread, -EMFILE);
    assert_text(p, "b.lua", "return 2");
    free(other);
    free(path);
}

static void a_frozen_snapshot_reads_nothing_more(void **state)
{
    struct place *p = *state;
    put(p, "a.lua", "return 1");
    put(p, "b.lua", "return 2");
    assert_text(p, "a.lua", "return 1");
    gw_sources_freeze(p->s);
    assert_text(p, "a.lua", "return 1");
    char *path = path_of(p, "b.lua");
    const char *text;
    size_t n;
    struct gw_err err;
    assert_int_equal(gw_sources_read(p->s, path, &text, &n, &err), -ENOENT);
    assert_non_null(strstr(err.text, path));
    free(path);
}

static void only_regular_files_of_four_mebibytes_are_read(void **state)
{
    struct place *p = *state;
    const char *text;
    size_t n;
    struct gw_err err;
    char *fifo = path_of(p, "fifo"), *big = path_of(p, "big.lua"), *none = path_of(p, "none.lua");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(gw_sources_read(p->s, fifo, &text, &n, &err), -EINVAL);
    assert_int_equal(gw_sources_read(p->s, p->dir, &text, &n, &err), -EISDIR);
    assert_int_equal(gw_sources_read(p->s, none, &text, &n, &err), -ENOENT);
    assert_non_null(strstr(err.text, none));
    put(p, "big.lua", "");
    assert_int_equal(truncate(big, 4 << 20), 0);
    assert_int_equal(gw_sources_read(p->s, big, &text, &n, &err), 0);
    assert_int_equal(n, 4 << 20);
    put(p, "b.lua", "");
    char *b = path_of(p, "b.lua");
    assert_int_equal(truncate(b, (4 << 20) + 1), 0);
    assert_int_equal(gw_sources_read(p->s, b, &text, &n, &err), -EFBIG);
    assert_int_equal(gw_sources_count(p->s), 1);
    free(b);
    free(none);
    free(big);
    free(fifo);
}

static void hash_of(struct place *p, const char *first, const char *second, char hex[65])
{
    struct gw_sources *s = gw_sources_new();
    const char *const files[] = {first, second};
    for (int i = 0; i < 2; i++) {
        if (files[i] == NULL)
            continue;
        char *path = path_of(p, files[i]);
        const char *text;
        size_t n;
        assert_int_equal(gw_sources_read(s, path, &text, &n, NULL), 0);
        free(path);
    }
    gw_sources_sha256(s, hex);
    gw_sources_unref(s);
}

static void the_hash_covers_names_texts_and_their_order(void **state)
{
    struct place *p = *state;
    char one[65], plain[65], ab[65], ba[65], changed[65], renamed[65];
    put(p, "a.lua", "return 1");
    put(p, "b.lua", "return 2");
    hash_of(p, "a.lua", NULL, one);
    gw_sha256_hex("return 1", 8, plain);
    assert_string_equal(one, plain);
    hash_of(p, "a.lua", "b.lua", ab);
    hash_of(p, "b.lua", "a.lua", ba);
    put(p, "m.lua", "return 2");
    hash_of(p, "a.lua", "m.lua", renamed);
    put(p, "b.lua", "return 3");
    hash_of(p, "a.lua", "b.lua", changed);
    assert_string_not_equal(ab, one);
    assert_string_not_equal(ab, ba);
    assert_string_not_equal(ab, renamed);
    assert_string_not_equal(ab, changed);
}

static void a_syntax_error_names_file_and_line(void **state)
{
    struct place *p = *state;
    struct gw_err err;
    char *path = path_of(p, "a.lua"), *where = gw_asprintf("%s:3: ", path);
    put(p, "a.lua", "local x = 1\n\nx = = 2");
    assert_int_equal(gw_sources_compile(p->s, p->L, path, &err), -EINVAL);
    assert_int_equal(strncmp(err.text, where, strlen(where)), 0);
    assert_int_equal(lua_gettop(p->L), 0);
    free(where);
    free(path);
    put(p, "b.lua", "\033Lua");
    path = path_of(p, "b.lua");
    assert_int_equal(gw_sources_compile(p->s, p->L, path, &err), -EINVAL);
    assert_non_null(strstr(err.text, "not Lua text"));
    free(path);
}

/* What `lua` runs is loaded, with its lines where they are; a mark is no way around the test for bytecode. */
static void a_mark_and_a_first_line_for_the_shell_are_passed_over(void **state)
{
    static const struct {
        const char *text;
        int error_line; /* 0: it is good */
    } cases[] = {{"\xef\xbb\xbfreturn 1", 0},        {"#!/usr/bin/env lua\nreturn 1", 0},
                 {"\xef\xbb\xbf#!lua\nreturn 1", 0}, {"#!lua\r\nreturn 1\r\n", 0},
                 {"#", 0},                            {"\xef\xbb\xbf", 0},
                 {"#!lua\nx = = 2", 2},               {"\xef\xbb\xbfx = = 2", 1},
                 {"\n#!lua", 2},                      {"\xef\xbb\xbf\033Lua", 1},
                 {"#!lua\n\033Lua", 2},               {"\xff\xfer", 1}};
    struct place *p = *state;
    char *path = path_of(p, "a.lua");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gw_err err;
        put(p, "a.lua", cases[i].text);
        p->s = gw_sources_unref(p->s);
        p->s = gw_sources_new();
        int rc = gw_sources_compile(p->s, p->L, path, &err);
        assert_int_equal(rc, cases[i].error_line == 0 ? 0 : -EINVAL);
        if (rc < 0) {
            char *where = gw_asprintf("%s:%d: ", path, cases[i].error_line);
            assert_int_equal(strncmp(err.text, where, strlen(where)), 0);
            free(where);
        }
        lua_settop(p->L, 0);
    }
    free(path);
}

/* Runs text with `require` looking into the folder, and into lib/ for names that begin with "p.". */
static int run(struct place *p, const char *text, struct gw_err *err)
{
    char *rule = gw_asprintf("p.=%s/lib", p->dir);
    const char *const dirs[] = {rule, p->dir};
    gw_sources_push_require(p->s, p->L, dirs, 2, 0, 0);
    lua_setglobal(p->L, "require");
    free(rule);
    assert_int_equal(luaL_loadstring(p->L, text), LUA_OK);
    return gw_lua_call(p->L, 0, 0, NULL, err);
}

static void assert_runs(struct place *p, const char *text)
{
    struct gw_err err;
    if (run(p, text, &err) < 0)
        fail_msg("%s: %s", text, err.text);
}

static void assert_raises(struct place *p, const char *text, const char *words)
{
    struct gw_err err;
    assert_true(run(p, text, &err) < 0);
    if (strstr(err.text, words) == NULL)
        fail_msg("%s: %s", text, err.text);
}

static void modules_are_found_and_loaded_once(void **state)
{
    struct place *p = *state;
    put(p, "m.lua", "local name = ... count = (count or 0) + 1 return { name = name }");
    put(p, "x/y.lua", "return 'y'");
    put(p, "x/init.lua", "return 'init'");
    put(p, "a.lua", "-- returns nothing");
    assert_runs(p, "assert(require('m') == require('m') and require('m').name == 'm' and count == 1)");
    assert_runs(p, "assert(require('x.y') == 'y' and require('x') == 'init' and require('a') == true)");
}

static void a_folder_with_a_prefix_serves_only_its_own(void **state)
{
    struct place *p = *state;
    put(p, "lib/p/q.lua", "return 'q'");
    put(p, "lib/other.lua", "return 'other'");
    assert_runs(p, "assert(require('p.q') == 'q')");
    assert_raises(p, "require('other')", "module 'other' not found (tried ");
}

static void names_that_leave_the_folder_are_refused(void **state)
{
    struct place *p = *state;
    static const char *const wrong[] = {"../m", "/etc/passwd", ".", "..",  "a..b",
                                        ".a",   "a.",          "",  "a b", "m\\0x"};
    put(p, "m.lua", "return 1");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *text = gw_asprintf("require('%s')", wrong[i]);
        assert_raises(p, text, "is not a module name");
        free(text);
    }
}

static void modules_that_fail_or_turn_in_circles_say_so(void **state)
{
    struct place *p = *state;
    put(p, "a.lua", "return require('b')");
    put(p, "b.lua", "return require('a')");
    put(p, "m.lua", "\n\nerror('no')");
    assert_raises(p, "require('a')", "requires itself");
    assert_raises(p, "require('m')", "/m.lua:3: no");
    assert_raises(p, "require('gone')", "/gone.lua, ");
    assert_raises(p, "require('gone')", "/gone/init.lua)");
    gw_sources_freeze(p->s);
    assert_raises(p, "require('gone')", "while loading");
}

static int entered, left;

static void enter(void)
{
    entered++;
}

static void leave(void)
{
    left++;
}

static void the_guard_is_called_around_each_reading_and_only_then(void **state)
{
    struct place *p = *state;
    entered = left = 0;
    put(p, "m.lua", "return 1");
    gw_sources_guard(p->s, enter, leave);
    assert_runs(p, "require('m') require('m')");
    assert_int_equal(entered, 1);
    assert_raises(p, "require('gone')", "not found");
    assert_int_equal(entered, 3); // both places were looked at
    assert_int_equal(left, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_file_is_read_once_and_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_that_was_not_there_stays_so, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_frozen_snapshot_reads_nothing_more, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_regular_files_of_four_mebibytes_are_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_hash_covers_names_texts_and_their_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_mark_and_a_first_line_for_the_shell_are_passed_over, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_syntax_error_names_file_and_line, set_up, tear_down),
        cmocka_unit_test_setup_teardown(modules_are_found_and_loaded_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_folder_with_a_prefix_serves_only_its_own, set_up, tear_down),
        cmocka_unit_test_setup_teardown(names_that_leave_the_folder_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(modules_that_fail_or_turn_in_circles_say_so, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_guard_is_called_around_each_reading_and_only_then, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
