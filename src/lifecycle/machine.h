/* machine.h - the life of a host as data: states, events, one table, one pure step.
 *
 * host/ takes one event at a time, steps, then carries out the effects in the order of the enum. An effect
 * that fails posts an event. The machine has no clock and does no I/O; src/lifecycle/README.md prints the
 * same table, and a test compares them. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum gw_state {
    GW_FIRST_START,      /* outside: starting */
    GW_NEXT_START,       /* outside: starting; a later generation */
    GW_REVERTING,        /* outside: starting; the last good sources after a start failed */
    GW_RUNNING,          /* outside: running */
    GW_PREPARING,        /* outside: running; a restart is accepted, nothing is torn down yet */
    GW_DRAINING,         /* outside: draining; for a restart */
    GW_RESTARTING,       /* outside: closing; for a restart */
    GW_DRAINING_TO_STOP, /* outside: draining; for a stop */
    GW_STOPPING,         /* outside: closing; for a stop */
    GW_WINDING_DOWN,     /* outside: closing; the application is closed, connections end */
    GW_FAILED,           /* outside: failed; alive, waiting for a restart or a stop */
    GW_EXITED,           /* outside: exited */
    GW_STATES,
};

enum gw_event {
    GW_EV_STARTED,        /* the application serves */
    GW_EV_START_FAILED,
    GW_EV_RESTART,        /* the scheduler says: now */
    GW_EV_PREPARED,       /* sources read and compiled, mode and budget known */
    GW_EV_LEAVE,          /* … and another process is to come back: this one drains and ends */
    GW_EV_PREPARE_FAILED, /* the new sources do not compile; nothing was torn down */
    GW_EV_STOP,
    GW_EV_DRAINED,        /* nothing captured is left */
    GW_EV_DRAIN_OVER,     /* the budget ran out */
    GW_EV_CLOSED,         /* the application has closed */
    GW_EV_CLOSE_FAILED,   /* … with an error, or not in time */
    GW_EV_WOUND_DOWN,     /* no connection is left */
    GW_EVENTS,
};

/* What host/ does, in this order. */
enum gw_effect {
    GW_FX_REMEMBER = 1 << 0,      /* the restart stays open until the start has returned */
    GW_FX_BECOME_STOP = 1 << 1,   /* the restart that was under way ends here: it becomes a stop */
    GW_FX_REFUSE = 1 << 2,        /* the open restart is refused; say why */
    GW_FX_PREPARE = 1 << 3,       /* read, compile, ask for the mode and the budget */
    GW_FX_ASK_STOP_BUDGET = 1 << 4,
    GW_FX_FENCE = 1 << 5,         /* refuse new work, capture what runs, abort compacting runs */
    GW_FX_ARM_DRAIN = 1 << 6,     /* the drain timer and the forced exit, by the budget in force */
    GW_FX_CUT = 1 << 7,           /* mark what is left interrupted, durably, then abort it */
    GW_FX_CLOSE_APP = 1 << 8,
    GW_FX_REPORT_CLOSE = 1 << 9,  /* a bundle on a restart, exit code 1 on a stop */
    GW_FX_BOUNDARY = 1 << 10,     /* old state's handles closed, slots freed, requests ended, policy swapped */
    GW_FX_START = 1 << 11,        /* start the prepared application */
    GW_FX_ABANDON_START = 1 << 12,/* a start under way is given up */
    GW_FX_REPORT_START = 1 << 13, /* a bundle and a log line about a start that failed */
    GW_FX_START_LAST_GOOD = 1 << 14,
    GW_FX_RELEASE = 1 << 15,      /* store closed, lock and own listeners given up; say what to do */
    GW_FX_REACQUIRE = 1 << 16,    /* take the lock, listen, open the store, prepare the sources; start */
    GW_FX_ANNOUNCE = 1 << 17,     /* serve: release held requests, unfence work, log, remembered requests */
    GW_FX_WIND_DOWN = 1 << 18,    /* end connections politely */
    GW_FX_EXIT_1 = 1 << 19,       /* the exit code is 1 */
    GW_FX_EXIT = 1 << 20,         /* unlock and leave the loop */
    GW_FX_IGNORE = 1 << 21,       /* say that it was ignored, and why */
};

struct gw_step {
    enum gw_state to;
    uint32_t effects;
    bool known; /* the pair has a row; a test holds that all have */
};

struct gw_step gw_machine_step(enum gw_state in, enum gw_event on);

const char *gw_state_name(enum gw_state s);  /* as in the table: "draining_to_stop" */
const char *gw_state_public(enum gw_state s); /* as the contract says: "draining" */
const char *gw_event_name(enum gw_event e);
const char *gw_effect_name(enum gw_effect fx); /* one bit */
