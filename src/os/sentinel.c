#include "os/sentinel.h"

#include "base/err.h"
#include "base/json.h"
#include "base/str.h"
#include "os/statedir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SENTINEL_BYTES = 1 << 20 };
static const char name[] = "restart-sentinel.json";

static void set_text(json_t *o, const char *key, const char *text)
{
    if (text != NULL && *text != '\0')
        gw_json_set(o, key, gw_json_string(text));
}

int gw_sentinel_write(int dir_fd, const struct gw_sentinel *s, struct gw_err *err)
{
    json_t *o = json_object(), *payload = json_object(), *stats = json_object();
    gw_json_set(payload, "kind", json_string(s->kind));
    gw_json_set(payload, "status", json_string(s->status));
    gw_json_set(payload, "ts_ms", json_integer(s->ts_ms));
    set_text(payload, "message", s->message);
    if (s->continuation != NULL)
        gw_json_set(payload, "continuation", json_incref(s->continuation));
    set_text(stats, "mode", s->mode);
    set_text(stats, "before", s->before);
    set_text(stats, "after", s->after);
    set_text(stats, "reason", s->reason);
    if (s->duration_ms >= 0)
        gw_json_set(stats, "duration_ms", json_integer(s->duration_ms));
    gw_json_set(payload, "stats", stats);
    gw_json_set(o, "version", json_integer(1));
    gw_json_set(o, "payload", payload);
    char *text = gw_json_text(o);
    json_decref(o);
    int rc = gw_file_write(dir_fd, name, text, strlen(text), 0600, false, err);
    free(text);
    return rc;
}

/* A text field that fits; absent is fine unless it is required. */
static bool take(const json_t *o, const char *key, char *to, size_t size, bool required)
{
    const json_t *v = json_object_get(o, key);
    to[0] = '\0';
    if (v == NULL)
        return !required;
    if (!json_is_string(v) || json_string_length(v) >= size)
        return false;
    memcpy(to, json_string_value(v), json_string_length(v) + 1);
    return true;
}

static bool one_of(const char *word, const char *const *words)
{
    for (; *words != NULL; words++)
        if (strcmp(word, *words) == 0)
            return true;
    return false;
}

/* Returns NULL or the name of the field that is not understood. */
static const char *understand(const json_t *o, struct gw_sentinel *s)
{
    static const char *const kinds[] = {"update", "restart", NULL}, *const statuses[] = {"pending", "ok", "error", NULL};
    const json_t *payload = json_object_get(o, "payload"), *stats = json_object_get(payload, "stats");
    const json_t *ts = json_object_get(payload, "ts_ms"), *message = json_object_get(payload, "message");
    const json_t *duration = json_object_get(stats, "duration_ms");
    if (json_integer_value(json_object_get(o, "version")) != 1)
        return "version";
    if (!take(payload, "kind", s->kind, sizeof s->kind, true) || !one_of(s->kind, kinds))
        return "kind";
    if (!take(payload, "status", s->status, sizeof s->status, true) || !one_of(s->status, statuses))
        return "status";
    if (!json_is_integer(ts))
        return "ts_ms";
    if (message != NULL && !json_is_string(message))
        return "message";
    if (!json_is_object(stats) || !take(stats, "mode", s->mode, sizeof s->mode, true))
        return "stats.mode";
    if (!take(stats, "before", s->before, sizeof s->before, true))
        return "stats.before";
    if (!take(stats, "after", s->after, sizeof s->after, false))
        return "stats.after";
    if (!take(stats, "reason", s->reason, sizeof s->reason, false))
        return "stats.reason";
    s->ts_ms = json_integer_value(ts);
    s->duration_ms = json_is_integer(duration) ? json_integer_value(duration) : -1;
    s->message = gw_strdup(json_string_value(message));
    s->continuation = json_incref(json_object_get(payload, "continuation"));
    return NULL;
}

/* Its code where it is the system that cannot read it now. */
static int unreadable(int code)
{
    return gw_err_passes(code) ? code : -EINVAL;
}

int gw_sentinel_read(int dir_fd, struct gw_sentinel *ret, struct gw_err *err)
{
    struct stat st;
    int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT ? gw_err_set(err, -ENOENT, "there is no %s", name)
                               : gw_err_set(err, unreadable(-errno), "cannot open %s: %s", name, gw_strerror(errno));
    bool plain = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= SENTINEL_BYTES;
    char *text = gw_calloc(SENTINEL_BYTES + 1, 1);
    size_t n = 0;
    ssize_t got = 1;
    for (; plain && n < SENTINEL_BYTES && (got = read(fd, text + n, SENTINEL_BYTES - n)) > 0;)
        n += (size_t)got;
    int code = got < 0 ? -errno : 0;
    (void)close(fd);
    json_t *o = NULL;
    struct gw_sentinel s = {.duration_ms = -1};
    struct gw_err why = {0};
    int rc = 0;
    if (!plain)
        rc = gw_err_set(err, -EINVAL, "%s is not a plain file of at most %d bytes", name, SENTINEL_BYTES);
    else if (code < 0)
        rc = gw_err_set(err, unreadable(code), "cannot read %s: %s", name, gw_strerror(code));
    else if (gw_json_parse(text, n, &o, &why) < 0)
        rc = gw_err_set(err, -EINVAL, "%s is no JSON: %s", name, why.text);
    const char *field = rc == 0 ? understand(o, &s) : NULL;
    if (field != NULL)
        rc = gw_err_set(err, -EINVAL, "%s: the field '%s' is not understood", name, field);
    json_decref(o);
    free(text);
    if (rc == 0)
        *ret = s;
    else
        gw_sentinel_fini(&s);
    return rc;
}

void gw_sentinel_remove(int dir_fd)
{
    (void)unlinkat(dir_fd, name, 0);
}

void gw_sentinel_fini(struct gw_sentinel *s)
{
    free(s->message);
    json_decref(s->continuation);
    s->message = NULL;
    s->continuation = NULL;
}
