/* facts.c - what policies are told, and the log line about what they answered. */
#include "host/inside.h"

#include <signal.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCKERS_SHOWN = 100 };

bool gw_facts_no_respawn(void)
{
    static const char *const yes[] = {"1", "true", "yes", "on"};
    const char *value = getenv("GWHOST_NO_RESPAWN");
    for (int i = 0; value != NULL && i < 4; i++)
        if (strcasecmp(value, yes[i]) == 0)
            return true;
    return false;
}

json_t *gw_facts_work(struct gw_host *h)
{
    json_t *work = json_object(), *lanes = json_object();
    struct gw_work_counts counts = {0};
    const struct gw_lane_counts *list = NULL;
    size_t n = 0;
    if (h->work != NULL) {
        counts = gw_work_counts(h->work);
        n = gw_work_lanes(h->work, &list);
    }
    for (size_t i = 0; i < n; i++)
        gw_json_set(lanes, list[i].name,
                    json_pack("{sisIsi}", "active", (int)list[i].active, "queued", (json_int_t)list[i].queued,
                              "concurrency", (int)list[i].concurrency));
    gw_json_set(work, "tasks", json_integer(counts.tasks));
    gw_json_set(work, "runs", json_integer(counts.runs));
    gw_json_set(work, "queued", json_integer(counts.queued));
    if (counts.unwritten > 0)
        gw_json_set(work, "unwritten", json_integer(counts.unwritten));
    gw_json_set(work, "lanes", lanes);
    return work;
}

json_t *gw_facts_sender(const struct gw_signal *sig)
{
    json_t *o = json_object();
    gw_json_set(o, "pid", json_integer(sig->pid));
    gw_json_set(o, "uid", json_integer(sig->uid));
    if (sig->alive) {
        if (sig->sender.exe[0] != '\0')
            gw_json_set(o, "exe", gw_json_string(sig->sender.exe));
    }
    if (sig->descends >= 0)
        gw_json_set(o, "descendant", json_boolean(sig->descends > 0));
    return o;
}

json_t *gw_facts(struct gw_host *h, const char *action, const struct gw_restart *r, const struct gw_signal *sig)
{
    json_t *f = json_object();
    bool stop = strcmp(action, "stop") == 0;
    if (sig == NULL && stop && h->stop_by_signal)
        sig = &h->stop_sender;
    gw_json_set(f, "action", json_string(action));
    gw_json_set(f, "source", json_string(r != NULL ? r->source : stop && !h->stop_by_signal ? "control" : "signal"));
    gw_json_set(f, "reason", gw_json_string(r != NULL ? r->reason : stop ? "gateway.stop" : "gateway.restart"));
    if (sig != NULL) {
        gw_json_set(f, "signal", json_string(gw_signal_name(sig->number)));
        gw_json_set(f, "sender", gw_facts_sender(sig));
    } else if (r != NULL && r->signal[0] != '\0') {
        gw_json_set(f, "signal", json_string(r->signal));
        gw_json_set(f, "sender", json_incref(r->sender));
    }
    if (r != NULL && r->has_intent) {
        json_t *intent = json_object();
        gw_json_set(intent, "force", json_boolean(r->force));
        gw_json_set(intent, "reason", gw_json_string(r->reason));
        if (r->wait_ms >= 0)
            gw_json_set(intent, "wait_ms", json_integer(r->wait_ms));
        gw_json_set(f, "intent", intent);
    }
    gw_json_set(f, "force", json_boolean(r != NULL && r->force));
    gw_json_set(f, "update", json_boolean(r != NULL ? r->update : sig != NULL && sig->number == SIGUSR2));
    gw_json_set(f, "generation", json_integer(h->generation));
    gw_json_set(f, "boot_id", json_string(h->boot_id));
    gw_json_set(f, "pid", json_integer(getpid()));
    gw_json_set(f, "uid", json_integer(geteuid()));
    gw_json_set(f, "uptime_ms", json_integer((json_int_t)(gw_now_ms() - h->booted_ms)));
    if (gw_supervision_by(h) != NULL)
        gw_json_set(f, "supervisor", json_string(gw_supervision_by(h)));
    gw_json_set(f, "container", json_boolean(h->supervision.by.container));
    gw_json_set(f, "respawn_disabled", json_boolean(gw_facts_no_respawn()));
    gw_json_set(f, "exec_running", json_boolean(h->app != NULL && h->app->exec_running));
    gw_json_set(f, "work", gw_facts_work(h));
    gw_json_set(f, "elapsed_ms", json_integer(h->drain.active ? (json_int_t)(gw_now_ms() - h->drain.accepted_ms) : 0));
    gw_json_set(f, "deferred_ms", json_integer(r != NULL ? (json_int_t)(gw_now_ms() - r->asked_ms) : 0));
    int64_t since = gw_sched_since_last(h->sched, gw_now_ms());
    if (since >= 0)
        gw_json_set(f, "last_restart_ms", json_integer(since));
    gw_json_set(f, "restarts", json_integer(gw_sched_last_hour(h->sched, gw_now_ms())));
    gw_json_set(f, "vars", json_incref(h->options.vars));
    return f;
}

void gw_facts_decided(struct gw_host *h, const struct gw_decision *d)
{
    h->policy_calls++;
    if (d->failed) {
        h->policy_failures++;
        gw_log(GW_ERROR, "policy.hook_failed",
               json_pack("{ssso}", "hook", d->hook, "error", gw_json_string(d->error)),
               "the hook %s failed; the built-in answer is used", d->hook);
    }
    gw_log(GW_INFO, "policy.decision",
           json_pack("{sssososI}", "hook", d->hook, "answer", gw_json_string(d->answer), "why", gw_json_string(d->why),
                     "us", (json_int_t)d->us),
           "%s: %s", d->hook, d->answer);
}

static void put(json_t *o, const char *key, const char *value)
{
    if (value != NULL)
        gw_json_set(o, key, gw_json_string(value));
}

char *gw_facts_blockers(struct gw_host *h, const struct gw_restart *r)
{
    struct gw_blocker list[BLOCKERS_SHOWN];
    size_t total = 0, n = h->work != NULL ? gw_work_blockers(h->work, list, BLOCKERS_SHOWN, &total) : 0;
    if (total == 0)
        return NULL;
    json_t *blockers = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *o = json_object();
        put(o, "id", list[i].id);
        put(o, "kind", list[i].kind);
        put(o, "status", list[i].status);
        put(o, "runtime", list[i].runtime);
        put(o, "lane", list[i].lane);
        put(o, "run_id", list[i].run_id);
        put(o, "label", list[i].label);
        put(o, "title", list[i].title);
        put(o, "progress", list[i].progress);
        gw_json_set(o, "age_ms", json_integer(list[i].age_ms));
        (void)json_array_append_new(blockers, o);
    }
    json_t *facts = gw_facts(h, h->drain.to_stop ? "stop" : "restart", r, NULL);
    gw_json_set(facts, "blockers_total", json_integer((json_int_t)total));
    char *line = NULL;
    struct gw_decision d;
    gw_policy_format_blockers(h->policy, blockers, facts, &line, &d);
    if (d.failed)
        gw_facts_decided(h, &d);
    json_decref(facts);
    json_decref(blockers);
    return line;
}
