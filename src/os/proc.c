#include "os/proc.h"

#include "base/str.h"
#include "base/time.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

bool gw_proc_read(pid_t pid, struct gw_proc_facts *ret)
{
    char path[64], text[1024];
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    (void)close(fd);
    if (n <= 0)
        return false;
    text[n] = '\0';
    // comm may hold anything, brackets too: the fields begin behind the last one.
    char *open_at = strchr(text, '('), *close_at = strrchr(text, ')');
    if (open_at == NULL || close_at == NULL || close_at < open_at)
        return false;
    struct gw_proc_facts facts = {0};
    int ppid;
    unsigned long long start;
    if (sscanf(close_at + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
               &ppid, &start) != 2)
        return false;
    facts.ppid = ppid;
    facts.start_time = start;
    size_t len = (size_t)(close_at - open_at - 1);
    memcpy(facts.comm, open_at + 1, len < sizeof facts.comm ? len : sizeof facts.comm - 1);
    (void)snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
    n = readlink(path, facts.exe, sizeof facts.exe - 1);
    if (n < 0)
        facts.exe[0] = '\0';
    *ret = facts;
    return true;
}

int gw_proc_descends(const struct gw_proc_facts *facts, pid_t ancestor)
{
    struct gw_proc_facts up = *facts;
    if (up.ppid == 1 && ancestor != 1)
        return -1; // an orphan has lost its past
    for (int depth = 0; depth < 64 && up.ppid > 0; depth++) {
        if (up.ppid == ancestor)
            return 1;
        if (up.ppid == 1)
            return 0;
        if (!gw_proc_read(up.ppid, &up))
            return -1;
    }
    return 0;
}

/* Without the kernel's list: a walk through all of /proc. */
static size_t children_by_walk(pid_t *ret_pids, size_t max)
{
    size_t n = 0;
    DIR *all = opendir("/proc");
    for (struct dirent *e; all != NULL && n < max && (e = readdir(all)) != NULL;) {
        int64_t pid;
        struct gw_proc_facts facts;
        if (gw_parse_int(e->d_name, 1, INT32_MAX, &pid) && gw_proc_read((pid_t)pid, &facts) && facts.ppid == getpid())
            ret_pids[n++] = (pid_t)pid;
    }
    if (all != NULL)
        (void)closedir(all);
    return n;
}

size_t gw_proc_children(pid_t *ret_pids, size_t max)
{
    size_t n = 0;
    bool listed = false;
    DIR *threads = opendir("/proc/self/task");
    for (struct dirent *e; threads != NULL && (e = readdir(threads)) != NULL;) {
        char path[64];
        (void)snprintf(path, sizeof path, "/proc/self/task/%.20s/children", e->d_name);
        FILE *list = e->d_name[0] == '.' ? NULL : fopen(path, "re");
        listed = listed || list != NULL;
        for (int pid; list != NULL && n < max && fscanf(list, "%d", &pid) == 1;)
            ret_pids[n++] = pid;
        if (list != NULL)
            (void)fclose(list);
    }
    if (threads != NULL)
        (void)closedir(threads);
    return listed ? n : children_by_walk(ret_pids, max);
}

/* Which of values the process has under name in its environment; -1: none, -2: it has no environment that could be read. */
static int mark_of(const char *pid, const char *name, const char *const *values, size_t n_values)
{
    char path[64];
    char text[65536];
    (void)snprintf(path, sizeof path, "/proc/%.20s/environ", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -2;
    size_t n = 0, len = strlen(name);
    for (ssize_t r; n < sizeof text && (r = read(fd, text + n, sizeof text - n)) > 0;)
        n += (size_t)r;
    (void)close(fd);
    for (size_t at = 0, size; at < n; at += size + 1) {
        size = strnlen(text + at, n - at);
        if (size <= len || text[at + len] != '=' || memcmp(text + at, name, len) != 0)
            continue;
        for (size_t i = 0; i < n_values; i++)
            if (strlen(values[i]) == size - len - 1 && memcmp(text + at + len + 1, values[i], size - len - 1) == 0)
                return (int)i;
    }
    return n == 0 ? -2 : -1;
}

int gw_proc_has_mark(pid_t pid, const char *name, const char *value)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%d", (int)pid);
    int which = mark_of(text, name, &value, 1);
    return which == 0 ? 1 : which == -1 ? 0 : -1;
}

void gw_proc_end_marked(const char *name, const char *const *values, size_t n, unsigned max_ms, unsigned *ret_ended)
{
    DIR *proc = opendir("/proc");
    uint64_t until = gw_now_ms() + max_ms;
    for (struct dirent *e; proc != NULL && (e = readdir(proc)) != NULL;) {
        int64_t pid;
        if (!gw_parse_int(e->d_name, 2, INT32_MAX, &pid) || pid == getpid() ||
            mark_of(e->d_name, name, values, n) < 0)
            continue;
        // Through a descriptor, so that the number cannot have become another process meanwhile.
        int fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
        if (fd < 0)
            continue;
        int i = mark_of(e->d_name, name, values, n);
        if (i >= 0 && syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) == 0) {
            struct pollfd dead = {.fd = fd, .events = POLLIN};
            uint64_t now = gw_now_ms();
            ret_ended[i]++;
            (void)poll(&dead, 1, now < until ? (int)(until - now) : 0);
        }
        (void)close(fd);
    }
    if (proc != NULL)
        (void)closedir(proc);
}

void gw_proc_exec(int (*exec)(const char *file, char *const *argv, char *const *env), const char *file,
                  char *const *argv, char *const *env)
{
    static const struct timespec pause = {.tv_nsec = 5000000};
    for (int tries = 0; tries < 20; tries++) {
        (void)exec(file, argv, env);
        if (errno != ETXTBSY)
            return;
        (void)nanosleep(&pause, NULL);
    }
    errno = ETXTBSY;
}

void gw_proc_fill_stdio(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd < 3);
    if (fd >= 3)
        (void)close(fd);
}

uint64_t gw_proc_raise_nofile(void)
{
    struct rlimit rl;
    if (getrlimit(RLIMIT_NOFILE, &rl) < 0)
        return 1024;
    uint64_t old = rl.rlim_cur;
    rl.rlim_cur = rl.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &rl);
    return old;
}

unsigned gw_proc_nofile(void)
{
    struct rlimit rl;
    if (getrlimit(RLIMIT_NOFILE, &rl) < 0)
        return 1024;
    return rl.rlim_cur < 1000000 ? (unsigned)rl.rlim_cur : 1000000;
}

void gw_proc_grow_table(unsigned descriptors)
{
    unsigned limit = gw_proc_nofile();
    int fd = fcntl(0, F_DUPFD_CLOEXEC, (int)(descriptors < limit ? descriptors : limit) - 1);
    if (fd >= 0)
        (void)close(fd);
}
