-- Ending: politely, in every state, and by force when something hangs.
local t = require("support.harness")

t.test("a stop closes WebSockets with 1001, finishes answers, and says goodbye on keep-alive connections", function()
  local host = t.start({})
  local ws = t.ok(t.websocket(host))
  local idle = t.connect(host)
  t.eq(idle:request("GET", "/healthz").status, 200)
  host:signal("sigterm")
  local frame = ws:recv()
  t.eq(frame.opcode, 8)
  t.eq((">I2"):unpack(frame.data), 1001)
  t.eq(host:wait_exit(), 0)
  t.until_true("the end of the idle connection", function() return idle.closed end)
  t.eq(idle.error, nil)
end)

t.test("running work is marked interrupted before it is cut, and its children are dead", function()
  local host = t.start({ args = { "--allow-exec" } })
  local id = host:submit({ handler = "exec", input = { argv = { "sh", "-c", "echo $$ > " .. host.dir .. "/pid; exec sleep 300" } } })
  host:until_status(id, "running")
  t.poll("the child", function() return io.open(host.dir .. "/pid") and t.read(host.dir .. "/pid") ~= "" end)
  host:stop()
  local child = tonumber(t.read(host.dir .. "/pid"))
  t.eq(require("luv").kill(child, 0), nil)
  local again = t.start({ state_dir = host.state_dir })
  t.eq(again:get("/v1/tasks/" .. id).json.status, "interrupted")
  again:stop()
end)

t.test("children die with a host that is killed", function()
  local host = t.start({ args = { "--allow-exec" } })
  local id = host:submit({ handler = "exec", input = { argv = { "sh", "-c", "echo $$ > " .. host.dir .. "/pid; exec sleep 300" } } })
  host:until_status(id, "running")
  t.poll("the child", function() return io.open(host.dir .. "/pid") and t.read(host.dir .. "/pid") ~= "" end)
  host:signal("sigkill")
  host:wait_exit()
  local child = tonumber(t.read(host.dir .. "/pid"))
  t.poll("the child's death", function()
    local f = io.open("/proc/" .. child .. "/stat")
    local text = f and f:read("a")
    if f then f:close() end
    return not text or text:match("%) [ZX]")
  end)
  local again = t.start({ state_dir = host.state_dir })
  t.eq(again:get("/v1/tasks/" .. id).json.status, "lost")
  again:stop()
end)

t.test("what a killed host's command left behind is dead before its task is tried again", function()
  local host = t.start({ args = { "--allow-exec" } })
  local script = ([[echo $$ >> %s/runs; setsid sh -c 'echo $$ > %s/orphan; sleep 300' & wait]]):format(host.dir, host.dir)
  local id = host:submit({ handler = "exec", on_crash = "retry", input = { argv = { "sh", "-c", script } } })
  host:until_status(id, "running")
  t.poll("the orphan", function() return io.open(host.dir .. "/orphan") and t.read(host.dir .. "/orphan") ~= "" end)
  local orphan = tonumber(t.read(host.dir .. "/orphan"))
  host:signal("sigkill")
  host:wait_exit()
  os.rename(host.dir .. "/orphan", host.dir .. "/first")
  local again = t.start({ state_dir = host.state_dir, args = { "--allow-exec" } })
  t.ok(again:wait("task.leftovers").processes >= 1)
  t.eq(again:until_status(id, "running").attempts, 2)
  local f = io.open("/proc/" .. orphan .. "/stat")
  local stat = f and f:read("a")
  if f then f:close() end
  t.ok(not stat or stat:match("%) [ZX]"), "the orphan lives: " .. tostring(stat))
  again:stop()
end)

t.test("an application whose close fails ends a stop with 1", function()
  local host = t.start({ app = [[
    return { start = function() return { close = function() error("stuck door") end } end }]] })
  host:signal("sigterm")
  t.eq(host:wait_exit(), 1)
  t.match(host:wait("app.close_failed").error, "app.lua:1: stuck door")
end)

t.test("an application whose close never returns is cut after 20 s and the stop ends with 1", function()
  local host = t.start({ app = [[
    local gwhost = require "gwhost"
    return { start = function() return { close = function() gwhost.sleep(3600000) end } end }]] })
  host:signal("sigterm")
  t.eq(host:wait_exit(40000), 1)
  t.match(host:wait("app.close_failed").error, "20000 ms")
end)

local SPIN = [[
  local gwhost = require "gwhost"
  return { start = function()
    gwhost.serve { request = function(req)
      if req.path == "/spin" then while true do end end
      return { body = "ok" }
    end }
    return { close = function() while true do end end }
  end }]]

local function forced(host, reason)
  t.eq(host:wait_exit(60000), 1)
  local fired = host:wait("watchdog.fired")
  local bundle = host:wait("bundle.written")
  t.eq(bundle.reason, reason)
  local report = t.json.decode(t.read(bundle.path))
  t.eq(report.reason, reason)
  t.eq(report.pid, host.pid)
  t.eq(report.phase, fired.phase)
  t.match(bundle.path, "/bundles/%d+%-%d%d%-%d%dT%d%d%-%d%d%-%d%d%-%d%d%dZ%-" .. host.pid .. "%-")
end

t.test("an application whose close spins in Lua is forced out after 25 s, with a bundle", function()
  local restarting = t.start({ app = SPIN, policy = [[return {
    authorize_sigusr1 = function() return true end, drain_budget = function() return 0 end }]] })
  local stopping = t.start({ app = SPIN })
  local in_text = t.start({ app = SPIN, args = { "--log-format", "text" }, ready = false })
  t.until_true("a start", function() return table.concat(in_text.lines, "\n"):find("host.ready", 1, true) end)
  -- A new main chunk that hangs where no limit of Lua reaches is forced out too; a start that only takes its time after
  -- a forced restart is not.
  local quick = 'local g = require "gwhost" return { start = function(ctx) %s return { close = function() end } end }'
  local preparing = t.start({ app = quick:format("") })
  t.write(preparing.app_file, [[local n = 40 return (("a"):rep(n)):find(("a?"):rep(n) .. ("a"):rep(n))]])
  local slow = t.start({ app = quick:format("if ctx.generation > 1 then g.sleep(27000) end") })
  local stuck = t.start({ app = SPIN })
  local began = t.now()
  local c = t.connect(stuck)
  c:send("GET /spin HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " .. stuck.token .. "\r\n\r\n")
  t.poll("a loop that is stuck", function()
    -- Nothing tells that it spins but the processor time that it uses.
    local fields = {}
    for word in t.read("/proc/" .. stuck.pid .. "/stat"):gmatch("%S+") do fields[#fields + 1] = word end
    return tonumber(fields[14]) >= 20
  end)
  restarting:signal("sigusr1")
  local function force(host)
    t.connect(host, "unix:" .. host.state_dir .. "/control.sock"):send('{"op":"restart","force":true}\n')
  end
  force(preparing)
  force(slow)
  stopping:signal("sigterm")
  in_text:signal("sigterm")
  stuck:signal("sigterm")
  local jobs = {
    t.go(function() forced(restarting, "gateway.restart_shutdown_timeout") end),
    t.go(function() forced(stopping, "gateway.stop_shutdown_timeout") end),
    t.go(function() forced(stuck, "gateway.stop_shutdown_timeout") end),
    t.go(function() forced(preparing, "gateway.restart_shutdown_timeout") end),
    t.go(function()
      t.eq(in_text:wait_exit(60000), 1)
      local lines = table.concat(in_text.lines, "\n")
      for _, event in ipairs({ "watchdog.fired", "bundle.written" }) do
        t.match(lines, "%f[^\n%z]%d%d:%d%d:%d%d%.%d%d%d +" .. in_text.pid .. " error " .. event .. "  ")
      end
    end),
    t.go(function() t.eq(slow:wait("host.ready", nil, 60000).generation, 2) end),
  }
  t.join(jobs, 70000)
  local took = (t.now() - began) / 1e9
  t.ok(took > 24 and took < 45, "took " .. took .. " s")
  -- Whoever comes next finds no lock, and no child of theirs holds the port.
  local again = t.start({ state_dir = stopping.state_dir })
  again:stop()
end)

t.main()
