/* handover.c - connections as another process describes them. */
#include "fuzz/feed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    feed_described(data, n);
    return 0;
}
