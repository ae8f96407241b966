/* luv.c - the part of luv that applications get, and how a state that has it comes to its end.
 *
 * luv 1.44 keeps every live handle and every request in flight as an integer-keyed reference in the
 * registry until its last callback has run. That set is exactly what libuv may still call this state about,
 * so closing it and running the loop until it is empty makes lua_close() safe. This leans on luv's inside
 * (the names of its metatables, `data` being NULL when a request is done); a unit test fails loudly when
 * another luv does it otherwise. */
#include "app/lua_app.h"
#include "base/log.h"
#include "base/time.h"

#include <lauxlib.h>
#include <luv/luv.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* What is left out, and why: run stop walk loop_* would drive or end the host's loop; *thread new_work would
 * make states that nobody closes; os_setenv chdir setuid … change the whole process; new_signal kill spawn
 * are the host's (gwhost.spawn serves); fs_scandir and random leak a reference a call. */
static const char *const allowed[] = {
    "accept", "async_send", "backend_timeout", "cancel", "check_start", "check_stop", "close", "cpu_info", "cwd",
    "errno", "exepath", "fileno", "freeaddrinfo", "fs_access", "fs_chmod", "fs_chown", "fs_close", "fs_closedir",
    "fs_copyfile", "fs_event_getpath", "fs_event_start", "fs_event_stop", "fs_fchmod", "fs_fchown", "fs_fdatasync",
    "fs_fstat", "fs_fsync", "fs_ftruncate", "fs_futime", "fs_lchown", "fs_link", "fs_lstat", "fs_lutime",
    "fs_mkdir", "fs_mkdtemp", "fs_mkstemp", "fs_open", "fs_opendir", "fs_poll_getpath", "fs_poll_start",
    "fs_poll_stop", "fs_read", "fs_readdir", "fs_readlink", "fs_realpath", "fs_rename", "fs_rmdir",
    "fs_sendfile", "fs_stat", "fs_statfs", "fs_symlink", "fs_unlink", "fs_utime", "fs_write",
    "get_constrained_memory", "get_free_memory", "get_process_title", "get_total_memory", "getaddrinfo",
    "getnameinfo", "getpid", "gettimeofday", "getrusage", "handle_get_type", "has_ref", "hrtime", "idle_start",
    "idle_stop", "interface_addresses", "is_active", "is_closing", "is_readable", "is_writable", "listen",
    "loadavg", "new_async", "new_check", "new_fs_event", "new_fs_poll", "new_idle", "new_pipe", "new_poll",
    "new_prepare", "new_tcp", "new_timer", "new_udp", "now", "os_environ", "os_getenv", "os_gethostname",
    "os_getpid", "os_uname", "pipe", "pipe_bind", "pipe_connect", "pipe_getpeername", "pipe_getsockname",
    "pipe_open", "poll_start", "poll_stop", "prepare_start", "prepare_stop", "read_start", "read_stop",
    "recv_buffer_size", "ref", "resident_set_memory", "send_buffer_size", "shutdown", "socketpair",
    "stream_set_blocking", "tcp_bind", "tcp_close_reset", "tcp_connect", "tcp_getpeername", "tcp_getsockname",
    "tcp_keepalive", "tcp_nodelay", "tcp_open", "tcp_simultaneous_accepts", "timer_again",
    "timer_get_due_in", "timer_get_repeat", "timer_set_repeat", "timer_start", "timer_stop", "translate_sys_error",
    "try_write", "udp_bind", "udp_connect", "udp_get_send_queue_count", "udp_get_send_queue_size",
    "udp_getpeername", "udp_getsockname", "udp_open", "udp_recv_start", "udp_recv_stop", "udp_send",
    "udp_set_broadcast", "udp_set_membership", "udp_set_multicast_interface", "udp_set_multicast_loop",
    "udp_set_multicast_ttl", "udp_set_source_membership", "udp_set_ttl", "udp_try_send", "unref", "update_time",
    "uptime", "version", "version_string", "write", "constants", "errno", NULL};

/* luv calls this for every event: the function and nargs arguments are on the stack and must be popped.
 * Returns the number of results, or a negative number on an error. */
static int call_back(lua_State *L, int nargs, int nresults, int flags)
{
    struct gw_lua_app *app = gw_lua_app_of(L);
    if (app->deaf) {
        lua_pop(L, nargs + 1);
        return 0;
    }
    int base = lua_gettop(L) - nargs - 1;
    struct gw_err err = {0};
    if (gw_lua_call(L, nargs, nresults, NULL, &err) < 0) {
        gw_lua_app_error(app, "a luv callback", &err);
        lua_settop(L, base);
        return -1;
    }
    return lua_gettop(L) - base;
}

/* write({}) would fail an assertion of libuv and end the process: upvalue 1 is luv's function. */
static int guarded_write(lua_State *L)
{
    if (lua_istable(L, 2) && lua_rawlen(L, 2) == 0)
        return luaL_argerror(L, 2, "the table holds no data to write");
    int top = lua_gettop(L);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, top, LUA_MULTRET);
    return lua_gettop(L);
}

static void guard(lua_State *L, int table, const char *name)
{
    table = lua_absindex(L, table);
    if (lua_getfield(L, table, name) == LUA_TFUNCTION) {
        lua_pushcclosure(L, guarded_write, 1);
        lua_setfield(L, table, name);
    } else {
        lua_pop(L, 1);
    }
}

static int keep(lua_State *L, const char *name)
{
    lua_getfield(L, -1, name);
    return luaL_ref(L, LUA_REGISTRYINDEX);
}

void gw_luv_open(struct gw_lua_app *app)
{
    lua_State *L = app->L;
    luv_set_loop(L, app->env.loop);
    luv_set_callback(L, call_back);
    lua_pushcfunction(L, luaopen_luv);
    lua_call(L, 0, 1); // not through package.loaded: what is there must be the trimmed one
    app->ref_close = keep(L, "close");
    app->ref_is_closing = keep(L, "is_closing");
    app->ref_cancel = keep(L, "cancel");
    lua_newtable(L);
    for (int i = 0; allowed[i] != NULL; i++) {
        lua_getfield(L, -2, allowed[i]);
        lua_setfield(L, -2, allowed[i]);
    }
    static const char *const writers[] = {"write", "try_write", "udp_send", "udp_try_send", NULL};
    static const char *const methods[] = {"write", "write2", "try_write", "send", "try_send", NULL};
    static const char *const types[] = {"uv_tcp", "uv_pipe", "uv_tty", "uv_udp", NULL};
    for (int i = 0; writers[i] != NULL; i++)
        guard(L, -1, writers[i]);
    for (int i = 0; types[i] != NULL; i++) {
        luaL_getmetatable(L, types[i]);
        if (lua_istable(L, -1) && lua_getfield(L, -1, "__index") == LUA_TTABLE) {
            for (int k = 0; methods[k] != NULL; k++)
                guard(L, -1, methods[k]);
            lua_pop(L, 1);
        }
        lua_pop(L, 1);
    }
    lua_remove(L, -2);
}

struct sweep {
    struct gw_lua_app *app;
    unsigned left;
};

/* Is the userdata on top a handle (1), a request in flight (2), or neither (0)? */
static int kind_of(lua_State *L, int handles, int req, int fs)
{
    if (!lua_getmetatable(L, -1))
        return 0;
    lua_pushvalue(L, -1);
    int kind = lua_rawget(L, handles) != LUA_TNIL ? 1 : 0;
    lua_pop(L, 1);
    if (kind == 0 && (lua_rawequal(L, -1, req) || lua_rawequal(L, -1, fs)) &&
        ((uv_req_t *)lua_touserdata(L, -2))->data != NULL)
        kind = 2;
    lua_pop(L, 1);
    return kind;
}

static void end_handle(lua_State *L, struct gw_lua_app *app)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, app->ref_is_closing);
    lua_pushvalue(L, -2);
    lua_call(L, 1, 1);
    bool closing = lua_toboolean(L, -1);
    lua_pop(L, 1);
    if (closing)
        return;
    lua_rawgeti(L, LUA_REGISTRYINDEX, app->ref_close);
    lua_pushvalue(L, -2);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK)
        lua_pop(L, 1);
}

/* A file that opens after the state went quiet would leak its descriptor: the request is remembered, its
 * result looked at once it is done (gw_luv_close_late_files). */
static void end_request(lua_State *L, struct gw_lua_app *app)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, "gwhost.inflight");
    lua_pushvalue(L, -2);
    lua_pushboolean(L, 1);
    lua_rawset(L, -3);
    lua_pop(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, app->ref_cancel);
    lua_pushvalue(L, -2);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK)
        lua_pop(L, 1);
}

static int sweep_once(lua_State *L)
{
    struct sweep *sweep = lua_touserdata(L, 1);
    sweep->left = 0;
    luaL_checkstack(L, 20, NULL);
    lua_settop(L, 1);
    lua_newtable(L);                                 // 2: what was found; closing changes the registry
    lua_getfield(L, LUA_REGISTRYINDEX, "uv_handle"); // 3: set of handle metatables
    luaL_getmetatable(L, "uv_req");                  // 4
    luaL_getmetatable(L, "uv_fs");                   // 5
    if (!lua_istable(L, 3))
        return luaL_error(L, "this luv keeps its handles in another way: gwhost needs luv 1.44");
    lua_pushnil(L);
    while (lua_next(L, LUA_REGISTRYINDEX)) {
        if (lua_type(L, -2) == LUA_TNUMBER && lua_type(L, -1) == LUA_TUSERDATA) {
            int kind = kind_of(L, 3, 4, 5);
            if (kind != 0) {
                sweep->left++;
                lua_pushvalue(L, -1);
                lua_pushinteger(L, kind);
                lua_rawset(L, 2);
            }
        }
        lua_pop(L, 1);
    }
    lua_pushnil(L);
    while (lua_next(L, 2)) {
        bool handle = lua_tointeger(L, -1) == 1;
        lua_pop(L, 1);
        if (handle)
            end_handle(L, sweep->app);
        else
            end_request(L, sweep->app);
    }
    return 0;
}

unsigned gw_luv_sweep(struct gw_lua_app *app, unsigned max_ms)
{
    struct sweep sweep = {.app = app};
    uint64_t end = gw_now_ms() + max_ms;
    for (;;) {
        struct gw_err err = {0};
        if (gw_lua_protect(app->L, sweep_once, &sweep, &err) < 0) {
            gw_log(GW_DEBUG, "app.sweep", NULL, "%s", err.text);
            return 1;
        }
        if (sweep.left == 0 || gw_now_ms() >= end)
            return sweep.left;
        // Closing takes a turn of the loop; requests of the thread pool take as long as they take.
        (void)uv_run(app->env.loop, UV_RUN_NOWAIT);
        if (gw_lua_protect(app->L, sweep_once, &sweep, &err) < 0 || sweep.left == 0)
            return sweep.left;
        struct timespec pause = {.tv_nsec = 200000};
        (void)nanosleep(&pause, NULL);
    }
}

void gw_luv_close_late_files(struct gw_lua_app *app)
{
    lua_State *L = app->L;
    if (lua_getfield(L, LUA_REGISTRYINDEX, "gwhost.inflight") == LUA_TTABLE) {
        lua_pushnil(L);
        while (lua_next(L, -2)) {
            lua_pop(L, 1);
            uv_fs_t *fs = lua_touserdata(L, -1);
            if (fs->type == UV_FS && (fs->fs_type == UV_FS_OPEN || fs->fs_type == UV_FS_MKSTEMP) &&
                fs->result >= 0)
                (void)close((int)fs->result);
        }
    }
    lua_pop(L, 1);
}
