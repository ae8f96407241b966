#include "base/err.h"
#include "base/json.h"
#include "base/time.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/text.h"

#include <string.h>

static const char usage[] =
    "usage: gwhost tasks [--json] [--status S] [--state-dir DIR]\n"
    "The work in hand: tasks that run, then those that wait. --status shows those of one status instead: queued,\n"
    "running, succeeded, failed, timed_out, cancelled, interrupted, lost, or all.\n";

enum { PAGE = 200 };

/* Appends all tasks of a status (NULL: any) to list, page by page. */
static int collect(struct gw_client *c, const char *status, json_t *list, struct gw_err *err)
{
    char after[64] = "";
    for (;;) {
        json_t *ask = json_object(), *page = NULL;
        gw_json_set(ask, "limit", json_integer(PAGE));
        if (status != NULL)
            gw_json_set(ask, "status", gw_json_string(status));
        if (after[0] != '\0')
            gw_json_set(ask, "after", gw_json_string(after));
        int rc = gw_client_insist(c, "tasks", ask, &page, err);
        json_decref(ask);
        if (rc < 0)
            return rc;
        (void)json_array_extend(list, json_object_get(page, "tasks"));
        (void)gw_text_of(page, "next", "", after, sizeof after);
        json_decref(page);
        if (after[0] == '\0')
            return 0;
    }
}

static void show_row(const json_t *task)
{
    char id[64], status[24], lane[64], handler[64], title[200], progress[200], time[32];
    const json_t *begun = json_object_get(task, "started_at"), *ended = json_object_get(task, "ended_at");
    if (!json_is_integer(begun))
        begun = json_object_get(task, "created_at");
    int64_t until = json_is_integer(ended) ? json_integer_value(ended) : gw_wall_ms();
    (void)gw_text_of(task, "label", "", title, sizeof title);
    (void)gw_text_of(task, "title", title, title, sizeof title);
    (void)gw_text_of(task, "progress", "", progress, sizeof progress);
    (void)printf("%-26s  %-11s  %-12s  %-12s  %-10s  %s%s%s\n", gw_text_of(task, "task_id", "?", id, sizeof id),
                 gw_text_of(task, "status", "?", status, sizeof status),
                 gw_text_of(task, "lane", "?", lane, sizeof lane),
                 gw_text_of(task, "handler", "?", handler, sizeof handler),
                 gw_text_duration(until - json_integer_value(begun), time), title,
                 progress[0] != '\0' && title[0] != '\0' ? ": " : "", progress);
}

static void show(const json_t *list)
{
    size_t i;
    json_t *task;
    bool colours = gw_text_colours(stdout);
    if (json_array_size(list) == 0)
        return;
    (void)printf("%s%-26s  %-11s  %-12s  %-12s  %-10s  %s%s\n", gw_text_colour(colours, GW_BOLD), "TASK", "STATUS", "LANE",
                 "HANDLER", "FOR", "TITLE", gw_text_colour(colours, GW_PLAIN));
    json_array_foreach(list, i, task)
        show_row(task);
}

int gw_cli_tasks(int argc, char **argv)
{
    struct gw_cli_args args = {.command = "tasks", .usage = usage};
    bool as_json = false;
    const char *status = NULL;
    const struct gw_cli_option options[] = {{"json", NULL, &as_json}, {"status", &status, NULL}, {0}};
    int code = gw_cli_options(&args, options, argc, argv);
    if (code >= 0)
        return code;
    struct gw_client c;
    struct gw_err err = {0};
    json_t *list = json_array();
    int rc = gw_client_open(&c, args.state_dir, &err);
    if (rc == 0 && status == NULL) {
        rc = collect(&c, "running", list, &err);
        if (rc == 0)
            rc = collect(&c, "queued", list, &err);
    } else if (rc == 0) {
        rc = collect(&c, strcmp(status, "all") == 0 ? NULL : status, list, &err);
    }
    if (rc < 0) {
        code = gw_text_failed(&err);
    } else {
        json_t *o = json_object();
        gw_json_set(o, "tasks", json_incref(list));
        if (as_json)
            gw_text_json(o);
        else
            show(list);
        json_decref(o);
        code = GW_CLI_OK;
    }
    json_decref(list);
    gw_client_fini(&c);
    return code;
}
