/* boots.h - which boots there were and how they ended, for the crash-loop breaker.
 *
 * boots.json in the state directory, not in the store: it can be read when the store is what kills us. Only who
 * holds the lock calls this. {"version":1,"boots":[{"boot_id","pid","started_at","ended_at"?,"outcome"?}]}, the
 * last 16; outcome is "clean", "failed", or "died" once a later boot finds one without an end. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct gw_err;

/* Records that boot_id begins (again). replaces is the boot whose place it takes as planned, or NULL: that one has
 * ended cleanly. Boots without an end have died, as far as anybody can tell just now. *ret_unclean: how many died
 * or failed within window_ms before now_ms. A damaged file is begun anew: -EINVAL then, and all else is done. */
int gw_boots_begin(int dir_fd, const char *boot_id, const char *replaces, int64_t now_ms, int64_t window_ms,
                   unsigned *ret_unclean, struct gw_err *err);
int gw_boots_end(int dir_fd, const char *boot_id, bool clean, int64_t now_ms, struct gw_err *err);
/* What ended uncleanly so far counts no more. */
int gw_boots_forgive(int dir_fd, struct gw_err *err);
