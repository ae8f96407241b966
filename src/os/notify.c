#include "os/notify.h"

#include "base/err.h"
#include "base/str.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

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

int gw_notify_send(struct gw_notify *notify, const char *text, struct gw_err *err)
{
    if (notify == NULL)
        return 0;
    ssize_t n;
    do
        n = sendto(notify->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT, (const struct sockaddr *)&notify->to,
                   notify->to_bytes);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return gw_err_set(err, -errno, "cannot tell NOTIFY_SOCKET: %s", gw_strerror(-errno));
    return 0;
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
