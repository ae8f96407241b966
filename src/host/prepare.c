/* prepare.c - a restart is accepted: sources are read, the mode is asked for, what it needs is proved. Nothing is
 * torn down here, so whatever fails changes nothing. */
#include "host/inside.h"

#include <string.h>

void gw_prepare_refuse(struct gw_host *h)
{
    const struct gw_restart *r = gw_sched_current(h->sched);
    gw_watchdog_arm(h, UINT64_MAX, "running", "gateway.stop_shutdown_timeout");
    if (r == NULL) { // it has expired
        gw_restarts_look(h);
        return;
    }
    // Who sends SIGTERM expects an end: it does not get a host that serves on.
    bool by_term = strcmp(r->signal, "SIGTERM") == 0;
    json_t *fields = json_pack("{ssso}", "request_id", r->id, "why", gw_json_string(h->prepare_err.text));
    if (by_term)
        gw_log(GW_ERROR, "restart.refused", fields,
               "the new sources cannot be used; it was a SIGTERM that asked, so this host stops. Mend the file");
    else
        gw_log(GW_ERROR, "restart.refused", fields,
               "the new sources cannot be used; generation %u serves on. Mend the file and ask again", h->generation);
    gw_update_failed(h, &h->prepare_err);
    gw_supervision_stays(h);
    gw_restarts_end(h, "refused", h->prepare_err.text);
    if (by_term) {
        h->stop_by_signal = true;
        gw_host_post_stop(h);
    } else {
        gw_restarts_look(h);
    }
}

void gw_prepare_roll_back(struct gw_host *h)
{
    const struct gw_err *why = &h->succession.lost;
    gw_watchdog_arm(h, UINT64_MAX, "running", "gateway.stop_shutdown_timeout");
    gw_log(GW_ERROR, "update.rolled_back", json_pack("{so}", "error", gw_json_string(why->text)),
           "nothing was torn down, generation %u serves on: %s", h->generation, why->text);
    gw_restarts_end(h, "rolled_back", why->text);
    gw_restarts_look(h);
}

/* Why another process cannot be started here; NULL: it can. */
static const char *never_respawns(struct gw_host *h, enum gw_mode mode)
{
    if (gw_facts_no_respawn())
        return "GWHOST_NO_RESPAWN is set";
    if (h->store_down) // what another process would need is known to be ill
        return "the task store cannot be written";
    return mode == GW_MODE_RESPAWN && h->lock == NULL ? "the lock is not held" : NULL;
}

/* What is carried out of what was decided, here; *ret_why says why it is another mode, or is NULL. */
static enum gw_mode carried_out(struct gw_host *h, const struct gw_restart *r, enum gw_mode mode, const char **ret_why)
{
    const char *by = gw_supervision_by(h);
    *ret_why = NULL;
    if (mode != GW_MODE_SUPERVISED && by != NULL && r != NULL && strcmp(r->signal, "SIGTERM") == 0) {
        *ret_why = "a SIGTERM under a supervisor means that the process ends";
        return GW_MODE_SUPERVISED;
    }
    if (mode == GW_MODE_IN_PROCESS || mode == GW_MODE_SUPERVISED)
        return mode;
    *ret_why = never_respawns(h, mode);
    if (*ret_why != NULL)
        return GW_MODE_IN_PROCESS;
    bool watched = by != NULL && !gw_supervision_follows(h);
    if (mode == GW_MODE_REEXEC || (!h->supervision.by.pid1 && !h->supervision.by.init_above && !watched))
        return mode;
    *ret_why = h->supervision.by.pid1 ? "pid 1 cannot leave"
               : watched              ? "the supervisor watches this pid"
                                      : "pid 1 above this process ends when this process does";
    return GW_MODE_REEXEC;
}

static struct gw_mode_answer ask_mode(struct gw_host *h, const struct gw_restart *r, char *ret_why, size_t size)
{
    struct gw_mode_answer answer = {.mode = GW_MODE_IN_PROCESS, .health_timeout_ms = -1, .exit_delay_ms = -1};
    struct gw_decision d;
    json_t *facts = gw_facts(h, "restart", r, NULL);
    if (r != NULL && r->force) { // no hook is asked
        struct gw_policy *builtin = gw_policy_builtin();
        gw_policy_restart_mode(builtin, facts, &answer, &d);
        (void)gw_policy_free(builtin);
        json_decref(facts);
        (void)snprintf(ret_why, size, "force asks no hook; %s", d.why);
        return answer;
    }
    gw_policy_restart_mode(h->policy, facts, &answer, &d);
    json_decref(facts);
    gw_facts_decided(h, &d);
    (void)snprintf(ret_why, size, "%s", d.why);
    return answer;
}

struct gw_mode_answer gw_prepare_mode(struct gw_host *h, const struct gw_restart *r, enum gw_mode *ret_asked,
                                      char *ret_why, size_t size)
{
    const char *changed;
    struct gw_mode_answer answer = ask_mode(h, r, ret_why, size);
    *ret_asked = answer.mode;
    answer.mode = carried_out(h, r, answer.mode, &changed);
    if (changed != NULL)
        (void)snprintf(ret_why, size, "'%s' becomes '%s': %s", gw_mode_name(*ret_asked), gw_mode_name(answer.mode), changed);
    return answer;
}

/* A policy that would not load at the switch is better known now, while nothing has been torn down. */
static void try_policy(struct gw_host *h)
{
    struct gw_policy *trial = NULL;
    struct gw_err err = {0};
    if (gw_policy_load(h->options.policy, h->options.lua_dir, &trial, &err) < 0)
        gw_log(GW_WARN, "policy.rejected",
               json_pack("{soso}", "path", gw_json_string(h->options.policy), "error", gw_json_string(err.text)),
               "the new policy cannot be used; unless it is mended before the switch, the old one stays in force");
    (void)gw_policy_free(trial);
}

/* Asks how to come back and begins what that needs. True when nothing has to be proved first. */
static bool choose_mode(struct gw_host *h, const struct gw_restart *r)
{
    char why[256];
    enum gw_mode asked;
    struct gw_mode_answer answer = gw_prepare_mode(h, r, &asked, why, sizeof why);
    h->mode = answer.mode;
    if (asked != h->mode)
        gw_log(GW_WARN, "restart.mode_changed",
               json_pack("{ssssso}", "asked", gw_mode_name(asked), "mode", gw_mode_name(h->mode), "why", gw_json_string(why)),
               "%s", why);
    if (h->mode == GW_MODE_SUPERVISED && gw_supervision_by(h) == NULL)
        gw_log(GW_WARN, "restart.unsupervised", NULL,
               "the mode is 'supervised', but no supervisor was found: this process ends, and who starts it again?");
    gw_sched_set_mode(h->sched, gw_mode_name(h->mode));
    gw_log(GW_INFO, "restart.mode", json_pack("{ssso}", "mode", gw_mode_name(h->mode), "why", gw_json_string(why)),
           "comes back by '%s'%s%s", gw_mode_name(h->mode), why[0] != '\0' ? ": " : "", why);
    gw_update_accepted(h, r);
    if (h->mode == GW_MODE_SUPERVISED)
        gw_supervision_leaves(h, answer.exit_delay_ms);
    else
        gw_supervision_stays(h);
    if (h->store_down && r->update && (asked == GW_MODE_RESPAWN || asked == GW_MODE_REEXEC)) {
        (void)gw_err_set(&h->succession.lost, -EIO, "the task store cannot be written: %s", h->store_err.text);
        gw_update_failed(h, &h->succession.lost);
        if (h->state == GW_PREPARING) {
            gw_host_post(h, GW_EV_ROLLED_BACK);
            return false;
        }
    }
    if (h->mode != GW_MODE_RESPAWN && h->mode != GW_MODE_REEXEC)
        return true;
    const char *program = !r->update ? "/proc/self/exe"
                          : r->exec[0] != '\0' ? r->exec
                          : answer.exec[0] != '\0' ? answer.exec
                                                   : h->options.program;
    int64_t health = answer.health_timeout_ms > 0 ? answer.health_timeout_ms : GW_HEALTH_MS;
    if (h->state == GW_PREPARING)
        gw_watchdog_arm(h, gw_now_ms() + (uint64_t)health + GW_FORCED_EXIT_MS, "preparing",
                        "gateway.restart_shutdown_timeout");
    gw_succession_prove(h, program, r->update, health);
    if (h->state == GW_DRAINING)
        gw_drain_arm_watchdog(h); // which leaves room for the next process from now on
    return false;
}

void gw_prepare_stay(struct gw_host *h, const char *why)
{
    h->mode = GW_MODE_IN_PROCESS;
    gw_net_say_close(h->net, false);
    gw_sched_set_mode(h->sched, gw_mode_name(h->mode));
    gw_log(GW_WARN, "restart.mode", json_pack("{ssss}", "mode", "in_process", "why", why),
           "comes back in this process: %s", why);
}

void gw_prepare_here(struct gw_host *h)
{
    const struct gw_restart *r = gw_sched_current(h->sched);
    // Another program that a supervisor starts has files of its own, which this one may not be able to read.
    bool elsewhere = h->mode == GW_MODE_SUPERVISED && r != NULL && r->update;
    if (!elsewhere && gw_host_prepare_app(h, &h->prepare_err) < 0)
        gw_host_post(h, GW_EV_PREPARE_FAILED);
    else
        gw_prepare_done(h);
}

/* Everything is known and proved: the drain may begin. */
void gw_prepare_done(struct gw_host *h)
{
    h->drain.accepted_ms = gw_now_ms();
    gw_drain_ask(h, false);
    if (h->mode == GW_MODE_SUPERVISED)
        gw_safe_mode_stops(h);
    gw_host_post(h, h->mode == GW_MODE_SUPERVISED ? GW_EV_LEAVE : GW_EV_PREPARED);
}

/* Another mode may answer an update; what was proved for the old one is ended. */
void gw_prepare_upgrade(struct gw_host *h)
{
    const struct gw_restart *r = gw_sched_current(h->sched);
    if (r == NULL || (h->state != GW_PREPARING && h->state != GW_DRAINING))
        return;
    gw_succession_end(h);
    if (!choose_mode(h, r))
        return;
    if (h->state == GW_PREPARING)
        gw_prepare_here(h);
    else if (h->mode == GW_MODE_SUPERVISED) {
        gw_safe_mode_stops(h);
        gw_host_post(h, GW_EV_LEAVE);
    }
}

/* What was prepared for a restart that came to nothing is not what this one finds. */
static void drop_next(struct gw_host *h)
{
    if (h->next_app != NULL) {
        (void)h->next_app->class->release(h->next_app, 1000);
        h->next_app->class->free(h->next_app);
    }
    h->next_app = NULL;
    h->next_sources = gw_sources_unref(h->next_sources);
}

void gw_prepare_restart(struct gw_host *h)
{
    h->drain = (struct drain){.limit = h->drain.limit, .report = h->drain.report, .end_at_ms = UINT64_MAX};
    h->drain.accepted_ms = gw_now_ms();
    h->prepare_err = h->succession.lost = (struct gw_err){0};
    const struct gw_restart *r = gw_restarts_accept(h);
    if (r == NULL) {
        gw_host_post(h, GW_EV_PREPARE_FAILED);
        return;
    }
    drop_next(h);
    try_policy(h);
    if (choose_mode(h, r))
        gw_prepare_here(h);
}
