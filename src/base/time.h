/* time.h - the two clocks, in milliseconds. */
#pragma once

#include <stdint.h>

uint64_t gw_now_ms(void);  /* monotonic; for budgets and deadlines */
uint64_t gw_now_us(void);  /* the same clock, microseconds */
int64_t gw_wall_ms(void);  /* Unix time; for logs and records only */
