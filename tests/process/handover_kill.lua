-- SIGKILL of the old process or its successor at system calls of a hand-over, of the unmodified release program:
-- afterwards one process owns lock and port, or none does and the next start works; each accepted task ends once
-- and none runs twice. strace puts the signal in.
local t = require("support.harness")
local uv = require("luv")

local RELEASE = os.getenv("GWHOST_RELEASE")
local POLICY = [[return { restart_mode = function() return "respawn" end,
  drain_budget = function(ctx) return ctx.action == "stop" and 0 or 60000 end }]]

local function have_strace()
  local probe = io.popen("strace -V 2>/dev/null")
  local there = probe:read("a") ~= ""
  probe:close()
  return there
end
if not RELEASE or not uv.fs_stat(RELEASE) or not have_strace() then
  t.skip("SIGKILL at system calls of a hand-over", "no strace or no release program here")
  t.main()
end

local OLD = { socketpair = { 1 }, clone = { 1 }, pidfd_open = { 1 }, sendmsg = { 1, 2, 3, 4, 5 }, recvmsg = { 2, 4, 6, 8 },
  close = { 30 } }
local NEW = { recvmsg = { 1, 3, 5, 7, 9 }, sendmsg = { 1, 2, 3, 4, 5 }, clone3 = { 1, 2 }, renameat = { 1, 2 },
  ftruncate = { 1 }, eventfd2 = { 2 }, openat = { 25 } }

--- Starts a command and gives its end: { done = true } once it has ended.
local function run(words)
  local job = { done = false }
  local handle
  handle = assert(uv.spawn(words[1], { args = { table.unpack(words, 2) }, stdio = { nil, nil, nil } }, function()
    job.done = true
    handle:close()
    t.wake()
  end))
  return job
end

--- All processes that run a host on this state directory, tracers apart.
local function hosts_of(state_dir)
  local pids = {}
  for name in io.popen("ls /proc"):lines() do
    local f = name:match("^%d+$") and io.open("/proc/" .. name .. "/cmdline")
    local line = f and f:read("a") or ""
    if f then f:close() end
    local status = line:find(state_dir, 1, true) and io.open("/proc/" .. name .. "/stat")
    local alive = status and not status:read("a"):match("%) Z ")
    if status then status:close() end
    if alive and line:find("gwhost", 1, true) and not line:find("^strace") and not line:find("^/bin/sh") then
      pids[#pids + 1] = tonumber(name)
    end
  end
  return pids
end

local function wrapper(inject)
  local path = t.write(t.dir() .. "/gwhost", ([[#!/bin/sh
[ "$1" = --version ] && exec '%s' --version
exec strace -D -o /dev/null -e trace=%s -e inject=%s '%s' "$@"
]]):format(RELEASE, inject:match("^[^:]*"), inject, RELEASE))
  assert(uv.fs_chmod(path, 493))
  return path
end

local killed = { old = 0, new = 0 }

local function kill_at(who, call, n)
  local what = ("%s at %s %d"):format(who, call, n)
  local inject = ("%s:signal=SIGKILL:when=%d"):format(call, n)
  local file = t.dir() .. "/ran"
  local spec = { program = RELEASE, policy = POLICY, args = { "--allow-exec", "--lane", "one=1" } }
  local host = t.start(spec)
  local ids = {}
  local function submit(ms)
    local id = host:submit({ handler = "exec", lane = "one",
      input = { argv = { "/bin/sh", "-c", ("echo $GWHOST_TASK_ID >> %s; sleep %s"):format(file, ms / 1000) } } })
    ids[#ids + 1] = id
    return id
  end
  host:until_status(submit(150), "running")
  for _ = 1, 3 do submit(0) end
  local pid, tracer = host.pid
  if who == "old" then
    tracer = run({ "strace", "-p", tostring(pid), "-o", "/dev/null", "-e", "trace=" .. call, "-e", "inject=" .. inject })
    t.poll("the tracer", function() return t.read("/proc/" .. pid .. "/status"):match("TracerPid:\t([1-9]%d*)") end)
  end
  host:control({ op = "restart", update = who == "new", exec = who == "new" and wrapper(inject) or nil })
  -- It has come to its end when the old one has gone or the request has its outcome, and one process at most is left.
  t.poll("the end of the hand-over: " .. what, function()
    local over = host.exit or #host:all("restart.outcome") > 0
    return over and #hosts_of(host.state_dir) <= 1
  end, 25000)
  if who == "old" then t.until_true("the old one's end: " .. what, function() return host.exit end) end
  -- One that is left serves, or is about to end as well.
  local left
  t.ask_until("an answer, or nobody: " .. what, function()
    left = hosts_of(host.state_dir)
    local ok, a = pcall(host.get, host, "/healthz")
    return #left == 0 or (ok and a.status == 200 and a.json.pid == left[1])
  end, 15000)
  if host.exit and host.exit.signal == 9 then killed.old = killed.old + 1 end
  if who == "new" and (#host:all("respawn.failed") > 0 or #left == 0) then killed.new = killed.new + 1 end
  local serving = host
  if #left == 0 then
    serving = t.start({ program = RELEASE, state_dir = host.state_dir, policy = POLICY, listen = host.address,
      args = { "--allow-exec", "--lane", "one=1" } })
  else
    host.pid = left[1]
    t.poll("the lock's owner: " .. what, function()
      return t.json.decode(t.read(host.state_dir .. "/gwhost.lock")).pid == left[1]
    end)
    local free = os.execute("flock -n '" .. host.state_dir .. "' true 2>/dev/null")
    t.ok(not free, what .. ": the lock is free")
  end
  local final = { succeeded = true, lost = true, interrupted = true }
  for _, id in ipairs(ids) do
    t.ask_until("the end of a task: " .. what, function()
      local a = serving:get("/v1/tasks/" .. id)
      return a and a.status == 200 and final[a.json.status]
    end, 15000)
  end
  local times = {}
  for id in io.lines(file) do times[id] = (times[id] or 0) + 1 end
  for i, id in ipairs(ids) do
    local task = serving:get("/v1/tasks/" .. id).json
    t.ok((times[id] or 0) <= 1, what .. ": a task ran twice")
    if i > 1 and task.status ~= "lost" then t.eq(task.status, "succeeded", what .. ": task " .. i) end
  end
  serving:signal("sigkill")
  t.poll("the end of " .. serving.pid, function() return #hosts_of(host.state_dir) == 0 end)
  t.until_true("the tracer's end", function() return not tracer or tracer.done end)
end

for who, calls in pairs({ old = OLD, new = NEW }) do
  for call, counts in pairs(calls) do
    t.test(("SIGKILL of the %s process at its %s"):format(who == "old" and "old" or "new", call), function()
      for _, n in ipairs(counts) do kill_at(who, call, n) end
    end)
  end
end

t.test("the signal has struck in most of these places", function()
  print(("     the old one was killed %d times, the new one %d times"):format(killed.old, killed.new))
  t.ok(killed.old >= 9 and killed.new >= 11, "strace has not put the signal in")
end)

t.main()
