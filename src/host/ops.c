/* ops.c - what can be asked over the control socket. */
#include "base/sha.h"
#include "host/control.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One request under way. */
struct call {
    struct gw_control_client *client;
    json_t *id;
};

static struct call *begin(struct gw_control_client *c, json_t *request)
{
    struct call *call = gw_calloc(1, sizeof *call);
    call->client = c;
    call->id = json_incref(json_object_get(request, "id"));
    gw_control_hold(c);
    return call;
}

static void end(struct call *call)
{
    gw_control_release(call->client);
    json_decref(call->id);
    free(call);
}

static const char *text(json_t *request, const char *key)
{
    return json_string_value(json_object_get(request, key));
}

/* Checks that a field is absent, null, or of the type; answers and returns false otherwise. */
static bool typed(struct gw_control_client *c, json_t *request, const char *key, json_type type, const char *name)
{
    json_t *v = json_object_get(request, key);
    bool is_bool = type == JSON_TRUE && json_is_boolean(v);
    if (v == NULL || json_is_null(v) || json_typeof(v) == type || is_bool)
        return true;
    char words[128];
    (void)snprintf(words, sizeof words, "field '%s' is not %s", key, name);
    gw_control_refuse(c, json_object_get(request, "id"), "bad_request", words);
    return false;
}

/* The same for milliseconds; *ret_ms stays as it is when the field is absent or null. */
static bool timed(struct gw_control_client *c, json_t *request, const char *key, int min, int64_t *ret_ms)
{
    json_t *v = json_object_get(request, key);
    if (v == NULL || json_is_null(v) || gw_json_ms(v, min, ret_ms))
        return true;
    char words[160];
    (void)snprintf(words, sizeof words, "field '%s' " GW_MS_WORDS, key, min);
    gw_control_refuse(c, json_object_get(request, "id"), "bad_request", words);
    return false;
}

/* Refuses texts that hold a NUL: they are read as C strings, which it would cut. */
static bool whole(struct gw_control_client *c, json_t *request)
{
    const char *key;
    json_t *value;
    json_object_foreach(request, key, value)
    {
        if (!json_is_string(value) || strlen(json_string_value(value)) == json_string_length(value))
            continue;
        char words[160];
        (void)snprintf(words, sizeof words, "field '%.100s' holds a NUL", key);
        gw_control_refuse(c, json_object_get(request, "id"), "bad_request", words);
        return false;
    }
    return true;
}

/* Refuses fields that nobody knows: a typing error must not mean something else. */
static bool known(struct gw_control_client *c, json_t *request, const char *const *fields)
{
    const char *key;
    json_t *value;
    json_object_foreach(request, key, value)
    {
        bool ok = strcmp(key, "id") == 0 || strcmp(key, "op") == 0;
        for (int i = 0; !ok && fields[i] != NULL; i++)
            ok = strcmp(key, fields[i]) == 0;
        if (ok)
            continue;
        char words[160];
        (void)snprintf(words, sizeof words, "unknown field '%.100s'", key);
        gw_control_refuse(c, json_object_get(request, "id"), "bad_request", words);
        return false;
    }
    return true;
}

// ---- the host ----

static void do_status(struct gw_control_client *c, json_t *request)
{
    struct gw_host *h = c->host;
    json_t *o = gw_status(h);
    json_t *drain = NULL;
    if (h->drain.active) {
        struct gw_work_counts counts = gw_work_counts(h->work);
        drain = json_pack("{sbsbsIsisi}", "to_stop", h->drain.to_stop, "forced", h->drain.forced, "elapsed_ms",
                          (json_int_t)(gw_now_ms() - h->drain.accepted_ms), "tasks", (int)counts.tasks, "runs",
                          (int)counts.runs);
        gw_json_set(drain, "budget_ms",
                    h->drain.budget.budget_ms == GW_UNLIMITED ? NULL : json_integer(h->drain.budget.budget_ms));
    }
    gw_json_set(o, "drain", drain);
    gw_control_answer(c, json_object_get(request, "id"), o);
}

static json_t *dry_run(struct gw_host *h, const struct gw_ask *ask)
{
    struct gw_restart r = {.force = ask->force, .update = ask->update, .when_idle = ask->when_idle,
                           .has_intent = true, .wait_ms = ask->wait_ms, .asked_ms = gw_now_ms()};
    (void)snprintf(r.source, sizeof r.source, "%s", ask->source);
    (void)snprintf(r.reason, sizeof r.reason, "%s", ask->reason != NULL ? ask->reason : "gateway.restart");
    char why[256];
    enum gw_mode asked, mode = gw_prepare_mode(h, &r, &asked, why, sizeof why).mode;
    struct gw_budget_answer budget = {0};
    if (!r.force)
        gw_drain_budget(h, false, &r, &budget);
    char *line = gw_facts_blockers(h, &r);
    json_t *o = json_pack("{ssso}", "mode", gw_mode_name(mode), "why", gw_json_string(why));
    gw_json_set(o, "budget_ms", budget.budget_ms == GW_UNLIMITED ? NULL : json_integer(budget.budget_ms));
    gw_json_set(o, "blockers", line != NULL ? gw_json_string(line) : NULL);
    gw_json_set(o, "policy",
                json_pack("{sososs}", "path", gw_json_string(gw_policy_path(h->policy)), "name",
                          gw_json_string(gw_policy_name(h->policy)), "sha256", gw_policy_sha256(h->policy)));
    free(line);
    return o;
}

/* The task whose command, or its child, talks to us; NULL when it is nobody's. */
static const char *requester(struct gw_control_client *c)
{
    struct gw_host *h = c->host;
    struct gw_proc_facts facts;
    pid_t pid = c->peer;
    for (int depth = 0; h->app != NULL && pid > 1 && depth < 64; depth++) {
        const char *owner = h->app->class->owner_of(h->app, (int)pid);
        if (owner != NULL)
            return owner;
        if (!gw_proc_read(pid, &facts))
            return NULL;
        pid = facts.ppid;
    }
    return NULL;
}

static void do_restart(struct gw_control_client *c, json_t *request)
{
    static const char *const fields[] = {"reason", "wait_ms", "force", "when", "update", "exec", "dry_run", NULL};
    json_t *id = json_object_get(request, "id");
    int64_t wait_ms = -1;
    if (!known(c, request, fields) || !typed(c, request, "reason", JSON_STRING, "a string") ||
        !timed(c, request, "wait_ms", 0, &wait_ms) || !typed(c, request, "force", JSON_TRUE, "a boolean") ||
        !typed(c, request, "update", JSON_TRUE, "a boolean") || !typed(c, request, "dry_run", JSON_TRUE, "a boolean") ||
        !typed(c, request, "when", JSON_STRING, "a string") || !typed(c, request, "exec", JSON_STRING, "a string"))
        return;
    const char *when = text(request, "when");
    struct gw_ask ask = {.source = "control",
                         .reason = text(request, "reason"),
                         .force = json_is_true(json_object_get(request, "force")),
                         .update = json_is_true(json_object_get(request, "update")),
                         .when_idle = when != NULL && strcmp(when, "idle") == 0,
                         .has_intent = true,
                         .exec = text(request, "exec"),
                         .requester = requester(c),
                         .wait_ms = wait_ms};
    if (when != NULL && strcmp(when, "idle") != 0 && strcmp(when, "now") != 0) {
        gw_control_refuse(c, id, "bad_request", "field 'when' is not \"now\" or \"idle\"");
        return;
    }
    if (json_is_true(json_object_get(request, "dry_run"))) {
        gw_control_answer(c, id, dry_run(c->host, &ask));
        return;
    }
    struct gw_sched_told told = gw_restarts_ask(c->host, &ask);
    if (told.answer == GW_ASK_REFUSED) {
        gw_control_refuse(c, id, "stopping", "the gateway stops");
        return;
    }
    gw_control_answer(c, id, gw_restarts_told(&told));
}

static void do_restart_outcome(struct gw_control_client *c, json_t *request)
{
    const char *id = text(request, "request_id");
    const struct gw_restart *r = id != NULL ? gw_sched_find(c->host->sched, id) : NULL;
    if (r == NULL)
        gw_control_refuse(c, json_object_get(request, "id"), "not_found", "there is no such request among the last 100");
    else
        gw_control_answer(c, json_object_get(request, "id"), gw_restart_json(r));
}

static void do_restart_cancel(struct gw_control_client *c, json_t *request)
{
    const char *id = text(request, "request_id");
    struct gw_err err = {0};
    int rc = gw_sched_cancel(c->host->sched, id != NULL ? id : "", &err);
    if (rc < 0) {
        gw_control_refuse(c, json_object_get(request, "id"), rc == -ENOENT ? "not_found" : "conflict", err.text);
        return;
    }
    gw_restarts_look(c->host);
    do_restart_outcome(c, request);
}

static void do_stop(struct gw_control_client *c, json_t *request)
{
    struct gw_host *h = c->host;
    json_t *id = json_object_get(request, "id");
    const struct gw_supervisor *by = &h->supervision.by;
    if (by->name != NULL) {
        char words[480];
        bool known_command = by->stop_command[0] != '\0';
        (void)snprintf(words, sizeof words, "the supervisor (%s) would start this host again: stop it with %s%s%s",
                       by->name, known_command ? "'" : "the supervisor's own command", by->stop_command,
                       known_command ? "'" : "");
        gw_control_refuse(c, id, "forbidden", words);
    } else {
        // As a SIGTERM would: once, and with the last resort armed at once.
        if (!h->stops && h->state != GW_STOPPING && h->state != GW_WINDING_DOWN) {
            gw_log(GW_INFO, "stop.accepted", json_pack("{ss}", "source", "control"),
                   "asked for over the control socket: this host stops");
            gw_watchdog_arm(h, gw_now_ms() + GW_FORCED_EXIT_MS, "stopping", "gateway.stop_shutdown_timeout");
            h->stop_by_signal = false;
            gw_host_post_stop(h);
        }
        gw_control_answer(c, id, json_pack("{ss}", "status", "accepted"));
    }
}

static void do_reload(struct gw_control_client *c, json_t *request)
{
    static const char *const fields[] = {"back", NULL};
    struct gw_host *h = c->host;
    json_t *id = json_object_get(request, "id");
    struct gw_err err = {0};
    if (!known(c, request, fields) || !typed(c, request, "back", JSON_TRUE, "a boolean"))
        return;
    char before[65];
    (void)snprintf(before, sizeof before, "%s", gw_policy_sha256(h->policy));
    bool back = json_is_true(json_object_get(request, "back"));
    int rc = back ? gw_host_policy_back(h, &err) : gw_host_reload_policy(h, "control", &err);
    if (rc < 0) {
        gw_control_refuse(c, id, rc == -ENOENT && back ? "not_found" : "bad_request", err.text);
        return;
    }
    gw_drain_rebudget(h);
    gw_control_answer(c, id,
                      json_pack("{sosssosb}", "path", gw_json_string(gw_policy_path(h->policy)), "sha256",
                                gw_policy_sha256(h->policy), "name", gw_json_string(gw_policy_name(h->policy)),
                                "unchanged", strcmp(before, gw_policy_sha256(h->policy)) == 0));
}

static void do_follow(struct gw_control_client *c, json_t *request)
{
    c->follows = true;
    gw_control_answer(c, json_object_get(request, "id"), json_object());
}

// ---- work ----

static void answer_task(struct call *call, int code, const struct gw_task *task, const struct gw_err *err)
{
    if (code < 0)
        gw_control_refuse(call->client, call->id, gw_work_error_name(code), gw_work_error_words(code, err));
    else
        gw_control_answer(call->client, call->id, gw_task_json(task));
    end(call);
}

static void on_submitted(void *ud, int code, const struct gw_task *task, bool existing, const struct gw_err *err)
{
    answer_task(ud, code, task, err);
}

static void on_task(void *ud, int code, const struct gw_task *task, const struct gw_err *err)
{
    answer_task(ud, code, task, err);
}

static void on_tasks(void *ud, int code, const struct gw_task *tasks, size_t n, const char *next,
                     const struct gw_err *err)
{
    struct call *call = ud;
    if (code < 0) {
        answer_task(call, code, NULL, err);
        return;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        (void)json_array_append_new(list, gw_task_json(&tasks[i]));
    json_t *o = json_pack("{so}", "tasks", list);
    gw_json_set(o, "next", next != NULL ? json_string(next) : NULL);
    gw_control_answer(call->client, call->id, o);
    end(call);
}

static bool has_work(struct gw_control_client *c, json_t *request)
{
    if (c->host->work != NULL && c->host->state != GW_HANDING_OVER && c->host->state != GW_FAILED)
        return true;
    if (c->host->state == GW_FAILED)
        gw_control_refuse(c, json_object_get(request, "id"), "store_unavailable",
                          "the host failed to start and has given up its store; restart it first");
    else
        gw_control_refuse(c, json_object_get(request, "id"), "draining",
                          "the host is on its way to its next process; try again in a moment");
    return false;
}

static bool retry_field(struct gw_control_client *c, json_t *request, const char *key, const char *otherwise, bool *ret)
{
    const char *value = text(request, key);
    *ret = value != NULL && strcmp(value, "retry") == 0;
    if (value == NULL || *ret || strcmp(value, otherwise) == 0)
        return true;
    char words[120];
    (void)snprintf(words, sizeof words, "field '%s' is not \"retry\" or \"%s\"", key, otherwise);
    gw_control_refuse(c, json_object_get(request, "id"), "bad_request", words);
    return false;
}

static void do_submit(struct gw_control_client *c, json_t *request)
{
    static const char *const fields[] = {"handler", "lane",      "priority", "label",        "title",           "input",
                                         "timeout_ms", "on_crash", "on_interrupt", "idempotency_key", NULL};
    static const char *const strings[] = {"handler", "lane", "priority", "label", "title", "on_crash",
                                          "on_interrupt", "idempotency_key"};
    static const char *const priorities[] = {"high", "normal", "low"};
    json_t *id = json_object_get(request, "id");
    struct gw_task_spec spec = {.priority = GW_PRIORITY_NORMAL};
    if (!has_work(c, request) || !known(c, request, fields) || !typed(c, request, "input", JSON_OBJECT, "an object") ||
        !timed(c, request, "timeout_ms", 1, &spec.timeout_ms) ||
        !retry_field(c, request, "on_crash", "lose", &spec.retry_on_crash) ||
        !retry_field(c, request, "on_interrupt", "interrupt", &spec.retry_on_interrupt))
        return;
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++)
        if (!typed(c, request, strings[i], JSON_STRING, "a string"))
            return;
    spec.handler = text(request, "handler");
    spec.lane = text(request, "lane");
    spec.label = text(request, "label");
    spec.title = text(request, "title");
    spec.input = json_object_get(request, "input");
    spec.idempotency_key = text(request, "idempotency_key");
    const char *priority = text(request, "priority");
    for (int i = 0; priority != NULL && i <= 3; i++) {
        if (i == 3) {
            gw_control_refuse(c, id, "bad_request", "field 'priority' is not high, normal or low");
            return;
        }
        if (strcmp(priority, priorities[i]) == 0) {
            spec.priority = (enum gw_priority)i;
            break;
        }
    }
    struct gw_host *h = c->host;
    if (spec.handler == NULL) {
        gw_control_refuse(c, id, "bad_request", "field 'handler' is missing");
        return;
    }
    if (h->app != NULL && !h->app->class->has_handler(h->app, spec.handler)) {
        char words[300];
        (void)snprintf(words, sizeof words, strcmp(spec.handler, "exec") == 0
                           ? "the handler 'exec' needs a host that was started with --allow-exec"
                           : "there is no handler '%.200s'", spec.handler);
        gw_control_refuse(c, id, "bad_request", words);
        return;
    }
    char hash[65];
    if (spec.idempotency_key != NULL) {
        json_t *copy = json_copy(request);
        (void)json_object_del(copy, "id");
        char *body = json_dumps(copy, JSON_COMPACT | JSON_SORT_KEYS);
        gw_sha256_hex(body, strlen(body), hash);
        free(body);
        json_decref(copy);
        spec.body_sha256 = hash;
    }
    gw_task_submit(h->work, &spec, on_submitted, begin(c, request));
}

static void do_task(struct gw_control_client *c, json_t *request)
{
    const char *id = text(request, "task_id");
    if (has_work(c, request))
        gw_task_get(c->host->work, id != NULL ? id : "", on_task, begin(c, request));
}

static void do_cancel(struct gw_control_client *c, json_t *request)
{
    const char *id = text(request, "task_id");
    if (has_work(c, request))
        gw_task_cancel(c->host->work, id != NULL ? id : "", on_task, begin(c, request));
}

static void do_tasks(struct gw_control_client *c, json_t *request)
{
    static const char *const fields[] = {"status", "limit", "after", NULL};
    json_t *limit = json_object_get(request, "limit");
    struct gw_task_filter filter = {.status = -1, .after = text(request, "after")};
    if (!has_work(c, request) || !known(c, request, fields) || !typed(c, request, "status", JSON_STRING, "a string") ||
        !typed(c, request, "limit", JSON_INTEGER, "an integer") || !typed(c, request, "after", JSON_STRING, "a string"))
        return;
    enum gw_task_status status;
    const char *name = text(request, "status");
    if (name != NULL && !gw_task_status_parse(name, &status)) {
        gw_control_refuse(c, json_object_get(request, "id"), "bad_request",
                          "field 'status' is not queued, running, succeeded, failed, timed_out, cancelled, interrupted or lost");
        return;
    }
    if (name != NULL)
        filter.status = (int)status;
    if (json_is_integer(limit)) {
        if (json_integer_value(limit) < 1 || json_integer_value(limit) > 1000) {
            gw_control_refuse(c, json_object_get(request, "id"), "bad_request", "field 'limit' is not 1 to 1000");
            return;
        }
        filter.limit = (unsigned)json_integer_value(limit);
    }
    gw_task_list(c->host->work, &filter, on_tasks, begin(c, request));
}

void gw_control_do(struct gw_control_client *c, json_t *request)
{
    static const struct {
        const char *op;
        void (*run)(struct gw_control_client *c, json_t *request);
    } ops[] = {{"status", do_status},
               {"restart", do_restart},
               {"restart_outcome", do_restart_outcome},
               {"restart_cancel", do_restart_cancel},
               {"stop", do_stop},
               {"reload", do_reload},
               {"submit", do_submit},
               {"task", do_task},
               {"tasks", do_tasks},
               {"cancel", do_cancel},
               {"follow", do_follow}};
    const char *op = text(request, "op");
    if (!whole(c, request))
        return;
    for (size_t i = 0; op != NULL && i < sizeof ops / sizeof *ops; i++)
        if (strcmp(op, ops[i].op) == 0) {
            ops[i].run(c, request);
            return;
        }
    gw_control_refuse(c, json_object_get(request, "id"), "bad_request",
                      op == NULL ? "field 'op' is missing" : "there is no such 'op'");
}
