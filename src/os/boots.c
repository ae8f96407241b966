#include "os/boots.h"

#include "base/err.h"
#include "base/json.h"
#include "os/statedir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BOOTS_KEPT = 16, BOOTS_BYTES = 65536 };
static const char name[] = "boots.json";

/* *ret_boots is the caller's, also on failure: empty then. */
static int load(int dir_fd, json_t **ret_boots, struct gw_err *err)
{
    static const char bad[] = "boots.json is damaged; it is begun anew";
    char text[BOOTS_BYTES];
    int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    *ret_boots = json_array();
    if (fd < 0)
        return errno == ENOENT ? 0 : gw_err_set(err, -EINVAL, "%s", bad);
    ssize_t n = read(fd, text, sizeof text);
    (void)close(fd);
    json_t *o = NULL;
    if (n < 0 || gw_json_parse(text, (size_t)n, &o, NULL) < 0)
        return gw_err_set(err, -EINVAL, "%s", bad);
    const json_t *boots = json_object_get(o, "boots");
    int rc = json_is_array(boots) ? 0 : gw_err_set(err, -EINVAL, "%s", bad);
    for (size_t i = 0; i < json_array_size(boots); i++) {
        json_t *b = json_array_get(boots, i);
        if (json_is_string(json_object_get(b, "boot_id")))
            (void)json_array_append(*ret_boots, b);
    }
    json_decref(o);
    return rc;
}

static int save(int dir_fd, json_t *boots, struct gw_err *err)
{
    while (json_array_size(boots) > BOOTS_KEPT)
        (void)json_array_remove(boots, 0);
    json_t *o = json_object();
    gw_json_set(o, "version", json_integer(1));
    gw_json_set(o, "boots", json_incref(boots));
    char *text = gw_json_text(o);
    json_decref(o);
    int rc = gw_file_write(dir_fd, name, text, strlen(text), 0600, false, err);
    free(text);
    return rc;
}

static bool is(const json_t *boot, const char *boot_id)
{
    return boot_id != NULL && strcmp(json_string_value(json_object_get(boot, "boot_id")), boot_id) == 0;
}

static void set_end(json_t *boot, const char *outcome, int64_t now_ms)
{
    gw_json_set(boot, "ended_at", json_integer(now_ms));
    gw_json_set(boot, "outcome", json_string(outcome));
}

/* One without an end of its own: found_at is when that is seen, which says at least that it was not later. */
static void set_dead(json_t *boot, const char *outcome, int64_t now_ms)
{
    gw_json_set(boot, "ended_at", json_null());
    gw_json_set(boot, "found_at", json_integer(now_ms));
    gw_json_set(boot, "outcome", json_string(outcome));
}

static bool noted(const json_t *boot, const char *what)
{
    return json_is_true(json_object_get(boot, what));
}

static bool counts(const json_t *boot, int64_t now_ms, int64_t window_ms)
{
    const char *outcome = json_string_value(json_object_get(boot, "outcome"));
    const json_t *end = json_object_get(boot, "ended_at");
    int64_t ended = json_integer_value(json_is_integer(end) ? end : json_object_get(boot, "found_at"));
    bool unclean = outcome != NULL && (strcmp(outcome, "died") == 0 || strcmp(outcome, "failed") == 0);
    // A clock that was set back leaves ends in the future: they are not recent.
    return unclean && ended <= now_ms && now_ms - ended < window_ms;
}

/* The boot that the last resort has ended while it stopped; "" when there is none. */
static void take_stop_mark(int dir_fd, char ret_boot_id[40])
{
    int fd = openat(dir_fd, GW_BOOTS_STOP_MARK, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    ssize_t n = fd >= 0 ? read(fd, ret_boot_id, 39) : 0;
    ret_boot_id[n > 0 ? n : 0] = '\0';
    if (fd < 0)
        return;
    (void)close(fd);
    (void)unlinkat(dir_fd, GW_BOOTS_STOP_MARK, 0);
}

int gw_boots_begin(int dir_fd, const char *boot_id, const char *replaces, int64_t now_ms, int64_t window_ms,
                   unsigned *ret_unclean, struct gw_boots_dead *ret_dead, struct gw_err *err)
{
    json_t *boots, *own = json_object();
    *ret_dead = (struct gw_boots_dead){.pid = 0};
    int damaged = load(dir_fd, &boots, err);
    char stopped[40];
    take_stop_mark(dir_fd, stopped);
    unsigned unclean = 0;
    for (size_t i = json_array_size(boots); i-- > 0;) {
        json_t *b = json_array_get(boots, i);
        if (is(b, boot_id)) {
            (void)json_array_remove(boots, i);
            continue;
        }
        if (json_object_get(b, "outcome") == NULL && is(b, replaces)) {
            set_end(b, "clean", now_ms);
        } else if (json_object_get(b, "outcome") == NULL) {
            bool died = !noted(b, "stopping") && !is(b, stopped);
            set_dead(b, died ? "died" : "stopped", now_ms);
            if (died && ret_dead->boot_id[0] == '\0') {
                const char *id = json_string_value(json_object_get(b, "boot_id"));
                (void)snprintf(ret_dead->boot_id, sizeof ret_dead->boot_id, "%s", id);
                ret_dead->pid = (int)json_integer_value(json_object_get(b, "pid"));
                ret_dead->started_at = json_integer_value(json_object_get(b, "started_at"));
            }
        }
        unclean += counts(b, now_ms, window_ms);
    }
    gw_json_set(own, "boot_id", json_string(boot_id));
    gw_json_set(own, "pid", json_integer(getpid()));
    gw_json_set(own, "started_at", json_integer(now_ms));
    (void)json_array_append_new(boots, own);
    int rc = save(dir_fd, boots, err);
    json_decref(boots);
    *ret_unclean = unclean;
    return rc < 0 ? rc : damaged;
}

int gw_boots_note(int dir_fd, const char *boot_id, const char *what, struct gw_err *err)
{
    json_t *boots;
    int rc = load(dir_fd, &boots, err);
    for (size_t i = 0; i < json_array_size(boots); i++)
        if (is(json_array_get(boots, i), boot_id))
            gw_json_set(json_array_get(boots, i), what, json_true());
    if (rc == 0)
        rc = save(dir_fd, boots, err);
    json_decref(boots);
    return rc;
}

static const char *outcome_of(const json_t *boot, bool clean)
{
    return clean                       ? "clean"
           : noted(boot, "stopping") ? "stopped"
           : noted(boot, "served")   ? "failed"
                                     : "not_started";
}

int gw_boots_end(int dir_fd, const char *boot_id, bool clean, int64_t now_ms, struct gw_err *err)
{
    json_t *boots;
    int rc = load(dir_fd, &boots, err);
    for (size_t i = 0; i < json_array_size(boots); i++)
        if (is(json_array_get(boots, i), boot_id))
            set_end(json_array_get(boots, i), outcome_of(json_array_get(boots, i), clean), now_ms);
    if (rc == 0)
        rc = save(dir_fd, boots, err);
    json_decref(boots);
    return rc;
}

int gw_boots_forgive(int dir_fd, struct gw_err *err)
{
    json_t *boots;
    int rc = load(dir_fd, &boots, err);
    for (size_t i = 0; i < json_array_size(boots); i++)
        if (counts(json_array_get(boots, i), INT64_MAX, INT64_MAX))
            gw_json_set(json_array_get(boots, i), "outcome", json_string("forgiven"));
    if (rc == 0)
        rc = save(dir_fd, boots, err);
    json_decref(boots);
    return rc;
}
