#include "base/err.h"
#include "base/str.h"
#include "base/time.h"
#include "work/inside.h"

#include <errno.h>
#include <stdlib.h>

#define PROGRESS_BYTES 1024

int gw_run_begin(struct gw_work *w, const struct gw_run_spec *spec, struct gw_run **ret_run)
{
    if (w->generation == 0 || w->fenced)
        return -ESHUTDOWN;
    struct gw_run *run = gw_calloc(1, sizeof *run);
    gw_link_init(&run->aborts);
    gw_link_add(&w->runs, &run->all);
    w->run_count++;
    run->work = w;
    gw_work_make_id(w, 'r', run->id);
    run->handler = gw_strdup(spec->handler);
    run->label = gw_strdup(spec->label);
    run->title = gw_strdup(spec->title);
    run->compacting = spec->compacting;
    run->started_ms = gw_now_ms();
    *ret_run = run;
    return 0;
}

static void run_free(struct gw_run *run)
{
    gw_link_remove(&run->all);
    gw_link_remove(&run->aborts);
    free(run->handler);
    free(run->label);
    free(run->title);
    free(run->progress);
    free(run);
}

void gw_run_end(struct gw_work *w, struct gw_run *run)
{
    if (!run->cut) {
        w->run_count--;
        w->excused_runs -= run->excused;
        if (w->run_count == w->excused_runs && (w->drain_watch || w->idle_watch))
            gw_work_wake(w);
    }
    run_free(run);
}

void gw_run_free_all(struct gw_work *w)
{
    while (!gw_link_alone(&w->runs))
        run_free(gw_link_of(w->runs.next, struct gw_run, all));
    while (!gw_link_alone(&w->cut_runs))
        run_free(gw_link_of(w->cut_runs.next, struct gw_run, all));
    w->run_count = w->excused_runs = 0;
}

void gw_run_set_compacting(struct gw_run *run, bool compacting)
{
    run->compacting = compacting;
}

void gw_run_set_progress(struct gw_run *run, const char *text)
{
    free(run->progress);
    run->progress = gw_task_bound_text(text, PROGRESS_BYTES);
}

void gw_run_set_data(struct gw_run *run, void *data)
{
    run->data = data;
}

void *gw_run_data(const struct gw_run *run)
{
    return run->data;
}

const char *gw_run_id(const struct gw_run *run)
{
    return run->id;
}
