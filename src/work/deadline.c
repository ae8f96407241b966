/* A binary heap: the next deadline is looked at often, and a lane may run thousands. */
#include "base/err.h"
#include "base/str.h"
#include "work/inside.h"

static void put(struct gw_work *w, size_t at, struct gw_live *t)
{
    w->heap[at - 1] = t;
    t->heap_at = at;
}

static void rise(struct gw_work *w, size_t at)
{
    struct gw_live *t = w->heap[at - 1];
    for (; at > 1 && w->heap[at / 2 - 1]->deadline_ms > t->deadline_ms; at /= 2)
        put(w, at, w->heap[at / 2 - 1]);
    put(w, at, t);
}

static void sink(struct gw_work *w, size_t at)
{
    struct gw_live *t = w->heap[at - 1];
    for (size_t child; (child = at * 2) <= w->heap_used; at = child) {
        if (child < w->heap_used && w->heap[child]->deadline_ms < w->heap[child - 1]->deadline_ms)
            child++;
        if (w->heap[child - 1]->deadline_ms >= t->deadline_ms)
            break;
        put(w, at, w->heap[child - 1]);
    }
    put(w, at, t);
}

void gw_deadline_clear(struct gw_work *w, struct gw_live *t)
{
    size_t at = t->heap_at;
    if (at == 0)
        return;
    struct gw_live *last = w->heap[--w->heap_used];
    t->heap_at = 0;
    if (last == t)
        return;
    put(w, at, last);
    rise(w, at);
    sink(w, last->heap_at);
}

void gw_deadline_set(struct gw_work *w, struct gw_live *t, uint64_t at_ms)
{
    gw_deadline_clear(w, t);
    if (w->heap_used == w->heap_cap) {
        w->heap_cap = w->heap_cap > 0 ? w->heap_cap * 2 : 16;
        w->heap = gw_realloc(w->heap, w->heap_cap * sizeof(struct gw_live *));
    }
    t->deadline_ms = at_ms;
    put(w, ++w->heap_used, t);
    rise(w, t->heap_at);
}
