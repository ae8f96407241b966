/* channel.h - letters with descriptors between two processes, over a connected pair of stream sockets.
 *
 * A letter is a packet (base/packet.h) whose head has a `type` and, when descriptors ride along, their number
 * in `fds`; they come with its first byte. One letter is under way in a direction: the next goes out when the
 * other side has acknowledged the last, which it does by itself once its `received` has returned. Whatever is
 * not a letter ends the channel. Callbacks come from the loop. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct uv_loop_s uv_loop_t;
struct gw_err;
struct gw_channel;

enum { GW_LETTER_FDS = 200 }; /* the kernel takes 253 */

struct gw_letter {
    const char *type;
    json_t *head; /* borrowed */
    const char *blob;
    size_t blob_bytes;
    int fds[GW_LETTER_FDS]; /* the receiver's: what it takes it sets to -1, the rest is closed after the call */
    size_t fd_count;
};

struct gw_channel_ops {
    void (*received)(void *ud, struct gw_letter *letter);
    /* The last letter that was sent has been acknowledged, and none waits. May be NULL. */
    void (*acknowledged)(void *ud);
    /* Nothing more will come: why->code is -EPIPE when the other side has closed, -EPROTO for garbage. Once. */
    void (*ended)(void *ud, const struct gw_err *why);
};

/* Takes fd over, a connected stream socket. */
int gw_channel_open(uv_loop_t *loop, int fd, const struct gw_channel_ops *ops, void *ud,
                    struct gw_channel **ret_channel, struct gw_err *err);
/* No callback comes after it. NULL is fine; always NULL. */
struct gw_channel *gw_channel_close(struct gw_channel *c);

/* Queues a letter; takes the reference to head. blob is copied, fds are borrowed until it is acknowledged. */
void gw_channel_send(struct gw_channel *c, const char *type, json_t *head, const void *blob, size_t blob_bytes,
                     const int *fds, size_t fd_count);
/* Nothing waits to be sent or acknowledged. */
bool gw_channel_quiet(const struct gw_channel *c);
/* Waits, outside of the loop, until something came and has been given to `received` or `ended`, at most max_ms.
 * For a process that has nothing else to do yet. False when nothing came. */
bool gw_channel_wait(struct gw_channel *c, unsigned max_ms);
