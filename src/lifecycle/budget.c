#include "lifecycle/budget.h"

int64_t gw_budget_forced_exit(int64_t drain_ms)
{
    if (drain_ms >= GW_NO_END - GW_FORCED_EXIT_MS)
        return GW_NO_END;
    return drain_ms + GW_FORCED_EXIT_MS;
}

int64_t gw_budget_left(int64_t budget_ms, int64_t elapsed_ms)
{
    if (budget_ms == GW_NO_END)
        return GW_NO_END;
    return budget_ms > elapsed_ms ? budget_ms - elapsed_ms : 0;
}
