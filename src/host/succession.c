/* succession.c - another process comes after this one: started, proved, told to go on, given the connections.
 *
 * The order, and who may touch what when:
 *   checking  an update's file says its version
 *   proving   it has the lock and the listeners, reads policy and application, and says ready; nothing is torn
 *             down here before that
 *   ready     it waits while this host drains and closes its application
 *   letting   this host writes what the store has to have, and closes it
 *   starting  told to go: the store is its own, its application starts; requests that arrive are held here
 *   passing   connections travel, frozen on both sides
 *   served    it serves. From here on this process only ends
 * Whatever goes wrong before `served` ends it, and this host goes on. */
#include "host/handover.h"

#include "base/sha.h"
#include "loop/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { KEEP_BYTES = 4096 };

static void fail(struct gw_host *h, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

// ---- its end ----

static void give_back_spares(struct succession *s)
{
    while (s->spare_count > 0)
        (void)close(s->spare_fds[--s->spare_count]);
}

/* The store has just been closed, and this host goes on accepting: descriptors for opening it again are kept. */
static void keep_spares(struct succession *s)
{
    int n = (int)(sizeof s->spare_fds / sizeof *s->spare_fds);
    while ((int)s->spare_count < n && (s->spare_fds[s->spare_count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        s->spare_count++;
}

void gw_succession_depart(struct gw_host *h)
{
    struct succession *s = &h->succession;
    gw_limit_stop(&s->limit);
    s->channel = gw_channel_close(s->channel);
    give_back_spares(s);
}

void gw_succession_end(struct gw_host *h)
{
    struct succession *s = &h->succession;
    gw_limit_stop(&s->limit);
    if (s->check != NULL)
        gw_child_abandon(s->check);
    s->check = NULL;
    if (h->sentry != NULL)
        gw_sentry_heir(h->sentry, -1);
    // Ended before it can see that we have gone: it would take over.
    if (s->stage != GW_SUCC_SERVED)
        gw_successor_kill(&s->process, NULL, 0);
    gw_successor_leave(&s->process);
    s->channel = gw_channel_close(s->channel);
    give_back_spares(s);
    s->stage = GW_SUCC_NONE;
    s->switch_waits = false;
}

void gw_succession_stop(struct gw_host *h)
{
    // It is the host now: who asked for a stop asked for its stop.
    if (h->succession.stage == GW_SUCC_SERVED)
        gw_successor_signal(&h->succession.process, SIGTERM);
    else
        gw_succession_end(h);
}

/* It has failed, in whatever stage: it ends, and the restart goes on without it or comes to nothing. */
static void fail(struct gw_host *h, int code, const char *fmt, ...)
{
    struct succession *s = &h->succession;
    if (s->stage == GW_SUCC_NONE || s->stage == GW_SUCC_SERVED)
        return;
    char text[200], words[64] = "";
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    bool waits = s->switch_waits, ours = s->stage == GW_SUCC_LETTING;
    gw_successor_kill(&s->process, words, sizeof words);
    gw_succession_end(h);
    (void)gw_err_set(&s->lost, code, "%s: %s%s",
                     ours ? "nothing was handed over" : "the next process does not come up", text, words);
    gw_log(GW_ERROR, "respawn.failed", json_pack("{so}", "error", gw_json_string(s->lost.text)), "%s; it is ended",
           s->lost.text);
    gw_bundle_write(h, "gateway.restart_respawn_failed", &s->lost);
    gw_update_failed(h, &s->lost);
    if (h->state == GW_PREPARING && s->update) {
        gw_host_post(h, GW_EV_ROLLED_BACK);
        return;
    }
    if (h->state == GW_PREPARING || h->state == GW_DRAINING || h->state == GW_RESTARTING ||
        h->state == GW_SWITCHING || h->state == GW_HANDING_OVER)
        gw_prepare_stay(h, ours ? "the task store could not be let go" : "the next process could not take over");
    if (h->state == GW_PREPARING)
        gw_prepare_here(h);
    else if (h->state == GW_HANDING_OVER)
        gw_host_post(h, GW_EV_SUCCESSOR_LOST);
    else if (h->state == GW_SWITCHING && waits)
        gw_host_post(h, GW_EV_STAY);
}

static void on_late(struct gw_limit *limit)
{
    struct gw_host *h = limit->data;
    static const char *const doing[] = {"",      "say its version",      "get ready", "", "",
                                        "start", "take the connections", ""};
    if (h->succession.stage == GW_SUCC_LETTING) {
        fail(h, -ETIMEDOUT, "the task store was not written and closed within %llu ms: its disk is slow, or does not answer",
             (unsigned long long)h->succession.health_ms);
        return;
    }
    fail(h, -ETIMEDOUT, "it did not %s within %llu ms", doing[h->succession.stage],
         (unsigned long long)h->succession.health_ms);
}

static void arm(struct gw_host *h)
{
    gw_limit_start(&h->succession.limit, on_late, h->succession.health_ms);
}

// ---- letters ----

static void on_ready(struct gw_host *h, const struct gw_letter *letter)
{
    struct succession *s = &h->succession;
    const json_t *head = letter->head;
    struct gw_err err = {0};
    if (gw_handover_check_ready(h, s->boot_id, head, &err) < 0) {
        fail(h, err.code, "%s", err.text);
        return;
    }
    gw_handover_take_proved(h, letter);
    const char *version = json_string_value(json_object_get(head, "version"));
    (void)snprintf(s->version, sizeof s->version, "%s", version != NULL ? version : "");
    s->moves = json_integer_value(json_object_get(head, "connections")) == GW_NET_HANDOVER_VERSION;
    gw_limit_stop(&s->limit);
    json_int_t ms = (json_int_t)(gw_now_ms() - s->spawned_ms);
    gw_log(GW_INFO, "respawn.ready", json_pack("{sisI}", "child_pid", (int)s->process.pid, "ms", ms),
           "pid %d is ready after %lld ms%s", (int)s->process.pid, (long long)ms,
           h->mode == GW_MODE_REEXEC ? "; it was the trial and ends" : "");
    bool waits = s->switch_waits;
    if (h->mode == GW_MODE_REEXEC)
        gw_succession_end(h);
    s->stage = GW_SUCC_READY;
    // Who is answered from here on knows before the connection ends.
    gw_net_say_close(h->net, !s->moves);
    if (!s->moves)
        gw_log(GW_WARN, "respawn.connections_stay", NULL,
               "the next process does not know how this one describes connections: they are closed politely");
    if (h->state == GW_PREPARING)
        gw_prepare_done(h);
    else if (h->state == GW_SWITCHING && waits)
        gw_host_post(h, GW_EV_YIELD);
}

/* Its application has started: now the connections, which nobody touches until it says that it serves. */
static void pass(struct gw_host *h)
{
    struct succession *s = &h->succession;
    s->stage = GW_SUCC_PASSING;
    arm(h);
    gw_control_pause(h, true);
    gw_net_freeze(h->net);
    uint64_t after = 0;
    struct gw_net_batch batch;
    while (s->moves && gw_net_describe(h->net, &after, &batch)) {
        gw_channel_send(s->channel, "connections", json_incref(batch.head), batch.blob.data, batch.blob.len,
                        batch.fds, batch.fd_count);
        gw_net_batch_fini(&batch);
    }
    int control = gw_control_fd(h);
    gw_channel_send(s->channel, "connections", gw_handover_last(h), NULL, 0, &control, control >= 0 ? 1 : 0);
}

static void received(void *ud, struct gw_letter *letter)
{
    struct gw_host *h = ud;
    struct succession *s = &h->succession;
    const char *boot_id = json_string_value(json_object_get(letter->head, "boot_id"));
    if (strcmp(letter->type, "fail") == 0 && json_is_true(json_object_get(letter->head, "stop"))) {
        // The stop that it was asked for is that of the host.
        gw_log(GW_INFO, "stop.accepted", json_pack("{si}", "child_pid", (int)s->process.pid),
               "pid %d was told to stop: this host stops", (int)s->process.pid);
        h->stop_by_signal = true;
        gw_host_post_stop(h);
    } else if (strcmp(letter->type, "fail") == 0) {
        const char *error = json_string_value(json_object_get(letter->head, "error"));
        if (json_is_true(json_object_get(letter->head, "refused")) && h->state == GW_PREPARING && !s->update) {
            // It has judged the files for us: they would be refused here, too.
            (void)gw_err_set(&h->prepare_err, -EINVAL, "%s", error != NULL ? error : "");
            gw_succession_end(h);
            gw_host_post(h, GW_EV_PREPARE_FAILED);
            return;
        }
        fail(h, -ECANCELED, "it says: %s", error != NULL ? error : "nothing");
    } else if (strcmp(letter->type, "ready") == 0 && s->stage == GW_SUCC_PROVING) {
        on_ready(h, letter);
    } else if (strcmp(letter->type, "started") == 0 && s->stage == GW_SUCC_STARTING) {
        pass(h);
    } else if (strcmp(letter->type, "serving") == 0 && s->stage == GW_SUCC_PASSING && boot_id != NULL &&
               strcmp(boot_id, s->boot_id) == 0) {
        // The word that cannot be taken back: its acknowledgement lets the other one touch the connections.
        gw_limit_stop(&s->limit);
        s->stage = GW_SUCC_SERVED;
        h->departed = true;
        gw_host_post(h, GW_EV_SERVING);
    } else {
        fail(h, -EPROTO, "it says '%.40s', which is not expected now", letter->type);
    }
}

static void ended(void *ud, const struct gw_err *why)
{
    struct gw_host *h = ud;
    fail(h, why->code, "%s", why->code == -EPIPE ? "it closed its end" : why->text);
}

// ---- its beginning ----

static void spawn(struct gw_host *h)
{
    static const struct gw_channel_ops ops = {.received = received, .ended = ended};
    struct succession *s = &h->succession;
    struct gw_err err = {0};
    int pair[2];
    s->stage = GW_SUCC_PROVING;
    gw_random_hex(16, s->boot_id);
    s->spawned_ms = gw_now_ms();
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        fail(h, -errno, "no pair of sockets for it: %s", gw_strerror(errno));
        return;
    }
    struct gw_successor_spec spec = {
        .program = s->program, .argv = h->options.argv, .pair_fd = pair[1], .nofile = h->options.child_nofile,
        .sibling = gw_supervision_follows(h) && h->mode != GW_MODE_REEXEC};
    int rc = gw_successor_spawn(&spec, &s->process, &err);
    (void)close(pair[1]);
    if (rc < 0) {
        (void)close(pair[0]);
        fail(h, rc, "%s", err.text);
        return;
    }
    gw_sentry_heir(h->sentry, s->process.pidfd);
    gw_log(GW_INFO, "respawn.spawned", json_pack("{siso}", "child_pid", (int)s->process.pid, "program", gw_json_string(s->program)),
           "pid %d is started from %s and has to prove itself", (int)s->process.pid, s->program);
    if (gw_channel_open(&h->loop, pair[0], &ops, h, &s->channel, &err) < 0) {
        (void)close(pair[0]);
        fail(h, err.code, "%s", err.text);
        return;
    }
    struct gw_fd_list fds = {.count = 0};
    struct gw_buf sources = {0};
    json_t *hello = gw_handover_hello(h, s->boot_id, gw_succession_program(h), false, &sources, &fds);
    gw_json_set(hello, "trial", json_boolean(h->mode == GW_MODE_REEXEC));
    gw_channel_send(s->channel, "hello", hello, sources.data, sources.len, fds.fds, fds.count);
    gw_buf_fini(&sources);
}

static void on_checked(void *ud, struct gw_child *child, const struct gw_child_result *result)
{
    struct gw_host *h = ud;
    struct succession *s = &h->succession;
    const char *said = result->out.data != NULL ? result->out.data : "";
    int contract = 0;
    s->check = NULL;
    if (result->signal != 0 || result->exit_code > 0) { // of one whose end is not known counts what it said
        fail(h, -ENOEXEC, "'%.100s --version' %s %d", s->program,
             result->signal != 0 ? "was ended by signal" : "exited with",
             result->signal != 0 ? result->signal : result->exit_code);
    } else if (sscanf(said, "gwhost %63s contract %d", s->version, &contract) != 2) {
        fail(h, -ENOEXEC, "'%.100s --version' does not say 'gwhost X.Y.Z contract %d': it is no gwhost", s->program,
             GW_CONTRACT);
    } else if (contract != GW_CONTRACT) {
        fail(h, -EPROTO, "%.100s speaks contract %d, this host speaks %d: stop this host and start that one",
             s->program, contract, GW_CONTRACT);
    } else {
        spawn(h);
    }
}

/* An update's file is asked who it is before it is given anything. */
static void check(struct gw_host *h)
{
    struct succession *s = &h->succession;
    struct gw_err err = {0};
    const char *argv[] = {s->program, "--version", NULL};
    struct gw_child_spec spec = {.argv = argv, .keep_bytes = KEEP_BYTES, .nofile = h->options.child_nofile};
    s->stage = GW_SUCC_CHECKING;
    if (gw_child_spawn(&h->loop, &spec, on_checked, h, &s->check, &err) < 0) {
        s->check = NULL;
        fail(h, err.code, "%s", err.text);
    }
}

void gw_succession_prove(struct gw_host *h, const char *program, bool update, int64_t health_ms)
{
    struct succession *s = &h->succession;
    gw_succession_end(h);
    s->lost = (struct gw_err){0};
    (void)snprintf(s->program, sizeof s->program, "%s", program);
    s->update = update;
    s->moves = false;
    s->version[0] = '\0';
    s->health_ms = health_ms > 0 ? (uint64_t)health_ms : GW_HEALTH_MS;
    s->stage = GW_SUCC_CHECKING;
    arm(h);
    gw_work_tidy(h->work); // there is time for it now, and not at the switch
    if (update)
        check(h);
    else
        spawn(h);
}

void gw_succession_switch(struct gw_host *h)
{
    struct succession *s = &h->succession;
    if (s->stage == GW_SUCC_CHECKING || s->stage == GW_SUCC_PROVING) {
        s->switch_waits = true; // an update that came late: it is bounded by its health budget
        return;
    }
    if (s->stage == GW_SUCC_READY && h->store_down) { // and what it has to write is in this process
        s->switch_waits = true;
        fail(h, -EIO, "the task store cannot be written: %s", h->store_err.text);
        return;
    }
    gw_host_post(h, s->stage == GW_SUCC_READY ? GW_EV_YIELD : GW_EV_STAY);
}

const char *gw_succession_program(const struct gw_host *h)
{
    return h->succession.update ? h->succession.program : h->options.program;
}

static void become(struct gw_host *h)
{
    struct gw_err err = {0};
    int rc = gw_reexec(h, h->succession.program, &err); // returns only if there is no other image
    if (rc == -ECANCELED)
        gw_succession_end(h); // a stop came first, and is on its way
    else
        fail(h, rc, "%s", err.text);
}

static void on_alone(void *ud)
{
    struct gw_host *h = ud;
    gw_limit_stop(&h->close_limit);
    if (h->state == GW_HANDING_OVER && h->succession.stage == GW_SUCC_STARTING)
        become(h);
}

static void on_alone_late(struct gw_limit *limit)
{
    on_alone(limit->data); // who has not taken its answer by now is cut
}

void gw_succession_go(struct gw_host *h)
{
    struct succession *s = &h->succession;
    gw_watchdog_arm(h, gw_now_ms() + (uint64_t)s->health_ms * 3 + GW_FORCED_EXIT_MS, "handing_over",
                    "gateway.restart_shutdown_timeout");
    if (s->stage != GW_SUCC_READY) { // it was lost a moment ago
        gw_host_post(h, GW_EV_SUCCESSOR_LOST);
        return;
    }
    // The store has one owner: the next process is told to go once ours has written everything and closed the file.
    s->stage = GW_SUCC_LETTING;
    arm(h);
    gw_work_let_go(h->work);
}

void gw_succession_let_go(struct gw_host *h, int code, const struct gw_err *err)
{
    struct succession *s = &h->succession;
    if (s->stage != GW_SUCC_LETTING)
        return;
    if (code < 0) {
        fail(h, code, "the task store cannot be written: %s", err->text);
        return;
    }
    gw_limit_stop(&s->limit);
    keep_spares(s);
    s->stage = GW_SUCC_STARTING;
    if (h->mode == GW_MODE_REEXEC && (s->moves || gw_net_counts(h->net).open == 0)) {
        become(h);
        return;
    }
    if (h->mode == GW_MODE_REEXEC) { // who waits to be accepted waits for the next image
        gw_net_unlisten(h->net);
        gw_net_refuse_held(h->net, 503, "draining", "the gateway restarts; try again");
        gw_limit_start(&h->close_limit, on_alone_late, GW_CLOSE_MS);
        gw_net_wind_down(h->net, 1012, "restarting", GW_IDLE_GRACE_MS, on_alone, h);
        return;
    }
    arm(h);
    gw_channel_send(s->channel, "go", gw_handover_go(h), NULL, 0, NULL, 0);
}
