#include "lifecycle/budget.h"

uint64_t gw_budget_forced_exit(const struct gw_budget_plan *plan)
{
    if (plan->drain_ms >= GW_NO_END - GW_FORCED_EXIT_MS - plan->extra_ms)
        return plan->end_at_ms;
    uint64_t drained = plan->accepted_ms + (uint64_t)plan->drain_ms;
    uint64_t from = drained > plan->changed_ms ? drained : plan->changed_ms;
    uint64_t at = from + (uint64_t)(GW_FORCED_EXIT_MS + plan->extra_ms);
    return at < plan->end_at_ms ? at : plan->end_at_ms;
}

int64_t gw_budget_left(int64_t budget_ms, int64_t elapsed_ms)
{
    if (budget_ms == GW_NO_END)
        return GW_NO_END;
    return budget_ms > elapsed_ms ? budget_ms - elapsed_ms : 0;
}

struct gw_budget_fit gw_budget_fit(int64_t drain_ms, int64_t stop_timeout_ms)
{
    int64_t margin = stop_timeout_ms / 10 < 5000 ? stop_timeout_ms / 10 : 5000;
    int64_t end = stop_timeout_ms - margin;
    int64_t closing = end / 2 < GW_FORCED_EXIT_MS ? end / 2 : GW_FORCED_EXIT_MS;
    struct gw_budget_fit fit = {.drain_ms = drain_ms};
    if (stop_timeout_ms <= 0)
        return fit;
    fit.end_ms = end;
    fit.cut = drain_ms > end - closing;
    fit.drain_ms = fit.cut ? end - closing : drain_ms;
    return fit;
}
