/* policy.h - the operator's rules: a Lua table of hooks, asked short questions.
 *
 * A policy is a Lua file that returns a table. It runs in a sandbox without luv, files, coroutines or
 * finalizers; a call may use 50 ms and 16 MiB. Whatever it does wrong, the host gets the built-in answer and
 * the words to log. Facts go in as one JSON object (so that a decision can be recorded, explained and
 * replayed), answers come out as checked structs. Loop thread only; a policy is asked by one thread. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct gw_err;
struct gw_policy;
struct gw_sources;

/* ---- life ---- */
/* Makes the timer that enforces deadlines, for the calling thread; once per process, before any load. */
int gw_policy_init(struct gw_err *err);
void gw_policy_fini(void);

/* Reads path and what it requires (modules beside it, gwhost.policy.* from lua_dir), runs it within the
 * limits of a call (reading files does not count) and checks hooks and `api`. On failure err says FILE:LINE:
 * what, and nothing else has changed. Returns 0 or a negative errno (-ENOENT, -EINVAL, -ETIME, -ENOMEM). */
int gw_policy_load(const char *path, const char *lua_dir, struct gw_policy **ret_policy, struct gw_err *err);
/* The same from what another process has read; what sources lack is read. Takes a reference of its own. */
int gw_policy_load_from(struct gw_sources *sources, const char *path, const char *lua_dir,
                        struct gw_policy **ret_policy, struct gw_err *err);
/* What it was loaded from, borrowed; NULL: the built-in one. */
const struct gw_sources *gw_policy_sources(const struct gw_policy *p);
/* A policy without hooks: every answer is the built-in one. */
struct gw_policy *gw_policy_builtin(void);
/* Loads again from p's kept sources (nothing is read from disk). */
int gw_policy_reopen(const struct gw_policy *p, struct gw_policy **ret_policy, struct gw_err *err);
/* NULL is fine; always NULL. */
struct gw_policy *gw_policy_free(struct gw_policy *p);

const char *gw_policy_path(const struct gw_policy *p);   /* absolute; "built-in" */
const char *gw_policy_sha256(const struct gw_policy *p); /* hex, over all its sources in order of reading */
const char *gw_policy_name(const struct gw_policy *p);   /* the table's `name`, else the file's base name */
int64_t gw_policy_loaded_at(const struct gw_policy *p);  /* Unix ms */

/* ---- questions ---- */
/* How an answer came about, for policy.decision and policy.hook_failed. */
struct gw_decision {
    char hook[32];
    char answer[128]; /* as text: "in_process", "60000", "true" */
    char why[256];  /* the policy's reason or ""; "built-in: REASON"; "the hook failed": a no after failing */
    char line[160]; /* FILE:LINE of the hook, or "" */
    uint64_t us;    /* how long it took */
    bool builtin;   /* the built-in answer was used */
    bool failed;    /* because the hook failed: error says how, naming file and line */
    char error[400];
};

enum gw_mode { GW_MODE_IN_PROCESS, GW_MODE_RESPAWN, GW_MODE_REEXEC, GW_MODE_SUPERVISED };
const char *gw_mode_name(enum gw_mode m);

#define GW_UNLIMITED INT64_MAX

struct gw_mode_answer {
    enum gw_mode mode;
    char exec[512];            /* "": none */
    int64_t health_timeout_ms; /* < 0: not said */
    int64_t exit_delay_ms;     /* < 0: not said */
};

struct gw_lane_budget {
    char lane[64];
    int64_t budget_ms;
};
struct gw_budget_answer {
    int64_t budget_ms;       /* GW_UNLIMITED: no end */
    int64_t report_every_ms; /* < 0: not said */
    bool accept_queue;
    struct gw_lane_budget lanes[16];
    unsigned lane_count;
};

enum gw_authorization { GW_DENY, GW_ALLOW, GW_WHEN_IDLE };

/* Each asks the hook with facts and fills *ret and *ret_decision, always: a hook that is absent or fails
 * means the built-in answer, which is computed from the facts alone (for authorize_sigusr1, a failing hook
 * means no). Facts are borrowed; `builtin` is set in them, and `now_ms` and `seed` (the frozen clock and
 * chance of this question) unless they are there: so facts that were recorded replay, and fresh ones are made
 * for each question. A state that spent its time or memory is made again from the kept sources before the
 * call returns. */
void gw_policy_restart_mode(struct gw_policy *p, json_t *facts, struct gw_mode_answer *ret,
                            struct gw_decision *ret_decision);
void gw_policy_drain_budget(struct gw_policy *p, json_t *facts, struct gw_budget_answer *ret,
                            struct gw_decision *ret_decision);
void gw_policy_authorize_sigusr1(struct gw_policy *p, json_t *facts, enum gw_authorization *ret,
                                 struct gw_decision *ret_decision);
/* blockers is an array (at most a few hundred shown; facts.blockers_total says how many there are). *ret_line
 * is the caller's, one line (control characters become spaces, at most 2,000 bytes), or NULL when there is
 * nothing to say. */
void gw_policy_format_blockers(struct gw_policy *p, json_t *blockers, json_t *facts, char **ret_line,
                               struct gw_decision *ret_decision);

/* ---- tools ---- */
/* The names of all hooks, ending with NULL. */
const char *const *gw_policy_hook_names(void);

/* Calls fault with "FILE:LINE: message" for everything that is wrong with the policy at path: what loading
 * finds, and what its hooks do wrong when they are asked about a few ordinary situations. Returns
 * how many. */
unsigned gw_policy_check(const char *path, const char *lua_dir, void (*fault)(void *ud, const char *text),
                         void *ud);

/* Runs the tests of the policy at path (its .lua replaced by _test.lua), each in a state of its own and
 * within the limits of a call; report gets each test's sentence and what was wrong, or NULL. Returns the
 * number of tests that failed, or a negative errno when there are none to run. */
int gw_policy_test(const char *path, const char *lua_dir,
                   void (*report)(void *ud, const char *sentence, const char *wrong), void *ud,
                   struct gw_err *err);
