/* status.c - what the host is doing, for people, scrapers and subscribers. */
#include "host/inside.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *gw_status_store(const struct gw_host *h)
{
    if (h->work == NULL || h->state == GW_HANDING_OVER || h->state == GW_FAILED)
        return "closed";
    return h->store_down || !gw_work_is_open(h->work) ? "unavailable" : "ok";
}

/* The request that is under way, or that waits. */
static json_t *open_restart(struct gw_host *h)
{
    const struct gw_restart *r = gw_sched_current(h->sched), *waiting = gw_sched_waiting(h->sched);
    json_t *o = gw_restart_json(r != NULL ? r : waiting);
    if (!json_is_object(o))
        return o;
    gw_json_set(o, "status", json_string(r != NULL ? "accepted" : "deferred"));
    if (h->succession.process.pid > 0)
        gw_json_set(o, "successor_pid", json_integer(h->succession.process.pid));
    return o;
}

json_t *gw_status(struct gw_host *h)
{
    struct gw_net_counts net = gw_net_counts(h->net);
    json_t *o = json_object(), *listeners = json_array();
    for (size_t i = 0; i < h->socket_count; i++)
        (void)json_array_append_new(listeners, gw_json_string(h->sockets[i].address));
    gw_json_set(o, "pid", json_integer(getpid()));
    gw_json_set(o, "boot_id", json_string(h->boot_id));
    gw_json_set(o, "version", json_string(h->options.version));
    gw_json_set(o, "state", json_string(gw_state_public(h->state)));
    gw_json_set(o, "generation", json_integer(h->generation));
    gw_json_set(o, "uptime_ms", json_integer((json_int_t)(gw_now_ms() - h->booted_ms)));
    gw_json_set(o, "safe_mode", json_boolean(h->safe_mode));
    gw_json_set(o, "policy",
                json_pack("{sosssosI}", "path", gw_json_string(gw_policy_path(h->policy)), "sha256",
                          gw_policy_sha256(h->policy), "name", gw_json_string(gw_policy_name(h->policy)), "loaded_at",
                          (json_int_t)gw_policy_loaded_at(h->policy)));
    const char *by = gw_supervision_by(h);
    gw_json_set(o, "supervisor", by != NULL ? json_string(by) : NULL);
    gw_json_set(o, "work", gw_facts_work(h));
    gw_json_set(o, "store", json_string(gw_status_store(h)));
    if (h->store_down)
        gw_json_set(o, "store_error", gw_json_string(h->store_err.text));
    if (h->store_older != NULL)
        gw_json_set(o, "store_older", json_incref(h->store_older));
    gw_json_set(o, "restart", json_pack("{soso}", "current", open_restart(h), "last", gw_restart_json(gw_sched_last(h->sched))));
    gw_json_set(o, "listeners", listeners);
    gw_json_set(o, "connections",
                json_pack("{sisisisisisi}", "open", (int)net.open, "idle", (int)net.idle, "websockets",
                          (int)net.websockets, "streams", (int)net.streams, "held", (int)net.held, "in_flight",
                          (int)net.in_flight));
    if (h->app != NULL) {
        struct gw_app_facts app = h->app->class->facts(h->app);
        gw_json_set(o, "application",
                    json_pack("{sosssisisisI}", "path", gw_json_string(h->options.app), "kind", app.kind, "requests",
                              (int)app.requests, "executions", (int)app.executions, "children", (int)app.children,
                              "memory_bytes", (json_int_t)app.memory_bytes));
    }
    char *line = h->drain.active ? gw_facts_blockers(h, gw_sched_current(h->sched)) : NULL;
    gw_json_set(o, "blockers", line != NULL ? gw_json_string(line) : NULL);
    free(line);
    return o;
}

static void metric(struct gw_buf *b, const char *name, const char *type, const char *help, double value)
{
    gw_buf_addf(b, "# HELP gwhost_%s %s\n# TYPE gwhost_%s %s\ngwhost_%s %.17g\n", name, help, name, type, name, value);
}

char *gw_metrics(struct gw_host *h)
{
    struct gw_buf b = {0};
    struct gw_net_counts net = gw_net_counts(h->net);
    struct gw_work_counts work = h->work != NULL ? gw_work_counts(h->work) : (struct gw_work_counts){0};
    metric(&b, "generation", "gauge", "Starts in this process image, failed ones too", h->generation);
    metric(&b, "uptime_seconds", "gauge", "Since this process began", (double)(gw_now_ms() - h->booted_ms) / 1000);
    gw_buf_addf(&b, "# HELP gwhost_state Which state the host is in\n# TYPE gwhost_state gauge\n");
    static const char *const states[] = {"starting", "running", "draining", "closing", "handing_over", "failed"};
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        gw_buf_addf(&b, "gwhost_state{state=\"%s\"} %d\n", states[i],
                    strcmp(states[i], gw_state_public(h->state)) == 0);
    metric(&b, "restarts_total", "counter", "Restarts that were accepted", gw_sched_accepted(h->sched));
    metric(&b, "tasks_running", "gauge", "Tasks that run", work.tasks);
    metric(&b, "runs_active", "gauge", "Runs that have begun and not ended", work.runs);
    metric(&b, "tasks_queued", "gauge", "Tasks that wait for a lane", (double)work.queued);
    metric(&b, "store_available", "gauge", "Whether tasks can be accepted", strcmp(gw_status_store(h), "ok") == 0);
    metric(&b, "store_bytes", "gauge", "Size of the task store's file", (double)work.store_bytes);
    metric(&b, "store_log_bytes", "gauge", "Size of its log (WAL); it grows while a reader holds it",
           (double)work.store_log_bytes);
    metric(&b, "store_ends_waiting", "gauge", "Ends of tasks that wait for the store", work.unwritten);
    metric(&b, "tasks_submitted_total", "counter", "Tasks accepted by this process", (double)work.submitted);
    metric(&b, "tasks_finished_total", "counter", "Tasks that reached a final status", (double)work.finished);
    metric(&b, "connections_open", "gauge", "Open connections", net.open);
    metric(&b, "connections_idle", "gauge", "Keep-alive connections between two requests", net.idle);
    metric(&b, "websockets_open", "gauge", "Open WebSockets", net.websockets);
    metric(&b, "streams_open", "gauge", "Streamed answers under way", net.streams);
    metric(&b, "requests_held", "gauge", "Requests that wait for the next generation", net.held);
    metric(&b, "connections_accepted_total", "counter", "Connections accepted", (double)net.accepted);
    metric(&b, "requests_total", "counter", "Requests received", (double)net.requests);
    metric(&b, "answers_total", "counter", "Answers given", (double)net.answered);
    metric(&b, "requests_rejected_total", "counter", "Requests refused by the protocol's rules", (double)net.rejected);
    metric(&b, "timeouts_total", "counter", "Connections ended for being slow or silent", (double)net.timed_out);
    metric(&b, "policy_calls_total", "counter", "Questions put to the policy", (double)h->policy_calls);
    metric(&b, "policy_failures_total", "counter", "Hooks that failed", (double)h->policy_failures);
    metric(&b, "bundles_total", "counter", "Crash and time-out reports written", (double)h->bundles_written);
    metric(&b, "log_lost_total", "counter", "Log lines that could not be written", (double)gw_log_lost());
    if (h->app != NULL)
        metric(&b, "application_memory_bytes", "gauge", "Memory of the application's Lua state",
               (double)h->app->class->facts(h->app).memory_bytes);
    return b.data;
}

static void publish(struct gw_host *h, const char *kind, const char *event, json_t *fields, const char *words)
{
    json_t *o = gw_log_object(GW_INFO, event, fields, words);
    char *text = gw_json_text(o);
    if (h->net != NULL)
        gw_hub_publish(h->net, kind, text);
    gw_control_tell(h, o);
    free(text);
    json_decref(o);
    gw_log(GW_DEBUG, event, fields, "%s", words);
}

void gw_publish_state(struct gw_host *h, enum gw_state from)
{
    const char *now = gw_state_public(h->state);
    if (strcmp(gw_state_public(from), now) == 0)
        return;
    h->state_since_ms = gw_wall_ms();
    const struct gw_restart *r = gw_sched_current(h->sched);
    bool leaves = h->state == GW_DRAINING || h->state == GW_RESTARTING || h->state == GW_NEXT_START ||
                  h->state == GW_HANDING_OVER;
    json_t *fields = json_object();
    gw_json_set(fields, "state", json_string(now));
    gw_json_set(fields, "reason",
                leaves && r != NULL ? gw_json_string(r->reason)
                                    : json_string(h->stop_by_signal && !leaves ? "gateway.stop" : now));
    gw_json_set(fields, "restart_expected_ms", leaves ? json_integer(GW_RESTART_EXPECTED_MS) : NULL);
    publish(h, "state", "host.state", fields, now);
}

void gw_publish_task(void *host, const struct gw_task *task)
{
    json_t *fields = gw_task_json(task);
    // Results belong to whoever asks for the task; an event says that it changed.
    (void)json_object_del(fields, "result");
    (void)json_object_del(fields, "input");
    publish(host, "task", "task.changed", fields, gw_task_status_name(task->status));
}
