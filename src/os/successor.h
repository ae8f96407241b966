/* successor.h - another host process: started with the end of a pair of sockets, and nothing else of ours.
 *
 * It has a session and a process group of its own, so that what is meant for our terminal's foreground does not
 * reach it, and so that it can be ended with all that it started. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

struct gw_err;

struct gw_successor_spec {
    const char *program; /* a path */
    char *const *argv;   /* NULL-terminated; argv[0] is replaced by program, unless that is /proc/self/exe */
    int pair_fd;         /* it gets it under this number, told by GWHOST_HANDOVER */
    uint64_t nofile;     /* soft limit of open files as we were started with; 0: leave it */
};

/* Returns 0 with its pid, which the caller reaps, or a negative errno with words: -ENOENT, -EACCES, -ENOEXEC … */
int gw_successor_spawn(const struct gw_successor_spec *spec, pid_t *ret_pid, struct gw_err *err);
