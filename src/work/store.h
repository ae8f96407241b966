/* store.h - thread 3: the only one that touches tasks.db, and the one that decides about the file's life.
 *
 * The loop thread fills a gw_op, pushes it, and takes it back answered. Ops are carried out in the order in
 * which they were pushed, everything that waits in one transaction, and their answers are given after its
 * commit, in that order too. So whoever looks at an answer knows all that happened in the store before it.
 *
 * The file is opened when that is asked for, and tried again for as long as it is wanted; nothing is given up for it.
 * It is let go when that is asked for, once all is written: nobody else may open it before that is said. The thread
 * lives through both, so that taking the file back needs no other.
 *
 * When the store cannot be written, or is not open, the batch is rolled back. Ends of tasks (finish, cut, boundary)
 * are then kept, unanswered, and go first in every later batch: they are never overtaken. The others are answered
 * -EIO; but what a failed commit may have left in the log is answered only once another commit has written over it.
 * Batches are not tried again by themselves: the loop pushes a probe when it thinks that it is time. */
#pragma once

#include "work/op.h"

struct gw_store;
struct gw_store_config {
    const char *dir, *boot_id;
    bool retry_after_crash;
    bool newer; /* a schema of a later version is used as it is */
    struct gw_retention keep;
};
/* What was found at an opening; all owned by whoever asked. */
struct gw_store_found {
    char *moved;              /* where a damaged file was moved to, or NULL */
    struct gw_lost_name lost; /* the name had led elsewhere */
    struct gw_older older;
    struct gw_lane_queued *lanes;
    size_t lane_count;
    struct gw_task *swept; /* rows that were running, as they are now */
    size_t swept_count;
    char max_id[40];
};
void gw_store_found_fini(struct gw_store_found *f);

/* Returns 0 or a negative errno. Nothing is opened. */
int gw_store_new(const struct gw_store_config *config, struct gw_store **ret_store, struct gw_err *err);
/* Asks for the file, from now on; again and again is fine, and starts the thread where that has failed. goes_on: the
 * process before has closed it for us. */
void gw_store_open(struct gw_store *s, bool goes_on);
/* Asks that all is written and the file closed, for another process that opens it at once. */
void gw_store_let_go(struct gw_store *s);
/* Has the file's log written back soon, so that such a close is quick. */
void gw_store_tidy(struct gw_store *s);
/* Carries out what was pushed, closes the file and ends the thread, within max_ms; then frees. False when it has not
 * ended by then: it is at work still, the file is its own, and this may be called again. Answers are dropped. */
bool gw_store_close(struct gw_store *s, unsigned max_ms, bool goes_on);

int gw_store_fd(const struct gw_store *s);
void gw_store_wake(struct gw_store *s); /* makes the descriptor readable, from the loop thread */

/* Takes all ops of the list; returns the number of the last one, counted from 1. */
uint64_t gw_store_push(struct gw_store *s, struct gw_ops *ops);
/* Waits until the op of that number has been tried. False when max_ms ran out. */
bool gw_store_wait(struct gw_store *s, uint64_t seq, unsigned max_ms);

enum gw_store_state {
    GW_STORE_CLOSED, /* not asked for, or let go */
    GW_STORE_OPENING,
    GW_STORE_OPEN,
    GW_STORE_REFUSED, /* it is not for this program; not tried again */
};
struct gw_store_health {
    enum gw_store_state state;
    int code; /* 0, or why it cannot be opened or written */
    struct gw_err err;
    bool held; /* it was to be let go and could not be, for code; it goes on */
    unsigned kept; /* ends that wait for it */
    int64_t file_bytes, log_bytes;
};
/* Everything answered so far; clears the descriptor. *ret_found: an opening that is new, caller's; or NULL. */
void gw_store_answers(struct gw_store *s, struct gw_ops *ret_ops, struct gw_store_health *ret_health,
                      struct gw_store_found **ret_found);
