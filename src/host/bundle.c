/* bundle.c - a report about something that went wrong, for whoever looks at it later. */
#include "host/inside.h"

#include "os/statedir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BUNDLES_KEPT = 20 };

static int is_bundle(const struct dirent *e)
{
    size_t n = strlen(e->d_name);
    return e->d_name[0] != '.' && n > 5 && strcmp(e->d_name + n - 5, ".json") == 0;
}

/* The names begin with the time, so the oldest come first. */
static void prune(const char *dir, int dir_fd)
{
    struct dirent **list = NULL;
    int n = scandir(dir, &list, is_bundle, alphasort);
    for (int i = 0; i < n; i++) {
        if (i < n - BUNDLES_KEPT)
            (void)unlinkat(dir_fd, list[i]->d_name, 0);
        free(list[i]);
    }
    free(list);
}

static char *name_of(const char *reason)
{
    int64_t now = gw_wall_ms();
    time_t seconds = (time_t)(now / 1000);
    struct tm tm;
    char stamp[32];
    (void)gmtime_r(&seconds, &tm);
    (void)strftime(stamp, sizeof stamp, "%Y-%m-%dT%H-%M-%S", &tm);
    return gw_asprintf("%s-%03dZ-%d-%s.json", stamp, (int)(now % 1000), (int)getpid(), reason);
}

char *gw_bundle_of(struct gw_host *h, int pid)
{
    char *dir = gw_asprintf("%s/bundles", h->options.state_dir), *mark = gw_asprintf("Z-%d-", pid), *found = NULL;
    DIR *d = opendir(dir);
    for (const struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        if (strstr(e->d_name, mark) == NULL || (found != NULL && strcmp(e->d_name, found) < 0))
            continue;
        free(found);
        found = gw_strdup(e->d_name); // names begin with their time
    }
    if (d != NULL)
        (void)closedir(d);
    char *path = found != NULL ? gw_asprintf("%s/%s", dir, found) : NULL;
    free(found);
    free(mark);
    free(dir);
    return path;
}

void gw_bundle_write(struct gw_host *h, const char *reason, const struct gw_err *err)
{
    char *dir = gw_asprintf("%s/bundles", h->options.state_dir), *name = name_of(reason);
    char *path = gw_asprintf("%s/%s", dir, name);
    json_t *o = json_object();
    gw_json_set(o, "version", json_integer(1));
    gw_json_set(o, "reason", json_string(reason));
    gw_json_set(o, "ts", json_integer(gw_wall_ms()));
    gw_json_set(o, "gwhost", json_string(h->options.version));
    gw_json_set(o, "pid", json_integer(getpid()));
    gw_json_set(o, "boot_id", json_string(h->boot_id));
    gw_json_set(o, "generation", json_integer(h->generation));
    gw_json_set(o, "state", json_string(gw_state_public(h->state)));
    gw_json_set(o, "error", err != NULL ? gw_json_string(err->text) : NULL);
    gw_json_set(o, "application", gw_json_string(h->options.app));
    if (h->policy != NULL)
        gw_json_set(o, "policy",
                    json_pack("{soss}", "path", gw_json_string(gw_policy_path(h->policy)), "sha256",
                              gw_policy_sha256(h->policy)));
    gw_json_set(o, "work", gw_facts_work(h));
    gw_json_set(o, "restart", gw_restart_json(gw_sched_current(h->sched)));
    char *text = json_dumps(o, JSON_INDENT(2));
    struct gw_err failure = {0};
    int fd = -1;
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        gw_err_set(&failure, -errno, "cannot make '%s': %s", dir, gw_strerror(errno));
    else if ((fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)) < 0)
        gw_err_set(&failure, -errno, "cannot open '%s': %s", dir, gw_strerror(errno));
    else if (text == NULL || gw_file_write(fd, name, text, strlen(text), 0600, false, &failure) < 0)
        gw_err_prefix(&failure, "bundle");
    if (failure.code != 0) {
        gw_log(GW_WARN, "bundle.failed", json_pack("{so}", "error", gw_json_string(failure.text)),
               "the report could not be written");
    } else {
        h->bundles_written++;
        prune(dir, fd);
        gw_log(GW_WARN, "bundle.written", json_pack("{soss}", "path", gw_json_string(path), "reason", reason),
               "a report is in %s", path);
    }
    if (fd >= 0)
        (void)close(fd);
    free(text);
    json_decref(o);
    free(path);
    free(name);
    free(dir);
}
