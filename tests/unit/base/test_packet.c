/* A packet is read as it was written, whole or not at all. */
#include "base/err.h"
#include "base/json.h"
#include "base/packet.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct gw_buf write_one(const char *blob, size_t n)
{
    struct gw_buf out = {0};
    json_t *head = json_pack("{sssi}", "type", "hello", "n", 7);
    gw_packet_add(&out, head, blob, n);
    json_decref(head);
    return out;
}

static void a_packet_needs_all_its_bytes(void **state)
{
    struct gw_buf b = write_one("a\0b", 3);
    struct gw_packet p;
    for (size_t n = 0; n < b.len; n++)
        assert_int_equal(gw_packet_read(b.data, n, &p, NULL), 0);
    assert_int_equal(gw_packet_read(b.data, b.len, &p, NULL), b.len);
    assert_int_equal(json_integer_value(json_object_get(p.head, "n")), 7);
    assert_int_equal(p.blob_bytes, 3);
    assert_memory_equal(p.blob, "a\0b", 3);
    json_decref(p.head);
    gw_buf_fini(&b);
}

static void two_packets_are_read_one_by_one(void **state)
{
    struct gw_buf b = write_one(NULL, 0), more = write_one("x", 1);
    long first = (long)b.len;
    gw_buf_add(&b, more.data, more.len);
    struct gw_packet p;
    assert_int_equal(gw_packet_read(b.data, b.len, &p, NULL), first);
    assert_int_equal(p.blob_bytes, 0);
    json_decref(p.head);
    assert_int_equal(gw_packet_read(b.data + first, b.len - (size_t)first, &p, NULL), more.len);
    json_decref(p.head);
    gw_buf_fini(&b);
    gw_buf_fini(&more);
}

static void garbage_is_said_to_be_garbage(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
    } all[] = {{"HTTP/1.1 400 Bad", 16},
               {"\0\0\0\0\0\0\0\0", 8},
               {"\x02\0\0\0\0\0\0\0[]", 10},
               {"\x02\0\0\0\0\0\0\0{{", 10},
               {"\x02\0\0\0\xff\xff\xff\xff{}", 10}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct gw_packet p;
        struct gw_err err = {0};
        assert_int_equal(gw_packet_read(all[i].bytes, all[i].n, &p, &err), -EPROTO);
        assert_true(err.text[0] != '\0');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_packet_needs_all_its_bytes),
        cmocka_unit_test(two_packets_are_read_one_by_one),
        cmocka_unit_test(garbage_is_said_to_be_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
