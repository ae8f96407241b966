/* inside.h - the host's one struct and what its files do to it. Not for other folders.
 *
 * host.c takes one event at a time, asks lifecycle/ for the step and calls effects in order. libuv callbacks
 * only post events or touch the part that they report about. */
#pragma once

#include "app/app.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "base/time.h"
#include "host/host.h"
#include "lifecycle/budget.h"
#include "lifecycle/machine.h"
#include "lifecycle/scheduler.h"
#include "loop/sentry.h"
#include "net/net.h"
#include "os/listen.h"
#include "os/lock.h"
#include "os/supervisor.h"
#include "policy/policy.h"
#include "script/sources.h"
#include "work/work.h"

#include <uv.h>

enum { EVENTS_MAX = 64, POLICIES_KEPT = 3 };

struct drain {
    bool active;          /* fenced, not yet drained or cut */
    bool to_stop, forced, had_work;
    uint64_t accepted_ms; /* of the restart or stop */
    uint64_t started_ms;
    struct gw_budget_answer budget;
    uint32_t lanes_cut;   /* bit i: budget.lanes[i] has been carried out */
    uv_timer_t timer;     /* the nearest budget */
    uv_timer_t report;
};

struct supervision {
    struct gw_supervisor by;  /* decided once, at the start */
    struct gw_notify *notify; /* owned; NULL: nobody wants to be told */
    bool unheard;             /* the last message could not be sent, which has been logged */
    uint64_t exit_delay_ms;   /* between a supervised end and the exit */
    uv_timer_t alive_timer;   /* runs only if a watchdog asks for it */
};

struct gw_host {
    struct gw_host_options options;
    uv_loop_t loop;
    enum gw_state state;
    enum gw_event events[EVENTS_MAX];
    unsigned event_head, event_tail;
    int exit_code;
    char boot_id[33];
    unsigned generation;
    uint64_t booted_ms;
    int64_t startup_started_at_ms;
    int64_t state_since_ms;

    int dir_fd;
    struct gw_lock *lock;
    char *token;
    struct supervision supervision;
    struct gw_listen_socket *sockets;
    size_t socket_count;

    struct gw_sentry *sentry;
    struct gw_net *net;
    struct gw_work *work;
    struct gw_policy *policy;
    struct gw_policy *older[POLICIES_KEPT]; /* versions before, the last one first; NULL: none */
    struct gw_app *app;      /* the one that serves, starts or closes */
    struct gw_app *next_app; /* opened, its start comes at the switch */
    struct gw_app *old_app;  /* released; its memory goes once the next one serves */
    struct gw_sources *sources, *next_sources, *good_sources;
    struct gw_app_env env;
    json_t *continuation;    /* for the next start */

    enum gw_mode mode;
    struct gw_scheduler *sched;
    uv_timer_t sched_timer;
    struct drain drain;
    struct gw_err start_err, close_err, prepare_err;
    struct gw_err reverted;  /* why the last good sources are started instead of the new ones */
    bool start_over;         /* its limit has struck: what it says now comes too late */
    bool cannot_serve;       /* lock or listeners could not be had again */
    int stop_signal;
    struct gw_signal stop_sender;
    bool stop_by_signal, stops; /* stops: the stop has been posted, and nothing takes it back */

    uv_poll_t work_poll;
    bool work_polled;
    bool store_down;         /* the store cannot be written right now */
    uv_timer_t work_timer, start_timer, close_timer, lock_timer;
    uint64_t lock_since_ms;
    uv_fs_event_t watch;
    uv_timer_t watch_timer;
    bool watching;

    struct control *control;
    uint64_t policy_calls, policy_failures, bundles_written;
};

/* host.c */
void gw_host_post(struct gw_host *h, enum gw_event event);
void gw_host_post_stop(struct gw_host *h); /* once; a second one is nothing */

/* boot.c: from nothing to the first start, and from the last event to nothing. */
void gw_boot_open(struct gw_host *h); /* a host that cannot even begin is in GW_EXITED after it */
void gw_boot_take_lock(struct gw_host *h);    /* tries until it has it; then goes on booting */
int gw_boot_acquire(struct gw_host *h, pid_t *ret_owner, struct gw_err *err);
int gw_boot_listen(struct gw_host *h, struct gw_err *err);
int gw_boot_open_work(struct gw_host *h, struct gw_err *err);
void gw_boot_close_work(struct gw_host *h);
void gw_boot_close(struct gw_host *h);

/* effects.c */
void gw_effects_run(struct gw_host *h, uint32_t effects);
/* Asks the policy; force asks nobody. */
struct gw_mode_answer gw_effects_mode(struct gw_host *h, const struct gw_restart *r, char *ret_why, size_t size);

/* sources.c: files of a generation and of the policy */
int gw_host_prepare_app(struct gw_host *h, struct gw_err *err);
/* Loads the policy afresh; one that cannot be used leaves the old in force. err may be NULL. */
int gw_host_reload_policy(struct gw_host *h, const char *because, struct gw_err *err);
/* The version before; -ENOENT when there is none. */
int gw_host_policy_back(struct gw_host *h, struct gw_err *err);
void gw_host_watch(struct gw_host *h);

/* drain.c */
void gw_drain_ask(struct gw_host *h, bool to_stop);
void gw_drain_budget(struct gw_host *h, bool to_stop, const struct gw_restart *r, struct gw_budget_answer *ret);
void gw_drain_arm(struct gw_host *h);
void gw_drain_rebudget(struct gw_host *h);
void gw_drain_force(struct gw_host *h);
void gw_drain_cut(struct gw_host *h);
void gw_drain_over(struct gw_host *h, bool drained);

/* signals.c */
void gw_host_on_signal(void *host, const struct gw_signal *sig);

/* restarts.c */
void gw_restarts_open(struct gw_host *h);
struct gw_sched_now gw_restarts_now(const struct gw_host *h);
struct gw_sched_told gw_restarts_ask(struct gw_host *h, const struct gw_ask *ask);
const char *gw_restarts_answer_name(enum gw_sched_answer answer);
void gw_restarts_look(struct gw_host *h); /* what waits may go, or goes on waiting */
void gw_restarts_idle(void *host);
/* The waiting one becomes the current one; NULL when it has expired. */
const struct gw_restart *gw_restarts_accept(struct gw_host *h);
void gw_restarts_end(struct gw_host *h, const char *outcome, const char *why);
const struct gw_app_ops *gw_host_app_ops(void);

/* history.c: outcomes that survive the process */
void gw_history_load(struct gw_host *h);
void gw_history_keep(struct gw_host *h, const struct gw_restart *r);

/* control.c: the control socket */
int gw_control_open(struct gw_host *h, struct gw_err *err);
void gw_control_close(struct gw_host *h);
void gw_control_tell(struct gw_host *h, const json_t *object); /* to those who follow */

/* facts.c: what policies are told, and the log line about what they answered */
json_t *gw_facts(struct gw_host *h, const char *action, const struct gw_restart *r, const struct gw_signal *sig);
json_t *gw_facts_sender(const struct gw_signal *sig);
void gw_facts_decided(struct gw_host *h, const struct gw_decision *d);
json_t *gw_facts_work(struct gw_host *h);
char *gw_facts_blockers(struct gw_host *h, const struct gw_restart *r);

/* supervision.c: who would start us again, and what a service manager is told */
void gw_supervision_open(struct gw_host *h);
void gw_supervision_close(struct gw_host *h);
const char *gw_supervision_by(const struct gw_host *h); /* NULL: nobody would start us again */
void gw_supervision_ready(struct gw_host *h, const char *addresses);
void gw_supervision_reloading(struct gw_host *h);
void gw_supervision_reloaded(struct gw_host *h, const struct gw_err *refused); /* NULL: it was not */
void gw_supervision_stopping(struct gw_host *h);
/* How the drain goes; also asks for the time that what is left of it may take. */
void gw_supervision_status(struct gw_host *h, bool draining, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* This host ends for a supervisor to start the next one: how long it waits between its end and its exit (less
 * than 0: as the supervisor needs it). */
void gw_supervision_leaves(struct gw_host *h, int64_t exit_delay_ms);
void gw_supervision_stays(struct gw_host *h);  /* … and now it does not, or not any longer */
void gw_supervision_linger(struct gw_host *h); /* waits; a signal to stop cuts it short */

/* status.c */
json_t *gw_status(struct gw_host *h);
const char *gw_status_store(const struct gw_host *h); /* "ok", "unavailable" or "closed" */
char *gw_metrics(struct gw_host *h);
void gw_publish_state(struct gw_host *h, enum gw_state from);
void gw_publish_task(void *host, const struct gw_task *task);

/* routes.c */
extern const struct gw_net_ops gw_routes;
void gw_routes_token(struct gw_host *h);

/* workload.c: work/ on this loop */
extern const struct gw_work_ops gw_workload;
void gw_workload_watch(struct gw_host *h);
void gw_workload_unwatch(struct gw_host *h);
void gw_workload_count_refused(struct gw_host *h);
void gw_workload_timer(struct gw_host *h);

/* bundle.c */
void gw_bundle_write(struct gw_host *h, const char *reason, const struct gw_err *err);

/* watchdog.c: what happens when a budget runs out for good. On the sentry's thread. */
void gw_watchdog_arm(struct gw_host *h, uint64_t deadline_ms, const char *phase, const char *bundle_reason);
void gw_watchdog_disarm(struct gw_host *h);
void gw_watchdog_phase(const char *phase);
void gw_watchdog_fire(void *host);
