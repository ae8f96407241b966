#include "policy/check.h"

#include "policy/vm.h"
#include "script/door.h"

#include <ctype.h>
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

static const char *const other_names[] = {"api", "name", "description"};
enum { OTHERS = sizeof other_names / sizeof *other_names, WORD_MAX = 32 };

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
    unsigned m = a < b ? a : b;
    return m < c ? m : c;
}

/* How many letters must be added, taken or changed to make b of a (Levenshtein). */
static unsigned distance(const char *a, const char *b)
{
    size_t an = strlen(a), bn = strlen(b);
    if (an > WORD_MAX || bn > WORD_MAX)
        return WORD_MAX;
    unsigned row[WORD_MAX + 1];
    for (size_t j = 0; j <= bn; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= an; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= bn; j++) {
            unsigned above = row[j];
            row[j] = min3(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[bn];
}

/* The known name that key was probably meant to be, or NULL. */
static const char *meant(const char *key)
{
    const char *best = NULL;
    unsigned least = (unsigned)strlen(key) / 4 + 1; // a quarter of its letters may be wrong
    for (int h = 0; h < GW_HOOK_COUNT + OTHERS; h++) {
        const char *known =
            h < GW_HOOK_COUNT ? gw_hook_name((enum gw_hook)h) : other_names[h - GW_HOOK_COUNT];
        unsigned d = distance(key, known);
        if (d <= least) {
            least = d;
            best = known;
        }
    }
    return best;
}

static bool is_known(const char *key)
{
    for (int h = 0; h < GW_HOOK_COUNT; h++)
        if (strcmp(key, gw_hook_name((enum gw_hook)h)) == 0)
            return true;
    for (int i = 0; i < OTHERS; i++)
        if (strcmp(key, other_names[i]) == 0)
            return true;
    return false;
}

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

/* The line of text in which key stands as a whole word before a "=" or "(", else in which it stands, else 1.
 */
static int line_of(const char *text, const char *key)
{
    size_t n = strlen(key);
    int line = 1, first = 0;
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '\n')
            line++;
        if (strncmp(c, key, n) != 0 || is_word(c[n]) || (c > text && is_word(c[-1])))
            continue;
        if (first == 0)
            first = line;
        const char *after = c + n + strspn(c + n, " \t");
        if ((*after == '=' && after[1] != '=') || *after == '(')
            return line;
    }
    return first > 0 ? first : 1;
}

/* FILE:LINE of the function at idx, or of key in text when it is not a Lua function. */
static void where(lua_State *L, int idx, const char *path, const char *text, const char *key, char *out,
                  size_t size)
{
    lua_Debug ar;
    const char *file = path;
    int line = 0;
    if (lua_isfunction(L, idx)) {
        lua_pushvalue(L, idx);
        (void)lua_getinfo(L, ">S", &ar);
        if (*ar.source == '@') {
            file = ar.source + 1;
            line = ar.linedefined;
        }
    }
    if (line <= 0)
        line = line_of(text, key);
    size_t n = strlen(file), room = size - 16;
    (void)snprintf(out, size, "%s%s:%d", n > room ? "..." : "", n > room ? file + n - room + 3 : file, line);
}

static void check_hook(lua_State *L, int idx, enum gw_hook h, const char *path, const char *text,
                       struct gw_vm *vm, struct gw_faults *faults)
{
    const char *name = gw_hook_name(h);
    int type = lua_getfield(L, idx, name);
    if (type == LUA_TNIL) {
        lua_pop(L, 1);
        return;
    }
    where(L, -1, path, text, name, vm->lines[h], sizeof vm->lines[h]);
    if (type != LUA_TFUNCTION) {
        gw_faults_add(faults, "%s: %s must be a function, not a %s", vm->lines[h], name,
                      lua_typename(L, type));
        lua_pop(L, 1);
        return;
    }
    vm->hooks[h] = luaL_ref(L, LUA_REGISTRYINDEX);
}

static void check_key(lua_State *L, const char *path, const char *text, struct gw_faults *faults)
{
    char at[160];
    if (lua_type(L, -2) != LUA_TSTRING) {
        char key[64];
        gw_lua_describe(L, -2, key, sizeof key);
        gw_faults_add(faults,
                      "%s:1: unknown field [%s]: a policy's fields are hooks, api, name and description",
                      path, key);
        return;
    }
    const char *key = lua_tostring(L, -2);
    if (is_known(key) || *key == '_')
        return;
    where(L, -1, path, text, key, at, sizeof at);
    const char *known = meant(key);
    if (known != NULL)
        gw_faults_add(faults, "%s: unknown field '%.64s': did you mean '%s'?", at, key, known);
    else if (lua_isfunction(L, -1))
        gw_faults_add(faults,
                      "%s: '%.64s' is no hook; a helper is a local function, or its name begins with '_'", at,
                      key);
    // Other values are the policy's own: constants that its tests read, say.
}

void gw_check_table(lua_State *L, int idx, const char *path, const char *text, struct gw_vm *vm,
                    struct gw_faults *faults)
{
    luaL_checkstack(L, 10, "policy");
    idx = lua_absindex(L, idx);
    if (!lua_istable(L, idx)) {
        gw_faults_add(faults, "%s:1: a policy must return a table, not %s%s", path,
                      lua_isnil(L, idx) ? "" : "a ", lua_isnil(L, idx) ? "nothing" : luaL_typename(L, idx));
        return;
    }
    if (lua_getfield(L, idx, "api") != LUA_TNIL && !(lua_isinteger(L, -1) && lua_tointeger(L, -1) == 1)) {
        char said[64];
        gw_lua_describe(L, -1, said, sizeof said);
        const char *quote = lua_type(L, -1) == LUA_TSTRING ? "\"" : "";
        gw_faults_add(faults, "%s:%d: api is %s%s%s; this host knows api 1", path, line_of(text, "api"),
                      quote, said, quote);
    }
    lua_pop(L, 1);
    int type = lua_getfield(L, idx, "name");
    if (type == LUA_TSTRING)
        gw_lua_describe(L, -1, vm->name, sizeof vm->name);
    else if (type != LUA_TNIL)
        gw_faults_add(faults, "%s:%d: name must be a string, not a %s", path, line_of(text, "name"),
                      lua_typename(L, type));
    lua_pop(L, 1);
    for (int h = 0; h < GW_HOOK_COUNT; h++)
        check_hook(L, idx, (enum gw_hook)h, path, text, vm, faults);
    // Keys of the table itself: what it inherits was checked where it comes from.
    lua_pushnil(L);
    while (lua_next(L, idx) != 0) {
        check_key(L, path, text, faults);
        lua_pop(L, 1);
    }
}
