/* effects.c - what a step of the machine makes happen, in the order of enum gw_effect. */
#include "host/inside.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SWEEP_MS = 1000, STORE_SOON_MS = 1000 };

// ---- asked for ----

static void remember(struct gw_host *h)
{
    // A request stays open in `waiting`; gw_restarts_look() looks at it after the start.
    if (h->state == GW_ARRIVING && h->stops)
        h->standby.stop_waits = true;
}

static void become_stop(struct gw_host *h)
{
    const struct gw_restart *r = gw_sched_current(h->sched);
    const char *id = r != NULL ? r->id : "";
    gw_log(GW_INFO, "restart.becomes_stop", json_pack("{ss}", "request_id", id), "the restart becomes a stop");
    gw_succession_stop(h);
    gw_update_failed(h, &(struct gw_err){.code = -ECANCELED, .text = "the restart became a stop"});
    gw_restarts_end(h, "failed", "became a stop");
    gw_supervision_stays(h);
}

static void ask_stop_budget(struct gw_host *h)
{
    bool draining = h->drain.active;
    struct drain *d = &h->drain;
    if (!draining)
        *d = (struct drain){.limit = d->limit, .report = d->report, .end_at_ms = UINT64_MAX};
    d->accepted_ms = gw_now_ms();
    if (h->work != NULL)
        gw_work_keep_ends(h->work, false);
    if (h->state == GW_DRAINING_TO_STOP)
        gw_drain_ask(h, true);
    else
        gw_drain_none(h);
}

static void fence(struct gw_host *h)
{
    gw_work_fence(h->work, h->drain.budget.accept_queue && !h->drain.to_stop);
    gw_work_keep_ends(h->work, !h->drain.to_stop && h->mode != GW_MODE_SUPERVISED);
    unsigned runs = gw_work_abort_compacting(h->work);
    if (runs > 0)
        gw_log(GW_INFO, "work.aborted", json_pack("{sssisi}", "mode", "compacting", "tasks", 0, "runs", (int)runs),
               "%u compacting runs are ended first", runs);
}

static void arm_drain(struct gw_host *h)
{
    // Clients that are answered from here on know that the connection ends, before it does.
    if (h->state != GW_DRAINING)
        gw_net_say_close(h->net, true);
    if (h->state != GW_DRAINING)
        gw_supervision_stopping(h);
    if (h->state == GW_STOPPING || h->state == GW_WINDING_DOWN) {
        gw_drain_arm_closing(h);
        return;
    }
    gw_drain_arm(h);
}

// ---- the boundary ----

static void boundary(struct gw_host *h)
{
    gw_watchdog_phase("boundary");
    gw_limit_stop(&h->close_limit);
    (void)h->app->class->release(h->app, SWEEP_MS);
    h->old_app = h->app;
    h->app = NULL;
    gw_workload_count_refused(h);
    gw_work_boundary(h->work);
    gw_sched_boundary(h->sched);
    if (h->mode == GW_MODE_IN_PROCESS) // another process or image reads it itself
        (void)gw_host_reload_policy(h, "restart", NULL);
}

// ---- another process ----

static void hand_over(struct gw_host *h)
{
    gw_succession_go(h);
}

/* The successor has come to nothing: what it was given is ours again. */
static void take_back(struct gw_host *h)
{
    struct gw_err err = {0};
    gw_succession_end(h);
    gw_net_thaw(h->net);
    gw_control_pause(h, false);
    gw_boot_describe_lock(h);
    gw_log(GW_INFO, "lock.acquired", json_pack("{so}", "path", gw_json_string(h->options.state_dir)),
           "this host owns the state directory again");
    gw_work_take_back(h->work);
    if (gw_net_wind_up(h->net) && gw_listeners_open(h, &err) < 0) {
        h->cannot_serve = true;
        h->start_err = err;
    }
    (void)gw_host_reload_policy(h, "restart", NULL);
}

// ---- starting ----

static void on_late_start(struct gw_limit *limit)
{
    struct gw_host *h = limit->data;
    h->start_over = true;
    gw_err_set(&h->start_err, -ETIMEDOUT, "the application's start(ctx) did not return in time (--start-timeout %llu ms)",
               (unsigned long long)h->options.start_timeout_ms);
    gw_host_post(h, GW_EV_START_FAILED);
}

static void begin(struct gw_host *h)
{
    h->generation++;
    gw_log_generation(h->generation);
    // A start has a limit of its own, which the loop keeps; the last resort is for one that lets no loop run.
    gw_watchdog_arm(h, h->options.start_timeout_ms > 0
                           ? gw_now_ms() + h->options.start_timeout_ms + GW_FORCED_EXIT_MS
                           : UINT64_MAX,
                    "starting", h->generation == 1 && !h->standby.active ? "gateway.startup_failed"
                                                                         : "gateway.restart_startup_failed");
    h->start_over = false;
    h->start_err = (struct gw_err){0};
    json_t *listeners = json_array();
    for (size_t i = 0; i < h->socket_count; i++)
        (void)json_array_append_new(listeners, gw_json_string(h->sockets[i].address));
    struct gw_app_start start = {.generation = h->generation,
                                 .boot_id = h->boot_id,
                                 .startup_started_at_ms =
                                     h->generation == 1 ? h->startup_started_at_ms : gw_wall_ms(),
                                 .listeners = listeners,
                                 .continuation = h->continuation};
    if (h->options.start_timeout_ms > 0)
        gw_limit_start(&h->start_limit, on_late_start, h->options.start_timeout_ms);
    h->state_since_ms = gw_wall_ms();
    h->app->class->start(h->app, &start);
    json_decref(listeners);
    json_decref(h->continuation);
    h->continuation = NULL;
}

/* With the store or without it: nothing is given up because of it, and it comes back by itself. */
static void start_now(struct gw_host *h, const struct gw_err *err)
{
    // Where another process was to come, nobody has looked at the files for this one yet.
    if (h->next_app == NULL && gw_host_prepare_app(h, &h->start_err) < 0) {
        gw_host_post(h, GW_EV_START_FAILED);
        return;
    }
    h->app = h->next_app;
    h->next_app = NULL;
    (void)gw_sources_unref(h->sources);
    h->sources = h->next_sources;
    h->next_sources = NULL;
    h->reverted = (struct gw_err){0};
    begin(h);
}

static void start(struct gw_host *h)
{
    if (h->cannot_serve)
        gw_host_post(h, GW_EV_START_FAILED);
    else
        gw_workload_await(h, STORE_SOON_MS, start_now);
}

void gw_effects_start_limit(struct gw_host *h, uint64_t ms)
{
    if (h->options.start_timeout_ms == 0 || ms < h->options.start_timeout_ms)
        gw_limit_start(&h->start_limit, on_late_start, ms);
}

/* A start that did not succeed leaves nothing behind. */
static void drop_started(struct gw_host *h)
{
    if (h->stops && h->state == GW_EXITED)
        gw_standby_say_stop(h);
    gw_limit_stop(&h->start_limit);
    if (h->app == NULL)
        return;
    (void)h->app->class->release(h->app, SWEEP_MS);
    h->app->class->free(h->app);
    h->app = NULL;
}

static void report_start(struct gw_host *h)
{
    bool first = h->state == GW_EXITED;
    if (h->standby.active && first)
        gw_standby_fail(h, h->start_err.code, h->start_err.text);
    const char *then = first ? "the process ends"
                       : h->state == GW_REVERTING
                           ? "the last good sources are started again"
                           : "the process stays alive without serving: mend the application, then ask for a restart "
                             "(kill -USR1 its pid) or stop it";
    json_t *fields = json_pack("{so}", "error", gw_json_string(h->start_err.text));
    gw_log(GW_ERROR, "app.start_failed", fields, "generation %u did not start; %s", h->generation, then);
    gw_bundle_write(h, first ? "gateway.startup_failed" : "gateway.restart_startup_failed", &h->start_err);
    drop_started(h);
}

static void start_last_good(struct gw_host *h)
{
    if (h->cannot_serve || h->good_sources == NULL) {
        gw_host_post(h, GW_EV_START_FAILED);
        return;
    }
    h->reverted = h->start_err;
    struct gw_err err = {0};
    if (gw_lua_app_open(&h->env, h->good_sources, h->options.app, 0, &h->app, &err) < 0) {
        h->start_err = err;
        gw_host_post(h, GW_EV_START_FAILED);
        return;
    }
    (void)gw_sources_unref(h->sources);
    h->sources = gw_sources_ref(h->good_sources);
    gw_log(GW_WARN, "startup.rolled_back", json_pack("{so}", "error", gw_json_string(h->reverted.text)),
           "the last good sources are started again");
    begin(h);
}

static void on_retry(struct gw_limit *limit)
{
    struct gw_host *h = limit->data;
    if (h->state == GW_FAILED)
        gw_host_post(h, GW_EV_RESTART);
}

/* What the system lacked comes back without anybody telling us; an application has to be mended first. */
static void retry_later(struct gw_host *h)
{
    if (!h->cannot_serve || !gw_err_passes(h->start_err.code))
        return;
    h->retry_ms = h->retry_ms == 0 ? GW_RETRY_FIRST_MS : h->retry_ms * 2 < GW_RETRY_MAX_MS ? h->retry_ms * 2 : GW_RETRY_MAX_MS;
    gw_limit_start(&h->close_limit, on_retry, h->retry_ms);
    gw_log(GW_WARN, "host.retries", json_pack("{sIso}", "wait_ms", (json_int_t)h->retry_ms, "error", gw_json_string(h->start_err.text)),
           "that may pass: it is tried again by itself in %llu ms", (unsigned long long)h->retry_ms);
}

static void give_up(struct gw_host *h)
{
    drop_started(h);
    gw_watchdog_disarm(h);
    gw_standby_arrive(h); // where an image has been gone back to, nothing is ours before
    gw_update_failed(h, &h->start_err);
    gw_restarts_end(h, "failed", h->start_err.text);
    free(h->standby.went_back); // told: what is asked for from here on is another restart
    h->standby.went_back = NULL;
    for (size_t i = 0; i < h->socket_count; i++)
        (void)gw_listen_last_call(&h->sockets[i]);
    gw_net_accept_rest(h->net); // what is closed with somebody in its queue resets him
    gw_net_refuse_held(h->net, 503, "draining", "the gateway failed to start and waits for its operator");
    bool released = gw_workload_close(h);
    gw_net_unlisten(h->net);
    h->socket_count = gw_listen_close(h->sockets, h->socket_count, false);
    struct gw_err err = {0};
    for (size_t i = 0; i < h->socket_count; i++)
        (void)gw_net_listen(h->net, h->sockets[i].fd, h->sockets[i].address, &err);
    if (released) // else what is written last is not done, and the directory is nobody else's
        h->lock = gw_lock_release(h->lock);
    retry_later(h);
    gw_log(GW_ERROR, "lock.released", NULL, "store, lock and listeners are given up; pid %d stays alive: mend the "
           "application, then kill -USR1 %d to try again, or kill %d to end it", getpid(), getpid(), getpid());
    gw_supervision_status(h, false, "Failed to start, and serves nothing: %s", h->start_err.text);
    gw_restarts_look(h);
}

static void reacquire(struct gw_host *h)
{
    struct gw_err err = {0};
    h->cannot_serve = false;
    gw_limit_stop(&h->close_limit);
    h->succession.lost = (struct gw_err){0};
    (void)gw_restarts_accept(h);
    const struct gw_restart *r = gw_sched_current(h->sched);
    if (r != NULL && strcmp(r->signal, "SIGTERM") == 0 && gw_supervision_by(h) != NULL) {
        h->mode = GW_MODE_SUPERVISED; // who asks so waits for the end of this process
        gw_sched_set_mode(h->sched, gw_mode_name(h->mode));
        h->state = GW_EXITED;
        return;
    }
    h->mode = GW_MODE_IN_PROCESS; // there is nothing that could be handed over
    gw_sched_set_mode(h->sched, gw_mode_name(h->mode));
    int rc = h->lock != NULL ? 0 : gw_boot_acquire(h, &err);
    if (rc < 0) {
        if (rc == -EBUSY)
            gw_boot_say_busy(h, "this host ends");
        else
            gw_log(GW_ERROR, "lock.failed", json_pack("{so}", "error", gw_json_string(err.text)), "%s; this host ends", err.text);
        gw_restarts_end(h, "failed", err.text);
        h->exit_code = GW_EXIT_FAILED;
        h->state = GW_EXITED;
        return;
    }
    gw_net_unlisten(h->net);
    if (!gw_control_reachable(h)) { // another host has been here meanwhile
        gw_control_close(h);
        (void)gw_control_open(h, -1, &err);
    }
    if (gw_listeners_open(h, &err) < 0 || gw_workload_open(h, false, &err) < 0) {
        h->cannot_serve = true;
        h->start_err = err;
        gw_host_post(h, GW_EV_START_FAILED);
        return;
    }
    (void)gw_host_reload_policy(h, "restart", NULL);
    if (gw_host_prepare_app(h, &err) < 0) {
        h->start_err = err;
        gw_host_post(h, GW_EV_START_FAILED);
        return;
    }
    start(h);
}

static void adopt_socket(void *ud, struct gw_ws *ws)
{
    struct gw_host *h = ud;
    h->app->class->ws_adopt(h->app, ws);
}

/* What became of the restart that this start belongs to. An update that came back in the same process updated
 * nothing, whatever else went well. */
static void end_restart(struct gw_host *h)
{
    const struct gw_restart *r = gw_sched_current(h->sched);
    if (r == NULL)
        return;
    if (h->reverted.code != 0) {
        char *why = gw_asprintf("the new sources did not start, the last good ones serve: %s", h->reverted.text);
        gw_update_failed(h, &h->reverted);
        gw_restarts_end(h, "failed", why);
        free(why);
    } else if (h->standby.active && h->standby.went_back != NULL && h->generation == 1) {
        if (r->update)
            gw_log(GW_ERROR, "update.rolled_back", json_pack("{so}", "error", gw_json_string(h->standby.went_back)),
                   "the image that this update came from serves on: %s", h->standby.went_back);
        gw_restarts_end(h, r->update ? "rolled_back" : "failed", h->standby.went_back);
    } else if (r->update && !(h->standby.active && h->generation == 1)) {
        gw_restarts_end(h, "failed", h->succession.lost.code < 0 ? h->succession.lost.text : "image unchanged");
        gw_update_failed(h, &(struct gw_err){.text = "image unchanged"});
    } else {
        char same[700] = "";
        if (r->update && strcmp(h->standby.version, h->options.version) == 0)
            (void)snprintf(same, sizeof same, "the same version, %s, at %s", h->options.version, h->options.program);
        gw_restarts_end(h, "restarted", same[0] != '\0' ? same : NULL);
        gw_safe_mode_leave(h);
    }
}

static void announce(struct gw_host *h)
{
    gw_limit_stop(&h->start_limit);
    // Not armed, but rendered: a stop signal may find the loop stuck.
    gw_watchdog_arm(h, UINT64_MAX, "running", "gateway.stop_shutdown_timeout");
    char tag[64];
    (void)snprintf(tag, sizeof tag, "%.8s.%u", h->boot_id, h->generation);
    gw_net_tag(h->net, tag);
    gw_standby_arrive(h);
    gw_names_mend(h);
    gw_ws_each(h->net, adopt_socket, h);
    h->public_http = h->app->public_http;
    gw_work_start(h->work, h->generation);
    gw_workload_timer(h);
    gw_net_release(h->net);
    (void)gw_sources_unref(h->good_sources);
    h->good_sources = gw_sources_ref(h->sources);
    json_int_t ms = (json_int_t)(gw_wall_ms() - (h->generation == 1 ? h->startup_started_at_ms : h->state_since_ms));
    gw_log(GW_INFO, "app.started", json_pack("{sI}", "ms", ms), "generation %u serves", h->generation);
    json_t *addresses = json_array();
    struct gw_buf words = {0};
    for (size_t i = 0; i < h->socket_count; i++) {
        (void)json_array_append_new(addresses, gw_json_string(h->sockets[i].address));
        gw_buf_addf(&words, "%s%s", i > 0 ? ", " : "", h->sockets[i].address);
    }
    gw_log(GW_INFO, "host.ready", json_pack("{sosI}", "addresses", addresses, "ms", ms), "ready on %s",
           words.data != NULL ? words.data : "no address");
    gw_supervision_ready(h, words.data != NULL ? words.data : "no address");
    gw_buf_fini(&words);
    gw_safe_mode_served(h);
    gw_update_served(h);
    end_restart(h);
    h->start_err = (struct gw_err){0};
    h->retry_ms = 0;
    if (h->old_app != NULL) {
        h->old_app->class->free(h->old_app);
        h->old_app = NULL;
    }
    gw_restarts_look(h);
    if (h->standby.stop_waits) { // it came while the connections did
        h->standby.stop_waits = false;
        gw_host_post(h, GW_EV_STOP);
    }
}

static void ignore(struct gw_host *h)
{
    gw_log(GW_DEBUG, "host.ignored", json_pack("{ss}", "state", gw_state_name(h->state)),
           "nothing to do in this state");
}

void gw_effects_run(struct gw_host *h, uint32_t effects)
{
    static const struct {
        enum gw_effect effect;
        void (*run)(struct gw_host *h);
    } all[] = {{GW_FX_REMEMBER, remember},
               {GW_FX_BECOME_STOP, become_stop},
               {GW_FX_REFUSE, gw_prepare_refuse},
               {GW_FX_ROLL_BACK, gw_prepare_roll_back},
               {GW_FX_PREPARE, gw_prepare_restart},
               {GW_FX_ASK_STOP_BUDGET, ask_stop_budget},
               {GW_FX_FENCE, fence},
               {GW_FX_ARM_DRAIN, arm_drain},
               {GW_FX_CUT, gw_drain_cut},
               {GW_FX_CLOSE_APP, gw_closing_begin},
               {GW_FX_REPORT_CLOSE, gw_closing_report},
               {GW_FX_BOUNDARY, boundary},
               {GW_FX_SWITCH, gw_succession_switch},
               {GW_FX_HAND_OVER, hand_over},
               {GW_FX_TAKE_BACK, take_back},
               {GW_FX_TAKE_OVER, gw_standby_take_over},
               {GW_FX_START, start},
               {GW_FX_ABANDON_START, drop_started},
               {GW_FX_REPORT_START, report_start},
               {GW_FX_START_LAST_GOOD, start_last_good},
               {GW_FX_RELEASE, give_up},
               {GW_FX_REACQUIRE, reacquire},
               {GW_FX_SAY_STARTED, gw_standby_say_started},
               {GW_FX_ANNOUNCE, announce},
               {GW_FX_WIND_DOWN, gw_closing_wind_down},
               {GW_FX_DEPART, gw_closing_depart},
               {GW_FX_IGNORE, ignore}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if ((effects & all[i].effect) != 0)
            all[i].run(h);
    if ((effects & GW_FX_EXIT_1) != 0 && h->exit_code == GW_EXIT_OK)
        h->exit_code = GW_EXIT_FAILED;
}
