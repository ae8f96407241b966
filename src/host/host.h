/* host.h - the running daemon: one instance, its generations, until it ends. */
#pragma once

#include "work/work.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit codes, as the contract has them. */
enum { GW_EXIT_OK = 0, GW_EXIT_FAILED = 1, GW_EXIT_USAGE = 2, GW_EXIT_OWNED = 75, GW_EXIT_CONFIG = 78 };

/* The most that a host uses: its clients' and a reserve for all else (room.c). */
enum { GW_DESCRIPTORS = 10000 + 512 };

/* The command line of `gwhost run`; paths absolute; borrowed by gw_host_run(). */
struct gw_host_options {
    const char *version;
    const char *program;      /* the file to start an update from */
    char *const *argv;        /* as this process was started; a successor is started alike */
    int handover_fd;          /* what a predecessor left for us (see standby.c); -1: there is none */
    const char *policy;       /* file */
    const char *app;          /* file */
    const char *lua_dir;      /* where gwhost/… is */
    const char *handlers_dir; /* NULL: none */
    const char *state_dir;
    const char *token_file;   /* NULL: STATE/token */
    const char *const *listen; /* words, see os/listen.h */
    size_t listen_count;      /* 0: what was passed, else 127.0.0.1:18789 */
    json_t *vars;             /* --set */
    const char *const *origins; /* --origin: SCHEME://HOST[:PORT], or null */
    size_t origin_count;
    const struct gw_lane_spec *lanes;
    size_t lane_count;
    struct gw_retention keep;
    bool allow_exec, open, watch;
    uint64_t defer_timeout_ms, start_timeout_ms;
    uint64_t child_nofile;    /* soft limit of open files before it was raised */
};

/* Runs until the host ends. gw_sentry_block() has been called. Returns the exit code. */
int gw_host_run(const struct gw_host_options *options);
