/* signals.c - what a signal means in the state in which it arrives. */
#include "host/inside.h"

#include "os/intent.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static json_t *sender_fields(const struct gw_signal *sig)
{
    return json_pack("{sssisI}", "signal", gw_signal_name(sig->number), "sender_pid", (int)sig->pid, "sender_uid",
                     (json_int_t)sig->uid);
}

static void ignored(const struct gw_signal *sig, const char *why)
{
    json_t *fields = sender_fields(sig);
    gw_json_set(fields, "why", gw_json_string(why));
    if (sig->alive && sig->sender.exe[0] != '\0')
        gw_json_set(fields, "sender_exe", gw_json_string(sig->sender.exe));
    gw_log(GW_WARN, "signal.ignored", fields, "%s from pid %d (uid %u) is ignored: %s", gw_signal_name(sig->number),
           (int)sig->pid, (unsigned)sig->uid, why);
}

/* An application is starting or has, or waits for nothing but the store. */
static bool begun(const struct gw_host *h)
{
    return h->generation > 0 || h->store_then != NULL || h->state == GW_SUCCEEDING;
}

static void on_stop(struct gw_host *h, const struct gw_signal *sig)
{
    // One that leaves for a supervisor may wait for work for long: until its application closes it becomes a stop.
    if (h->departed) { // who asks for the stop of this host means the process that is it now
        gw_log(GW_INFO, "stop.accepted", sender_fields(sig), "%s from pid %d: pid %d serves now, and is told to stop",
               gw_signal_name(sig->number), (int)sig->pid, (int)h->succession.process.pid);
        gw_succession_stop(h);
        return;
    }
    if (h->stops || h->state == GW_STOPPING || h->state == GW_WINDING_DOWN || h->state == GW_EXITED) {
        ignored(sig, "this host stops already");
        gw_supervision_stays(h); // nor does it linger then
        return;
    }
    gw_log(GW_INFO, "stop.accepted", sender_fields(sig), "%s from pid %d: this host stops", gw_signal_name(sig->number),
           (int)sig->pid);
    h->stop_by_signal = true;
    h->stop_signal = sig->number;
    h->stop_sender = *sig;
    if (!begun(h)) {
        // Nothing has been started: there is nothing that the machine would have to end.
        h->state = GW_EXITED;
        uv_stop(&h->loop);
        return;
    }
    // At once: what runs before the event is looked at may never return. Its own budget comes with the drain.
    gw_watchdog_arm(h, gw_now_ms() + GW_FORCED_EXIT_MS, "stopping", "gateway.stop_shutdown_timeout");
    gw_host_post_stop(h);
}

static void restart_by(struct gw_host *h, const struct gw_signal *sig, bool when_idle)
{
    struct gw_ask ask = {.source = "signal",
                         .reason = gw_signal_name(sig->number),
                         .update = sig->number == SIGUSR2,
                         .when_idle = when_idle,
                         .wait_ms = -1,
                         .signal = gw_signal_name(sig->number),
                         .sender = gw_facts_sender(sig)};
    (void)gw_restarts_ask(h, &ask);
    json_decref(ask.sender);
}

/* Takes an intent that waits, and carries it out unless why_not says why it cannot be. False when there is none
 * that is valid. */
static bool follow_intent(struct gw_host *h, const struct gw_signal *sig, const char *why_not)
{
    struct gw_intent intent = {0};
    char rule[32] = "";
    struct gw_err err = {0};
    if (h->state == GW_STANDING_BY)
        return false; // what waits there is for the predecessor
    int rc = h->dir_fd >= 0 ? gw_intent_take(h->dir_fd, getpid(), gw_wall_ms(), &intent, rule, &err) : -ENOENT;
    if (rc == -EPERM)
        gw_log(GW_WARN, "intent.refused", json_pack("{ssso}", "rule", rule, "error", gw_json_string(err.text)),
               "the restart intent is not followed, and removed: %s", err.text);
    if (rc < 0)
        return false;
    if (why_not != NULL && (!begun(h) || h->state == GW_PREPARING))
        return false; // the signal means what it means without one
    if (why_not != NULL) {
        ignored(sig, why_not);
        return true;
    }
    struct gw_ask ask = {.source = "signal",
                         .reason = intent.reason,
                         .force = intent.force,
                         .update = sig->number == SIGUSR2,
                         .has_intent = true,
                         .wait_ms = intent.wait_ms,
                         .signal = gw_signal_name(sig->number),
                         .sender = gw_facts_sender(sig)};
    (void)gw_restarts_ask(h, &ask);
    json_decref(ask.sender);
    return true;
}

static const char *cannot_restart(const struct gw_host *h)
{
    switch (h->state) {
    case GW_DRAINING:
    case GW_RESTARTING:
    case GW_SWITCHING:
    case GW_HANDING_OVER:
        return "a restart is under way";
    case GW_DRAINING_TO_STOP:
    case GW_STOPPING:
    case GW_WINDING_DOWN:
    case GW_EXITED:
        return "this host stops";
    default:
        return !begun(h) && h->state != GW_FAILED ? "this host has not started anything yet" : NULL;
    }
}

static void on_term(struct gw_host *h, const struct gw_signal *sig)
{
    const char *why_not = cannot_restart(h);
    // Under a supervisor it ends the process whatever is under way: one restart, which leaves in the end.
    bool leaves_later = gw_supervision_by(h) != NULL &&
                        (h->state == GW_DRAINING || h->state == GW_RESTARTING || h->state == GW_SWITCHING);
    if (!follow_intent(h, sig, leaves_later ? NULL : why_not))
        on_stop(h, sig);
}

/* SIGUSR1 for a restart, SIGUSR2 for one with another program: the one on disk. */
static void on_usr(struct gw_host *h, const struct gw_signal *sig)
{
    const char *why_not = cannot_restart(h);
    if (follow_intent(h, sig, why_not))
        return;
    if (h->state == GW_PREPARING)
        why_not = "a restart is under way";
    if (why_not != NULL) {
        ignored(sig, why_not);
        return;
    }
    if (sig->number == SIGUSR1 && gw_sched_authorized(h->sched, gw_restarts_now(h))) {
        gw_restarts_look(h); // what was asked for inside goes now
        return;
    }
    enum gw_authorization answer = GW_DENY;
    struct gw_decision d;
    json_t *facts = gw_facts(h, "restart", NULL, sig);
    gw_policy_authorize_sigusr1(h->policy, facts, &answer, &d);
    json_decref(facts);
    gw_facts_decided(h, &d);
    if (answer == GW_DENY) {
        char why[400];
        (void)snprintf(why, sizeof why, "the policy '%s' says no (%s); run 'gwhost restart' instead",
                       gw_policy_name(h->policy), d.why[0] != '\0' ? d.why : "no reason given");
        ignored(sig, why);
        return;
    }
    restart_by(h, sig, answer == GW_WHEN_IDLE);
}

void gw_host_on_signal(void *host, const struct gw_signal *sig)
{
    struct gw_host *h = host;
    json_t *fields = sender_fields(sig);
    gw_log(GW_INFO, "signal.received", fields, "%s from pid %d (uid %u)%s%s", gw_signal_name(sig->number), (int)sig->pid,
           (unsigned)sig->uid, sig->alive && sig->sender.comm[0] != '\0' ? ", " : "",
           sig->alive ? sig->sender.comm : "");
    switch (sig->number) {
    case SIGTERM:
        on_term(h, sig);
        break;
    case SIGINT:
        on_stop(h, sig);
        break;
    case SIGQUIT:
        if (h->app != NULL)
            h->app->class->stands(h->app);
        on_stop(h, sig);
        break;
    case SIGUSR1:
    case SIGUSR2:
        on_usr(h, sig);
        break;
    case SIGHUP:
        if (h->policy == NULL || h->state == GW_EXITED)
            break;
        (void)gw_host_reload_policy(h, "SIGHUP", NULL);
        gw_drain_rebudget(h);
        break;
    default:
        break;
    }
    gw_sentry_taken(h->sentry);
}
