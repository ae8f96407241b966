/* admit.c - who may ask: the token, and what keeps pages of the web away from a host that asks for none. */
#include "host/inside.h"

#include "base/authority.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Whether the Host header names this machine by address: a page of the web reaches it by a name only. */
static bool host_is_literal(const char *host)
{
    struct gw_authority a;
    if (host == NULL || !gw_authority_read(host, strlen(host), &a))
        return false;
    return a.address || gw_authority_is_loopback(&a);
}

static bool is_given(const struct gw_host *h, const char *origin)
{
    for (size_t i = 0; i < h->options.origin_count; i++)
        if (strcasecmp(h->options.origins[i], origin) == 0)
            return true;
    return false;
}

/* A page that this host has served, one of this machine, or one that the operator has named. */
static bool origin_is_ours(const struct gw_host *h, const char *origin, const char *host)
{
    struct gw_authority page, here;
    int port;
    if (is_given(h, origin))
        return true;
    if (!gw_origin_read(origin, &page, &port))
        return false;
    return gw_authority_is_loopback(&page) || (host != NULL && gw_authority_read(host, strlen(host), &here) &&
                                               gw_authority_equal(&page, &here, port));
}

/* What a browser does for any page without asking first: a WebSocket, the events, and whatever changes something. */
static bool is_side_door(const struct gw_request_info *info)
{
    return info->wants_websocket || strcmp(info->path, "/v1/events") == 0 ||
           (strcmp(info->method, "GET") != 0 && strcmp(info->method, "HEAD") != 0 && strcmp(info->method, "OPTIONS") != 0);
}

/* The origin that keeps this request out; NULL: none does. */
static const char *foreign_origin(const struct gw_host *h, struct gw_request *req, const struct gw_request_info *info)
{
    if ((!h->options.open && h->options.origin_count == 0) || !is_side_door(info))
        return NULL;
    const char *host = gw_request_header(req, "host");
    for (size_t i = 0; i < info->header_count; i++)
        if (strcasecmp(info->headers[i].name, "Origin") == 0 && !origin_is_ours(h, info->headers[i].value, host))
            return info->headers[i].value;
    return NULL;
}

/* The value of access_token in a query, percent-decoded in place of a copy; NULL when there is none. */
static char *query_token(const char *query)
{
    static const char key[] = "access_token=";
    for (const char *p = query; p != NULL && *p != '\0'; p = strchr(p, '&')) {
        p += *p == '&';
        if (strncmp(p, key, sizeof key - 1) != 0)
            continue;
        p += sizeof key - 1;
        char *token = gw_memdup0(p, strcspn(p, "&")), *out = token;
        for (char *in = token; *in != '\0'; in++) {
            if (*in == '%' && isxdigit((unsigned char)in[1]) && isxdigit((unsigned char)in[2])) {
                char hex[3] = {in[1], in[2], '\0'};
                *out = (char)strtol(hex, NULL, 16);
                if (*out++ == '\0') { // no token has one, and what is behind it counts
                    free(token);
                    return NULL;
                }
                in += 2;
            } else {
                *out++ = *in;
            }
        }
        *out = '\0';
        return token;
    }
    return NULL;
}

static bool has_token(const struct gw_host *h, struct gw_request *req, const struct gw_request_info *info)
{
    const char *given = gw_request_header(req, "authorization");
    if (given != NULL && strncasecmp(given, "Bearer ", 7) == 0) {
        given += 7 + strspn(given + 7, " ");
        return gw_equal_secret(given, strlen(given), h->token, strlen(h->token));
    }
    if (strcmp(info->path, "/ws") != 0 && strcmp(info->path, "/v1/events") != 0)
        return false;
    // Browsers cannot set a header on these two.
    char *token = query_token(info->query);
    bool ok = token != NULL && gw_equal_secret(token, strlen(token), h->token, strlen(h->token));
    free(token);
    return ok;
}

bool gw_admit(struct gw_host *h, struct gw_request *req, bool public)
{
    const struct gw_request_info *info = gw_request_info(req);
    const char *origin = foreign_origin(h, req, info);
    if (origin != NULL) {
        char words[200];
        (void)snprintf(words, sizeof words, "pages of %.80s have no part in this gateway; if they should, start it with "
                       "--origin and their origin", origin);
        gw_answer_error(req, 403, "forbidden", words, 0);
        return false;
    }
    if (h->options.open) {
        if (host_is_literal(gw_request_header(req, "host")))
            return true;
        gw_answer_error(req, 421, "misdirected", "with --open the Host header must be an IP address or localhost", 0);
        return false;
    }
    if (public || has_token(h, req, info))
        return true;
    static const char body[] = "{\"error\":{\"code\":\"unauthorized\",\"message\":\"send Authorization: Bearer TOKEN; "
                               "the token is in the file `token` of the state directory\"}}";
    struct gw_header headers[] = {{"Content-Type", "application/json"}, {"WWW-Authenticate", "Bearer"}};
    gw_answer(req, 401, headers, 2, body, sizeof body - 1);
    return false;
}
