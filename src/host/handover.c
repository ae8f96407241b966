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
    gw_json_set(o, "init_above", json_boolean(by->init_above));
    gw_json_set(o, "stop_timeout_ms", json_integer(by->stop_timeout_ms));
    return o;
}

static void add_sources(json_t *o, const char *key, const struct gw_sources *s, struct gw_buf *blob)
{
    size_t before = blob->len;
    if (s == NULL)
        return;
    gw_sources_pack(s, blob);
    gw_json_set(o, key, json_integer((json_int_t)(blob->len - before)));
}

json_t *gw_handover_hello(struct gw_host *h, const char *boot_id, const char *program, bool whole,
                          struct gw_buf *blob, struct gw_fd_list *fds)
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
        gw_json_set(l, "kept", json_boolean(s->kept));
        gw_json_set(l, "file", json_pack("[II]", (json_int_t)s->file.dev, (json_int_t)s->file.ino));
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
    gw_json_set(o, "token_given", json_boolean(h->token_given));
    gw_json_set(o, "program", gw_json_string(program));
    gw_json_set(o, "update", json_boolean(h->succession.update));
    add_sources(o, "policy_bytes", gw_policy_sources(h->policy), blob);
    add_sources(o, "next_bytes", whole ? h->next_sources : NULL, blob);
    add_sources(o, "good_bytes", whole ? h->good_sources : NULL, blob);
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
    gw_json_set(o, "safe_mode", json_boolean(h->safe_mode));
    gw_json_set(o, "health_ms", json_integer(h->succession.health_ms));
    return o;
}

json_t *gw_handover_last(struct gw_host *h)
{
    json_t *o = json_object();
    gw_json_set(o, "last", json_true());
    gw_json_set(o, "scheduler", gw_sched_pack(h->sched));
    gw_json_set(o, "events", json_integer((json_int_t)gw_net_events(h->net)));
    gw_json_set(o, "describes", json_integer(GW_NET_HANDOVER_VERSION));
    gw_json_set(o, "public", json_boolean(h->public_http));
    return o;
}

json_t *gw_handover_listeners(const struct gw_host *h)
{
    json_t *list = json_array();
    for (size_t i = 0; i < h->socket_count; i++)
        (void)json_array_append_new(list, gw_json_string(h->sockets[i].address));
    return list;
}

json_t *gw_handover_ready(struct gw_host *h, struct gw_buf *blob)
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
    add_sources(o, "proved_bytes", h->next_sources, blob);
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
    by->init_above = json_is_true(json_object_get(o, "init_above"));
    by->stop_timeout_ms = json_integer_value(json_object_get(o, "stop_timeout_ms"));
}

/* The next `key` bytes of what is left of a blob; false: they are not there, or damaged. */
static bool take_sources(const json_t *o, const char *key, const char **io_data, size_t *io_left, struct gw_sources **ret)
{
    json_int_t n = json_integer_value(json_object_get(o, key));
    if (json_object_get(o, key) == NULL)
        return true;
    *ret = n >= 0 && (size_t)n <= *io_left ? gw_sources_unpack(*io_data, (size_t)n) : NULL;
    *io_data += n;
    *io_left -= (size_t)n;
    return *ret != NULL;
}

void gw_handover_take_proved(struct gw_host *h, const struct gw_letter *letter)
{
    const char *blob = letter->blob;
    size_t left = letter->blob_bytes;
    struct gw_sources *proved = NULL;
    if (!take_sources(letter->head, "proved_bytes", &blob, &left, &proved) || proved == NULL)
        return;
    (void)gw_sources_unref(h->next_sources);
    h->next_sources = proved;
}

int gw_handover_take_hello(struct gw_host *h, struct gw_letter *letter, struct gw_err *err)
{
    const json_t *hello = letter->head;
    int *fds = letter->fds;
    size_t fd_count = letter->fd_count, left = letter->blob_bytes;
    const char *blob = letter->blob, *program = json_string_value(json_object_get(hello, "program"));
    struct standby *s = &h->standby;
    const char *boot_id = json_string_value(json_object_get(hello, "boot_id"));
    const char *token = json_string_value(json_object_get(hello, "token"));
    json_t *listeners = json_object_get(hello, "listeners");
    size_t lock_fds = (size_t)json_integer_value(json_object_get(hello, "lock_fds"));
    if (json_integer_value(json_object_get(hello, "contract")) != GW_CONTRACT)
        return gw_err_set(err, -EPROTO, "the predecessor speaks another version of the contract than %d", GW_CONTRACT);
    if (boot_id == NULL || strlen(boot_id) >= sizeof h->boot_id || token == NULL || lock_fds < 1 || lock_fds > 2 ||
        json_array_size(listeners) + lock_fds != fd_count ||
        !take_sources(hello, "policy_bytes", &blob, &left, &s->policy) ||
        !take_sources(hello, "next_bytes", &blob, &left, &s->next) ||
        !take_sources(hello, "good_bytes", &blob, &left, &s->good))
        return gw_err_set(err, -EPROTO, "the predecessor's hello is not understood");
    (void)snprintf(h->boot_id, sizeof h->boot_id, "%s", boot_id);
    gw_log_identity(h->boot_id);
    const char *predecessor = json_string_value(json_object_get(hello, "predecessor"));
    const char *before = json_string_value(json_object_get(hello, "version"));
    (void)snprintf(s->version, sizeof s->version, "%s", before != NULL ? before : "");
    (void)snprintf(s->predecessor, sizeof s->predecessor, "%s", predecessor != NULL ? predecessor : "");
    h->token = gw_strdup(token);
    h->token_given = !json_is_false(json_object_get(hello, "token_given")); // one that does not say does not renew it
    s->program = gw_strdup(program);
    if (s->program != NULL)
        h->options.program = s->program;
    s->updates = json_is_true(json_object_get(hello, "update"));
    s->trial = json_is_true(json_object_get(hello, "trial"));
    take_supervisor(h, json_object_get(hello, "supervisor"));
    for (size_t i = 0; i < lock_fds; i++) {
        s->lock_fds[i] = fds[i];
        fds[i] = -1;
    }
    s->lock_fd_count = lock_fds;
    for (size_t i = 0; i < json_array_size(listeners); i++) {
        const json_t *l = json_array_get(listeners, i);
        const char *word = json_string_value(json_object_get(l, "word"));
        const char *address = json_string_value(json_object_get(l, "address"));
        const json_t *file = json_object_get(l, "file");
        struct gw_unixsock_file known = {.dev = (dev_t)json_integer_value(json_array_get(file, 0)),
                                         .ino = (ino_t)json_integer_value(json_array_get(file, 1))};
        int rc = word == NULL || address == NULL
                     ? gw_err_set(err, -EPROTO, "a listening socket has no name")
                     : gw_listen_adopt(fds[lock_fds + i], word, address, json_is_true(json_object_get(l, "inherited")),
                                       &known, &h->sockets, &h->socket_count, err);
        if (rc < 0)
            return rc;
        fds[lock_fds + i] = -1;
        h->sockets[h->socket_count - 1].kept = json_is_true(json_object_get(l, "kept"));
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
    h->safe_mode = json_is_true(json_object_get(go, "safe_mode"));
}

void gw_handover_take_last(struct gw_host *h, const json_t *last)
{
    const json_t *scheduler = json_object_get(last, "scheduler"), *events = json_object_get(last, "events");
    if (json_is_object(scheduler))
        gw_sched_unpack(h->sched, scheduler);
    h->public_http = json_is_true(json_object_get(last, "public"));
    if (json_is_integer(events))
        gw_net_events_from(h->net, (uint64_t)json_integer_value(events));
}
