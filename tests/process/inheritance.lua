-- What must reach the next process, or image, besides connections and work: where updates come from, what is watched,
-- who has crashed, what was asked for. See also handover_faults.lua.
local t = require("support.harness")
local uv = require("luv")

local function policy(mode, more)
  return ([[return { authorize_sigusr1 = function() return true end,
    drain_budget = function(ctx) return ctx.action == "stop" and 0 or 60000 end,
    restart_mode = function(ctx) return { mode = "%s"%s } end }]]):format(mode, more or "")
end

--- Tells what it was given, asks for a restart, and holds one back with a run.
local APP = [[
local gwhost = require("gwhost")
return { start = function(ctx)
  gwhost.serve { request = function(req)
    if req.path == "/go" then gwhost.restart { reason = "on", continuation = { step = 2 } } end
    if req.path == "/hold" then
      local run = gwhost.run { handler = "hold" }
      gwhost.sleep(600)
      run:finish()
    end
    return { status = 200, body = ctx.continuation and tostring(ctx.continuation.step) or "none" }
  end }
  return { close = function() end }
end }]]

local function copy_of_program(path)
  assert(uv.fs_copyfile(t.binary, path))
  return path
end

local function busy(host, ms)
  local id = host:submit({ handler = "sleep", input = { ms = ms } })
  host:until_status(id, "running")
  return id
end

local function payload(host)
  return t.json.decode(t.read(host.state_dir .. "/restart-sentinel.json")).payload
end

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
  local host = t.start({ policy = policy("respawn"), app = APP })
  local held = t.go(function() t.eq(host:get("/hold").status, 200) end)
  t.ask_until("a run", function() return host:get("/v1/status").json.work.runs == 1 end)
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
end)

t.main()
