-- Another process takes over, or another image: what it gets, what it proves, and that whatever does not come up
-- properly changes nothing.
local t = require("support.harness")
local uv = require("luv")

local function policy(mode, more)
  return ([[return { authorize_sigusr1 = function() return true end,
    drain_budget = function(ctx) return ctx.action == "stop" and 0 or 60000 end,
    restart_mode = function(ctx) return { mode = "%s"%s } end }]]):format(mode, more or "")
end

--- A file that does as its name says.
local function fake(name, mode)
  local path = t.dir() .. "/" .. name
  assert(uv.fs_copyfile(t.source .. "/tests/support/fake_successor.lua", path))
  assert(uv.fs_chmod(path, mode or 493))
  return path
end

local function other_program()
  local path = t.dir() .. "/gwhost"
  assert(uv.fs_copyfile(t.binary, path))
  return path
end

local function sentinel(host)
  local f = io.open(host.state_dir .. "/restart-sentinel.json")
  if not f then return nil end
  local text = f:read("a")
  f:close()
  return t.json.decode(text).payload
end

local function holds_lock(host)
  t.eq(t.json.decode(t.read(host.state_dir .. "/gwhost.lock")).pid, host.pid)
  local second = t.start({ state_dir = host.state_dir, ready = false, args = { "--start-timeout", "1" } })
  second:wait("lock.busy", nil, 20000)
  t.eq(second:wait_exit(), 75)
end

local function is_gone(pid)
  t.poll("the end of pid " .. pid, function() return not uv.fs_stat("/proc/" .. pid) end)
end

local function descriptors(pid)
  local out = {}
  for entry in io.popen("ls -l /proc/" .. pid .. "/fd"):lines() do
    local n, target = entry:match(" (%d+) %-> (.*)$")
    if n then out[tonumber(n)] = target end
  end
  return out
end

t.test("a standby has the lock, the listening sockets and its pair, and nothing else of ours", function()
  local host = t.start({ policy = policy("respawn"), args = { "--listen", "unix:" .. t.dir() .. "/gw.sock" } })
  local sockets = {}
  for n, target in pairs(descriptors(host.pid)) do
    if n > 2 and target:match("^socket:") then sockets[target] = (sockets[target] or 0) + 1 end
  end
  local ws = t.ok(t.websocket(host))
  local kept = t.ok(t.connect(host))
  t.eq(kept:request("GET", "/healthz").status, 200)
  local id = host:submit({ handler = "sleep", input = { ms = 1500 } })
  host:until_status(id, "running")
  host:signal("sigusr1")
  local child = host:wait("respawn.ready").child_pid
  host:wait("drain.started")
  local lock, listening, unknown = 0, 0, {}
  for n, target in pairs(descriptors(child)) do
    if target == uv.fs_realpath(host.state_dir) or target:match("/gwhost%.lock$") then
      lock = lock + 1
    elseif n > 2 and target:match("^socket:") and sockets[target] then
      listening = listening + 1
    elseif n > 2 and not target:match("^anon_inode:") and not target:match("^pipe:") and not target:match("^socket:")
      and target ~= "/dev/null" then
      unknown[#unknown + 1] = n .. " " .. target
    end
  end
  t.eq(table.concat(unknown, ", "), "", "descriptors that nobody named")
  t.eq(lock, 3) -- the two of the lock, and its own of the directory
  t.eq(listening, 4) -- two listening sockets, each with the copy that is polled
  local strangers = 0
  for n, target in pairs(descriptors(child)) do
    if n > 2 and target:match("^socket:") and not sockets[target] then strangers = strangers + 1 end
  end
  t.eq(strangers, 1) -- the pair: no connection, no control socket
  t.eq(uv.fs_stat("/proc/" .. child .. "/stat") ~= nil, true)
  local session = t.read("/proc/" .. child .. "/stat"):match("%) %S %d+ %d+ (%d+)")
  t.eq(tonumber(session), child, "its session")
  t.eq(t.read("/proc/" .. child .. "/comm"), "gwhost\n")
  t.eq(host:wait("restart.outcome").outcome, "restarted")
  t.eq(host.pid, child)
  t.eq(host:get("/v1/tasks/" .. id).json.status, "succeeded")
  ws:send("still there")
  t.eq(ws:recv().data, "still there")
  t.eq(kept:request("GET", "/healthz").json.pid, child)
  kept:close()
  ws:close()
  host:stop()
end)

t.test("a respawn brings a new boot id, runs what is queued, and keeps values, events and requests", function()
  local host = t.start({ policy = policy("respawn"), args = { "--lane", "slow=1" } })
  local events = t.ok(t.connect(host))
  events:send(("GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n"):format(host.token))
  events:until_match("retry")
  local first = host:submit({ handler = "sleep", lane = "slow", input = { ms = 300 } })
  host:until_status(first, "running")
  local queued = host:submit({ handler = "echo", lane = "slow", input = { n2 = 7 } })
  local boot_id, pid = host.boot_id, host.pid
  local request = host:post("/v1/restart", { reason = "new files" }).json.request_id
  t.eq(host:wait("restart.outcome").request_id, request)
  t.ok(host.boot_id ~= boot_id and host.pid ~= pid, "another process")
  is_gone(pid)
  t.eq(host:until_status(queued, "succeeded").boot_id, host.boot_id)
  t.eq(host:get("/v1/tasks/" .. first).json.boot_id, boot_id)
  local outcome = host:get("/v1/restarts/" .. request).json
  t.eq(outcome.outcome, "restarted")
  t.eq(outcome.mode, "respawn")
  t.eq(outcome.generation, 1)
  events:until_match('"state":"handing_over".*"state":"running"')
  local last = 0
  for n in events.data:gmatch("id: (%d+)\n") do
    t.ok(tonumber(n) > last, "ids increase")
    last = tonumber(n)
  end
  t.eq(host:get("/v1/status").json.restart.last.request_id, request)
  events:close()
  host:stop()
  t.eq(#host:all("host.exiting"), 2)
  t.eq(#host:all("lock.released"), 1) -- it was never free in between
end)

for name, why in pairs {
  ["exits"] = "exited with 3", ["hangs"] = "did not get ready within 700 ms", ["another-boot-id"] = "boot id",
  ["other-listeners"] = "other addresses", ["garbage"] = "no packet", ["half-a-letter"] = "closed its end",
  ["says-fail"] = "no room on the moon", ["contract-9"] = "contract 9",
} do
  t.test("an update to a program that " .. name .. " is rolled back, and the next one works", function()
    local host = t.start({ policy = policy("respawn", ", health_timeout_ms = ctx.vars.late and 700 or 10000"),
      args = name == "hangs" and { "--set", "late=1" } or {} })
    local ws = t.ok(t.websocket(host))
    local outcome = host:restarted({ update = true, exec = fake(name) })
    t.eq(outcome.outcome, "rolled_back")
    t.match(outcome.why, why)
    t.match(host:wait("update.rolled_back").error, why)
    local child = host:all("respawn.spawned")[1]
    if child then is_gone(child.child_pid) end
    t.eq(#host:all("app.closed"), 0, "nothing was torn down")
    t.eq(host:get("/healthz").json.generation, 1)
    t.match(host:wait("bundle.written").path, "gateway%.restart_respawn_failed")
    local record = sentinel(host)
    t.eq(record.status, "error")
    t.eq(record.stats.reason, "restart-unhealthy")
    t.match(record.message, why)
    ws:send("still here")
    t.eq(ws:recv().data, "still here")
    if name == "exits" then holds_lock(host) end
    local program = other_program()
    t.eq(host:restarted({ update = true, exec = program }).outcome, "restarted")
    t.eq(uv.fs_readlink("/proc/" .. host.pid .. "/exe"), program)
    t.eq(sentinel(host).status, "ok")
    ws:send("and here")
    t.eq(ws:recv().data, "and here")
    ws:close()
    host:stop()
  end)
end

t.test("an update to what is no program is rolled back with words that help", function()
  local host = t.start({ policy = policy("respawn") })
  local text = t.write(t.dir() .. "/notes.txt", "remember the milk\n")
  assert(uv.fs_chmod(text, 493))
  for path, why in pairs { [fake("plain", 420)] = "ermission denied", ["/nowhere/gwhost"] = "o such file",
    ["/bin/true"] = "does not say", [text] = "" } do
    local outcome = host:restarted({ update = true, exec = path })
    t.eq(outcome.outcome, "rolled_back", path)
    t.match(outcome.why, why)
  end
  t.eq(host:get("/healthz").json.generation, 1)
  host:stop()
end)

t.test("a successor that dies right after it is ready ends in a restart in place", function()
  local host = t.start({ policy = policy("respawn") })
  local ws = t.ok(t.websocket(host))
  local outcome = host:restarted({ update = true, exec = fake("dies-ready") })
  t.match(outcome.why, "exited with 5")
  t.ok(outcome.outcome == "failed" or outcome.outcome == "rolled_back", outcome.outcome)
  t.eq(sentinel(host).stats.reason, "restart-unhealthy")
  t.eq(host:get("/healthz").json.pid, host.pid)
  ws:send("still here")
  t.eq(ws:recv().data, "still here")
  t.eq(host:restarted({ update = true, exec = other_program() }).outcome, "restarted")
  ws:send("and here")
  t.eq(ws:recv().data, "and here")
  ws:close()
  host:stop()
end)

t.test("a successor that hangs after it is ready is late, and this host goes on with all it had", function()
  local host = t.start({ policy = policy("respawn", ", health_timeout_ms = 700") })
  local ws, kept = t.ok(t.websocket(host)), t.ok(t.connect(host))
  kept:request("GET", "/healthz")
  local id = host:submit({ handler = "sleep", input = { ms = 300 } })
  host:until_status(id, "running")
  local job = t.go(function()
    host:wait("host.state", function(e) return e.state == "handing_over" end)
    t.eq(host:get("/healthz").status, 200) -- the core answers meanwhile
    kept:request("GET", "/v1/tasks")
  end)
  local outcome = host:restarted({ update = true, exec = fake("hangs-ready") })
  t.eq(outcome.outcome, "failed")
  t.match(outcome.why, "did not start within 700 ms")
  t.join({ job })
  t.eq(host:get("/healthz").json.generation, 2)
  t.eq(host:get("/v1/tasks/" .. id).json.status, "succeeded")
  ws:send("still here")
  t.eq(ws:recv().data, "still here")
  holds_lock(host)
  is_gone(host:all("respawn.spawned")[1].child_pid)
  t.eq(sentinel(host).status, "error")
  t.eq(host:restarted({ update = true, exec = other_program() }).outcome, "restarted")
  t.eq(host:get("/v1/tasks/" .. id).json.status, "succeeded")
  ws:close()
  host:stop()
end)

t.test("an application that does not start in the successor serves on in the old process", function()
  local host = t.start({ policy = policy("respawn"), app = [[
    local gwhost = require("gwhost")
    local generation = 1
    return { start = function(ctx)
      if os.getenv("FLAG") and io.open(os.getenv("FLAG")) and ctx.generation == 1 then error("not today") end
      gwhost.serve { request = function() return { status = 200, body = ctx.boot_id } end }
      return { close = function() end }
    end }]], env = { "FLAG=" .. t.dir() .. "/flag" } })
  local pid = host.pid
  t.write(host.spec.env[1]:sub(6), "")
  local outcome = host:restarted({})
  t.eq(outcome.outcome, "restarted")
  t.eq(host:get("/").status, 200)
  t.eq(host:get("/healthz").json.pid, pid)
  t.eq(host:get("/healthz").json.generation, 2)
  t.match(host:wait("respawn.failed").error, "not today")
  host:stop()
end)

t.test("a stop that comes meanwhile wins, and reaches the successor", function()
  for _, moment in ipairs { "respawn.spawned", "drain.started", "handing_over" } do
    local host = t.start({ policy = policy("respawn"), args = { "--set", "x=1" } })
    local id = host:submit({ handler = "sleep", input = { ms = moment == "handing_over" and 200 or 30000 } })
    host:until_status(id, "running")
    host:control({ op = "restart", update = true, exec = fake(moment == "respawn.spawned" and "hangs" or "hangs-ready") })
    if moment == "handing_over" then
      host:wait("host.state", function(e) return e.state == "handing_over" end)
    else
      host:wait(moment)
    end
    host:signal("sigterm")
    t.eq(host:wait("restart.becomes_stop").event, "restart.becomes_stop")
    t.eq(host:wait_exit(), 0, moment .. "\n" .. host:log_tail())
    is_gone(host:all("respawn.spawned")[1].child_pid)
    local again = t.start({ state_dir = host.state_dir })
    t.eq(again:get("/v1/tasks/" .. id).json.status, moment == "handing_over" and "succeeded" or "interrupted")
    again:stop()
  end
end)

for _, mode in ipairs { "respawn", "reexec" } do
  t.test("connections that a program of another version does not know are told before they end, by " .. mode, function()
    local other = assert(os.getenv("GWHOST_OTHER_VERSION"), "set it to the program other_version")
    local host = t.start({ policy = policy(mode) })
    local ws, idle, kept = t.ok(t.websocket(host)), t.ok(t.connect(host)), t.ok(t.connect(host))
    t.eq(idle:request("GET", "/healthz").headers.connection, nil)
    t.eq(kept:request("GET", "/healthz").headers.connection, nil)
    local id = host:submit({ handler = "sleep", input = { ms = 300 } })
    host:until_status(id, "running")
    host:control({ op = "restart", update = true, exec = other })
    host:wait("respawn.connections_stay")
    host:wait("drain.started")
    -- Who asks something while it drains knows; who is silent until then is answered once more.
    t.eq(kept:request("GET", "/healthz").headers.connection, "close")
    host:wait(mode == "respawn" and "host.departs" or "reexec")
    if mode == "respawn" then
      local late = idle:request("GET", "/v1/tasks")
      t.eq(late.status, 503)
      t.eq(late.json.error.code, "draining")
      t.eq(late.headers.connection, "close")
      t.eq(late.headers["retry-after"], "1")
    end
    local frame = ws:recv()
    t.eq(frame.opcode, 8)
    t.eq(("%d"):format((">I2"):unpack(frame.data)), "1012")
    ws:close()
    local answer
    t.ask_until("an answer of the other program", function()
      local c = t.connect(host)
      answer = c and c:request("GET", "/", nil, { Connection = "close" })
      if c then c:close() end
      return answer and answer.status == 200
    end)
    local pid = tonumber(answer.body)
    t.eq(pid == host.handle:get_pid(), mode == "reexec")
    if mode == "respawn" then t.eq(host:wait("host.exiting").code, 0) end
    uv.kill(pid, "sigterm")
    host:wait_exit()
  end)
end

t.test("a stop that reaches the one that departs stops the one that serves", function()
  local host = t.start({ policy = policy("respawn") })
  local old = host.handle:get_pid()
  local ws = t.ok(t.websocket(host)) -- which cannot move, so that the departure takes a moment
  host:control({ op = "restart", update = true, exec = os.getenv("GWHOST_OTHER_VERSION") })
  local child = host:wait("respawn.ready").child_pid
  host:wait("host.departs")
  uv.kill(old, "sigterm")
  host:wait("stop.accepted")
  is_gone(child)
  ws:close()
  t.eq(host:wait_exit(), 0)
end)

t.test("a stop of one that departs is told on until its very end, however late it comes", function()
  for round = 1, 5 do
    local host = t.start({ policy = policy("respawn") })
    local old = host.pid
    host:control({ op = "restart" })
    host:wait("host.departs")
    -- Somewhere between here and its last instruction; it is gone when it cannot be told any more.
    local ends = t.now() + round * 1200000
    while t.now() < ends do end
    local sent_s, sent_us = uv.gettimeofday()
    pcall(uv.kill, old, "sigterm")
    local exiting = host:wait("host.exiting", function(e) return e.pid == old end)
    local serving = host:wait("host.ready", function(e) return e.pid ~= old end).pid
    if sent_s * 1000 + sent_us / 1000 < exiting.ts then
      is_gone(serving)
    elseif uv.fs_stat("/proc/" .. serving) then -- too late, or just in time
      pcall(uv.kill, serving, "sigterm")
      is_gone(serving)
    end
  end
end)

t.test("GWHOST_NO_RESPAWN and a policy's reexec: no other process, or the same pid", function()
  local host = t.start({ policy = policy("respawn"), env = { "GWHOST_NO_RESPAWN=yes" } })
  t.eq(host:restarted({}).outcome, "restarted")
  t.match(host:wait("restart.mode_changed").why, "NO_RESPAWN")
  t.eq(host:get("/healthz").json.generation, 2)
  t.eq(host:restarted({ update = true }).why, "image unchanged")
  t.eq(#host:all("respawn.spawned"), 0)
  host:stop()

  host = t.start({ policy = policy("reexec") })
  local pid, boot_id = host.pid, host.boot_id
  local ws = t.ok(t.websocket(host))
  local fds
  for i = 1, 5 do
    t.eq(host:restarted({ update = true, exec = other_program() }).outcome, "restarted")
    ws:send("hello")
    t.eq(ws:recv().data, "hello")
    if i == 1 then fds = host:fds() end -- what was open before by somebody else's mistake ends with the first
  end
  t.eq(host.pid, pid)
  t.ok(host.boot_id ~= boot_id)
  t.eq(host:fds(), fds)
  t.eq(sentinel(host).stats.mode, "reexec")
  ws:close()
  host:stop()
end)

t.test("an image that passes its trial and then does not start goes back to the one it came from", function()
  local host = t.start({ policy = policy("reexec"), app = [[
    local gwhost = require("gwhost")
    return { start = function(ctx)
      local flag = io.open(os.getenv("FLAG"))
      if flag and not io.open("/proc/self/environ"):read("a"):find("GWHOST_WENT_BACK") and ctx.vars.exe ~= "" then
        local exe = require("luv").fs_readlink("/proc/self/exe")
        if exe:find("other") then error("not in this image") end
      end
      gwhost.serve { request = function() return { status = 200 } end }
      return { close = function() end }
    end }]], env = { "FLAG=" .. t.write(t.dir() .. "/flag", "") } })
  local pid = host.pid
  local kept = t.ok(t.connect(host))
  t.eq(kept:request("GET", "/").status, 200)
  local other = t.dir() .. "/other"
  assert(uv.fs_copyfile(t.binary, other))
  local outcome = host:restarted({ update = true, exec = other })
  t.eq(outcome.outcome, "rolled_back")
  t.match(outcome.why, "not in this image")
  t.eq(host.pid, pid)
  t.eq(uv.fs_readlink("/proc/" .. pid .. "/exe"), uv.fs_realpath(t.binary))
  t.eq(kept:request("GET", "/").status, 200)
  local record = sentinel(host)
  t.eq(record.status, "error")
  t.match(record.message, "not in this image")
  kept:close()
  host:stop()
end)

t.test("the sentinel is told of once at the next start, and its continuation given once", function()
  local host = t.start({ policy = policy("respawn"), app = [[
    local gwhost = require("gwhost")
    return { start = function(ctx)
      local got = ctx.continuation
      gwhost.serve { request = function(req)
          if req.path == "/go" then
            return { status = 200, body = gwhost.restart { reason = "on", continuation = { step = 2 } } and "ok" or "no" }
          end
          return { status = 200, body = got and tostring(got.step) or "none" } end }
      return { close = function() end }
    end }]] })
  t.eq(host:get("/").body, "none")
  host:get("/go")
  host:wait("restart.outcome")
  t.eq(host:get("/").body, "2")
  t.eq(host:restarted({ update = true, exec = other_program() }).outcome, "restarted")
  t.eq(host:get("/").body, "none")
  t.eq(sentinel(host).status, "ok")
  t.eq(#host:all("update.notice"), 0)
  host:stop()
  local again = t.start({ state_dir = host.state_dir })
  t.eq(again:wait("update.notice").status, "ok")
  t.eq(sentinel(again), nil)
  again:stop()
  t.write(host.state_dir .. "/restart-sentinel.json", '{"version":7}')
  local last = t.start({ state_dir = host.state_dir })
  t.match(last:wait("sentinel.failed").error, "version")
  t.eq(sentinel(last), nil)
  last:stop()
end)

t.test("three boots in five minutes that died bring safe mode, and a clean restart leaves it", function()
  local host = t.start({ policy = policy("in_process") })
  local id = host:submit({ handler = "sleep", input = { ms = 60000 }, on_crash = "retry" })
  host:until_status(id, "running")
  for i = 1, 3 do
    host:signal("sigkill")
    host:wait_exit()
    host = t.start({ state_dir = host.state_dir, policy = policy("in_process") })
    t.eq(host:get("/v1/status").json.safe_mode, i == 3)
    if i < 3 then host:until_status(id, "running") end
  end
  t.eq(host:get("/healthz").json.safe_mode, true)
  t.eq(host:get("/v1/status").json.policy.path, "built-in")
  t.eq(host:wait("safe_mode.entered").unclean_boots, 3)
  t.match(host:wait("bundle.written").reason, "gateway.crash_loop")
  t.eq(host:get("/v1/tasks/" .. id).json.status, "lost")
  t.eq(host:restarted({}).outcome, "restarted")
  host:wait("safe_mode.left")
  t.eq(host:get("/v1/status").json.safe_mode, false)
  t.match(host:get("/v1/status").json.policy.path, "policy.lua$")
  t.eq(host:get("/healthz").json.safe_mode, nil)
  host:signal("sigkill")
  host:wait_exit()
  host = t.start({ state_dir = host.state_dir })
  t.eq(host:get("/v1/status").json.safe_mode, false)
  host:stop()
end)

t.test("planned restarts and stops are no crashes", function()
  local host = t.start({ policy = policy("respawn") })
  for _ = 1, 4 do t.eq(host:restarted({}).outcome, "restarted") end
  host:stop()
  for _ = 1, 3 do
    host = t.start({ state_dir = host.state_dir })
    host:stop()
  end
  host = t.start({ state_dir = host.state_dir })
  t.eq(host:get("/v1/status").json.safe_mode, false)
  host:stop()
end)

t.main()
