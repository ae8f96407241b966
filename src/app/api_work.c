/* api_work.c - gwhost.submit task tasks cancel run handlers: accepted work, seen from Lua.
 * lua/gwhost/meta.lua is the reference for what scripts see. */
#include "app/lua_app.h"
#include "base/json.h"
#include "base/time.h"
#include "script/value.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

/* A task that this generation executes; the userdata holds one. */
struct execution {
    struct gw_link link;
    struct gw_lua_app *app;
    struct gw_coro *coro; /* NULL once it has ended */
    char id[40];
    bool is_exec, spawned; /* spawned: it has started a command */
};

/* A run; the userdata holds one. */
struct run {
    struct gw_link link;
    struct gw_lua_app *app;
    struct gw_run *run;    /* NULL once it has ended */
    struct gw_coro *owner; /* the coroutine that began it: the run is in its list; NULL: in the application's */
    bool spawned;
    int ref;               /* of the object while the run lasts */
};

// ---- answers of the store ----

/* What a callback of work/ brings, until it is on the waiting coroutine's stack. */
struct outcome {
    int code;
    const struct gw_task *tasks;
    size_t count;
    const char *next;
    bool existing, list;
    const struct gw_err *err;
};

static void push_task(lua_State *L, const struct gw_task *task)
{
    json_t *json = gw_task_json(task);
    gw_lua_push_json(L, json, 0);
    json_decref(json);
}

static int push_outcome(lua_State *L, void *ud)
{
    const struct outcome *o = ud;
    if (o->code < 0) {
        lua_pushnil(L);
        lua_createtable(L, 0, 2);
        lua_pushstring(L, gw_work_error_name(o->code));
        lua_setfield(L, -2, "code");
        // What the store says names files of this machine: it is for the log, not for whoever asks.
        bool store = o->code != -EINPROGRESS && strcmp(gw_work_error_name(o->code), "store_unavailable") == 0;
        lua_pushstring(L, store ? "the task store cannot be used right now; try again in a moment"
                                : gw_work_error_words(o->code, o->err));
        lua_setfield(L, -2, "message");
        return 2;
    }
    if (!o->list) {
        push_task(L, o->tasks);
        lua_pushboolean(L, o->existing);
        return 2;
    }
    lua_createtable(L, (int)o->count, 0);
    gw_lua_mark_array(L);
    for (size_t i = 0; i < o->count; i++) {
        push_task(L, &o->tasks[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_pushstring(L, o->next);
    return 2;
}

static void on_submitted(void *ud, int code, const struct gw_task *task, bool existing, const struct gw_err *err)
{
    struct outcome o = {.code = code, .tasks = task, .count = 1, .existing = existing, .err = err};
    gw_wait_end(ud, push_outcome, &o);
}

static void on_task(void *ud, int code, const struct gw_task *task, const struct gw_err *err)
{
    struct outcome o = {.code = code, .tasks = task, .count = 1, .err = err};
    gw_wait_end(ud, push_outcome, &o);
}

static void on_tasks(void *ud, int code, const struct gw_task *tasks, size_t n, const char *next,
                     const struct gw_err *err)
{
    struct outcome o = {.code = code, .tasks = tasks, .count = n, .next = next, .list = true, .err = err};
    gw_wait_end(ud, push_outcome, &o);
}

static void cancel_store_wait(struct gw_wait *wait)
{
    // The store answers all the same, and gw_wait_end() frees it then.
}

// ---- tasks ----

static const char *opt_field(lua_State *L, const char *name)
{
    if (lua_getfield(L, 1, name) == LUA_TNIL)
        return NULL;
    if (lua_type(L, -1) != LUA_TSTRING)
        luaL_error(L, "submit: %s is a %s, not a string", name, luaL_typename(L, -1));
    size_t n;
    const char *text = lua_tolstring(L, -1, &n); // stays on the stack
    if (strlen(text) != n)
        luaL_error(L, "submit: %s holds a NUL", name);
    return text;
}

static bool opt_retry(lua_State *L, const char *name, const char *otherwise)
{
    const char *value = opt_field(L, name);
    if (value == NULL || strcmp(value, otherwise) == 0)
        return false;
    if (strcmp(value, "retry") != 0)
        luaL_error(L, "submit: %s is '%s', not 'retry' or '%s'", name, value, otherwise);
    return true;
}

static int api_submit(lua_State *L)
{
    struct gw_lua_app *app = gw_lua_app_of(L);
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    luaL_checkstack(L, 20, NULL);
    struct gw_task_spec spec = {.priority = GW_PRIORITY_NORMAL};
    spec.handler = opt_field(L, "handler");
    if (spec.handler == NULL)
        return luaL_error(L, "submit: handler is missing");
    spec.lane = opt_field(L, "lane");
    spec.label = opt_field(L, "label");
    spec.title = opt_field(L, "title");
    spec.idempotency_key = opt_field(L, "idempotency_key");
    spec.body_sha256 = opt_field(L, "body_sha256");
    spec.retry_on_crash = opt_retry(L, "on_crash", "lose");
    spec.retry_on_interrupt = opt_retry(L, "on_interrupt", "interrupt");
    const char *priority = opt_field(L, "priority");
    if (priority != NULL) {
        static const char *const names[] = {"high", "normal", "low"};
        int i = 0;
        while (i < 3 && strcmp(names[i], priority) != 0)
            i++;
        if (i == 3)
            return luaL_error(L, "submit: priority is '%s', not 'high', 'normal' or 'low'", priority);
        spec.priority = (enum gw_priority)i;
    }
    lua_getfield(L, 1, "timeout_ms");
    if (!lua_isnil(L, -1) && !gw_lua_ms(L, -1, 1, &spec.timeout_ms))
        return luaL_error(L, "submit: timeout_ms " GW_MS_WORDS, 1);
    struct gw_err err = {0};
    json_t *input = NULL;
    struct gw_wait *wait = gw_wait_begin(L, cancel_store_wait, NULL);
    if (lua_getfield(L, 1, "input") != LUA_TNIL && gw_lua_to_json(L, -1, &input, &err) < 0) {
        struct outcome o = {.code = -EINVAL, .err = &err};
        gw_link_remove(&wait->link);
        luaL_unref(L, LUA_REGISTRYINDEX, wait->ref);
        free(wait);
        return push_outcome(L, &o);
    }
    spec.input = input;
    gw_task_submit(app->env.work, &spec, on_submitted, wait);
    json_decref(input);
    return gw_wait_yield(L, wait);
}

static int api_task(lua_State *L)
{
    const char *id = gw_app_text(L, 1);
    struct gw_wait *wait = gw_wait_begin(L, cancel_store_wait, NULL);
    gw_task_get(gw_lua_app_of(L)->env.work, id, on_task, wait);
    return gw_wait_yield(L, wait);
}

static int api_cancel(lua_State *L)
{
    const char *id = gw_app_text(L, 1);
    struct gw_wait *wait = gw_wait_begin(L, cancel_store_wait, NULL);
    gw_task_cancel(gw_lua_app_of(L)->env.work, id, on_task, wait);
    return gw_wait_yield(L, wait);
}

static int api_tasks(lua_State *L)
{
    struct gw_task_filter filter = {.status = -1};
    lua_settop(L, 1);
    if (!lua_isnil(L, 1)) {
        enum gw_task_status status;
        luaL_checktype(L, 1, LUA_TTABLE);
        const char *name = opt_field(L, "status");
        if (name != NULL && !gw_task_status_parse(name, &status))
            return luaL_error(L, "tasks: '%s' is no status", name);
        filter.status = name != NULL ? (int)status : -1;
        filter.after = opt_field(L, "after");
        lua_getfield(L, 1, "limit");
        lua_Integer limit = luaL_optinteger(L, -1, 100);
        luaL_argcheck(L, limit >= 1 && limit <= 1000, 1, "limit is 1 to 1000");
        filter.limit = (unsigned)limit;
    }
    struct gw_wait *wait = gw_wait_begin(L, cancel_store_wait, NULL);
    gw_task_list(gw_lua_app_of(L)->env.work, &filter, on_tasks, wait);
    return gw_wait_yield(L, wait);
}

// ---- executions ----

static int api_handlers(lua_State *L)
{
    struct gw_lua_app *app = gw_lua_app_of(L);
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    luaL_unref(L, LUA_REGISTRYINDEX, app->ref_handlers);
    app->ref_handlers = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

static int task_progress(lua_State *L)
{
    struct execution *x = luaL_checkudata(L, 1, "gwhost.Task");
    (void)gw_task_progress(x->app->env.work, x->id, x->app->generation, gw_app_text(L, 2));
    return 0;
}

/* What a handler returned, read inside a protected call. */
struct ending {
    lua_State *thread;
    int nresults;
    json_t *result;
    struct gw_err err;
    bool failed;
};

static int read_ending(lua_State *L)
{
    struct ending *e = lua_touserdata(L, 1);
    if (e->nresults == 0)
        return 0;
    int first = lua_gettop(e->thread) - e->nresults + 1;
    lua_pushvalue(e->thread, first);
    lua_xmove(e->thread, L, 1);
    if (!lua_isnil(L, -1) && gw_lua_to_json(L, -1, &e->result, &e->err) < 0)
        return luaL_error(L, "the handler's result: %s", e->err.text);
    if (e->nresults > 1 && !lua_isnil(e->thread, first + 1)) {
        // A second result is an error beside the result, as a command's output beside its exit code.
        lua_pushvalue(e->thread, first + 1);
        lua_xmove(e->thread, L, 1);
        gw_err_set(&e->err, -EINVAL, "%s", luaL_tolstring(L, -1, NULL));
        e->failed = true;
    }
    return 0;
}

static void note_exec(struct gw_lua_app *app)
{
    bool any = false;
    for (struct gw_link *l = app->executions.next; l != &app->executions; l = l->next)
        any = any || ((struct execution *)l)->is_exec;
    app->base.exec_running = any;
}

static void executed(struct gw_coro *coro, int nresults, const struct gw_err *err)
{
    struct execution *x = coro->ud;
    struct gw_lua_app *app = x->app;
    struct ending e = {.thread = coro->thread, .nresults = nresults};
    if (err == NULL && gw_lua_protect(app->L, read_ending, &e, &e.err) < 0)
        err = &e.err;
    else if (err == NULL && e.failed)
        err = &e.err;
    (void)gw_task_finish(app->env.work, x->id, app->generation, err != NULL ? GW_TASK_FAILED : GW_TASK_SUCCEEDED,
                         e.result, err != NULL ? err->text : NULL);
    json_decref(e.result);
    if (x->spawned)
        gw_app_host_over(app, x->id);
    gw_link_remove(&x->link);
    app->execution_count--;
    note_exec(app);
    x->coro = NULL;
    lua_pushnil(app->L);
    lua_rawsetp(app->L, LUA_REGISTRYINDEX, x);
    gw_lua_app_settle(app);
}

/* Pushes the handler; leaves nothing and returns false when there is none. */
static bool push_handler(struct gw_lua_app *app, const char *name)
{
    lua_State *L = app->L;
    int top = lua_gettop(L);
    if (lua_rawgeti(L, LUA_REGISTRYINDEX, app->ref_handlers) == LUA_TTABLE) {
        lua_pushstring(L, name);
        if (lua_rawget(L, -2) == LUA_TFUNCTION) {
            lua_remove(L, -2);
            return true;
        }
    }
    lua_settop(L, top);
    return false;
}

bool gw_app_work_has_handler(const struct gw_app *base, const char *name)
{
    struct gw_lua_app *app = (struct gw_lua_app *)base;
    if (!push_handler(app, name))
        return false;
    lua_pop(app->L, 1);
    return true;
}

void gw_app_work_execute(struct gw_app *base, const struct gw_task *task)
{
    struct gw_lua_app *app = (struct gw_lua_app *)base;
    lua_State *L = app->L;
    int top = lua_gettop(L);
    if (!push_handler(app, task->handler)) {
        struct gw_err err;
        gw_err_set(&err, -ENOENT, "no handler '%s' in this generation", task->handler);
        (void)gw_task_finish(app->env.work, task->id, app->generation, GW_TASK_FAILED, NULL, err.text);
        lua_settop(L, top);
        return;
    }
    struct execution *x = gw_object_new(L, "gwhost.Task", sizeof *x);
    x->app = app;
    x->is_exec = strcmp(task->handler, "exec") == 0;
    (void)snprintf(x->id, sizeof x->id, "%s", task->id);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, x);
    lua_getiuservalue(L, -1, 1);
    lua_pushstring(L, task->id);
    lua_setfield(L, -2, "id");
    lua_pushstring(L, task->handler);
    lua_setfield(L, -2, "handler");
    lua_pushstring(L, task->lane);
    lua_setfield(L, -2, "lane");
    lua_pushinteger(L, task->attempts);
    lua_setfield(L, -2, "attempt");
    if (task->input != NULL)
        gw_lua_push_json(L, task->input, 1);
    else
        lua_newtable(L);
    lua_setfield(L, -2, "input");
    lua_pop(L, 1);
    gw_link_add(&app->executions, &x->link);
    app->execution_count++;
    note_exec(app);
    struct gw_coro *coro = NULL;
    // gw_coro_go() takes the function and the task from the top; it may end before it returns.
    x->coro = NULL;
    gw_coro_go(app, 1, executed, x, &coro);
    lua_rawgetp(L, LUA_REGISTRYINDEX, x);
    if (!lua_isnil(L, -1))
        x->coro = coro;
    lua_settop(L, top);
}

static void aborted(struct gw_coro *coro, int nresults, const struct gw_err *err)
{
    if (err != NULL)
        gw_lua_app_error(coro->app, "on_abort", err);
}

/* Sets `aborted` and calls on_abort(why) of the object on top of the stack, popping it. False when it has none. */
static bool call_on_abort(struct gw_lua_app *app, enum gw_abort why)
{
    lua_State *L = app->L;
    lua_getiuservalue(L, -1, 1);
    lua_pushstring(L, gw_abort_name(why));
    lua_setfield(L, -2, "aborted");
    lua_pop(L, 1);
    if (gw_object_field(L, -1, "on_abort") != LUA_TFUNCTION) {
        lua_pop(L, 2);
        return false;
    }
    lua_remove(L, -2);
    lua_pushstring(L, gw_abort_name(why));
    gw_coro_go(app, 1, aborted, NULL, NULL);
    return true;
}

const char *gw_app_work_current(struct gw_lua_app *app, lua_State *L)
{
    struct gw_coro *coro = gw_coro_of(L);
    if (coro == NULL)
        return NULL;
    if (coro->done == executed)
        return ((struct execution *)coro->ud)->id;
    return gw_link_empty(&coro->runs) ? NULL : gw_run_id(((struct run *)coro->runs.next)->run);
}

const char *gw_app_work_spawns(struct gw_lua_app *app, lua_State *L)
{
    const char *id = gw_app_work_current(app, L);
    struct gw_coro *coro = id != NULL ? gw_coro_of(L) : NULL;
    if (coro != NULL && coro->done == executed)
        ((struct execution *)coro->ud)->spawned = true;
    else if (coro != NULL)
        ((struct run *)coro->runs.next)->spawned = true;
    return id;
}

void gw_app_work_abort_task(struct gw_app *base, const char *id, enum gw_abort why)
{
    struct gw_lua_app *app = (struct gw_lua_app *)base;
    for (struct gw_link *l = app->executions.next; l != &app->executions; l = l->next) {
        struct execution *x = (struct execution *)l;
        if (strcmp(x->id, id) != 0)
            continue;
        lua_rawgetp(app->L, LUA_REGISTRYINDEX, x);
        if (!call_on_abort(app, why) && x->coro != NULL) {
            char text[64];
            (void)snprintf(text, sizeof text, "aborted: %s", gw_abort_name(why));
            (void)gw_coro_interrupt(x->coro, text);
        }
        return;
    }
}

// ---- runs ----

static void run_over(struct run *r)
{
    if (r->run == NULL)
        return;
    lua_State *L = r->app->L;
    if (r->spawned)
        gw_app_host_over(r->app, gw_run_id(r->run));
    gw_run_end(r->app->env.work, r->run);
    r->run = NULL;
    gw_link_remove(&r->link);
    luaL_unref(L, LUA_REGISTRYINDEX, r->ref);
}

static int run_finish(lua_State *L)
{
    run_over(luaL_checkudata(L, 1, "gwhost.Run"));
    return 0;
}

static int run_gc(lua_State *L)
{
    struct run *r = lua_touserdata(L, 1);
    if (!r->app->deaf)
        run_over(r);
    return 0;
}

static int run_compacting(lua_State *L)
{
    struct run *r = luaL_checkudata(L, 1, "gwhost.Run");
    if (r->run != NULL)
        gw_run_set_compacting(r->run, lua_toboolean(L, 2));
    return 0;
}

static int run_progress(lua_State *L)
{
    struct run *r = luaL_checkudata(L, 1, "gwhost.Run");
    if (r->run != NULL)
        gw_run_set_progress(r->run, gw_app_text(L, 2));
    return 0;
}

static int api_run(lua_State *L)
{
    struct gw_lua_app *app = gw_lua_app_of(L);
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    struct gw_run_spec spec = {.handler = opt_field(L, "handler")};
    spec.label = opt_field(L, "label");
    spec.title = opt_field(L, "title");
    lua_getfield(L, 1, "compacting");
    spec.compacting = lua_toboolean(L, -1);
    if (spec.handler == NULL)
        return luaL_error(L, "run: handler is missing");
    struct run *r = gw_object_new(L, "gwhost.Run", sizeof *r);
    r->app = app;
    int rc = gw_run_begin(app->env.work, &spec, &r->run);
    if (rc < 0) {
        r->run = NULL;
        struct outcome o = {.code = rc};
        return push_outcome(L, &o);
    }
    gw_run_set_data(r->run, r);
    lua_pushstring(L, gw_run_id(r->run));
    lua_setfield(L, -2, "id");
    lua_pushvalue(L, -1);
    r->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    r->owner = gw_coro_of(L);
    gw_link_add(r->owner != NULL ? &r->owner->runs : &app->runs, &r->link);
    return 1;
}

void gw_app_work_abort_run(struct gw_app *base, struct gw_run *run, enum gw_abort why)
{
    struct gw_lua_app *app = (struct gw_lua_app *)base;
    struct run *r = gw_run_data(run);
    if (r == NULL || r->run == NULL)
        return;
    lua_rawgeti(app->L, LUA_REGISTRYINDEX, r->ref);
    if (call_on_abort(app, why))
        return;
    if (r->owner != NULL) {
        char text[64];
        (void)snprintf(text, sizeof text, "aborted: %s", gw_abort_name(why));
        (void)gw_coro_interrupt(r->owner, text);
    }
}

void gw_app_work_end_runs(struct gw_link *runs)
{
    while (!gw_link_empty(runs))
        run_over((struct run *)runs->next);
}

void gw_app_work_release(struct gw_lua_app *app)
{
    gw_app_work_end_runs(&app->runs);
    while (!gw_link_empty(&app->executions))
        gw_link_remove(app->executions.next);
    app->execution_count = 0;
}

void gw_api_work(lua_State *L)
{
    static const luaL_Reg functions[] = {{"submit", api_submit},     {"task", api_task}, {"tasks", api_tasks},
                                         {"cancel", api_cancel},     {"run", api_run},
                                         {"handlers", api_handlers}, {NULL, NULL}};
    static const luaL_Reg task[] = {{"progress", task_progress}, {NULL, NULL}};
    static const luaL_Reg run[] = {{"finish", run_finish},
                                   {"compacting", run_compacting},
                                   {"progress", run_progress},
                                   {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
    gw_object_type(L, "gwhost.Task", task, NULL);
    gw_object_type(L, "gwhost.Run", run, run_gc);
}
