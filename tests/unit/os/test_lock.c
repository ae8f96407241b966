/* One host per state directory, whatever the file in it says. */
#include "base/err.h"
#include "base/str.h"
#include "os/holder.h"
#include "os/lock.h"
#include "os/statedir.h"
#include "support/tempdir.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

static char dir[64];
static int dir_fd;

static int setup(void **state)
{
    tempdir_make(dir);
    dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return dir_fd < 0;
}

static int teardown(void **state)
{
    (void)close(dir_fd);
    tempdir_remove(dir);
    return 0;
}

/* Tries from another process; returns the code, and what owner it was told in *ret_owner. */
static int try_elsewhere(pid_t *ret_owner)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct gw_lock *lock = NULL;
        struct gw_err err;
        struct {
            int code;
            pid_t owner;
        } told = {0};
        told.code = gw_lock_acquire(dir_fd, dir, "{}", &lock, &err);
        told.owner = told.code < 0 ? gw_holder_find(dir_fd).pid : 0;
        (void)!write(ends[1], &told, sizeof told);
        _exit(0);
    }
    struct {
        int code;
        pid_t owner;
    } told;
    assert_int_equal(read(ends[0], &told, sizeof told), sizeof told);
    (void)waitpid(pid, NULL, 0);
    (void)close(ends[0]);
    (void)close(ends[1]);
    *ret_owner = told.owner;
    return told.code;
}

static void lock_is_refused_while_held_elsewhere_and_names_the_owner(void **state)
{
    struct gw_lock *lock;
    struct gw_err err;
    pid_t owner = 0;
    assert_int_equal(gw_lock_acquire(dir_fd, dir, "{\"pid\":1}", &lock, &err), 0);
    assert_int_equal(try_elsewhere(&owner), -EBUSY);
    assert_int_equal(owner, getpid());
    lock = gw_lock_release(lock);
    assert_null(lock);
    assert_int_equal(try_elsewhere(&owner), 0);
}

static void what_the_file_holds_is_no_condition(void **state)
{
    static const char *const contents[] = {"", "garbage \xff", "{\"pid\":1}", "{\"pid\":\"x\"}", "[", NULL};
    for (int i = 0; contents[i] != NULL; i++) {
        int fd = openat(dir_fd, "gwhost.lock", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        assert_int_equal(write(fd, contents[i], strlen(contents[i])), strlen(contents[i]));
        (void)close(fd);
        struct gw_lock *lock;
        struct gw_err err;
        assert_int_equal(gw_lock_acquire(dir_fd, dir, "{\"pid\":2}\n", &lock, &err), 0);
        char *text;
        size_t n;
        char *path = gw_asprintf("%s/gwhost.lock", dir);
        assert_int_equal(gw_file_read(path, 4096, &text, &n, &err), 0);
        assert_string_equal(text, "{\"pid\":2}\n");
        free(text);
        free(path);
        (void)gw_lock_release(lock);
    }
}

static void a_lock_file_that_is_a_link_or_a_folder_is_no_obstacle(void **state)
{
    struct gw_lock *lock;
    struct gw_err err;
    pid_t owner = 0;
    assert_int_equal(mkdirat(dir_fd, "gwhost.lock", 0700), 0);
    assert_int_equal(gw_lock_acquire(dir_fd, dir, "{}", &lock, &err), 0);
    assert_int_equal(try_elsewhere(&owner), -EBUSY);
    (void)gw_lock_release(lock);
    assert_int_equal(unlinkat(dir_fd, "gwhost.lock", AT_REMOVEDIR), 0);
    assert_int_equal(symlinkat("/etc/passwd", dir_fd, "gwhost.lock"), 0);
    assert_int_equal(gw_lock_acquire(dir_fd, dir, "{}", &lock, &err), 0);
    (void)gw_lock_release(lock);
}

static void a_dead_owner_owns_nothing(void **state)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct gw_lock *lock;
        _exit(gw_lock_acquire(dir_fd, dir, "{}", &lock, NULL) == 0 ? 0 : 1);
    }
    int status;
    (void)waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    pid_t owner;
    assert_int_equal(try_elsewhere(&owner), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lock_is_refused_while_held_elsewhere_and_names_the_owner, setup, teardown),
        cmocka_unit_test_setup_teardown(what_the_file_holds_is_no_condition, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lock_file_that_is_a_link_or_a_folder_is_no_obstacle, setup, teardown),
        cmocka_unit_test_setup_teardown(a_dead_owner_owns_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
