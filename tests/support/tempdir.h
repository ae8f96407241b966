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

/* Fills path (size bytes) with name where tests may write; its XXXXXX is for mkdtemp(3) and its kind. */
static inline void tempdir_name(char *path, size_t size, const char *name)
{
    const char *base = getenv("TMPDIR");
    if ((size_t)snprintf(path, size, "%s/%s", base != NULL ? base : "/tmp", name) >= size)
        abort();
}

/* Fills path (at least 64 bytes) with a new folder of mode 0700. */
static inline void tempdir_make(char *path)
{
    tempdir_name(path, 64, "gwhost-XXXXXX");
    if (mkdtemp(path) == NULL)
        abort();
}

static inline void tempdir_remove(const char *path)
{
    (void)nftw(path, tempdir_drop, 16, FTW_DEPTH | FTW_PHYS);
}
