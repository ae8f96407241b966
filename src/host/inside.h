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
#include "loop/limit.h"
#include "loop/sentry.h"
#include "net/net.h"
#include "os/listen.h"
#include "os/lock.h"
#include "os/successor.h"
#include "os/supervisor.h"
#include "policy/policy.h"
#include "script/sources.h"
#include "work/work.h"

#include <uv.h>

enum { POLICIES_KEPT = 3, GW_SOCKETS_MAX = 128 };

struct drain {
    bool active;          /* fenced, not yet drained or cut */
    bool to_stop, forced, had_work;
    uint64_t accepted_ms; /* of the restart or stop */
    uint64_t changed_ms;  /* the last answer about its budget */
    uint64_t started_ms;
    uint64_t closing_ms;  /* closing has begun */
    uint64_t close_ms;    /* how long it may take: GW_CLOSE_MS, or less before a supervisor's end */
    struct gw_budget_answer budget;
    uint64_t end_at_ms;   /* when the forced exit strikes at the latest: a supervisor's end; UINT64_MAX: there is none */
    uint32_t lanes_cut;   /* bit i: budget.lanes[i] has been carried out */
    struct gw_limit limit; /* the nearest budget */
    uv_timer_t report;
};

struct supervision {
    struct gw_supervisor by;  /* decided once, at the start */
    struct gw_notify *notify; /* owned; NULL: nobody wants to be told */
    bool unheard;             /* the last message could not be sent, which has been logged */
    uint64_t exit_delay_ms;   /* between a supervised end and the exit */
    uv_timer_t alive_timer;   /* runs only if a watchdog asks for it */
};

/* Another process, or image, that is to come after this one (succession.c). */
enum gw_succession_stage {
    GW_SUCC_NONE,
    GW_SUCC_CHECKING,
    GW_SUCC_PROVING,
    GW_SUCC_READY,
    GW_SUCC_LETTING,
    GW_SUCC_STARTING,
    GW_SUCC_PASSING,
    GW_SUCC_SERVED
};

struct succession {
    enum gw_succession_stage stage;
    struct gw_child *check;     /* an update's file says its version */
    struct gw_channel *channel; /* owned */
    struct gw_successor process;
    char boot_id[33], version[64], program[512];
    bool update;
    bool moves;        /* it knows how we describe connections */
    int spare_fds[8];  /* kept so that the store can be opened again, whatever is accepted meanwhile */
    size_t spare_count;
    bool switch_waits; /* the application is closed, and it is not ready yet */
    uint64_t health_ms;
    uint64_t spawned_ms;
    struct gw_limit limit; /* of the stage */
    struct gw_err lost; /* why the last one has failed */
};

/* What this process came after (standby.c). */
struct standby {
    bool active;
    bool trial;                 /* only tried out: it never takes over */
    bool updates;               /* it is another program than the one before */
    bool refused;               /* it is the application that cannot be used, and not this process */
    struct gw_channel *channel; /* owned */
    char predecessor[33];       /* its boot id */
    char version[64];           /* its version */
    char *program;              /* owned; options.program is this */
    struct gw_sources *policy, *next, *good; /* references: what it has read; NULL: it did not say */
    int lock_fds[2];
    size_t lock_fd_count;
    json_t *go;                 /* owned; the word to go on */
    int control_fd;
    bool met, told, complete, arrived; /* letters: hello, ready, the last connections; and they are ours */
    bool serving;               /* said and heard, or nobody is left to hear it */
    bool describes;             /* the predecessor understands how this one describes connections */
    bool answers;               /* they are ours before the start has succeeded: an image has nobody beside it */
    bool gone, failed;          /* the predecessor; our last word */
    bool stop_waits;            /* for the connections */
    bool ready_due;             /* the service manager is told once the predecessor has gone */
    struct gw_err met_err;
    /* of an image that follows another in the same pid */
    int memory_fd, origin_fd;   /* its letters; the image to go back to, -1: none */
    struct gw_buf memory;
    size_t memory_at;
    int *kept_fds;              /* what must live on if it goes back */
    size_t kept_count;
    int *left_fds;              /* of these, what is nobody's; closed when there is no way back */
    size_t left_count;
    char *went_back;            /* why this image was come back to; NULL: it was not */
};

struct gw_host;
/* What waits for the store goes on: err has code 0 when it is open, else why it is not, in the time that it had. */
typedef void gw_workload_cb(struct gw_host *h, const struct gw_err *err);

/* When the loop has begun to wait (still.c). */
struct still {
    uv_prepare_t prepare;
    uv_check_t check;
    uint64_t since_ms;
};

struct gw_host {
    struct gw_host_options options;
    uv_loop_t loop;
    enum gw_state state;
    enum gw_event events[GW_EVENTS]; /* that wait, the first one first; none waits twice */
    unsigned event_count;
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
    char *unwanted;          /* owned; an address that was passed and that no --listen asks for; NULL: none */

    struct gw_sentry *sentry;
    struct still still;
    uv_timer_t log_timer; /* runs while lines of the log wait */
    uint64_t log_wait_ms;
    struct gw_net *net;
    struct gw_work *work;
    struct gw_policy *policy;
    struct gw_policy *older[POLICIES_KEPT]; /* versions before, the last one first; NULL: none */
    struct gw_app *app;      /* the one that serves, starts or closes */
    bool public_http;        /* the one that served last needed no token */
    bool token_given;        /* in the environment, so that there is nothing to read again */
    struct gw_app *next_app; /* opened, its start comes at the switch */
    struct gw_app *old_app;  /* released; its memory goes once the next one serves */
    struct gw_sources *sources, *next_sources, *good_sources;
    struct gw_app_env env;
    json_t *continuation;    /* for the next start */

    enum gw_mode mode;
    struct gw_scheduler *sched;
    bool asking;             /* it takes a request that nothing has been said of yet */
    uv_timer_t sched_timer;
    struct drain drain;
    struct gw_err start_err, close_err, prepare_err;
    struct gw_err reverted;  /* why the last good sources are started instead of the new ones */
    bool start_over;         /* its limit has struck: what it says now comes too late */
    bool cannot_serve;       /* lock or listeners could not be had again */
    uint64_t retry_ms;       /* how long a host that has failed for the system's sake waited for its last try; 0: none */
    int stop_signal;
    struct gw_signal stop_sender;
    bool stop_by_signal, stops; /* stops: the stop has been posted, and nothing takes it back */

    uv_poll_t *work_poll;    /* owned; frees itself once it is closed */
    bool store_down;         /* the store cannot be opened or written right now, for store_err */
    struct gw_err store_err;
    json_t *store_older;     /* owned; what it had lost when it was opened */
    gw_workload_cb *store_then; /* waits for its opening, by lock_timer; NULL: nothing does */
    struct gw_limit work_limit, start_limit, close_limit;
    uv_timer_t lock_timer;
    uint64_t lock_since_ms;
    struct watch *watch;     /* owned; NULL: no --watch */
    uv_timer_t watch_timer;

    struct gw_reaper *reaper; /* owned; NULL: orphans go elsewhere */
    struct succession succession;
    struct standby standby;
    bool departed;       /* another process serves in our place */
    bool update_pending; /* the sentinel waits for our word */
    bool safe_mode, boot_recorded;

    struct control *control;
    uint64_t policy_calls, policy_failures, bundles_written;
};

/* host.c */
void gw_host_post(struct gw_host *h, enum gw_event event); /* one that waits already is nothing new */
void gw_host_post_stop(struct gw_host *h); /* once; a second one is nothing */

/* boot.c: from nothing to the first start, and from the last event to nothing. */
int gw_boot_without_loop(struct gw_host *h, int code); /* there is none: says so, or goes back; the exit code */
void gw_boot_open(struct gw_host *h); /* a host that cannot even begin is in GW_EXITED after it */
void gw_boot_take_lock(struct gw_host *h);    /* tries until it has it; then goes on booting */
int gw_boot_acquire(struct gw_host *h, struct gw_err *err);
void gw_boot_say_busy(struct gw_host *h, const char *then); /* who owns the state directory, and what comes of it */
int gw_boot_serve(struct gw_host *h, struct gw_err *err); /* what needs the lock and writes nothing */
/* What only the owner of the state directory may do. planned: its predecessor still lives, and the record of
 * boots and outcomes is its until the connections are ours. */
int gw_boot_own(struct gw_host *h, bool planned, struct gw_err *err);
void gw_boot_describe_lock(struct gw_host *h);
void gw_boot_close(struct gw_host *h);

/* listeners.c: at first with what was passed to this process; later what is missing */
int gw_listeners_open(struct gw_host *h, struct gw_err *err);

/* effects.c */
void gw_effects_run(struct gw_host *h, uint32_t effects);
void gw_effects_start_limit(struct gw_host *h, uint64_t ms);

/* closing.c: effects of the same names */
void gw_closing_begin(struct gw_host *h);
void gw_closing_report(struct gw_host *h);
void gw_closing_wind_down(struct gw_host *h);
void gw_closing_depart(struct gw_host *h);

/* prepare.c: an accepted restart before anything is torn down */
void gw_prepare_restart(struct gw_host *h);
void gw_prepare_here(struct gw_host *h); /* no other process proves anything: the files are judged by this one */
void gw_prepare_done(struct gw_host *h); /* everything is known and proved: the drain may begin */
void gw_prepare_upgrade(struct gw_host *h); /* the restart under way has become an update */
void gw_prepare_refuse(struct gw_host *h);
void gw_prepare_roll_back(struct gw_host *h);
/* The restart under way goes on in this process after all. */
void gw_prepare_stay(struct gw_host *h, const char *why);
/* Asks the policy (force asks nobody) and says what is carried out of its answer, *ret_asked, here. */
struct gw_mode_answer gw_prepare_mode(struct gw_host *h, const struct gw_restart *r, enum gw_mode *ret_asked,
                                      char *ret_why, size_t size);

/* succession.c */
void gw_succession_prove(struct gw_host *h, const char *program, bool update, int64_t health_ms);
void gw_succession_switch(struct gw_host *h);
void gw_succession_go(struct gw_host *h);
void gw_succession_let_go(struct gw_host *h, int code, const struct gw_err *err); /* the store is, or cannot be */
void gw_succession_end(struct gw_host *h);  /* kills and reaps it, unless it serves */
/* It serves, and this process ends; until the very end a stop of this one is told to it. */
void gw_succession_depart(struct gw_host *h);
void gw_succession_stop(struct gw_host *h); /* a stop reaches it, whatever it is */
const char *gw_succession_program(const struct gw_host *h); /* what the next process updates itself from */

/* reexec.c: returns only if it failed */
int gw_reexec(struct gw_host *h, const char *path, struct gw_err *err);
/* Where there is no image to go back to, one that has been gone back to begins again if that may help (see
 * gw_err_passes()); another does nothing. */
void gw_reexec_back(struct gw_host *h, int code, const char *why);

/* standby.c */
/* The letters of an image before in the same pid, before anything else is had: with them there is a way back. 0: there
 * are none. */
int gw_standby_read_file(struct gw_host *h, struct gw_err *err);
bool gw_standby_by_exec(const struct gw_host *h); /* an image before in the same pid: nobody is beside this one */
int gw_standby_meet(struct gw_host *h, struct gw_err *err);
int gw_standby_get_ready(struct gw_host *h, struct gw_err *err);
void gw_standby_fail(struct gw_host *h, int code, const char *why);
void gw_standby_say_stop(struct gw_host *h); /* the predecessor shall stop too: it is one host */
void gw_standby_take_over(struct gw_host *h);
void gw_standby_say_started(struct gw_host *h);
void gw_standby_arrive(struct gw_host *h);
void gw_standby_close(struct gw_host *h);

/* update.c: restart-sentinel.json */
void gw_update_accepted(struct gw_host *h, const struct gw_restart *r);
void gw_update_failed(struct gw_host *h, const struct gw_err *why); /* code 0: the image is the same */
void gw_update_read(struct gw_host *h);
void gw_update_served(struct gw_host *h);

/* safe_mode.c */
/* Records this boot; predecessor: the one that it replaces as planned, or NULL. */
void gw_safe_mode_begin(struct gw_host *h, const char *predecessor);
/* This boot serves; it has been told to end. What comes after the latter is no crash, however it ends. */
void gw_safe_mode_served(struct gw_host *h);
void gw_safe_mode_stops(struct gw_host *h);
void gw_safe_mode_leave(struct gw_host *h);
void gw_safe_mode_end(struct gw_host *h);

/* sources.c: files of a generation and of the policy */
int gw_host_prepare_app(struct gw_host *h, struct gw_err *err);
/* The first policy of this process; a successor takes its predecessor's when the file cannot be used. */
int gw_host_first_policy(struct gw_host *h, struct gw_err *err);
/* Loads the policy afresh; one that cannot be used leaves the old in force. err may be NULL. */
int gw_host_reload_policy(struct gw_host *h, const char *because, struct gw_err *err);
/* The version before; -ENOENT when there is none. */
int gw_host_policy_back(struct gw_host *h, struct gw_err *err);

/* watch.c: --watch */
void gw_watch_open(struct gw_host *h); /* nothing without the option */
void gw_watch_close(struct gw_host *h);

/* still.c */
void gw_still_open(struct gw_host *h);
void gw_still_close(struct gw_host *h); /* nothing is left whose time could be kept */

/* outlet.c */
void gw_outlet_open(struct gw_host *h);

/* drain.c */
void gw_drain_ask(struct gw_host *h, bool to_stop);
void gw_drain_budget(struct gw_host *h, bool to_stop, const struct gw_restart *r, struct gw_budget_answer *ret);
void gw_drain_arm(struct gw_host *h);
void gw_drain_arm_watchdog(struct gw_host *h); /* again, after what it is reckoned from has changed */
/* A stop that comes when nothing is left to drain: only its supervisor has a say in how long it may take. */
void gw_drain_none(struct gw_host *h);
/* Closing begins: the forced exit strikes GW_FORCED_EXIT_MS after it, whatever the drain had left. */
void gw_drain_arm_closing(struct gw_host *h);
/* What is left of the time for closing, in ms; never less than clients need to take a last answer. */
uint64_t gw_drain_closing_left(const struct gw_host *h);
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
/* What a requester is told of its request: request_id, status, and, if it was merged, merged_into and changed (what of
 * it counts). The caller's reference. */
json_t *gw_restarts_told(const struct gw_sched_told *told);
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
int gw_control_open(struct gw_host *h, int fd, struct gw_err *err); /* fd: the predecessor's, or -1 */
int gw_control_fd(const struct gw_host *h); /* -1: there is none */
bool gw_control_reachable(const struct gw_host *h); /* its path leads to it still */
/* Binds its path anew where that does not lead to it any more; who is connected stays. 1: it was so. */
int gw_control_mend(struct gw_host *h, struct gw_err *err);
void gw_control_pause(struct gw_host *h, bool paused); /* requests wait in the kernel */
void gw_control_close(struct gw_host *h);
void gw_control_tell(struct gw_host *h, const json_t *object); /* to those who follow */

/* facts.c: what policies are told, and the log line about what they answered */
json_t *gw_facts(struct gw_host *h, const char *action, const struct gw_restart *r, const struct gw_signal *sig);
json_t *gw_facts_sender(const struct gw_signal *sig);
void gw_facts_decided(struct gw_host *h, const struct gw_decision *d);
bool gw_facts_no_respawn(void); /* GWHOST_NO_RESPAWN */
json_t *gw_facts_work(struct gw_host *h);
char *gw_facts_blockers(struct gw_host *h, const struct gw_restart *r);

/* supervision.c: who would start us again, and what a service manager is told */
void gw_supervision_open(struct gw_host *h);
void gw_supervision_close(struct gw_host *h);
const char *gw_supervision_by(const struct gw_host *h); /* NULL: nobody would start us again */
void gw_supervision_forget(struct gw_host *h, const char *name); /* a descriptor that it keeps */
bool gw_supervision_follows(const struct gw_host *h); /* … and would go on with another main process */
void gw_supervision_ready(struct gw_host *h, const char *addresses); /* NULL: where it listens */
void gw_supervision_reloading(struct gw_host *h);
void gw_supervision_reloaded(struct gw_host *h, const struct gw_err *refused); /* NULL: it was not */
/* Another process of ours is the main one now; waits until the service manager knows. */
void gw_supervision_departs(struct gw_host *h, pid_t successor);
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

/* names.c: the names on disk that lead to us */
void gw_names_mend(struct gw_host *h);

/* room.c: descriptors */
void gw_room_share(struct gw_host *h); /* once the listening sockets are known */
void gw_room_accepting(void *host, bool paused, int code); /* for gw_routes */

/* routes.c */
extern const struct gw_net_ops gw_routes;
/* admit.c: whether req may ask; it has been answered if not. public: no token is asked for. */
bool gw_admit(struct gw_host *h, struct gw_request *req, bool public);

/* token.c */
int gw_token_open(struct gw_host *h, struct gw_err *err);
char *gw_token_path(const struct gw_host *h); /* the file that it is read from, the caller's; NULL: none */
void gw_token_renew(struct gw_host *h); /* reads it again; what cannot be used changes nothing but the log */

/* workload.c: work/ on this loop */
extern const struct gw_work_ops gw_workload;
int gw_workload_watch(struct gw_host *h, struct gw_err *err);
void gw_workload_unwatch(struct gw_host *h);
void gw_workload_count_refused(struct gw_host *h);
void gw_workload_timer(struct gw_host *h);
/* goes_on: one process closes the store for another, or for itself, that opens it at once. */
int gw_workload_open(struct gw_host *h, bool goes_on, struct gw_err *err);
/* Calls then when the store is open, when that is not worth waiting for, or after max_ms: at once if it is open. */
void gw_workload_await(struct gw_host *h, uint64_t max_ms, gw_workload_cb *then);
void gw_workload_known(struct gw_host *h); /* it has been opened, or will not be soon */
/* False when its thread is still at work on the file, which nobody else may have before it has ended. */
bool gw_workload_close(struct gw_host *h);

/* bundle.c */
void gw_bundle_write(struct gw_host *h, const char *reason, const struct gw_err *err);
char *gw_bundle_of(struct gw_host *h, int pid); /* the path of the last one of that process, the caller's; or NULL */

/* watchdog.c: what happens when a budget runs out for good. On the sentry's thread. */
void gw_watchdog_arm(struct gw_host *h, uint64_t deadline_ms, const char *phase, const char *bundle_reason);
void gw_watchdog_disarm(struct gw_host *h);
void gw_watchdog_phase(const char *phase);
/* stop: one that the loop did not take. */
void gw_watchdog_fire(void *host, bool stop);
