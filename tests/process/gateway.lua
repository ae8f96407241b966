-- The gateway's HTTP API as an outsider meets it: routes, refusals, tokens, events, WebSockets, status.
local t = require("support.harness")

local JSON = { ["Content-Type"] = "application/json" }

--- Holds that an answer is an error of the contract's form.
local function refused(answer, status, code, say)
  t.eq(answer.status, status, answer.body)
  t.eq(answer.headers["content-type"], "application/json")
  local err = t.ok(answer.json and answer.json.error, "no error object: " .. answer.body)
  t.eq(err.code, code, answer.body)
  t.ok(type(err.message) == "string" and #err.message > 0, "no message: " .. answer.body)
  if say then t.match(err.message, say) end
  t.match(answer.headers["gwhost-generation"], "^%x%x%x%x%x%x%x%x%.%d+$")
end

local function types(object, want)
  for name, kind in pairs(want) do
    local found = math.type(object[name]) or type(object[name])
    if not (" " .. kind .. " "):find(" " .. found .. " ", 1, true) then
      error(("%s is a %s, not a %s"):format(name, found, kind), 2)
    end
  end
  for name in pairs(object) do
    if not want[name] then error(("field %s is not in the contract"):format(name), 2) end
  end
end

t.test("every route answers its methods and says which ones it has for the others", function()
  local host = t.start({})
  local routes = {
    ["/healthz"] = "GET, HEAD", ["/readyz"] = "GET, HEAD", ["/v1/status"] = "GET, HEAD", ["/metrics"] = "GET, HEAD",
    ["/v1/tasks"] = "GET, HEAD, POST", ["/v1/tasks/x"] = "GET, HEAD", ["/v1/tasks/x/cancel"] = "POST",
    ["/v1/runs"] = "POST", ["/v1/restart"] = "POST", ["/v1/restarts/x"] = "GET, HEAD",
    ["/v1/events"] = "GET, HEAD", ["/ws"] = "GET, HEAD",
  }
  for path, allow in pairs(routes) do
    for _, method in ipairs({ "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS" }) do
      if not allow:find(method, 1, true) then
        local a = host:request(method, path, method ~= "GET" and "{}" or nil)
        refused(a, 405, "method_not_allowed", "^use %u+")
        t.eq(a.headers.allow, allow, method .. " " .. path)
      end
    end
  end
  refused(host:get("/"), 404, "not_found")
  refused(host:get("/v1/nothing"), 404, "not_found", "/v1/nothing")
  refused(host:get("/v1/tasks/no-such-task"), 404, "not_found")
  refused(host:post("/v1/tasks/no-such-task/cancel"), 404, "not_found")
  refused(host:get("/v1/restarts/no-such-request"), 404, "not_found")
  refused(host:get("/ws"), 400, "bad_request", "handshake")
  for _, path in ipairs({ "/healthz", "/v1/status", "/metrics", "/v1/tasks" }) do
    local whole, head = host:get(path), host:request("HEAD", path)
    t.eq(head.status, whole.status)
    t.eq(head.body, "")
    t.eq(head.headers["content-type"], whole.headers["content-type"])
    t.ok(tonumber(head.headers["content-length"]) > 0, "HEAD says the length of " .. path)
  end
  host:stop()
end)

t.test("without the right token nothing but healthz and readyz is answered", function()
  local host = t.start({})
  local none = { Authorization = false }
  for _, path in ipairs({ "/v1/status", "/metrics", "/v1/tasks", "/v1/events", "/ws", "/nothing" }) do
    local a = host:get(path, none)
    refused(a, 401, "unauthorized", "Bearer")
    t.eq(a.headers["www-authenticate"], "Bearer")
    refused(host:get(path, { Authorization = "Bearer " .. ("0"):rep(64) }), 401, "unauthorized")
    refused(host:get(path, { Authorization = "Basic " .. host.token }), 401, "unauthorized")
    refused(host:get(path, { Authorization = "Bearer" }), 401, "unauthorized")
  end
  refused(host:get("/v1/status?access_token=" .. host.token, none), 401, "unauthorized")
  refused(host:get("/v1/tasks?access_token=" .. host.token, none), 401, "unauthorized")
  refused(host:get("/v1/events?access_token=wrong", none), 401, "unauthorized")
  t.eq(host:get("/v1/status", { Authorization = "bearer  " .. host.token }).status, 200)
  t.eq(host:get("/healthz", none).status, 200)
  t.eq(host:get("/readyz", none).status, 200)
  refused(host:get("/ws?x=1&access_token=" .. host.token, none), 400, "bad_request", "handshake")
  local token = host.token
  host.token = nil
  t.eq(t.websocket(host, "/ws"), nil)
  local ws = t.ok(t.websocket(host, "/ws?access_token=" .. token))
  ws:close()
  local c = t.connect(host)
  c:send("GET /v1/events?access_token=" .. token .. " HTTP/1.1\r\nHost: localhost\r\n\r\n")
  t.match(c:until_match("^HTTP/1.1 200[^\n]*\n.-\r\n\r\n"), "text/event%-stream")
  c:close()
  host:stop()
end)

t.test("the token comes from a file, from the environment, or is made once", function()
  local dir = t.dir()
  local file = t.write(dir .. "/secret", "from-the-file-0123456789\n")
  local host = t.start({ args = { "--token-file", file }, env = { "GWHOST_TOKEN=from-the-environment-01" } })
  t.eq(host:get("/v1/status", { Authorization = "Bearer from-the-file-0123456789" }).status, 200)
  t.eq(host:get("/v1/status", { Authorization = "Bearer from-the-environment-01" }).status, 401)
  host:stop()
  host = t.start({ env = { "GWHOST_TOKEN=from-the-environment-01" } })
  t.eq(host:get("/v1/status", { Authorization = "Bearer from-the-environment-01" }).status, 200)
  t.eq(host:get("/v1/status", { Authorization = "Bearer from-the-file-0123456789" }).status, 401)
  host:stop()
  host = t.start({})
  local made = host.token
  t.match(made, "^%x+$")
  t.eq(#made, 64)
  host:stop()
  host = t.start({ dir = host.dir })
  t.eq(host.token, made)
  host:stop()
end)

t.test("--open asks for no token but refuses a Host that is a name", function()
  local host = t.start({ args = { "--open" } })
  for _, good in ipairs({ "127.0.0.1", "127.0.0.1:18789", "localhost", "LOCALHOST:1", "[::1]:5" }) do
    t.eq(host:get("/v1/status", { Authorization = false }).status, 200)
    local c = t.connect(host)
    c:send(("GET /v1/status HTTP/1.1\r\nHost: %s\r\n\r\n"):format(good))
    t.eq(c:answer().status, 200, good)
    c:close()
  end
  for _, bad in ipairs({ "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "1.2.3.4x" }) do
    for _, path in ipairs({ "/v1/status", "/v1/tasks", "/ws" }) do
      local c = t.connect(host)
      c:send(("GET %s HTTP/1.1\r\nHost: %s\r\n\r\n"):format(path, bad))
      refused(c:answer(), 421, "misdirected", "localhost")
      c:close()
    end
  end
  host:stop()
end)

t.test("a POST that is not JSON, not an object, or too large is refused with words that help", function()
  local host = t.start({})
  refused(host:post("/v1/tasks/x/cancel", "", { ["Content-Type"] = false }), 404, "not_found") -- there is nothing to have a type
  refused(host:post("/v1/tasks/x/cancel", "{}", { ["Content-Type"] = "text/plain" }), 415, "unsupported_media_type")
  local encoded = host:post("/v1/tasks", { handler = "echo" }, { ["Content-Encoding"] = "gzip" })
  refused(encoded, 415, "unsupported_media_type", "Content%-Encoding")
  t.eq(encoded.headers["accept-encoding"], "identity")
  t.eq(host:post("/v1/tasks", { handler = "echo" }, { ["Content-Encoding"] = "identity" }).status, 202)
  for _, field in ipairs({ "lane", "label", "title", "handler" }) do
    refused(host:post("/v1/tasks", { handler = "echo", [field] = "echo\0x" }), 400, "bad_request", field)
  end
  refused(host:post("/v1/restart", { reason = "a\0b" }), 400, "bad_request", "NUL")
  refused(host:get("/v1/tasks?status=queued%00x"), 400, "bad_request", "NUL")
  for _, path in ipairs({ "/v1/tasks", "/v1/runs", "/v1/restart" }) do
    refused(host:post(path, "handler=echo", { ["Content-Type"] = "application/x-www-form-urlencoded" }), 415,
      "unsupported_media_type", "application/json")
    refused(host:post(path, "{}", { ["Content-Type"] = "text/plain" }), 415, "unsupported_media_type")
    for _, body in ipairs({ "", "{", "{]", "nonsense", '{"handler":"echo",}', '{"handler":"echo"} x', '"\xff"',
      '{"handler":"a\xc3("}' }) do
      refused(host:post(path, body), 400, "bad_request", "JSON")
    end
    refused(host:post(path, '{"label":"a","label":"b"}'), 400, "bad_request", "[Dd]uplicate")
    for _, body in ipairs({ "[]", "[1]", "1", '"text"', "null", "true" }) do
      refused(host:post(path, body), 400, "bad_request", "object")
    end
  end
  refused(host:post("/v1/tasks", "{", { ["Content-Type"] = "Application/JSON ; charset=utf-8" }), 400,
    "bad_request", "line 1")
  local typed = { ["Content-Type"] = "application/json; charset=utf-8" }
  t.eq(host:post("/v1/runs", '{"handler":"echo"}', typed).status, 200)
  local big = ('{"handler":"echo","input":{"x":"%s"}}'):format(("x"):rep(1 << 20))
  refused(host:post("/v1/tasks", big), 413, "too_large", "1048576")
  refused(host:get("/v1/status", { ["X-Long"] = ("x"):rep(20000) }), 431, "too_large")
  host:stop()
end)

t.test("unknown and wrong fields are named", function()
  local host = t.start({})
  local cases = {
    { "/v1/tasks", {}, "handler" }, { "/v1/tasks", { handler = 1 }, "handler" },
    { "/v1/tasks", { handler = "nope" }, "nope" }, { "/v1/tasks", { handler = "exec" }, "%-%-allow%-exec" },
    { "/v1/tasks", { handler = "echo", lane = "nope" }, "lane" },
    { "/v1/tasks", { handler = "echo", lane = 3 }, "lane" },
    { "/v1/tasks", { handler = "echo", colour = "red" }, "colour" },
    { "/v1/tasks", { handler = "echo", priority = "urgent" }, "high, normal, low" },
    { "/v1/tasks", { handler = "echo", input = "text" }, "input. is a string, not an object" },
    { "/v1/tasks", { handler = "echo", timeout_ms = 0 }, "timeout_ms" },
    { "/v1/tasks", { handler = "echo", timeout_ms = "5" }, "timeout_ms" },
    { "/v1/tasks", { handler = "echo", timeout_ms = 1e300 }, "timeout_ms" },
    { "/v1/tasks", { handler = "echo", title = ("x"):rep(1001) }, "1000" },
    { "/v1/tasks", { handler = "echo", label = true }, "label" },
    { "/v1/tasks", { handler = "echo", on_crash = "perhaps" }, "lose, retry" },
    { "/v1/tasks", { handler = "echo", on_interrupt = "perhaps" }, "interrupt, retry" },
    { "/v1/runs", {}, "handler" }, { "/v1/runs", { handler = "nope" }, "nope" },
    { "/v1/runs", { handler = "echo", lane = "main" }, "lane" },
    { "/v1/runs", { handler = "echo", input = 5 }, "input" },
    { "/v1/restart", { when = "later" }, "now, idle" }, { "/v1/restart", { wait_ms = -1 }, "wait_ms" },
    { "/v1/restart", { force = "yes" }, "force" }, { "/v1/restart", { reason = 5 }, "reason" },
    { "/v1/restart", { force = true, when = "idle" }, "force" }, { "/v1/restart", { nonsense = 1 }, "nonsense" },
  }
  for _, case in ipairs(cases) do refused(host:post(case[1], case[2]), 400, "bad_request", case[3]) end
  for _, query in ipairs({ "limit=0", "limit=1001", "limit=x", "limit=1.5", "status=done", "colour=red" }) do
    refused(host:get("/v1/tasks?" .. query), 400, "bad_request", query:match("^%a+"))
  end
  refused(host:post("/v1/tasks", { handler = "echo" }, { ["Idempotency-Key"] = ("k"):rep(201) }), 400, "bad_request")
  t.match(host:get("/v1/tasks").body, '"tasks":%[%]')
  t.match(host:get("/v1/tasks").body, '"next":null')
  host:stop()
end)

t.test("a run answers with its result, or with what went wrong", function()
  local dir = t.dir()
  t.write(dir .. "/fails.lua", "return function(work)\n  error('no such thing')\nend\n")
  t.write(dir .. "/table_error.lua", "return function() error({ code = 5 }) end")
  t.write(dir .. "/nothing.lua", "return function() end")
  t.write(dir .. "/cannot.lua", "return function() return print end")
  local host = t.start({ args = { "--handlers", dir } })
  local echoed = host:post("/v1/runs", { handler = "echo", input = { a = 1, b = { true } } }).json
  t.eq(echoed.a, 1)
  t.eq(echoed.b[1], true)
  t.eq(host:post("/v1/runs", '{"handler":"echo","input":{"n":9007199254740993}}').body, '{"n":9007199254740993}')
  t.eq(host:post("/v1/runs", { handler = "sleep", input = { ms = 5 } }).json.slept_ms, 5)
  t.eq(host:post("/v1/runs", { handler = "nothing" }).body, "null")
  refused(host:post("/v1/runs", { handler = "fails" }), 500, "failed", "fails.lua:2: no such thing")
  refused(host:post("/v1/runs", { handler = "sleep", input = { ms = "x" } }), 500, "failed", "input.ms")
  refused(host:post("/v1/runs", { handler = "table_error" }), 500, "failed")
  t.eq(host:post("/v1/runs", { handler = "cannot" }).status, 500)
  t.eq(host:get("/v1/status").json.work.runs, 0)
  host:stop()
end)

t.test("status has every field of the contract, and metrics are Prometheus text", function()
  local host = t.start({ args = { "--lane", "side=2:5" } })
  local s = host:get("/v1/status").json
  types(s, { pid = "integer", boot_id = "string", version = "string", state = "string", generation = "integer",
    uptime_ms = "integer", safe_mode = "boolean", policy = "table", supervisor = "string nil", work = "table",
    restart = "table", listeners = "table", connections = "table", application = "table", blockers = "string nil",
    store = "string" })
  types(s.policy, { path = "string", sha256 = "string", name = "string", loaded_at = "integer" })
  types(s.work, { tasks = "integer", runs = "integer", queued = "integer", lanes = "table" })
  types(s.work.lanes.side, { active = "integer", queued = "integer", concurrency = "integer" })
  t.eq(s.work.lanes.side.concurrency, 2)
  t.eq(s.work.lanes.main.concurrency, 4)
  t.eq(s.state, "running")
  t.eq(s.pid, host.pid)
  t.eq(s.boot_id, host.boot_id)
  t.eq(s.listeners[1], host.address)
  t.eq(s.restart.last, nil)
  t.ok(host:get("/v1/status").body:find('"supervisor":null', 1, true), "an absent supervisor is null")

  local a = host:get("/metrics")
  t.match(a.headers["content-type"], "^text/plain; version=0%.0%.4")
  t.eq(a.body:sub(-1), "\n")
  local kind, samples = {}, {}
  for line in a.body:gmatch("[^\n]+") do
    local name, what = line:match("^# TYPE ([%a_:][%w_:]*) (%a+)$")
    if name then
      t.ok(not kind[name], name .. " is declared once")
      kind[name] = what
      t.ok(what == "gauge" or what == "counter", line)
      t.eq(what == "counter", name:match("_total$") ~= nil, name)
    elseif not line:match("^# HELP [%a_:][%w_:]* %S") then
      local sample, labels, value = line:match("^([%a_:][%w_:]*)({[^}]*})? ?(%S+)$")
      if not sample then sample, labels, value = line:match("^([%a_:][%w_:]*)(%b{}) (%S+)$") end
      if not sample then sample, value = line:match("^([%a_:][%w_:]*) (%S+)$") end
      t.ok(sample and tonumber(value), "no sample: " .. line)
      t.ok(kind[sample], sample .. " has a type")
      t.ok(not samples[sample .. (labels or "")], line .. " is there once")
      samples[sample .. (labels or "")] = tonumber(value)
    end
  end
  t.eq(samples["gwhost_generation"], 1)
  t.eq(samples['gwhost_state{state="running"}'], 1)
  t.eq(samples['gwhost_state{state="draining"}'], 0)
  t.ok(samples["gwhost_requests_total"] >= 2)
  host:stop()
end)

t.test("a restart asked for over HTTP is answered, and its outcome can be had afterwards", function()
  local host = t.start({})
  local a = host:post("/v1/restart", { reason = "a new handler" })
  t.eq(a.status, 202)
  t.eq(a.json.status, "accepted")
  t.match(a.json.request_id, "^[%w_-]+$")
  host:wait("host.ready", function(e) return e.generation == 2 end)
  local o = host:get("/v1/restarts/" .. a.json.request_id).json
  t.eq(o.outcome, "restarted")
  t.eq(o.reason, "a new handler")
  t.eq(o.source, "http")
  t.eq(o.mode, "in_process")
  t.eq(o.generation, 2)
  t.eq(host:wait("restart.outcome").request_id, a.json.request_id)
  local last = host:get("/v1/status").json.restart.last
  t.eq(last.request_id, a.json.request_id)
  t.eq(host:get("/healthz").headers["gwhost-generation"], host.boot_id:sub(1, 8) .. ".2")
  -- While it is open its outcome is null, not absent.
  local id = host:submit({ handler = "sleep", input = { ms = 600 } })
  host:until_status(id, "running")
  a = host:post("/v1/restart", {})
  t.match(host:get("/v1/restarts/" .. a.json.request_id).body, '"outcome":null')
  t.eq(host:get("/v1/status").json.restart.current.request_id, a.json.request_id)
  host:wait("host.ready", function(e) return e.generation == 3 end)
  host:stop()
end)

t.test("the events stream tells of states and tasks with ids that increase", function()
  local host = t.start({})
  local c = t.connect(host)
  c:send(("GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n"):format(host.token))
  c:until_match("\r\n\r\n")
  t.ok(c:until_match('retry: 1000\n\nevent: state\ndata: [^\n]*"state":"running"[^\n]*\n\n'), "where the host is, first")
  local id = host:submit({ handler = "sleep", input = { ms = 300 }, title = "a nap" })
  host:until_status(id, "running")
  host:post("/v1/restart", { reason = "because" })
  host:wait("host.ready")
  c:until_match('"state":"closing".*"state":"running"')
  local text = c.data:gsub("\r\n%x+\r\n", ""):gsub("\r\n", "\n")
  local events, last = {}, 0
  for block in text:gmatch("(id: ?%d+\n.-)\n\n") do
    local number, kind, data = block:match("^id: ?(%d+)\nevent: ?(%a+)\ndata: ?(.*)$")
    t.ok(number, "not an event: " .. block)
    t.ok(tonumber(number) > last, "ids increase")
    last = tonumber(number)
    local object = t.ok(t.json.decode(data), data)
    for _, name in ipairs({ "ts", "event", "msg", "pid", "boot_id", "generation" }) do
      t.ok(object[name] ~= nil, name .. " in " .. data)
    end
    events[#events + 1] = { kind = kind, object = object, data = data }
  end
  local states, statuses = {}, {}
  for _, e in ipairs(events) do
    if e.kind == "state" then
      states[#states + 1] = e.object.state
      if e.object.state == "draining" then
        t.eq(e.object.reason, "because")
        t.eq(e.object.restart_expected_ms, 1500)
      end
      t.ok(e.data:find('"restart_expected_ms"', 1, true), "always there: " .. e.data)
    else
      t.eq(e.kind, "task")
      t.eq(e.object.task_id, id)
      statuses[#statuses + 1] = e.object.status
    end
  end
  t.match(table.concat(statuses, " "), "queued.*running.*succeeded")
  t.match(table.concat(states, " "), "^draining closing .*running$")
  c:close()
  host:stop()
end)

t.test("a WebSocket echoes unchanged and gets the events as frames", function()
  local host = t.start({})
  local ws = t.ok(t.websocket(host))
  t.match(ws.head, "Sec%-WebSocket%-Accept: s3pPLMBiTxaQ9kYGzzhZRbK%+xOo=")
  for _, text in ipairs({ "hello", "", "grüße ☂", ("long "):rep(20000), '{"event":1' }) do
    ws:send(text)
    local frame = ws:recv(nil, true)
    t.eq(frame.opcode, 1)
    t.eq(frame.data, text)
  end
  ws:frame(2, "\0\255\1")
  local frame = ws:recv()
  t.eq(frame.opcode, 2)
  t.eq(frame.data, "\0\255\1")
  ws:frame(9, "ping me")
  frame = ws:recv()
  t.eq(frame.opcode, 10)
  t.eq(frame.data, "ping me")
  local id = host:submit({ handler = "echo", input = { x = 1 } })
  local seen = {}
  repeat
    local e = t.json.decode(ws:recv(nil, true).data)
    t.ok(e.event, "an event frame is {\"event\":…}")
    local object = type(e.event) == "table" and e.event or e
    if object.task_id == id then seen[#seen + 1] = object.status end
  until seen[#seen] == "succeeded"
  refused(host:request("GET", "/elsewhere", nil, { Upgrade = "websocket", Connection = "Upgrade",
    ["Sec-WebSocket-Version"] = "13", ["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ==" }), 404, "not_found", "/ws")
  ws:frame(8, "\3\232")
  t.eq(ws:recv().opcode, 8)
  ws:close()
  host:stop()
end)

t.test("a request that the protocol refuses gets an error of the same form", function()
  local host = t.start({})
  for request, status in pairs({
    ["GET / HTTP/1.1\r\n\r\n"] = 400, ["GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"] = 400,
      ["nonsense\r\n\r\n"] = 400,
    ["POST /v1/runs HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"] = 400,
  }) do
    local c = t.connect(host)
    c:send(request)
    local a = t.ok(c:answer(), request)
    t.eq(a.status, status, request)
    t.eq(a.json.error.code, "bad_request")
    c:close()
  end
  local c = t.connect(host)
  c:send(("POST /v1/runs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n" ..
    "Transfer-Encoding: chunked\r\n\r\n6\r\n{\"hand\r\nc\r\nler\":\"echo\"}\r\n0\r\n\r\n"):format(host.token))
  t.eq(c:answer().body, "{}")
  for i = 1, 3 do
    local body = ('{"handler":"echo","input":{"i":%d}}'):format(i)
    t.eq(c:request("POST", "/v1/runs", body, JSON).json.i, i)
  end
  c:close()
  host:stop()
end)

-- ---- the token changes ----

local BY_REASON = "return { restart_mode = function(ctx) return ctx.reason end }"

local function good(host, token)
  return host:get("/v1/status", { Authorization = "Bearer " .. token }).status == 200
end

for _, where in ipairs({ "--token-file", "STATE/token" }) do
  t.test("a token that is rotated in " .. where .. " is taken by each reload and each restart, and no other is good", function()
    local dir = t.dir()
    local args = where == "--token-file" and { "--token-file", t.write(dir .. "/token", "token 0\n") } or {}
    local host = t.start({ policy = BY_REASON, args = args })
    local path = args[2] or host.state_dir .. "/token"
    local last = t.read(path):match("^[^\n]*")
    host.token = last
    local ws = t.ok(t.websocket(host))
    local function take(name, how)
      t.write(path, " " .. name .. "\n\n")
      t.ok(good(host, last), "before " .. name)
      how()
      t.ok(good(host, name), name)
      t.ok(not good(host, last), last)
      last, host.token = name, name
    end
    take("reload", function() t.eq(host:control({ op = "reload" }).ok, true) end)
    take("SIGHUP", function()
      host:signal("sighup")
      host:wait("policy.loaded", function(e) return e.because == "SIGHUP" end)
    end)
    for _, mode in ipairs({ "in_process", "respawn", "reexec" }) do
      take(mode, function() t.eq(host:restarted({ reason = mode }).outcome, "restarted") end)
    end
    for _, text in ipairs({ "", " \n", "nul\0nul" }) do
      t.write(path, text)
      t.eq(host:control({ op = "reload" }).ok, true)
      t.match(host:wait("token.kept").error, "empty or holds a NUL")
      t.ok(good(host, last))
    end
    assert(os.remove(path))
    t.write(host.policy_file, "return {") -- a policy that cannot be used is no reason to keep a token that has leaked
    host:control({ op = "reload" })
    t.match(host:wait("token.kept").error, "No such file")
    t.write(path, "with a broken policy")
    host:control({ op = "reload" })
    t.ok(good(host, "with a broken policy") and not good(host, last))
    ws:send("still there")
    t.eq(ws:recv().data, "still there")
    t.ok(not table.concat(host.lines, "\n"):find("with a broken policy", 1, true), "a token in the log")
    host:stop()
  end)
end

t.test("a token of the environment stays, whatever is in the state directory; with --watch a file's comes by itself", function()
  local host = t.start({ policy = BY_REASON, env = { "GWHOST_TOKEN=given" } })
  t.write(host.state_dir .. "/token", "of the file\n")
  for _, mode in ipairs({ "in_process", "respawn", "reexec" }) do
    t.eq(host:restarted({ reason = mode }).outcome, "restarted")
    host:control({ op = "reload" })
    host.token = "given"
    t.ok(good(host, "given") and not good(host, "of the file"))
  end
  host:stop()
  host = t.start({ args = { "--watch" } })
  t.write(host.state_dir .. "/token", "watched\n")
  host:wait("token.changed")
  t.ok(good(host, "watched"))
  host:stop()
end)

t.main()
