/* notify.h - telling a service manager how we are, over NOTIFY_SOCKET: one datagram a call, never waiting. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

struct gw_err;
struct gw_notify;

/* address is a path that begins with '/' or, with '@' for the NUL, an abstract name. -EINVAL when it is
 * neither, -ENAMETOOLONG when it does not fit: cut short it would be another socket. */
int gw_notify_open(const char *address, struct gw_notify **ret_notify, struct gw_err *err);

/* Sends text, fields divided by newlines. Returns 0, -EAGAIN when nobody takes them out at the other end, or
 * another negative errno. NULL, nobody to tell, is fine. */
int gw_notify_send(struct gw_notify *notify, const char *text, struct gw_err *err);

/* Has the manager keep a copy of fd under name, for the next start; or forget those of name. */
int gw_notify_store(struct gw_notify *notify, const char *name, int fd, struct gw_err *err);
int gw_notify_forget(struct gw_notify *notify, const char *name, struct gw_err *err);

/* Waits until all that was sent before has been taken in, at most max_ms: -ETIMEDOUT. */
int gw_notify_barrier(struct gw_notify *notify, unsigned max_ms, struct gw_err *err);

/* Closes and frees; NULL is fine. Always NULL. */
struct gw_notify *gw_notify_close(struct gw_notify *notify);

/* How often to say that we live: half of WATCHDOG_USEC, in ms; 0 when nobody asks, or asks another process.
 * usec and pid are the texts of WATCHDOG_USEC and WATCHDOG_PID, or NULL. */
uint64_t gw_notify_watchdog_ms(const char *usec, const char *pid, pid_t self);
