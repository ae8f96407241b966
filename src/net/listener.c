/* listener.c - accepting, a bounded number a turn, and pausing when there is no room. */
#include "base/err.h"
#include "net/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void on_readable(uv_poll_t *poll, int status, int events);

static bool paused(const struct gw_net *net)
{
    return net->frozen || net->accept_full || gw_list_linked(&net->accept_pause.link);
}

void gw_listener_repoll(struct gw_net *net)
{
    for (struct gw_list *l = net->listeners.next; l != &net->listeners; l = l->next) {
        struct gw_listener *listener = gw_container(l, struct gw_listener, link);
        if (paused(net))
            (void)uv_poll_stop(&listener->poll);
        else
            (void)uv_poll_start(&listener->poll, UV_READABLE, on_readable);
    }
}

/* That there is no room is said once, until there is clearly some: who comes and goes at the edge is no news. */
static void say_full(struct gw_net *net, int code)
{
    if (net->full_said)
        return;
    net->full_said = true;
    net->full_open = net->counts.open;
    if (net->ops.accepting != NULL)
        net->ops.accepting(net->ud, true, code);
}

static void say_room(struct gw_net *net)
{
    unsigned quarter = net->full_open / 4, open = net->counts.open;
    bool at_edge = open > net->full_open - quarter && open <= net->full_open + quarter + ACCEPTS_A_TURN;
    if (!net->full_said || at_edge || gw_list_empty(&net->listeners))
        return;
    net->full_said = false;
    if (net->ops.accepting != NULL)
        net->ops.accepting(net->ud, false, 0);
}

/* Takes one connection. False when there is none, or no room for it: it then waits in the kernel's queue,
 * which loses nobody and costs nothing, where a 503 would take a descriptor to send away a client that
 * comes back at once. It is served when a connection has gone. */
static bool accept_one(struct gw_listener *listener, bool beyond_limit)
{
    struct gw_net *net = listener->net;
    if (net->counts.open >= net->limits.connections + (beyond_limit ? net->limits.beyond : 0)) {
        net->accept_full = true;
        say_full(net, 0);
        gw_listener_repoll(net);
        return false;
    }
    struct sockaddr_storage peer = {0};
    socklen_t len = sizeof peer;
    int fd = accept4(listener->fd, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
        if (listener->unix_socket)
            peer.ss_family = AF_UNIX; // the kernel gives no name to clients of a unix socket
        (void)gw_conn_adopt(net, fd, &peer);
        say_room(net);
        return true;
    }
    switch (errno) {
    case EAGAIN:
        return false;
    case EINTR:
    case ECONNABORTED: // these are of a connection that failed before it was accepted: the next one
    case EPROTO:
    case EPERM:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENONET:
    case ENOPROTOOPT:
        return true;
    default: // no descriptors, no memory, or a socket that somebody has shut down: trying at once would spin
        say_full(net, -errno);
        gw_timeout_set(net, &net->accept_pause, GW_TO_ACCEPT);
        gw_listener_repoll(net);
        return false;
    }
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct gw_listener *listener = poll->data;
    for (int i = 0; i < ACCEPTS_A_TURN && !listener->net->closing; i++)
        if (!accept_one(listener, false))
            return;
}

static void accept_all(struct gw_listener *listener)
{
    for (unsigned i = 0; i < listener->net->limits.beyond && accept_one(listener, true); i++)
        ;
}

void gw_net_accept_rest(struct gw_net *net)
{
    for (struct gw_list *l = net->listeners.next; l != &net->listeners; l = l->next)
        accept_all(gw_container(l, struct gw_listener, link));
}

void gw_listener_room(struct gw_net *net)
{
    if (net->closing)
        return;
    say_room(net);
    if (!net->accept_full)
        return;
    net->accept_full = false;
    gw_listener_repoll(net);
}

void gw_listener_expire(struct gw_timed *t)
{
    gw_listener_repoll(gw_container(t, struct gw_net, accept_pause));
}

int gw_net_listen(struct gw_net *net, int fd, const char *address, struct gw_err *err)
{
    struct sockaddr_storage name = {0};
    socklen_t len = sizeof name;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0 || getsockname(copy, (struct sockaddr *)&name, &len) < 0) {
        int code = -errno;
        if (copy >= 0)
            (void)close(copy);
        return gw_err_set(err, code, "cannot serve %s: %s", address, gw_strerror(code));
    }
    int listening = 0;
    len = sizeof listening;
    (void)getsockopt(copy, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len);
    if (!listening) {
        (void)close(copy);
        return gw_err_set(err, -EINVAL, "cannot serve %s: the socket does not listen", address);
    }
    (void)fcntl(copy, F_SETFL, fcntl(copy, F_GETFL) | O_NONBLOCK);
    static const int on = 1; // what is accepted inherits it: an answer must not wait for the client's next segment
    if (name.ss_family != AF_UNIX)
        (void)setsockopt(copy, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct gw_listener *listener = gw_calloc(1, sizeof *listener);
    listener->net = net;
    listener->fd = copy;
    listener->unix_socket = name.ss_family == AF_UNIX;
    int r = uv_poll_init(net->loop, &listener->poll, copy);
    if (r < 0) {
        (void)close(copy);
        free(listener);
        return gw_err_set(err, r, "cannot serve %s: %s", address, gw_strerror(r));
    }
    listener->poll.data = listener;
    net->handles++;
    net->counts.listeners++;
    gw_list_append(&net->listeners, &listener->link);
    if (!paused(net))
        (void)uv_poll_start(&listener->poll, UV_READABLE, on_readable);
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct gw_listener *listener = handle->data;
    struct gw_net *net = listener->net;
    free(listener);
    gw_net_handle_closed(net);
}

static void unlisten(struct gw_listener *listener)
{
    gw_list_remove(&listener->link);
    (void)uv_poll_stop(&listener->poll);
    (void)close(listener->fd); // a copy: the socket itself is the owner's
    uv_close((uv_handle_t *)&listener->poll, on_closed);
    listener->net->counts.listeners--;
}

void gw_net_unlisten(struct gw_net *net)
{
    while (!gw_list_empty(&net->listeners))
        unlisten(gw_container(net->listeners.next, struct gw_listener, link));
}

/* A dup is the same socket, whatever its number. */
static bool is_copy_of(const struct gw_listener *listener, int fd)
{
    struct stat socket, copy;
    return fstat(fd, &socket) == 0 && fstat(listener->fd, &copy) == 0 && copy.st_ino == socket.st_ino &&
           copy.st_dev == socket.st_dev;
}

void gw_net_unlisten_one(struct gw_net *net, int fd)
{
    for (struct gw_list *l = net->listeners.next, *next; l != &net->listeners; l = next) {
        struct gw_listener *listener = gw_container(l, struct gw_listener, link);
        next = l->next;
        if (is_copy_of(listener, fd))
            unlisten(listener);
    }
}

int gw_net_replace(struct gw_net *net, int old_fd, int new_fd, const char *address, struct gw_err *err)
{
    int rc = gw_net_listen(net, new_fd, address, err);
    if (rc < 0)
        return rc;
    for (struct gw_list *l = net->listeners.next, *next; l != &net->listeners; l = next) {
        struct gw_listener *listener = gw_container(l, struct gw_listener, link);
        next = l->next;
        if (!is_copy_of(listener, old_fd))
            continue;
        accept_all(listener);
        unlisten(listener);
    }
    return 0;
}
