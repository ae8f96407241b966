/* reaper.h - a host inherits orphans, as pid 1 and as a subreaper: whoever else has ended is reaped, never a child of
 * our own, whose end somebody waits for. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

typedef struct uv_loop_s uv_loop_t;
struct gw_reaper;

/* ours says whether a pid is a child that somebody waits for. */
struct gw_reaper *gw_reaper_open(uv_loop_t *loop, bool (*ours)(void *ud, pid_t pid), void *ud);
/* NULL is fine; always NULL. */
struct gw_reaper *gw_reaper_close(struct gw_reaper *r);
