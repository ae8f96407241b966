#include "work/rows.h"

#include "base/err.h"
#include "base/json.h"
#include "base/str.h"
#include "work/schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ATTEMPTS 3
#define INLINE_BYTES 1024    /* an input up to this size is copied with its row at each change */
#define PAGE_BYTES (4 << 20) /* a page of a list ends behind this much text */

/* ---- one task ---- */

static char *column_dup(struct gw_stmt *s, int i)
{
    size_t n;
    const char *text = gw_stmt_column_text(s, i, &n);
    return text != NULL ? gw_memdup0(text, n) : NULL;
}

static json_t *column_json(struct gw_stmt *s, int i)
{
    size_t n;
    const char *text = gw_stmt_column_text(s, i, &n);
    json_t *value = NULL;
    if (text != NULL && gw_json_parse(text, n, &value, NULL) != 0)
        value = gw_json_stringn(text, n); // edited by hand: shown as it is
    return value;
}

static void copy_id(char id[40], const char *text)
{
    (void)snprintf(id, 40, "%s", text != NULL ? text : "");
}

/* Returns about how many bytes of text it holds. */
static size_t read_task(struct gw_stmt *s, bool with_input, struct gw_task *t)
{
    size_t result_bytes = 0;
    *t = (struct gw_task){0};
    copy_id(t->id, gw_stmt_column_text(s, 0, NULL));
    t->handler = column_dup(s, 1);
    t->lane = column_dup(s, 2);
    t->label = column_dup(s, 3);
    t->title = column_dup(s, 4);
    t->priority = (enum gw_priority)gw_stmt_column_int(s, 5);
    t->status = (enum gw_task_status)gw_stmt_column_int(s, 6);
    t->timeout_ms = gw_stmt_column_int(s, 7);
    t->retry_on_crash = gw_stmt_column_int(s, 8) != 0;
    t->retry_on_interrupt = gw_stmt_column_int(s, 9) != 0;
    t->created_at = gw_stmt_column_int(s, 10);
    t->started_at = gw_stmt_column_int(s, 11);
    t->ended_at = gw_stmt_column_int(s, 12);
    t->attempts = (int)gw_stmt_column_int(s, 13);
    t->boot_id = column_dup(s, 14);
    t->ended_by_boot_id = column_dup(s, 15);
    t->progress = column_dup(s, 16);
    t->error = column_dup(s, 17);
    (void)gw_stmt_column_text(s, 18, &result_bytes);
    t->result = column_json(s, 18);
    t->bytes = gw_stmt_column_int(s, 19);
    if (with_input)
        t->input = column_json(s, GW_SQL_COLUMN_INPUT);
    return 512 + result_bytes + (t->error != NULL ? strlen(t->error) : 0);
}

/* The number in an id, which is its row's; 0, which is none, for what is no id. */
static int64_t seq_of(const char *id)
{
    int64_t seq;
    return gw_task_id_seq(id, &seq) ? seq : 0;
}

static void bind_id(struct gw_stmt *s, const char *id)
{
    gw_stmt_int(s, 1, seq_of(id));
    gw_stmt_text(s, 2, id);
}

int gw_rows_insert(struct gw_rows *r, const struct gw_task *t, const char *input, const char *key,
                   const char *body_sha256, struct gw_err *err)
{
    bool small = input != NULL && strlen(input) <= INLINE_BYTES;
    struct gw_stmt *s = r->stmts[GW_SQL_INSERT];
    bind_id(s, t->id);
    gw_stmt_text(s, 3, t->handler);
    gw_stmt_text(s, 4, t->lane);
    gw_stmt_text(s, 5, t->label);
    gw_stmt_text(s, 6, t->title);
    gw_stmt_int(s, 7, t->priority);
    gw_stmt_int(s, 8, t->timeout_ms);
    gw_stmt_int(s, 9, t->retry_on_crash);
    gw_stmt_int(s, 10, t->retry_on_interrupt);
    gw_stmt_int(s, 11, t->created_at);
    gw_stmt_text(s, 12, key);
    gw_stmt_text(s, 13, body_sha256);
    gw_stmt_text(s, 14, small ? input : NULL);
    gw_stmt_int(s, 15, input != NULL ? (int64_t)strlen(input) : 0);
    int rc = gw_stmt_run(s, err);
    if (rc != 0 || small || input == NULL)
        return rc;
    s = r->stmts[GW_SQL_INSERT_INPUT];
    gw_stmt_int(s, 1, seq_of(t->id));
    gw_stmt_text(s, 2, input);
    return gw_stmt_run(s, err);
}

int gw_rows_find_key(struct gw_rows *r, const char *key, const char *body_sha256, int64_t since_ms,
                     struct gw_task *ret_task, bool *ret_found, bool *ret_same, struct gw_err *err)
{
    struct gw_stmt *s = r->stmts[GW_SQL_FIND_KEY];
    struct gw_task known = {0};
    gw_stmt_text(s, 1, key);
    int rc = gw_stmt_step(s, err);
    *ret_found = rc == 1 && gw_stmt_column_int(s, 2) >= since_ms;
    if (*ret_found) {
        const char *body = gw_stmt_column_text(s, 1, NULL);
        *ret_same = strcmp(body != NULL ? body : "", body_sha256 != NULL ? body_sha256 : "") == 0;
        copy_id(known.id, gw_stmt_column_text(s, 0, NULL));
        known.created_at = gw_stmt_column_int(s, 2);
        known.status = (enum gw_task_status)gw_stmt_column_int(s, 3);
    }
    gw_stmt_reset(s);
    if (rc < 0 || !*ret_found)
        return rc < 0 ? rc : 0;
    bool there;
    rc = gw_rows_get(r, known.id, false, ret_task, &there, err);
    if (rc == 0 && !there) // its row is gone; its id and how it ended are kept as long as the key
        *ret_task = known;
    return rc;
}

int gw_rows_get(struct gw_rows *r, const char *id, bool with_input, struct gw_task *ret_task, bool *ret_found,
                struct gw_err *err)
{
    struct gw_stmt *s = r->stmts[with_input ? GW_SQL_GET_INPUT : GW_SQL_GET];
    bind_id(s, id);
    int rc = gw_stmt_step(s, err);
    if (rc == 1)
        (void)read_task(s, with_input, ret_task);
    gw_stmt_reset(s);
    *ret_found = rc == 1;
    return rc < 0 ? rc : 0;
}

static int change(struct gw_rows *r, struct gw_stmt *s, bool *ret_changed, struct gw_err *err)
{
    int rc = gw_stmt_run(s, err);
    *ret_changed = rc == 0 && gw_db_changes(r->db) > 0;
    return rc;
}

int gw_rows_start(struct gw_rows *r, const char *id, const struct gw_owner *by, int64_t now_ms,
                  bool *ret_changed, struct gw_err *err)
{
    struct gw_stmt *s = r->stmts[GW_SQL_START];
    bind_id(s, id);
    gw_stmt_text(s, 3, by->boot_id);
    gw_stmt_int(s, 4, by->generation);
    gw_stmt_int(s, 5, now_ms);
    return change(r, s, ret_changed, err);
}

int gw_rows_unstart(struct gw_rows *r, const char *id, const struct gw_owner *by, bool *ret_changed,
                    struct gw_err *err)
{
    struct gw_stmt *s = r->stmts[GW_SQL_UNSTART];
    bind_id(s, id);
    gw_stmt_text(s, 3, by->boot_id);
    gw_stmt_int(s, 4, by->generation);
    return change(r, s, ret_changed, err);
}

int gw_rows_finish(struct gw_rows *r, const struct gw_task *end, const char *result,
                   const struct gw_owner *by, bool *ret_changed, struct gw_err *err)
{
    struct gw_stmt *s = r->stmts[GW_SQL_FINISH];
    bind_id(s, end->id);
    gw_stmt_text(s, 3, by->boot_id);
    gw_stmt_int(s, 4, by->generation);
    gw_stmt_int(s, 5, end->status);
    gw_stmt_int(s, 6, end->ended_at);
    gw_stmt_text(s, 7, result);
    gw_stmt_text(s, 8, end->error);
    gw_stmt_text(s, 9, end->progress);
    return change(r, s, ret_changed, err);
}

int gw_rows_cancel(struct gw_rows *r, const char *id, const char *boot_id, int64_t now_ms, bool *ret_changed,
                   struct gw_err *err)
{
    struct gw_stmt *s = r->stmts[GW_SQL_CANCEL];
    bind_id(s, id);
    gw_stmt_text(s, 3, boot_id);
    gw_stmt_int(s, 4, now_ms);
    return change(r, s, ret_changed, err);
}

int gw_rows_progress(struct gw_rows *r, const char *id, const char *boot_id, const char *text,
                     struct gw_err *err)
{
    struct gw_stmt *s = r->stmts[GW_SQL_PROGRESS];
    bind_id(s, id);
    gw_stmt_text(s, 3, boot_id);
    gw_stmt_text(s, 4, text);
    return gw_stmt_run(s, err);
}

/* run_by: the boot whose running row it is; by: ours. */
static int end_running(struct gw_rows *r, const char *id, const char *run_by, enum gw_task_status status,
                       const char *by, int64_t now_ms, const char *error, bool *ret_changed, struct gw_err *err)
{
    struct gw_stmt *s = r->stmts[GW_SQL_END];
    bind_id(s, id);
    gw_stmt_text(s, 3, run_by);
    gw_stmt_int(s, 4, status);
    gw_stmt_int(s, 5, now_ms);
    gw_stmt_text(s, 6, by);
    gw_stmt_text(s, 7, error);
    return change(r, s, ret_changed, err);
}

static int requeue(struct gw_rows *r, const char *id, const char *run_by, bool *ret_changed, struct gw_err *err)
{
    bind_id(r->stmts[GW_SQL_REQUEUE], id);
    gw_stmt_text(r->stmts[GW_SQL_REQUEUE], 3, run_by);
    return change(r, r->stmts[GW_SQL_REQUEUE], ret_changed, err);
}

#define CUT_TEXT "cut off by a restart or stop"
#define LOST_TEXT "the host died while it ran"

int gw_rows_interrupt(struct gw_rows *r, const char *id, const char *boot_id, int64_t now_ms,
                      bool *ret_changed, struct gw_err *err)
{
    struct gw_task t = {0};
    bool found;
    int rc = gw_rows_get(r, id, false, &t, &found, err);
    if (rc == 0 && found && t.retry_on_interrupt && t.attempts < MAX_ATTEMPTS)
        rc = requeue(r, id, boot_id, ret_changed, err);
    else if (rc == 0)
        rc = end_running(r, id, boot_id, GW_TASK_INTERRUPTED, boot_id, now_ms, CUT_TEXT, ret_changed, err);
    gw_task_fini(&t);
    return rc;
}

/* ---- many ---- */

struct task_list {
    struct gw_task *tasks;
    size_t n, cap;
};

static struct gw_task *list_add(struct task_list *l)
{
    if (l->n == l->cap) {
        l->cap = l->cap > 0 ? l->cap * 2 : 16;
        l->tasks = gw_realloc(l->tasks, l->cap * sizeof *l->tasks);
    }
    l->tasks[l->n] = (struct gw_task){0};
    return &l->tasks[l->n++];
}

static void list_fini(struct task_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        gw_task_fini(&l->tasks[i]);
    free(l->tasks);
}

/* One running row, as the sweep judges it. */
struct running {
    char id[40];
    char *boot_id; /* owned; NULL in a row that was edited by hand */
    bool ours, retry;
};

static int read_running(struct gw_rows *r, const struct gw_sweep *sweep, struct gw_buf *out,
                        struct gw_err *err)
{
    struct gw_stmt *s = r->stmts[GW_SQL_RUNNING];
    int rc;
    while ((rc = gw_stmt_step(s, err)) == 1) {
        struct running row = {0};
        const char *boot = gw_stmt_column_text(s, 1, NULL);
        copy_id(row.id, gw_stmt_column_text(s, 0, NULL));
        row.ours = boot != NULL && strcmp(boot, sweep->boot_id) == 0;
        if (row.ours ? gw_stmt_column_int(s, 2) > (int64_t)sweep->generation : !sweep->others)
            continue;
        row.boot_id = gw_strdup(boot);
        row.retry = gw_stmt_column_int(s, row.ours ? 4 : 3) != 0 && gw_stmt_column_int(s, 5) < MAX_ATTEMPTS &&
                    (row.ours || sweep->retry_after_crash);
        gw_buf_add(out, &row, sizeof row);
    }
    gw_stmt_reset(s);
    return rc;
}

int gw_rows_sweep(struct gw_rows *r, const struct gw_sweep *sweep, struct gw_task **ret_tasks, size_t *ret_n,
                  struct gw_err *err)
{
    struct gw_buf found = {0};
    struct task_list swept = {0};
    int rc = read_running(r, sweep, &found, err);
    for (size_t at = 0; at < found.len; at += sizeof(struct running)) {
        struct running row;
        bool changed;
        memcpy(&row, found.data + at, sizeof row);
        if (rc == 0 && row.retry)
            rc = requeue(r, row.id, row.boot_id, &changed, err);
        else if (rc == 0)
            rc = end_running(r, row.id, row.boot_id, row.ours ? GW_TASK_INTERRUPTED : GW_TASK_LOST, sweep->boot_id,
                             sweep->now_ms, row.ours ? CUT_TEXT : LOST_TEXT, &changed, err);
        if (rc == 0)
            rc = gw_rows_get(r, row.id, false, list_add(&swept), &changed, err);
        free(row.boot_id);
    }
    gw_buf_fini(&found);
    if (rc != 0) {
        list_fini(&swept);
        return rc;
    }
    *ret_tasks = swept.tasks;
    *ret_n = swept.n;
    return 0;
}

int gw_rows_list(struct gw_rows *r, const struct gw_task_filter *filter, struct gw_task **ret_tasks,
                 size_t *ret_n, char ret_next[40], struct gw_err *err)
{
    struct gw_stmt *s = r->stmts[filter->status >= 0 ? GW_SQL_LIST_STATUS : GW_SQL_LIST];
    struct task_list page = {0};
    size_t bytes = 0;
    int rc;
    gw_stmt_int(s, 1, filter->after != NULL ? seq_of(filter->after) : 0);
    gw_stmt_int(s, 2, (int64_t)filter->limit + 1); // one more, to know whether the page is the last
    if (filter->status >= 0)
        gw_stmt_int(s, 3, filter->status);
    ret_next[0] = '\0';
    while ((rc = gw_stmt_step(s, err)) == 1) {
        if (page.n == filter->limit || bytes > PAGE_BYTES) {
            copy_id(ret_next, page.tasks[page.n - 1].id);
            rc = 0;
            break;
        }
        bytes += read_task(s, false, list_add(&page));
    }
    gw_stmt_reset(s);
    if (rc != 0) {
        list_fini(&page);
        return rc;
    }
    *ret_tasks = page.tasks;
    *ret_n = page.n;
    return 0;
}

int gw_rows_waiting(struct gw_rows *r, const char *lane, struct gw_waiting *waiting, size_t max,
                    size_t *ret_n, struct gw_err *err)
{
    struct gw_stmt *s = r->stmts[GW_SQL_WAITING];
    size_t n = 0;
    int rc;
    gw_stmt_text(s, 1, lane);
    gw_stmt_int(s, 2, (int64_t)max);
    while ((rc = gw_stmt_step(s, err)) == 1 && n < max) {
        copy_id(waiting[n].id, gw_stmt_column_text(s, 0, NULL));
        waiting[n].priority = (enum gw_priority)gw_stmt_column_int(s, 1);
        waiting[n].created_at = gw_stmt_column_int(s, 2);
        n++;
    }
    gw_stmt_reset(s);
    *ret_n = n;
    return rc < 0 ? rc : 0;
}

int gw_rows_count_queued(struct gw_rows *r, const char *lane, struct gw_lane_queued **ret_lanes,
                         size_t *ret_n, struct gw_err *err)
{
    struct gw_stmt *s = r->stmts[lane != NULL ? GW_SQL_COUNT_LANE : GW_SQL_COUNT_LANES];
    struct gw_lane_queued *lanes = NULL;
    size_t n = 0;
    int rc;
    if (lane != NULL)
        gw_stmt_text(s, 1, lane);
    while ((rc = gw_stmt_step(s, err)) == 1) {
        lanes = gw_realloc(lanes, (n + 1) * sizeof *lanes);
        lanes[n].lane = column_dup(s, 0);
        lanes[n++].queued = gw_stmt_column_int(s, 1);
    }
    gw_stmt_reset(s);
    *ret_lanes = lanes;
    *ret_n = n;
    return rc;
}

int gw_rows_max_id(struct gw_rows *r, char ret_id[40], struct gw_err *err)
{
    struct gw_stmt *s;
    int rc = gw_db_prepare(r->db, "SELECT id FROM tasks ORDER BY seq DESC LIMIT 1", &s, err);
    if (rc != 0)
        return rc;
    rc = gw_stmt_step(s, err);
    if (rc == 1)
        copy_id(ret_id, gw_stmt_column_text(s, 0, NULL));
    gw_stmt_free(s);
    return rc < 0 ? rc : 0;
}

/* ---- retention ---- */

int gw_rows_weigh(struct gw_rows *r, struct gw_weight *ret, struct gw_err *err)
{
    int rc = gw_db_int(r->db, "SELECT count(*) FROM tasks INDEXED BY tasks_kept WHERE status >= 2", &ret->rows, err);
    if (rc == 0)
        rc = gw_db_int(r->db, "SELECT coalesce(sum(bytes), 0) FROM tasks INDEXED BY tasks_kept WHERE status >= 2",
                       &ret->bytes, err);
    ret->bytes += ret->rows * GW_ROW_BYTES;
    return rc;
}

int gw_rows_oldest_end(struct gw_rows *r, int64_t *ret_ended_at, struct gw_err *err)
{
    return gw_db_int(r->db,
                     "SELECT ended_at FROM tasks INDEXED BY tasks_kept WHERE status >= 2 ORDER BY ended_at LIMIT 1",
                     ret_ended_at, err);
}

static int delete_task(struct gw_rows *r, int64_t seq, struct gw_err *err)
{
    static const int order[] = {GW_SQL_DELETE_INPUT, GW_SQL_DELETE};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof order / sizeof order[0]; i++) {
        gw_stmt_int(r->stmts[order[i]], 1, seq);
        rc = gw_stmt_run(r->stmts[order[i]], err);
    }
    return rc;
}

int gw_rows_prune(struct gw_rows *r, int64_t before_ms, const struct gw_weight *max, struct gw_weight *ret_deleted,
                  struct gw_err *err)
{
    struct gw_stmt *s = r->stmts[GW_SQL_OLDEST];
    struct gw_buf found = {0};
    struct gw_weight deleted = {0, 0};
    int rc;
    gw_stmt_int(s, 1, before_ms);
    gw_stmt_int(s, 2, max->rows);
    while ((rc = gw_stmt_step(s, err)) == 1 && (deleted.rows == 0 || deleted.bytes < max->bytes)) {
        int64_t seq = gw_stmt_column_int(s, 0);
        gw_buf_add(&found, &seq, sizeof seq);
        deleted.rows++;
        deleted.bytes += gw_stmt_column_int(s, 1) + GW_ROW_BYTES;
    }
    gw_stmt_reset(s);
    rc = rc < 0 ? rc : 0;
    for (size_t at = 0; rc == 0 && at < found.len; at += sizeof(int64_t)) {
        int64_t seq;
        memcpy(&seq, found.data + at, sizeof seq);
        rc = delete_task(r, seq, err);
    }
    gw_buf_fini(&found);
    if (rc == 0)
        *ret_deleted = deleted;
    return rc;
}

int gw_rows_prune_keys(struct gw_rows *r, int64_t before_ms, int max, int64_t *ret_deleted, struct gw_err *err)
{
    struct gw_stmt *s = r->stmts[GW_SQL_PRUNE_KEYS];
    gw_stmt_int(s, 1, before_ms);
    gw_stmt_int(s, 2, max);
    int rc = gw_stmt_run(s, err);
    *ret_deleted = rc == 0 ? gw_db_changes(r->db) : 0;
    return rc;
}
