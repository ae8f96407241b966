/* net_rig.h - one loop with a struct gw_net, an owner that answers by path, and clients on real sockets.
 *
 * Clients are polled by the same loop, so a test waits for what it expects and never for time to pass:
 * rig_until() turns the loop until something holds, and fails the test after ten seconds. */
#pragma once

#include "net/inside.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { RIG_CLIENTS = 96, RIG_KEPT = 64 };

struct rig;

struct rig_client {
    struct rig *rig;
    int fd; /* -1: free */
    uv_poll_t poll;
    struct gw_buf in; /* all that came */
    bool deaf, eof, reset;
};

/* The owner. What it does with a request is said by the path: /later keeps it, /hold holds it, /stream begins
 * a stream, /events attaches the hub, /ws accepts a WebSocket, /big?N answers N bytes, /close closes the net,
 * /wind winds it down and answers; everything else is answered with "METHOD path?query body". */
struct rig {
    uv_loop_t loop;
    struct gw_net *net;
    uv_timer_t guard;
    bool late, closed, wound_down;
    int listener, port, fds_before;
    unsigned long requests, gone, streams_closed, ws_closed;
    unsigned moves;
    unsigned stood_by_ms; /* of the next process, before it is given anything */
    bool publish_frozen; /* an event while the connections move */
    bool holding; /* every request is held */
    struct gw_request *kept[RIG_KEPT];
    unsigned kept_count;
    struct gw_stream *stream;
    struct gw_ws *ws;
    bool ws_stay_paused, ws_subscribe;
    unsigned ws_code;
    unsigned long streams_ready, ws_ready;
    unsigned full_said, room_said; /* by ops->accepting */
    int full_code;
    struct gw_buf messages; /* of WebSockets, each with a blank behind it */
    struct gw_buf order;    /* paths of the requests, each with a blank behind it */
    struct rig_client clients[RIG_CLIENTS];
};

/* Opens everything; limits may be NULL. */
void rig_open(struct rig *r, const struct gw_net_limits *limits);
/* Closes the clients, waits until nothing is in hand anywhere, closes the net and the loop, and looks that no
 * deadline, handle and descriptor is left. */
void rig_close(struct rig *r);
/* The same, with whatever is in hand. */
void rig_close_now(struct rig *r);
/* All connections go to another net, as they would to another process. */
void rig_move(struct rig *r);
void rig_turn(struct rig *r);    /* one turn of the loop; may wait for an event */
void rig_settle(struct rig *r);  /* turns until all that was sent has been looked at */
#define rig_until(r, what)                                                                                             \
    do {                                                                                                               \
        while (!(what)) {                                                                                              \
            if ((r)->late)                                                                                             \
                fail_msg("waited in vain for: %s", #what);                                                             \
            rig_turn(r);                                                                                               \
        }                                                                                                              \
    } while (0)

struct rig_client *rig_connect(struct rig *r);
struct rig_client *rig_connect_small(struct rig *r); /* with a small receive buffer */
void rig_hang_up(struct rig_client *c);
void rig_reset(struct rig_client *c); /* hangs up with a reset */
void rig_half_close(struct rig_client *c);
void rig_deaf(struct rig_client *c, bool deaf); /* whether it leaves what comes in the kernel */
void rig_send(struct rig_client *c, const char *text);
void rig_send_bytes(struct rig_client *c, const void *data, size_t n);
/* Sends byte for byte, with turns of the loop between. */
void rig_dribble(struct rig_client *c, const void *data, size_t n);
/* Waits until text is there. */
void rig_expect(struct rig_client *c, const char *text);
void rig_expect_bytes(struct rig_client *c, const void *data, size_t n);
/* Waits for the connection's end. */
void rig_expect_end(struct rig_client *c);
unsigned rig_count(const struct rig_client *c, const char *text);
bool rig_has(const struct rig_client *c, const char *text);
void rig_forget(struct rig_client *c); /* what came so far */

/* ---- WebSocket clients ---- */
struct rig_client *rig_ws(struct rig *r); /* connected, handshake done, forgotten */
/* Appends a masked frame; first: FIN and opcode, such as 0x81. */
void rig_frame(struct gw_buf *out, unsigned first, const void *payload, size_t n);
void rig_send_frame(struct rig_client *c, unsigned first, const void *payload, size_t n);
/* Waits for a whole unmasked frame with this payload (shorter than 126). */
void rig_expect_frame(struct rig_client *c, unsigned first, const void *payload, size_t n);
void rig_expect_close(struct rig_client *c, unsigned code);
