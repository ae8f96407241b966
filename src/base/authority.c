/* authority.c - hosts and ports, read and compared. */
#include "base/authority.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>
#include <strings.h>

static bool is_ip(int family, const char *text, size_t n)
{
    char copy[INET6_ADDRSTRLEN], address[16];
    if (n == 0 || n >= sizeof copy)
        return false;
    memcpy(copy, text, n);
    copy[n] = '\0';
    return strlen(copy) == n && inet_pton(family, copy, address) == 1;
}

/* RFC 3986: unreserved, sub-delims, or a percent and two hex digits. */
static bool is_name(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '%' && i + 2 < n && isxdigit((unsigned char)text[i + 1]) && isxdigit((unsigned char)text[i + 2]))
            i += 2;
        else if (c == '\0' || c > 0x7e || (!isalnum(c) && strchr("-._~!$&'()*+,;=", c) == NULL))
            return false;
    }
    return n > 0;
}

/* What is behind the host: nothing, or a colon and digits. */
static bool read_port(const char *text, size_t n, int *ret)
{
    int port = 0;
    *ret = -1;
    if (n == 0)
        return true;
    for (size_t i = 1; i < n; i++) {
        if (text[i] < '0' || text[i] > '9' || (port = port * 10 + text[i] - '0') > 65535)
            return false;
    }
    if (n > 1)
        *ret = port;
    return text[0] == ':';
}

bool gw_authority_read(const char *text, size_t n, struct gw_authority *ret)
{
    struct gw_authority a = {.host = text};
    if (n > 0 && *text == '[') {
        const char *end = memchr(text, ']', n);
        a.address = end != NULL && is_ip(AF_INET6, text + 1, (size_t)(end - text) - 1);
        if (!a.address)
            return false;
        a.host_len = (size_t)(end - text) + 1;
    } else {
        const char *colon = n > 0 ? memchr(text, ':', n) : NULL;
        a.host_len = colon != NULL ? (size_t)(colon - text) : n;
        a.address = is_ip(AF_INET, text, a.host_len);
        if (!a.address && !is_name(text, a.host_len))
            return false;
    }
    if (!read_port(text + a.host_len, n - a.host_len, &a.port))
        return false;
    *ret = a;
    return true;
}

bool gw_authority_is_loopback(const struct gw_authority *a)
{
    static const char v6[] = "[::1]", name[] = "localhost";
    if (a->address && *a->host != '[')
        return strncmp(a->host, "127.", 4) == 0;
    return (a->host_len == sizeof v6 - 1 && memcmp(a->host, v6, sizeof v6 - 1) == 0) ||
           (a->host_len == sizeof name - 1 && strncasecmp(a->host, name, sizeof name - 1) == 0);
}

bool gw_authority_equal(const struct gw_authority *a, const struct gw_authority *b, int default_port)
{
    return a->host_len == b->host_len && strncasecmp(a->host, b->host, a->host_len) == 0 &&
           (a->port < 0 ? default_port : a->port) == (b->port < 0 ? default_port : b->port);
}

bool gw_origin_read(const char *text, struct gw_authority *ret, int *ret_default_port)
{
    const char *end = strstr(text, "://");
    if (end == NULL || end == text || !gw_authority_read(end + 3, strlen(end + 3), ret))
        return false;
    for (const char *s = text; s < end; s++)
        if (!isalnum((unsigned char)*s) && (s == text || strchr("+-.", *s) == NULL))
            return false;
    size_t n = (size_t)(end - text);
    *ret_default_port = n == 4 && strncasecmp(text, "http", 4) == 0    ? 80
                        : n == 5 && strncasecmp(text, "https", 5) == 0 ? 443
                                                                       : -1;
    return true;
}
