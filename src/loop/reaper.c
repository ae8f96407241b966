#include "loop/reaper.h"

#include "base/str.h"
#include "os/proc.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

struct gw_reaper {
    uv_signal_t signal;
    bool (*ours)(void *ud, pid_t pid);
    void *ud;
};

bool gw_reaper_needed(void)
{
    int subreaper = 0;
    return getpid() == 1 || (prctl(PR_GET_CHILD_SUBREAPER, &subreaper) == 0 && subreaper != 0);
}

/* One of ours that has ended hides the others from waitid(2) until whoever waits for it has it. */
static void look_behind(struct gw_reaper *r)
{
    DIR *all = opendir("/proc");
    for (struct dirent *e; all != NULL && (e = readdir(all)) != NULL;) {
        int64_t pid;
        struct gw_proc_facts facts;
        if (!gw_parse_int(e->d_name, 1, INT32_MAX, &pid) || !gw_proc_read((pid_t)pid, &facts))
            continue;
        // Of one that still runs nothing is taken.
        if (facts.ppid == getpid() && !r->ours(r->ud, (pid_t)pid))
            (void)waitpid((pid_t)pid, NULL, WNOHANG);
    }
    if (all != NULL)
        (void)closedir(all);
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
