#include "base/err.h"
#include "base/json.h"
#include "base/sha.h"
#include "base/time.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: gwhost submit [--lane L] [--title T] [--wait] HANDLER [JSON]\n"
    "       gwhost submit [--lane L] [--title T] [--wait] exec -- COMMAND [ARG]...\n"
    "Hands a task to the running host and prints its id. JSON is the handler's input, an object.\n"
    "A command runs in the folder where this one runs, with the host's environment.\n"
    "\n"
    "  --wait             wait for its end, through restarts of the host: prints the result; for a command its\n"
    "                     output, and exits as it did (128 and the signal's number when a signal ended it)\n"
    "  --lane LANE        the lane (default: main)\n"
    "  --title TEXT       shown among what holds a restart back\n"
    "  --state-dir DIR    of which host\n";

/* The words behind the handler as its input; NULL when they are none, having said so. */
static json_t *input_of(const struct gw_cli_args *args, int *ret_code)
{
    char **rest = args->argv + 1;
    int n = args->argc - 1;
    if (n > 1 && strcmp(args->argv[0], "exec") == 0 && strcmp(rest[0], "--") == 0) {
        json_t *input = json_object(), *argv = json_array();
        for (int i = 1; i < n; i++)
            (void)json_array_append_new(argv, gw_json_string(rest[i]));
        gw_json_set(input, "argv", argv);
        char *cwd = getcwd(NULL, 0);
        if (cwd != NULL)
            gw_json_set(input, "cwd", gw_json_string(cwd));
        free(cwd);
        return input;
    }
    struct gw_err err = {0};
    json_t *input = NULL;
    if (n == 0)
        return json_object();
    if (n > 1 || strcmp(rest[0], "--") == 0)
        *ret_code = gw_cli_misused(args, "behind the handler comes one JSON object, or -- and a command for exec, not",
                                   rest[n > 1 ? 1 : 0]);
    else if (gw_json_parse(rest[0], strlen(rest[0]), &input, &err) < 0)
        *ret_code = gw_cli_misused(args, "the input is not JSON", err.text);
    else if (json_is_object(input))
        return input;
    else
        *ret_code = gw_cli_misused(args, "the input is not a JSON object", rest[0]);
    json_decref(input);
    return NULL;
}

static bool is_final(const json_t *task)
{
    const char *status = json_string_value(json_object_get(task, "status"));
    return status != NULL && strcmp(status, "queued") != 0 && strcmp(status, "running") != 0;
}

/* Waits until an event says that the task has changed to a final status, or the connection is lost. */
static int wait_changed(struct gw_client *c, const char *id, struct gw_err *err)
{
    for (;;) {
        json_t *event = NULL;
        int rc = gw_client_event(c, UINT64_MAX, &event, err);
        if (rc < 0)
            return rc == -ECONNRESET ? 0 : rc;
        const char *changed = json_string_value(json_object_get(event, "task_id"));
        bool ended = changed != NULL && strcmp(changed, id) == 0 && is_final(event);
        json_decref(event);
        if (ended)
            return 0;
    }
}

static int wait_ended(struct gw_client *c, const char *id, json_t **ret_task, struct gw_err *err)
{
    json_t *ask = json_object();
    gw_json_set(ask, "task_id", gw_json_string(id));
    int rc;
    for (;;) {
        json_t *task = NULL;
        rc = gw_client_insist(c, "task", ask, &task, err);
        if (rc < 0)
            break;
        if (is_final(task)) {
            *ret_task = task;
            break;
        }
        json_decref(task);
        if ((rc = wait_changed(c, id, err)) < 0)
            break;
    }
    json_decref(ask);
    return rc;
}

static void print_bytes(FILE *out, const json_t *result, const char *key)
{
    const json_t *text = json_object_get(result, key);
    if (json_is_string(text))
        (void)fwrite(json_string_value(text), 1, json_string_length(text), out);
    (void)fflush(out);
}

/* A command: its output, and its end as ours. */
static int show_command(const json_t *result)
{
    const json_t *code = json_object_get(result, "exit_code"), *signal = json_object_get(result, "signal");
    print_bytes(stdout, result, "stdout");
    print_bytes(stderr, result, "stderr");
    if (json_is_true(json_object_get(result, "truncated")))
        (void)fputs("gwhost: the command printed more than is kept; the rest is left out\n", stderr);
    if (json_is_integer(signal))
        return 128 + (int)json_integer_value(signal);
    return json_is_integer(code) ? (int)json_integer_value(code) : GW_CLI_FAILED;
}

static int show_task(const json_t *task)
{
    char id[64], status[32], error[512];
    const json_t *result = json_object_get(task, "result");
    bool command = json_is_object(result) && (json_object_get(result, "exit_code") != NULL ||
                                              json_object_get(result, "signal") != NULL);
    bool is_exec = command && strcmp(gw_text_of(task, "handler", "", id, sizeof id), "exec") == 0;
    (void)gw_text_of(task, "status", "?", status, sizeof status);
    bool by_itself = strcmp(status, "succeeded") == 0 || strcmp(status, "failed") == 0;
    int code = strcmp(status, "succeeded") == 0 ? GW_CLI_OK : GW_CLI_FAILED;
    if (is_exec) {
        int own = show_command(result);
        if (by_itself)
            return own;
    } else if (result != NULL && !json_is_null(result)) {
        gw_text_json(result);
    }
    if (code != GW_CLI_OK)
        (void)fprintf(stderr, "gwhost: task %s is %s%s%s\n", gw_text_of(task, "task_id", "?", id, sizeof id), status,
                      json_is_string(json_object_get(task, "error")) ? ": " : "",
                      gw_text_of(task, "error", "", error, sizeof error));
    return code;
}

static int submit(struct gw_client *c, const json_t *request, bool wait, struct gw_err *err)
{
    json_t *task = NULL, *ended = NULL;
    char id[64];
    // The request carries a key of its own, so asking twice hands in one task.
    if ((wait && gw_client_follow(c, err) < 0) || gw_client_insist(c, "submit", request, &task, err) < 0)
        return gw_text_failed(err);
    (void)gw_text_of(task, "task_id", "", id, sizeof id);
    json_decref(task);
    if (!wait) {
        (void)puts(id);
        return GW_CLI_OK;
    }
    if (wait_ended(c, id, &ended, err) < 0) {
        (void)gw_err_prefix(err, "what became of task %s is not known", id);
        return gw_text_failed(err);
    }
    int code = show_task(ended);
    json_decref(ended);
    return code;
}

int gw_cli_submit(int argc, char **argv)
{
    struct gw_cli_args args = {.command = "submit", .usage = usage, .words = true};
    const char *lane = NULL, *title = NULL;
    bool wait = false;
    const struct gw_cli_option options[] = {{"lane", &lane, NULL}, {"title", &title, NULL}, {"wait", NULL, &wait}, {0}};
    int code = gw_cli_options(&args, options, argc, argv);
    if (code >= 0)
        return code;
    if (args.argc == 0)
        return gw_cli_misused(&args, "the handler is missing", NULL);
    json_t *input = input_of(&args, &code);
    if (input == NULL)
        return code;
    char key[33];
    gw_random_hex(16, key);
    json_t *request = json_object();
    gw_json_set(request, "handler", gw_json_string(args.argv[0]));
    gw_json_set(request, "input", input);
    gw_json_set(request, "idempotency_key", json_string(key));
    if (lane != NULL)
        gw_json_set(request, "lane", gw_json_string(lane));
    if (title != NULL)
        gw_json_set(request, "title", gw_json_string(title));
    struct gw_client c;
    struct gw_err err = {0};
    if (gw_client_open(&c, args.state_dir, &err) < 0)
        code = gw_text_failed(&err);
    else
        code = submit(&c, request, wait, &err);
    json_decref(request);
    gw_client_fini(&c);
    return code;
}
