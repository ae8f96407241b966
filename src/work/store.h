/* store.h - thread 3: the only one that touches tasks.db.
 *
 * The loop thread fills a gw_op, pushes it, and takes it back answered. Ops are carried out in the order in
 * which they were pushed, everything that waits in one transaction, and their answers are given after its
 * commit, in that order too. So whoever looks at an answer knows all that happened in the store before it.
 *
 * When the store cannot be written the batch is rolled back. Ends of tasks (finish, cut, boundary) are then
 * kept, unanswered, and go first in every later batch: they are never overtaken. The others are answered
 * -EIO. Nothing is tried again by itself: the loop pushes a probe when it thinks that it is time. */
#pragma once

#include "work/op.h"

struct gw_store;
struct gw_store_config {
    const char *dir, *boot_id;
    bool retry_after_crash;
    int64_t retain_ms, retain_rows;
    bool goes_on; /* the process before has closed it for us */
};
/* What was found at the opening; all owned by whoever asked. */
struct gw_store_found {
    char *moved; /* where a damaged file was moved to, or NULL */
    struct gw_lane_queued *lanes;
    size_t lane_count;
    struct gw_task *swept; /* rows that were running, as they are now */
    size_t swept_count;
    char max_id[40];
};
void gw_store_found_fini(struct gw_store_found *f);

/* Starts the thread, which opens the file, sweeps what nobody executes any more, and counts; waits for that.
 * ret_found->moved is set even on failure. */
int gw_store_open(const struct gw_store_config *config, struct gw_store **ret_store,
                  struct gw_store_found *ret_found, struct gw_err *err);
/* Carries out what was pushed, closes the file and ends the thread, within max_ms; after that the thread is
 * left to end and free by itself. Answers are dropped. goes_on: another process opens the file at once. */
void gw_store_close(struct gw_store *s, unsigned max_ms, bool goes_on);
/* Has the file's log written back soon, so that such a close is quick. */
void gw_store_tidy(struct gw_store *s);

int gw_store_fd(const struct gw_store *s);
void gw_store_wake(struct gw_store *s); /* makes the descriptor readable, from the loop thread */

/* Takes all ops of the list; returns the number of the last one, counted from 1. */
uint64_t gw_store_push(struct gw_store *s, struct gw_ops *ops);
/* Waits until the op of that number has been tried. False when max_ms ran out. */
bool gw_store_wait(struct gw_store *s, uint64_t seq, unsigned max_ms);

/* Health as the last batch left it: 0, or why the store cannot be written. */
struct gw_store_health {
    int code;
    struct gw_err err;
};
/* Everything answered so far; clears the descriptor. */
void gw_store_answers(struct gw_store *s, struct gw_ops *ret_ops, struct gw_store_health *ret_health);
