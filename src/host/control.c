/* control.c - the control socket: newline-delimited JSON for the people and scripts of this machine.
 *
 * The manual describes the protocol. Many clients, none of whom can harm another: lines, waiting answers and
 * the number of clients are bounded, and a client that does not read is let go. */
#include "host/control.h"

#include "os/unixsock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS_MAX = 64, LINE_BYTES = (1 << 20) + 65536, UNSENT_BYTES = 4 << 20, SILENT_MS = 30000 };

struct control {
    uv_pipe_t *server; /* owned, frees itself once it is closed; data: the host */
    char *path;
    struct gw_unixsock_file file; /* another host may have put its own there since */
    struct gw_control_client *clients;
    unsigned count;
    unsigned servers; /* not closed yet */
    bool paused;
};

static void free_client(uv_handle_t *handle)
{
    struct gw_control_client *c = handle->data;
    if (--c->uses == 0) {
        gw_buf_fini(&c->in);
        free(c);
    }
}

static void drop_client(struct gw_control_client *c)
{
    if (c->gone)
        return;
    c->gone = true;
    struct control *control = c->host->control;
    for (struct gw_control_client **p = &control->clients; *p != NULL; p = &(*p)->next)
        if (*p == c) {
            *p = c->next;
            break;
        }
    control->count--;
    uv_close((uv_handle_t *)&c->pipe, free_client);
    uv_close((uv_handle_t *)&c->silence, free_client);
}

void gw_control_hold(struct gw_control_client *c)
{
    c->uses++;
}

void gw_control_release(struct gw_control_client *c)
{
    if (--c->uses == 0) {
        gw_buf_fini(&c->in);
        free(c);
    }
}

struct writing {
    uv_write_t req;
    struct gw_control_client *client;
    char *text;
};

static void on_written(uv_write_t *req, int status)
{
    struct writing *w = req->data;
    if (status < 0)
        drop_client(w->client);
    gw_control_release(w->client);
    free(w->text);
    free(w);
}

void gw_control_send(struct gw_control_client *c, json_t *message)
{
    if (c->gone) {
        json_decref(message);
        return;
    }
    char *json = gw_json_text(message);
    json_decref(message);
    struct writing *w = gw_calloc(1, sizeof *w);
    w->text = gw_asprintf("%s\n", json);
    free(json);
    w->client = c;
    w->req.data = w;
    size_t n = strlen(w->text);
    uv_buf_t buf = uv_buf_init(w->text, (unsigned)n);
    bool slow = uv_stream_get_write_queue_size((uv_stream_t *)&c->pipe) + n > UNSENT_BYTES;
    if (slow || uv_write(&w->req, (uv_stream_t *)&c->pipe, &buf, 1, on_written) < 0) {
        free(w->text);
        free(w);
        drop_client(c);
        return;
    }
    gw_control_hold(c);
}

static json_t *wrap(json_t *id, bool ok)
{
    json_t *o = json_object();
    gw_json_set(o, "id", json_incref(id));
    gw_json_set(o, "ok", json_boolean(ok));
    return o;
}

void gw_control_answer(struct gw_control_client *c, json_t *id, json_t *result)
{
    json_t *o = wrap(id, true);
    gw_json_set(o, "result", result);
    gw_control_send(c, o);
}

void gw_control_refuse(struct gw_control_client *c, json_t *id, const char *code, const char *message)
{
    json_t *o = wrap(id, false), *error = json_object();
    gw_json_set(error, "code", json_string(code));
    gw_json_set(error, "message", gw_json_string(message));
    gw_json_set(o, "error", error);
    gw_control_send(c, o);
}

// ---- lines ----

static void take_line(struct gw_control_client *c, const char *line, size_t n)
{
    json_t *request = NULL;
    struct gw_err err = {0};
    if (n == 0)
        return;
    if (gw_json_parse(line, n, &request, &err) < 0 || !json_is_object(request)) {
        gw_control_refuse(c, NULL, "bad_request", err.code < 0 ? err.text : "a request is one JSON object a line");
    } else {
        gw_control_do(c, request);
    }
    json_decref(request);
}

/* Half a line may not wait for ever; a client that asks for nothing may, it costs nothing. */
static void on_silence(uv_timer_t *timer)
{
    drop_client(timer->data);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct gw_control_client *c = stream->data;
    if (n > 0)
        gw_buf_add(&c->in, buf->base, (size_t)n);
    free(buf->base);
    if (n < 0) {
        drop_client(c);
        return;
    }
    if (c->in.len == 0)
        return;
    gw_control_hold(c);
    size_t from = 0;
    for (char *end; !c->gone && (end = memchr(c->in.data + from, '\n', c->in.len - from)) != NULL;) {
        size_t to = (size_t)(end - c->in.data);
        take_line(c, c->in.data + from, to - from);
        from = to + 1;
    }
    gw_buf_drop(&c->in, from);
    if (!c->gone && c->in.len > LINE_BYTES) {
        gw_control_refuse(c, NULL, "too_large", "the line is too long");
        drop_client(c);
    } else if (!c->gone && c->in.len > 0) {
        (void)uv_timer_start(&c->silence, on_silence, SILENT_MS, 0);
    } else if (!c->gone) {
        (void)uv_timer_stop(&c->silence);
    }
    gw_control_release(c);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    *ret = uv_buf_init(gw_realloc(NULL, 65536), 65536);
}

// ---- clients ----

static bool may_talk(uv_pipe_t *pipe, pid_t *ret_peer)
{
    uv_os_fd_t fd;
    struct ucred cred;
    socklen_t len = sizeof cred;
    if (uv_fileno((uv_handle_t *)pipe, &fd) < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
        return false;
    *ret_peer = cred.pid;
    return cred.uid == geteuid() || cred.uid == 0;
}

static void on_connection(uv_stream_t *server, int status)
{
    struct gw_host *h = server->data;
    struct control *control = h->control;
    if (status < 0 || control->paused)
        return; // libuv keeps one that is not taken, and asks for no more
    struct gw_control_client *c = gw_calloc(1, sizeof *c);
    c->host = h;
    c->uses = 2; // the pipe and the timer
    (void)uv_pipe_init(&h->loop, &c->pipe, 0);
    (void)uv_timer_init(&h->loop, &c->silence);
    c->pipe.data = c->silence.data = c;
    c->next = control->clients;
    control->clients = c;
    control->count++;
    if (uv_accept(server, (uv_stream_t *)&c->pipe) < 0 || !may_talk(&c->pipe, &c->peer)) {
        drop_client(c);
        return;
    }
    if (control->count > CLIENTS_MAX) {
        gw_control_refuse(c, NULL, "busy", "too many clients; try again in a moment");
        drop_client(c);
        return;
    }
    json_t *hello = json_pack("{sssisisssiss}", "gwhost", h->options.version, "protocol", 1, "pid", (int)getpid(),
                              "boot_id", h->boot_id, "generation", (int)h->generation, "state",
                              gw_state_public(h->state));
    gw_control_send(c, json_pack("{so}", "hello", hello));
    (void)uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read);
}

static void on_event(void *ud, const json_t *object)
{
    struct gw_host *h = ud;
    if (h->control == NULL)
        return;
    for (struct gw_control_client *c = h->control->clients, *next; c != NULL; c = next) {
        next = c->next;
        if (c->follows)
            gw_control_send(c, json_pack("{sO}", "event", (json_t *)object));
    }
}

void gw_control_tell(struct gw_host *h, const json_t *object)
{
    on_event(h, object);
}

// ---- life ----

static int bind_socket(struct control *control, struct gw_err *err)
{
    // The lock is ours, so whatever is left there belongs to nobody.
    (void)unlink(control->path);
    int fd = gw_unixsock_bind(control->path, 0177, 64, &control->file, err);
    if (fd < 0)
        (void)gw_err_prefix(err, "the control socket");
    return fd;
}

int gw_control_fd(const struct gw_host *h)
{
    uv_os_fd_t fd;
    return h->control != NULL && uv_fileno((uv_handle_t *)h->control->server, &fd) == 0 ? fd : -1;
}

void gw_control_pause(struct gw_host *h, bool paused)
{
    struct control *control = h->control;
    if (control == NULL || control->paused == paused)
        return;
    control->paused = paused;
    for (struct gw_control_client *c = control->clients; c != NULL; c = c->next) {
        if (paused)
            (void)uv_read_stop((uv_stream_t *)&c->pipe);
        else
            (void)uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read);
    }
    if (!paused)
        on_connection((uv_stream_t *)control->server, 0); // what has come meanwhile
}

bool gw_control_reachable(const struct gw_host *h)
{
    return h->control != NULL && gw_unixsock_leads_to(h->control->path, &h->control->file);
}

static void on_server_closed(uv_handle_t *handle)
{
    struct gw_host *h = handle->data;
    h->control->servers--;
    free(handle);
}

/* Serves fd from now on; takes it over, also when it fails. */
static int serve(struct gw_host *h, int fd, struct gw_err *err)
{
    struct control *control = h->control;
    uv_pipe_t *server = gw_calloc(1, sizeof *server), *before = control->server;
    (void)uv_pipe_init(&h->loop, server, 0);
    server->data = h;
    control->servers++;
    int rc = uv_pipe_open(server, fd);
    if (rc < 0)
        (void)close(fd);
    else
        rc = uv_listen((uv_stream_t *)server, 64, on_connection);
    if (rc == 0) {
        control->server = server;
        server = before;
    }
    if (server != NULL)
        uv_close((uv_handle_t *)server, on_server_closed);
    return rc < 0 ? gw_err_set(err, rc, "cannot serve the control socket: %s", gw_strerror(rc)) : 0;
}

static void free_control(struct gw_host *h)
{
    while (h->control->servers > 0)
        (void)uv_run(&h->loop, UV_RUN_NOWAIT);
    free(h->control->path);
    free(h->control);
    h->control = NULL;
}

int gw_control_open(struct gw_host *h, int fd, struct gw_err *err)
{
    h->control = gw_calloc(1, sizeof *h->control);
    h->control->path = gw_asprintf("%s/control.sock", h->options.state_dir);
    if (fd >= 0)
        h->control->file = gw_unixsock_look(h->control->path);
    else
        fd = bind_socket(h->control, err);
    int rc = fd < 0 ? fd : serve(h, fd, err);
    if (rc < 0)
        free_control(h);
    else
        gw_log_tap(on_event, h);
    return rc;
}

int gw_control_mend(struct gw_host *h, struct gw_err *err)
{
    if (h->control == NULL || gw_control_reachable(h))
        return 0;
    int fd = bind_socket(h->control, err), rc = fd < 0 ? fd : serve(h, fd, err);
    return rc < 0 ? rc : 1;
}

void gw_control_close(struct gw_host *h)
{
    struct control *control = h->control;
    if (control == NULL)
        return;
    gw_log_tap(NULL, NULL);
    if (!h->departed)
        gw_unixsock_remove(control->path, &control->file);
    uv_close((uv_handle_t *)control->server, on_server_closed);
    // What was said last is worth a moment: the outcome of the restart or stop that ends this host.
    uint64_t end = gw_now_ms() + 200;
    for (bool waiting = true; waiting && gw_now_ms() < end;) {
        waiting = control->servers > 0;
        for (struct gw_control_client *c = control->clients; c != NULL; c = c->next)
            waiting = waiting || uv_stream_get_write_queue_size((uv_stream_t *)&c->pipe) > 0;
        (void)uv_run(&h->loop, UV_RUN_NOWAIT);
    }
    while (control->clients != NULL)
        drop_client(control->clients);
    free_control(h);
}
