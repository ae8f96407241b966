#include "lifecycle/machine.h"

#include "base/err.h"

#include <stddef.h>

/* A row: in a state, on an event, go to a state and do this, in the order of the enum. What an operator asked for and
 * does not get is a row that says so (GW_FX_IGNORE), so that the log can tell. */
struct rule {
    enum gw_state in;
    enum gw_event on;
    enum gw_state to;
    uint32_t effects;
};

static const struct rule rules[] = {
    {GW_FIRST_START,      GW_EV_STARTED,        GW_RUNNING,          GW_FX_ANNOUNCE},
    {GW_FIRST_START,      GW_EV_START_FAILED,   GW_EXITED,           GW_FX_REPORT_START | GW_FX_EXIT_1 | GW_FX_EXIT},
    {GW_FIRST_START,      GW_EV_RESTART,        GW_FIRST_START,      GW_FX_REMEMBER},
    {GW_FIRST_START,      GW_EV_STOP,           GW_EXITED,           GW_FX_ABANDON_START | GW_FX_EXIT},

    {GW_NEXT_START,       GW_EV_STARTED,        GW_RUNNING,          GW_FX_ANNOUNCE},
    {GW_NEXT_START,       GW_EV_START_FAILED,   GW_REVERTING,        GW_FX_REPORT_START | GW_FX_START_LAST_GOOD},
    {GW_NEXT_START,       GW_EV_RESTART,        GW_NEXT_START,       GW_FX_REMEMBER},
    {GW_NEXT_START,       GW_EV_STOP,           GW_EXITED,           GW_FX_ABANDON_START | GW_FX_EXIT},

    {GW_REVERTING,        GW_EV_STARTED,        GW_RUNNING,          GW_FX_ANNOUNCE},
    {GW_REVERTING,        GW_EV_START_FAILED,   GW_FAILED,           GW_FX_REPORT_START | GW_FX_RELEASE},
    {GW_REVERTING,        GW_EV_RESTART,        GW_REVERTING,        GW_FX_REMEMBER},
    {GW_REVERTING,        GW_EV_STOP,           GW_EXITED,           GW_FX_ABANDON_START | GW_FX_EXIT},

    {GW_RUNNING,          GW_EV_RESTART,        GW_PREPARING,        GW_FX_PREPARE},
    {GW_RUNNING,          GW_EV_STOP,           GW_DRAINING_TO_STOP, GW_FX_ASK_STOP_BUDGET | GW_FX_FENCE | GW_FX_ARM_DRAIN},

    {GW_PREPARING,        GW_EV_RESTART,        GW_PREPARING,        GW_FX_IGNORE},
    {GW_PREPARING,        GW_EV_PREPARED,       GW_DRAINING,         GW_FX_FENCE | GW_FX_ARM_DRAIN},
    {GW_PREPARING,        GW_EV_LEAVE,          GW_DRAINING_TO_STOP, GW_FX_FENCE | GW_FX_ARM_DRAIN},
    {GW_PREPARING,        GW_EV_PREPARE_FAILED, GW_RUNNING,          GW_FX_REFUSE},
    {GW_PREPARING,        GW_EV_ROLLED_BACK,    GW_RUNNING,          GW_FX_ROLL_BACK},
    {GW_PREPARING,        GW_EV_STOP,           GW_DRAINING_TO_STOP, GW_FX_BECOME_STOP | GW_FX_ASK_STOP_BUDGET | GW_FX_FENCE | GW_FX_ARM_DRAIN},

    {GW_DRAINING,         GW_EV_RESTART,        GW_DRAINING,         GW_FX_IGNORE},
    {GW_DRAINING,         GW_EV_LEAVE,          GW_DRAINING_TO_STOP, GW_FX_ARM_DRAIN},
    {GW_DRAINING,         GW_EV_STOP,           GW_DRAINING_TO_STOP, GW_FX_BECOME_STOP | GW_FX_ASK_STOP_BUDGET | GW_FX_ARM_DRAIN},
    {GW_DRAINING,         GW_EV_DRAINED,        GW_RESTARTING,       GW_FX_CLOSE_APP},
    {GW_DRAINING,         GW_EV_DRAIN_OVER,     GW_RESTARTING,       GW_FX_CUT | GW_FX_CLOSE_APP},

    {GW_RESTARTING,       GW_EV_RESTART,        GW_RESTARTING,       GW_FX_REMEMBER},
    {GW_RESTARTING,       GW_EV_STOP,           GW_STOPPING,         GW_FX_BECOME_STOP | GW_FX_ASK_STOP_BUDGET | GW_FX_ARM_DRAIN},
    {GW_RESTARTING,       GW_EV_CLOSED,         GW_SWITCHING,        GW_FX_BOUNDARY | GW_FX_SWITCH},
    {GW_RESTARTING,       GW_EV_CLOSE_FAILED,   GW_SWITCHING,        GW_FX_REPORT_CLOSE | GW_FX_BOUNDARY | GW_FX_SWITCH},

    {GW_SWITCHING,        GW_EV_RESTART,        GW_SWITCHING,        GW_FX_REMEMBER},
    {GW_SWITCHING,        GW_EV_STOP,           GW_WINDING_DOWN,     GW_FX_BECOME_STOP | GW_FX_ASK_STOP_BUDGET | GW_FX_ARM_DRAIN | GW_FX_WIND_DOWN},
    {GW_SWITCHING,        GW_EV_STAY,           GW_NEXT_START,       GW_FX_START},
    {GW_SWITCHING,        GW_EV_YIELD,          GW_HANDING_OVER,     GW_FX_HAND_OVER},

    {GW_HANDING_OVER,     GW_EV_RESTART,        GW_HANDING_OVER,     GW_FX_REMEMBER},
    {GW_HANDING_OVER,     GW_EV_STOP,           GW_WINDING_DOWN,     GW_FX_BECOME_STOP | GW_FX_ASK_STOP_BUDGET | GW_FX_ARM_DRAIN | GW_FX_WIND_DOWN},
    {GW_HANDING_OVER,     GW_EV_SERVING,        GW_WINDING_DOWN,     GW_FX_DEPART},
    {GW_HANDING_OVER,     GW_EV_SUCCESSOR_LOST, GW_NEXT_START,       GW_FX_TAKE_BACK | GW_FX_START},

    {GW_STANDING_BY,      GW_EV_START_FAILED,   GW_EXITED,           GW_FX_EXIT_1 | GW_FX_EXIT},
    {GW_STANDING_BY,      GW_EV_RESTART,        GW_STANDING_BY,      GW_FX_REMEMBER},
    {GW_STANDING_BY,      GW_EV_STOP,           GW_EXITED,           GW_FX_EXIT},
    {GW_STANDING_BY,      GW_EV_STAY,           GW_NEXT_START,       GW_FX_TAKE_OVER},
    {GW_STANDING_BY,      GW_EV_GO,             GW_SUCCEEDING,       GW_FX_TAKE_OVER},

    {GW_SUCCEEDING,       GW_EV_STARTED,        GW_ARRIVING,         GW_FX_SAY_STARTED},
    {GW_SUCCEEDING,       GW_EV_START_FAILED,   GW_EXITED,           GW_FX_REPORT_START | GW_FX_EXIT_1 | GW_FX_EXIT},
    {GW_SUCCEEDING,       GW_EV_RESTART,        GW_SUCCEEDING,       GW_FX_REMEMBER},
    {GW_SUCCEEDING,       GW_EV_STOP,           GW_EXITED,           GW_FX_ABANDON_START | GW_FX_EXIT},

    {GW_ARRIVING,         GW_EV_START_FAILED,   GW_EXITED,           GW_FX_ABANDON_START | GW_FX_EXIT_1 | GW_FX_EXIT},
    {GW_ARRIVING,         GW_EV_RESTART,        GW_ARRIVING,         GW_FX_REMEMBER},
    // The connections may be ours already: it stops once it serves them.
    {GW_ARRIVING,         GW_EV_STOP,           GW_ARRIVING,         GW_FX_REMEMBER},
    {GW_ARRIVING,         GW_EV_ARRIVED,        GW_RUNNING,          GW_FX_ANNOUNCE},

    {GW_DRAINING_TO_STOP, GW_EV_RESTART,        GW_DRAINING_TO_STOP, GW_FX_IGNORE},
    // One that drains to leave for a supervisor; the host posts a stop only once.
    {GW_DRAINING_TO_STOP, GW_EV_STOP,           GW_DRAINING_TO_STOP, GW_FX_BECOME_STOP | GW_FX_ASK_STOP_BUDGET | GW_FX_ARM_DRAIN},
    {GW_DRAINING_TO_STOP, GW_EV_DRAINED,        GW_STOPPING,         GW_FX_CLOSE_APP},
    {GW_DRAINING_TO_STOP, GW_EV_DRAIN_OVER,     GW_STOPPING,         GW_FX_CUT | GW_FX_CLOSE_APP},

    {GW_STOPPING,         GW_EV_RESTART,        GW_STOPPING,         GW_FX_IGNORE},
    {GW_STOPPING,         GW_EV_STOP,           GW_STOPPING,         GW_FX_IGNORE},
    {GW_STOPPING,         GW_EV_CLOSED,         GW_WINDING_DOWN,     GW_FX_WIND_DOWN},
    {GW_STOPPING,         GW_EV_CLOSE_FAILED,   GW_WINDING_DOWN,     GW_FX_REPORT_CLOSE | GW_FX_WIND_DOWN | GW_FX_EXIT_1},

    {GW_WINDING_DOWN,     GW_EV_RESTART,        GW_WINDING_DOWN,     GW_FX_IGNORE},
    {GW_WINDING_DOWN,     GW_EV_STOP,           GW_WINDING_DOWN,     GW_FX_IGNORE},
    {GW_WINDING_DOWN,     GW_EV_WOUND_DOWN,     GW_EXITED,           GW_FX_EXIT},

    {GW_FAILED,           GW_EV_RESTART,        GW_NEXT_START,       GW_FX_REACQUIRE},
    {GW_FAILED,           GW_EV_STOP,           GW_EXITED,           GW_FX_EXIT},

    {GW_EXITED,           GW_EV_RESTART,        GW_EXITED,           GW_FX_IGNORE},
    {GW_EXITED,           GW_EV_STOP,           GW_EXITED,           GW_FX_IGNORE},
};

#define BIT(event) (1u << (event))

/* What a state is, and the events that it has a row for: every other one means nothing in it. A test holds the two tables
 * against each other. */
static const struct {
    const char *name, *public;
    uint32_t heard;
} states[GW_STATES] = {
    [GW_FIRST_START] = {"first_start", "starting",
        BIT(GW_EV_STARTED) | BIT(GW_EV_START_FAILED) | BIT(GW_EV_RESTART) | BIT(GW_EV_STOP)},
    [GW_NEXT_START] = {"next_start", "starting",
        BIT(GW_EV_STARTED) | BIT(GW_EV_START_FAILED) | BIT(GW_EV_RESTART) | BIT(GW_EV_STOP)},
    [GW_REVERTING] = {"reverting", "starting",
        BIT(GW_EV_STARTED) | BIT(GW_EV_START_FAILED) | BIT(GW_EV_RESTART) | BIT(GW_EV_STOP)},
    [GW_RUNNING] = {"running", "running",
        BIT(GW_EV_RESTART) | BIT(GW_EV_STOP)},
    [GW_PREPARING] = {"preparing", "running",
        BIT(GW_EV_RESTART) | BIT(GW_EV_PREPARED) | BIT(GW_EV_LEAVE) | BIT(GW_EV_PREPARE_FAILED) |
        BIT(GW_EV_ROLLED_BACK) | BIT(GW_EV_STOP)},
    [GW_DRAINING] = {"draining", "draining",
        BIT(GW_EV_RESTART) | BIT(GW_EV_LEAVE) | BIT(GW_EV_STOP) | BIT(GW_EV_DRAINED) | BIT(GW_EV_DRAIN_OVER)},
    [GW_RESTARTING] = {"restarting", "closing",
        BIT(GW_EV_RESTART) | BIT(GW_EV_STOP) | BIT(GW_EV_CLOSED) | BIT(GW_EV_CLOSE_FAILED)},
    [GW_SWITCHING] = {"switching", "closing",
        BIT(GW_EV_RESTART) | BIT(GW_EV_STOP) | BIT(GW_EV_STAY) | BIT(GW_EV_YIELD)},
    [GW_HANDING_OVER] = {"handing_over", "handing_over",
        BIT(GW_EV_RESTART) | BIT(GW_EV_STOP) | BIT(GW_EV_SERVING) | BIT(GW_EV_SUCCESSOR_LOST)},
    [GW_STANDING_BY] = {"standing_by", "starting",
        BIT(GW_EV_START_FAILED) | BIT(GW_EV_RESTART) | BIT(GW_EV_STOP) | BIT(GW_EV_STAY) | BIT(GW_EV_GO)},
    [GW_SUCCEEDING] = {"succeeding", "starting",
        BIT(GW_EV_STARTED) | BIT(GW_EV_START_FAILED) | BIT(GW_EV_RESTART) | BIT(GW_EV_STOP)},
    [GW_ARRIVING] = {"arriving", "starting",
        BIT(GW_EV_START_FAILED) | BIT(GW_EV_RESTART) | BIT(GW_EV_STOP) | BIT(GW_EV_ARRIVED)},
    [GW_DRAINING_TO_STOP] = {"draining_to_stop", "draining",
        BIT(GW_EV_RESTART) | BIT(GW_EV_STOP) | BIT(GW_EV_DRAINED) | BIT(GW_EV_DRAIN_OVER)},
    [GW_STOPPING] = {"stopping", "closing",
        BIT(GW_EV_RESTART) | BIT(GW_EV_STOP) | BIT(GW_EV_CLOSED) | BIT(GW_EV_CLOSE_FAILED)},
    [GW_WINDING_DOWN] = {"winding_down", "closing",
        BIT(GW_EV_RESTART) | BIT(GW_EV_STOP) | BIT(GW_EV_WOUND_DOWN)},
    [GW_FAILED] = {"failed", "failed",
        BIT(GW_EV_RESTART) | BIT(GW_EV_STOP)},
    [GW_EXITED] = {"exited", "exited",
        BIT(GW_EV_RESTART) | BIT(GW_EV_STOP)},
};

struct gw_step gw_machine_step(enum gw_state in, enum gw_event on)
{
    gw_assert(in < GW_STATES && on < GW_EVENTS);
    bool heard = (states[in].heard & BIT(on)) != 0;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (rules[i].in == in && rules[i].on == on)
            return (struct gw_step){rules[i].to, rules[i].effects, heard};
    return (struct gw_step){in, 0, !heard};
}

const char *gw_state_name(enum gw_state s)
{
    return states[s].name;
}

const char *gw_state_public(enum gw_state s)
{
    return states[s].public;
}

const char *gw_event_name(enum gw_event e)
{
    static const char *const names[GW_EVENTS] = {
        [GW_EV_STARTED] = "started", [GW_EV_START_FAILED] = "start_failed", [GW_EV_RESTART] = "restart",
        [GW_EV_PREPARED] = "prepared", [GW_EV_LEAVE] = "leave", [GW_EV_PREPARE_FAILED] = "prepare_failed",
        [GW_EV_ROLLED_BACK] = "rolled_back", [GW_EV_STOP] = "stop", [GW_EV_DRAINED] = "drained",
        [GW_EV_DRAIN_OVER] = "drain_over", [GW_EV_CLOSED] = "closed", [GW_EV_CLOSE_FAILED] = "close_failed",
        [GW_EV_STAY] = "stay", [GW_EV_YIELD] = "yield", [GW_EV_SERVING] = "serving",
        [GW_EV_SUCCESSOR_LOST] = "successor_lost", [GW_EV_GO] = "go", [GW_EV_ARRIVED] = "arrived",
        [GW_EV_WOUND_DOWN] = "wound_down"
    };
    return names[e];
}

const char *gw_effect_name(enum gw_effect fx)
{
    static const struct {
        enum gw_effect effect;
        const char *name;
    } names[] = {
        {GW_FX_REMEMBER, "remember"}, {GW_FX_BECOME_STOP, "become_stop"}, {GW_FX_REFUSE, "refuse"},
        {GW_FX_ROLL_BACK, "roll_back"}, {GW_FX_PREPARE, "prepare"}, {GW_FX_ASK_STOP_BUDGET, "ask_stop_budget"},
        {GW_FX_FENCE, "fence"}, {GW_FX_ARM_DRAIN, "arm_drain"}, {GW_FX_CUT, "cut"}, {GW_FX_CLOSE_APP, "close_app"},
        {GW_FX_REPORT_CLOSE, "report_close"}, {GW_FX_BOUNDARY, "boundary"}, {GW_FX_SWITCH, "switch"},
        {GW_FX_HAND_OVER, "hand_over"}, {GW_FX_TAKE_BACK, "take_back"}, {GW_FX_TAKE_OVER, "take_over"},
        {GW_FX_START, "start"}, {GW_FX_ABANDON_START, "abandon_start"}, {GW_FX_REPORT_START, "report_start"},
        {GW_FX_START_LAST_GOOD, "start_last_good"}, {GW_FX_RELEASE, "release"}, {GW_FX_REACQUIRE, "reacquire"},
        {GW_FX_SAY_STARTED, "say_started"}, {GW_FX_ANNOUNCE, "announce"}, {GW_FX_WIND_DOWN, "wind_down"},
        {GW_FX_DEPART, "depart"}, {GW_FX_EXIT_1, "exit_1"}, {GW_FX_EXIT, "exit"}, {GW_FX_IGNORE, "ignore"}
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].effect == fx)
            return names[i].name;
    return "?";
}
