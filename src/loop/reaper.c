#include "loop/reaper.h"

#include "base/str.h"
#include "os/proc.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <uv.h>

struct gw_reaper {
    uv_signal_t signal;
    bool (*ours)(void *ud, pid_t pid);
    void *ud;
};

/* One of ours that has ended hides the others from waitid(2) until whoever waits for it has it. */
static void look_behind(struct gw_reaper *r)
{
    static pid_t pids[4096];
    size_t n = gw_proc_children(pids, sizeof pids / sizeof *pids);
    for (size_t i = 0; i < n; i++)
        if (!r->ours(r->ud, pids[i]))
            (void)waitpid(pids[i], NULL, WNOHANG); // of one that still runs nothing is taken
}

static void on_child(uv_signal_t *handle, int number)
{
    struct gw_reaper *r = handle->data;
    for (;;) {
        siginfo_t si = {0};
        // libuv reaps what it has started, by pid; nobody may take that from it.
        if (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) < 0 || si.si_pid == 0)
            return;
        if (r->ours(r->ud, si.si_pid)) {
            look_behind(r);
            return;
        }
        if (waitpid(si.si_pid, NULL, WNOHANG) < 0)
            return;
    }
}

struct gw_reaper *gw_reaper_open(uv_loop_t *loop, bool (*ours)(void *ud, pid_t pid), void *ud)
{
    struct gw_reaper *r = gw_calloc(1, sizeof *r);
    r->ours = ours;
    r->ud = ud;
    r->signal.data = r;
    (void)uv_signal_init(loop, &r->signal);
    (void)uv_signal_start(&r->signal, on_child, SIGCHLD);
    uv_unref((uv_handle_t *)&r->signal);
    on_child(&r->signal, SIGCHLD); // who ended before
    return r;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

struct gw_reaper *gw_reaper_close(struct gw_reaper *r)
{
    if (r != NULL)
        uv_close((uv_handle_t *)&r->signal, on_closed);
    return NULL;
}
