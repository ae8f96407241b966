-- Under a supervisor: who is recognised, what a service manager is told, and who ends the host.
local t = require("support.harness")
local uv = require("luv")

local SINK = assert(os.getenv("GWHOST_NOTIFYSINK"), "set GWHOST_NOTIFYSINK to the program notifysink")
-- What a shell says to be the process that systemd has executed.
local AS_SYSTEMD = { "/bin/sh", "-c", 'SYSTEMD_EXEC_PID=$$ exec "$0" "$@"' }

--- A notify socket; :next() is the next datagram.
local function sink()
  local s = { path = t.dir() .. "/notify", lines = {}, taken = 0 }
  local out, rest = uv.new_pipe(false), ""
  s.handle = assert(uv.spawn(SINK, { args = { s.path }, stdio = { nil, out, 2 } }, function() s.handle:close() end))
  out:read_start(function(_, data)
    if not data then
      out:close()
      return
    end
    rest = rest .. data
    for line in rest:gmatch("([^\n]*)\n") do s.lines[#s.lines + 1] = line:gsub("\\n", "\n") end
    rest = rest:match("([^\n]*)$")
    t.wake()
  end)
  function s:next()
    t.until_true("a datagram; so far:\n" .. table.concat(self.lines, "\n--\n"),
      function() return #self.lines > self.taken end)
    self.taken = self.taken + 1
    return self.lines[self.taken]
  end
  function s:close() self.handle:kill("sigkill") end
  t.eq(s:next(), "bound")
  return s
end

--- Takes "\nEXTEND_TIMEOUT_USEC=N" off a datagram and holds that N ms is in [min, max].
local function extended(datagram, min_ms, max_ms)
  local rest, usec = datagram:match("^(.*)\nEXTEND_TIMEOUT_USEC=(%d+)$")
  t.ok(usec, "no time asked for in " .. datagram)
  local ms = tonumber(usec) / 1000
  t.ok(ms > min_ms and ms <= max_ms, "asks for " .. ms .. " ms")
  return rest
end

local function write_intent(host, reason)
  local path = t.write(host.state_dir .. "/restart-intent.json", t.json.encode {
    kind = "gateway-restart", pid = host.pid, created_at_ms = os.time() * 1000, reason = reason })
  assert(uv.fs_chmod(path, 384))
end

local function stop_refused(host)
  local c = t.connect(host, "unix:" .. host.state_dir .. "/control.sock")
  c:send('{"id":1,"op":"stop"}\n')
  c:until_match('"id":1.*\n')
  local run = t.json.decode(c.data:match('({"id":1.*)\n'))
  c:close()
  t.eq(run.ok, false)
  t.eq(run.error.code, "forbidden")
  t.eq(host:get("/healthz").status, 200)
  return run.error.message
end

local POLICY = [[return { restart_mode = function() return "in_process" end,
  authorize_sigusr1 = function() return true end,
  drain_budget = function(ctx) return ctx.action == "stop" and 0 or %s end }]]

t.test("a service manager hears of the start, a reload, a drain, a restart and the stop", function()
  local manager = sink()
  local host = t.start({ env = { "NOTIFY_SOCKET=" .. manager.path }, policy = POLICY:format("60000") })
  t.eq(manager:next(), ("READY=1\nMAINPID=%d\nSTATUS=Generation 1 serves on %s"):format(host.pid, host.address))

  local before = uv.hrtime() // 1000
  host:signal("sighup")
  local usec = manager:next():match("^RELOADING=1\nMONOTONIC_USEC=(%d+)$")
  t.ok(usec and tonumber(usec) >= before and tonumber(usec) <= uv.hrtime() // 1000, "the time of the reload")
  t.match(manager:next(), "^READY=1\nSTATUS=The policy '.*' is in force$")
  t.write(host.policy_file, "return {\n  1 +\n}")
  host:signal("sighup")
  t.match(manager:next(), "^RELOADING=1\nMONOTONIC_USEC=%d+$")
  t.match(manager:next(),
    "^READY=1\nSTATUS=The new policy is refused, the old one stays in force: [^\n]*policy.lua:%d[^\n]*$")
  t.write(host.policy_file, POLICY:format("60000"))

  local id = host:submit({ handler = "sleep", input = { ms = 600 } })
  host:until_status(id, "running")
  host:signal("sigusr1")
  t.eq(extended(manager:next(), 85000, 90000), "STATUS=Draining (tasks: 1, runs: 0), at most 60000 ms")
  t.match(extended(manager:next(), 29999, 30000), "^STATUS=Drained after %d+ ms$")
  t.eq(manager:next(), ("READY=1\nMAINPID=%d\nSTATUS=Generation 2 serves on %s"):format(host.pid, host.address))

  host:stop()
  t.eq(manager:next(), "STOPPING=1\nSTATUS=Stopping\nEXTEND_TIMEOUT_USEC=30000000")
  t.eq(#manager.lines, manager.taken)
  manager:close()
end)

t.test("a drain without limit asks for time again at each report", function()
  local manager = sink()
  local host = t.start({ env = { "NOTIFY_SOCKET=" .. manager.path },
    policy = POLICY:format('{ budget_ms = "unlimited", report_every_ms = 300 }') })
  manager:next()
  local id = host:submit({ handler = "sleep", input = { ms = 60000 } })
  host:until_status(id, "running")
  host:signal("sigusr1")
  t.eq(extended(manager:next(), 30599, 30600), "STATUS=Draining (tasks: 1, runs: 0), without limit")
  for _ = 1, 2 do
    t.match(extended(manager:next(), 30599, 30600), "^STATUS=Still draining after %d s %(tasks: 1, runs: 0%)$")
  end
  host:post("/v1/tasks/" .. id .. "/cancel")
  local last
  repeat last = extended(manager:next(), 29999, 30600) until not last:match("^STATUS=Still")
  t.match(last, "^STATUS=Drained after")
  host:wait("host.ready")
  host:stop()
  manager:close()
end)

t.test("a budget that runs out is told, and a stop that cuts a restart's drain begins with STOPPING", function()
  local manager = sink()
  local host = t.start({ env = { "NOTIFY_SOCKET=" .. manager.path }, policy = POLICY:format("300") })
  manager:next()
  local id = host:submit({ handler = "sleep", input = { ms = 60000 } })
  host:until_status(id, "running")
  host:signal("sigusr1")
  extended(manager:next(), 25000, 30300)
  t.eq(extended(manager:next(), 29999, 30000),
    "STATUS=The drain's budget ran out: going on without what is left (tasks: 1, runs: 0)")
  t.match(manager:next(), "^READY=1\n.*Generation 2")
  t.write(host.policy_file, POLICY:format('"unlimited"'))
  host:restart()
  t.match(manager:next(), "^READY=1\n.*Generation 3")
  id = host:submit({ handler = "sleep", input = { ms = 60000 } })
  host:until_status(id, "running")
  host:signal("sigusr1")
  t.match(manager:next(), "^STATUS=Draining %(tasks: 1, runs: 0%), without limit\n")
  host:stop()
  t.eq(extended(manager:next(), 29999, 30000), "STOPPING=1\nSTATUS=Stopping")
  manager:close()
end)

t.test("a watchdog is fed while the loop lives, and not when it means another process", function()
  local manager, other = sink(), sink()
  local host = t.start({ env = { "NOTIFY_SOCKET=" .. manager.path, "WATCHDOG_USEC=400000" } })
  local stranger = t.start({ env = { "NOTIFY_SOCKET=" .. other.path, "WATCHDOG_USEC=400000", "WATCHDOG_PID=1" } })
  local fed = 0
  while fed < 3 do
    if manager:next() == "WATCHDOG=1" then fed = fed + 1 end
  end
  stranger:stop()
  t.match(other:next(), "^READY=1")
  t.match(other:next(), "^STOPPING=1")
  t.eq(#other.lines, other.taken)
  host:stop()
  manager:close()
  other:close()
end)

t.test("commands do not get what the service manager gave to the host", function()
  local manager = sink()
  local host = t.start({ wrap = AS_SYSTEMD, args = { "--allow-exec" },
    env = { "NOTIFY_SOCKET=" .. manager.path, "WATCHDOG_USEC=60000000", "LISTEN_FDNAMES=x", "INVOCATION_ID=1" } })
  local id = host:submit({ handler = "exec", input = { argv = { "env" }, env = { LISTEN_FDS = "own" } } })
  local out = host:until_status(id, "succeeded").result.stdout
  for _, name in ipairs { "NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDNAMES", "SYSTEMD_EXEC_PID" } do
    t.eq(out:find(name, 1, true), nil, name)
  end
  t.match(out, "INVOCATION_ID=1")
  t.match(out, "LISTEN_FDS=own")
  host:stop()
  manager:close()
end)

t.test("under systemd a SIGTERM with an intent leaves, whatever the policy says, and one without stops", function()
  local manager = sink()
  local spec = { wrap = AS_SYSTEMD, env = { "NOTIFY_SOCKET=" .. manager.path }, policy = POLICY:format("60000") }
  local host = t.start(spec)
  t.match(manager:next(), "^READY=1\nMAINPID=" .. host.pid .. "\n")
  t.eq(manager:next(), "FDSTORE=1\nFDNAME=gwhost-0")
  t.eq(host:get("/v1/status").json.supervisor, "systemd")
  t.match(stop_refused(host), "%(systemd%)")
  local id = host:submit({ handler = "sleep", input = { ms = 600 } })
  host:until_status(id, "running")
  write_intent(host, "new files")
  host:signal("sigterm")
  t.eq(host:wait("restart.mode").mode, "supervised")
  t.eq(extended(manager:next(), 85000, 90000),
    "STOPPING=1\nSTATUS=Leaving, for the supervisor to start the next process")
  t.eq(extended(manager:next(), 85000, 90000), "STATUS=Draining (tasks: 1, runs: 0), at most 60000 ms")
  t.match(extended(manager:next(), 29999, 30000), "^STATUS=Drained")
  t.eq(host:wait_exit(), 0)
  t.eq(host:wait("restart.outcome").outcome, "restarted")
  spec.state_dir = host.state_dir
  local again = t.start(spec)
  t.eq(again:get("/v1/tasks/" .. id).json.status, "succeeded")
  again:stop()
  t.eq(#again:all("restart.mode"), 0)
  manager:close()
end)

t.test("a respawn makes the successor the main process, in the order that a manager understands", function()
  local manager = sink()
  local host = t.start({ wrap = AS_SYSTEMD, env = { "NOTIFY_SOCKET=" .. manager.path },
    policy = [[return { restart_mode = function() return "respawn" end }]] })
  local old = host.pid
  t.match(manager:next(), "^READY=1\nMAINPID=" .. old .. "\n")
  t.eq(manager:next(), "FDSTORE=1\nFDNAME=gwhost-0")
  t.eq(host:restarted({}).outcome, "restarted")
  t.ok(host.pid ~= old, "another process")
  t.eq(manager:next(), ("MAINPID=%d\nSTATUS=Handed over to the next process"):format(host.pid))
  t.eq(manager:next(), "BARRIER=1")
  t.eq(manager:next(), ("READY=1\nMAINPID=%d\nSTATUS=Generation 1 serves on %s"):format(host.pid, host.address))
  t.eq(manager:next(), "FDSTORE=1\nFDNAME=gwhost-0")
  t.eq(host:get("/v1/status").json.supervisor, "systemd")
  host:signal("sigint")
  t.match(manager:next(), "^STOPPING=1\n")
  host:wait_exit()
  manager:close()
end)

t.test("a supervisor that kills cuts the drain that it has asked for, and no other", function()
  local host = t.start({ env = { "GWHOST_SUPERVISOR=external", "GWHOST_STOP_TIMEOUT=2s" },
    policy = "return { drain_budget = function() return 60000 end }" })
  local id = host:submit({ handler = "sleep", input = { ms = 60000 } })
  host:until_status(id, "running")
  t.eq(host:wait("supervisor.stop_timeout").ms, 2000)
  host:signal("sigterm")
  t.eq(host:wait("drain.budget_cut").budget_ms, 900)
  t.eq(host:wait("drain.started").budget_ms, 900)
  t.eq(host:wait_exit(), 0)
  local again = t.start({ state_dir = host.state_dir })
  t.eq(again:get("/v1/tasks/" .. id).json.status, "interrupted")
  again:stop()
end)

t.test("a SIGTERM while a host drains to leave makes a stop of it, within the stop's budget", function()
  local manager = sink()
  local host = t.start({ wrap = AS_SYSTEMD, env = { "NOTIFY_SOCKET=" .. manager.path } })
  manager:next()
  t.match(manager:next(), "^FDSTORE=1\n")
  local ws = t.ok(t.websocket(host))
  local id = host:submit({ handler = "sleep", input = { ms = 60000 } })
  host:until_status(id, "running")
  local request = host:post("/v1/restart", { wait_ms = 0 }).json.request_id
  t.match(extended(manager:next(), 89999, 90000), "^STOPPING=1\nSTATUS=Leaving")
  t.match(manager:next(), "^STATUS=Draining")
  host:wait("drain.started")
  host:signal("sigterm")
  t.eq(host:wait("restart.becomes_stop").request_id, request)
  t.eq(extended(manager:next(), 29999, 30000), "STOPPING=1\nSTATUS=Stopping")
  t.eq((">I2"):unpack(ws:recv().data), 1001)
  ws:close()
  t.eq(host:wait_exit(), 0)
  t.eq(#host:all("restart.becomes_stop"), 1)
  t.eq(#host:all("signal.ignored"), 0)
  manager:close()
end)

t.test("what a shell inherits from its own supervisor makes nobody supervised, and the word none overrules", function()
  for _, spec in ipairs {
    { env = { "INVOCATION_ID=1", "JOURNAL_STREAM=8:1", "SYSTEMD_EXEC_PID=1", "SUPERVISOR_ENABLED=1" } },
    { wrap = AS_SYSTEMD, env = { "GWHOST_SUPERVISOR=none" } },
  } do
    local host = t.start(spec)
    t.match(host:get("/v1/status").body, '"supervisor":null')
    host:stop()
  end
end)

--- A script of this name runs the host as its child, as a supervisor would.
local function supervised_by(comm, env)
  local dir = t.dir()
  local script = t.write(dir .. "/" .. comm, '#!/bin/sh\ncd "$(dirname "$0")"\n"$@"\nexit $?\n')
  os.execute("chmod +x " .. script)
  return t.start({ wrap = { script }, env = env }), dir
end

t.test("s6, runit and supervisord are known by the parent, and their own command is named", function()
  local commands = { ["s6-supervise"] = { "s6", "s6-svc -d DIR" }, runsv = { "runit", "sv stop DIR" },
    supervisord = { "supervisord", "supervisorctl stop web:gw" } }
  for comm, expected in pairs(commands) do
    local host, dir = supervised_by(comm,
      { "SUPERVISOR_ENABLED=1", "SUPERVISOR_PROCESS_NAME=gw", "SUPERVISOR_GROUP_NAME=web" })
    t.eq(host:get("/v1/status").json.supervisor, expected[1])
    t.ok(stop_refused(host):find("'" .. expected[2]:gsub("DIR", dir) .. "'", 1, true), "the command of " .. comm)
    host:stop()
  end
end)

t.test("under launchd the exit comes 1,500 ms after the lock is free, and a policy may say otherwise", function()
  local host = t.start({ env = { "LAUNCH_JOB_LABEL=org.gwhost" } })
  t.match(stop_refused(host), "launchctl remove org.gwhost")
  host:post("/v1/restart", {})
  host:wait("lock.released")
  local freed = uv.hrtime()
  t.eq(host:wait_exit(), 0)
  local ms = (uv.hrtime() - freed) / 1000000
  t.ok(ms >= 1400, "after " .. ms .. " ms")
  local told = t.start({ env = { "LAUNCH_JOB_LABEL=org.gwhost" },
    policy = 'return { restart_mode = function() return { mode = "supervised", exit_delay_ms = 600000 } end }' })
  told:post("/v1/restart", {})
  told:wait("host.exiting")
  told:signal("sigterm") -- whoever wants it gone now gets it
  t.eq(told:wait_exit(), 0)
end)

t.test("an address that cannot be used is logged and the host serves", function()
  local host = t.start({ env = { "NOTIFY_SOCKET=/" .. ("x"):rep(200) } })
  t.match(host:wait("supervisor.unheard").error, "too long")
  host:stop()
  host = t.start({ env = { "NOTIFY_SOCKET=" .. t.dir() .. "/nobody" } })
  t.match(host:wait("supervisor.unheard").error, "No such file")
  host:signal("sighup")
  host:wait("policy.loaded", function(e) return e.because == "SIGHUP" end)
  t.eq(#host:all("supervisor.unheard"), 1, "said once")
  host:stop()
end)

t.main()
