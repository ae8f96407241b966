/* work.h - lanes, tasks and runs: what the host has accepted and what became of it.
 *
 * SQLite is the only truth. A task is accepted once its row is committed, executes only after its `running`
 * row is committed, and its end is visible only after that commit. One store thread (thread 3) is the only
 * caller of sqlite3; this header is for the loop thread. Nothing here knows libuv: the store thread makes
 * gw_work_fd() readable, the owner then calls gw_work_dispatch(), and arms one timer for
 * gw_work_deadline(). All callbacks are called from gw_work_dispatch() or gw_work_tick(), never from
 * within another function of this header. A callback may call anything here but gw_work_dispatch(),
 * gw_work_start(), gw_work_boundary() and gw_work_close(). */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gw_err;
struct gw_work;
struct gw_run; /* work inside the process that is not stored */

/* the order is stored: only append */
enum gw_task_status {
    GW_TASK_QUEUED,
    GW_TASK_RUNNING,
    GW_TASK_SUCCEEDED, /* this and later ones are final */
    GW_TASK_FAILED,
    GW_TASK_TIMED_OUT,
    GW_TASK_CANCELLED,
    GW_TASK_INTERRUPTED,
    GW_TASK_LOST,
};
const char *gw_task_status_name(enum gw_task_status s);
bool gw_task_status_parse(const char *name, enum gw_task_status *ret);
static inline bool gw_task_status_final(enum gw_task_status s)
{
    return s >= GW_TASK_SUCCEEDED;
}

enum gw_priority { GW_PRIORITY_HIGH, GW_PRIORITY_NORMAL, GW_PRIORITY_LOW };

/* A task as it is in the store. Strings are owned by the struct; ids are time-ordered. */
struct gw_task {
    char id[40];
    char *handler, *lane, *label, *title; /* label, title may be NULL */
    enum gw_priority priority;
    enum gw_task_status status;
    json_t *input;      /* NULL when none was given; lists and changes come without it */
    int64_t timeout_ms; /* 0: none */
    bool retry_on_crash, retry_on_interrupt;
    int64_t created_at, started_at, ended_at; /* Unix ms; 0: not yet */
    int attempts;
    char *boot_id, *ended_by_boot_id; /* of the last start / of the end; NULL: not yet */
    char *progress;                   /* last text reported, or NULL */
    json_t *result;                   /* any JSON that the executor gave; at most 64 KiB of text, or NULL */
    char *error;                      /* NULL unless it ended otherwise */
    int64_t bytes;                    /* of input, result and error, in the store */
};
void gw_task_fini(struct gw_task *t);
/* The object of GET /v1/tasks/ID (contract, section 7). */
json_t *gw_task_json(const struct gw_task *t);

/* What a submitter asks for; all borrowed. NULL, 0 and false are the defaults. */
struct gw_task_spec {
    const char *handler; /* required */
    const char *lane;    /* NULL: "main" */
    const char *label, *title;
    enum gw_priority priority;
    const json_t *input;
    int64_t timeout_ms;
    bool retry_on_crash, retry_on_interrupt;
    const char *idempotency_key; /* NULL: none */
    const char *body_sha256;     /* hex, goes with the key */
};

/* A lane as configured. */
struct gw_lane_spec {
    char *name;
    unsigned concurrency; /* 0 pauses */
    int64_t queue_limit;  /* < 0: none */
};

/* why the executor is told to end a piece of work */
enum gw_abort {
    GW_ABORT_CANCEL,
    GW_ABORT_TIMEOUT,
    GW_ABORT_COMPACTING, /* compacting runs, at the start of a drain */
    GW_ABORT_DRAIN,      /* the budget ran out; tasks are already marked interrupted */
};
const char *gw_abort_name(enum gw_abort why); /* "cancel", "timeout", "compacting", "drain" */

/* What an opening found wrong; all borrowed. */
struct gw_work_opened {
    const char *moved;  /* the file was damaged: it has this name now, and a new one was made */
    bool put_back;      /* its name led elsewhere: it was put back, … */
    const char *saved;  /* … or, where another file had that name by now, has this one */
    const struct gw_task *swept; /* what was running; told by changed, too */
    size_t swept_count;
    int64_t commits, acknowledged, acknowledged_at_ms; /* fewer than were acknowledged; all 0: it is not so */
};

/* How long tasks that have ended are kept; 0: no limit. */
struct gw_retention {
    int64_t ms, rows, bytes; /* age; how many; of their texts */
};
#define GW_RETENTION "7d,100000,1GiB"
/* Reads words such as these, in any order; what is not named is no limit. False when they are no such words. */
bool gw_retention_parse(const char *words, struct gw_retention *ret);

struct gw_work_ops {
    /* Execute task now: its running row is committed. The executor ends it with gw_task_finish(). */
    void (*execute)(void *ud, const struct gw_task *task);
    /* End this task's execution. gw_task_finish() is still called by the executor once it has ended. */
    void (*abort_task)(void *ud, const char *id, enum gw_abort why);
    void (*abort_run)(void *ud, struct gw_run *run, enum gw_abort why);
    /* A task changed durably (status) or reported progress. Those that gw_work_open() found running and ended
     * or queued again are told from the first dispatch. May be NULL, like store_health and slow_lane. */
    void (*changed)(void *ud, const struct gw_task *task);
    /* The drain's set is empty: nothing captured is running. Once per gw_work_fence(). */
    void (*drained)(void *ud);
    /* Nothing is pending (no running task, no run), after gw_work_watch_idle(). Once per call of it. Nothing
     * queued starts before the next dispatch, so that whoever waited for this moment can fence in it;
     * watching again from here would only spin. */
    void (*idle)(void *ud);
    /* The store cannot be opened or written, or can again (code 0, err NULL). Told on change only. Meanwhile
     * submits get -EIO, nothing new starts, running work goes on; ends are kept in memory, hold their slot, and
     * are written first when the store is well. It is tried again soon, then later each time, up to 1 s; for good
     * is -ENOTSUP: the file is a newer program's. */
    void (*store_health)(void *ud, int code, const struct gw_err *err);
    /* The store has been opened: from the first dispatch after that. */
    void (*opened)(void *ud, const struct gw_work_opened *opened);
    /* After gw_work_let_go(): code 0: nobody here has the store any more. Else it could not be written, for err, and
     * goes on here. */
    void (*let_go)(void *ud, int code, const struct gw_err *err);
    /* The first submission to this lane since the fence was refused; gw_lane_counts has how many in the end. */
    void (*refusing)(void *ud, const char *lane);
    /* A task has waited longer than 2 s for its lane. */
    void (*slow_lane)(void *ud, const char *lane, int64_t waited_ms, int64_t queued);
};

struct gw_work_config {
    const char *state_dir; /* tasks.db lives there */
    const char *boot_id;
    const struct gw_lane_spec *lanes;
    size_t lane_count;              /* "main" is added with concurrency 4 when absent */
    bool goes_on;                   /* the process before has closed the store for us: it is not looked through */
    bool newer;                     /* a store that a later version has brought up to date is used as it is */
    bool retry_after_crash;         /* false in safe mode: what ran when a boot died is not tried again */
    struct gw_retention keep;
    const struct gw_work_ops *ops;
    void *ud;
};

/* A successor that stands by must not call this before it is told to go: it migrates and recovers.
 * Asks the store thread to open or make the store and to recover what a dead boot left (running rows of another boot
 * become lost or queued again; those of config's own boot become interrupted or queued again). ops->opened follows
 * when it has, and may be waited for; until then the store is as if it could not be written, and ops->store_health
 * tells why when a first try has failed. A corrupt file is moved aside, never deleted. A lane that tasks wait in but
 * that is not configured any more takes nothing, and runs what it has one by one. Nothing executes before
 * gw_work_start(). Returns 0, -EINVAL (lanes), -EMFILE. */
int gw_work_open(const struct gw_work_config *config, struct gw_work **ret_work, struct gw_err *err);
/* Waits for what is queued for the store, at most max_ms, and frees. Callbacks that are still due are not
 * called. goes_on: another process opens the store at once, so nothing is tidied up, for which the disk would be
 * waited for. NULL is fine. Returns NULL, or w when the store thread is still at work: then the store is nobody
 * else's, and all that may be done with w is to call this again. */
struct gw_work *gw_work_close(struct gw_work *w, unsigned max_ms, bool goes_on);
/* Between a boundary and the next start: all that is queued for the store is written and it is closed, for another
 * process; ops->let_go follows. */
void gw_work_let_go(struct gw_work *w);
/* … and now it is not for another process, whether it has been let go or not: it is opened again. */
void gw_work_take_back(struct gw_work *w);
bool gw_work_is_open(const struct gw_work *w); /* as far as it was told */
void gw_work_tidy(struct gw_work *w); /* some time before keeps what letting go has to do small */

int gw_work_fd(const struct gw_work *w); /* an eventfd, readable when dispatch has something to do */
void gw_work_dispatch(struct gw_work *w);
uint64_t gw_work_deadline(const struct gw_work *w); /* monotonic ms of the next time-out, UINT64_MAX: none */
void gw_work_tick(struct gw_work *w, uint64_t now_ms);

/* ---- generations ---- */
/* Generation n serves: lanes start tasks, submissions are accepted, the fence is gone. */
void gw_work_start(struct gw_work *w, unsigned generation);
/* Between two generations: slots held by the old one's work are freed, its running rows become interrupted
 * (or queued again), its runs are forgotten; a task whose start was still on its way to the store was never
 * executed: it is queued again and the attempt does not count. Until gw_work_start() submits are answered as
 * behind the fence. Tasks are read again from the store when gw_work_start() is called. Executors' late
 * gw_task_finish() of the old generation count for nothing. */
void gw_work_boundary(struct gw_work *w);

/* ---- tasks ---- */
/* The API's name of a negative code that this header's callbacks are given: "draining", "busy" … */
const char *gw_work_error_name(int code);
/* What to tell whoever asked: err's words, else those of code. */
const char *gw_work_error_words(int code, const struct gw_err *err);

/* Called with code 0 and the accepted task once it is durable (existing is true when an idempotency key
 * named an earlier one), or with -EINVAL (unknown lane, bad field), -EBUSY (queue limit), -ESHUTDOWN (fence),
 * -EEXIST (key used for another body), -EIO (store unavailable: not accepted), -EINPROGRESS (the same, but what became
 * of it is not known). A key that names an earlier task is answered
 * with it also behind the fence and when the queue is full. What a free slot takes at once does not count
 * against the queue limit. The task (NULL unless code is 0) is borrowed for the call. */
typedef void gw_submit_cb(void *ud, int code, const struct gw_task *task, bool existing,
                          const struct gw_err *err);
void gw_task_submit(struct gw_work *w, const struct gw_task_spec *spec, gw_submit_cb *cb, void *ud);

/* Ends the execution of a running task. generation is the one that executed it. result is borrowed (may be
 * NULL), error is for people. status is GW_TASK_SUCCEEDED or GW_TASK_FAILED; a task that was told to end by
 * cancel or timeout gets that status instead. An executor that has not called this 10 s after it was told to
 * end a task does not hold it up longer: it ends as it was told, without a result, and no drain waits for it;
 * its slot stays held until the call does come (-ENOENT) or the boundary. A result over 64 KiB is replaced by
 * {"truncated":true,"bytes":N,"head":TEXT}. Returns 0, -ENOENT when no such task is running in that
 * generation. */
int gw_task_finish(struct gw_work *w, const char *id, unsigned generation, enum gw_task_status status,
                   const json_t *result, const char *error);
int gw_task_progress(struct gw_work *w, const char *id, unsigned generation, const char *text);

/* One task, or NULL with -ENOENT, -EIO or -EINPROGRESS. */
typedef void gw_task_cb(void *ud, int code, const struct gw_task *task, const struct gw_err *err);
void gw_task_get(struct gw_work *w, const char *id, gw_task_cb *cb, void *ud);
/* Queued: cancelled at once; running: told to end. code 0 with the task as it then is, -ENOENT, -EIO, or
 * -EALREADY with the task, when it is final or about to be. */
void gw_task_cancel(struct gw_work *w, const char *id, gw_task_cb *cb, void *ud);

struct gw_task_filter {
    int status;        /* -1: any */
    unsigned limit;    /* 1..1000, 0: 100 */
    const char *after; /* id, or NULL */
};
/* Oldest first; next is the id to go on after, or NULL. code: 0, -EINVAL (after is no id), -EIO. A page may
 * end early when it has become large. */
typedef void gw_tasks_cb(void *ud, int code, const struct gw_task *tasks, size_t n, const char *next,
                         const struct gw_err *err);
void gw_task_list(struct gw_work *w, const struct gw_task_filter *filter, gw_tasks_cb *cb, void *ud);

/* ---- runs ---- */
struct gw_run_spec {
    const char *handler, *label, *title; /* borrowed; label, title may be NULL */
    bool compacting;
};
/* *ret_run is valid until gw_run_end() or gw_work_boundary(). Returns 0 or -ESHUTDOWN behind the fence.
 * O(1), and so is gw_run_end(). */
int gw_run_begin(struct gw_work *w, const struct gw_run_spec *spec, struct gw_run **ret_run);
void gw_run_end(struct gw_work *w, struct gw_run *run);
void gw_run_set_compacting(struct gw_run *run, bool compacting);
void gw_run_set_progress(struct gw_run *run, const char *text);
void gw_run_set_data(struct gw_run *run, void *data); /* the executor's own */
void *gw_run_data(const struct gw_run *run);
const char *gw_run_id(const struct gw_run *run);

/* ---- drain ---- */
/* Refuses new work (-ESHUTDOWN; with accept_queue tasks are still accepted, durably, for the next
 * generation), starts nothing queued, captures running tasks and runs. A task whose start is on its way to
 * the store belongs to them: it will be executed. ops->drained follows when none of them is left, at once if
 * there are none (from dispatch). */
void gw_work_fence(struct gw_work *w, bool accept_queue);
/* Whether what has ended but waits for a store that is ill does not hold up ops->drained: true where this process goes
 * on, which keeps those ends. */
void gw_work_keep_ends(struct gw_work *w, bool keep);
/* Tells compacting runs to end; returns how many there are. */
unsigned gw_work_abort_compacting(struct gw_work *w);
/* Marks what still runs (of lane, or of all lanes when NULL; runs only when lane is NULL) interrupted,
 * durably (waits at most 1,000 ms for the store), then, from the next dispatch, tells the executor to abort
 * it; ops->drained follows without waiting for the executor when nothing else is captured. What was never
 * executed is queued again and not told; what had finished already stays as it ended. Slots are held until
 * gw_task_finish() (which returns -ENOENT) or the boundary. ret_ counts what was cut; may be NULL. */
void gw_work_cut(struct gw_work *w, const char *lane, unsigned *ret_tasks, unsigned *ret_runs);
/* Whoever asks for a restart from within a task or run (its id) is not waited for by it: it does not hold up
 * ops->drained or ops->idle, and is no blocker. False when no such work is running. */
bool gw_work_excuse(struct gw_work *w, const char *id);
void gw_work_unexcuse(struct gw_work *w); /* the request has come to nothing: all count again */
/* Calls ops->idle once nothing is pending; from dispatch if that is so now. */
void gw_work_watch_idle(struct gw_work *w);
void gw_work_unwatch_idle(struct gw_work *w);

struct gw_lane_counts {
    const char *name;
    unsigned active, concurrency;
    unsigned refused; /* submissions since the last fence, because of it */
    int64_t queued;
    bool configured; /* false: only there for the tasks that wait in it */
};
struct gw_work_counts {
    unsigned tasks, runs; /* running */
    unsigned excused_tasks, excused_runs; /* of these, those that a restart does not wait for */
    int64_t queued;
    uint64_t submitted, finished;
    unsigned unwritten; /* ends that wait for the store */
    int64_t store_bytes, store_log_bytes;
};
struct gw_work_counts gw_work_counts(const struct gw_work *w);
size_t gw_work_lanes(const struct gw_work *w, const struct gw_lane_counts **ret_lanes);

/* What blocks, running tasks first, at most max; oldest first within a kind. Touches only these. Strings
 * are borrowed until the next call into work. Returns how many were written; *ret_total how many there are.
 */
struct gw_blocker {
    const char *id, *kind, *status, *runtime, *lane, *run_id, *label, *title, *progress; /* NULL: absent */
    int64_t age_ms;
};
size_t gw_work_blockers(struct gw_work *w, struct gw_blocker *blockers, size_t max, size_t *ret_total);
