/* boot.c - from nothing to the first start, and from the last event to nothing. */
#include "host/inside.h"

#include "app/stand.h"
#include "loop/child.h"
#include "loop/leftovers.h"
#include "loop/reaper.h"
#include "os/holder.h"
#include "os/intent.h"
#include "os/proc.h"
#include "os/statedir.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOCK_RETRY_MS = 50 };

static json_t *addresses(const struct gw_host *h)
{
    json_t *list = json_array();
    for (size_t i = 0; i < h->socket_count; i++)
        (void)json_array_append_new(list, gw_json_string(h->sockets[i].address));
    return list;
}

static char *lock_info(struct gw_host *h)
{
    struct gw_proc_facts self = {0};
    char name[65] = "";
    (void)gw_proc_read(getpid(), &self);
    (void)gethostname(name, sizeof name - 1);
    json_t *o = json_object();
    gw_json_set(o, "pid", json_integer(getpid()));
    gw_json_set(o, "start_time", json_integer((json_int_t)self.start_time));
    gw_json_set(o, "host", gw_json_string(name));
    gw_json_set(o, "pid_ns", json_integer((json_int_t)gw_holder_pid_ns()));
    gw_json_set(o, "boot_id", json_string(h->boot_id));
    gw_json_set(o, "created_at", json_integer(gw_wall_ms()));
    gw_json_set(o, "listen", addresses(h));
    gw_json_set(o, "version", json_string(h->options.version));
    char *json = gw_json_text(o);
    char *line = gw_asprintf("%s\n", json);
    free(json);
    json_decref(o);
    return line;
}

/* Options that do not go together are refused before anything is touched. */
static int check_options(struct gw_host *h, struct gw_err *err)
{
    const struct gw_host_options *o = &h->options;
    for (size_t i = 0; i < o->listen_count; i++) {
        int rc = gw_listen_check(o->listen[i], err);
        if (rc < 0)
            return rc;
    }
    if (o->open && o->allow_exec)
        return gw_err_set(err, -EINVAL, "--open and --allow-exec together would let anyone on this machine run "
                          "commands: leave one of them out");
    return 0;
}

static int check_sockets(struct gw_host *h, struct gw_err *err)
{
    if (h->socket_count > GW_SOCKETS_MAX)
        return gw_err_set(err, -E2BIG, "%zu listening sockets are more than the %d that the next process could be given: "
                          "give fewer --listen", h->socket_count, GW_SOCKETS_MAX);
    for (size_t i = 0; h->options.open && i < h->socket_count; i++)
        if (!h->sockets[i].loopback)
            return gw_err_set(err, -EINVAL, "--open serves without a token, so it listens on loopback and unix "
                              "sockets only, not on %s: leave out --open or change --listen", h->sockets[i].address);
    return 0;
}

/* A supervisor starts what has failed again, and leaves alone what can never work: an option, a policy, an application,
 * a file as they were given. What the system lacks at the moment is not among these. */
static int exit_code_of(int code)
{
    return gw_err_passes(code) ? GW_EXIT_FAILED : GW_EXIT_CONFIG;
}

/* Ends a host that has not begun. */
static void leave(struct gw_host *h, int exit_code, const struct gw_err *why)
{
    if (h->standby.active)
        gw_standby_fail(h, why->code, why->text);
    h->exit_code = h->standby.active && h->stops ? GW_EXIT_OK : exit_code;
    h->state = GW_EXITED;
    uv_stop(&h->loop);
}

static void fail_config(struct gw_host *h, const struct gw_err *err)
{
    gw_log(GW_ERROR, "app.start_failed", json_pack("{so}", "error", gw_json_string(err->text)),
           "%s; nothing was started", err->text);
    leave(h, exit_code_of(err->code), err);
}

static bool is_waited_for(void *ud, pid_t pid)
{
    const struct gw_host *h = ud;
    return gw_child_owns(pid) || pid == h->succession.process.pid;
}

/* Without a loop or a thread for signals nothing can be done, but go back to the image that this one comes from. */
static int fail_bare(struct gw_host *h, int code, const char *words)
{
    gw_log(GW_ERROR, "app.start_failed", json_pack("{so}", "error", gw_json_string(words)), "%s; nothing was started", words);
    if (h->options.handover_fd >= 0 && gw_standby_read_file(h, NULL) > 0)
        gw_reexec_back(h, code, words);
    return h->stops ? GW_EXIT_OK : exit_code_of(code);
}

int gw_boot_without_loop(struct gw_host *h, int code)
{
    char words[160];
    (void)snprintf(words, sizeof words, "cannot make an event loop: %s", gw_strerror(code));
    return fail_bare(h, code, words);
}

void gw_boot_open(struct gw_host *h)
{
    struct gw_err err = {0};
    struct gw_sentry_config config = {.signal = gw_host_on_signal,
                                      .expired = gw_watchdog_fire,
                                      .quit = gw_stand_ask,
                                      .stop_grace_ms = GW_FORCED_EXIT_MS,
                                      .patient = gw_standby_by_exec(h),
                                      .ud = h};
    gw_watchdog_phase("starting");
    gw_stand_open();
    gw_outlet_open(h);
    gw_still_open(h);
    struct gw_limit *limits[] = {&h->work_limit, &h->start_limit, &h->close_limit, &h->drain.limit, &h->succession.limit};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        gw_limit_init(&h->loop, limits[i], h);
    uv_timer_t *timers[] = {&h->lock_timer, &h->drain.report, &h->sched_timer, &h->watch_timer,
                            &h->supervision.alive_timer};
    for (size_t i = 0; i < sizeof timers / sizeof *timers; i++) {
        (void)uv_timer_init(&h->loop, timers[i]);
        timers[i]->data = h;
    }
    gw_restarts_open(h);
    if (gw_sentry_open(&h->loop, &config, &h->sentry, &err) < 0) {
        leave(h, fail_bare(h, err.code, err.text), &err);
        return;
    }
    if (h->options.handover_fd >= 0 && gw_standby_meet(h, &err) < 0) {
        fail_config(h, &err);
        return;
    }
    gw_leftovers_adopt();
    h->reaper = gw_reaper_open(&h->loop, is_waited_for, h);
    gw_log(GW_INFO, "host.starting",
           json_pack("{ssss}", "version", h->options.version, "state_dir", h->options.state_dir),
           "gwhost %s starts", h->options.version);
    gw_supervision_open(h);
    if (check_options(h, &err) < 0 || gw_statedir_open(h->options.state_dir, &h->dir_fd, &err) < 0 ||
        gw_policy_init(&err) < 0) {
        fail_config(h, &err);
        return;
    }
    if (gw_host_first_policy(h, &err) < 0) {
        leave(h, exit_code_of(err.code), &err);
        return;
    }
    gw_watchdog_arm(h, UINT64_MAX, "starting", "gateway.stop_shutdown_timeout");
    if (!h->standby.active) {
        h->lock_since_ms = gw_now_ms();
        gw_boot_take_lock(h);
    } else if (gw_standby_get_ready(h, &err) < 0) {
        fail_config(h, &err);
    }
}

/* A start that failed before there was an application: said, and the process ends with exit_code. */
static void give_up(struct gw_host *h, const struct gw_err *err, int exit_code)
{
    h->start_err = *err;
    h->exit_code = exit_code;
    gw_host_post(h, GW_EV_START_FAILED);
}

void gw_boot_describe_lock(struct gw_host *h)
{
    char *info = lock_info(h);
    (void)gw_lock_describe(h->lock, info, NULL);
    free(info);
}

int gw_boot_serve(struct gw_host *h, struct gw_err *err)
{
    int rc = gw_listeners_open(h, err);
    if (rc < 0)
        return rc;
    h->env = (struct gw_app_env){.loop = &h->loop,
                                 .net = h->net,
                                 .lua_dir = h->options.lua_dir,
                                 .handlers_dir = h->options.handlers_dir,
                                 .allow_exec = h->options.allow_exec,
                                 .child_nofile = h->options.child_nofile,
                                 .vars = h->options.vars,
                                 .kept = json_object(),
                                 .ops = NULL,
                                 .ud = h};
    return check_sockets(h, err);
}

int gw_boot_own(struct gw_host *h, bool planned, struct gw_err *err)
{
    gw_boot_describe_lock(h);
    if (!planned) {
        gw_net_events_from(h->net, (uint64_t)gw_wall_ms()); // no event of another boot has a number from here on
        gw_safe_mode_begin(h, NULL);
        gw_history_load(h);
    }
    gw_update_read(h);
    return gw_workload_open(h, planned, err);
}

/* What the host before was told does not mean this one, though it may have the same pid in a new container. */
static void forget_old_intent(struct gw_host *h)
{
    struct gw_err err = {0};
    int rc = gw_intent_clear_before(h->dir_fd, h->startup_started_at_ms, &err);
    if (rc > 0)
        gw_log(GW_WARN, "intent.removed", NULL, "a restart intent that is older than this host was for another one; it is removed");
    else if (rc < 0)
        gw_log(GW_WARN, "intent.removed", json_pack("{so}", "error", gw_json_string(err.text)),
               "a restart intent that is older than this host stays: %s", err.text);
}

static void with_store(struct gw_host *h, const struct gw_err *unopened)
{
    struct gw_err err = *unopened;
    if (err.code < 0) { // but for a newer program's store it may be another one the next time
        give_up(h, &err, err.code == -ENOTSUP ? GW_EXIT_CONFIG : GW_EXIT_FAILED);
        return;
    }
    if (gw_host_prepare_app(h, &err) < 0) {
        give_up(h, &err, exit_code_of(err.code));
        return;
    }
    gw_watch_open(h);
    gw_effects_run(h, GW_FX_START);
}

static void with_lock(struct gw_host *h)
{
    struct gw_err err = {0};
    forget_old_intent(h);
    if (gw_boot_serve(h, &err) < 0 || gw_token_open(h, &err) < 0) {
        give_up(h, &err, exit_code_of(err.code));
        return;
    }
    // What is in the state directory is nothing that anybody has given, but the lanes are.
    if (gw_control_open(h, -1, &err) < 0 || gw_boot_own(h, false, &err) < 0) {
        give_up(h, &err, err.code == -EINVAL ? GW_EXIT_CONFIG : GW_EXIT_FAILED);
        return;
    }
    gw_workload_await(h, GW_HEALTH_MS, with_store);
}

int gw_boot_acquire(struct gw_host *h, struct gw_err *err)
{
    char *info = lock_info(h);
    int rc = gw_lock_acquire(h->dir_fd, h->options.state_dir, info, &h->lock, err);
    free(info);
    if (rc == 0)
        gw_log(GW_INFO, "lock.acquired", json_pack("{so}", "path", gw_json_string(h->options.state_dir)),
               "this host owns the state directory");
    return rc;
}

void gw_boot_say_busy(struct gw_host *h, const char *then)
{
    struct gw_holder holder = gw_holder_find(h->dir_fd);
    json_t *fields = json_pack("{so}", "owner_pid", holder.pid > 0 ? json_integer(holder.pid) : json_null());
    char who[160] = "another process, which cannot be told from here,";
    if (holder.elsewhere)
        (void)snprintf(who, sizeof who, "pid %d in another container or on another machine%s%s", (int)holder.pid,
                       holder.host[0] != '\0' ? ", host " : "", holder.host);
    else if (holder.pid > 0)
        (void)snprintf(who, sizeof who, "pid %d", (int)holder.pid);
    if (holder.elsewhere)
        gw_json_set(fields, "owner_host", gw_json_string(holder.host));
    gw_log(GW_ERROR, "lock.busy", fields, "%s owns '%s' and serves on; %s", who, h->options.state_dir, then);
}

static void on_lock_timer(uv_timer_t *timer)
{
    gw_boot_take_lock(timer->data);
}

void gw_boot_take_lock(struct gw_host *h)
{
    struct gw_err err = {0};
    int rc = gw_boot_acquire(h, &err);
    if (rc == 0) {
        with_lock(h);
        return;
    }
    if (rc == -EBUSY && gw_now_ms() - h->lock_since_ms < GW_LOCK_WAIT_MS) {
        (void)uv_timer_start(&h->lock_timer, on_lock_timer, LOCK_RETRY_MS, 0);
        return;
    }
    if (rc == -EBUSY)
        gw_boot_say_busy(h, "stop it, or give another --state-dir");
    else
        gw_log(GW_ERROR, "lock.failed", json_pack("{so}", "error", gw_json_string(err.text)), "%s", err.text);
    leave(h, rc == -EBUSY ? GW_EXIT_OWNED : exit_code_of(rc), &err);
}

static void free_app(struct gw_app **app)
{
    if (*app == NULL)
        return;
    (void)(*app)->class->release(*app, 1000);
    (*app)->class->free(*app);
    *app = NULL;
}

static void close_walked(uv_handle_t *handle, void *loop)
{
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

void gw_boot_close(struct gw_host *h)
{
    gw_still_close(h);
    if (h->net != NULL && !h->departed) // else they are the next process's
        gw_net_refuse_held(h->net, 503, "stopping", "the gateway stops");
    free_app(&h->next_app);
    free_app(&h->app);
    free_app(&h->old_app);
    bool released = gw_workload_close(h);
    if (h->net != NULL)
        gw_net_close(h->net, NULL, NULL);
    for (size_t i = 0; h->standby.active && !h->standby.arrived && i < h->socket_count; i++)
        h->sockets[i].kept = true; // its file is not ours to remove
    (void)gw_listen_close(h->sockets, h->socket_count, true);
    free(h->sockets);
    gw_watch_close(h);
    h->policy = gw_policy_free(h->policy);
    for (int i = 0; i < POLICIES_KEPT; i++)
        h->older[i] = gw_policy_free(h->older[i]);
    gw_policy_fini();
    // A restart that is still open: one that has departed, or not arrived, leaves it to the process that serves.
    const struct standby *s = &h->standby;
    bool ours = !h->departed && (!s->active || s->arrived || s->gone || s->channel == NULL);
    if (ours && h->mode == GW_MODE_SUPERVISED && h->exit_code == GW_EXIT_OK)
        gw_restarts_end(h, "restarted", "another process comes back");
    else if (ours)
        gw_restarts_end(h, "failed", "this host has ended before it was carried out");
    const struct gw_restart *waiting = gw_sched_waiting(h->sched);
    if (ours && waiting != NULL)
        (void)gw_sched_cancel(h->sched, waiting->id, NULL);
    gw_safe_mode_end(h);
    if (h->departed)
        gw_succession_depart(h);
    else
        gw_succession_end(h);
    gw_standby_close(h);
    h->reaper = gw_reaper_close(h->reaper);
    // Who follows hears of the end while that is possible; its line in the log comes once the lock is free.
    json_t *code = json_pack("{si}", "code", h->exit_code);
    json_t *end = gw_log_object(GW_INFO, "host.exiting", code, "this host ends");
    gw_control_tell(h, end);
    json_decref(end);
    json_decref(code);
    gw_control_close(h);
    gw_watchdog_disarm(h);
    // Closed callbacks run here; what is left then is a child that has not died yet.
    for (int i = 0; i < 8; i++)
        (void)uv_run(&h->loop, UV_RUN_NOWAIT);
    if (h->lock != NULL && !released) {
        gw_log(GW_ERROR, "store.stuck", NULL, "the disk of the task store does not answer; this host owns the state "
               "directory until its process has ended");
    } else if (h->lock != NULL) {
        h->lock = gw_lock_release(h->lock);
        if (!h->departed && ours)
            gw_log(GW_INFO, "lock.released", NULL, "the state directory is free");
    }
    gw_log(GW_INFO, "host.exiting", json_pack("{si}", "code", h->exit_code), "pid %d exits with %d", (int)getpid(),
           h->exit_code);
    gw_log_on_stall(NULL, NULL);
    gw_supervision_linger(h);
    if (h->sentry != NULL)
        gw_sentry_close(h->sentry, NULL, NULL);
    if (h->departed)
        gw_successor_pass_on_stops(&h->succession.process);
    for (int i = 0; i < 8; i++)
        (void)uv_run(&h->loop, UV_RUN_NOWAIT);
    gw_supervision_close(h);
    if (uv_loop_close(&h->loop) != 0) {
        uv_walk(&h->loop, close_walked, NULL);
        (void)uv_run(&h->loop, UV_RUN_NOWAIT);
        (void)uv_loop_close(&h->loop);
    }
    h->sched = gw_sched_free(h->sched);
    (void)gw_sources_unref(h->sources);
    (void)gw_sources_unref(h->next_sources);
    (void)gw_sources_unref(h->good_sources);
    json_decref(h->env.kept);
    json_decref(h->continuation);
    json_decref(h->store_older);
    free(h->token);
    free(h->unwanted);
    if (h->dir_fd >= 0)
        (void)close(h->dir_fd);
}
