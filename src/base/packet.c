#include "base/packet.h"

#include "base/err.h"
#include "base/json.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void add_u32(struct gw_buf *out, size_t value)
{
    const unsigned char bytes[] = {value & 255, value >> 8 & 255, value >> 16 & 255, value >> 24 & 255};
    gw_buf_add(out, bytes, sizeof bytes);
}

static uint32_t read_u32(const char *data)
{
    const unsigned char *p = (const unsigned char *)data;
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

void gw_packet_add(struct gw_buf *out, const json_t *head, const void *blob, size_t blob_bytes)
{
    char *text = gw_json_text(head);
    size_t n = strlen(text);
    add_u32(out, n);
    add_u32(out, blob_bytes);
    gw_buf_add(out, text, n);
    if (blob_bytes > 0)
        gw_buf_add(out, blob, blob_bytes);
    free(text);
}

long gw_packet_read(const char *data, size_t n, struct gw_packet *ret, struct gw_err *err)
{
    if (n < GW_PACKET_HEAD)
        return 0;
    size_t json_bytes = read_u32(data), blob_bytes = read_u32(data + 4);
    if (json_bytes < 2 || json_bytes > GW_PACKET_JSON_MAX || blob_bytes > GW_PACKET_BLOB_MAX)
        return gw_err_set(err, -EPROTO, "what came is no packet: lengths %zu and %zu", json_bytes, blob_bytes);
    if (n - GW_PACKET_HEAD < json_bytes + blob_bytes)
        return 0;
    json_t *head = NULL;
    if (gw_json_parse(data + GW_PACKET_HEAD, json_bytes, &head, err) < 0)
        return gw_err_set(err, -EPROTO, "a packet's head is no JSON");
    if (!json_is_object(head)) {
        json_decref(head);
        return gw_err_set(err, -EPROTO, "a packet's head is no JSON object");
    }
    *ret = (struct gw_packet){.head = head, .blob = data + GW_PACKET_HEAD + json_bytes, .blob_bytes = blob_bytes};
    return (long)(GW_PACKET_HEAD + json_bytes + blob_bytes);
}
