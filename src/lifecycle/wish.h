/* wish.h - what one request to restart wants: joined with another's, told, and given to the next process. Pure. */
#pragma once

#include "lifecycle/scheduler.h"

/* Copies what fits into size bytes, cut between characters; from may be NULL. */
void gw_wish_put(char *to, size_t size, const char *from);
void gw_wish_free(struct gw_restart *r); /* NULL is fine */

/* What r wants on top is wanted by into from now on. Bit i of the answer: enum gw_join i is another for it. */
uint32_t gw_wish_join(struct gw_restart *into, const struct gw_restart *r);

/* All of it, for a process that goes on with it; JSON null for NULL. The caller's reference. */
json_t *gw_wish_pack(const struct gw_restart *r);
struct gw_restart *gw_wish_unpack(const json_t *o); /* NULL when it is none; the caller's */
/* One that ended in an earlier process, from its gw_restart_json(); NULL when it is none. */
struct gw_restart *gw_wish_restore(const json_t *object);
