#include "cli/client.h"

#include "base/err.h"
#include "base/json.h"
#include "base/time.h"
#include "os/holder.h"
#include "os/statedir.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { HELLO_MS = 10000, RETRY_MS = 100, LINE_BYTES = 64 << 20 };

static int lost(struct gw_client *c, struct gw_err *err)
{
    return gw_err_set(err, -ECONNRESET, "the connection to the host (pid %d) is lost", (int)c->pid);
}

static void disconnect(struct gw_client *c)
{
    if (c->fd >= 0)
        (void)close(c->fd);
    c->fd = -1;
    gw_buf_fini(&c->in);
    c->scanned = 0;
    json_decref(c->events);
    c->events = NULL;
    c->taken = 0;
}

/* Waits until fd is ready; -ETIMEDOUT at the deadline. */
static int wait_for(int fd, short what, uint64_t deadline_ms)
{
    for (;;) {
        uint64_t now = gw_now_ms();
        if (now >= deadline_ms)
            return -ETIMEDOUT;
        uint64_t left = deadline_ms - now;
        struct pollfd p = {.fd = fd, .events = what};
        int n = poll(&p, 1, deadline_ms == UINT64_MAX ? -1 : (int)(left < 3600000 ? left : 3600000));
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
    }
}

/* ---- connecting ---- */

static int no_host(struct gw_client *c, int code, struct gw_err *err)
{
    int dir_fd = open(c->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), pidfd = -1, rc = -ENOENT;
    pid_t pid = 0;
    struct gw_err holder = {0};
    if (dir_fd >= 0) {
        rc = gw_holder_open(dir_fd, &pidfd, &pid, &holder);
        (void)close(dir_fd);
    }
    if (rc == 0) {
        (void)close(pidfd);
        return gw_err_set(err, code, "pid %d runs on %s, but nothing answers at %s/control.sock: "
                          "'gwhost restart --signal' reaches it without", (int)pid, c->dir, c->dir);
    }
    return gw_err_set(err, code, "no gwhost runs on %s (nothing answers at %s/control.sock): start one with "
                      "'gwhost run --state-dir %s'", c->dir, c->dir, c->dir);
}

/* Whoever could put a socket there could make us believe anything. Root may talk to the directory's owner. */
static int check_socket(struct gw_client *c, const char *path, struct gw_err *err)
{
    struct stat st, dir;
    if (lstat(path, &st) < 0)
        return errno == ENOENT || errno == ENOTDIR ? no_host(c, -ENOENT, err)
                                : gw_err_set(err, -errno, "cannot look at '%s': %s", path, gw_strerror(errno));
    if (!S_ISSOCK(st.st_mode))
        return gw_err_set(err, -ENOTSOCK, "'%s' is not a socket", path);
    bool ours = st.st_uid == geteuid() || st.st_uid == 0 ||
                (geteuid() == 0 && stat(c->dir, &dir) == 0 && dir.st_uid == st.st_uid);
    if (!ours)
        return gw_err_set(err, -EPERM, "'%s' belongs to uid %u, neither to us (uid %u) nor to root: it is not used",
                          path, st.st_uid, geteuid());
    return 0;
}

static int connect_to(struct gw_client *c, uint64_t deadline_ms, struct gw_err *err)
{
    char *path = gw_asprintf("%s/control.sock", c->dir);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int dir_fd = -1, rc = check_socket(c, path, err);
    if (rc < 0)
        goto out;
    // A path that is too long for the address is reached through a descriptor of its folder.
    if (strlen(path) < sizeof address.sun_path) {
        memcpy(address.sun_path, path, strlen(path) + 1);
    } else {
        dir_fd = open(c->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        (void)snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/control.sock", dir_fd);
    }
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->fd < 0) {
        rc = gw_err_set(err, -errno, "cannot make a socket: %s", gw_strerror(errno));
        goto out;
    }
    while (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0) {
        if (errno == EAGAIN && gw_now_ms() < deadline_ms) {
            (void)poll(NULL, 0, RETRY_MS); // its queue is full, which nothing tells the end of
            continue;
        }
        if (errno == EINTR)
            continue;
        rc = errno == ECONNREFUSED || errno == ENOENT
                 ? no_host(c, -errno, err)
                 : gw_err_set(err, -errno, "cannot connect to '%s': %s", path, gw_strerror(errno));
        break;
    }
out:
    if (dir_fd >= 0)
        (void)close(dir_fd);
    free(path);
    return rc;
}

/* ---- lines ---- */

static int send_line(struct gw_client *c, const char *text, uint64_t deadline_ms, struct gw_err *err)
{
    size_t n = strlen(text);
    while (n > 0) {
        ssize_t sent = send(c->fd, text, n, MSG_NOSIGNAL);
        if (sent > 0) {
            text += sent;
            n -= (size_t)sent;
        } else if (errno == EAGAIN) {
            if (wait_for(c->fd, POLLOUT, deadline_ms) < 0)
                return gw_err_set(err, -ETIMEDOUT, "the host (pid %d) takes no request", (int)c->pid);
        } else if (errno != EINTR) {
            return lost(c, err);
        }
    }
    return 0;
}

static bool take_line(struct gw_client *c, json_t **ret_line, bool *ret_bad)
{
    char *end = c->in.len > c->scanned ? memchr(c->in.data + c->scanned, '\n', c->in.len - c->scanned) : NULL;
    if (end == NULL) {
        c->scanned = c->in.len;
        return false;
    }
    size_t n = (size_t)(end - c->in.data);
    *ret_bad = gw_json_parse(c->in.data, n, ret_line, NULL) < 0;
    gw_buf_drop(&c->in, n + 1);
    c->scanned = 0;
    return true;
}

static int read_line(struct gw_client *c, uint64_t deadline_ms, json_t **ret_line, struct gw_err *err)
{
    for (;;) {
        bool bad = false;
        if (take_line(c, ret_line, &bad))
            return bad ? gw_err_set(err, -EPROTO, "the host (pid %d) sent a line that is not JSON", (int)c->pid) : 0;
        if (c->in.len > LINE_BYTES)
            return gw_err_set(err, -EPROTO, "the host (pid %d) sent a line without an end", (int)c->pid);
        gw_buf_reserve(&c->in, 65536);
        ssize_t n = recv(c->fd, c->in.data + c->in.len, 65536, 0);
        if (n > 0) {
            c->in.len += (size_t)n;
            c->in.data[c->in.len] = '\0';
        } else if (n < 0 && errno == EAGAIN) {
            int rc = wait_for(c->fd, POLLIN, deadline_ms);
            if (rc == -ETIMEDOUT)
                return gw_err_set(err, rc, "the host (pid %d) does not answer", (int)c->pid);
            if (rc < 0)
                return lost(c, err);
        } else if (n == 0 || errno != EINTR) {
            return lost(c, err);
        }
    }
}

static int judge(struct gw_client *c, json_t *line, json_t **ret_result, struct gw_err *err)
{
    if (json_is_true(json_object_get(line, "ok"))) {
        json_t *result = json_object_get(line, "result");
        *ret_result = result != NULL ? json_incref(result) : json_object();
        return 0;
    }
    json_t *error = json_object_get(line, "error");
    const char *code = json_string_value(json_object_get(error, "code"));
    const char *words = json_string_value(json_object_get(error, "message"));
    (void)snprintf(c->refused, sizeof c->refused, "%s", code != NULL ? code : "");
    return gw_err_set(err, -EREMOTEIO, "%s", words != NULL ? words : "the host refuses and does not say why");
}

static int read_hello(struct gw_client *c, uint64_t deadline_ms, struct gw_err *err)
{
    json_t *line = NULL;
    struct ucred peer = {0};
    socklen_t size = sizeof peer;
    if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0)
        c->pid = peer.pid;
    int rc = read_line(c, deadline_ms, &line, err);
    if (rc == -ETIMEDOUT)
        return gw_err_set(err, rc, "pid %d runs on %s, but does not answer: it is stuck, or its loop is busy",
                          (int)c->pid, c->dir);
    if (rc < 0)
        return rc;
    if (json_object_get(line, "error") != NULL) {
        json_t *nothing = NULL;
        rc = judge(c, line, &nothing, err); // too many clients
        json_decref(line);
        return rc;
    }
    json_t *hello = json_object_get(line, "hello");
    const char *boot_id = json_string_value(json_object_get(hello, "boot_id"));
    json_int_t protocol = json_integer_value(json_object_get(hello, "protocol"));
    if (boot_id == NULL || protocol != 1)
        rc = gw_err_set(err, -EPROTO, "what answers at %s/control.sock speaks another protocol (%lld, not 1)", c->dir,
                        (long long)protocol);
    else
        (void)snprintf(c->boot_id, sizeof c->boot_id, "%s", boot_id);
    c->pid = (pid_t)json_integer_value(json_object_get(hello, "pid"));
    c->generation = json_integer_value(json_object_get(hello, "generation"));
    json_decref(line);
    return rc;
}

static int connect_once(struct gw_client *c, uint64_t deadline_ms, struct gw_err *err)
{
    disconnect(c);
    int rc = connect_to(c, deadline_ms, err);
    if (rc == 0)
        rc = read_hello(c, deadline_ms, err);
    if (rc < 0)
        disconnect(c);
    else
        c->events = json_array();
    c->connections += rc == 0;
    return rc;
}

int gw_client_open(struct gw_client *c, const char *state_dir, struct gw_err *err)
{
    *c = (struct gw_client){.fd = -1};
    uint64_t deadline_ms = gw_now_ms() + HELLO_MS;
    int rc = gw_statedir_choose(state_dir, &c->dir, err);
    if (rc == 0)
        rc = connect_once(c, deadline_ms, err);
    // Let go without a word: that host is leaving, and the next one has its socket.
    return rc == -ECONNRESET ? gw_client_reopen(c, deadline_ms, err) : rc;
}

int gw_client_reopen(struct gw_client *c, uint64_t deadline_ms, struct gw_err *err)
{
    for (;;) {
        int rc = connect_once(c, deadline_ms, err);
        uint64_t now = gw_now_ms();
        if (rc == 0 || rc == -EPERM || now >= deadline_ms)
            return rc;
        (void)poll(NULL, 0, deadline_ms - now < RETRY_MS ? (int)(deadline_ms - now) : RETRY_MS);
    }
}

/* ---- requests and events ---- */

static void keep_event(struct gw_client *c, json_t *line)
{
    json_t *event = json_object_get(line, "event");
    if (event == NULL)
        return;
    (void)json_array_append(c->events, event);
    const char *name = json_string_value(json_object_get(event, "event"));
    if (name != NULL && (strcmp(name, "respawn.ready") == 0 || strcmp(name, "respawn.failed") == 0))
        c->hands_over = strcmp(name, "respawn.ready") == 0;
}

int gw_client_call(struct gw_client *c, const char *op, json_t *args, json_t **ret_result, struct gw_err *err)
{
    uint64_t deadline_ms = gw_now_ms() + GW_CLIENT_CALL_MS;
    json_t *request = args != NULL ? args : json_object();
    gw_json_set(request, "id", json_integer(++c->last_id));
    gw_json_set(request, "op", json_string(op));
    char *text = gw_json_text(request), *with_end = gw_asprintf("%s\n", text);
    json_decref(request);
    free(text);
    int rc = send_line(c, with_end, deadline_ms, err);
    free(with_end);
    while (rc == 0) {
        json_t *line = NULL;
        rc = read_line(c, deadline_ms, &line, err);
        if (rc < 0)
            break;
        json_t *id = json_object_get(line, "id");
        bool answer = json_is_integer(id) && json_integer_value(id) == c->last_id;
        if (answer)
            rc = judge(c, line, ret_result, err);
        else
            keep_event(c, line);
        json_decref(line);
        if (answer)
            return rc;
    }
    return rc;
}

static void note(struct gw_client *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void note(struct gw_client *c, const char *fmt, ...)
{
    char words[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    if (c->note != NULL)
        c->note(c->note_ud, words);
}

static int have_again(struct gw_client *c, uint64_t deadline_ms, struct gw_err *err)
{
    json_t *nothing = NULL;
    char before[sizeof c->boot_id];
    (void)snprintf(before, sizeof before, "%s", c->boot_id);
    int rc = gw_client_reopen(c, deadline_ms, err);
    if (rc < 0)
        return gw_err_prefix(err, "the host is gone, and nobody has answered in its place for %d s",
                             GW_CLIENT_REOPEN_MS / 1000);
    if (strcmp(before, c->boot_id) != 0)
        note(c, "another process answers now: pid %d, boot id %s", (int)c->pid, c->boot_id);
    if (c->follows)
        rc = gw_client_call(c, "follow", NULL, &nothing, err);
    json_decref(nothing);
    return rc;
}

int gw_client_insist(struct gw_client *c, const char *op, const json_t *args, json_t **ret_result,
                     struct gw_err *err)
{
    int rc = gw_client_call(c, op, args != NULL ? json_deep_copy(args) : NULL, ret_result, err);
    if (rc != -ECONNRESET)
        return rc;
    uint64_t deadline_ms = gw_now_ms() + GW_CLIENT_REOPEN_MS;
    if (c->hands_over)
        note(c, "pid %d has handed over; asking the next one", (int)c->pid);
    else
        note(c, "the connection to pid %d is lost; looking for the host for %d s", (int)c->pid,
             GW_CLIENT_REOPEN_MS / 1000);
    c->hands_over = false;
    while (rc == -ECONNRESET && gw_now_ms() < deadline_ms) {
        rc = have_again(c, deadline_ms, err);
        if (rc == 0)
            rc = gw_client_call(c, op, args != NULL ? json_deep_copy(args) : NULL, ret_result, err);
        if (rc == -ECONNRESET)
            (void)poll(NULL, 0, RETRY_MS); // one that answers and closes at once is not worth a hurry
    }
    return rc;
}

int gw_client_follow(struct gw_client *c, struct gw_err *err)
{
    json_t *nothing = NULL;
    c->follows = true;
    int rc = gw_client_call(c, "follow", NULL, &nothing, err);
    json_decref(nothing);
    return rc;
}

int gw_client_event(struct gw_client *c, uint64_t deadline_ms, json_t **ret_event, struct gw_err *err)
{
    for (;;) {
        if (c->taken < json_array_size(c->events)) {
            *ret_event = json_incref(json_array_get(c->events, c->taken++));
            return 0;
        }
        (void)json_array_clear(c->events);
        c->taken = 0;
        json_t *line = NULL;
        int rc = read_line(c, deadline_ms, &line, err);
        if (rc < 0)
            return rc;
        keep_event(c, line);
        json_decref(line);
    }
}

void gw_client_fini(struct gw_client *c)
{
    disconnect(c);
    free(c->dir);
    c->dir = NULL;
}
