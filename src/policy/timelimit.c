#include "policy/timelimit.h"

#include "base/err.h"
#include "base/time.h"
#include "script/door.h"

#include <errno.h>
#include <lauxlib.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SOFT_US = GW_DEADLINE_SOFT_MS * 1000, HARD_US = GW_DEADLINE_HARD_MS * 1000, CPU_WEIGHT = 4 };

// Shared between the asking thread and the handler that interrupts it, so never seen by two processors.
static struct {
    timer_t timer;
    bool made;
    lua_State *volatile running;       /* borrowed; NULL: no call */
    volatile uint64_t wall_us, cpu_us; /* both clocks when the call began */
    uint64_t paused_wall_us, paused_cpu_us;
    volatile sig_atomic_t struck; /* the hook is set */
    volatile sig_atomic_t due;    /* a jump waits for the release */
    volatile sig_atomic_t held;
    volatile sig_atomic_t paused;
    sigjmp_buf out;
} deadline;

static uint64_t cpu_now_us(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t spent_us(void)
{
    uint64_t wall = gw_now_us() - deadline.wall_us, cpu = (cpu_now_us() - deadline.cpu_us) * CPU_WEIGHT;
    return cpu < wall ? cpu : wall;
}

/* One strike in us microseconds; 0: none. Safe in a handler. */
static void arm(uint64_t us)
{
    struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000 * 1000)}};
    (void)timer_settime(deadline.timer, 0, &when, NULL);
}

static void raise_over(lua_State *L, lua_Debug *ar)
{
    // It stays set: a pcall around it meets it again at the next instruction.
    lua_pushliteral(L, "ran longer than 50 ms");
    (void)lua_error(L);
}

static void on_timer(int sig, siginfo_t *info, void *context)
{
    if (info->si_code != SI_TIMER || deadline.running == NULL)
        return;
    int saved = errno;
    uint64_t spent = deadline.paused ? 0 : spent_us();
    if (spent < SOFT_US) {
        arm(SOFT_US - spent);
    } else if (spent < HARD_US || !deadline.struck) {
        lua_sethook(deadline.running, raise_over, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT,
                    1);
        deadline.struck = 1;
        // Raising gets its chance even when the first strike came late.
        arm(spent < SOFT_US + 5000 ? HARD_US - spent : HARD_US - SOFT_US - 5000);
    } else if (deadline.held > 0) {
        deadline.due = 1;
    } else {
        siglongjmp(deadline.out, 1);
    }
    errno = saved;
}

int gw_timelimit_init(struct gw_err *err)
{
    gw_assert(!deadline.made);
    struct sigaction sa = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO | SA_RESTART};
    (void)sigemptyset(&sa.sa_mask);
    if (sigaction(SIGRTMIN + 2, &sa, NULL) < 0)
        return gw_err_set(err, -errno, "policy timer: %s", gw_strerror(-errno));
    sigset_t mine;
    (void)sigemptyset(&mine);
    (void)sigaddset(&mine, SIGRTMIN + 2);
    int rc = -pthread_sigmask(SIG_UNBLOCK, &mine, NULL);
    if (rc < 0)
        return gw_err_set(err, rc, "policy timer: %s", gw_strerror(rc));
    struct sigevent ev;
    memset(&ev, 0, sizeof ev);
    ev.sigev_notify = SIGEV_THREAD_ID;
    ev.sigev_signo = SIGRTMIN + 2;
    ev._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    if (timer_create(CLOCK_MONOTONIC, &ev, &deadline.timer) < 0)
        return gw_err_set(err, -errno, "policy timer: %s", gw_strerror(-errno));
    deadline.made = true;
    return 0;
}

void gw_timelimit_fini(void)
{
    if (!deadline.made)
        return;
    (void)timer_delete(deadline.timer);
    (void)signal(SIGRTMIN + 2, SIG_IGN);
    deadline.made = false;
}

int gw_timelimit_call(lua_State *L, lua_CFunction fn, void *ud, bool *ret_left, struct gw_err *err)
{
    gw_assert(deadline.made && deadline.running == NULL);
    int rc;
    deadline.struck = deadline.due = deadline.held = deadline.paused = 0;
    deadline.wall_us = gw_now_us();
    deadline.cpu_us = cpu_now_us();
    if (sigsetjmp(deadline.out, 1) == 0) {
        deadline.running = L;
        arm(SOFT_US);
        rc = gw_lua_protect(L, fn, ud, err);
        deadline.running = NULL;
        arm(0);
        lua_sethook(L, NULL, 0, 0);
        *ret_left = false;
        if (rc == 0 || !deadline.struck)
            return rc;
        if (rc == -ENOMEM) // not even the words of the hook fitted
            return gw_err_set(err, -ETIME, "ran longer than %d ms", GW_DEADLINE_SOFT_MS);
        if (err != NULL)
            err->code = -ETIME;
        return -ETIME;
    }
    deadline.running = NULL;
    arm(0);
    *ret_left = true;
    return gw_err_set(err, -ETIME, "ran longer than %d ms in code that cannot be interrupted",
                      GW_DEADLINE_HARD_MS);
}

void gw_timelimit_hold(void)
{
    deadline.held++;
}

void gw_timelimit_release(void)
{
    gw_assert(deadline.held > 0);
    if (--deadline.held == 0 && deadline.due && deadline.running != NULL)
        siglongjmp(deadline.out, 1);
}

void gw_timelimit_pause(void)
{
    gw_timelimit_hold();
    deadline.paused = 1;
    deadline.paused_wall_us = gw_now_us();
    deadline.paused_cpu_us = cpu_now_us();
}

void gw_timelimit_resume(void)
{
    deadline.cpu_us += cpu_now_us() - deadline.paused_cpu_us;
    deadline.wall_us += gw_now_us() - deadline.paused_wall_us;
    deadline.paused = 0;
    gw_timelimit_release();
}
