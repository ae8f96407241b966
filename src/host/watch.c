/* watch.c - --watch: the policy in force is the one on disk, however that has changed; so is the token.
 *
 * What is compared is what a load would read: every file of the policy, by its own path through whatever links and
 * folders lead to it, and every file that was looked for and is not there. A few stat(2) twice a second see an edit in
 * place, a rename over it, a link or a folder that was swapped, on any file system, and without any of the kernel's
 * watches, of which there may be none left. */
#include "host/inside.h"

#include "base/sha.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { LOOK_MS = 500, SETTLE_MS = 100 };

struct watch {
    struct gw_sources *seen; /* reference: what the last load has read, and missed; NULL: there was none yet */
    bool known;              /* sign is that of `seen`, taken before it was read */
    char sign[65], next[65]; /* next: what may become it once it stays the same */
    char sha256[65];         /* of what was loaded last; "": it could not be */
    char said[sizeof((struct gw_err *)0)->text]; /* why not, as it was told; "": nothing is wrong */
};

static void add_file(struct gw_buf *b, const char *path)
{
    struct stat st;
    gw_buf_addf(b, "%s=", path);
    if (stat(path, &st) < 0)
        gw_buf_addf(b, "%d\n", errno);
    else
        gw_buf_addf(b, "%ju %ju %jd %jd.%09ld %jd.%09ld\n", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino, (intmax_t)st.st_size,
                    (intmax_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (intmax_t)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
}

/* Of the token's file and of all that s has read and missed, as it is on disk now. */
static void sign_of(const struct gw_host *h, const struct gw_sources *s, char ret_hex[65])
{
    struct gw_buf all = {0};
    char *token = gw_token_path(h);
    if (token != NULL)
        add_file(&all, token);
    free(token);
    for (size_t i = 0; s != NULL && i < gw_sources_count(s); i++)
        add_file(&all, gw_sources_path(s, i));
    for (size_t i = 0; s != NULL && i < gw_sources_missing_count(s); i++)
        add_file(&all, gw_sources_missing(s, i));
    gw_sha256_hex(all.data != NULL ? all.data : "", all.len, ret_hex);
    gw_buf_fini(&all);
}

static bool same_files(const struct gw_sources *a, const struct gw_sources *b)
{
    if (a == NULL || gw_sources_count(a) != gw_sources_count(b) ||
        gw_sources_missing_count(a) != gw_sources_missing_count(b))
        return false;
    for (size_t i = 0; i < gw_sources_count(a); i++)
        if (strcmp(gw_sources_path(a, i), gw_sources_path(b, i)) != 0)
            return false;
    for (size_t i = 0; i < gw_sources_missing_count(a); i++)
        if (strcmp(gw_sources_missing(a, i), gw_sources_missing(b, i)) != 0)
            return false;
    return true;
}

static void take(struct gw_host *h)
{
    (void)gw_host_reload_policy(h, "watch", NULL);
    gw_drain_rebudget(h);
}

/* What is on disk stands still: takes it if it is something new, and says once what is wrong with it. */
static void load(struct gw_host *h)
{
    struct watch *w = h->watch;
    struct gw_sources *fresh = gw_sources_new();
    struct gw_policy *policy = NULL;
    struct gw_err err = {0};
    bool first = w->seen == NULL;
    if (!first && strcmp(w->sign, w->next) != 0) // once for each change: what cannot be used is said
        gw_token_renew(h);
    int rc = gw_policy_load_from(fresh, h->options.policy, h->options.lua_dir, &policy, &err);
    // What has come to be read now may have changed since it was looked at; trouble of the system passes without a sign.
    w->known = same_files(w->seen, fresh) && (rc == 0 || rc == -EINVAL || rc == -ENOENT);
    memcpy(w->sign, w->next, sizeof w->sign);
    if (rc == 0) {
        const char *sha256 = gw_policy_sha256(policy);
        bool in_force = strcmp(sha256, gw_policy_sha256(h->policy)) == 0;
        // Safe mode, or a version gone back to, is left by an edit and not by looking at the same file again.
        bool news = strcmp(sha256, w->sha256) != 0 && !in_force && !(first && h->safe_mode);
        bool mended = w->said[0] != '\0';
        memcpy(w->sha256, sha256, sizeof w->sha256);
        w->said[0] = '\0';
        if (news || mended)
            take(h);
    } else if ((rc != -ENOENT || gw_sources_count(fresh) > 0) && strcmp(w->said, err.text) != 0) { // one that is gone comes back
        w->sha256[0] = '\0';
        memcpy(w->said, err.text, sizeof w->said);
        take(h);
    }
    (void)gw_policy_free(policy);
    (void)gw_sources_unref(w->seen);
    w->seen = fresh;
}

static void on_look(uv_timer_t *timer)
{
    struct gw_host *h = timer->data;
    struct watch *w = h->watch;
    char now[65];
    bool stands = true;
    sign_of(h, w->seen, now);
    if (!w->known || strcmp(now, w->sign) != 0) {
        stands = strcmp(now, w->next) == 0;
        memcpy(w->next, now, sizeof now);
        if (stands && !h->departed && h->state != GW_EXITED)
            load(h);
    }
    (void)uv_timer_start(timer, on_look, stands ? LOOK_MS : SETTLE_MS, 0);
}

void gw_watch_open(struct gw_host *h)
{
    if (!h->options.watch || h->watch != NULL)
        return;
    h->watch = gw_calloc(1, sizeof *h->watch);
    (void)uv_timer_start(&h->watch_timer, on_look, SETTLE_MS, 0);
}

void gw_watch_close(struct gw_host *h)
{
    if (h->watch == NULL)
        return;
    (void)uv_timer_stop(&h->watch_timer);
    (void)gw_sources_unref(h->watch->seen);
    free(h->watch);
    h->watch = NULL;
}
