/* timelimit.h - a bound in time for code that does not want one.
 *
 * A timer signal, directed to the thread that asks, strikes twice. At GW_DEADLINE_SOFT_MS a Lua hook is set
 * that raises at every further instruction, so that a pcall inside cannot swallow it. At GW_DEADLINE_HARD_MS
 * the call is left by siglongjmp: that ends C code which no hook reaches (patterns, sort, gsub). Whoever
 * allows that must keep nothing of libc in the script's hands: the state lives in an arena and is dropped.
 *
 * Wall time counts, since the loop waits; but a call that got less than a quarter of a processor is charged
 * four times its processor time, so that a busy or suspended machine does not overrule a policy.
 *
 * The timer runs only while a call runs: between calls there is no wake-up. Arming and disarming it for each
 * call costs under two microseconds, a sixth of what a question costs. It belongs to the process (a signal
 * handler has no other way to find it), and one thread uses it. */
#pragma once

#include <lua.h>
#include <stdbool.h>

struct gw_err;

enum { GW_DEADLINE_SOFT_MS = 50, GW_DEADLINE_HARD_MS = 75 };

/* Makes the timer for the calling thread and unblocks its signal, SIGRTMIN+2. Returns 0 or a negative errno.
 */
int gw_timelimit_init(struct gw_err *err);
void gw_timelimit_fini(void);

/* gw_lua_protect() under the deadline. Returns as it does, or -ETIME, with the position in err if it is
 * known. *ret_left tells whether the call was left by a jump: L must then be dropped without another call. */
int gw_timelimit_call(lua_State *L, lua_CFunction fn, void *ud, bool *ret_left, struct gw_err *err);

/* Between the two no jump happens: for what takes locks or memory of libc. They nest. A jump that was due
 * happens at the release, so nothing may be owned then. Nothing between them may raise. */
void gw_timelimit_hold(void);
void gw_timelimit_release(void);

/* The same, and the clock stands still: for reading files. */
void gw_timelimit_pause(void);
void gw_timelimit_resume(void);
