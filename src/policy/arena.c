#include "policy/arena.h"

#include "base/err.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

enum {
    PAGE = 4096,
    PAGES = 16384,        /* 64 MiB are reserved; what is not used costs nothing */
    STEP_PAGES = 256,     /* made writable at a time */
    SLAB_PAGES = 4,       /* what a size class takes at a time */
    SMALL_MAX = 2048,     /* larger blocks are runs of pages */
    FINE_MAX = 256,       /* classes are 16 bytes apart up to here, then four to a doubling */
    CLASSES = 16 + 4 * 3, /* 16, 32 … 256; 320, 384, 448, 512 … 2048 */
    TRIM_PAGES = 256,     /* free and written pages that are worth giving back */
    TRIM_RUN_PAGES = 16,
};

enum { FREE_CLEAN, FREE_DIRTY, TAKEN };

struct block {
    struct block *next;
};

struct gw_arena {
    size_t used, limit;
    size_t top;      /* pages below were taken at least once */
    size_t writable; /* pages below may be written */
    size_t hint;     /* no free page below */
    size_t dirty;    /* pages that are FREE_DIRTY, about */
    struct block *free[CLASSES];
    char *bump[CLASSES], *bump_end[CLASSES];
    uint8_t map[PAGES];
};

enum { HEAD_PAGES = (sizeof(struct gw_arena) + PAGE - 1) / PAGE };

struct gw_arena *gw_arena_new(void)
{
    void *region =
        mmap(NULL, (size_t)PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (region == MAP_FAILED)
        return NULL;
    if (mprotect(region, (size_t)STEP_PAGES * PAGE, PROT_READ | PROT_WRITE) < 0) {
        (void)munmap(region, (size_t)PAGES * PAGE);
        return NULL;
    }
    struct gw_arena *a = region;
    memset(a->map, TAKEN, HEAD_PAGES);
    a->top = a->hint = HEAD_PAGES;
    a->writable = STEP_PAGES;
    a->limit = SIZE_MAX;
    return a;
}

struct gw_arena *gw_arena_free(struct gw_arena *a)
{
    if (a != NULL)
        (void)munmap(a, (size_t)PAGES * PAGE); // what stays mapped is no harm
    return NULL;
}

void gw_arena_allow(struct gw_arena *a, size_t bytes)
{
    a->limit = a->used + bytes;
}

size_t gw_arena_used(const struct gw_arena *a)
{
    return a->used;
}

// ---- pages ----

static char *page_at(struct gw_arena *a, size_t page)
{
    return (char *)a + page * PAGE;
}

static size_t page_of(const struct gw_arena *a, const void *p)
{
    return (size_t)((const char *)p - (const char *)a) / PAGE;
}

static size_t pages_for(size_t bytes)
{
    return (bytes + PAGE - 1) / PAGE;
}

/* Makes the pages below end writable and counts them as used once. */
static bool reach(struct gw_arena *a, size_t end)
{
    if (end > PAGES)
        return false;
    if (end > a->writable) {
        size_t more = (end - a->writable + STEP_PAGES - 1) / STEP_PAGES * STEP_PAGES;
        if (mprotect(page_at(a, a->writable), more * PAGE, PROT_READ | PROT_WRITE) < 0)
            return false;
        a->writable += more;
    }
    if (end > a->top)
        a->top = end;
    return true;
}

static void take(struct gw_arena *a, size_t first, size_t n)
{
    for (size_t i = first; i < first + n; i++) {
        a->dirty -= a->map[i] == FREE_DIRTY;
        a->map[i] = TAKEN;
    }
}

static void give(struct gw_arena *a, size_t first, size_t n)
{
    memset(a->map + first, FREE_DIRTY, n);
    a->dirty += n;
    if (first < a->hint)
        a->hint = first;
}

/* The first run of n free pages. */
static void *run_new(struct gw_arena *a, size_t n)
{
    size_t start = a->hint;
    bool lowest = true;
    for (size_t i = a->hint; i < a->top; i++) {
        if (a->map[i] != TAKEN) {
            if (lowest)
                a->hint = i;
            lowest = false;
            if (i - start + 1 == n)
                break;
        } else {
            start = i + 1;
        }
    }
    if (!reach(a, start + n))
        return NULL;
    take(a, start, n);
    return page_at(a, start);
}

/* Grows a run in place when the pages behind it are free. */
static bool run_grow(struct gw_arena *a, void *p, size_t old, size_t n)
{
    size_t first = page_of(a, p);
    if (first + n > PAGES)
        return false;
    for (size_t i = first + old; i < first + n && i < a->top; i++)
        if (a->map[i] == TAKEN)
            return false;
    if (!reach(a, first + n))
        return false;
    take(a, first + old, n - old);
    return true;
}

void gw_arena_trim(struct gw_arena *a)
{
    if (a->dirty < TRIM_PAGES)
        return;
    for (size_t i = HEAD_PAGES; i < a->top;) {
        size_t n = 0;
        while (i + n < a->top && a->map[i + n] == FREE_DIRTY)
            n++;
        if (n >= TRIM_RUN_PAGES && madvise(page_at(a, i), n * PAGE, MADV_DONTNEED) == 0)
            memset(a->map + i, FREE_CLEAN, n);
        i += n > 0 ? n : 1;
    }
    a->dirty = 0; // short runs are not looked at again before more comes together
    for (size_t i = HEAD_PAGES; i < a->top; i++)
        a->dirty += a->map[i] == FREE_DIRTY;
}

// ---- small blocks ----

static unsigned class_of(size_t n)
{
    if (n <= FINE_MAX)
        return (unsigned)((n + 15) / 16 - 1);
    unsigned doubling = 0;
    for (size_t top = FINE_MAX * 2; n > top; top *= 2)
        doubling++;
    size_t base = (size_t)FINE_MAX << doubling, quarter = base / 4;
    return 16 + doubling * 4 + (unsigned)((n - base + quarter - 1) / quarter - 1);
}

static size_t class_bytes(unsigned c)
{
    if (c < 16)
        return ((size_t)c + 1) * 16;
    size_t base = (size_t)FINE_MAX << ((c - 16) / 4);
    return base + base / 4 * ((c - 16) % 4 + 1);
}

static void *small_new(struct gw_arena *a, unsigned c)
{
    struct block *b = a->free[c];
    if (b != NULL) {
        a->free[c] = b->next;
        return b;
    }
    size_t bytes = class_bytes(c);
    if ((size_t)(a->bump_end[c] - a->bump[c]) < bytes) {
        char *slab = run_new(a, SLAB_PAGES);
        if (slab == NULL)
            return NULL;
        a->bump[c] = slab;
        a->bump_end[c] = slab + (size_t)SLAB_PAGES * PAGE;
    }
    void *p = a->bump[c];
    a->bump[c] += bytes;
    return p;
}

// ---- the allocator ----

static void *block_new(struct gw_arena *a, size_t n)
{
    return n <= SMALL_MAX ? small_new(a, class_of(n)) : run_new(a, pages_for(n));
}

static void block_free(struct gw_arena *a, void *p, size_t n)
{
    if (n > SMALL_MAX) {
        give(a, page_of(a, p), pages_for(n));
        return;
    }
    unsigned c = class_of(n);
    struct block *b = p;
    b->next = a->free[c];
    a->free[c] = b;
}

/* Stays where it is when that is possible. */
static bool resized_in_place(struct gw_arena *a, void *p, size_t old, size_t n)
{
    if (old <= SMALL_MAX || n <= SMALL_MAX)
        return old <= SMALL_MAX && n <= SMALL_MAX && class_of(old) == class_of(n);
    size_t had = pages_for(old), want = pages_for(n);
    if (want < had)
        give(a, page_of(a, p) + want, had - want);
    return want <= had || run_grow(a, p, had, want);
}

void *gw_arena_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    struct gw_arena *a = ud;
    size_t old = ptr != NULL ? osize : 0; // without a block, osize tells the kind of object
    if (nsize == 0) {
        if (old > 0)
            block_free(a, ptr, old);
        a->used -= old;
        return NULL;
    }
    if (nsize > old && (nsize > (size_t)PAGES * PAGE || a->used - old + nsize > a->limit))
        return NULL;
    void *p = ptr;
    if (old == 0 || !resized_in_place(a, ptr, old, nsize)) {
        p = block_new(a, nsize);
        if (p == NULL && nsize > old)
            return NULL;
        if (p == NULL) {
            p = ptr; // Lua counts on shrinking; the rest of the block is lost until the arena goes
        } else if (old > 0) {
            memcpy(p, ptr, old < nsize ? old : nsize);
            block_free(a, ptr, old);
        }
    }
    a->used = a->used - old + nsize;
    return p;
}
