/* outlet.c - goes on with the log when its reader has room again. */
#include "host/inside.h"

#include <unistd.h>

static void on_room(uv_poll_t *poll, int status, int events)
{
    if (status < 0 || gw_log_flush())
        (void)uv_poll_stop(poll);
}

static void on_stall(void *host)
{
    struct gw_host *h = host;
    (void)uv_poll_start(&h->log_poll, UV_WRITABLE, on_room);
}

void gw_outlet_open(struct gw_host *h)
{
    // Watching it makes it one that does not wait: only done to one of our own. Else the next line goes on.
    if (gw_log_fd() != STDERR_FILENO && uv_poll_init(&h->loop, &h->log_poll, gw_log_fd()) == 0)
        gw_log_on_stall(on_stall, h);
}
