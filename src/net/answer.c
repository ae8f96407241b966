/* answer.c - answers to requests: status line, headers, body. */
#include "base/err.h"
#include "base/json.h"
#include "net/inside.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <time.h>

static const char *reason_of(int status)
{
    static const struct {
        int status;
        const char *reason;
    } known[] = {
        {101, "Switching Protocols"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {421, "Misdirected Request"},
        {422, "Unprocessable Content"},
        {426, "Upgrade Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].status == status)
            return known[i].reason;
    return "Status"; // the number says it all; llhttp would abort on one that it does not know
}

/* Date changes once a second and the tag once a generation, so both lines are kept made. */
static void refresh_common(struct gw_net *net)
{
    int64_t now = (int64_t)time(NULL);
    if (now == net->date_s)
        return;
    static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t seconds = (time_t)now;
    struct tm tm;
    (void)gmtime_r(&seconds, &tm);
    int n = snprintf(net->common, sizeof net->common, "Date: %s, %02d %s %d %02d:%02d:%02d GMT\r\n",
                     days[tm.tm_wday], tm.tm_mday, months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min,
                     tm.tm_sec);
    if (*net->tag != '\0')
        (void)snprintf(net->common + n, sizeof net->common - (size_t)n, "Gwhost-Generation: %s\r\n", net->tag);
    net->date_s = now;
}

static bool is_ours(const char *name)
{
    static const char *const ours[] = {"content-length", "transfer-encoding", "connection",
                                       "keep-alive",     "date",              "gwhost-generation"};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (strcasecmp(name, ours[i]) == 0)
            return true;
    return false;
}

/* A name is a token, a value has no control character: else an answer could hold another one. */
static bool is_clean(const struct gw_header *h)
{
    if (*h->name == '\0')
        return false;
    for (const char *s = h->name; *s != '\0'; s++)
        if (!isalnum((unsigned char)*s) && strchr("!#$%&'*+-.^_`|~", *s) == NULL)
            return false;
    for (const char *s = h->value; *s != '\0'; s++)
        if (((unsigned char)*s < ' ' && *s != '\t') || *s == 0x7f)
            return false;
    return true;
}

void gw_answer_head(struct gw_net *net, int status, const struct gw_header *headers, size_t header_count)
{
    struct gw_buf *b = &net->head;
    refresh_common(net);
    b->len = 0;
    gw_buf_addf(b, "HTTP/1.1 %d %s\r\n", status, reason_of(status));
    gw_buf_adds(b, net->common);
    for (size_t i = 0; i < header_count; i++)
        if (is_clean(&headers[i]) && !is_ours(headers[i].name)) {
            gw_buf_adds(b, headers[i].name);
            gw_buf_add(b, ": ", 2);
            gw_buf_adds(b, headers[i].value);
            gw_buf_add(b, "\r\n", 2);
        }
}

bool gw_answer_keeps(const struct gw_request *req)
{
    const struct gw_conn *c = req->conn;
    const struct gw_net *net = req->net;
    if (!req->keep_alive || c->last)
        return false;
    if (!c->eof && !net->winding_down && !net->saying_close)
        return true;
    // Pipelined requests that are here already are answered before the connection ends.
    int queued = 0;
    return c->in.len > c->parsed || (!c->eof && ioctl(c->fd, FIONREAD, &queued) == 0 && queued > 0);
}

void gw_answer_connection(struct gw_net *net, const struct gw_request *req, bool keep)
{
    if (!keep)
        gw_buf_adds(&net->head, "Connection: close\r\n");
    else if (req->http10)
        gw_buf_adds(&net->head, "Connection: keep-alive\r\n");
}

void gw_answer(struct gw_request *req, int status, const struct gw_header *headers, size_t header_count,
               const void *body, size_t body_len)
{
    struct gw_net *net = req->net;
    struct gw_conn *c = req->conn;
    if (status < 200 || status > 599)
        status = 500; // no final answer: the client would wait on
    if (c == NULL) {
        gw_request_free(req);
        return;
    }
    bool keep = gw_answer_keeps(req);
    bool bodyless = status == 204 || status == 304;
    gw_answer_head(net, status, headers, header_count);
    gw_answer_connection(net, req, keep);
    if (!bodyless)
        gw_buf_addf(&net->head, "Content-Length: %zu\r\n", body_len);
    gw_buf_add(&net->head, "\r\n", 2);
    struct iovec iov[] = {{net->head.data, net->head.len}, {(void *)(uintptr_t)body, body_len}};
    int count = bodyless || req->head_only || body_len == 0 ? 1 : 2;
    c->req = NULL; // sending may find the client gone: the request is not to be told of it any more
    req->conn = NULL;
    if (!keep)
        c->last = true;
    gw_conn_send(c, iov, count);
    if (c->state != GW_CONN_CLOSED)
        gw_conn_answered(c);
    gw_request_free(req);
}

void gw_answer_error_body(struct gw_buf *out, const char *code, const char *message, unsigned retry_after_ms)
{
    json_t *error = json_object(), *o = json_object();
    gw_json_set(error, "code", gw_json_string(code));
    gw_json_set(error, "message", gw_json_string(message));
    if (retry_after_ms > 0)
        gw_json_set(error, "retry_after_ms", json_integer(retry_after_ms));
    gw_json_set(o, "error", error);
    char *text = gw_json_text(o);
    gw_buf_adds(out, text);
    free(text);
    json_decref(o);
}

void gw_answer_error(struct gw_request *req, int status, const char *code, const char *message,
                     unsigned retry_after_ms)
{
    struct gw_buf body = {0};
    char seconds[16];
    gw_answer_error_body(&body, code, message, retry_after_ms);
    (void)snprintf(seconds, sizeof seconds, "%u", (retry_after_ms + 999) / 1000);
    const struct gw_header headers[] = {{"Content-Type", "application/json"}, {"Retry-After", seconds}};
    gw_answer(req, status, headers, retry_after_ms > 0 ? 2 : 1, body.data, body.len);
    gw_buf_fini(&body);
}
