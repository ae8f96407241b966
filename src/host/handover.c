/* handover.c - what the letters between a host and its successor say (see src/README.md, "Another process").
 *
 * old → new: hello (with the lock and the listening sockets), go, connections …; the last of these has the
 * control socket. new → old: ready, started, serving. Both: fail. */
#include "host/handover.h"

#include "base/str.h"
#include "os/proc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static json_t *supervisor_json(const struct gw_supervisor *by)
{
    json_t *o = json_object();
    gw_json_set(o, "name", by->name != NULL ? json_string(by->name) : NULL);
    gw_json_set(o, "service", gw_json_string(by->service));
    gw_json_set(o, "stop_command", gw_json_string(by->stop_command));
    gw_json_set(o, "pid1", json_boolean(by->pid1));
    gw_json_set(o, "container", json_boolean(by->container));
    gw_json_set(o, "stop_timeout_ms", json_integer(by->stop_timeout_ms));
    return o;
}

json_t *gw_handover_hello(struct gw_host *h, const char *boot_id, struct gw_fd_list *fds)
{
    json_t *o = json_object(), *listeners = json_array();
    int lock[2];
    size_t lock_fds = gw_lock_fds(h->lock, lock);
    for (size_t i = 0; i < lock_fds; i++)
        fds->fds[fds->count++] = lock[i];
    for (size_t i = 0; i < h->socket_count; i++) {
        const struct gw_listen_socket *s = &h->sockets[i];
        json_t *l = json_object();
        gw_json_set(l, "address", gw_json_string(s->address));
        gw_json_set(l, "word", gw_json_string(s->word));
        gw_json_set(l, "inherited", json_boolean(s->inherited));
        (void)json_array_append_new(listeners, l);
        fds->fds[fds->count++] = s->fd;
    }
    gw_json_set(o, "contract", json_integer(GW_CONTRACT));
    gw_json_set(o, "version", json_string(h->options.version));
    gw_json_set(o, "boot_id", json_string(boot_id));
    gw_json_set(o, "predecessor", json_string(h->boot_id));
    gw_json_set(o, "lock_fds", json_integer((json_int_t)lock_fds));
    gw_json_set(o, "listeners", listeners);
    gw_json_set(o, "supervisor", supervisor_json(&h->supervision.by));
    gw_json_set(o, "token", json_string(h->token));
    gw_json_set(o, "started_at", json_integer(gw_wall_ms()));
    return o;
}

json_t *gw_handover_go(struct gw_host *h)
{
    const struct gw_restart *r = gw_sched_current(h->sched);
    json_t *o = json_object();
    gw_json_set(o, "scheduler", gw_sched_pack(h->sched));
    gw_json_set(o, "continuation", json_incref(h->continuation));
    gw_json_set(o, "kept", json_incref(h->env.kept));
    gw_json_set(o, "update", json_boolean(r != NULL && r->update));
    return o;
}

json_t *gw_handover_listeners(const struct gw_host *h)
{
    json_t *list = json_array();
    for (size_t i = 0; i < h->socket_count; i++)
        (void)json_array_append_new(list, gw_json_string(h->sockets[i].address));
    return list;
}

json_t *gw_handover_ready(struct gw_host *h)
{
    json_t *o = json_object();
    char app[65];
    gw_sources_sha256(h->next_sources, app);
    gw_json_set(o, "contract", json_integer(GW_CONTRACT));
    gw_json_set(o, "boot_id", json_string(h->boot_id));
    gw_json_set(o, "version", json_string(h->options.version));
    gw_json_set(o, "policy_sha256", json_string(gw_policy_sha256(h->policy)));
    gw_json_set(o, "app_sha256", json_string(app));
    gw_json_set(o, "listeners", gw_handover_listeners(h));
    gw_json_set(o, "connections", json_integer(GW_NET_HANDOVER_VERSION));
    return o;
}

int gw_handover_check_ready(struct gw_host *h, const char *boot_id, const json_t *ready, struct gw_err *err)
{
    const char *said = json_string_value(json_object_get(ready, "boot_id"));
    if (json_integer_value(json_object_get(ready, "contract")) != GW_CONTRACT &&
        json_object_get(ready, "contract") != NULL)
        return gw_err_set(err, -EPROTO, "it speaks another version of the contract than %d", GW_CONTRACT);
    if (said == NULL || strcmp(said, boot_id) != 0)
        return gw_err_set(err, -EPROTO, "it says ready with the boot id '%.40s' instead of '%s'",
                          said != NULL ? said : "", boot_id);
    json_t *ours = gw_handover_listeners(h);
    bool same = json_equal(ours, json_object_get(ready, "listeners")) != 0;
    json_decref(ours);
    return same ? 0 : gw_err_set(err, -EPROTO, "it listens on other addresses than it was given");
}

// ---- the reading side ----

static const char *known_name(const char *name)
{
    static const char *const names[] = {"systemd", "launchd", "s6", "runit", "supervisord", "external"};
    for (size_t i = 0; name != NULL && i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return names[i];
    return NULL;
}

static void take_supervisor(struct gw_host *h, const json_t *o)
{
    struct gw_supervisor *by = &h->supervision.by;
    const char *service = json_string_value(json_object_get(o, "service"));
    const char *stop = json_string_value(json_object_get(o, "stop_command"));
    by->name = known_name(json_string_value(json_object_get(o, "name")));
    (void)snprintf(by->service, sizeof by->service, "%s", service != NULL ? service : "");
    (void)snprintf(by->stop_command, sizeof by->stop_command, "%s", stop != NULL ? stop : "");
    by->pid1 = json_is_true(json_object_get(o, "pid1"));
    by->container = json_is_true(json_object_get(o, "container"));
    by->stop_timeout_ms = json_integer_value(json_object_get(o, "stop_timeout_ms"));
}

int gw_handover_take_hello(struct gw_host *h, const json_t *hello, int *fds, size_t fd_count, struct gw_err *err)
{
    const char *boot_id = json_string_value(json_object_get(hello, "boot_id"));
    const char *token = json_string_value(json_object_get(hello, "token"));
    json_t *listeners = json_object_get(hello, "listeners");
    size_t lock_fds = (size_t)json_integer_value(json_object_get(hello, "lock_fds"));
    if (json_integer_value(json_object_get(hello, "contract")) != GW_CONTRACT)
        return gw_err_set(err, -EPROTO, "the predecessor speaks another version of the contract than %d", GW_CONTRACT);
    if (boot_id == NULL || strlen(boot_id) >= sizeof h->boot_id || token == NULL || lock_fds < 1 || lock_fds > 2 ||
        json_array_size(listeners) + lock_fds != fd_count)
        return gw_err_set(err, -EPROTO, "the predecessor's hello is not understood");
    (void)snprintf(h->boot_id, sizeof h->boot_id, "%s", boot_id);
    gw_log_identity(h->boot_id);
    const char *predecessor = json_string_value(json_object_get(hello, "predecessor"));
    (void)snprintf(h->standby.predecessor, sizeof h->standby.predecessor, "%s", predecessor != NULL ? predecessor : "");
    h->token = gw_strdup(token);
    h->standby.trial = json_is_true(json_object_get(hello, "trial"));
    take_supervisor(h, json_object_get(hello, "supervisor"));
    for (size_t i = 0; i < lock_fds; i++) {
        h->standby.lock_fds[i] = fds[i];
        fds[i] = -1;
    }
    h->standby.lock_fd_count = lock_fds;
    for (size_t i = 0; i < json_array_size(listeners); i++) {
        const json_t *l = json_array_get(listeners, i);
        const char *word = json_string_value(json_object_get(l, "word"));
        const char *address = json_string_value(json_object_get(l, "address"));
        int rc = word == NULL || address == NULL
                     ? gw_err_set(err, -EPROTO, "a listening socket has no name")
                     : gw_listen_adopt(fds[lock_fds + i], word, address, json_is_true(json_object_get(l, "inherited")),
                                       &h->sockets, &h->socket_count, err);
        if (rc < 0)
            return rc;
        fds[lock_fds + i] = -1;
    }
    return 0;
}

void gw_handover_take_go(struct gw_host *h, const json_t *go)
{
    json_t *kept = json_object_get(go, "kept"), *continuation = json_object_get(go, "continuation");
    gw_sched_unpack(h->sched, json_object_get(go, "scheduler"));
    if (json_is_object(kept)) {
        json_decref(h->env.kept);
        h->env.kept = json_incref(kept);
    }
    if (continuation != NULL && !json_is_null(continuation)) {
        json_decref(h->continuation);
        h->continuation = json_incref(continuation);
    }
}
