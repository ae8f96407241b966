/* lock.h - one host per state directory.
 *
 * flock(2) on the directory's own descriptor decides, so nothing that happens to a file in it matters; then
 * gwhost.lock is locked too and its JSON rewritten, for people. The kernel drops both when the last process
 * that shares the descriptors ends. The content of the file is never a condition of owning. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

struct gw_err;
struct gw_lock;

/* Takes the lock of dir without waiting. info is the JSON text to write into the file (borrowed).
 * Returns 0, -EBUSY when another process holds it (see holder.h), or another negative errno. */
int gw_lock_acquire(int dir_fd, const char *dir, const char *info, struct gw_lock **ret_lock, struct gw_err *err);

/* The descriptors that are the lock, borrowed: whoever shares them holds it too. Returns how many, 1 or 2. */
size_t gw_lock_fds(const struct gw_lock *lock, int ret_fds[2]);
/* The lock of dir from descriptors that its holder has shared; takes them over on success only. -EPROTO when
 * they are another directory's, -EBUSY when they do not hold it. */
int gw_lock_adopt(int dir_fd, const char *dir, const int *fds, size_t count, struct gw_lock **ret_lock,
                  struct gw_err *err);

/* Rewrites the JSON of a held lock; failing to is only reported. */
int gw_lock_describe(struct gw_lock *lock, const char *info, struct gw_err *err);

/* Releases and frees; NULL is fine. Always NULL. */
struct gw_lock *gw_lock_release(struct gw_lock *lock);
