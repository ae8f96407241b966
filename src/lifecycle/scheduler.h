/* scheduler.h - requests to restart: who asked, what waits, what it became. Pure: time is an argument.
 *
 * At most one request is under way (`current`) and one is open (`waiting`); all others are merged into one of
 * them. Every request has an id and ends in exactly one outcome. Times without a name are monotonic
 * milliseconds. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gw_err;
struct gw_scheduler;

/* What the scheduler has to know about where the host is. */
enum gw_phase {
    GW_PHASE_STARTING, /* of any generation, and closing: a request waits for the start to return */
    GW_PHASE_RUNNING,
    GW_PHASE_LEAVING,  /* a restart is under way and its application is not being closed yet */
    GW_PHASE_STOPPING,
    GW_PHASE_FAILED,
};

struct gw_restart {
    char id[40];
    char source[16];      /* signal, control, http, app */
    char reason[256];
    bool force, update, when_idle;
    bool has_intent;      /* it came with wishes of its own: facts show them as `intent` */
    int64_t wait_ms;      /* < 0: not said */
    char signal[12];      /* "" : none */
    uint64_t signal_ms;   /* when it came */
    json_t *sender;       /* owned; who sent the signal, as policies see it, or NULL */
    json_t *continuation; /* owned, or NULL */
    char exec[512];       /* another program for an update, "" : none */
    char requester[40];   /* the task or run that asked: it is not waited for; "" : none */
    int64_t asked_at;     /* Unix ms */
    uint64_t asked_ms, due_ms, report_ms;
    uint64_t not_before_ms; /* one of too many that the application has asked for itself waits until then; 0: it goes */
    uint64_t emitted_ms;  /* 0: the scheduler has not said GO yet */
    bool unpacked;        /* came from the process before */
    bool spent;           /* its internal authorization has been used by a SIGUSR1 */
    char outcome[16];     /* "" while open */
    char why[256];
    char merged_into[40];
    char mode[16];
    unsigned generation;  /* the one that serves after it */
};

/* What a requester asks; strings are borrowed, JSON too. */
struct gw_ask {
    const char *source, *reason; /* reason NULL: "gateway.restart" */
    bool force, update, when_idle, has_intent;
    int64_t wait_ms;
    const char *signal, *exec, *requester;
    json_t *sender, *continuation;
};

struct gw_sched_config {
    uint64_t defer_timeout_ms; /* 0: for ever */
    /* A request has reached its outcome. Called from within the functions below; r is borrowed. */
    void (*ended)(void *ud, const struct gw_restart *r);
    void *ud;
};

struct gw_scheduler *gw_sched_new(const struct gw_sched_config *config);
struct gw_scheduler *gw_sched_free(struct gw_scheduler *s); /* NULL is fine; always NULL */

/* The clocks and the host, at this moment. */
struct gw_sched_now {
    uint64_t ms;
    int64_t wall_ms;
    enum gw_phase phase;
    int pending;       /* running tasks and runs, without the requester's; < 0: could not be counted */
    unsigned generation;
};

/* The wishes that two requests are joined by; each has a rule (scheduler.c). */
enum gw_join {
    GW_JOIN_FORCE,
    GW_JOIN_UPDATE,
    GW_JOIN_NOW,
    GW_JOIN_DUE,
    GW_JOIN_WAIT,
    GW_JOIN_END, /* a SIGTERM asks: what is refused becomes a stop, and under a supervisor the process ends */
    GW_JOIN_CONTINUATION,
    GW_JOINS,
};
const char *gw_join_name(enum gw_join join); /* as the answers to requesters say it: "force", "wait_ms" … */

enum gw_sched_answer { GW_ASK_ACCEPTED, GW_ASK_DEFERRED, GW_ASK_MERGED, GW_ASK_REFUSED };
struct gw_sched_told {
    enum gw_sched_answer answer;
    const struct gw_restart *request; /* what was made of the ask */
    bool into_current;                /* merged into the one under way */
    uint32_t changed;                 /* bit i: what the one it was merged into wants of enum gw_join i is another now */
};
/* Takes a request. gw_sched_look() then tells what to do. */
struct gw_sched_told gw_sched_ask(struct gw_scheduler *s, const struct gw_ask *ask, struct gw_sched_now now);

enum gw_sched_do {
    GW_DO_NOTHING,
    GW_DO_GO,     /* the waiting request is due: emit it; gw_sched_accept() follows within 5,000 */
    GW_DO_REPORT, /* say that it still waits; look again */
};
struct gw_sched_look {
    enum gw_sched_do what;
    uint64_t next_ms;    /* look again then; UINT64_MAX: only when something happens */
    bool watch_idle;     /* tell when nothing is pending any more */
};
struct gw_sched_look gw_sched_look(struct gw_scheduler *s, struct gw_sched_now now);

/* The emitted request becomes the current one. NULL when there is none, or when its authorization was given
 * more than 5,000 ago: it has expired then. */
const struct gw_restart *gw_sched_accept(struct gw_scheduler *s, struct gw_sched_now now);
/* Spends the internal authorization of the waiting request, which the application's own ask and our own
 * emission give for 5,000: true once. It is for now then, whatever it waited for. */
bool gw_sched_authorized(struct gw_scheduler *s, struct gw_sched_now now);

/* The current request ends. Does nothing when there is none. */
void gw_sched_end(struct gw_scheduler *s, const char *outcome, const char *why, unsigned generation);
void gw_sched_set_mode(struct gw_scheduler *s, const char *mode);
/* Between two generations: what waits for an idle moment has got what it asked for. */
void gw_sched_boundary(struct gw_scheduler *s);
/* -ENOENT, -EALREADY when it is under way or has ended. */
int gw_sched_cancel(struct gw_scheduler *s, const char *id, struct gw_err *err);

const struct gw_restart *gw_sched_current(const struct gw_scheduler *s);
const struct gw_restart *gw_sched_waiting(const struct gw_scheduler *s);
const struct gw_restart *gw_sched_last(const struct gw_scheduler *s); /* the last that was not merged */
/* Open ones and the last 100 that have ended. */
const struct gw_restart *gw_sched_find(const struct gw_scheduler *s, const char *id);
/* Takes back one that ended in an earlier process. */
void gw_sched_restore(struct gw_scheduler *s, const json_t *object);
/* The open requests and when restarts were accepted, for a process of the same machine (and so of the same
 * monotonic clock) that goes on with them. Packing changes nothing; the caller's reference. */
json_t *gw_sched_pack(const struct gw_scheduler *s);
/* What was unpacked before is replaced; what was asked of this one stays, or is merged. What is malformed is left out. */
void gw_sched_unpack(struct gw_scheduler *s, const json_t *packed);
json_t *gw_restart_json(const struct gw_restart *r); /* of GET /v1/restarts/ID; JSON null for NULL */

int64_t gw_sched_since_last(const struct gw_scheduler *s, uint64_t now_ms); /* -1: none in this process */
unsigned gw_sched_last_hour(const struct gw_scheduler *s, uint64_t now_ms);
unsigned gw_sched_accepted(const struct gw_scheduler *s); /* ever */
