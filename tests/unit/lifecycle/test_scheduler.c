/* Requests to restart under a clock of our own: merged, deferred, cooled down, cancelled, expired. */
#include "base/err.h"
#include "lifecycle/scheduler.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static char ended[4096]; /* "outcome outcome …" in order */

static void on_ended(void *ud, const struct gw_restart *r)
{
    size_t n = strlen(ended);
    (void)snprintf(ended + n, sizeof ended - n, "%s ", r->outcome);
}

static struct gw_scheduler *make(uint64_t defer_ms)
{
    struct gw_sched_config config = {.defer_timeout_ms = defer_ms, .ended = on_ended};
    ended[0] = '\0';
    return gw_sched_new(&config);
}

static struct gw_sched_now at(uint64_t ms, enum gw_phase phase, int pending)
{
    return (struct gw_sched_now){
        .ms = 1000000 + ms, .wall_ms = (int64_t)(1700000000000 + ms), .phase = phase, .pending = pending, .generation = 1};
}

static const struct gw_ask now_ask = {.source = "http", .wait_ms = -1};
static const struct gw_ask idle_ask = {.source = "http", .when_idle = true, .wait_ms = -1};
static const struct gw_ask force_ask = {.source = "control", .force = true, .wait_ms = -1};
static const struct gw_ask update_ask = {.source = "control", .update = true, .reason = "update", .wait_ms = -1};

static void one_for_now_goes_at_once_and_is_accepted_once(void **state)
{
    struct gw_scheduler *s = make(300000);
    assert_int_equal(gw_sched_ask(s, &now_ask, at(0, GW_PHASE_RUNNING, 5)).answer, GW_ASK_ACCEPTED);
    assert_int_equal(gw_sched_look(s, at(0, GW_PHASE_RUNNING, 5)).what, GW_DO_GO);
    assert_int_equal(gw_sched_look(s, at(1, GW_PHASE_RUNNING, 5)).what, GW_DO_NOTHING); // emitted once
    assert_non_null(gw_sched_accept(s, at(1, GW_PHASE_RUNNING, 5)));
    assert_null(gw_sched_accept(s, at(1, GW_PHASE_LEAVING, 5)));
    gw_sched_end(s, "restarted", NULL, 2);
    assert_string_equal(ended, "restarted ");
    assert_int_equal(gw_sched_last(s)->generation, 2);
    gw_sched_free(s);
}

static void one_for_an_idle_moment_waits_until_nothing_is_pending(void **state)
{
    struct gw_scheduler *s = make(300000);
    assert_int_equal(gw_sched_ask(s, &idle_ask, at(0, GW_PHASE_RUNNING, 2)).answer, GW_ASK_DEFERRED);
    struct gw_sched_look look = gw_sched_look(s, at(0, GW_PHASE_RUNNING, 2));
    assert_int_equal(look.what, GW_DO_NOTHING);
    assert_true(look.watch_idle);
    assert_int_equal(look.next_ms, 1000000 + 30000); // its first report
    assert_int_equal(gw_sched_look(s, at(30000, GW_PHASE_RUNNING, 1)).what, GW_DO_REPORT);
    assert_int_equal(gw_sched_look(s, at(30001, GW_PHASE_RUNNING, 1)).next_ms, 1000000 + 60000);
    assert_int_equal(gw_sched_look(s, at(31000, GW_PHASE_RUNNING, 0)).what, GW_DO_GO);
    gw_sched_free(s);
}

static void nothing_pending_means_at_once(void **state)
{
    struct gw_scheduler *s = make(300000);
    assert_int_equal(gw_sched_ask(s, &idle_ask, at(0, GW_PHASE_RUNNING, 0)).answer, GW_ASK_ACCEPTED);
    gw_sched_free(s);
}

static void an_error_in_counting_never_blocks(void **state)
{
    struct gw_scheduler *s = make(300000);
    assert_int_equal(gw_sched_ask(s, &idle_ask, at(0, GW_PHASE_RUNNING, -1)).answer, GW_ASK_ACCEPTED);
    gw_sched_free(s);
}

static void after_the_deferral_it_is_an_ordinary_restart(void **state)
{
    struct gw_scheduler *s = make(5000);
    (void)gw_sched_ask(s, &idle_ask, at(0, GW_PHASE_RUNNING, 1));
    assert_int_equal(gw_sched_look(s, at(0, GW_PHASE_RUNNING, 1)).next_ms, 1000000 + 5000);
    assert_int_equal(gw_sched_look(s, at(4999, GW_PHASE_RUNNING, 1)).what, GW_DO_NOTHING);
    assert_int_equal(gw_sched_look(s, at(5000, GW_PHASE_RUNNING, 1)).what, GW_DO_GO);
    assert_false(gw_sched_accept(s, at(5000, GW_PHASE_RUNNING, 1))->when_idle);
    gw_sched_free(s);
    s = make(0); // for ever
    (void)gw_sched_ask(s, &idle_ask, at(0, GW_PHASE_RUNNING, 1));
    assert_int_equal(gw_sched_look(s, at(86400000, GW_PHASE_RUNNING, 1)).what, GW_DO_REPORT);
    gw_sched_free(s);
}

static void after_a_restart_only_those_that_wait_are_cooled_down(void **state)
{
    struct gw_scheduler *s = make(300000);
    (void)gw_sched_ask(s, &now_ask, at(0, GW_PHASE_RUNNING, 0));
    (void)gw_sched_look(s, at(0, GW_PHASE_RUNNING, 0));
    (void)gw_sched_accept(s, at(0, GW_PHASE_RUNNING, 0));
    gw_sched_end(s, "restarted", NULL, 2);
    assert_int_equal(gw_sched_ask(s, &idle_ask, at(10000, GW_PHASE_RUNNING, 0)).answer, GW_ASK_DEFERRED);
    struct gw_sched_look look = gw_sched_look(s, at(10000, GW_PHASE_RUNNING, 0));
    assert_int_equal(look.what, GW_DO_NOTHING);
    assert_int_equal(look.next_ms, 1000000 + 30000);
    assert_int_equal(gw_sched_look(s, at(30000, GW_PHASE_RUNNING, 0)).what, GW_DO_GO);
    (void)gw_sched_accept(s, at(30000, GW_PHASE_RUNNING, 0));
    gw_sched_end(s, "restarted", NULL, 3);
    assert_int_equal(gw_sched_ask(s, &now_ask, at(30001, GW_PHASE_RUNNING, 0)).answer, GW_ASK_ACCEPTED);
    gw_sched_free(s);
    struct gw_ask forced_idle = {.source = "http", .when_idle = true, .force = true, .wait_ms = -1};
    s = make(300000);
    (void)gw_sched_ask(s, &forced_idle, at(0, GW_PHASE_RUNNING, 3));
    assert_int_equal(gw_sched_look(s, at(0, GW_PHASE_RUNNING, 3)).what, GW_DO_GO);
    gw_sched_free(s);
}

static void all_are_merged_while_one_is_open(void **state)
{
    struct gw_scheduler *s = make(300000);
    (void)gw_sched_ask(s, &idle_ask, at(0, GW_PHASE_RUNNING, 1));
    struct gw_sched_told told = gw_sched_ask(s, &idle_ask, at(1, GW_PHASE_RUNNING, 1));
    assert_int_equal(told.answer, GW_ASK_MERGED);
    assert_string_equal(told.request->merged_into, gw_sched_waiting(s)->id);
    assert_int_equal(gw_sched_look(s, at(1, GW_PHASE_RUNNING, 1)).what, GW_DO_NOTHING);
    // Now beats idle: the one that waited goes, and is still the one that all were merged into.
    (void)gw_sched_ask(s, &now_ask, at(2, GW_PHASE_RUNNING, 1));
    assert_int_equal(gw_sched_look(s, at(2, GW_PHASE_RUNNING, 1)).what, GW_DO_GO);
    (void)gw_sched_accept(s, at(2, GW_PHASE_RUNNING, 1));
    // While it leaves, force and update are taken up by it.
    told = gw_sched_ask(s, &force_ask, at(3, GW_PHASE_LEAVING, 1));
    assert_int_equal(told.answer, GW_ASK_MERGED);
    assert_true(told.into_current && told.changed == 1u << GW_JOIN_FORCE);
    told = gw_sched_ask(s, &update_ask, at(4, GW_PHASE_LEAVING, 1));
    assert_true(told.into_current && told.changed == 1u << GW_JOIN_UPDATE);
    assert_string_equal(gw_sched_current(s)->reason, "update");
    assert_true(gw_sched_current(s)->force);
    told = gw_sched_ask(s, &now_ask, at(5, GW_PHASE_LEAVING, 1));
    assert_int_equal(told.changed, 0);
    gw_sched_end(s, "restarted", NULL, 2);
    assert_string_equal(ended, "merged merged merged merged merged restarted ");
    gw_sched_free(s);
}

static void those_that_come_while_it_closes_make_exactly_one_more(void **state)
{
    struct gw_scheduler *s = make(300000);
    (void)gw_sched_ask(s, &now_ask, at(0, GW_PHASE_RUNNING, 0));
    (void)gw_sched_look(s, at(0, GW_PHASE_RUNNING, 0));
    (void)gw_sched_accept(s, at(0, GW_PHASE_RUNNING, 0));
    assert_int_equal(gw_sched_ask(s, &now_ask, at(1, GW_PHASE_STARTING, 0)).answer, GW_ASK_ACCEPTED);
    for (int i = 0; i < 10; i++)
        assert_int_equal(gw_sched_ask(s, &now_ask, at(2, GW_PHASE_STARTING, 0)).answer, GW_ASK_MERGED);
    assert_int_equal(gw_sched_look(s, at(3, GW_PHASE_STARTING, 0)).what, GW_DO_NOTHING);
    gw_sched_end(s, "restarted", NULL, 2);
    assert_int_equal(gw_sched_look(s, at(4, GW_PHASE_RUNNING, 0)).what, GW_DO_GO);
    (void)gw_sched_accept(s, at(4, GW_PHASE_RUNNING, 0));
    assert_null(gw_sched_waiting(s));
    gw_sched_free(s);
}

static void what_waits_for_an_idle_moment_ends_with_the_restart_that_comes_before(void **state)
{
    struct gw_scheduler *s = make(300000);
    (void)gw_sched_ask(s, &now_ask, at(0, GW_PHASE_RUNNING, 1));
    (void)gw_sched_look(s, at(0, GW_PHASE_RUNNING, 1));
    (void)gw_sched_accept(s, at(0, GW_PHASE_RUNNING, 1));
    (void)gw_sched_ask(s, &idle_ask, at(1, GW_PHASE_STARTING, 1));
    gw_sched_boundary(s);
    assert_null(gw_sched_waiting(s));
    assert_string_equal(ended, "merged ");
    gw_sched_free(s);
}

static void a_stop_refuses_and_a_failed_host_tries_again_whatever_is_pending(void **state)
{
    struct gw_scheduler *s = make(300000);
    assert_int_equal(gw_sched_ask(s, &now_ask, at(0, GW_PHASE_STOPPING, 0)).answer, GW_ASK_REFUSED);
    assert_string_equal(ended, "refused ");
    assert_int_equal(gw_sched_ask(s, &idle_ask, at(1, GW_PHASE_FAILED, 3)).answer, GW_ASK_ACCEPTED);
    assert_int_equal(gw_sched_look(s, at(1, GW_PHASE_FAILED, 3)).what, GW_DO_GO);
    gw_sched_free(s);
}

static void an_emitted_one_that_is_not_accepted_in_time_expires_and_the_next_works(void **state)
{
    struct gw_scheduler *s = make(300000);
    (void)gw_sched_ask(s, &now_ask, at(0, GW_PHASE_RUNNING, 0));
    (void)gw_sched_look(s, at(0, GW_PHASE_RUNNING, 0));
    assert_null(gw_sched_accept(s, at(5001, GW_PHASE_RUNNING, 0)));
    assert_string_equal(ended, "expired ");
    (void)gw_sched_ask(s, &now_ask, at(5002, GW_PHASE_RUNNING, 0));
    assert_int_equal(gw_sched_look(s, at(5002, GW_PHASE_RUNNING, 0)).what, GW_DO_GO);
    assert_non_null(gw_sched_accept(s, at(5003, GW_PHASE_RUNNING, 0)));
    gw_sched_free(s);
}

static void an_internal_authorization_is_spent_once_and_gone_after_five_seconds(void **state)
{
    struct gw_ask app = {.source = "app", .when_idle = true, .wait_ms = -1};
    struct gw_scheduler *s = make(300000);
    assert_false(gw_sched_authorized(s, at(0, GW_PHASE_RUNNING, 1)));
    (void)gw_sched_ask(s, &app, at(0, GW_PHASE_RUNNING, 1));
    assert_true(gw_sched_authorized(s, at(5000, GW_PHASE_RUNNING, 1)));
    assert_false(gw_sched_authorized(s, at(5000, GW_PHASE_RUNNING, 1)));
    assert_int_equal(gw_sched_look(s, at(5000, GW_PHASE_RUNNING, 1)).what, GW_DO_GO);
    gw_sched_free(s);
    s = make(300000);
    (void)gw_sched_ask(s, &app, at(0, GW_PHASE_RUNNING, 1));
    assert_false(gw_sched_authorized(s, at(5001, GW_PHASE_RUNNING, 1)));
    gw_sched_free(s);
    s = make(300000); // another source gives none
    (void)gw_sched_ask(s, &idle_ask, at(0, GW_PHASE_RUNNING, 1));
    assert_false(gw_sched_authorized(s, at(1, GW_PHASE_RUNNING, 1)));
    gw_sched_free(s);
}

static void only_what_still_waits_can_be_cancelled(void **state)
{
    struct gw_err err;
    struct gw_scheduler *s = make(300000);
    (void)gw_sched_ask(s, &idle_ask, at(0, GW_PHASE_RUNNING, 1));
    char id[40];
    (void)snprintf(id, sizeof id, "%s", gw_sched_waiting(s)->id);
    assert_int_equal(gw_sched_cancel(s, "r0", &err), -ENOENT);
    assert_int_equal(gw_sched_cancel(s, id, &err), 0);
    assert_string_equal(ended, "cancelled ");
    assert_int_equal(gw_sched_cancel(s, id, &err), -EALREADY);
    assert_int_equal(gw_sched_look(s, at(1, GW_PHASE_RUNNING, 0)).what, GW_DO_NOTHING);
    gw_sched_free(s);
}

static void the_last_hundred_are_kept_and_can_be_restored(void **state)
{
    struct gw_scheduler *s = make(300000), *again = make(300000);
    char first[40] = "", last[40] = "";
    for (int i = 0; i < 150; i++) {
        struct gw_sched_now now = at((uint64_t)i * 10, GW_PHASE_RUNNING, 0);
        (void)gw_sched_ask(s, &now_ask, now);
        (void)gw_sched_look(s, now);
        (void)snprintf(i == 0 ? first : last, 40, "%s", gw_sched_accept(s, now)->id);
        gw_sched_end(s, "restarted", "fine", 2);
    }
    assert_null(gw_sched_find(s, first));
    json_t *o = gw_restart_json(gw_sched_find(s, last));
    gw_sched_restore(again, o);
    assert_string_equal(gw_sched_find(again, last)->outcome, "restarted");
    assert_string_equal(gw_sched_find(again, last)->why, "fine");
    json_decref(o);
    assert_int_equal(gw_sched_last_hour(s, 1000000 + 1500), 150);
    assert_int_equal(gw_sched_last_hour(s, 1000000 + 3700000), 0);
    gw_sched_free(s);
    gw_sched_free(again);
}

// ---- every pair of requests ----

/* What can be asked for, over all fields; a request is one value of each. */
static const bool flags[] = {false, true};
static const int64_t waits[] = {-1, 0, 1000, 60000};
static const char *const signals[] = {NULL, "SIGUSR1", "SIGTERM"};

#define EACH(i, list) for (size_t i = 0; i < sizeof list / sizeof *list; i++)

static struct gw_ask ask_of(size_t force, size_t update, size_t idle, size_t wait, size_t signal, json_t *sender)
{
    return (struct gw_ask){.source = signals[signal] != NULL ? "signal" : "control",
                           .reason = flags[update] ? "an update" : "a reason",
                           .exec = flags[update] ? "/new/gwhost" : NULL,
                           .force = flags[force],
                           .update = flags[update],
                           .when_idle = flags[idle],
                           .has_intent = waits[wait] >= 0,
                           .wait_ms = waits[wait],
                           .signal = signals[signal],
                           .sender = sender};
}

static int64_t shorter(int64_t a, int64_t b)
{
    if (a < 0 || b < 0)
        return a < 0 ? b : a;
    if (a == 0 || b == 0)
        return a == 0 ? b : a;
    return a < b ? a : b;
}

static bool is_term(const char *signal)
{
    return signal != NULL && strcmp(signal, "SIGTERM") == 0;
}

static void check_pair(const struct gw_ask *first, const struct gw_ask *second, bool under_way)
{
    struct gw_scheduler *s = make(300000);
    const struct gw_restart *into = gw_sched_ask(s, first, at(0, GW_PHASE_RUNNING, 1)).request;
    char id[40];
    (void)snprintf(id, sizeof id, "%s", into->id);
    if (under_way) {
        struct gw_sched_now idle = at(0, GW_PHASE_RUNNING, 0); // whatever it waited for has come
        assert_int_equal(gw_sched_look(s, idle).what, GW_DO_GO);
        assert_ptr_equal(gw_sched_accept(s, idle), into);
    }
    uint64_t due = into->due_ms;
    struct gw_sched_told told = gw_sched_ask(s, second, at(10, under_way ? GW_PHASE_LEAVING : GW_PHASE_RUNNING, 1));
    assert_int_equal(told.answer, GW_ASK_MERGED);
    assert_string_equal(told.request->outcome, "merged");
    assert_string_equal(told.request->merged_into, id);
    assert_int_equal(told.into_current, under_way);
    // The contract's words: now beats idle, the earlier due time wins, an update wins over other reasons, force
    // sticks, the shorter budget that was asked for wins, what must end the process ends it still.
    bool idle = first->when_idle && !first->force && second->when_idle && !second->force;
    assert_int_equal(into->when_idle, idle);
    assert_int_equal(into->due_ms, due);
    assert_int_equal(into->update, first->update || second->update);
    assert_string_equal(into->reason, first->update || !second->update ? first->reason : second->reason);
    assert_string_equal(into->exec, first->update || second->update ? "/new/gwhost" : "");
    assert_int_equal(into->force, first->force || second->force);
    assert_int_equal(into->wait_ms, shorter(first->wait_ms, second->wait_ms));
    assert_int_equal(into->has_intent, first->has_intent || second->has_intent);
    const struct gw_ask *signals_for = !is_term(first->signal) && is_term(second->signal) ? second : first;
    assert_string_equal(into->signal, signals_for->signal != NULL ? signals_for->signal : "");
    assert_ptr_equal(into->sender, signals_for->sender);
    assert_string_equal(into->source, first->source);
    // And what of the second one counts is said, no more and no less.
    uint32_t changed = 0;
    changed |= second->force && !first->force ? 1u << GW_JOIN_FORCE : 0;
    changed |= second->update && !first->update ? 1u << GW_JOIN_UPDATE : 0;
    changed |= first->when_idle && !first->force && !idle ? 1u << GW_JOIN_NOW : 0;
    bool sooner = shorter(first->wait_ms, second->wait_ms) != first->wait_ms;
    changed |= sooner && !into->force ? 1u << GW_JOIN_WAIT : 0;
    changed |= signals_for == second ? 1u << GW_JOIN_END : 0;
    assert_int_equal(told.changed, changed);
    gw_sched_free(s);
}

static void each_pair_is_joined_by_the_contracts_words(void **state)
{
    json_t *one = json_string("one"), *two = json_string("two");
    unsigned pairs = 0;
    EACH(f1, flags) EACH(u1, flags) EACH(i1, flags) EACH(w1, waits) EACH(s1, signals)
        EACH(f2, flags) EACH(u2, flags) EACH(i2, flags) EACH(w2, waits) EACH(s2, signals)
        {
            struct gw_ask first = ask_of(f1, u1, i1, w1, s1, one), second = ask_of(f2, u2, i2, w2, s2, two);
            check_pair(&first, &second, false);
            check_pair(&first, &second, true);
            pairs++;
        }
    assert_int_equal(pairs, 96 * 96);
    json_decref(one);
    json_decref(two);
}

static void each_wish_has_a_name(void **state)
{
    for (int i = 0; i < GW_JOINS; i++)
        assert_non_null(gw_join_name((enum gw_join)i));
}

static void what_a_joined_request_wants_lives_on_in_the_next_process(void **state)
{
    json_t *sender = json_string("somebody");
    struct gw_ask term = {.source = "signal", .signal = "SIGTERM", .wait_ms = 1000, .has_intent = true, .sender = sender};
    struct gw_scheduler *s = make(300000), *next = make(300000);
    (void)gw_sched_ask(s, &idle_ask, at(0, GW_PHASE_RUNNING, 1));
    (void)gw_sched_ask(s, &term, at(5, GW_PHASE_RUNNING, 1));
    json_t *packed = gw_sched_pack(s);
    gw_sched_unpack(next, packed);
    const struct gw_restart *was = gw_sched_waiting(s), *is = gw_sched_waiting(next);
    assert_string_equal(is->id, was->id);
    assert_string_equal(is->signal, "SIGTERM");
    assert_int_equal(is->signal_ms, was->signal_ms);
    assert_int_equal(is->wait_ms, 1000);
    assert_false(is->when_idle);
    assert_true(is->has_intent);
    json_decref(packed);
    json_decref(sender);
    gw_sched_free(s);
    gw_sched_free(next);
}

static void an_application_that_restarts_its_host_all_the_time_is_slowed(void **state)
{
    struct gw_ask app = {.source = "app", .wait_ms = -1};
    struct gw_scheduler *s = make(300000), *next = make(300000);
    unsigned accepted = 0;
    uint64_t ms = 0;
    for (; ms < 290000; ms += 10) { // each generation asks again at once
        if (gw_sched_waiting(s) == NULL)
            (void)gw_sched_ask(s, &app, at(ms, GW_PHASE_RUNNING, 0));
        struct gw_sched_look look = gw_sched_look(s, at(ms, GW_PHASE_RUNNING, 0));
        if (look.what != GW_DO_GO) {
            assert_true(look.next_ms > 1000000 + ms); // a clock is waited for, nothing is polled
            continue;
        }
        assert_non_null(gw_sched_accept(s, at(ms, GW_PHASE_RUNNING, 0)));
        gw_sched_end(s, "restarted", NULL, 2);
        accepted++;
    }
    assert_in_range(accepted, 5 * 30 - 30, 5 * 30 + 30);
    // It does not hold anybody else back, not even what was merged with one that waits, nor a host that has failed.
    (void)gw_sched_ask(s, &app, at(ms, GW_PHASE_RUNNING, 0));
    json_t *packed = gw_sched_pack(s);
    gw_sched_unpack(next, packed);
    json_decref(packed);
    assert_int_equal(gw_sched_look(next, at(ms, GW_PHASE_RUNNING, 0)).what, GW_DO_NOTHING);
    assert_int_equal(gw_sched_look(next, at(ms, GW_PHASE_FAILED, 0)).what, GW_DO_GO);
    (void)gw_sched_ask(s, &now_ask, at(ms, GW_PHASE_RUNNING, 0));
    assert_int_equal(gw_sched_look(s, at(ms, GW_PHASE_RUNNING, 0)).what, GW_DO_GO);
    gw_sched_free(s);
    gw_sched_free(next);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_pair_is_joined_by_the_contracts_words),
        cmocka_unit_test(each_wish_has_a_name),
        cmocka_unit_test(what_a_joined_request_wants_lives_on_in_the_next_process),
        cmocka_unit_test(an_application_that_restarts_its_host_all_the_time_is_slowed),
        cmocka_unit_test(one_for_now_goes_at_once_and_is_accepted_once),
        cmocka_unit_test(one_for_an_idle_moment_waits_until_nothing_is_pending),
        cmocka_unit_test(nothing_pending_means_at_once),
        cmocka_unit_test(an_error_in_counting_never_blocks),
        cmocka_unit_test(after_the_deferral_it_is_an_ordinary_restart),
        cmocka_unit_test(after_a_restart_only_those_that_wait_are_cooled_down),
        cmocka_unit_test(all_are_merged_while_one_is_open),
        cmocka_unit_test(those_that_come_while_it_closes_make_exactly_one_more),
        cmocka_unit_test(what_waits_for_an_idle_moment_ends_with_the_restart_that_comes_before),
        cmocka_unit_test(a_stop_refuses_and_a_failed_host_tries_again_whatever_is_pending),
        cmocka_unit_test(an_emitted_one_that_is_not_accepted_in_time_expires_and_the_next_works),
        cmocka_unit_test(an_internal_authorization_is_spent_once_and_gone_after_five_seconds),
        cmocka_unit_test(only_what_still_waits_can_be_cancelled),
        cmocka_unit_test(the_last_hundred_are_kept_and_can_be_restored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
