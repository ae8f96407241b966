-- What goes wrong in the last moments of a hand-over, and what must reach the next process all the same. Each test
-- is named for what once went wrong.
local t = require("support.harness")
local uv = require("luv")

local function policy(mode, more)
  return ([[return { authorize_sigusr1 = function() return true end,
    drain_budget = function(ctx) return ctx.action == "stop" and 0 or 60000 end,
    restart_mode = function(ctx) return { mode = "%s"%s } end }]]):format(mode, more or "")
end

--- An application whose start does as the file $FLAG says, if there is one: "slow", or an error.
local FLAGGED = [[
local gwhost = require("gwhost")
return { start = function(ctx)
  local f = io.open(os.getenv("FLAG"))
  local word = f and f:read("l")
  if f then f:close() end
  if word == "slow" then gwhost.sleep(700) elseif word then error(word) end
  local got = ctx.continuation
  gwhost.serve { request = function(req)
    if req.path == "/go" then gwhost.restart { reason = "on", continuation = { step = 2 } } end
    if req.path == "/hold" then
      local run = gwhost.run { handler = "hold" }
      gwhost.sleep(600)
      run:finish()
    end
    return { status = 200, body = got and tostring(got.step) or "none" }
  end }
  return { close = function() end }
end }]]

local function flagged(mode, args)
  local flag = t.dir() .. "/flag"
  local host = t.start({ policy = policy(mode), app = FLAGGED, env = { "FLAG=" .. flag }, args = args })
  host.flag = flag
  return host
end

local function copy_of_program(path)
  assert(uv.fs_copyfile(t.binary, path))
  return path
end

local function is_there(pid)
  local f = io.open("/proc/" .. pid .. "/stat")
  local state = f and f:read("a"):match("%) (%S)")
  if f then f:close() end
  return state and state ~= "Z"
end

local function handing_over(host)
  return host:wait("host.state", function(e) return e.state == "handing_over" end)
end

local function busy(host, ms)
  local id = host:submit({ handler = "sleep", input = { ms = ms } })
  host:until_status(id, "running")
  return id
end

--- Work of an application that has no tasks.
local function hold(host)
  local job = t.go(function() t.eq(host:get("/hold").status, 200) end)
  t.ask_until("a run", function() return host:get("/v1/status").json.work.runs == 1 end)
  return job
end

local function payload(host)
  return t.json.decode(t.read(host.state_dir .. "/restart-sentinel.json")).payload
end

local function outcomes(host, id)
  local n = 0
  for line in io.lines(host.state_dir .. "/restarts.jsonl") do
    local r = t.json.decode(line)
    if r.request_id == id and r.outcome and r.outcome ~= t.json.null then n = n + 1 end
  end
  return n
end

t.test("a successor that dies at the word to go never takes its host along", function()
  local fake = t.dir() .. "/dies-ready"
  assert(uv.fs_copyfile(t.source .. "/tests/support/fake_successor.lua", fake))
  assert(uv.fs_chmod(fake, 493))
  for _ = 1, 4 do
    local host = t.start({ policy = policy("respawn") })
    for i = 1, 5 do
      t.match(host:restarted({ update = true, exec = fake }).why, "exited with 5")
      t.ok(not host.exit, i .. host:log_tail())
    end
    host:stop()
  end
end)

t.test("a SIGTERM at the moment of an exec ends the host", function()
  for i = 1, 6 do
    local host = t.start({ policy = policy("reexec") })
    host:control({ op = "restart" })
    handing_over(host)
    uv.kill(host.handle:get_pid(), i % 2 == 0 and "sigterm" or "sigint")
    t.eq(host:wait_exit(), 0)
  end
end)

t.test("files that are broken while it drains do not end a host that changes its image", function()
  local host = flagged("reexec")
  local held = hold(host)
  host:control({ op = "restart" })
  host:wait("drain.started")
  t.write(host.policy_file, "return { oops")
  t.write(host.app_file, "return { oops")
  t.eq(host:wait("restart.outcome").outcome, "restarted")
  t.eq(host:get("/").body, "none")
  t.ok(#host:all("policy.rejected") > 0)
  t.match(host:get("/v1/status").json.policy.path, "policy.lua$")
  t.join({ held })
  host:stop()

  host = t.start({ policy = policy("respawn") })
  busy(host, 500)
  host:control({ op = "restart" })
  host:wait("drain.started")
  t.write(host.policy_file, "return { oops")
  t.eq(host:wait("restart.outcome").outcome, "restarted")
  host:stop()
end)

t.test("an image that goes back and does not start either has failed, and waits for its operator", function()
  local host = flagged("reexec")
  local kept = t.ok(t.connect(host))
  t.eq(kept:request("GET", "/").status, 200)
  t.write(host.flag, "not today")
  local outcome = host:restarted({})
  t.eq(outcome.outcome, "failed")
  t.match(outcome.why, "not today")
  host:wait("host.state", function(e) return e.state == "failed" end)
  t.eq(host:control({ op = "status" }).result.state, "failed")
  local reasons = {}
  for _, e in ipairs(host:all("bundle.written")) do reasons[e.reason] = true end
  t.ok(reasons["gateway.restart_respawn_failed"] and reasons["gateway.restart_startup_failed"])
  t.ok(os.execute("flock -n '" .. host.state_dir .. "' true"), "the lock is given up")
  assert(os.remove(host.flag))
  host:signal("sigusr1")
  host:wait("host.ready")
  t.eq(host:get("/").status, 200)
  kept:close()
  host:stop()
end)

t.test("an update that joins a drain leaves the drain its budget", function()
  local host = t.start({ policy = policy("respawn", ", health_timeout_ms = 700") })
  local id = busy(host, 1500)
  host:control({ op = "restart" })
  host:wait("drain.started")
  host:control({ op = "restart", update = true, exec = copy_of_program(t.dir() .. "/gwhost") })
  host:wait("respawn.ready", function(e) return e.child_pid ~= host:all("respawn.ready")[1].child_pid end)
  t.eq(host:wait("restart.outcome", function(e) return e.outcome ~= "merged" end).outcome, "restarted")
  t.eq(host:get("/v1/tasks/" .. id).json.status, "succeeded")
  t.eq(payload(host).status, "ok")
  host:stop()
end)

t.test("a standby that is ended leaves its host the unix socket", function()
  local path = t.dir() .. "/gw.sock"
  local host = t.start({ policy = policy("respawn"), args = { "--listen", "unix:" .. path } })
  busy(host, 700)
  host:control({ op = "restart" })
  uv.kill(host:wait("respawn.ready").child_pid, "sigterm")
  host:wait("respawn.failed")
  t.eq(host:wait("restart.outcome").outcome, "restarted")
  local c = t.ok(t.connect(host, "unix:" .. path))
  t.eq(c:request("GET", "/healthz").status, 200)
  c:close()
  host:stop()
  t.eq(uv.fs_stat(path), nil)
end)

t.test("a stop that is asked of a successor while it starts stops the host", function()
  local host = flagged("respawn", { "--listen", "unix:" .. t.dir() .. "/gw.sock" })
  local old = host.pid
  t.write(host.flag, "slow")
  local id = host:control({ op = "restart" }).result.request_id
  local child = host:wait("respawn.ready").child_pid
  host:wait("lock.acquired", function(e) return e.pid == child end)
  uv.kill(child, "sigterm")
  t.eq(host:wait_exit(), 0)
  t.ok(not is_there(old) and not is_there(child), "somebody is left")
  t.eq(outcomes(host, id), 1)
  t.eq(#host:all("restart.becomes_stop"), 1)
  local again = t.start({ state_dir = host.state_dir })
  t.eq(again:get("/v1/restarts/" .. id).json.why, "became a stop")
  for _, boot in ipairs(t.json.decode(t.read(host.state_dir .. "/boots.json")).boots) do
    t.ok(boot.outcome ~= "died", "a planned stop is no crash")
  end
  again:stop()
end)

t.test("a restart that is asked of a successor while it starts is carried out", function()
  local host = flagged("respawn")
  t.write(host.flag, "slow")
  local first = host:control({ op = "restart" }).result.request_id
  local child = host:wait("respawn.ready").child_pid
  host:wait("lock.acquired", function(e) return e.pid == child end)
  uv.kill(child, "sigusr1")
  local second = host:wait("restart.requested", function(e) return e.request_id ~= first end).request_id
  for _, id in ipairs { first, second } do
    t.eq(host:wait("restart.outcome", function(e) return e.request_id == id end).outcome, "restarted")
  end
  t.ok(host.pid ~= child, "the second one has brought another process")
  host:stop()
end)

t.test("an update is found where an upgrade has put it, also after a restart", function()
  local dir = t.dir()
  local program = copy_of_program(dir .. "/gwhost")
  local host = t.start({ policy = policy("respawn"), program = program })
  assert(os.rename(copy_of_program(dir .. "/new"), program))
  t.eq(host:restarted({}).outcome, "restarted")
  t.eq(host:restarted({ update = true }).outcome, "restarted")
  t.eq(uv.fs_readlink("/proc/" .. host.pid .. "/exe"), program)
  host:stop()

  for _, mode in ipairs { "respawn", "reexec" } do
    local versions = dir .. "/" .. mode
    assert(uv.fs_mkdir(versions, 448))
    copy_of_program(versions .. "/v1")
    copy_of_program(versions .. "/v2")
    assert(uv.fs_symlink(versions .. "/v1", versions .. "/current"))
    host = t.start({ policy = policy(mode), program = versions .. "/current" })
    assert(os.remove(versions .. "/current"))
    assert(uv.fs_symlink(versions .. "/v2", versions .. "/current"))
    t.eq(host:restarted({}).outcome, "restarted")
    t.eq(uv.fs_readlink("/proc/" .. host.pid .. "/exe"), versions .. "/v1", "no update was asked for")
    t.eq(host:restarted({ update = true }).outcome, "restarted")
    t.eq(uv.fs_readlink("/proc/" .. host.pid .. "/exe"), versions .. "/v2")
    host:stop()
  end
end)

t.test("the policy is watched on by the next process, or image", function()
  for _, mode in ipairs { "respawn", "reexec" } do
    local host = t.start({ policy = policy(mode), args = { "--watch" } })
    t.eq(host:restarted({}).outcome, "restarted")
    t.write(host.policy_file, policy(mode) .. " -- edited")
    t.eq(host:wait("policy.loaded", function(e) return e.because == "watch" end).pid, host.pid)
    host:stop()
  end
end)

t.test("an update in place that falls back to the old sources has failed, also for the record", function()
  local host = flagged("in_process")
  t.write(host.app_file, (FLAGGED:gsub("local got", "error('new and bad') local got")))
  local outcome = host:restarted({ update = true })
  t.eq(outcome.outcome, "failed")
  t.match(outcome.why, "new and bad")
  t.eq(payload(host).status, "error")
  t.match(payload(host).message, "new and bad")
  host:stop()
end)

t.test("who dies while a successor stands by has crashed, and its request has an outcome", function()
  local host = t.start({ policy = policy("respawn") })
  local boot_id = host.boot_id
  busy(host, 30000)
  local id = host:control({ op = "restart" }).result.request_id
  host:wait("drain.started")
  host:signal("sigkill")
  host:wait("standby.orphaned")
  host:wait("host.ready", function(e) return e.boot_id ~= boot_id end)
  local request = host:get("/v1/restarts/" .. id).json
  t.eq(request.outcome, "failed")
  t.match(request.why, "died")
  for _, boot in ipairs(t.json.decode(t.read(host.state_dir .. "/boots.json")).boots) do
    if boot.boot_id == boot_id then t.eq(boot.outcome, "died") end
  end
  host:signal("sigterm")
  host:wait("host.exiting")
end)

t.test("safe mode refuses another policy, and an update leaves it for good", function()
  local host = t.start({ policy = policy("in_process") })
  for _ = 1, 3 do
    host:signal("sigkill")
    host:wait_exit()
    host = t.start({ state_dir = host.state_dir, policy = policy("in_process") })
  end
  t.eq(host:get("/v1/status").json.safe_mode, true)
  t.match(host:control({ op = "reload" }).error.message, "safe mode")
  t.eq(host:get("/v1/status").json.policy.path, "built-in")
  t.eq(host:restarted({ update = true, exec = t.binary }).outcome, "restarted")
  t.eq(host:get("/v1/status").json.safe_mode, false)
  host:stop()
  host = t.start({ state_dir = host.state_dir })
  t.eq(host:get("/v1/status").json.safe_mode, false)
  host:stop()
end)

t.test("the continuation of a request that joined another is brought to the next start", function()
  local host = flagged("respawn")
  local held = hold(host)
  host:control({ op = "restart" })
  host:wait("drain.started")
  t.eq(host:get("/go").body, "none")
  t.join({ held })
  host:wait("restart.outcome", function(e) return e.outcome == "restarted" end)
  t.eq(host:get("/").body, "2")
  host:stop()
end)

t.test("what a policy's answer becomes here is told, also by a dry run", function()
  local host = t.start({ policy = policy("respawn"), env = { "GWHOST_NO_RESPAWN=YES" } })
  local dry = host:control({ op = "restart", dry_run = true }).result
  t.eq(dry.mode, "in_process")
  t.match(dry.why, "NO_RESPAWN")
  host:restarted({})
  t.match(host:wait("restart.mode").why, "'respawn' becomes 'in_process'")
  host:stop()
  local args = {}
  for i = 1, 130 do
    args[2 * i - 1], args[2 * i] = "--listen", ("127.0.1.%d:0"):format(i)
  end
  local many = t.start({ args = args, ready = false })
  t.eq(many:wait_exit(), 78)
  t.match(many:log_tail(), "fewer %-%-listen")
end)

t.test("commands of the next image get the limits that this host was started with, and leave no zombies", function()
  local host = t.start({ policy = policy("reexec"), args = { "--allow-exec" },
    wrap = { "/bin/sh", "-c", 'ulimit -Sn 900; exec "$0" "$@"' } })
  local function limit()
    local id = host:submit({ handler = "exec", input = { argv = { "/bin/sh", "-c", "ulimit -Sn" } } })
    return host:until_status(id, "succeeded").result.stdout
  end
  t.eq(limit(), "900\n")
  for _ = 1, 3 do
    local id = host:submit({ handler = "exec", input = { argv = { "sleep", "60" } } })
    host:until_status(id, "running")
    t.eq(host:restarted({ force = true }).outcome, "restarted")
  end
  t.eq(limit(), "900\n")
  t.poll("no zombie is left", function()
    for pid in io.popen("ps --ppid " .. host.pid .. " -o pid="):lines() do
      if not is_there(tonumber(pid)) then return false end
    end
    return true
  end)
  host:stop()
end)

t.test("a host that has failed leaves the control socket to who took the directory over", function()
  local first = flagged("in_process")
  t.write(first.flag, "no")
  first:control({ op = "restart" })
  first:wait("host.state", function(e) return e.state == "failed" end)
  local second = t.start({ state_dir = first.state_dir })
  first:signal("sigterm")
  t.eq(first:wait_exit(), 0)
  t.eq(second:control({ op = "status" }).result.pid, second.pid)
  second:stop()
end)

t.test("a SIGTERM with an intent while a restart drains is a restart that is under way", function()
  for _, mode in ipairs { "in_process", "respawn" } do
    local host = t.start({ policy = policy(mode) })
    local id = busy(host, 700)
    host:control({ op = "restart" })
    host:wait("drain.started")
    assert(uv.fs_chmod(t.write(host.state_dir .. "/restart-intent.json", t.json.encode {
      kind = "gateway-restart", pid = host.pid, created_at_ms = os.time() * 1000 }), 384))
    host:signal("sigterm")
    t.match(host:wait("signal.ignored").why, "under way")
    t.eq(host:wait("restart.outcome").outcome, "restarted")
    t.eq(host:get("/v1/tasks/" .. id).json.status, "succeeded")
    host:stop()
  end
end)

t.main()
