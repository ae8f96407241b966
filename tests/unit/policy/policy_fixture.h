/* policy_fixture.h - what the unit tests of policies share. */
#pragma once

#include "base/err.h"
#include "base/json.h"
#include "base/str.h"
#include "policy/policy.h"
#include "support/tempdir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define LUA_DIR SOURCE_DIR "/lua"
#define BROKEN(name) SOURCE_DIR "/tests/fixtures/policies/" name ".lua"

static inline json_t *facts(const char *more)
{
    char *text =
        gw_asprintf("{\"action\":\"restart\",\"pid\":4000,\"uid\":1000,\"force\":false,\"update\":false,"
                    "\"sender\":{\"pid\":4001,\"uid\":1000,\"descendant\":false},\"vars\":{}%s%s}",
                    *more != '\0' ? "," : "", more);
    // A fact that is given again replaces the one above, so duplicates are allowed here.
    json_t *v = json_loads(text, 0, NULL);
    free(text);
    assert_non_null(v);
    return v;
}

/* A policy in a file of its own, loaded. Fails the test when it does not load. */
static inline struct gw_policy *policy_of(const char *text)
{
    char path[64];
    tempdir_name(path, sizeof path, "gwhost-policy-XXXXXX.lua");
    int fd = mkstemps(path, 4);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    (void)close(fd);
    struct gw_policy *p = NULL;
    struct gw_err err = {0};
    int rc = gw_policy_load(path, LUA_DIR, &p, &err);
    (void)unlink(path);
    if (rc < 0)
        fail_msg("%s", err.text);
    return p;
}

static inline struct gw_decision ask_budget(struct gw_policy *p, const char *more,
                                            struct gw_budget_answer *ret)
{
    struct gw_decision d;
    json_t *f = facts(more);
    gw_policy_drain_budget(p, f, ret, &d);
    json_decref(f);
    return d;
}

static inline struct gw_decision ask_mode(struct gw_policy *p, const char *more, struct gw_mode_answer *ret)
{
    struct gw_decision d;
    json_t *f = facts(more);
    gw_policy_restart_mode(p, f, ret, &d);
    json_decref(f);
    return d;
}

static inline struct gw_decision ask_signal(struct gw_policy *p, const char *more, enum gw_authorization *ret)
{
    struct gw_decision d;
    json_t *f = facts(more);
    gw_policy_authorize_sigusr1(p, f, ret, &d);
    json_decref(f);
    return d;
}

static inline void assert_has(const char *text, const char *words)
{
    if (strstr(text, words) == NULL)
        fail_msg("'%s' is not in '%s'", words, text);
}

static inline int start_timer(void **state)
{
    struct gw_err err;
    return gw_policy_init(&err);
}

static inline int end_timer(void **state)
{
    gw_policy_fini();
    return 0;
}
