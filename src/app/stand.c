#include "app/stand.h"

#include "app/lua_app.h"
#include "base/json.h"
#include "base/log.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

enum { LEVELS = 16 };

static _Atomic(lua_State *) running;
static pthread_t thread;

static int number(void)
{
    return SIGRTMIN + 4;
}

lua_State *gw_stand_enter(lua_State *L)
{
    return atomic_exchange(&running, L);
}

void gw_stand_tell(lua_State *L, struct gw_buf *out)
{
    lua_Debug ar;
    bool any = false;
    for (int level = 0; level < LEVELS && lua_getstack(L, level, &ar); level++) {
        if (!lua_getinfo(L, "Sln", &ar) || ar.currentline < 0)
            continue; // a function of C
        const char *file = strrchr(ar.source, '/');
        gw_buf_addf(out, "%s%s:%d", any ? " < " : "", file != NULL ? file + 1 : ar.short_src, ar.currentline);
        if (ar.name != NULL)
            gw_buf_addf(out, " in %s", ar.name);
        any = true;
    }
}

static void tell(lua_State *L, lua_Debug *ar)
{
    struct gw_buf words = {0};
    gw_lua_app_rehook(L);
    gw_stand_tell(L, &words);
    if (words.data != NULL)
        gw_log(GW_WARN, "script.stands", json_pack("{so}", "at", gw_json_string(words.data)), "the running script is at %s",
               words.data);
    gw_buf_fini(&words);
}

static void on_signal(int sig)
{
    lua_State *L = atomic_load(&running);
    if (L != NULL) // as lua.c does on an interrupt: nothing but this may be done to a state that runs
        lua_sethook(L, tell, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
}

void gw_stand_open(void)
{
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigset_t mine;
    thread = pthread_self();
    (void)sigaction(number(), &sa, NULL);
    (void)sigemptyset(&mine);
    (void)sigaddset(&mine, number());
    (void)pthread_sigmask(SIG_UNBLOCK, &mine, NULL);
}

void gw_stand_ask(void)
{
    (void)pthread_kill(thread, number());
}
