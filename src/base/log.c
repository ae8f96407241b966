#include "base/log.h"

#include "base/err.h"
#include "base/json.h"
#include "base/str.h"
#include "base/time.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { WAITS_BYTES = 1 << 20 };

static struct {
    enum gw_log_format format;
    enum gw_level level;
    int fd;
    bool colour;
    const char *boot_id; /* borrowed */
    unsigned generation;
    int out;             /* where lines go: fd, or the same opened again so that nobody waits for its reader */
    bool socket;
    struct gw_buf waits; /* whole lines, the first one perhaps begun, that the reader has not had room for */
    unsigned long lost, unsaid; /* lines; of these, not told of yet */
    void (*stalled)(void *ud);
    void *stalled_ud;
    void (*tap)(void *ud, const json_t *object);
    void *tap_ud;
} sink = {.level = GW_INFO, .fd = STDERR_FILENO, .out = STDERR_FILENO};

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static const char *const level_marks[] = {"\033[2m", "", "\033[33m", "\033[31m"};

void gw_log_setup(enum gw_log_format format, enum gw_level level, int fd)
{
    sink.format = format;
    sink.level = level;
    const char *no_colour = getenv("NO_COLOR");
    sink.colour = isatty(fd) && (no_colour == NULL || *no_colour == '\0');
    // A pipe that is not read, a terminal that is stopped: whoever writes waits for somebody else, but for an open file of
    // its own that does not wait. Making the one that we got so would do it to all who share it.
    struct stat st;
    if (sink.out != sink.fd)
        (void)close(sink.out);
    sink.fd = sink.out = fd;
    sink.socket = false;
    if (fstat(fd, &st) < 0)
        return;
    sink.socket = S_ISSOCK(st.st_mode);
    if (!S_ISFIFO(st.st_mode) && !isatty(fd))
        return;
    char path[32];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    sink.out = own >= 0 ? own : fd;
}

void gw_log_on_stall(void (*stalled)(void *ud), void *ud)
{
    sink.stalled = stalled;
    sink.stalled_ud = ud;
}

void gw_log_identity(const char *boot_id)
{
    sink.boot_id = boot_id;
}

void gw_log_generation(unsigned generation)
{
    sink.generation = generation;
}

bool gw_log_is_json(void)
{
    return sink.format == GW_LOG_JSON;
}

bool gw_log_level_parse(const char *name, enum gw_level *ret_level)
{
    for (int i = 0; i < 4; i++)
        if (strcmp(name, level_names[i]) == 0) {
            *ret_level = (enum gw_level)i;
            return true;
        }
    return false;
}

void gw_log_tap(void (*tap)(void *ud, const json_t *object), void *ud)
{
    sink.tap = tap;
    sink.tap_ud = ud;
}

unsigned long gw_log_lost(void)
{
    return sink.lost;
}

/* What could be written of it, without waiting for a reader. Less than 0: it can never be. */
static ssize_t put(const char *data, size_t n)
{
    ssize_t rc;
    do
        rc = sink.socket ? send(sink.out, data, n, MSG_DONTWAIT | MSG_NOSIGNAL) : write(sink.out, data, n);
    while (rc < 0 && errno == EINTR);
    return rc < 0 && errno == EAGAIN ? 0 : rc;
}

static void lose(unsigned long lines)
{
    sink.lost += lines;
    sink.unsaid += lines;
}

static unsigned long lines_in(const char *data, size_t n)
{
    unsigned long lines = 0;
    for (size_t i = 0; i < n; i++)
        lines += data[i] == '\n';
    return lines;
}

bool gw_log_flush(void)
{
    while (sink.waits.len > 0) {
        ssize_t n = put(sink.waits.data, sink.waits.len);
        if (n == 0)
            return false;
        if (n < 0) {
            lose(lines_in(sink.waits.data, sink.waits.len));
            n = (ssize_t)sink.waits.len;
        }
        gw_buf_drop(&sink.waits, (size_t)n);
    }
    if (sink.unsaid > 0) {
        unsigned long n = sink.unsaid;
        sink.unsaid = 0;
        gw_log(GW_WARN, "log.lost", json_pack("{sI}", "lines", (json_int_t)n),
               "%lu lines of this log are lost: nobody took them, or they could not be written", n);
    }
    return sink.waits.len == 0;
}

void gw_log_finish(unsigned max_ms)
{
    uint64_t until = gw_now_ms() + max_ms;
    for (uint64_t now; !gw_log_flush() && (now = gw_now_ms()) < until;) {
        struct pollfd room = {.fd = sink.out, .events = POLLOUT};
        (void)poll(&room, 1, (int)(until - now));
    }
}

static void write_line(const char *data, size_t n)
{
    ssize_t rc = sink.waits.len > 0 ? 0 : put(data, n);
    if (rc < 0) {
        lose(1);
        return;
    }
    if ((size_t)rc == n)
        return;
    bool begins = sink.waits.len == 0;
    if (rc == 0 && sink.waits.len + n > WAITS_BYTES)
        lose(1); // one that is begun is ended, or the next one would be glued to it
    else
        gw_buf_add(&sink.waits, data + rc, n - (size_t)rc);
    if (begins && sink.stalled != NULL)
        sink.stalled(sink.stalled_ud);
}

json_t *gw_log_object(enum gw_level level, const char *event, const json_t *fields, const char *msg)
{
    json_t *o = json_object();
    gw_json_set(o, "ts", json_integer(gw_wall_ms()));
    gw_json_set(o, "level", json_string(level_names[level]));
    gw_json_set(o, "event", json_string(event));
    gw_json_set(o, "msg", gw_json_string(msg));
    gw_json_set(o, "pid", json_integer(getpid()));
    gw_json_set(o, "boot_id", sink.boot_id != NULL ? json_string(sink.boot_id) : NULL);
    gw_json_set(o, "generation", json_integer(sink.generation));
    if (fields != NULL)
        (void)json_object_update_missing(o, (json_t *)fields);
    return o;
}

/* A field as people read it: bare when it is one plain word, quoted JSON otherwise. What the sentence says
 * already, and what is not there, is left out. */
static void add_field(struct gw_buf *b, const char *key, const json_t *value, const char *msg)
{
    const char *s = json_string_value(value);
    if (json_is_null(value) || (s != NULL && strstr(msg, s) != NULL)) // an empty one is in every sentence
        return;
    gw_buf_addf(b, " %s=", key);
    if (s != NULL && s[strcspn(s, " \t\n\r\"=;")] == '\0') {
        gw_buf_adds(b, s);
        return;
    }
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    gw_buf_adds(b, text != NULL ? text : "?");
    free(text);
}

static void text_line(struct gw_buf *b, enum gw_level level, const char *event, const json_t *fields,
                      const char *msg)
{
    int64_t now = gw_wall_ms();
    time_t seconds = (time_t)(now / 1000);
    struct tm tm;
    char stamp[32];
    (void)localtime_r(&seconds, &tm);
    (void)strftime(stamp, sizeof stamp, "%H:%M:%S", &tm);
    const char *dim = sink.colour ? "\033[2m" : "", *off = sink.colour ? "\033[0m" : "";
    const char *mark = sink.colour ? level_marks[level] : "", *bold = sink.colour ? "\033[36m" : "";
    // The pid: in a hand-over two processes write here.
    gw_buf_addf(b, "%s%s.%03d %5d%s %s%-5s%s %s%-20s%s %s%s%s", dim, stamp, (int)(now % 1000), (int)getpid(), off, mark,
                level_names[level], off, bold, event, off, mark, msg, *mark != '\0' ? off : "");
    const char *key;
    json_t *value;
    gw_buf_adds(b, dim);
    json_object_foreach((json_t *)fields, key, value)
        add_field(b, key, value, msg);
    gw_buf_adds(b, off);
}

static void write_text(enum gw_level level, const char *event, const json_t *fields, const char *words,
                       const json_t *object)
{
    struct gw_buf line = {0};
    if (sink.format == GW_LOG_JSON) {
        char *json = gw_json_text(object);
        gw_buf_adds(&line, json);
        free(json);
    } else {
        text_line(&line, level, event, fields, words);
    }
    gw_buf_add(&line, "\n", 1);
    write_line(line.data, line.len);
    gw_buf_fini(&line);
}

void gw_log(enum gw_level level, const char *event, json_t *fields, const char *fmt, ...)
{
    bool tapped = sink.tap != NULL && level >= GW_INFO;
    if (level < sink.level && !tapped) {
        json_decref(fields);
        return;
    }
    char *words = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&words, fmt, ap);
    va_end(ap);
    gw_assert(n >= 0);
    json_t *object = tapped || sink.format == GW_LOG_JSON ? gw_log_object(level, event, fields, words) : NULL;
    if (level >= sink.level && sink.waits.len > 0)
        (void)gw_log_flush();
    if (level >= sink.level)
        write_text(level, event, fields, words, object);
    if (tapped)
        sink.tap(sink.tap_ud, object);
    json_decref(object);
    free(words);
    json_decref(fields);
}
