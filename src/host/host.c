/* host.c - the loop: one event at a time, a step of the machine, its effects. */
#include "host/inside.h"

#include "base/sha.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    LOG_MS = 1000, /* for who reads the log, at the end */
    LOOP_FDS = 12, /* that a loop, its signals and its wake-ups may need */
};

void gw_host_post(struct gw_host *h, enum gw_event event)
{
    uv_stop(&h->loop);
    for (unsigned i = 0; i < h->event_count; i++)
        if (h->events[i] == event)
            return;
    h->events[h->event_count++] = event;
}

static enum gw_event next_event(struct gw_host *h)
{
    enum gw_event first = h->events[0];
    memmove(h->events, h->events + 1, --h->event_count * sizeof *h->events);
    return first;
}

void gw_host_post_stop(struct gw_host *h)
{
    if (!h->stops) {
        gw_safe_mode_stops(h);
        gw_host_post(h, GW_EV_STOP);
    }
    h->stops = true;
}

static void log_step(struct gw_host *h, enum gw_event on, struct gw_step step)
{
    json_t *fields = json_object();
    gw_json_set(fields, "from", json_string(gw_state_name(h->state)));
    gw_json_set(fields, "on", json_string(gw_event_name(on)));
    gw_json_set(fields, "to", json_string(gw_state_name(step.to)));
    gw_log(GW_DEBUG, "host.step", fields, "step");
}

static void take(struct gw_host *h, enum gw_event on)
{
    struct gw_step step = gw_machine_step(h->state, on);
    log_step(h, on, step);
    enum gw_state from = h->state;
    h->state = step.to;
    if (from != h->state)
        gw_publish_state(h, from);
    gw_effects_run(h, step.effects);
}

/* libuv ends the process where it cannot have what it begins with: tried before. */
static int find_room(void)
{
    int fds[LOOP_FDS], n = 0, rc = 0;
    while (rc == 0 && n < LOOP_FDS) {
        fds[n] = eventfd(0, EFD_CLOEXEC);
        rc = fds[n] < 0 ? -errno : 0;
        n += rc == 0;
    }
    while (n > 0)
        (void)close(fds[--n]);
    return rc;
}

int gw_host_run(const struct gw_host_options *options)
{
    struct gw_host *h = gw_calloc(1, sizeof *h);
    h->options = *options;
    h->dir_fd = h->standby.origin_fd = h->standby.control_fd = h->standby.memory_fd = -1;
    h->booted_ms = gw_now_ms();
    h->startup_started_at_ms = h->state_since_ms = gw_wall_ms();
    gw_random_hex(16, h->boot_id);
    gw_log_identity(h->boot_id);
    int code, rc = find_room();
    if (rc == 0)
        rc = uv_loop_init(&h->loop);
    if (rc < 0) {
        code = gw_boot_without_loop(h, rc);
        free(h);
        return code;
    }
    gw_boot_open(h);
    // Nothing but this loop runs effects, so states end and begin with no frame of libuv or Lua below.
    while (h->state != GW_EXITED) {
        if (h->event_count > 0)
            take(h, next_event(h));
        else
            (void)uv_run(&h->loop, UV_RUN_DEFAULT);
    }
    gw_boot_close(h);
    code = h->exit_code;
    free(h);
    gw_log_finish(LOG_MS);
    return code;
}
