#include "base/str.h"

#include "base/err.h"
#include "base/time.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *gw_calloc(size_t n, size_t size)
{
    void *p = calloc(n, size);
    gw_assert(p != NULL);
    return p;
}

void *gw_realloc(void *p, size_t size)
{
    p = realloc(p, size);
    gw_assert(p != NULL || size == 0);
    return p;
}

char *gw_memdup0(const void *p, size_t n)
{
    char *copy = gw_realloc(NULL, n + 1);
    if (n > 0)
        memcpy(copy, p, n);
    copy[n] = '\0';
    return copy;
}

char *gw_strdup(const char *s)
{
    return s != NULL ? gw_memdup0(s, strlen(s)) : NULL;
}

__attribute__((format(printf, 2, 0))) static void add_formatted(struct gw_buf *b, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    gw_assert(n >= 0);
    gw_buf_reserve(b, (size_t)n);
    (void)vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
    va_end(again);
    b->len += (size_t)n;
}

char *gw_asprintf(const char *fmt, ...)
{
    struct gw_buf b = {0};
    va_list ap;
    va_start(ap, fmt);
    add_formatted(&b, fmt, ap);
    va_end(ap);
    return b.data;
}

void gw_buf_reserve(struct gw_buf *b, size_t more)
{
    if (b->data != NULL && b->cap - b->len > more)
        return;
    size_t want = b->len + more + 1, cap = b->cap < 64 ? 64 : b->cap;
    while (cap < want)
        cap += cap / 2;
    b->data = gw_realloc(b->data, cap);
    b->data[b->len] = '\0';
    b->cap = cap;
}

void gw_buf_add(struct gw_buf *b, const void *data, size_t n)
{
    gw_buf_reserve(b, n);
    if (n > 0)
        memcpy(b->data + b->len, data, n);
    b->len += n;
    b->data[b->len] = '\0';
}

void gw_buf_adds(struct gw_buf *b, const char *s)
{
    gw_buf_add(b, s, strlen(s));
}

void gw_buf_addf(struct gw_buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add_formatted(b, fmt, ap);
    va_end(ap);
}

void gw_buf_drop(struct gw_buf *b, size_t n)
{
    gw_assert(n <= b->len);
    if (n == 0)
        return;
    memmove(b->data, b->data + n, b->len - n + 1);
    b->len -= n;
}

void gw_buf_fini(struct gw_buf *b)
{
    free(b->data);
    *b = (struct gw_buf){0};
}

size_t gw_utf8_clip(const char *s, size_t max)
{
    size_t n = strnlen(s, max);
    if (n < max || s[n] == '\0')
        return n;
    while (n > 0 && ((unsigned char)s[n] & 0xc0) == 0x80)
        n--;
    return n;
}

/* Length of the valid UTF-8 character at s, or 0. */
static size_t utf8_char(const unsigned char *s, size_t n)
{
    unsigned char c = s[0];
    if (c < 0x80)
        return 1;
    size_t len = c >= 0xc2 && c < 0xe0 ? 2 : (c & 0xf0) == 0xe0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    if (len == 0 || len > n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((c == 0xe0 && s[1] < 0xa0) || (c == 0xed && s[1] > 0x9f) || (c == 0xf0 && s[1] < 0x90) ||
        (c == 0xf4 && s[1] > 0x8f))
        return 0;
    return len;
}

size_t gw_utf8_mark(const char *s, size_t n)
{
    return n >= 3 && memcmp(s, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
}

bool gw_utf8_valid(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t len = utf8_char((const unsigned char *)s + i, n - i);
        if (len == 0)
            return false;
        i += len;
    }
    return true;
}

void gw_utf8_repair(struct gw_buf *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t len = utf8_char((const unsigned char *)s + i, n - i);
        if (len > 0) {
            gw_buf_add(out, s + i, len);
            i += len;
        } else {
            gw_buf_add(out, "\xef\xbf\xbd", 3);
            i++;
        }
    }
}

void gw_one_line(const char *s, size_t n, char *out, size_t size)
{
    gw_assert(size > 0);
    size_t used = 0;
    for (size_t i = 0; i < n;) {
        size_t len = utf8_char((const unsigned char *)s + i, n - i);
        const char *from = len > 0 ? s + i : "\xef\xbf\xbd";
        size_t add = len > 0 ? len : 3;
        i += len > 0 ? len : 1;
        if (add == 1 && ((unsigned char)*from < 0x20 || *from == 0x7f)) {
            while (i < n && ((unsigned char)s[i] <= 0x20 || s[i] == 0x7f))
                i++;
            if (i == n)
                break;
            if (used > 0 && out[used - 1] == ' ')
                continue;
            from = " ";
        }
        if (used + add >= size)
            break;
        memcpy(out + used, from, add);
        used += add;
    }
    out[used] = '\0';
}

bool gw_equal_secret(const char *a, size_t an, const char *b, size_t bn)
{
    volatile unsigned char diff = an != bn;
    for (size_t i = 0; i < an; i++)
        diff |= (unsigned char)a[i] ^ (unsigned char)(bn > 0 ? b[i % bn] : 0);
    return diff == 0;
}

bool gw_parse_int(const char *s, int64_t min, int64_t max, int64_t *ret)
{
    if (s == NULL || *s == '\0' || strspn(s + (*s == '-'), "0123456789") != strlen(s + (*s == '-')))
        return false;
    char *end;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (errno != 0 || end == s || *end != '\0' || v < min || v > max)
        return false;
    *ret = v;
    return true;
}

bool gw_parse_duration(const char *s, uint64_t *ret_ms)
{
    size_t digits = s != NULL ? strspn(s, "0123456789") : 0;
    if (digits == 0 || digits > 12)
        return false;
    static const struct {
        const char *unit;
        uint64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"", 1000}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(s + digits, units[i].unit) == 0) {
            uint64_t n = strtoull(s, NULL, 10);
            if (n > (uint64_t)GW_MS_MAX / units[i].ms)
                return false;
            *ret_ms = n * units[i].ms;
            return true;
        }
    return false;
}
