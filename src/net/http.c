/* http.c - requests out of a connection's input.
 *
 * llhttp walks the bytes and reports where things are; positions are kept as offsets into the raw message,
 * which stays whole until it is answered. What llhttp lets pass and we do not is refused here: each of it is
 * a way in which two programs in a row can read one stream of bytes as different requests. */
#include "base/authority.h"
#include "base/err.h"
#include "net/inside.h"

#include <ctype.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char not_our_version[] = "the version of HTTP is not 1.0 or 1.1";

static int refuse(struct gw_conn *c, unsigned status, const char *code, const char *message)
{
    c->refuse_status = status;
    c->refuse_code = code;
    c->refuse_message = message;
    return HPE_USER;
}

static int refuse_bad(struct gw_conn *c, const char *message)
{
    return refuse(c, 400, "bad_request", message);
}

/* The offset of at from the start of the message. */
static uint32_t offset(const struct gw_conn *c, const char *at)
{
    return (uint32_t)(at - (c->in.data + c->start));
}

static int on_url(llhttp_t *parser, const char *at, size_t n)
{
    struct gw_conn *c = parser->data;
    struct gw_request *req = c->req;
    if (req->target_len == 0)
        req->target = offset(c, at);
    req->target_len += (uint32_t)n;
    return 0;
}

/* llhttp also reads the protocols RTSP and ICE for some methods. */
static int on_version(llhttp_t *parser, const char *at, size_t n)
{
    struct gw_conn *c = parser->data;
    uint32_t where = offset(c, at);
    bool first = where >= 5 && at[-1] == '/'; // else it is the rest of a version that came in pieces
    if (first && memcmp(at - 5, "HTTP/", 5) != 0)
        return refuse_bad(c, "the protocol is not HTTP");
    return 0;
}

static int on_field(llhttp_t *parser, const char *at, size_t n)
{
    struct gw_conn *c = parser->data;
    struct gw_request *req = c->req;
    if (req->header_len > 0 || n == 0)
        return 0; // a trailer: nobody asked for it
    uint32_t where = offset(c, at);
    if (req->span_count > 0) {
        struct gw_span *last = &req->spans[req->span_count - 1];
        if (last->value_len == 0 && last->name + last->name_len == where) { // the rest of a name
            last->name_len += (uint32_t)n;
            return 0;
        }
    }
    gw_request_room(req);
    req->spans[req->span_count++] = (struct gw_span){.name = where, .name_len = (uint32_t)n};
    return 0;
}

static int on_value(llhttp_t *parser, const char *at, size_t n)
{
    struct gw_conn *c = parser->data;
    struct gw_request *req = c->req;
    if (req->header_len > 0 || n == 0)
        return 0;
    // llhttp lets a line without a name pass: its value is nobody's.
    struct gw_span *span = req->span_count > 0 ? &req->spans[req->span_count - 1] : NULL;
    uint32_t where = offset(c, at);
    if (span == NULL || (span->value_len > 0 && span->value + span->value_len != where))
        return refuse_bad(c, "a header line is folded or has no name");
    if (span->value_len == 0)
        span->value = where;
    span->value_len += (uint32_t)n;
    return 0;
}

/* Whether a request line ends, as far as it is here, in a version that is one, one of ours or not. */
static bool names_version(const char *line, size_t n)
{
    static const char form[] = "HTTP/d.d";
    const char *lf = memchr(line, '\n', n);
    n = lf != NULL ? (size_t)(lf - line) : n;
    n -= n > 0 && line[n - 1] == '\r';
    size_t len = sizeof form - 1;
    if (n < len + 1 || line[n - len - 1] != ' ')
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = line[n - len + i];
        if (form[i] == 'd' ? c < '0' || c > '9' : c != form[i])
            return false;
    }
    return true;
}

/* What is too large of a header: its target, where that is most of it, or the whole. */
static int refuse_large(struct gw_conn *c)
{
    bool target = c->req->target_len > c->net->limits.header_bytes / 2;
    return refuse(c, target ? 414 : 431, "too_large", target ? "the target is too long" : "the header is too large");
}

/* The length of the header block with its empty line, or 0 when a line is folded, nameless or badly ended. */
static uint32_t header_length(const char *raw, size_t n)
{
    size_t line = 0;
    for (const char *lf; line < n && (lf = memchr(raw + line, '\n', n - line)) != NULL;) {
        size_t end = (size_t)(lf - raw);
        if (end == line || raw[end - 1] != '\r' || (line > 0 && strchr(" \t:", raw[line]) != NULL))
            return 0;
        if (end == line + 1)
            return (uint32_t)end + 1;
        line = end + 1;
    }
    return 0;
}

static bool is_named(const char *raw, const struct gw_span *span, const char *name)
{
    size_t n = strlen(name);
    return span->name_len == n && strncasecmp(raw + span->name, name, n) == 0;
}

static bool is_valued(const char *raw, const struct gw_span *span, const char *value)
{
    size_t n = strlen(value);
    return span->value_len == n && strncasecmp(raw + span->value, value, n) == 0;
}

/* Host is "name", "address" or "[v6]", with or without a port; empty where the target has no host. */
static bool is_host(const char *host, size_t n)
{
    struct gw_authority a;
    return n == 0 || gw_authority_read(host, n, &a);
}

/* A path, http:// or https:// with a host, or the asterisk of OPTIONS. */
static bool is_target(const char *target, size_t n, bool asterisk)
{
    struct gw_span host;
    if (*target == '/')
        return true;
    if (n == 1 && *target == '*')
        return asterisk;
    struct gw_authority a;
    return gw_http_target_host(target, n, &host) && gw_authority_read(target + host.value, host.value_len, &a);
}

bool gw_http_target_host(const char *target, size_t n, struct gw_span *ret)
{
    static const char *const schemes[] = {"http://", "https://"};
    for (int i = 0; i < 2; i++) {
        size_t len = strlen(schemes[i]), end = len;
        if (n <= len || strncasecmp(target, schemes[i], len) != 0)
            continue;
        while (end < n && target[end] != '/' && target[end] != '?')
            end++;
        *ret = (struct gw_span){.value = (uint32_t)len, .value_len = (uint32_t)(end - len)};
        return true;
    }
    return false;
}

/* The rules over the headers that decide where a message ends and whom it is for. */
static int check_headers(struct gw_conn *c, const char *raw)
{
    struct gw_request *req = c->req;
    unsigned hosts = 0, encodings = 0;
    for (size_t i = 0; i < req->span_count; i++) {
        struct gw_span *span = &req->spans[i];
        while (span->value_len > 0 && (raw[span->value + span->value_len - 1] == ' ' ||
                                       raw[span->value + span->value_len - 1] == '\t'))
            span->value_len--;
        if (memchr(raw + span->value, '\0', span->value_len) != NULL)
            return refuse_bad(c, "a header holds a NUL");
        if (is_named(raw, span, "Host")) {
            hosts++;
            if (!is_host(raw + span->value, span->value_len))
                return refuse_bad(c, "the Host header is not a host");
        } else if (is_named(raw, span, "Transfer-Encoding")) {
            encodings++;
            if (!is_valued(raw, span, "chunked"))
                return refuse_bad(c, "the only transfer coding is chunked");
        } else if (is_named(raw, span, "Expect") && !req->http10) {
            if (!is_valued(raw, span, "100-continue"))
                return refuse(c, 417, "bad_request", "the only expectation is 100-continue");
            req->expect_continue = true;
        }
    }
    if (hosts > 1 || (hosts == 0 && !req->http10))
        return refuse_bad(c, hosts > 1 ? "there is more than one Host header" : "there is no Host header");
    if (encodings > 0 && (encodings > 1 || req->http10 || (c->parser.flags & F_CONTENT_LENGTH) != 0))
        return refuse_bad(c, "Transfer-Encoding is there twice, with a Content-Length, or in HTTP/1.0");
    return 0;
}

static int on_headers_complete(llhttp_t *parser)
{
    struct gw_conn *c = parser->data;
    struct gw_request *req = c->req;
    const char *raw = c->in.data + c->start;
    if (parser->http_major != 1 || parser->http_minor > 1)
        return names_version(raw, gw_conn_unread(c)) ? refuse(c, 505, "bad_request", not_our_version)
                                                     : refuse_bad(c, "the request line is malformed");
    req->http10 = parser->http_minor == 0;
    uint32_t header_len = header_length(raw, gw_conn_unread(c));
    if (header_len == 0)
        return refuse_bad(c, "a header line is folded, has no name, or ends in a bare LF");
    if (header_len > c->net->limits.header_bytes)
        return refuse_large(c);
    if (req->target != strlen(llhttp_method_name(parser->method)) + 1)
        return refuse_bad(c, "the request line is malformed");
    if (memchr(raw + req->target, '#', req->target_len) != NULL)
        return refuse_bad(c, "the target has a fragment");
    if (parser->method == HTTP_CONNECT)
        return refuse(c, 405, "method_not_allowed", "this is no proxy");
    if (!is_target(raw + req->target, req->target_len, parser->method == HTTP_OPTIONS))
        return refuse_bad(c, "the target is no path, and no URL of a host");
    int r = check_headers(c, raw);
    if (r != 0)
        return r;
    if ((parser->flags & F_CONTENT_LENGTH) != 0 && parser->content_length > c->net->limits.body_bytes)
        return refuse(c, 413, "too_large", "the body is too large");
    req->keep_alive = llhttp_should_keep_alive(parser) != 0;
    req->head_only = parser->method == HTTP_HEAD;
    req->header_len = header_len;
    return 0;
}

static int on_body(llhttp_t *parser, const char *at, size_t n)
{
    struct gw_conn *c = parser->data;
    struct gw_request *req = c->req;
    if (req->body.len + n > c->net->limits.body_bytes)
        return refuse(c, 413, "too_large", "the body is too large");
    gw_buf_add(&req->body, at, n);
    return 0;
}

static int on_message_complete(llhttp_t *parser)
{
    struct gw_conn *c = parser->data;
    c->req->complete = true;
    return HPE_PAUSED; // the next request begins with a fresh parser, once this one is answered
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_version = on_version,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

void gw_http_refuse(struct gw_conn *c, unsigned status, const char *code, const char *message)
{
    struct gw_net *net = c->net;
    if (status == 408)
        net->counts.timed_out++;
    else
        net->counts.rejected++;
    const struct gw_header headers[] = {{"Content-Type", "application/json"}, {"Allow", "GET, HEAD, POST"}};
    gw_answer_head(net, (int)status, headers, status == 405 ? 2 : 1);
    net->text.len = 0;
    char limit[120];
    if (status == 413 || status == 414 || status == 431) {
        (void)snprintf(limit, sizeof limit, "%s: the limit is %u bytes", message,
                       status == 413 ? net->limits.body_bytes : net->limits.header_bytes);
        message = limit;
    }
    gw_answer_error_body(&net->text, code, message, 0);
    gw_buf_addf(&net->head, "Content-Length: %zu\r\nConnection: close\r\n\r\n", net->text.len);
    struct iovec iov[] = {{net->head.data, net->head.len}, {net->text.data, net->text.len}};
    struct gw_request *req = c->req;
    c->req = NULL;
    if (req != NULL)
        gw_request_free(req);
    c->last = true;
    c->client_last = false;
    gw_conn_send(c, iov, 2);
}

/* Begins a message at start, behind the empty lines that some clients send after a body. */
static bool begin(struct gw_conn *c)
{
    while (gw_conn_unread(c) >= 2 && memcmp(c->in.data + c->start, "\r\n", 2) == 0)
        c->start += 2;
    c->parsed = c->start;
    size_t n = gw_conn_unread(c);
    if (n == 0 || (n == 1 && c->in.data[c->start] == '\r'))
        return false;
    c->req = gw_request_new(c->net, c);
    llhttp_init(&c->parser, HTTP_REQUEST, &settings);
    c->parser.data = c;
    c->refuse_status = 0;
    return true;
}

/* Whether it begins with a method, though not with one that is known. */
static bool names_method(const char *line, size_t n)
{
    size_t len = 0;
    for (; len < n; len++)
        if (!isalnum((unsigned char)line[len]) && (line[len] == '\0' || strchr("!#$%&'*+-.^_`|~", line[len]) == NULL))
            break;
    return len > 0 && (len == n || line[len] == ' ');
}

static void refuse_malformed(struct gw_conn *c, int e)
{
    const char *line = c->in.data + c->start, *why = llhttp_get_error_reason(&c->parser);
    size_t n = gw_conn_unread(c);
    if (e == HPE_PAUSED_H2_UPGRADE || (e == HPE_INVALID_VERSION && names_version(line, n)))
        gw_http_refuse(c, 505, "bad_request", not_our_version);
    else if (e == HPE_INVALID_METHOD && names_method(line, n))
        gw_http_refuse(c, 501, "bad_request", "there is no such method here");
    else
        gw_http_refuse(c, 400, "bad_request", why);
}

/* Whether the trailer behind the last chunk keeps the rules of a header. Chunks have been parsed: only where they are is
 * looked for. */
static bool is_trailer_sound(const char *raw, size_t from, size_t end)
{
    for (;;) {
        const char *lf = memchr(raw + from, '\n', end - from);
        if (lf == NULL || lf == raw + from || lf[-1] != '\r')
            return false;
        size_t size = strtoull(raw + from, NULL, 16);
        from = (size_t)(lf - raw) + 1;
        if (size == 0) // a request line may begin as a header may not
            return strchr(" \t:", raw[from]) == NULL && header_length(raw + from, end - from) == end - from &&
                   memchr(raw + from, '\0', end - from) == NULL;
        if (size > end - from || end - from - size < 2 || memcmp(raw + from + size, "\r\n", 2) != 0)
            return false;
        from += size + 2;
    }
}

/* Feeds the parser. Returns true when a request is complete; c->parsed is its end then. */
static bool parse(struct gw_conn *c)
{
    if (c->req == NULL && !begin(c))
        return false;
    const char *data = c->in.data + c->parsed;
    size_t n = c->in.len - c->parsed;
    if (n == 0)
        return false;
    int e = llhttp_execute(&c->parser, data, n);
    struct gw_request *req = c->req;
    if (req->complete) {
        c->parsed = (size_t)(llhttp_get_error_pos(&c->parser) - c->in.data);
        bool chunked = (c->parser.flags & F_CHUNKED) != 0;
        if (!chunked || is_trailer_sound(c->in.data + c->start, req->header_len, c->parsed - c->start))
            return true;
        gw_http_refuse(c, 400, "bad_request", "a line of the trailer is folded, has no name, or ends in a bare LF");
        return false;
    }
    const struct gw_net_limits *limits = &c->net->limits;
    if (c->refuse_status != 0) {
        gw_http_refuse(c, c->refuse_status, c->refuse_code, c->refuse_message);
    } else if (e != HPE_OK) {
        refuse_malformed(c, e);
    } else if (req->header_len == 0 && gw_conn_unread(c) > limits->header_bytes) {
        (void)refuse_large(c);
        gw_http_refuse(c, c->refuse_status, c->refuse_code, c->refuse_message);
    } else if (gw_conn_unread(c) > (size_t)limits->header_bytes + 2 * (size_t)limits->body_bytes) {
        // Chunks of one byte and chunk extensions: far more framing than body.
        gw_http_refuse(c, 413, "too_large", "the chunks are too large");
    } else {
        c->parsed = c->in.len;
        if (req->header_len > 0 && req->expect_continue && req->body.len == 0 && !c->continued) {
            static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
            c->continued = true; // once for the message, whoever reads it again from its beginning
            struct iovec iov = {(void *)(uintptr_t)go_on, sizeof go_on - 1};
            gw_conn_send(c, &iov, 1);
        }
    }
    return false;
}

struct gw_request *gw_http_read_head(struct gw_conn *c)
{
    if (begin(c)) {
        (void)llhttp_execute(&c->parser, c->in.data, c->in.len);
        if (c->req->header_len > 0)
            gw_request_build(c->req, c->in.data);
    }
    struct gw_request *req = c->req != NULL ? c->req : gw_request_new(c->net, c);
    if (req->info.method == NULL)
        req->info = (struct gw_request_info){.method = "GET", .target = "/", .path = "/", .query = "", .body = "", .peer = ""};
    return req;
}

/* Whether the next request may be handed out, as far as the last one is concerned. */
static bool takes_request(const struct gw_conn *c)
{
    return c->state == GW_CONN_OPEN && c->ws == NULL && c->stream == NULL && !c->last &&
           (c->req == NULL || c->req->state == GW_REQ_PARSING);
}

void gw_http_process(struct gw_conn *c)
{
    unsigned turns = 0;
    bool starved = false;
    // While a slow client has not taken its last answers, it gets no new ones.
    while (!starved && turns < REQUESTS_A_TURN && takes_request(c) && gw_conn_unsent(c) == 0) {
        gw_conn_cork(c); // small answers go out together
        while (turns < REQUESTS_A_TURN && takes_request(c) && gw_conn_unsent(c) < READ_BYTES) {
            if (!parse(c)) {
                starved = true;
                break;
            }
            turns++;
            c->net->counts.requests++;
            c->client_last = !c->req->keep_alive;
            gw_request_build(c->req, c->in.data + c->start);
            gw_request_hand_out(c->req);
        }
        gw_conn_uncork(c);
    }
    bool takes = takes_request(c);
    bool more = takes && !starved && gw_conn_unsent(c) == 0 && gw_conn_unread(c) > 0;
    if (more)
        gw_conn_process_soon(c);
    c->no_read = more || c->last || ((!takes || gw_conn_unsent(c) > 0) && gw_conn_unread(c) > AHEAD_BYTES);
}
