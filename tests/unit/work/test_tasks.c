#include "unit/work/rig.h"

#include "base/json.h"
#include "base/str.h"
#include "base/time.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct rig r;

static int up4(void **state)
{
    rig_up(&r, 4);
    return 0;
}

static int up1(void **state)
{
    rig_up(&r, 1);
    return 0;
}

static int down(void **state)
{
    rig_fini(&r);
    return 0;
}

static const struct gw_task_spec echo = {.handler = "echo", .priority = GW_PRIORITY_NORMAL};

static void a_task_is_accepted_run_and_ended(void **state)
{
    json_t *input = json_pack("{s:I}", "n", (json_int_t)9007199254740993);
    const struct gw_task_spec spec = {.handler = "echo",
                                      .label = "l",
                                      .title = "ein \xc3\xa4",
                                      .input = input,
                                      .priority = GW_PRIORITY_HIGH};
    const char *id = rig_submit(&r, &spec);
    rig_until(&r, r.executed_n == 1);
    assert_string_equal(r.executed[0].id, id);
    assert_true(json_equal(r.last_input, input));
    assert_int_equal(rig_status(&r, id), GW_TASK_RUNNING);
    assert_int_equal(gw_work_counts(r.w).tasks, 1);

    assert_int_equal(rig_finish(&r, id, GW_TASK_SUCCEEDED, "{\"ok\":[1,2]}"), 0);
    rig_until(&r, rig_times_changed(&r, id, GW_TASK_SUCCEEDED) == 1);
    assert_int_equal(gw_work_counts(r.w).tasks, 0);
    assert_int_equal(gw_work_counts(r.w).finished, 1);
    struct rig_reply got = rig_get(&r, id);
    char *text = gw_json_text(json_object_get(got.task, "result"));
    assert_string_equal(text, "{\"ok\":[1,2]}");
    free(text);
    static const char *const fields[] = {
        "task_id",          "handler",    "lane",       "priority", "label",    "title",
        "status",           "created_at", "started_at", "ended_at", "attempts", "boot_id",
        "ended_by_boot_id", "progress",   "result",     "error"};
    assert_int_equal(json_object_size(got.task), sizeof fields / sizeof fields[0]);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        assert_non_null(json_object_get(got.task, fields[i]));
    assert_string_equal(json_string_value(json_object_get(got.task, "priority")), "high");
    assert_string_equal(json_string_value(json_object_get(got.task, "title")), "ein \xc3\xa4");
    assert_string_equal(json_string_value(json_object_get(got.task, "boot_id")), "boot-1");
    assert_string_equal(json_string_value(json_object_get(got.task, "ended_by_boot_id")), "boot-1");
    assert_int_equal(json_integer_value(json_object_get(got.task, "attempts")), 1);
    assert_true(json_is_null(json_object_get(got.task, "error")));
    assert_true(json_integer_value(json_object_get(got.task, "ended_at")) >=
                json_integer_value(json_object_get(got.task, "started_at")));
    rig_reply_fini(&got);
    json_decref(input);
}

static void a_large_input_arrives_whole(void **state)
{
    for (size_t n = 1000; n <= 1000000; n += 333000) {
        char *text = gw_calloc(1, n);
        memset(text, 'i', n);
        json_t *input = gw_json_stringn(text, n);
        const struct gw_task_spec spec = {.handler = "echo", .input = input};
        size_t before = r.executed_n;
        r.finish_at_once = true;
        const char *id = rig_submit(&r, &spec);
        rig_until(&r, r.executed_n == before + 1);
        assert_true(json_equal(r.last_input, input));
        rig_until(&r, rig_times_changed(&r, id, GW_TASK_SUCCEEDED) == 1);
        json_decref(input);
        free(text);
    }
}

static void a_task_ends_only_once(void **state)
{
    const char *id = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 1);
    assert_int_equal(rig_finish(&r, id, GW_TASK_FAILED, NULL), 0);
    assert_int_equal(rig_finish(&r, id, GW_TASK_SUCCEEDED, "1"), -ENOENT);
    rig_settle(&r);
    assert_int_equal(rig_finish(&r, id, GW_TASK_SUCCEEDED, "1"), -ENOENT);
    struct rig_reply got = rig_get(&r, id);
    assert_int_equal(got.status, GW_TASK_FAILED);
    assert_string_equal(json_string_value(json_object_get(got.task, "error")), "went wrong");
    rig_reply_fini(&got);
    assert_int_equal(rig_times_changed(&r, id, GW_TASK_FAILED), 1);
    assert_int_equal(gw_work_counts(r.w).finished, 1);
}

static void the_end_is_not_visible_before_its_commit(void **state)
{
    const char *id = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 1);
    size_t before = r.changed_n;
    assert_int_equal(rig_finish(&r, id, GW_TASK_SUCCEEDED, NULL), 0);
    assert_int_equal(r.changed_n, before);
    assert_int_equal(gw_work_counts(r.w).tasks, 1);
    assert_int_equal(gw_work_counts(r.w).finished, 0);
    rig_settle(&r);
    assert_int_equal(gw_work_counts(r.w).tasks, 0);
}

static void an_end_of_another_generation_counts_for_nothing(void **state)
{
    const char *id = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 1);
    assert_int_equal(gw_task_finish(r.w, id, 2, GW_TASK_SUCCEEDED, NULL, NULL), -ENOENT);
    assert_int_equal(gw_task_progress(r.w, id, 0, "x"), -ENOENT);
    assert_int_equal(rig_status(&r, id), GW_TASK_RUNNING);
}

static void tasks_start_by_priority_then_in_order(void **state)
{
    const char *first = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 1);
    static const enum gw_priority order[] = {GW_PRIORITY_LOW,    GW_PRIORITY_NORMAL, GW_PRIORITY_HIGH,
                                             GW_PRIORITY_NORMAL, GW_PRIORITY_HIGH,   GW_PRIORITY_LOW};
    static const size_t expected[] = {2, 4, 1, 3, 0, 5};
    const char *ids[6];
    for (size_t i = 0; i < 6; i++) {
        const struct gw_task_spec spec = {.handler = "echo", .priority = order[i]};
        ids[i] = rig_submit(&r, &spec);
    }
    r.finish_at_once = true;
    (void)rig_finish(&r, first, GW_TASK_SUCCEEDED, NULL);
    rig_until(&r, r.executed_n == 7);
    for (size_t i = 0; i < 6; i++)
        assert_string_equal(r.executed[i + 1].id, ids[expected[i]]);
}

static void a_lane_runs_no_more_than_its_concurrency(void **state)
{
    for (int i = 0; i < 9; i++)
        (void)rig_submit_echo(&r);
    rig_settle(&r);
    assert_int_equal(r.executed_n, 4);
    const struct gw_lane_counts *lanes;
    assert_int_equal(gw_work_lanes(r.w, &lanes), 1);
    assert_int_equal(lanes[0].active, 4);
    assert_int_equal(lanes[0].queued, 5);
    (void)rig_finish(&r, r.executed[2].id, GW_TASK_SUCCEEDED, NULL);
    rig_until(&r, r.executed_n == 5);
    rig_settle(&r);
    assert_int_equal(r.executed_n, 5);
}

static void a_queue_longer_than_the_window_runs_whole_and_in_order(void **state)
{
    enum { N = 1500 };
    static struct rig_reply replies[N];
    const char *first = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 1);
    for (size_t i = 0; i < N; i++) {
        // Late ones of high priority must pass those that are only in the store.
        const struct gw_task_spec spec = {.handler = "echo",
                                          .priority = i % 100 == 99 ? GW_PRIORITY_HIGH : GW_PRIORITY_NORMAL};
        rig_submit_later(&r, &spec, &replies[i]);
    }
    rig_until(&r, replies[N - 1].done);
    assert_int_equal(gw_work_counts(r.w).queued, N);
    r.finish_at_once = true;
    (void)rig_finish(&r, first, GW_TASK_SUCCEEDED, NULL);
    rig_until(&r, gw_work_counts(r.w).finished == N + 1);
    assert_int_equal(r.executed_n, N + 1);
    size_t at = 1;
    for (size_t i = 99; i < N; i += 100)
        assert_string_equal(r.executed[at++].id, replies[i].id);
    for (size_t i = 0; i < N; i++)
        if (i % 100 != 99)
            assert_string_equal(r.executed[at++].id, replies[i].id);
    assert_int_equal(gw_work_counts(r.w).queued, 0);
}

static void a_full_queue_is_busy(void **state)
{
    rig_fini(&r);
    rig_init(&r);
    r.lanes[0] = (struct gw_lane_spec){"main", 1, 2};
    r.lanes[1] = (struct gw_lane_spec){"none", 1, 0};
    r.lane_count = 2;
    assert_int_equal(rig_open(&r, "boot-1"), 0);
    rig_start(&r, 1);
    static struct rig_reply replies[5];
    for (size_t i = 0; i < 5; i++) // at once: what is on its way to the store counts too
        rig_submit_later(&r, &echo, &replies[i]);
    rig_until(&r,
              replies[0].done && replies[1].done && replies[2].done && replies[3].done && replies[4].done);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(replies[i].code, i < 3 ? 0 : -EBUSY);
    const struct gw_task_spec none = {.handler = "echo", .lane = "none"};
    assert_int_equal(rig_submit_code(&r, &none), 0); // the slot is free: nothing waits
    assert_int_equal(rig_submit_code(&r, &none), -EBUSY);
}

static void a_bad_request_is_refused_in_words(void **state)
{
    static struct rig_reply reply;
    const struct gw_task_spec lane = {.handler = "echo", .lane = "nosuch"}, handler = {.handler = ""},
                              text = {.handler = "echo", .title = "\xff"},
                              time = {.handler = "e", .timeout_ms = -1},
                              priority = {.handler = "e", .priority = (enum gw_priority)7};
    const struct gw_task_spec *bad[] = {&lane, &handler, &text, &time, &priority};
    for (size_t i = 0; i < 5; i++) {
        rig_submit_later(&r, bad[i], &reply);
        rig_until(&r, reply.done);
        assert_int_equal(reply.code, -EINVAL);
        assert_true(reply.err.text[0] != '\0');
    }
    assert_int_equal(gw_work_counts(r.w).submitted, 0);
}

static void a_key_names_one_task(void **state)
{
    static struct rig_reply a, b, c, d;
    const struct gw_task_spec spec = {.handler = "echo", .idempotency_key = "k", .body_sha256 = "aa"};
    const struct gw_task_spec other = {.handler = "echo", .idempotency_key = "k", .body_sha256 = "bb"};
    // All in one group commit.
    rig_submit_later(&r, &spec, &a);
    rig_submit_later(&r, &spec, &b);
    rig_submit_later(&r, &other, &c);
    rig_until(&r, a.done && b.done && c.done);
    assert_int_equal(a.code, 0);
    assert_false(a.existing);
    assert_int_equal(b.code, 0);
    assert_true(b.existing);
    assert_string_equal(a.id, b.id);
    assert_int_equal(c.code, -EEXIST);
    // Also behind the fence, and in the next boot.
    gw_work_fence(r.w, false);
    rig_submit_later(&r, &spec, &d);
    rig_until(&r, d.done);
    assert_int_equal(d.code, 0);
    assert_string_equal(a.id, d.id);
    const struct gw_task_spec fresh = {.handler = "echo", .idempotency_key = "k2", .body_sha256 = "aa"};
    assert_int_equal(rig_submit_code(&r, &fresh), -ESHUTDOWN);
    rig_close(&r);
    assert_int_equal(rig_open(&r, "boot-2"), 0);
    rig_start(&r, 1);
    rig_submit_later(&r, &spec, &d);
    rig_until(&r, d.done);
    assert_true(d.existing);
    assert_string_equal(a.id, d.id);
    assert_int_equal(rig_submit_code(&r, &other), -EEXIST);
}

static void a_queued_task_is_cancelled_at_once(void **state)
{
    const char *first = rig_submit_echo(&r), *second = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 1);
    struct rig_reply got = rig_cancel(&r, second);
    assert_int_equal(got.code, 0);
    assert_int_equal(got.status, GW_TASK_CANCELLED);
    rig_reply_fini(&got);
    assert_int_equal(gw_work_counts(r.w).queued, 0);
    (void)rig_finish(&r, first, GW_TASK_SUCCEEDED, NULL);
    rig_settle(&r);
    assert_int_equal(r.executed_n, 1);
    got = rig_cancel(&r, second);
    assert_int_equal(got.code, -EALREADY);
    assert_int_equal(got.status, GW_TASK_CANCELLED);
    rig_reply_fini(&got);
    got = rig_cancel(&r, "t0");
    assert_int_equal(got.code, -ENOENT);
    got = rig_get(&r, "t0");
    assert_int_equal(got.code, -ENOENT);
}

static void a_running_task_is_told_to_end_and_is_cancelled_when_it_has(void **state)
{
    const char *id = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 1);
    struct rig_reply got = rig_cancel(&r, id);
    assert_int_equal(got.code, 0);
    assert_int_equal(got.status, GW_TASK_RUNNING);
    rig_reply_fini(&got);
    rig_until(&r, r.aborted_n == 1);
    assert_int_equal(r.abort_why[0], GW_ABORT_CANCEL);
    got = rig_cancel(&r, id); // again: told already
    assert_int_equal(got.code, 0);
    rig_reply_fini(&got);
    rig_settle(&r);
    assert_int_equal(r.aborted_n, 1);
    assert_int_equal(rig_finish(&r, id, GW_TASK_SUCCEEDED, NULL), 0);
    rig_settle(&r);
    assert_int_equal(rig_status(&r, id), GW_TASK_CANCELLED);
}

static void a_cancel_that_meets_a_start_has_one_winner(void **state)
{
    // Both on their way to the store in either order: the task is cancelled, executed or not, and ends once.
    r.finish_on_abort = true;
    for (int i = 0; i < 40; i++) {
        static struct rig_reply sub;
        rig_submit_later(&r, &echo, &sub);
        while (!sub.done)
            (void)rig_turn(&r, 100);
        struct rig_reply got = rig_cancel(&r, sub.id);
        assert_int_equal(got.code, 0);
        rig_reply_fini(&got);
        rig_until(&r, rig_times_changed(&r, sub.id, GW_TASK_CANCELLED) == 1);
    }
    rig_settle(&r);
    assert_int_equal(gw_work_counts(r.w).queued, 0);
    assert_int_equal(gw_work_counts(r.w).tasks, 0);
    assert_int_equal(gw_work_counts(r.w).finished, 40);
}

static void a_task_over_its_time_is_told_and_ends_timed_out(void **state)
{
    const struct gw_task_spec spec = {.handler = "sleep", .timeout_ms = 30};
    r.finish_on_abort = true;
    const char *id = rig_submit(&r, &spec);
    rig_until(&r, r.aborted_n == 1);
    assert_int_equal(r.abort_why[0], GW_ABORT_TIMEOUT);
    rig_until(&r, rig_times_changed(&r, id, GW_TASK_TIMED_OUT) == 1);
    assert_int_equal(rig_status(&r, id), GW_TASK_TIMED_OUT);
    assert_true(gw_work_deadline(r.w) == UINT64_MAX);
}

static void an_executor_that_never_answers_keeps_its_slot_but_holds_up_nobody(void **state)
{
    const struct gw_task_spec spec = {.handler = "sleep", .timeout_ms = 30};
    const char *id = rig_submit(&r, &spec);
    (void)rig_submit_echo(&r);
    rig_until(&r, r.aborted_n == 1);
    gw_work_tick(r.w, gw_now_ms() + 9000);
    rig_settle(&r);
    assert_int_equal(rig_status(&r, id), GW_TASK_RUNNING);
    gw_work_tick(r.w, gw_now_ms() + 10001);
    rig_until(&r, rig_times_changed(&r, id, GW_TASK_TIMED_OUT) == 1);
    rig_settle(&r);
    assert_int_equal(gw_work_counts(r.w).tasks, 0);
    assert_int_equal(r.executed_n, 1); // the work may still be going on: its slot is not given away
    gw_work_fence(r.w, false);
    rig_until(&r, r.drained_n == 1);
    rig_start(&r, 2); // the fence is lifted without a boundary
    r.generation = 1;
    assert_int_equal(rig_finish(&r, id, GW_TASK_SUCCEEDED, NULL), -ENOENT);
    rig_until(&r, r.executed_n == 2); // now it is free
    assert_int_equal(rig_finish(&r, id, GW_TASK_SUCCEEDED, NULL), -ENOENT);
    assert_int_equal(rig_status(&r, id), GW_TASK_TIMED_OUT);
}

static void many_deadlines_strike_in_their_order(void **state)
{
    rig_fini(&r);
    rig_up(&r, 64);
    for (int i = 0; i < 64; i++) {
        const struct gw_task_spec spec = {.handler = "sleep", .timeout_ms = 3600000 + (i * 37 % 64) * 1000};
        (void)rig_submit(&r, &spec);
    }
    rig_until(&r, r.executed_n == 64);
    for (size_t i = 0; i < 64; i += 3) // some end before
        (void)rig_finish(&r, r.executed[i].id, GW_TASK_SUCCEEDED, NULL);
    rig_settle(&r);
    uint64_t last = 0;
    size_t told = 0;
    for (uint64_t at; (at = gw_work_deadline(r.w)) < gw_now_ms() + 7200000; told++) {
        assert_true(at >= last);
        last = at;
        size_t before = r.aborted_n;
        gw_work_tick(r.w, at);
        (void)rig_turn(&r, 0);
        assert_int_equal(r.aborted_n, before + 1);
        (void)rig_finish(&r, r.aborted[before].id, GW_TASK_FAILED, NULL);
    }
    assert_int_equal(told, 64 - 22);
}

static void a_large_result_is_cut_and_says_so(void **state)
{
    const char *id = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 1);
    struct gw_buf b = {0};
    gw_buf_adds(&b, "[\"");
    while (b.len < 100000)
        gw_buf_adds(&b, "\\\"\xc3\xa4");
    gw_buf_adds(&b, "\"]");
    assert_int_equal(rig_finish(&r, id, GW_TASK_SUCCEEDED, b.data), 0);
    rig_settle(&r);
    struct rig_reply got = rig_get(&r, id);
    json_t *result = json_object_get(got.task, "result");
    assert_true(json_is_true(json_object_get(result, "truncated")));
    assert_int_equal(json_integer_value(json_object_get(result, "bytes")), b.len);
    const char *head = json_string_value(json_object_get(result, "head"));
    assert_true(strlen(head) > 10000 && strncmp(head, b.data, strlen(head)) == 0);
    assert_true(gw_utf8_valid(head, strlen(head)));
    char *text = gw_json_text(result);
    assert_true(strlen(text) <= 65536);
    free(text);
    gw_buf_fini(&b);
    rig_reply_fini(&got);
}

static void progress_shows_at_once_and_is_kept(void **state)
{
    const char *id = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 1);
    for (int i = 0; i < 100; i++)
        assert_int_equal(gw_task_progress(r.w, id, 1, i < 99 ? "some" : "99 %"), 0);
    size_t before = rig_times_changed(&r, id, GW_TASK_RUNNING);
    rig_settle(&r);
    assert_int_equal(rig_times_changed(&r, id, GW_TASK_RUNNING), before + 1); // told once, with the last
    assert_string_equal(r.changed[r.changed_n - 1].progress, "99 %");
    struct rig_reply got = rig_get(&r, id);
    assert_string_equal(json_string_value(json_object_get(got.task, "progress")), "99 %");
    rig_reply_fini(&got);
    (void)rig_submit_echo(&r); // its commit takes the progress along
    rig_settle(&r);
    // As if the process died now: nobody ends it.
    rig_close(&r);
    assert_int_equal(rig_open(&r, "boot-2"), 0);
    got = rig_get(&r, id);
    assert_int_equal(got.status, GW_TASK_LOST);
    assert_string_equal(json_string_value(json_object_get(got.task, "progress")), "99 %");
    rig_reply_fini(&got);
}

static void lists_page_and_filter(void **state)
{
    static struct rig_reply list;
    const char *ids[7];
    for (size_t i = 0; i < 7; i++)
        ids[i] = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 4);
    rig_list(&r, -1, 3, NULL, &list);
    assert_int_equal(list.n, 3);
    assert_string_equal(list.ids[0].id, ids[0]);
    assert_string_equal(list.next, ids[2]);
    rig_list(&r, -1, 3, ids[2], &list);
    assert_string_equal(list.ids[0].id, ids[3]);
    rig_list(&r, -1, 3, ids[3], &list);
    assert_int_equal(list.n, 3);
    assert_string_equal(list.next, ""); // just filled, and the last
    rig_list(&r, GW_TASK_QUEUED, 0, NULL, &list);
    assert_int_equal(list.n, 3);
    assert_string_equal(list.ids[0].id, ids[4]);
    rig_list(&r, GW_TASK_RUNNING, 1000000, ids[1], &list);
    assert_int_equal(list.n, 2);
    rig_list(&r, GW_TASK_LOST, 1, NULL, &list);
    assert_int_equal(list.n, 0);
    rig_list(&r, -1, 1, "yesterday", &list);
    assert_int_equal(list.code, -EINVAL);
}

static void ids_sort_by_time_also_when_the_clock_went_back(void **state)
{
    char last[40] = "";
    for (int i = 0; i < 200; i++) {
        const char *id = rig_submit_echo(&r);
        assert_true(strcmp(id, last) > 0);
        memcpy(last, id, strlen(id) + 1);
    }
    // A task of a day in the future, as a clock that was wrong leaves one behind.
    rig_close(&r);
    rig_sql(&r, "INSERT INTO tasks (seq, id, handler, lane, priority, status, created_at)"
                " VALUES (9218868437227405312, 't7ff000000000000000000000', 'echo', 'main', 1, 2, 1)");
    assert_int_equal(rig_open(&r, "boot-2"), 0);
    rig_start(&r, 1);
    assert_true(strcmp(rig_submit_echo(&r), "t7ff000000000000000000000") > 0);
}

static void a_slow_lane_is_told_once_and_only_while_it_waits(void **state)
{
    assert_true(gw_work_deadline(r.w) == UINT64_MAX);
    const char *first = rig_submit_echo(&r);
    rig_until(&r, r.executed_n == 1);
    assert_true(gw_work_deadline(r.w) == UINT64_MAX); // nothing waits: no timer
    (void)rig_submit_echo(&r);
    rig_settle(&r);
    uint64_t at = gw_work_deadline(r.w);
    assert_true(at > gw_now_ms() && at <= gw_now_ms() + 2000);
    gw_work_tick(r.w, at + 5);
    assert_int_equal(r.slow_n, 1);
    assert_string_equal(r.slow_lane, "main");
    assert_true(r.slow_waited_ms >= 2000);
    assert_int_equal(r.slow_queued, 1);
    gw_work_tick(r.w, at + 5000);
    assert_int_equal(r.slow_n, 1);
    assert_true(gw_work_deadline(r.w) >= at + 30000);
    gw_work_tick(r.w, at + 30010);
    assert_int_equal(r.slow_n, 2);
    gw_work_fence(r.w, false);
    assert_true(gw_work_deadline(r.w) == UINT64_MAX); // behind the fence waiting is no fault
    rig_start(&r, 2);
    r.generation = 1;
    (void)rig_finish(&r, first, GW_TASK_SUCCEEDED, NULL);
    rig_until(&r, r.executed_n == 2);
    rig_settle(&r);
    assert_true(gw_work_deadline(r.w) == UINT64_MAX);
}

static void a_paused_lane_takes_tasks_and_starts_none(void **state)
{
    rig_fini(&r);
    rig_up(&r, 0);
    const char *id = rig_submit_echo(&r);
    rig_settle(&r);
    assert_int_equal(r.executed_n, 0);
    assert_int_equal(rig_status(&r, id), GW_TASK_QUEUED);
    assert_true(gw_work_deadline(r.w) == UINT64_MAX);
}

static void a_lane_that_is_gone_keeps_its_tasks(void **state)
{
    rig_fini(&r);
    rig_init(&r);
    r.lanes[0] = (struct gw_lane_spec){"old", 0, -1};
    r.lane_count = 1;
    assert_int_equal(rig_open(&r, "boot-1"), 0);
    rig_start(&r, 1);
    const struct gw_task_spec spec = {.handler = "echo", .lane = "old"};
    const char *id = rig_submit(&r, &spec);
    rig_close(&r);
    r.lane_count = 0;
    assert_int_equal(rig_open(&r, "boot-2"), 0);
    rig_start(&r, 1);
    const struct gw_lane_counts *lanes;
    assert_int_equal(gw_work_lanes(r.w, &lanes), 2); // main, and the one that tasks wait in
    assert_int_equal(lanes[0].concurrency, 4);
    assert_string_equal(lanes[1].name, "old");
    assert_int_equal(lanes[1].queued, 1);
    assert_int_equal(rig_submit_code(&r, &spec), -EINVAL);
    rig_close(&r);
    r.lanes[0].concurrency = 1;
    r.lane_count = 1;
    assert_int_equal(rig_open(&r, "boot-3"), 0);
    rig_start(&r, 1);
    rig_until(&r, r.executed_n == 1);
    assert_string_equal(r.executed[0].id, id);
}

static void status_names_go_both_ways(void **state)
{
    for (int i = GW_TASK_QUEUED; i <= GW_TASK_LOST; i++) {
        enum gw_task_status s;
        assert_true(gw_task_status_parse(gw_task_status_name((enum gw_task_status)i), &s));
        assert_int_equal(s, i);
        assert_int_equal(gw_task_status_final(s), i >= 2);
    }
    enum gw_task_status s;
    assert_false(gw_task_status_parse("done", &s));
    assert_string_equal(gw_abort_name(GW_ABORT_COMPACTING), "compacting");
}

#define T1(f) cmocka_unit_test_setup_teardown(f, up1, down)
#define T4(f) cmocka_unit_test_setup_teardown(f, up4, down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T4(a_task_is_accepted_run_and_ended),
        T4(a_large_input_arrives_whole),
        T4(a_task_ends_only_once),
        T4(the_end_is_not_visible_before_its_commit),
        T4(an_end_of_another_generation_counts_for_nothing),
        T1(tasks_start_by_priority_then_in_order),
        T4(a_lane_runs_no_more_than_its_concurrency),
        T1(a_queue_longer_than_the_window_runs_whole_and_in_order),
        T1(a_full_queue_is_busy),
        T4(a_bad_request_is_refused_in_words),
        T4(a_key_names_one_task),
        T1(a_queued_task_is_cancelled_at_once),
        T1(a_running_task_is_told_to_end_and_is_cancelled_when_it_has),
        T4(a_cancel_that_meets_a_start_has_one_winner),
        T4(a_task_over_its_time_is_told_and_ends_timed_out),
        T1(an_executor_that_never_answers_keeps_its_slot_but_holds_up_nobody),
        T4(many_deadlines_strike_in_their_order),
        T1(a_large_result_is_cut_and_says_so),
        T4(progress_shows_at_once_and_is_kept),
        T4(lists_page_and_filter),
        T4(ids_sort_by_time_also_when_the_clock_went_back),
        T1(a_slow_lane_is_told_once_and_only_while_it_waits),
        T1(a_paused_lane_takes_tasks_and_starts_none),
        T1(a_lane_that_is_gone_keeps_its_tasks),
        T1(status_names_go_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
