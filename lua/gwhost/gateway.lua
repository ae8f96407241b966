--- The built-in gateway: tasks, runs, restarts and events over HTTP and WebSocket.
---
--- It is an application like any other (--app FILE) and is written on nothing but the module `gwhost`.
--- healthz, readyz, /v1/status and metrics are answered by the core.
local gwhost = require("gwhost")
local http = require("gwhost.http")
local builtin = require("gwhost.handlers")

local handlers = { sleep = builtin.sleep, echo = builtin.echo }
if gwhost.allow_exec then
  handlers.exec = builtin.exec
end
for name, handler in pairs(gwhost.handler_files()) do
  handlers[name] = handler
end

local function known_handler(name)
  if type(name) ~= "string" then
    return "is not a string"
  end
  if not handlers[name] then
    return name == "exec" and "is 'exec', which needs --allow-exec" or ("names no handler: '%s'"):format(name)
  end
end

local TASK_FIELDS = {
  handler = known_handler,
  lane = http.text(63),
  priority = http.one_of("high", "normal", "low"),
  label = http.text(200),
  title = http.text(1000),
  input = "table",
  timeout_ms = http.ms(1),
  on_crash = http.one_of("lose", "retry"),
  on_interrupt = http.one_of("interrupt", "retry"),
}
local RUN_FIELDS = { handler = known_handler, label = http.text(200), title = http.text(1000), input = "table" }
local RESTART_FIELDS = {
  reason = http.text(200),
  wait_ms = http.ms(0),
  force = "boolean",
  when = http.one_of("now", "idle"),
}

-- ---- tasks ----

local STATUSES = "queued, running, succeeded, failed, timed_out, cancelled, interrupted, lost"

local function submit(req)
  local body, refusal = http.object(req)
  if not body then return refusal end
  refusal = http.check(body, TASK_FIELDS)
  if refusal then return refusal end
  if not body.handler then return http.fail("bad_request", "field 'handler' is missing") end
  local key = req.headers["idempotency-key"]
  if key then
    if #key == 0 or #key > 200 then
      return http.fail("bad_request", "Idempotency-Key is empty or longer than 200 bytes")
    end
    body.idempotency_key, body.body_sha256 = key, gwhost.sha256(req.body)
  end
  local task, err = gwhost.submit(body)
  if not task then return http.fail(err.code, err.message) end
  return http.json(202, { task_id = task.task_id, status = task.status })
end

local function list(req)
  local query, refusal = http.query(req, { status = true, limit = true, after = true })
  if not query then return refusal end
  local limit = query.limit and query.limit:match("^%d+$") and math.tointeger(tonumber(query.limit))
  if query.limit and (not limit or limit < 1 or limit > 1000) then
    return http.fail("bad_request", "limit is not an integer from 1 to 1000")
  end
  local ok, tasks, next_or_err = pcall(gwhost.tasks, { status = query.status, limit = limit, after = query.after })
  if not ok then
    return http.fail("bad_request", ("'%s' is no status of a task: they are %s"):format(query.status, STATUSES))
  end
  if not tasks then return http.fail(next_or_err.code, next_or_err.message) end
  return http.json(200, { tasks = tasks, next = next_or_err or gwhost.json.null })
end

local function show(_, id)
  local task, err = gwhost.task(id)
  if not task then return http.fail(err.code, err.message) end
  return http.json(200, task)
end

local function cancel(_, id)
  local task, err = gwhost.cancel(id)
  if not task then return http.fail(err.code, err.message) end
  return http.json(202, task)
end

-- ---- runs ----

local function run(req)
  local body, refusal = http.object(req)
  if not body then return refusal end
  refusal = http.check(body, RUN_FIELDS)
  if refusal then return refusal end
  if not body.handler then return http.fail("bad_request", "field 'handler' is missing") end
  local input = body.input or {}
  local work <close>, err = gwhost.run({
    handler = body.handler, label = body.label, title = body.title, compacting = input.phase == "compacting",
  })
  if not work then return http.fail(err.code, err.message) end
  work.input, work.handler = input, body.handler
  local ok, result = pcall(handlers[body.handler], work)
  if work.aborted then
    return http.fail("aborted", ("the run was ended by the gateway (%s)"):format(work.aborted))
  end
  if not ok then return http.fail("failed", tostring(result)) end
  return http.json(200, result == nil and gwhost.json.null or result)
end

-- ---- restarts ----

local function restart(req)
  local body, refusal = http.object(req)
  if not body then return refusal end
  refusal = http.check(body, RESTART_FIELDS)
  if refusal then return refusal end
  if body.force and (body.wait_ms or body.when == "idle") then
    return http.fail("bad_request", "force goes with neither wait_ms nor when: it waits for nothing")
  end
  body.source = "http"
  local id, answer, told = gwhost.restart(body)
  if not id then return http.fail("stopping", answer) end
  return http.json(202, told)
end

local function restart_outcome(_, id)
  local found = gwhost.restart_outcome(id)
  if not found then return http.fail("not_found", "no such request, or it was longer ago than the last 100") end
  return http.json(200, found)
end

-- ---- routes ----

local ROUTES = {
  { "^/v1/tasks$", { GET = list, POST = submit } },
  { "^/v1/tasks/([%w_-]+)$", { GET = show } },
  { "^/v1/tasks/([%w_-]+)/cancel$", { POST = cancel } },
  { "^/v1/runs$", { POST = run } },
  { "^/v1/restart$", { POST = restart } },
  { "^/v1/restarts/([%w_-]+)$", { GET = restart_outcome } },
  { "^/v1/events$", { GET = function() return { events = true } end } },
  { "^/ws$", { GET = function() return http.fail("bad_request", "/ws takes a WebSocket handshake",
    { ["Sec-WebSocket-Version"] = "13" }) end } },
}

local function allow(methods)
  local names = {}
  for name in pairs(methods) do
    names[#names + 1] = name
    if name == "GET" then names[#names + 1] = "HEAD" end
  end
  table.sort(names)
  return table.concat(names, ", ")
end

local function answer(req)
  for _, route in ipairs(ROUTES) do
    local capture = req.path:match(route[1])
    if capture then
      local handler = route[2][req.method == "HEAD" and "GET" or req.method]
      if not handler then
        return http.fail("method_not_allowed", "use " .. allow(route[2]), { Allow = allow(route[2]) })
      end
      return req.method == "POST" and http.check_type(req) or handler(req, capture)
    end
  end
  return http.fail("not_found", ("there is nothing at %s"):format(req.path))
end

local function on_socket(ws)
  ws:subscribe()
  ws.on_message = function(data, kind) ws:send_wait(data, kind) end
end

local server = {}

function server:close() -- luacheck: ignore
  -- Requests in hand, tasks and runs are the host's to wait for; nothing of ours is left open.
end

return {
  start = function()
    gwhost.handlers(handlers)
    gwhost.serve({
      request = answer,
      upgrade = function(req)
        return req.path == "/ws" or http.fail("not_found", "WebSockets are served at /ws")
      end,
      websocket = on_socket,
    })
    return server
  end,
}
