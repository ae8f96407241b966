#include "os/intent.h"

#include "base/err.h"
#include "base/json.h"
#include "base/sha.h"
#include "base/str.h"
#include "base/time.h"
#include "os/statedir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME "restart-intent.json"

/* Why it is refused: the rule by its name, and words. */
struct refusal {
    const char *rule;
    struct gw_err *err;
};

static int refuse(struct refusal *no, const char *rule, const char *words)
{
    no->rule = rule;
    return gw_err_set(no->err, -EPERM, "the restart intent is refused (%s): %s", rule, words);
}

static int check_type(const struct stat *st, struct refusal *no)
{
    if (S_ISLNK(st->st_mode))
        return refuse(no, "link", "it is a symbolic link");
    if (!S_ISREG(st->st_mode))
        return refuse(no, "type", "it is not a regular file");
    return 0;
}

static int check_file(const struct stat *st, struct refusal *no)
{
    int rc = check_type(st, no);
    if (rc < 0)
        return rc;
    if (st->st_nlink != 1)
        return refuse(no, "links", "it has another name, a hard link");
    if (st->st_uid != geteuid() && st->st_uid != 0)
        return refuse(no, "owner", "it belongs to another user");
    if ((st->st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return refuse(no, "mode", "group or others may write to it");
    if (st->st_size > GW_INTENT_BYTES)
        return refuse(no, "size", "it is larger than 1024 bytes");
    return 0;
}

/* One byte more than allowed, so that a file that has grown since is noticed. */
static int read_all(int fd, char text[GW_INTENT_BYTES + 1], size_t *ret_n, struct refusal *no)
{
    size_t n = 0;
    while (n <= GW_INTENT_BYTES) {
        ssize_t r = read(fd, text + n, GW_INTENT_BYTES + 1 - n);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return refuse(no, "open", gw_strerror(errno));
        if (r == 0)
            break;
        n += (size_t)r;
    }
    if (n > GW_INTENT_BYTES)
        return refuse(no, "size", "it is larger than 1024 bytes");
    *ret_n = n;
    return 0;
}

static int check_keys(json_t *o, struct refusal *no)
{
    static const char *const known[] = {"kind", "pid", "created_at_ms", "reason", "force", "wait_ms"};
    const char *key;
    json_t *value;
    json_object_foreach(o, key, value) {
        size_t i = 0, n = sizeof known / sizeof *known;
        while (i < n && strcmp(known[i], key) != 0)
            i++;
        // What we do not know may have been meant to spare work: better no restart than another one.
        if (i == n)
            return refuse(no, "unknown", "it has a key that is not known");
    }
    return 0;
}

static int check_object(json_t *o, pid_t pid, int64_t now_ms, struct gw_intent *ret, struct refusal *no)
{
    if (!json_is_object(o))
        return refuse(no, "object", "it is not a JSON object");
    int rc = check_keys(o, no);
    if (rc < 0)
        return rc;
    const char *kind = json_string_value(json_object_get(o, "kind"));
    if (kind == NULL || strcmp(kind, "gateway-restart") != 0)
        return refuse(no, "kind", "its kind is not gateway-restart");
    json_t *v = json_object_get(o, "pid");
    if (!json_is_integer(v) || json_integer_value(v) != pid)
        return refuse(no, "pid", "it is for another process");
    v = json_object_get(o, "created_at_ms");
    int64_t created = json_integer_value(v);
    if (!json_is_integer(v) || created > now_ms || created < now_ms - GW_INTENT_AGE_MS)
        return refuse(no, "age", "it was not written within the last 60 seconds");
    struct gw_intent intent = {.pid = pid, .created_at_ms = created, .wait_ms = -1};
    if ((v = json_object_get(o, "reason")) != NULL && !json_is_string(v))
        return refuse(no, "reason", "its reason is not a string");
    if (v != NULL)
        (void)snprintf(intent.reason, sizeof intent.reason, "%s", json_string_value(v));
    if ((v = json_object_get(o, "force")) != NULL && !json_is_boolean(v))
        return refuse(no, "force", "force is neither true nor false");
    intent.force = json_is_true(v);
    if ((v = json_object_get(o, "wait_ms")) != NULL) {
        char words[100];
        (void)snprintf(words, sizeof words, "wait_ms " GW_MS_WORDS, 0);
        if (!gw_json_ms(v, 0, &intent.wait_ms))
            return refuse(no, "wait_ms", words);
    }
    *ret = intent;
    return 0;
}

static int check_text(const char *text, size_t n, pid_t pid, int64_t now_ms, struct gw_intent *ret,
                      struct refusal *no)
{
    json_error_t je;
    // No JSON_ALLOW_NUL: the reason is read as a C string.
    size_t mark = gw_utf8_mark(text, n);
    json_t *o = json_loadb(text + mark, n - mark, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &je);
    if (o == NULL)
        return json_error_code(&je) == json_error_duplicate_key ? refuse(no, "duplicate", "a key comes twice")
                                                                : refuse(no, "json", je.text);
    int rc = check_object(o, pid, now_ms, ret, no);
    json_decref(o);
    return rc;
}

static int check_renamed(int dir_fd, const char *name, pid_t pid, int64_t now_ms, struct gw_intent *ret,
                         struct refusal *no)
{
    struct stat st;
    char text[GW_INTENT_BYTES + 1];
    size_t n = 0;
    // Looked at first, because opening some things (a device) is doing something to them.
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return refuse(no, "open", gw_strerror(errno));
    int rc = check_type(&st, no);
    if (rc < 0)
        return rc;
    int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return refuse(no, "open", gw_strerror(errno));
    // Checked on what is open: that cannot be exchanged any more.
    rc = fstat(fd, &st) < 0 ? refuse(no, "open", gw_strerror(errno)) : check_file(&st, no);
    if (rc == 0)
        rc = read_all(fd, text, &n, no);
    (void)close(fd);
    return rc < 0 ? rc : check_text(text, n, pid, now_ms, ret, no);
}

int gw_intent_take(int dir_fd, pid_t pid, int64_t now_ms, struct gw_intent *ret, char ret_rule[32],
                   struct gw_err *err)
{
    char own[64], tag[17];
    struct refusal no = {.rule = "", .err = err};
    gw_random_hex(8, tag);
    (void)snprintf(own, sizeof own, ".restart-intent.%s", tag);
    int rc = 0;
    // Under a name of our own nobody else takes it too, and none that comes later is removed with it.
    if (renameat(dir_fd, NAME, dir_fd, own) < 0) {
        if (errno == ENOENT)
            return gw_err_set(err, -ENOENT, "there is no restart intent");
        rc = refuse(&no, "rename", gw_strerror(errno));
    } else {
        rc = check_renamed(dir_fd, own, pid, now_ms, ret, &no);
        if (unlinkat(dir_fd, own, 0) < 0 && errno == EISDIR)
            (void)unlinkat(dir_fd, own, AT_REMOVEDIR);
    }
    if (rc < 0)
        (void)snprintf(ret_rule, 32, "%s", no.rule);
    return rc;
}

int gw_intent_write(int dir_fd, const struct gw_intent *intent, struct gw_err *err)
{
    json_t *o = json_object();
    gw_json_set(o, "kind", json_string("gateway-restart"));
    gw_json_set(o, "pid", json_integer(intent->pid));
    gw_json_set(o, "created_at_ms", json_integer(intent->created_at_ms));
    if (intent->reason[0] != '\0')
        gw_json_set(o, "reason", gw_json_string(intent->reason));
    if (intent->force)
        gw_json_set(o, "force", json_true());
    if (intent->wait_ms >= 0)
        gw_json_set(o, "wait_ms", json_integer(intent->wait_ms));
    char *text = gw_json_text(o);
    size_t n = strlen(text);
    json_decref(o);
    // Readable, because root may write it for a host that runs as another user; the folder is private anyway.
    int rc = n > GW_INTENT_BYTES ? gw_err_set(err, -EINVAL, "the reason is too long: an intent has at most 1024 bytes")
                                 : gw_file_write(dir_fd, NAME, text, n, 0644, false, err);
    free(text);
    return rc;
}

int gw_intent_clear(int dir_fd, struct gw_err *err)
{
    if (unlinkat(dir_fd, NAME, 0) < 0 && errno != ENOENT)
        return gw_err_set(err, -errno, "cannot remove '%s': %s", NAME, gw_strerror(errno));
    return 0;
}

int gw_intent_clear_before(int dir_fd, int64_t ms, struct gw_err *err)
{
    struct stat st;
    if (fstatat(dir_fd, NAME, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
        (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000 >= ms)
        return 0;
    int rc = gw_intent_clear(dir_fd, err);
    return rc < 0 ? rc : 1;
}
