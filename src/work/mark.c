#include "work/mark.h"

#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define WIDTH 44 /* of its one line, which is written over in place */

int gw_mark_open(const char *dir, struct gw_mark *ret)
{
    char *path = gw_asprintf("%s/tasks.count", dir), line[WIDTH + 1] = "";
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    int rc = fd < 0 ? -errno : fd;
    free(path);
    *ret = (struct gw_mark){0, 0};
    if (rc < 0)
        return rc;
    long long commits, at_ms;
    if (pread(fd, line, WIDTH, 0) == WIDTH && sscanf(line, "%lld %lld", &commits, &at_ms) == 2)
        *ret = (struct gw_mark){commits, at_ms};
    return fd;
}

void gw_mark_write(int fd, const struct gw_mark *m)
{
    char line[WIDTH + 1];
    if (fd < 0)
        return;
    (void)snprintf(line, sizeof line, "%021lld %021lld\n", (long long)m->commits, (long long)m->at_ms);
    (void)!pwrite(fd, line, WIDTH, 0); // one that is behind says nothing wrong
}
