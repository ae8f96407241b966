#include "base/time.h"

#include <time.h>

uint64_t gw_now_us(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t gw_now_ms(void)
{
    return gw_now_us() / 1000;
}

int64_t gw_wall_ms(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

bool gw_ms_floor(double ms, int64_t min, int64_t *ret_ms)
{
    if (!(ms >= (double)min && ms <= (double)GW_MS_MAX)) // also what is no number
        return false;
    int64_t whole = (int64_t)ms;
    *ret_ms = whole == 0 && ms > 0 ? 1 : whole;
    return true;
}
