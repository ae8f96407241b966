/* listen.h - listening sockets from the words of the command line.
 *
 * HOST:PORT, [V6]:PORT, unix:PATH, fd:N. Opened once by the host and kept through every restart. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct gw_err;

struct gw_listen_socket {
    int fd;         /* owned, CLOEXEC, non-blocking, listening */
    char *address;  /* owned; as bound: "127.0.0.1:18789", "[::1]:80", "unix:/run/x.sock" */
    char *word;     /* owned; as given, to open it again */
    char *name;     /* owned; of LISTEN_FDNAMES, NULL: none */
    bool inherited; /* passed to us: never closed to give up the port */
    bool kept;      /* another process or a service manager has it too: its path stays */
    bool loopback;  /* reachable from this machine only (unix sockets too) */
};

/* Says whether word can be understood; -EINVAL with what is wrong and the forms there are. */
int gw_listen_check(const char *word, struct gw_err *err);

/* Opens one socket per word ("localhost" may give two: each of its addresses), appending to *io_sockets.
 * A stale unix socket file is replaced when nobody answers on it: call it with the lock held.
 * -EADDRINUSE and the like with the address in err. Nothing is appended on failure. */
int gw_listen_open(const char *word, struct gw_listen_socket **io_sockets, size_t *io_count, struct gw_err *err);

/* The sockets passed by LISTEN_FDS when LISTEN_PID is ours; removes the variables. Each word of the command line
 * gets the one that is bound to its address; without words all are taken. What nobody wants is closed, and
 * *ret_unwanted gets its names, for a service manager to forget: each is the caller's, the list too. Appends. */
int gw_listen_passed(const char *const *words, size_t word_count, struct gw_listen_socket **io_sockets,
                     size_t *io_count, char ***ret_unwanted, size_t *ret_unwanted_count, struct gw_err *err);

/* Takes over a listening socket that a predecessor has handed to us. -EPROTO when it is not bound to address. */
int gw_listen_adopt(int fd, const char *word, const char *address, bool inherited,
                    struct gw_listen_socket **io_sockets, size_t *io_count, struct gw_err *err);

/* From now on nobody new gets to a socket of our own, and who is connecting just now still does: the listener's last
 * connections can be accepted, and then it can be closed without a reset for anyone. A socket that was passed to us is
 * left as it is. False when there is nothing to wait for. */
bool gw_listen_last_call(const struct gw_listen_socket *socket);

/* Closes all (inherited ones too when all is true) and removes the paths of unix sockets that we bound.
 * Keeps what stays; returns how many are left. */
size_t gw_listen_close(struct gw_listen_socket *sockets, size_t count, bool all);
