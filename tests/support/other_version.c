/* A successor, or an image, of another version: it goes on with lock, listeners and control socket, but does not
 * know how connections are described. Answers each request with its pid and ends at SIGTERM. */
#include "base/err.h"
#include "base/packet.h"
#include "base/str.h"
#include "loop/channel.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

enum { LISTENERS = 4 };

static int listeners[LISTENERS];
static size_t listener_count;
static char boot_id[64];
static struct gw_channel *channel;
static bool serving;

/* The lock's descriptors come first, and stay open. */
static void take_hello(const json_t *hello, const int *fds, size_t n)
{
    size_t lock = (size_t)json_integer_value(json_object_get(hello, "lock_fds"));
    (void)snprintf(boot_id, sizeof boot_id, "%s", json_string_value(json_object_get(hello, "boot_id")));
    for (size_t i = lock; i < n && listener_count < LISTENERS; i++)
        listeners[listener_count++] = fds[i];
}

static json_t *ready(const json_t *hello)
{
    json_t *addresses = json_array(), *l;
    size_t i;
    json_array_foreach(json_object_get(hello, "listeners"), i, l)
        (void)json_array_append(addresses, json_object_get(l, "address"));
    return json_pack("{sisssssssssosi}", "contract", 1, "boot_id", boot_id, "version", "8.0.0", "policy_sha256", "",
                     "app_sha256", "", "listeners", addresses, "connections", 99);
}

static void received(void *ud, struct gw_letter *letter)
{
    if (strcmp(letter->type, "hello") == 0) {
        take_hello(letter->head, letter->fds, letter->fd_count);
        gw_channel_send(channel, "ready", ready(letter->head), NULL, 0, NULL, 0);
    } else if (strcmp(letter->type, "go") == 0) {
        gw_channel_send(channel, "started", json_object(), NULL, 0, NULL, 0);
    } else if (json_is_true(json_object_get(letter->head, "last"))) {
        serving = true;
        gw_channel_send(channel, "serving", json_pack("{ss}", "boot_id", boot_id), NULL, 0, NULL, 0);
    } else {
        _exit(9); // connections, which it has said that it does not know
    }
    for (size_t i = 0; i < letter->fd_count; i++)
        letter->fds[i] = -1;
}

static void ended(void *ud, const struct gw_err *why)
{
    _exit(8);
}

static void stand_by(int fd)
{
    static const struct gw_channel_ops ops = {.received = received, .ended = ended};
    uv_loop_t *loop = uv_default_loop();
    if (gw_channel_open(loop, fd, &ops, NULL, &channel, NULL) < 0)
        _exit(7);
    while (!serving || !gw_channel_quiet(channel))
        (void)uv_run(loop, UV_RUN_ONCE);
}

/* The image after another one: its letters are in a file. */
static void read_file(int fd, size_t bytes)
{
    char *data = malloc(bytes);
    struct gw_packet packet;
    if (data == NULL || pread(fd, data, bytes, 0) != (ssize_t)bytes || gw_packet_read(data, bytes, &packet, NULL) <= 0)
        _exit(6);
    const json_t *numbers = json_object_get(packet.head, "numbers");
    int fds[16];
    size_t n = 0;
    for (; n < json_array_size(numbers) && n < 16; n++)
        fds[n] = (int)json_integer_value(json_array_get(numbers, n));
    take_hello(packet.head, fds, n);
    free(data);
}

static void answer(int fd)
{
    char text[4096];
    (void)!read(fd, text, sizeof text);
    int n = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\n%8d", (int)getpid());
    (void)!write(fd, text, (size_t)n);
    (void)close(fd);
}

int main(int argc, char **argv)
{
    struct stat st;
    const char *number = getenv("GWHOST_HANDOVER");
    if (argc > 1 && strcmp(argv[1], "--version") == 0)
        return puts("gwhost 8.0.0 contract 1") < 0;
    int fd = number != NULL ? atoi(number) : -1;
    if (fstat(fd, &st) < 0)
        return 5;
    sigset_t all;
    (void)sigemptyset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL); // the host's own is inherited
    (void)alarm(60); // whatever becomes of the test
    if (S_ISREG(st.st_mode))
        read_file(fd, (size_t)st.st_size);
    else
        stand_by(fd);
    for (;;) {
        struct pollfd p[LISTENERS];
        for (size_t i = 0; i < listener_count; i++)
            p[i] = (struct pollfd){.fd = listeners[i], .events = POLLIN};
        (void)poll(p, listener_count, -1);
        for (size_t i = 0; i < listener_count; i++) {
            int c = (p[i].revents & POLLIN) != 0 ? accept(listeners[i], NULL, NULL) : -1;
            if (c >= 0)
                answer(c);
        }
    }
}
