/* stand.h - where a script stands, for an operator who asks while it does not return.
 *
 * One thread runs the scripts of a process. Asking interrupts it with a signal of its own; if it is inside a script just
 * then, the script's next step tells its position. A script that hangs inside a function of C has no next step. */
#pragma once

#include <lua.h>

struct gw_buf;

/* For the calling thread, which is the one that runs scripts. */
void gw_stand_open(void);
/* From any thread: the running script's position goes to the log, as `script.stands`. Nothing when none runs. */
void gw_stand_ask(void);

/* L is what runs from here on, until it is called with what it returned. NULL: none. */
lua_State *gw_stand_enter(lua_State *L);
/* Adds "FILE:LINE in function < FILE:LINE in function …" of what L does, or waits in. */
void gw_stand_tell(lua_State *L, struct gw_buf *out);
