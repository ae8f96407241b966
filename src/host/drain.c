/* drain.c - waiting for work within a budget: asked for, armed, changed meanwhile, over.
 *
 * The only timers are the budget's and the report's; that nothing is left is an event of work/. */
#include "host/inside.h"

#include <stdlib.h>
#include <string.h>

static int64_t elapsed(const struct drain *d)
{
    return (int64_t)(gw_now_ms() - d->accepted_ms);
}

static void put_budget(json_t *fields, int64_t budget_ms)
{
    gw_json_set(fields, "budget_ms", budget_ms == GW_UNLIMITED ? NULL : json_integer(budget_ms));
}

void gw_drain_budget(struct gw_host *h, bool to_stop, const struct gw_restart *r, struct gw_budget_answer *ret)
{
    struct gw_decision decision;
    json_t *facts = gw_facts(h, to_stop ? "stop" : "restart", r, NULL);
    gw_policy_drain_budget(h->policy, facts, ret, &decision);
    json_decref(facts);
    gw_facts_decided(h, &decision);
}

/* A supervisor that has sent the signal kills when its own time is over: what we plan must end before, unless it
 * is told that more is needed (systemd). */
static void fit_supervisor(struct gw_host *h, const struct gw_restart *r)
{
    struct drain *d = &h->drain;
    const struct gw_supervisor *by = &h->supervision.by;
    bool asked = d->to_stop ? h->stop_by_signal : r != NULL && strcmp(r->signal, "SIGTERM") == 0;
    d->end_at_ms = UINT64_MAX;
    if (by->stop_timeout_ms <= 0 || h->supervision.notify != NULL || !asked)
        return;
    // Its clock runs from its signal, which may have come in the middle of the drain.
    uint64_t from = d->to_stop || r->signal_ms < d->accepted_ms ? d->accepted_ms : r->signal_ms;
    int64_t before = (int64_t)(from - d->accepted_ms);
    struct gw_budget_fit fit = gw_budget_fit(gw_budget_left(d->budget.budget_ms, before), by->stop_timeout_ms);
    d->end_at_ms = from + (uint64_t)fit.end_ms;
    if (!fit.cut)
        return;
    gw_log(GW_WARN, "drain.budget_cut",
           json_pack("{sIsI}", "budget_ms", (json_int_t)fit.drain_ms, "stop_timeout_ms", (json_int_t)by->stop_timeout_ms),
           "%s kills after %lld ms: the drain gets %lld ms instead of what the policy answers; give it more time",
           by->name != NULL ? by->name : "GWHOST_STOP_TIMEOUT says that somebody", (long long)by->stop_timeout_ms,
           (long long)fit.drain_ms);
    d->budget.budget_ms = before + fit.drain_ms;
}

void gw_drain_ask(struct gw_host *h, bool to_stop)
{
    struct drain *d = &h->drain;
    const struct gw_restart *r = to_stop ? NULL : gw_sched_current(h->sched);
    d->to_stop = to_stop;
    d->changed_ms = gw_now_ms();
    d->lanes_cut = 0;
    d->forced = r != NULL && r->force;
    d->budget = (struct gw_budget_answer){.report_every_ms = -1};
    if (!d->forced)
        gw_drain_budget(h, to_stop, r, &d->budget);
    fit_supervisor(h, r);
}

void gw_drain_none(struct gw_host *h)
{
    struct drain *d = &h->drain;
    d->to_stop = true;
    d->changed_ms = gw_now_ms();
    d->budget = (struct gw_budget_answer){.report_every_ms = -1};
    fit_supervisor(h, NULL);
}

static void on_budget(struct gw_limit *limit);

/* Arms the timer for the nearest of the drain's budget and those of its lanes; posts when it is over. */
static void arm_nearest(struct gw_host *h)
{
    struct drain *d = &h->drain;
    int64_t gone = elapsed(d), left = gw_budget_left(d->budget.budget_ms, gone);
    if (left == 0) {
        gw_host_post(h, GW_EV_DRAIN_OVER);
        return;
    }
    for (unsigned i = 0; i < d->budget.lane_count; i++) {
        const struct gw_lane_budget *lane = &d->budget.lanes[i];
        if ((d->lanes_cut & 1u << i) != 0)
            continue;
        int64_t lane_left = gw_budget_left(lane->budget_ms, gone);
        if (lane_left == 0) {
            unsigned tasks = 0, runs = 0;
            d->lanes_cut |= 1u << i;
            gw_work_cut(h->work, lane->lane, &tasks, &runs);
            if (tasks > 0)
                gw_log(GW_WARN, "work.aborted",
                       json_pack("{sssosisi}", "mode", "lane", "lane", gw_json_string(lane->lane), "tasks",
                                 (int)tasks, "runs", 0),
                       "lane '%s' has used its own budget; what ran in it is interrupted", lane->lane);
        } else if (lane_left < left) {
            left = lane_left;
        }
    }
    if (left == GW_NO_END)
        gw_limit_stop(&d->limit);
    else
        gw_limit_start(&d->limit, on_budget, (uint64_t)left);
}

static void on_budget(struct gw_limit *limit)
{
    struct gw_host *h = limit->data;
    if (h->drain.active)
        arm_nearest(h);
}

static void say_blockers(struct gw_host *h)
{
    char *line = gw_facts_blockers(h, gw_sched_current(h->sched));
    if (line != NULL)
        gw_log(GW_INFO, "drain.blocked", json_pack("{so}", "blockers", gw_json_string(line)), "waiting for: %s", line);
    free(line);
}

static void on_report(uv_timer_t *timer)
{
    struct gw_host *h = timer->data;
    struct gw_work_counts counts = gw_work_counts(h->work);
    gw_log(GW_INFO, "drain.pending",
           json_pack("{sisisI}", "tasks", (int)counts.tasks, "runs", (int)counts.runs, "elapsed_ms",
                     (json_int_t)elapsed(&h->drain)),
           "still draining (tasks: %u, runs: %u)", counts.tasks, counts.runs);
    gw_supervision_status(h, true, "Still draining after %lld s (tasks: %u, runs: %u)",
                          (long long)elapsed(&h->drain) / 1000, counts.tasks, counts.runs);
    say_blockers(h);
}

static void arm_report(struct gw_host *h)
{
    struct drain *d = &h->drain;
    int64_t every = d->budget.report_every_ms > 0 ? d->budget.report_every_ms : GW_REPORT_MS;
    (void)uv_timer_start(&d->report, on_report, (uint64_t)every, (uint64_t)every);
}

_Static_assert(GW_UNLIMITED == GW_NO_END, "a policy's answer is a budget");

static uint64_t forced_exit(const struct gw_host *h, uint64_t changed_ms, int64_t drain_ms)
{
    const struct drain *d = &h->drain;
    const struct gw_budget_plan plan = {
        .accepted_ms = d->accepted_ms,
        .changed_ms = changed_ms,
        .drain_ms = drain_ms,
        // The next process has budgets of its own, and so has letting go of the store.
        .extra_ms = h->succession.stage != GW_SUCC_NONE ? 3 * (int64_t)h->succession.health_ms : 0,
        .end_at_ms = d->end_at_ms};
    return gw_budget_forced_exit(&plan);
}

static const char *report_reason(const struct drain *d)
{
    return d->to_stop ? "gateway.stop_shutdown_timeout" : "gateway.restart_shutdown_timeout";
}

void gw_drain_arm_watchdog(struct gw_host *h)
{
    uint64_t at = forced_exit(h, h->drain.changed_ms, h->drain.budget.budget_ms);
    if (at == UINT64_MAX)
        gw_watchdog_disarm(h); // armed when closing starts
    else
        gw_watchdog_arm(h, at, "draining", report_reason(&h->drain));
}

void gw_drain_arm_closing(struct gw_host *h)
{
    struct drain *d = &h->drain;
    d->closing_ms = gw_now_ms();
    uint64_t at = forced_exit(h, d->closing_ms, 0), left = at > d->closing_ms ? at - d->closing_ms : 0;
    d->close_ms = left > GW_CLOSE_MS + 2 * GW_LAST_WORD_MS ? GW_CLOSE_MS
                  : left > 3 * GW_LAST_WORD_MS             ? left - 2 * GW_LAST_WORD_MS
                                                           : GW_LAST_WORD_MS;
    gw_watchdog_arm(h, at, "closing", report_reason(d));
}

uint64_t gw_drain_closing_left(const struct gw_host *h)
{
    uint64_t gone = gw_now_ms() - h->drain.closing_ms;
    return h->drain.close_ms > gone + GW_LAST_WORD_MS ? h->drain.close_ms - gone : GW_LAST_WORD_MS;
}

void gw_drain_arm(struct gw_host *h)
{
    struct drain *d = &h->drain;
    struct gw_work_counts counts = gw_work_counts(h->work);
    bool first = !d->active;
    d->active = true;
    uv_update_time(&h->loop);
    gw_drain_arm_watchdog(h);
    if (first)
        d->started_ms = gw_now_ms();
    counts.tasks -= counts.excused_tasks;
    counts.runs -= counts.excused_runs;
    if (counts.tasks + counts.runs == 0)
        return; // work/ says `drained` in a moment
    if (d->forced) {
        gw_log(GW_INFO, "drain.skipped", json_pack("{sisi}", "tasks", (int)counts.tasks, "runs", (int)counts.runs),
               "forced: what runs is not waited for (tasks: %u, runs: %u)", counts.tasks, counts.runs);
        gw_host_post(h, GW_EV_DRAIN_OVER);
        return;
    }
    json_t *fields = json_object();
    if (first) {
        d->had_work = true;
        gw_json_set(fields, "tasks", json_integer(counts.tasks));
        gw_json_set(fields, "runs", json_integer(counts.runs));
    }
    put_budget(fields, d->budget.budget_ms);
    char limit[32] = "without limit";
    if (d->budget.budget_ms != GW_UNLIMITED)
        (void)snprintf(limit, sizeof limit, "at most %lld ms", (long long)d->budget.budget_ms);
    if (first)
        gw_log(GW_INFO, "drain.started", fields, "waiting for what runs (tasks: %u, runs: %u), %s", counts.tasks, counts.runs, limit);
    else
        gw_log(GW_INFO, "drain.budget_changed", fields, "the drain goes on, %s from now", limit);
    gw_supervision_status(h, true, "Draining (tasks: %u, runs: %u), %s", counts.tasks, counts.runs, limit);
    if (first)
        say_blockers(h);
    arm_report(h);
    arm_nearest(h);
}

void gw_drain_rebudget(struct gw_host *h)
{
    struct drain *d = &h->drain;
    if (!d->active || d->forced || (h->state != GW_DRAINING && h->state != GW_DRAINING_TO_STOP))
        return;
    struct drain before = *d;
    bool leaving = gw_sched_current(h->sched) != NULL; // a stop that another process follows keeps a restart's budget
    gw_drain_ask(h, before.to_stop && !leaving);
    d->to_stop = before.to_stop;
    // A lane that was cut stays cut, whatever its new budget would have been.
    for (unsigned i = 0; i < d->budget.lane_count; i++)
        for (unsigned k = 0; k < before.budget.lane_count; k++)
            if ((before.lanes_cut & 1u << k) != 0 &&
                strcmp(d->budget.lanes[i].lane, before.budget.lanes[k].lane) == 0)
                d->lanes_cut |= 1u << i;
    json_t *fields = json_object();
    put_budget(fields, d->budget.budget_ms);
    if (d->budget.budget_ms == GW_UNLIMITED)
        gw_log(GW_INFO, "drain.budget_changed", fields, "the drain has no limit now");
    else
        gw_log(GW_INFO, "drain.budget_changed", fields, "the drain may take %lld ms now, %lld are gone",
               (long long)d->budget.budget_ms, (long long)elapsed(d));
    char limit[48] = "without limit now";
    if (d->budget.budget_ms != GW_UNLIMITED)
        (void)snprintf(limit, sizeof limit, "at most %lld ms now", (long long)d->budget.budget_ms);
    gw_supervision_status(h, true, "Draining, %s", limit);
    gw_work_fence(h->work, d->budget.accept_queue && !d->to_stop);
    gw_drain_arm_watchdog(h);
    uv_update_time(&h->loop);
    arm_report(h);
    arm_nearest(h);
}

void gw_drain_force(struct gw_host *h)
{
    struct drain *d = &h->drain;
    if (!d->active || (h->state != GW_DRAINING && h->state != GW_DRAINING_TO_STOP))
        return; // the request itself says it, to whoever drains later
    d->forced = true;
    d->changed_ms = gw_now_ms();
    d->budget = (struct gw_budget_answer){.report_every_ms = -1};
    gw_drain_arm_watchdog(h);
    gw_log(GW_INFO, "drain.skipped", NULL, "forced: what still runs is not waited for");
    gw_host_post(h, GW_EV_DRAIN_OVER);
}

static void end_timers(struct drain *d)
{
    d->active = false;
    gw_limit_stop(&d->limit);
    (void)uv_timer_stop(&d->report);
}

void gw_drain_cut(struct gw_host *h)
{
    struct drain *d = &h->drain;
    unsigned tasks = 0, runs = 0;
    end_timers(d);
    gw_work_cut(h->work, NULL, &tasks, &runs);
    if (!d->forced)
        gw_log(GW_WARN, "drain.timeout", json_pack("{sisi}", "tasks", (int)tasks, "runs", (int)runs),
               "the drain's budget ran out; going on without what is left (tasks: %u, runs: %u)", tasks, runs);
    gw_supervision_status(h, false, "%s without what is left (tasks: %u, runs: %u)",
                          d->forced ? "Forced: going on" : "The drain's budget ran out: going on", tasks, runs);
    if (tasks + runs > 0)
        gw_log(GW_WARN, "work.aborted",
               json_pack("{sssisi}", "mode", "all", "tasks", (int)tasks, "runs", (int)runs),
               "what is left is aborted, tasks are marked interrupted before (tasks: %u, runs: %u)", tasks, runs);
}

void gw_drain_over(struct gw_host *h, bool drained)
{
    struct drain *d = &h->drain;
    if (!d->active)
        return;
    int64_t ms = (int64_t)(gw_now_ms() - d->started_ms);
    end_timers(d);
    if (d->had_work && !d->forced) {
        gw_log(GW_INFO, "drain.completed", json_pack("{sI}", "elapsed_ms", (json_int_t)ms),
               "nothing is left to wait for, after %lld ms", (long long)ms);
        gw_supervision_status(h, false, "Drained after %lld ms", (long long)ms);
    }
    gw_host_post(h, GW_EV_DRAINED);
}
