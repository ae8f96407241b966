/* The state directory: which one, whose, and files written whole. */
#include "base/err.h"
#include "base/str.h"
#include "os/statedir.h"
#include "support/tempdir.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

static char dir[64];

static int setup(void **state)
{
    tempdir_make(dir);
    return 0;
}

static int teardown(void **state)
{
    tempdir_remove(dir);
    return 0;
}

static void the_directory_comes_from_the_first_place_that_names_one(void **state)
{
    char *path;
    struct gw_err err;
    (void)setenv("HOME", "/h", 1);
    (void)unsetenv("XDG_STATE_HOME");
    (void)unsetenv("STATE_DIRECTORY");
    (void)unsetenv("GWHOST_STATE_DIR");
    static const struct {
        const char *name, *value, *given, *want;
    } steps[] = {{"HOME", "/h", NULL, "/h/.local/state/gwhost"},
                 {"XDG_STATE_HOME", "/x", NULL, "/x/gwhost"},
                 {"STATE_DIRECTORY", "/s:/t", NULL, "/s"},
                 {"GWHOST_STATE_DIR", "/g", NULL, "/g"},
                 {"GWHOST_STATE_DIR", "/g", "/given", "/given"}};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        (void)setenv(steps[i].name, steps[i].value, 1);
        assert_int_equal(gw_statedir_choose(steps[i].given, &path, &err), 0);
        assert_string_equal(path, steps[i].want);
        free(path);
    }
    (void)unsetenv("HOME");
    (void)unsetenv("XDG_STATE_HOME");
    (void)unsetenv("STATE_DIRECTORY");
    (void)unsetenv("GWHOST_STATE_DIR");
    assert_int_equal(gw_statedir_choose(NULL, &path, &err), -ENOENT);
}

static void it_is_made_private_with_its_parents(void **state)
{
    char *path = gw_asprintf("%s/a/b", dir);
    int fd;
    struct gw_err err;
    struct stat st;
    assert_int_equal(gw_statedir_open(path, &fd, &err), 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    (void)close(fd);
    free(path);
}

static void one_that_others_may_enter_is_refused_and_says_what_to_do(void **state)
{
    int fd;
    struct gw_err err;
    assert_int_equal(chmod(dir, 0750), 0);
    assert_int_equal(gw_statedir_open(dir, &fd, &err), -EPERM);
    assert_non_null(strstr(err.text, "chmod 700"));
    assert_non_null(strstr(err.text, dir));
}

static void a_file_in_its_place_is_refused(void **state)
{
    char *path = gw_asprintf("%s/file", dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    struct gw_err err;
    (void)close(fd);
    assert_true(gw_statedir_open(path, &fd, &err) < 0);
    assert_non_null(strstr(err.text, path));
    free(path);
}

static void the_token_is_made_once_and_kept_private(void **state)
{
    int fd;
    struct gw_err err;
    struct stat st;
    char *first, *second;
    assert_int_equal(gw_statedir_open(dir, &fd, &err), 0);
    assert_int_equal(gw_token_load(fd, dir, NULL, &first, &err), 0);
    assert_int_equal(strlen(first), 64);
    assert_int_equal(strspn(first, "0123456789abcdef"), 64);
    assert_int_equal(fstatat(fd, "token", &st, 0), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(gw_token_load(fd, dir, NULL, &second, &err), 0);
    assert_string_equal(first, second);
    free(first);
    free(second);
    (void)close(fd);
}

static void white_space_and_an_editors_mark_are_no_part_of_the_token(void **state)
{
    static const char *const texts[] = {"sesam", "sesam\r\n", "\xef\xbb\xbfsesam\n", "\xef\xbb\xbf  sesam \n\n"};
    int fd;
    struct gw_err err;
    char *path = gw_asprintf("%s/t", dir);
    assert_int_equal(gw_statedir_open(dir, &fd, &err), 0);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char *token = NULL;
        assert_int_equal(gw_file_write(fd, "t", texts[i], strlen(texts[i]), 0600, false, &err), 0);
        assert_int_equal(gw_token_load(fd, dir, path, &token, &err), 0);
        assert_string_equal(token, "sesam");
        free(token);
    }
    free(path);
    (void)close(fd);
}

static void an_empty_token_file_is_refused(void **state)
{
    int fd;
    struct gw_err err;
    char *token;
    assert_int_equal(gw_statedir_open(dir, &fd, &err), 0);
    assert_int_equal(gw_file_write(fd, "t", " \n", 2, 0600, true, &err), 0);
    char *path = gw_asprintf("%s/t", dir);
    assert_int_equal(gw_token_load(fd, dir, path, &token, &err), -EINVAL);
    free(path);
    path = gw_asprintf("%s/none", dir);
    assert_int_equal(gw_token_load(fd, dir, path, &token, &err), -ENOENT);
    free(path);
    (void)close(fd);
}

static void a_write_replaces_the_whole_file_or_nothing(void **state)
{
    int fd;
    struct gw_err err;
    char *text;
    size_t n;
    assert_int_equal(gw_statedir_open(dir, &fd, &err), 0);
    assert_int_equal(gw_file_write(fd, "f", "one", 3, 0600, true, &err), 0);
    assert_int_equal(gw_file_write(fd, "f", "three", 5, 0600, true, &err), 0);
    char *path = gw_asprintf("%s/f", dir);
    assert_int_equal(gw_file_read(path, 100, &text, &n, &err), 0);
    assert_string_equal(text, "three");
    free(text);
    assert_int_equal(gw_file_read(path, 4, &text, &n, &err), -EFBIG);
    assert_int_equal(gw_file_read(dir, 4, &text, &n, &err), -EISDIR);
    assert_int_equal(mkdirat(fd, "d", 0700), 0);
    assert_true(gw_file_write(fd, "d", "x", 1, 0600, true, &err) < 0);
    free(path);
    (void)close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_directory_comes_from_the_first_place_that_names_one),
        cmocka_unit_test_setup_teardown(it_is_made_private_with_its_parents, setup, teardown),
        cmocka_unit_test_setup_teardown(one_that_others_may_enter_is_refused_and_says_what_to_do, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_in_its_place_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(the_token_is_made_once_and_kept_private, setup, teardown),
        cmocka_unit_test_setup_teardown(white_space_and_an_editors_mark_are_no_part_of_the_token, setup, teardown),
        cmocka_unit_test_setup_teardown(an_empty_token_file_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_write_replaces_the_whole_file_or_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
