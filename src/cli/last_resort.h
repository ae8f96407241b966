/* last_resort.h - `gwhost restart --signal`: a restart without the control socket. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Writes the intent for the process that holds the lock of the state directory and sends it SIGUSR1; waits until
 * it has taken the intent when wait is set. Nothing is left behind when it cannot be sent or is not taken.
 * reason may be NULL, wait_ms is -1 when not said. Returns the exit code. */
int gw_cli_last_resort(const char *state_dir, const char *reason, bool force, int64_t wait_ms, bool wait);
