/* client.h - a connection to the control socket of the host that runs on a state directory.
 *
 * Blocking, with a deadline for everything. Requests are answered in their turn; events that come in between are
 * kept until they are asked for. The host may go and another may come: gw_client_reopen finds that one. */
#pragma once

#include "base/str.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct gw_err;

enum { GW_CLIENT_CALL_MS = 30000, GW_CLIENT_REOPEN_MS = 30000 };

struct gw_client {
    char *dir;         /* owned; the state directory */
    int fd;            /* owned; -1: not connected */
    struct gw_buf in;  /* what has arrived and was not read */
    size_t scanned;    /* bytes of it that are known to hold no end of a line */
    json_t *events;    /* owned array of events that came while an answer was waited for */
    size_t taken;      /* of them, how many have been handed out */
    int64_t last_id;
    pid_t pid;         /* of the host that answers */
    char boot_id[40];
    int64_t generation; /* when it was connected to */
    unsigned connections; /* how many there have been; another number: events may have been missed */
    bool hands_over;   /* the host has said that its next process is ready */
    char refused[32];  /* error code of the last answer that was an error */
    bool follows;      /* set: gw_client_insist asks for events again on a new connection */
    void (*note)(void *ud, const char *words); /* told when the connection is lost and had again; may be NULL */
    void *note_ud;     /* borrowed */
};

/* Connects to the host of state_dir (NULL: as the environment says). On success the client is the caller's to
 * finish; on failure too. -ENOENT or -ECONNREFUSED when no host is there. */
int gw_client_open(struct gw_client *c, const char *state_dir, struct gw_err *err);

/* After the connection is lost: tries until deadline_ms (gw_now_ms) to reach whoever answers on the state
 * directory now. Events that were not handed out are dropped. */
int gw_client_reopen(struct gw_client *c, uint64_t deadline_ms, struct gw_err *err);

/* Sends op with args (an object, taken; NULL: none) and waits for its answer; *ret_result is the caller's.
 * -EREMOTEIO when the host refuses: c->refused is its code, err its words. -ECONNRESET when the connection is
 * lost before the answer. */
int gw_client_call(struct gw_client *c, const char *op, json_t *args, json_t **ret_result, struct gw_err *err);

/* The same for what may be asked twice, with args borrowed: when the connection is lost it is had again, for up to
 * GW_CLIENT_REOPEN_MS, and whoever answers then is asked. */
int gw_client_insist(struct gw_client *c, const char *op, const json_t *args, json_t **ret_result,
                     struct gw_err *err);

/* Asks for events from now on, here and on every later connection. */
int gw_client_follow(struct gw_client *c, struct gw_err *err);

/* The next event (the log object), waited for until deadline_ms; UINT64_MAX: for ever. The caller's.
 * -ETIMEDOUT, or -ECONNRESET when the connection is lost. */
int gw_client_event(struct gw_client *c, uint64_t deadline_ms, json_t **ret_event, struct gw_err *err);

void gw_client_fini(struct gw_client *c);
