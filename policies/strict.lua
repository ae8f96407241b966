--- A strict policy, for hosts whose work must not be lost: nobody restarts it by a signal, and a restart waits for
--- the work, however long it takes.
---@type gwhost.Policy
local policy = { api = 1, name = "strict" }

-- What running work gets when the host is told to stop. Whoever stops it (systemd: TimeoutStopSec) must wait longer.
local STOP_BUDGET_MS = 300000

--- In-process only; an update needs a new program, so a new process.
---@param ctx gwhost.RestartContext
function policy.restart_mode(ctx)
  if ctx.update then return "respawn", "an update needs a new process" end
  return "in_process", "the strict policy restarts in-process"
end

--- Nothing is cut off by a restart, unless somebody forces it.
---@param ctx gwhost.DrainContext
function policy.drain_budget(ctx)
  if ctx.action == "stop" then return STOP_BUDGET_MS, "a stop must end" end
  if ctx.force then return 0, "forced" end
  return "unlimited", "a restart never cuts work off"
end

--- Restarts are asked for with `gwhost restart`, which says who and why.
function policy.authorize_sigusr1()
  return false, "the strict policy takes no SIGUSR1; use 'gwhost restart'"
end

return policy
