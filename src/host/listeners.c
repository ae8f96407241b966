/* listeners.c - the sockets that this host listens on: passed to it, or opened by the words of its options. */
#include "host/inside.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Sockets that a service manager has for us; those that no --listen wants are no longer worth keeping. */
static int take_passed(struct gw_host *h, struct gw_err *err)
{
    struct gw_listen_unwanted *unwanted = NULL;
    size_t n = 0;
    int rc = gw_listen_passed(h->options.listen, h->options.listen_count, &h->sockets, &h->socket_count, &unwanted, &n, err);
    for (size_t i = 0; i < n; i++) {
        gw_log(GW_WARN, "listener.unwanted", json_pack("{so}", "address", gw_json_string(unwanted[i].address)),
               "%s was passed (LISTEN_FDS) and no --listen asks for it: it is closed", unwanted[i].address);
        if (unwanted[i].name != NULL)
            gw_supervision_forget(h, unwanted[i].name);
        free(unwanted[i].name);
        free(h->unwanted);
        h->unwanted = unwanted[i].address;
    }
    free(unwanted);
    return rc;
}

/* What a socket unit listens on cannot be bound: the words of the two have to agree, and trying again changes nothing. */
static int blame_passed(const struct gw_host *h, const char *word, int rc, struct gw_err *err)
{
    if (rc != -EADDRINUSE || h->unwanted == NULL)
        return rc;
    return gw_err_set(err, -EINVAL, "'%.60s' is in use, and %.60s was passed (LISTEN_FDS), which no --listen asks for: give "
                      "--listen %.60s", word, h->unwanted, h->unwanted);
}

int gw_listeners_open(struct gw_host *h, struct gw_err *err)
{
    const struct gw_host_options *o = &h->options;
    static const char *const fallback = "127.0.0.1:18789";
    bool first = h->net == NULL;
    if (first) {
        struct gw_net_limits limits = gw_net_limits_default();
        int rc = gw_net_open(&h->loop, &limits, &gw_routes, h, &h->net, err);
        if (rc == 0 && h->standby.active)
            gw_net_freeze(h->net); // nothing is touched that our predecessor still serves
        else if (rc == 0)
            rc = take_passed(h, err);
        if (rc < 0)
            return rc;
    }
    bool use_fallback = o->listen_count == 0 && h->socket_count == 0;
    size_t words = h->standby.active && first ? 0 : use_fallback ? 1 : o->listen_count;
    for (size_t i = 0; i < words; i++) {
        const char *word = use_fallback ? fallback : o->listen[i];
        bool kept = false;
        for (size_t k = 0; k < h->socket_count; k++)
            kept = kept || strcmp(h->sockets[k].word, word) == 0;
        int rc = kept ? 0 : gw_listen_open(word, &h->sockets, &h->socket_count, err);
        if (rc < 0)
            return blame_passed(h, word, rc, err);
    }
    if (first)
        gw_room_share(h);
    for (size_t i = 0; i < h->socket_count; i++) {
        int rc = gw_net_listen(h->net, h->sockets[i].fd, h->sockets[i].address, err);
        if (rc < 0)
            return rc;
        gw_log(GW_INFO, "listener.bound",
               json_pack("{sosb}", "address", gw_json_string(h->sockets[i].address), "inherited",
                         h->sockets[i].inherited || (h->standby.active && first)),
               "listening on %s", h->sockets[i].address);
    }
    return 0;
}
