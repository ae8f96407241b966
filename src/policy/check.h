/* check.h - whether a policy's table is one: its `api`, its hooks, and names that are nearly hooks. */
#pragma once

#include <lua.h>

struct gw_faults;
struct gw_vm;

/* Looks at the value at idx, fills vm's hooks, lines and name and adds to faults what is wrong. text is the
 * policy's source, for finding the line of a wrong name. May raise: call it protected. */
void gw_check_table(lua_State *L, int idx, const char *path, const char *text, struct gw_vm *vm,
                    struct gw_faults *faults);
