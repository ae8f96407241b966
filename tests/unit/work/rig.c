#include "unit/work/rig.h"

#include "base/str.h"
#include "base/time.h"
#include "support/tempdir.h"
#include "work/db.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void on_execute(void *ud, const struct gw_task *task)
{
    struct rig *r = ud;
    assert_false(r->in_api);
    assert_int_equal(task->status, GW_TASK_RUNNING);
    assert_true(r->executed_n < RIG_MAX);
    memcpy(r->executed[r->executed_n++].id, task->id, sizeof task->id);
    json_decref(r->last_input);
    r->last_input = json_deep_copy(task->input);
    if (r->finish_at_once)
        assert_int_equal(gw_task_finish(r->w, task->id, r->generation, GW_TASK_SUCCEEDED, task->input, NULL),
                         0);
}

static void on_abort_task(void *ud, const char *id, enum gw_abort why)
{
    struct rig *r = ud;
    assert_false(r->in_api);
    (void)snprintf(r->aborted[r->aborted_n].id, sizeof r->aborted[0].id, "%s", id);
    r->abort_why[r->aborted_n++] = why;
    if (r->finish_on_abort)
        (void)gw_task_finish(r->w, id, r->generation, GW_TASK_FAILED, NULL, "told to end");
}

static void on_abort_run(void *ud, struct gw_run *run, enum gw_abort why)
{
    struct rig *r = ud;
    assert_false(r->in_api);
    (void)why;
    if (r->aborted_runs_n < 64)
        r->aborted_runs[r->aborted_runs_n] = run;
    r->aborted_runs_n++;
}

static void on_changed(void *ud, const struct gw_task *task)
{
    struct rig *r = ud;
    assert_false(r->in_api);
    assert_true(r->changed_n < 4 * RIG_MAX);
    memcpy(r->changed[r->changed_n].id, task->id, sizeof task->id);
    (void)snprintf(r->changed[r->changed_n].progress, sizeof r->changed[0].progress, "%s",
                   task->progress != NULL ? task->progress : "");
    r->changed[r->changed_n++].status = task->status;
}

static void on_drained(void *ud)
{
    struct rig *r = ud;
    assert_false(r->in_api);
    r->drained_n++;
}

static void on_idle(void *ud)
{
    struct rig *r = ud;
    assert_false(r->in_api);
    r->idle_n++;
}

static void on_health(void *ud, int code, const struct gw_err *err)
{
    struct rig *r = ud;
    assert_false(r->in_api);
    assert_true(code == 0 || err->text[0] != '\0');
    r->health_code = code;
    r->health_n++;
    if (code != 0)
        r->err = *err;
}

static void on_opened(void *ud, const struct gw_work_opened *opened)
{
    struct rig *r = ud;
    assert_false(r->in_api);
    r->opened_n++;
    free(r->moved);
    free(r->saved);
    r->found = *opened;
    r->found.moved = r->moved = gw_strdup(opened->moved);
    r->found.saved = r->saved = gw_strdup(opened->saved);
}

static void on_let_go(void *ud, int code, const struct gw_err *err)
{
    struct rig *r = ud;
    assert_true(code == 0 || err->text[0] != '\0');
    r->let_go_n++;
    r->let_go_code = code;
}

static void on_slow(void *ud, const char *lane, int64_t waited_ms, int64_t queued)
{
    struct rig *r = ud;
    assert_false(r->in_api);
    (void)snprintf(r->slow_lane, sizeof r->slow_lane, "%s", lane);
    r->slow_waited_ms = waited_ms;
    r->slow_queued = queued;
    r->slow_n++;
}

static const struct gw_work_ops ops = {.execute = on_execute,
                                       .abort_task = on_abort_task,
                                       .abort_run = on_abort_run,
                                       .changed = on_changed,
                                       .drained = on_drained,
                                       .idle = on_idle,
                                       .store_health = on_health,
                                       .opened = on_opened,
                                       .let_go = on_let_go,
                                       .slow_lane = on_slow};

void rig_init(struct rig *r)
{
    *r = (struct rig){.retry_after_crash = true};
    tempdir_make(r->dir);
}

static void remove_dir(const char *dir)
{
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.')
            (void)unlinkat(dirfd(d), e->d_name, 0);
    (void)closedir(d);
    (void)rmdir(dir);
}

void rig_close(struct rig *r)
{
    r->in_api = true;
    r->w = gw_work_close(r->w, 10000, r->goes_on);
    r->in_api = false;
    assert_null(r->w);
}

void rig_fini(struct rig *r)
{
    rig_close(r);
    remove_dir(r->dir);
    json_decref(r->last_input);
    free(r->moved);
    free(r->saved);
}

void rig_ask_open(struct rig *r, const char *boot_id)
{
    (void)snprintf(r->boot_id, sizeof r->boot_id, "%s", boot_id);
    struct gw_work_config config = {.state_dir = r->dir,
                                    .boot_id = r->boot_id,
                                    .lanes = r->lanes,
                                    .lane_count = r->lane_count,
                                    .goes_on = r->goes_on,
                                    .newer = r->newer,
                                    .retry_after_crash = r->retry_after_crash,
                                    .keep = r->keep,
                                    .ops = &ops,
                                    .ud = r};
    free(r->moved);
    free(r->saved);
    r->moved = r->saved = NULL;
    r->opened_n = r->health_n = 0;
    r->health_code = 0;
    r->err = (struct gw_err){0};
    r->err.code = gw_work_open(&config, &r->w, &r->err);
}

int rig_open(struct rig *r, const char *boot_id)
{
    rig_ask_open(r, boot_id);
    if (r->err.code != 0)
        return r->err.code;
    rig_until(r, r->opened_n > 0 || r->health_code != 0);
    int code = r->health_code;
    if (code != 0)
        rig_close(r);
    return code;
}

void rig_start(struct rig *r, unsigned generation)
{
    r->generation = generation;
    r->in_api = true;
    gw_work_start(r->w, generation);
    r->in_api = false;
}

void rig_up(struct rig *r, unsigned concurrency)
{
    rig_init(r);
    r->lanes[0] = (struct gw_lane_spec){"main", concurrency, -1};
    r->lane_count = 1;
    if (rig_open(r, "boot-1") != 0)
        fail_msg("%s", r->err.text);
    rig_start(r, 1);
}

uint64_t rig_now(void)
{
    return gw_now_ms();
}

bool rig_turn(struct rig *r, int max_ms)
{
    uint64_t now = gw_now_ms(), deadline = gw_work_deadline(r->w);
    int wait = deadline <= now ? 0 : deadline - now < (uint64_t)max_ms ? (int)(deadline - now) : max_ms;
    struct pollfd p = {.fd = gw_work_fd(r->w), .events = POLLIN};
    int n = poll(&p, 1, wait);
    assert_true(n >= 0 || errno == EINTR);
    bool ticked = gw_now_ms() >= gw_work_deadline(r->w);
    if (ticked)
        gw_work_tick(r->w, gw_now_ms());
    if (n > 0) {
        r->dispatches++;
        gw_work_dispatch(r->w);
    }
    return n > 0 || ticked;
}

static void on_settled(void *ud, int code, const struct gw_task *task, const struct gw_err *err)
{
    (void)code, (void)task, (void)err;
    *(bool *)ud = true;
}

void rig_settle(struct rig *r)
{
    // Twice: what the first answers lead to is asked before the second.
    for (int i = 0; i < 2; i++) {
        bool done = false;
        gw_task_get(r->w, "none", on_settled, &done);
        rig_until(r, done);
        while (rig_turn(r, 0))
            ;
    }
}

static void on_submit(void *ud, int code, const struct gw_task *task, bool existing, const struct gw_err *err)
{
    struct rig_reply *reply = ud;
    assert_false(reply->done);
    reply->done = true;
    reply->code = code;
    reply->existing = existing;
    assert_true((code == 0) == (task != NULL));
    if (task != NULL)
        memcpy(reply->id, task->id, sizeof reply->id);
    if (err != NULL)
        reply->err = *err;
}

void rig_submit_later(struct rig *r, const struct gw_task_spec *spec, struct rig_reply *reply)
{
    *reply = (struct rig_reply){0};
    r->in_api = true;
    gw_task_submit(r->w, spec, on_submit, reply);
    r->in_api = false;
    assert_false(reply->done);
}

static struct rig_id submitted[RIG_MAX];
static size_t submitted_n;

const char *rig_submit(struct rig *r, const struct gw_task_spec *spec)
{
    static struct rig_reply reply;
    rig_submit_later(r, spec, &reply);
    rig_until(r, reply.done);
    if (reply.code != 0)
        fail_msg("submit: %s", reply.err.text);
    struct rig_id *id = &submitted[submitted_n++ % RIG_MAX];
    memcpy(id->id, reply.id, sizeof id->id);
    return id->id;
}

int rig_submit_code(struct rig *r, const struct gw_task_spec *spec)
{
    static struct rig_reply reply;
    rig_submit_later(r, spec, &reply);
    rig_until(r, reply.done);
    return reply.code;
}

const char *rig_submit_echo(struct rig *r)
{
    const struct gw_task_spec spec = {.handler = "echo", .priority = GW_PRIORITY_NORMAL};
    return rig_submit(r, &spec);
}

static void on_task(void *ud, int code, const struct gw_task *task, const struct gw_err *err)
{
    struct rig_reply *reply = ud;
    assert_false(reply->done);
    reply->done = true;
    reply->code = code;
    if (task != NULL) {
        memcpy(reply->id, task->id, sizeof reply->id);
        reply->status = task->status;
        reply->task = gw_task_json(task);
    }
    if (err != NULL)
        reply->err = *err;
}

void rig_reply_fini(struct rig_reply *reply)
{
    json_decref(reply->task);
    reply->task = NULL;
}

struct rig_reply rig_get(struct rig *r, const char *id)
{
    struct rig_reply reply = {0};
    gw_task_get(r->w, id, on_task, &reply);
    assert_false(reply.done);
    rig_until(r, reply.done);
    return reply;
}

struct rig_reply rig_cancel(struct rig *r, const char *id)
{
    struct rig_reply reply = {0};
    r->in_api = true;
    gw_task_cancel(r->w, id, on_task, &reply);
    r->in_api = false;
    rig_until(r, reply.done);
    return reply;
}

enum gw_task_status rig_status(struct rig *r, const char *id)
{
    struct rig_reply reply = rig_get(r, id);
    assert_int_equal(reply.code, 0);
    rig_reply_fini(&reply);
    return reply.status;
}

static void on_tasks(void *ud, int code, const struct gw_task *tasks, size_t n, const char *next,
                     const struct gw_err *err)
{
    struct rig_reply *reply = ud;
    reply->done = true;
    reply->code = code;
    reply->n = n;
    for (size_t i = 0; i < n; i++)
        memcpy(reply->ids[i].id, tasks[i].id, sizeof tasks[i].id);
    if (next != NULL)
        (void)snprintf(reply->next, sizeof reply->next, "%s", next);
    if (err != NULL)
        reply->err = *err;
}

void rig_list(struct rig *r, int status, unsigned limit, const char *after, struct rig_reply *reply)
{
    const struct gw_task_filter filter = {status, limit, after};
    *reply = (struct rig_reply){0};
    gw_task_list(r->w, &filter, on_tasks, reply);
    rig_until(r, reply->done);
}

int rig_finish(struct rig *r, const char *id, enum gw_task_status status, const char *result_json)
{
    json_t *result = result_json != NULL ? json_loads(result_json, JSON_DECODE_ANY, NULL) : NULL;
    r->in_api = true;
    int rc = gw_task_finish(r->w, id, r->generation, status, result, "went wrong");
    r->in_api = false;
    json_decref(result);
    return rc;
}

bool rig_was_executed(const struct rig *r, const char *id)
{
    for (size_t i = 0; i < r->executed_n; i++)
        if (strcmp(r->executed[i].id, id) == 0)
            return true;
    return false;
}

size_t rig_times_changed(const struct rig *r, const char *id, enum gw_task_status status)
{
    size_t n = 0;
    for (size_t i = 0; i < r->changed_n; i++)
        n += strcmp(r->changed[i].id, id) == 0 && r->changed[i].status == status;
    return n;
}

void rig_sql(const struct rig *r, const char *sql)
{
    assert_null(r->w);
    char *path = rig_path(r, "tasks.db");
    struct gw_db *db;
    struct gw_err err;
    if (gw_db_open(path, 1000, &db, &err) != 0 || gw_db_exec(db, sql, &err) != 0)
        fail_msg("%s", err.text);
    gw_db_close(db, GW_DB_END_CLEAN);
    free(path);
}

int64_t rig_count(const struct rig *r, const char *sql)
{
    // Opening by hand drops sqlite's lock on the file that says it is in use; nobody else uses it in a test.
    char *path = rig_path(r, "tasks.db");
    struct gw_db *db;
    struct gw_err err;
    int64_t n = -1;
    if (gw_db_open(path, 1000, &db, &err) != 0 || gw_db_int(db, sql, &n, &err) != 0)
        fail_msg("%s", err.text);
    gw_db_close(db, GW_DB_END_CLEAN);
    free(path);
    return n;
}

char *rig_path(const struct rig *r, const char *name)
{
    return gw_asprintf("%s/%s", r->dir, name);
}

struct rig_holder rig_hold_lock(const struct rig *r)
{
    int to[2], from[2];
    assert_int_equal(pipe2(to, O_CLOEXEC), 0);
    assert_int_equal(pipe2(from, O_CLOEXEC), 0);
    char *path = rig_path(r, "tasks.db");
    pid_t pid = fork();
    if (pid == 0) {
        struct gw_db *db;
        char c = 'n';
        if (gw_db_open(path, 1000, &db, NULL) == 0 && gw_db_exec(db, "BEGIN EXCLUSIVE", NULL) == 0)
            c = 'y';
        (void)close(to[1]);
        (void)!write(from[1], &c, 1);
        (void)!read(to[0], &c, 1);
        _exit(0);
    }
    free(path);
    char c = 'n';
    (void)close(to[0]);
    (void)close(from[1]);
    assert_int_equal(read(from[0], &c, 1), 1);
    assert_int_equal(c, 'y');
    return (struct rig_holder){pid, to[1], from[0]};
}

void rig_drop_lock(struct rig_holder *h)
{
    (void)close(h->to);
    (void)close(h->from);
    (void)waitpid(h->pid, NULL, 0);
}
