/* ws.c - what a client may send on an open WebSocket: the first byte says how it is split. */
#include "fuzz/feed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char handshake[] = "GET /w HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    if (n > 0)
        feed(handshake, data[0], data + 1, n - 1);
    return 0;
}
