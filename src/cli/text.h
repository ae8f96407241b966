/* text.h - words and colours for people: durations, ages, tables' cells, one live line. */
#pragma once

#include "base/str.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct gw_err;

enum gw_colour { GW_PLAIN, GW_BOLD, GW_DIM, GW_GREEN, GW_YELLOW, GW_RED };

/* Whether colours may be used on out: a terminal that knows them, and no NO_COLOR. */
bool gw_text_colours(FILE *out);

/* Escape sequence of a colour, or "" when colours is false. GW_PLAIN ends one. */
const char *gw_text_colour(bool colours, enum gw_colour colour);

/* "850 ms", "12.3 s", "4 m 48 s", "2 h 5 m", "3 d 4 h". Returns buf. */
const char *gw_text_duration(int64_t ms, char buf[32]);

/* A string member of object as one line that no terminal takes for a command; missing: otherwise. Returns buf. */
const char *gw_text_of(const json_t *object, const char *key, const char *otherwise, char *buf, size_t size);

/* "1 task", "2 tasks". */
void gw_text_count(struct gw_buf *b, int64_t n, const char *noun);

/* width columns of '#' and '-': how much of whole has gone. */
void gw_text_bar(struct gw_buf *b, int64_t gone, int64_t whole, unsigned width);

/* Columns of the terminal behind out; 80 when it does not tell. */
unsigned gw_text_columns(FILE *out);

/* "gwhost: WORDS" to standard error. Returns 1, the exit code of what failed. */
int gw_text_failed(const struct gw_err *err);

/* Prints object as JSON with a line end, for machines. */
void gw_text_json(const json_t *object);
