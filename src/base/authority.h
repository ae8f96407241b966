/* authority.h - the host and port of a URL, as the headers Host and Origin have them (RFC 3986 3.2, RFC 6454). Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct gw_authority {
    const char *host; /* borrowed from what was read; an IPv6 address is in its brackets */
    size_t host_len;
    int port;     /* -1: none is given */
    bool address; /* an IP address, and no name */
};

/* Reads a name, an IPv4 address or an IPv6 address in brackets, and a port behind a colon if there is one. False: it is
 * none of these, or there is more. */
bool gw_authority_read(const char *text, size_t n, struct gw_authority *ret);
/* This machine, by name (localhost) or by address. */
bool gw_authority_is_loopback(const struct gw_authority *a);
/* The same host without regard to case, and the same port; one that is not given is default_port. */
bool gw_authority_equal(const struct gw_authority *a, const struct gw_authority *b, int default_port);

/* What a page was loaded from: SCHEME://HOST[:PORT]. False: it is something else, as null. */
bool gw_origin_read(const char *text, struct gw_authority *ret, int *ret_default_port);
