#include "os/proc.h"

#include "base/str.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
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

static bool is_marked(const char *pid, const char *entry)
{
    char path[64];
    char text[65536];
    (void)snprintf(path, sizeof path, "/proc/%.20s/environ", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t n = 0, len = strlen(entry) + 1; // with its NUL
    for (ssize_t r; n < sizeof text && (r = read(fd, text + n, sizeof text - n)) > 0;)
        n += (size_t)r;
    (void)close(fd);
    for (size_t at = 0; at + len <= n; at += strnlen(text + at, n - at) + 1)
        if (memcmp(text + at, entry, len) == 0)
            return true;
    return false;
}

unsigned gw_proc_end_marked(const char *entry, unsigned max_ms)
{
    DIR *proc = opendir("/proc");
    unsigned found = 0;
    for (struct dirent *e; proc != NULL && (e = readdir(proc)) != NULL;) {
        int64_t pid;
        if (!gw_parse_int(e->d_name, 2, INT32_MAX, &pid) || pid == getpid() || !is_marked(e->d_name, entry))
            continue;
        // Through a descriptor, so that the number cannot have become another process meanwhile.
        int fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
        if (fd < 0)
            continue;
        if (is_marked(e->d_name, entry) && syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) == 0) {
            struct pollfd dead = {.fd = fd, .events = POLLIN};
            found++;
            (void)poll(&dead, 1, (int)max_ms);
        }
        (void)close(fd);
    }
    if (proc != NULL)
        (void)closedir(proc);
    return found;
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
