#include "os/proc.h"

#include "base/str.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
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

bool gw_proc_descends(pid_t pid, pid_t ancestor)
{
    struct gw_proc_facts facts;
    for (int depth = 0; depth < 64 && pid > 1; depth++) {
        if (!gw_proc_read(pid, &facts))
            return false;
        if (facts.ppid == ancestor)
            return true;
        pid = facts.ppid;
    }
    return false;
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

bool gw_proc_in_container(void)
{
    const char *named = getenv("container");
    return (named != NULL && *named != '\0') || access("/.dockerenv", F_OK) == 0 ||
           access("/run/.containerenv", F_OK) == 0;
}
