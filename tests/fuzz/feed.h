/* feed.h - one connection that is fed what a fuzzer thinks of. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Sends head and then data into a fresh net, split as the bits of how say, with an owner that answers at once,
 * later, with a stream, or as a WebSocket, depending on what is asked. Everything is ended then; what is left
 * in hand or unaccounted for is a failed assertion. */
void feed(const char *head, uint8_t how, const uint8_t *data, size_t n);

/* Offers data, a packet as gw_net_describe() writes its parts, to a fresh net; what it takes is fed and ended. */
void feed_described(const uint8_t *data, size_t n);
