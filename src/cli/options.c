#include "cli/options.h"

#include "base/err.h"

#include <getopt.h>
#include <stdio.h>

enum { OPTIONS_MAX = 16, OPT_FIRST = 256, OPT_STATE_DIR = 512, OPT_HELP };

int gw_cli_misused(const struct gw_cli_args *args, const char *what, const char *word)
{
    (void)fprintf(stderr, "gwhost %s: %s%s%s%s\ntry 'gwhost %s --help'\n", args->command, what,
                  word != NULL ? " '" : "", word != NULL ? word : "", word != NULL ? "'" : "", args->command);
    return GW_CLI_USAGE;
}

static int take(struct gw_cli_args *args, const struct gw_cli_option *options, int option, char **argv)
{
    switch (option) {
    case OPT_STATE_DIR:
        args->state_dir = optarg;
        return -1;
    case OPT_HELP:
        (void)fputs(args->usage, stdout);
        return GW_CLI_OK;
    case ':':
        return gw_cli_misused(args, "a value is missing behind", argv[optind - 1]);
    case '?':
        return gw_cli_misused(args, "no such option", argv[optind - 1]);
    default:
        break;
    }
    const struct gw_cli_option *o = &options[option - OPT_FIRST];
    if (o->value != NULL)
        *o->value = optarg;
    if (o->flag != NULL)
        *o->flag = true;
    return -1;
}

int gw_cli_options(struct gw_cli_args *args, const struct gw_cli_option *options, int argc, char **argv)
{
    struct option all[OPTIONS_MAX] = {{"state-dir", required_argument, NULL, OPT_STATE_DIR},
                                      {"help", no_argument, NULL, OPT_HELP}};
    int n = 2, code = -1;
    for (int i = 0; options[i].name != NULL; i++) {
        gw_assert(n < OPTIONS_MAX - 1);
        all[n++] = (struct option){options[i].name, options[i].value != NULL ? required_argument : no_argument, NULL,
                                   OPT_FIRST + i};
    }
    opterr = 0;
    optind = 1;
    // "+": what is behind the first other word is that word's own.
    for (int option; code < 0 && (option = getopt_long(argc, argv, "+:", all, NULL)) != -1;)
        code = take(args, options, option, argv);
    args->argc = argc - optind;
    args->argv = argv + optind;
    if (code < 0 && !args->words && args->argc > 0)
        return gw_cli_misused(args, "it takes no such word", args->argv[0]);
    return code;
}
