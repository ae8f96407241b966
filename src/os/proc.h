/* proc.h - what /proc says about a process, and limits of our own. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct gw_proc_facts {
    pid_t ppid;
    uint64_t start_time; /* clock ticks since boot; with the pid it names a process for good */
    char exe[256];       /* "" when it may not be read */
    char comm[17];
};

/* Facts of a live process. False when it is gone (or never was). */
bool gw_proc_read(pid_t pid, struct gw_proc_facts *ret);

/* Whether pid is a child, grandchild … of ancestor, as far as the parents still live. */
bool gw_proc_descends(pid_t pid, pid_t ancestor);

/* Raises the soft limit of open files to the hard one; returns the old soft limit, for children. */
uint64_t gw_proc_raise_nofile(void);

/* Whether we run in a container, as far as it shows. */
bool gw_proc_in_container(void);
