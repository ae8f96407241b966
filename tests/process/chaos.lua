-- Random signals, requests, broken files, kills and pauses. Whatever comes: what was accepted ends in one final status, one
-- process is left, and no sanitizer reports anything. GWHOST_SEED repeats a run, GWHOST_CHAOS_S makes it longer.
local t = require("support.harness")
local uv = require("luv")

local SEED = tonumber(os.getenv("GWHOST_SEED") or os.time())
local SECONDS = tonumber(os.getenv("GWHOST_CHAOS_S") or 12)
local MODES = { "in_process", "respawn", "reexec", "reexec", "respawn" }

local GATEWAY = t.read(t.source .. "/lua/gwhost/gateway.lua")
local POLICY = [[return { authorize_sigusr1 = function() return %s end,
  drain_budget = function(ctx) return ctx.action == "stop" and 0 or %d end,
  restart_mode = function(ctx) return { mode = "%s", health_timeout_ms = 4000 } end }]]
local FINAL = { succeeded = true, failed = true, timed_out = true, cancelled = true, interrupted = true, lost = true }

local function any(list) return list[math.random(#list)] end

local function alive(pid)
  local f = io.open("/proc/" .. pid .. "/stat")
  local state = f and f:read("a"):match("^.*%) (%S)")
  if f then f:close() end
  return state and state ~= "Z"
end

--- The processes that run on this state directory; one that becomes another image may be missed for a moment.
local function look(host)
  local pids = {}
  for name in io.popen("ls /proc"):lines() do
    local f = name:match("^%d+$") and io.open("/proc/" .. name .. "/cmdline")
    local line = f and f:read("a") or ""
    if f then f:close() end
    if line:find(host.state_dir, 1, true) and line:find("gwhost", 1, true) and alive(name) then pids[#pids + 1] = tonumber(name) end
  end
  return pids
end

local function family(host)
  local pids = look(host)
  if #pids > 0 then return pids end
  t.pause(200)
  return look(host)
end

local function now_ms()
  local s, us = uv.gettimeofday()
  return s * 1000 + us // 1000
end

--- Whether the process had already said that it exits at that moment.
local function has_exited(host, pid, at_ms)
  for _, e in ipairs(host:all("host.exiting")) do
    if e.pid == pid and e.ts <= at_ms then return true end
  end
  return false
end

local function no_report(host)
  for _, line in ipairs(host.lines) do
    if line:find("Sanitizer", 1, true) or line:find("runtime error", 1, true) or line:find("assertion", 1, true) then
      error("a report: " .. line .. "\n" .. host:log_tail())
    end
  end
end

t.test(("%d s of chaos with seed %d"):format(SECONDS, SEED), function()
  math.randomseed(SEED)
  local dir, accepted, host = t.dir(), {}, nil
  t.write(dir .. "/app.lua", GATEWAY)
  local function policy() return POLICY:format(any { "true", '"when_idle"' }, any { 0, 100, 2000 }, any(MODES)) end
  local function start()
    t.write(dir .. "/app.lua", GATEWAY)
    host = t.start({ dir = dir, state_dir = dir .. "/state", policy = policy(), args = { "--app", dir .. "/app.lua", "--allow-exec" } })
  end
  start()
  local broken_until = 0
  local counts = {}
  local function submit()
    local task = any { { handler = "echo", input = {} }, { handler = "sleep", input = { ms = math.random(300) } },
      { handler = "exec", input = { argv = { "sleep", "0.1" } } },
      { handler = "sleep", input = { ms = math.random(900) }, on_interrupt = "retry", on_crash = "retry" } }
    local c = t.connect(host)
    if not c then return end
    local a = c:request("POST", "/v1/tasks", task)
    c:close()
    if a and a.status == 202 then accepted[#accepted + 1] = a.json.task_id end
  end
  local function control(request)
    local c = t.connect(host, "unix:" .. host.state_dir .. "/control.sock")
    if not c then return end
    c:send(t.json.encode(request) .. "\n")
    c:until_match("\n.*\n", 3000)
    c:close()
  end
  local actions = {
    submit = submit, submit_more = submit, submit_most = submit,
    usr1 = function() host:signal("sigusr1") end,
    usr2 = function() host:signal("sigusr2") end,
    hup = function() host:signal("sighup") end,
    restart = function()
      pcall(control, { op = "restart", force = any { true, false, false }, when = any { "now", "idle" } })
    end,
    update = function() pcall(control, { op = "restart", update = true }) end,
    wait = function() pcall(control, { op = "restart", wait_ms = any { 0, 50, 1000 } }) end,
    reload = function() pcall(control, { op = "reload", back = any { true, false } }) end,
    edit = function() t.write(host.policy_file, policy()) end,
    break_policy = function() t.write(host.policy_file, any { "return {", "error('no')", "return { drain_budget = 7 }" }) end,
    break_app = function()
      t.write(dir .. "/app.lua", any { "return {", "error('no')", 'return { start = function() error("no") end }' })
      broken_until = t.now() + 300 * 1000000
    end,
    pause = function()
      local pid = any(family(host))
      if not pid then return end
      pcall(uv.kill, pid, "sigstop")
      t.pause(any { 50, 300, 1500 })
      pcall(uv.kill, pid, "sigcont")
    end,
    kill_successor = function()
      local child = host:all("respawn.spawned")
      child = child[#child] and child[#child].child_pid
      if child and child ~= host.pid and alive(child) then pcall(uv.kill, child, "sigkill") end
    end,
    kill = function()
      if math.random(4) > 1 then return end
      for _ = 1, 3 do for _, pid in ipairs(family(host)) do pcall(uv.kill, pid, "sigkill") end end
      t.ask_until("the end of all", function() return #family(host) == 0 end)
      no_report(host)
      start()
    end,
    stop = function()
      if math.random(4) > 1 then return end
      local asked, at_ms = host.pid, now_ms()
      host:signal("sigterm")
      t.ask_until(("the end of all, of pid %d at %d"):format(asked, at_ms), function()
        if #family(host) == 0 then return true end
        -- A process takes signals, and loses them, for as long as the kernel takes it apart.
        if asked ~= host.pid and has_exited(host, asked, at_ms) then
          asked, at_ms = host.pid, now_ms()
          pcall(uv.kill, asked, "sigterm")
        end
      end, 60000)
      no_report(host)
      start()
    end,
  }
  local names = {}
  for name in pairs(actions) do names[#names + 1] = name end
  table.sort(names)
  local ends = t.now() + SECONDS * 1000000000
  while t.now() < ends do
    local name = any(names)
    counts[name] = (counts[name] or 0) + 1
    local ok, err = pcall(actions[name])
    if not ok and not tostring(err):find("ESRCH", 1, true) then error(name .. ": " .. tostring(err) .. "\n" .. host:log_tail(), 0) end
    t.pause(math.random(60))
    if broken_until > 0 and t.now() > broken_until then
      broken_until = 0
      t.write(dir .. "/app.lua", GATEWAY)
    end
    if #family(host) == 0 then -- three crashes may also have been one end too many for what was asked
      no_report(host)
      start()
    end
  end
  -- Mended: one host serves, and everything that was accepted has ended.
  t.write(dir .. "/app.lua", GATEWAY)
  t.write(host.policy_file, POLICY:format("true", 0, "in_process"))
  t.ask_until("a host that serves", function()
    local c = t.connect(host)
    local a = c and c:request("GET", "/readyz")
    if c then c:close() end
    if not (a and a.status == 200) then pcall(control, { op = "restart", force = true }) end
    return a and a.status == 200
  end, 60000)
  t.ask_until("one process", function() return #family(host) == 1 end, 60000)
  for _, id in ipairs(accepted) do
    local last
    t.ask_until("the end of " .. id, function()
      last = host:get("/v1/tasks/" .. id)
      t.eq(last.status, 200, id .. " is forgotten")
      return FINAL[last.json.status]
    end, 60000)
  end
  no_report(host)
  pcall(uv.kill, family(host)[1], "sigterm")
  t.ask_until("the end of all", function() return #family(host) == 0 end, 60000)
  no_report(host)
  local words = {}
  for _, name in ipairs(names) do words[#words + 1] = name .. " " .. (counts[name] or 0) end
  print(("     %d tasks accepted, all ended once; %s"):format(#accepted, table.concat(words, ", ")))
end)

t.main()
