#include "base/err.h"
#include "base/json.h"
#include "base/str.h"
#include "work/inside.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RESULT_BYTES (64 * 1024)
// Quoted again as a string its text grows, at most to the double: what is escaped in it is escaped once more.
#define HEAD_BYTES (30 * 1024)

static const char *const status_names[] = {
    [GW_TASK_QUEUED] = "queued",           [GW_TASK_RUNNING] = "running",
    [GW_TASK_SUCCEEDED] = "succeeded",     [GW_TASK_FAILED] = "failed",
    [GW_TASK_TIMED_OUT] = "timed_out",     [GW_TASK_CANCELLED] = "cancelled",
    [GW_TASK_INTERRUPTED] = "interrupted", [GW_TASK_LOST] = "lost",
};
#define STATUSES (sizeof status_names / sizeof status_names[0])

static const char *const priority_names[] = {
    [GW_PRIORITY_HIGH] = "high", [GW_PRIORITY_NORMAL] = "normal", [GW_PRIORITY_LOW] = "low"};

const char *gw_task_status_name(enum gw_task_status s)
{
    // A row that a later version wrote may have a status that we do not know.
    return (size_t)s < STATUSES ? status_names[s] : "unknown";
}

bool gw_task_status_parse(const char *name, enum gw_task_status *ret)
{
    for (size_t i = 0; i < STATUSES; i++) {
        if (strcmp(status_names[i], name) == 0) {
            *ret = (enum gw_task_status)i;
            return true;
        }
    }
    return false;
}

bool gw_task_id_seq(const char *id, int64_t *ret_seq)
{
    uint64_t seq = 0;
    size_t n = 1;
    for (; id[0] == 't' && n <= 16; n++) {
        char c = id[n];
        if (c >= '0' && c <= '9')
            seq = seq << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            seq = seq << 4 | (uint64_t)(c - 'a' + 10);
        else
            return false;
    }
    if (n <= 16 || seq == 0 || seq > INT64_MAX)
        return false;
    *ret_seq = (int64_t)seq;
    return true;
}

const char *gw_abort_name(enum gw_abort why)
{
    static const char *const names[] = {[GW_ABORT_CANCEL] = "cancel",
                                        [GW_ABORT_TIMEOUT] = "timeout",
                                        [GW_ABORT_COMPACTING] = "compacting",
                                        [GW_ABORT_DRAIN] = "drain"};
    gw_assert((size_t)why < sizeof names / sizeof names[0]);
    return names[why];
}

void gw_task_fini(struct gw_task *t)
{
    free(t->handler);
    free(t->lane);
    free(t->label);
    free(t->title);
    free(t->boot_id);
    free(t->ended_by_boot_id);
    free(t->progress);
    free(t->error);
    json_decref(t->input);
    json_decref(t->result);
    *t = (struct gw_task){0};
}

void gw_task_copy(struct gw_task *to, const struct gw_task *from)
{
    *to = *from;
    to->handler = gw_strdup(from->handler);
    to->lane = gw_strdup(from->lane);
    to->label = gw_strdup(from->label);
    to->title = gw_strdup(from->title);
    to->boot_id = gw_strdup(from->boot_id);
    to->ended_by_boot_id = gw_strdup(from->ended_by_boot_id);
    to->progress = gw_strdup(from->progress);
    to->error = gw_strdup(from->error);
    to->input = NULL;
    to->result = NULL;
}

static void set_text(json_t *o, const char *key, const char *text)
{
    gw_json_set(o, key, text != NULL ? gw_json_string(text) : NULL);
}

static void set_time(json_t *o, const char *key, int64_t at)
{
    gw_json_set(o, key, at != 0 ? json_integer(at) : NULL);
}

json_t *gw_task_json(const struct gw_task *t)
{
    bool known = (size_t)t->priority < sizeof priority_names / sizeof priority_names[0];
    json_t *o = json_object();
    set_text(o, "task_id", t->id);
    set_text(o, "handler", t->handler);
    set_text(o, "lane", t->lane);
    set_text(o, "priority", known ? priority_names[t->priority] : "unknown");
    set_text(o, "label", t->label);
    set_text(o, "title", t->title);
    set_text(o, "status", gw_task_status_name(t->status));
    set_time(o, "created_at", t->created_at);
    set_time(o, "started_at", t->started_at);
    set_time(o, "ended_at", t->ended_at);
    gw_json_set(o, "attempts", json_integer(t->attempts));
    set_text(o, "boot_id", t->boot_id);
    set_text(o, "ended_by_boot_id", t->ended_by_boot_id);
    set_text(o, "progress", t->progress);
    gw_json_set(o, "result", json_incref(t->result));
    set_text(o, "error", t->error);
    return o;
}

char *gw_task_bound_result(const json_t *result, json_t **ret_value)
{
    if (result == NULL) {
        *ret_value = NULL;
        return NULL;
    }
    char *text = gw_json_text(result);
    size_t n = strlen(text);
    if (n <= RESULT_BYTES) {
        // A value of its own: the executor may go on changing the one it lent.
        *ret_value = json_deep_copy(result);
        return text;
    }
    json_t *cut = json_object();
    gw_json_set(cut, "truncated", json_true());
    gw_json_set(cut, "bytes", json_integer((json_int_t)n));
    gw_json_set(cut, "head", gw_json_stringn(text, gw_utf8_clip(text, HEAD_BYTES)));
    free(text);
    *ret_value = cut;
    return gw_json_text(cut);
}

char *gw_task_bound_text(const char *text, size_t max)
{
    if (text == NULL)
        return NULL;
    struct gw_buf b = {0};
    gw_utf8_repair(&b, text, strnlen(text, max * 2));
    gw_buf_add(&b, "", 0);
    char *bounded = gw_memdup0(b.data != NULL ? b.data : "", b.data != NULL ? gw_utf8_clip(b.data, max) : 0);
    gw_buf_fini(&b);
    return bounded;
}

const char *gw_work_error_words(int code, const struct gw_err *err)
{
    if (err != NULL && err->text[0] != '\0')
        return err->text;
    return code == -ESHUTDOWN ? "draining: no new work is taken; try again in a moment" : gw_strerror(code);
}

const char *gw_work_error_name(int code)
{
    switch (code) {
    case -EINVAL:
        return "bad_request";
    case -EBUSY:
        return "busy";
    case -ESHUTDOWN:
        return "draining";
    case -EEXIST:
    case -EALREADY:
        return "conflict";
    case -ENOENT:
        return "not_found";
    default:
        return "store_unavailable";
    }
}
