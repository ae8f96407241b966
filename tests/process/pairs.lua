-- Every pair of a request that waits or runs and one that comes: what becomes of both is reckoned here by the contract's
-- words, and looked at in the host.
local t = require("support.harness")
local uv = require("luv")

local DEFAULT_MS = 60000 -- the policy's, where nobody has said how long
local POLICY = [[return { authorize_sigusr1 = function() return true end,
  restart_mode = function(ctx) return ctx.update and "respawn" or "in_process" end,
  drain_budget = function(ctx)
    if ctx.action == "stop" then return 0 end
    local wait_ms = ctx.intent and ctx.intent.wait_ms
    if wait_ms then return wait_ms > 0 and wait_ms or "unlimited" end
    return 60000
  end }]]

local KINDS = {
  { name = "now" },
  { name = "idle", when = "idle" },
  { name = "short", wait_ms = 30000 },
  { name = "long", wait_ms = 90000 },
  { name = "unlimited", wait_ms = 0 },
  { name = "force", force = true },
  { name = "update", update = true },
  { name = "sigterm", signal = true },
}

local function request_of(kind)
  return { op = "restart", when = kind.when, wait_ms = kind.wait_ms, force = kind.force, update = kind.update }
end

--- The shorter one that was asked for; 0 is the longest; nil: nobody has said.
local function shorter(a, b)
  if not a or not b then return a or b end
  if a == 0 or b == 0 then return a == 0 and b or a end
  return math.min(a, b)
end

local function budget_of(wait_ms)
  if wait_ms == 0 then return nil end -- no limit
  return wait_ms or DEFAULT_MS
end

local function sigterm_with_intent(host)
  local path = host.state_dir .. "/restart-intent.json"
  t.write(path, t.json.encode({ kind = "gateway-restart", pid = host.pid, created_at_ms = os.time() * 1000 }))
  assert(uv.fs_chmod(path, 384))
  host:signal("sigterm")
end

local function check(first, second)
  local host = t.start({ policy = POLICY })
  local pid = host.pid
  local task = host:submit({ handler = "sleep", input = { ms = 600000 } })
  host:until_status(task, "running")
  local waits = first.when == "idle"
  local id = host:control(request_of(first)).result.request_id
  if not waits then t.eq(host:wait("drain.started").budget_ms, budget_of(first.wait_ms)) end

  local ignored = second.signal and not waits -- by the table of signals: a restart by signal while one drains
  if second.signal then
    sigterm_with_intent(host)
    if ignored then
      t.eq(host:wait("signal.ignored").signal, "SIGTERM")
    else
      t.eq(host:wait("restart.merged").into, id)
    end
  else
    local told = host:control(request_of(second)).result
    t.eq(told.status, "merged")
    t.eq(told.merged_into, id)
    local changed = {}
    for _, what in ipairs(told.changed) do changed[what] = true end
    local sooner = shorter(first.wait_ms, second.wait_ms) ~= first.wait_ms
    t.eq(changed.force or false, second.force or false, "force")
    t.eq(changed.update or false, second.update and not first.update or false, "update")
    t.eq(changed.now or false, waits and not second.when or false, "now")
    t.eq(changed.wait_ms or false, sooner and not second.force or false, "wait_ms")
  end

  local wait_ms = ignored and first.wait_ms or shorter(first.wait_ms, second.wait_ms)
  local update = first.update or second.update
  if waits and second.when == "idle" then
    t.eq(host:get("/v1/status").json.restart.current.status, "deferred")
  elseif second.force then
    host:wait(waits and "drain.skipped" or "drain.skipped")
  elseif waits then
    t.eq(host:wait("drain.started").budget_ms, budget_of(wait_ms))
  elseif wait_ms ~= first.wait_ms then
    t.eq(host:wait("drain.budget_changed").budget_ms, budget_of(wait_ms))
  end
  if not second.force then
    t.eq(host:control({ op = "restart", force = true }).result.merged_into, id)
  end
  t.eq(host:wait("restart.outcome", function(e) return e.request_id == id end).outcome, "restarted")
  local ready = host:wait("host.ready", function(e) return e.pid ~= pid or e.generation > 1 end)
  t.eq(ready.pid ~= pid, update or false, "another process")
  t.eq(host:get("/v1/tasks/" .. task).json.status, "interrupted")
  for _, e in ipairs(host:all("restart.outcome")) do
    t.ok(e.request_id == id or e.outcome == "merged", e.request_id .. " is " .. e.outcome)
  end
  host:stop()
end

for _, first in ipairs(KINDS) do
  if not first.force and not first.signal then -- these two are over before anything else can come
    t.test(("%s, and each kind of request behind it"):format(first.name), function()
      local jobs = {}
      for _, second in ipairs(KINDS) do
        jobs[#jobs + 1] = t.go(function()
          local ok, err = xpcall(check, debug.traceback, first, second)
          if not ok then error(("%s, then %s: %s"):format(first.name, second.name, err), 0) end
        end)
      end
      t.join(jobs, 60000)
    end)
  end
end

t.main()
