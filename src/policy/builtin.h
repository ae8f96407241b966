/* builtin.h - what is decided when a policy says nothing: answers computed from the facts alone.
 *
 * policies/restart.lua spells the same rules out in Lua, and its tests compare the two. ret_why gets a few
 * words, or "". */
#pragma once

#include "policy/policy.h"
#include "policy/vm.h"

#include <stddef.h>

enum { GW_DRAIN_BUDGET_MS = 300000 };

enum gw_mode gw_builtin_mode(const json_t *facts, const char **ret_why);
int64_t gw_builtin_budget(const json_t *facts, const char **ret_why);
enum gw_authorization gw_builtin_authorization(const json_t *facts, const char **ret_why);
/* One line, the caller's, or NULL when there are no blockers. */
char *gw_builtin_line(const json_t *blockers, const json_t *facts);

/* The built-in answer of h as a policy sees it in ctx.builtin; blockers only for format_blockers. The
 * caller's reference. */
json_t *gw_builtin_json(enum gw_hook h, const json_t *blockers, const json_t *facts);
