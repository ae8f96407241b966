/* holder.h - which process holds the lock of a state directory, beyond doubt, and a signal for just that one. */
#pragma once

#include <sys/types.h>

struct gw_err;

/* A descriptor of the process that holds the lock of the directory: gwhost.lock names its pid and start time,
 * both are true of a live process, and that process shares the open file that is locked. With the descriptor no
 * other process can be meant, even when the pid is used again. *ret_pidfd is the caller's.
 * -ESRCH when nobody holds it; -EUCLEAN when somebody does who cannot be told for sure (err says why). */
int gw_holder_open(int dir_fd, int *ret_pidfd, pid_t *ret_pid, struct gw_err *err);

/* Sends it. 0 or a negative errno. */
int gw_holder_signal(int pidfd, int signal, struct gw_err *err);
