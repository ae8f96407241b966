/* sentry.h - the second thread: takes the signals, and is the last resort.
 *
 * It sits in sigtimedwait(2) until the next deadline. It records a signal and its sender at once, wakes the
 * loop, and when a deadline passes it calls expired(), on its own thread, because the loop may be stuck. It
 * takes no lock that the loop could hold, allocates nothing, knows neither Lua nor the store.
 *
 * A stop that arrives while the loop is stuck must end too: a stop signal arms a deadline of the sentry's
 * own, which stays until the loop says that it has taken the signal (gw_sentry_taken). It must reach every process
 * of the host: a stop that the loop does not take within a second is told to the heir as well.
 *
 * A process that stood still (SIGSTOP, a frozen cgroup) finds that its deadlines have passed before its loop could
 * run: where the wait for one has overslept, and behind a SIGCONT, the loop has a second before it strikes.
 *
 * A host that may not fail for the want of a thread (its image has replaced another one's) is patient: until it can be
 * had, a timer of the loop takes the signals and judges the deadlines. */
#pragma once

#include "os/proc.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct uv_loop_s uv_loop_t;
struct gw_err;
struct gw_sentry;

struct gw_signal {
    int number;    /* SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2 or SIGHUP */
    int code;      /* si_code: SI_USER, SI_QUEUE, SI_TKILL, SI_KERNEL … */
    pid_t pid;     /* of the sender; 0: the kernel or another pid namespace */
    uid_t uid;
    bool alive;    /* the sender could still be looked up; the next two are then good */
    int descends;  /* from this process: 1, 0, or -1 when it cannot be told */
    struct gw_proc_facts sender;
};

struct gw_sentry_config {
    void (*signal)(void *ud, const struct gw_signal *sig); /* on the loop */
    void (*expired)(void *ud, bool stop); /* on the sentry's thread; must not return. stop: one that nobody took */
    void (*quit)(void);                   /* on the sentry's thread, at a SIGQUIT, before the loop hears of it; or NULL */
    uint64_t stop_grace_ms;                                /* from a stop signal to expired(), see above */
    bool patient; /* who has no thread yet is opened all the same, and asks for it again */
    void *ud;
};

/* Blocks the signals that the sentry takes, in the calling thread and all that it makes; ignores SIGPIPE.
 * Call it first in main(), before any thread and before the lock. */
int gw_sentry_block(struct gw_err *err);

int gw_sentry_open(uv_loop_t *loop, const struct gw_sentry_config *config, struct gw_sentry **ret_sentry,
                   struct gw_err *err);

/* expired() is called at deadline_ms (gw_now_ms() time) unless it is moved; UINT64_MAX disarms. */
void gw_sentry_arm(struct gw_sentry *s, uint64_t deadline_ms);
/* The deadline is later by ms, if there is one: this process did not run for so long. */
void gw_sentry_shift(struct gw_sentry *s, uint64_t ms);
/* A process that takes this one's place if it ends, by its pidfd, which is the caller's and stays open until another
 * call; -1: there is none. */
void gw_sentry_heir(struct gw_sentry *s, int pidfd);
void gw_sentry_signal_heir(struct gw_sentry *s, int signal); /* from any thread */
/* The loop has taken all signals delivered so far and armed what they need. */
void gw_sentry_taken(struct gw_sentry *s);

/* Signals stay with the kernel from here on, also over an exec, and those that were taken before have been told when
 * it returns; no deadline strikes until gw_sentry_resume(). */
void gw_sentry_pause(struct gw_sentry *s);
void gw_sentry_resume(struct gw_sentry *s);

/* Ends the thread, and tells what it has taken; cb is called from the loop, and s is freed after it. */
void gw_sentry_close(struct gw_sentry *s, void (*cb)(void *ud), void *ud);

const char *gw_signal_name(int number);
