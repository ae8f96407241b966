/* outcome.h - what becomes of a request to restart, by pushed events, across the end of the host that took it. */
#pragma once

#include <jansson.h>

struct gw_client;
struct gw_err;
struct gw_progress;

/* Waits for the final outcome of request id, and of the one that it was merged into. Then, for "restarted", asks
 * until one answers that serves, and adds "answered_by": {"pid", "boot_id", "generation"} to the object.
 * *ret_outcome is the caller's. Returns 0, or a negative errno when the host is gone or knows nothing of it. */
int gw_outcome_wait(struct gw_client *c, struct gw_progress *p, const char *id, json_t **ret_outcome,
                    struct gw_err *err);
