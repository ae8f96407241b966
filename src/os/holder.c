#include "os/holder.h"

#include "base/err.h"
#include "base/json.h"
#include "os/proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

/* "lock:	1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF": whether it is one of inode ino. */
static bool line_locks(const char *line, unsigned long ino)
{
    unsigned long found;
    unsigned major, minor;
    return sscanf(line, "lock: %*s FLOCK %*s %*s %*d %x:%x:%lu", &major, &minor, &found) == 3 && found == ino;
}

/* Whether a descriptor of pid belongs to the open file that holds the lock. A successor that was given the
 * descriptor shares it, while /proc/locks goes on naming the process that once took it. */
static bool shares_lock(pid_t pid, unsigned long ino)
{
    char path[320], line[256];
    (void)snprintf(path, sizeof path, "/proc/%d/fdinfo", (int)pid);
    DIR *all = opendir(path);
    bool found = false;
    for (struct dirent *e; all != NULL && !found && (e = readdir(all)) != NULL;) {
        if (e->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof path, "/proc/%d/fdinfo/%s", (int)pid, e->d_name);
        FILE *info = fopen(path, "re");
        while (info != NULL && !found && fgets(line, sizeof line, info) != NULL)
            found = line_locks(line, ino);
        if (info != NULL)
            (void)fclose(info);
    }
    if (all != NULL)
        (void)closedir(all);
    return found;
}

/* Looks by trying to share it, which two onlookers can do at the same time. */
static bool is_held(int dir_fd)
{
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool held = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
    if (fd >= 0)
        (void)close(fd);
    return held;
}

static bool read_note(int dir_fd, pid_t *ret_pid, uint64_t *ret_start_time)
{
    char text[4096];
    int fd = openat(dir_fd, "gwhost.lock", O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : -1;
    if (fd >= 0)
        (void)close(fd);
    json_t *o = NULL;
    if (n <= 0 || gw_json_parse(text, (size_t)n, &o, NULL) < 0)
        return false;
    json_int_t pid = json_integer_value(json_object_get(o, "pid"));
    json_int_t start = json_integer_value(json_object_get(o, "start_time"));
    json_decref(o);
    if (pid <= 0 || pid > INT32_MAX || start <= 0)
        return false;
    *ret_pid = (pid_t)pid;
    *ret_start_time = (uint64_t)start;
    return true;
}

int gw_holder_open(int dir_fd, int *ret_pidfd, pid_t *ret_pid, struct gw_err *err)
{
    struct stat st;
    pid_t pid;
    uint64_t start_time;
    if (!is_held(dir_fd))
        return gw_err_set(err, -ESRCH, "nobody holds the lock of the state directory");
    if (fstat(dir_fd, &st) < 0 || !read_note(dir_fd, &pid, &start_time))
        return gw_err_set(err, -EUCLEAN, "the lock is held, but gwhost.lock does not tell by whom");
    int fd = pidfd_open(pid, 0);
    struct gw_proc_facts facts;
    // Looked at after the descriptor was had: from here on the pid cannot come to mean another process unnoticed.
    if (fd < 0 || !gw_proc_read(pid, &facts) || facts.start_time != start_time || !shares_lock(pid, st.st_ino)) {
        if (fd >= 0)
            (void)close(fd);
        return gw_err_set(err, -EUCLEAN, "the lock is held, but not by pid %d, which gwhost.lock names", (int)pid);
    }
    *ret_pidfd = fd;
    *ret_pid = pid;
    return 0;
}

int gw_holder_signal(int pidfd, int signal, struct gw_err *err)
{
    if (pidfd_send_signal(pidfd, signal, NULL, 0) < 0)
        return gw_err_set(err, -errno, "cannot signal it: %s", gw_strerror(errno));
    return 0;
}
