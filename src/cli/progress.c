#include "cli/progress.h"

#include "base/str.h"
#include "base/time.h"
#include "cli/text.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { DRAW_MS = 200, BAR_COLUMNS = 20 };

void gw_progress_init(struct gw_progress *p, bool quiet)
{
    *p = (struct gw_progress){.quiet = quiet,
                              .live = !quiet && isatty(STDERR_FILENO) == 1,
                              .colours = gw_text_colours(stderr),
                              .began_ms = gw_now_ms(),
                              .budget_ms = -1};
    (void)snprintf(p->phase, sizeof p->phase, "asking");
}

void gw_progress_end(struct gw_progress *p)
{
    if (p->shown)
        (void)fputs("\r\033[K", stderr);
    p->shown = false;
}

void gw_progress_say(void *ud, const char *words)
{
    struct gw_progress *p = ud;
    char line[1024], time[32];
    if (p->quiet)
        return;
    gw_progress_end(p);
    gw_one_line(words, strlen(words), line, sizeof line);
    (void)fprintf(stderr, "%s%8s%s  %s\n", gw_text_colour(p->colours, GW_DIM),
                  gw_text_duration((int64_t)(gw_now_ms() - p->began_ms), time), gw_text_colour(p->colours, GW_PLAIN),
                  line);
}

/* ---- what is known ---- */

/* Events whose own sentence people want to read. */
static bool is_news(const char *name)
{
    static const char *const news[] = {
        "restart.deferred", "restart.still_deferred", "restart.merged",  "restart.accepted", "restart.refused",
        "restart.mode",     "restart.becomes_stop",   "stop.accepted",   "drain.started",    "drain.pending",
        "drain.budget_changed", "drain.completed",    "drain.timeout",   "drain.skipped",    "work.aborted",
        "policy.rejected",  "app.close_failed",       "app.start_failed", "app.started",     "respawn.spawned",
        "respawn.ready",    "respawn.failed",         "update.rolled_back", "startup.rolled_back", "bundle.written"};
    for (size_t i = 0; i < sizeof news / sizeof *news; i++)
        if (strcmp(name, news[i]) == 0)
            return true;
    return false;
}

static void take_counts(struct gw_progress *p, const json_t *from)
{
    p->tasks = json_integer_value(json_object_get(from, "tasks"));
    p->runs = json_integer_value(json_object_get(from, "runs"));
}

static void take_budget(struct gw_progress *p, const json_t *from)
{
    const json_t *budget = json_object_get(from, "budget_ms");
    p->budget_ms = json_is_integer(budget) ? json_integer_value(budget) : -1;
}

static void take_drain(struct gw_progress *p, const char *name, const json_t *event)
{
    if (strcmp(name, "started") == 0) {
        p->draining = true;
        p->drain_ms = gw_now_ms();
        take_budget(p, event);
        take_counts(p, event);
    } else if (strcmp(name, "budget_changed") == 0) {
        take_budget(p, event);
    } else if (strcmp(name, "pending") == 0) {
        take_counts(p, event);
    } else if (strcmp(name, "blocked") == 0) {
        (void)gw_text_of(event, "blockers", "", p->blockers, sizeof p->blockers);
        if (!p->live)
            gw_progress_say(p, p->blockers);
    } else {
        p->draining = false;
    }
}

void gw_progress_event(struct gw_progress *p, const json_t *event)
{
    char words[600];
    const char *name = json_string_value(json_object_get(event, "event"));
    if (name == NULL)
        return;
    if (strncmp(name, "drain.", 6) == 0)
        take_drain(p, name + 6, event);
    else if (strcmp(name, "host.state") == 0)
        p->told = *gw_text_of(event, "state", "?", p->phase, sizeof p->phase) != '\0';
    else if (strcmp(name, "task.changed") == 0 && p->draining && p->live)
        p->stale = true;
    if (is_news(name))
        gw_progress_say(p, gw_text_of(event, "msg", name, words, sizeof words));
}

void gw_progress_status(struct gw_progress *p, const json_t *status)
{
    const json_t *drain = json_object_get(status, "drain");
    p->stale = false;
    if (!p->told)
        (void)gw_text_of(status, "state", "?", p->phase, sizeof p->phase);
    p->draining = json_is_object(drain);
    if (!p->draining)
        return;
    p->drain_ms = gw_now_ms() - (uint64_t)json_integer_value(json_object_get(drain, "elapsed_ms"));
    take_budget(p, drain);
    take_counts(p, drain);
    (void)gw_text_of(status, "blockers", "", p->blockers, sizeof p->blockers);
}

/* ---- the live line ---- */

uint64_t gw_progress_due(const struct gw_progress *p)
{
    return p->live ? gw_now_ms() + DRAW_MS : UINT64_MAX;
}

static void add_drain(const struct gw_progress *p, struct gw_buf *b)
{
    char time[32];
    int64_t gone = (int64_t)(gw_now_ms() - p->drain_ms);
    gw_buf_adds(b, "  ");
    if (p->budget_ms >= 0) {
        gw_text_bar(b, gone, p->budget_ms, BAR_COLUMNS);
        gw_buf_addf(b, " %s left  ", gw_text_duration(p->budget_ms > gone ? p->budget_ms - gone : 0, time));
    } else {
        gw_buf_adds(b, "no limit  ");
    }
    gw_text_count(b, p->tasks, "task");
    gw_buf_adds(b, ", ");
    gw_text_count(b, p->runs, "run");
    if (p->blockers[0] != '\0')
        gw_buf_addf(b, ": %s", p->blockers);
}

/* Bytes of text that fill at most so many columns, a character each. */
static size_t fit(const char *text, unsigned columns)
{
    size_t n = 0;
    for (; text[n] != '\0'; n++)
        if (((unsigned char)text[n] & 0xc0) != 0x80 && columns-- == 0)
            break;
    return n;
}

void gw_progress_draw(struct gw_progress *p)
{
    if (!p->live)
        return;
    char time[32];
    struct gw_buf b = {0};
    gw_buf_addf(&b, "%8s  %s", gw_text_duration((int64_t)(gw_now_ms() - p->began_ms), time), p->phase);
    if (p->draining)
        add_drain(p, &b);
    (void)fprintf(stderr, "\r\033[K%.*s", (int)fit(b.data, gw_text_columns(stderr) - 1), b.data);
    (void)fflush(stderr);
    p->shown = true;
    gw_buf_fini(&b);
}
