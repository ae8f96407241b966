/* app.h - a hosted application, whatever it is written in.
 *
 * The host knows an application by this interface alone: it is opened (sources compiled, nothing served),
 * started, asked for answers, told about work, closed, and released. Lua is one kind of it (app/lua/…); a child process can
 * be another. One struct gw_app is one generation. All on the loop thread; nothing here is called from inside
 * an application's own code, and release and free only from the top of the loop. */
#pragma once

#include "net/net.h"
#include "work/work.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct gw_err;
struct gw_sources;
struct gw_app;

/* What an application asks of its host; ops->… are called from the loop, also from inside gw_app calls. */
struct gw_app_ask_restart {
    const char *reason;     /* NULL: none given */
    bool when_idle, force;
    bool http;              /* the application asks for a client of its HTTP API */
    int64_t wait_ms;        /* < 0: not said */
    json_t *continuation;   /* borrowed; NULL: none */
    const char *requester;  /* id of the task or run that asks; NULL: none */
};
struct gw_app_ops {
    /* The start has returned; code 0: it serves. */
    void (*started)(void *ud, struct gw_app *app, int code, const struct gw_err *err);
    /* The close has returned, and its requests and executions have ended; code 0: cleanly. */
    void (*closed)(void *ud, struct gw_app *app, int code, const struct gw_err *err);
    /* Asks for a restart. *ret_told is the object of POST /v1/restart, the caller's reference. */
    int (*restart)(void *ud, const struct gw_app_ask_restart *ask, json_t **ret_told, struct gw_err *err);
    /* The object of GET /v1/restarts/ID, the caller's reference; NULL when there is no such request. */
    json_t *(*restart_outcome)(void *ud, const char *id);
    json_t *(*status)(void *ud); /* the object of GET /v1/status; the caller's reference */
};

/* What all generations share; borrowed, outlives every application. */
struct gw_app_env {
    uv_loop_t *loop;
    struct gw_net *net;
    struct gw_work *work;
    const char *lua_dir;      /* where gwhost.* modules are */
    const char *handlers_dir; /* NULL: none */
    bool allow_exec;
    uint64_t child_nofile;    /* soft limit of open files for children */
    json_t *vars;             /* --set, an object of strings */
    json_t *kept;             /* an object; values that applications keep from one generation to the next */
    const struct gw_app_ops *ops;
    void *ud;
};

/* Facts of one start. */
struct gw_app_start {
    unsigned generation;
    const char *boot_id;
    int64_t startup_started_at_ms; /* Unix ms */
    json_t *listeners;             /* array of addresses; borrowed */
    json_t *continuation;          /* borrowed; NULL: none */
};

/* Facts of an application, for status and metrics. */
struct gw_app_facts {
    const char *kind;           /* "lua" */
    unsigned requests, executions, coroutines, children;
    size_t memory_bytes;
};

struct gw_app_class {
    void (*start)(struct gw_app *app, const struct gw_app_start *start);
    void (*request)(struct gw_app *app, struct gw_request *req);
    void (*request_gone)(struct gw_app *app, struct gw_request *req);
    /* A WebSocket that an earlier generation accepted. */
    void (*ws_adopt)(struct gw_app *app, struct gw_ws *ws);
    void (*ws_message)(struct gw_app *app, struct gw_ws *ws, enum gw_ws_kind kind, const char *data, size_t n);
    void (*ws_closed)(struct gw_app *app, struct gw_ws *ws, unsigned code);
    /* After an -EAGAIN: its client has taken half of what waited. */
    void (*ws_ready)(struct gw_app *app, struct gw_ws *ws);
    void (*stream_ready)(struct gw_app *app, struct gw_stream *stream);
    void (*stream_closed)(struct gw_app *app, struct gw_stream *stream);
    /* The task or run whose command has this pid; NULL when none has. */
    const char *(*owner_of)(const struct gw_app *app, int pid);
    bool (*has_handler)(const struct gw_app *app, const char *name);
    void (*execute)(struct gw_app *app, const struct gw_task *task);
    void (*abort_task)(struct gw_app *app, const char *id, enum gw_abort why);
    void (*abort_run)(struct gw_app *app, struct gw_run *run, enum gw_abort why);
    void (*close)(struct gw_app *app, const char *reason, int64_t restart_expected_ms); /* < 0: none */
    void (*stands)(const struct gw_app *app); /* says in the log what its coroutines wait in */
    struct gw_app_facts (*facts)(const struct gw_app *app);
    /* Lets go of everything outside its own memory: handles, children (killed), requests (answered 503
     * aborted). Runs the loop for at most max_ms. Returns how many handles are still pending: then the
     * memory must be leaked, and free() does that. */
    unsigned (*release)(struct gw_app *app, unsigned max_ms);
    void (*free)(struct gw_app *app); /* after release */
};

struct gw_app {
    const struct gw_app_class *class;
    bool public_http; /* the application answers without the host asking for a token first */
    bool exec_running; /* a command of a task runs: who may be its child may not restart the host */
};

/* Opens the Lua application in file: reads it and what it requires through sources, compiles, runs the main
 * chunk, checks that it returns a table with start(). Nothing is served or torn down by it.
 * Returns 0 or a negative errno with FILE:LINE: message in err. */
/* limit_ms: how long the main chunk may run; 0: as long as it takes. What it calls in C is not interrupted. */
int gw_lua_app_open(const struct gw_app_env *env, struct gw_sources *sources, const char *file, unsigned limit_ms,
                    struct gw_app **ret_app, struct gw_err *err);
