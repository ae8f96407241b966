/* standby.c - this process comes after another one, which proves it first.
 *
 * Until it is told to go it reads and writes nothing but its letters: no migration, no recovery, no socket of
 * its own. It has the lock and the listening sockets from the first letter on, like its predecessor; it touches
 * a connection only after that one has acknowledged that it serves, or has ended. In the image that follows
 * another in the same pid the letters come from a file, and there is nobody to wait for: it takes the connections at
 * once, answers what the core answers, and holds the rest until its application has started. */
#include "host/handover.h"

#include "base/packet.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HELLO_MS = 5000, LAST_WORD_MS = 1000 };

/* Our last letter; waits until it is taken. */
static void say_last(struct gw_host *h, const char *why, const char *what)
{
    struct standby *s = &h->standby;
    if (s->channel == NULL || s->gone || s->failed)
        return;
    s->failed = true;
    json_t *head = json_pack("{so}", "error", gw_json_string(why));
    if (what != NULL)
        gw_json_set(head, what, json_true());
    gw_channel_send(s->channel, "fail", head, NULL, 0, NULL, 0);
    while (!gw_channel_quiet(s->channel) && gw_channel_wait(s->channel, LAST_WORD_MS))
        ;
}

void gw_standby_fail(struct gw_host *h, int code, const char *why)
{
    say_last(h, why, h->standby.refused ? "refused" : NULL);
    gw_reexec_back(h, code, why);
}

void gw_standby_say_stop(struct gw_host *h)
{
    say_last(h, "it was told to stop", "stop");
}

/* What came is not what should come: this process is of no use. */
static void fail_start(struct gw_host *h, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void fail_start(struct gw_host *h, int code, const char *fmt, ...)
{
    char text[sizeof h->start_err.text];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    gw_err_set(&h->start_err, code, "%s", text);
    // Also here: the predecessor may not hear it any more.
    gw_log(GW_ERROR, "standby.failed", json_pack("{so}", "error", gw_json_string(text)), "%s; this process ends", text);
    gw_standby_fail(h, code, text);
    gw_host_post(h, GW_EV_START_FAILED);
}

// ---- letters ----

static void take_connections(struct gw_host *h, struct gw_letter *letter)
{
    struct standby *s = &h->standby;
    struct gw_err err = {0};
    if (!json_is_true(json_object_get(letter->head, "last"))) {
        int rc = gw_net_adopt(h->net, letter->head, letter->blob, letter->blob_bytes, letter->fds, letter->fd_count, &err);
        if (rc < 0)
            fail_start(h, rc, "the connections could not be taken over: %s", err.text);
        else if (rc > 0)
            gw_log(GW_WARN, "connections.left", json_pack("{si}", "connections", rc),
                   "%d connections could not be taken over (no descriptors left to watch?); they are closed", rc);
        return;
    }
    if (letter->fd_count == 1) {
        s->control_fd = letter->fds[0];
        letter->fds[0] = -1;
    }
    gw_handover_take_last(h, letter->head);
    s->describes = json_integer_value(json_object_get(letter->head, "describes")) == GW_NET_HANDOVER_VERSION;
    s->complete = true;
    if (s->channel != NULL)
        gw_channel_send(s->channel, "serving", json_pack("{ss}", "boot_id", h->boot_id), NULL, 0, NULL, 0);
}

static void take(struct gw_host *h, struct gw_letter *letter)
{
    struct standby *s = &h->standby;
    struct gw_err err = {0};
    if (strcmp(letter->type, "hello") == 0 && !s->met) {
        s->met = true;
        if (gw_handover_take_hello(h, letter, &err) < 0)
            s->met_err = err;
    } else if (strcmp(letter->type, "go") == 0 && h->state == GW_STANDING_BY && s->go == NULL) {
        s->go = json_incref(letter->head);
        // Where this image has been already a start may fail like any later one.
        gw_host_post(h, s->went_back != NULL ? GW_EV_STAY : GW_EV_GO);
    } else if (strcmp(letter->type, "connections") == 0 && s->go != NULL && !s->complete) {
        take_connections(h, letter);
    } else {
        fail_start(h, -EPROTO, "the predecessor says '%.40s', which is not expected now", letter->type);
    }
}

static void received(void *ud, struct gw_letter *letter)
{
    take(ud, letter);
}

static void acknowledged(void *ud)
{
    struct gw_host *h = ud;
    if (!h->standby.complete || h->standby.serving)
        return;
    h->standby.serving = true;
    gw_host_post(h, GW_EV_ARRIVED);
}

/* The channel has ended: the predecessor is gone, or one of us cannot follow the other any more. If it was told that
 * we serve, its end is how it should be. */
static void ended(void *ud, const struct gw_err *why)
{
    struct gw_host *h = ud;
    struct standby *s = &h->standby;
    if (why->code != -EPIPE && !s->serving) { // it lives, and the connections are its own
        if (!s->failed)
            fail_start(h, why->code, "the letters of the predecessor cannot be read: %s", why->text);
        return;
    }
    s->gone = true;
    if (s->failed)
        return;
    if (h->state == GW_ARRIVING && !s->serving) {
        s->serving = true;
        gw_host_post(h, GW_EV_ARRIVED);
    } else if (h->state == GW_STANDING_BY && s->told && s->go == NULL) {
        if (s->trial || gw_supervision_by(h) != NULL) {
            gw_log(GW_ERROR, "standby.orphaned", NULL, "the predecessor has died; the supervisor starts the next host");
            gw_host_post(h, GW_EV_START_FAILED);
        } else {
            gw_log(GW_WARN, "standby.orphaned", NULL, "the predecessor has died; this process takes over as after a crash");
            gw_host_post(h, GW_EV_GO);
        }
    } else if (s->ready_due) {
        s->ready_due = false;
        gw_supervision_ready(h, NULL);
    }
}

// ---- the letters of an image before ours ----

static void keep_number(int **io_fds, size_t *io_count, int fd)
{
    *io_fds = gw_realloc(*io_fds, (*io_count + 1) * sizeof **io_fds);
    (*io_fds)[(*io_count)++] = fd;
}

static int next_packet(struct standby *s, struct gw_packet *ret, struct gw_err *err)
{
    long n = gw_packet_read(s->memory.data + s->memory_at, s->memory.len - s->memory_at, ret, err);
    if (n > 0)
        s->memory_at += (size_t)n;
    return n > 0 ? 1 : (int)n;
}

/* Gives out the next letter of the file. False when there is none. */
static bool take_from_file(struct gw_host *h)
{
    struct standby *s = &h->standby;
    struct gw_packet packet;
    struct gw_letter letter = {.fd_count = 0};
    if (next_packet(s, &packet, NULL) <= 0)
        return false;
    const json_t *numbers = json_object_get(packet.head, "numbers");
    letter.type = json_string_value(json_object_get(packet.head, "type"));
    letter.head = packet.head;
    letter.blob = packet.blob;
    letter.blob_bytes = packet.blob_bytes;
    for (size_t i = 0; i < json_array_size(numbers) && i < GW_LETTER_FDS; i++) {
        letter.fds[letter.fd_count++] = (int)json_integer_value(json_array_get(numbers, i));
    }
    take(h, &letter);
    for (size_t i = 0; i < letter.fd_count; i++)
        if (letter.fds[i] >= 0)
            keep_number(&s->left_fds, &s->left_count, letter.fds[i]);
    json_decref(packet.head);
    return true;
}

/* Looks through the whole file before anything else is done: what it names must live on if this image has to go
 * back, and nobody that this one starts may get it. */
static int look_through(struct standby *s, struct gw_err *err)
{
    struct gw_packet packet;
    bool last = false;
    int rc;
    while ((rc = next_packet(s, &packet, err)) > 0) {
        const json_t *numbers = json_object_get(packet.head, "numbers"), *origin = json_object_get(packet.head, "origin");
        for (size_t i = 0; i < json_array_size(numbers); i++) {
            int fd = (int)json_integer_value(json_array_get(numbers, i));
            (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
            keep_number(&s->kept_fds, &s->kept_count, fd);
        }
        if (json_is_integer(origin) && s->went_back == NULL) { // it was closed on the way back
            s->origin_fd = (int)json_integer_value(origin);
            (void)fcntl(s->origin_fd, F_SETFD, FD_CLOEXEC);
        }
        last = json_is_true(json_object_get(packet.head, "last"));
        json_decref(packet.head);
    }
    s->memory_at = 0;
    return rc < 0 || last ? rc : gw_err_set(err, -EPROTO, "what the image before left is not whole");
}

static int read_file(struct standby *s, struct gw_err *err)
{
    char chunk[65536];
    for (ssize_t n; (n = pread(s->memory_fd, chunk, sizeof chunk, (off_t)s->memory.len)) != 0;) {
        if (n < 0)
            return gw_err_set(err, -errno, "cannot read what the image before left: %s", gw_strerror(errno));
        gw_buf_add(&s->memory, chunk, (size_t)n);
    }
    return s->memory.len > 0 ? 0 : gw_err_set(err, -EPROTO, "the image before left nothing");
}

// ---- the way ----

bool gw_standby_by_exec(const struct gw_host *h)
{
    struct stat st;
    return h->options.handover_fd >= 0 && fstat(h->options.handover_fd, &st) == 0 && S_ISREG(st.st_mode);
}

int gw_standby_read_file(struct gw_host *h, struct gw_err *err)
{
    struct standby *s = &h->standby;
    struct stat st;
    const char *back = getenv("GWHOST_WENT_BACK");
    s->went_back = gw_strdup(back);
    (void)unsetenv("GWHOST_WENT_BACK");
    if (fstat(h->options.handover_fd, &st) < 0)
        return gw_err_set(err, -EBADF, "GWHOST_HANDOVER names no open descriptor; it is not for people to set");
    if (!S_ISREG(st.st_mode))
        return 0;
    s->memory_fd = h->options.handover_fd;
    (void)fcntl(s->memory_fd, F_SETFD, FD_CLOEXEC);
    int rc = read_file(s, err);
    if (rc == 0)
        rc = look_through(s, err);
    return rc < 0 ? rc : 1;
}

int gw_standby_meet(struct gw_host *h, struct gw_err *err)
{
    static const struct gw_channel_ops ops = {.received = received, .acknowledged = acknowledged, .ended = ended};
    struct standby *s = &h->standby;
    s->active = true;
    h->state = GW_STANDING_BY;
    int rc = gw_standby_read_file(h, err);
    if (rc < 0)
        return rc;
    if (rc > 0) {
        (void)take_from_file(h);
    } else {
        if (gw_channel_open(&h->loop, h->options.handover_fd, &ops, h, &s->channel, err) < 0)
            return err->code;
        (void)gw_channel_wait(s->channel, HELLO_MS);
    }
    if (s->met_err.code < 0)
        return gw_err_set(err, s->met_err.code, "%s", s->met_err.text);
    return s->met ? 0 : gw_err_set(err, -EPROTO, "nobody says hello on GWHOST_HANDOVER; it is not for people to set");
}

static void say_ready(struct gw_host *h)
{
    struct gw_buf proved = {0};
    json_t *ready = gw_handover_ready(h, &proved);
    gw_channel_send(h->standby.channel, "ready", ready, proved.data, proved.len, NULL, 0);
    gw_buf_fini(&proved);
}

int gw_standby_get_ready(struct gw_host *h, struct gw_err *err)
{
    struct standby *s = &h->standby;
    int rc = gw_lock_adopt(h->dir_fd, h->options.state_dir, s->lock_fds, s->lock_fd_count, &h->lock, err);
    if (rc < 0)
        return rc;
    rc = gw_boot_serve(h, err);
    if (rc == 0) {
        rc = gw_host_prepare_app(h, err);
        s->refused = rc < 0;
    }
    if (rc < 0)
        return rc;
    gw_watchdog_arm(h, UINT64_MAX, "standing_by", "gateway.stop_shutdown_timeout");
    s->told = true;
    if (s->channel != NULL)
        say_ready(h);
    else if (!take_from_file(h) || s->go == NULL)
        return gw_err_set(err, -EPROTO, "what the image before left is damaged");
    return 0;
}

static uint64_t health_ms(const struct standby *s)
{
    json_int_t ms = json_integer_value(json_object_get(s->go, "health_ms"));
    return ms > 0 ? (uint64_t)ms : GW_HEALTH_MS;
}

static void with_store(struct gw_host *h, const struct gw_err *unopened)
{
    struct standby *s = &h->standby;
    // Where nobody would go on in our place, nothing is given up for it; it is tried again.
    bool alone = s->went_back != NULL || s->go == NULL || (s->gone && s->channel != NULL);
    if (unopened->code < 0 && (!alone || unopened->code == -ENOTSUP)) {
        fail_start(h, unopened->code, "%s", unopened->text);
        return;
    }
    (void)gw_host_reload_policy(h, "successor", NULL);
    gw_effects_run(h, GW_FX_START);
    // An image that does not start in time goes back, as a process that does not is ended.
    if (s->memory_fd >= 0 && s->origin_fd >= 0)
        gw_effects_start_limit(h, health_ms(s));
}

static void open_control(struct gw_host *h)
{
    struct gw_err err = {0};
    if (gw_control_open(h, h->standby.control_fd, &err) < 0)
        gw_log(GW_ERROR, "control.failed", json_pack("{so}", "error", gw_json_string(err.text)),
               "the control socket cannot be served: %s; signals and HTTP work", err.text);
    h->standby.control_fd = -1;
}

/* Takes the connections out of the file; nobody else looks at them any more. False: it cannot be read, which has been
 * said. */
static bool take_connections_back(struct gw_host *h)
{
    struct standby *s = &h->standby;
    while (s->memory_fd >= 0 && !s->complete && (h->start_err.code == 0 || h->cannot_serve) && take_from_file(h))
        ;
    if (h->start_err.code < 0 && !h->cannot_serve)
        return false;
    // Whoever had to go back could not describe them to an image of another kind, nor what was not taken here.
    if (!s->complete || !s->describes || s->left_count > 0 || h->cannot_serve)
        return true;
    s->answers = true;
    char tag[64];
    (void)snprintf(tag, sizeof tag, "%.8s.%u", h->boot_id, h->generation + 1);
    gw_net_tag(h->net, tag);
    gw_history_load(h);
    open_control(h);
    gw_net_thaw(h->net);
    return true;
}

void gw_standby_take_over(struct gw_host *h)
{
    struct standby *s = &h->standby;
    struct gw_err err = {0};
    const struct gw_err none = {0};
    h->startup_started_at_ms = gw_wall_ms(); // it stood by for as long as its predecessor drained
    if (s->go != NULL)
        gw_handover_take_go(h, s->go);
    gw_log(GW_INFO, "lock.acquired", json_pack("{so}", "path", gw_json_string(h->options.state_dir)),
           "this host owns the state directory now, after its predecessor");
    if (s->went_back != NULL) {
        gw_err_set(&err, -ECANCELED, "%s", s->went_back);
        gw_bundle_write(h, "gateway.restart_respawn_failed", &err);
    }
    if (gw_boot_own(h, s->go != NULL, &err) < 0) {
        if (s->went_back == NULL) {
            fail_start(h, err.code, "%s", err.text);
            return;
        }
        gw_reexec_back(h, err.code, err.text);
        h->cannot_serve = true; // there is no other image: it has failed, and waits for its operator
        h->start_err = err;
    }
    if (!take_connections_back(h))
        return;
    // Long enough for a lock or a disk that is in the way for a moment; the predecessor goes on if it is not enough, and
    // answers before those who wait meanwhile are refused.
    if (s->went_back != NULL)
        with_store(h, &none);
    else
        gw_workload_await(h, health_ms(s) / 3, with_store);
}

void gw_standby_say_started(struct gw_host *h)
{
    struct standby *s = &h->standby;
    gw_limit_stop(&h->start_limit); // what follows has limits of its own
    if (s->channel == NULL || s->gone) {
        s->serving = true;
        gw_host_post(h, GW_EV_ARRIVED);
    } else {
        gw_channel_send(s->channel, "started", json_object(), NULL, 0, NULL, 0);
    }
}

/* The connections are ours, and so is the control socket. */
void gw_standby_arrive(struct gw_host *h)
{
    struct standby *s = &h->standby;
    if (!s->active || s->arrived)
        return;
    s->arrived = true;
    if (s->go != NULL) // else it was done at once: nobody was left to do it
        gw_safe_mode_begin(h, s->predecessor);
    if (s->go != NULL && !s->answers)
        gw_history_load(h);
    gw_watch_open(h);
    if (!s->answers) {
        open_control(h);
        gw_net_thaw(h->net);
    }
    s->answers = false;
    if (s->origin_fd >= 0)
        (void)close(s->origin_fd);
    if (s->memory_fd >= 0)
        (void)close(s->memory_fd);
    s->origin_fd = s->memory_fd = -1;
    gw_buf_fini(&s->memory);
    for (size_t i = 0; i < s->left_count; i++)
        (void)close(s->left_fds[i]);
    s->left_count = s->kept_count = 0;
}

void gw_standby_close(struct gw_host *h)
{
    struct standby *s = &h->standby;
    s->channel = gw_channel_close(s->channel);
    json_decref(s->go);
    free(s->went_back);
    gw_buf_fini(&s->memory);
    free(s->kept_fds);
    free(s->left_fds);
    s->policy = gw_sources_unref(s->policy);
    s->next = gw_sources_unref(s->next);
    s->good = gw_sources_unref(s->good);
    free(s->program);
}
