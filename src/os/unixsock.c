#include "os/unixsock.h"

#include "base/err.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Fills in the address of path; *ret_dir_fd is -1, or must stay open while the address is used. */
static int address_of(const char *path, struct sockaddr_un *ret, int *ret_dir_fd)
{
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    *ret_dir_fd = -1;
    if (strlen(path) < sizeof ret->sun_path) {
        memcpy(ret->sun_path, path, strlen(path) + 1);
        return 0;
    }
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return -ENAMETOOLONG;
    char *dir = gw_memdup0(path, (size_t)(slash - path) + 1);
    *ret_dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int code = *ret_dir_fd < 0 ? -errno : 0;
    free(dir);
    if (code == 0 && snprintf(ret->sun_path, sizeof ret->sun_path, "/proc/self/fd/%d%s", *ret_dir_fd, slash) >=
                         (int)sizeof ret->sun_path)
        code = -ENAMETOOLONG;
    return code;
}

int gw_unixsock_bind(const char *path, mode_t denied, int backlog, struct gw_unixsock_file *ret_file, struct gw_err *err)
{
    struct sockaddr_un un;
    int dir_fd = -1, fd = -1, rc = address_of(path, &un, &dir_fd);
    if (rc == 0)
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (rc == 0 && fd < 0)
        rc = -errno;
    if (rc == 0) {
        mode_t old = umask(0777); // from its first moment
        (void)umask(old | denied);
        rc = bind(fd, (struct sockaddr *)&un, sizeof un) < 0 || listen(fd, backlog) < 0 ? -errno : 0;
        (void)umask(old);
    }
    if (dir_fd >= 0)
        (void)close(dir_fd);
    if (rc == 0) {
        *ret_file = gw_unixsock_look(path);
        return fd;
    }
    if (fd >= 0)
        (void)close(fd);
    return gw_err_set(err, rc, "cannot listen on '%s': %s", path, gw_strerror(rc));
}

struct gw_unixsock_file gw_unixsock_look(const char *path)
{
    struct stat st;
    if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return (struct gw_unixsock_file){0};
    return (struct gw_unixsock_file){.dev = st.st_dev, .ino = st.st_ino};
}

bool gw_unixsock_leads_to(const char *path, const struct gw_unixsock_file *file)
{
    struct gw_unixsock_file now = gw_unixsock_look(path);
    return file->ino != 0 && now.ino == file->ino && now.dev == file->dev;
}

void gw_unixsock_remove(const char *path, const struct gw_unixsock_file *file)
{
    if (gw_unixsock_leads_to(path, file))
        (void)unlink(path);
}
