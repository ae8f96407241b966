/* sha.h - digests and base64, by libcrypto. */
#pragma once

#include <stddef.h>

/* Lower-case hex of SHA-256 of n bytes, NUL-terminated. */
void gw_sha256_hex(const void *data, size_t n, char ret_hex[65]);

/* The Sec-WebSocket-Accept value (RFC 6455, 4.2.2) for a client's key. */
void gw_ws_accept_key(const char *key, char ret_accept[29]);

/* n random bytes from the kernel, as lower-case hex: 2 n characters and a NUL. */
void gw_random_hex(size_t n, char *ret_hex);
