#include "os/holder.h"

#include "base/err.h"
#include "base/json.h"
#include "base/str.h"
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
#include <sys/sysmacros.h>
#include <unistd.h>

/* What the kernel's table and /proc/PID/fdinfo call the directory's lock: "fe:01:1234". stat(2) may name another device
 * than that of the file system, so that is looked up by the mount. */
struct locked {
    unsigned major, minor;
    unsigned long ino;
};

static unsigned long mount_of(int fd)
{
    char path[64], line[128];
    unsigned long id = 0;
    (void)snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    FILE *info = fopen(path, "re");
    while (info != NULL && fgets(line, sizeof line, info) != NULL && sscanf(line, "mnt_id: %lu", &id) != 1)
        ;
    if (info != NULL)
        (void)fclose(info);
    return id;
}

static bool what_is_locked(int dir_fd, struct locked *ret)
{
    struct stat st;
    if (fstat(dir_fd, &st) < 0)
        return false;
    *ret = (struct locked){.major = major(st.st_dev), .minor = minor(st.st_dev), .ino = st.st_ino};
    unsigned long id, wanted = mount_of(dir_fd);
    unsigned found_major, found_minor;
    char *line = NULL;
    size_t size = 0;
    FILE *mounts = wanted > 0 ? fopen("/proc/self/mountinfo", "re") : NULL;
    while (mounts != NULL && getline(&line, &size, mounts) > 0)
        if (sscanf(line, "%lu %*u %u:%u", &id, &found_major, &found_minor) == 3 && id == wanted) {
            ret->major = found_major;
            ret->minor = found_minor;
        }
    free(line);
    if (mounts != NULL)
        (void)fclose(mounts);
    return true;
}

/* "1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF", behind "lock:" in fdinfo: the pid that once took it, if it is this. */
static bool line_locks(const char *line, const struct locked *what, int *ret_pid)
{
    unsigned long ino;
    unsigned major_is, minor_is;
    if (strncmp(line, "lock:", 5) == 0)
        line += 5;
    return sscanf(line, " %*s FLOCK %*s %*s %d %x:%x:%lu", ret_pid, &major_is, &minor_is, &ino) == 4 &&
           ino == what->ino && major_is == what->major && minor_is == what->minor;
}

/* Whether a descriptor of pid belongs to the open file that holds the lock. A successor that was given the
 * descriptor shares it, while /proc/locks goes on naming the process that once took it. */
static bool shares_lock(pid_t pid, const struct locked *what)
{
    char path[320], line[256];
    int taker;
    (void)snprintf(path, sizeof path, "/proc/%d/fdinfo", (int)pid);
    DIR *all = opendir(path);
    bool found = false;
    for (struct dirent *e; all != NULL && !found && (e = readdir(all)) != NULL;) {
        if (e->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof path, "/proc/%d/fdinfo/%s", (int)pid, e->d_name);
        FILE *info = fopen(path, "re");
        while (info != NULL && !found && fgets(line, sizeof line, info) != NULL)
            found = line_locks(line, what, &taker);
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

struct note {
    pid_t pid;
    uint64_t start_time, pid_ns;
    char host[65];
};

static bool read_note(int dir_fd, struct note *ret)
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
    const char *host = json_string_value(json_object_get(o, "host"));
    *ret = (struct note){.pid = (pid_t)pid, .start_time = (uint64_t)start,
                         .pid_ns = (uint64_t)json_integer_value(json_object_get(o, "pid_ns"))};
    (void)snprintf(ret->host, sizeof ret->host, "%s", host != NULL ? host : "");
    json_decref(o);
    return pid > 0 && pid <= INT32_MAX && start > 0;
}

/* Whether the process that the note names lives and has the lock. */
static bool is_true(const struct note *note, const struct locked *what)
{
    struct gw_proc_facts facts;
    return gw_proc_read(note->pid, &facts) && facts.start_time == note->start_time && shares_lock(note->pid, what);
}

static pid_t by_table(const struct locked *what)
{
    char line[256];
    int pid = 0;
    pid_t found = 0;
    FILE *locks = fopen("/proc/locks", "re");
    while (locks != NULL && found == 0 && fgets(line, sizeof line, locks) != NULL)
        if (line_locks(line, what, &pid) && pid > 0 && shares_lock(pid, what))
            found = pid;
    if (locks != NULL)
        (void)fclose(locks);
    return found;
}

static pid_t by_search(const struct locked *what)
{
    DIR *proc = opendir("/proc");
    pid_t found = 0;
    for (struct dirent *e; proc != NULL && found == 0 && (e = readdir(proc)) != NULL;) {
        int64_t pid;
        if (gw_parse_int(e->d_name, 1, INT32_MAX, &pid) && shares_lock((pid_t)pid, what))
            found = (pid_t)pid;
    }
    if (proc != NULL)
        (void)closedir(proc);
    return found;
}

uint64_t gw_holder_pid_ns(void)
{
    struct stat st;
    return stat("/proc/self/ns/pid", &st) == 0 ? st.st_ino : 0;
}

/* Whether the note's pid is one of those that we see; namespaces of two machines may have the same number. */
static bool is_of_here(const struct note *note)
{
    char name[65] = "";
    (void)gethostname(name, sizeof name - 1);
    return (note->pid_ns == 0 || note->pid_ns == gw_holder_pid_ns()) &&
           (note->host[0] == '\0' || strcmp(note->host, name) == 0);
}

struct gw_holder gw_holder_find(int dir_fd)
{
    struct gw_holder holder = {0};
    struct locked what;
    struct note note;
    if (!what_is_locked(dir_fd, &what))
        return holder;
    bool told = read_note(dir_fd, &note), here = told && is_of_here(&note);
    if (here && is_true(&note, &what)) {
        holder.pid = note.pid;
        return holder;
    }
    holder.pid = by_table(&what);
    if (holder.pid == 0)
        holder.pid = by_search(&what);
    if (holder.pid == 0 && told && !here) { // nobody whom we can see
        holder.pid = note.pid;
        holder.elsewhere = true;
        memcpy(holder.host, note.host, sizeof holder.host);
    }
    return holder;
}

int gw_holder_open(int dir_fd, int *ret_pidfd, pid_t *ret_pid, struct gw_err *err)
{
    struct locked what;
    struct note note;
    if (!is_held(dir_fd))
        return gw_err_set(err, -ESRCH, "nobody holds the lock of the state directory");
    if (!what_is_locked(dir_fd, &what) || !read_note(dir_fd, &note))
        return gw_err_set(err, -EUCLEAN, "the lock is held, but gwhost.lock does not tell by whom");
    int fd = pidfd_open(note.pid, 0);
    // Looked at after the descriptor was had: from here on the pid cannot come to mean another process unnoticed.
    if (fd < 0 || !is_true(&note, &what)) {
        if (fd >= 0)
            (void)close(fd);
        if (!is_of_here(&note))
            return gw_err_set(err, -EUCLEAN, "the lock is held by pid %d in another container or on another machine (%s): "
                              "ask there", (int)note.pid, note.host);
        return gw_err_set(err, -EUCLEAN, "the lock is held, but not by pid %d, which gwhost.lock names", (int)note.pid);
    }
    *ret_pidfd = fd;
    *ret_pid = note.pid;
    return 0;
}

int gw_holder_signal(int pidfd, int signal, struct gw_err *err)
{
    if (pidfd_send_signal(pidfd, signal, NULL, 0) < 0)
        return gw_err_set(err, -errno, "cannot signal it: %s", gw_strerror(errno));
    return 0;
}
