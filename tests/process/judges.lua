-- Who will run the code judges it: a successor or a trial its own files, this process only what it runs itself, and that
-- for a limited time. Joined requests and failed hosts that a SIGTERM ends; restarts that an application asks for.
local t = require("support.harness")
local uv = require("luv")

local function policy(mode)
  return ([[return { authorize_sigusr1 = function() return true end,
    drain_budget = function() return 0 end,
    restart_mode = function() return { mode = "%s", health_timeout_ms = 1500 } end }]]):format(mode)
end

local function application(word, before)
  return ([[%s
    local gwhost = require("gwhost")
    return { start = function()
      gwhost.serve { request = function() return { status = 200, body = "%s" } end }
      return { close = function() end }
    end }]]):format(before or "", word)
end

local function serves(host, word)
  t.eq(host:get("/").body, word)
end

for _, mode in ipairs { "in_process", "respawn", "reexec" } do
  t.test("a main chunk that never returns is refused, and who serves goes on: " .. mode, function()
    local host = t.start({ policy = policy(mode), app = application("one") })
    local chunks = { "while true do end", "while true do pcall(function() while true do end end) end",
      "local co = coroutine.wrap(function() while true do end end) co()" }
    for i = 1, mode == "in_process" and #chunks or 1 do
      local chunk = chunks[i]
      t.write(host.app_file, application("two", chunk))
      local id = host:control({ op = "restart" }).result.request_id
      if mode ~= "in_process" then serves(host, "one") end -- while the other one tries
      local outcome = host:wait("restart.outcome", function(e) return e.request_id == id end)
      t.eq(outcome.outcome, "refused", outcome.why)
      t.match(outcome.why, "app.lua:1: the main chunk runs for too long")
      serves(host, "one")
    end
    t.write(host.app_file, application("three"))
    t.eq(host:restarted({}).outcome, "restarted")
    serves(host, "three")
    host:stop()
  end)

  t.test("an application that does not compile is refused with file and line: " .. mode, function()
    local host = t.start({ policy = policy(mode), app = application("one") })
    t.write(host.app_file, "return {\n  oops(")
    local outcome = host:restarted({})
    t.eq(outcome.outcome, "refused")
    t.match(outcome.why, "app.lua:2:")
    serves(host, "one")
    for _, e in ipairs(host:all("bundle.written")) do error("a bundle for a typing error: " .. e.reason) end
    host:stop()
  end)
end

for _, mode in ipairs { "respawn", "reexec" } do
  t.test("files that only the new program can load are its own affair: " .. mode, function()
    local host = t.start({ policy = policy(mode), app = application("one") })
    local dir = t.dir()
    local new = t.write(dir .. "/gwhost", ("#!/bin/sh\nNEW=1 exec '%s' \"$@\"\n"):format(t.binary))
    assert(uv.fs_chmod(new, 493))
    t.write(host.app_file, application("two", 'if not os.getenv("NEW") then error("this file needs the new program") end'))
    local outcome = host:restarted({ update = true, exec = new })
    t.eq(outcome.outcome, "restarted", outcome.why)
    serves(host, "two")
    -- And what not even the new one can load changes nothing.
    t.write(host.app_file, "return {\n  oops(")
    outcome = host:restarted({ update = true, exec = new })
    t.eq(outcome.outcome, "rolled_back", outcome.why)
    t.match(outcome.why, "app.lua:2:")
    serves(host, "two")
    host:stop()
  end)
end

t.test("what a trial has proved is what the image runs, whatever becomes of the file meanwhile", function()
  local gateway = t.read(t.source .. "/lua/gwhost/gateway.lua")
  local host = t.start({ policy = policy("reexec"):gsub("return 0", "return 60000"), app = gateway })
  local id = host:submit({ handler = "sleep", input = { ms = 700 } })
  host:until_status(id, "running")
  t.write(host.app_file, "local proved = true\n" .. gateway)
  local asked = host:control({ op = "restart" }).result.request_id
  host:wait("drain.started")
  t.write(host.app_file, "return {\n  oops(")
  t.eq(host:wait("restart.outcome", function(e) return e.request_id == asked end).outcome, "restarted")
  t.eq(host:get("/v1/tasks/" .. id).json.status, "succeeded")
  host:stop()
end)

t.test("a release that is deployed by a link is followed, whichever way the program was started", function()
  for _, how in ipairs { 'exec "$PWD/bin/gwhost" "$@"', 'exec bin/gwhost "$@"', 'PATH="$PWD/bin:$PATH" exec gwhost "$@"' } do
    local dir = t.dir()
    for n = 1, 2 do
      local bin = dir .. "/releases/" .. n .. "/bin"
      assert(os.execute("mkdir -p " .. bin))
      assert(uv.fs_copyfile(t.binary, bin .. "/gwhost"))
    end
    assert(uv.fs_symlink("releases/1", dir .. "/current"))
    local host = t.start({ policy = policy("reexec"), app = application("one"),
      wrap = { "sh", "-c", "cd " .. dir .. '/current && shift && ' .. how, "sh" } })
    assert(uv.fs_symlink("releases/2", dir .. "/next"))
    assert(os.rename(dir .. "/next", dir .. "/current"))
    assert(os.execute("rm -rf " .. dir .. "/releases/1"))
    local outcome = host:restarted({ update = true })
    t.eq(outcome.outcome, "restarted", outcome.why)
    t.match(outcome.why, "the same version, .*, at .*/current/bin/gwhost")
    t.match(assert(uv.fs_readlink("/proc/" .. host.pid .. "/exe")), "/releases/2/bin/gwhost$")
    t.match(assert(uv.fs_readlink("/proc/" .. host.pid .. "/cwd")), "/releases/2$")
    host:stop()
  end
end)

t.test("a host that has failed for what passes comes back by itself", function()
  local host = t.start({ policy = policy("in_process"), app = [[
    local starts = (require("gwhost").kept("starts") or 0) + 1
    require("gwhost").keep("starts", starts)
    return { start = function()
      if starts > 1 then error("no start today") end
      require("gwhost").serve { request = function() return { status = 200, body = "one" } end }
      return { close = function() end }
    end }]], listen = "127.0.0.1:0" })
  local port = tonumber(host.address:match(":(%d+)$"))
  host:stop()
  host = t.start({ policy = policy("in_process"), listen = "127.0.0.1:" .. port, app = t.read(host.app_file) })
  host:control({ op = "restart" })
  host:wait("lock.released") -- and the port is free
  local other = uv.new_tcp()
  assert(other:bind("127.0.0.1", port))
  assert(other:listen(1, function() end))
  t.write(host.app_file, application("two"))
  local outcome = host:restarted({})
  t.eq(outcome.outcome, "failed")
  t.match(outcome.why, "Address already in use")
  host:wait("host.retries")
  other:close()
  host:wait("host.ready")
  serves(host, "two")
  host:stop()
end)

-- ---- a SIGTERM ----

local function intent(host, fields)
  fields.kind, fields.pid, fields.created_at_ms = "gateway-restart", host.pid, os.time() * 1000
  local path = host.state_dir .. "/restart-intent.json"
  t.write(path, t.json.encode(fields))
  assert(uv.fs_chmod(path, 384))
end

t.test("a SIGTERM that is merged into a request that waits still ends the host where it is refused", function()
  local host = t.start({ app = t.read(t.source .. "/lua/gwhost/gateway.lua") })
  local id = host:submit({ handler = "sleep", input = { ms = 60000 } })
  host:until_status(id, "running")
  t.eq(host:control({ op = "restart", when = "idle" }).result.status, "deferred")
  t.write(host.app_file, "no lua(")
  intent(host, {})
  host:signal("sigterm")
  host:wait("restart.refused")
  t.eq(host:wait_exit(), 0)
end)

t.test("a SIGTERM under a supervisor ends the process, whatever waits or runs", function()
  for _, what in ipairs { "waits", "drains" } do
    local host = t.start({ policy = [[return { restart_mode = function() return "in_process" end,
      drain_budget = function() return 3000 end }]], env = { "GWHOST_SUPERVISOR=external" } })
    local id = host:submit({ handler = "sleep", input = { ms = 1000 } })
    host:until_status(id, "running")
    host:control({ op = "restart", when = what == "waits" and "idle" or "now" })
    if what == "drains" then host:wait("drain.started") end
    intent(host, { reason = "by the supervisor" })
    host:signal("sigterm")
    host:wait("restart.mode", function(e) return e.mode == "supervised" end)
    t.eq(host:wait_exit(), 0)
    t.eq(#host:all("host.ready"), 1, what)
  end
end)

t.test("a SIGTERM under a supervisor ends a host that has failed", function()
  local host = t.start({ policy = policy("in_process"), env = { "GWHOST_SUPERVISOR=external" }, app = [[
    local starts = ((require("gwhost").kept("starts")) or 0) + 1
    require("gwhost").keep("starts", starts)
    return { start = function()
      if starts > 1 then error("no start today") end
      return { close = function() end }
    end }]] })
  host:control({ op = "restart" })
  host:wait("host.state", function(e) return e.state == "failed" end)
  intent(host, { reason = "by the supervisor" })
  host:signal("sigterm")
  t.eq(host:wait_exit(), 0)
  local last = host:all("restart.outcome")
  t.eq(last[#last].outcome, "restarted")
end)

-- ---- restarts from inside ----

t.test("an application that restarts its host as soon as it starts is slowed, said to be, and can be stopped", function()
  local host = t.start({ policy = policy("in_process"), ready = false, app = [[
    local gwhost = require("gwhost")
    return { start = function()
      gwhost.serve { request = function() return { status = 200, body = "here" } end }
      gwhost.restart { reason = "again" }
      return { close = function() end }
    end }]] })
  local slowed = host:wait("restart.slowed")
  t.ok(slowed.wait_ms > 10000)
  host.address = host:all("host.ready")[1].addresses[1]
  host.token = t.read(host.state_dir .. "/token"):match("%x+")
  t.eq(host:get("/").body, "here")
  t.eq(#host:all("restart.accepted"), 30)
  t.eq(host:restarted({}).outcome, "restarted") -- nobody else is held back
  host:stop()
end)

t.main()
