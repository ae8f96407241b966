/* held.c - requests that wait for the next generation: bounded in number and time. */
#include "base/err.h"
#include "net/inside.h"

#include <stdlib.h>

static void give_back(struct gw_request *req)
{
    char *code = req->hold_code, *message = req->hold_message;
    req->hold_code = req->hold_message = NULL;
    gw_answer_error(req, 503, code, message, 1000);
    free(code);
    free(message);
}

void gw_net_hold(struct gw_net *net, struct gw_request *req, const char *code, const char *message)
{
    gw_assert(req->state == GW_REQ_IN_HAND);
    if (req->conn == NULL || net->counts.held >= net->limits.held) {
        gw_answer_error(req, 503, code, message, 1000);
        return;
    }
    gw_list_remove(&req->link);
    gw_ready_cancel(&req->ready);
    req->gone_told = false;
    net->counts.in_flight--;
    net->counts.held++;
    req->state = GW_REQ_HELD;
    req->hold_code = gw_strdup(code);
    req->hold_message = gw_strdup(message);
    gw_list_append(&net->held, &req->link);
    gw_timeout_set(net, &req->timed, GW_TO_HELD);
}

void gw_held_expire(struct gw_timed *t)
{
    t->class = GW_TO_NONE;
    give_back(gw_container(t, struct gw_request, timed));
}

/* A bounded number a turn, so that sockets are looked at in between. */
static void release_some(struct gw_ready *r)
{
    struct gw_net *net = gw_container(r, struct gw_net, release);
    for (int i = 0; i < RELEASED_A_TURN && !gw_list_empty(&net->released); i++) {
        struct gw_request *req = gw_container(net->released.next, struct gw_request, link);
        free(req->hold_code);
        free(req->hold_message);
        req->hold_code = req->hold_message = NULL;
        gw_request_hand_out(req);
    }
    if (!gw_list_empty(&net->released))
        gw_ready_queue(net, &net->release, release_some);
}

void gw_net_release(struct gw_net *net)
{
    for (struct gw_list *l = net->held.next; l != &net->held; l = l->next) {
        struct gw_request *req = gw_container(l, struct gw_request, link);
        gw_timeout_clear(net, &req->timed);
        req->state = GW_REQ_RELEASED;
    }
    gw_list_move(&net->released, &net->held);
    if (!gw_list_empty(&net->released))
        gw_ready_queue(net, &net->release, release_some);
}

void gw_net_refuse_held(struct gw_net *net, int status, const char *code, const char *message)
{
    struct gw_list *lists[] = {&net->released, &net->held};
    for (int i = 0; i < 2; i++)
        while (!gw_list_empty(lists[i]))
            gw_answer_error(gw_container(lists[i]->next, struct gw_request, link), status, code, message, 0);
}
