#include "cli/commands.h"

#include "base/err.h"
#include "base/time.h"
#include "cli/client.h"
#include "cli/options.h"
#include "cli/text.h"

#include <inttypes.h>
#include <string.h>

static const char usage[] = "usage: gwhost status [--json] [--state-dir DIR]\n"
                            "What the running host is doing, and why.\n";

struct screen {
    const json_t *status;
    bool colours;
};

static void label(const struct screen *s, const char *name)
{
    (void)printf("%s%-14s%s", gw_text_colour(s->colours, GW_DIM), name, gw_text_colour(s->colours, GW_PLAIN));
}

static int64_t number(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static const char *age_of(int64_t at_ms, char buf[32])
{
    return gw_text_duration(at_ms > 0 ? gw_wall_ms() - at_ms : 0, buf);
}

static void show_head(const struct screen *s)
{
    char text[256], time[32];
    const char *state = gw_text_of(s->status, "state", "unknown", text, sizeof text);
    enum gw_colour colour = strcmp(state, "running") == 0 ? GW_GREEN : strcmp(state, "failed") == 0 ? GW_RED : GW_YELLOW;
    label(s, "state");
    (void)printf("%s%s%s%s\n", gw_text_colour(s->colours, colour), state, gw_text_colour(s->colours, GW_PLAIN),
                 json_is_true(json_object_get(s->status, "safe_mode")) ? ", in safe mode after repeated crashes" : "");
    label(s, "process");
    (void)printf("pid %" PRId64 ", generation %" PRId64 ", up %s, gwhost %s\n", number(s->status, "pid"),
                 number(s->status, "generation"), gw_text_duration(number(s->status, "uptime_ms"), time),
                 gw_text_of(s->status, "version", "?", text, sizeof text));
    label(s, "boot id");
    (void)printf("%s\n", gw_text_of(s->status, "boot_id", "?", text, sizeof text));
}

static void show_sources(const struct screen *s)
{
    char path[512], name[128], sha[80], time[32];
    const json_t *policy = json_object_get(s->status, "policy");
    label(s, "policy");
    (void)printf("%s (%s, sha256 %.12s, loaded %s ago)\n", gw_text_of(policy, "name", "?", name, sizeof name),
                 gw_text_of(policy, "path", "?", path, sizeof path), gw_text_of(policy, "sha256", "?", sha, sizeof sha),
                 age_of(number(policy, "loaded_at"), time));
    const json_t *application = json_object_get(s->status, "application");
    if (application != NULL) {
        label(s, "application");
        (void)printf("%s\n", gw_text_of(application, "path", "?", path, sizeof path));
    }
    if (json_is_string(json_object_get(s->status, "supervisor"))) {
        label(s, "supervisor");
        (void)printf("%s\n", gw_text_of(s->status, "supervisor", "", name, sizeof name));
    }
}

static void show_connections(const struct screen *s)
{
    json_t *list = json_object_get(s->status, "listeners"), *address;
    size_t i;
    label(s, "listeners");
    json_array_foreach(list, i, address) {
        char text[256];
        const char *word = json_is_string(address) ? json_string_value(address) : "?";
        gw_one_line(word, strlen(word), text, sizeof text);
        (void)printf("%s%s", i > 0 ? ", " : "", text);
    }
    (void)printf("%s\n", json_array_size(list) == 0 ? "none" : "");
    const json_t *c = json_object_get(s->status, "connections");
    struct gw_buf b = {0};
    gw_buf_addf(&b, "%" PRId64 " open: %" PRId64 " idle, ", number(c, "open"), number(c, "idle"));
    gw_text_count(&b, number(c, "websockets"), "WebSocket");
    gw_buf_adds(&b, ", ");
    gw_text_count(&b, number(c, "streams"), "stream");
    gw_buf_addf(&b, ", %" PRId64 " in flight, %" PRId64 " held", number(c, "in_flight"), number(c, "held"));
    label(s, "connections");
    (void)printf("%s\n", b.data);
    gw_buf_fini(&b);
}

static void show_work(const struct screen *s)
{
    const json_t *work = json_object_get(s->status, "work");
    json_t *lane;
    const char *name;
    struct gw_buf b = {0};
    gw_text_count(&b, number(work, "tasks"), "task");
    gw_buf_adds(&b, ", ");
    gw_text_count(&b, number(work, "runs"), "run");
    gw_buf_addf(&b, ", %" PRId64 " queued", number(work, "queued"));
    label(s, "work");
    (void)printf("%s\n", b.data);
    gw_buf_fini(&b);
    const char *store = json_string_value(json_object_get(s->status, "store"));
    if (store != NULL && strcmp(store, "ok") != 0) {
        char why[300];
        int64_t waiting = number(work, "unwritten");
        label(s, "store");
        (void)printf("%s%s%s: %s", gw_text_colour(s->colours, GW_YELLOW), store, gw_text_colour(s->colours, GW_PLAIN),
                     gw_text_of(s->status, "store_error", "no tasks are taken", why, sizeof why));
        if (waiting > 0)
            (void)printf("; %" PRId64 " %s for it", waiting, waiting == 1 ? "end waits" : "ends wait");
        (void)printf("\n");
    }
    json_object_foreach(json_object_get(work, "lanes"), name, lane) {
        char cell[65];
        gw_one_line(name, strlen(name), cell, sizeof cell);
        (void)printf("  lane %-20s %" PRId64 " of %" PRId64 " running, %" PRId64 " queued\n", cell,
                     number(lane, "active"), number(lane, "concurrency"), number(lane, "queued"));
    }
}

static void show_drain(const struct screen *s)
{
    const json_t *drain = json_object_get(s->status, "drain"), *budget = json_object_get(drain, "budget_ms");
    char text[1024], gone[32], left[32];
    if (json_is_object(drain)) {
        int64_t elapsed = number(drain, "elapsed_ms"), whole = json_integer_value(budget);
        struct gw_buf b = {0};
        gw_buf_addf(&b, "to %s%s, for %s, ", json_is_true(json_object_get(drain, "to_stop")) ? "stop" : "restart",
                    json_is_true(json_object_get(drain, "forced")) ? " (forced)" : "", gw_text_duration(elapsed, gone));
        if (json_is_integer(budget)) {
            gw_text_bar(&b, elapsed, whole, 20);
            gw_buf_addf(&b, " %s left", gw_text_duration(whole > elapsed ? whole - elapsed : 0, left));
        } else {
            gw_buf_adds(&b, "without a limit");
        }
        label(s, "drain");
        (void)printf("%s%s%s\n", gw_text_colour(s->colours, GW_YELLOW), b.data, gw_text_colour(s->colours, GW_PLAIN));
        gw_buf_fini(&b);
    }
    if (json_is_string(json_object_get(s->status, "blockers"))) {
        label(s, "blockers");
        (void)printf("%s\n", gw_text_of(s->status, "blockers", "", text, sizeof text));
    }
}

static void show_restart(const struct screen *s, const char *name, const json_t *r)
{
    char id[64], reason[300], source[32], outcome[64], why[300], time[32], mode[32];
    if (!json_is_object(r))
        return;
    const char *status = json_string_value(json_object_get(r, "status"));
    const char *open = status != NULL && strcmp(status, "deferred") == 0 ? "waits for an idle moment" : "under way";
    label(s, name);
    (void)printf("%s, asked for %s ago by %s, reason %s, request %s", gw_text_of(r, "outcome", open, outcome, sizeof outcome),
                 age_of(number(r, "requested_at"), time), gw_text_of(r, "source", "?", source, sizeof source),
                 gw_text_of(r, "reason", "?", reason, sizeof reason), gw_text_of(r, "request_id", "?", id, sizeof id));
    if (json_is_string(json_object_get(r, "why")))
        (void)printf(": %s", gw_text_of(r, "why", "", why, sizeof why));
    if (json_is_string(json_object_get(r, "mode")))
        (void)printf(", by %s", gw_text_of(r, "mode", "", mode, sizeof mode));
    if (number(r, "successor_pid") > 0)
        (void)printf(", next pid %lld", (long long)number(r, "successor_pid"));
    (void)puts("");
}

static void show(const json_t *status)
{
    struct screen s = {.status = status, .colours = gw_text_colours(stdout)};
    const json_t *restart = json_object_get(status, "restart");
    show_head(&s);
    show_sources(&s);
    show_connections(&s);
    show_work(&s);
    show_drain(&s);
    show_restart(&s, "restart", json_object_get(restart, "current"));
    show_restart(&s, "last restart", json_object_get(restart, "last"));
}

int gw_cli_status(int argc, char **argv)
{
    struct gw_cli_args args = {.command = "status", .usage = usage};
    bool as_json = false;
    const struct gw_cli_option options[] = {{"json", NULL, &as_json}, {0}};
    int code = gw_cli_options(&args, options, argc, argv);
    if (code >= 0)
        return code;
    struct gw_client c;
    struct gw_err err = {0};
    json_t *status = NULL;
    code = GW_CLI_FAILED;
    if (gw_client_open(&c, args.state_dir, &err) < 0 || gw_client_insist(&c, "status", NULL, &status, &err) < 0) {
        (void)gw_text_failed(&err);
    } else {
        if (as_json)
            gw_text_json(status);
        else
            show(status);
        code = GW_CLI_OK;
    }
    json_decref(status);
    gw_client_fini(&c);
    return code;
}
