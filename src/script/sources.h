/* sources.h - the Lua files of one generation, read once and kept.
 *
 * So that going back to the last good generation needs no file to be what it was, and so that `require`
 * inside a state never sees half of an edit. Counted references: states and the host share one snapshot. */
#pragma once

#include <stddef.h>

typedef struct lua_State lua_State;
struct gw_err;
struct gw_sources;

/* An empty snapshot; holds one reference. A reader looks in the snapshot first; what it lacks is read from
 * disk and added, unless it is frozen. That a file was not there is read and kept as well. */
struct gw_sources *gw_sources_new(void);
struct gw_sources *gw_sources_ref(struct gw_sources *s);
/* NULL is fine; always NULL. */
struct gw_sources *gw_sources_unref(struct gw_sources *s);
void gw_sources_freeze(struct gw_sources *s);

/* The text of path (absolute), at most 4 MiB, a regular file. Valid as long as the snapshot.
 * Returns 0 or a negative errno with the path in err. */
int gw_sources_read(struct gw_sources *s, const char *path, const char **ret_text, size_t *ret_len,
                    struct gw_err *err);

/* The code of a failure to load: an error that went through Lua is but words, so where a file could not be read it is
 * the code of that. */
int gw_sources_judge(const struct gw_sources *s, int code, struct gw_err *err);

/* Calls enter and leave (both, or neither: NULL) around reading a file from disk: for a state that may be
 * left by a jump, which must not happen with a descriptor open or libc's locks held. */
void gw_sources_guard(struct gw_sources *s, void (*enter)(void), void (*leave)(void));

/* Hex SHA-256 over base name and text of all files, in the order in which they were read; of the text alone
 * when there is just one. */
void gw_sources_sha256(const struct gw_sources *s, char ret_hex[65]);
size_t gw_sources_count(const struct gw_sources *s);
/* The path of the i-th file that was read, from 0. */
const char *gw_sources_path(const struct gw_sources *s, size_t i);

/* How many files were looked for, from disk, and were not there, and the i-th of them; of more than 64 the first ones. */
size_t gw_sources_missing_count(const struct gw_sources *s);
const char *gw_sources_missing(const struct gw_sources *s, size_t i);

/* All of s as bytes, for another process, and back: NULL when they are damaged. */
struct gw_buf;
void gw_sources_pack(const struct gw_sources *s, struct gw_buf *out);
struct gw_sources *gw_sources_unpack(const char *data, size_t n);

/* Compiles path from s (text chunks only, chunk name "@PATH"; a byte order mark and a first line that begins with '#'
 * are passed over, as lua does) and leaves the function on the stack.
 * Returns 0 or a negative errno; a syntax error gives "FILE:LINE: message". Raises nothing. */
int gw_sources_compile(struct gw_sources *s, lua_State *L, const char *path, struct gw_err *err);

/* Pushes a `require` function that finds a module NAME as DIR/NAME.lua or DIR/NAME/init.lua (dots become
 * slashes; names with other characters than letters, digits, '_', '-' and single '.' are refused) in the
 * given folders, in order, through s; loads it in the environment at env_idx (0: the globals) and keeps its
 * result in a table of its own. An entry that begins with "PREFIX=" serves only modules whose name begins
 * with PREFIX (dots included), with the whole name below the folder. loaded_idx (0: none) is a table of
 * modules that are there already. The error of a module that is not found names the files tried; one that
 * failed is not tried again. Borrows s for the life of the state; copies dirs. May raise for want of Lua
 * memory. */
void gw_sources_push_require(struct gw_sources *s, lua_State *L, const char *const *dirs, size_t dir_count,
                             int env_idx, int loaded_idx);
