#include "loop/channel.h"

#include "base/err.h"
#include "base/json.h"
#include "base/packet.h"
#include "base/str.h"
#include "base/time.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

enum { READ_BYTES = 262144, FDS_AT_ONCE = 253 };

struct queued {
    struct queued *next;
    struct gw_buf bytes;
    int fds[GW_LETTER_FDS]; /* borrowed */
    size_t fd_count;
};

struct gw_channel {
    uv_poll_t poll;
    int fd; /* owned */
    struct gw_channel_ops ops;
    void *ud;
    struct queued *first, **last; /* owned; the first is under way once its bytes have been sent */
    size_t sent;                  /* of the first */
    bool awaiting;                /* its acknowledgement */
    struct gw_buf acks;           /* go out between letters */
    struct gw_buf in;
    size_t in_start;              /* what is before it has been given out */
    int fds[FDS_AT_ONCE]; /* of the letter that is coming in; owned */
    size_t fd_count;
    bool ended, closed;
    int broken; /* why nothing can be sent any more */
    unsigned depth; /* callbacks under way: the memory stays until they have returned */
};

static void on_poll(uv_poll_t *poll, int status, int events);

static void drop_fds(struct gw_channel *c)
{
    for (size_t i = 0; i < c->fd_count; i++)
        (void)close(c->fds[i]);
    c->fd_count = 0;
}

static void drop_first(struct gw_channel *c)
{
    struct queued *q = c->first;
    c->first = q->next;
    if (c->first == NULL)
        c->last = &c->first;
    c->sent = 0;
    gw_buf_fini(&q->bytes);
    free(q);
}

static void repoll(struct gw_channel *c)
{
    if (c->closed || c->ended) {
        (void)uv_poll_stop(&c->poll);
        return;
    }
    bool writes = c->acks.len > 0 || c->broken < 0 || (c->first != NULL && !c->awaiting);
    (void)uv_poll_start(&c->poll, UV_READABLE | (writes ? UV_WRITABLE : 0), on_poll);
}

static void end(struct gw_channel *c, int code, const char *why)
{
    if (c->ended || c->closed)
        return;
    struct gw_err err = {0};
    (void)gw_err_set(&err, code, "%s", why);
    c->ended = true;
    c->ops.ended(c->ud, &err);
}

/* Returns how many bytes went out, 0 when the other side has no room, or -1 when the channel has ended. */
static ssize_t send_some(struct gw_channel *c, const char *data, size_t n, const int *fds, size_t fd_count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * GW_LETTER_FDS)];
    } control = {0};
    struct iovec iov = {(void *)(uintptr_t)data, n};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd_count > 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * fd_count);
    }
    ssize_t sent;
    do
        sent = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return sent;
    if (errno == EAGAIN)
        return 0;
    // Told from the loop, and after what the other side has said before it went.
    c->broken = -errno;
    return -1;
}

static void flush(struct gw_channel *c)
{
    bool between = c->first == NULL || c->awaiting || c->sent == 0;
    while (between && c->acks.len > 0) {
        ssize_t n = send_some(c, c->acks.data, c->acks.len, NULL, 0);
        if (n <= 0)
            return;
        gw_buf_drop(&c->acks, (size_t)n);
    }
    while (c->first != NULL && !c->awaiting) {
        struct queued *q = c->first;
        bool begins = c->sent == 0;
        ssize_t n = send_some(c, q->bytes.data + c->sent, q->bytes.len - c->sent, q->fds, begins ? q->fd_count : 0);
        if (n <= 0)
            return;
        c->sent += (size_t)n;
        c->awaiting = c->sent == q->bytes.len;
    }
}

static void acknowledge(struct gw_channel *c)
{
    json_t *head = json_pack("{ss}", "type", "ack");
    gw_packet_add(&c->acks, head, NULL, 0);
    json_decref(head);
}

static void take(struct gw_channel *c, struct gw_packet *p)
{
    const char *type = json_string_value(json_object_get(p->head, "type"));
    size_t wanted = (size_t)json_integer_value(json_object_get(p->head, "fds"));
    if (type != NULL && strcmp(type, "ack") == 0) {
        if (!c->awaiting) {
            end(c, -EPROTO, "an acknowledgement came for nothing");
            return;
        }
        c->awaiting = false;
        drop_first(c);
        if (c->first == NULL && c->ops.acknowledged != NULL)
            c->ops.acknowledged(c->ud);
        return;
    }
    if (type == NULL || wanted != c->fd_count || wanted > GW_LETTER_FDS) {
        end(c, -EPROTO, type == NULL ? "a letter has no type" : "a letter's descriptors are not as many as it says");
        return;
    }
    struct gw_letter letter = {
        .type = type, .head = p->head, .blob = p->blob, .blob_bytes = p->blob_bytes, .fd_count = c->fd_count};
    memcpy(letter.fds, c->fds, sizeof(int) * c->fd_count);
    c->fd_count = 0;
    c->ops.received(c->ud, &letter);
    for (size_t i = 0; i < letter.fd_count; i++)
        if (letter.fds[i] >= 0)
            (void)close(letter.fds[i]);
    acknowledge(c);
}

/* Gives out what is whole. */
static bool take_all(struct gw_channel *c)
{
    bool any = false;
    while (!c->closed && !c->ended) {
        struct gw_packet packet;
        struct gw_err err = {0};
        const char *data = c->in.data != NULL ? c->in.data + c->in_start : "";
        long n = gw_packet_read(data, c->in.len - c->in_start, &packet, &err);
        if (n < 0)
            end(c, (int)n, err.text);
        if (n <= 0)
            break;
        c->in_start += (size_t)n; // first: who receives it may wait for the next one
        take(c, &packet);
        json_decref(packet.head);
        any = true;
    }
    return any;
}

static void keep_fds(struct gw_channel *c, struct msghdr *msg)
{
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg); cmsg != NULL; cmsg = CMSG_NXTHDR(msg, cmsg)) {
        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof fd, sizeof fd);
            if (c->fd_count < FDS_AT_ONCE)
                c->fds[c->fd_count++] = fd;
            else
                (void)close(fd);
        }
    }
}

/* What was given out is dropped once nobody looks at it any more. */
static void compact(struct gw_channel *c)
{
    gw_buf_drop(&c->in, c->in_start);
    c->in_start = 0;
}

/* Reads what is there. Returns false when nothing was. */
static bool read_some(struct gw_channel *c)
{
    static char scratch[READ_BYTES]; // the loop's thread only
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * FDS_AT_ONCE)];
    } control;
    struct iovec iov = {scratch, sizeof scratch};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t n;
    do
        n = recvmsg(c->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n > 0) {
        keep_fds(c, &msg);
        gw_buf_add(&c->in, scratch, (size_t)n);
        if ((msg.msg_flags & MSG_CTRUNC) != 0)
            end(c, -EMFILE, "this process may not open that many descriptors (ulimit -n)");
        return true;
    }
    if (n < 0 && errno == EAGAIN)
        return false;
    end(c, n == 0 || errno == ECONNRESET ? -EPIPE : -errno,
        n == 0 || errno == ECONNRESET ? "the other side has closed the channel" : gw_strerror(errno));
    return true;
}

static void on_closed(uv_handle_t *handle)
{
    struct gw_channel *c = handle->data;
    drop_fds(c);
    while (c->first != NULL)
        drop_first(c);
    gw_buf_fini(&c->acks);
    gw_buf_fini(&c->in);
    free(c);
}

static void work(struct gw_channel *c)
{
    c->depth++;
    // Letters that came before the end are given out before it.
    for (bool more = true; more && !c->ended && !c->closed;) {
        (void)take_all(c);
        more = !c->ended && !c->closed && read_some(c);
    }
    if (!c->closed && !c->ended && c->broken == 0)
        flush(c);
    if (c->broken < 0)
        end(c, c->broken == -ECONNRESET ? -EPIPE : c->broken, gw_strerror(c->broken));
    c->depth--;
    if (c->depth == 0)
        compact(c);
    if (c->closed) {
        if (c->depth == 0)
            uv_close((uv_handle_t *)&c->poll, on_closed);
        return;
    }
    repoll(c);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    work(poll->data);
}

int gw_channel_open(uv_loop_t *loop, int fd, const struct gw_channel_ops *ops, void *ud,
                    struct gw_channel **ret_channel, struct gw_err *err)
{
    struct gw_channel *c = gw_calloc(1, sizeof *c);
    int rc = uv_poll_init_socket(loop, &c->poll, fd);
    if (rc < 0) {
        free(c);
        return gw_err_set(err, rc, "cannot watch descriptor %d: %s", fd, gw_strerror(rc));
    }
    c->fd = fd;
    c->ops = *ops;
    c->ud = ud;
    c->last = &c->first;
    c->poll.data = c;
    repoll(c);
    *ret_channel = c;
    return 0;
}

struct gw_channel *gw_channel_close(struct gw_channel *c)
{
    if (c == NULL || c->closed)
        return NULL;
    c->closed = true;
    (void)uv_poll_stop(&c->poll);
    (void)close(c->fd);
    if (c->depth == 0)
        uv_close((uv_handle_t *)&c->poll, on_closed);
    return NULL;
}

void gw_channel_send(struct gw_channel *c, const char *type, json_t *head, const void *blob, size_t blob_bytes,
                     const int *fds, size_t fd_count)
{
    gw_assert(fd_count <= GW_LETTER_FDS);
    struct queued *q = gw_calloc(1, sizeof *q);
    gw_json_set(head, "type", json_string(type));
    if (fd_count > 0)
        gw_json_set(head, "fds", json_integer((json_int_t)fd_count));
    gw_packet_add(&q->bytes, head, blob, blob_bytes);
    json_decref(head);
    if (fd_count > 0)
        memcpy(q->fds, fds, sizeof(int) * fd_count);
    q->fd_count = fd_count;
    *c->last = q;
    c->last = &q->next;
    if (c->broken == 0)
        flush(c);
    repoll(c);
}

bool gw_channel_quiet(const struct gw_channel *c)
{
    return c->first == NULL;
}

bool gw_channel_wait(struct gw_channel *c, unsigned max_ms)
{
    uint64_t end_ms = gw_now_ms() + max_ms;
    if (c->ended || c->closed)
        return false;
    for (uint64_t now = gw_now_ms(); now < end_ms; now = gw_now_ms()) {
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        if (poll(&p, 1, (int)(end_ms - now)) <= 0)
            continue;
        c->depth++;
        bool read = read_some(c), any = take_all(c) || c->ended || c->closed;
        if (!c->closed && !c->ended && c->broken == 0)
            flush(c);
        c->depth--;
        if (c->depth == 0)
            compact(c);
        if (read && any) {
            if (c->closed && c->depth == 0)
                uv_close((uv_handle_t *)&c->poll, on_closed);
            else if (!c->closed)
                repoll(c);
            return true;
        }
    }
    return false;
}
