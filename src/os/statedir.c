#include "os/statedir.h"

#include "base/err.h"
#include "base/sha.h"
#include "base/str.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *gw_path_absolute(const char *path)
{
    if (*path == '/')
        return gw_strdup(path);
    // As it was come to, if it was through a link: that may be moved to a new version, and is followed then.
    const char *pwd = getenv("PWD");
    struct stat here, named;
    bool said = pwd != NULL && *pwd == '/' && stat(".", &here) == 0 && stat(pwd, &named) == 0 &&
                here.st_dev == named.st_dev && here.st_ino == named.st_ino;
    char *cwd = said ? gw_strdup(pwd) : getcwd(NULL, 0);
    char *full = gw_asprintf("%s/%s", cwd != NULL ? cwd : "", strncmp(path, "./", 2) == 0 ? path + 2 : path);
    free(cwd);
    return full;
}

char *gw_path_find(const char *name)
{
    const char *dirs = getenv("PATH");
    for (const char *d = dirs; d != NULL && *d != '\0';) {
        size_t n = strcspn(d, ":");
        char *dir = n > 0 ? gw_memdup0(d, n) : gw_strdup("."), *path = gw_asprintf("%s/%s", dir, name);
        free(dir);
        if (access(path, X_OK) == 0) {
            char *full = gw_path_absolute(path);
            free(path);
            return full;
        }
        free(path);
        d += n + (d[n] == ':');
    }
    return NULL;
}

int gw_statedir_choose(const char *given, char **ret_path, struct gw_err *err)
{
    const char *own = getenv("GWHOST_STATE_DIR"), *systemd = getenv("STATE_DIRECTORY");
    const char *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char *path = NULL;
    if (given != NULL)
        path = gw_strdup(given);
    else if (own != NULL && *own != '\0')
        path = gw_strdup(own);
    else if (systemd != NULL && *systemd != '\0')
        path = gw_memdup0(systemd, strcspn(systemd, ":"));
    else if (xdg != NULL && *xdg == '/')
        path = gw_asprintf("%s/gwhost", xdg);
    else if (home != NULL && *home == '/')
        path = gw_asprintf("%s/.local/state/gwhost", home);
    else
        return gw_err_set(err, -ENOENT, "no state directory: give --state-dir DIR or set GWHOST_STATE_DIR");
    *ret_path = gw_path_absolute(path);
    free(path);
    return 0;
}

static int make_parents(const char *path)
{
    char *copy = gw_strdup(path);
    int rc = 0;
    for (char *p = copy + 1; rc == 0 && (p = strchr(p, '/')) != NULL; p++) {
        *p = '\0';
        if (mkdir(copy, 0755) < 0 && errno != EEXIST)
            rc = -errno;
        *p = '/';
    }
    free(copy);
    return rc;
}

int gw_statedir_open(const char *path, int *ret_fd, struct gw_err *err)
{
    int rc = make_parents(path);
    if (rc == 0 && mkdir(path, 0700) < 0 && errno != EEXIST)
        rc = -errno;
    if (rc < 0)
        return gw_err_set(err, rc, "cannot make the state directory '%s': %s", path, gw_strerror(rc));
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return gw_err_set(err, -errno, "cannot open the state directory '%s': %s", path, gw_strerror(errno));
    struct stat st;
    if (fstat(fd, &st) < 0)
        rc = gw_err_set(err, -errno, "cannot stat '%s': %s", path, gw_strerror(errno));
    else if (st.st_uid != geteuid())
        rc = gw_err_set(err, -EPERM, "the state directory '%s' belongs to uid %u, not to us (uid %u): "
                        "use another with --state-dir", path, st.st_uid, geteuid());
    else if ((st.st_mode & 077) != 0)
        rc = gw_err_set(err, -EPERM, "others may enter the state directory '%s' (mode %04o): run chmod 700 '%s'",
                        path, st.st_mode & 07777, path);
    if (rc < 0) {
        (void)close(fd);
        return rc;
    }
    *ret_fd = fd;
    return 0;
}

int gw_file_write(int dir_fd, const char *name, const void *data, size_t n, unsigned mode, bool durable,
                  struct gw_err *err)
{
    char tmp[256], tag[17];
    gw_random_hex(8, tag);
    (void)snprintf(tmp, sizeof tmp, ".%.200s.%s", name, tag);
    int fd = openat(dir_fd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return gw_err_set(err, -errno, "cannot make '%s': %s", name, gw_strerror(errno));
    int rc = fchmod(fd, mode) < 0 ? -errno : 0; // as asked for, whatever the umask
    for (size_t done = 0; rc == 0 && done < n;) {
        ssize_t w = write(fd, (const char *)data + done, n - done);
        if (w < 0 && errno != EINTR)
            rc = -errno;
        else if (w > 0)
            done += (size_t)w;
    }
    if (rc == 0 && durable && fsync(fd) < 0)
        rc = -errno;
    (void)close(fd);
    if (rc == 0 && renameat(dir_fd, tmp, dir_fd, name) < 0)
        rc = -errno;
    if (rc < 0) {
        (void)unlinkat(dir_fd, tmp, 0);
        return gw_err_set(err, rc, "cannot write '%s': %s", name, gw_strerror(rc));
    }
    return 0;
}

int gw_file_read(const char *path, size_t max, char **ret_data, size_t *ret_n, struct gw_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return gw_err_set(err, -errno, "cannot open '%s': %s", path, gw_strerror(errno));
    struct stat st;
    struct gw_buf b = {0};
    int rc = fstat(fd, &st) < 0 ? -errno : 0;
    if (rc == 0 && !S_ISREG(st.st_mode))
        rc = gw_err_set(err, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL, "'%s' is not a regular file", path);
    else if (rc < 0)
        gw_err_set(err, rc, "cannot stat '%s': %s", path, gw_strerror(rc));
    while (rc == 0) {
        gw_buf_reserve(&b, 65536);
        ssize_t r = read(fd, b.data + b.len, 65536);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            rc = gw_err_set(err, -errno, "cannot read '%s': %s", path, gw_strerror(errno));
        if (r <= 0)
            break;
        b.len += (size_t)r;
        if (b.len > max)
            rc = gw_err_set(err, -EFBIG, "'%s' is larger than %zu bytes", path, max);
    }
    (void)close(fd);
    if (rc < 0) {
        gw_buf_fini(&b);
        return rc;
    }
    b.data[b.len] = '\0';
    *ret_data = b.data;
    *ret_n = b.len;
    return 0;
}

static int token_from(const char *path, char **ret_token, struct gw_err *err)
{
    char *text;
    size_t n;
    int rc = gw_file_read(path, 4096, &text, &n, err);
    if (rc < 0)
        return rc;
    while (n > 0 && isspace((unsigned char)text[n - 1]))
        text[--n] = '\0';
    char *start = text + gw_utf8_mark(text, n);
    while (isspace((unsigned char)*start))
        start++;
    if (*start == '\0' || strlen(start) != n - (size_t)(start - text))
        rc = gw_err_set(err, -EINVAL, "the token file '%s' is empty or holds a NUL: write one line to it, or "
                        "remove it and a new one is made", path);
    else
        *ret_token = gw_strdup(start);
    free(text);
    return rc;
}

int gw_token_load(int dir_fd, const char *dir, const char *path, char **ret_token, struct gw_err *err)
{
    if (path != NULL)
        return token_from(path, ret_token, err);
    char *own = gw_asprintf("%s/token", dir);
    int rc = token_from(own, ret_token, err);
    if (rc == -ENOENT) {
        char token[65];
        gw_random_hex(32, token);
        char *line = gw_asprintf("%s\n", token);
        rc = gw_file_write(dir_fd, "token", line, strlen(line), 0600, true, err);
        free(line);
        if (rc == 0)
            *ret_token = gw_strdup(token);
    }
    free(own);
    return rc;
}
