/* machine.h - the life of a host as data: states, events, one table, one pure step.
 *
 * host/ takes one event at a time, steps, then carries out the effects in the order of the enum. An effect
 * that fails posts an event. The machine has no clock and does no I/O; src/lifecycle/README.md prints the
 * same table, and a test compares them. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum gw_state {
    GW_FIRST_START,       /* outside: starting */
    GW_NEXT_START,        /* outside: starting; a later generation */
    GW_REVERTING,         /* outside: starting; the last good sources after a start failed */
    GW_RUNNING,           /* outside: running */
    GW_PREPARING,         /* outside: running; a restart is accepted, nothing is torn down yet */
    GW_DRAINING,          /* outside: draining; for a restart */
    GW_RESTARTING,        /* outside: closing; for a restart */
    GW_SWITCHING,         /* outside: closing; the application is closed: who starts the next one is decided */
    GW_HANDING_OVER,      /* outside: handing_over; a successor starts, then gets the connections */
    GW_STANDING_BY,       /* outside: starting; a successor that is ready and waits for its word */
    GW_SUCCEEDING,        /* outside: starting; … and starts the application */
    GW_ARRIVING,          /* outside: starting; … and waits for the connections */
    GW_DRAINING_TO_STOP,  /* outside: draining; for a stop */
    GW_STOPPING,          /* outside: closing; for a stop */
    GW_WINDING_DOWN,      /* outside: closing; the application is closed, connections end */
    GW_FAILED,            /* outside: failed; alive, waiting for a restart or a stop */
    GW_EXITED,            /* outside: exited */
    GW_STATES,
};

enum gw_event {
    GW_EV_STARTED,         /* the application serves */
    GW_EV_START_FAILED,
    GW_EV_RESTART,         /* the scheduler says: now */
    GW_EV_PREPARED,        /* sources read, mode and budget known, the successor ready if one is needed */
    GW_EV_LEAVE,           /* … and another process is to come back: this one drains and ends */
    GW_EV_PREPARE_FAILED,  /* the new sources do not compile; nothing was torn down */
    GW_EV_ROLLED_BACK,     /* an update's process did not get ready; nothing was torn down */
    GW_EV_STOP,
    GW_EV_DRAINED,         /* nothing captured is left */
    GW_EV_DRAIN_OVER,      /* the budget ran out */
    GW_EV_CLOSED,          /* the application has closed */
    GW_EV_CLOSE_FAILED,    /* … with an error, or not in time */
    GW_EV_STAY,            /* the next generation starts in this process */
    GW_EV_YIELD,           /* … in another one, or in another image */
    GW_EV_SERVING,         /* the successor serves */
    GW_EV_SUCCESSOR_LOST,  /* it died, said no, or is late */
    GW_EV_GO,              /* the predecessor says: go on */
    GW_EV_ARRIVED,         /* the connections are here, and nobody else serves them */
    GW_EV_WOUND_DOWN,      /* no connection is left */
    GW_EVENTS,
};

/* What host/ does, in this order. */
enum gw_effect {
    GW_FX_REMEMBER = 1 << 0,        /* what was asked for stays open until the start has returned */
    GW_FX_BECOME_STOP = 1 << 1,     /* the restart under way becomes a stop; its successor is ended */
    GW_FX_REFUSE = 1 << 2,          /* the open restart is refused; say why */
    GW_FX_ROLL_BACK = 1 << 3,       /* the open update is rolled back; say why */
    GW_FX_PREPARE = 1 << 4,         /* read, compile, ask for the mode and the budget; prove a successor */
    GW_FX_ASK_STOP_BUDGET = 1 << 5,
    GW_FX_FENCE = 1 << 6,           /* refuse new work, capture what runs, abort compacting runs */
    GW_FX_ARM_DRAIN = 1 << 7,       /* the drain timer and the forced exit, by the budget in force */
    GW_FX_CUT = 1 << 8,             /* mark what is left interrupted, durably, then abort it */
    GW_FX_CLOSE_APP = 1 << 9,
    GW_FX_REPORT_CLOSE = 1 << 10,   /* a bundle on a restart, exit code 1 on a stop */
    GW_FX_BOUNDARY = 1 << 11,       /* the old state's handles closed, slots freed, requests ended */
    GW_FX_SWITCH = 1 << 12,         /* say who starts the next generation, once that is known */
    GW_FX_HAND_OVER = 1 << 13,      /* tell the successor to go on, or become the next image */
    GW_FX_TAKE_BACK = 1 << 14,      /* end the successor; store and connections are ours again */
    GW_FX_TAKE_OVER = 1 << 15,      /* open the store and all else that is the predecessor's no more; start */
    GW_FX_START = 1 << 16,          /* start the prepared application */
    GW_FX_ABANDON_START = 1 << 17,  /* a start under way is given up */
    GW_FX_REPORT_START = 1 << 18,   /* a bundle and a log line about a start that failed */
    GW_FX_START_LAST_GOOD = 1 << 19,
    GW_FX_RELEASE = 1 << 20,        /* store closed, lock and own listeners given up; say what to do */
    GW_FX_REACQUIRE = 1 << 21,      /* take the lock, listen, open the store, prepare the sources; start */
    GW_FX_SAY_STARTED = 1 << 22,    /* tell the predecessor that the application is started */
    GW_FX_ANNOUNCE = 1 << 23,       /* serve: release held requests, unfence work, log, remembered requests */
    GW_FX_WIND_DOWN = 1 << 24,      /* end connections politely */
    GW_FX_DEPART = 1 << 25,         /* another process serves: end what is left here */
    GW_FX_EXIT_1 = 1 << 26,         /* the exit code is 1 */
    GW_FX_EXIT = 1 << 27,           /* unlock and leave the loop */
    GW_FX_IGNORE = 1 << 28,         /* say that it was ignored, and why */
};

struct gw_step {
    enum gw_state to;
    uint32_t effects;
    bool known; /* the pair has a row, or its state says that it means nothing; a test holds that all do */
};

struct gw_step gw_machine_step(enum gw_state in, enum gw_event on);

const char *gw_state_name(enum gw_state s);  /* as in the table: "draining_to_stop" */
const char *gw_state_public(enum gw_state s); /* as the contract says: "draining" */
const char *gw_event_name(enum gw_event e);
const char *gw_effect_name(enum gw_effect fx); /* one bit */
