/* unixsock.h - unix sockets, and the names on disk that lead to them.
 *
 * A socket lives as long as its descriptor, its name only as long as nobody removes it or puts another there. What
 * was bound is known by its file's device and inode: a name is removed only where it still leads to that. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct gw_err;

struct gw_unixsock_file {
    dev_t dev;
    ino_t ino; /* 0: not known, or there is none */
};

/* A listening socket at path, which must be free; denied comes to the umask. A path that is too long for an address is reached
 * through a descriptor of its folder. CLOEXEC and non-blocking. Returns the descriptor or a negative errno. */
int gw_unixsock_bind(const char *path, mode_t denied, int backlog, struct gw_unixsock_file *ret_file, struct gw_err *err);

/* The socket file that is at path now; ino 0: there is none. */
struct gw_unixsock_file gw_unixsock_look(const char *path);

/* Whether path leads to that file; never when it is not known. */
bool gw_unixsock_leads_to(const char *path, const struct gw_unixsock_file *file);

/* Removes path if it does. */
void gw_unixsock_remove(const char *path, const struct gw_unixsock_file *file);
