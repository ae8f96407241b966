/* handover.h - the letters between a host and its successor: what they say, written and read.
 *
 * succession.c sends them from the old side, standby.c from the new one, reexec.c through a file. */
#pragma once

#include "host/inside.h"

#include "loop/channel.h"

/* The contract between a host and its successor, as `gwhost --version` prints it. */
enum { GW_CONTRACT = 1 };

struct gw_fd_list {
    int fds[GW_LETTER_FDS]; /* borrowed */
    size_t count;
};

/* blob gets the policy in force; whole: and the sources of the application, for who cannot be asked any more. */
json_t *gw_handover_hello(struct gw_host *h, const char *boot_id, const char *program, bool whole,
                          struct gw_buf *blob, struct gw_fd_list *fds);
json_t *gw_handover_go(struct gw_host *h);
json_t *gw_handover_last(struct gw_host *h); /* what has changed since, with the last connections */
/* blob gets the sources that were proved: the image that follows a trial runs them, and so does the old process if it
 * has to go on itself. */
json_t *gw_handover_ready(struct gw_host *h, struct gw_buf *blob);
json_t *gw_handover_listeners(const struct gw_host *h);
/* Whether the successor is who and where it was told to be. */
int gw_handover_check_ready(struct gw_host *h, const char *boot_id, const json_t *ready, struct gw_err *err);
/* What was proved is what comes next here; nothing when its letter has no sources. */
void gw_handover_take_proved(struct gw_host *h, const struct gw_letter *letter);

/* Each descriptor that was taken over is -1 after it. */
int gw_handover_take_hello(struct gw_host *h, struct gw_letter *letter, struct gw_err *err);
void gw_handover_take_go(struct gw_host *h, const json_t *go);
void gw_handover_take_last(struct gw_host *h, const json_t *last);
