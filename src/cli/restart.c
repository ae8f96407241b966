#include "base/err.h"
#include "base/json.h"
#include "base/time.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/last_resort.h"
#include "cli/options.h"
#include "cli/outcome.h"
#include "cli/progress.h"
#include "cli/text.h"
#include "os/statedir.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: gwhost restart [OPTION]...\n"
    "Asks the running host to restart and waits for what becomes of it: 0 only when the next generation serves.\n"
    "\n"
    "  --reason TEXT      why, for the log and the policy\n"
    "  --wait DURATION    how long running work may take; 0: as long as it takes (default: the policy's answer)\n"
    "  --force            no waiting: running work is marked interrupted and aborted\n"
    "  --when-idle        at the next moment at which nothing runs\n"
    "  --update           to another image: the program on disk, or that of --exec\n"
    "  --exec FILE        the program to update to\n"
    "  --no-wait          print the id of the request once it is accepted, and leave\n"
    "  --dry-run          show what would happen: mode, budget, blockers, by which policy\n"
    "  --signal           for a host whose socket is gone: an intent and SIGUSR1 to the holder of the lock\n"
    "  --cancel ID        withdraw a request that still waits\n"
    "  --json             print the outcome as JSON\n"
    "  --state-dir DIR    of which host\n";

struct wish {
    const char *reason, *wait, *exec, *cancel;
    bool force, when_idle, update, no_wait, dry_run, signal, json;
    int64_t wait_ms; /* -1: not said */
};

/* Returns -1 when the options go together. */
static int check(const struct gw_cli_args *args, struct wish *w)
{
    uint64_t ms = 0;
    w->wait_ms = -1;
    if (w->wait != NULL) {
        if (!gw_parse_duration(w->wait, &ms))
            return gw_cli_misused(args, "--wait takes 250ms, 30s, 5m, 1h or seconds, not", w->wait);
        w->wait_ms = (int64_t)ms;
    }
    if (w->force && w->wait != NULL)
        return gw_cli_misused(args, "--force and --wait exclude each other", NULL);
    if (w->exec != NULL && !w->update)
        return gw_cli_misused(args, "--exec needs --update", NULL);
    bool other = w->when_idle || w->update || w->dry_run;
    if (w->signal && (other || w->cancel != NULL || w->json))
        return gw_cli_misused(args, "--signal goes with --reason, --wait, --force and --no-wait only", NULL);
    if (w->cancel != NULL && (other || w->reason != NULL || w->wait != NULL || w->force || w->no_wait))
        return gw_cli_misused(args, "--cancel goes with --json only", NULL);
    return -1;
}

static json_t *request_of(const struct wish *w)
{
    json_t *o = json_object();
    if (w->reason != NULL)
        gw_json_set(o, "reason", gw_json_string(w->reason));
    if (w->wait_ms >= 0)
        gw_json_set(o, "wait_ms", json_integer(w->wait_ms));
    if (w->force)
        gw_json_set(o, "force", json_true());
    if (w->when_idle)
        gw_json_set(o, "when", json_string("idle"));
    if (w->update)
        gw_json_set(o, "update", json_true());
    if (w->exec != NULL) {
        char *path = gw_path_absolute(w->exec);
        gw_json_set(o, "exec", gw_json_string(path));
        free(path);
    }
    if (w->dry_run)
        gw_json_set(o, "dry_run", json_true());
    return o;
}

static void show_plan(const json_t *plan)
{
    const json_t *policy = json_object_get(plan, "policy"), *budget = json_object_get(plan, "budget_ms");
    char mode[32], why[300], line[1024], name[128], path[512], sha[80], time[32];
    (void)printf("%-10s%s", "mode", gw_text_of(plan, "mode", "?", mode, sizeof mode));
    if (*gw_text_of(plan, "why", "", why, sizeof why) != '\0')
        (void)printf(" (%s)", why);
    (void)printf("\n%-10s%s\n", "budget",
                 json_is_integer(budget) ? gw_text_duration(json_integer_value(budget), time) : "without a limit");
    (void)printf("%-10s%s\n", "blockers", gw_text_of(plan, "blockers", "none", line, sizeof line));
    (void)printf("%-10s%s (%s, sha256 %.12s)\n", "policy", gw_text_of(policy, "name", "?", name, sizeof name),
                 gw_text_of(policy, "path", "?", path, sizeof path),
                 gw_text_of(policy, "sha256", "?", sha, sizeof sha));
}

/* Prints the outcome; returns the exit code. */
static int show_outcome(const json_t *outcome, const struct gw_progress *p, bool as_json)
{
    char what[32], why[300], mode[32], boot[64], id[64], time[32];
    const json_t *by = json_object_get(outcome, "answered_by");
    bool restarted = strcmp(gw_text_of(outcome, "outcome", "?", what, sizeof what), "restarted") == 0;
    if (as_json) {
        gw_text_json(outcome);
    } else if (restarted) {
        const char *note = gw_text_of(outcome, "why", "", why, sizeof why);
        (void)printf("restarted: generation %" PRId64 ", boot id %s, pid %" PRId64 " (%s, %s)%s%s\n",
                     (int64_t)json_integer_value(json_object_get(by, "generation")),
                     gw_text_of(by, "boot_id", "?", boot, sizeof boot),
                     (int64_t)json_integer_value(json_object_get(by, "pid")),
                     gw_text_of(outcome, "mode", "mode unknown", mode, sizeof mode),
                     gw_text_duration((int64_t)(gw_now_ms() - p->began_ms), time), *note != '\0' ? "; " : "", note);
    } else {
        (void)fprintf(stderr, "gwhost: not restarted: request %s is %s%s%s\n",
                      gw_text_of(outcome, "request_id", "?", id, sizeof id), what,
                      json_object_get(outcome, "why") != NULL ? ": " : "",
                      gw_text_of(outcome, "why", "", why, sizeof why));
    }
    return restarted ? GW_CLI_OK : GW_CLI_FAILED;
}

static int wait_and_show(struct gw_client *c, struct gw_progress *p, const char *id, bool as_json, struct gw_err *err)
{
    json_t *outcome = NULL;
    int rc = gw_outcome_wait(c, p, id, &outcome, err);
    gw_progress_end(p);
    if (rc < 0) {
        (void)gw_err_prefix(err, "what became of request %s is not known", id);
        return gw_text_failed(err);
    }
    int code = show_outcome(outcome, p, as_json);
    json_decref(outcome);
    return code;
}

static int ask(struct gw_client *c, const struct wish *w, struct gw_err *err)
{
    struct gw_progress p;
    json_t *answer = NULL;
    bool waits = !w->no_wait && !w->dry_run;
    gw_progress_init(&p, !waits || w->json);
    c->note = gw_progress_say;
    c->note_ud = &p;
    // Followed from before the request, so that nothing of what happens is missed.
    if ((waits && gw_client_follow(c, err) < 0) || gw_client_call(c, "restart", request_of(w), &answer, err) < 0)
        return gw_text_failed(err);
    char id[64];
    (void)gw_text_of(answer, "request_id", "", id, sizeof id);
    int code = GW_CLI_OK;
    if (w->json && !waits) {
        gw_text_json(answer);
    } else if (w->dry_run) {
        show_plan(answer);
    } else if (w->no_wait) {
        (void)puts(id);
    } else {
        code = wait_and_show(c, &p, id, w->json, err);
    }
    json_decref(answer);
    return code;
}

static int cancel(struct gw_client *c, const struct wish *w, struct gw_err *err)
{
    json_t *answer = NULL, *o = json_object();
    gw_json_set(o, "request_id", gw_json_string(w->cancel));
    if (gw_client_call(c, "restart_cancel", o, &answer, err) < 0)
        return gw_text_failed(err);
    if (w->json)
        gw_text_json(answer);
    else
        (void)printf("request %s is cancelled\n", w->cancel);
    json_decref(answer);
    return GW_CLI_OK;
}

int gw_cli_restart(int argc, char **argv)
{
    struct gw_cli_args args = {.command = "restart", .usage = usage};
    struct wish w = {0};
    const struct gw_cli_option options[] = {
        {"reason", &w.reason, NULL},   {"wait", &w.wait, NULL},         {"exec", &w.exec, NULL},
        {"cancel", &w.cancel, NULL},   {"force", NULL, &w.force},       {"when-idle", NULL, &w.when_idle},
        {"update", NULL, &w.update},   {"no-wait", NULL, &w.no_wait},   {"dry-run", NULL, &w.dry_run},
        {"signal", NULL, &w.signal},   {"json", NULL, &w.json},         {0}};
    int code = gw_cli_options(&args, options, argc, argv);
    if (code < 0)
        code = check(&args, &w);
    if (code >= 0)
        return code;
    struct gw_err err = {0};
    if (w.signal)
        return gw_cli_last_resort(args.state_dir, w.reason, w.force, w.wait_ms, !w.no_wait);
    struct gw_client c;
    if (gw_client_open(&c, args.state_dir, &err) < 0)
        code = gw_text_failed(&err);
    else
        code = w.cancel != NULL ? cancel(&c, &w, &err) : ask(&c, &w, &err);
    gw_client_fini(&c);
    return code;
}
