#include "work/retain.h"

#include "base/str.h"
#include "base/time.h"

#include <stdlib.h>
#include <string.h>

#define STEP_ROWS 256
#define STEP_BYTES (4 << 20)
#define LOOK_MS 60000            /* how often age is looked at, while there is work */
#define OPENING_MS (3600 * 1000) /* how far an opening may set the clock forward */

bool gw_retention_parse(const char *words, struct gw_retention *ret)
{
    static const struct {
        const char *name;
        int64_t factor;
        size_t at;
    } units[] = {{"s", 1000, 0},       {"m", 60000, 0},         {"h", 3600000, 0},        {"d", 86400000, 0}, {"", 1, 1},
                 {"KiB", 1LL << 10, 2}, {"MiB", 1LL << 20, 2}, {"GiB", 1LL << 30, 2}, {"TiB", 1LL << 40, 2}};
    int64_t found[3] = {0, 0, 0};
    for (const char *at = words;; at++) {
        size_t digits = strspn(at, "0123456789"), len = strcspn(at + digits, ","), i = 0;
        size_t n = sizeof units / sizeof *units;
        while (i < n && (strlen(units[i].name) != len || strncmp(units[i].name, at + digits, len) != 0))
            i++;
        int64_t number = digits > 0 && digits < 13 ? strtoll(at, NULL, 10) : 0;
        if (i == n || number <= 0 || number > INT64_MAX / units[i].factor || found[units[i].at] != 0)
            return false;
        found[units[i].at] = number * units[i].factor;
        at += digits + len;
        if (*at == '\0')
            break;
    }
    *ret = (struct gw_retention){found[0], found[1], found[2]};
    return true;
}

void gw_retain_begin(struct gw_retain *t, int64_t before_ms, int64_t wall_ms, uint64_t now_ms)
{
    t->clock_ms = before_ms <= 0 || before_ms + OPENING_MS > wall_ms ? wall_ms : before_ms + OPENING_MS;
    t->clock_at_ms = now_ms;
}

int64_t gw_retain_clock(struct gw_retain *t, int64_t wall_ms, uint64_t now_ms)
{
    int64_t may = t->clock_ms + 2 * (int64_t)(now_ms - t->clock_at_ms);
    t->clock_at_ms = now_ms;
    t->clock_ms = may < wall_ms ? may : wall_ms;
    return t->clock_ms;
}

static int64_t over(int64_t kept, int64_t limit, bool slack)
{
    return limit > 0 ? kept - (slack ? limit - limit / 100 : limit) : 0;
}

/* How much more there is than is to be kept. With slack: than a little less, so that not every end brings a deletion
 * with a commit of its own once a limit is reached. */
static struct gw_weight too_much(const struct gw_retain *t, bool slack)
{
    return (struct gw_weight){over(t->kept.rows, t->keep.rows, slack), over(t->kept.bytes, t->keep.bytes, slack)};
}

static bool is_too_much(const struct gw_retain *t, bool slack)
{
    struct gw_weight w = too_much(t, slack);
    return w.rows > 0 || w.bytes > 0;
}

int gw_retain_weigh(struct gw_retain *t, struct gw_rows *rows, struct gw_err *err)
{
    t->due = true;
    return gw_rows_weigh(rows, &t->kept, err);
}

void gw_retain_add(struct gw_retain *t, const struct gw_weight *ended, uint64_t now_ms)
{
    t->kept.rows += ended->rows;
    t->kept.bytes += ended->bytes;
    t->due = t->due || is_too_much(t, false) || now_ms >= t->look_at_ms;
}

/* Tasks that are too old, or the oldest of too many. */
static int prune_tasks(struct gw_retain *t, struct gw_rows *rows, int64_t clock_ms, bool *ret_more)
{
    struct gw_weight step = {STEP_ROWS, STEP_BYTES}, more = too_much(t, true);
    if (t->pruning && more.bytes > 0)
        step.bytes = more.bytes < STEP_BYTES ? more.bytes : STEP_BYTES;
    else if (t->pruning)
        step.rows = more.rows < STEP_ROWS ? more.rows : STEP_ROWS;
    struct gw_weight deleted = {0, 0};
    int64_t oldest = 0, before = t->keep.ms > 0 ? clock_ms - t->keep.ms : 0;
    int rc = gw_rows_oldest_end(rows, &oldest, NULL);
    if (rc != 0 || oldest == 0 || (!t->pruning && oldest >= before))
        return rc;
    rc = gw_rows_prune(rows, t->pruning ? INT64_MAX : before, &step, &deleted, NULL);
    if (rc != 0)
        return rc;
    t->kept.rows -= deleted.rows;
    t->kept.bytes -= deleted.bytes;
    *ret_more = *ret_more || deleted.rows > 0;
    return 0;
}

void gw_retain_step(struct gw_retain *t, struct gw_rows *rows)
{
    int64_t clock_ms = gw_retain_clock(t, gw_wall_ms(), gw_now_ms()), keys = 0;
    bool tasks = false, pages = false;
    t->due = false;
    t->look_at_ms = gw_now_ms() + LOOK_MS;
    if (too_much(t, false).bytes > 0 && !t->pruning) // what was added may have been counted before it had ended
        (void)gw_rows_weigh(rows, &t->kept, NULL);
    t->pruning = is_too_much(t, t->pruning);
    int rc = gw_rows_begin(rows, NULL);
    if (rc == 0)
        rc = prune_tasks(t, rows, clock_ms, &tasks);
    if (rc == 0)
        rc = gw_rows_prune_keys(rows, clock_ms - GW_KEY_MS, STEP_ROWS, &keys, NULL);
    if (rc == 0 && !tasks)
        rc = gw_rows_give_back(rows, &pages, NULL);
    if (rc == 0 && (tasks || keys > 0 || pages))
        rc = gw_rows_commit(rows, NULL);
    else
        gw_rows_rollback(rows);
    if (rc != 0) {
        gw_rows_rollback(rows);
        (void)gw_rows_weigh(rows, &t->kept, NULL);
        return;
    }
    t->due = tasks || keys > 0 || pages;
}
