#include "cli/last_resort.h"

#include "base/err.h"
#include "base/time.h"
#include "cli/options.h"
#include "cli/text.h"
#include "os/holder.h"
#include "os/intent.h"
#include "os/statedir.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TAKEN_MS = 10000, LOOK_MS = 50 };

/* The host removes the intent when it looks at it. */
static bool was_taken(int dir_fd)
{
    return faccessat(dir_fd, "restart-intent.json", F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
}

static int wait_taken(int dir_fd, pid_t pid, struct gw_err *err)
{
    for (uint64_t deadline_ms = gw_now_ms() + TAKEN_MS; gw_now_ms() < deadline_ms; (void)poll(NULL, 0, LOOK_MS))
        if (was_taken(dir_fd))
            return 0;
    (void)gw_intent_clear(dir_fd, NULL);
    return gw_err_set(err, -ETIMEDOUT, "pid %d has SIGUSR1 but does not look at it: it is stuck, or its loop is busy. "
                      "The intent is removed again", (int)pid);
}

static int send_intent(int dir_fd, struct gw_intent *intent, bool wait, struct gw_err *err)
{
    int pidfd = -1;
    pid_t pid = 0;
    int rc = gw_holder_open(dir_fd, &pidfd, &pid, err);
    if (rc < 0)
        return rc;
    intent->pid = pid;
    intent->created_at_ms = gw_wall_ms();
    rc = gw_intent_write(dir_fd, intent, err);
    if (rc == 0 && (rc = gw_holder_signal(pidfd, SIGUSR1, err)) < 0)
        (void)gw_intent_clear(dir_fd, NULL);
    (void)close(pidfd);
    return rc == 0 && wait ? wait_taken(dir_fd, pid, err) : rc;
}

int gw_cli_last_resort(const char *state_dir, const char *reason, bool force, int64_t wait_ms, bool wait)
{
    struct gw_err err = {0};
    struct gw_intent intent = {.force = force, .wait_ms = wait_ms};
    char *dir = NULL;
    int dir_fd = -1, code = GW_CLI_FAILED;
    if (reason != NULL && strlen(reason) >= sizeof intent.reason) {
        (void)gw_err_set(&err, -EINVAL, "the reason is too long");
        return gw_text_failed(&err);
    }
    (void)snprintf(intent.reason, sizeof intent.reason, "%s", reason != NULL ? reason : "");
    if (gw_statedir_choose(state_dir, &dir, &err) < 0)
        return gw_text_failed(&err);
    dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        (void)gw_err_set(&err, -errno, "cannot open the state directory '%s': %s", dir, gw_strerror(errno));
    else if (send_intent(dir_fd, &intent, wait, &err) == 0)
        code = GW_CLI_OK;
    else
        (void)gw_err_prefix(&err, "%s", dir);
    if (code != GW_CLI_OK)
        (void)gw_text_failed(&err);
    else
        (void)printf(wait ? "pid %d has taken SIGUSR1 and the intent; its log tells what becomes of it\n"
                          : "SIGUSR1 and an intent are sent to pid %d\n", (int)intent.pid);
    if (dir_fd >= 0)
        (void)close(dir_fd);
    free(dir);
    return code;
}
