/* opening.h - a file becomes the store: looked through, brought up to date, swept and counted. Store thread. */
#pragma once

#include "work/retain.h"
#include "work/store.h"

struct gw_opening {
    const char *dir, *boot_id;
    bool goes_on;           /* closed for us: it is not looked through */
    bool newer;             /* see gw_rows_adopt() */
    bool retry_after_crash;
    bool ours;              /* rows of ours that run are nobody's either */
};
/* One try. A damaged file is moved aside and another one made. ret_found is filled in part on failure. */
int gw_opening_try(const struct gw_opening *o, struct gw_retain *retain, struct gw_rows **ret_rows,
                   struct gw_store_found *ret_found, struct gw_err *err);
