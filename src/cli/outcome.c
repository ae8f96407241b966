#include "cli/outcome.h"

#include "base/err.h"
#include "base/json.h"
#include "base/time.h"
#include "cli/client.h"
#include "cli/progress.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { MERGES_MAX = 16, REFRESH_MS = 200 };

static bool is_event(const json_t *event, const char *name)
{
    const char *is = json_string_value(json_object_get(event, "event"));
    return is != NULL && strcmp(is, name) == 0;
}

static int refresh(struct gw_client *c, struct gw_progress *p, struct gw_err *err)
{
    json_t *status = NULL;
    int rc = gw_client_insist(c, "status", NULL, &status, err);
    if (rc == 0)
        gw_progress_status(p, status);
    json_decref(status);
    return rc;
}

/* Takes in events until one of that name comes, or the connection is lost (which is news too: 0), whoever notices it:
 * what was waited for may have happened before the next one was had. */
static int wait_for(struct gw_client *c, struct gw_progress *p, const char *name, struct gw_err *err)
{
    uint64_t refreshed_ms = 0;
    unsigned connection = c->connections;
    for (bool found = false; !found && c->connections == connection;) {
        gw_progress_draw(p);
        json_t *event = NULL;
        int rc = gw_client_event(c, gw_progress_due(p), &event, err);
        if (rc == -ECONNRESET)
            return 0;
        if (rc < 0 && rc != -ETIMEDOUT)
            return rc;
        if (rc == 0) {
            gw_progress_event(p, event);
            found = is_event(event, name);
            json_decref(event);
        }
        // However many tasks end, what is left is asked for a few times a second at most.
        if (!found && p->stale && gw_now_ms() - refreshed_ms >= REFRESH_MS) {
            refreshed_ms = gw_now_ms();
            if ((rc = refresh(c, p, err)) < 0)
                return rc;
        }
    }
    return 0;
}

/* The outcome of one request, merged or whatever. */
static int wait_final(struct gw_client *c, struct gw_progress *p, const char *id, json_t **ret_outcome,
                      struct gw_err *err)
{
    json_t *ask = json_object();
    gw_json_set(ask, "request_id", gw_json_string(id));
    int rc;
    for (;;) {
        json_t *now = NULL;
        rc = gw_client_insist(c, "restart_outcome", ask, &now, err);
        if (rc == -EREMOTEIO)
            (void)gw_err_prefix(err, "the host (pid %d, boot id %s) was asked for request %s", (int)c->pid, c->boot_id,
                                id);
        if (rc < 0)
            break;
        if (json_is_string(json_object_get(now, "outcome"))) {
            *ret_outcome = now;
            break;
        }
        json_decref(now);
        // At first, and when another host answers: a drain that runs already has said what it waits for.
        p->told = false;
        if ((p->live && (rc = refresh(c, p, err)) < 0) || (rc = wait_for(c, p, "restart.outcome", err)) < 0)
            break;
    }
    json_decref(ask);
    return rc;
}

/* Who serves now. The one that handed over may still answer for a moment: it does not count. */
static int find_answerer(struct gw_client *c, struct gw_progress *p, json_t *outcome, struct gw_err *err)
{
    for (;;) {
        json_t *status = NULL;
        int rc = gw_client_insist(c, "status", NULL, &status, err);
        if (rc < 0)
            return gw_err_prefix(err, "the restart is said to be done, but nobody can be asked");
        const char *state = json_string_value(json_object_get(status, "state"));
        bool serves = state != NULL && (strcmp(state, "running") == 0 || strcmp(state, "draining") == 0);
        if (serves) {
            json_t *by = json_object();
            gw_json_set(by, "pid", json_incref(json_object_get(status, "pid")));
            gw_json_set(by, "boot_id", json_incref(json_object_get(status, "boot_id")));
            gw_json_set(by, "generation", json_incref(json_object_get(status, "generation")));
            gw_json_set(outcome, "answered_by", by);
        }
        gw_progress_status(p, status);
        json_decref(status);
        if (serves)
            return 0;
        if ((rc = wait_for(c, p, "host.state", err)) < 0)
            return rc;
    }
}

int gw_outcome_wait(struct gw_client *c, struct gw_progress *p, const char *id, json_t **ret_outcome,
                    struct gw_err *err)
{
    json_t *outcome = NULL;
    char now[64], words[160];
    (void)snprintf(now, sizeof now, "%s", id);
    for (int merges = 0;; merges++) {
        int rc = wait_final(c, p, now, &outcome, err);
        if (rc < 0)
            return rc;
        const char *into = json_string_value(json_object_get(outcome, "merged_into"));
        if (into == NULL || strcmp(json_string_value(json_object_get(outcome, "outcome")), "merged") != 0)
            break;
        if (merges == MERGES_MAX) {
            json_decref(outcome);
            return gw_err_set(err, -ELOOP, "request %s was merged too often", id);
        }
        (void)snprintf(words, sizeof words, "follows request %s, into which it was merged", into);
        (void)snprintf(now, sizeof now, "%s", into);
        json_decref(outcome);
        gw_progress_say(p, words);
    }
    int rc = 0;
    if (strcmp(json_string_value(json_object_get(outcome, "outcome")), "restarted") == 0)
        rc = find_answerer(c, p, outcome, err);
    if (rc < 0)
        json_decref(outcome);
    else
        *ret_outcome = outcome;
    return rc;
}
