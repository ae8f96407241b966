/* str.h - memory that does not fail, growable bytes, UTF-8.
 *
 * Running out of memory ends the process (gw_assert): accepted work is in the store, a crash is a
 * restart, and a half-done C structure is worse than either. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *gw_calloc(size_t n, size_t size);
void *gw_realloc(void *p, size_t size);
char *gw_strdup(const char *s); /* NULL gives NULL */
char *gw_memdup0(const void *p, size_t n); /* n bytes and a NUL behind them */
char *gw_asprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Growable bytes. Zeroed is empty; data is NUL-terminated once it is not NULL. */
struct gw_buf {
    char *data; /* owned */
    size_t len, cap;
};

void gw_buf_reserve(struct gw_buf *b, size_t more);
void gw_buf_add(struct gw_buf *b, const void *data, size_t n);
void gw_buf_adds(struct gw_buf *b, const char *s);
void gw_buf_addf(struct gw_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void gw_buf_drop(struct gw_buf *b, size_t n); /* removes the first n bytes */
void gw_buf_fini(struct gw_buf *b);           /* frees; b is empty again */

/* How many bytes at the beginning are a byte order mark, which editors put there and nobody means: 3 or 0. */
size_t gw_utf8_mark(const char *s, size_t n);

/* The greatest length <= max at which s can be cut without splitting a UTF-8 character. */
size_t gw_utf8_clip(const char *s, size_t max);

/* Copies n bytes to out as valid UTF-8, each bad byte replaced by U+FFFD. */
void gw_utf8_repair(struct gw_buf *out, const char *s, size_t n);
bool gw_utf8_valid(const char *s, size_t n);

/* Copies n bytes to out as one line of valid UTF-8: bad bytes are replaced by U+FFFD, a control character (with
 * those and the blanks behind it) becomes one blank, or nothing at the end. What does not fit into size bytes
 * with the NUL is left out, by whole characters. Takes no memory. */
void gw_one_line(const char *s, size_t n, char *out, size_t size);

/* Compares in a time that depends on the lengths only. */
bool gw_equal_secret(const char *a, size_t an, const char *b, size_t bn);

/* Parses "250ms", "30s", "5m", "1h" or a bare number of seconds. False when it is none of these. */
bool gw_parse_duration(const char *s, uint64_t *ret_ms);

/* Parses a whole decimal number within [min, max]; false when s holds anything else. */
bool gw_parse_int(const char *s, int64_t min, int64_t max, int64_t *ret);
