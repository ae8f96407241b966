/* net.h - listening sockets and connections, with their parsers and unsent bytes.
 *
 * Everything here outlives any application state: an in-process restart replaces what answers, never what
 * is connected. net/ speaks HTTP/1.1 (llhttp, strict) and WebSocket (wslay); whoever owns it (host/) is
 * asked for answers through struct gw_net_ops and gives them whenever it likes. All on the loop thread.
 * No callback is called from within a function of this header, except where that is said. */
#pragma once

#include "base/str.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct uv_loop_s uv_loop_t;

struct gw_err;
struct gw_net;
struct gw_request; /* one HTTP request, complete with its body, waiting for its answer */
struct gw_ws;      /* one open WebSocket */
struct gw_stream;  /* one streamed answer */

struct gw_header {
    const char *name;  /* as received; compare without case */
    const char *value; /* no NUL, CR or LF inside */
};

/* What arrived. All pointers are borrowed and live as long as the request (or WebSocket). */
struct gw_request_info {
    const char *method;      /* upper case */
    const char *target;      /* as sent */
    const char *path;        /* without query, percent-decoding left to the reader */
    const char *query;       /* after '?', never NULL */
    const struct gw_header *headers;
    size_t header_count;
    const char *body;        /* never NULL */
    size_t body_len;
    const char *peer;        /* "127.0.0.1:5000", "[::1]:5000" or "unix" */
    bool local;              /* the peer is on loopback or a unix socket */
    bool wants_websocket;    /* it asks for one, whether as it should or not */
    bool other_websocket;    /* ... of another version than ours, 13 */
    bool upgrade;            /* a valid WebSocket handshake (RFC 6455): gw_ws_accept() may answer it */
    uint64_t id;             /* of the connection, unique in this process */
};

enum gw_ws_kind { GW_WS_TEXT = 1, GW_WS_BINARY = 2 };

struct gw_net_ops {
    /* A complete request. Answer it now or later, exactly once, by one of the functions below. */
    void (*request)(void *ud, struct gw_request *req);
    /* The client of a request that was not answered yet has gone; req is still valid and still has to be
     * answered (the answer goes nowhere), after that it is freed. */
    void (*request_gone)(void *ud, struct gw_request *req);
    /* A whole message. Not called while the WebSocket is paused. */
    void (*ws_message)(void *ud, struct gw_ws *ws, enum gw_ws_kind kind, const char *data, size_t n);
    /* The WebSocket has ended, whoever ended it; ws is freed after this call. code 1006 when it was cut. */
    void (*ws_closed)(void *ud, struct gw_ws *ws, unsigned code);
    /* A streamed answer's client has gone, or the stream was ended; stream is freed after this call. */
    void (*stream_closed)(void *ud, struct gw_stream *stream);
    /* Both may be NULL: after an -EAGAIN, once the client has taken half of what waited. */
    void (*stream_ready)(void *ud, struct gw_stream *stream);
    void (*ws_ready)(void *ud, struct gw_ws *ws);
    /* May be NULL. Newcomers wait in the kernel's queue: code 0, limits.connections are open, else why none can be
     * taken; or they do not any more. Said once, and again only after there was clearly room. */
    void (*accepting)(void *ud, bool paused, int code);
};

/* Milliseconds and bytes; gw_net_limits_default() has the contract's numbers. */
struct gw_net_limits {
    unsigned header_bytes, body_bytes;          /* 16 KiB, 1 MiB */
    unsigned connections;                       /* 10,000 */
    unsigned beyond;                            /* so many more of those who wait when accepting ends; 65,536 */
    unsigned header_ms, body_ms, idle_ms, write_ms; /* 10 s, 30 s, 75 s, 30 s without progress */
    unsigned held, held_ms;                     /* 1,024 requests, 5 s; then 503 */
    unsigned ping_ms;                           /* 25 s of silence of ours on a WebSocket or on events */
    unsigned ws_message_bytes;                  /* 1 MiB; more ends it with 1009 */
    unsigned linger_ms;                         /* 2,000: read and drop after shutdown(WR) */
    unsigned send_buffer_bytes;                 /* high water mark of one connection, 1 MiB */
};
struct gw_net_limits gw_net_limits_default(void);

struct gw_net_counts {
    unsigned listeners, open, idle, websockets, streams, held, in_flight;
    uint64_t accepted, requests, answered, rejected, timed_out;
    bool accept_paused; /* no room, or no descriptors: new connections wait in the kernel's queue */
};

/* ---- life ---- */
int gw_net_open(uv_loop_t *loop, const struct gw_net_limits *limits, const struct gw_net_ops *ops, void *ud,
                struct gw_net **ret_net, struct gw_err *err);

/* Ends everything that is still open, at once; then calls cb from the loop and frees net. Pending requests
 * are gone without a callback. */
void gw_net_close(struct gw_net *net, void (*cb)(void *ud), void *ud);

/* Serves fd, which is bound and listening and stays the caller's: net uses a CLOEXEC dup of its own.
 * address is for the logs. Accepting never stops until gw_net_unlisten(). */
int gw_net_listen(struct gw_net *net, int fd, const char *address, struct gw_err *err);
/* Serves new_fd in place of old_fd, whose queue is taken first. */
int gw_net_replace(struct gw_net *net, int old_fd, int new_fd, const char *address, struct gw_err *err);
/* The process did not run for ms: what its clients have sent meanwhile lies in the kernel, and nobody is late. */
uint64_t gw_net_due(const struct gw_net *net); /* when the nearest deadline is over, on the loop's clock; 0: there is none */
void gw_net_stood_still(struct gw_net *net, uint64_t ms);
void gw_net_accept_rest(struct gw_net *net); /* whoever has connected as far as the kernel knows */
void gw_net_unlisten(struct gw_net *net); /* all of them; connections stay */
void gw_net_unlisten_one(struct gw_net *net, int fd); /* what gw_net_listen() was given */

/* How many connections there may be from now on; see struct gw_net_limits. */
void gw_net_limit(struct gw_net *net, unsigned connections, unsigned beyond);

/* The value of the Gwhost-Generation header of every answer from now on; copied. */
void gw_net_tag(struct gw_net *net, const char *tag);
struct gw_net_counts gw_net_counts(const struct gw_net *net);

/* ---- answers ---- */
const struct gw_request_info *gw_request_info(const struct gw_request *req);
const char *gw_request_header(const struct gw_request *req, const char *name); /* NULL if absent */
void gw_request_set_data(struct gw_request *req, void *data); /* the caller's own */
void *gw_request_data(const struct gw_request *req);

/* Answers and gives req up. Content-Length, Date, Connection and Gwhost-Generation are net's; such headers
 * among the given ones are ignored, and so are those with CR, LF or NUL. HEAD gets no body. */
void gw_answer(struct gw_request *req, int status, const struct gw_header *headers, size_t header_count,
               const void *body, size_t body_len);

/* Answers with the contract's error object; retry_after_ms > 0 adds the field and a Retry-After header
 * (whole seconds, rounded up). */
void gw_answer_error(struct gw_request *req, int status, const char *code, const char *message,
                     unsigned retry_after_ms);

/* Keeps req until gw_net_release(), which hands it to ops->request again, in order of arrival. One that
 * waits longer than held_ms, or one too many, is answered 503 with code ("draining") and a Retry-After. */
void gw_net_hold(struct gw_net *net, struct gw_request *req, const char *code, const char *message);
void gw_net_release(struct gw_net *net);
/* Answers all held requests with an error. */
void gw_net_refuse_held(struct gw_net *net, int status, const char *code, const char *message);

/* Answers with a stream (chunked for HTTP/1.1, until close for 1.0) and gives req up. */
struct gw_stream *gw_stream_begin(struct gw_request *req, int status, const struct gw_header *headers,
                                  size_t header_count);
void gw_stream_set_data(struct gw_stream *s, void *data);
void *gw_stream_data(const struct gw_stream *s);
/* Returns 0, or -EAGAIN when too much waits for a slow client, as for gw_ws_send() (the data was not taken). */
int gw_stream_write(struct gw_stream *s, const void *data, size_t n);
void gw_stream_end(struct gw_stream *s); /* it is whole; ops->stream_closed follows from the loop */
/* It is not, and never will be: the connection ends with it, so that its client can tell. ops->stream_closed follows. */
void gw_stream_cut(struct gw_stream *s);

/* ---- WebSocket ---- */
/* Accepts the handshake of a request whose info says upgrade, and gives req up. The request's info stays
 * readable through gw_ws_info(). Messages are held until gw_ws_resume(). protocol may be NULL. */
struct gw_ws *gw_ws_accept(struct gw_request *req, const char *protocol);
const struct gw_request_info *gw_ws_info(const struct gw_ws *ws);
const char *gw_ws_protocol(const struct gw_ws *ws); /* that it was accepted with; NULL: none */
void gw_ws_set_data(struct gw_ws *ws, void *data);
void *gw_ws_data(const struct gw_ws *ws);
/* The application's own bytes, kept through restarts (at most 64 KiB, else -E2BIG). */
int gw_ws_set_value(struct gw_ws *ws, const void *value, size_t n);
const char *gw_ws_value(const struct gw_ws *ws, size_t *ret_n); /* never NULL */
/* -EAGAIN when the client is too slow, -EPIPE when it is closing. A message of at most ws_message_bytes is taken while no
 * more than half of send_buffer_bytes waits. */
int gw_ws_send(struct gw_ws *ws, enum gw_ws_kind kind, const void *data, size_t n);
int gw_ws_push(struct gw_ws *ws, enum gw_ws_kind kind, const void *data, size_t n); /* the same, however much waits */
void gw_ws_end(struct gw_ws *ws, unsigned code, const char *reason); /* sends close; ops->ws_closed follows */
/* A paused WebSocket answers pings but delivers no message: what arrives waits, most of it in the kernel. */
void gw_ws_pause(struct gw_ws *ws);
void gw_ws_resume(struct gw_ws *ws);
/* Calls fn for each open WebSocket that has been accepted; fn may end ws or send to it. */
void gw_ws_each(struct gw_net *net, void (*fn)(void *ud, struct gw_ws *ws), void *ud);

/* ---- events: the core's own hub ---- */
/* Turns req into a server-sent events stream that gets every later gw_hub_publish(), after those behind its
 * Last-Event-ID, if they are all among the last 256 (of 256 KiB together), else after the last one that told the state. */
void gw_hub_attach(struct gw_net *net, struct gw_request *req);
/* From now on ws gets each event as a text frame {"event":OBJECT}. */
void gw_hub_attach_ws(struct gw_ws *ws);
/* event is "state" or "task", data one line of JSON text. SSE gets "id: N\nevent: …\ndata: …\n\n", N
 * increasing. A subscriber that is too slow is ended (SSE closed, WebSocket 1013), never waited for. */
void gw_hub_publish(struct gw_net *net, const char *event, const char *data);

/* ---- another process goes on ---- */
enum { GW_NET_BATCH = 200, GW_NET_HANDOVER_VERSION = 1, GW_NET_MOVES_BYTES = 64 << 20 };

/* From now on nothing is read, written, accepted, timed out or called back, until gw_net_thaw(); deadlines stand
 * still with it. The application
 * has been released before; streams that are not the hub's are cut. Both do nothing when it is so already. */
void gw_net_freeze(struct gw_net *net);
/* Goes on as if nothing had been, with connections that stayed and with those that were adopted meanwhile.
 * Adopted WebSockets are paused until their owner resumes them. */
void gw_net_thaw(struct gw_net *net);

/* Connections as bytes, with their descriptors. */
struct gw_net_batch {
    json_t *head; /* owned */
    struct gw_buf blob;
    int fds[GW_NET_BATCH]; /* borrowed */
    size_t fd_count;
};
/* Describes the next connections of a frozen net, those behind *io_after (0: from the first), about 1 MiB and at
 * most GW_NET_BATCH of them. False when there are none left. One that holds more than GW_NET_MOVES_BYTES stays. */
bool gw_net_describe(struct gw_net *net, uint64_t *io_after, struct gw_net_batch *ret);
void gw_net_batch_fini(struct gw_net_batch *b);

/* Takes what gw_net_describe() wrote in another process into a frozen net; each of fds that was taken over is -1
 * after it. Returns how many were not, for they are no connections or cannot be watched, or -EPROTO when the
 * version or a field is not understood (nothing is adopted then). */
int gw_net_adopt(struct gw_net *net, const json_t *head, const char *blob, size_t blob_bytes, int *fds,
                 size_t fd_count, struct gw_err *err);
/* The connections that were described are another process's for good: closes our descriptors of them, so that
 * an end that the other one makes is an end. Returns how many stayed. */
unsigned gw_net_let_go(struct gw_net *net);
/* The number of the last event; who goes on goes on counting from there. The events themselves stay behind. */
uint64_t gw_net_events(const struct gw_net *net);
void gw_net_events_from(struct gw_net *net, uint64_t last);

/* ---- the end of a host ---- */
/* From now on answers carry Connection: close, or do not any longer; everything else goes on. */
void gw_net_say_close(struct gw_net *net, bool say);
/* From now on answers carry Connection: close and listeners accept nothing more (their queue is served
 * first). WebSockets are closed with ws_code (1001 or 1012), SSE streams ended, other streams cut; keep-alive connections
 * that stay idle are closed after idle_grace_ms. done is called from the loop once no connection is left;
 * gw_net_close() remains the caller's. */
void gw_net_wind_down(struct gw_net *net, unsigned ws_code, const char *ws_reason, unsigned idle_grace_ms,
                      void (*done)(void *ud), void *ud);
/* Takes that back, if it was so: what is open still stays open. The caller listens again. */
bool gw_net_wind_up(struct gw_net *net);
