#include "os/supervisor.h"

#include "base/str.h"
#include "os/proc.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *env(const struct gw_supervisor_facts *f, const char *name)
{
    const char *value = f->env(f->env_ud, name);
    return value != NULL ? value : "";
}

static bool is_set(const struct gw_supervisor_facts *f, const char *name)
{
    return *env(f, name) != '\0';
}

static void name_service(struct gw_supervisor *s, const char *service)
{
    gw_one_line(service, strlen(service), s->service, sizeof s->service);
}

// ---- systemd ----

/* The control group's path in systemd's own hierarchy: the unified one, or the named one of old. */
static bool own_group(const char *cgroup, const char **ret_path, size_t *ret_n)
{
    static const char *const marks[] = {"0::", ":name=systemd:"};
    *ret_path = NULL;
    *ret_n = 0;
    for (const char *line = cgroup; *line != '\0';) {
        size_t n = strcspn(line, "\n");
        for (int i = 0; i < 2; i++) {
            const char *mark = i == 0 ? line : memchr(line, ':', n);
            size_t len = strlen(marks[i]);
            if (mark == NULL || (size_t)(line + n - mark) < len || strncmp(mark, marks[i], len) != 0)
                continue;
            const char *path = mark + len;
            size_t path_n = (size_t)(line + n - path);
            // A mixed setup shows both, and the one that systemd does not use is only "/".
            if (path_n > *ret_n) {
                *ret_path = path;
                *ret_n = path_n;
            }
        }
        line += n + (line[n] == '\n');
    }
    return *ret_path != NULL;
}

/* Our unit when we are in a service's own group; a shell is in a scope, a sub-group is somebody else's. */
static bool own_service(const char *cgroup, char *ret_unit, size_t size, bool *ret_user)
{
    static const char suffix[] = ".service";
    const char *path;
    size_t n, leaf;
    if (!own_group(cgroup, &path, &n))
        return false;
    for (leaf = n; leaf > 0 && path[leaf - 1] != '/'; leaf--)
        ;
    size_t leaf_n = n - leaf, suffix_n = sizeof suffix - 1;
    if (leaf_n <= suffix_n || memcmp(path + n - suffix_n, suffix, suffix_n) != 0)
        return false;
    gw_one_line(path + leaf, leaf_n, ret_unit, size);
    char *above = gw_memdup0(path, leaf);
    *ret_user = strstr(above, "/user@") != NULL;
    free(above);
    return true;
}

static bool find_systemd(const struct gw_supervisor_facts *f, struct gw_supervisor *s)
{
    bool user = false;
    bool in_service = own_service(f->cgroup, s->service, sizeof s->service, &user);
    int64_t exec_pid = 0;
    bool executed = gw_parse_int(env(f, "SYSTEMD_EXEC_PID"), 1, INT32_MAX, &exec_pid) && exec_pid == f->pid;
    if (!executed && !(in_service && is_set(f, "NOTIFY_SOCKET"))) {
        s->service[0] = '\0';
        return false;
    }
    s->name = "systemd";
    if (in_service)
        (void)snprintf(s->stop_command, sizeof s->stop_command, "systemctl %sstop %s", user ? "--user " : "",
                       s->service);
    return true;
}

// ---- those that are our parent ----

static bool find_directory(const struct gw_supervisor_facts *f, struct gw_supervisor *s, const char *name,
                           const char *comm, const char *command)
{
    if (strcmp(f->parent_comm, comm) != 0)
        return false;
    s->name = name;
    // Both work inside the service's directory; their argument may be relative to that of their own parent.
    name_service(s, *f->parent_dir != '\0' ? f->parent_dir : f->parent_argument);
    if (s->service[0] != '\0')
        (void)snprintf(s->stop_command, sizeof s->stop_command, "%s %s", command, s->service);
    return true;
}

static bool find_supervisord(const struct gw_supervisor_facts *f, struct gw_supervisor *s)
{
    if (strcmp(f->parent_comm, "supervisord") != 0 || !is_set(f, "SUPERVISOR_ENABLED"))
        return false;
    s->name = "supervisord";
    const char *process = env(f, "SUPERVISOR_PROCESS_NAME"), *group = env(f, "SUPERVISOR_GROUP_NAME");
    if (*process == '\0')
        return true;
    bool grouped = *group != '\0' && strcmp(group, process) != 0;
    char *full = gw_asprintf("%s%s%s", grouped ? group : "", grouped ? ":" : "", process);
    name_service(s, full);
    free(full);
    (void)snprintf(s->stop_command, sizeof s->stop_command, "supervisorctl stop %s", s->service);
    return true;
}

static bool find_launchd(const struct gw_supervisor_facts *f, struct gw_supervisor *s)
{
    static const char *const labels[] = {"LAUNCH_JOB_LABEL", "LAUNCH_JOB_NAME", "XPC_SERVICE_NAME"};
    for (size_t i = 0; i < sizeof labels / sizeof *labels; i++) {
        const char *label = env(f, labels[i]);
        // Terminals, and what is started in them, carry "0" or the name of an application.
        if (*label == '\0' || strcmp(label, "0") == 0 || strncmp(label, "application.", 12) == 0)
            continue;
        s->name = "launchd";
        name_service(s, label);
        (void)snprintf(s->stop_command, sizeof s->stop_command, "launchctl remove %s", s->service);
        return true;
    }
    return false;
}

/* The operator's word, GWHOST_STOP_TIMEOUT, counts for any supervisor; s6 has a file that says it. */
static void find_stop_timeout(const struct gw_supervisor_facts *f, struct gw_supervisor *s)
{
    uint64_t said;
    int64_t ms;
    if (s->name == NULL)
        return;
    if (gw_parse_duration(env(f, "GWHOST_STOP_TIMEOUT"), &said) && said <= INT64_MAX / 2)
        s->stop_timeout_ms = (int64_t)said;
    else if (strcmp(s->name, "s6") == 0 && f->stop_file != NULL && gw_parse_int(f->stop_file, 0, INT64_MAX / 2, &ms))
        s->stop_timeout_ms = ms;
}

void gw_supervisor_detect(const struct gw_supervisor_facts *f, struct gw_supervisor *ret)
{
    struct gw_supervisor s = {.pid1 = f->pid == 1,
                              .container = f->container_file || f->pid_namespace || is_set(f, "container") ||
                                           is_set(f, "KUBERNETES_SERVICE_HOST"),
                              .init_above = f->parent == 1 && strcmp(f->parent_comm, "systemd") != 0};
    const char *said = env(f, "GWHOST_SUPERVISOR");
    if (strcmp(said, "external") == 0)
        s.name = "external";
    else if (strcmp(said, "none") != 0)
        (void)(find_systemd(f, &s) || find_directory(f, &s, "s6", "s6-supervise", "s6-svc -d") ||
               find_directory(f, &s, "runit", "runsv", "sv stop") || find_supervisord(f, &s) || find_launchd(f, &s));
    find_stop_timeout(f, &s);
    *ret = s;
}

// ---- this process ----

static const char *own_env(void *ud, const char *name)
{
    return getenv(name);
}

/* At most size - 1 bytes of a file of /proc; "" when it cannot be read. Returns how many. */
static size_t read_proc(const char *path, char *ret, size_t size)
{
    size_t n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    for (ssize_t got = 1; fd >= 0 && got > 0 && n < size - 1; n += got > 0 ? (size_t)got : 0)
        got = read(fd, ret + n, size - 1 - n);
    if (fd >= 0)
        (void)close(fd);
    ret[n] = '\0';
    return n;
}

static bool container_file(void)
{
    static const char *const files[] = {"/.dockerenv", "/run/.containerenv", "/run/systemd/container"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (access(files[i], F_OK) == 0)
            return true;
    return false;
}

/* The first pid namespace of a machine has a number that is fixed in the kernel. */
static bool pid_namespace(void)
{
    char name[64];
    ssize_t n = readlink("/proc/self/ns/pid", name, sizeof name - 1);
    name[n > 0 ? n : 0] = '\0';
    return n > 0 && strcmp(name, "pid:[4026531836]") != 0;
}

void gw_supervisor_look(struct gw_supervisor *ret)
{
    struct gw_proc_facts parent = {0};
    char path[64], cgroup[8192], argv[512], dir[256];
    pid_t ppid = getppid();
    (void)gw_proc_read(ppid, &parent);
    (void)read_proc("/proc/self/cgroup", cgroup, sizeof cgroup);
    (void)snprintf(path, sizeof path, "/proc/%d/cmdline", (int)ppid);
    size_t n = read_proc(path, argv, sizeof argv), program = strlen(argv) + 1;
    (void)snprintf(path, sizeof path, "/proc/%d/cwd", (int)ppid);
    ssize_t dir_n = readlink(path, dir, sizeof dir - 1);
    dir[dir_n > 0 ? dir_n : 0] = '\0';
    char file[320], stop[32];
    (void)snprintf(file, sizeof file, "%s/timeout-kill", dir);
    (void)read_proc(file, stop, sizeof stop);
    stop[strcspn(stop, "\n")] = '\0';
    struct gw_supervisor_facts facts = {.env = own_env,
                                        .stop_file = stop,
                                        .pid = getpid(),
                                        .parent_comm = parent.comm,
                                        .parent_argument = program < n ? argv + program : "",
                                        .parent_dir = dir,
                                        .cgroup = cgroup,
                                        .container_file = container_file(),
                                        .pid_namespace = pid_namespace(),
                                        .parent = ppid};
    gw_supervisor_detect(&facts, ret);
}
