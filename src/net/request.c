/* request.c - request objects: made for a message in progress, lent to the owner, used again. */
#include "base/err.h"
#include "net/inside.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct gw_request *gw_request_new(struct gw_net *net, struct gw_conn *c)
{
    struct gw_request *req;
    if (!gw_list_empty(&net->spare)) {
        req = gw_container(net->spare.next, struct gw_request, link);
        gw_list_remove(&req->link);
        net->spare_count--;
    } else {
        req = gw_calloc(1, sizeof *req);
        req->net = net;
    }
    req->conn = c;
    req->state = GW_REQ_PARSING;
    return req;
}

static void empty_buf(struct gw_buf *b)
{
    if (b->cap > KEEP_BYTES)
        gw_buf_fini(b);
    b->len = 0;
}

static void leave(struct gw_request *req)
{
    gw_list_remove(&req->link);
    if (req->state == GW_REQ_IN_HAND)
        req->net->counts.in_flight--;
    else if (req->state == GW_REQ_HELD || req->state == GW_REQ_RELEASED)
        req->net->counts.held--;
}

void gw_request_free(struct gw_request *req)
{
    struct gw_net *net = req->net;
    leave(req);
    gw_ready_cancel(&req->ready);
    gw_timeout_clear(net, &req->timed);
    free(req->hold_code);
    free(req->hold_message);
    if (net->spare_count >= SPARE_REQUESTS || net->closing) {
        gw_buf_fini(&req->text);
        gw_buf_fini(&req->body);
        free(req->headers);
        free(req->spans);
        free(req);
        return;
    }
    // Only what grows with use is kept, everything else begins anew.
    struct gw_request fresh = {.net = net,
                               .text = req->text,
                               .body = req->body,
                               .headers = req->headers,
                               .spans = req->spans,
                               .span_cap = req->span_cap};
    *req = fresh;
    empty_buf(&req->text);
    empty_buf(&req->body);
    if (req->span_cap > 256) {
        free(req->headers);
        free(req->spans);
        req->headers = NULL;
        req->spans = NULL;
        req->span_cap = 0;
    }
    gw_list_append(&net->spare, &req->link);
    net->spare_count++;
}

/* Ends the string of n bytes at offset at of text and returns it. */
static char *cut_string(struct gw_buf *text, uint32_t at, uint32_t n)
{
    text->data[at + n] = '\0';
    return text->data + at;
}

/* A header that is there and holds token in its comma-separated list. */
static bool has_token(const struct gw_request *req, const char *name, const char *token)
{
    size_t n = strlen(token);
    for (size_t i = 0; i < req->info.header_count; i++) {
        if (strcasecmp(req->info.headers[i].name, name) != 0)
            continue;
        for (const char *s = req->info.headers[i].value; *s != '\0';) {
            s += strspn(s, " \t,");
            size_t len = strcspn(s, ",");
            size_t trimmed = len;
            while (trimmed > 0 && (s[trimmed - 1] == ' ' || s[trimmed - 1] == '\t'))
                trimmed--;
            if (trimmed == n && strncasecmp(s, token, n) == 0)
                return true;
            s += len;
        }
    }
    return false;
}

/* Whether key is the base64 of 16 bytes. */
static bool is_ws_key(const char *key)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    return key != NULL && strspn(key, letters) == 22 && strcmp(key + 22, "==") == 0;
}

/* The value of a header that may be there once; NULL: it is not, or more than once. */
static const char *only_header(const struct gw_request *req, const char *name)
{
    const char *value = NULL;
    for (size_t i = 0; i < req->info.header_count; i++) {
        if (strcasecmp(req->info.headers[i].name, name) != 0)
            continue;
        if (value != NULL)
            return NULL;
        value = req->info.headers[i].value;
    }
    return value;
}

static void look_for_handshake(struct gw_request *req)
{
    struct gw_request_info *info = &req->info;
    info->wants_websocket = has_token(req, "Upgrade", "websocket");
    if (!info->wants_websocket || strcmp(info->method, "GET") != 0 || req->http10 || req->body.len > 0 ||
        !has_token(req, "Connection", "upgrade"))
        return;
    const char *version = only_header(req, "Sec-WebSocket-Version");
    info->other_websocket = version == NULL || strcmp(version, "13") != 0;
    info->upgrade = !info->other_websocket && is_ws_key(only_header(req, "Sec-WebSocket-Key"));
}

/* The host of a target in absolute form is what Host says, whatever it says (RFC 9112 3.2.2). */
static void take_host(struct gw_request *req, const char *host, size_t n)
{
    struct gw_request_info *info = &req->info;
    size_t at = req->text.len, i = 0;
    gw_buf_add(&req->text, host, n);
    gw_buf_add(&req->text, "", 1);
    while (i < info->header_count && strcasecmp(info->headers[i].name, "Host") != 0)
        i++;
    if (i == info->header_count) // of HTTP/1.0
        req->headers[info->header_count++].name = "Host";
    req->headers[i].value = req->text.data + at;
}

/* Splits the target; of one in absolute form the path is behind the host. */
static void split_target(struct gw_request *req, char *target, size_t target_len)
{
    struct gw_request_info *info = &req->info;
    struct gw_span host;
    info->target = target;
    char *path = target;
    if (gw_http_target_host(target, target_len, &host)) {
        take_host(req, target + host.value, host.value_len);
        path = target + host.value + host.value_len;
    }
    char *query = strchr(path, '?');
    info->query = query != NULL ? query + 1 : target + target_len;
    if (query == NULL && *path != '\0') {
        info->path = path;
        return;
    }
    // A copy, since the target stays whole. The room was reserved: nothing moves.
    size_t n = query != NULL ? (size_t)(query - path) : 0, at = req->text.len;
    if (n > 0)
        gw_buf_add(&req->text, path, n);
    else
        gw_buf_adds(&req->text, "/");
    gw_buf_add(&req->text, "", 1);
    info->path = req->text.data + at;
}

void gw_request_room(struct gw_request *req)
{
    if (req->span_count < req->span_cap)
        return;
    req->span_cap = req->span_cap > 0 ? req->span_cap * 2 : 16;
    req->spans = gw_realloc(req->spans, req->span_cap * sizeof *req->spans);
    req->headers = gw_realloc(req->headers, req->span_cap * sizeof *req->headers);
}

void gw_request_build(struct gw_request *req, const char *raw)
{
    struct gw_conn *c = req->conn;
    struct gw_buf *text = &req->text;
    text->len = 0;
    gw_buf_reserve(text, req->header_len + 2 * (size_t)req->target_len + sizeof c->peer + 8);
    gw_buf_add(text, raw, req->header_len);
    gw_request_room(req); // for the one that an absolute target adds
    for (size_t i = 0; i < req->span_count; i++) {
        const struct gw_span *span = &req->spans[i];
        req->headers[i].name = cut_string(text, span->name, span->name_len);
        req->headers[i].value =
            span->value_len > 0 ? cut_string(text, span->value, span->value_len) : req->headers[i].name + span->name_len;
    }
    char *target = cut_string(text, req->target, req->target_len);
    size_t peer = text->len;
    gw_buf_add(text, c->peer, strlen(c->peer) + 1);
    req->info = (struct gw_request_info){
        .method = llhttp_method_name(c->parser.method),
        .headers = req->headers,
        .header_count = req->span_count,
        .body = req->body.len > 0 ? req->body.data : "",
        .body_len = req->body.len,
        .peer = text->data + peer,
        .local = c->local,
        .id = c->id,
    };
    split_target(req, target, req->target_len);
    look_for_handshake(req);
}

void gw_request_hand_out(struct gw_request *req)
{
    struct gw_net *net = req->net;
    leave(req);
    req->state = GW_REQ_IN_HAND;
    net->counts.in_flight++;
    gw_list_append(&net->in_hand, &req->link);
    if (req->conn->eof || req->conn->hung_up)
        gw_request_tell_gone(req);
    net->ops.request(net->ud, req); // req may be gone now
}

static void tell_gone(struct gw_ready *r)
{
    struct gw_request *req = gw_container(r, struct gw_request, ready);
    struct gw_net *net = req->net;
    if (req->state == GW_REQ_IN_HAND && net->ops.request_gone != NULL)
        net->ops.request_gone(net->ud, req);
}

void gw_request_tell_gone(struct gw_request *req)
{
    if (req->gone_told || req->state != GW_REQ_IN_HAND)
        return;
    req->gone_told = true;
    gw_ready_queue(req->net, &req->ready, tell_gone);
}

void gw_request_conn_gone(struct gw_request *req)
{
    req->conn = NULL;
    if (req->state == GW_REQ_IN_HAND)
        gw_request_tell_gone(req);
    else
        gw_request_free(req);
}

/* ---- what the owner sees ---- */

const struct gw_request_info *gw_request_info(const struct gw_request *req)
{
    return &req->info;
}

const char *gw_request_header(const struct gw_request *req, const char *name)
{
    for (size_t i = 0; i < req->info.header_count; i++)
        if (strcasecmp(req->info.headers[i].name, name) == 0)
            return req->info.headers[i].value;
    return NULL;
}

void gw_request_set_data(struct gw_request *req, void *data)
{
    req->data = data;
}

void *gw_request_data(const struct gw_request *req)
{
    return req->data;
}
