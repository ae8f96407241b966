/* tempdir.h - a folder of its own for a test, removed with what is in it. */
#pragma once

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline int tempdir_drop(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

/* Fills path (at least 64 bytes) with a new folder of mode 0700. */
static inline void tempdir_make(char *path)
{
    const char *base = getenv("TMPDIR");
    (void)snprintf(path, 64, "%.40s/gwhost-XXXXXX", base != NULL ? base : "/tmp");
    if (mkdtemp(path) == NULL)
        abort();
}

static inline void tempdir_remove(const char *path)
{
    (void)nftw(path, tempdir_drop, 16, FTW_DEPTH | FTW_PHYS);
}
