/* inside.h - what the files of work/ share behind work.h. All of it belongs to the loop thread. */
#pragma once

#include "work/link.h"
#include "work/store.h"

#define GW_LANE_WINDOW 256 /* queued tasks of a lane that are in memory; the rest waits in the store */

/* A lane. Its window is the beginning of its queue as the store has it, in the order in which tasks start. */
struct gw_lane {
    char *name; /* owned */
    unsigned concurrency;
    int64_t queue_limit;
    bool configured;    /* false: only here because tasks of it wait in the store; takes none */
    unsigned active;    /* slots held */
    unsigned starting;  /* of these, whose running row is not committed yet */
    int64_t queued;     /* queued in the store, less those starting */
    unsigned refused;   /* submissions since the fence */
    int64_t submitting; /* handed to the store, not answered yet */
    struct gw_waiting window[GW_LANE_WINDOW];
    size_t waiting;
    bool more;  /* the store may have queued tasks behind the window */
    bool stale; /* window and count must be read again */
    bool loading;
    uint64_t slow_at_ms,
        warned_ms; /* when to look for a task that waits too long, 0: not armed; last warning */
};

enum gw_live_state {
    GW_LIVE_STARTING,  /* its running row is being committed */
    GW_LIVE_RUNNING,   /* executing */
    GW_LIVE_FINISHING, /* its end is being committed */
    GW_LIVE_GONE,      /* has ended or been cut, but the slot is held until the executor is done */
};

/* A task that holds a slot of its lane. */
struct gw_live {
    struct gw_link all;      /* of work->live, or work->gone once it no longer counts */
    struct gw_link news;     /* of work->news: progress to be announced */
    struct gw_link unstored; /* of work->unstored: progress to be written with the next commit */
    struct gw_link aborts;   /* of work->task_aborts: the executor is to be told */
    struct gw_live *chain;   /* in the table of ids */
    struct gw_task task;     /* as it was started, without input; only the id while starting */
    struct gw_lane *lane;    /* borrowed */
    enum gw_live_state state;
    unsigned generation;
    uint64_t started_ms, deadline_ms;
    size_t heap_at;             /* place among the deadlines, from 1; 0: has none */
    bool executing;             /* the executor has it and has not called gw_task_finish() */
    bool excused;               /* asked for the restart itself: not waited for */
    bool unstart;               /* cut before it was executed: goes back to the queue */
    enum gw_task_status end_as; /* told to end: what it will have been; GW_TASK_QUEUED: not told */
    enum gw_abort abort_why;
};

struct gw_run {
    struct gw_link all;    /* of work->runs, or work->cut_runs */
    struct gw_link aborts; /* of work->run_aborts */
    struct gw_work *work;  /* borrowed */
    char id[40];
    char *handler, *label, *title, *progress; /* owned */
    uint64_t started_ms;
    bool compacting, cut, excused;
    enum gw_abort abort_why;
    void *data; /* the executor's */
};

struct gw_work {
    char *boot_id; /* owned */
    struct gw_work_ops ops;
    void *ud;
    struct gw_store *store; /* owned */
    unsigned generation;
    bool dispatching;
    bool hold; /* idle was just told: nothing starts until the next dispatch */

    struct gw_lane **lanes; /* owned, in the order of the configuration */
    size_t lane_count;
    struct gw_lane_counts *lane_counts;
    uint64_t open_since_ms; /* waiting is counted from here at the earliest */

    struct gw_link live, gone, news, unstored, task_aborts;
    unsigned excused_tasks, excused_runs; /* of running and run_count */
    unsigned running;       /* length of live: what a drain waits for */
    struct gw_live **table; /* live and gone by id */
    size_t table_size, table_used;
    struct gw_live **heap; /* those with a deadline, the next one first */
    size_t heap_used, heap_cap;

    struct gw_link runs, cut_runs, run_aborts;
    unsigned run_count; /* length of runs */

    bool fenced, accept_queue, keep_ends, drain_watch, idle_watch;

    struct gw_ops staged; /* for the store, pushed together at the end of a dispatch */
    struct gw_ops local;  /* answered without the store */
    bool sick;            /* the store cannot be written, or is not open */
    bool down;            /* … and that has been told */
    bool open;
    bool opened;          /* it has been: ids go on behind those that it has */
    bool handed, letting_go; /* the store is for another process; and is not let go yet */
    unsigned unwritten;
    int64_t store_bytes, store_log_bytes;
    uint64_t probe_at_ms, probe_wait_ms;

    uint64_t last_seq; /* the number in the last id */
    char id_suffix[9];
    uint64_t submitted, finished;
};

/* ---- work.c ---- */
/* Hands op to the store: at once, or with others at the end of the dispatch that is going on. */
void gw_work_post(struct gw_work *w, struct gw_op *op);
/* Hands over everything staged; returns the number of the last op. */
uint64_t gw_work_flush(struct gw_work *w);
/* Asks for a dispatch; the one that is going on sees to it by itself. */
void gw_work_wake(struct gw_work *w);
/* Answers op from the next dispatch, without the store. */
void gw_work_refuse(struct gw_work *w, struct gw_op *op);
/* A new id that sorts behind all others, also those of earlier boots and of a clock that went back. */
void gw_work_make_id(struct gw_work *w, char kind, char ret_id[40]);
void gw_work_tell_changed(struct gw_work *w, const struct gw_task *t);

/* ---- lane.c ---- */
struct gw_lane *gw_lane_new(const char *name, unsigned concurrency, int64_t queue_limit, bool configured);
void gw_lane_free(struct gw_lane *l);
struct gw_lane *gw_lane_find(struct gw_work *w, const char *name); /* NULL: none of that name */
bool gw_lane_full(const struct gw_lane *l);
/* A task is now queued in the store: it counts, and enters the window if it belongs there. */
void gw_lane_queue(struct gw_lane *l, const struct gw_waiting *t);
/* A queued task was cancelled. */
void gw_lane_forget(struct gw_lane *l, const char *id);
/* Starts what may start, reads on, arms the look for slow tasks. */
void gw_lane_pump(struct gw_work *w, struct gw_lane *l);
void gw_lane_loaded(struct gw_work *w, struct gw_op *op);
/* Warns of a task that has waited too long. */
void gw_lane_tick(struct gw_work *w, struct gw_lane *l, uint64_t now_ms);

/* ---- live.c ---- */
struct gw_live *gw_live_find(struct gw_work *w, const char *id);
void gw_live_start(struct gw_work *w, struct gw_lane *l, const char *id);
void gw_live_started(struct gw_work *w, struct gw_op *op);
void gw_live_finished(struct gw_work *w, struct gw_op *op);
/* It no longer counts as running, but keeps its slot. */
void gw_live_leave(struct gw_work *w, struct gw_live *t);
/* Frees it and its slot. */
void gw_live_release(struct gw_work *w, struct gw_live *t);
/* Tells the executor, from the next dispatch. */
void gw_live_abort(struct gw_work *w, struct gw_live *t, enum gw_abort why);
/* The executor is to end it by itself; after a grace it is ended without it. */
void gw_live_end_as(struct gw_work *w, struct gw_live *t, enum gw_task_status status, uint64_t now_ms);
void gw_live_tick(struct gw_work *w, uint64_t now_ms);
void gw_live_news(struct gw_work *w);                               /* announces progress */
void gw_live_store_progress(struct gw_work *w, struct gw_ops *ops); /* adds ops for what is not stored yet */

/* ---- deadline.c: live tasks by deadline ---- */
void gw_deadline_set(struct gw_work *w, struct gw_live *t, uint64_t at_ms);
void gw_deadline_clear(struct gw_work *w, struct gw_live *t);

/* ---- request.c ---- */
void gw_request_answered(struct gw_work *w, struct gw_op *op);

/* ---- run.c ---- */
void gw_run_free_all(struct gw_work *w);

/* ---- drain.c ---- */
void gw_drain_cut_done(struct gw_work *w, struct gw_op *op);
void gw_drain_tell_aborts(struct gw_work *w);
/* Calls drained and idle when it is time. */
void gw_drain_look(struct gw_work *w);

/* ---- task.c ---- */
void gw_task_copy(struct gw_task *to, const struct gw_task *from); /* all but input and result */
/* The text of result as it may be stored, and the same as a value; NULL gives NULL. */
char *gw_task_bound_result(const json_t *result, json_t **ret_value);
/* Valid UTF-8 of at most max bytes; NULL gives NULL. */
char *gw_task_bound_text(const char *text, size_t max);
