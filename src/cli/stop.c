#include "base/err.h"
#include "base/json.h"
#include "base/time.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/text.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

static const char stop_usage[] = "usage: gwhost stop [--no-wait] [--state-dir DIR]\n"
                                 "Stops the running host and waits for its end.\n"
                                 "Under a supervisor that would start it again: refused, with the supervisor's command.\n";

static const char reload_usage[] = "usage: gwhost reload [--back] [--state-dir DIR]\n"
                                   "Loads the policy afresh, as SIGHUP does; --back: goes back to the version before.\n";

enum { GONE_MS = 30000, UNKNOWN = -1 };

/* Takes in events to the end of the connection; returns the exit code that the host announced, or UNKNOWN. */
static int wait_lost(struct gw_client *c, struct gw_progress *p, struct gw_err *err)
{
    for (int code = UNKNOWN;;) {
        json_t *event = NULL;
        gw_progress_draw(p);
        int rc = gw_client_event(c, gw_progress_due(p), &event, err);
        if (rc == -ETIMEDOUT)
            continue;
        if (rc < 0)
            return code;
        const char *name = json_string_value(json_object_get(event, "event"));
        gw_progress_event(p, event);
        if (name != NULL && strcmp(name, "host.exiting") == 0)
            code = (int)json_integer_value(json_object_get(event, "code"));
        json_decref(event);
    }
}

/* The connection goes a little before the process does. */
static bool wait_gone(int pidfd)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    int n;
    do
        n = poll(&p, 1, GONE_MS);
    while (n < 0 && errno == EINTR);
    return n > 0;
}

/* Says how it ended; returns our exit code. */
static int show_end(pid_t pid, bool gone, int exited, struct gw_err *err)
{
    if (!gone)
        (void)gw_err_set(err, -ETIMEDOUT, "pid %d has closed its socket but has not ended", (int)pid);
    else if (exited > 0)
        (void)gw_err_set(err, -EIO, "pid %d has stopped, with exit code %d", (int)pid, exited);
    else if (exited == UNKNOWN)
        (void)gw_err_set(err, -EIO, "pid %d has ended without a word: its log or 'gwhost bundle show' may tell why",
                         (int)pid);
    if (!gone || exited != 0)
        return gw_text_failed(err);
    (void)printf("pid %d has stopped\n", (int)pid);
    return GW_CLI_OK;
}

static int stop(struct gw_client *c, bool no_wait, struct gw_err *err)
{
    struct gw_progress p;
    json_t *answer = NULL;
    gw_progress_init(&p, no_wait);
    int pidfd = pidfd_open(c->pid, 0);
    int code = GW_CLI_OK, rc = no_wait ? 0 : gw_client_follow(c, err);
    if (rc == 0)
        rc = gw_client_call(c, "stop", NULL, &answer, err);
    json_decref(answer);
    if (rc < 0) {
        code = gw_text_failed(err);
    } else if (no_wait) {
        (void)printf("pid %d stops\n", (int)c->pid);
    } else {
        int exited = wait_lost(c, &p, err);
        gw_progress_end(&p);
        code = show_end(c->pid, pidfd < 0 || wait_gone(pidfd), exited, err);
    }
    if (pidfd >= 0)
        (void)close(pidfd);
    return code;
}

int gw_cli_stop(int argc, char **argv)
{
    struct gw_cli_args args = {.command = "stop", .usage = stop_usage};
    bool no_wait = false;
    const struct gw_cli_option options[] = {{"no-wait", NULL, &no_wait}, {0}};
    int code = gw_cli_options(&args, options, argc, argv);
    if (code >= 0)
        return code;
    struct gw_client c;
    struct gw_err err = {0};
    if (gw_client_open(&c, args.state_dir, &err) < 0)
        code = gw_text_failed(&err);
    else
        code = stop(&c, no_wait, &err);
    gw_client_fini(&c);
    return code;
}

int gw_cli_reload(int argc, char **argv)
{
    struct gw_cli_args args = {.command = "reload", .usage = reload_usage};
    bool back = false;
    const struct gw_cli_option options[] = {{"back", NULL, &back}, {0}};
    int code = gw_cli_options(&args, options, argc, argv);
    if (code >= 0)
        return code;
    struct gw_client c;
    struct gw_err err = {0};
    json_t *answer = NULL, *request = json_object();
    if (back)
        gw_json_set(request, "back", json_true());
    int rc = gw_client_open(&c, args.state_dir, &err);
    if (rc == 0) // going back twice would be another version
        rc = back ? gw_client_call(&c, "reload", json_incref(request), &answer, &err)
                  : gw_client_insist(&c, "reload", request, &answer, &err);
    json_decref(request);
    if (rc < 0) {
        code = gw_text_failed(&err);
    } else {
        char name[128], path[512], sha[80];
        bool unchanged = json_is_true(json_object_get(answer, "unchanged"));
        (void)printf("policy %s is loaded%s: %s, sha256 %.12s\n", gw_text_of(answer, "name", "?", name, sizeof name),
                     unchanged ? ", unchanged" : "", gw_text_of(answer, "path", "?", path, sizeof path),
                     gw_text_of(answer, "sha256", "?", sha, sizeof sha));
        code = GW_CLI_OK;
    }
    json_decref(answer);
    gw_client_fini(&c);
    return code;
}
