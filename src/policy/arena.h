/* arena.h - the memory of one policy state.
 *
 * One reserved region with an allocator of its own, so that a state which was left in the middle of anything
 * can be dropped by a single munmap: nothing of it lies in libc's heap, and libc's heap is never touched
 * while a policy runs. Small blocks come from size classes, larger ones are runs of pages that join again
 * when they are freed. A limit holds the sum of what is asked for. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct gw_arena;

/* Reserves the region; NULL when the system refuses it. */
struct gw_arena *gw_arena_new(void);
/* Gives the whole region back, whatever is in it. NULL is fine; always NULL. */
struct gw_arena *gw_arena_free(struct gw_arena *a);

/* For lua_newstate(); ud is the arena. */
void *gw_arena_alloc(void *ud, void *ptr, size_t osize, size_t nsize);

/* From now on at most `bytes` more than what is used now. */
void gw_arena_allow(struct gw_arena *a, size_t bytes);
size_t gw_arena_used(const struct gw_arena *a);

/* Gives pages that are free and were written back to the kernel, when there are enough to be worth a call. */
void gw_arena_trim(struct gw_arena *a);
