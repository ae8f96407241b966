/* reexec.c - the same pid, another image.
 *
 * What a successor would be told in letters is written to a file in memory; the descriptors stay where they are
 * and the letters name their numbers. The image that we come from is kept open too: one that cannot start goes
 * back to it, once, with the same file; connections that it has answered on meanwhile are described anew. */
#include "host/handover.h"

#include "base/packet.h"
#include "base/sha.h"
#include "os/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { AGAIN_MS = 200, LOG_MS = 200 }; /* for who reads the log, before the image that knows what waits is gone */

struct estate {
    struct gw_buf bytes;
    int *fds; /* owned; all that must live on */
    size_t count;
};

static void add(struct estate *e, const char *type, json_t *head, const void *blob, size_t n, const int *fds, size_t count)
{
    json_t *numbers = json_array();
    e->fds = gw_realloc(e->fds, (e->count + count + 2) * sizeof *e->fds); // one more than these, see collect()
    for (size_t i = 0; i < count; i++) {
        (void)json_array_append_new(numbers, json_integer(fds[i]));
        e->fds[e->count++] = fds[i];
    }
    gw_json_set(head, "type", json_string(type));
    gw_json_set(head, "numbers", numbers);
    gw_packet_add(&e->bytes, head, blob, n);
    json_decref(head);
}

/* The connections as they are now, and the letter that is the last one. */
static void collect_connections(struct gw_host *h, struct estate *e)
{
    uint64_t after = 0;
    unsigned left = gw_net_counts(h->net).open;
    struct gw_net_batch batch;
    while (gw_net_describe(h->net, &after, &batch)) {
        left -= (unsigned)batch.fd_count;
        add(e, "connections", json_incref(batch.head), batch.blob.data, batch.blob.len, batch.fds, batch.fd_count);
        gw_net_batch_fini(&batch);
    }
    if (left > 0)
        gw_log(GW_WARN, "connections.left", json_pack("{si}", "connections", (int)left),
               "%u connections hold more than can be handed over; they are cut", left);
    int control = gw_control_fd(h);
    add(e, "connections", gw_handover_last(h), NULL, 0, &control, control >= 0 ? 1 : 0);
}

static void collect(struct gw_host *h, int origin_fd, struct estate *e)
{
    char boot_id[33];
    struct gw_fd_list fds = {.count = 0};
    struct gw_buf sources = {0};
    gw_random_hex(16, boot_id);
    json_t *hello = gw_handover_hello(h, boot_id, gw_succession_program(h), true, &sources, &fds);
    gw_json_set(hello, "origin", json_integer(origin_fd));
    add(e, "hello", hello, sources.data, sources.len, fds.fds, fds.count);
    gw_buf_fini(&sources);
    e->fds[e->count++] = origin_fd;
    add(e, "go", gw_handover_go(h), NULL, 0, NULL, 0);
    collect_connections(h, e);
}

/* What this image was left, with the connections as they are by now. */
static void collect_back(struct gw_host *h, struct estate *e)
{
    const struct gw_buf *left = &h->standby.memory;
    struct gw_packet packet;
    long n;
    gw_control_pause(h, true);
    gw_net_freeze(h->net);
    for (size_t at = 0; (n = gw_packet_read(left->data + at, left->len - at, &packet, NULL)) > 0; at += (size_t)n) {
        const char *type = json_string_value(json_object_get(packet.head, "type"));
        const json_t *numbers = json_object_get(packet.head, "numbers");
        int fds[GW_LETTER_FDS];
        size_t count = 0;
        for (size_t i = 0; i < json_array_size(numbers) && count < GW_LETTER_FDS; i++)
            fds[count++] = (int)json_integer_value(json_array_get(numbers, i));
        if (strcmp(type, "connections") != 0)
            add(e, type, json_incref(packet.head), packet.blob, packet.blob_bytes, fds, count);
        json_decref(packet.head);
    }
    collect_connections(h, e);
}

static int write_all(int memory, const struct gw_buf *bytes)
{
    int rc = 0;
    for (size_t sent = 0; rc == 0 && sent < bytes->len;) {
        ssize_t n = pwrite(memory, bytes->data + sent, bytes->len - sent, (off_t)sent);
        rc = n < 0 && errno != EINTR ? -errno : 0;
        sent += n > 0 ? (size_t)n : 0;
    }
    return rc;
}

/* The next image must be able to read it, and so must this one if it is come back to. */
static int check(const struct estate *e, struct gw_err *err)
{
    struct gw_packet packet;
    long n = 0;
    for (size_t at = 0; at < e->bytes.len; at += (size_t)n) {
        n = gw_packet_read(e->bytes.data + at, e->bytes.len - at, &packet, err);
        if (n <= 0)
            return gw_err_set(err, -E2BIG, "what it would be given is too much: keep fewer values (gwhost.keep), or a "
                              "smaller continuation");
        json_decref(packet.head);
    }
    return 0;
}

static void keep_open(const int *fds, size_t count, bool keep)
{
    for (size_t i = 0; i < count; i++)
        (void)fcntl(fds[i], F_SETFD, keep ? 0 : FD_CLOEXEC);
}

/* All but these end with this image, also what an application, or a library, has opened carelessly. */
static void keep_only(const int *fds, size_t count)
{
    (void)close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
    keep_open(fds, count, true);
}

static char **with_variable(const char *name, int value)
{
    size_t n = 0, name_len = strlen(name);
    while (environ[n] != NULL)
        n++;
    char **env = gw_calloc(n + 2, sizeof *env);
    size_t out = 0;
    for (size_t i = 0; i < n; i++)
        if (strncmp(environ[i], name, name_len) != 0 || environ[i][name_len] != '=')
            env[out++] = environ[i];
    env[out] = gw_asprintf("%s=%d", name, value);
    return env;
}

/* As this process was started; commands of the next image shall not get more. */
static void lower_nofile(const struct gw_host *h)
{
    struct rlimit rl;
    if (h->options.child_nofile == 0 || getrlimit(RLIMIT_NOFILE, &rl) < 0)
        return;
    rl.rlim_cur = h->options.child_nofile < rl.rlim_max ? h->options.child_nofile : rl.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &rl);
}

/* Becomes the image in fd (path NULL) or at path; returns only if that failed. */
static int become(int fd, const char *path, char *const *argv, int memory)
{
    char **env = with_variable("GWHOST_HANDOVER", memory);
    if (path != NULL)
        gw_proc_exec(execve, path, argv, env);
    else
        (void)execveat(fd, "", argv, env, AT_EMPTY_PATH);
    int code = -errno;
    char **last = env;
    while (last[1] != NULL)
        last++;
    free(*last);
    free(env);
    return code;
}

int gw_reexec(struct gw_host *h, const char *path, struct gw_err *err)
{
    struct estate e = {{0}, NULL, 0};
    int origin = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int memory = memfd_create("gwhost-handover", MFD_CLOEXEC);
    if (origin < 0 || memory < 0) {
        int code = -errno;
        if (origin >= 0)
            (void)close(origin);
        if (memory >= 0)
            (void)close(memory);
        return gw_err_set(err, code, "cannot keep this image at hand: %s", gw_strerror(code));
    }
    gw_control_pause(h, true);
    gw_net_freeze(h->net);
    collect(h, origin, &e);
    int rc = check(&e, err);
    if (rc == 0)
        rc = write_all(memory, &e.bytes);
    // A signal that comes from here on waits in the kernel for the next image; a stop that came before comes first.
    gw_sentry_pause(h->sentry);
    if (rc == 0 && h->stops)
        rc = -ECANCELED;
    if (rc == 0) {
        gw_log(GW_INFO, "reexec", json_pack("{so}", "program", gw_json_string(path)),
               "pid %d becomes the image %s", (int)getpid(), path);
        gw_log_finish(LOG_MS);
        keep_only(e.fds, e.count);
        keep_open(&memory, 1, true);
        lower_nofile(h);
        rc = become(-1, path, h->options.argv, memory);
        (void)gw_proc_raise_nofile();
        keep_open(e.fds, e.count, false);
    }
    gw_sentry_resume(h->sentry);
    (void)close(memory);
    (void)close(origin);
    gw_buf_fini(&e.bytes);
    free(e.fds);
    return rc == -E2BIG ? rc : gw_err_set(err, rc, "cannot become '%s': %s", path, gw_strerror(rc));
}

/* There is no other image, and what this one lacks may come: it begins again, unless it is told to stop meanwhile. All
 * that it was left is as it was, for nothing of it has been touched. */
static void begin_again(struct gw_host *h, const char *why)
{
    struct standby *s = &h->standby;
    const struct timespec wait = {.tv_nsec = AGAIN_MS * 1000000L};
    sigset_t stop;
    (void)sigemptyset(&stop);
    (void)sigaddset(&stop, SIGTERM);
    (void)sigaddset(&stop, SIGINT);
    (void)sigaddset(&stop, SIGQUIT);
    gw_log(GW_WARN, "host.retries", json_pack("{siso}", "wait_ms", (int)AGAIN_MS, "error", gw_json_string(why)),
           "that may pass: pid %d begins again in %d ms", (int)getpid(), (int)AGAIN_MS);
    if (h->sentry != NULL)
        gw_sentry_pause(h->sentry);
    h->stops = h->stops || sigtimedwait(&stop, NULL, &wait) > 0;
    if (!h->stops) {
        keep_only(s->kept_fds, s->kept_count);
        keep_open(&s->memory_fd, 1, true);
        (void)setenv("GWHOST_WENT_BACK", s->went_back, 1);
        lower_nofile(h);
        (void)become(-1, "/proc/self/exe", h->options.argv, s->memory_fd);
    }
    if (h->sentry != NULL)
        gw_sentry_resume(h->sentry);
}

void gw_reexec_back(struct gw_host *h, int code, const char *why)
{
    struct standby *s = &h->standby;
    if (s->went_back != NULL && !s->complete && !h->stops && gw_err_passes(code))
        begin_again(h, why);
    if (s->origin_fd < 0)
        return;
    gw_log(GW_ERROR, "respawn.failed", json_pack("{so}", "error", gw_json_string(why)),
           "this image cannot start; pid %d goes back to the one that it came from", (int)getpid());
    struct estate e = {{0}, NULL, 0};
    int rc = 0;
    if (s->answers) {
        collect_back(h, &e);
        rc = ftruncate(s->memory_fd, 0) < 0 ? -errno : write_all(s->memory_fd, &e.bytes);
    }
    keep_only(s->answers ? e.fds : s->kept_fds, s->answers ? e.count : s->kept_count);
    keep_open(&s->memory_fd, 1, true);
    (void)setenv("GWHOST_WENT_BACK", why, 1);
    if (h->sentry != NULL)
        gw_sentry_pause(h->sentry);
    if (h->stops)
        (void)kill(getpid(), SIGTERM); // it was told here, and is told again there
    lower_nofile(h);
    if (rc == 0)
        rc = become(s->origin_fd, NULL, h->options.argv, s->memory_fd);
    if (h->sentry != NULL)
        gw_sentry_resume(h->sentry);
    gw_buf_fini(&e.bytes);
    free(e.fds);
    s->origin_fd = -1;
    gw_log(GW_ERROR, "respawn.failed", json_pack("{ss}", "error", gw_strerror(rc)),
           "there is no way back; this process ends");
}
