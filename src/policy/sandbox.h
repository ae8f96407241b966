/* sandbox.h - what a policy can see.
 *
 * One allow-list, read-only: string, table, math, utf8, os.time/date/clock/difftime, the safe part of the
 * base library and, added by whoever opens the state, require. No files, processes, debug, coroutines,
 * finalizers and no way to compile code. Time stands still during a question and random numbers come from a
 * seed, so that a question asked again with the same facts is answered the same. All functions here may
 * raise: call them protected. */
#pragma once

#include <lua.h>
#include <stdint.h>

/* What "now" and chance are during a question; owned by the state, set before each question. */
struct gw_frozen {
    int64_t now_ms; /* Unix time */
    int64_t seed;
};

/* Opens the libraries and pushes a new table with all that is allowed, to be added to and then sealed. Frozen
 * is borrowed for the life of the state. */
void gw_sandbox_open(lua_State *L, const struct gw_frozen *frozen);

/* Replaces the table at the top by a read-only view of it: reading passes through, assigning raises an error
 * that names the field and calls the table `what` ("the table 'string'", or NULL for the globals). */
void gw_sandbox_seal(lua_State *L, const char *what);

/* Seals the environment at the top, with `_G` in it. */
void gw_sandbox_seal_env(lua_State *L);

/* Seeds math.random from frozen. */
void gw_sandbox_seed(lua_State *L, const struct gw_frozen *frozen);

/* The functions of a library that are not Lua's own; each pushes one function. library.c */
void gw_library_push_format(lua_State *L, int original_idx);
void gw_library_push_setmetatable(lua_State *L);
/* Pushes the table os. original_idx: Lua's own. */
void gw_library_push_os(lua_State *L, int original_idx, const struct gw_frozen *frozen);
