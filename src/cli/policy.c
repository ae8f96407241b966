#include "cli/policy.h"

#include "base/err.h"
#include "base/str.h"
#include "policy/policy.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct file {
    const char *given; /* borrowed */
    char *whole;       /* owned; NULL when there is no such file */
    unsigned passed, failed;
};

/* text, with the file called what the user called it. */
static void say(FILE *out, const struct file *f, const char *prefix, const char *text)
{
    size_t n = f->whole != NULL ? strlen(f->whole) : 0;
    if (n > 0 && strncmp(text, f->whole, n) == 0 && text[n] == ':')
        (void)fprintf(out, "%s%s%s\n", prefix, f->given, text + n);
    else
        (void)fprintf(out, "%s%s\n", prefix, text);
}

static void on_fault(void *ud, const char *text)
{
    say(stderr, ud, "", text);
}

static void on_result(void *ud, const char *sentence, const char *wrong)
{
    struct file *f = ud;
    (void)printf("%s  %s\n", wrong != NULL ? "FAIL" : "ok  ", sentence);
    if (wrong != NULL) {
        say(stdout, f, "      ", wrong);
        f->failed++;
    } else {
        f->passed++;
    }
}

static bool check(struct file *f, const char *lua_dir)
{
    return gw_policy_check(f->given, lua_dir, on_fault, f) == 0;
}

static bool test(struct file *f, const char *lua_dir)
{
    struct gw_err err;
    int rc = gw_policy_test(f->given, lua_dir, on_result, f, &err);
    if (rc < 0)
        say(stderr, f, "", err.text);
    return rc == 0;
}

static int usage(void)
{
    (void)fprintf(stderr, "usage: gwhost policy check FILE...\n       gwhost policy test FILE...\n");
    return 2;
}

int gw_cli_policy(int argc, char **argv, const char *lua_dir)
{
    if (argc < 3)
        return usage();
    bool testing = strcmp(argv[1], "test") == 0;
    if (!testing && strcmp(argv[1], "check") != 0)
        return usage();
    struct gw_err err;
    if (gw_policy_init(&err) < 0) {
        (void)fprintf(stderr, "gwhost: %s\n", err.text);
        return 1;
    }
    char *lua = realpath(lua_dir, NULL);
    unsigned passed = 0, failed = 0;
    bool fine = true;
    for (int i = 2; i < argc; i++) {
        struct file f = {.given = argv[i], .whole = realpath(argv[i], NULL)};
        if (testing && argc > 3)
            (void)printf("%s%s\n", i > 2 ? "\n" : "", argv[i]);
        fine = (testing ? test(&f, lua != NULL ? lua : lua_dir) : check(&f, lua != NULL ? lua : lua_dir)) &&
               fine;
        passed += f.passed;
        failed += f.failed;
        free(f.whole);
    }
    free(lua);
    gw_policy_fini();
    if (testing)
        (void)printf("%u passed, %u failed\n", passed, failed);
    return fine ? 0 : 1;
}
