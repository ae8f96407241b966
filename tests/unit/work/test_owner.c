/* Who owns the file, and what it may be believed. */
#include "unit/work/store_fixture.h"

#include "base/str.h"
#include "base/time.h"
#include "unit/work/version_1.h"
#include "work/retain.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *done_task(void)
{
    size_t n = r.executed_n;
    const char *id = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == n + 1);
    assert_int_equal(rig_finish(&r, id, GW_TASK_SUCCEEDED, NULL), 0);
    rig_until(&r, rig_times_changed(&r, id, GW_TASK_SUCCEEDED) == 1);
    return id;
}

/* Runs sh's words in the folder. */
static void shell(const char *words)
{
    char *line = gw_asprintf("cd '%s' && { %s; }", r.dir, words);
    assert_int_equal(system(line), 0);
    free(line);
}

/* ---- opening ---- */

static void an_opening_that_is_in_the_way_of_something_comes_by_itself(void **state)
{
    const char *a = done_task();
    rig_close(&r);
    struct rig_holder h = rig_hold_lock(&r);
    rig_ask_open(&r, "boot-2");
    rig_start(&r, 1);
    rig_until(&r, r.health_code == -EBUSY);
    assert_false(gw_work_is_open(r.w));
    assert_int_equal(rig_submit_code(&r, &echo), -EIO);
    struct rig_reply got = rig_get(&r, a);
    assert_int_equal(got.code, -EIO);
    rig_drop_lock(&h);
    rig_until(&r, r.opened_n == 1 && r.health_code == 0);
    assert_int_equal(r.health_n, 2);
    assert_int_equal(rig_status(&r, a), GW_TASK_SUCCEEDED);
    const char *b = rig_submit_echo(&r);
    assert_true(strcmp(b, a) > 0);
    rig_until(&r, rig_was_executed(&r, b));
}

static void a_lane_that_is_not_named_any_more_runs_what_it_has_one_by_one(void **state)
{
    rig_close(&r);
    r.lanes[1] = (struct gw_lane_spec){"old", 0, -1};
    r.lane_count = 2;
    assert_int_equal(rig_open(&r, "boot-2"), 0);
    rig_start(&r, 1);
    const struct gw_task_spec spec = {.handler = "echo", .lane = "old"};
    const char *a = rig_submit(&r, &spec), *b = rig_submit(&r, &spec);
    rig_close(&r);
    r.lane_count = 1;
    assert_int_equal(rig_open(&r, "boot-3"), 0);
    const struct gw_lane_counts *lanes;
    assert_int_equal(gw_work_lanes(r.w, &lanes), 2);
    assert_false(lanes[1].configured);
    assert_int_equal(lanes[1].queued, 2);
    rig_start(&r, 1);
    rig_until(&r, rig_was_executed(&r, a));
    rig_settle(&r);
    assert_false(rig_was_executed(&r, b));
    assert_int_equal(rig_submit_code(&r, &spec), -EINVAL);
    assert_int_equal(rig_finish(&r, a, GW_TASK_SUCCEEDED, NULL), 0);
    rig_until(&r, rig_was_executed(&r, b));
}

/* ---- from owner to owner ---- */

static void a_store_that_is_let_go_is_closed_before_that_is_said(void **state)
{
    const char *a = rig_submit_echo(&r), *b;
    rig_until(&r, r.executed_n == 1);
    gw_work_fence(r.w, false);
    gw_work_cut(r.w, NULL, NULL, NULL);
    gw_work_boundary(r.w);
    r.in_api = true;
    gw_work_let_go(r.w);
    r.in_api = false;
    rig_until(&r, r.let_go_n == 1);
    assert_int_equal(r.let_go_code, 0);
    char link[64];
    for (int fd = 3; fd < 64; fd++) {
        char *path = gw_asprintf("/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, link, sizeof link - 1);
        link[n > 0 ? n : 0] = '\0';
        assert_null(strstr(link, "tasks.db"));
        free(path);
    }
    assert_int_equal(rig_count(&r, "SELECT count(*) FROM tasks WHERE status = 6"), 1); // the mark is in it
    assert_int_equal(rig_get(&r, a).code, -EIO);
    const struct gw_task_spec keyed = {.handler = "echo", .idempotency_key = "k", .body_sha256 = "b"};
    assert_int_equal(rig_submit_code(&r, &keyed), -ESHUTDOWN);
    rig_settle(&r);
    assert_int_equal(r.health_n, 0); // nothing is wrong with it
    gw_work_take_back(r.w);
    rig_until(&r, r.opened_n == 2);
    rig_start(&r, 2);
    assert_int_equal(rig_status(&r, a), GW_TASK_INTERRUPTED);
    b = rig_submit_echo(&r);
    assert_true(strcmp(b, a) > 0);
    rig_until(&r, rig_was_executed(&r, b));
}

static void a_store_that_cannot_be_written_is_not_let_go(void **state)
{
    const char *a = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 1);
    rig_settle(&r);
    struct rig_holder h = rig_hold_lock(&r);
    assert_int_equal(rig_finish(&r, a, GW_TASK_SUCCEEDED, NULL), 0);
    rig_until(&r, r.health_code == -EBUSY);
    assert_int_equal(gw_work_counts(r.w).unwritten, 1);
    gw_work_boundary(r.w);
    gw_work_let_go(r.w);
    rig_until(&r, r.let_go_n == 1);
    assert_int_equal(r.let_go_code, -EBUSY);
    rig_drop_lock(&h);
    gw_work_take_back(r.w);
    rig_start(&r, 2);
    rig_until(&r, r.health_code == 0 && rig_times_changed(&r, a, GW_TASK_SUCCEEDED) == 1);
    assert_int_equal(rig_status(&r, a), GW_TASK_SUCCEEDED);
    assert_int_equal(gw_work_counts(r.w).unwritten, 0);
}

static void an_end_that_waits_for_the_store_does_not_hold_up_who_goes_on(void **state)
{
    const char *a = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 1);
    rig_settle(&r);
    struct rig_holder h = rig_hold_lock(&r);
    assert_int_equal(rig_finish(&r, a, GW_TASK_SUCCEEDED, NULL), 0);
    rig_until(&r, r.health_code == -EBUSY);
    gw_work_fence(r.w, false);
    gw_work_keep_ends(r.w, false); // a stop waits for it
    for (int i = 0; i < 5; i++)
        (void)rig_turn(&r, 20);
    assert_int_equal(r.drained_n, 0);
    struct gw_blocker b[2];
    size_t total;
    assert_int_equal(gw_work_blockers(r.w, b, 2, &total), 1);
    assert_string_equal(b[0].status, "waits_for_store");
    gw_work_keep_ends(r.w, true);
    rig_until(&r, r.drained_n == 1);
    gw_work_boundary(r.w);
    rig_start(&r, 2);
    rig_drop_lock(&h);
    rig_until(&r, rig_times_changed(&r, a, GW_TASK_SUCCEEDED) == 1);
    assert_int_equal(rig_status(&r, a), GW_TASK_SUCCEEDED);
}

static void letting_go_outlasts_a_lock_of_a_moment(void **state)
{
    const char *a = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 1);
    rig_settle(&r);
    struct rig_holder h = rig_hold_lock(&r);
    gw_work_boundary(r.w);
    gw_work_let_go(r.w);
    uint64_t end = rig_now() + 700;
    while (rig_now() < end)
        (void)rig_turn(&r, 50);
    assert_int_equal(r.let_go_n, 0);
    rig_drop_lock(&h);
    rig_until(&r, r.let_go_n == 1);
    assert_int_equal(r.let_go_code, 0);
    gw_work_take_back(r.w);
    rig_until(&r, r.opened_n == 2);
    assert_int_equal(rig_status(&r, a), GW_TASK_INTERRUPTED);
}

static void a_boundary_ends_no_row_of_another_boot(void **state)
{
    const char *a = rig_submit_echo(&r), *b = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 2);
    rig_settle(&r);
    char *sql = gw_asprintf("UPDATE tasks SET boot_id = 'another' WHERE id = '%s' RETURNING 1", b);
    assert_int_equal(rig_count(&r, sql), 1);
    free(sql);
    gw_work_fence(r.w, false);
    gw_work_cut(r.w, NULL, NULL, NULL);
    gw_work_boundary(r.w);
    rig_settle(&r);
    assert_int_equal(rig_status(&r, a), GW_TASK_INTERRUPTED);
    assert_int_equal(rig_status(&r, b), GW_TASK_RUNNING);
}

/* ---- the names on disk ---- */

static void a_file_that_is_removed_under_the_host_is_put_back(void **state)
{
    static const char *const what[] = {"rm tasks.db tasks.db-wal tasks.db-shm", "rm tasks.db", "rm tasks.db-wal"};
    for (size_t i = 0; i < sizeof what / sizeof *what; i++) {
        const char *a = done_task();
        unsigned opened = r.opened_n;
        shell(what[i]);
        const char *b = rig_submit_echo(&r); // and that was accepted
        rig_until(&r, r.opened_n == opened + 1);
        assert_true(r.found.put_back);
        assert_null(r.found.saved);
        assert_int_equal(r.found.acknowledged, 0);
        rig_until(&r, rig_was_executed(&r, b)); // whoever was running goes on
        assert_int_equal(rig_finish(&r, b, GW_TASK_SUCCEEDED, NULL), 0);
        rig_until(&r, rig_times_changed(&r, b, GW_TASK_SUCCEEDED) == 1);
        next_boot("boot-2");
        assert_int_equal(r.found.acknowledged, 0);
        assert_int_equal(rig_status(&r, a), GW_TASK_SUCCEEDED);
        assert_int_equal(rig_status(&r, b), GW_TASK_SUCCEEDED);
        rig_start(&r, 1);
    }
}

static void a_folder_that_is_gone_is_said_and_nothing_is_accepted(void **state)
{
    const char *a = done_task();
    char away[80];
    (void)snprintf(away, sizeof away, "%s.away", r.dir);
    assert_int_equal(rename(r.dir, away), 0);
    assert_int_equal(rig_submit_code(&r, &echo), -EIO);
    rig_until(&r, r.health_n == 1);
    assert_non_null(strstr(r.err.text, "removed or replaced"));
    assert_int_equal(rig_status(&r, a), GW_TASK_SUCCEEDED); // what is open can still be read
    assert_int_equal(rename(away, r.dir), 0);
    rig_until(&r, r.health_code == 0);
    assert_int_equal(r.opened_n, 1); // the same file, under its name again
    (void)rig_submit_echo(&r);
}

static void a_folder_that_is_not_ours_any_more_gets_nothing(void **state)
{
    rig_close(&r);
    shell(": > gwhost.lock");
    next_boot("boot-2");
    rig_start(&r, 1);
    const char *a = done_task();
    shell("mkdir ../$$ && mv gwhost.lock tasks.db* ../$$/ && echo $$ > away && : > gwhost.lock");
    assert_int_equal(rig_submit_code(&r, &echo), -EIO);
    rig_until(&r, r.health_n == 1);
    assert_non_null(strstr(r.err.text, "start it again"));
    char *path = rig_path(&r, "tasks.db");
    assert_int_equal(access(path, F_OK), -1); // another host may be there by now
    free(path);
    assert_int_equal(rig_status(&r, a), GW_TASK_SUCCEEDED);
    shell("mv ../$(cat away)/* . && rmdir ../$(cat away)");
    rig_until(&r, r.health_code == 0);
}

static void a_file_that_is_replaced_under_the_host_is_used_and_the_other_kept(void **state)
{
    const char *a = done_task();
    rig_close(&r);
    shell("cp tasks.db old.db");
    assert_int_equal(rig_open(&r, "boot-2"), 0);
    rig_start(&r, 1);
    const char *b = done_task();
    shell("mv old.db tasks.db");
    (void)rig_submit_echo(&r);
    rig_until(&r, r.opened_n == 2);
    assert_true(r.found.put_back);
    assert_non_null(r.found.saved);
    assert_true(r.found.acknowledged > r.found.commits); // and it is older
    assert_int_equal(rig_status(&r, a), GW_TASK_SUCCEEDED);
    assert_int_equal(rig_get(&r, b).code, -ENOENT);
    char *line = gw_asprintf("mv '%s' tasks.db; rm -f tasks.db-wal tasks.db-shm", r.found.saved);
    rig_close(&r);
    shell(line);
    free(line);
    next_boot("boot-3");
    assert_int_equal(rig_status(&r, b), GW_TASK_SUCCEEDED);
}

/* ---- what it is believed ---- */

static void a_store_that_has_lost_what_was_acknowledged_is_found_out(void **state)
{
    static const struct {
        const char *name, *words;
        bool moved;
    } ways[] = {
        {"an older copy", "cp before.db tasks.db; rm -f tasks.db-wal tasks.db-shm", false},
        {"removed", "rm -f tasks.db tasks.db-wal tasks.db-shm", false},
        {"the log is gone", "cp live.db tasks.db; rm -f tasks.db-wal tasks.db-shm", false},
        {"the log is overwritten", "cp live.db tasks.db; head -c 9000 /dev/zero > tasks.db-wal; rm -f tasks.db-shm", false},
        {"emptied beside its log", "cp live.db-wal tasks.db-wal; : > tasks.db; rm -f tasks.db-shm", true},
    };
    (void)done_task();
    rig_close(&r);
    shell("cp tasks.db before.db");
    assert_int_equal(rig_open(&r, "boot-2"), 0);
    rig_start(&r, 1);
    (void)done_task();
    shell("cp tasks.db live.db; cp tasks.db-wal live.db-wal; cp tasks.count live.count");
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        rig_close(&r);
        shell("cp live.count tasks.count");
        shell(ways[i].words);
        if (rig_open(&r, "boot-3") != 0)
            fail_msg("%s: %s", ways[i].name, r.err.text);
        if ((r.moved != NULL) != ways[i].moved || (r.found.acknowledged > r.found.commits) == ways[i].moved)
            fail_msg("%s: moved %s, %lld of %lld", ways[i].name, r.moved != NULL ? r.moved : "no",
                     (long long)r.found.commits, (long long)r.found.acknowledged);
        // It is said once: what follows is acknowledged again.
        next_boot("boot-4");
        assert_int_equal(r.found.acknowledged, 0);
    }
}

static void nothing_is_called_older_that_is_not(void **state)
{
    for (int i = 0; i < 3; i++) {
        (void)rig_submit_echo(&r);
        r.goes_on = i == 1;
        next_boot("again");
        assert_int_equal(r.found.acknowledged, 0);
        assert_false(r.found.put_back);
        rig_start(&r, 1);
    }
    rig_close(&r);
    shell("rm tasks.count");
    next_boot("again");
    assert_int_equal(r.found.acknowledged, 0);
    rig_close(&r);
    shell("echo nonsense > tasks.count");
    next_boot("again");
    assert_int_equal(r.found.acknowledged, 0);
}

/* ---- earlier versions ---- */

static void a_store_of_version_1_is_brought_up_to_date(void **state)
{
    rig_sql(&r, version_1);
    r.lanes[0] = (struct gw_lane_spec){"main", 2, -1};
    r.lane_count = 1;
    r.keep.bytes = 1LL << 30;
    assert_int_equal(rig_open(&r, "boot-2"), 0);
    assert_null(r.moved);
    assert_int_equal(r.found.acknowledged, 0);
    assert_int_equal(rig_count(&r, "PRAGMA user_version"), 2);
    assert_int_equal(rig_count(&r, "SELECT count(*) FROM keys"), 4);
    assert_true(rig_count(&r, "SELECT max(bytes) FROM tasks") > 1100); // the large input is weighed
    rig_start(&r, 1);
    rig_until(&r, r.executed_n == 1);
    assert_int_equal(rig_count(&r, "SELECT count(*) FROM tasks WHERE lane = 'other' AND status IN (0, 1)"), 3);
    const char *id = rig_submit_echo(&r);
    assert_int_equal(strncmp(id, "t", 1), 0);
    assert_int_equal(rig_count(&r, "SELECT count(*) FROM tasks WHERE status = 2"), 3);
}

/* ---- how long ---- */

static void a_key_names_its_task_when_the_task_itself_is_gone(void **state)
{
    rig_close(&r);
    r.keep.rows = 2;
    assert_int_equal(rig_open(&r, "boot-2"), 0);
    rig_start(&r, 1);
    r.finish_at_once = true;
    const struct gw_task_spec keyed = {.handler = "echo", .idempotency_key = "pay", .body_sha256 = "b"};
    const char *a = rig_submit(&r, &keyed);
    for (int i = 0; i < 20; i++)
        (void)rig_submit_echo(&r);
    rig_until(&r, rig_get(&r, a).code == -ENOENT);
    static struct rig_reply again;
    rig_submit_later(&r, &keyed, &again);
    rig_until(&r, again.done);
    assert_int_equal(again.code, 0);
    assert_true(again.existing);
    assert_string_equal(again.id, a);
    assert_int_equal(rig_count(&r, "SELECT status FROM keys"), GW_TASK_SUCCEEDED);
    const struct gw_task_spec other = {.handler = "echo", .idempotency_key = "pay", .body_sha256 = "c"};
    assert_int_equal(rig_submit_code(&r, &other), -EEXIST);
    // A day later it is anybody's.
    rig_close(&r);
    rig_sql(&r, "UPDATE keys SET at = at - 86400000 - 1000");
    assert_int_equal(rig_open(&r, "boot-3"), 0);
    rig_start(&r, 1);
    assert_string_not_equal(rig_submit(&r, &keyed), a);
}

static void tasks_are_weighed_and_the_file_gives_room_back(void **state)
{
    rig_close(&r);
    r.keep.bytes = 4 << 20;
    assert_int_equal(rig_open(&r, "boot-2"), 0);
    rig_start(&r, 1);
    r.finish_at_once = true;
    char *large = gw_calloc(1, 500001);
    memset(large, 'x', 500000);
    json_t *input = json_pack("{s:s}", "a", large);
    const struct gw_task_spec spec = {.handler = "echo", .input = input};
    for (int i = 0; i < 60; i++)
        (void)rig_submit(&r, &spec);
    rig_until(&r, gw_work_counts(r.w).finished == 60);
    rig_until(&r, rig_count(&r, "SELECT sum(bytes) FROM tasks WHERE status >= 2") <= 4 << 20);
    assert_true(rig_count(&r, "SELECT count(*) FROM tasks") >= 2); // as many as fit are kept
    rig_until(&r, rig_count(&r, "SELECT page_count FROM pragma_page_count") <
                      rig_count(&r, "SELECT freelist_count FROM pragma_freelist_count") + 3000);
    rig_close(&r);
    char *path = rig_path(&r, "tasks.db");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size < 16 << 20); // 60 of them are 30 MB
    free(path);
    json_decref(input);
    free(large);
}

static void a_clock_that_jumps_takes_nothing_with_it(void **state)
{
    const int64_t hour = 3600 * 1000, day = 24 * hour;
    struct gw_retain t = {.keep = {.ms = 7 * day}};
    gw_retain_begin(&t, 0, 1000 * day, 0);
    assert_int_equal(t.clock_ms, 1000 * day); // a new file
    assert_int_equal(gw_retain_clock(&t, 1000 * day + hour, (uint64_t)hour), 1000 * day + hour);
    // Nine days forward while it is open: it follows at twice the time that passes.
    assert_int_equal(gw_retain_clock(&t, 1009 * day, (uint64_t)hour + 1000), 1000 * day + hour + 2000);
    // Back again: never ahead of the wall's.
    assert_int_equal(gw_retain_clock(&t, 1000 * day, (uint64_t)hour + 2000), 1000 * day);
    // … and at an opening by an hour.
    gw_retain_begin(&t, 1000 * day, 1009 * day, 0);
    assert_int_equal(t.clock_ms, 1000 * day + hour);
    gw_retain_begin(&t, 1000 * day, 990 * day, 0);
    assert_int_equal(t.clock_ms, 990 * day);
}

static void what_is_kept_is_said_in_words(void **state)
{
    struct gw_retention k;
    assert_true(gw_retention_parse(GW_RETENTION, &k));
    assert_int_equal(k.ms, 7LL * 86400000);
    assert_int_equal(k.rows, 100000);
    assert_int_equal(k.bytes, 1LL << 30);
    assert_true(gw_retention_parse("512MiB", &k));
    assert_true(k.ms == 0 && k.rows == 0 && k.bytes == 512LL << 20);
    assert_true(gw_retention_parse("10,90m", &k));
    assert_true(k.ms == 5400000 && k.rows == 10 && k.bytes == 0);
    static const char *const wrong[] = {"", ",", "7d,", "7d,8d", "7w", "0", "-1", "1.5GiB", "7d 5", "1GB", "99999999999999999999",
                                        "999999999999TiB", "7d;5", "d"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (gw_retention_parse(wrong[i], &k))
            fail_msg("'%s' was taken", wrong[i]);
}

#define T(f) cmocka_unit_test_setup_teardown(f, up2, down)
#define T0(f) cmocka_unit_test_setup_teardown(f, up0, down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(an_opening_that_is_in_the_way_of_something_comes_by_itself),
        T(a_lane_that_is_not_named_any_more_runs_what_it_has_one_by_one),
        T(a_store_that_is_let_go_is_closed_before_that_is_said),
        T(a_store_that_cannot_be_written_is_not_let_go),
        T(an_end_that_waits_for_the_store_does_not_hold_up_who_goes_on),
        T(letting_go_outlasts_a_lock_of_a_moment),
        T(a_boundary_ends_no_row_of_another_boot),
        T(a_file_that_is_removed_under_the_host_is_put_back),
        T(a_folder_that_is_gone_is_said_and_nothing_is_accepted),
        T(a_folder_that_is_not_ours_any_more_gets_nothing),
        T(a_file_that_is_replaced_under_the_host_is_used_and_the_other_kept),
        T(a_store_that_has_lost_what_was_acknowledged_is_found_out),
        T(nothing_is_called_older_that_is_not),
        T0(a_store_of_version_1_is_brought_up_to_date),
        T(a_key_names_its_task_when_the_task_itself_is_gone),
        T(tasks_are_weighed_and_the_file_gives_room_back),
        cmocka_unit_test(a_clock_that_jumps_takes_nothing_with_it),
        cmocka_unit_test(what_is_kept_is_said_in_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
