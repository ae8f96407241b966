/* sentinel.h - restart-sentinel.json: the record of an update, from its acceptance to the next start.
 *
 * {"version":1,"payload":{"kind","status","ts_ms","message"?,"continuation"?,
 *                         "stats":{"mode","before","after"?,"reason"?,"duration_ms"?}}} */
#pragma once

#include <jansson.h>
#include <stdint.h>

struct gw_err;

struct gw_sentinel {
    char kind[16];   /* "update"; "restart" for a planned end that carries a continuation to the next process */
    char status[12]; /* "pending", "ok" or "error" */
    int64_t ts_ms;   /* Unix ms of its acceptance */
    char *message;   /* owned; NULL: none */
    json_t *continuation; /* owned; NULL: none */
    char mode[16], before[64], after[64], reason[64]; /* "": absent */
    int64_t duration_ms; /* < 0: absent */
};

/* Written whole, 0600. Returns 0 or a negative errno. */
int gw_sentinel_write(int dir_fd, const struct gw_sentinel *s, struct gw_err *err);
/* Returns 0, -ENOENT, -EINVAL with what is not understood, or a code that passes: it cannot be read now. */
int gw_sentinel_read(int dir_fd, struct gw_sentinel *ret, struct gw_err *err);
void gw_sentinel_remove(int dir_fd);
void gw_sentinel_fini(struct gw_sentinel *s);
