/* err.h - one space of error codes, and words beside them.
 *
 * A code is 0 or a negative errno, which is what libuv returns too. The words for a person travel
 * beside it in a fixed-size struct, so that reporting an error never allocates. */
#pragma once

#include <stdbool.h>

#include <stdarg.h>

struct gw_err {
    int code;
    char text[488];
};

/* Sets code and text; a text that is too long is cut between characters. err may be NULL.
 * For an errno whose name helps, end the format with "%s" and gw_strerror(code).
 * Returns code. */
int gw_err_set(struct gw_err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Prepends what the caller was doing: "PREFIX: old text". err may be NULL. Returns err's code. */
int gw_err_prefix(struct gw_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Text for a negative errno; never NULL, thread-safe. */
const char *gw_strerror(int code);

/* Whether an errno (negative) says what the system lacks for the moment, and not that something was asked for that can
 * never be. */
bool gw_err_passes(int code);

/* We are wrong: prints and aborts, in release builds too. */
#define gw_assert(x) ((x) ? (void)0 : gw_assert_failed(#x, __FILE__, __LINE__))
_Noreturn void gw_assert_failed(const char *what, const char *file, int line);
