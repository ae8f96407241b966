#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/arena.h"

enum { BLOCKS = 500, ROUNDS = 60000 };

struct block {
    unsigned char *p;
    size_t n;
    unsigned char mark;
};

static unsigned next_random(unsigned *seed)
{
    *seed = *seed * 1103515245U + 12345U;
    return *seed >> 8;
}

static void check(const struct block *b)
{
    for (size_t i = 0; i < b->n; i += i < 32 || i + 32 > b->n ? 1 : 16)
        assert_int_equal(b->p[i], b->mark);
}

static void blocks_keep_their_content_whatever_is_taken_resized_and_freed(void **state)
{
    struct gw_arena *a = gw_arena_new();
    static struct block blocks[BLOCKS];
    unsigned seed = 7;
    size_t used = 0;
    for (int round = 0; round < ROUNDS; round++) {
        struct block *b = &blocks[next_random(&seed) % BLOCKS];
        size_t kind = next_random(&seed) % 10;
        size_t n = kind < 3 ? 0 : 1 + next_random(&seed) % (kind < 8 ? 300 : kind < 9 ? 5000 : 90000);
        check(b);
        size_t kept = b->n < n ? b->n : n;
        void *p = gw_arena_alloc(a, b->p, b->n, n);
        used = used - b->n + n;
        assert_int_equal(gw_arena_used(a), used);
        if (n == 0) {
            assert_null(p);
            *b = (struct block){0};
            continue;
        }
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        b->p = p;
        b->n = kept;
        check(b);
        b->n = n;
        b->mark = (unsigned char)next_random(&seed);
        memset(b->p, b->mark, n);
        if (round % 1000 == 0)
            gw_arena_trim(a);
    }
    gw_arena_free(a);
}

static void the_limit_counts_what_is_asked_for_and_holds_only_growth(void **state)
{
    struct gw_arena *a = gw_arena_new();
    void *kept = gw_arena_alloc(a, NULL, 0, 1000);
    gw_arena_allow(a, 100);
    assert_null(gw_arena_alloc(a, NULL, 0, 101));
    void *p = gw_arena_alloc(a, NULL, 0, 100);
    assert_non_null(p);
    assert_null(gw_arena_alloc(a, NULL, 0, 1));
    assert_null(gw_arena_alloc(a, p, 100, 101));
    p = gw_arena_alloc(a, p, 100, 50);
    assert_non_null(p);
    assert_non_null(gw_arena_alloc(a, NULL, 0, 50));
    assert_int_equal(gw_arena_used(a), 1100);
    assert_null(gw_arena_alloc(a, kept, 1000, 0));
    assert_int_equal(gw_arena_used(a), 100);
    gw_arena_free(a);
}

static void large_blocks_are_joined_again_when_they_are_freed(void **state)
{
    struct gw_arena *a = gw_arena_new();
    enum { N = 14, BYTES = 4 << 20 };
    // Twice as much as the region holds, in pieces of another size each time.
    for (int round = 0; round < 8; round++) {
        size_t bytes = (size_t)BYTES >> (round % 3);
        void *p[N << 2];
        int n = N << (round % 3);
        for (int i = 0; i < n; i++) {
            p[i] = gw_arena_alloc(a, NULL, 0, bytes);
            assert_non_null(p[i]);
        }
        for (int i = 0; i < n; i += 2)
            (void)gw_arena_alloc(a, p[i], bytes, 0);
        for (int i = 1; i < n; i += 2)
            (void)gw_arena_alloc(a, p[i], bytes, 0);
    }
    assert_int_equal(gw_arena_used(a), 0);
    gw_arena_free(a);
}

static void a_block_that_no_region_holds_is_refused(void **state)
{
    struct gw_arena *a = gw_arena_new();
    assert_null(gw_arena_alloc(a, NULL, 0, (size_t)64 << 20));
    assert_null(gw_arena_alloc(a, NULL, 0, SIZE_MAX - 8));
    assert_non_null(gw_arena_alloc(a, NULL, 0, (size_t)48 << 20));
    gw_arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_keep_their_content_whatever_is_taken_resized_and_freed),
        cmocka_unit_test(the_limit_counts_what_is_asked_for_and_holds_only_growth),
        cmocka_unit_test(large_blocks_are_joined_again_when_they_are_freed),
        cmocka_unit_test(a_block_that_no_region_holds_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
