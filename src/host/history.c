/* history.c - requests and their outcomes, kept for later questions, also those put to the next process.
 *
 * A file of its own, one object a line, appended when a request is made (outcome null) and when it ends, trimmed now
 * and then: an answer that was given about a restart must not need the store that the restart may have been about. */
#include "host/inside.h"

#include "os/statedir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HISTORY_BYTES = 1 << 20, TRIM_BYTES = 256 << 10, LINES_KEPT = 100 };
static const char name[] = "restarts.jsonl";

/* The file, or its end where it is larger than anyone needs: what is before that is older than what is kept. False: it
 * cannot be read now. */
static bool read_end(struct gw_host *h, struct gw_buf *ret)
{
    struct stat st;
    int fd = openat(h->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    bool good = fd >= 0 || errno == ENOENT;
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        off_t at = st.st_size > HISTORY_BYTES ? st.st_size - HISTORY_BYTES : 0;
        gw_buf_reserve(ret, HISTORY_BYTES);
        for (ssize_t n; ret->len < HISTORY_BYTES && (n = pread(fd, ret->data + ret->len, HISTORY_BYTES - ret->len,
                                                               at + (off_t)ret->len)) != 0;) {
            good = n >= 0 || errno == EINTR;
            if (!good)
                break;
            ret->len += n > 0 ? (size_t)n : 0;
        }
    }
    if (fd >= 0)
        (void)close(fd);
    return good;
}

/* What the file says, by id, in the order of the last word about each; the caller's. *ret_whole: it is all that is
 * known, and may be written in the file's place. */
static json_t *read_all(struct gw_host *h, bool *ret_whole)
{
    json_t *all = json_object();
    struct gw_buf text = {0};
    *ret_whole = read_end(h, &text);
    for (size_t at = 0, n; at < text.len; at += n + 1) {
        const char *line = text.data + at, *end = memchr(line, '\n', text.len - at);
        json_t *o = NULL;
        n = end != NULL ? (size_t)(end - line) : text.len - at;
        // A line that was cut by a crash, or by where we began, is left out.
        bool good = gw_json_parse(line, n, &o, NULL) == 0 && json_is_object(o);
        const char *id = good ? json_string_value(json_object_get(o, "request_id")) : NULL;
        if (id != NULL) {
            (void)json_object_del(all, id);
            (void)json_object_set(all, id, o);
        }
        json_decref(o);
    }
    gw_buf_fini(&text);
    return all;
}

/* Rewrites the file with the last hundred of them. */
static void write_all(struct gw_host *h, const json_t *all)
{
    struct gw_buf kept = {0};
    size_t n = json_object_size(all), i = 0;
    const char *id;
    json_t *o;
    json_object_foreach((json_t *)all, id, o)
    {
        if (i++ + LINES_KEPT < n)
            continue;
        char *line = gw_json_text(o);
        gw_buf_addf(&kept, "%s\n", line);
        free(line);
    }
    (void)gw_file_write(h->dir_fd, name, kept.data != NULL ? kept.data : "", kept.len, 0600, false, NULL);
    gw_buf_fini(&kept);
}

void gw_history_load(struct gw_host *h)
{
    bool whole;
    json_t *all = read_all(h, &whole), *o;
    const char *id;
    bool changed = json_object_size(all) > LINES_KEPT;
    json_object_foreach(all, id, o)
    {
        const struct gw_restart *r = gw_sched_find(h->sched, id);
        bool open = json_is_null(json_object_get(o, "outcome"));
        if (open && (r == NULL || r->outcome[0] != '\0')) {
            static const char why[] = "the host died before it was carried out";
            gw_json_set(o, "outcome", json_string("failed"));
            gw_json_set(o, "why", json_string(why));
            changed = true;
            gw_log(GW_INFO, "restart.outcome", json_pack("{ssssss}", "request_id", id, "outcome", "failed", "why", why),
                   "request %s: failed: %s", id, why);
        }
        if (r == NULL)
            gw_sched_restore(h->sched, o);
    }
    if (changed && whole)
        write_all(h, all);
    json_decref(all);
}

void gw_history_keep(struct gw_host *h, const struct gw_restart *r)
{
    if (h->dir_fd < 0 || h->lock == NULL)
        return; // another host may own the file
    json_t *o = gw_restart_json(r);
    char *text = gw_json_text(o);
    struct gw_buf line = {0};
    int fd = openat(h->dir_fd, name, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    char last = '\n';
    off_t size = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    if (size > 0 && pread(fd, &last, 1, size - 1) == 1 && last != '\n')
        gw_buf_adds(&line, "\n"); // a crash, or a full disk, has cut the line before: it costs itself only
    gw_buf_addf(&line, "%s\n", text);
    if (fd < 0 || write(fd, line.data, line.len) != (ssize_t)line.len)
        gw_log(GW_WARN, "history.failed", NULL, "the outcome of request %s could not be kept for the next process", r->id);
    bool grown = fd >= 0 && lseek(fd, 0, SEEK_END) > TRIM_BYTES;
    if (fd >= 0)
        (void)close(fd);
    if (grown) { // a host may live for very many restarts
        bool whole;
        json_t *all = read_all(h, &whole);
        if (whole)
            write_all(h, all);
        json_decref(all);
    }
    gw_buf_fini(&line);
    free(text);
    json_decref(o);
}
