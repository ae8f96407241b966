/* child.h - a command run by the application: its own process group, its output captured.
 *
 * The child dies with the host (PR_SET_PDEATHSIG), inherits stdio and nothing else, and gets back the soft
 * limit of open files that the host was started with. What it prints is read at full speed; only the last
 * keep_bytes of each stream are kept. It has ended when the process has, whoever still holds its pipes. Of one with a
 * mark that was told to end, what it has started ends too, in its group or out of it (leftovers.h). */
#pragma once

#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct uv_loop_s uv_loop_t;
struct gw_err;
struct gw_child;

struct gw_child_spec {
    const char *const *argv; /* argv[0] is looked up in PATH; NULL-terminated; all borrowed */
    const char *cwd;         /* NULL: ours */
    const char *const *env;  /* "KEY=VALUE" on top of our environment, NULL-terminated, or NULL */
    const char *input;       /* for its standard input; NULL: /dev/null */
    size_t input_bytes;
    size_t keep_bytes;       /* of each stream */
    uint64_t nofile;         /* soft limit for the child; 0: leave it */
    const char *mark;        /* of the task or run that it belongs to, for its environment; NULL: none */
};

struct gw_child_result {
    int exit_code;             /* -1 when a signal ended it, or somebody else has waited for it */
    int signal;                /* 0 when it exited, or somebody else has waited for it */
    struct gw_buf out, err;    /* the last keep_bytes of each */
    uint64_t out_bytes, err_bytes; /* all that it printed */
};

typedef void gw_child_cb(void *ud, struct gw_child *child, const struct gw_child_result *result);

/* Starts it. cb is called from the loop once it has ended; child is freed after that.
 * Returns 0 or a negative errno: the program or the folder does not exist, may not be run, no more processes. */
int gw_child_spawn(uv_loop_t *loop, const struct gw_child_spec *spec, gw_child_cb *cb, void *ud,
                   struct gw_child **ret_child, struct gw_err *err);

/* Whether pid is a child that was started here and is not reaped yet. */
bool gw_child_owns(pid_t pid);
pid_t gw_child_pid(const struct gw_child *child);
/* Asks its process group to end: SIGTERM, then SIGKILL after grace_ms. cb is still called. */
void gw_child_end(struct gw_child *child, unsigned grace_ms);
/* Kills the group at once and forgets it: cb is not called any more; reaping goes on by itself. */
void gw_child_abandon(struct gw_child *child);
/* Waits, no longer than two seconds, until those that were abandoned and what they have started are dead. */
void gw_child_settle(void);
