#include "base/sha.h"

#include "base/err.h"
#include "base/str.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <string.h>
#include <sys/random.h>

static void hex(const unsigned char *data, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        *out++ = digits[data[i] >> 4];
        *out++ = digits[data[i] & 15];
    }
    *out = '\0';
}

void gw_sha256_hex(const void *data, size_t n, char ret_hex[65])
{
    unsigned char digest[SHA256_DIGEST_LENGTH];
    (void)SHA256(data, n, digest);
    hex(digest, sizeof digest, ret_hex);
}

void gw_ws_accept_key(const char *key, char ret_accept[29])
{
    struct gw_buf b = {0};
    gw_buf_addf(&b, "%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
    unsigned char digest[SHA_DIGEST_LENGTH];
    (void)SHA1((const unsigned char *)b.data, b.len, digest);
    gw_buf_fini(&b);
    (void)EVP_EncodeBlock((unsigned char *)ret_accept, digest, sizeof digest);
}

void gw_random_hex(size_t n, char *ret_hex)
{
    unsigned char bytes[64];
    gw_assert(n <= sizeof bytes);
    for (size_t have = 0; have < n;) {
        ssize_t got = getrandom(bytes + have, n - have, 0);
        gw_assert(got > 0 || (got < 0 && errno == EINTR)); // nothing else can be wrong with it
        have += got > 0 ? (size_t)got : 0;
    }
    hex(bytes, n, ret_hex);
}
