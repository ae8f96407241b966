--- Process tests: the real binary, real signals, real sockets. A test is a coroutine that waits for log
--- events, answers and exits, each with a limit, and never sleeps for luck.
---
--- local t = require("support.harness")
--- t.test("a sentence", function() local host = t.start{} … end)
--- t.main()
local uv = require("luv")
local json = require("dkjson")

-- A host that ends while a test writes to it must not end the test.
local broken_pipe = uv.new_signal()
broken_pipe:start("sigpipe")
broken_pipe:unref()
local guarded = require("support.guarded")

local t = {}

local SUPPORT = debug.getinfo(1, "S").source:match("^@(.*)harness%.lua$")
local RUN = os.getenv(guarded.MARK)
if not RUN then guarded.run(SUPPORT .. "guarded.lua", { uv.exepath(), table.unpack(arg, 0) }) end

local BINARY = assert(os.getenv("GWHOST_BINARY"), "set GWHOST_BINARY to the program under test")
local SOURCE = assert(os.getenv("GWHOST_SOURCE"), "set GWHOST_SOURCE to the source directory")
-- Sanitizers and valgrind are slow; limits only have to tell an end from a hang.
local LIMIT_MS = tonumber(os.getenv("GWHOST_TEST_LIMIT_MS") or 30000)

t.source, t.binary, t.json = SOURCE, BINARY, json

-- ---- coroutines ----

--- Waits until ready() is true; what changes it calls t.wake(). Raises after limit_ms.
local waiters = {}
function t.wake()
  local now = {} -- who is woken may wait for something else
  for co, ready in pairs(waiters) do now[co] = ready end
  for co, ready in pairs(now) do
    if waiters[co] == ready and ready() and waiters[co] == ready then
      waiters[co] = nil
      local ok, err = coroutine.resume(co)
      if not ok then t.failure = t.failure or debug.traceback(co, tostring(err)) end
    end
  end
end

function t.until_true(what, ready, limit_ms)
  if ready() then return end
  local co, timer, late = coroutine.running(), uv.new_timer(), false
  timer:start(limit_ms or LIMIT_MS, 0, function()
    late = true
    t.wake()
  end)
  waiters[co] = function() return late or ready() end
  coroutine.yield()
  timer:close()
  if late and not ready() then error("waited in vain for " .. (type(what) == "function" and what() or what), 2) end
end

--- The same for what tells nobody when it changes (a file, /proc): looks every 20 ms.
function t.poll(what, ready, limit_ms)
  local timer = uv.new_timer()
  timer:start(20, 20, t.wake)
  local ok, err = pcall(t.until_true, what, ready, limit_ms)
  timer:close()
  if not ok then error(err, 2) end
end

--- The same for what has to be asked for: ready may itself wait.
function t.ask_until(what, ready, limit_ms)
  local deadline = uv.hrtime() + (limit_ms or LIMIT_MS) * 1000000
  while not ready() do
    if uv.hrtime() > deadline then error("asked in vain for " .. what, 2) end
    t.pause(10)
  end
end

--- Runs fn in a coroutine of its own; t.join(list) waits for all and raises what failed.
function t.go(fn)
  local job = { done = false }
  local co = coroutine.create(function()
    local ok, err = xpcall(fn, function(e) return type(e) == "table" and e or debug.traceback(e, 2) end)
    job.done, job.err = true, not ok and err or nil
    t.wake()
  end)
  local ok, err = coroutine.resume(co)
  if not ok then job.done, job.err = true, err end
  return job
end

function t.join(jobs, limit_ms)
  t.until_true("all jobs", function()
    for _, job in ipairs(jobs) do
      if not job.done then return false end
    end
    return true
  end, limit_ms)
  for _, job in ipairs(jobs) do
    if job.err then error(job.err, 0) end
  end
end

--- For load that has a length of its own, never to wait for something.
function t.pause(ms)
  local over, timer = false, uv.new_timer()
  timer:start(ms, 0, function()
    over = true
    timer:close()
    t.wake()
  end)
  t.until_true("a pause", function() return over end, ms + LIMIT_MS)
end

t.now = uv.hrtime

-- ---- checks ----

local function show(v)
  return type(v) == "table" and json.encode(v) or tostring(v)
end

function t.eq(actual, expected, what)
  if actual ~= expected then
    error(("%s%s, expected %s"):format(what and what .. ": " or "", show(actual), show(expected)), 2)
  end
end

function t.ok(value, what)
  if not value then error(what or "a condition does not hold", 2) end
  return value
end

function t.match(text, pattern)
  if not tostring(text):find(pattern) then error(("%s does not match %s"):format(show(text), pattern), 2) end
end

-- ---- files ----

local counter = 0

function t.dir()
  counter = counter + 1
  local path = ("%s/%d"):format(RUN, counter)
  assert(uv.fs_mkdir(path, 448))
  return path
end

--- Writes whole, by rename, as editors do.
function t.write(path, text)
  local f = assert(io.open(path .. ".new", "w"))
  f:write(text)
  f:close()
  assert(os.rename(path .. ".new", path))
  return path
end

function t.read(path)
  local f = assert(io.open(path, "rb"))
  local text = f:read("a")
  f:close()
  return text
end

-- ---- hosts ----

local Host = {}
Host.__index = Host
local running = {}

local function describe(host)
  local tail = {}
  for i = math.max(1, #host.lines - 25), #host.lines do tail[#tail + 1] = host.lines[i] end
  return table.concat(tail, "\n")
end

--- Starts a host. spec: args, env (list of "K=V"), policy, app (texts; files are made of them), state_dir,
--- wrap (a list before the program), program (another one than that under test), ready=false (do not wait for host.ready), listen=false.
function t.start(spec)
  spec = spec or {}
  local host = setmetatable({ events = {}, lines = {}, seen = {}, spec = spec }, Host)
  host.dir = spec.dir or t.dir()
  host.state_dir = spec.state_dir or host.dir .. "/state"
  local args = { "run", "--log-format", "json", "--log-level", "debug", "--state-dir", host.state_dir }
  if spec.listen ~= false then
    table.insert(args, "--listen")
    table.insert(args, spec.listen or "127.0.0.1:0")
  end
  if spec.policy then
    host.policy_file = t.write(host.dir .. "/policy.lua", spec.policy)
    table.insert(args, "--policy")
    table.insert(args, host.policy_file)
  end
  if spec.app then
    host.app_file = t.write(host.dir .. "/app.lua", spec.app)
    table.insert(args, "--app")
    table.insert(args, host.app_file)
  end
  for _, arg in ipairs(spec.args or {}) do table.insert(args, arg) end
  local program = spec.program or BINARY
  if spec.wrap then
    program = spec.wrap[1]
    table.insert(args, 1, spec.program or BINARY)
    for i = #spec.wrap, 2, -1 do table.insert(args, 1, spec.wrap[i]) end
  end
  local env = {}
  for name, value in pairs(uv.os_environ()) do
    if not name:match("^GWHOST_") and not name:match("^LISTEN_") then env[#env + 1] = name .. "=" .. value end
  end
  env[#env + 1] = guarded.MARK .. "=" .. RUN
  for _, pair in ipairs(spec.env or {}) do env[#env + 1] = pair end
  local err_pipe = uv.new_pipe(false)
  local handle, pid = uv.spawn(program, { args = args, env = env, stdio = { nil, nil, err_pipe, spec.pass } },
    function(code, signal)
      host.exit = { code = code, signal = signal }
      host.handle:close()
      t.wake()
    end)
  if spec.pass then spec.pass:close() end -- before our own loop can accept anything on it
  host.handle = assert(handle, pid)
  host.pid = pid
  running[host] = true
  local rest = ""
  err_pipe:read_start(function(err, data)
    if err or not data then
      err_pipe:close()
      host.eof = true
      t.wake()
      return
    end
    rest = rest .. data
    for line in rest:gmatch("([^\n]*)\n") do
      host.lines[#host.lines + 1] = line
      local event = line:sub(1, 1) == "{" and json.decode(line) or nil
      if event and event.event then
        host.events[#host.events + 1] = event
        if event.event == "lock.acquired" then host.pid = event.pid end
        if event.event == "host.ready" then
          host.generation = event.generation
          host.boot_id = event.boot_id
          host.address = event.addresses[1]
        end
      end
    end
    rest = rest:match("([^\n]*)$")
    t.wake()
  end)
  if spec.ready ~= false then
    host:wait("host.ready")
    local f = io.open(host.state_dir .. "/token", "r")
    host.token = f and f:read("l")
    if f then f:close() end
  end
  return host
end

--- The next event of this name (that matches), not handed out before for that name.
function Host:wait(name, match, limit_ms)
  local found
  local function look()
    for i = (self.seen[name] or 0) + 1, #self.events do
      local e = self.events[i]
      if e.event == name and (not match or match(e)) then
        found = e
        self.seen[name] = i
        return true
      end
    end
    return self.exit ~= nil and self.eof
  end
  t.until_true(function() return name .. " of pid " .. self.pid .. "; its log ends:\n" .. describe(self) end, look,
    limit_ms)
  if not found then
    error(("no %s: the host has ended (%s); its log ends:\n%s"):format(name, show(self.exit), describe(self)), 2)
  end
  return found
end

--- All events of this name so far.
function Host:all(name)
  local out = {}
  for _, e in ipairs(self.events) do
    if e.event == name then out[#out + 1] = e end
  end
  return out
end

function Host:position(name, nth)
  for i, e in ipairs(self.events) do
    if e.event == name then
      nth = (nth or 1) - 1
      if nth == 0 then return i end
    end
  end
end

function Host:signal(name)
  assert(uv.kill(self.pid, name))
end

function Host:wait_exit(limit_ms)
  t.until_true(function() return "the end of pid " .. self.pid .. "; its log ends:\n" .. describe(self) end,
    function() return self.exit and self.eof end, limit_ms)
  running[self] = nil
  return self.exit.code, self.exit.signal
end

--- Stops it and holds that it ended cleanly.
function Host:stop(limit_ms)
  self:signal("sigterm")
  local code, signal = self:wait_exit(limit_ms)
  if code ~= 0 or signal ~= 0 then
    error(("ended with %d, signal %d; its log ends:\n%s"):format(code, signal, describe(self)), 2)
  end
end

function Host:restart(match)
  self:signal("sigusr1")
  return self:wait("host.ready", match)
end

--- Asks over the control socket; returns the answer's object, or nil when the host went without one.
function Host:control(request)
  local c = t.connect(self, "unix:" .. self.state_dir .. "/control.sock")
  if not c then return nil end
  request.id = 1
  c:send(json.encode(request) .. "\n")
  c:until_match('"id":1[,}][^\n]*\n')
  local line = c.data:match('([^\n]*"id":1[,}][^\n]*)\n')
  c:close()
  return line and json.decode(line)
end

--- Asks for a restart over the control socket and waits for its outcome event.
function Host:restarted(fields, limit_ms)
  fields.op = "restart"
  local answer = t.ok(self:control(fields), "no answer to the restart")
  t.eq(answer.ok, true, json.encode(answer))
  local id = answer.result.merged_into or answer.result.request_id
  return self:wait("restart.outcome", function(e) return e.request_id == id end, limit_ms)
end

function Host:fds()
  local n = 0
  for _ in io.popen("ls /proc/" .. self.pid .. "/fd 2>/dev/null"):lines() do n = n + 1 end
  return n
end

function Host:log_tail() return describe(self) end

-- ---- connections ----

local Connection = {}
Connection.__index = Connection

function t.connect(host, address)
  address = address or host.address
  local c = setmetatable({ host = host, data = "", closed = false }, Connection)
  local connected
  local function on_connect(err)
    connected = err or true
    t.wake()
  end
  if address:match("^unix:") then
    c.stream = uv.new_pipe(false)
    c.stream:connect(address:sub(6), on_connect)
  else
    local ip, port = address:match("^%[?([^%]]+)%]?:(%d+)$")
    c.stream = uv.new_tcp()
    c.stream:nodelay(true)
    c.stream:connect(ip, tonumber(port), on_connect)
  end
  t.until_true("a connection to " .. address, function() return connected end)
  if connected ~= true then
    c.stream:close()
    return nil, connected
  end
  c.stream:read_start(function(err, data)
    if err or not data then
      c.closed, c.error = true, err
    else
      c.data = c.data .. data
    end
    t.wake()
  end)
  return c
end

function Connection:send(bytes)
  self.stream:write(bytes)
end

function Connection:close()
  if not self.stream:is_closing() then self.stream:close() end
end

--- Reads until the pattern matches what has arrived (and leaves it there), or the other side has closed.
function Connection:until_match(pattern, limit_ms)
  t.until_true(function() return pattern .. " in " .. ("%q"):format(self.data:sub(1, 500)) end,
    function() return self.closed or self.data:find(pattern) end, limit_ms)
  return self.data:match(pattern)
end

local function take_chunked(data)
  local body, at = {}, 1
  while true do
    local hex, after = data:match("^(%x+)[^\r\n]*\r\n()", at)
    if not hex then return nil end
    local n = tonumber(hex, 16)
    if #data < after + n + 1 then return nil end
    body[#body + 1] = data:sub(after, after + n - 1)
    at = after + n + 2
    if n == 0 then return table.concat(body), at end
  end
end

--- The next whole answer, or nil and why ("closed", "reset", "short").
function Connection:answer(head, limit_ms)
  local result
  local function look()
    local status, after = self.data:match("^HTTP/1%.[01] (%d%d%d)[^\r\n]*\r\n()")
    local top, body_at = self.data:match("^(.-\r\n)\r\n()")
    if status and top then
      local headers = {}
      for name, value in self.data:sub(after, body_at - 1):gmatch("([^:\r\n]+):[ \t]*([^\r\n]*)\r\n") do
        headers[name:lower()] = value
      end
      local length = tonumber(headers["content-length"] or "")
      local body, rest
      if head or status == "204" or status == "304" or status:sub(1, 1) == "1" then
        body, rest = "", body_at
      elseif (headers["transfer-encoding"] or ""):lower() == "chunked" then
        body, rest = take_chunked(self.data:sub(body_at))
        rest = rest and body_at + rest - 1
      elseif length and #self.data >= body_at - 1 + length then
        body, rest = self.data:sub(body_at, body_at - 1 + length), body_at + length
      elseif not length and self.closed then
        body, rest = self.data:sub(body_at), #self.data + 1
      end
      if body then
        self.data = self.data:sub(rest)
        result = { status = tonumber(status), headers = headers, body = body, json = json.decode(body) }
        return true
      end
    end
    return self.closed
  end
  t.until_true("an answer", look, limit_ms)
  if result then return result end
  return nil, self.error and "reset" or #self.data > 0 and "short" or "closed"
end

local function render(host, method, path, body, headers, close)
  headers = headers or {}
  local lines = { ("%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\n"):format(method, path) }
  if host.token and headers.Authorization == nil then
    lines[#lines + 1] = "Authorization: Bearer " .. host.token .. "\r\n"
  end
  if type(body) == "table" then body = next(body) == nil and "{}" or json.encode(body) end
  if body and headers["Content-Type"] == nil then lines[#lines + 1] = "Content-Type: application/json\r\n" end
  if body or method == "POST" then lines[#lines + 1] = ("Content-Length: %d\r\n"):format(#(body or "")) end
  if close then lines[#lines + 1] = "Connection: close\r\n" end
  for name, value in pairs(headers) do
    if value then lines[#lines + 1] = ("%s: %s\r\n"):format(name, value) end
  end
  return table.concat(lines) .. "\r\n" .. (body or "")
end

function Connection:request(method, path, body, headers, limit_ms)
  self:send(render(self.host, method, path, body, headers))
  return self:answer(method == "HEAD", limit_ms)
end

--- One request on a connection of its own; raises when it cannot be had whole.
function Host:request(method, path, body, headers, limit_ms)
  local c, err = t.connect(self)
  if not c then error(("%s %s: %s"):format(method, path, err), 2) end
  c:send(render(self, method, path, body, headers, true))
  local answer, why = c:answer(method == "HEAD", limit_ms)
  c:close()
  if not answer then error(("%s %s: %s"):format(method, path, why), 2) end
  return answer
end

function Host:get(path, headers) return self:request("GET", path, nil, headers) end
function Host:post(path, body, headers, limit_ms) return self:request("POST", path, body or {}, headers, limit_ms) end

--- Submits a task and returns its id.
function Host:submit(task)
  local a = self:post("/v1/tasks", task)
  t.eq(a.status, 202, a.body)
  return a.json.task_id
end

--- Asks for a task until it has this status (the events stream tells sooner, but a test may not have one).
function Host:until_status(id, status, limit_ms)
  local last, deadline = nil, uv.hrtime() + (limit_ms or LIMIT_MS) * 1000000
  repeat
    if last then t.pause(10) end
    last = self:get("/v1/tasks/" .. id).json
    if last.status == status then return last end
  until uv.hrtime() > deadline
  error(("task %s is %s, not %s"):format(id, last.status, status), 2)
end

-- ---- WebSocket ----

local Socket = {}
Socket.__index = Socket

function t.websocket(host, path, address)
  local c, err = t.connect(host, address)
  if not c then return nil, err end
  c:send(render(host, "GET", path or "/ws", nil, {
    Upgrade = "websocket", Connection = "Upgrade", ["Sec-WebSocket-Version"] = "13",
    ["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ==",
  }))
  c:until_match("\r\n\r\n")
  local head = c.data:match("^(.-\r\n\r\n)")
  if not head or not head:match("^HTTP/1.1 101") then
    c:close()
    return nil, head or "closed"
  end
  c.data = c.data:sub(#head + 1)
  return setmetatable({ connection = c, head = head, messages = {} }, Socket)
end

function Socket:frame(opcode, payload, fin)
  local n, mask = #payload, "\1\2\3\4"
  local head = string.char((fin == false and 0 or 0x80) | opcode)
  if n < 126 then
    head = head .. string.char(0x80 | n)
  elseif n < 65536 then
    head = head .. string.char(0x80 | 126) .. (">I2"):pack(n)
  else
    head = head .. string.char(0x80 | 127) .. (">I8"):pack(n)
  end
  local out = {}
  for i = 1, n do out[i] = string.char(payload:byte(i) ~ mask:byte((i - 1) % 4 + 1)) end
  self.connection:send(head .. mask .. table.concat(out))
end

function Socket:send(text) self:frame(1, text) end

local function take_frame(data)
  if #data < 2 then return nil end
  local b1, b2 = data:byte(1, 2)
  local n, at = b2 & 0x7f, 3
  if n == 126 then
    if #data < 4 then return nil end
    n, at = (">I2"):unpack(data, 3)
  elseif n == 127 then
    if #data < 10 then return nil end
    n, at = (">I8"):unpack(data, 3)
  end
  if #data < at - 1 + n then return nil end
  return { opcode = b1 & 15, fin = b1 & 0x80 ~= 0, data = data:sub(at, at - 1 + n) }, data:sub(at + n)
end

--- The next frame, or nil and why. {event:…} frames are skipped unless events is true.
function Socket:recv(limit_ms, events)
  local frame
  local function look()
    while true do
      local next_frame, rest = take_frame(self.connection.data)
      if not next_frame then return self.connection.closed end
      self.connection.data = rest
      if events or next_frame.opcode ~= 1 or not next_frame.data:match('^{"event"') then
        frame = next_frame
        return true
      end
    end
  end
  t.until_true("a WebSocket frame", look, limit_ms)
  if frame then return frame end
  return nil, self.connection.error or "closed"
end

function Socket:close() self.connection:close() end

-- ---- running ----

local tests = {}

function t.test(name, fn)
  tests[#tests + 1] = { name = name, fn = fn }
end

--- What cannot be tried here: a test by its name, before t.main(), or, from within, the one that runs.
function t.skip(name, why)
  tests[#tests + 1] = { name = name, why = why }
end

local SKIP = {}
function t.skip_this(why) error(setmetatable({ why = why }, SKIP)) end

--- All of a host's processes, whichever of them serves: who wrote a line of its log, or was named there.
local function end_hosts()
  for host in pairs(running) do
    local pids = { [host.pid] = true }
    for _, e in ipairs(host.events) do
      pids[e.pid] = true
      if e.child_pid then pids[e.child_pid] = true end
    end
    for pid in pairs(pids) do
      local f = io.open(("/proc/%d/cmdline"):format(pid))
      local own = f and f:read("a"):find(host.state_dir, 1, true)
      if f then f:close() end
      if own then pcall(uv.kill, pid, "sigkill") end
    end
  end
  running = {}
end

local reserved = {}

--- A port that nobody has and nobody is given before the test ends. Whoever binds it with SO_REUSEADDR, as hosts do, may.
function t.free_port()
  local s = uv.new_tcp()
  assert(s:bind("127.0.0.1", 0))
  reserved[#reserved + 1] = s
  return s:getsockname().port
end

--- Runs one; returns why it failed, and why it was skipped.
local function run(test)
  if test.why then return nil, test.why end
  local job = t.go(test.fn)
  while not job.done do uv.run("once") end
  end_hosts()
  for _, s in ipairs(reserved) do s:close() end
  reserved = {}
  local left = guarded.end_marked(RUN, 3000, function() uv.run("nowait") end)
  local skip = getmetatable(job.err) == SKIP
  return job.err and not skip and job.err or left, skip and job.err.why or nil
end

--- Runs all tests (or those whose name has arg[1] in it), prints the closing line, exits.
function t.main()
  local only, passed, failed, skipped = arg[1], 0, 0, 0
  for _, test in ipairs(tests) do
    if not only or test.name:find(only, 1, true) then
      local began = uv.hrtime()
      local err, why = run(test)
      local ms = (uv.hrtime() - began) // 1000000
      if err then
        failed = failed + 1
        print(("FAIL %s (%d ms)\n%s"):format(test.name, ms, err))
      elseif why then
        skipped = skipped + 1
        print(("skip %s: %s"):format(test.name, why))
      else
        passed = passed + 1
        print(("ok   %s (%d ms)"):format(test.name, ms))
      end
    end
  end
  if failed == 0 then os.execute("find '" .. RUN .. "' -mindepth 1 -delete") end
  print(("%d passed, %d failed, %d skipped"):format(passed, failed, skipped))
  io.stdout:flush()
  os.exit(failed == 0) -- without closing the state: luv's own end is not ours to test
end

return t
