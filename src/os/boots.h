/* boots.h - which boots there were and how they ended, for the crash-loop breaker.
 *
 * boots.json in the state directory, not in the store: it can be read when the store is what kills us. Only who
 * holds the lock calls this. {"version":1,"boots":[{"boot_id","pid","started_at","served"?,"stopping"?,"ended_at"?,
 * "outcome"?}]}, the last 16. outcome is "clean"; "failed"; "died" once a later boot finds one without an end; or what
 * is no crash: "not_started" of one that never served and said so, "stopped" of one that had been told to end and did
 * not end well, whoever ended it. Of one that died nobody knows when: ended_at is null then. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct gw_err;

/* A file in the state directory with the id of a boot that was ended by its last resort while it stopped: it could not
 * note that itself. Read and removed by the next one. */
#define GW_BOOTS_STOP_MARK "forced-stop"

/* The last boot that died, as it is found by the next one. */
struct gw_boots_dead {
    char boot_id[40]; /* "": the boot before has ended by itself */
    int pid;
    int64_t started_at;
};

/* Records that boot_id begins (again). replaces is the boot whose place it takes as planned, or NULL: that one has
 * ended cleanly. Boots without an end have died, as far as anybody can tell just now. *ret_unclean: how many died
 * or failed within window_ms before now_ms. A damaged file is begun anew: -EINVAL then, and all else is done. */
int gw_boots_begin(int dir_fd, const char *boot_id, const char *replaces, int64_t now_ms, int64_t window_ms,
                   unsigned *ret_unclean, struct gw_boots_dead *ret_dead, struct gw_err *err);
/* Notes that a boot serves ("served") or has been told to end ("stopping"). */
int gw_boots_note(int dir_fd, const char *boot_id, const char *what, struct gw_err *err);
int gw_boots_end(int dir_fd, const char *boot_id, bool clean, int64_t now_ms, struct gw_err *err);
/* What ended uncleanly so far counts no more. */
int gw_boots_forgive(int dir_fd, struct gw_err *err);
