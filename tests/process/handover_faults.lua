-- Faults around a hand-over that are held in place by files and letters, not by time: each word that a successor may
-- die at, each way to ask for something of a process that is not quite the host yet. See also inheritance.lua.
local t = require("support.harness")
local uv = require("luv")

local function policy(mode)
  return ([[return { authorize_sigusr1 = function() return true end,
    drain_budget = function(ctx) return ctx.action == "stop" and 0 or 60000 end,
    restart_mode = function() return "%s" end }]]):format(mode)
end

--- An application that answers with `word`. A start later than the first waits while the file $GATE is there, and fails
--- while $FAIL is, or always with `broken`; a close waits while $HOLD is there.
local function application(word, broken)
  return ([[
    local gwhost = require("gwhost")
    local function there(name)
      local f = io.open(os.getenv(name))
      if f then f:close() end
      return f ~= nil
    end
    return { start = function(ctx)
      while there("GATE") do gwhost.sleep(10) end
      if there("FAIL") or %s then error("no start today") end
      gwhost.serve { request = function() return { status = 200, body = "%s" } end }
      return { close = function() while there("HOLD") do gwhost.sleep(10) end end }
    end }]]):format(broken or "false", word)
end

local function gated(mode, args)
  local dir = t.dir()
  local host = t.start({ policy = policy(mode), app = application("one"), args = args,
    env = { "GATE=" .. dir .. "/gate", "FAIL=" .. dir .. "/fail", "HOLD=" .. dir .. "/hold" } })
  host.gate, host.fail, host.hold = dir .. "/gate", dir .. "/fail", dir .. "/hold"
  return host
end

local function until_state(host, state)
  return host:wait("host.state", function(e) return e.state == state end)
end

--- Work that lasts until release() cancels it.
local function hold(host)
  local id = host:submit({ handler = "sleep", input = { ms = 600000 } })
  host:until_status(id, "running")
  return function() t.eq(host:post("/v1/tasks/" .. id .. "/cancel").status, 202) end
end

local function ask(host, fields)
  fields = fields or {}
  fields.op = "restart"
  return t.ok(host:control(fields), "no answer to the restart").result.request_id
end

local function outcome_of(host, id)
  return host:wait("restart.outcome", function(e) return e.request_id == id end)
end

local function outcomes(host, id)
  local n = 0
  for line in io.lines(host.state_dir .. "/restarts.jsonl") do
    local r = t.json.decode(line)
    if r.request_id == id and r.outcome then n = n + 1 end
  end
  return n
end

--- Asks for a respawn and gives its id and the successor's pid, once its application's start waits for the gate.
local function successor_starts(host)
  t.write(host.gate, "")
  local id = ask(host)
  local child = host:wait("respawn.ready").child_pid
  host:wait("lock.acquired", function(e) return e.pid == child end)
  return id, child
end

--- Dead; it may be a zombie for as long as a sanitizer's or somebody else's tracer has it.
local function is_dead(pid)
  t.poll("the end of pid " .. pid, function()
    local f = io.open("/proc/" .. pid .. "/stat")
    local state = f and f:read("a"):match("^.*%) (%S)")
    if f then f:close() end
    return not state or state == "Z"
  end)
end

local function bundles(host)
  local reasons = {}
  for _, e in ipairs(host:all("bundle.written")) do reasons[e.reason] = true end
  return reasons
end

--- The children of pid, and how many of them are dead and not reaped.
local function children(pid)
  local alive, zombies = 0, 0
  for name in io.popen("ls /proc"):lines() do
    local f = name:match("^%d+$") and io.open("/proc/" .. name .. "/stat")
    local state, parent = (f and f:read("a") or ""):match("^.*%) (%S) (%d+)")
    if f then f:close() end
    if tonumber(parent) == pid and state == "Z" then zombies = zombies + 1 end
    if tonumber(parent) == pid and state ~= "Z" then alive = alive + 1 end
  end
  return alive, zombies
end

--- The fake successor that dies as soon as it has said "ready", whatever its host does just then, or as soon as it
--- hears `word`.
local function dies_at(word)
  local fake = t.read(t.source .. "/tests/support/fake_successor.lua")
  local text, n = fake:gsub("\n    if letter%.type == \"hello\"", ([[

    if letter.type == "%s" then os.exit(7) end
    if letter.type == "go" then send({ type = "started" }) end%%0]]):format(word))
  t.eq(n, 1, "places where the fake hears a letter")
  local path = t.write(t.dir() .. (word == "ready" and "/dies-ready" or "/hears-" .. word), text)
  assert(uv.fs_chmod(path, 493))
  return path
end

t.test("a successor that dies at any word leaves its host all it had, however often", function()
  local host = t.start({ policy = policy("respawn") })
  local pid, ws, kept = host.pid, t.ok(t.websocket(host)), t.ok(t.connect(host))
  local early, go, connections = dies_at("ready"), dies_at("go"), dies_at("connections")
  local fakes = { early, go, early, connections }
  local fds
  for i = 0, 27 do
    local outcome = host:restarted({ update = true, exec = fakes[i % #fakes + 1] })
    t.ok(outcome.outcome == "failed" or i % 2 == 0 and outcome.outcome == "rolled_back", outcome.outcome)
    t.match(outcome.why, "exited with [57]")
    t.ok(not host.exit, host:log_tail())
    t.eq(kept:request("GET", "/healthz").json.pid, pid)
    ws:send("still here")
    t.eq(ws:recv().data, "still here")
    fds = fds or host:fds()
  end
  t.eq(host:fds(), fds)
  t.eq(host:restarted({}).outcome, "restarted")
  ws:send("and there")
  t.eq(ws:recv().data, "and there")
  kept:close()
  ws:close()
  host:stop()
end)

t.test("a stop at the moment of an exec is heard by one image, and leaves an outcome and no crash behind", function()
  for i = 0, 11 do
    local host = t.start({ policy = policy("reexec") })
    local pid, id = host.pid, ask(host)
    if i & 1 == 0 then host:wait("app.closed") else until_state(host, "handing_over") end
    assert(uv.kill(pid, i & 2 == 0 and "sigterm" or "sigint"))
    t.eq(host:wait_exit(), 0)
    if i < 4 then
      local again = t.start({ state_dir = host.state_dir })
      local outcome = again:get("/v1/restarts/" .. id).json.outcome
      t.ok(outcome == "failed" or outcome == "restarted", outcome) -- it may have served just before it stopped
      for _, boot in ipairs(t.json.decode(t.read(host.state_dir .. "/boots.json")).boots) do
        t.ok(boot.outcome == "clean" or boot.boot_id == again.boot_id, t.json.encode(boot))
      end
      again:stop()
    end
  end
end)

t.test("an image goes on with the policy in force and the application that was accepted, not broken files", function()
  local host = t.start({ policy = policy("reexec") })
  local pid, boot_id, sha256 = host.pid, host.boot_id, host:get("/v1/status").json.policy.sha256
  local release, id = hold(host), ask(host)
  host:wait("drain.started")
  t.write(host.policy_file, "return { oops")
  release()
  t.eq(outcome_of(host, id).outcome, "restarted")
  t.match(host:wait("policy.rejected", function(e) return e.boot_id ~= boot_id end).error, "policy.lua:1")
  t.eq(host:get("/v1/status").json.policy.sha256, sha256)
  t.eq(host:get("/healthz").json.pid, pid)
  -- It is more than a name: the predecessor's says that this is another image again.
  boot_id = host.boot_id
  host:signal("sigusr1")
  host:wait("host.ready", function(e) return e.boot_id ~= boot_id end)
  host:stop()

  host = gated("reexec")
  t.write(host.app_file, application("two"))
  t.write(host.hold, "")
  id = ask(host)
  until_state(host, "closing")
  t.write(host.app_file, "return { oops")
  assert(os.remove(host.hold))
  t.eq(outcome_of(host, id).outcome, "restarted")
  t.eq(host:get("/").body, "two")
  host:stop()
end)

t.test("an image whose new application does not start ends with the last good one, in the same process", function()
  local host = gated("reexec")
  local pid, kept = host.pid, t.ok(t.connect(host))
  t.eq(kept:request("GET", "/").body, "one")
  t.write(host.app_file, application("two", "true"))
  local outcome = host:restarted({})
  t.eq(outcome.outcome, "failed")
  t.match(outcome.why, "no start today")
  t.ok(bundles(host)["gateway.restart_startup_failed"])
  t.eq(kept:request("GET", "/").body, "one")
  t.eq(kept:request("GET", "/healthz").json.pid, pid)
  t.write(host.app_file, application("three"))
  t.eq(host:restarted({}).outcome, "restarted")
  t.eq(kept:request("GET", "/").body, "three")
  kept:close()
  host:stop()
end)

t.test("a host that failed in another image holds nothing, and tries again as often as it is told", function()
  local host = gated("reexec")
  local pid = host.pid
  t.write(host.fail, "")
  for _, again in ipairs { false, true } do
    if again then
      host:signal("sigusr1")
    else
      t.eq(outcome_of(host, ask(host)).outcome, "failed")
    end
    until_state(host, "failed")
    t.eq(host:control({ op = "status" }).result.state, "failed")
    for entry in io.popen("ls -l /proc/" .. pid .. "/fd"):lines() do
      t.ok(not entry:find("gwhost.lock", 1, true), entry)
    end
    t.eq(t.connect(host), nil, "its port")
  end
  t.eq(#host:all("lock.released"), 2)
  t.ok(bundles(host)["gateway.restart_startup_failed"])
  assert(os.remove(host.fail))
  host:signal("sigusr1")
  host:wait("app.started", function(e) return e.generation > 1 end)
  t.eq(host:wait("host.ready", function(e) return e.generation > 1 end).pid, pid)
  t.eq(host:get("/").body, "one")
  t.eq(host:get("/v1/status").json.restart.last.outcome, "restarted")
  host:stop()
end)

t.test("a host whose standby was told to end serves on its unix socket, before the switch and after it", function()
  local path = t.dir() .. "/gw.sock"
  local host = t.start({ policy = policy("respawn"), args = { "--listen", "unix:" .. path } })
  local pid, release, id = host.pid, hold(host), ask(host)
  local child = host:wait("respawn.ready").child_pid
  host:wait("drain.started")
  local function answers()
    local c = t.ok(t.connect(host, "unix:" .. path))
    t.eq(c:request("GET", "/healthz").json.pid, pid)
    c:close()
  end
  assert(uv.kill(child, "sigterm"))
  host:wait("respawn.failed")
  is_dead(child)
  answers()
  release()
  t.eq(outcome_of(host, id).outcome, "restarted")
  answers()
  host:stop()
end)

t.test("a stop that is asked while the successor's application starts ends both, whomever it was asked of", function()
  for what, stop in pairs {
    ["SIGINT to the successor"] = function(_, child) assert(uv.kill(child, "sigint")) end,
    ["SIGTERM to the successor"] = function(_, child) assert(uv.kill(child, "sigterm")) end,
    ["SIGTERM to the old one"] = function(old) assert(uv.kill(old, "sigterm")) end,
    ["the control socket"] = function(_, _, host) t.eq(host:control({ op = "stop" }).ok, true) end,
  } do
    local args = { "--listen", "unix:" .. t.dir() .. "/gw.sock" }
    local host = gated("respawn", args)
    local old = host.pid
    local id, child = successor_starts(host)
    stop(old, child, host)
    t.eq(host:wait_exit(), 0, what .. "\n" .. host:log_tail())
    is_dead(child)
    t.eq(outcomes(host, id), 1, "outcomes after " .. what)
    local again = t.start({ state_dir = host.state_dir, args = args })
    t.eq(again:get("/v1/restarts/" .. id).json.outcome, outcome_of(host, id).outcome)
    again:stop()
  end
end)

t.test("restarts that are asked of either process while the successor's application starts are not lost", function()
  for _, by in ipairs { "control", "signal" } do
    local host = gated("respawn")
    local first, child = successor_starts(host)
    local second
    if by == "control" then
      second = ask(host)
    else
      assert(uv.kill(child, "sigusr1"))
      second = host:wait("restart.requested", function(e) return e.request_id ~= first end).request_id
    end
    t.ok(second ~= first)
    assert(os.remove(host.gate))
    for _, id in ipairs { first, second } do t.eq(outcome_of(host, id).outcome, "restarted", by) end
    t.ok(host.pid ~= child, "the second one has brought another process")
    t.poll("the record, which follows the event", function() return outcomes(host, second) > 0 end)
    for _, id in ipairs { first, second } do t.eq(outcomes(host, id), 1, by) end
    t.eq(#host:all("respawn.spawned"), 2)
    host:stop()
  end
end)

t.test("an update in place whose application does not start is told of as an error at the next start", function()
  local host = gated("in_process")
  t.write(host.app_file, application("two", "true"))
  t.eq(host:restarted({ update = true }).outcome, "failed")
  t.eq(host:get("/").body, "one")
  t.eq(t.json.decode(t.read(host.state_dir .. "/restart-sentinel.json")).payload.status, "error")
  host:stop()
  local again = t.start({ state_dir = host.state_dir })
  t.eq(again:wait("update.notice").status, "error")
  again:stop()
end)

t.test("128 listening sockets go to the next process, and 129 are refused", function()
  local args = {}
  for i = 2, 128 do
    args[#args + 1] = "--listen"
    args[#args + 1] = ("127.0.0.%d:0"):format(i)
  end
  local host = t.start({ policy = policy("respawn"), args = args })
  local addresses = host:get("/v1/status").json.listeners
  t.eq(#addresses, 128)
  t.eq(host:restarted({}).outcome, "restarted")
  for _, n in ipairs { 1, 64, 128 } do
    local c = t.ok(t.connect(host, addresses[n]), addresses[n])
    t.eq(c:request("GET", "/healthz").json.pid, host.pid)
    c:close()
  end
  host:stop()

  args[#args + 1] = "--listen"
  args[#args + 1] = "127.0.0.129:0"
  host = t.start({ args = args, ready = false })
  t.match(host:wait("app.start_failed").error, "129 listening sockets are more than the 128 .* fewer %-%-listen")
  t.eq(host:wait_exit(), 78)
end)

t.test("commands of an application leave no zombies and no strays behind, whichever way it comes back", function()
  for _, mode in ipairs { "reexec", "respawn" } do
    local host = t.start({ policy = policy(mode), app = [[
      local gwhost = require("gwhost")
      return { start = function()
        assert(gwhost.spawn { argv = { "sleep", "600" } })
        assert(gwhost.spawn { argv = { "true" } })
        gwhost.serve { request = function() return { status = 200 } end }
        return { close = function() end }
      end }]] })
    for _ = 1, 5 do t.eq(host:restarted({}).outcome, "restarted") end
    local alive, zombies
    t.poll(function() return ("%d children and %d zombies to be 1 and 0"):format(alive, zombies) end, function()
      alive, zombies = children(host.pid)
      return alive == 1 and zombies == 0
    end)
    host:stop()
  end
end)

t.test("commands get the limit on open files that the first host was started with, after any restart", function()
  for _, mode in ipairs { "reexec", "respawn" } do
    local host = t.start({ policy = policy(mode), args = { "--allow-exec" },
      wrap = { "/bin/sh", "-c", 'ulimit -Sn 900; exec "$0" "$@"' } })
    for _ = 1, 3 do
      local id = host:submit({ handler = "exec", input = { argv = { "/bin/sh", "-c", "ulimit -Sn" } } })
      t.eq(host:until_status(id, "succeeded").result.stdout, "900\n", mode)
      t.eq(host:restarted({}).outcome, "restarted")
    end
    host:stop()
  end
end)

t.test("a failed host that tries again or stops takes nothing from one that has its directory by now", function()
  for _, signal in ipairs { "sigusr1", "sigterm" } do
    local first = gated("in_process")
    t.write(first.fail, "")
    ask(first)
    until_state(first, "failed")
    local second = t.start({ state_dir = first.state_dir })
    assert(os.remove(first.fail))
    first:signal(signal)
    if signal == "sigusr1" then t.eq(first:wait("lock.busy").owner_pid, second.pid) end
    t.eq(first:wait_exit(), signal == "sigusr1" and 1 or 0)
    local status = t.ok(second:control({ op = "status" }), "the second host's control socket is gone").result
    t.eq(status.pid, second.pid)
    t.eq(second:get("/healthz").status, 200)
    second:stop()
  end
end)

t.test("a SIGTERM with an intent while a restart drains uses the intent up and leaves the restart alone", function()
  for _, mode in ipairs { "in_process", "respawn", "reexec" } do
    local host = t.start({ policy = policy(mode) })
    local release, id = hold(host), ask(host)
    host:wait("drain.started")
    local intent = t.write(host.state_dir .. "/restart-intent.json", t.json.encode {
      kind = "gateway-restart", pid = host.pid, created_at_ms = os.time() * 1000, force = true })
    assert(uv.fs_chmod(intent, 384))
    host:signal("sigterm")
    local ignored = host:wait("signal.ignored")
    t.eq(ignored.signal, "SIGTERM")
    t.match(ignored.why, "a restart is under way")
    t.eq(uv.fs_stat(intent), nil, "the intent")
    t.eq(#host:all("drain.skipped"), 0, "its force is not for this restart")
    release()
    t.eq(outcome_of(host, id).outcome, "restarted", mode)
    host:stop()
  end
end)

t.main()
