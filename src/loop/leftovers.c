#include "loop/leftovers.h"

#include "base/str.h"
#include "base/time.h"
#include "loop/child.h"
#include "os/proc.h"

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <uv.h>

enum { LOOK_MS = 20, FORGET_MS = 10000, CHILDREN_MAX = 4096 };

struct hunt {
    char *mark; /* owned */
    uint64_t kill_at_ms, forget_at_ms;
    struct hunt *next;
};

static struct hunt *hunts;
static uv_timer_t *timer; /* runs while there are hunts; frees itself once it is closed */

void gw_leftovers_adopt(void)
{
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
}

/* Its end waits to be taken by whoever that is for; what it had started is ours by then. */
static bool is_dead(pid_t pid)
{
    siginfo_t si = {0};
    return waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && si.si_pid != 0;
}

/* Signals what carries the mark. Returns how many do; *ret_unsure: one is just ending, whose children are not ours yet. */
static unsigned look(const struct hunt *hunt, bool *ret_unsure)
{
    static pid_t pids[CHILDREN_MAX];
    unsigned found = 0;
    size_t n = gw_proc_children(pids, CHILDREN_MAX);
    int sig = gw_now_ms() >= hunt->kill_at_ms ? SIGKILL : SIGTERM;
    for (size_t i = 0; i < n; i++) {
        if (gw_child_owns(pids[i]))
            continue;
        // It is our child and nobody else reaps it, so the number is still its own.
        int has = gw_proc_has_mark(pids[i], GW_TASK_MARK, hunt->mark);
        if (has < 0) {
            *ret_unsure = *ret_unsure || !is_dead(pids[i]);
        } else if (has > 0) {
            (void)kill(pids[i], sig);
            found++;
        }
    }
    return found;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle);
}

static void look_again(void)
{
    for (struct hunt **p = &hunts, *hunt; (hunt = *p) != NULL;) {
        bool unsure = false;
        if ((look(hunt, &unsure) > 0 || unsure) && gw_now_ms() < hunt->forget_at_ms) {
            p = &hunt->next;
            continue;
        }
        *p = hunt->next;
        free(hunt->mark);
        free(hunt);
    }
    if (hunts == NULL && timer != NULL) {
        uv_close((uv_handle_t *)timer, on_closed);
        timer = NULL;
    }
}

static void on_timer(uv_timer_t *handle)
{
    look_again();
}

unsigned gw_leftovers_end(uv_loop_t *loop, const char *mark, unsigned grace_ms)
{
    uint64_t now = gw_now_ms();
    struct hunt first = {.mark = (char *)mark, .kill_at_ms = now + grace_ms, .forget_at_ms = now + grace_ms + FORGET_MS};
    bool unsure = false;
    unsigned found = look(&first, &unsure);
    if (found == 0 && !unsure)
        return 0;
    struct hunt *hunt = gw_calloc(1, sizeof *hunt);
    *hunt = first;
    hunt->mark = gw_strdup(mark);
    hunt->next = hunts;
    hunts = hunt;
    if (timer == NULL) {
        timer = gw_calloc(1, sizeof *timer);
        (void)uv_timer_init(loop, timer);
        (void)uv_timer_start(timer, on_timer, LOOK_MS, LOOK_MS);
    }
    return found;
}

void gw_leftovers_settle(unsigned max_ms)
{
    uint64_t until = gw_now_ms() + max_ms;
    for (struct hunt *h = hunts; h != NULL; h = h->next)
        h->kill_at_ms = 0;
    for (look_again(); hunts != NULL && gw_now_ms() < until; look_again())
        (void)poll(NULL, 0, 1);
}
