/* rig.h - a loop of its own around work/: poll, dispatch, tick; and a record of what was called back. */
#pragma once

#include "base/err.h"
#include "work/work.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// Behind what it needs, and asks for.
#include <cmocka.h>

#define RIG_MAX 4096

struct rig_id {
    char id[40];
};

struct rig {
    char dir[64];
    char boot_id[64];
    struct gw_work *w;
    char *moved, *saved; /* of the last opening, owned */
    struct gw_work_opened found;
    struct gw_err err;
    unsigned generation;
    struct gw_lane_spec lanes[8];
    size_t lane_count;
    bool retry_after_crash;
    bool goes_on; /* the store is closed and opened as by a host and its successor */
    struct gw_retention keep;
    bool newer;

    bool finish_at_once;  /* the executor ends each task as it gets it */
    bool finish_on_abort; /* … or when it is told to */
    bool in_api;          /* within a call of work.h other than dispatch and tick: no callback may come */

    struct rig_id executed[RIG_MAX], aborted[RIG_MAX];
    enum gw_abort abort_why[RIG_MAX];
    size_t executed_n, aborted_n;
    json_t *last_input;
    struct gw_run *aborted_runs[64];
    size_t aborted_runs_n;
    struct {
        char id[40];
        enum gw_task_status status;
        char progress[64];
    } changed[4 * RIG_MAX];
    size_t changed_n;
    unsigned drained_n, idle_n, health_n, slow_n, opened_n, let_go_n;
    int let_go_code;
    int health_code;
    char slow_lane[32];
    int64_t slow_waited_ms, slow_queued;
    bool fence_on_idle;
    uint64_t dispatches;
};

/* What a submit, get, cancel or list came to. */
struct rig_reply {
    bool done, existing;
    int code;
    char id[40];
    enum gw_task_status status;
    json_t *task; /* gw_task_json, or NULL */
    size_t n;
    struct rig_id ids[1024];
    char next[40];
    struct gw_err err;
};

/* A new folder, not open yet. */
void rig_init(struct rig *r);
void rig_fini(struct rig *r);                     /* closes; removes the folder */
int rig_open(struct rig *r, const char *boot_id); /* 0, or why it was not opened at once: then it is closed again */
void rig_ask_open(struct rig *r, const char *boot_id); /* does not wait for it */
void rig_start(struct rig *r, unsigned generation);
void rig_close(struct rig *r);
/* Opens as boot 1 and starts generation 1 with lane main of that concurrency. */
void rig_up(struct rig *r, unsigned concurrency);

/* One round of the loop, waiting at most max_ms. False when nothing happened. */
bool rig_turn(struct rig *r, int max_ms);
#define rig_until(r, cond)                                                                                   \
    do {                                                                                                     \
        uint64_t rig_end = rig_now() + 20000;                                                                \
        while (!(cond)) {                                                                                    \
            if (rig_now() > rig_end)                                                                         \
                fail_msg("waited 20 s for: %s", #cond);                                                      \
            (void)rig_turn((r), 100);                                                                        \
        }                                                                                                    \
    } while (0)
uint64_t rig_now(void);
/* Rounds until the store has answered everything that was asked before. */
void rig_settle(struct rig *r);

void rig_submit_later(struct rig *r, const struct gw_task_spec *spec, struct rig_reply *reply);
/* Submits and waits; the id, in a buffer that lives until the test ends. */
const char *rig_submit(struct rig *r, const struct gw_task_spec *spec);
int rig_submit_code(struct rig *r, const struct gw_task_spec *spec);
const char *rig_submit_echo(struct rig *r); /* handler "echo", lane main */
void rig_reply_fini(struct rig_reply *reply);
struct rig_reply rig_get(struct rig *r, const char *id);
struct rig_reply rig_cancel(struct rig *r, const char *id);
void rig_list(struct rig *r, int status, unsigned limit, const char *after, struct rig_reply *reply);
enum gw_task_status rig_status(struct rig *r, const char *id); /* fails when there is none */
int rig_finish(struct rig *r, const char *id, enum gw_task_status status, const char *result_json);
bool rig_was_executed(const struct rig *r, const char *id);
size_t rig_times_changed(const struct rig *r, const char *id, enum gw_task_status status);
/* Changes tasks.db behind the back of a closed work/. */
void rig_sql(const struct rig *r, const char *sql);
/* A number out of tasks.db, read beside a work/ that is open. */
int64_t rig_count(const struct rig *r, const char *sql);
char *rig_path(const struct rig *r, const char *name); /* caller frees */

/* A process that holds the store's write lock until it is told to drop it. */
struct rig_holder {
    pid_t pid;
    int to, from;
};
struct rig_holder rig_hold_lock(const struct rig *r);
void rig_drop_lock(struct rig_holder *h);
