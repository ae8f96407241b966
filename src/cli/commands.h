/* commands.h - the subcommands that talk to a running host, or look at what one left.
 *
 * Each gets its own name as argv[0] and returns the exit code: 0, 1 when it failed or the host refused, 2 on
 * wrong usage. Answers go to standard output, progress and complaints to standard error. */
#pragma once

#include <stdbool.h>

/* Whether argv[0] names one; then it is run and *ret_code is its exit code. */
bool gw_cli_dispatch(int argc, char **argv, int *ret_code);

int gw_cli_status(int argc, char **argv);
int gw_cli_restart(int argc, char **argv);
int gw_cli_stop(int argc, char **argv);
int gw_cli_reload(int argc, char **argv);
int gw_cli_submit(int argc, char **argv);
int gw_cli_tasks(int argc, char **argv);
int gw_cli_bundle(int argc, char **argv);
