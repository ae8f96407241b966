/* supervisor.h - who would start this process again when it ends, and what stops it for good.
 *
 * A supervisor's environment is inherited by every shell and child below it, so a variable alone proves
 * nothing: what counts is a fact that only its direct child has. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What is decided from; borrowed, no pointer is NULL but `env_ud`. */
struct gw_supervisor_facts {
    const char *(*env)(void *env_ud, const char *name); /* NULL when it is not set */
    void *env_ud;
    pid_t pid;
    const char *parent_comm;     /* "" when it cannot be read; so are the next two */
    const char *parent_argument; /* the parent's first argument */
    const char *parent_dir;      /* the parent's working directory */
    const char *cgroup;          /* our /proc/PID/cgroup */
    const char *stop_file;       /* what s6 has in timeout-kill of the service directory; "" when there is none */
    bool container_file;         /* a file that container engines leave is there */
    bool pid_namespace;          /* not that of the machine */
    pid_t parent;
};

struct gw_supervisor {
    const char *name;       /* static; NULL: nobody would start us again */
    char service[256];      /* unit, directory, process or label; "" when it is not known */
    char stop_command[320]; /* "" when it is not known */
    int64_t stop_timeout_ms; /* when it kills what it has asked to stop; 0: never, or it is not known */
    bool pid1, container;
    bool init_above; /* our parent is pid 1 and no manager of services: it ends when we do, and all else with it */
};

/* Pure. */
void gw_supervisor_detect(const struct gw_supervisor_facts *facts, struct gw_supervisor *ret);

/* The same for this process, as it is now. */
void gw_supervisor_look(struct gw_supervisor *ret);
