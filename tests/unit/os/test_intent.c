/* The restart intent: taken once, removed whatever it says, refused by a rule that has a name. */
#include "base/err.h"
#include "base/str.h"
#include "os/intent.h"
#include "support/tempdir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cmocka.h>

#define NAME "restart-intent.json"
#define KIND "\"kind\":\"gateway-restart\""
#define PID ",\"pid\":4711"
#define AT ",\"created_at_ms\":1700000000000"
#define VALID "{" KIND PID AT "}"

enum { US = 4711 };
static const int64_t NOW = 1700000000000 + 60000; /* as old as may be */

static char dir[64], path[96], other[96];
static int dir_fd;

static int setup(void **state)
{
    tempdir_make(dir);
    (void)snprintf(path, sizeof path, "%s/" NAME, dir);
    (void)snprintf(other, sizeof other, "%s/other", dir);
    dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return dir_fd < 0;
}

static int teardown(void **state)
{
    (void)close(dir_fd);
    tempdir_remove(dir);
    return 0;
}

static void put_bytes(const char *where, const char *text, size_t n)
{
    int fd = open(where, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, n), n);
    (void)close(fd);
}

static void put(const char *where, const char *text)
{
    put_bytes(where, text, strlen(text));
}

static int take(struct gw_intent *ret, char rule[32])
{
    struct gw_err err;
    return gw_intent_take(dir_fd, US, NOW, ret, rule, &err);
}

/* How many entries the folder holds. */
static int entries(void)
{
    DIR *d = opendir(dir);
    int n = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    (void)closedir(d);
    return n;
}

static void expect_refused(const char *what, const char *want)
{
    struct gw_intent intent = {.pid = 1};
    char rule[32] = "";
    struct gw_err err;
    int rc = gw_intent_take(dir_fd, US, NOW, &intent, rule, &err);
    if (rc != -EPERM || strcmp(rule, want) != 0)
        fail_msg("%s: code %d, rule '%s', expected '%s'", what, rc, rule, want);
    assert_non_null(strstr(err.text, want));
    assert_int_equal(intent.pid, 1); // untouched
    if (faccessat(dir_fd, NAME, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        fail_msg("%s: it is still there", what);
    assert_int_equal(take(&intent, rule), -ENOENT);
}

static void what_it_says_is_refused_by_name_and_removed(void **state)
{
    static const struct {
        const char *text, *rule;
    } table[] = {
        {"", "json"},
        {"{", "json"},
        {"restart please", "json"},
        {VALID "x", "json"},
        {"{" KIND PID AT ",\"reason\":\"\xff\"}", "json"},
        {"{" KIND PID AT ",\"reason\":\"a\\u0000b\"}", "json"},
        {"{" KIND PID AT ",\"wait_ms\":99999999999999999999}", "json"},
        {"[" VALID "]", "object"},
        {"4711", "object"},
        {"null", "object"},
        {"{" KIND PID PID AT "}", "duplicate"},
        {"{" KIND PID AT ",\"force\":false,\"force\":true}", "duplicate"},
        {"{" KIND PID AT ",\"wait\":5}", "unknown"},
        {"{" KIND PID AT ",\"Force\":true}", "unknown"},
        {"{\"pid\":4711" AT "}", "kind"},
        {"{\"kind\":\"gateway-stop\"" PID AT "}", "kind"},
        {"{\"kind\":1" PID AT "}", "kind"},
        {"{" KIND AT "}", "pid"},
        {"{" KIND ",\"pid\":4712" AT "}", "pid"},
        {"{" KIND ",\"pid\":\"4711\"" AT "}", "pid"},
        {"{" KIND ",\"pid\":4711.0" AT "}", "pid"},
        {"{" KIND ",\"pid\":-4711" AT "}", "pid"},
        {"{" KIND ",\"pid\":4294971999" AT "}", "pid"}, // 4711 + 2^32
        {"{" KIND PID "}", "age"},
        {"{" KIND PID ",\"created_at_ms\":\"1700000000000\"}", "age"},
        {"{" KIND PID ",\"created_at_ms\":1700000000000.0}", "age"},
        {"{" KIND PID ",\"created_at_ms\":1700000060001}", "age"}, // 1 ms from now
        {"{" KIND PID ",\"created_at_ms\":1699999999999}", "age"}, // 60,001 ms old
        {"{" KIND PID ",\"created_at_ms\":0}", "age"},
        {"{" KIND PID ",\"created_at_ms\":-9223372036854775808}", "age"},
        {"{" KIND PID ",\"created_at_ms\":9223372036854775807}", "age"},
        {"{" KIND PID AT ",\"reason\":5}", "reason"},
        {"{" KIND PID AT ",\"reason\":null}", "reason"},
        {"{" KIND PID AT ",\"force\":1}", "force"},
        {"{" KIND PID AT ",\"force\":\"true\"}", "force"},
        {"{" KIND PID AT ",\"force\":null}", "force"},
        {"{" KIND PID AT ",\"wait_ms\":-1}", "wait_ms"},
        {"{" KIND PID AT ",\"wait_ms\":315360000001}", "wait_ms"},
        {"{" KIND PID AT ",\"wait_ms\":1e300}", "wait_ms"},
        {"{" KIND PID AT ",\"wait_ms\":\"5\"}", "wait_ms"},
        {"{" KIND PID AT ",\"wait_ms\":null}", "wait_ms"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        put(path, table[i].text);
        expect_refused(table[i].text, table[i].rule);
        assert_int_equal(entries(), 0);
    }
}

static void make_link(void)
{
    put(other, VALID);
    assert_int_equal(symlink("other", path), 0);
}

static void make_dangling_link(void)
{
    assert_int_equal(symlink("nowhere", path), 0);
}

static void make_hard_link(void)
{
    put(other, VALID);
    assert_int_equal(link(other, path), 0);
}

static void make_fifo(void)
{
    assert_int_equal(mkfifo(path, 0600), 0);
}

static void make_folder(void)
{
    assert_int_equal(mkdir(path, 0700), 0);
}

static void make_full_folder(void)
{
    make_folder();
    char *in = gw_asprintf("%s/file", path);
    put(in, VALID);
    free(in);
}

static void make_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    (void)close(fd);
}

static void make_mode(mode_t mode)
{
    put(path, VALID);
    assert_int_equal(chmod(path, mode), 0);
}

static void make_group_writable(void)
{
    make_mode(0620);
}

static void make_world_writable(void)
{
    make_mode(0602);
}

static void make_padded(size_t size)
{
    char text[GW_INTENT_BYTES + 2];
    memset(text, ' ', sizeof text);
    memcpy(text, VALID, strlen(VALID));
    put_bytes(path, text, size);
}

static void make_one_byte_too_large(void)
{
    make_padded(GW_INTENT_BYTES + 1);
}

static void what_it_is_is_refused_by_name_and_removed(void **state)
{
    static const struct {
        const char *what;
        void (*make)(void);
        const char *rule;
        int left; /* entries in the folder afterwards */
    } table[] = {
        {"a link to a valid one", make_link, "link", 1},
        {"a link to nothing", make_dangling_link, "link", 0},
        {"a hard link", make_hard_link, "links", 1},
        {"a fifo without a writer", make_fifo, "type", 0},
        {"a folder", make_folder, "type", 0},
        {"a folder with a file", make_full_folder, "type", 1}, // kept, under another name
        {"a socket", make_socket, "type", 0},
        {"writable by the group", make_group_writable, "mode", 0},
        {"writable by others", make_world_writable, "mode", 0},
        {"1,025 bytes", make_one_byte_too_large, "size", 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        table[i].make();
        expect_refused(table[i].what, table[i].rule);
        if (entries() != table[i].left)
            fail_msg("%s: %d entries are left, expected %d", table[i].what, entries(), table[i].left);
        if (unlink(other) == 0) {
            assert_int_equal(entries(), table[i].left - 1);
        } else if (table[i].left > 0) {
            (void)teardown(NULL);
            assert_int_equal(setup(NULL), 0);
        }
    }
}

static void another_users_is_refused_and_removed(void **state)
{
    if (geteuid() != 0)
        skip(); // only root can make one
    put(path, VALID);
    assert_int_equal(chown(path, 4321, 4321), 0);
    expect_refused("another owner", "owner");
    assert_int_equal(entries(), 0);
}

static void the_largest_and_oldest_that_is_allowed_is_taken_once(void **state)
{
    struct gw_intent intent;
    char rule[32];
    make_padded(GW_INTENT_BYTES);
    assert_int_equal(take(&intent, rule), 0);
    assert_int_equal(intent.pid, US);
    assert_int_equal(intent.created_at_ms, 1700000000000);
    assert_int_equal(intent.wait_ms, -1);
    assert_false(intent.force);
    assert_string_equal(intent.reason, "");
    assert_int_equal(entries(), 0);
    assert_int_equal(take(&intent, rule), -ENOENT);
}

static void what_is_written_is_what_is_taken(void **state)
{
    struct gw_intent in = {.pid = US, .created_at_ms = NOW, .wait_ms = 0, .force = true, .reason = "new \"rules\"\n"};
    struct gw_intent out;
    struct gw_err err;
    struct stat st;
    char rule[32];
    mode_t old = umask(077);
    assert_int_equal(gw_intent_write(dir_fd, &in, &err), 0);
    (void)umask(old);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644); // a host of another user can read what root wrote
    assert_int_equal(entries(), 1);
    assert_int_equal(take(&out, rule), 0);
    assert_int_equal(out.wait_ms, 0);
    assert_true(out.force);
    assert_string_equal(out.reason, in.reason);
}

static void a_newer_one_replaces_one_that_waits(void **state)
{
    struct gw_intent in = {.pid = US, .created_at_ms = NOW, .wait_ms = -1, .reason = "first"}, out;
    struct gw_err err;
    char rule[32];
    assert_int_equal(gw_intent_write(dir_fd, &in, &err), 0);
    (void)snprintf(in.reason, sizeof in.reason, "second");
    assert_int_equal(gw_intent_write(dir_fd, &in, &err), 0);
    assert_int_equal(take(&out, rule), 0);
    assert_string_equal(out.reason, "second");
    assert_int_equal(out.wait_ms, -1);
}

static void one_that_would_be_refused_is_not_written(void **state)
{
    struct gw_intent in = {.pid = US, .created_at_ms = NOW, .wait_ms = -1};
    struct gw_err err;
    memset(in.reason, 'x', sizeof in.reason - 1);
    assert_int_equal(gw_intent_write(dir_fd, &in, &err), -EINVAL);
    assert_int_equal(entries(), 0);
}

static void a_cleared_one_is_gone_and_clearing_twice_is_fine(void **state)
{
    struct gw_intent in = {.pid = US, .created_at_ms = NOW, .wait_ms = -1};
    struct gw_err err;
    assert_int_equal(gw_intent_write(dir_fd, &in, &err), 0);
    assert_int_equal(gw_intent_clear(dir_fd, &err), 0);
    assert_int_equal(entries(), 0);
    assert_int_equal(gw_intent_clear(dir_fd, &err), 0);
}

static void one_that_is_older_than_a_moment_is_removed_unread(void **state)
{
    struct gw_err err;
    struct gw_intent intent = {.pid = 1, .created_at_ms = 1, .wait_ms = -1};
    assert_int_equal(gw_intent_clear_before(dir_fd, INT64_MAX, &err), 0); // there is none
    assert_int_equal(gw_intent_write(dir_fd, &intent, &err), 0);
    const struct timespec then[2] = {{.tv_sec = 1000, .tv_nsec = 5000000}, {.tv_sec = 1000, .tv_nsec = 5000000}};
    assert_int_equal(utimensat(dir_fd, "restart-intent.json", then, 0), 0);
    assert_int_equal(gw_intent_clear_before(dir_fd, 1000005, &err), 0);
    assert_int_equal(gw_intent_clear_before(dir_fd, 1000006, &err), 1);
    assert_int_equal(faccessat(dir_fd, "restart-intent.json", F_OK, 0), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_it_says_is_refused_by_name_and_removed, setup, teardown),
        cmocka_unit_test_setup_teardown(what_it_is_is_refused_by_name_and_removed, setup, teardown),
        cmocka_unit_test_setup_teardown(another_users_is_refused_and_removed, setup, teardown),
        cmocka_unit_test_setup_teardown(the_largest_and_oldest_that_is_allowed_is_taken_once, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_written_is_what_is_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(a_newer_one_replaces_one_that_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(one_that_would_be_refused_is_not_written, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cleared_one_is_gone_and_clearing_twice_is_fine, setup, teardown),
        cmocka_unit_test_setup_teardown(one_that_is_older_than_a_moment_is_removed_unread, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
