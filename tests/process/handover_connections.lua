-- What connections live through when another process or image takes over: at each of their bytes, in great number, at
-- the limit of descriptors, with more unsent than can travel, and under a successor that describes them otherwise.
local t = require("support.harness")
local uv = require("luv")

local MODES = { "respawn", "reexec" }
local UNSENT = 96 << 20 -- more than 64 MiB stay in the host, whatever the kernel takes

--- The mode is the reason of the request; a signal's is none of them: respawn.
local function policy(health_ms)
  return ([[return { authorize_sigusr1 = function() return true end,
    drain_budget = function(ctx) return ctx.action == "stop" and 0 or 60000 end,
    restart_mode = function(ctx)
      local named = ctx.reason == "reexec" or ctx.reason == "in_process"
      return { mode = named and ctx.reason or "respawn", health_timeout_ms = %d }
    end }]]):format(health_ms or 10000)
end

--- Notes each request that it executes, answers with it, and echoes messages. FLAG: a file that says what else it does.
local APP = [[
  local gwhost = require("gwhost")
  local log = assert(io.open(os.getenv("REQUESTS"), "a"))
  log:setvbuf("no")
  local function flag(name)
    local f = io.open(os.getenv("FLAGS") .. "/" .. name)
    local text = f and f:read("a")
    if f then f:close() end
    return tonumber(text)
  end
  return { start = function(ctx)
    local files = {}
    for i = 1, flag("files") or 0 do files[i] = io.open("/dev/null") end
    gwhost.sleep(flag("start_ms") or 0)
    gwhost.serve { public = true,
      request = function(req)
        log:write(req.method, " ", req.path, "\n")
        if req.path == "/big" then return { body = ("x"):rep(tonumber(req.query)) } end
        if req.path == "/peer" then return { body = req.peer } end
        return { body = ("%s %s %s by %s"):format(req.method, req.path, req.body, ctx.boot_id) }
      end,
      websocket = function(ws, req, resumed)
        if req.path:find("^/room") then
          local headers = {}
          for name, value in pairs(req.headers) do headers[#headers + 1] = name .. "=" .. value end
          table.sort(headers)
          ws:send(("%s %s %d %s"):format(resumed, req.target, #headers, gwhost.sha256(table.concat(headers, "\n"))))
        end
        ws.on_message = function(data, kind) ws:send(data, kind) end
      end }
    return { close = function() gwhost.sleep(flag("close_ms") or 0) end }
  end }]]

local function start(spec)
  local dir = t.dir()
  spec.policy, spec.app = policy(spec.health_ms), spec.app or APP
  spec.env = { "REQUESTS=" .. dir .. "/requests", "FLAGS=" .. dir }
  local host = t.start(spec)
  host.files = dir
  return host
end

local function set(host, name, value) t.write(host.files .. "/" .. name, tostring(value)) end

local function executed(host)
  local counts, n = {}, 0
  for line in io.lines(host.files .. "/requests") do
    counts[line] = (counts[line] or 0) + 1
    n = n + 1
  end
  return counts, n
end

local function is_alive(pid)
  local stat = io.open("/proc/" .. pid .. "/stat")
  if not stat then return false end
  local state = (stat:read("a") or ""):match("%) (%S)")
  stat:close()
  return state ~= nil and state ~= "Z" and state ~= "X", state
end

local function closing(host)
  host:wait("host.state", function(e) return e.state == "closing" end)
end

local function get(c, path)
  local a = t.ok(c:request("GET", path), "no answer to GET " .. path)
  t.eq(a.status, 200, path)
  return a
end

--- The last request of a connection: its answer is the next that comes, and nothing comes behind it.
local function bid_farewell(c, path, limit_ms)
  c:send(("GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):format(path))
  local a, why = c:answer(false, limit_ms)
  t.ok(a, path .. ": " .. tostring(why))
  t.match(a.body, "^GET " .. path .. " ")
  t.until_true("the end of a connection", function() return c.closed end)
  t.eq(c.error, nil)
  t.eq(c.data, "", "more answers than requests")
  c:close()
  return a
end

--- Reads to the end without keeping it. Returns how many bytes came and why they ended (nil: properly).
local function drink(c)
  local n, over, why = #c.data, false, nil
  c.stream:read_start(function(err, data)
    n = n + (data and #data or 0)
    over, why = not data, err
    if over then t.wake() end
  end)
  t.until_true("the end of a long answer", function() return over end)
  c:close()
  return n, why
end

-- ---- the limit of descriptors ----

--- before: connections that are there when the restart begins; meanwhile: those that come while the application
--- closes, until it is full; files: how many more descriptors the next application opens, into the reserve. Returns
--- what failed.
local function at_the_limit(mode, limit, before, meanwhile, files)
  local host = start({ health_ms = 5000,
    wrap = { "/bin/sh", "-c", ("ulimit -n %d && exec \"$@\""):format(limit), "sh" } })
  local old, conns = host.pid, {}
  for i = 1, before do conns[i] = t.ok(t.connect(host)) end
  if before > 0 then get(conns[before], "/warm") end
  set(host, "files", files)
  set(host, "close_ms", 500)
  t.eq(host:control({ op = "restart", reason = mode }).ok, true)
  closing(host)
  local child = host:all("respawn.spawned")[1].child_pid
  for _ = 1, meanwhile do conns[#conns + 1] = t.ok(t.connect(host)) end
  if meanwhile > 0 then host:wait("connections.full") end
  for i, c in ipairs(conns) do
    c:send(("POST /pay/%d HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nwell"):format(i))
  end
  host:wait("restart.outcome")
  -- Who does not fit is accepted once others have gone, in the order in which they came.
  local by
  for i, c in ipairs(conns) do
    local a, why = c:answer()
    t.ok(a, ("no answer to POST %d: %s"):format(i, tostring(why)))
    t.eq(a.status, 200, a.body)
    t.match(a.body, ("^POST /pay/%d well by "):format(i))
    local last = bid_farewell(c, "/after/" .. i).body:match("by (%x+)$")
    t.eq(last, by or last, "who answers")
    by = last
  end
  local counts = executed(host)
  for i = 1, #conns do t.eq(counts["POST /pay/" .. i], 1, "executions of POST " .. i) end
  t.poll("the end of one of the two", function() return is_alive(old) ~= is_alive(child) end)
  t.eq(is_alive(old), mode == "reexec" or host.pid == old)
  t.eq(is_alive(host.pid), true)
  local status = host:get("/v1/status").json
  t.eq(status.pid, host.pid)
  t.eq(status.boot_id, by)
  t.eq(status.state, "running")
  for _, e in ipairs(host:all("host.state")) do t.ok(e.state ~= "failed", "the host was given up") end
  local failed = host:all("respawn.failed")
  t.eq(host.pid, (mode == "reexec" or #failed > 0) and old or child, "the host is")
  set(host, "close_ms", 0)
  t.eq(host:restarted({}).outcome, "restarted") -- with room again
  t.eq(#host:all("respawn.failed"), #failed, host:log_tail())
  host:stop()
  return failed
end

t.test("a successor that has no room for the connections leaves them to the old process, and nothing is done twice",
  function()
    local failed = at_the_limit("respawn", 310, 200, 0, 100)
    t.eq(#failed, 1, "the successor had room: this tests nothing")
  end)

t.test("connections up to the limit while a successor starts end in one host", function()
  t.eq(#at_the_limit("respawn", 96, 0, 110, 0), 0)
end)

t.test("connections up to the limit, and a successor that has no room, end in one host", function()
  local failed = at_the_limit("respawn", 96, 0, 110, 60)
  t.eq(#failed, 1, "the successor had room: this tests nothing")
end)

t.test("connections up to the limit leave room for another image", function()
  t.eq(#at_the_limit("reexec", 96, 0, 110, 0), 0)
end)

-- ---- more than can travel ----

for _, mode in ipairs(MODES) do
  t.test("an answer that is too large to travel does not keep others from a " .. mode, function()
    local host = start({})
    local old, others = host.pid, {}
    for i = 1, 10 do
      others[i] = t.ok(t.connect(host))
      get(others[i], "/before")
    end
    local ws = t.ok(t.websocket(host))
    local slow = t.ok(t.connect(host))
    slow.stream:read_stop()
    slow:send(("GET /big?%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):format(UNSENT))
    t.poll("the long answer", function() return executed(host)["GET /big"] end)
    get(others[1], "/before") -- it has been handed to the core before this one
    t.eq(host:restarted({ reason = mode }).outcome, "restarted")
    for _, c in ipairs(others) do t.match(get(c, "/after").body, host.boot_id) end
    ws:send("still there")
    t.eq(ws:recv().data, "still there")
    local n, why = drink(slow)
    if mode == "respawn" then
      t.eq(host:wait("connections.left").connections, 1)
      t.eq(why, nil)
      t.ok(n > UNSENT and n < UNSENT + 1000, n .. " bytes came")
      t.poll("the end of the old process", function() return not is_alive(old) end)
    else
      t.ok(n < UNSENT, n .. " bytes came through another image: it was not left")
    end
    t.eq(host:get("/v1/status").json.state, "running")
    for _, c in ipairs(others) do c:close() end
    ws:close()
    host:stop()
  end)
end

-- ---- a successor that is not like this one ----

--- As fake_successor.lua, for what comes after `ready`. A file that says how it describes connections, or hangs.
local FAKE = [[
  local uv, json = require("luv"), require("dkjson")
  local how = arg[1]
  local pair, boot_id = uv.new_pipe(false), nil
  assert(pair:open(tonumber(os.getenv("GWHOST_HANDOVER"))))
  local function send(head)
    local text = json.encode(head)
    pair:write(("<I4I4"):pack(#text, 0) .. text)
  end
  local answers = {
    hello = function(hello)
      local listeners = {}
      for i, l in ipairs(hello.listeners) do listeners[i] = l.address end
      boot_id = hello.boot_id
      send({ type = "ready", contract = 1, boot_id = boot_id, version = "9.9.9", policy_sha256 = "", app_sha256 = "",
        listeners = listeners, connections = how == "other-version" and 99 or 1 })
    end,
    go = function() send({ type = "started" }) end,
    connections = function(letter)
      if how == "other-version" then
        if #(letter.connections or {}) > 0 then os.exit(7) end
        if letter.last then send({ type = "serving", boot_id = boot_id }) end
      end
    end,
  }
  local rest = ""
  pair:read_start(function(_, data)
    if not data then os.exit(0) end
    rest = rest .. data
    while #rest >= 8 do
      local n, blob = ("<I4I4"):unpack(rest)
      if #rest < 8 + n + blob then return end
      local letter = json.decode(rest:sub(9, 8 + n))
      rest = rest:sub(9 + n + blob)
      if letter.type ~= "ack" then send({ type = "ack" }) end
      if answers[letter.type] then answers[letter.type](letter) end
    end
  end)
  uv.run()]]

--- A gwhost by its --version; how: see FAKE. As another image it is the real one.
local function fake(how)
  local dir = t.dir()
  local path = t.write(dir .. "/gwhost", ([[#!/bin/sh
    if [ "$1" = --version ]; then echo "gwhost 9.9.9 contract 1"; exit; fi
    if [ -S "/proc/self/fd/$GWHOST_HANDOVER" ]; then exec lua5.4 '%s' %s; fi
    exec '%s' "$@"
  ]]):format(t.write(dir .. "/fake.lua", FAKE), how, t.binary))
  assert(uv.fs_chmod(path, 493))
  return path
end

t.test("connections that a successor would not understand are told before they are closed", function()
  local host = start({})
  local ws, idle = t.ok(t.websocket(host)), t.ok(t.connect(host))
  t.eq(get(idle, "/before").headers.connection, nil)
  set(host, "close_ms", 300)
  t.eq(host:control({ op = "restart", update = true, exec = fake("other-version") }).ok, true)
  host:wait("respawn.connections_stay")
  closing(host)
  local late = t.ok(t.connect(host))
  t.eq(get(late, "/healthz").headers.connection, "close")
  t.until_true("its end", function() return late.closed end)
  late:close()
  host:wait("host.departs")
  t.ok(host:wait("connections.left").connections >= 2) -- the late one may linger
  local frame = t.ok(ws:recv())
  t.eq(frame.opcode, 8)
  t.eq((">I2"):unpack(frame.data), 1012)
  ws:close()
  t.eq(idle.closed, false, "it was closed while it was idle")
  t.eq(get(idle, "/healthz").headers.connection, "close")
  t.until_true("its end", function() return idle.closed end)
  idle:close()
  t.eq(host:wait_exit(), 0)
end)

t.test("another image that would not understand them gets none, and whoever comes meanwhile", function()
  local host = start({})
  local pid = host.pid
  local ws, idle = t.ok(t.websocket(host)), t.ok(t.connect(host))
  get(idle, "/before")
  set(host, "close_ms", 300)
  t.eq(host:control({ op = "restart", update = true, exec = fake("other-version"), reason = "reexec" }).ok, true)
  host:wait("respawn.connections_stay")
  local frame = t.ok(ws:recv())
  t.eq((">I2"):unpack(frame.data), 1012)
  ws:close()
  local late = t.ok(t.connect(host))
  late:send("GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
  t.until_true("the end of the idle connection", function() return idle.closed end)
  t.eq(idle.error, nil)
  idle:close()
  t.eq(host:wait("restart.outcome").outcome, "restarted")
  t.eq(host.pid, pid)
  t.match(late:answer().body, "by " .. host.boot_id)
  late:close()
  host:stop()
end)

-- ---- time ----

--- What was refused is read and dropped for 2,000 ms after the answer; a reset before that may cost the client the
--- answer. It is the shortest of the time-outs, and all of them are kept in the same way.
local function lingers(host, restart)
  local c, other = t.ok(t.connect(host)), t.ok(t.connect(host))
  get(other, "/healthz")
  set(host, "close_ms", 300)
  restart()
  closing(host)
  c:send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
  t.eq(c:answer().status, 400)
  t.until_true("the end of the answer", function() return c.closed end)
  t.eq(c.error, nil)
  local began = t.now()
  host:wait("host.ready", function(e) return e.generation == 2 or e.boot_id ~= host.first end)
  t.ok(t.now() - began > 2000 * 1000000, "it took no longer than the time-out: this tests nothing")
  for i = 1, 3 do
    get(other, "/healthz") -- the loop has looked at its time-outs
    local done, err = false, nil
    c.stream:write("more", function(e)
      done, err = true, e
      t.wake()
    end)
    t.until_true("a write", function() return done end)
    t.eq(err, nil, "write " .. i)
  end
  t.match(host:get("/after").body, "^GET /after")
  c:close()
  other:close()
end

t.test("time-outs stand still while nobody looks at the connections", function()
  local broken_pipe = uv.new_signal() -- a write that fails shall say so
  broken_pipe:start("sigpipe", function() end)
  -- The successor starts and never serves: all of it comes back.
  local host = start({ health_ms = 2300 })
  host.first = host.boot_id
  local program = fake("hangs-after-started")
  lingers(host, function() t.eq(host:control({ op = "restart", update = true, exec = program }).ok, true) end)
  t.match(host:wait("respawn.failed").error, "did not take the connections within 2300 ms")
  host:stop()
  broken_pipe:close()
end)

t.test("a connection ends when its successor ends it, however long the old process stays", function()
  local host = start({ app = APP:gsub("gwhost.sleep%(flag%(\"start_ms\"%) or 0%)", [[
    if flag("stuck") == 1 then require("luv").fs_open(os.getenv("FLAGS") .. "/fifo", "r", 0, function() end) end]]) })
  local fifo = host.files .. "/fifo"
  t.ok(os.execute("mkfifo " .. fifo))
  set(host, "stuck", 1)
  t.eq(host:restarted({}).outcome, "restarted") -- this application will not let go of its file
  set(host, "stuck", 0)
  local old, conns = host.pid, {}
  for i = 1, 2 do
    conns[i] = t.ok(t.connect(host))
    get(conns[i], "/before")
  end
  host:signal("sigusr1")
  host:wait("host.departs", function(e) return e.pid == old end)
  -- It waits for its application now, once more; stopped, it stays until it is told.
  t.poll("the old process", function() return select(2, is_alive(old)) == "S" end)
  assert(uv.kill(old, "sigstop"))
  local ok, err = pcall(function()
    host:wait("restart.outcome")
    t.ok(host.pid ~= old)
    conns[1]:send("GET /1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    conns[2]:send("GET /2 HTTP/1.0\r\nHost: x\r\n\r\n")
    for i, c in ipairs(conns) do
      c:until_match("GET /" .. i)
      t.until_true("the end of answer " .. i, function() return c.closed end, 5000)
      t.eq(c.error, nil)
      c:close()
    end
    t.eq(select(2, is_alive(old)), "T", "the old process")
  end)
  uv.kill(old, "sigcont")
  local writer = assert(io.open(fifo, "r+")) -- opens it for who waits
  t.poll("the end of the old process", function() return not is_alive(old) end)
  writer:close()
  if not ok then error(err, 0) end
  host:stop()
end)

-- ---- what travels, and what does not ----

t.test("a helper that the next image's main chunk starts has none of the connections", function()
  local host = start({})
  local helpers = host.files .. "/helpers"
  t.write(host.app_file, ([[
    local helper = io.popen("echo $$ >> %s; exec sleep 9 </dev/null 2>/dev/null")
    local app = (function() %s end)()
    app.helper = helper
    return app]]):format(helpers, APP))
  local conns = {}
  for i = 1, 5 do
    conns[i] = t.ok(t.connect(host))
    get(conns[i], "/before")
  end
  local ws = t.ok(t.websocket(host))
  t.eq(host:restarted({ reason = "reexec" }).outcome, "restarted")
  ws:send("still there")
  t.eq(ws:recv().data, "still there")
  local looked, pids = 0, {}
  for pid in io.lines(helpers) do pids[#pids + 1] = tonumber(pid) end
  for _, pid in ipairs(pids) do
    local inherited = {}
    for entry in io.popen("ls -l /proc/" .. pid .. "/fd 2>/dev/null"):lines() do
      local n, target = entry:match(" (%d+) %-> (.*)$")
      if n then looked = looked + 1 end
      local ours = target and (target:find("^socket:") or target:find("memfd") or target:find(host.state_dir, 1, true))
      if ours then inherited[#inherited + 1] = target end
    end
    t.eq(table.concat(inherited, ", "), "", "what helper " .. pid .. " inherited")
  end
  t.ok(looked >= 3, "no helper is there to be looked at")
  for i, c in ipairs(conns) do bid_farewell(c, "/end/" .. i, 5000) end -- a copy in a helper would keep it open
  t.ok(is_alive(pids[#pids]), "the helper ended too early")
  ws:close()
  for _, pid in ipairs(pids) do uv.kill(pid, "sigkill") end -- io.popen's file would wait for it
  host:stop()
end)

t.test("files that an application leaves open end with it, also where the process goes on in another image", function()
  local host = start({})
  local function open()
    local n = 0
    for entry in io.popen("ls -l /proc/" .. host.pid .. "/fd"):lines() do
      if entry:find("/requests$") then n = n + 1 end
    end
    return n
  end
  t.eq(open(), 1)
  for _, mode in ipairs { "in_process", "respawn", "reexec", "reexec" } do
    t.eq(host:restarted({ reason = mode }).outcome, "restarted")
    t.eq(open(), 1, "after a restart by " .. mode)
  end
  host:stop()
end)

for _, mode in ipairs { "in_process", "respawn" } do
  t.test("who needs no token needs none while the next application starts by " .. mode, function()
    local host = start({})
    set(host, "start_ms", 500)
    t.eq(host:control({ op = "restart", reason = mode }).ok, true)
    host:wait("host.state", function(e) return e.state == (mode == "respawn" and "handing_over" or "starting") end)
    local c = t.ok(t.connect(host))
    c:send("GET /meanwhile HTTP/1.1\r\nHost: x\r\n\r\n")
    local a = t.ok(c:answer())
    t.eq(a.status, 200, a.body)
    t.match(a.body, "^GET /meanwhile ")
    t.eq(host:wait("restart.outcome").outcome, "restarted")
    c:close()
    host:stop()
  end)
end

t.test("a WebSocket keeps its path and headers, however near they are to what a request may have", function()
  local host = start({})
  local c = t.ok(t.connect(host))
  local lines = { "GET /room/7?x=1 HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade",
    "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==" }
  for i = 1, 400 do lines[#lines + 1] = ("x%d:%s"):format(i, ("v"):rep(28)) end -- the shortest way to write it
  local head = table.concat(lines, "\r\n") .. "\r\ny:"
  head = head .. ("z"):rep(16384 - #head - 4) .. "\r\n\r\n"
  t.eq(#head, 16384)
  c:send(head)
  t.match(c:until_match("^.-\r\n\r\n"), "^HTTP/1.1 101")
  c.data = c.data:sub(select(2, c.data:find("\r\n\r\n", 1, true)) + 1)
  local other = t.ok(t.websocket(host))
  local ws = setmetatable({ connection = c }, getmetatable(other))
  other:close()
  local first = ws:recv().data
  t.match(first, "^false /room/7%?x=1 406 %x+$")
  for _, mode in ipairs { "respawn", "reexec", "respawn" } do
    t.eq(host:restarted({ reason = mode }).outcome, "restarted")
    t.eq(ws:recv().data, (first:gsub("^false", "true")), mode)
    ws:send(mode)
    t.eq(ws:recv().data, mode)
  end
  ws:close()
  host:stop()
end)

t.test("the numbers of events go on where nobody was connected", function()
  local host = t.start({ policy = policy() })
  local fds, last = host:fds(), 0
  local function listen()
    local c = t.ok(t.connect(host))
    c:send(("GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n"):format(host.token))
    c:until_match("retry")
    host:until_status(host:submit({ handler = "echo", input = {} }), "succeeded")
    c:until_match('"status":"succeeded"')
    local first, n = nil, 0
    for id in c.data:gmatch("id: (%d+)\n") do
      first, n = first or tonumber(id), n + 1
      t.ok(tonumber(id) > last, ("event %s comes after event %d"):format(id, last))
      last = tonumber(id)
    end
    t.ok(n > 0, "no events")
    c:close()
    t.poll("no connection", function() return host:fds() <= fds end)
  end
  listen()
  listen()
  for _, mode in ipairs { "respawn", "reexec", "respawn" } do
    t.eq(host:restarted({ reason = mode }).outcome, "restarted")
    fds = fds + 1 -- a next process may hold one more than the first
    listen()
  end
  host:stop()
end)

t.test("a thousand idle connections and a hundred WebSockets move", function()
  local room = tonumber(t.read("/proc/self/limits"):match("Max open files%s+(%d+)")) or 1024
  local host = start({})
  local conns, peers, sockets = {}, {}, {}
  for i = 1, math.min(1000, room - 200) do
    conns[i] = t.ok(t.connect(host))
    conns[i]:send("GET /peer HTTP/1.1\r\nHost: x\r\n\r\n")
  end
  for i, c in ipairs(conns) do peers[i] = t.ok(c:answer()).body end
  for i = 1, 100 do sockets[i] = t.ok(t.websocket(host)) end
  local fds = host:fds()
  for _, mode in ipairs(MODES) do
    t.eq(host:restarted({ reason = mode }).outcome, "restarted")
    for _, c in ipairs(conns) do c:send("GET /peer HTTP/1.1\r\nHost: x\r\n\r\n") end
    for i, ws in ipairs(sockets) do ws:send(mode .. i) end
    for i, c in ipairs(conns) do
      local a, why = c:answer()
      t.ok(a, ("connection %d after a %s: %s"):format(i, mode, tostring(why)))
      t.eq(a.body, peers[i])
      t.eq(a.headers.connection, nil)
      t.eq(c.data, "")
    end
    for i, ws in ipairs(sockets) do
      local frame, why = ws:recv()
      t.ok(frame, ("WebSocket %d after a %s: %s"):format(i, mode, tostring(why)))
      t.eq(frame.data, mode .. i)
    end
    local now = host:fds()
    t.ok(math.abs(now - fds) <= 5, ("%d descriptors after a %s, %d before"):format(now, mode, fds))
  end
  for _, c in ipairs(conns) do c:close() end
  for _, ws in ipairs(sockets) do ws:close() end
  host:stop()
end)

-- ---- at each byte ----

local function frame(opcode, payload, fin)
  local mask, out = "\9\8\7\6", {}
  for i = 1, #payload do out[i] = string.char(payload:byte(i) ~ mask:byte((i - 1) % 4 + 1)) end
  return string.char((fin == false and 0 or 0x80) | opcode, 0x80 | #payload) .. mask .. table.concat(out)
end

--- What is sent, for a connection of this name, and what is expected: bodies of answers, or opcode and payload.
local KINDS = {
  header = function(name)
    return ("GET /%s HTTP/1.1\r\nHost: x\r\nX-Long: a, b\r\n\r\n"):format(name), { "GET /" .. name .. " " }
  end,
  chunked = function(name)
    return ("POST /%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n00c;a=b\r\n, " ..
      "all of you\r\n0\r\nX-Trailer: t\r\n\r\n"):format(name),
      { "POST /" .. name .. " hello, all of you" }
  end,
  pipelined = function(name)
    return (("GET /%s/1 HTTP/1.1\r\nHost: x\r\n\r\nPOST /%s/2 HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n" ..
      "a\r\nGET / H" .. "GET /%s/3 HTTP/1.1\r\nHost: x\r\n\r\n"):gsub("%%s", name)),
      { "GET /" .. name .. "/1 ", "POST /" .. name .. "/2 a\r\nGET / H", "GET /" .. name .. "/3 " }
  end,
  frame = function(name)
    return frame(1, name .. " is here"), nil, { { 1, name .. " is here" } }
  end,
  fragmented = function(name)
    return frame(2, "one " .. name, false) .. frame(0, ", two", false) .. frame(9, "ping") .. frame(0, ", three") ..
      frame(1, "more"), nil, { { 10, "ping" }, { 2, "one " .. name .. ", two, three" }, { 1, "more" } }
  end,
}

local function split_everywhere(host, all)
  for kind, make in pairs(KINDS) do
    for at = 1, #make(kind .. "-000") - 1 do
      local name = ("%s-%03d"):format(kind, at)
      local bytes, answers, frames = make(name)
      local item = { name = name, at = at, bytes = bytes, answers = answers, frames = frames }
      item.ws = frames and t.ok(t.websocket(host))
      item.c = frames and item.ws.connection or t.ok(t.connect(host))
      item.c:send(bytes:sub(1, at))
      all[#all + 1] = item
    end
  end
end

for _, mode in ipairs(MODES) do
  t.test("a " .. mode .. " at each byte of requests, chunks, frames and fragments changes nothing", function()
    local host, all = start({}), {}
    split_everywhere(host, all)
    for _ = 1, 2 do host:get("/healthz") end -- what was sent has been read
    t.eq(host:restarted({ reason = mode }).outcome, "restarted")
    for _, item in ipairs(all) do item.c:send(item.bytes:sub(item.at + 1)) end
    local requests = 0
    for _, item in ipairs(all) do
      for i, expected in ipairs(item.answers or {}) do
        local a, why = item.c:answer()
        t.ok(a, ("answer %d of %s: %s"):format(i, item.name, tostring(why)))
        t.eq(a.status, 200, item.name .. ": " .. a.body)
        t.eq(a.body:match("^(.*) by %x+$"), expected, item.name)
        requests = requests + 1
      end
      for i, expected in ipairs(item.frames or {}) do
        local got, why = item.ws:recv()
        t.ok(got, ("frame %d of %s: %s"):format(i, item.name, tostring(why)))
        t.eq(got.opcode, expected[1], item.name)
        t.eq(got.data, expected[2], item.name)
      end
      if item.frames then
        item.ws:send("end")
        t.eq(item.ws:recv().data, "end", item.name)
        item.ws:close()
      end
    end
    local counts, n = executed(host)
    t.eq(n, requests, "requests executed")
    for line, times in pairs(counts) do t.eq(times, 1, line) end
    for _, item in ipairs(all) do
      if item.answers then bid_farewell(item.c, "/end") end
    end
    print(("     %d connections"):format(#all))
    host:stop()
  end)
end

t.main()
