#include "work/opening.h"

#include "base/err.h"
#include "base/time.h"

#include <errno.h>
#include <stdlib.h>

void gw_store_found_fini(struct gw_store_found *f)
{
    for (size_t i = 0; i < f->lane_count; i++)
        free(f->lanes[i].lane);
    for (size_t i = 0; i < f->swept_count; i++)
        gw_task_fini(&f->swept[i]);
    free(f->lanes);
    free(f->swept);
    free(f->moved);
    free(f->lost.saved);
    *f = (struct gw_store_found){0};
}

/* What a successor does only once it is told to go: everything here writes. */
static int take_over(const struct gw_opening *o, struct gw_rows *rows, struct gw_retain *retain,
                     struct gw_store_found *found, struct gw_err *err)
{
    // Whoever opens the file owns it alone: those who ran tasks of other boots have let it go, or have died.
    const struct gw_sweep sweep = {.boot_id = o->boot_id, .generation = o->ours ? UINT32_MAX : 0, .others = true,
                                   .retry_after_crash = o->retry_after_crash, .now_ms = gw_wall_ms()};
    int rc = gw_rows_adopt(rows, o->newer, &found->older, err);
    if (rc == 0) {
        gw_retain_begin(retain, gw_rows_clock_before(rows), gw_wall_ms(), gw_now_ms());
        gw_rows_clock(rows, retain->clock_ms);
        rc = gw_rows_begin(rows, err);
    }
    if (rc == 0)
        rc = gw_rows_sweep(rows, &sweep, &found->swept, &found->swept_count, err);
    if (rc == 0)
        rc = gw_rows_commit(rows, err);
    if (rc == 0)
        rc = gw_rows_count_queued(rows, NULL, &found->lanes, &found->lane_count, err);
    if (rc == 0)
        rc = gw_rows_max_id(rows, found->max_id, err);
    if (rc == 0)
        rc = gw_retain_weigh(retain, rows, err);
    return rc;
}

/* Back to what an opening begins with. What was found wrong with the file is still to be told. */
static void forget(struct gw_store_found *found)
{
    struct gw_store_found told = {.moved = found->moved, .lost = found->lost, .older = found->older};
    found->moved = found->lost.saved = NULL;
    gw_store_found_fini(found);
    *found = told;
}

int gw_opening_try(const struct gw_opening *o, struct gw_retain *retain, struct gw_rows **ret_rows,
                   struct gw_store_found *found, struct gw_err *err)
{
    for (;;) {
        struct gw_rows *rows = NULL;
        int rc = gw_rows_open(o->dir, o->goes_on, &rows, err);
        if (rc == 0 && (rc = take_over(o, rows, retain, found, err)) != 0) {
            gw_rows_rollback(rows);
            gw_rows_close(rows, false);
        }
        if (rc == 0) {
            gw_rows_remember(rows);
            if (found->moved != NULL)
                found->older = (struct gw_older){0}; // that is said already
            *ret_rows = rows;
            return 0;
        }
        forget(found);
        if (rc != -EUCLEAN || found->moved != NULL)
            return rc;
        rc = gw_rows_move_aside(o->dir, &found->moved, err);
        if (rc != 0)
            return rc;
    }
}
