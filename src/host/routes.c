/* routes.c - requests as they arrive: what the core answers itself, what waits for whom. */
#include "host/inside.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void answer_json(struct gw_request *req, int status, json_t *value)
{
    char *text = gw_json_text(value);
    struct gw_header headers[] = {{"Content-Type", "application/json"}, {"Cache-Control", "no-store"}};
    gw_answer(req, status, headers, 2, text, strlen(text));
    free(text);
    json_decref(value);
}

static void refuse_method(struct gw_request *req)
{
    static const char body[] =
        "{\"error\":{\"code\":\"method_not_allowed\",\"message\":\"use GET or HEAD here\"}}";
    struct gw_header headers[] = {{"Content-Type", "application/json"}, {"Allow", "GET, HEAD"}};
    gw_answer(req, 405, headers, 2, body, sizeof body - 1);
}

/* RFC 6455 4.4: who speaks another version is told ours. */
static void refuse_version(struct gw_request *req)
{
    static const char body[] = "{\"error\":{\"code\":\"bad_request\",\"message\":\"the version of a WebSocket handshake "
                               "is 13, once\"}}";
    struct gw_header headers[] = {
        {"Content-Type", "application/json"}, {"Sec-WebSocket-Version", "13"}, {"Upgrade", "websocket"}};
    gw_answer(req, 426, headers, 3, body, sizeof body - 1);
}

static void healthz(struct gw_host *h, struct gw_request *req)
{
    json_t *o = json_pack("{sssisssi}", "status", "ok", "pid", (int)getpid(), "boot_id", h->boot_id, "generation",
                          (int)h->generation);
    if (h->safe_mode)
        gw_json_set(o, "safe_mode", json_true());
    answer_json(req, 200, o);
}

static void readyz(struct gw_host *h, struct gw_request *req)
{
    const char *state = gw_state_public(h->state);
    bool ready = strcmp(state, "running") == 0;
    answer_json(req, ready ? 200 : 503,
                json_pack("{sssisssiss}", "status", ready ? "ready" : state, "pid", (int)getpid(), "boot_id",
                          h->boot_id, "generation", (int)h->generation, "store", gw_status_store(h)));
}

static void status(struct gw_host *h, struct gw_request *req)
{
    answer_json(req, 200, gw_status(h));
}

static void metrics(struct gw_host *h, struct gw_request *req)
{
    char *text = gw_metrics(h);
    struct gw_header headers[] = {{"Content-Type", "text/plain; version=0.0.4"}};
    gw_answer(req, 200, headers, 1, text, strlen(text));
    free(text);
}

static const struct {
    const char *path;
    bool open; /* no token is asked for */
    void (*answer)(struct gw_host *h, struct gw_request *req);
} core[] = {{"/healthz", true, healthz},
            {"/readyz", true, readyz},
            {"/v1/status", false, status},
            {"/metrics", false, metrics}};

// ---- who answers ----

static bool serves(const struct gw_host *h)
{
    return h->state == GW_RUNNING || h->state == GW_PREPARING || h->state == GW_DRAINING ||
           h->state == GW_DRAINING_TO_STOP;
}

static void hand_on(struct gw_host *h, struct gw_request *req)
{
    switch (h->state) {
    case GW_RUNNING:
    case GW_PREPARING:
    case GW_DRAINING:
    case GW_DRAINING_TO_STOP:
        h->app->class->request(h->app, req);
        break;
    case GW_FIRST_START:
    case GW_NEXT_START:
    case GW_REVERTING:
    case GW_RESTARTING:
    case GW_SWITCHING:
    case GW_HANDING_OVER:
    case GW_STANDING_BY:
    case GW_SUCCEEDING:
    case GW_ARRIVING:
        gw_net_hold(h->net, req, "draining", "the gateway restarts; try again in a moment");
        break;
    case GW_FAILED:
        gw_answer_error(req, 503, "draining", "the gateway failed to start and waits for its operator", 5000);
        break;
    default:
        if (h->departed) // a connection that could not be handed over; a new one has an answer at once
            gw_answer_error(req, 503, "draining", "another process serves now; ask again on a new connection", 1000);
        else
            gw_answer_error(req, 503, "stopping", "the gateway stops", 0);
        break;
    }
}

static void on_request(void *ud, struct gw_request *req)
{
    struct gw_host *h = ud;
    const struct gw_request_info *info = gw_request_info(req);
    if (strcmp(info->target, "*") == 0) { // OPTIONS alone has it, and asks for nothing but a sign of life
        struct gw_header allow = {"Allow", "GET, HEAD, POST, OPTIONS"};
        gw_answer(req, 204, &allow, 1, NULL, 0);
        return;
    }
    bool get = strcmp(info->method, "GET") == 0 || strcmp(info->method, "HEAD") == 0;
    for (size_t i = 0; i < sizeof core / sizeof *core; i++) {
        size_t n = strlen(core[i].path);
        if (core[i].open && strncmp(info->path, core[i].path, n) == 0 && strcmp(info->path + n, "/") == 0) {
            gw_answer_error(req, 404, "not_found", "there is no slash behind this one", 0);
            return;
        }
        if (strcmp(info->path, core[i].path) != 0)
            continue;
        if (!core[i].open && !gw_admit(h, req, false))
            return;
        if (get)
            core[i].answer(h, req);
        else
            refuse_method(req);
        return;
    }
    // While nobody serves it is as it was; who is held until then is asked again by the next generation.
    bool open = h->app != NULL && h->app->public_http;
    if (!gw_admit(h, req, open || (h->public_http && !serves(h))))
        return;
    if (info->other_websocket)
        refuse_version(req);
    else
        hand_on(h, req);
}

static void on_request_gone(void *ud, struct gw_request *req)
{
    struct gw_host *h = ud;
    if (h->app != NULL)
        h->app->class->request_gone(h->app, req);
}

static void on_ws_message(void *ud, struct gw_ws *ws, enum gw_ws_kind kind, const char *data, size_t n)
{
    struct gw_host *h = ud;
    if (h->app != NULL)
        h->app->class->ws_message(h->app, ws, kind, data, n);
}

static void on_ws_closed(void *ud, struct gw_ws *ws, unsigned code)
{
    struct gw_host *h = ud;
    if (h->app != NULL)
        h->app->class->ws_closed(h->app, ws, code);
}

static void on_stream_closed(void *ud, struct gw_stream *stream)
{
    struct gw_host *h = ud;
    if (h->app != NULL)
        h->app->class->stream_closed(h->app, stream);
}

static void on_ws_ready(void *ud, struct gw_ws *ws)
{
    struct gw_host *h = ud;
    if (h->app != NULL)
        h->app->class->ws_ready(h->app, ws);
}

static void on_stream_ready(void *ud, struct gw_stream *stream)
{
    struct gw_host *h = ud;
    if (h->app != NULL)
        h->app->class->stream_ready(h->app, stream);
}

const struct gw_net_ops gw_routes = {.request = on_request,
                                     .request_gone = on_request_gone,
                                     .ws_message = on_ws_message,
                                     .ws_closed = on_ws_closed,
                                     .stream_closed = on_stream_closed,
                                     .stream_ready = on_stream_ready,
                                     .ws_ready = on_ws_ready,
                                     .accepting = gw_room_accepting};
