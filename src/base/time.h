/* time.h - the two clocks, in milliseconds. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* No time that anybody asks for is longer, at whichever door: ten years. */
#define GW_MS_MAX INT64_C(315360000000)
#define GW_MS_WORDS "is not a number of milliseconds from %d to 315360000000 (ten years)"

uint64_t gw_now_ms(void);  /* monotonic; for budgets and deadlines */
uint64_t gw_now_us(void);  /* the same clock, microseconds */
int64_t gw_wall_ms(void);  /* Unix time; for logs and records only */

/* Whole milliseconds from a number with a fraction, which is left out; but what is more than 0 stays more, since 0 is
 * often without an end. False: not a number from min to GW_MS_MAX. */
bool gw_ms_floor(double ms, int64_t min, int64_t *ret_ms);
