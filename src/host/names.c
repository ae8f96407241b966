/* names.c - unix sockets are reached by names on disk, which others can take away.
 *
 * A folder that is cleaned, a manager that removes its runtime directory, a deploy: the descriptor goes on listening and
 * nobody can come any more. What was bound is compared with what its name leads to, at each start and each reload. */
#include "host/inside.h"

#include <unistd.h>

static void mend(struct gw_host *h, struct gw_listen_socket *s)
{
    struct gw_err err = {0};
    int old_fd = -1;
    char *name = gw_strdup(s->name);
    int rc = gw_listen_bind_anew(s, &old_fd, &err);
    if (rc == 0 && name != NULL) // what the manager keeps leads nowhere
        gw_supervision_forget(h, name);
    if (rc == 0)
        rc = gw_net_replace(h->net, old_fd, s->fd, s->address, &err);
    if (old_fd >= 0)
        (void)close(old_fd);
    free(name);
    if (rc < 0)
        gw_log(GW_ERROR, "listener.lost", json_pack("{soso}", "address", gw_json_string(s->address), "error",
               gw_json_string(err.text)), "nobody can connect to %s, its file is gone or another one, and it cannot be bound "
               "anew: make room there, then 'gwhost reload'", s->address);
    else
        gw_log(GW_WARN, "listener.bound", json_pack("{sosb}", "address", gw_json_string(s->address), "inherited", 0),
               "the file of %s was gone or another one; it is bound anew", s->address);
}

void gw_names_mend(struct gw_host *h)
{
    struct gw_err err = {0};
    if (h->lock == NULL || h->succession.stage != GW_SUCC_NONE)
        return; // the next process looks itself, at what it was given
    for (size_t i = 0; i < h->socket_count; i++)
        if (gw_listen_lost(&h->sockets[i]))
            mend(h, &h->sockets[i]);
    int rc = gw_control_mend(h, &err);
    if (rc != 0)
        gw_log(rc < 0 ? GW_ERROR : GW_WARN, rc < 0 ? "control.failed" : "control.bound",
               rc < 0 ? json_pack("{so}", "error", gw_json_string(err.text)) : NULL, "%s",
               rc < 0 ? "the control socket is gone and cannot be made again; signals and HTTP work"
                      : "the control socket's file was gone or another one; it is bound anew");
}
