/* listen.h - listening sockets from the words of the command line.
 *
 * HOST:PORT, [V6]:PORT, unix:PATH, fd:N. Opened once by the host and kept through every restart. */
#pragma once

#include "os/unixsock.h"

#include <stdbool.h>
#include <stddef.h>

struct gw_listen_socket {
    int fd;         /* owned, CLOEXEC, non-blocking, listening */
    char *address;  /* owned; as bound: "127.0.0.1:18789", "[::1]:80", "unix:/run/x.sock" */
    char *word;     /* owned; as given, to open it again */
    char *name;     /* owned; of LISTEN_FDNAMES, NULL: none */
    bool inherited; /* passed to us: never closed to give up the port */
    bool kept;      /* another process or a service manager has it too: its path stays */
    struct gw_unixsock_file file; /* of a unix socket's path, as it was bound */
    bool loopback;  /* reachable from this machine only (unix sockets too) */
};

/* One that was passed and that no word wants. */
struct gw_listen_unwanted {
    char *name, *address; /* owned; name: of LISTEN_FDNAMES, NULL: none */
};

/* Says whether word can be understood; -EINVAL with what is wrong and the forms there are. */
int gw_listen_check(const char *word, struct gw_err *err);

/* Opens one socket per word ("localhost" may give two: each of its addresses), appending to *io_sockets.
 * A stale unix socket file is replaced when nobody answers on it: call it with the lock held.
 * -EADDRINUSE and the like with the address in err. Nothing is appended on failure. */
int gw_listen_open(const char *word, struct gw_listen_socket **io_sockets, size_t *io_count, struct gw_err *err);

/* The sockets passed by LISTEN_FDS when LISTEN_PID is ours; removes the variables. Each word of the command line
 * gets the one that is bound to its address; without words all are taken. What nobody wants is closed, and
 * *ret_unwanted says which, for a service manager to forget and a person to hear: the caller's, with all in it. Appends. */
int gw_listen_passed(const char *const *words, size_t word_count, struct gw_listen_socket **io_sockets,
                     size_t *io_count, struct gw_listen_unwanted **ret_unwanted, size_t *ret_unwanted_count, struct gw_err *err);

/* Takes over a listening socket that a predecessor has handed to us; file is that of its path, NULL or not known: the
 * one that is there now. -EPROTO when it is not bound to address. */
int gw_listen_adopt(int fd, const char *word, const char *address, bool inherited, const struct gw_unixsock_file *file,
                    struct gw_listen_socket **io_sockets, size_t *io_count, struct gw_err *err);

/* From now on nobody new gets to a socket of our own (of a unix socket the path goes), and who is connecting just now still does: the listener's last
 * connections can be accepted, and then it can be closed without a reset for anyone. A socket that was passed to us is
 * left as it is. False when there is nothing to wait for. */
bool gw_listen_last_call(const struct gw_listen_socket *socket);

/* Whether s is a unix socket that its path does not lead to: nobody can connect to it any more. */
bool gw_listen_lost(const struct gw_listen_socket *s);

/* Binds its path anew; from then on it is our own. *ret_old_fd, the one that was lost, is the caller's. */
int gw_listen_bind_anew(struct gw_listen_socket *s, int *ret_old_fd, struct gw_err *err);

/* Closes all (inherited ones too when all is true) and removes the paths of unix sockets that we bound,
 * where they still lead to them.
 * Keeps what stays; returns how many are left. */
size_t gw_listen_close(struct gw_listen_socket *sockets, size_t count, bool all);
