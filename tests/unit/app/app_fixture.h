/* app_fixture.h - a Lua application on a loop of its own, without a host around it. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/app.h"
#include "app/lua_app.h"
#include "base/str.h"
#include "script/sources.h"
#include "support/tempdir.h"

struct fixture {
    char dir[64];
    uv_loop_t loop;
    struct gw_sources *sources;
    struct gw_app *app;
    lua_State *L;
};

/* Opens an application whose file holds text. */
static inline void fixture_open(struct fixture *f, const char *text)
{
    struct gw_err err = {0};
    tempdir_make(f->dir);
    char *path = gw_asprintf("%s/app.lua", f->dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    f->sources = gw_sources_new();
    struct gw_app_env env = {.loop = &f->loop, .lua_dir = SOURCE_DIR "/lua", .handlers_dir = f->dir};
    if (gw_lua_app_open(&env, f->sources, path, 0, &f->app, &err) < 0)
        fail_msg("%s", err.text);
    f->L = ((struct gw_lua_app *)f->app)->L;
    free(path);
}

/* Runs Lua text in the application's state, outside any coroutine. */
static inline void fixture_run(struct fixture *f, const char *text)
{
    if (luaL_dostring(f->L, text) != LUA_OK)
        fail_msg("%s", lua_tostring(f->L, -1));
    lua_settop(f->L, 0);
}

static inline void fixture_close(struct fixture *f)
{
    assert_int_equal(f->app->class->release(f->app, 5000), 0);
    f->app->class->free(f->app);
    assert_null(gw_sources_unref(f->sources));
    assert_int_equal(uv_run(&f->loop, UV_RUN_DEFAULT), 0); // a child that was killed has yet to be waited for
    assert_int_equal(uv_loop_close(&f->loop), 0);
    tempdir_remove(f->dir);
}

#define EMPTY_APP "return { start = function() end }"
