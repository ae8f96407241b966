/* outlet.c - goes on with the log when its reader has room again. */
#include "host/inside.h"

#include <sys/epoll.h>
#include <unistd.h>

static void on_room(uv_poll_t *poll, int status, int events)
{
    if (status < 0 || gw_log_flush())
        (void)uv_poll_stop(poll);
}

static void on_stall(void *host)
{
    struct gw_host *h = host;
    (void)uv_poll_start(&h->log_poll, UV_READABLE, on_room);
}

void gw_outlet_open(struct gw_host *h)
{
    // libuv makes what it watches one that does not wait, and the log may be shared with others who do: it watches a set
    // of our own, with the log in it. What cannot be in one, a file, always has room.
    struct epoll_event room = {.events = EPOLLOUT};
    int set = epoll_create1(EPOLL_CLOEXEC);
    if (set < 0)
        return;
    if (epoll_ctl(set, EPOLL_CTL_ADD, gw_log_fd(), &room) == 0 && uv_poll_init(&h->loop, &h->log_poll, set) == 0)
        gw_log_on_stall(on_stall, h);
    else
        (void)close(set);
}
