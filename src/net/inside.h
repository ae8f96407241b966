/* inside.h - what the files of net/ share; nobody else includes it, tests and fuzz targets apart.
 *
 * One connection is one struct gw_conn: a socket, the raw input since the last message boundary (`in`), the
 * output that the kernel has not taken (`out`), and what it is busy with: a request, a stream or a
 * WebSocket. These three may outlive it, since their owner holds pointers to them; their `conn` is NULL then.
 *
 * Two rules keep this free of re-entry. Work that has to call back is queued with gw_ready_queue() and done
 * from the loop. And nothing that a callback's caller may still look at is freed at once: a gw_conn goes in
 * its uv_close callback, a stream and a WebSocket after their last callback. */
#pragma once

#include "base/str.h"
#include "net/net.h"

#include <llhttp.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <uv.h>
#include <wslay/wslay.h>

enum {
    READ_BYTES = 65536,      /* at most one such read a wake-up and connection */
    AHEAD_BYTES = 65536,     /* pipelined input kept behind the request in hand; then reading stops */
    KEEP_BYTES = 16384,      /* greater buffers are freed when they are empty */
    REQUESTS_A_TURN = 16,    /* so that one pipelining client does not starve the others */
    FRAMES_A_TURN = 64,
    ACCEPTS_A_TURN = 32,
    RELEASED_A_TURN = 64,
    SPARE_REQUESTS = 64,     /* request objects kept for the next one */
    WS_VALUE_BYTES = 65536,
    ACCEPT_PAUSE_MS = 100,   /* after EMFILE and its like */
};

/* ---- intrusive circular lists; a zeroed node is in none ---- */
struct gw_list {
    struct gw_list *prev, *next;
};

static inline void gw_list_init(struct gw_list *head)
{
    head->prev = head->next = head;
}

static inline bool gw_list_empty(const struct gw_list *head)
{
    return head->next == head;
}

static inline bool gw_list_linked(const struct gw_list *node)
{
    return node->next != NULL;
}

static inline void gw_list_append(struct gw_list *head, struct gw_list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

static inline void gw_list_remove(struct gw_list *node)
{
    if (node->next == NULL)
        return;
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->prev = node->next = NULL;
}

/* Moves all of from behind to's last; from is empty then. */
static inline void gw_list_move(struct gw_list *to, struct gw_list *from)
{
    if (gw_list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    gw_list_init(from);
}

#define gw_container(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

/* ---- work for the loop (net.c) ---- */
struct gw_ready {
    struct gw_list link;
    void (*run)(struct gw_ready *r);
};

/* Has run called from the loop, soon and once; queueing again only replaces run. */
void gw_ready_queue(struct gw_net *net, struct gw_ready *r, void (*run)(struct gw_ready *r));
void gw_ready_cancel(struct gw_ready *r);
void gw_ready_start(struct gw_net *net); /* what was queued while frozen */

/* ---- time-outs (timeout.c) ---- */
/* Each class has one duration, so a class's list is in the order of its deadlines: setting and clearing one
 * cost the same however many connections there are, and one uv_timer serves them all. */
enum gw_timeout {
    GW_TO_NONE,
    GW_TO_HEADER, /* a message's header is awaited */
    GW_TO_BODY,   /* ... its body */
    GW_TO_IDLE,   /* between two requests */
    GW_TO_GRACE,  /* the same while winding down */
    GW_TO_WRITE,  /* output waits for the client */
    GW_TO_LINGER, /* only the client's end is awaited */
    GW_TO_HELD,   /* a held request */
    GW_TO_ACCEPT, /* accepting is paused */
    GW_TO_PING,   /* nothing was sent to who listens for long */
    GW_TO_COUNT
};

struct gw_timed {
    struct gw_list link;
    uint64_t at_ms;
    enum gw_timeout class;
};

struct gw_timeouts {
    struct gw_list lists[GW_TO_COUNT];
    unsigned duration_ms[GW_TO_COUNT];
    unsigned count[GW_TO_COUNT];
    uint64_t armed_ms; /* when the timer fires; 0: not armed */
    uv_timer_t timer;
};

void gw_timeout_init(struct gw_net *net);
void gw_timeout_set(struct gw_net *net, struct gw_timed *t, enum gw_timeout class); /* from now on */
void gw_timeout_clear(struct gw_net *net, struct gw_timed *t);
/* Enters t, which has its class and time already; called in the order of the times. */
void gw_timeout_link(struct gw_net *net, struct gw_timed *t);
void gw_timeout_stop(struct gw_net *net); /* nothing expires … */
void gw_timeout_start(struct gw_net *net); /* … until now */
void gw_timeout_shift(struct gw_net *net, uint64_t ms); /* all that are entered */

/* ---- the whole ---- */
struct gw_listener {
    struct gw_list link;
    struct gw_net *net; /* borrowed */
    uv_poll_t poll;
    int fd; /* owned, a dup */
    bool unix_socket;
};

/* The last events, for who comes back: the id of the last one is net->last_event_id, and those before it follow on. */
enum { EVENTS_KEPT = 256, EVENTS_KEPT_BYTES = 256 << 10 };
struct gw_kept_events {
    struct gw_kept_event {
        char *event, *data; /* owned */
    } ring[EVENTS_KEPT];
    unsigned first, count;
    size_t bytes;
    char *state; /* owned; data of the last one that tells the state */
};

struct gw_net {
    uv_loop_t *loop;       /* borrowed */
    struct gw_net_ops ops; /* copied */
    void *ud;
    struct gw_net_limits limits;
    struct gw_net_counts counts; /* those that are kept running */
    uint64_t last_conn_id;

    uv_idle_t idle; /* runs while ready is not empty */
    bool idle_active;
    struct gw_list ready;
    struct gw_timeouts deadlines;
    unsigned handles; /* uv handles that are not closed yet */

    struct gw_list listeners;
    struct gw_timed accept_pause;
    bool accept_full; /* paused because limits.connections are open */
    bool full_said;   /* that newcomers wait, when full_open were open */
    unsigned full_open;

    struct gw_list conns;
    struct gw_list in_hand;      /* requests with the owner */
    struct gw_list held;         /* requests with us, in order of arrival */
    struct gw_list released;     /* of these, the ones on their way to the owner */
    struct gw_ready release;
    struct gw_list spare;        /* request objects, empty */
    unsigned spare_count;
    struct gw_list websockets;
    struct gw_list streams;
    struct gw_list subscribers;  /* struct gw_subscriber */
    uint64_t last_event_id;
    struct gw_kept_events kept;

    char *tag; /* owned */
    int64_t date_s;
    char common[160]; /* the Date and Gwhost-Generation lines */
    struct gw_buf head, text; /* scratch */
    wslay_frame_context_ptr frames;
    struct {
        const uint8_t *data;
        size_t n;
    } frame_input; /* what frames may read now */

    bool frozen; /* nothing is looked at, for these connections may be another process's */
    uint64_t frozen_ms;  /* since when; */
    uint64_t adopted_ms; /* the same of those that were adopted, where they come from */
    struct gw_missed *missed, **missed_end; /* events of that time; owned */
    bool saying_close; /* answers say Connection: close already */
    bool winding_down, closing;
    struct {
        unsigned code;
        char *reason; /* owned */
        void (*cb)(void *ud);
        void *ud;
        struct gw_ready ready;
    } wind_down;
    void (*close_cb)(void *ud);
    void *close_ud;
    char scratch[READ_BYTES]; /* what is being read; its content ends with the read */
};

/* ---- one connection (conn.c) ---- */
enum gw_conn_state { GW_CONN_OPEN, GW_CONN_LINGERING, GW_CONN_CLOSED };

struct gw_conn {
    struct gw_net *net; /* borrowed */
    struct gw_list link;
    struct gw_timed timed;
    struct gw_ready ready;
    uv_poll_t poll;
    int fd;     /* owned; -1 once closed */
    int polled; /* the uv events asked for */
    enum gw_conn_state state;
    uint64_t id;
    struct gw_buf in;     /* raw; the message in progress, or in hand, begins at start */
    size_t start, parsed; /* parsed: how far the parser was fed */
    struct gw_buf out;
    size_t out_start;

    bool eof;          /* the client sends no more */
    bool corked;       /* answers are collected; gw_conn_uncork() sends them */
    bool no_read;      /* whoever processes the input does not want more of it now */
    bool last;         /* no request after this one: ends once out is empty */
    bool client_last;  /* ... because the client said so */
    bool hung_up;      /* the client's end came while we do not read; bytes may be before it */
    bool restart_deadline;
    bool continued;    /* the message in progress has been answered with 100 */
    bool adopted;      /* came from another process, and is not looked at before the thaw */
    bool described;    /* to another process */
    unsigned messages; /* answered so far; from the first one on silence is idleness */

    llhttp_t parser;
    unsigned refuse_status; /* set by a parser callback */
    const char *refuse_code, *refuse_message;

    struct gw_request *req;   /* in progress, in hand or held; owned unless in hand */
    struct gw_stream *stream; /* owned by its callback, as is ws */
    struct gw_ws *ws;

    bool local;
    char peer[56];
};

/* Makes a connection of fd, which it takes over; NULL: it cannot be watched. It is settled by the caller. */
struct gw_conn *gw_conn_take(struct gw_net *net, int fd);
/* The same for a socket that was accepted; fd is taken over also on failure. */
struct gw_conn *gw_conn_adopt(struct gw_net *net, int fd, const struct sockaddr_storage *peer);

/* Sends, or keeps what the kernel does not take. A connection may be closed afterwards. */
void gw_conn_send(struct gw_conn *c, struct iovec *iov, int count);
void gw_conn_cork(struct gw_conn *c);
void gw_conn_uncork(struct gw_conn *c);
static inline size_t gw_conn_unsent(const struct gw_conn *c)
{
    return c->out.len - c->out_start;
}
static inline size_t gw_conn_unread(const struct gw_conn *c)
{
    return c->in.len - c->start;
}

/* Whether n more bytes may be given to it: a message of the size that one may have always does while half of the buffer
 * is free, so that reading goes on until then and nothing that was read is refused. */
static inline bool gw_conn_takes(const struct gw_conn *c, size_t n)
{
    const struct gw_net_limits *limits = &c->net->limits;
    size_t waits = gw_conn_unsent(c);
    return waits == 0 || waits + n <= limits->send_buffer_bytes ||
           (waits <= limits->send_buffer_bytes / 2 && n <= limits->ws_message_bytes);
}

/* The answer to the request at start is complete: what comes next may begin. */
void gw_conn_answered(struct gw_conn *c);
/* Looks again at what to poll for and how long, and ends a connection that is through. To be called after any
 * change outside of a wake-up; nothing happens while c is corked. */
void gw_conn_settle(struct gw_conn *c);
/* Has the input looked at again, from the loop. */
void gw_conn_process_soon(struct gw_conn *c);
/* Sends what is left, tells the client that no more comes, and waits for its end. */
void gw_conn_finish(struct gw_conn *c);
/* Closes at once; owners of what it was busy with are told from the loop. */
void gw_conn_cut(struct gw_conn *c);
void gw_conn_expire(struct gw_timed *t);
void gw_conn_keepalive(struct gw_conn *c); /* TCP probes, for those that may be silent for hours */

/* ---- requests (request.c), their parser (http.c), their answers (answer.c) ---- */
enum gw_request_state {
    GW_REQ_PARSING,
    GW_REQ_IN_HAND,  /* with the owner */
    GW_REQ_HELD,
    GW_REQ_RELEASED, /* on its way to the owner */
    GW_REQ_UPGRADED  /* a WebSocket reads its info */
};

struct gw_span {
    uint32_t name, name_len, value, value_len; /* offsets from the start of the message */
};

struct gw_request {
    struct gw_list link; /* in_hand, held, released or spare */
    struct gw_net *net;  /* borrowed */
    struct gw_conn *conn;
    struct gw_timed timed;
    struct gw_ready ready;
    enum gw_request_state state;
    struct gw_request_info info;
    struct gw_buf text, body;
    struct gw_header *headers; /* owned */
    struct gw_span *spans;     /* owned */
    size_t span_count, span_cap;
    uint32_t target, target_len;
    uint32_t header_len; /* 0 until the header is complete */
    bool complete, keep_alive, http10, head_only, expect_continue, gone_told;
    void *data;
    char *hold_code, *hold_message; /* owned */
};

struct gw_request *gw_request_new(struct gw_net *net, struct gw_conn *c);
void gw_request_free(struct gw_request *req);
void gw_request_room(struct gw_request *req); /* for one more header */
/* Builds info from the spans and the raw header, so that raw may move. */
void gw_request_build(struct gw_request *req, const char *raw);
void gw_request_hand_out(struct gw_request *req); /* calls ops->request */
/* c is gone, or its client sends no more: the owner is told, a request of nobody is freed. */
void gw_request_conn_gone(struct gw_request *req);
void gw_request_tell_gone(struct gw_request *req);

void gw_http_process(struct gw_conn *c);
/* The request whose header is all of c's input, the caller's; one of no use, but never NULL, when it is malformed. */
struct gw_request *gw_http_read_head(struct gw_conn *c);
/* Where the host is in a target in absolute form. False: it is in another one. */
bool gw_http_target_host(const char *target, size_t n, struct gw_span *ret);
/* Answers input that is no request, and ends the connection. */
void gw_http_refuse(struct gw_conn *c, unsigned status, const char *code, const char *message);

/* Writes status line and headers into net->head, without the last empty line. */
void gw_answer_head(struct gw_net *net, int status, const struct gw_header *headers, size_t header_count);
void gw_answer_error_body(struct gw_buf *out, const char *code, const char *message, unsigned retry_after_ms);
/* Whether the connection goes on after the answer to req. */
bool gw_answer_keeps(const struct gw_request *req);
void gw_answer_connection(struct gw_net *net, const struct gw_request *req, bool keep);

/* ---- held requests (held.c) ---- */
void gw_held_expire(struct gw_timed *t);

/* ---- streams (stream.c) ---- */
struct gw_subscriber {
    struct gw_list link;
    struct gw_stream *stream; /* one of these two */
    struct gw_ws *ws;
};

struct gw_stream {
    struct gw_list link; /* all streams */
    struct gw_net *net;
    struct gw_conn *conn; /* NULL once ended */
    struct gw_ready ready;
    void *data;
    bool chunked, silent /* HEAD */, keep_alive, blocked;
    bool internal; /* the hub's: no callbacks */
    bool probed;
    struct gw_subscriber sub;
};
void gw_stream_conn_gone(struct gw_stream *s);
void gw_stream_drained(struct gw_stream *s); /* output went down */
void gw_stream_free(struct gw_stream *s);

/* ---- WebSockets (ws.c, frame.c) ---- */
struct gw_ws {
    struct gw_list link; /* all WebSockets */
    struct gw_net *net;
    struct gw_conn *conn; /* NULL once it has ended */
    struct gw_request *req; /* owned, for its info */
    struct gw_ready ready;
    void *data;
    struct gw_buf value;
    struct gw_buf message;  /* payload of the unfinished message */
    size_t looked;          /* how far behind start the frames that wait were looked through for pings */
    char *protocol;         /* owned; the subprotocol that was agreed on, NULL: none */
    unsigned kind;          /* of that message; 0: none is begun */
    bool paused, blocked /* gw_ws_send() said -EAGAIN */;
    bool close_sent, close_received;
    unsigned code; /* of whoever closed first */
    struct gw_subscriber sub;
};
void gw_ws_process(struct gw_conn *c);
void gw_ws_conn_gone(struct gw_ws *ws);
void gw_ws_drained(struct gw_ws *ws);
void gw_ws_ping(struct gw_ws *ws);
void gw_ws_finish(struct gw_ws *ws); /* both ends have said close, and ours is out */
void gw_ws_free(struct gw_ws *ws);
/* Puts a frame's header before data and sends both. */
void gw_ws_send_frame(struct gw_ws *ws, unsigned opcode, const void *data, size_t n);
/* Queues a close frame once; what arrives after it is only looked through for the client's. */
void gw_ws_send_close(struct gw_ws *ws, unsigned code, const char *reason);

enum { GW_FRAME_PARTIAL = 0, GW_FRAME_WHOLE = 1 };
struct gw_frame {
    unsigned opcode;
    bool fin;
    size_t size;    /* header and payload */
    size_t payload; /* bytes of payload */
};
/* Looks at the frame at data without consuming it. limit: how much payload a data frame may have.
 * Returns GW_FRAME_WHOLE, GW_FRAME_PARTIAL, or the close code (1002, 1009) that it deserves. */
int gw_frame_peek(const char *data, size_t n, size_t limit, struct gw_frame *ret);
/* Appends the payload of a whole frame to out. Returns 0 or the close code that it deserves. */
int gw_frame_payload(struct gw_net *net, const char *data, const struct gw_frame *frame, struct gw_buf *out);
int gw_frame_context_open(struct gw_net *net);
/* Writes an unmasked header of at most 10 bytes; returns its length. */
size_t gw_frame_header(unsigned opcode, size_t payload, char ret[10]);

/* ---- listeners (listener.c), the hub (hub.c), the end (wind_down.c) ---- */
void gw_listener_room(struct gw_net *net); /* a connection has gone: accept again */
void gw_listener_expire(struct gw_timed *t);
void gw_listener_repoll(struct gw_net *net); /* polls, or not, as things are */
void gw_hub_catch_up(struct gw_net *net);    /* publishes what happened while frozen */
void gw_hub_forget(struct gw_net *net);      /* … or does not */
void gw_hub_detach(struct gw_subscriber *sub);
void gw_hub_ping(struct gw_stream *s);
void gw_hub_forget_kept(struct gw_net *net);
/* Its client sends no more: asks whether it still reads, once, with bytes that mean nothing. */
void gw_hub_probe(struct gw_stream *s);
void gw_wind_down_check(struct gw_net *net);
void gw_net_handle_closed(struct gw_net *net);
