--- A patient policy: restarts wait for the work and take new tasks meanwhile, so that callers notice nothing but a
--- longer wait. Everything else is as in restart.lua beside it.
---
---   gwhost --policy patient.lua --set patience=30m       cut off after half an hour after all
local restart = require("restart")
local duration = require("gwhost.policy.text").duration

---@type gwhost.Policy
local policy = setmetatable({ name = "patient" }, { __index = restart })

local UNITS_MS = { [""] = 1000, ms = 1, s = 1000, m = 60000, h = 3600000 }

--- "30m" as milliseconds, or nil when it is no such text.
local function parse(said)
  local number, unit = said:match("^(%d+)(%a*)$")
  local unit_ms = UNITS_MS[unit]
  return unit_ms and math.tointeger(number) * unit_ms
end

--- A restart takes as long as the work does, or as `--set patience=` says; its queue stays open. What the request
--- asks for goes first, and a stop is answered as in restart.lua.
---@param ctx gwhost.DrainContext
function policy.drain_budget(ctx)
  local asked = ctx.intent and (ctx.intent.wait_ms or ctx.intent.force)
  if ctx.action == "stop" or ctx.force or asked then return restart.drain_budget(ctx) end
  local patience_ms = ctx.vars.patience and parse(ctx.vars.patience)
  return {
    budget_ms = patience_ms or "unlimited",
    accept = "queue",
    report_every_ms = 60000,
  }, patience_ms and "patience of " .. duration(patience_ms) or "as long as the work takes"
end

return policy
