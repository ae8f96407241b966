/* answer.h - what a hook may answer, read from the Lua stack into checked structs.
 *
 * The readers look at plain fields only, so no code of the policy runs while they do. They raise what is
 * wrong with an answer, without position: the asker knows the hook's. */
#pragma once

#include "policy/policy.h"
#include "policy/vm.h"

enum { GW_WHY_BYTES = 256, GW_SAID_BYTES = 128, GW_LINE_BYTES = 2001 };

/* Every reader begins with this: the answer as text, and the reason that came with it. */
struct gw_answer_words {
    struct gw_answer_reader reader;
    char said[GW_SAID_BYTES];
    char why[GW_WHY_BYTES];
};

struct gw_mode_reader {
    struct gw_answer_words words;
    struct gw_mode_answer answer;
};
struct gw_budget_reader {
    struct gw_answer_words words;
    bool stop;          /* in: asked about a stop */
    int64_t builtin_ms; /* in: for a table that leaves budget_ms out */
    struct gw_budget_answer answer;
};
struct gw_authorization_reader {
    struct gw_answer_words words;
    enum gw_authorization answer;
};
struct gw_line_reader {
    struct gw_answer_words words;
    char line[GW_LINE_BYTES]; /* "": nothing to say */
};

/* The read functions, for words.reader.read. */
void gw_read_mode(lua_State *L, int idx, struct gw_answer_reader *self);
void gw_read_budget(lua_State *L, int idx, struct gw_answer_reader *self);
void gw_read_authorization(lua_State *L, int idx, struct gw_answer_reader *self);
void gw_read_line(lua_State *L, int idx, struct gw_answer_reader *self);

/* Answers as text, for decisions. */
void gw_say_mode(const struct gw_mode_answer *a, char *ret_text, size_t size);
void gw_say_budget(const struct gw_budget_answer *a, char *ret_text, size_t size);
const char *gw_say_authorization(enum gw_authorization a);
bool gw_mode_parse(const char *name, enum gw_mode *ret_mode);
