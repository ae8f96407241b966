/* holder.h - which process holds the lock of a state directory, beyond doubt, and a signal for just that one. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct gw_err;

/* Who holds the lock, as far as it can be told from here. */
struct gw_holder {
    pid_t pid;      /* 0: it cannot be told */
    bool elsewhere; /* in another container or on another machine: the pid is one of there */
    char host[65];  /* then its name; "": not said */
};

/* Looks at what gwhost.lock says first, and believes it of a live process of that start time that shares the open file
 * that is locked; then at the kernel's table, which names who once took it; then at every process. */
struct gw_holder gw_holder_find(int dir_fd);

/* Which processes our pids are among. */
uint64_t gw_holder_pid_ns(void);

/* A descriptor of the process that holds the lock of the directory: gwhost.lock names its pid and start time,
 * both are true of a live process, and that process shares the open file that is locked. With the descriptor no
 * other process can be meant, even when the pid is used again. *ret_pidfd is the caller's.
 * -ESRCH when nobody holds it; -EUCLEAN when somebody does who cannot be told for sure (err says why). */
int gw_holder_open(int dir_fd, int *ret_pidfd, pid_t *ret_pid, struct gw_err *err);

/* Sends it. 0 or a negative errno. */
int gw_holder_signal(int pidfd, int signal, struct gw_err *err);
