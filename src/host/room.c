/* room.c - descriptors: how many of them clients may have, and what is kept for everything else.
 *
 * Without a reserve whoever holds connections open takes the door away from the operator, the store's files, the
 * sources of the next generation, commands and the next process, which is given the connections under the same limit. */
#include "host/inside.h"

#include "os/proc.h"

enum { OWN = 96, BY_SOCKET = 2, BY_COMMAND = 4, COMMANDS = 4 };

/* All connections are no more than this many; a small limit leaves them a quarter, the rest is soon needed. */
static unsigned for_clients(const struct gw_host *h, unsigned limit, unsigned wanted)
{
    uint64_t reserve = OWN + BY_SOCKET * h->socket_count, commands = COMMANDS;
    for (size_t i = 0; i < h->options.lane_count; i++)
        commands += h->options.lanes[i].concurrency;
    if (h->options.allow_exec)
        reserve += BY_COMMAND * commands;
    unsigned left = limit > reserve + limit / 4 ? limit - (unsigned)reserve : limit / 4;
    return left < wanted ? left : wanted;
}

void gw_room_share(struct gw_host *h)
{
    unsigned limit = gw_proc_nofile(), wanted = gw_net_limits_default().connections;
    unsigned clients = for_clients(h, limit, wanted);
    gw_net_limit(h->net, clients, (limit - clients) / 4);
    if (clients < wanted && !h->standby.active) // else its predecessor has said so
        gw_log(GW_INFO, "connections.limited", json_pack("{sisi}", "connections", (int)clients, "descriptors", (int)limit),
               "at most %u clients are served at a time, not %u: this process may open %u files (ulimit -Hn, LimitNOFILE=) and "
               "keeps the rest for its own work", clients, wanted, limit);
}

void gw_room_accepting(void *host, bool paused, int code)
{
    struct gw_host *h = host;
    unsigned open = gw_net_counts(h->net).open;
    json_t *fields = json_pack("{sbsi}", "paused", paused, "connections", (int)open);
    if (!paused)
        gw_log(GW_INFO, "connections.room", fields, "newcomers are accepted again (connections: %u)", open);
    else if (code == 0)
        gw_log(GW_WARN, "connections.full", fields, "all %u connections that this host serves at a time are open: newcomers "
               "wait until one has gone", open);
    else
        gw_log(GW_WARN, "connections.full", fields, "newcomers wait, none can be accepted (connections: %u): %s", open,
               gw_strerror(code));
}
