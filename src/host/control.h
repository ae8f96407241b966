/* control.h - inside of the control socket: clients and what they ask. Not for other folders. */
#pragma once

#include "host/inside.h"

struct gw_control_client {
    uv_pipe_t pipe;      /* data: this */
    uv_timer_t silence;  /* data: this */
    struct gw_host *host;
    struct gw_control_client *next;
    struct gw_buf in;
    unsigned uses;       /* handles not closed yet, writes and answers under way */
    pid_t peer;
    bool gone, follows;
};

/* An answer that comes later keeps its client; one that has gone by then is sent nothing. */
void gw_control_hold(struct gw_control_client *c);
void gw_control_release(struct gw_control_client *c);
void gw_control_send(struct gw_control_client *c, json_t *message); /* takes the reference */
/* id is borrowed, result taken. */
void gw_control_answer(struct gw_control_client *c, json_t *id, json_t *result);
void gw_control_refuse(struct gw_control_client *c, json_t *id, const char *code, const char *message);

/* ops.c: carries out one request, a JSON object. */
void gw_control_do(struct gw_control_client *c, json_t *request);
