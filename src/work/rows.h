/* rows.h - tasks.db as tasks: the schema and every statement about it. Belongs to the store thread.
 *
 * Migrations only add, so that a program that a failed update goes back to works on the file as the newer one left it.
 * Functions return 0 or the negative errno of db.h for a store that failed; what a statement found (no such row, a key
 * used twice) goes out through ret_ parameters. Writes belong between gw_rows_begin() and gw_rows_commit(). */
#pragma once

#include "work/work.h"

struct gw_rows;

/* Opens dir's tasks.db as it is; reads, writes nothing but sqlite's own log files. One that was not closed is
 * looked through, unless that was planned (goes_on). -EUCLEAN, from here or from what follows: it is damaged, or no database. */
int gw_rows_open(const char *dir, bool goes_on, struct gw_rows **ret_rows, struct gw_err *err);
/* Gives a damaged file, with its log, another name; *ret_moved is that (caller frees). It must be closed. */
int gw_rows_move_aside(const char *dir, char **ret_moved, struct gw_err *err);
/* What the file says is less than what was acknowledged. All 0: it is not. */
struct gw_older {
    int64_t commits, acknowledged; /* as many times it was written, and was said to have been */
    int64_t at_ms;                 /* the last of these */
};
/* Brings the schema up to date and prepares the statements. The first step that writes. newer: a schema that this
 * program does not know is taken as it is, else -ENOTSUP. *ret_older is left alone where nothing is missing. */
int gw_rows_adopt(struct gw_rows *r, bool newer, struct gw_older *ret_older, struct gw_err *err);
void gw_rows_close(struct gw_rows *r, bool goes_on); /* NULL is fine; goes_on: the next process opens it at once */
void gw_rows_tidy(struct gw_rows *r); /* so that the next one finds little in the log */

int gw_rows_begin(struct gw_rows *r, struct gw_err *err);
int gw_rows_commit(struct gw_rows *r, struct gw_err *err);
bool gw_rows_unsynced(const struct gw_rows *r); /* the commit that failed is whole in the log */
void gw_rows_rollback(struct gw_rows *r);
/* A commit of its own with nothing in it, to find out whether the store can be written. */
int gw_rows_probe(struct gw_rows *r, struct gw_err *err);

/* The names of file and log, to be compared from now on. */
void gw_rows_remember(struct gw_rows *r);
bool gw_rows_reachable(const struct gw_rows *r); /* they still lead to what is open; two stat(2) */
struct gw_lost_name {
    char *saved; /* owned; where what was open here is now, beside another file that has its name; NULL: in its place */
    bool known;
};
/* They do not: what is open is written to its name again or, where another file has that by now, beside it. Closes
 * *io_rows (then NULL), whose name can then be opened. On failure it stays open as it is, unless it is NULL. */
int gw_rows_put_back(struct gw_rows **io_rows, struct gw_lost_name *ret, struct gw_err *err);
/* What goes into the file with each commit from now on; and what was found in it. See retain.h. */
void gw_rows_clock(struct gw_rows *r, int64_t clock_ms);
int64_t gw_rows_clock_before(const struct gw_rows *r);
void gw_rows_sizes(const struct gw_rows *r, int64_t *ret_file, int64_t *ret_log);

/* ---- one task ---- */
/* The number in a task's id, which orders tasks; false when it is no id of ours. In task.c. */
bool gw_task_id_seq(const char *id, int64_t *ret_seq);
int gw_rows_insert(struct gw_rows *r, const struct gw_task *t, const char *input, const char *key,
                   const char *body_sha256, struct gw_err *err);
/* The task that key named at or after since_ms; *ret_found is false when there is none. *ret_same: by the same
 * body. Of one whose row is gone only id, status and time are known. */
int gw_rows_find_key(struct gw_rows *r, const char *key, const char *body_sha256, int64_t since_ms,
                     struct gw_task *ret_task, bool *ret_found, bool *ret_same, struct gw_err *err);
/* Fills ret_task, which must be zeroed or finished; its input only with with_input. */
int gw_rows_get(struct gw_rows *r, const char *id, bool with_input, struct gw_task *ret_task, bool *ret_found,
                struct gw_err *err);

/* Each changes the row only out of the state named, which is what makes an end the only one. */
struct gw_owner {
    const char *boot_id;
    unsigned generation;
};
int gw_rows_start(struct gw_rows *r, const char *id, const struct gw_owner *by, int64_t now_ms,
                  bool *ret_changed, struct gw_err *err); /* queued → running */
int gw_rows_unstart(struct gw_rows *r, const char *id, const struct gw_owner *by, bool *ret_changed,
                    struct gw_err *err); /* running → queued, as if it had never been started */
int gw_rows_finish(struct gw_rows *r, const struct gw_task *end, const char *result,
                   const struct gw_owner *by, bool *ret_changed,
                   struct gw_err *err); /* running → end->status */
int gw_rows_cancel(struct gw_rows *r, const char *id, const char *boot_id, int64_t now_ms, bool *ret_changed,
                   struct gw_err *err); /* queued → cancelled */
int gw_rows_progress(struct gw_rows *r, const char *id, const char *boot_id, const char *text,
                     struct gw_err *err);
/* running by boot_id → interrupted, or queued again where the submitter said so and it has attempts left. */
int gw_rows_interrupt(struct gw_rows *r, const char *id, const char *boot_id, int64_t now_ms,
                      bool *ret_changed, struct gw_err *err);

/* ---- many ---- */
struct gw_sweep {
    const char *boot_id; /* ours */
    unsigned generation; /* of ours, running rows up to this one are swept */
    bool others;         /* and all of other boots: who opens the file knows that they are dead */
    bool retry_after_crash;
    int64_t now_ms;
};
/* Ends all running rows that nobody can be executing: of another boot (lost), or of an older generation of
 * ours (interrupted); or queues them again. Returns them as they are now in *ret_tasks (caller's). */
int gw_rows_sweep(struct gw_rows *r, const struct gw_sweep *sweep, struct gw_task **ret_tasks, size_t *ret_n,
                  struct gw_err *err);
/* The page after filter->after; ret_next is the id to go on after, or "". Inputs are not read. A page ends
 * early when it has become large. */
int gw_rows_list(struct gw_rows *r, const struct gw_task_filter *filter, struct gw_task **ret_tasks,
                 size_t *ret_n, char ret_next[40], struct gw_err *err);

/* a queued task, as a lane sees it */
struct gw_waiting {
    char id[40];
    enum gw_priority priority;
    int64_t created_at;
};
/* The first queued tasks of a lane, at most max. */
int gw_rows_waiting(struct gw_rows *r, const char *lane, struct gw_waiting *waiting, size_t max,
                    size_t *ret_n, struct gw_err *err);
struct gw_lane_queued {
    char *lane; /* owned */
    int64_t queued;
};
/* How many are queued, lane by lane; of one lane, or of all that have any when lane is NULL. */
int gw_rows_count_queued(struct gw_rows *r, const char *lane, struct gw_lane_queued **ret_lanes,
                         size_t *ret_n, struct gw_err *err);
int gw_rows_max_id(struct gw_rows *r, char ret_id[40], struct gw_err *err); /* the last one; "" when empty */

/* ---- retention ---- */
#define GW_ROW_BYTES 512 /* what a task weighs beside its texts */
struct gw_weight {
    int64_t rows, bytes;
};
int gw_rows_weigh(struct gw_rows *r, struct gw_weight *ret, struct gw_err *err); /* all that have ended */
int gw_rows_oldest_end(struct gw_rows *r, int64_t *ret_ended_at, struct gw_err *err); /* 0: none */
/* Deletes those that ended first, of those that ended before before_ms, until it is about max; at least one. */
int gw_rows_prune(struct gw_rows *r, int64_t before_ms, const struct gw_weight *max, struct gw_weight *ret_deleted,
                  struct gw_err *err);
int gw_rows_prune_keys(struct gw_rows *r, int64_t before_ms, int max, int64_t *ret_deleted, struct gw_err *err);
/* Gives some of the file's free pages back to the disk when they are many. *ret_more: there are more. */
int gw_rows_give_back(struct gw_rows *r, bool *ret_more, struct gw_err *err);
