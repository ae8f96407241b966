/* Boots that ended uncleanly are counted for as long as they are recent, whatever the clock and the file do. */
#include "base/err.h"
#include "os/boots.h"
#include "os/statedir.h"
#include "support/tempdir.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { WINDOW = 300000 };
static char dir[64];
static int fd;
static struct gw_boots_dead dead; /* as the last one that began has found it */

static int setup(void **state)
{
    tempdir_make(dir);
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0;
}

static int teardown(void **state)
{
    (void)close(fd);
    tempdir_remove(dir);
    return 0;
}

static unsigned begin(const char *id, const char *replaces, int64_t now)
{
    unsigned unclean = 99;
    assert_int_equal(gw_boots_begin(fd, id, replaces, now, WINDOW, &unclean, &dead, NULL), 0);
    return unclean;
}

static void clean_ends_never_count(void **state)
{
    for (int i = 0; i < 20; i++) {
        char id[8];
        (void)snprintf(id, sizeof id, "b%d", i);
        assert_int_equal(begin(id, NULL, 1000 + i), 0);
        assert_int_equal(gw_boots_end(fd, id, true, 1000 + i, NULL), 0);
    }
}

static void those_that_died_or_failed_count_while_they_are_recent(void **state)
{
    assert_int_equal(begin("a", NULL, 1000), 0);
    assert_string_equal(dead.boot_id, "");
    assert_int_equal(begin("b", NULL, 2000), 1);
    assert_string_equal(dead.boot_id, "a");
    assert_int_equal(dead.pid, getpid());
    assert_int_equal(dead.started_at, 1000);
    assert_int_equal(gw_boots_note(fd, "b", "served", NULL), 0);
    assert_int_equal(gw_boots_end(fd, "b", false, 3000, NULL), 0);
    assert_int_equal(begin("c", NULL, 4000), 2);
    assert_int_equal(begin("d", NULL, 5000), 3);
    assert_int_equal(begin("e", NULL, 5000 + WINDOW), 1); // d, found dead just now
}

static void an_end_that_was_asked_for_is_no_crash_whoever_brought_it(void **state)
{
    assert_int_equal(begin("a", NULL, 1000), 0);
    assert_int_equal(gw_boots_note(fd, "a", "served", NULL), 0);
    assert_int_equal(gw_boots_note(fd, "a", "stopping", NULL), 0);
    assert_int_equal(begin("b", NULL, 2000), 0); // killed meanwhile
    assert_string_equal(dead.boot_id, "");
    assert_int_equal(gw_boots_note(fd, "b", "served", NULL), 0);
    assert_int_equal(gw_boots_note(fd, "b", "stopping", NULL), 0);
    assert_int_equal(gw_boots_end(fd, "b", false, 3000, NULL), 0); // its application did not close
    assert_int_equal(begin("c", NULL, 4000), 0);
    assert_int_equal(gw_file_write(fd, GW_BOOTS_STOP_MARK, "c", 1, 0600, false, NULL), 0); // the last resort's word
    assert_int_equal(begin("d", NULL, 5000), 0);
    assert_int_equal(begin("e", NULL, 6000), 1); // the mark was for one boot
}

static void one_that_never_served_is_no_crash(void **state)
{
    assert_int_equal(begin("a", NULL, 1000), 0);
    assert_int_equal(gw_boots_end(fd, "a", false, 2000, NULL), 0);
    assert_int_equal(begin("b", NULL, 3000), 0);
    assert_int_equal(begin("c", NULL, 4000), 1); // but one that died as it started is
}

static void one_that_ran_for_a_week_counts_from_its_death(void **state)
{
    assert_int_equal(begin("a", NULL, 1000), 0);
    assert_int_equal(begin("b", NULL, 1000 + 7 * 86400000LL), 1);
}

static void who_hands_over_has_ended_well_and_may_go_on(void **state)
{
    assert_int_equal(begin("a", NULL, 1000), 0);
    assert_int_equal(begin("b", "a", 2000), 0);
    assert_int_equal(begin("a", "b", 3000), 0); // the hand-over failed
    assert_int_equal(begin("c", NULL, 4000), 1); // and then a died
}

static void forgiven_is_forgotten_and_the_clock_may_jump(void **state)
{
    (void)begin("a", NULL, 1000);
    (void)begin("b", NULL, 2000);
    assert_int_equal(begin("c", NULL, 3000), 2);
    assert_int_equal(gw_boots_forgive(fd, NULL), 0);
    assert_int_equal(begin("d", NULL, 4000), 1);
    assert_int_equal(begin("e", NULL, 10), 1); // only d, found dead at this odd time
}

static void a_damaged_file_is_begun_anew(void **state)
{
    struct gw_err err = {0};
    unsigned unclean = 99;
    assert_int_equal(gw_file_write(fd, "boots.json", "{\"boots\":7}", 11, 0600, false, NULL), 0);
    assert_int_equal(gw_boots_begin(fd, "a", NULL, 1000, WINDOW, &unclean, &dead, &err), -EINVAL);
    assert_int_equal(unclean, 0);
    assert_int_equal(begin("b", NULL, 2000), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(clean_ends_never_count, setup, teardown),
        cmocka_unit_test_setup_teardown(those_that_died_or_failed_count_while_they_are_recent, setup, teardown),
        cmocka_unit_test_setup_teardown(an_end_that_was_asked_for_is_no_crash_whoever_brought_it, setup, teardown),
        cmocka_unit_test_setup_teardown(one_that_never_served_is_no_crash, setup, teardown),
        cmocka_unit_test_setup_teardown(one_that_ran_for_a_week_counts_from_its_death, setup, teardown),
        cmocka_unit_test_setup_teardown(who_hands_over_has_ended_well_and_may_go_on, setup, teardown),
        cmocka_unit_test_setup_teardown(forgiven_is_forgotten_and_the_clock_may_jump, setup, teardown),
        cmocka_unit_test_setup_teardown(a_damaged_file_is_begun_anew, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
