/* sources.c - reading the files of a generation, and of the policy, at the moments when that is done. */
#include "host/inside.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_MS = 2000 };

int gw_host_prepare_app(struct gw_host *h, struct gw_err *err)
{
    struct standby *s = &h->standby;
    // What a trial or a successor has read and proved is what runs, here too if it cannot. Another program's files are
    // not for this one: an image that it is come back to goes on with what served before.
    struct gw_sources *given = NULL;
    if (h->generation == 0)
        given = s->updates && s->went_back != NULL ? s->good : s->next;
    else if (h->next_app == NULL && !h->succession.update)
        given = h->next_sources;
    struct gw_sources *sources = given != NULL ? gw_sources_ref(given) : gw_sources_new();
    struct gw_app *app = NULL;
    if (h->env.ops == NULL)
        h->env.ops = gw_host_app_ops();
    // The file's main chunk runs in here, and may never return.
    gw_watchdog_arm(h, gw_now_ms() + GW_FORCED_EXIT_MS, "preparing",
                    h->generation == 0 ? "gateway.startup_failed" : "gateway.restart_shutdown_timeout");
    // … nor may it hold up for long what serves meanwhile.
    int rc = gw_lua_app_open(&h->env, sources, h->options.app, h->app != NULL ? CHUNK_MS : 0, &app, err);
    if (rc < 0) {
        (void)gw_sources_unref(sources);
        return rc;
    }
    if (h->next_app != NULL) {
        (void)h->next_app->class->release(h->next_app, 1000);
        h->next_app->class->free(h->next_app);
    }
    (void)gw_sources_unref(h->next_sources);
    h->next_app = app;
    h->next_sources = sources;
    if (h->good_sources == NULL && s->went_back != NULL && s->good != NULL)
        h->good_sources = gw_sources_ref(s->good);
    return 0;
}

int gw_host_first_policy(struct gw_host *h, struct gw_err *err)
{
    struct standby *s = &h->standby;
    int rc = gw_policy_load(h->options.policy, h->options.lua_dir, &h->policy, err);
    if (rc < 0) {
        gw_log(GW_ERROR, "policy.rejected",
               json_pack("{soso}", "path", gw_json_string(h->options.policy), "error", gw_json_string(err->text)),
               s->policy != NULL ? "the predecessor's stays in force; mend the line and run 'gwhost reload' (or send SIGHUP)"
                                 : "the policy cannot be used; nothing was started");
        if (s->policy != NULL)
            rc = gw_policy_load_from(s->policy, h->options.policy, h->options.lua_dir, &h->policy, err);
    }
    if (rc < 0)
        return rc;
    gw_log(GW_INFO, "policy.loaded",
           json_pack("{sososo}", "path", gw_json_string(gw_policy_path(h->policy)), "sha256",
                     json_string(gw_policy_sha256(h->policy)), "name", gw_json_string(gw_policy_name(h->policy))),
           "policy '%s' is in force", gw_policy_name(h->policy));
    return 0;
}

static void say_loaded(struct gw_host *h, const char *because, bool same)
{
    gw_log(GW_INFO, "policy.loaded",
           json_pack("{sosososs}", "path", gw_json_string(gw_policy_path(h->policy)), "sha256",
                     json_string(gw_policy_sha256(h->policy)), "name", gw_json_string(gw_policy_name(h->policy)),
                     "because", because),
           "policy '%s' is in force%s", gw_policy_name(h->policy), same ? ", unchanged" : "");
}

int gw_host_reload_policy(struct gw_host *h, const char *because, struct gw_err *err)
{
    struct gw_policy *fresh = NULL;
    struct gw_err own = {0};
    gw_token_renew(h); // whatever becomes of the policy
    bool by_hand = h->state == GW_RUNNING || h->state == GW_PREPARING || h->state == GW_DRAINING;
    if (h->safe_mode && by_hand && gw_policy_sources(h->policy) == NULL) { // else a restart has brought the file's back
        gw_err_set(err, -EPERM, "safe mode: the built-in policy stays in force until 'gwhost restart' leaves it");
        gw_log(GW_WARN, "policy.rejected",
               json_pack("{soss}", "path", gw_json_string(h->options.policy), "error", "safe mode"),
               "safe mode: the built-in policy stays in force until 'gwhost restart' leaves it");
        return -EPERM;
    }
    if (by_hand)
        gw_names_mend(h); // also what else an operator may want put right
    gw_supervision_reloading(h);
    int rc = gw_policy_load(h->options.policy, h->options.lua_dir, &fresh, &own);
    if (rc < 0) {
        gw_log(GW_ERROR, "policy.rejected",
               json_pack("{soso}", "path", gw_json_string(h->options.policy), "error", gw_json_string(own.text)),
               "the old policy stays in force; mend the line and run 'gwhost reload' (or send SIGHUP)");
        gw_supervision_reloaded(h, &own);
        return gw_err_set(err, rc, "%s", own.text);
    }
    bool same = strcmp(gw_policy_sha256(fresh), gw_policy_sha256(h->policy)) == 0;
    if (same) {
        (void)gw_policy_free(h->policy);
    } else {
        (void)gw_policy_free(h->older[POLICIES_KEPT - 1]);
        memmove(h->older + 1, h->older, (POLICIES_KEPT - 1) * sizeof *h->older);
        h->older[0] = h->policy;
    }
    h->policy = fresh;
    say_loaded(h, because, same);
    gw_supervision_reloaded(h, NULL);
    return 0;
}

int gw_host_policy_back(struct gw_host *h, struct gw_err *err)
{
    if (h->older[0] == NULL)
        return gw_err_set(err, -ENOENT, "there is no version before the policy that is in force");
    (void)gw_policy_free(h->policy);
    h->policy = h->older[0];
    memmove(h->older, h->older + 1, (POLICIES_KEPT - 1) * sizeof *h->older);
    h->older[POLICIES_KEPT - 1] = NULL;
    say_loaded(h, "back", false);
    return 0;
}
