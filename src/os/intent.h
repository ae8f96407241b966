/* intent.h - restart-intent.json: what the signal that follows shall mean.
 *
 * One-shot: whoever takes it removes it, whatever it says. The file only counts when nobody but us or root can
 * have written it, and when it was written for this process a moment ago. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct gw_err;

enum { GW_INTENT_BYTES = 1024, GW_INTENT_AGE_MS = 60000 };

struct gw_intent {
    pid_t pid; /* the host that it is for */
    int64_t created_at_ms;
    int64_t wait_ms; /* drain budget, 0: unlimited; -1: not said */
    bool force;
    char reason[GW_INTENT_BYTES]; /* "" when not said */
};

/* Takes and removes the intent in the state directory. Returns 0, -ENOENT when there is none, or -EPERM when it
 * is refused: ret_rule then names the rule that failed (rename, type, link, open, links, owner, mode, size, json,
 * duplicate, object, unknown, kind, pid, age, reason, force, wait_ms) and err says it in words.
 * A folder in its place that is not empty is kept under another name. */
int gw_intent_take(int dir_fd, pid_t pid, int64_t now_ms, struct gw_intent *ret, char ret_rule[32],
                   struct gw_err *err);

/* Writes it whole, over one that waits. -EINVAL when it would be refused for its size or its reason. */
int gw_intent_write(int dir_fd, const struct gw_intent *intent, struct gw_err *err);

/* Removes one that was put there before that moment (Unix ms). Returns 1 when there was one, 0, or a negative errno. */
int gw_intent_clear_before(int dir_fd, int64_t ms, struct gw_err *err);

/* Removes it unread; none is fine. */
int gw_intent_clear(int dir_fd, struct gw_err *err);
