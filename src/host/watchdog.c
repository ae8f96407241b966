/* watchdog.c - the last resort: the process ends, whatever hangs.
 *
 * gw_watchdog_fire() runs on the sentry's thread when a deadline has passed. Loop, Lua, malloc, the log's
 * pipe and the disk may all be stuck, so it takes none of them for granted: what it writes was rendered when
 * the deadline was armed, it is written by a child made without fork handlers, and the child is waited for
 * only a moment. */
#include "host/inside.h"

#include "os/boots.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WRITE_MS = 1000, STEP_MS = 5 };

/* Rendered by the loop, read by the sentry; the index of the one in force is swapped when it is whole. */
struct prepared {
    char dir[512];
    char dir_json[600];     /* the same, as the inside of a JSON string */
    char reason[64];
    bool stop;              /* of the whole host: nobody takes its place */
    char bundle_head[2048]; /* a JSON object, without its end */
    char log_head[512];     /* the same of the log line, "" in the text format */
    char pid[16];
    char stop_mark[560];    /* a file that says which boot was told to end and could not note it itself */
    char boot_id[33];
    int64_t utc_offset_ms;  /* of the text format's times: localtime_r() takes a lock */
};

static struct prepared prepared[2];
static atomic_int in_force = -1;
static _Atomic(const char *) phase = "starting";

void gw_watchdog_phase(const char *name)
{
    atomic_store(&phase, name);
}

static void copy(char *to, size_t size, const char *from)
{
    size_t n = strlen(from);
    if (n >= size)
        n = size - 1;
    memcpy(to, from, n);
    to[n] = '\0';
}

/* The object's text without its closing brace. */
static void render(char *to, size_t size, json_t *o)
{
    char *text = gw_json_text(o);
    text[strlen(text) - 1] = '\0';
    copy(to, size, text);
    free(text);
    json_decref(o);
}

void gw_watchdog_arm(struct gw_host *h, uint64_t deadline_ms, const char *in_phase, const char *bundle_reason)
{
    int next = atomic_load(&in_force) == 0 ? 1 : 0;
    struct prepared *p = &prepared[next];
    gw_watchdog_phase(in_phase);
    (void)snprintf(p->dir, sizeof p->dir, "%s/bundles", h->options.state_dir);
    (void)mkdir(p->dir, 0700);
    json_t *quoted = gw_json_string(p->dir);
    char *text = gw_json_text(quoted);
    text[strlen(text) - 1] = '\0';
    copy(p->dir_json, sizeof p->dir_json, text + 1);
    free(text);
    json_decref(quoted);
    copy(p->reason, sizeof p->reason, bundle_reason);
    p->stop = strcmp(bundle_reason, "gateway.stop_shutdown_timeout") == 0;
    (void)snprintf(p->pid, sizeof p->pid, "%d", (int)getpid());
    (void)snprintf(p->stop_mark, sizeof p->stop_mark, "%s/" GW_BOOTS_STOP_MARK, h->options.state_dir);
    copy(p->boot_id, sizeof p->boot_id, h->boot_id);
    time_t now = time(NULL);
    struct tm tm = {0};
    (void)localtime_r(&now, &tm);
    p->utc_offset_ms = (int64_t)tm.tm_gmtoff * 1000;
    json_t *o = json_object();
    gw_json_set(o, "version", json_integer(1));
    gw_json_set(o, "reason", json_string(bundle_reason));
    gw_json_set(o, "gwhost", json_string(h->options.version));
    gw_json_set(o, "pid", json_integer(getpid()));
    gw_json_set(o, "boot_id", json_string(h->boot_id));
    gw_json_set(o, "generation", json_integer(h->generation));
    gw_json_set(o, "state", json_string(gw_state_public(h->state)));
    gw_json_set(o, "error", json_string("the budget ran out and the host did not end by itself"));
    gw_json_set(o, "armed_at", json_integer(gw_wall_ms()));
    gw_json_set(o, "work", gw_facts_work(h));
    gw_json_set(o, "restart", gw_restart_json(gw_sched_current(h->sched)));
    render(p->bundle_head, sizeof p->bundle_head, o);
    o = gw_log_object(GW_ERROR, "watchdog.fired", NULL, "a budget ran out and the host did not end by itself; it is ended");
    (void)json_object_del(o, "ts");
    render(p->log_head, sizeof p->log_head, o);
    atomic_store(&in_force, next);
    gw_sentry_arm(h->sentry, deadline_ms);
}

void gw_watchdog_disarm(struct gw_host *h)
{
    if (h->sentry != NULL)
        gw_sentry_arm(h->sentry, UINT64_MAX);
}

// ---- on the sentry's thread: no malloc, no stdio, no locks ----

/* Text that grows to its end and no further. */
struct line {
    char text[4096];
    size_t n;
};

static void add(struct line *l, const char *s)
{
    while (*s != '\0' && l->n < sizeof l->text - 1)
        l->text[l->n++] = *s++;
    l->text[l->n] = '\0';
}

static void add_number(struct line *l, int64_t v, int width)
{
    char digits[24];
    int n = 0;
    do
        digits[n++] = (char)('0' + v % 10);
    while ((v /= 10) > 0 || n < width);
    while (n > 0) {
        char one[2] = {digits[--n], '\0'};
        add(l, one);
    }
}

/* The UTC date of a Unix time, by arithmetic: gmtime_r() takes a lock. */
static void add_stamp(struct line *l, int64_t ms)
{
    int64_t seconds = ms / 1000, days = seconds / 86400, rest = seconds % 86400;
    int64_t z = days + 719468, era = z / 146097, doe = z % 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    int64_t month = mp < 10 ? mp + 3 : mp - 9;
    add_number(l, yoe + era * 400 + (month <= 2), 4);
    add(l, "-");
    add_number(l, month, 2);
    add(l, "-");
    add_number(l, doy - (153 * mp + 2) / 5 + 1, 2);
    add(l, "T");
    add_number(l, rest / 3600, 2);
    add(l, "-");
    add_number(l, rest / 60 % 60, 2);
    add(l, "-");
    add_number(l, rest % 60, 2);
    add(l, "-");
    add_number(l, ms % 1000, 3);
    add(l, "Z");
}

/* The beginning of a line in the text format, as base/log.c writes it. */
static void add_head(struct line *l, const struct prepared *p, int64_t now)
{
    int64_t ms = (now + p->utc_offset_ms) % 86400000;
    add_number(l, ms / 3600000, 2);
    add(l, ":");
    add_number(l, ms / 60000 % 60, 2);
    add(l, ":");
    add_number(l, ms / 1000 % 60, 2);
    add(l, ".");
    add_number(l, ms % 1000, 3);
    add(l, " ");
    for (size_t n = strlen(p->pid); n < 5; n++)
        add(l, " ");
    add(l, p->pid);
    add(l, " error ");
}

static void write_report(const struct prepared *p, const char *in_phase)
{
    int64_t now = gw_wall_ms();
    struct line path = {.n = 0}, name = {.n = 0}, body = {.n = 0}, said = {.n = 0};
    add(&name, "/");
    add_stamp(&name, now);
    add(&name, "-");
    add(&name, p->pid);
    add(&name, "-");
    add(&name, p->reason);
    add(&name, ".json");
    add(&path, p->dir);
    add(&path, name.text);
    add(&body, p->bundle_head);
    add(&body, ",\"phase\":\"");
    add(&body, in_phase);
    add(&body, "\",\"ts\":");
    add_number(&body, now, 1);
    add(&body, "}\n");
    if (gw_log_is_json()) {
        add(&said, p->log_head);
        add(&said, ",\"phase\":\"");
        add(&said, in_phase);
        add(&said, "\",\"ts\":");
        add_number(&said, now, 1);
        add(&said, "}\n");
    } else {
        add_head(&said, p, now);
        add(&said, "watchdog.fired       a budget ran out and the host did not end by itself; it is ended phase=");
        add(&said, in_phase);
        add(&said, "\n");
    }
    // The file first: standard error may be a pipe that nobody reads.
    int fd = open(path.text, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool written = fd >= 0 && write(fd, body.text, body.n) == (ssize_t)body.n && fsync(fd) == 0;
    (void)!write(STDERR_FILENO, said.text, said.n);
    if (!written)
        return;
    said.n = 0;
    if (gw_log_is_json()) {
        add(&said, "{\"ts\":");
        add_number(&said, now, 1);
        add(&said, ",\"level\":\"error\",\"event\":\"bundle.written\",\"msg\":\"a report is written\",\"pid\":");
        add(&said, p->pid);
        add(&said, ",\"path\":\"");
        add(&said, p->dir_json);
        add(&said, name.text);
        add(&said, "\",\"reason\":\"");
        add(&said, p->reason);
        add(&said, "\"}\n");
    } else {
        add_head(&said, p, now);
        add(&said, "bundle.written       a report is in ");
        add(&said, path.text);
        add(&said, "\n");
    }
    (void)!write(STDERR_FILENO, said.text, said.n);
}

/* A stop that ends so is no crash, also where the loop has not even heard of it. */
static void mark_stop(const struct prepared *p)
{
    int fd = open(p->stop_mark, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0)
        (void)!write(fd, p->boot_id, strlen(p->boot_id));
}

void gw_watchdog_fire(void *host, bool stop)
{
    const struct gw_host *h = host;
    int index = atomic_load(&in_force);
    const char *in_phase = atomic_load(&phase);
    // Who asked for the stop of this host asked for the end of all its processes; one that serves in our place
    // already is the host now, and has been told by the sentry that it shall stop.
    if ((stop || (index >= 0 && prepared[index].stop)) && !h->departed)
        gw_sentry_signal_heir(h->sentry, SIGKILL);
    pid_t child = _Fork(); // no fork handlers: they would take malloc's locks
    if (child == 0) {
        // Lock and listeners must not live on in a child that hangs in the disk.
        (void)close_range(3, ~0u, 0);
        if (index >= 0 && (stop || prepared[index].stop))
            mark_stop(&prepared[index]);
        if (index >= 0)
            write_report(&prepared[index], in_phase);
        _exit(0);
    }
    for (int waited = 0; child > 0 && waited < WRITE_MS; waited += STEP_MS) {
        if (waitpid(child, NULL, WNOHANG) != 0)
            break;
        struct timespec step = {.tv_nsec = STEP_MS * 1000000};
        (void)nanosleep(&step, NULL);
    }
    _exit(GW_EXIT_FAILED);
}
