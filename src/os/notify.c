#include "os/notify.h"

#include "base/err.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { ROOM_MS = 200, ROOM_STEP_MS = 2 };

struct gw_notify {
    int fd; /* owned */
    struct sockaddr_un to;
    socklen_t to_bytes;
};

int gw_notify_open(const char *address, struct gw_notify **ret_notify, struct gw_err *err)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t n = strlen(address);
    bool abstract = address[0] == '@';
    if ((address[0] != '/' && !abstract) || n < 2)
        return gw_err_set(err, -EINVAL, "NOTIFY_SOCKET '%.100s' is neither a path nor an abstract name", address);
    // A path needs its NUL; an abstract name has one at its beginning, in the place of the '@'.
    if (n > sizeof to.sun_path - (abstract ? 0 : 1))
        return gw_err_set(err, -ENAMETOOLONG, "NOTIFY_SOCKET is too long (%zu bytes)", n);
    memcpy(to.sun_path, address, n);
    if (abstract)
        to.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return gw_err_set(err, -errno, "cannot make a socket for NOTIFY_SOCKET: %s", gw_strerror(-errno));
    struct gw_notify *notify = gw_calloc(1, sizeof *notify);
    notify->fd = fd;
    notify->to = to;
    notify->to_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (abstract ? 0 : 1));
    *ret_notify = notify;
    return 0;
}

/* One datagram, with a descriptor unless fd is less than 0. What is said while the manager is busy is worth a
 * moment: the queue of its socket is short. */
static int send_with(struct gw_notify *notify, const char *text, int fd, struct gw_err *err)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};
    struct msghdr msg = {
        .msg_name = &notify->to, .msg_namelen = notify->to_bytes, .msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof control.bytes;
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cmsg), &fd, sizeof fd);
    }
    ssize_t n = -1;
    for (unsigned waited = 0;; waited += ROOM_STEP_MS) {
        n = sendmsg(notify->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0 || (errno != EAGAIN && errno != EINTR) || waited >= ROOM_MS)
            break;
        struct timespec step = {.tv_nsec = ROOM_STEP_MS * 1000000};
        (void)nanosleep(&step, NULL);
    }
    return n >= 0 ? 0 : gw_err_set(err, -errno, "cannot tell NOTIFY_SOCKET: %s", gw_strerror(-errno));
}

int gw_notify_send(struct gw_notify *notify, const char *text, struct gw_err *err)
{
    return notify != NULL ? send_with(notify, text, -1, err) : 0;
}

int gw_notify_store(struct gw_notify *notify, const char *name, int fd, struct gw_err *err)
{
    char text[128];
    (void)snprintf(text, sizeof text, "FDSTORE=1\nFDNAME=%.64s", name);
    return notify != NULL ? send_with(notify, text, fd, err) : 0;
}

int gw_notify_forget(struct gw_notify *notify, const char *name, struct gw_err *err)
{
    char text[128];
    (void)snprintf(text, sizeof text, "FDSTOREREMOVE=1\nFDNAME=%.64s", name);
    return notify != NULL ? send_with(notify, text, -1, err) : 0;
}

int gw_notify_barrier(struct gw_notify *notify, unsigned max_ms, struct gw_err *err)
{
    int ends[2];
    if (notify == NULL)
        return 0;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return gw_err_set(err, -errno, "no pipe to wait for NOTIFY_SOCKET: %s", gw_strerror(errno));
    int rc = send_with(notify, "BARRIER=1", ends[1], err);
    (void)close(ends[1]);
    // The manager closes its copy once it has come to this message.
    struct pollfd p = {.fd = ends[0]};
    int n = 0;
    do
        n = rc == 0 ? poll(&p, 1, (int)max_ms) : 1;
    while (n < 0 && errno == EINTR);
    (void)close(ends[0]);
    return n == 0 ? gw_err_set(err, -ETIMEDOUT, "the service manager has not answered within %u ms", max_ms) : rc;
}

struct gw_notify *gw_notify_close(struct gw_notify *notify)
{
    if (notify != NULL)
        (void)close(notify->fd);
    free(notify);
    return NULL;
}

uint64_t gw_notify_watchdog_ms(const char *usec, const char *pid, pid_t self)
{
    int64_t every, whom;
    if (usec == NULL || !gw_parse_int(usec, 1, INT64_MAX, &every))
        return 0;
    if (pid != NULL && (!gw_parse_int(pid, 1, INT32_MAX, &whom) || whom != self))
        return 0;
    return every >= 2000 ? (uint64_t)every / 2000 : 1;
}
