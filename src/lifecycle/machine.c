#include "lifecycle/machine.h"

#include "base/err.h"

#include <stddef.h>

// A row: go to a state and do this. A pair that means nothing in a state says so with NOTHING; one that an
// operator asked for and does not get says IGNORED, so that the log can tell.
#define GO(state, effects)                                                                                   \
    {                                                                                                        \
        state, effects, true                                                                                 \
    }
#define NOTHING(state)                                                                                       \
    {                                                                                                        \
        state, 0, true                                                                                       \
    }
#define IGNORED(state)                                                                                       \
    {                                                                                                        \
        state, GW_FX_IGNORE, true                                                                            \
    }

static const struct gw_step table[GW_STATES][GW_EVENTS] =
    {
        [GW_FIRST_START] =
            {
                [GW_EV_STARTED] = GO(GW_RUNNING, GW_FX_ANNOUNCE),
                [GW_EV_START_FAILED] = GO(GW_EXITED, GW_FX_REPORT_START | GW_FX_EXIT_1 | GW_FX_EXIT),
                [GW_EV_RESTART] = GO(GW_FIRST_START, GW_FX_REMEMBER),
                [GW_EV_PREPARED] = NOTHING(GW_FIRST_START),
                [GW_EV_LEAVE] = NOTHING(GW_FIRST_START),
                [GW_EV_PREPARE_FAILED] = NOTHING(GW_FIRST_START),
                [GW_EV_ROLLED_BACK] = NOTHING(GW_FIRST_START),
                [GW_EV_STOP] = GO(GW_EXITED, GW_FX_ABANDON_START | GW_FX_EXIT),
                [GW_EV_DRAINED] = NOTHING(GW_FIRST_START),
                [GW_EV_DRAIN_OVER] = NOTHING(GW_FIRST_START),
                [GW_EV_CLOSED] = NOTHING(GW_FIRST_START),
                [GW_EV_CLOSE_FAILED] = NOTHING(GW_FIRST_START),
                [GW_EV_STAY] = NOTHING(GW_FIRST_START),
                [GW_EV_YIELD] = NOTHING(GW_FIRST_START),
                [GW_EV_SERVING] = NOTHING(GW_FIRST_START),
                [GW_EV_SUCCESSOR_LOST] = NOTHING(GW_FIRST_START),
                [GW_EV_GO] = NOTHING(GW_FIRST_START),
                [GW_EV_ARRIVED] = NOTHING(GW_FIRST_START),
                [GW_EV_WOUND_DOWN] = NOTHING(GW_FIRST_START),
            },
        [GW_NEXT_START] =
            {
                [GW_EV_STARTED] = GO(GW_RUNNING, GW_FX_ANNOUNCE),
                [GW_EV_START_FAILED] = GO(GW_REVERTING, GW_FX_REPORT_START | GW_FX_START_LAST_GOOD),
                [GW_EV_RESTART] = GO(GW_NEXT_START, GW_FX_REMEMBER),
                [GW_EV_PREPARED] = NOTHING(GW_NEXT_START),
                [GW_EV_LEAVE] = NOTHING(GW_NEXT_START),
                [GW_EV_PREPARE_FAILED] = NOTHING(GW_NEXT_START),
                [GW_EV_ROLLED_BACK] = NOTHING(GW_NEXT_START),
                [GW_EV_STOP] = GO(GW_EXITED, GW_FX_ABANDON_START | GW_FX_EXIT),
                [GW_EV_DRAINED] = NOTHING(GW_NEXT_START),
                [GW_EV_DRAIN_OVER] = NOTHING(GW_NEXT_START),
                [GW_EV_CLOSED] = NOTHING(GW_NEXT_START),
                [GW_EV_CLOSE_FAILED] = NOTHING(GW_NEXT_START),
                [GW_EV_STAY] = NOTHING(GW_NEXT_START),
                [GW_EV_YIELD] = NOTHING(GW_NEXT_START),
                [GW_EV_SERVING] = NOTHING(GW_NEXT_START),
                [GW_EV_SUCCESSOR_LOST] = NOTHING(GW_NEXT_START),
                [GW_EV_GO] = NOTHING(GW_NEXT_START),
                [GW_EV_ARRIVED] = NOTHING(GW_NEXT_START),
                [GW_EV_WOUND_DOWN] = NOTHING(GW_NEXT_START),
            },
        [GW_REVERTING] =
            {
                [GW_EV_STARTED] = GO(GW_RUNNING, GW_FX_ANNOUNCE),
                [GW_EV_START_FAILED] = GO(GW_FAILED, GW_FX_REPORT_START | GW_FX_RELEASE),
                [GW_EV_RESTART] = GO(GW_REVERTING, GW_FX_REMEMBER),
                [GW_EV_PREPARED] = NOTHING(GW_REVERTING),
                [GW_EV_LEAVE] = NOTHING(GW_REVERTING),
                [GW_EV_PREPARE_FAILED] = NOTHING(GW_REVERTING),
                [GW_EV_ROLLED_BACK] = NOTHING(GW_REVERTING),
                [GW_EV_STOP] = GO(GW_EXITED, GW_FX_ABANDON_START | GW_FX_EXIT),
                [GW_EV_DRAINED] = NOTHING(GW_REVERTING),
                [GW_EV_DRAIN_OVER] = NOTHING(GW_REVERTING),
                [GW_EV_CLOSED] = NOTHING(GW_REVERTING),
                [GW_EV_CLOSE_FAILED] = NOTHING(GW_REVERTING),
                [GW_EV_STAY] = NOTHING(GW_REVERTING),
                [GW_EV_YIELD] = NOTHING(GW_REVERTING),
                [GW_EV_SERVING] = NOTHING(GW_REVERTING),
                [GW_EV_SUCCESSOR_LOST] = NOTHING(GW_REVERTING),
                [GW_EV_GO] = NOTHING(GW_REVERTING),
                [GW_EV_ARRIVED] = NOTHING(GW_REVERTING),
                [GW_EV_WOUND_DOWN] = NOTHING(GW_REVERTING),
            },
        [GW_RUNNING] =
            {
                [GW_EV_STARTED] = NOTHING(GW_RUNNING),
                [GW_EV_START_FAILED] = NOTHING(GW_RUNNING),
                [GW_EV_RESTART] = GO(GW_PREPARING, GW_FX_PREPARE),
                [GW_EV_PREPARED] = NOTHING(GW_RUNNING),
                [GW_EV_LEAVE] = NOTHING(GW_RUNNING),
                [GW_EV_PREPARE_FAILED] = NOTHING(GW_RUNNING),
                [GW_EV_ROLLED_BACK] = NOTHING(GW_RUNNING),
                [GW_EV_STOP] = GO(GW_DRAINING_TO_STOP, GW_FX_ASK_STOP_BUDGET | GW_FX_FENCE | GW_FX_ARM_DRAIN),
                [GW_EV_DRAINED] = NOTHING(GW_RUNNING),
                [GW_EV_DRAIN_OVER] = NOTHING(GW_RUNNING),
                [GW_EV_CLOSED] = NOTHING(GW_RUNNING),
                [GW_EV_CLOSE_FAILED] = NOTHING(GW_RUNNING),
                [GW_EV_STAY] = NOTHING(GW_RUNNING),
                [GW_EV_YIELD] = NOTHING(GW_RUNNING),
                [GW_EV_SERVING] = NOTHING(GW_RUNNING),
                [GW_EV_SUCCESSOR_LOST] = NOTHING(GW_RUNNING),
                [GW_EV_GO] = NOTHING(GW_RUNNING),
                [GW_EV_ARRIVED] = NOTHING(GW_RUNNING),
                [GW_EV_WOUND_DOWN] = NOTHING(GW_RUNNING),
            },
        [GW_PREPARING] =
            {
                [GW_EV_STARTED] = NOTHING(GW_PREPARING),
                [GW_EV_START_FAILED] = NOTHING(GW_PREPARING),
                [GW_EV_RESTART] = IGNORED(GW_PREPARING),
                [GW_EV_PREPARED] = GO(GW_DRAINING, GW_FX_FENCE | GW_FX_ARM_DRAIN),
                [GW_EV_LEAVE] = GO(GW_DRAINING_TO_STOP, GW_FX_FENCE | GW_FX_ARM_DRAIN),
                [GW_EV_PREPARE_FAILED] = GO(GW_RUNNING, GW_FX_REFUSE),
                [GW_EV_ROLLED_BACK] = GO(GW_RUNNING, GW_FX_ROLL_BACK),
                [GW_EV_STOP] =
                    GO(GW_DRAINING_TO_STOP, GW_FX_BECOME_STOP | GW_FX_ASK_STOP_BUDGET | GW_FX_FENCE |
                       GW_FX_ARM_DRAIN),
                [GW_EV_DRAINED] = NOTHING(GW_PREPARING),
                [GW_EV_DRAIN_OVER] = NOTHING(GW_PREPARING),
                [GW_EV_CLOSED] = NOTHING(GW_PREPARING),
                [GW_EV_CLOSE_FAILED] = NOTHING(GW_PREPARING),
                [GW_EV_STAY] = NOTHING(GW_PREPARING),
                [GW_EV_YIELD] = NOTHING(GW_PREPARING),
                [GW_EV_SERVING] = NOTHING(GW_PREPARING),
                [GW_EV_SUCCESSOR_LOST] = NOTHING(GW_PREPARING),
                [GW_EV_GO] = NOTHING(GW_PREPARING),
                [GW_EV_ARRIVED] = NOTHING(GW_PREPARING),
                [GW_EV_WOUND_DOWN] = NOTHING(GW_PREPARING),
            },
        [GW_DRAINING] =
            {
                [GW_EV_STARTED] = NOTHING(GW_DRAINING),
                [GW_EV_START_FAILED] = NOTHING(GW_DRAINING),
                [GW_EV_RESTART] = IGNORED(GW_DRAINING),
                [GW_EV_PREPARED] = NOTHING(GW_DRAINING),
                [GW_EV_LEAVE] = GO(GW_DRAINING_TO_STOP, GW_FX_ARM_DRAIN),
                [GW_EV_PREPARE_FAILED] = NOTHING(GW_DRAINING),
                [GW_EV_ROLLED_BACK] = NOTHING(GW_DRAINING),
                [GW_EV_STOP] =
                    GO(GW_DRAINING_TO_STOP, GW_FX_BECOME_STOP | GW_FX_ASK_STOP_BUDGET | GW_FX_ARM_DRAIN),
                [GW_EV_DRAINED] = GO(GW_RESTARTING, GW_FX_CLOSE_APP),
                [GW_EV_DRAIN_OVER] = GO(GW_RESTARTING, GW_FX_CUT | GW_FX_CLOSE_APP),
                [GW_EV_CLOSED] = NOTHING(GW_DRAINING),
                [GW_EV_CLOSE_FAILED] = NOTHING(GW_DRAINING),
                [GW_EV_STAY] = NOTHING(GW_DRAINING),
                [GW_EV_YIELD] = NOTHING(GW_DRAINING),
                [GW_EV_SERVING] = NOTHING(GW_DRAINING),
                [GW_EV_SUCCESSOR_LOST] = NOTHING(GW_DRAINING),
                [GW_EV_GO] = NOTHING(GW_DRAINING),
                [GW_EV_ARRIVED] = NOTHING(GW_DRAINING),
                [GW_EV_WOUND_DOWN] = NOTHING(GW_DRAINING),
            },
        [GW_RESTARTING] =
            {
                [GW_EV_STARTED] = NOTHING(GW_RESTARTING),
                [GW_EV_START_FAILED] = NOTHING(GW_RESTARTING),
                [GW_EV_RESTART] = GO(GW_RESTARTING, GW_FX_REMEMBER),
                [GW_EV_PREPARED] = NOTHING(GW_RESTARTING),
                [GW_EV_LEAVE] = NOTHING(GW_RESTARTING),
                [GW_EV_PREPARE_FAILED] = NOTHING(GW_RESTARTING),
                [GW_EV_ROLLED_BACK] = NOTHING(GW_RESTARTING),
                [GW_EV_STOP] = GO(GW_STOPPING, GW_FX_BECOME_STOP | GW_FX_ASK_STOP_BUDGET | GW_FX_ARM_DRAIN),
                [GW_EV_DRAINED] = NOTHING(GW_RESTARTING),
                [GW_EV_DRAIN_OVER] = NOTHING(GW_RESTARTING),
                [GW_EV_CLOSED] = GO(GW_SWITCHING, GW_FX_BOUNDARY | GW_FX_SWITCH),
                [GW_EV_CLOSE_FAILED] = GO(GW_SWITCHING, GW_FX_REPORT_CLOSE | GW_FX_BOUNDARY | GW_FX_SWITCH),
                [GW_EV_STAY] = NOTHING(GW_RESTARTING),
                [GW_EV_YIELD] = NOTHING(GW_RESTARTING),
                [GW_EV_SERVING] = NOTHING(GW_RESTARTING),
                [GW_EV_SUCCESSOR_LOST] = NOTHING(GW_RESTARTING),
                [GW_EV_GO] = NOTHING(GW_RESTARTING),
                [GW_EV_ARRIVED] = NOTHING(GW_RESTARTING),
                [GW_EV_WOUND_DOWN] = NOTHING(GW_RESTARTING),
            },
        [GW_SWITCHING] =
            {
                [GW_EV_STARTED] = NOTHING(GW_SWITCHING),
                [GW_EV_START_FAILED] = NOTHING(GW_SWITCHING),
                [GW_EV_RESTART] = GO(GW_SWITCHING, GW_FX_REMEMBER),
                [GW_EV_PREPARED] = NOTHING(GW_SWITCHING),
                [GW_EV_LEAVE] = NOTHING(GW_SWITCHING),
                [GW_EV_PREPARE_FAILED] = NOTHING(GW_SWITCHING),
                [GW_EV_ROLLED_BACK] = NOTHING(GW_SWITCHING),
                [GW_EV_STOP] =
                    GO(GW_WINDING_DOWN, GW_FX_BECOME_STOP | GW_FX_ASK_STOP_BUDGET | GW_FX_ARM_DRAIN |
                       GW_FX_WIND_DOWN),
                [GW_EV_DRAINED] = NOTHING(GW_SWITCHING),
                [GW_EV_DRAIN_OVER] = NOTHING(GW_SWITCHING),
                [GW_EV_CLOSED] = NOTHING(GW_SWITCHING),
                [GW_EV_CLOSE_FAILED] = NOTHING(GW_SWITCHING),
                [GW_EV_STAY] = GO(GW_NEXT_START, GW_FX_START),
                [GW_EV_YIELD] = GO(GW_HANDING_OVER, GW_FX_HAND_OVER),
                [GW_EV_SERVING] = NOTHING(GW_SWITCHING),
                [GW_EV_SUCCESSOR_LOST] = NOTHING(GW_SWITCHING),
                [GW_EV_GO] = NOTHING(GW_SWITCHING),
                [GW_EV_ARRIVED] = NOTHING(GW_SWITCHING),
                [GW_EV_WOUND_DOWN] = NOTHING(GW_SWITCHING),
            },
        [GW_HANDING_OVER] =
            {
                [GW_EV_STARTED] = NOTHING(GW_HANDING_OVER),
                [GW_EV_START_FAILED] = NOTHING(GW_HANDING_OVER),
                [GW_EV_RESTART] = GO(GW_HANDING_OVER, GW_FX_REMEMBER),
                [GW_EV_PREPARED] = NOTHING(GW_HANDING_OVER),
                [GW_EV_LEAVE] = NOTHING(GW_HANDING_OVER),
                [GW_EV_PREPARE_FAILED] = NOTHING(GW_HANDING_OVER),
                [GW_EV_ROLLED_BACK] = NOTHING(GW_HANDING_OVER),
                [GW_EV_STOP] =
                    GO(GW_WINDING_DOWN, GW_FX_BECOME_STOP | GW_FX_ASK_STOP_BUDGET | GW_FX_ARM_DRAIN |
                       GW_FX_WIND_DOWN),
                [GW_EV_DRAINED] = NOTHING(GW_HANDING_OVER),
                [GW_EV_DRAIN_OVER] = NOTHING(GW_HANDING_OVER),
                [GW_EV_CLOSED] = NOTHING(GW_HANDING_OVER),
                [GW_EV_CLOSE_FAILED] = NOTHING(GW_HANDING_OVER),
                [GW_EV_STAY] = NOTHING(GW_HANDING_OVER),
                [GW_EV_YIELD] = NOTHING(GW_HANDING_OVER),
                [GW_EV_SERVING] = GO(GW_WINDING_DOWN, GW_FX_DEPART),
                [GW_EV_SUCCESSOR_LOST] = GO(GW_NEXT_START, GW_FX_TAKE_BACK | GW_FX_START),
                [GW_EV_GO] = NOTHING(GW_HANDING_OVER),
                [GW_EV_ARRIVED] = NOTHING(GW_HANDING_OVER),
                [GW_EV_WOUND_DOWN] = NOTHING(GW_HANDING_OVER),
            },
        [GW_STANDING_BY] =
            {
                [GW_EV_STARTED] = NOTHING(GW_STANDING_BY),
                [GW_EV_START_FAILED] = GO(GW_EXITED, GW_FX_EXIT_1 | GW_FX_EXIT),
                [GW_EV_RESTART] = GO(GW_STANDING_BY, GW_FX_REMEMBER),
                [GW_EV_PREPARED] = NOTHING(GW_STANDING_BY),
                [GW_EV_LEAVE] = NOTHING(GW_STANDING_BY),
                [GW_EV_PREPARE_FAILED] = NOTHING(GW_STANDING_BY),
                [GW_EV_ROLLED_BACK] = NOTHING(GW_STANDING_BY),
                [GW_EV_STOP] = GO(GW_EXITED, GW_FX_EXIT),
                [GW_EV_DRAINED] = NOTHING(GW_STANDING_BY),
                [GW_EV_DRAIN_OVER] = NOTHING(GW_STANDING_BY),
                [GW_EV_CLOSED] = NOTHING(GW_STANDING_BY),
                [GW_EV_CLOSE_FAILED] = NOTHING(GW_STANDING_BY),
                [GW_EV_STAY] = GO(GW_NEXT_START, GW_FX_TAKE_OVER),
                [GW_EV_YIELD] = NOTHING(GW_STANDING_BY),
                [GW_EV_SERVING] = NOTHING(GW_STANDING_BY),
                [GW_EV_SUCCESSOR_LOST] = NOTHING(GW_STANDING_BY),
                [GW_EV_GO] = GO(GW_SUCCEEDING, GW_FX_TAKE_OVER),
                [GW_EV_ARRIVED] = NOTHING(GW_STANDING_BY),
                [GW_EV_WOUND_DOWN] = NOTHING(GW_STANDING_BY),
            },
        [GW_SUCCEEDING] =
            {
                [GW_EV_STARTED] = GO(GW_ARRIVING, GW_FX_SAY_STARTED),
                [GW_EV_START_FAILED] = GO(GW_EXITED, GW_FX_REPORT_START | GW_FX_EXIT_1 | GW_FX_EXIT),
                [GW_EV_RESTART] = GO(GW_SUCCEEDING, GW_FX_REMEMBER),
                [GW_EV_PREPARED] = NOTHING(GW_SUCCEEDING),
                [GW_EV_LEAVE] = NOTHING(GW_SUCCEEDING),
                [GW_EV_PREPARE_FAILED] = NOTHING(GW_SUCCEEDING),
                [GW_EV_ROLLED_BACK] = NOTHING(GW_SUCCEEDING),
                [GW_EV_STOP] = GO(GW_EXITED, GW_FX_ABANDON_START | GW_FX_EXIT),
                [GW_EV_DRAINED] = NOTHING(GW_SUCCEEDING),
                [GW_EV_DRAIN_OVER] = NOTHING(GW_SUCCEEDING),
                [GW_EV_CLOSED] = NOTHING(GW_SUCCEEDING),
                [GW_EV_CLOSE_FAILED] = NOTHING(GW_SUCCEEDING),
                [GW_EV_STAY] = NOTHING(GW_SUCCEEDING),
                [GW_EV_YIELD] = NOTHING(GW_SUCCEEDING),
                [GW_EV_SERVING] = NOTHING(GW_SUCCEEDING),
                [GW_EV_SUCCESSOR_LOST] = NOTHING(GW_SUCCEEDING),
                [GW_EV_GO] = NOTHING(GW_SUCCEEDING),
                [GW_EV_ARRIVED] = NOTHING(GW_SUCCEEDING),
                [GW_EV_WOUND_DOWN] = NOTHING(GW_SUCCEEDING),
            },
        [GW_ARRIVING] =
            {
                [GW_EV_STARTED] = NOTHING(GW_ARRIVING),
                [GW_EV_START_FAILED] = GO(GW_EXITED, GW_FX_ABANDON_START | GW_FX_EXIT_1 | GW_FX_EXIT),
                [GW_EV_RESTART] = GO(GW_ARRIVING, GW_FX_REMEMBER),
                [GW_EV_PREPARED] = NOTHING(GW_ARRIVING),
                [GW_EV_LEAVE] = NOTHING(GW_ARRIVING),
                [GW_EV_PREPARE_FAILED] = NOTHING(GW_ARRIVING),
                [GW_EV_ROLLED_BACK] = NOTHING(GW_ARRIVING),
                // The connections may be ours already: it stops once it serves them.
                [GW_EV_STOP] = GO(GW_ARRIVING, GW_FX_REMEMBER),
                [GW_EV_DRAINED] = NOTHING(GW_ARRIVING),
                [GW_EV_DRAIN_OVER] = NOTHING(GW_ARRIVING),
                [GW_EV_CLOSED] = NOTHING(GW_ARRIVING),
                [GW_EV_CLOSE_FAILED] = NOTHING(GW_ARRIVING),
                [GW_EV_STAY] = NOTHING(GW_ARRIVING),
                [GW_EV_YIELD] = NOTHING(GW_ARRIVING),
                [GW_EV_SERVING] = NOTHING(GW_ARRIVING),
                [GW_EV_SUCCESSOR_LOST] = NOTHING(GW_ARRIVING),
                [GW_EV_GO] = NOTHING(GW_ARRIVING),
                [GW_EV_ARRIVED] = GO(GW_RUNNING, GW_FX_ANNOUNCE),
                [GW_EV_WOUND_DOWN] = NOTHING(GW_ARRIVING),
            },
        [GW_DRAINING_TO_STOP] =
            {
                [GW_EV_STARTED] = NOTHING(GW_DRAINING_TO_STOP),
                [GW_EV_START_FAILED] = NOTHING(GW_DRAINING_TO_STOP),
                [GW_EV_RESTART] = IGNORED(GW_DRAINING_TO_STOP),
                [GW_EV_PREPARED] = NOTHING(GW_DRAINING_TO_STOP),
                [GW_EV_LEAVE] = NOTHING(GW_DRAINING_TO_STOP),
                [GW_EV_PREPARE_FAILED] = NOTHING(GW_DRAINING_TO_STOP),
                [GW_EV_ROLLED_BACK] = NOTHING(GW_DRAINING_TO_STOP),
                // One that drains to leave for a supervisor; the host posts a stop only once.
                [GW_EV_STOP] =
                    GO(GW_DRAINING_TO_STOP, GW_FX_BECOME_STOP | GW_FX_ASK_STOP_BUDGET | GW_FX_ARM_DRAIN),
                [GW_EV_DRAINED] = GO(GW_STOPPING, GW_FX_CLOSE_APP),
                [GW_EV_DRAIN_OVER] = GO(GW_STOPPING, GW_FX_CUT | GW_FX_CLOSE_APP),
                [GW_EV_CLOSED] = NOTHING(GW_DRAINING_TO_STOP),
                [GW_EV_CLOSE_FAILED] = NOTHING(GW_DRAINING_TO_STOP),
                [GW_EV_STAY] = NOTHING(GW_DRAINING_TO_STOP),
                [GW_EV_YIELD] = NOTHING(GW_DRAINING_TO_STOP),
                [GW_EV_SERVING] = NOTHING(GW_DRAINING_TO_STOP),
                [GW_EV_SUCCESSOR_LOST] = NOTHING(GW_DRAINING_TO_STOP),
                [GW_EV_GO] = NOTHING(GW_DRAINING_TO_STOP),
                [GW_EV_ARRIVED] = NOTHING(GW_DRAINING_TO_STOP),
                [GW_EV_WOUND_DOWN] = NOTHING(GW_DRAINING_TO_STOP),
            },
        [GW_STOPPING] =
            {
                [GW_EV_STARTED] = NOTHING(GW_STOPPING),
                [GW_EV_START_FAILED] = NOTHING(GW_STOPPING),
                [GW_EV_RESTART] = IGNORED(GW_STOPPING),
                [GW_EV_PREPARED] = NOTHING(GW_STOPPING),
                [GW_EV_LEAVE] = NOTHING(GW_STOPPING),
                [GW_EV_PREPARE_FAILED] = NOTHING(GW_STOPPING),
                [GW_EV_ROLLED_BACK] = NOTHING(GW_STOPPING),
                [GW_EV_STOP] = IGNORED(GW_STOPPING),
                [GW_EV_DRAINED] = NOTHING(GW_STOPPING),
                [GW_EV_DRAIN_OVER] = NOTHING(GW_STOPPING),
                [GW_EV_CLOSED] = GO(GW_WINDING_DOWN, GW_FX_WIND_DOWN),
                [GW_EV_CLOSE_FAILED] = GO(GW_WINDING_DOWN, GW_FX_REPORT_CLOSE | GW_FX_WIND_DOWN | GW_FX_EXIT_1),
                [GW_EV_STAY] = NOTHING(GW_STOPPING),
                [GW_EV_YIELD] = NOTHING(GW_STOPPING),
                [GW_EV_SERVING] = NOTHING(GW_STOPPING),
                [GW_EV_SUCCESSOR_LOST] = NOTHING(GW_STOPPING),
                [GW_EV_GO] = NOTHING(GW_STOPPING),
                [GW_EV_ARRIVED] = NOTHING(GW_STOPPING),
                [GW_EV_WOUND_DOWN] = NOTHING(GW_STOPPING),
            },
        [GW_WINDING_DOWN] =
            {
                [GW_EV_STARTED] = NOTHING(GW_WINDING_DOWN),
                [GW_EV_START_FAILED] = NOTHING(GW_WINDING_DOWN),
                [GW_EV_RESTART] = IGNORED(GW_WINDING_DOWN),
                [GW_EV_PREPARED] = NOTHING(GW_WINDING_DOWN),
                [GW_EV_LEAVE] = NOTHING(GW_WINDING_DOWN),
                [GW_EV_PREPARE_FAILED] = NOTHING(GW_WINDING_DOWN),
                [GW_EV_ROLLED_BACK] = NOTHING(GW_WINDING_DOWN),
                [GW_EV_STOP] = IGNORED(GW_WINDING_DOWN),
                [GW_EV_DRAINED] = NOTHING(GW_WINDING_DOWN),
                [GW_EV_DRAIN_OVER] = NOTHING(GW_WINDING_DOWN),
                [GW_EV_CLOSED] = NOTHING(GW_WINDING_DOWN),
                [GW_EV_CLOSE_FAILED] = NOTHING(GW_WINDING_DOWN),
                [GW_EV_STAY] = NOTHING(GW_WINDING_DOWN),
                [GW_EV_YIELD] = NOTHING(GW_WINDING_DOWN),
                [GW_EV_SERVING] = NOTHING(GW_WINDING_DOWN),
                [GW_EV_SUCCESSOR_LOST] = NOTHING(GW_WINDING_DOWN),
                [GW_EV_GO] = NOTHING(GW_WINDING_DOWN),
                [GW_EV_ARRIVED] = NOTHING(GW_WINDING_DOWN),
                [GW_EV_WOUND_DOWN] = GO(GW_EXITED, GW_FX_EXIT),
            },
        [GW_FAILED] =
            {
                [GW_EV_STARTED] = NOTHING(GW_FAILED),
                [GW_EV_START_FAILED] = NOTHING(GW_FAILED),
                [GW_EV_RESTART] = GO(GW_NEXT_START, GW_FX_REACQUIRE),
                [GW_EV_PREPARED] = NOTHING(GW_FAILED),
                [GW_EV_LEAVE] = NOTHING(GW_FAILED),
                [GW_EV_PREPARE_FAILED] = NOTHING(GW_FAILED),
                [GW_EV_ROLLED_BACK] = NOTHING(GW_FAILED),
                [GW_EV_STOP] = GO(GW_EXITED, GW_FX_EXIT),
                [GW_EV_DRAINED] = NOTHING(GW_FAILED),
                [GW_EV_DRAIN_OVER] = NOTHING(GW_FAILED),
                [GW_EV_CLOSED] = NOTHING(GW_FAILED),
                [GW_EV_CLOSE_FAILED] = NOTHING(GW_FAILED),
                [GW_EV_STAY] = NOTHING(GW_FAILED),
                [GW_EV_YIELD] = NOTHING(GW_FAILED),
                [GW_EV_SERVING] = NOTHING(GW_FAILED),
                [GW_EV_SUCCESSOR_LOST] = NOTHING(GW_FAILED),
                [GW_EV_GO] = NOTHING(GW_FAILED),
                [GW_EV_ARRIVED] = NOTHING(GW_FAILED),
                [GW_EV_WOUND_DOWN] = NOTHING(GW_FAILED),
            },
        [GW_EXITED] =
            {
                [GW_EV_STARTED] = NOTHING(GW_EXITED),
                [GW_EV_START_FAILED] = NOTHING(GW_EXITED),
                [GW_EV_RESTART] = IGNORED(GW_EXITED),
                [GW_EV_PREPARED] = NOTHING(GW_EXITED),
                [GW_EV_LEAVE] = NOTHING(GW_EXITED),
                [GW_EV_PREPARE_FAILED] = NOTHING(GW_EXITED),
                [GW_EV_ROLLED_BACK] = NOTHING(GW_EXITED),
                [GW_EV_STOP] = IGNORED(GW_EXITED),
                [GW_EV_DRAINED] = NOTHING(GW_EXITED),
                [GW_EV_DRAIN_OVER] = NOTHING(GW_EXITED),
                [GW_EV_CLOSED] = NOTHING(GW_EXITED),
                [GW_EV_CLOSE_FAILED] = NOTHING(GW_EXITED),
                [GW_EV_STAY] = NOTHING(GW_EXITED),
                [GW_EV_YIELD] = NOTHING(GW_EXITED),
                [GW_EV_SERVING] = NOTHING(GW_EXITED),
                [GW_EV_SUCCESSOR_LOST] = NOTHING(GW_EXITED),
                [GW_EV_GO] = NOTHING(GW_EXITED),
                [GW_EV_ARRIVED] = NOTHING(GW_EXITED),
                [GW_EV_WOUND_DOWN] = NOTHING(GW_EXITED),
            },
};

struct gw_step gw_machine_step(enum gw_state in, enum gw_event on)
{
    gw_assert(in < GW_STATES && on < GW_EVENTS && table[in][on].known);
    return table[in][on];
}

const char *gw_state_name(enum gw_state s)
{
    static const char *const names[GW_STATES] = {
        "first_start", "next_start", "reverting", "running", "preparing", "draining", "restarting",
        "switching", "handing_over", "standing_by", "succeeding", "arriving", "draining_to_stop",
        "stopping", "winding_down", "failed", "exited"};
    return names[s];
}

const char *gw_state_public(enum gw_state s)
{
    static const char *const names[GW_STATES] = {
        "starting", "starting", "starting", "running", "running", "draining", "closing", "closing",
        "handing_over", "starting", "starting", "starting", "draining", "closing", "closing",
        "failed", "exited"};
    return names[s];
}

const char *gw_event_name(enum gw_event e)
{
    static const char *const names[GW_EVENTS] = {
        "started", "start_failed", "restart", "prepared", "leave", "prepare_failed", "rolled_back",
        "stop", "drained", "drain_over", "closed", "close_failed", "stay", "yield", "serving",
        "successor_lost", "go", "arrived", "wound_down"};
    return names[e];
}

const char *gw_effect_name(enum gw_effect fx)
{
    static const char *const names[] = {
        "remember", "become_stop", "refuse", "roll_back", "prepare", "ask_stop_budget", "fence",
        "arm_drain", "cut", "close_app", "report_close", "boundary", "switch", "hand_over",
        "take_back", "take_over", "start", "abandon_start", "report_start", "start_last_good",
        "release", "reacquire", "say_started", "announce", "wind_down", "depart", "exit_1", "exit",
        "ignore"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if ((uint32_t)fx == 1u << i)
            return names[i];
    return "?";
}
