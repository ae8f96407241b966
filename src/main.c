/* main.c - arguments, wiring, exit status. */
#include "base/authority.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "cli/commands.h"
#include "cli/policy.h"
#include "host/host.h"
#include "lifecycle/budget.h"
#include "loop/sentry.h"
#include "os/proc.h"
#include "os/statedir.h"

#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

static const char usage_text[] =
    "usage: gwhost [run] [OPTION]...           start a host in the foreground (the default command)\n"
    "       gwhost status [--json]             what the running host is doing, and why\n"
    "       gwhost restart [OPTION]...         restart it and wait for what becomes of it\n"
    "       gwhost stop [--no-wait]            stop it\n"
    "       gwhost reload [--back]             load the policy afresh; --back: the version before\n"
    "       gwhost submit [OPTION]... HANDLER [JSON] | exec -- COMMAND [ARG]...   hand it a task\n"
    "       gwhost tasks [--json] [--status S] the work in hand\n"
    "       gwhost policy check FILE...        check policies; says file:line: message for every fault\n"
    "       gwhost policy test FILE...         run the tests beside policies (NAME_test.lua)\n"
    "       gwhost bundle list | show [ID]     crash and time-out reports\n"
    "       gwhost COMMAND --help              its options\n"
    "       gwhost --version | --help\n"
    "\n"
    "options of run:\n"
    "  --policy FILE           the policy (default: restart.lua of the policies that ship)\n"
    "  --app FILE              the hosted application, Lua (default: the built-in gateway)\n"
    "  --handlers DIR          task handlers NAME.lua for the built-in gateway\n"
    "  --listen ADDR           HOST:PORT, [V6]:PORT, unix:PATH or fd:N; repeatable\n"
    "                          (default: what LISTEN_FDS passes, else 127.0.0.1:18789)\n"
    "  --state-dir DIR         lock, token, store, bundles (default: $GWHOST_STATE_DIR,\n"
    "                          $STATE_DIRECTORY, $XDG_STATE_HOME/gwhost, ~/.local/state/gwhost)\n"
    "  --set KEY=VALUE         ctx.vars.KEY in hooks and in the application; repeatable\n"
    "  --lane NAME=N[:QUEUE]   concurrency of a lane, and how many may queue; repeatable (default: main=4)\n"
    "  --keep-tasks LIMITS     how long tasks that have ended are kept: age, number and size, as in the\n"
    "                          default; what is left out is no limit (default: 7d,100000,1GiB)\n"
    "  --allow-exec            the built-in gateway may run commands\n"
    "  --token-file FILE       the bearer token (default: $GWHOST_TOKEN, else STATE/token)\n"
    "  --open                  no token; loopback and unix listeners only\n"
    "  --origin ORIGIN         pages that may use it besides its own and this machine's; repeatable\n"
    "  --defer-timeout TIME    how long a request may wait for an idle moment; 0: for ever (default: 5m)\n"
    "  --start-timeout TIME    how long an application may take to start (default: 60s)\n"
    "  --watch                 reload the policy when its file changes\n"
    "  --log-format FORMAT     text or json (default: text)\n"
    "  --log-level LEVEL       debug, info, warn or error (default: info)\n"
    "\n"
    "TIME: 250ms, 30s, 5m, 1h, or a bare number of seconds.\n"
    "signals: TERM and INT stop, USR1 restarts if the policy agrees, HUP reloads the policy.\n";

struct arguments {
    struct gw_host_options host;
    const char *policy, *app, *state_dir, *handlers, *token_file, *lua_dir;
    const char **listen, **origins;
    struct gw_lane_spec *lanes;
    enum gw_log_format format;
    enum gw_level level;
    char **argv; /* as it was given: getopt_long() changes the order */
};

static int usage_error(const char *what, const char *value)
{
    (void)fprintf(stderr, "gwhost: %s%s%s%s\ngwhost: try 'gwhost --help'\n", what, value != NULL ? " '" : "",
                  value != NULL ? value : "", value != NULL ? "'" : "");
    return GW_EXIT_USAGE;
}

/* Where lua/ and policies/ are: beside an installed program, or in the source tree it was built from. */
static char *share_dir(void)
{
    char exe[1024];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n > 0) {
        exe[n] = '\0';
        char *installed = gw_asprintf("%s/../share/gwhost", dirname(exe));
        char *probe = gw_asprintf("%s/lua/gwhost", installed);
        bool there = access(probe, R_OK) == 0;
        free(probe);
        char *plain = there ? realpath(installed, NULL) : NULL;
        free(installed);
        if (plain != NULL)
            return plain;
    }
    return gw_strdup(GWHOST_SOURCE_DIR);
}

static bool add_lane(struct arguments *a, const char *word)
{
    const char *equals = strchr(word, '=');
    if (equals == NULL || equals == word || equals - word > 63)
        return false;
    char *numbers = gw_strdup(equals + 1), *colon = strchr(numbers, ':');
    int64_t concurrency = 0, queue = -1;
    if (colon != NULL)
        *colon = '\0';
    bool ok = gw_parse_int(numbers, 0, 100000, &concurrency) &&
              (colon == NULL || gw_parse_int(colon + 1, 0, INT64_MAX, &queue));
    free(numbers);
    if (!ok)
        return false;
    size_t n = a->host.lane_count++;
    a->lanes = gw_realloc(a->lanes, (n + 1) * sizeof *a->lanes);
    a->lanes[n] = (struct gw_lane_spec){.name = gw_memdup0(word, (size_t)(equals - word)),
                                        .concurrency = (unsigned)concurrency,
                                        .queue_limit = queue};
    return true;
}

static bool add_variable(struct arguments *a, const char *word)
{
    const char *equals = strchr(word, '=');
    if (equals == NULL || equals == word)
        return false;
    char *key = gw_memdup0(word, (size_t)(equals - word));
    bool ok = gw_utf8_valid(key, strlen(key));
    if (ok)
        gw_json_set(a->host.vars, key, gw_json_string(equals + 1));
    free(key);
    return ok;
}

static bool add_origin(struct arguments *a, const char *word)
{
    struct gw_authority page;
    int port;
    if (strcmp(word, "null") != 0 && !gw_origin_read(word, &page, &port))
        return false;
    a->origins = gw_realloc(a->origins, (a->host.origin_count + 1) * sizeof *a->origins);
    a->origins[a->host.origin_count++] = word;
    a->host.origins = a->origins;
    return true;
}

enum { OPT_POLICY = 256, OPT_APP, OPT_HANDLERS, OPT_LISTEN, OPT_STATE_DIR, OPT_SET, OPT_LANE, OPT_KEEP_TASKS, OPT_ALLOW_EXEC,
       OPT_TOKEN_FILE, OPT_OPEN, OPT_ORIGIN, OPT_DEFER, OPT_START, OPT_WATCH, OPT_LOG_FORMAT, OPT_LOG_LEVEL, OPT_VERSION,
       OPT_HELP };

static const struct option options[] = {{"policy", required_argument, NULL, OPT_POLICY},
                                        {"app", required_argument, NULL, OPT_APP},
                                        {"handlers", required_argument, NULL, OPT_HANDLERS},
                                        {"listen", required_argument, NULL, OPT_LISTEN},
                                        {"state-dir", required_argument, NULL, OPT_STATE_DIR},
                                        {"set", required_argument, NULL, OPT_SET},
                                        {"lane", required_argument, NULL, OPT_LANE},
                                        {"keep-tasks", required_argument, NULL, OPT_KEEP_TASKS},
                                        {"allow-exec", no_argument, NULL, OPT_ALLOW_EXEC},
                                        {"token-file", required_argument, NULL, OPT_TOKEN_FILE},
                                        {"open", no_argument, NULL, OPT_OPEN},
                                        {"origin", required_argument, NULL, OPT_ORIGIN},
                                        {"defer-timeout", required_argument, NULL, OPT_DEFER},
                                        {"start-timeout", required_argument, NULL, OPT_START},
                                        {"watch", no_argument, NULL, OPT_WATCH},
                                        {"log-format", required_argument, NULL, OPT_LOG_FORMAT},
                                        {"log-level", required_argument, NULL, OPT_LOG_LEVEL},
                                        {"version", no_argument, NULL, OPT_VERSION},
                                        {"help", no_argument, NULL, OPT_HELP},
                                        {NULL, 0, NULL, 0}};

/* Returns -1 to go on, or an exit code. */
static int take_option(struct arguments *a, int option)
{
    switch (option) {
    case OPT_POLICY:
        a->policy = optarg;
        return -1;
    case OPT_APP:
        a->app = optarg;
        return -1;
    case OPT_HANDLERS:
        a->handlers = optarg;
        return -1;
    case OPT_LISTEN:
        a->listen = gw_realloc(a->listen, (a->host.listen_count + 1) * sizeof *a->listen);
        a->listen[a->host.listen_count++] = optarg;
        return -1;
    case OPT_STATE_DIR:
        a->state_dir = optarg;
        return -1;
    case OPT_SET:
        return add_variable(a, optarg) ? -1 : usage_error("--set takes KEY=VALUE, not", optarg);
    case OPT_LANE:
        return add_lane(a, optarg) ? -1 : usage_error("--lane takes NAME=N[:QUEUE], not", optarg);
    case OPT_KEEP_TASKS:
        return gw_retention_parse(optarg, &a->host.keep)
                   ? -1
                   : usage_error("--keep-tasks takes an age, a number and a size, as 7d,100000,1GiB, or some of them, not", optarg);
    case OPT_ALLOW_EXEC:
        a->host.allow_exec = true;
        return -1;
    case OPT_TOKEN_FILE:
        a->token_file = optarg;
        return -1;
    case OPT_OPEN:
        a->host.open = true;
        return -1;
    case OPT_ORIGIN:
        return add_origin(a, optarg) ? -1 : usage_error("--origin takes SCHEME://HOST[:PORT] or null, not", optarg);
    case OPT_DEFER:
        return gw_parse_duration(optarg, &a->host.defer_timeout_ms) ? -1 : usage_error("--defer-timeout: no duration", optarg);
    case OPT_START:
        return gw_parse_duration(optarg, &a->host.start_timeout_ms) ? -1 : usage_error("--start-timeout: no duration", optarg);
    case OPT_WATCH:
        a->host.watch = true;
        return -1;
    case OPT_LOG_FORMAT:
        if (strcmp(optarg, "text") != 0 && strcmp(optarg, "json") != 0)
            return usage_error("--log-format is text or json, not", optarg);
        a->format = optarg[0] == 'j' ? GW_LOG_JSON : GW_LOG_TEXT;
        return -1;
    case OPT_LOG_LEVEL:
        return gw_log_level_parse(optarg, &a->level) ? -1 : usage_error("--log-level: no such level", optarg);
    case OPT_VERSION:
        (void)printf("gwhost %s contract 1\n", GWHOST_VERSION);
        return GW_EXIT_OK;
    case OPT_HELP:
        (void)fputs(usage_text, stdout);
        return GW_EXIT_OK;
    default:
        (void)fputs("gwhost: try 'gwhost --help'\n", stderr);
        return GW_EXIT_USAGE;
    }
}

/* The file to start an update from: as we were called, so that a link that is moved to a new version is followed,
 * if that is this program; else where this program was read from. */
static char *own_program(const char *called)
{
    struct stat self, named;
    char *path = strchr(called, '/') != NULL ? gw_path_absolute(called) : gw_path_find(called);
    if (path != NULL && stat("/proc/self/exe", &self) == 0 && stat(path, &named) == 0 && self.st_dev == named.st_dev &&
        self.st_ino == named.st_ino)
        return path;
    free(path);
    static const char gone[] = " (deleted)"; // an upgrade has put another file there: that is the one to start
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1), tail = sizeof gone - 1;
    if (n > tail && memcmp(exe + n - tail, gone, (size_t)tail) == 0)
        n -= tail;
    return n > 0 ? gw_memdup0(exe, (size_t)n) : gw_strdup(called);
}

/* Names are relative to where the first process of this host was started, by the name of that place: a link there may
 * have been moved to a new version since, and the old one may be gone. */
static void stand_where_started(void)
{
    const char *pwd = getenv("PWD");
    if (getenv("GWHOST_HANDOVER") != NULL) {
        (void)!(pwd != NULL && *pwd == '/' && chdir(pwd) == 0);
        return;
    }
    char *here = gw_path_absolute(".");
    size_t n = strlen(here);
    if (n > 2 && strcmp(here + n - 2, "/.") == 0)
        here[n - 2] = '\0';
    (void)setenv("PWD", here, 1);
    free(here);
}

/* What a predecessor left for us; no child shall see it. */
static int take_descriptor(const char *name)
{
    const char *text = getenv(name);
    int64_t fd;
    bool good = text != NULL && gw_parse_int(text, 3, 1 << 20, &fd) && fcntl((int)fd, F_SETFD, FD_CLOEXEC) == 0;
    (void)unsetenv(name);
    return good ? (int)fd : -1;
}

static int run(struct arguments *a, const char *share)
{
    // Started from /proc/self/exe the name would be `exe`.
    (void)prctl(PR_SET_NAME, "gwhost");
    stand_where_started();
    struct gw_err err = {0};
    char *state = NULL, *policy = a->policy != NULL ? gw_path_absolute(a->policy) : gw_asprintf("%s/policies/restart.lua", share);
    char *app = a->app != NULL ? gw_path_absolute(a->app) : gw_asprintf("%s/lua/gwhost/gateway.lua", share);
    char *handlers = a->handlers != NULL ? gw_path_absolute(a->handlers) : NULL;
    char *token_file = a->token_file != NULL ? gw_path_absolute(a->token_file) : NULL;
    char *lua_dir = gw_asprintf("%s/lua", share), *program = own_program(a->argv[0]);
    int code = GW_EXIT_CONFIG;
    if (gw_sentry_block(&err) < 0 || gw_statedir_choose(a->state_dir, &state, &err) < 0) {
        (void)fprintf(stderr, "gwhost: %s\n", err.text);
        goto out;
    }
    gw_log_setup(a->format, a->level, STDERR_FILENO);
    a->host.version = GWHOST_VERSION;
    a->host.program = program;
    a->host.argv = a->argv;
    a->host.policy = policy;
    a->host.app = app;
    a->host.handlers_dir = handlers;
    a->host.lua_dir = lua_dir;
    a->host.state_dir = state;
    a->host.token_file = token_file;
    a->host.listen = a->listen;
    a->host.lanes = a->lanes;
    a->host.handover_fd = take_descriptor("GWHOST_HANDOVER");
    a->host.child_nofile = gw_proc_raise_nofile();
    gw_proc_grow_table(GW_DESCRIPTORS);
    code = gw_host_run(&a->host);
out:
    free(state);
    free(policy);
    free(app);
    free(handlers);
    free(token_file);
    free(lua_dir);
    free(program);
    return code;
}

int main(int argc, char **argv)
{
    gw_proc_fill_stdio();
    struct arguments a = {.format = GW_LOG_TEXT, .level = GW_INFO};
    a.host.defer_timeout_ms = GW_DEFER_TIMEOUT_MS;
    (void)gw_retention_parse(GW_RETENTION, &a.host.keep);
    a.host.start_timeout_ms = GW_START_TIMEOUT_MS;
    a.host.vars = json_object();
    a.argv = gw_calloc((size_t)argc + 1, sizeof *a.argv);
    memcpy(a.argv, argv, (size_t)argc * sizeof *argv);
    char *share = share_dir();
    int code = -1;
    if (argc > 1 && strcmp(argv[1], "policy") == 0) {
        char *lua_dir = gw_asprintf("%s/lua", share);
        code = gw_cli_policy(argc - 1, argv + 1, lua_dir);
        free(lua_dir);
    } else if (!gw_cli_dispatch(argc - 1, argv + 1, &code)) {
        if (argc > 1 && strcmp(argv[1], "run") == 0) {
            argv[1] = argv[0];
            argc--;
            argv++;
        }
        for (int option; code < 0 && (option = getopt_long(argc, argv, "", options, NULL)) != -1;)
            code = take_option(&a, option);
        if (code < 0 && optind < argc)
            code = usage_error("unknown command", argv[optind]);
        if (code < 0)
            code = run(&a, share);
    }
    for (size_t i = 0; i < a.host.lane_count; i++)
        free(a.lanes[i].name);
    free(a.lanes);
    free(a.listen);
    free(a.origins);
    json_decref(a.host.vars);
    free(share);
    free(a.argv);
    return code;
}
