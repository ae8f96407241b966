/* workload.c - work/ on this loop: its descriptor, its one timer, and its callbacks to the application. */
#include "host/inside.h"

#include "loop/leftovers.h"
#include "os/proc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LEFTOVER_MS = 500, STORE_MS = 10000 };

static struct gw_app *executor(struct gw_host *h)
{
    return h->app;
}

static void execute(void *ud, const struct gw_task *task)
{
    struct gw_host *h = ud;
    struct gw_app *app = executor(h);
    if (app != NULL)
        app->class->execute(app, task);
}

static void abort_task(void *ud, const char *id, enum gw_abort why)
{
    struct gw_app *app = executor(ud);
    if (app != NULL)
        app->class->abort_task(app, id, why);
}

static void abort_run(void *ud, struct gw_run *run, enum gw_abort why)
{
    struct gw_app *app = executor(ud);
    if (app != NULL)
        app->class->abort_run(app, run, why);
}

static void drained(void *ud)
{
    gw_drain_over(ud, true);
}

/* Trouble that may pass by itself, so that it is worth waiting for. */
static bool passes(int code)
{
    static const int lasting[] = {ENOTSUP, EISDIR, ENOTDIR, ELOOP, EACCES, EPERM};
    for (size_t i = 0; i < sizeof lasting / sizeof *lasting; i++)
        if (code == -lasting[i])
            return false;
    return true;
}

static void store_health(void *ud, int code, const struct gw_err *err)
{
    struct gw_host *h = ud;
    h->store_down = code != 0;
    h->store_err = code != 0 ? *err : (struct gw_err){0};
    h->store_err.code = code;
    if (code != 0 && !passes(code))
        gw_workload_known(h);
    if (code == 0)
        gw_log(GW_INFO, "store.recovered", NULL, "the task store can be written again; submissions are accepted");
    else
        gw_log(GW_ERROR, "store.unavailable", json_pack("{so}", "error", gw_json_string(err->text)),
               "the task store cannot be %s: %s; submissions get 503 until it can, running work goes on",
               gw_work_is_open(h->work) ? "written" : "opened", err->text);
}

/* What commands of a dead host left running must not run beside a second attempt, nor go on unseen. */
static void end_leftovers(const struct gw_task *swept, size_t n)
{
    const char **ids = gw_calloc(n + 1, sizeof *ids);
    unsigned *ended = gw_calloc(n + 1, sizeof *ended);
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        ids[count++] = swept[i].id;
    if (count > 0)
        gw_proc_end_marked(GW_TASK_MARK, ids, count, LEFTOVER_MS, ended);
    for (size_t i = 0; i < count; i++)
        if (ended[i] > 0)
            gw_log(GW_WARN, "task.leftovers", json_pack("{sssi}", "task_id", ids[i], "processes", (int)ended[i]),
                   "%u processes of task %s outlived the host that ran it; they are killed", ended[i], ids[i]);
    free(ended);
    free(ids);
}

/* Said in words that tell what to do: someone has changed the store behind the back of its owner. */
static void say_older(struct gw_host *h, const struct gw_work_opened *o)
{
    json_decref(h->store_older);
    h->store_older = json_pack("{sIsIsI}", "commits", (json_int_t)o->commits, "acknowledged", (json_int_t)o->acknowledged,
                               "acknowledged_at", (json_int_t)o->acknowledged_at_ms);
    gw_log(GW_ERROR, "store.older", json_incref(h->store_older),
           "the task store is older than what was acknowledged: it was written %lld times, %lld were acknowledged. "
           "Tasks accepted since are not in it, and may run again or never: if you have the newer tasks.db with its "
           "tasks.db-wal, stop this host and put both back", (long long)o->commits, (long long)o->acknowledged);
}

static void opened(void *ud, const struct gw_work_opened *o)
{
    struct gw_host *h = ud;
    const struct gw_lane_counts *lanes;
    size_t n = gw_work_lanes(h->work, &lanes);
    if (o->moved != NULL)
        gw_log(GW_ERROR, "store.corrupt", json_pack("{so}", "moved_to", gw_json_string(o->moved)),
               "the task store was damaged; it was moved to %s and a new one made: look there for lost tasks", o->moved);
    if (o->put_back && o->saved == NULL)
        gw_log(GW_ERROR, "store.put_back", NULL,
               "tasks.db or its log was removed under this host; it was written again, and nothing is lost: leave it alone");
    else if (o->put_back)
        gw_log(GW_ERROR, "store.put_back", json_pack("{so}", "saved_to", gw_json_string(o->saved)),
               "tasks.db was replaced under this host by another file, which is used now; what this host had is in %s: "
               "to have that again, stop this host and move it to tasks.db", o->saved);
    if (o->acknowledged > 0)
        say_older(h, o);
    for (size_t i = 0; i < n; i++)
        if (!lanes[i].configured && lanes[i].queued > 0)
            gw_log(GW_WARN, "lane.unknown",
                   json_pack("{sosI}", "lane", gw_json_string(lanes[i].name), "queued", (json_int_t)lanes[i].queued),
                   "%lld tasks wait in lane '%s', which no --lane names; they run one by one, and it takes no others: "
                   "give --lane %s=N for more", (long long)lanes[i].queued, lanes[i].name, lanes[i].name);
    end_leftovers(o->swept, o->swept_count);
    gw_workload_known(h);
}

static void let_go(void *ud, int code, const struct gw_err *err)
{
    gw_succession_let_go(ud, code, err);
}

static void refusing(void *ud, const char *lane)
{
    gw_log(GW_INFO, "lane.draining", json_pack("{so}", "lane", gw_json_string(lane)),
           "lane '%s' refuses new tasks until the drain is over", lane);
}

void gw_workload_count_refused(struct gw_host *h)
{
    const struct gw_lane_counts *lanes;
    size_t n = h->work != NULL ? gw_work_lanes(h->work, &lanes) : 0;
    for (size_t i = 0; i < n; i++)
        if (lanes[i].refused > 0)
            gw_log(GW_INFO, "lane.drained",
                   json_pack("{sosi}", "lane", gw_json_string(lanes[i].name), "refused", (int)lanes[i].refused),
                   "lane '%s' refused %u tasks during the drain", lanes[i].name, lanes[i].refused);
}

static void slow_lane(void *ud, const char *lane, int64_t waited_ms, int64_t queued)
{
    gw_log(GW_WARN, "lane.slow",
           json_pack("{sosIsI}", "lane", gw_json_string(lane), "waited_ms", (json_int_t)waited_ms, "queued",
                     (json_int_t)queued),
           "a task has waited %lld ms for lane '%s'; %lld are queued", (long long)waited_ms, lane, (long long)queued);
}

const struct gw_work_ops gw_workload = {.execute = execute,
                                        .abort_task = abort_task,
                                        .abort_run = abort_run,
                                        .changed = gw_publish_task,
                                        .drained = drained,
                                        .idle = gw_restarts_idle,
                                        .store_health = store_health,
                                        .opened = opened,
                                        .let_go = let_go,
                                        .refusing = refusing,
                                        .slow_lane = slow_lane};

static void on_deadline(struct gw_limit *limit)
{
    struct gw_host *h = limit->data;
    gw_work_tick(h->work, gw_now_ms());
    gw_workload_timer(h);
}

void gw_workload_timer(struct gw_host *h)
{
    if (h->work == NULL)
        return;
    uint64_t at = gw_work_deadline(h->work), now = gw_now_ms();
    if (at == UINT64_MAX) {
        gw_limit_stop(&h->work_limit);
        return;
    }
    gw_limit_start(&h->work_limit, on_deadline, at > now ? at - now : 0);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct gw_host *h = poll->data;
    gw_work_dispatch(h->work);
    gw_workload_timer(h);
}

int gw_workload_watch(struct gw_host *h, struct gw_err *err)
{
    uv_poll_t *poll = gw_calloc(1, sizeof *poll);
    int rc = uv_poll_init(&h->loop, poll, gw_work_fd(h->work));
    if (rc < 0) {
        free(poll);
        return gw_err_set(err, rc, "cannot watch the task store: %s", gw_strerror(rc));
    }
    poll->data = h;
    h->work_poll = poll;
    (void)uv_poll_start(poll, UV_READABLE, on_readable);
    return 0;
}

static void on_unwatched(uv_handle_t *handle)
{
    free(handle);
}

void gw_workload_unwatch(struct gw_host *h)
{
    gw_limit_stop(&h->work_limit);
    // The handle goes when the loop says so: a turn of it here would let anything happen in the middle of an effect.
    if (h->work_poll != NULL)
        uv_close((uv_handle_t *)h->work_poll, on_unwatched);
    h->work_poll = NULL;
}

// ---- its store: opened, waited for, closed ----

int gw_workload_open(struct gw_host *h, bool goes_on, struct gw_err *err)
{
    struct gw_work_config config = {.state_dir = h->options.state_dir,
                                    .boot_id = h->boot_id,
                                    .lanes = h->options.lanes,
                                    .lane_count = h->options.lane_count,
                                    .goes_on = goes_on,
                                    .newer = h->standby.went_back != NULL,
                                    .retry_after_crash = !h->safe_mode,
                                    .keep = h->options.keep,
                                    .ops = &gw_workload,
                                    .ud = h};
    if (!gw_workload_close(h)) // only where a disk has not answered since it was given up
        return gw_err_set(err, -EBUSY, "the disk of the task store does not answer: what was written last is not done");
    h->store_err = (struct gw_err){0};
    h->store_down = false;
    int rc = gw_work_open(&config, &h->work, err);
    if (rc < 0)
        return rc;
    h->env.work = h->work;
    rc = gw_workload_watch(h, err);
    if (rc < 0)
        (void)gw_workload_close(h);
    return rc;
}

static void on_store_timer(uv_timer_t *timer)
{
    struct gw_host *h = timer->data;
    gw_workload_cb *then = h->store_then;
    struct gw_err err = h->store_err;
    h->store_then = NULL;
    if (then == NULL || h->state == GW_EXITED)
        return;
    if (gw_work_is_open(h->work))
        err.code = 0;
    else if (err.code == 0)
        (void)gw_err_set(&err, -ETIMEDOUT, "the task store was not opened in time: its disk is slow, or does not answer");
    then(h, &err);
}

void gw_workload_await(struct gw_host *h, uint64_t max_ms, gw_workload_cb *then)
{
    const struct gw_err none = {0};
    if (gw_work_is_open(h->work)) {
        then(h, &none);
        return;
    }
    h->store_then = then;
    uv_update_time(&h->loop);
    (void)uv_timer_start(&h->lock_timer, on_store_timer, max_ms, 0);
}

void gw_workload_known(struct gw_host *h)
{
    // Not from within the dispatch that has told it: what goes on may do anything.
    if (h->store_then != NULL)
        (void)uv_timer_start(&h->lock_timer, on_store_timer, 0, 0);
}

bool gw_workload_close(struct gw_host *h)
{
    if (h->work == NULL)
        return true;
    gw_workload_unwatch(h);
    h->env.work = NULL;
    h->work = gw_work_close(h->work, STORE_MS, false);
    return h->work == NULL;
}
