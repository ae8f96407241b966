/* restarts.c - requests to restart, between those who ask and the scheduler that decides when. */
#include "host/inside.h"

#include <errno.h>
#include <string.h>

static enum gw_phase phase(const struct gw_host *h)
{
    switch (h->state) {
    case GW_RUNNING:
        return GW_PHASE_RUNNING;
    case GW_PREPARING:
    case GW_DRAINING:
        return GW_PHASE_LEAVING;
    case GW_FAILED:
        return GW_PHASE_FAILED;
    case GW_DRAINING_TO_STOP:
        // One that drains to leave for a supervisor is a restart still.
        return gw_sched_current(h->sched) != NULL ? GW_PHASE_LEAVING : GW_PHASE_STOPPING;
    case GW_STOPPING:
    case GW_WINDING_DOWN:
    case GW_EXITED:
        return GW_PHASE_STOPPING;
    default:
        return GW_PHASE_STARTING;
    }
}

static int pending(const struct gw_host *h)
{
    if (h->work == NULL)
        return 0;
    struct gw_work_counts counts = gw_work_counts(h->work);
    return (int)(counts.tasks - counts.excused_tasks + counts.runs - counts.excused_runs);
}

struct gw_sched_now gw_restarts_now(const struct gw_host *h)
{
    return (struct gw_sched_now){.ms = gw_now_ms(),
                                 .wall_ms = gw_wall_ms(),
                                 .phase = phase(h),
                                 .pending = pending(h),
                                 .generation = h->generation};
}

/* Before anything else is said of it. */
static void say_requested(struct gw_host *h, const struct gw_restart *r)
{
    if (!h->asking)
        return;
    h->asking = false;
    gw_log(GW_INFO, "restart.requested",
           json_pack("{ssssso}", "request_id", r->id, "source", r->source, "reason", gw_json_string(r->reason)),
           "a restart is asked for by %s: %s", r->source, r->reason);
}

static void on_ended(void *ud, const struct gw_restart *r)
{
    struct gw_host *h = ud;
    say_requested(h, r); // one that is merged or refused ends as it is asked for
    if (r->merged_into[0] != '\0')
        gw_log(GW_INFO, "restart.merged", json_pack("{ssss}", "request_id", r->id, "into", r->merged_into),
               "request %s is merged into %s", r->id, r->merged_into);
    gw_history_keep(h, r); // first: who hears of it may look it up
    json_t *fields = json_pack("{ssss}", "request_id", r->id, "outcome", r->outcome);
    gw_json_set(fields, "why", r->why[0] != '\0' ? gw_json_string(r->why) : NULL);
    gw_log(GW_INFO, "restart.outcome", fields, "request %s: %s%s%s", r->id, r->outcome,
           r->why[0] != '\0' ? ", " : "", r->why);
    if (h->work != NULL && gw_sched_current(h->sched) == NULL && gw_sched_waiting(h->sched) == NULL)
        gw_work_unexcuse(h->work);
}

void gw_restarts_open(struct gw_host *h)
{
    struct gw_sched_config config = {.defer_timeout_ms = h->options.defer_timeout_ms, .ended = on_ended, .ud = h};
    h->sched = gw_sched_new(&config);
}

static void on_timer(uv_timer_t *timer)
{
    gw_restarts_look(timer->data);
}

void gw_restarts_look(struct gw_host *h)
{
    struct gw_sched_look look = gw_sched_look(h->sched, gw_restarts_now(h));
    const struct gw_restart *r = gw_sched_waiting(h->sched);
    if (look.what == GW_DO_REPORT)
        gw_log(GW_INFO, "restart.still_deferred", json_pack("{sssi}", "request_id", r->id, "pending", pending(h)),
               "request %s still waits for an idle moment: %d pending", r->id, pending(h));
    if (look.what == GW_DO_GO)
        gw_host_post(h, GW_EV_RESTART);
    if (h->work != NULL && look.watch_idle)
        gw_work_watch_idle(h->work);
    else if (h->work != NULL)
        gw_work_unwatch_idle(h->work);
    uint64_t now = gw_now_ms();
    if (look.next_ms == UINT64_MAX || look.what == GW_DO_GO) {
        (void)uv_timer_stop(&h->sched_timer);
        return;
    }
    uv_update_time(&h->loop);
    (void)uv_timer_start(&h->sched_timer, on_timer, look.next_ms > now ? look.next_ms - now : 0, 0);
}

void gw_restarts_idle(void *host)
{
    gw_restarts_look(host);
}

/* The restart under way wants something else than before. */
static void current_changed(struct gw_host *h, uint32_t changed)
{
    const struct gw_restart *r = gw_sched_current(h->sched);
    if ((changed & 1u << GW_JOIN_CONTINUATION) != 0 && h->continuation == NULL) {
        h->continuation = json_incref(r->continuation);
        gw_update_accepted(h, r);
    }
    // Another mode may answer an update, and must answer a SIGTERM that comes under a supervisor.
    bool must_end = (changed & 1u << GW_JOIN_END) != 0 && gw_supervision_by(h) != NULL;
    if ((changed & 1u << GW_JOIN_UPDATE) != 0 || must_end)
        gw_prepare_upgrade(h);
    if ((changed & 1u << GW_JOIN_FORCE) != 0)
        gw_drain_force(h);
    else if ((changed & 1u << GW_JOIN_WAIT) != 0)
        gw_drain_rebudget(h);
}

struct gw_sched_told gw_restarts_ask(struct gw_host *h, const struct gw_ask *ask)
{
    if (ask->requester != NULL && h->work != NULL)
        (void)gw_work_excuse(h->work, ask->requester);
    struct gw_sched_now now = gw_restarts_now(h);
    int before = now.pending;
    h->asking = true;
    struct gw_sched_told told = gw_sched_ask(h->sched, ask, now);
    const struct gw_restart *r = told.request;
    say_requested(h, r);
    if (r->outcome[0] == '\0')
        gw_history_keep(h, r);
    if (told.answer == GW_ASK_REFUSED)
        gw_log(GW_WARN, "restart.refused", json_pack("{ssss}", "request_id", r->id, "why", r->why),
               "request %s is refused: this host stops", r->id);
    if (told.answer == GW_ASK_DEFERRED && r->not_before_ms > now.ms)
        gw_log(GW_WARN, "restart.slowed",
               json_pack("{sssI}", "request_id", r->id, "wait_ms", (json_int_t)(r->not_before_ms - now.ms)),
               "request %s waits %lld ms: the application asks for restarts faster than they are good for anything; "
               "look at what calls gwhost.restart", r->id, (long long)(r->not_before_ms - now.ms));
    else if (told.answer == GW_ASK_DEFERRED)
        gw_log(GW_INFO, "restart.deferred", json_pack("{sssi}", "request_id", r->id, "pending", before),
               before > 0 ? "request %s waits for an idle moment: %d pending"
                          : "request %s waits for the cooldown of 30 s after the last restart: %d pending",
               r->id, before);
    if (told.into_current)
        current_changed(h, told.changed);
    gw_restarts_look(h);
    return told;
}

json_t *gw_restarts_told(const struct gw_sched_told *told)
{
    static const char *const names[] = {"accepted", "deferred", "merged", "refused"};
    const struct gw_restart *r = told->request;
    json_t *o = json_pack("{ssss}", "request_id", r->id, "status", names[told->answer]);
    if (told->answer != GW_ASK_MERGED)
        return o;
    json_t *changed = json_array();
    for (int i = 0; i < GW_JOINS; i++)
        if ((told->changed & 1u << i) != 0)
            (void)json_array_append_new(changed, json_string(gw_join_name((enum gw_join)i)));
    gw_json_set(o, "merged_into", json_string(r->merged_into));
    gw_json_set(o, "changed", changed);
    return o;
}

const struct gw_restart *gw_restarts_accept(struct gw_host *h)
{
    const struct gw_restart *r = gw_sched_accept(h->sched, gw_restarts_now(h));
    (void)uv_timer_stop(&h->sched_timer);
    if (h->work != NULL)
        gw_work_unwatch_idle(h->work);
    if (r == NULL)
        return NULL;
    json_decref(h->continuation);
    h->continuation = json_incref(r->continuation);
    json_t *fields = json_pack("{sssosb}", "request_id", r->id, "reason", gw_json_string(r->reason), "force", r->force);
    gw_json_set(fields, "wait_ms", r->wait_ms >= 0 ? json_integer(r->wait_ms) : NULL);
    gw_log(GW_INFO, "restart.accepted", fields, "request %s is accepted: %s%s", r->id, r->reason,
           r->force ? ", forced" : "");
    return r;
}

void gw_restarts_end(struct gw_host *h, const char *outcome, const char *why)
{
    gw_sched_end(h->sched, outcome, why, h->generation);
}

// ---- what applications ask ----

static void on_started(void *ud, struct gw_app *app, int code, const struct gw_err *err)
{
    struct gw_host *h = ud;
    if (h->start_over)
        return;
    gw_limit_stop(&h->start_limit);
    if (code < 0)
        h->start_err = *err;
    gw_host_post(h, code < 0 ? GW_EV_START_FAILED : GW_EV_STARTED);
}

static void on_closed(void *ud, struct gw_app *app, int code, const struct gw_err *err)
{
    struct gw_host *h = ud;
    gw_limit_stop(&h->close_limit);
    if (code < 0)
        h->close_err = *err;
    else
        gw_log(GW_INFO, "app.closed", json_pack("{sI}", "ms", (json_int_t)(gw_wall_ms() - h->state_since_ms)),
               "the application has closed");
    gw_host_post(h, code < 0 ? GW_EV_CLOSE_FAILED : GW_EV_CLOSED);
}

static int on_restart(void *ud, const struct gw_app_ask_restart *app, json_t **ret_told, struct gw_err *err)
{
    struct gw_ask ask = {.source = app->http ? "http" : "app",
                         .reason = app->reason,
                         .force = app->force,
                         .when_idle = app->when_idle,
                         .has_intent = true,
                         .wait_ms = app->wait_ms,
                         .requester = app->requester,
                         .continuation = app->continuation};
    struct gw_sched_told told = gw_restarts_ask(ud, &ask);
    if (told.answer == GW_ASK_REFUSED)
        return gw_err_set(err, -ESHUTDOWN, "the gateway stops");
    *ret_told = gw_restarts_told(&told);
    return 0;
}

static json_t *on_outcome(void *ud, const char *id)
{
    struct gw_host *h = ud;
    const struct gw_restart *r = gw_sched_find(h->sched, id);
    return r != NULL ? gw_restart_json(r) : NULL;
}

static json_t *on_status(void *ud)
{
    return gw_status(ud);
}

const struct gw_app_ops *gw_host_app_ops(void)
{
    static const struct gw_app_ops ops = {.started = on_started,
                                          .closed = on_closed,
                                          .restart = on_restart,
                                          .restart_outcome = on_outcome,
                                          .status = on_status};
    return &ops;
}
