/* leftovers.h - what a command has started ends with it, also what has left its process group.
 *
 * Where the process is a subreaper (gw_leftovers_adopt), whoever loses its parent below us becomes our child, so the
 * end of a command costs a look at our children and no walk through /proc; who of them belongs to the command is told
 * by a mark in the environment, which all of its descendants have inherited. Where the kernel does not list children,
 * it is a walk. The loop's thread only. */
#pragma once

#include <stdint.h>

typedef struct uv_loop_s uv_loop_t;

#define GW_TASK_MARK "GWHOST_TASK_ID"

/* Has orphans below this process become its children. Kept through an exec, not inherited by children. */
void gw_leftovers_adopt(void);

/* The command with this mark has ended: asks what is left of it to end, and kills it after grace_ms; 0: at once.
 * Returns how many there are right now. Goes on by itself until all are gone. */
unsigned gw_leftovers_end(uv_loop_t *loop, const char *mark, unsigned grace_ms);

/* Kills what is left of all of them and waits until it is gone, at most max_ms. */
void gw_leftovers_settle(unsigned max_ms);
