#include "unit/work/store_fixture.h"

#include "base/str.h"
#include "base/time.h"
#include "work/db.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void what_is_accepted_is_in_the_file_and_what_runs_is_marked(void **state)
{
    static struct rig_reply sub;
    rig_submit_later(&r, &echo, &sub);
    while (!sub.done)
        (void)rig_turn(&r, 100);
    assert_int_equal(rig_count(&r, "SELECT count(*) FROM tasks WHERE status IN (0, 1)"), 1);
    rig_until(&r, r.executed_n == 1);
    assert_int_equal(rig_count(&r, "SELECT count(*) FROM tasks WHERE status = 1 AND boot_id = 'boot-1'"
                                   " AND generation = 1 AND attempts = 1 AND started_at > 0"),
                     1);
    char *path = rig_path(&r, "tasks.db");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    free(path);
}

static void what_ran_when_a_boot_died_is_lost_or_tried_again(void **state)
{
    const struct gw_task_spec retry = {.handler = "echo", .retry_on_crash = true},
                              other = {.handler = "echo", .retry_on_interrupt = true};
    const char *a = rig_submit(&r, &retry), *b = rig_submit(&r, &other);
    rig_until(&r, r.executed_n == 2);
    const char *c = rig_submit_echo(&r);
    next_boot("boot-2");
    assert_int_equal(gw_work_counts(r.w).queued, 2);
    rig_settle(&r);
    assert_int_equal(r.executed_n, 2); // nothing before start
    assert_int_equal(rig_status(&r, a), GW_TASK_QUEUED);
    struct rig_reply got = rig_get(&r, b);
    assert_int_equal(got.status, GW_TASK_LOST);
    assert_string_equal(json_string_value(json_object_get(got.task, "boot_id")), "boot-1");
    assert_string_equal(json_string_value(json_object_get(got.task, "ended_by_boot_id")), "boot-2");
    assert_true(json_integer_value(json_object_get(got.task, "ended_at")) > 0);
    rig_reply_fini(&got);
    assert_int_equal(rig_times_changed(&r, b, GW_TASK_LOST), 1); // told like any other change
    assert_int_equal(rig_submit_code(&r, &echo), -ESHUTDOWN);
    rig_start(&r, 1);
    rig_until(&r, r.executed_n == 4);
    assert_string_equal(r.executed[2].id, a); // it keeps its place
    assert_string_equal(r.executed[3].id, c);
    next_boot("boot-3");
    assert_int_equal(rig_status(&r, c), GW_TASK_LOST);
    rig_start(&r, 1);
    rig_until(&r, r.executed_n == 5);
    next_boot("boot-4");
    got = rig_get(&r, a);
    assert_int_equal(got.status, GW_TASK_LOST);
    assert_int_equal(json_integer_value(json_object_get(got.task, "attempts")), 3);
    rig_reply_fini(&got);
}

static void safe_mode_tries_nothing_again(void **state)
{
    const struct gw_task_spec retry = {.handler = "echo", .retry_on_crash = true};
    const char *a = rig_submit(&r, &retry);
    rig_until(&r, r.executed_n == 1);
    r.retry_after_crash = false;
    next_boot("boot-2");
    assert_int_equal(rig_status(&r, a), GW_TASK_LOST);
}

static void what_our_own_boot_left_running_is_interrupted(void **state)
{
    const char *a = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 1);
    next_boot("boot-1");
    assert_int_equal(rig_status(&r, a), GW_TASK_INTERRUPTED);
}

static void close_with_work_in_hand(bool goes_on)
{
    enum { N = 600 };
    static struct rig_reply replies[N];
    rig_fini(&r);
    rig_up(&r, 8);
    r.goes_on = goes_on;
    for (size_t i = 0; i < 8; i++)
        (void)rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 8);
    for (size_t i = 0; i < N; i++)
        rig_submit_later(&r, &echo, &replies[i]);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(rig_finish(&r, r.executed[i].id, GW_TASK_SUCCEEDED, NULL), 0);
    gw_work_tidy(r.w);
    next_boot("boot-2");
    assert_int_equal(gw_work_counts(r.w).queued, N);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(rig_status(&r, r.executed[i].id), GW_TASK_SUCCEEDED);
}

static void closing_loses_nothing_that_was_handed_over(void **state)
{
    close_with_work_in_hand(false);
    close_with_work_in_hand(true);
}

/* ---- files that are not as they should be ---- */

static void write_file(const char *name, off_t at, const void *data, size_t n)
{
    char *path = rig_path(&r, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, n, at), n);
    (void)close(fd);
    free(path);
}

static void assert_served_afresh(void)
{
    if (rig_open(&r, "boot-2") != 0)
        fail_msg("%s", r.err.text);
    assert_non_null(r.moved);
    assert_non_null(strstr(r.moved, "/tasks.db.corrupt-"));
    assert_int_equal(access(r.moved, F_OK), 0);
    rig_start(&r, 1);
    r.finish_at_once = true;
    (void)rig_submit_echo(&r);
    rig_until(&r, gw_work_counts(r.w).finished == 1);
}

static void a_file_that_is_no_database_is_moved_aside(void **state)
{
    char garbage[5000];
    memset(garbage, 'x', sizeof garbage);
    write_file("tasks.db", 0, garbage, sizeof garbage);
    write_file("tasks.db-wal", 0, garbage, 100);
    assert_served_afresh();
    struct stat st;
    assert_int_equal(stat(r.moved, &st), 0);
    assert_int_equal(st.st_size, sizeof garbage); // as it was, not mended
    char *wal = gw_asprintf("%s-wal", r.moved);
    assert_int_equal(access(wal, F_OK), 0);
    free(wal);
    // Once more in the same second: the first one is not overwritten.
    char *first = gw_strdup(r.moved);
    rig_close(&r);
    write_file("tasks.db", 0, garbage, sizeof garbage);
    r.executed_n = 0;
    assert_served_afresh();
    assert_string_not_equal(first, r.moved);
    assert_int_equal(access(first, F_OK), 0);
    free(first);
}

static void fill(size_t n)
{
    static struct rig_reply reply;
    for (size_t i = 0; i < n; i++) {
        rig_submit_later(&r, &echo, &reply);
        while (!reply.done)
            (void)rig_turn(&r, 100);
    }
}

static void damage_is_found_after_an_unclean_end(void **state)
{
    rig_fini(&r);
    rig_up(&r, 0);
    fill(400);
    rig_close(&r);
    char garbage[4096];
    memset(garbage, 0xee, sizeof garbage);
    // A page in the middle that opening alone does not touch, and the log of a boot that did not close.
    write_file("tasks.db", 40960, garbage, sizeof garbage);
    write_file("tasks.db-wal", 0, "", 0);
    r.lanes[0].concurrency = 2;
    assert_served_afresh();
}

static void damage_that_opening_meets_is_moved_aside_too(void **state)
{
    rig_fini(&r);
    rig_up(&r, 0);
    fill(400);
    rig_close(&r);
    char *path = rig_path(&r, "tasks.db");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    free(path);
    char *garbage = gw_calloc(1, (size_t)st.st_size);
    memset(garbage, 0xee, (size_t)st.st_size);
    write_file("tasks.db", 4096, garbage,
               (size_t)st.st_size - 4096); // closed properly, all but the first page
    free(garbage);
    r.lanes[0].concurrency = 2;
    assert_served_afresh();
}

static void a_file_of_a_later_version_is_refused_and_used_only_where_it_was_ours(void **state)
{
    const char *a = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 1);
    rig_close(&r);
    rig_sql(
        &r,
        "ALTER TABLE tasks ADD COLUMN mood TEXT; CREATE TABLE boots (id TEXT); PRAGMA user_version = 99;");
    assert_int_equal(rig_open(&r, "boot-2"), -ENOTSUP);
    assert_non_null(strstr(r.err.text, "schema 99"));
    assert_non_null(strstr(r.err.text, "--state-dir"));
    r.newer = true; // an image that was gone back to
    assert_int_equal(rig_open(&r, "boot-2"), 0);
    assert_null(r.moved);
    assert_int_equal(rig_status(&r, a), GW_TASK_LOST);
    // And one that a successor has brought up to date before it failed.
    rig_close(&r);
    rig_sql(&r, "INSERT INTO boots VALUES ('x'); PRAGMA user_version = 2");
    r.newer = false;
    assert_int_equal(rig_open(&r, "boot-3"), 0);
    gw_work_let_go(r.w);
    rig_until(&r, r.let_go_n == 1);
    struct gw_work *w = r.w;
    r.w = NULL;
    rig_sql(&r, "PRAGMA user_version = 99");
    r.w = w;
    gw_work_take_back(r.w);
    rig_until(&r, r.opened_n == 2);
    assert_int_equal(r.health_code, 0);
}

static void a_version_that_was_never_given_is_refused(void **state)
{
    rig_close(&r);
    rig_sql(&r, "PRAGMA user_version = -1");
    assert_int_equal(rig_open(&r, "boot-2"), -ENOTSUP);
    rig_sql(&r, "PRAGMA user_version = -2147483648");
    assert_int_equal(rig_open(&r, "boot-2"), -ENOTSUP);
}

static void a_folder_that_is_missing_is_named(void **state)
{
    char dir[sizeof r.dir];
    memcpy(dir, r.dir, sizeof dir);
    (void)snprintf(r.dir, sizeof r.dir, "%.40s/none", dir);
    int rc = rig_open(&r, "boot-1");
    memcpy(r.dir, dir, sizeof dir);
    assert_int_equal(rc, -ENOENT);
    assert_non_null(strstr(r.err.text, "/none/tasks.db"));
    assert_null(r.w);
}

/* ---- other processes, other disks ---- */

static void a_store_locked_by_another_process_is_not_opened(void **state)
{
    rig_close(&r);
    struct rig_holder h = rig_hold_lock(&r);
    assert_int_equal(rig_open(&r, "boot-2"), -EBUSY);
    assert_non_null(strstr(r.err.text, "locked by another process"));
    rig_drop_lock(&h);
    assert_null(r.moved);
    assert_int_equal(rig_open(&r, "boot-2"), 0);
}

/* What ends meanwhile, is cut meanwhile, or is asked meanwhile; between make_sick and make_well. */
static void live_through_a_sick_store(void (*make_sick)(void), void (*make_well)(void))
{
    const char *a = rig_submit_echo(&r), *b = rig_submit_echo(&r), *c = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 2);
    rig_settle(&r);
    make_sick();
    assert_int_equal(rig_submit_code(&r, &echo), -EIO);
    assert_int_equal(r.health_n, 1);
    assert_true(r.health_code < 0);
    assert_int_equal(rig_finish(&r, a, GW_TASK_SUCCEEDED, "[1]"), 0);
    assert_int_equal(rig_submit_code(&r, &echo), -EIO);
    assert_int_equal(rig_status(&r, a), GW_TASK_RUNNING); // read, but its end is not in the store
    assert_int_equal(rig_times_changed(&r, a, GW_TASK_SUCCEEDED), 0);
    assert_int_equal(r.executed_n, 2); // its slot is not free before
    uint64_t at = gw_work_deadline(r.w);
    assert_true(at <= gw_now_ms() + 5000); // it will be tried again
    gw_work_tick(r.w, at);
    rig_settle(&r);
    assert_true(gw_work_deadline(r.w) > at); // later each time, not in a circle
    assert_int_equal(r.health_n, 1);
    make_well();
    rig_until(&r, r.health_n == 2);
    assert_int_equal(r.health_code, 0);
    rig_until(&r, rig_times_changed(&r, a, GW_TASK_SUCCEEDED) == 1);
    struct rig_reply got = rig_get(&r, a);
    assert_int_equal(json_array_size(json_object_get(got.task, "result")), 1);
    rig_reply_fini(&got);
    rig_until(&r, r.executed_n == 3);
    assert_string_equal(r.executed[2].id, c);
    assert_int_equal(rig_submit_code(&r, &echo), 0);

    // A cut without a store goes on after the wait, and its mark is written when it can be.
    make_sick();
    assert_int_equal(rig_finish(&r, b, GW_TASK_SUCCEEDED, NULL), 0);
    assert_int_equal(rig_submit_code(&r, &echo), -EIO);
    gw_work_fence(r.w, false);
    uint64_t before = gw_now_ms();
    unsigned tasks;
    gw_work_cut(r.w, NULL, &tasks, NULL);
    assert_true(gw_now_ms() - before < 1500);
    assert_int_equal(tasks, 1);
    rig_until(&r, r.drained_n == 1);
    assert_int_equal(r.aborted_n, 1);
    gw_work_boundary(r.w);
    rig_start(&r, 2);
    rig_settle(&r);
    assert_int_equal(r.executed_n, 3);
    make_well();
    rig_until(&r, r.health_n == 4);
    rig_until(&r, r.executed_n == 4); // what was queued goes on in the new generation
    assert_int_equal(rig_status(&r, b), GW_TASK_SUCCEEDED);
    assert_int_equal(rig_status(&r, c), GW_TASK_INTERRUPTED);
    assert_int_equal(gw_work_counts(r.w).queued, 0);
}

static struct rig_holder holder;

static void lock_it(void)
{
    holder = rig_hold_lock(&r);
}

static void unlock_it(void)
{
    rig_drop_lock(&holder);
}

static void work_goes_on_while_another_process_holds_the_lock(void **state)
{
    live_through_a_sick_store(lock_it, unlock_it);
}

static struct rlimit no_limit;

/* No file may grow: writes fail as on a full disk, with EFBIG for ENOSPC. */
static void limit_files(void)
{
    char *path = rig_path(&r, "tasks.db-wal");
    struct stat st;
    struct rlimit limit;
    assert_int_equal(stat(path, &st), 0);
    free(path);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &no_limit), 0);
    limit = no_limit;
    limit.rlim_cur = (rlim_t)st.st_size;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void unlimit_files(void)
{
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &no_limit), 0);
}

static void work_goes_on_while_files_cannot_grow(void **state)
{
    live_through_a_sick_store(limit_files, unlimit_files);
}

/* A disk of our own over the rig's folder; skips where the kernel does not let us. */
static void mount_small_disk(const char *options)
{
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", r.dir, "tmpfs", 0, options) != 0) {
        print_message("needs the right to mount\n");
        skip();
    }
}

/* Leaves no room on the disk, or gives it back. */
static void ballast(bool full)
{
    char *path = rig_path(&r, "ballast"), block[4096] = {0};
    if (full) {
        int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        while (write(fd, block, sizeof block) > 0)
            ;
        assert_int_equal(errno, ENOSPC);
        (void)close(fd);
    } else {
        assert_int_equal(unlink(path), 0);
    }
    free(path);
}

static void fill_disk(void)
{
    ballast(true);
}

static void free_disk(void)
{
    ballast(false);
}

static void work_goes_on_while_the_disk_is_full(void **state)
{
    mount_small_disk("size=4m");
    r.lanes[0] = (struct gw_lane_spec){"main", 2, -1};
    r.lane_count = 1;
    assert_int_equal(rig_open(&r, "boot-1"), 0);
    rig_start(&r, 1);
    live_through_a_sick_store(fill_disk, free_disk);
    ballast(true);
    rig_close(&r);
    ballast(false);
    assert_int_equal(rig_open(&r, "boot-2"), 0);
    assert_null(r.moved);
    rig_close(&r);
    (void)umount2(r.dir, MNT_DETACH);
}

static void a_full_disk_at_the_first_start_is_said(void **state)
{
    mount_small_disk("size=64k");
    ballast(true);
    int rc = rig_open(&r, "boot-1");
    assert_int_equal(rc, -ENOSPC);
    assert_non_null(strstr(r.err.text, "tasks.db"));
    assert_null(r.moved);
    (void)umount2(r.dir, MNT_DETACH);
}

static void a_folder_that_cannot_be_written_is_said(void **state)
{
    mount_small_disk("size=1m");
    assert_int_equal(rig_open(&r, "boot-1"), 0);
    rig_close(&r);
    assert_int_equal(mount("none", r.dir, "tmpfs", MS_REMOUNT | MS_RDONLY, NULL), 0);
    assert_int_equal(rig_open(&r, "boot-1"), -EROFS);
    assert_non_null(strstr(r.err.text, "tasks.db"));
    (void)umount2(r.dir, MNT_DETACH);
}

static void a_store_that_cannot_be_read_answers_so(void **state)
{
    const char *a = rig_submit_echo(&r);
    rig_settle(&r);
    char *path = rig_path(&r, "tasks.db");
    struct gw_db *db;
    assert_int_equal(gw_db_open(path, 1000, &db, NULL), 0);
    assert_int_equal(gw_db_exec(db, "ALTER TABLE tasks RENAME TO away", NULL), 0);
    struct rig_reply got = rig_get(&r, a);
    assert_int_equal(got.code, -EIO);
    assert_true(got.err.text[0] != '\0');
    static struct rig_reply list;
    rig_list(&r, -1, 0, NULL, &list);
    assert_int_equal(list.code, -EIO);
    got = rig_cancel(&r, a);
    assert_int_equal(got.code, -EIO);
    assert_int_equal(gw_db_exec(db, "ALTER TABLE away RENAME TO tasks", NULL), 0);
    assert_int_equal(rig_status(&r, a), GW_TASK_RUNNING);
    gw_db_close(db, GW_DB_END_CLEAN);
    free(path);
}

/* ---- retention ---- */

static void finished_tasks_beyond_the_limit_go_and_no_others(void **state)
{
    rig_fini(&r);
    rig_init(&r);
    r.lanes[0] = (struct gw_lane_spec){"main", 4, -1};
    r.lanes[1] = (struct gw_lane_spec){"paused", 0, -1};
    r.lane_count = 2;
    r.keep.rows = 20;
    assert_int_equal(rig_open(&r, "boot-1"), 0);
    rig_start(&r, 1);
    // Large enough to have a place of its own.
    char large[3000];
    memset(large, 'b', sizeof large);
    json_t *input = json_pack("{s:s#}", "a", large, (int)sizeof large);
    const struct gw_task_spec paused = {.handler = "echo", .lane = "paused", .input = input},
                              spec = {.handler = "echo", .input = input};
    const char *kept = rig_submit(&r, &paused);
    const char *first = NULL, *last = NULL;
    r.finish_at_once = true;
    for (int i = 0; i < 60; i++) {
        last = rig_submit(&r, &spec);
        first = first == NULL ? last : first;
    }
    rig_until(&r, gw_work_counts(r.w).finished == 60);
    // Pruned in the store's own idle time: closing waits for the batch that is under way, opening does the
    // rest.
    rig_close(&r);
    assert_int_equal(rig_open(&r, "boot-2"), 0);
    rig_until(&r, rig_count(&r, "SELECT count(*) FROM tasks WHERE status >= 2") <= 20);
    assert_int_equal(rig_status(&r, last), GW_TASK_SUCCEEDED);
    assert_int_equal(rig_status(&r, kept), GW_TASK_QUEUED);
    struct rig_reply got = rig_get(&r, first);
    assert_int_equal(got.code, -ENOENT);
    assert_int_equal(rig_count(&r, "SELECT count(*) FROM inputs WHERE seq NOT IN (SELECT seq FROM tasks)"),
                     0);
    assert_int_equal(rig_count(&r, "SELECT count(*) FROM inputs"),
                     rig_count(&r, "SELECT count(*) FROM tasks"));
    json_decref(input);
}

static void old_finished_tasks_go(void **state)
{
    rig_close(&r);
    r.keep.ms = 604800000;
    assert_int_equal(rig_open(&r, "boot-1"), 0);
    rig_start(&r, 1);
    r.finish_at_once = true;
    const char *old = rig_submit_echo(&r);
    rig_until(&r, gw_work_counts(r.w).finished == 1);
    const char *fresh = rig_submit_echo(&r);
    rig_until(&r, gw_work_counts(r.w).finished == 2);
    rig_close(&r);
    char *sql = gw_asprintf("UPDATE tasks SET ended_at = ended_at - 604800000 - 60000 WHERE id = '%s'", old);
    rig_sql(&r, sql);
    free(sql);
    assert_int_equal(rig_open(&r, "boot-2"), 0);
    rig_until(&r, rig_count(&r, "SELECT count(*) FROM tasks") == 1);
    assert_int_equal(rig_status(&r, fresh), GW_TASK_SUCCEEDED);
}

#define T(f) cmocka_unit_test_setup_teardown(f, up2, down)
#define T0(f) cmocka_unit_test_setup_teardown(f, up0, down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(what_is_accepted_is_in_the_file_and_what_runs_is_marked),
        T(what_ran_when_a_boot_died_is_lost_or_tried_again),
        T(safe_mode_tries_nothing_again),
        T(what_our_own_boot_left_running_is_interrupted),
        T(closing_loses_nothing_that_was_handed_over),
        T0(a_file_that_is_no_database_is_moved_aside),
        T(damage_is_found_after_an_unclean_end),
        T(damage_that_opening_meets_is_moved_aside_too),
        T(a_file_of_a_later_version_is_refused_and_used_only_where_it_was_ours),
        T(a_version_that_was_never_given_is_refused),
        T0(a_folder_that_is_missing_is_named),
        T(a_store_locked_by_another_process_is_not_opened),
        T(work_goes_on_while_another_process_holds_the_lock),
        T(work_goes_on_while_files_cannot_grow),
        T(a_store_that_cannot_be_read_answers_so),
        T(finished_tasks_beyond_the_limit_go_and_no_others),
        T(old_finished_tasks_go),
        T0(work_goes_on_while_the_disk_is_full),
        T0(a_full_disk_at_the_first_start_is_said),
        T0(a_folder_that_cannot_be_written_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
