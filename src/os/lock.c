#include "os/lock.h"

#include "base/err.h"
#include "base/str.h"
#include "base/time.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct gw_lock {
    int dir_fd, file_fd; /* owned; closing them is what releases */
};

int gw_lock_describe(struct gw_lock *lock, const char *info, struct gw_err *err)
{
    size_t n = strlen(info);
    if (lock->file_fd < 0)
        return gw_err_set(err, -ENOENT, "gwhost.lock is not a file that can be written");
    if (ftruncate(lock->file_fd, 0) < 0 || pwrite(lock->file_fd, info, n, 0) != (ssize_t)n)
        return gw_err_set(err, -errno, "cannot write gwhost.lock: %s", gw_strerror(errno));
    return 0;
}

int gw_lock_acquire(int dir_fd, const char *dir, const char *info, struct gw_lock **ret_lock, struct gw_err *err)
{
    // A description of our own: the lock belongs to it, not to the caller's descriptor.
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return gw_err_set(err, -errno, "cannot open the state directory '%s': %s", dir, gw_strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int code = errno == EWOULDBLOCK ? -EBUSY : -errno;
        (void)close(fd);
        return code == -EBUSY ? gw_err_set(err, code, "another gwhost owns '%s'", dir)
                              : gw_err_set(err, code, "cannot lock '%s': %s", dir, gw_strerror(code));
    }
    struct gw_lock *lock = gw_calloc(1, sizeof *lock);
    lock->dir_fd = fd;
    lock->file_fd = openat(dir_fd, "gwhost.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    // The file informs; what is wrong with it is no reason not to own the directory.
    if (lock->file_fd >= 0) {
        (void)flock(lock->file_fd, LOCK_EX | LOCK_NB);
        (void)gw_lock_describe(lock, info, NULL);
    }
    *ret_lock = lock;
    return 0;
}

size_t gw_lock_fds(const struct gw_lock *lock, int ret_fds[2])
{
    ret_fds[0] = lock->dir_fd;
    ret_fds[1] = lock->file_fd;
    return lock->file_fd >= 0 ? 2 : 1;
}

int gw_lock_adopt(int dir_fd, const char *dir, const int *fds, size_t count, struct gw_lock **ret_lock,
                  struct gw_err *err)
{
    struct stat own, theirs;
    if (count < 1 || count > 2 || fstat(dir_fd, &own) < 0 || fstat(fds[0], &theirs) < 0 ||
        own.st_dev != theirs.st_dev || own.st_ino != theirs.st_ino)
        return gw_err_set(err, -EPROTO, "the lock that was handed over is not that of '%s': start with the same "
                          "--state-dir", dir);
    // Locking what is locked already says whether the description that came is the one that holds it.
    if (flock(fds[0], LOCK_EX | LOCK_NB) < 0)
        return gw_err_set(err, -EBUSY, "the descriptor that was handed over does not hold the lock of '%s'", dir);
    struct gw_lock *lock = gw_calloc(1, sizeof *lock);
    lock->dir_fd = fds[0];
    lock->file_fd = count == 2 ? fds[1] : -1;
    *ret_lock = lock;
    return 0;
}

struct gw_lock *gw_lock_release(struct gw_lock *lock)
{
    if (lock == NULL)
        return NULL;
    // Never LOCK_UN: it would free the lock for all who share the description.
    if (lock->file_fd >= 0)
        (void)close(lock->file_fd);
    (void)close(lock->dir_fd);
    free(lock);
    return NULL;
}
