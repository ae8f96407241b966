#include "cli/commands.h"

#include <stddef.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"status", gw_cli_status}, {"restart", gw_cli_restart}, {"stop", gw_cli_stop},     {"reload", gw_cli_reload},
    {"submit", gw_cli_submit}, {"tasks", gw_cli_tasks},     {"bundle", gw_cli_bundle},
};

bool gw_cli_dispatch(int argc, char **argv, int *ret_code)
{
    for (size_t i = 0; argc > 0 && i < sizeof commands / sizeof *commands; i++)
        if (strcmp(argv[0], commands[i].name) == 0) {
            *ret_code = commands[i].run(argc, argv);
            return true;
        }
    return false;
}
