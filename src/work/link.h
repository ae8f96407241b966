/* link.h - a doubly linked list through the things themselves: adding and removing cost nothing to speak of.
 *
 * A list is a link that stands for both ends. A link that is in no list points to itself. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct gw_link {
    struct gw_link *prev, *next;
};

static inline void gw_link_init(struct gw_link *l)
{
    l->prev = l->next = l;
}

static inline bool gw_link_alone(const struct gw_link *l)
{
    return l->next == l;
}

/* Out of its list; fine when it is in none. */
static inline void gw_link_remove(struct gw_link *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    gw_link_init(l);
}

/* To the end of list; l must be in none. */
static inline void gw_link_add(struct gw_link *list, struct gw_link *l)
{
    l->prev = list->prev;
    l->next = list;
    list->prev->next = l;
    list->prev = l;
}

/* The thing of that type whose member is l. */
#define gw_link_of(l, type, member) ((type *)(void *)((char *)(l)-offsetof(type, member)))
