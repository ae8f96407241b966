/* http.c - what a client may send first: the first byte says how it is split. */
#include "fuzz/feed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n > 0)
        feed("", data[0], data + 1, n - 1);
    return 0;
}
