/* update.c - the record of an update, restart-sentinel.json: what was tried, and what became of it.
 *
 * Written when an update is accepted, made final by whoever ends it, read and removed at the next start after
 * that, with one notice in the log. Failing to write it is only logged: it records, it decides nothing. It also
 * carries a continuation to a process that somebody else starts. */
#include "host/inside.h"

#include "os/sentinel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void keep(struct gw_host *h, const struct gw_sentinel *s)
{
    struct gw_err err = {0};
    if (h->lock != NULL && gw_sentinel_write(h->dir_fd, s, &err) < 0)
        gw_log(GW_WARN, "sentinel.failed", json_pack("{so}", "error", gw_json_string(err.text)),
               "the record of the update could not be written: %s", err.text);
}

static bool recall(struct gw_host *h, struct gw_sentinel *ret)
{
    struct gw_err err = {0};
    int rc = h->dir_fd >= 0 ? gw_sentinel_read(h->dir_fd, ret, &err) : -ENOENT;
    if (rc < 0 && gw_err_passes(rc)) {
        gw_log(GW_WARN, "sentinel.failed", json_pack("{so}", "error", gw_json_string(err.text)),
               "the record of the last update cannot be read now, and stays: %s", err.text);
    } else if (rc < 0 && rc != -ENOENT) {
        gw_log(GW_WARN, "sentinel.failed", json_pack("{so}", "error", gw_json_string(err.text)),
               "the record of the last update is not understood, and removed: %s", err.text);
        gw_sentinel_remove(h->dir_fd);
    }
    return rc == 0;
}

static void put(char *to, size_t size, const char *from)
{
    (void)snprintf(to, size, "%s", from);
}

void gw_update_accepted(struct gw_host *h, const struct gw_restart *r)
{
    bool leaves = h->mode == GW_MODE_SUPERVISED && h->continuation != NULL;
    if (!r->update && !leaves)
        return;
    struct gw_sentinel s = {.ts_ms = gw_wall_ms(), .message = (char *)r->reason, .continuation = h->continuation,
                            .duration_ms = -1};
    put(s.kind, sizeof s.kind, r->update ? "update" : "restart");
    put(s.status, sizeof s.status, "pending");
    put(s.mode, sizeof s.mode, gw_mode_name(h->mode));
    put(s.before, sizeof s.before, h->options.version);
    keep(h, &s);
}

static void finish(struct gw_host *h, struct gw_sentinel *s, const char *status)
{
    put(s->status, sizeof s->status, status);
    s->duration_ms = gw_wall_ms() - s->ts_ms;
    json_decref(s->continuation);
    s->continuation = NULL;
    keep(h, s);
    gw_sentinel_fini(s);
}

void gw_update_failed(struct gw_host *h, const struct gw_err *why)
{
    struct gw_sentinel s = {0};
    if (!recall(h, &s))
        return;
    if (strcmp(s.status, "pending") != 0) {
        gw_sentinel_fini(&s);
        return;
    }
    free(s.message);
    s.message = gw_strdup(why->text);
    put(s.reason, sizeof s.reason, why->code == 0 ? "image-unchanged" : "restart-unhealthy");
    finish(h, &s, "error");
}

/* The next process, or image, begins: the record of an update that ended before is told and removed; one that is
 * pending is ours to end, and what it carries is for our first start. */
void gw_update_read(struct gw_host *h)
{
    struct gw_sentinel s = {0};
    if (!recall(h, &s))
        return;
    if (strcmp(s.status, "pending") == 0 && h->standby.went_back != NULL) {
        struct gw_err why = {0};
        (void)gw_err_set(&why, -ECANCELED, "%s", h->standby.went_back);
        gw_update_failed(h, &why);
    } else if (strcmp(s.status, "pending") == 0 && !h->standby.active && strcmp(s.mode, "supervised") != 0) {
        // Nobody handed over to this boot: the host that took the update has died over it.
        gw_update_failed(h, &(struct gw_err){.code = -ECANCELED, .text = "the host ended before it was carried out"});
    } else if (strcmp(s.status, "pending") == 0) {
        h->update_pending = true;
        if (h->continuation == NULL)
            h->continuation = json_incref(s.continuation);
    } else {
        gw_log(GW_INFO, "update.notice",
               json_pack("{sssososososo}", "status", s.status, "mode", gw_json_string(s.mode), "before",
                         gw_json_string(s.before), "after", gw_json_string(s.after), "reason", gw_json_string(s.reason),
                         "message", gw_json_string(s.message != NULL ? s.message : "")),
               "the last update (from %s by %s) ended with %s%s%s", s.before, s.mode, s.status,
               s.message != NULL ? ": " : "", s.message != NULL ? s.message : "");
        gw_sentinel_remove(h->dir_fd);
    }
    gw_sentinel_fini(&s);
}

void gw_update_served(struct gw_host *h)
{
    struct gw_sentinel s = {0};
    if (!h->update_pending || !recall(h, &s))
        return;
    h->update_pending = false;
    if (strcmp(s.kind, "update") != 0) { // it has brought what it carried
        gw_sentinel_remove(h->dir_fd);
        gw_sentinel_fini(&s);
        return;
    }
    put(s.after, sizeof s.after, h->options.version);
    finish(h, &s, "ok");
}
