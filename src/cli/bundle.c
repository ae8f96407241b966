#include "base/err.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/text.h"
#include "os/statedir.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: gwhost bundle list [--state-dir DIR]\n"
    "       gwhost bundle show [ID] [--state-dir DIR]\n"
    "Reports that hosts left when something went wrong: their ids, oldest first; one of them whole (the newest\n"
    "without ID; the beginning of an id will do when only one begins so). No host need run.\n";

enum { BUNDLE_BYTES = 16 << 20 };

static int is_bundle(const struct dirent *e)
{
    size_t n = strlen(e->d_name);
    return e->d_name[0] != '.' && n > 5 && strcmp(e->d_name + n - 5, ".json") == 0;
}

/* "2026-01-02T03-04-05-678Z-4711-gateway.restart_close_failed.json": time, pid, reason. */
static void list(struct dirent **all, int n)
{
    for (int i = 0; i < n; i++) {
        char id[256];
        gw_one_line(all[i]->d_name, strlen(all[i]->d_name) - 5, id, sizeof id);
        (void)puts(id);
    }
}

static const char *find(struct dirent **all, int n, const char *id, struct gw_err *err)
{
    const char *found = NULL;
    if (n == 0) {
        (void)gw_err_set(err, -ENOENT, "there are no bundles");
        return NULL;
    }
    if (id == NULL)
        return all[n - 1]->d_name;
    for (int i = 0; i < n; i++) {
        if (strncmp(all[i]->d_name, id, strlen(id)) != 0)
            continue;
        if (strcmp(all[i]->d_name + strlen(id), ".json") == 0)
            return all[i]->d_name;
        if (found != NULL) {
            (void)gw_err_set(err, -EEXIST, "more than one bundle begins with '%s'", id);
            return NULL;
        }
        found = all[i]->d_name;
    }
    if (found == NULL)
        (void)gw_err_set(err, -ENOENT, "no bundle is called '%s'", id);
    return found;
}

static int show(const char *dir, struct dirent **all, int n, const char *id, struct gw_err *err)
{
    const char *name = find(all, n, id, err);
    if (name == NULL)
        return gw_text_failed(err);
    char *path = gw_asprintf("%s/%s", dir, name), *text = NULL;
    size_t size = 0;
    int rc = gw_file_read(path, BUNDLE_BYTES, &text, &size, err);
    free(path);
    if (rc < 0)
        return gw_text_failed(err);
    (void)fwrite(text, 1, size, stdout);
    if (size == 0 || text[size - 1] != '\n')
        (void)puts("");
    free(text);
    return GW_CLI_OK;
}

int gw_cli_bundle(int argc, char **argv)
{
    struct gw_cli_args args = {.command = "bundle", .usage = usage, .words = true};
    const struct gw_cli_option options[] = {{0}};
    int code = gw_cli_options(&args, options, argc, argv);
    if (code >= 0)
        return code;
    const char *verb = args.argc > 0 ? args.argv[0] : "";
    bool lists = strcmp(verb, "list") == 0;
    if (!lists && strcmp(verb, "show") != 0)
        return gw_cli_misused(&args, "it takes list or show", NULL);
    // Options may stand behind the verb too.
    if ((code = gw_cli_options(&args, options, args.argc, args.argv)) >= 0)
        return code;
    if (args.argc > (lists ? 0 : 1))
        return gw_cli_misused(&args, "it takes no such word", args.argv[args.argc - 1]);
    struct gw_err err = {0};
    char *state = NULL;
    if (gw_statedir_choose(args.state_dir, &state, &err) < 0)
        return gw_text_failed(&err);
    char *dir = gw_asprintf("%s/bundles", state);
    struct dirent **all = NULL;
    int n = scandir(dir, &all, is_bundle, alphasort);
    if (n < 0 && errno != ENOENT) {
        (void)gw_err_set(&err, -errno, "cannot read '%s': %s", dir, gw_strerror(errno));
        code = gw_text_failed(&err);
    } else if (lists) {
        list(all, n);
        code = GW_CLI_OK;
    } else {
        code = show(dir, all, n < 0 ? 0 : n, args.argc > 0 ? args.argv[0] : NULL, &err);
    }
    for (int i = 0; i < n; i++)
        free(all[i]);
    free(all);
    free(dir);
    free(state);
    return code;
}
