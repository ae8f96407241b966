/* statedir.h - the folder that one host owns: 0700, ours, and files in it written whole. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct gw_err;

/* The folder to use: given, else $GWHOST_STATE_DIR, $STATE_DIRECTORY (its first part),
 * $XDG_STATE_HOME/gwhost, ~/.local/state/gwhost. Absolute; caller frees. -ENOENT when none of them is set. */
int gw_statedir_choose(const char *given, char **ret_path, struct gw_err *err);

/* Makes path (and what is missing above it) as 0700 and opens it. An existing one must be a folder of ours
 * (or root's when we are root) that nobody else may enter or write; group and other bits are refused, not
 * changed. *ret_fd is the caller's. */
int gw_statedir_open(const char *path, int *ret_fd, struct gw_err *err);

/* Reads STATE/token, or makes it with 32 random bytes in hex, 0600. With a path, reads that file instead.
 * *ret_token is the caller's, without white space around it. */
int gw_token_load(int dir_fd, const char *dir, const char *path, char **ret_token, struct gw_err *err);

/* Writes data to name below dir_fd: a new file, mode, rename over; durable: it also survives a power cut, for which the
 * disk is waited for. Returns 0 or a negative errno. */
int gw_file_write(int dir_fd, const char *name, const void *data, size_t n, unsigned mode, bool durable,
                  struct gw_err *err);

/* Reads all of path, a regular file of at most max bytes; *ret_data has a NUL behind it, caller frees. */
int gw_file_read(const char *path, size_t max, char **ret_data, size_t *ret_n, struct gw_err *err);

/* path made absolute against the working directory, without resolving links; caller frees. */
char *gw_path_absolute(const char *path);
/* What execvp(3) would run for a name without a slash, as an absolute path with its links; the caller's, or NULL. */
char *gw_path_find(const char *name);
