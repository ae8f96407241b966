/* Addresses as words, sockets as they are bound, stale and passed ones. */
#include "base/err.h"
#include "base/str.h"
#include "os/listen.h"
#include "support/tempdir.h"

#include <errno.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cmocka.h>

static struct gw_listen_socket *sockets;
static size_t count;
static char dir[64];

static int setup(void **state)
{
    tempdir_make(dir);
    sockets = NULL;
    count = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)gw_listen_close(sockets, count, true);
    free(sockets);
    tempdir_remove(dir);
    return 0;
}

static void words_that_are_no_address_are_refused_with_the_forms_there_are(void **state)
{
    static const char *const bad[] = {"",       "80",      ":80",     "host",    "host:",   "host:x", "host:65536",
                                      "::1:80", "[::1]",   "[]:80",   "unix:",   "fd:",     "fd:x",   "fd:-1",
                                      "a:b:80", "1.2.3.4:-1", NULL};
    struct gw_err err;
    for (int i = 0; bad[i] != NULL; i++) {
        assert_int_equal(gw_listen_check(bad[i], &err), -EINVAL);
        assert_non_null(strstr(err.text, "HOST:PORT"));
    }
    char longer[200] = "unix:/";
    memset(longer + 6, 'x', 150);
    assert_int_equal(gw_listen_check(longer, &err), -EINVAL);
    assert_int_equal(gw_listen_check("unix:@name", &err), -EINVAL);
    assert_non_null(strstr(err.text, "unix:./@name"));
    assert_int_equal(gw_listen_check("unix:./@name", &err), 0);
    assert_int_equal(gw_listen_check("[::1]:80", &err), 0);
    assert_int_equal(gw_listen_check("localhost:0", &err), 0);
}

static void port_0_is_one_port_for_all_addresses_of_a_word(void **state)
{
    struct gw_err err;
    if (gw_listen_open("*:0", &sockets, &count, &err) < 0 || count < 2)
        skip(); // one family only
    assert_int_equal(count, 2);
    assert_string_equal(strrchr(sockets[0].address, ':'), strrchr(sockets[1].address, ':'));
    assert_string_not_equal(strrchr(sockets[0].address, ':'), ":0");
}

static void port_0_picks_one_and_says_which(void **state)
{
    struct gw_err err;
    assert_int_equal(gw_listen_open("127.0.0.1:0", &sockets, &count, &err), 0);
    assert_int_equal(count, 1);
    assert_memory_equal(sockets[0].address, "127.0.0.1:", 10);
    assert_string_not_equal(sockets[0].address, "127.0.0.1:0");
    assert_true(sockets[0].loopback);
    assert_true((fcntl(sockets[0].fd, F_GETFD) & FD_CLOEXEC) != 0);
    assert_int_equal(gw_listen_open(sockets[0].address, &sockets, &count, &err), -EADDRINUSE);
    assert_int_equal(count, 1);
    assert_non_null(strstr(err.text, sockets[0].address));
}

static void a_wildcard_is_not_loopback(void **state)
{
    struct gw_err err;
    assert_int_equal(gw_listen_open("0.0.0.0:0", &sockets, &count, &err), 0);
    assert_false(sockets[0].loopback);
}

static void a_stale_unix_socket_is_replaced_and_a_live_one_is_not(void **state)
{
    struct gw_err err;
    char *word = gw_asprintf("unix:%s/s", dir);
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    (void)snprintf(un.sun_path, sizeof un.sun_path, "%s/s", dir);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    (void)close(fd); // bound once, nobody listens: stale
    assert_int_equal(gw_listen_open(word, &sockets, &count, &err), 0);
    assert_int_equal(gw_listen_open(word, &sockets, &count, &err), -EADDRINUSE);
    assert_int_equal(count, 1);
    count = gw_listen_close(sockets, count, true);
    assert_int_equal(access(un.sun_path, F_OK), -1);
    fd = open(un.sun_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    (void)close(fd);
    assert_int_equal(gw_listen_open(word, &sockets, &count, &err), -EEXIST);
    free(word);
}

static int unix_at(char path[80])
{
    char word[100];
    struct gw_err err;
    (void)snprintf(path, 80, "%s/a.sock", dir);
    (void)snprintf(word, sizeof word, "unix:%s", path);
    return gw_listen_open(word, &sockets, &count, &err);
}

/* Who connects there now: true when it is the socket fd. */
static bool reaches(const char *path, int fd)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    memcpy(un.sun_path, path, strlen(path) + 1);
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    bool there = connect(client, (struct sockaddr *)&un, sizeof un) == 0;
    int taken = accept(fd, NULL, NULL);
    if (taken >= 0)
        (void)close(taken);
    (void)close(client);
    return there && taken >= 0;
}

static void a_name_is_removed_only_where_it_leads_to_what_was_bound(void **state)
{
    char path[80];
    assert_int_equal(unix_at(path), 0);
    assert_false(gw_listen_lost(&sockets[0]));
    assert_int_equal(unlink(path), 0);
    assert_true(gw_listen_lost(&sockets[0]));
    int fd = open(path, O_CREAT | O_WRONLY, 0600); // somebody's file has that name now
    (void)close(fd);
    assert_true(gw_listen_lost(&sockets[0]));
    count = gw_listen_close(sockets, count, true);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(unix_at(path), 0);
    struct gw_listen_socket first = sockets[0];
    count = 0;
    assert_int_equal(unlink(path), 0);
    assert_int_equal(unix_at(path), 0); // and now it is another host's socket
    assert_int_equal(gw_listen_close(&first, 1, true), 0);
    assert_true(reaches(path, sockets[0].fd));
    count = gw_listen_close(sockets, count, true);
    assert_int_equal(access(path, F_OK), -1);
}

static void a_name_that_is_lost_is_bound_anew(void **state)
{
    char path[80];
    struct gw_err err;
    int old = -1;
    assert_int_equal(unix_at(path), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(gw_listen_bind_anew(&sockets[0], &old, &err), 0);
    assert_true(old >= 0 && old != sockets[0].fd);
    assert_false(gw_listen_lost(&sockets[0]));
    assert_true(reaches(path, sockets[0].fd));
    // One that another process serves now is its own.
    int fd = sockets[0].fd;
    sockets[0].fd = old;
    sockets[0].file.ino++;
    assert_true(gw_listen_lost(&sockets[0]));
    assert_int_equal(gw_listen_bind_anew(&sockets[0], &old, &err), -EADDRINUSE);
    assert_true(reaches(path, fd));
    (void)close(fd);
    (void)unlink(path);
}

static void one_that_was_handed_over_is_compared_with_what_its_predecessor_bound(void **state)
{
    char path[80];
    struct gw_err err;
    assert_int_equal(unix_at(path), 0);
    struct gw_unixsock_file file = sockets[0].file;
    int copy = dup(sockets[0].fd);
    assert_int_equal(gw_listen_adopt(copy, sockets[0].word, sockets[0].address, false, &file, &sockets, &count, &err), 0);
    assert_false(gw_listen_lost(&sockets[1]));
    file.ino++;
    copy = dup(sockets[0].fd);
    assert_int_equal(gw_listen_adopt(copy, sockets[0].word, sockets[0].address, false, &file, &sockets, &count, &err), 0);
    assert_true(gw_listen_lost(&sockets[2]));
}

static void a_path_that_is_too_long_for_an_address_is_bound_in_its_folder(void **state)
{
    char path[240], longer[121];
    struct gw_err err;
    struct gw_unixsock_file file;
    memset(longer, 'd', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    (void)snprintf(path, sizeof path, "%s/%s", dir, longer);
    assert_int_equal(mkdir(path, 0700), 0);
    (void)snprintf(path, sizeof path, "%s/%s/s", dir, longer);
    int fd = gw_unixsock_bind(path, 0177, 5, &file, &err);
    assert_true(fd >= 0);
    struct stat st;
    assert_int_equal(lstat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(gw_unixsock_leads_to(path, &file));
    gw_unixsock_remove(path, &file);
    assert_int_equal(lstat(path, &st), -1);
    (void)close(fd);
}

static void a_passed_descriptor_must_be_a_listening_socket(void **state)
{
    struct gw_err err;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    char word[32];
    (void)snprintf(word, sizeof word, "fd:%d", fd);
    assert_true(gw_listen_open(word, &sockets, &count, &err) < 0);
    assert_non_null(strstr(err.text, word));
    (void)close(fd);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    (void)snprintf(word, sizeof word, "fd:%d", fd);
    assert_true(gw_listen_open(word, &sockets, &count, &err) < 0);
    assert_int_equal(listen(fd, 5), 0);
    assert_int_equal(gw_listen_open(word, &sockets, &count, &err), 0);
    assert_true(sockets[0].inherited);
    assert_int_equal(gw_listen_close(sockets, count, false), 1); // giving up ports keeps what was passed
}

static void sockets_for_another_process_are_not_taken(void **state)
{
    struct gw_err err;
    (void)setenv("LISTEN_PID", "1", 1);
    (void)setenv("LISTEN_FDS", "1", 1);
    struct gw_listen_unwanted *unwanted;
    size_t n;
    assert_int_equal(gw_listen_passed(NULL, 0, &sockets, &count, &unwanted, &n, &err), 0);
    assert_int_equal(count, 0);
    assert_null(getenv("LISTEN_FDS"));
}

/* Two listening sockets as a service manager passes them: 3 and 4. What is open there moves away meanwhile. */
static void pass_two(char addresses[2][32])
{
    char pid[16];
    int fds[2];
    for (int i = 0; i < 2; i++) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        socklen_t len = sizeof in;
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
        assert_int_equal(listen(fd, 5), 0);
        assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
        (void)snprintf(addresses[i], 32, "127.0.0.1:%d", ntohs(in.sin_port));
        fds[i] = fcntl(fd, F_DUPFD, 20);
        (void)close(fd);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(dup2(fds[i], 3 + i), 3 + i);
        (void)close(fds[i]);
    }
    (void)snprintf(pid, sizeof pid, "%d", (int)getpid());
    (void)setenv("LISTEN_PID", pid, 1);
    (void)setenv("LISTEN_FDS", "2", 1);
    (void)setenv("LISTEN_FDNAMES", "first:second", 1);
}

static void passed_sockets_go_to_the_words_that_are_bound_to_them(void **state)
{
    struct gw_err err;
    char addresses[2][32];
    struct gw_listen_unwanted *unwanted;
    size_t n;
    pass_two(addresses);
    const char *words[] = {"unix:/nowhere", addresses[1]};
    assert_int_equal(gw_listen_passed(words, 2, &sockets, &count, &unwanted, &n, &err), 0);
    assert_int_equal(count, 1);
    assert_string_equal(sockets[0].address, addresses[1]);
    assert_string_equal(sockets[0].word, addresses[1]);
    assert_string_equal(sockets[0].name, "second");
    assert_true(sockets[0].inherited && sockets[0].kept);
    assert_int_equal(n, 1);
    assert_string_equal(unwanted[0].name, "first");
    assert_string_equal(unwanted[0].address, addresses[0]);
    free(unwanted[0].name);
    free(unwanted[0].address);
    free(unwanted);
    assert_int_equal(fcntl(3, F_GETFD), -1); // what nobody wants is closed
    assert_int_equal(fcntl(4, F_GETFD), FD_CLOEXEC);
}

static void without_words_all_that_was_passed_is_taken(void **state)
{
    struct gw_err err;
    char addresses[2][32];
    struct gw_listen_unwanted *unwanted;
    size_t n;
    pass_two(addresses);
    assert_int_equal(gw_listen_passed(NULL, 0, &sockets, &count, &unwanted, &n, &err), 0);
    assert_int_equal(count, 2);
    assert_int_equal(n, 0);
}

static void port_0_and_a_name_take_what_is_bound_to_their_host(void **state)
{
    struct gw_err err;
    char addresses[2][32];
    struct gw_listen_unwanted *unwanted;
    size_t n;
    pass_two(addresses);
    const char *words[] = {"localhost:0", "127.0.0.1:0"};
    assert_int_equal(gw_listen_passed(words, 2, &sockets, &count, &unwanted, &n, &err), 0);
    assert_int_equal(count, 2);
    assert_string_equal(sockets[1].word, "127.0.0.1:0");
}

static void a_socket_that_was_handed_over_is_where_it_is_said_to_be(void **state)
{
    struct gw_err err = {0};
    char addresses[2][32];
    pass_two(addresses);
    assert_int_equal(gw_listen_adopt(3, "w", addresses[1], false, NULL, &sockets, &count, &err), -EPROTO);
    assert_non_null(strstr(err.text, addresses[0]));
    assert_int_equal(count, 0);
    assert_int_equal(gw_listen_adopt(3, "w", addresses[0], false, NULL, &sockets, &count, &err), 0);
    assert_false(sockets[0].inherited);
    (void)close(4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(port_0_is_one_port_for_all_addresses_of_a_word, setup, teardown),
        cmocka_unit_test(words_that_are_no_address_are_refused_with_the_forms_there_are),
        cmocka_unit_test_setup_teardown(port_0_picks_one_and_says_which, setup, teardown),
        cmocka_unit_test_setup_teardown(a_wildcard_is_not_loopback, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stale_unix_socket_is_replaced_and_a_live_one_is_not, setup, teardown),
        cmocka_unit_test_setup_teardown(a_name_is_removed_only_where_it_leads_to_what_was_bound, setup, teardown),
        cmocka_unit_test_setup_teardown(a_name_that_is_lost_is_bound_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(one_that_was_handed_over_is_compared_with_what_its_predecessor_bound, setup, teardown),
        cmocka_unit_test_setup_teardown(a_path_that_is_too_long_for_an_address_is_bound_in_its_folder, setup, teardown),
        cmocka_unit_test_setup_teardown(a_passed_descriptor_must_be_a_listening_socket, setup, teardown),
        cmocka_unit_test_setup_teardown(passed_sockets_go_to_the_words_that_are_bound_to_them, setup, teardown),
        cmocka_unit_test_setup_teardown(without_words_all_that_was_passed_is_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(port_0_and_a_name_take_what_is_bound_to_their_host, setup, teardown),
        cmocka_unit_test_setup_teardown(a_socket_that_was_handed_over_is_where_it_is_said_to_be, setup, teardown),
        cmocka_unit_test_setup_teardown(sockets_for_another_process_are_not_taken, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
