/* frame.c - WebSocket frames: where one ends, and wslay's reading of it.
 *
 * wslay is fed whole frames only, so its context holds nothing between two of them, one context serves all
 * connections, and what a connection has to remember is bytes: they can be handed to another process. */
#include "base/err.h"
#include "net/inside.h"

#include <errno.h>
#include <string.h>

static ssize_t give_input(uint8_t *buf, size_t len, int flags, void *user_data)
{
    struct gw_net *net = user_data;
    if (len > net->frame_input.n)
        len = net->frame_input.n;
    if (len == 0)
        return -1;
    memcpy(buf, net->frame_input.data, len);
    net->frame_input.data += len;
    net->frame_input.n -= len;
    return (ssize_t)len;
}

int gw_frame_context_open(struct gw_net *net)
{
    const struct wslay_frame_callbacks callbacks = {.recv_callback = give_input};
    return wslay_frame_context_init(&net->frames, &callbacks, net) == 0 ? 0 : -ENOMEM;
}

int gw_frame_peek(const char *data, size_t n, size_t limit, struct gw_frame *ret)
{
    const uint8_t *p = (const uint8_t *)data;
    if (n < 2)
        return GW_FRAME_PARTIAL;
    unsigned opcode = p[0] & 15;
    bool fin = (p[0] & 0x80) != 0, control = opcode >= 8;
    // Reserved bits, reserved opcodes, fragmented or long control frames, and clients that do not mask.
    if ((p[0] & 0x70) != 0 || (opcode > 2 && opcode < 8) || opcode > 10 || (p[1] & 0x80) == 0)
        return 1002;
    uint64_t payload = p[1] & 0x7f;
    size_t head = 6;
    if (control && (!fin || payload > 125))
        return 1002;
    if (payload >= 126) {
        size_t more = payload == 126 ? 2 : 8;
        uint64_t value = 0;
        head += more;
        if (n < 2 + more)
            return GW_FRAME_PARTIAL;
        for (size_t i = 0; i < more; i++)
            value = value << 8 | p[2 + i];
        if (value < (more == 2 ? 126u : 65536u))
            return 1002; // not the shortest form
        payload = value;
    }
    if (!control && payload > limit)
        return 1009;
    if (n < head + payload)
        return GW_FRAME_PARTIAL;
    *ret = (struct gw_frame){.opcode = opcode, .fin = fin, .size = head + (size_t)payload, .payload = (size_t)payload};
    return GW_FRAME_WHOLE;
}

int gw_frame_payload(struct gw_net *net, const char *data, const struct gw_frame *frame, struct gw_buf *out)
{
    size_t got = 0;
    net->frame_input.data = (const uint8_t *)data;
    net->frame_input.n = frame->size;
    do {
        struct wslay_frame_iocb iocb = {0};
        ssize_t n = wslay_frame_recv(net->frames, &iocb);
        if (n < 0) {
            // A context that failed would go on in the middle of a frame: make another.
            wslay_frame_context_free(net->frames);
            net->frames = NULL;
            int r = gw_frame_context_open(net);
            gw_assert(r == 0);
            return 1002;
        }
        gw_buf_add(out, iocb.data, iocb.data_length);
        got += iocb.data_length;
    } while (got < frame->payload);
    return net->frame_input.n == 0 ? 0 : 1002;
}

size_t gw_frame_header(unsigned opcode, size_t payload, char ret[10])
{
    ret[0] = (char)(0x80 | opcode);
    if (payload < 126) {
        ret[1] = (char)payload;
        return 2;
    }
    size_t more = payload < 65536 ? 2 : 8;
    ret[1] = (char)(more == 2 ? 126 : 127);
    for (size_t i = 0; i < more; i++)
        ret[2 + i] = (char)(payload >> (8 * (more - 1 - i)));
    return 2 + more;
}
