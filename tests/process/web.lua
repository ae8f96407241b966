-- What stands between a host and the people behind the network: browsers, proxies, slow and impatient clients.
local t = require("support.harness")

local ALLOW = "return { authorize_sigusr1 = function() return true end%s }"

local function policy(mode)
  return ALLOW:format(mode and (", restart_mode = function() return '%s' end"):format(mode) or "")
end

--- Streams pieces, one for each name that appears in the folder; "end" and "fail" are the last.
local STREAMS = [[
local gwhost = require("gwhost")
local uv = require("luv")
local dir
local function wait_for(name)
  while not uv.fs_stat(dir .. "/" .. name) do gwhost.sleep(5) end
end
return {
  start = function(ctx)
    dir = ctx.vars.dir
    gwhost.serve({ request = function(req)
      return { stream = function(stream)
        stream:write("begun ")
        wait_for(req.path:sub(2))
        if req.path == "/fail" then error("out of words") end
        stream:write("rest of " .. ctx.generation)
      end }
    end })
    return { close = function() gwhost.log("info", "closing") end }
  end,
}]]

for _, mode in ipairs({ "in_process", "respawn", "reexec" }) do
  t.test("a streamed answer is waited for by a restart and is whole: " .. mode, function()
    local dir = t.dir()
    local host = t.start({ app = STREAMS, policy = policy(mode), args = { "--open", "--set", "dir=" .. dir } })
    local c = t.connect(host)
    c:send("GET /end HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    c:until_match("begun ")
    host:signal("sigusr1")
    host:wait("app.log", function(e) return e.msg == "closing" end)
    t.write(dir .. "/end", "")
    host:wait("restart.outcome")
    t.eq(c:answer().body, "begun rest of 1")
    t.eq(c:request("GET", "/end").body, "begun rest of " .. (mode == "in_process" and 2 or 1))
    c:close()
    host:stop()
  end)
end

t.test("a streamed answer that fails does not look whole, whatever the version", function()
  local dir = t.dir()
  local host = t.start({ app = STREAMS, args = { "--open", "--set", "dir=" .. dir } })
  local new, old = t.connect(host), t.connect(host)
  new:send("GET /fail HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
  old:send("GET /fail HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
  new:until_match("begun ")
  old:until_match("begun ")
  t.write(dir .. "/fail", "")
  local answer, why = new:answer()
  t.eq(answer, nil)
  t.eq(why, "short")
  t.ok(not new.data:find("\r\n0\r\n", 1, true))
  t.until_true("a reset", function() return old.closed end)
  t.eq(old.error, "ECONNRESET")
  t.match(host:wait("app.error").error, "out of words")
  new:close()
  host:stop()
end)

t.test("who half-closes after the request gets all of a stream", function()
  local dir = t.dir()
  local host = t.start({ app = STREAMS, args = { "--open", "--set", "dir=" .. dir } })
  local c = t.connect(host)
  c:send("GET /end HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
  c.stream:shutdown()
  c:until_match("begun ")
  t.write(dir .. "/end", "")
  t.eq(c:answer().body, "begun rest of 1")
  host:stop()
end)

--- Starts once a file says how: "go" or "fail"; the first one at once.
local GATED = [[
local gwhost = require("gwhost")
local uv = require("luv")
return {
  start = function(ctx)
    local last = gwhost.kept("starts") or 0
    gwhost.keep("starts", last + 1)
    if last > 0 then
      gwhost.log("info", "starting")
      while not uv.fs_stat(ctx.vars.dir .. "/go") do
        if uv.fs_unlink(ctx.vars.dir .. "/fail") then error("no start today") end
        gwhost.sleep(5)
      end
    end
    gwhost.serve({ public = true, request = function(req) return { body = ctx.boot_id .. req.body } end,
      websocket = function(ws) ws.on_message = function(m) ws:send(m) end end })
    return { close = function() end }
  end,
}]]

--- An application that starts once a file says so, in another image of the same process by now.
local function starting_image(dir)
  local host = t.start({ app = GATED, policy = policy("reexec"), args = { "--set", "dir=" .. dir } })
  local kept, half, ws = t.connect(host), t.connect(host), t.ok(t.websocket(host, "/"))
  t.eq(kept:request("GET", "/").body, host.boot_id)
  half:send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nha")
  t.eq(kept:request("GET", "/healthz").json.boot_id, host.boot_id)
  host:signal("sigusr1")
  local starting = host:wait("app.log", function(e) return e.msg == "starting" end)
  t.ok(starting.boot_id ~= host.boot_id)
  return host, kept, half, ws, starting.boot_id
end

--- What the core answers while an image starts.
local function answered_while_starting(host, kept, ws, boot_id)
  local fresh = t.connect(host)
  for _, c in ipairs({ kept, fresh }) do
    local health = c:request("GET", "/healthz")
    t.eq(health.json.boot_id, boot_id)
    t.eq(health.headers["gwhost-generation"], boot_id:sub(1, 8) .. ".1")
    local ready = c:request("GET", "/readyz")
    t.eq(ready.status, 503)
    t.eq(ready.json.status, "starting")
  end
  t.eq(host:get("/v1/status").json.state, "starting")
  t.eq(host:get("/metrics").status, 200)
  t.eq(host:control({ op = "status" }).result.state, "starting")
  ws:frame(9, "still there")
  ws.connection:until_match("\x8a\x0bstill there")
  ws.connection.data = ""
  fresh:send("GET / HTTP/1.1\r\nHost: x\r\n\r\n") -- no token: the application asks for none
  kept:send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
  return fresh
end

t.test("while an image in the same process starts, the core answers and the rest waits", function()
  local dir = t.dir()
  local host, kept, half, ws, boot_id = starting_image(dir)
  local fresh = answered_while_starting(host, kept, ws, boot_id)
  ws:send("held")
  half:send("lf")
  t.write(dir .. "/go", "")
  for _, c in ipairs({ kept, fresh }) do
    t.eq(c:answer().body, boot_id)
    c:close()
  end
  t.eq(half:answer().body, boot_id .. "half")
  half:close()
  t.eq(ws:recv().data, "held")
  ws:close()
  t.eq(host:wait("restart.outcome").outcome, "restarted")
  host:stop()
end)

t.test("an image that has answered and goes back after all hands back what it holds", function()
  local dir = t.dir()
  local host, kept, half, ws, boot_id = starting_image(dir)
  local fresh = answered_while_starting(host, kept, ws, boot_id)
  ws:send("held")
  half:send("l")
  local told = host:control({ op = "restart", reason = "asked meanwhile" })
  t.eq(told.ok, true)
  t.write(dir .. "/fail", "")
  t.match(host:wait("respawn.failed").error, "no start today")
  local back = host:wait("app.log", function(e) return e.msg == "starting" end)
  half:send("f")
  t.write(dir .. "/go", "")
  for _, c in ipairs({ kept, fresh }) do
    t.eq(c:answer().body:sub(1, 32), back.boot_id)
    c:close()
  end
  t.eq(half:answer().body, back.boot_id .. "half")
  half:close()
  t.eq(ws:recv().data, "held")
  ws:close()
  t.eq(host:wait("restart.outcome").outcome, "failed")
  host:wait("restart.outcome", function(e) return e.request_id == (told.result.merged_into or told.result.request_id) end)
  host:stop()
end)

--- The status of a request whose head is given line by line.
local function asked(host, ...)
  local c = t.connect(host)
  c:send(table.concat({ ... }, "\r\n") .. "\r\n\r\n")
  local answer = t.ok(c:until_match("^HTTP/1.1 (%d+)"))
  local words = answer:match("^4") and c:until_match('"message":"([^"]*)"')
  c:close()
  return answer, words
end

local HANDSHAKE = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" ..
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="

t.test("with --open only pages of the host, of this machine and of --origin reach what changes or tells something", function()
  local host = t.start({ args = { "--open", "--origin", "https://app.example", "--origin", "null" } })
  local here = "Host: " .. host.address
  local page, json = "Origin: http://evil.example", "Content-Type: application/json\r\nContent-Length: 0"
  for _, head in ipairs({ "GET /ws HTTP/1.1\r\n" .. HANDSHAKE, "GET /v1/events HTTP/1.1", "POST /v1/restart HTTP/1.1\r\n" .. json }) do
    for _, origin in ipairs({ page, page .. ":80", "Origin: http://127.0.0.1.evil.example", "Origin: https://app.example:444",
      "Origin: nothing", "Origin: https://app.example\r\n" .. page }) do
      t.eq(asked(host, head, here, origin), "403", head .. origin)
    end
  end
  t.match(select(2, asked(host, "GET /v1/events HTTP/1.1", here, page)), "evil.example.*%-%-origin")
  for _, origin in ipairs({ "X: y", "Origin: http://" .. host.address, "Origin: https://app.example", "Origin: HTTPS://APP.example",
    "Origin: null", "Origin: http://localhost:3000", "Origin: http://[::1]:3000", "Origin: http://127.0.0.1" }) do
    t.eq(asked(host, "GET /ws HTTP/1.1", here, HANDSHAKE, origin), "101", origin)
    t.eq(asked(host, "GET /v1/events HTTP/1.1", here, origin), "200", origin)
  end
  t.eq(asked(host, "GET /v1/tasks HTTP/1.1", here, page), "200", "what a browser does not let it read")
  t.eq(asked(host, "GET http://evil.example/v1/status HTTP/1.1", here), "421", "the target is what it asks for")
  t.eq(asked(host, "GET /v1/status HTTP/1.1", "Host: ..."), "421")
  host:stop()
end)

t.test("an application's WebSockets are kept from foreign pages, with a token too where --origin says whose they are", function()
  local app = [[local gwhost = require("gwhost")
    return { start = function()
      gwhost.serve({ public = true, websocket = function() end, request = function() return { body = "" } end })
      return { close = function() end }
    end }]]
  for _, args in ipairs({ { "--open" }, { "--origin", "http://app.example" }, {} }) do
    local host = t.start({ app = app, args = args })
    t.eq(asked(host, "GET / HTTP/1.1", "Host: " .. host.address, HANDSHAKE, "Origin: http://evil.example"),
      #args == 0 and "101" or "403")
    t.eq(asked(host, "GET / HTTP/1.1", "Host: " .. host.address, HANDSHAKE), "101")
    host:stop()
  end
  local bad = t.start({ args = { "--origin", "app.example" }, ready = false })
  t.eq(bad:wait_exit(), 2)
end)

t.test("no echo is lost on a client that pauses, nor at a restart while it does", function()
  local host = t.start({})
  local ws = t.ok(t.websocket(host))
  ws.connection.stream:read_stop()
  local sizes = {}
  for i = 1, 40 do sizes[i] = 30000 + i end
  for i = 41, 44 do sizes[i] = 900000 + i end
  for _, n in ipairs(sizes) do ws:send(("%07d"):format(n):rep(n // 7 + 1):sub(1, n)) end
  host:restart()
  ws.connection.stream:read_start(function(_, data)
    ws.connection.data, ws.connection.closed = ws.connection.data .. (data or ""), not data
    t.wake()
  end)
  for i, n in ipairs(sizes) do
    local frame = t.ok(ws:recv(), "echo " .. i)
    t.eq(#frame.data, n)
  end
  ws:close()
  host:stop()
end)

local CHAT = [[
local gwhost = require("gwhost")
return { start = function()
  gwhost.serve({
    upgrade = function(req)
      if req.path == "/wrong" then return true, "chat.v9" end
      for _, name in ipairs(req.protocols) do
        if name == "chat.v1" then return true, name end
      end
      return true
    end,
    websocket = function(ws)
      ws.on_message = function(text)
        if text ~= "flood" then return ws:send_wait(tostring(ws.protocol)) end
        local piece, n = ("x"):rep(100000), 0
        while ws:send(piece) do n = n + 1 end
        gwhost.go(function() ws:send_wait("first " .. n .. (" "):rep(99000)) end)
        gwhost.go(function() ws:send_wait("second" .. (" "):rep(99000)) end)
        gwhost.log("info", "waits", { refused = select(2, ws:send("o")) })
      end
    end,
    request = function() return { stream = function(s)
      local ok, why
      repeat ok, why = s:write_wait(("y"):rep(100000)) until not ok
      gwhost.log("info", "written", { why = why })
    end } end,
  })
  return { close = function() end }
end }]]

t.test("an application chooses a subprotocol, and has it after a restart", function()
  local host = t.start({ app = CHAT, policy = policy("respawn"), args = { "--open" } })
  local here = "Host: " .. host.address .. "\r\n"
  local function open(path, offered)
    local c = t.connect(host)
    c:send("GET " .. path .. " HTTP/1.1\r\n" .. here .. HANDSHAKE .. "\r\n" .. offered .. "\r\n")
    return c, c:until_match("^.-\r\n\r\n")
  end
  local c, head = open("/", "")
  c:close()
  t.match(head, "^HTTP/1.1 101")
  t.ok(not head:find("Sec%-WebSocket%-Protocol"))
  c, head = open("/wrong", "Sec-WebSocket-Protocol: chat.v1\r\n")
  c:close()
  t.match(head, "^HTTP/1.1 500")
  t.match(host:wait("app.error").error, "chat.v9, which the client does not offer")
  c, head = open("/", "Sec-WebSocket-Protocol: chat.v2,  chat.v1\r\nSec-WebSocket-Protocol: chat.v0\r\n")
  t.match(head, "\r\nSec%-WebSocket%-Protocol: chat.v1\r\n")
  for _ = 1, 2 do
    c.data = ""
    c:send("\x81\x81\0\0\0\0?")
    c:until_match("^\x81\x07chat.v1")
    host:restart()
  end
  c:close()
  host:stop()
end)

t.test("what waits for a slow client is sent in order, and knows when it has gone", function()
  local host = t.start({ app = CHAT, args = { "--open" } })
  local ws = t.ok(t.websocket(host, "/"))
  ws.connection.stream:read_stop()
  ws:send("flood")
  t.eq(host:wait("app.log").refused, "slow", "a message that overtakes those that wait")
  ws.connection.stream:read_start(function(_, data)
    ws.connection.data = ws.connection.data .. (data or "")
    t.wake()
  end)
  local n, frame = 0
  repeat
    frame = ws:recv()
    n = n + 1
  until #frame.data < 100000
  t.match(frame.data, "^first " .. n - 1 .. " ")
  t.match(ws:recv().data, "^second")
  ws:close()
  local c = t.connect(host)
  c:send("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
  c:until_match("yyyy")
  c.stream:read_stop()
  c:close()
  t.eq(host:wait("app.log").why, "closed")
  host:stop()
end)

t.test("who comes back to the events gets what it has missed, unless it was another host's", function()
  local host = t.start({})
  local function listen(id)
    local c = t.connect(host)
    c:send(("GET /v1/events HTTP/1.1\r\nHost: x\r\n%sAuthorization: Bearer %s\r\n\r\n"):format(
      id and "Last-Event-ID: " .. id .. "\r\n" or "", host.token))
    return c
  end
  local c = listen()
  host:submit({ handler = "echo" })
  local last = t.ok(c:until_match('id: (%d+)\n[^\n]*\n[^\n]*"status":"succeeded"'))
  c:close()
  host:restart()
  c = listen(last)
  c:until_match('"state":"closing".*"state":"running"[^\n]*\n\n')
  t.eq(tonumber(c:until_match("id: (%d+)")), tonumber(last) + 1)
  local before = {}
  for id in c.data:gmatch("id: (%d+)") do before = id end
  c:close()
  host:stop()
  host = t.start({ dir = host.dir })
  c = listen(before)
  c:until_match(": what came after.*\n\nevent: state\ndata: [^\n]*running")
  c:close()
  host:stop()
end)

t.test("what a handshake, a target or a path has wrong is told in the words of HTTP", function()
  local host = t.start({ args = { "--open" } })
  local here = "Host: " .. host.address
  local function head(...)
    local c = t.connect(host)
    c:send(table.concat({ ... }, "\r\n") .. "\r\n\r\n")
    local answer = c:until_match("^.-\r\n\r\n")
    c:close()
    return answer
  end
  local version, key = "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
  local asks = "Connection: Upgrade\r\nUpgrade: websocket"
  for _, bad in ipairs({ "Sec-WebSocket-Version: 8", "Sec-WebSocket-Version: 13, 8", version .. "\r\n" .. version, "X: y" }) do
    local answer = head("GET /ws HTTP/1.1", here, asks, key, bad)
    t.match(answer, "^HTTP/1.1 426 ")
    t.match(answer, "\r\nSec%-WebSocket%-Version: 13\r\n")
  end
  t.match(head("GET /ws HTTP/1.1", here, asks, version, key, key), "^HTTP/1.1 400 .*\r\nSec%-WebSocket%-Version: 13\r\n")
  t.match(head("GET /ws HTTP/1.1", here, asks, version, key), "^HTTP/1.1 101 ")
  t.match(head("OPTIONS * HTTP/1.1", here), "^HTTP/1.1 204 .*\r\nAllow: [^\r]*OPTIONS")
  t.match(head("GET * HTTP/1.1", here), "^HTTP/1.1 400 ")
  t.eq(asked(host, "GET /healthz/ HTTP/1.1", here), "404")
  t.eq(asked(host, "GET /readyz/ HTTP/1.1", here), "404")
  host:stop()
end)

local ECHO = [[
local gwhost = require("gwhost")
local function try(fn, ...) return select(2, pcall(fn, ...)) end
return { start = function()
  gwhost.serve({ request = function(req)
    if req.path == "/header" then return { headers = { ["X-A"] = "a\0b" } } end
    if req.path ~= "/nul" then return { body = req.headers } end
    gwhost.log("info", "a\0b")
    return { body = {
      try(gwhost.submit, { handler = "x", lane = "main\0x" }), try(gwhost.submit, { handler = "x\0" }),
      try(gwhost.run, { handler = "x", title = "a\0b" }), try(gwhost.restart, { reason = "a\0b" }),
      try(gwhost.tasks, { after = "a\0b" }), try(gwhost.task, "a\0b"), try(gwhost.cancel, "a\0b"), try(gwhost.keep, "a\0b", 1),
      try(gwhost.spawn, { argv = { "true" }, env = { A = "a\0b" } }), try(gwhost.spawn, { argv = { "true" }, cwd = "/\0b" }),
    } }
  end })
  return { close = function() end }
end }]]

t.test("headers reach an application whole, and a text that C would cut is refused", function()
  local host = t.start({ app = ECHO, args = { "--open" } })
  local long = ("X-" .. ("long-"):rep(40)):lower()
  local c = t.connect(host)
  c:send("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: a=1\r\nX-Two: b\r\n" .. long:upper() .. ": here\r\ncookie: c=2; d=3\r\n" ..
    "x-two: c\r\nX-TWO: \r\nX-Empty:\r\n\r\n")
  local headers = c:answer().json
  t.eq(headers.cookie, "a=1; c=2; d=3")
  t.eq(headers["x-two"], "b, c, ")
  t.eq(headers["x-empty"], "")
  t.eq(headers[long], "here")
  c:send("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" .. ("a:b\r\n"):rep(3000) .. "\r\n")
  t.eq(#c:answer().json.a, 3000 * 3 - 2)
  local refused = c:request("GET", "/nul").json
  t.eq(#refused, 10)
  for i, words in ipairs(refused) do t.match(tostring(words), "NUL", i) end
  t.eq(host:wait("app.log").msg, "a\\0b")
  t.eq(c:request("GET", "/header").status, 500)
  t.match(host:wait("app.error").error, "X%-A.*NUL")
  for _, request in ipairs({ { op = "submit", handler = "x\0y" }, { op = "restart", reason = "a\0b" },
    { op = "task", task_id = "a\0" } }) do
    local answer = host:control(request)
    t.eq(answer.ok, false)
    t.match(answer.error.message, "NUL")
  end
  c:close()
  host:stop()
end)

t.main()
