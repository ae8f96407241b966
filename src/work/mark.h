/* mark.h - what was acknowledged, beside the database: STATE/tasks.count.
 *
 * A database that is emptied, put back from an older copy or parted from its log looks whole, and says nothing of
 * what it has lost. So each commit counts in the database, and the count of the last one is written here once that
 * is durable: never before, so that a power cut cannot make an alarm of nothing. */
#pragma once

#include <stdint.h>

struct gw_mark {
    int64_t commits, at_ms; /* 0: nothing is known */
};

/* Opens or makes the file. Returns a descriptor or a negative errno: then nothing is compared. */
int gw_mark_open(const char *dir, struct gw_mark *ret);
void gw_mark_write(int fd, const struct gw_mark *m); /* a negative fd is fine */
