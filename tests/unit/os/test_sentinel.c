/* The record of an update is read as it was written, and nothing else is taken for one. */
#include "base/err.h"
#include "base/str.h"
#include "os/sentinel.h"
#include "os/statedir.h"
#include "support/tempdir.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static int fd;

static int setup(void **state)
{
    tempdir_make(dir);
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0;
}

static int teardown(void **state)
{
    (void)close(fd);
    tempdir_remove(dir);
    return 0;
}

static void what_was_written_is_read(void **state)
{
    struct gw_sentinel s = {.kind = "update", .status = "pending", .ts_ms = 5, .message = gw_strdup("why"),
                            .continuation = json_pack("{si}", "step", 2), .mode = "respawn", .before = "1.0",
                            .duration_ms = -1};
    struct gw_sentinel r = {0};
    struct gw_err err = {0};
    assert_int_equal(gw_sentinel_write(fd, &s, &err), 0);
    assert_int_equal(gw_sentinel_read(fd, &r, &err), 0);
    assert_string_equal(r.status, "pending");
    assert_int_equal(r.ts_ms, 5);
    assert_string_equal(r.message, "why");
    assert_string_equal(r.mode, "respawn");
    assert_string_equal(r.after, "");
    assert_int_equal(r.duration_ms, -1);
    assert_true(json_equal(r.continuation, s.continuation));
    struct stat st;
    assert_int_equal(fstatat(fd, "restart-sentinel.json", &st, 0), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    gw_sentinel_fini(&s);
    gw_sentinel_fini(&r);
    gw_sentinel_remove(fd);
    assert_int_equal(gw_sentinel_read(fd, &r, &err), -ENOENT);
}

static void what_is_not_understood_names_the_field(void **state)
{
#define STATS ",\"stats\":{\"mode\":\"respawn\",\"before\":\"1\"}"
    static const struct {
        const char *text, *field;
    } all[] = {{"", "JSON"},
               {"[]", "version"},
               {"{\"version\":2}", "version"},
               {"{\"version\":1}", "kind"},
               {"{\"version\":1,\"payload\":{\"kind\":\"joke\"}}", "kind"},
               {"{\"version\":1,\"payload\":{\"kind\":\"update\",\"status\":\"odd\"}}", "status"},
               {"{\"version\":1,\"payload\":{\"kind\":\"update\",\"status\":\"ok\"" STATS "}}", "ts_ms"},
               {"{\"version\":1,\"payload\":{\"kind\":\"update\",\"status\":\"ok\",\"ts_ms\":1}}", "stats.mode"},
               {"{\"version\":1,\"payload\":{\"kind\":\"update\",\"status\":\"ok\",\"ts_ms\":1,\"message\":7" STATS "}}",
                "message"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct gw_sentinel r = {0};
        struct gw_err err = {0};
        assert_int_equal(gw_file_write(fd, "restart-sentinel.json", all[i].text, strlen(all[i].text), 0600, false, NULL), 0);
        assert_int_equal(gw_sentinel_read(fd, &r, &err), -EINVAL);
        assert_non_null(strstr(err.text, all[i].field));
    }
}

static void a_link_is_not_followed(void **state)
{
    struct gw_sentinel r = {0};
    struct gw_err err = {0};
    assert_int_equal(symlinkat("/etc/hostname", fd, "restart-sentinel.json"), 0);
    assert_int_equal(gw_sentinel_read(fd, &r, &err), -EINVAL);
}

static void what_cannot_be_read_now_is_not_called_wrong(void **state)
{
    struct gw_sentinel r = {0};
    struct gw_err err = {0};
    struct rlimit old, none;
    assert_int_equal(gw_file_write(fd, "restart-sentinel.json", "{}", 2, 0600, false, NULL), 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int rc = gw_sentinel_read(fd, &r, &err);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(rc, -EMFILE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_written_is_read, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_understood_names_the_field, setup, teardown),
        cmocka_unit_test_setup_teardown(a_link_is_not_followed, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_read_now_is_not_called_wrong, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
