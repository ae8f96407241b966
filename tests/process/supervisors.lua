-- Under real supervisors: who restarts whom, nobody orphaned, nobody twice. What is not installed is skipped.
local t = require("support.harness")
local uv = require("luv")

local function have(program)
  for dir in os.getenv("PATH"):gmatch("[^:]+") do
    if uv.fs_stat(dir .. "/" .. program) then return true end
  end
end

-- Makes a service of the command that follows and becomes its supervisor.
local MAKE_SERVICE = [[dir=$1 supervisor=$2; shift 2
{ printf '#!/bin/sh\nexec'; for word; do printf " '%s'" "$word"; done; echo; } >"$dir/run"
chmod +x "$dir/run"; exec "$supervisor" "$dir"]]

local POLICY = [[return { restart_mode = function(ctx)
    if ctx.reason == "respawn" then return "respawn" end
    return ctx.supervisor and "supervised" or "in_process"
  end, drain_budget = function() return 5000 end, authorize_sigusr1 = function() return true end }]]

local function hosts_on(state_dir)
  local n = 0
  for name in io.popen("ls /proc"):lines() do
    local f = name:match("^%d+$") and io.open("/proc/" .. name .. "/cmdline")
    local line = f and f:read("a") or ""
    if f then f:close() end
    local own = line:find(state_dir, 1, true) and line:find("^[^%z]*gwhost%z")
    if own then n = n + 1 end
  end
  return n
end

local function next_ready(host, pid)
  return host:wait("host.ready", function(e) return e.pid ~= pid end)
end

--- What holds under any supervisor that watches a pid.
local function life(name, supervisor, down, off)
  local dir = t.dir()
  local host = t.start({ policy = POLICY, args = { "--lane", "one=1" },
    wrap = { "/bin/sh", "-c", MAKE_SERVICE, "sh", dir, supervisor } })
  t.eq(host:get("/v1/status").json.supervisor, name)

  -- A restart ends the process; the supervisor starts the next one, which runs what was queued.
  local first, pid = host:submit({ handler = "sleep", lane = "one", input = { ms = 200 } }), host.pid
  host:until_status(first, "running")
  local queued = host:submit({ handler = "echo", lane = "one", input = { x = 1 } })
  t.eq(host:restarted({ reason = "plain" }).outcome, "restarted")
  next_ready(host, pid)
  t.ok(host.pid ~= pid, "another process")
  host:until_status(queued, "succeeded")
  t.eq(host:get("/v1/tasks/" .. first).json.status, "succeeded")

  -- One that is killed is started again, and knows what it lost.
  local lost = host:submit({ handler = "sleep", lane = "one", input = { ms = 60000 } })
  host:until_status(lost, "running")
  pid = host.pid
  host:signal("sigkill")
  next_ready(host, pid)
  t.eq(host:get("/v1/tasks/" .. lost).json.status, "lost")

  -- Another process would be taken for a death: the image changes in the same pid.
  pid = host.pid
  local boot_id = host.boot_id
  local ws = t.ok(t.websocket(host))
  t.eq(host:restarted({ reason = "respawn" }).outcome, "restarted")
  t.eq(host.pid, pid)
  t.ok(host.boot_id ~= boot_id, "another image")
  t.eq(host:all("restart.mode_changed")[1].mode, "reexec")
  ws:send("still there")
  t.eq(ws:recv().data, "still there")
  ws:close()
  t.eq(host:get("/v1/status").json.supervisor, name)
  t.eq(hosts_on(host.state_dir), 1)

  local refused = host:control({ op = "stop" })
  t.eq(refused.ok, false)
  t.match(refused.error.message, name == "s6" and "s6%-svc %-d" or "sv ")
  t.ok(os.execute(down:format(dir)), "the supervisor's own command")
  t.poll("the end of pid " .. pid, function() return not uv.fs_stat("/proc/" .. pid) end)
  t.ok(os.execute(off:format(dir)))
  host:wait_exit()
  t.eq(hosts_on(host.state_dir), 0)
end

if have("s6-supervise") then
  t.test("s6", function() life("s6", "s6-supervise", "s6-svc -d '%s'", "s6-svc -x '%s'") end)
else
  t.skip("s6", "no s6 here")
end

if have("runsv") then
  t.test("runit", function()
    life("runit", "runsv", "sv -w 20 down '%s' >/dev/null", "sv exit '%s' >/dev/null")
  end)
else
  t.skip("runit", "no runit here")
end

-- ---- pid 1 ----

local AS_PID_1 = "as pid 1 it reaps orphans that end, and still knows how its own commands ended"
if uv.getuid() == 0 and have("unshare") and
  os.execute("unshare -fp --kill-child --mount-proc true 2>/dev/null") then
  t.test(AS_PID_1, function()
    local host = t.start({ args = { "--allow-exec" }, wrap = { "/usr/bin/unshare", "-fp", "--kill-child=SIGKILL",
      "--mount-proc" } })
    t.eq(host.pid, 1)
    local function exec(script)
      local id = host:submit({ handler = "exec", input = { argv = { "/bin/sh", "-c", script } } })
      return host:until_status(id, "succeeded")
    end
    for _ = 1, 5 do exec("(sleep 0.05; exit 3) & (exit 4) & exit 0") end
    t.ask_until("no zombie is left", function()
      local out = exec("ps -eo stat= | grep -c '^Z' || true").result.stdout
      return tonumber(out) == 0
    end)
    t.eq(host:control({ op = "status" }).ok, true)
    uv.kill(host.handle:get_pid(), "sigkill")
    host:wait_exit()
  end)
else
  t.skip(AS_PID_1, "no pid namespaces here")
end

-- ---- systemd ----

local function output(command)
  local f = io.popen(command .. " 2>/dev/null")
  local text = f:read("a")
  f:close()
  return text
end

local function can_have_systemd()
  return uv.fs_stat("/lib/systemd/systemd") and have("unshare") and have("nsenter") and uv.getuid() == 0 and
    output("unshare -fpmui --cgroup --kill-child=SIGKILL sh -c 'mount --make-rprivate / && echo yes'"):match("yes")
end

--- The unit that ships, with these options.
local function write_unit(path, address)
  local unit = t.read(t.source .. "/src/dist/gwhost.service")
  unit = unit:gsub("\nAfter=[^\n]*", "\nDefaultDependencies=no")
  unit = unit:gsub("\nStateDirectory[^\n]*", "")
  unit = unit:gsub("\nExecStart=gwhost run", ("\nExecStart=/run/gwhost/bin/gwhost run --listen %s --open --state-dir /run/gwhost/state "
    .. "--policy /run/gwhost/policy.lua --log-format json"):format(address))
  return t.write(path, unit)
end

--- A systemd of its own with the unit in it; nil where that cannot be.
local function own_systemd()
  local dir = t.dir()
  local m = { address = "127.0.0.1:" .. t.free_port() }
  local overlay = dir .. "/overlay"
  assert(uv.fs_mkdir(overlay, 448))
  local policy = t.write(dir .. "/policy.lua", POLICY)
  m.handle, m.pid = uv.spawn("unshare", { args = { "-fpmui", "--cgroup", "--kill-child=SIGKILL",
    t.source .. "/tests/support/private_systemd", overlay, write_unit(dir .. "/unit", m.address), policy,
    t.binary, t.source },
    stdio = { nil, nil, 2 } }, function(code)
    m.code = code
    m.handle:close()
    t.wake()
  end)
  assert(m.handle, m.pid)
  function m:get(path)
    local c = t.connect(self, self.address)
    local a = c and c:request("GET", path, nil, { Connection = "close" })
    if c then c:close() end
    return a
  end
  function m:post(path, body)
    local c = t.ok(t.connect(self, self.address))
    local a = c:request("POST", path, body, { Connection = "close" })
    c:close()
    return a.json
  end
  function m:restart(reason) return self:post("/v1/restart", { reason = reason }).request_id end
  t.ask_until("an answer of the unit", function() return m.code or m:get("/readyz") end)
  if m.code then return nil end
  local systemd = output("pgrep -P " .. m.pid):match("%d+")
  local inside = "nsenter -t " .. systemd .. " -m -p -r -w "
  function m.systemctl(_, words) return output(inside .. "systemctl " .. words) end
  function m:show(what) return self:systemctl("show --value -p " .. what .. " gwhost.service"):match("^(.-)\n") end
  function m.count() return tonumber(output(inside .. "pgrep -c gwhost"):match("%d+")) end
  function m.kill(_, pid) os.execute(inside .. "kill -9 " .. pid) end
  --- Waits until the unit's main process is another than before and answers.
  function m:next_main(before)
    t.ask_until("the next main process", function()
      local a, main = self:get("/healthz"), self:show("MainPID")
      return a and a.json and main ~= before and tostring(a.json.pid) == main
    end)
    return self:show("MainPID")
  end
  function m:close()
    uv.kill(self.pid, "sigkill")
    t.until_true("the end of systemd", function() return self.code end)
  end
  return m
end

--- Connects anew for each request, in a process of its own, until the file is there.
local function clients(m, stop)
  local answers = stop .. ".answers"
  local job = { done = false }
  job.handle = uv.spawn("/bin/sh", { args = { "-c", [[for i in 1 2 3; do while [ ! -e "$1" ] && kill -0 $4 2>/dev/null; do
    curl -s -o /dev/null -w '%{http_code} %{exitcode} %{errormsg}\n' "http://$2/healthz"; done >>"$3" & done; wait]],
    "sh", stop, m.address, answers, ("%d"):format(uv.os_getpid()) } },
    function()
      job.done = true
      job.handle:close()
      t.wake()
    end)
  function job:result()
    t.write(stop, "")
    t.until_true("the clients' end", function() return self.done end)
    local good, bad = 0, {}
    for line in io.lines(answers) do
      if line:match("^200 0 ") then good = good + 1 else bad[#bad + 1] = line end
    end
    return good, table.concat(bad, "; ")
  end
  return job
end

local function life_of_unit(m)
  local main = m:show("MainPID")
  t.eq(m:get("/v1/status").json.supervisor, "systemd")
  t.eq(m:show("Type"), "notify")
  local load = clients(m, t.dir() .. "/stop")
  for _ = 1, 3 do
    m:restart("respawn")
    main = m:next_main(main)
    t.eq(m:show("ActiveState"), "active")
    t.eq(m:show("NRestarts"), "0") -- for systemd nothing has ended
    t.poll("the old one's end", function() return m:count() == 1 end)
  end
  -- A main process that is not systemd's child would be killed right after its SIGTERM.
  local task = m:post("/v1/tasks", { handler = "sleep", input = { ms = 500 } }).task_id
  t.ask_until("the task runs", function() return m:get("/v1/tasks/" .. task).json.status == "running" end)
  m:systemctl("restart gwhost.service")
  main = m:next_main(main)
  t.eq(m:get("/v1/tasks/" .. task).json.status, "succeeded")
  t.eq(m:show("NFileDescriptorStore"), "1")
  m:restart("plain")
  main = m:next_main(main)
  t.eq(m:show("NRestarts"), "1")
  local good, bad = load:result()
  t.eq(bad, "", "connections that were refused or not answered")
  t.ok(good > 20, "hardly any connection: " .. good)
  m:kill(main)
  m:next_main(main)
  t.eq(m:count(), 1)
  t.eq(m:show("NRestarts"), "2")
  m:systemctl("stop gwhost.service")
  t.eq(m:show("ActiveState"), "inactive")
  t.eq(m:show("Result"), "success")
  t.eq(m:count(), 0)
end

local SYSTEMD = "systemd: main processes change, its own restart refuses nobody, and nobody is left"
if can_have_systemd() then
  t.test(SYSTEMD, function()
    local m = own_systemd() or t.skip_this("no private systemd here")
    local ok, err = xpcall(life_of_unit, debug.traceback, m)
    m:close()
    if not ok then error(err, 0) end
  end)
else
  t.skip(SYSTEMD, "no systemd that could be started in namespaces of its own here")
end

t.main()
