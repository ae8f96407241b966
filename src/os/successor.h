/* successor.h - another host process: started with the end of a pair of sockets, and nothing else of ours.
 *
 * It has a session and a process group of its own, so that what is meant for our terminal's foreground does not
 * reach it, and so that it can be ended with all that it started. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct gw_err;

struct gw_successor_spec {
    const char *program; /* a path */
    char *const *argv;   /* NULL-terminated; argv[0] is replaced by program, unless that is /proc/self/exe */
    int pair_fd;         /* it gets it under this number, told by GWHOST_HANDOVER */
    uint64_t nofile;     /* soft limit of open files as we were started with; 0: leave it */
    /* A child of our parent, not of ours: a supervisor that is to watch it must be the one that can wait for it
     * (systemd 252 gives a main process that is not its child no time at all when it stops it). */
    bool sibling;
};

struct gw_successor {
    pid_t pid; /* 0: none */
    int pidfd; /* owned; means this process even when it has ended and its pid is another's */
    bool sibling;
};

/* Returns 0 with a process that gw_successor_kill() or gw_successor_leave() ends for us, or a negative errno with
 * words: -ENOENT, -EACCES, -ENOEXEC … */
int gw_successor_spawn(const struct gw_successor_spec *spec, struct gw_successor *ret_successor, struct gw_err *err);

/* Sends it a signal; nothing when there is none, or it has ended. */
void gw_successor_signal(const struct gw_successor *s, int signal);

/* Kills it with its session and reaps it, for at most two seconds. words (may be NULL) get how it had ended by
 * itself, like " (it exited with 3)", or "": that of a sibling only our parent knows. Nothing when there is none. */
void gw_successor_kill(struct gw_successor *s, char *words, size_t size);

/* It goes on without us. */
/* From here on signals to stop that come to this process go on to that one, to the last moment of this one; s is left. */
void gw_successor_pass_on_stops(struct gw_successor *s);
void gw_successor_leave(struct gw_successor *s);
