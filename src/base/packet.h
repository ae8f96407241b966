/* packet.h - a JSON object and bytes behind it, as they travel from one process to another.
 *
 * u32 length of the JSON, u32 length of the bytes, both little-endian, then the two. Pure; descriptors that
 * ride along are the carrier's business. */
#pragma once

#include "base/str.h"

#include <jansson.h>
#include <stddef.h>

struct gw_err;

enum { GW_PACKET_HEAD = 8, GW_PACKET_JSON_MAX = 8 << 20, GW_PACKET_BLOB_MAX = 256 << 20 };

struct gw_packet {
    json_t *head;     /* an object; owned */
    const char *blob; /* borrowed from what was read; "" when there is none */
    size_t blob_bytes;
};

/* Appends one packet to out. */
void gw_packet_add(struct gw_buf *out, const json_t *head, const void *blob, size_t blob_bytes);

/* Reads the packet at data. Returns how many bytes it has, 0 when more of them are needed, or -EPROTO for what
 * cannot be one: a length beyond the limits, or a head that is no JSON object. */
long gw_packet_read(const char *data, size_t n, struct gw_packet *ret, struct gw_err *err);
