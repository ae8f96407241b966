#include "unit/work/rig.h"

#include "base/time.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

static struct rig r;

static int up2(void **state)
{
    rig_up(&r, 2);
    return 0;
}

static int down(void **state)
{
    rig_fini(&r);
    return 0;
}

static const struct gw_task_spec echo = {.handler = "echo", .priority = GW_PRIORITY_NORMAL};
static const struct gw_task_spec again = {
    .handler = "echo", .priority = GW_PRIORITY_NORMAL, .retry_on_interrupt = true};

static struct gw_run *begin(const char *handler, bool compacting)
{
    const struct gw_run_spec spec = {.handler = handler, .title = "a run", .compacting = compacting};
    struct gw_run *run;
    assert_int_equal(gw_run_begin(r.w, &spec, &run), 0);
    return run;
}

/* True when nothing at all wakes the loop within that time. */
static bool silent(int ms)
{
    struct pollfd p = {.fd = gw_work_fd(r.w), .events = POLLIN};
    return gw_work_deadline(r.w) == UINT64_MAX && poll(&p, 1, ms) == 0;
}

static void a_fence_with_nothing_in_hand_is_drained_from_dispatch(void **state)
{
    r.in_api = true;
    gw_work_fence(r.w, false);
    r.in_api = false;
    assert_int_equal(r.drained_n, 0);
    rig_until(&r, r.drained_n == 1);
    rig_settle(&r);
    assert_int_equal(r.drained_n, 1);
    gw_work_fence(r.w, false);
    rig_until(&r, r.drained_n == 2);
}

static void nothing_new_starts_behind_the_fence_and_the_rest_ends(void **state)
{
    for (int i = 0; i < 5; i++)
        (void)rig_submit_echo(&r);
    struct gw_run *run = begin("chat", false);
    rig_until(&r, r.executed_n == 2);
    gw_work_fence(r.w, false);
    assert_int_equal(rig_submit_code(&r, &echo), -ESHUTDOWN);
    const struct gw_run_spec spec = {.handler = "chat"};
    struct gw_run *none = NULL;
    assert_int_equal(gw_run_begin(r.w, &spec, &none), -ESHUTDOWN);
    assert_null(none);
    (void)rig_finish(&r, r.executed[0].id, GW_TASK_SUCCEEDED, NULL);
    (void)rig_finish(&r, r.executed[1].id, GW_TASK_SUCCEEDED, NULL);
    rig_settle(&r);
    assert_int_equal(r.executed_n, 2);
    assert_int_equal(r.drained_n, 0);
    assert_true(silent(100)); // a drain that waits costs nothing
    gw_run_end(r.w, run);
    rig_until(&r, r.drained_n == 1);
    assert_int_equal(rig_status(&r, r.executed[0].id), GW_TASK_SUCCEEDED);
    gw_work_boundary(r.w);
    rig_start(&r, 2);
    rig_until(&r, r.executed_n == 4); // what was queued goes on in the next generation
}

static void a_start_on_its_way_at_the_fence_belongs_to_the_drain(void **state)
{
    static struct rig_reply sub;
    rig_submit_later(&r, &echo, &sub);
    while (gw_work_counts(r.w).tasks == 0) // handed to the store, not committed or not looked at yet
        (void)rig_turn(&r, 100);
    assert_int_equal(r.executed_n, 0);
    gw_work_fence(r.w, false);
    rig_until(&r, r.executed_n == 1);
    assert_int_equal(r.drained_n, 0);
    (void)rig_finish(&r, sub.id, GW_TASK_SUCCEEDED, NULL);
    rig_until(&r, r.drained_n == 1);
    assert_int_equal(rig_status(&r, sub.id), GW_TASK_SUCCEEDED);
}

static void a_start_on_its_way_at_a_cut_is_undone(void **state)
{
    static struct rig_reply sub;
    rig_submit_later(&r, &echo, &sub);
    while (gw_work_counts(r.w).tasks == 0)
        (void)rig_turn(&r, 100);
    gw_work_fence(r.w, false);
    unsigned tasks, runs;
    gw_work_cut(r.w, NULL, &tasks, &runs);
    assert_int_equal(tasks, 1);
    rig_until(&r, r.drained_n == 1);
    assert_int_equal(r.executed_n, 0);
    assert_int_equal(r.aborted_n, 0); // who never got it is not told
    struct rig_reply got = rig_get(&r, sub.id);
    assert_int_equal(got.status, GW_TASK_QUEUED);
    assert_int_equal(json_integer_value(json_object_get(got.task, "attempts")), 0);
    rig_reply_fini(&got);
    assert_int_equal(gw_work_counts(r.w).queued, 1);
    gw_work_boundary(r.w);
    rig_start(&r, 2);
    rig_until(&r, r.executed_n == 1);
    assert_int_equal(gw_work_counts(r.w).queued, 0);
}

static void a_start_on_its_way_at_a_boundary_is_undone(void **state)
{
    static struct rig_reply sub;
    rig_submit_later(&r, &echo, &sub);
    while (gw_work_counts(r.w).tasks == 0)
        (void)rig_turn(&r, 100);
    gw_work_boundary(r.w);
    assert_int_equal(gw_work_counts(r.w).tasks, 0);
    rig_start(&r, 2);
    rig_until(&r, r.executed_n == 1);
    struct rig_reply got = rig_get(&r, sub.id);
    assert_int_equal(json_integer_value(json_object_get(got.task, "attempts")), 1);
    rig_reply_fini(&got);
    assert_int_equal(gw_work_counts(r.w).queued, 0);
    assert_int_equal(rig_times_changed(&r, sub.id, GW_TASK_INTERRUPTED), 0);
}

static void a_cut_is_marked_before_the_executor_is_told(void **state)
{
    const char *a = rig_submit_echo(&r), *b = rig_submit(&r, &again);
    rig_until(&r, r.executed_n == 2);
    struct gw_run *run = begin("chat", false);
    (void)gw_task_progress(r.w, a, 1, "half");
    gw_work_fence(r.w, false);
    unsigned tasks, runs;
    r.in_api = true;
    gw_work_cut(r.w, NULL, &tasks, &runs);
    r.in_api = false;
    assert_int_equal(tasks, 2);
    assert_int_equal(runs, 1);
    assert_int_equal(r.aborted_n, 0);
    // The mark is in the file already: the host could die now.
    assert_int_equal(rig_count(&r, "SELECT count(*) FROM tasks WHERE status = 1"), 0);
    assert_int_equal(rig_count(&r, "SELECT count(*) FROM tasks WHERE status = 6"), 1);
    rig_until(&r, r.drained_n == 1); // although no executor has answered
    assert_int_equal(r.aborted_n, 2);
    assert_int_equal(r.abort_why[0], GW_ABORT_DRAIN);
    assert_int_equal(r.aborted_runs_n, 1);
    assert_ptr_equal(r.aborted_runs[0], run);
    for (size_t i = 0; i < r.changed_n; i++) // told in this order too
        if (r.changed[i].status == GW_TASK_INTERRUPTED)
            assert_string_equal(r.changed[i].id, a);
    struct rig_reply got = rig_get(&r, a);
    assert_int_equal(got.status, GW_TASK_INTERRUPTED);
    assert_string_equal(json_string_value(json_object_get(got.task, "ended_by_boot_id")), "boot-1");
    assert_string_equal(json_string_value(json_object_get(got.task, "progress")), "half");
    rig_reply_fini(&got);
    assert_int_equal(rig_status(&r, b), GW_TASK_QUEUED);
    // The executor's last word counts for nothing and gives the slot back once.
    const struct gw_lane_counts *lanes;
    (void)gw_work_lanes(r.w, &lanes);
    assert_int_equal(lanes[0].active, 2);
    assert_int_equal(rig_finish(&r, a, GW_TASK_SUCCEEDED, "1"), -ENOENT);
    assert_int_equal(rig_finish(&r, a, GW_TASK_SUCCEEDED, "1"), -ENOENT);
    (void)gw_work_lanes(r.w, &lanes);
    assert_int_equal(lanes[0].active, 1);
    assert_int_equal(rig_status(&r, a), GW_TASK_INTERRUPTED);
    gw_run_end(r.w, run);
    gw_work_boundary(r.w);
    rig_start(&r, 2);
    rig_until(&r, r.executed_n == 3);
    assert_string_equal(r.executed[2].id, b);
    assert_int_equal(gw_task_finish(r.w, b, 1, GW_TASK_SUCCEEDED, NULL, NULL),
                     -ENOENT); // of the old generation
    assert_int_equal(rig_finish(&r, b, GW_TASK_SUCCEEDED, NULL), 0);
    rig_until(&r, rig_times_changed(&r, b, GW_TASK_SUCCEEDED) == 1);
}

static void an_end_reported_before_the_cut_stands(void **state)
{
    const char *a = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 1);
    gw_work_fence(r.w, false);
    assert_int_equal(rig_finish(&r, a, GW_TASK_SUCCEEDED, "1"), 0);
    unsigned tasks;
    gw_work_cut(r.w, NULL, &tasks, NULL);
    assert_int_equal(tasks, 0);
    rig_until(&r, r.drained_n == 1);
    rig_settle(&r);
    assert_int_equal(rig_status(&r, a), GW_TASK_SUCCEEDED);
    assert_int_equal(r.aborted_n, 0);
}

static void an_interrupted_task_is_tried_three_times(void **state)
{
    const char *id = rig_submit(&r, &again);
    for (unsigned generation = 1; generation <= 3; generation++) {
        rig_until(&r, r.executed_n == generation);
        gw_work_fence(r.w, false);
        gw_work_cut(r.w, NULL, NULL, NULL);
        rig_until(&r, r.drained_n == generation);
        gw_work_boundary(r.w);
        rig_start(&r, generation + 1);
    }
    rig_settle(&r);
    assert_int_equal(r.executed_n, 3);
    struct rig_reply got = rig_get(&r, id);
    assert_int_equal(got.status, GW_TASK_INTERRUPTED);
    assert_int_equal(json_integer_value(json_object_get(got.task, "attempts")), 3);
    rig_reply_fini(&got);
}

static void a_boundary_ends_what_nobody_cut(void **state)
{
    const char *a = rig_submit_echo(&r), *b = rig_submit(&r, &again);
    rig_until(&r, r.executed_n == 2);
    (void)begin("chat", false);
    gw_work_boundary(r.w);
    assert_int_equal(gw_work_counts(r.w).runs, 0);
    assert_int_equal(rig_finish(&r, a, GW_TASK_SUCCEEDED, NULL), -ENOENT);
    rig_start(&r, 2);
    rig_until(&r, r.executed_n == 3);
    assert_string_equal(r.executed[2].id, b);
    assert_int_equal(rig_status(&r, a), GW_TASK_INTERRUPTED);
    assert_int_equal(rig_times_changed(&r, a, GW_TASK_INTERRUPTED), 1);
    assert_int_equal(gw_work_counts(r.w).tasks, 1);
}

static void one_lane_is_cut_and_the_others_go_on(void **state)
{
    rig_fini(&r);
    rig_init(&r);
    r.lanes[0] = (struct gw_lane_spec){"main", 2, -1};
    r.lanes[1] = (struct gw_lane_spec){"slow", 2, -1};
    r.lane_count = 2;
    assert_int_equal(rig_open(&r, "boot-1"), 0);
    rig_start(&r, 1);
    const struct gw_task_spec slow = {.handler = "echo", .lane = "slow"};
    const char *a = rig_submit_echo(&r), *b = rig_submit(&r, &slow);
    struct gw_run *run = begin("chat", false);
    rig_until(&r, r.executed_n == 2);
    gw_work_fence(r.w, false);
    unsigned tasks, runs;
    gw_work_cut(r.w, "slow", &tasks, &runs);
    assert_int_equal(tasks, 1);
    assert_int_equal(runs, 0);
    rig_settle(&r);
    assert_int_equal(rig_status(&r, b), GW_TASK_INTERRUPTED);
    assert_int_equal(r.aborted_n, 1);
    assert_int_equal(r.drained_n, 0);
    gw_run_end(r.w, run);
    assert_int_equal(rig_finish(&r, a, GW_TASK_SUCCEEDED, NULL), 0);
    rig_until(&r, r.drained_n == 1);
}

static void a_drain_may_take_tasks_for_the_next_generation(void **state)
{
    const char *a = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 1);
    gw_work_fence(r.w, true);
    const char *b = rig_submit_echo(&r);
    rig_settle(&r);
    assert_int_equal(rig_status(&r, b), GW_TASK_QUEUED);
    assert_int_equal(r.executed_n, 1);
    assert_true(gw_work_deadline(r.w) == UINT64_MAX);
    (void)rig_finish(&r, a, GW_TASK_SUCCEEDED, NULL);
    rig_until(&r, r.drained_n == 1);
    gw_work_boundary(r.w);
    const char *c = rig_submit_echo(&r); // between the generations as well
    rig_start(&r, 2);
    rig_until(&r, r.executed_n == 3);
    assert_string_equal(r.executed[1].id, b);
    assert_string_equal(r.executed[2].id, c);
}

static void compacting_runs_are_told_and_may_go_on(void **state)
{
    struct gw_run *a = begin("chat", true), *b = begin("chat", false), *c = begin("chat", false);
    gw_run_set_compacting(c, true);
    gw_work_fence(r.w, false);
    gw_work_abort_compacting(r.w);
    gw_run_end(r.w, c); // ends before it could be told: it is not told any more
    rig_settle(&r);
    assert_int_equal(r.aborted_runs_n, 1);
    assert_ptr_equal(r.aborted_runs[0], a);
    assert_int_equal(gw_work_counts(r.w).runs, 2);
    assert_int_equal(r.drained_n, 0);
    gw_run_end(r.w, b);
    gw_run_end(r.w, a);
    rig_until(&r, r.drained_n == 1);
}

static void idle_is_told_once_in_the_moment_between_two_tasks(void **state)
{
    rig_fini(&r);
    rig_up(&r, 1);
    const char *a = rig_submit_echo(&r);
    (void)rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 1);
    gw_work_watch_idle(r.w);
    rig_settle(&r);
    assert_int_equal(r.idle_n, 0);
    assert_true(gw_work_deadline(r.w) != UINT64_MAX); // only the look for slow lanes
    (void)rig_finish(&r, a, GW_TASK_SUCCEEDED, NULL);
    while (r.idle_n == 0)
        (void)rig_turn(&r, 100);
    // Queued work does not count, and does not slip in before the owner could act.
    assert_int_equal(gw_work_counts(r.w).tasks, 0);
    gw_work_fence(r.w, false);
    rig_until(&r, r.drained_n == 1);
    assert_int_equal(r.executed_n, 1);
    assert_int_equal(r.idle_n, 1);
    // Had it not been fenced, work would simply have gone on.
    gw_work_boundary(r.w);
    rig_start(&r, 2);
    gw_work_watch_idle(r.w);
    rig_until(&r, r.executed_n == 2);
    gw_work_watch_idle(r.w);
    gw_work_unwatch_idle(r.w);
    (void)rig_finish(&r, r.executed[1].id, GW_TASK_SUCCEEDED, NULL);
    rig_settle(&r);
    assert_int_equal(r.idle_n, 2); // the one that was true at once in between
}

static void blockers_are_tasks_then_runs_oldest_first(void **state)
{
    const struct gw_task_spec spec = {.handler = "exec", .label = "l", .title = "t"};
    const char *a = rig_submit(&r, &spec), *b = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 2);
    struct gw_run *c = begin("chat", true), *d = begin("chat", false);
    gw_run_set_progress(d, "two \xff");
    struct gw_blocker blockers[8];
    size_t total;
    assert_int_equal(gw_work_blockers(r.w, blockers, 8, &total), 4);
    assert_int_equal(total, 4);
    assert_string_equal(blockers[0].id, a);
    assert_string_equal(blockers[0].kind, "task");
    assert_string_equal(blockers[0].runtime, "exec");
    assert_string_equal(blockers[0].status, "running");
    assert_string_equal(blockers[0].lane, "main");
    assert_string_equal(blockers[0].title, "t");
    assert_null(blockers[0].run_id);
    assert_string_equal(blockers[1].id, b);
    assert_string_equal(blockers[2].run_id, gw_run_id(c));
    assert_string_equal(blockers[2].status, "compacting");
    assert_string_equal(blockers[3].progress, "two \xef\xbf\xbd");
    assert_int_equal(gw_work_blockers(r.w, blockers, 3, &total), 3);
    assert_int_equal(total, 4);
    gw_work_fence(r.w, false);
    gw_work_cut(r.w, NULL, NULL, NULL);
    assert_int_equal(gw_work_blockers(r.w, blockers, 8, &total), 0);
    assert_int_equal(total, 0);
}

static void a_hundred_thousand_runs_begin_and_end_in_no_time_each(void **state)
{
    enum { N = 100000 };
    struct gw_run **runs = calloc(N, sizeof *runs);
    const struct gw_run_spec spec = {.handler = "chat"};
    uint64_t t[5];
    t[0] = gw_now_us();
    for (size_t i = 0; i < N / 10; i++)
        (void)gw_run_begin(r.w, &spec, &runs[i]);
    t[1] = gw_now_us();
    for (size_t i = N / 10; i < N; i++)
        (void)gw_run_begin(r.w, &spec, &runs[i]);
    gw_work_fence(r.w, false);
    rig_settle(&r);
    struct gw_blocker blockers[8];
    size_t total;
    t[2] = gw_now_us();
    assert_int_equal(gw_work_blockers(r.w, blockers, 8, &total), 8);
    t[3] = gw_now_us();
    assert_int_equal(total, N);
    assert_true(t[3] - t[2] < 2000); // a walk over all of them takes longer
    for (size_t i = 1; i < N; i++)   // all over the list: the step has no factor in common with N
        gw_run_end(r.w, runs[i * 7919 % N]);
    t[4] = gw_now_us();
    rig_settle(&r);
    assert_int_equal(r.drained_n, 0);
    gw_run_end(r.w, runs[0]);
    rig_until(&r, r.drained_n == 1);
    assert_true(t[4] - t[3] < 5000000);
    free(runs);
}

static void run_data_is_the_executors(void **state)
{
    struct gw_run *run = begin("chat", false);
    int mine;
    assert_null(gw_run_data(run));
    gw_run_set_data(run, &mine);
    assert_ptr_equal(gw_run_data(run), &mine);
    gw_run_end(r.w, run);
}

#define T(f) cmocka_unit_test_setup_teardown(f, up2, down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_fence_with_nothing_in_hand_is_drained_from_dispatch),
        T(nothing_new_starts_behind_the_fence_and_the_rest_ends),
        T(a_start_on_its_way_at_the_fence_belongs_to_the_drain),
        T(a_start_on_its_way_at_a_cut_is_undone),
        T(a_start_on_its_way_at_a_boundary_is_undone),
        T(a_cut_is_marked_before_the_executor_is_told),
        T(an_end_reported_before_the_cut_stands),
        T(an_interrupted_task_is_tried_three_times),
        T(a_boundary_ends_what_nobody_cut),
        T(one_lane_is_cut_and_the_others_go_on),
        T(a_drain_may_take_tasks_for_the_next_generation),
        T(compacting_runs_are_told_and_may_go_on),
        T(idle_is_told_once_in_the_moment_between_two_tasks),
        T(blockers_are_tasks_then_runs_oldest_first),
        T(a_hundred_thousand_runs_begin_and_end_in_no_time_each),
        T(run_data_is_the_executors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
