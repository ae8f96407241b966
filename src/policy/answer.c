#include "policy/answer.h"

#include "base/str.h"
#include "base/time.h"
#include "script/door.h"

#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

static const char *const mode_names[] = {"in_process", "respawn", "reexec", "supervised"};
enum { MODES = sizeof mode_names / sizeof *mode_names };

const char *gw_mode_name(enum gw_mode m)
{
    return mode_names[m];
}

bool gw_mode_parse(const char *name, enum gw_mode *ret_mode)
{
    for (int m = 0; m < MODES; m++)
        if (strcmp(name, mode_names[m]) == 0) {
            *ret_mode = (enum gw_mode)m;
            return true;
        }
    return false;
}

// ---- helpers ----

/* The value at idx for a person: strings in quotes. */
static const char *shown(lua_State *L, int idx)
{
    char text[80];
    gw_lua_describe(L, idx, text, sizeof text);
    return lua_pushfstring(L, lua_type(L, idx) == LUA_TSTRING ? "\"%s\"" : "%s", text);
}

static void read_why(lua_State *L, int idx, struct gw_answer_words *w)
{
    if (!lua_isnoneornil(L, idx))
        gw_lua_describe(L, idx, w->why, sizeof w->why);
}

/* Pushes the plain field of the table at idx. Returns its type. */
static int field(lua_State *L, int idx, const char *name)
{
    lua_pushstring(L, name);
    return lua_rawget(L, idx);
}

/* Raises when the table at idx has a field that is not among names: a typo must not pass for silence. */
static void only_fields(lua_State *L, int idx, const char *const *names, const char *listed)
{
    lua_pushnil(L);
    while (lua_next(L, idx) != 0) {
        bool known = false;
        if (lua_type(L, -2) == LUA_TSTRING)
            for (const char *const *n = names; *n != NULL && !known; n++)
                known = strcmp(lua_tostring(L, -2), *n) == 0;
        if (!known)
            luaL_error(L, "a table with the field %s (known are %s)", shown(L, -2), listed);
        lua_pop(L, 1);
    }
}

/* The whole number at idx, also when it is a float without fraction; raises otherwise. what names it. */
static int64_t whole(lua_State *L, int idx, const char *what, int64_t min)
{
    int exact = 0;
    lua_Integer n = lua_type(L, idx) == LUA_TNUMBER ? lua_tointegerx(L, idx, &exact) : 0;
    if (!exact || n < min)
        luaL_error(L, "%s %s, which is not an integer >= %d", what, shown(L, idx), (int)min);
    if (n > GW_MS_MAX)
        luaL_error(L, "%s %s, which is more than ten years", what, shown(L, idx));
    return n;
}

/* Milliseconds at idx, or "unlimited" where that may be said. */
static int64_t budget(lua_State *L, int idx, const char *what, bool stop)
{
    if (lua_type(L, idx) == LUA_TSTRING && strcmp(lua_tostring(L, idx), "unlimited") == 0) {
        if (stop)
            luaL_error(L, "%s \"unlimited\": a stop must end", what);
        return GW_UNLIMITED;
    }
    if (lua_type(L, idx) != LUA_TNUMBER)
        luaL_error(L, "%s %s, which is neither an integer >= 0 nor \"unlimited\"", what, shown(L, idx));
    return whole(L, idx, what, 0);
}

// ---- restart_mode ----

static void read_mode_name(lua_State *L, int idx, enum gw_mode *ret)
{
    if (lua_type(L, idx) != LUA_TSTRING || !gw_mode_parse(lua_tostring(L, idx), ret))
        luaL_error(L, "mode %s, which is none of in_process, respawn, reexec, supervised", shown(L, idx));
}

static void read_mode_table(lua_State *L, int idx, struct gw_mode_reader *r)
{
    static const char *const names[] = {"mode", "why", "exec", "health_timeout_ms", "exit_delay_ms", NULL};
    only_fields(L, idx, names, "mode, why, exec, health_timeout_ms, exit_delay_ms");
    field(L, idx, "mode");
    read_mode_name(L, lua_gettop(L), &r->answer.mode);
    int type = field(L, idx, "exec");
    if (type != LUA_TNIL) {
        size_t n = 0;
        const char *exec = type == LUA_TSTRING ? lua_tolstring(L, -1, &n) : NULL;
        if (exec == NULL || *exec != '/' || strlen(exec) != n || n >= sizeof r->answer.exec)
            luaL_error(L, "exec %s, which is not an absolute path of at most %d bytes", shown(L, -1),
                       (int)sizeof r->answer.exec - 1);
        memcpy(r->answer.exec, exec, n + 1);
    }
    if (field(L, idx, "health_timeout_ms") != LUA_TNIL)
        r->answer.health_timeout_ms = whole(L, lua_gettop(L), "health_timeout_ms", 1);
    if (field(L, idx, "exit_delay_ms") != LUA_TNIL)
        r->answer.exit_delay_ms = whole(L, lua_gettop(L), "exit_delay_ms", 0);
    field(L, idx, "why");
    read_why(L, lua_gettop(L), &r->words);
}

void gw_read_mode(lua_State *L, int idx, struct gw_answer_reader *self)
{
    struct gw_mode_reader *r = (struct gw_mode_reader *)self;
    luaL_checkstack(L, 12, "answer");
    r->answer = (struct gw_mode_answer){.health_timeout_ms = -1, .exit_delay_ms = -1};
    if (lua_istable(L, idx))
        read_mode_table(L, idx, r);
    else
        read_mode_name(L, idx, &r->answer.mode);
    read_why(L, idx + 1, &r->words);
    gw_say_mode(&r->answer, r->words.said, sizeof r->words.said);
}

void gw_say_mode(const struct gw_mode_answer *a, char *ret_text, size_t size)
{
    int n = snprintf(ret_text, size, "%s", gw_mode_name(a->mode));
    if (a->exec[0] != '\0' && n < (int)size) {
        (void)snprintf(ret_text + n, size - (size_t)n, " exec=%s", a->exec);
        ret_text[gw_utf8_clip(ret_text, size - 1)] = '\0';
    }
}

// ---- drain_budget ----

static void read_lanes(lua_State *L, int idx, struct gw_budget_reader *r)
{
    if (!lua_istable(L, idx))
        luaL_error(L, "lanes %s, which is not a table of NAME=ms", shown(L, idx));
    lua_pushnil(L);
    while (lua_next(L, idx) != 0) {
        size_t n = 0;
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tolstring(L, -2, &n) : NULL;
        struct gw_lane_budget *lane = &r->answer.lanes[r->answer.lane_count];
        if (r->answer.lane_count == sizeof r->answer.lanes / sizeof *r->answer.lanes)
            luaL_error(L, "more than %d lanes", (int)r->answer.lane_count);
        if (name == NULL || n == 0 || n >= sizeof lane->lane || strlen(name) != n)
            luaL_error(L, "a lane %s, which is not a name", shown(L, -2));
        memcpy(lane->lane, name, n + 1);
        int value = lua_gettop(L);
        lane->budget_ms = budget(L, value, lua_pushfstring(L, "lane %s:", name), r->stop);
        r->answer.lane_count++;
        lua_settop(L, value - 1); // the name stays for lua_next
    }
}

static void read_budget_table(lua_State *L, int idx, struct gw_budget_reader *r)
{
    static const char *const names[] = {"budget_ms", "lanes", "report_every_ms", "accept", NULL};
    only_fields(L, idx, names, "budget_ms, lanes, report_every_ms, accept");
    if (field(L, idx, "budget_ms") != LUA_TNIL)
        r->answer.budget_ms = budget(L, lua_gettop(L), "budget_ms", r->stop);
    if (field(L, idx, "report_every_ms") != LUA_TNIL)
        r->answer.report_every_ms = whole(L, lua_gettop(L), "report_every_ms", 100);
    if (field(L, idx, "lanes") != LUA_TNIL)
        read_lanes(L, lua_gettop(L), r);
    int type = field(L, idx, "accept");
    const char *accept = type == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
    if (type != LUA_TNIL &&
        (accept == NULL || (strcmp(accept, "queue") != 0 && strcmp(accept, "refuse") != 0)))
        luaL_error(L, "accept %s, which is neither \"refuse\" nor \"queue\"", shown(L, -1));
    // A stop has no next generation that the queued tasks could wait for.
    r->answer.accept_queue = accept != NULL && *accept == 'q' && !r->stop;
}

void gw_read_budget(lua_State *L, int idx, struct gw_answer_reader *self)
{
    struct gw_budget_reader *r = (struct gw_budget_reader *)self;
    luaL_checkstack(L, 12, "answer");
    r->answer = (struct gw_budget_answer){.budget_ms = r->builtin_ms, .report_every_ms = -1};
    if (lua_istable(L, idx))
        read_budget_table(L, idx, r);
    else
        r->answer.budget_ms = budget(L, idx, "a budget of", r->stop);
    read_why(L, idx + 1, &r->words);
    gw_say_budget(&r->answer, r->words.said, sizeof r->words.said);
}

static int say_ms(int64_t ms, char *out, size_t size)
{
    return ms == GW_UNLIMITED ? snprintf(out, size, "unlimited") : snprintf(out, size, "%lld", (long long)ms);
}

void gw_say_budget(const struct gw_budget_answer *a, char *ret_text, size_t size)
{
    size_t n = (size_t)say_ms(a->budget_ms, ret_text, size);
    for (unsigned i = 0; i < a->lane_count && n < size; i++) {
        char ms[24];
        (void)say_ms(a->lanes[i].budget_ms, ms, sizeof ms);
        n += (size_t)snprintf(ret_text + n, size - n, " %s=%s", a->lanes[i].lane, ms);
    }
    if (a->accept_queue && n < size)
        n += (size_t)snprintf(ret_text + n, size - n, " accept=queue");
    if (n >= size)
        ret_text[gw_utf8_clip(ret_text, size - 1)] = '\0';
}

// ---- authorize_sigusr1 ----

const char *gw_say_authorization(enum gw_authorization a)
{
    return a == GW_ALLOW ? "true" : a == GW_WHEN_IDLE ? "when_idle" : "false";
}

void gw_read_authorization(lua_State *L, int idx, struct gw_answer_reader *self)
{
    struct gw_authorization_reader *r = (struct gw_authorization_reader *)self;
    luaL_checkstack(L, 12, "answer");
    if (lua_isboolean(L, idx))
        r->answer = lua_toboolean(L, idx) ? GW_ALLOW : GW_DENY;
    else if (lua_type(L, idx) == LUA_TSTRING && strcmp(lua_tostring(L, idx), "when_idle") == 0)
        r->answer = GW_WHEN_IDLE;
    else
        luaL_error(L, "%s, which is none of true, false, \"when_idle\"", shown(L, idx));
    read_why(L, idx + 1, &r->words);
    (void)snprintf(r->words.said, sizeof r->words.said, "%s", gw_say_authorization(r->answer));
}

// ---- format_blockers ----

void gw_read_line(lua_State *L, int idx, struct gw_answer_reader *self)
{
    struct gw_line_reader *r = (struct gw_line_reader *)self;
    luaL_checkstack(L, 12, "answer");
    r->line[0] = '\0';
    if (lua_type(L, idx) == LUA_TSTRING)
        gw_lua_describe(L, idx, r->line, sizeof r->line);
    else if (!lua_isnil(L, idx))
        luaL_error(L, "%s, which is neither a line of text nor nil", shown(L, idx));
    read_why(L, idx + 1, &r->words);
    gw_one_line(r->line, strlen(r->line), r->words.said, sizeof r->words.said);
}
