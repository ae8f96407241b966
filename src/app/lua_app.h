/* lua_app.h - inside of the Lua application: what its files share. Not for other folders. */
#pragma once

#include "app/app.h"
#include "base/err.h"
#include "base/str.h"
#include "script/door.h"

#include <lauxlib.h>
#include <lua.h>
#include <uv.h>

struct gw_lua_app;
struct gw_coro;

/* A doubly linked list; a zeroed link is in no list. */
struct gw_link {
    struct gw_link *next, *prev;
};
void gw_link_init(struct gw_link *head);
void gw_link_add(struct gw_link *head, struct gw_link *link);
void gw_link_remove(struct gw_link *link); /* fine when it is in none */
bool gw_link_empty(const struct gw_link *head);

/* A coroutine of ours: a start, a close, a request, an execution, a WebSocket's handler. */
struct gw_coro {
    struct gw_link link;
    struct gw_lua_app *app;
    lua_State *thread;
    int ref;               /* of the thread, in the registry */
    struct gw_wait *wait;  /* what it waits for, NULL when it waits for nothing of ours */
    struct gw_link runs;   /* that it began and that have not ended; they end with it */
    /* Called once when it has ended; results are on the thread's stack. err NULL: it returned. */
    void (*done)(struct gw_coro *coro, int nresults, const struct gw_err *err);
    void *ud;
};

/* One coroutine waiting for one thing. Made by gw_wait_begin() inside a C function that then returns
 * gw_wait_yield(); ended by gw_wait_end() from the loop. */
struct gw_wait {
    struct gw_link link;
    struct gw_lua_app *app; /* NULL once the application was released: the event then only frees the wait */
    lua_State *thread;
    int ref;
    void (*cancel)(struct gw_wait *wait); /* stops what was waited for; frees wait now or later */
    void *ud;
};

struct gw_lua_app {
    struct gw_app base;
    struct gw_app_env env;           /* as it was when this was opened, and again at its start */
    const struct gw_app_env *shared; /* borrowed */
    struct gw_sources *sources; /* owned reference */
    char *file;
    lua_State *L;
    struct gw_lua_memory memory;
    unsigned generation;
    bool deaf;       /* released: callbacks are dropped */
    bool starting, closing, close_returned, close_told;
    struct gw_err close_err;
    uint64_t chunk_until_ms;                   /* when the main chunk has run for too long; 0: never */
    int ref_close, ref_is_closing, ref_cancel; /* luv's own functions */
    int ref_app, ref_server;                   /* what the file returned, what start returned */
    int ref_request, ref_handlers; /* what was given to gwhost.serve and gwhost.handlers */
    struct gw_link coros, waits, requests, children, executions, sockets, streams, runs;
    unsigned coro_count, request_count, child_count, execution_count;
    unsigned long errors;
};

static inline struct gw_lua_app *gw_lua_app_of(lua_State *L)
{
    return *(struct gw_lua_app **)lua_getextraspace(L);
}

/* luv.c: the trimmed luv and its end. */
void gw_luv_open(struct gw_lua_app *app); /* raises; call protected */
/* Closes handles and cancels requests until nothing is left; returns how many are. */
unsigned gw_luv_sweep(struct gw_lua_app *app, unsigned max_ms);
void gw_luv_close_late_files(struct gw_lua_app *app);

/* coro.c */
/* The function and nargs arguments on top of L's stack are moved into a new coroutine, which runs until it
 * first yields. done may have been called (and *ret_coro be NULL) when this returns. */
void gw_coro_go(struct gw_lua_app *app, int nargs, void (*done)(struct gw_coro *, int, const struct gw_err *),
                void *ud, struct gw_coro **ret_coro);
/* Raises an error inside a coroutine that waits for something of ours; false when it does not. */
bool gw_coro_interrupt(struct gw_coro *coro, const char *message);
void gw_coro_drop(struct gw_coro *coro); /* forgets it; done is not called */
struct gw_coro *gw_coro_of(lua_State *thread); /* NULL: a script made it */

/* Raises when L cannot yield. */
struct gw_wait *gw_wait_begin(lua_State *L, void (*cancel)(struct gw_wait *), void *ud);
int gw_wait_yield(lua_State *L, struct gw_wait *wait);
/* Ends the wait: push leaves the results on the thread's stack and returns their number (it may call
 * lua_error through gw_wait results: first result GW_RAISE, then the error). Frees wait. */
void gw_wait_end(struct gw_wait *wait, int (*push)(lua_State *L, void *ud), void *ud);
/* Called when a request, an execution or the close has ended: tells the host once all have. */
void gw_lua_app_settle(struct gw_lua_app *app);
void gw_lua_app_rehook(lua_State *L); /* the hook that is due, if any, in place of another one */
void gw_lua_app_error(struct gw_lua_app *app, const char *what, const struct gw_err *err);

/* The id of the task or run in whose coroutine L is; NULL when it is in none. */
const char *gw_app_work_current(struct gw_lua_app *app, lua_State *L);
/* The same, and remembers that it has started a command. */
const char *gw_app_work_spawns(struct gw_lua_app *app, lua_State *L);
/* The task or run is over: what it has started ends, too. */
void gw_app_host_over(struct gw_lua_app *app, const char *id);
const char *gw_app_host_owner_of(const struct gw_app *app, int pid);

/* object.c: userdata with methods and with fields that scripts may set. */
/* Pushes a new userdata of size bytes, zeroed, of type name (registered before). */
void *gw_object_new(lua_State *L, const char *name, size_t size);
void gw_object_type(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction gc);
/* Pushes field `key` of the object at idx; returns its Lua type. */
int gw_object_field(lua_State *L, int idx, const char *key);

/* The string argument at idx; raises when it is none, or holds a NUL: what is behind one would be lost in C. */
const char *gw_app_text(lua_State *L, int idx);
const char *gw_app_opt_text(lua_State *L, int idx, const char *otherwise);

/* api_*.c: parts of the module `gwhost`; each adds its functions to the table on top of the stack. */
void gw_api_host(lua_State *L);
void gw_api_http(lua_State *L);
void gw_api_work(lua_State *L);

void gw_api_channel(lua_State *L); /* its objects */

/* Pushes the function of what was given to gwhost.serve(), or nothing. */
bool gw_app_http_push_server(struct gw_lua_app *app, const char *name);
void gw_app_http_push_request(lua_State *L, const struct gw_request_info *info);
/* Runs the function on top of L's stack, which writes stream. */
void gw_app_channel_stream(struct gw_lua_app *app, lua_State *L, struct gw_stream *stream);
/* resumed: an earlier generation accepted it. */
void gw_app_channel_open(struct gw_lua_app *app, struct gw_ws *ws, bool resumed);
void gw_app_channel_release(struct gw_lua_app *app);

void gw_app_http_request(struct gw_app *app, struct gw_request *req);
void gw_app_http_request_gone(struct gw_app *app, struct gw_request *req);
void gw_app_http_ws_adopt(struct gw_app *app, struct gw_ws *ws);
void gw_app_http_ws_message(struct gw_app *app, struct gw_ws *ws, enum gw_ws_kind kind, const char *data, size_t n);
void gw_app_http_ws_closed(struct gw_app *app, struct gw_ws *ws, unsigned code);
void gw_app_http_ws_ready(struct gw_app *app, struct gw_ws *ws);
void gw_app_http_stream_ready(struct gw_app *app, struct gw_stream *stream);
void gw_app_http_stream_closed(struct gw_app *app, struct gw_stream *stream);
void gw_app_http_release(struct gw_lua_app *app);
bool gw_app_work_has_handler(const struct gw_app *app, const char *name);
void gw_app_work_execute(struct gw_app *app, const struct gw_task *task);
void gw_app_work_abort_task(struct gw_app *app, const char *id, enum gw_abort why);
void gw_app_work_abort_run(struct gw_app *app, struct gw_run *run, enum gw_abort why);
void gw_app_work_end_runs(struct gw_link *runs);
void gw_app_work_release(struct gw_lua_app *app);
void gw_app_host_release(struct gw_lua_app *app);
