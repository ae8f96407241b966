/* options.h - how a subcommand reads its command line: getopt_long, with --state-dir and --help for all. */
#pragma once

#include <stdbool.h>

enum { GW_CLI_OK = 0, GW_CLI_FAILED = 1, GW_CLI_USAGE = 2 };

/* An option of a subcommand: --name, with a value or without. */
struct gw_cli_option {
    const char *name;
    const char **value; /* where the value goes; NULL: it takes none */
    bool *flag;         /* set to true when it is given; NULL: no matter */
};

struct gw_cli_args {
    const char *command; /* "restart" */
    const char *usage;   /* printed by --help */
    const char *state_dir;
    bool words; /* other words may follow the options */
    int argc; /* what is behind the options */
    char **argv;
};

/* Reads options (ended by a NULL name) up to the first word that is none. Returns -1 to go on, or an exit code. */
int gw_cli_options(struct gw_cli_args *args, const struct gw_cli_option *options, int argc, char **argv);

/* Wrong usage: says what, and where help is. Returns the exit code. */
int gw_cli_misused(const struct gw_cli_args *args, const char *what, const char *word);
