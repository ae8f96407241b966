#include "base/err.h"

#include <errno.h>

#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int gw_err_set(struct gw_err *err, int code, const char *fmt, ...)
{
    if (err == NULL)
        return code;
    err->code = code;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    if (n >= (int)sizeof err->text)
        err->text[gw_utf8_clip(err->text, sizeof err->text - 1)] = '\0';
    return code;
}

int gw_err_prefix(struct gw_err *err, const char *fmt, ...)
{
    if (err == NULL)
        return 0;
    char old[sizeof err->text];
    memcpy(old, err->text, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    if (n < 0)
        n = 0;
    if ((size_t)n < sizeof err->text - 1) {
        int m = snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", old);
        if (m >= (int)(sizeof err->text - (size_t)n))
            err->text[gw_utf8_clip(err->text, sizeof err->text - 1)] = '\0';
    }
    return err->code;
}

const char *gw_strerror(int code)
{
    const char *text = strerrordesc_np(code < 0 ? -code : code);
    return text != NULL ? text : "unknown error";
}

void gw_assert_failed(const char *what, const char *file, int line)
{
    (void)fprintf(stderr, "gwhost: %s:%d: assertion failed: %s\n", file, line, what);
    abort();
}

bool gw_err_passes(int code)
{
    static const int passing[] = {EAGAIN, EBUSY, EINTR, EIO, EMFILE, ENFILE, ENOMEM, ENOBUFS, ENOSPC, EDQUOT, EROFS, ESTALE,
                                  ETIMEDOUT, ENOLCK, EADDRINUSE, EADDRNOTAVAIL, ENETDOWN, ENETUNREACH, ETXTBSY, EUCLEAN};
    for (size_t i = 0; i < sizeof passing / sizeof *passing; i++)
        if (code == -passing[i])
            return true;
    return false;
}
