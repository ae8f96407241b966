#include "script/sources.h"

#include "base/err.h"
#include "base/sha.h"
#include "base/str.h"
#include "script/door.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 4 << 20, MISSING_MAX = 64 };

struct source {
    char *chunk; /* owned: "@PATH", so that compiling takes no memory of ours */
    char *text;  /* owned */
    size_t len;
};

struct gw_sources {
    unsigned refs;
    bool frozen;
    struct source *files; /* owned */
    size_t count;
    char *missing[MISSING_MAX]; /* owned */
    bool absent[MISSING_MAX];   /* of these: there was no such file, which counts as read */
    size_t missing_count;
    int trouble; /* 0, or why the last file was not read that may well be there */
    void (*enter)(void), (*leave)(void);
};

struct gw_sources *gw_sources_new(void)
{
    struct gw_sources *s = gw_calloc(1, sizeof *s);
    s->refs = 1;
    return s;
}

struct gw_sources *gw_sources_ref(struct gw_sources *s)
{
    s->refs++;
    return s;
}

struct gw_sources *gw_sources_unref(struct gw_sources *s)
{
    if (s == NULL || --s->refs > 0)
        return NULL;
    for (size_t i = 0; i < s->count; i++) {
        free(s->files[i].chunk);
        free(s->files[i].text);
    }
    free(s->files);
    for (size_t i = 0; i < s->missing_count; i++)
        free(s->missing[i]);
    free(s);
    return NULL;
}

void gw_sources_freeze(struct gw_sources *s)
{
    s->frozen = true;
}

void gw_sources_guard(struct gw_sources *s, void (*enter)(void), void (*leave)(void))
{
    s->enter = enter;
    s->leave = leave;
}

// ---- reading ----

static const struct source *find(const struct gw_sources *s, const char *path)
{
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->files[i].chunk + 1, path) == 0)
            return &s->files[i];
    return NULL;
}

/* The whole file behind fd into b. */
static int slurp(int fd, const char *path, struct gw_buf *b, struct gw_err *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return gw_err_set(err, -errno, "%s: %s", path, gw_strerror(-errno));
    if (!S_ISREG(st.st_mode))
        return gw_err_set(err, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL, "%s: not a regular file", path);
    gw_buf_reserve(b, st.st_size < FILE_BYTES_MAX ? (size_t)st.st_size + 1 : FILE_BYTES_MAX);
    for (;;) {
        gw_buf_reserve(b, 4096);
        ssize_t n = read(fd, b->data + b->len, b->cap - b->len - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return gw_err_set(err, -errno, "%s: %s", path, gw_strerror(-errno));
        if (n == 0)
            return 0;
        b->len += (size_t)n;
        b->data[b->len] = '\0';
        if (b->len > FILE_BYTES_MAX)
            return gw_err_set(err, -EFBIG, "%s: larger than %d MiB", path, FILE_BYTES_MAX >> 20);
    }
}

static size_t find_missing(const struct gw_sources *s, const char *path)
{
    size_t i = 0;
    while (i < s->missing_count && strcmp(s->missing[i], path) != 0)
        i++;
    return i;
}

static void add_missing(struct gw_sources *s, const char *path, bool absent)
{
    size_t i = find_missing(s, path);
    if (i < MISSING_MAX)
        s->absent[i] = absent;
    if (i == s->missing_count && i < MISSING_MAX)
        s->missing[s->missing_count++] = gw_strdup(path);
}

static int add_from_disk(struct gw_sources *s, const char *path, struct gw_err *err)
{
    // O_NONBLOCK: a FIFO must not hold the loop.
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return gw_err_set(err, -errno, "%s: %s", path, gw_strerror(-errno));
    struct gw_buf b = {0};
    int rc = slurp(fd, path, &b, err);
    (void)close(fd);
    if (rc < 0) {
        gw_buf_fini(&b);
        return rc;
    }
    s->files = gw_realloc(s->files, (s->count + 1) * sizeof *s->files);
    s->files[s->count++] = (struct source){.chunk = gw_asprintf("@%s", path), .text = b.data, .len = b.len};
    return 0;
}

static int get(struct gw_sources *s, const char *path, const struct source **ret, struct gw_err *err)
{
    const struct source *f = find(s, path);
    if (f == NULL) {
        if (s->frozen)
            return gw_err_set(err, -ENOENT, "%s: not among the files that were read when this was loaded",
                              path);
        size_t i = find_missing(s, path);
        if (i < s->missing_count && s->absent[i])
            return gw_err_set(err, -ENOENT, "%s: %s", path, gw_strerror(-ENOENT));
        if (s->enter != NULL)
            s->enter();
        int rc = add_from_disk(s, path, err);
        bool absent = rc == -ENOENT || rc == -ENOTDIR; // how a module is looked for
        if (rc < 0)
            add_missing(s, path, absent);
        if (s->leave != NULL)
            s->leave();
        if (rc < 0 && !absent)
            s->trouble = rc;
        if (rc < 0)
            return rc;
        f = find(s, path);
    }
    *ret = f;
    return 0;
}

int gw_sources_read(struct gw_sources *s, const char *path, const char **ret_text, size_t *ret_len,
                    struct gw_err *err)
{
    const struct source *f;
    int rc = get(s, path, &f, err);
    if (rc < 0)
        return rc;
    *ret_text = f->text;
    *ret_len = f->len;
    return 0;
}

int gw_sources_judge(const struct gw_sources *s, int code, struct gw_err *err)
{
    if (code >= 0 || s->trouble == 0)
        return code;
    if (err != NULL)
        err->code = s->trouble;
    return s->trouble;
}

void gw_sources_sha256(const struct gw_sources *s, char ret_hex[65])
{
    if (s->count == 1) {
        gw_sha256_hex(s->files[0].text, s->files[0].len, ret_hex);
        return;
    }
    struct gw_buf all = {0};
    for (size_t i = 0; i < s->count; i++) {
        const char *slash = strrchr(s->files[i].chunk, '/');
        const char *name = slash != NULL ? slash + 1 : s->files[i].chunk + 1;
        gw_buf_add(&all, name, strlen(name) + 1);
        gw_buf_addf(&all, "%zu", s->files[i].len);
        gw_buf_add(&all, "", 1);
        gw_buf_add(&all, s->files[i].text, s->files[i].len);
    }
    gw_sha256_hex(all.data != NULL ? all.data : "", all.len, ret_hex);
    gw_buf_fini(&all);
}

size_t gw_sources_count(const struct gw_sources *s)
{
    return s->count;
}

const char *gw_sources_path(const struct gw_sources *s, size_t i)
{
    gw_assert(i < s->count);
    return s->files[i].chunk + 1;
}

size_t gw_sources_missing_count(const struct gw_sources *s)
{
    return s->missing_count;
}

const char *gw_sources_missing(const struct gw_sources *s, size_t i)
{
    gw_assert(i < s->missing_count);
    return s->missing[i];
}

// ---- to another process ----

void gw_sources_pack(const struct gw_sources *s, struct gw_buf *out)
{
    for (size_t i = 0; i < s->count; i++) {
        uint32_t lens[2] = {(uint32_t)strlen(gw_sources_path(s, i)), (uint32_t)s->files[i].len};
        gw_buf_add(out, (const char *)lens, sizeof lens); // for this machine only
        gw_buf_add(out, gw_sources_path(s, i), lens[0]);
        gw_buf_add(out, s->files[i].text, lens[1]);
    }
}

struct gw_sources *gw_sources_unpack(const char *data, size_t n)
{
    struct gw_sources *s = gw_sources_new();
    uint32_t lens[2];
    while (n > 0) {
        if (n >= sizeof lens)
            memcpy(lens, data, sizeof lens);
        if (n < sizeof lens || lens[1] > FILE_BYTES_MAX || n - sizeof lens < (size_t)lens[0] + lens[1])
            return gw_sources_unref(s);
        data += sizeof lens;
        struct source f = {.chunk = gw_asprintf("@%.*s", (int)lens[0], data),
                           .text = gw_memdup0(data + lens[0], lens[1]),
                           .len = lens[1]};
        s->files = gw_realloc(s->files, (s->count + 1) * sizeof *s->files);
        s->files[s->count++] = f;
        data += (size_t)lens[0] + lens[1];
        n -= sizeof lens + lens[0] + lens[1];
    }
    return s;
}

// ---- compiling ----

/* What is left out at the beginning, as luaL_loadfilex() does: a byte order mark, and a first line for the shell, but not
 * its end, so that lines keep their numbers. */
static size_t lead(const struct source *f)
{
    size_t n = gw_utf8_mark(f->text, f->len);
    if (n < f->len && f->text[n] == '#')
        while (n < f->len && f->text[n] != '\n')
            n++;
    return n;
}

/* A syntax error as "PATH:LINE: message": Lua shortens long names, so its own is cut off. */
static int syntax_error(lua_State *L, const char *path, struct gw_err *err)
{
    char text[sizeof err->text];
    gw_lua_describe(L, -1, text, sizeof text);
    const char *at = strstr(text, ":");
    while (at != NULL && !(isdigit((unsigned char)at[1]) && at[1 + strspn(at + 1, "0123456789")] == ':'))
        at = strstr(at + 1, ":");
    lua_pop(L, 1);
    return gw_err_set(err, -EINVAL, "%s%s%s", path, at != NULL ? "" : ": ", at != NULL ? at : text);
}

int gw_sources_compile(struct gw_sources *s, lua_State *L, const char *path, struct gw_err *err)
{
    const struct source *f;
    int rc = get(s, path, &f, err);
    if (rc < 0)
        return rc;
    if (!lua_checkstack(L, 2))
        return gw_err_set(err, -ENOMEM, "%s: out of memory", path);
    size_t skip = lead(f);
    if (skip < f->len && f->text[skip] == LUA_SIGNATURE[0])
        return gw_err_set(err, -EINVAL, "%s:1: not Lua text", path);
    switch (luaL_loadbufferx(L, f->text + skip, f->len - skip, f->chunk, "t")) {
    case LUA_OK:
        return 0;
    case LUA_ERRMEM:
        lua_pop(L, 1);
        return gw_err_set(err, -ENOMEM, "%s: out of memory while compiling", path);
    default:
        return syntax_error(L, path, err);
    }
}

// ---- require ----

enum { UP_SOURCES = 1, UP_DIRS, UP_ENV, UP_OWN, UP_GIVEN };

/* Letters, digits, '_', '-', and single dots between them. */
static bool name_is_fine(const char *name)
{
    char before = '.';
    for (const char *c = name; *c != '\0'; before = *c++)
        if (!(isalnum((unsigned char)*c) || *c == '_' || *c == '-' || (*c == '.' && before != '.')))
            return false;
    return before != '.';
}

/* Compiles NAME from the folder of entry, leaving the function on the stack. Returns 0, -ENOENT with the
 * files tried appended to the string at tried_idx, or another negative errno. */
static int compile_from(struct gw_sources *s, lua_State *L, const char *entry, const char *name,
                        int tried_idx, struct gw_err *err)
{
    const char *dir = entry, *equals = strchr(entry, '=');
    if (equals != NULL) {
        if (strncmp(name, entry, (size_t)(equals - entry)) != 0)
            return -ENOENT;
        dir = equals + 1;
    }
    const char *file = luaL_gsub(L, name, ".", "/");
    static const char *const tails[] = {".lua", "/init.lua"};
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
        const char *path = lua_pushfstring(L, "%s/%s%s", dir, file, tails[i]);
        int rc = gw_sources_compile(s, L, path, err);
        if (rc == 0) {
            lua_replace(L, -3); // over the name
            lua_pop(L, 1);
            return 0;
        }
        if (rc != -ENOENT && rc != -ENOTDIR)
            return rc;
        lua_pushvalue(L, tried_idx);
        lua_insert(L, -2);
        lua_pushfstring(L, "%s%s", lua_tostring(L, -2)[0] != '\0' ? ", " : "", lua_tostring(L, -1));
        lua_remove(L, -2);
        lua_concat(L, 2);
        lua_replace(L, tried_idx);
    }
    lua_pop(L, 1);
    return -ENOENT;
}

static int require(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    lua_settop(L, 1);
    for (int up = UP_OWN; up <= UP_GIVEN; up++) {
        if (!lua_istable(L, lua_upvalueindex(up)))
            continue;
        lua_pushvalue(L, 1);
        lua_rawget(L, lua_upvalueindex(up));
        if (lua_islightuserdata(L, -1))
            return luaL_error(L, "module '%s' requires itself, or failed before", name);
        if (!lua_isnil(L, -1))
            return 1;
        lua_pop(L, 1);
    }
    if (strlen(name) != lua_rawlen(L, 1) || !name_is_fine(name))
        return luaL_error(L, "'%s' is not a module name", name);
    struct gw_sources *s = lua_touserdata(L, lua_upvalueindex(UP_SOURCES));
    struct gw_err err;
    lua_pushliteral(L, "");
    int rc = -ENOENT;
    for (lua_Integer i = 1; rc == -ENOENT; i++) {
        if (lua_rawgeti(L, lua_upvalueindex(UP_DIRS), i) != LUA_TSTRING)
            return luaL_error(L, "module '%s' not found (tried %s)%s", name,
                              *lua_tostring(L, 2) != '\0' ? lua_tostring(L, 2) : "nothing",
                              s->frozen ? "; what is required must be required while loading" : "");
        rc = compile_from(s, L, lua_tostring(L, -1), name, 2, &err);
        if (rc < 0)
            lua_settop(L, 2);
    }
    if (rc < 0) {
        lua_pushstring(L, err.text); // it begins with its own position
        return lua_error(L);
    }
    if (lua_istable(L, lua_upvalueindex(UP_ENV))) {
        lua_pushvalue(L, lua_upvalueindex(UP_ENV));
        lua_setupvalue(L, -2, 1);
    }
    // The mark stays when the chunk fails: the snapshot would give the same text again.
    lua_pushvalue(L, 1);
    lua_pushlightuserdata(L, s);
    lua_rawset(L, lua_upvalueindex(UP_OWN));
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_pushboolean(L, 1);
    }
    lua_pushvalue(L, 1);
    lua_pushvalue(L, -2);
    lua_rawset(L, lua_upvalueindex(UP_OWN));
    return 1;
}

void gw_sources_push_require(struct gw_sources *s, lua_State *L, const char *const *dirs, size_t dir_count,
                             int env_idx, int loaded_idx)
{
    env_idx = env_idx != 0 ? lua_absindex(L, env_idx) : 0;
    loaded_idx = loaded_idx != 0 ? lua_absindex(L, loaded_idx) : 0;
    lua_pushlightuserdata(L, s);
    lua_createtable(L, (int)dir_count, 0);
    for (size_t i = 0; i < dir_count; i++) {
        lua_pushstring(L, dirs[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    if (env_idx != 0)
        lua_pushvalue(L, env_idx);
    else
        lua_pushnil(L);
    lua_newtable(L);
    if (loaded_idx != 0)
        lua_pushvalue(L, loaded_idx);
    else
        lua_pushnil(L);
    lua_pushcclosure(L, require, 5);
}
