/* door.h - the one way into Lua.
 *
 * Every call from C into a script goes through gw_lua_call(): a message handler that adds the traceback,
 * pcall, and words in a struct gw_err. Pushing and reading arguments that can raise happens inside a
 * protected call too (gw_lua_protect), and no C resource is held across it. */
#pragma once

#include <lua.h>
#include <stddef.h>

struct gw_err;

/* Like lua_pcall(): function and nargs arguments are popped, nresults are pushed on success. On failure
 * nothing is left on the stack. Returns 0, -ENOMEM, or -EINVAL with "FILE:LINE: message" in err, one line (an
 * error that is not a string is described; one that has no position of its own gets that of the innermost Lua
 * function; FILE is whole, however long). If ret_traceback is not NULL it gets the traceback (caller frees)
 * or NULL. With ret_traceback NULL no memory of libc is taken. */
int gw_lua_call(lua_State *L, int nargs, int nresults, char **ret_traceback, struct gw_err *err);

/* Runs fn(L) with ud as its only argument (light userdata), protected; its results are dropped.
 * Returns as gw_lua_call(). */
int gw_lua_protect(lua_State *L, lua_CFunction fn, void *ud, struct gw_err *err);

/* Describes the error value at idx in one line without raising: strings as they are, tables by their
 * `message` field or type, others by type. Writes at most size bytes with the NUL, UTF-8 repaired, control
 * characters as blanks. Takes no memory. */
void gw_lua_describe(lua_State *L, int idx, char *ret_text, size_t size);

/* Counted memory of one state, for lua_newstate(); libc memory underneath. limit 0: none. */
struct gw_lua_memory {
    size_t used, peak, limit;
};
void *gw_lua_alloc(void *memory, void *ptr, size_t osize, size_t nsize);
