/* vm.h - one Lua state of a policy: opened from sources, asked, dropped.
 *
 * A state that spent its time or memory is not trusted again: whoever asked it drops it and opens a fresh one
 * from the same sources. */
#pragma once

#include "policy/sandbox.h"

#include <jansson.h>
#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

struct gw_arena;
struct gw_err;
struct gw_sources;

enum gw_hook {
    GW_HOOK_RESTART_MODE,
    GW_HOOK_DRAIN_BUDGET,
    GW_HOOK_FORMAT_BLOCKERS,
    GW_HOOK_AUTHORIZE_SIGUSR1,
    GW_HOOK_COUNT
};
const char *gw_hook_name(enum gw_hook h);

enum { GW_VM_CALL_BYTES = 16 << 20 }; /* what a call may take, and loading */

/* What is wrong with a policy's table, all of it. Takes no memory of libc. */
struct gw_faults {
    unsigned count, total; /* kept, found */
    char text[16][320];
};
void gw_faults_add(struct gw_faults *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

struct gw_vm {
    struct gw_arena *arena;           /* owned; the state lies in it */
    lua_State *L;                     /* owned; NULL: not open */
    const struct gw_sources *sources; /* borrowed */
    struct gw_frozen frozen;
    bool spoiled;                   /* a limit was spent: do not call again */
    int policy_ref;                 /* the policy's table */
    int env_ref;                    /* the environment before it was sealed, for the test runner */
    int hooks[GW_HOOK_COUNT];       /* LUA_NOREF: absent */
    char lines[GW_HOOK_COUNT][160]; /* FILE:LINE */
    char name[128];                 /* the table's `name`, or "" */
};

/* Opens path from sources (reading what they lack, unless frozen), runs it within the limits and checks its
 * table. vm is zeroed memory of the caller; on failure nothing is left open. faults may be NULL.
 * Returns 0, -ENOENT, -EINVAL, -ETIME, -ENOMEM; err says FILE:LINE: what. */
int gw_vm_open(struct gw_vm *vm, struct gw_sources *sources, const char *path, const char *lua_dir,
               struct gw_faults *faults, struct gw_err *err);
/* Drops the state without closing it. A vm that is not open is fine. */
void gw_vm_drop(struct gw_vm *vm);

/* Calls fn(L) with ud as light userdata within the limits of one call. Returns 0, -EINVAL, -ETIME or -ENOMEM;
 * the latter two spoil the vm. */
int gw_vm_call(struct gw_vm *vm, lua_CFunction fn, void *ud, struct gw_err *err);

/* Reads an answer: value and reason are at idx and idx + 1. Raises what is wrong with it, without position.
 */
struct gw_answer_reader {
    void (*read)(lua_State *L, int idx, struct gw_answer_reader *self);
};

/* Asks hook h (which is not absent) with first, when it is not NULL, and facts; the reader takes the answer.
 * Returns as gw_vm_call(); err begins with FILE:LINE. */
int gw_vm_ask(struct gw_vm *vm, enum gw_hook h, const json_t *first, const json_t *facts,
              struct gw_answer_reader *reader, struct gw_err *err);
