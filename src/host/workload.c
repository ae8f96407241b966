/* workload.c - work/ on this loop: its descriptor, its one timer, and its callbacks to the application. */
#include "host/inside.h"

#include "os/proc.h"

#include <stdlib.h>
#include <string.h>

enum { LEFTOVER_MS = 500 };

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

static void store_health(void *ud, int code, const struct gw_err *err)
{
    struct gw_host *h = ud;
    h->store_down = code != 0;
    if (code == 0)
        gw_log(GW_INFO, "store.recovered", NULL, "the task store can be written again; submissions are accepted");
    else
        gw_log(GW_ERROR, "store.unavailable", json_pack("{so}", "error", gw_json_string(err->text)),
               "the task store cannot be written; submissions get 503 until it can, running work goes on");
}

/* What a dead host's command left running must not run beside a second attempt, nor go on unseen. */
static void end_leftovers(struct gw_host *h, const struct gw_task *task)
{
    bool again = task->status == GW_TASK_QUEUED && task->attempts > 0;
    // Only commands carry their task's id; a look through /proc for each of the others would cost a start dearly.
    if ((task->status != GW_TASK_LOST && !again) || strcmp(task->handler, "exec") != 0)
        return;
    if (again && task->boot_id != NULL && strcmp(task->boot_id, h->boot_id) == 0)
        return; // our own: it has been ended
    char entry[64];
    (void)snprintf(entry, sizeof entry, "GWHOST_TASK_ID=%s", task->id);
    unsigned n = gw_proc_end_marked(entry, LEFTOVER_MS);
    if (n > 0)
        gw_log(GW_WARN, "task.leftovers", json_pack("{sssi}", "task_id", task->id, "processes", (int)n),
               "%u processes of task %s outlived the host that ran it; they are killed", n, task->id);
}

static void changed(void *ud, const struct gw_task *task)
{
    end_leftovers(ud, task);
    gw_publish_task(ud, task);
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
                                        .changed = changed,
                                        .drained = drained,
                                        .idle = gw_restarts_idle,
                                        .store_health = store_health,
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
