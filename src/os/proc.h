/* proc.h - what /proc says about a process, and limits of our own. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
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

/* Whether the process that facts tell about is a child, grandchild … of ancestor: 1 or 0, and -1 when it
 * cannot be told: a parent has gone meanwhile, or it had gone before and init has taken the child. */
int gw_proc_descends(const struct gw_proc_facts *facts, pid_t ancestor);

/* Our children, at most max of them; returns how many. */
size_t gw_proc_children(pid_t *ret_pids, size_t max);

/* Whether it was started with name=value in its environment: 1 or 0; -1: it is about to end, or must not be asked. */
int gw_proc_has_mark(pid_t pid, const char *name, const char *value);

/* Kills every process that was started with name in its environment, as one of these values, but not us, and waits
 * until they are dead, at most max_ms for all. Adds to ret_ended how many there were, value by value. One walk through
 * /proc, however many values there are. */
void gw_proc_end_marked(const char *name, const char *const *values, size_t n, unsigned max_ms, unsigned *ret_ended);

/* Calls exec, which is execve(2) or execvpe(3), and for a tenth of a second calls it again while the file is open for
 * writing somewhere: whoever has just put it there closes it in a moment, and any fork of his prolongs that. Returns only
 * if it failed, with errno. */
void gw_proc_exec(int (*exec)(const char *file, char *const *argv, char *const *env), const char *file,
                  char *const *argv, char *const *env);

/* Opens /dev/null as whichever of 0, 1 and 2 is closed: what is opened next would get these numbers, and whoever
 * prints would write into it. The first thing that a process does. */
void gw_proc_fill_stdio(void);

/* Raises the soft limit of open files to the hard one; returns the old soft limit, for children. */
uint64_t gw_proc_raise_nofile(void);

/* The soft limit of open files; at most a million. */
unsigned gw_proc_nofile(void);

/* Has the kernel make room for so many descriptors, as far as the limit lets it, while this process has one thread.
 * With more than one each growth of its table waits tens of milliseconds, in whichever call needs it. Descriptor 0
 * must be open. */
void gw_proc_grow_table(unsigned descriptors);
