/* supervision.c - who would start us again, found out once at the start, and what a service manager is told.
 *
 * Messages go out when something happens; the only timer is the one that WATCHDOG_USEC asks for, and it is the
 * loop's, so that a loop that is stuck is noticed. */
#include "host/inside.h"

#include "os/notify.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How much later than our own last resort a supervisor should strike; launchd takes a process that ends sooner
 * than this after another for one that crashes. */
enum { SUPERVISOR_MARGIN_MS = 5000, LAUNCHD_EXIT_MS = 1500, BARRIER_MS = 5000 };

static void tell(struct gw_host *h, struct gw_buf *message)
{
    struct supervision *s = &h->supervision;
    struct gw_err err = {0};
    int rc = gw_notify_send(s->notify, message->data, &err);
    if (rc < 0 && !s->unheard)
        gw_log(GW_WARN, "supervisor.unheard", json_pack("{so}", "error", gw_json_string(err.text)),
               "the service manager was not told: %s", err.text);
    s->unheard = rc < 0;
    gw_buf_fini(message);
}

static void add_status(struct gw_buf *b, const char *text)
{
    char line[512]; // a newline in it would begin another field
    gw_one_line(text, strlen(text), line, sizeof line);
    gw_buf_addf(b, "%sSTATUS=%s", b->len > 0 ? "\n" : "", line);
}

/* How long until our own last resort has struck. A drain without end is covered up to the report after next. */
static int64_t cover_ms(struct gw_host *h, bool draining)
{
    const struct drain *d = &h->drain;
    int64_t left = 0, every = d->budget.report_every_ms > 0 ? d->budget.report_every_ms : GW_REPORT_MS;
    if (draining)
        left = d->budget.budget_ms == GW_UNLIMITED
                   ? every * 2
                   : gw_budget_left(d->budget.budget_ms, (int64_t)(gw_now_ms() - d->accepted_ms));
    return left + GW_FORCED_EXIT_MS + SUPERVISOR_MARGIN_MS + (int64_t)h->supervision.exit_delay_ms;
}

static void add_cover(struct gw_host *h, struct gw_buf *b, bool draining)
{
    int64_t ms = cover_ms(h, draining);
    if (ms < INT64_MAX / 1000)
        gw_buf_addf(b, "\nEXTEND_TIMEOUT_USEC=%lld000", (long long)ms);
}

static void on_alive(uv_timer_t *timer)
{
    struct gw_buf b = {0};
    gw_buf_adds(&b, "WATCHDOG=1");
    tell(timer->data, &b);
}

static void say_found(struct gw_host *h)
{
    const struct gw_supervisor *by = &h->supervision.by;
    const char *said = getenv("GWHOST_SUPERVISOR");
    if (said != NULL && *said != '\0' && strcmp(said, "external") != 0 && strcmp(said, "none") != 0)
        gw_log(GW_WARN, "supervisor.unknown", json_pack("{so}", "value", gw_json_string(said)),
               "GWHOST_SUPERVISOR is neither 'external' nor 'none'; it is not looked at");
    if (by->name != NULL)
        gw_log(GW_INFO, "supervisor.found", json_pack("{ssss}", "name", by->name, "service", by->service),
               "%s would start this host again%s%s", by->name, by->service[0] != '\0' ? ", as " : "", by->service);
    if (by->stop_timeout_ms > 0)
        gw_log(GW_INFO, "supervisor.stop_timeout", json_pack("{sI}", "ms", (json_int_t)by->stop_timeout_ms),
               "who asks this host to stop kills it after %lld ms; it ends before", (long long)by->stop_timeout_ms);
}

void gw_supervision_open(struct gw_host *h)
{
    struct supervision *s = &h->supervision;
    struct gw_err err = {0};
    if (!h->standby.active) // a successor was told: what a predecessor's child could find out would mislead it
        gw_supervisor_look(&s->by);
    say_found(h);
    const char *address = getenv("NOTIFY_SOCKET");
    if (address == NULL || *address == '\0')
        return;
    if (gw_notify_open(address, &s->notify, &err) < 0) {
        gw_log(GW_WARN, "supervisor.unheard", json_pack("{so}", "error", gw_json_string(err.text)),
               "the service manager cannot be told how this host is: %s", err.text);
        return;
    }
    // A successor is who the watchdog will ask.
    const char *asked = h->standby.active ? NULL : getenv("WATCHDOG_PID");
    uint64_t every = gw_notify_watchdog_ms(getenv("WATCHDOG_USEC"), asked, getpid());
    if (every > 0)
        (void)uv_timer_start(&s->alive_timer, on_alive, every, every);
}

void gw_supervision_forget(struct gw_host *h, const char *name)
{
    (void)gw_notify_forget(h->supervision.notify, name, NULL);
}

bool gw_supervision_follows(const struct gw_host *h)
{
    const struct supervision *s = &h->supervision;
    return s->by.name != NULL && strcmp(s->by.name, "systemd") == 0 && s->notify != NULL;
}

/* The manager keeps our listening sockets over our end, so that nobody is refused while the next host starts. A
 * manager that keeps none drops the message. */
static void store_listeners(struct gw_host *h)
{
    for (size_t i = 0; i < h->socket_count; i++) {
        struct gw_listen_socket *s = &h->sockets[i];
        char name[32];
        (void)snprintf(name, sizeof name, "gwhost-%zu", i);
        if (s->name == NULL && gw_notify_store(h->supervision.notify, name, s->fd, NULL) == 0) {
            s->name = gw_strdup(name);
            s->kept = true;
        }
    }
}

void gw_supervision_departs(struct gw_host *h, pid_t successor)
{
    struct supervision *s = &h->supervision;
    struct gw_err err = {0};
    if (s->notify == NULL)
        return;
    struct gw_buf b = {0};
    gw_buf_addf(&b, "MAINPID=%d", (int)successor);
    add_status(&b, "Handed over to the next process");
    tell(h, &b);
    if (gw_notify_barrier(s->notify, BARRIER_MS, &err) < 0)
        gw_log(GW_WARN, "supervisor.unheard", json_pack("{so}", "error", gw_json_string(err.text)),
               "the service manager may not know of the next process yet: %s", err.text);
}

void gw_supervision_close(struct gw_host *h)
{
    h->supervision.notify = gw_notify_close(h->supervision.notify);
}

const char *gw_supervision_by(const struct gw_host *h)
{
    return h->supervision.by.name;
}

void gw_supervision_ready(struct gw_host *h, const char *addresses)
{
    if (h->supervision.notify == NULL)
        return;
    if (h->standby.active && h->standby.channel != NULL && !h->standby.gone) {
        h->standby.ready_due = true; // nobody listens to us before our predecessor has said who we are
        return;
    }
    struct gw_buf b = {0};
    if (addresses == NULL)
        addresses = h->socket_count > 0 ? h->sockets[0].address : "no address";
    char *status = gw_asprintf("Generation %u serves on %s", h->generation, addresses);
    gw_buf_addf(&b, "READY=1\nMAINPID=%d", (int)getpid());
    add_status(&b, status);
    free(status);
    tell(h, &b);
    if (gw_supervision_follows(h))
        store_listeners(h);
}

/* A host that starts, stops or has failed does not become ready by reading its policy. */
static bool may_reload(const struct gw_host *h)
{
    bool serves = h->state == GW_RUNNING || h->state == GW_PREPARING || h->state == GW_DRAINING;
    return h->supervision.notify != NULL && serves;
}

void gw_supervision_reloading(struct gw_host *h)
{
    if (!may_reload(h))
        return;
    struct gw_buf b = {0};
    gw_buf_addf(&b, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)gw_now_us());
    tell(h, &b);
}

void gw_supervision_reloaded(struct gw_host *h, const struct gw_err *refused)
{
    if (!may_reload(h))
        return;
    struct gw_buf b = {0};
    char *status = refused != NULL
                       ? gw_asprintf("The new policy is refused, the old one stays in force: %s", refused->text)
                       : gw_asprintf("The policy '%s' is in force", gw_policy_name(h->policy));
    gw_buf_adds(&b, "READY=1");
    add_status(&b, status);
    free(status);
    tell(h, &b);
}

void gw_supervision_stopping(struct gw_host *h)
{
    if (h->supervision.notify == NULL)
        return;
    struct gw_buf b = {0};
    gw_buf_adds(&b, "STOPPING=1");
    bool leaving = gw_sched_current(h->sched) != NULL;
    add_status(&b, leaving ? "Leaving, for the supervisor to start the next process" : "Stopping");
    // The manager's clock for a stop begins to run with this message.
    add_cover(h, &b, h->state == GW_DRAINING_TO_STOP);
    tell(h, &b);
}

void gw_supervision_status(struct gw_host *h, bool draining, const char *fmt, ...)
{
    if (h->supervision.notify == NULL)
        return;
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    struct gw_buf b = {0};
    add_status(&b, text);
    add_cover(h, &b, draining);
    tell(h, &b);
}

void gw_supervision_leaves(struct gw_host *h, int64_t exit_delay_ms)
{
    struct supervision *s = &h->supervision;
    bool launchd = s->by.name != NULL && strcmp(s->by.name, "launchd") == 0;
    s->exit_delay_ms = exit_delay_ms >= 0 ? (uint64_t)exit_delay_ms : launchd ? LAUNCHD_EXIT_MS : 0;
}

void gw_supervision_stays(struct gw_host *h)
{
    h->supervision.exit_delay_ms = 0;
}

static void on_lingered(struct gw_limit *limit)
{
    gw_supervision_stays(limit->data);
}

void gw_supervision_linger(struct gw_host *h)
{
    struct supervision *s = &h->supervision;
    if (s->exit_delay_ms == 0 || h->exit_code != GW_EXIT_OK)
        return;
    gw_limit_start(&h->close_limit, on_lingered, s->exit_delay_ms);
    while (s->exit_delay_ms > 0)
        (void)uv_run(&h->loop, UV_RUN_ONCE);
}
