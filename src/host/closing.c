/* closing.c - the end of what serves: the application closes, connections end, listening ends.
 *
 * All of it shares one budget, GW_CLOSE_MS from the moment at which closing begins; what is left then is cut. The
 * forced exit strikes after it, so no client decides how a host ends. */
#include "host/inside.h"

#include <errno.h>

enum { SWEEP_MS = 1000 };

// ---- the application ----

static void on_close_over(struct gw_limit *limit)
{
    struct gw_host *h = limit->data;
    gw_err_set(&h->close_err, -ETIMEDOUT, "the application did not close within %llu ms; it was cut",
               (unsigned long long)h->drain.close_ms);
    gw_host_post(h, GW_EV_CLOSE_FAILED);
}

static void pause_socket(void *ud, struct gw_ws *ws)
{
    gw_ws_pause(ws);
}

void gw_closing_begin(struct gw_host *h)
{
    bool restart = h->state == GW_RESTARTING;
    // Who asked for this restart was not waited for; what it still does ends here, marked as any other.
    struct gw_work_counts left = gw_work_counts(h->work);
    if (left.tasks + left.runs > 0)
        gw_work_cut(h->work, NULL, NULL, NULL);
    gw_drain_arm_closing(h);
    h->close_err = (struct gw_err){0};
    // From here on messages belong to the next generation: they wait where they are.
    gw_ws_each(h->net, pause_socket, NULL);
    gw_limit_start(&h->close_limit, on_close_over, h->drain.close_ms);
    h->app->class->close(h->app, restart ? "gateway restarting" : "gateway stopping",
                         restart ? GW_RESTART_EXPECTED_MS : -1);
}

void gw_closing_report(struct gw_host *h)
{
    bool restart = h->state != GW_WINDING_DOWN;
    gw_log(GW_ERROR, "app.close_failed", json_pack("{so}", "error", gw_json_string(h->close_err.text)), "%s",
           restart ? "the application did not close cleanly; what it held is cut, the restart goes on"
                   : "the application did not close cleanly; what it held is cut, the stop goes on");
    if (restart)
        gw_bundle_write(h, "gateway.restart_close_failed", &h->close_err);
}

// ---- connections ----

static void on_wound_down(void *ud)
{
    gw_host_post(ud, GW_EV_WOUND_DOWN);
}

static void on_winding_over(struct gw_limit *limit)
{
    struct gw_host *h = limit->data;
    gw_log(GW_WARN, "connections.cut", json_pack("{si}", "connections", (int)gw_net_counts(h->net).open),
           "%u connections have not taken their last answer in time; they are cut", gw_net_counts(h->net).open);
    on_wound_down(h);
}

/* Another process serves. What could not be given to it ends politely; then this one does. */
void gw_closing_depart(struct gw_host *h)
{
    h->departed = true;
    gw_watchdog_arm(h, gw_now_ms() + GW_FORCED_EXIT_MS, "departing", "gateway.restart_shutdown_timeout");
    gw_net_unlisten(h->net);
    for (size_t i = 0; i < h->socket_count; i++)
        h->sockets[i].kept = true;
    gw_log(GW_INFO, "host.departs", json_pack("{si}", "successor_pid", (int)h->succession.process.pid),
           "pid %d serves now; this process ends", (int)h->succession.process.pid);
    unsigned left = gw_net_let_go(h->net);
    gw_supervision_departs(h, h->succession.process.pid);
    if (left == 0) {
        gw_host_post(h, GW_EV_WOUND_DOWN);
        return;
    }
    // What stays is told before it is closed, and has the time that closing may take to be told in.
    gw_log(GW_INFO, "connections.left", json_pack("{si}", "connections", (int)left),
           "%u connections could not be handed over; they are closed politely", left);
    gw_control_close(h); // its socket is the next process's, whom its clients ask again
    gw_net_say_close(h->net, true);
    gw_net_thaw(h->net);
    gw_net_refuse_held(h->net, 503, "draining", "the gateway restarts; try again");
    gw_limit_start(&h->close_limit, on_winding_over, GW_CLOSE_MS);
    gw_net_wind_down(h->net, 1012, "restarting", GW_CLOSE_MS, on_wound_down, h);
}

/* Whoever has been connecting meanwhile is in. Now listening ends, and connections do. */
static void on_last_call_over(struct gw_limit *limit)
{
    struct gw_host *h = limit->data;
    bool supervised = h->mode == GW_MODE_SUPERVISED && gw_sched_current(h->sched) != NULL;
    gw_limit_start(&h->close_limit, on_winding_over, gw_drain_closing_left(h));
    gw_net_wind_down(h->net, supervised ? 1012 : 1001, supervised ? "restarting" : "stopping", GW_IDLE_GRACE_MS,
                     on_wound_down, h);
    // Not the copies alone: who connects to a socket that nobody serves would hang, and be reset at our end.
    h->socket_count = gw_listen_close(h->sockets, h->socket_count, false);
}

void gw_closing_wind_down(struct gw_host *h)
{
    if (h->departed) { // the stop came as the successor said that it serves
        gw_closing_depart(h);
        return;
    }
    gw_limit_stop(&h->close_limit);
    gw_watchdog_phase("winding_down");
    if (h->app != NULL) {
        gw_workload_count_refused(h);
        (void)h->app->class->release(h->app, SWEEP_MS);
    }
    gw_net_thaw(h->net);
    (void)gw_net_wind_up(h->net); // if it was for another image, it is for good now
    gw_control_pause(h, false);
    bool last_call = false;
    for (size_t i = 0; i < h->socket_count; i++) {
        if (h->sockets[i].kept) // who waits to be accepted is served by the next process
            gw_net_unlisten_one(h->net, h->sockets[i].fd);
        else
            last_call = gw_listen_last_call(&h->sockets[i]) || last_call;
    }
    gw_net_refuse_held(h->net, 503, "stopping", "the gateway stops");
    gw_limit_start(&h->close_limit, on_last_call_over, last_call ? GW_LAST_CALL_MS : 0);
}
