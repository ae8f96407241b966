/* safe_mode.c - the crash loop breaker: three boots in five minutes that ended uncleanly, and the next one
 * starts with the built-in policy and gives work that may have killed the host no further attempt.
 *
 * Boots are recorded in a file of their own: it can be read when the store is what kills us. */
#include "host/inside.h"

#include "os/boots.h"

#include <errno.h>
#include <stdlib.h>

enum { LOOP_BOOTS = 3, LOOP_MS = 300000 };

/* The host before this one has died: who starts this one learns it here, and where to look. */
static void say_dead(struct gw_host *h, const struct gw_boots_dead *dead)
{
    char *report = gw_bundle_of(h, dead->pid);
    json_t *fields = json_pack("{sssisI}", "dead_boot_id", dead->boot_id, "dead_pid", dead->pid, "started_at",
                               (json_int_t)dead->started_at);
    gw_json_set(fields, "bundle", report != NULL ? gw_json_string(report) : NULL);
    gw_log(GW_WARN, "boot.unclean", fields,
           "the host before this one (pid %d) has died; what ran in it is lost, or queued again where its task says so. %s%s",
           dead->pid, report != NULL ? "Its report is in " : "It left no report: look for who killed it (dmesg, the supervisor)",
           report != NULL ? report : "");
    free(report);
}

void gw_safe_mode_served(struct gw_host *h)
{
    if (h->boot_recorded && h->generation == 1)
        (void)gw_boots_note(h->dir_fd, h->boot_id, "served", NULL);
}

void gw_safe_mode_stops(struct gw_host *h)
{
    if (h->boot_recorded)
        (void)gw_boots_note(h->dir_fd, h->boot_id, "stopping", NULL);
}

void gw_safe_mode_begin(struct gw_host *h, const char *predecessor)
{
    struct gw_err err = {0};
    struct gw_boots_dead dead;
    unsigned unclean = 0;
    if (gw_boots_begin(h->dir_fd, h->boot_id, predecessor, gw_wall_ms(), LOOP_MS, &unclean, &dead, &err) < 0)
        gw_log(GW_WARN, "boots.failed", json_pack("{so}", "error", gw_json_string(err.text)),
               "the record of boots: %s", err.text);
    h->boot_recorded = true;
    if (dead.boot_id[0] != '\0')
        say_dead(h, &dead);
    if (unclean < LOOP_BOOTS || predecessor != NULL)
        return;
    h->safe_mode = true;
    (void)gw_policy_free(h->policy);
    h->policy = gw_policy_builtin();
    gw_err_set(&err, -ELOOP, "%u boots ended uncleanly within %d minutes", unclean, LOOP_MS / 60000);
    gw_log(GW_ERROR, "safe_mode.entered", json_pack("{si}", "unclean_boots", (int)unclean),
           "%s: safe mode, with the built-in policy; work that ran when a boot died is not tried again. Look at the "
           "bundles (gwhost bundle list), mend the cause, then run 'gwhost restart' to leave it", err.text);
    if (unclean == LOOP_BOOTS) // a loop that goes on must not push out the reports that tell why
        gw_bundle_write(h, "gateway.crash_loop", &err);
}

/* A restart that was carried out well leaves it. */
void gw_safe_mode_leave(struct gw_host *h)
{
    if (!h->safe_mode)
        return;
    h->safe_mode = false;
    (void)gw_boots_forgive(h->dir_fd, NULL);
    gw_log(GW_WARN, "safe_mode.left", NULL, "a clean restart has left safe mode: the policy of the file is in force again");
}

void gw_safe_mode_end(struct gw_host *h)
{
    // An end that was planned, for a supervisor or an operator to start the next one, is a clean restart too.
    if (h->exit_code == GW_EXIT_OK && !h->departed && h->boot_recorded)
        gw_safe_mode_leave(h);
    // The image before ours had no end of its own: until we have arrived it is its boot that ends here.
    bool same_pid = h->standby.active && h->standby.channel == NULL && h->standby.go != NULL;
    const char *boot = h->boot_recorded ? h->boot_id : same_pid ? h->standby.predecessor : NULL;
    if (boot != NULL && h->lock != NULL && !h->departed)
        (void)gw_boots_end(h->dir_fd, boot, h->exit_code == GW_EXIT_OK, gw_wall_ms(), NULL);
}
