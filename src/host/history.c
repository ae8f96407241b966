/* history.c - outcomes of requests, kept for later questions, also those put to the next process.
 *
 * A file of its own, one object a line, appended at each outcome and trimmed now and then: an answer that was
 * given about a restart must not need the store that the restart may have been about. */
#include "host/inside.h"

#include "os/statedir.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HISTORY_BYTES = 1 << 20, TRIM_BYTES = 256 << 10, LINES_KEPT = 100 };
static const char name[] = "restarts.jsonl";

/* Rewrites the file with its last hundred lines; restore: they are taken back too. */
static void trim(struct gw_host *h, bool restore)
{
    char *path = gw_asprintf("%s/%s", h->options.state_dir, name), *text = NULL;
    size_t n = 0;
    if (gw_file_read(path, HISTORY_BYTES, &text, &n, NULL) == 0) {
        // From behind, so that the last hundred are what is kept; a line that was cut by a crash is left out.
        struct gw_buf kept = {0};
        char *from = text + n;
        int lines = 0;
        while (from > text && lines <= LINES_KEPT) {
            from--;
            if (from == text || from[-1] == '\n')
                lines += *from != '\0' && *from != '\n';
        }
        for (char *line = from, *end; *line != '\0'; line = end + (*end == '\n')) {
            end = line + strcspn(line, "\n");
            json_t *o = NULL;
            if (gw_json_parse(line, (size_t)(end - line), &o, NULL) == 0 && json_is_object(o)) {
                if (restore)
                gw_sched_restore(h->sched, o);
                gw_buf_add(&kept, line, (size_t)(end - line));
                gw_buf_adds(&kept, "\n");
            }
            json_decref(o);
        }
        (void)gw_file_write(h->dir_fd, name, kept.data != NULL ? kept.data : "", kept.len, 0600, NULL);
        gw_buf_fini(&kept);
    }
    free(text);
    free(path);
}

void gw_history_load(struct gw_host *h)
{
    trim(h, true);
}

void gw_history_keep(struct gw_host *h, const struct gw_restart *r)
{
    if (h->dir_fd < 0 || h->lock == NULL)
        return; // another host may own the file
    json_t *o = gw_restart_json(r);
    char *text = gw_json_text(o);
    struct gw_buf line = {0};
    gw_buf_addf(&line, "%s\n", text);
    int fd = openat(h->dir_fd, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || write(fd, line.data, line.len) != (ssize_t)line.len)
        gw_log(GW_WARN, "history.failed", NULL, "the outcome of request %s could not be kept for the next process", r->id);
    bool grown = fd >= 0 && lseek(fd, 0, SEEK_END) > TRIM_BYTES;
    if (fd >= 0)
        (void)close(fd);
    if (grown)
        trim(h, false); // a host may live for very many restarts
    gw_buf_fini(&line);
    free(text);
    json_decref(o);
}
