/* batch.h - ops carried out in one transaction, and what becomes of them when it fails. Store thread. */
#pragma once

#include "work/op.h"
#include "work/retain.h"

struct gw_batch {
    const char *boot_id;   /* borrowed */
    struct gw_rows *rows;  /* owned; NULL: the store is not open */
    struct gw_retain retain;
    struct gw_ops kept;    /* ends that could not be written yet, unanswered: they go first in the next batch */
    struct gw_ops doubt;   /* refused, but the log may hold them until something is written over it */
    uint64_t doubt_ms;
};

/* Puts what was kept back in front of ops. Returns whether the batch writes; with try it does anyhow. */
bool gw_batch_gather(struct gw_batch *b, struct gw_ops *io_ops, bool try);
/* Carries them out; code < 0, with why in err: the store cannot be used. What can be answered is in io_ops then, in
 * order. Returns 0 or the code. */
int gw_batch_run(struct gw_batch *b, struct gw_ops *io_ops, bool writes, int code, struct gw_err *err);
/* Something waits for the store. */
bool gw_batch_waits(const struct gw_batch *b);
