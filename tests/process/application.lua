-- Applications of one's own (--app FILE): how they start, fail, close, and what they keep through restarts.
local t = require("support.harness")
local uv = require("luv")

local ALLOW = "return { authorize_sigusr1 = function() return true end }"

--- An application that answers with what `respond` returns.
local function app(respond, extra)
  return ([[
local gwhost = require("gwhost")
local state = {}
%s
return {
  start = function(ctx)
    state.ctx = ctx
    if state.on_start then state.on_start(ctx) end
    gwhost.serve({
      request = function(req) %s end,
      websocket = state.websocket,
    })
    return { close = state.close or function() end }
  end,
}]]):format(extra or "", respond)
end

--- Asks for a restart by SIGUSR1 and returns the request's id.
local function ask(host)
  host:signal("sigusr1")
  return host:wait("restart.accepted").request_id
end

local function start(text, spec)
  spec = spec or {}
  spec.app, spec.policy = text, ALLOW
  return t.start(spec)
end

local function bundles(host)
  local names = {}
  for name in io.popen("ls '" .. host.state_dir .. "/bundles' 2>/dev/null"):lines() do names[#names + 1] = name end
  return table.concat(names, " "), #names
end

t.test("start gets the facts of its generation, and may wait", function()
  local host = start(app("return { body = state.ctx }", [[
    state.on_start = function() gwhost.sleep(200) end]]), { args = { "--set", "colour=red", "--allow-exec" } })
  local ctx = host:get("/any/path").json
  t.eq(ctx.generation, 1)
  t.eq(ctx.boot_id, host.boot_id)
  t.eq(ctx.listeners[1], host.address)
  t.eq(#ctx.listeners, 1)
  t.eq(math.type(ctx.startup_started_at_ms), "integer")
  t.eq(ctx.vars.colour, "red")
  t.eq(ctx.allow_exec, true)
  t.eq(ctx.continuation, nil)
  t.ok(host:all("app.started")[1].ms >= 200)
  host:restart()
  local again = host:get("/").json
  t.eq(again.generation, 2)
  t.ok(again.startup_started_at_ms > ctx.startup_started_at_ms)
  host:stop()
end)

t.test("requests that come while the next generation starts wait and are answered by it", function()
  local host = start(app("return { body = { generation = state.ctx.generation } }", [[
    state.on_start = function(ctx)
      if ctx.generation > 1 then gwhost.log("info", "starting") gwhost.sleep(400) end
    end]]))
  local idle, during = t.connect(host), nil
  t.eq(idle:request("GET", "/").json.generation, 1)
  host:signal("sigusr1")
  host:wait("app.log")
  local job = t.go(function() during = host:get("/") end)
  t.eq(idle:request("GET", "/").json.generation, 2)
  t.join({ job })
  t.eq(during.json.generation, 2)
  idle:close()
  host:stop()
end)

t.test("a request in hand is answered by its own generation", function()
  local host = start(app([[
    gwhost.log("info", "in hand")
    gwhost.sleep(400)
    return { body = { generation = state.ctx.generation } } ]]))
  local answer
  local job = t.go(function() answer = host:get("/") end)
  host:wait("app.log")
  host:restart()
  t.join({ job })
  t.eq(answer.status, 200)
  t.eq(answer.json.generation, 1)
  host:stop()
end)

t.test("a later start that fails: the last good sources serve on, and a bundle says why", function()
  local host = start(app("return { body = 'good' }",
    "state.websocket = function(ws) ws.on_message = function(m) ws:send(m) end end"))
  local ws = t.ok(t.websocket(host))
  t.write(host.app_file, app("return { body = 'bad' }",
    "state.on_start = function() gwhost.sleep(20) error('no database') end"))
  local id = ask(host)
  local failed = host:wait("app.start_failed")
  t.match(failed.error, "app.lua:3: no database")
  local bundle = host:wait("bundle.written")
  t.eq(bundle.reason, "gateway.restart_startup_failed")
  t.match(t.json.decode(t.read(bundle.path)).error, "no database")
  t.match(host:wait("startup.rolled_back").error, "no database")
  t.eq(host:wait("host.ready").generation, 3)
  local outcome = host:wait("restart.outcome", function(e) return e.request_id == id end)
  t.eq(outcome.outcome, "failed")
  t.match(outcome.why, "last good ones serve.*no database")
  t.eq(host:get("/").body, "good")
  ws:send("still here")
  t.eq(ws:recv().data, "still here")
  ws:close()
  -- Mended, the new one serves.
  t.write(host.app_file, app("return { body = 'better' }"))
  host:restart()
  t.eq(host:get("/").body, "better")
  host:stop()
end)

t.test("a later start that takes too long is rolled back too", function()
  local host = start(app("return { body = 'good' }"), { args = { "--start-timeout", "300ms" } })
  t.write(host.app_file, app("return { body = 'slow' }", "state.on_start = function() gwhost.sleep(60000) end"))
  host:signal("sigusr1")
  t.match(host:wait("app.start_failed").error, "start%-timeout")
  t.eq(host:wait("host.ready").generation, 3)
  t.eq(host:get("/").body, "good")
  host:stop()
end)

local FLAG = [[state.on_start = function(ctx)
  local f = io.open(ctx.vars.flag)
  if f then f:close() error("the flag is up") end
end]]

t.test("when the last good sources fail too, the host lets go of all, stays alive, and tries again", function()
  local dir = t.dir()
  local flag = dir .. "/flag"
  local host = start(app("return { body = 'up' }", FLAG), { args = { "--set", "flag=" .. flag } })
  local address = host.address
  t.write(flag, "")
  host:signal("sigusr1")
  local released = host:wait("lock.released")
  t.match(released.msg, "kill %-USR1 " .. host.pid)
  t.eq(#host:all("app.start_failed"), 2)
  t.eq(t.connect(host, address), nil)
  t.eq(host.exit, nil)
  -- Tried again without being mended: the same end.
  host:signal("sigusr1")
  host:wait("app.start_failed", function(e) return e.generation >= 4 end)
  host:wait("lock.released")
  -- Nobody owns the directory now: another host can start, and ours says who has it.
  assert(uv.fs_unlink(flag))
  local other = start(app("return { body = 'other' }"), { state_dir = host.state_dir })
  t.eq(other:get("/").body, "other")
  other:stop()
  host:signal("sigusr1")
  host:wait("host.ready")
  t.eq(host:get("/").body, "up")
  t.eq(host:get("/healthz").json.pid, host.pid)
  host:stop()
end)

t.test("a failed host ends with 1 when another owns the directory meanwhile, and with 0 when it is stopped", function()
  local flag = t.dir() .. "/flag"
  for _, taken in ipairs({ true, false }) do
    os.remove(flag)
    local host = start(app("return { body = 'up' }", FLAG), { args = { "--set", "flag=" .. flag } })
    t.write(flag, "")
    host:signal("sigusr1")
    host:wait("lock.released")
    if taken then
      local other = start(app("return { body = 'other' }"), { state_dir = host.state_dir })
      host:signal("sigusr1")
      t.eq(host:wait_exit(), 1)
      t.eq(host:all("lock.busy")[1].owner_pid, other.pid)
      other:stop()
    else
      host:stop()
    end
  end
end)

t.test("an application that does not compile refuses the restart, and nothing is torn down", function()
  local dir = t.dir()
  t.write(dir .. "/part.lua", "return 'part one'")
  local host = start(app("return { body = part .. ' ' .. state.ctx.generation }",
    "local part = require('part') state.close = function() gwhost.log('info', 'closed') end"), { dir = dir })
  local good = t.read(host.app_file)
  local idle = t.connect(host)
  for _, case in ipairs({
    { host.app_file, "return {\n\n  start = = 5\n}", "app.lua:3:" },
    { host.app_file, "error('not today')", "app.lua:1: not today" },
    { host.app_file, "return 5", "app.lua:1:" }, { host.app_file, "return {}", "start%(ctx%)" },
    { dir .. "/part.lua", "return {\n1 2\n}", "part.lua:2:" }, { host.app_file, "require('gone')", "gone.lua" },
  }) do
    t.write(case[1], case[2])
    local id = ask(host)
    local refused = host:wait("restart.refused")
    t.eq(refused.request_id, id)
    t.match(refused.why, case[3])
    local outcome = host:wait("restart.outcome")
    t.eq(outcome.outcome, "refused")
    t.match(outcome.why, case[3])
    t.eq(idle:request("GET", "/").body, "part one 1")
    t.write(host.app_file, good)
    t.write(dir .. "/part.lua", "return 'part one'")
  end
  t.eq(#host:all("app.log"), 0)
  t.eq(#host:all("app.closed"), 0)
  t.eq(select(2, bundles(host)), 0)
  t.write(dir .. "/part.lua", "return 'part two'")
  host:restart()
  t.eq(idle:request("GET", "/").body, "part two 2")
  idle:close()
  host:stop()
end)

t.test("a close that raises leaves a bundle and the restart goes on; at a stop it ends with 1", function()
  local host = start(app("return { body = 'x' }",
    "state.close = function(self, opts)\n error('cannot let go: ' .. opts.reason) end"))
  host:signal("sigusr1")
  t.match(host:wait("app.close_failed").error, "app.lua:4: cannot let go: gateway restarting")
  t.eq(host:wait("bundle.written").reason, "gateway.restart_close_failed")
  t.eq(host:wait("host.ready").generation, 2)
  t.eq(host:wait("restart.outcome").outcome, "restarted")
  host:signal("sigterm")
  t.match(host:wait("app.close_failed").error, "gateway stopping")
  t.eq(host:wait_exit(), 1)
end)

t.test("close gets why and how long, and may wait", function()
  local host = start(app("return { body = 'x' }",
    "state.close = function(self, opts) gwhost.sleep(300) gwhost.log('info', 'closed', { opts = opts }) end"))
  host:restart()
  local log = host:wait("app.log")
  t.eq(log.opts.reason, "gateway restarting")
  t.eq(log.opts.restart_expected_ms, 1500)
  t.ok(host:position("app.log") < host:position("app.closed"))
  t.ok(host:wait("app.closed").ms >= 290)
  host:stop()
  log = host:wait("app.log")
  t.eq(log.opts.reason, "gateway stopping")
  t.eq(log.opts.restart_expected_ms, nil)
end)

t.test("small values and a continuation are carried to the next generation, once", function()
  local host = start(app([[
    if req.path == "/keep" then
      gwhost.keep("n", { 1, 2, { deep = true } })
      gwhost.keep("gone", 1)
      gwhost.keep("gone", nil)
    elseif req.path == "/restart" then
      return { body = { gwhost.restart({ reason = "asked", continuation = { step = 2 } }) } }
    end
    if req.path == "/big" then return { body = tostring(select(2, pcall(gwhost.keep, "big", ("x"):rep(70000)))) } end
    return { body = { kept = gwhost.kept("n"), gone = gwhost.kept("gone"),
      continuation = state.ctx.continuation } } ]]))
  host:get("/keep")
  t.eq(host:get("/").json.kept[3].deep, true)
  t.match(host:get("/big").body, "65536")
  local answer = host:get("/restart").json
  t.eq(answer[2], "accepted")
  t.eq(host:wait("restart.requested").source, "app")
  host:wait("host.ready")
  local after = host:get("/").json
  t.eq(after.kept[3].deep, true)
  t.eq(after.gone, nil)
  t.eq(after.continuation.step, 2)
  host:restart()
  after = host:get("/").json
  t.eq(after.continuation, nil)
  t.eq(after.kept[1], 1)
  host:stop()
end)

t.test("a WebSocket's value and its next message reach the next generation's handler", function()
  local text = app("return { body = 'x' }", [[
    state.websocket = function(ws, req, resumed)
      ws.local_field = resumed
      ws.on_message = function(data, kind)
        ws:send(("%d %s %s %s %s"):format(state.ctx.generation, tostring(resumed), ws.value, req.path, data), kind)
        ws.value = ws.value .. data
      end
    end]])
  local host = start(text)
  local ws = t.ok(t.websocket(host, "/chat"))
  ws:send("a")
  t.eq(ws:recv().data, "1 false  /chat a")
  for generation = 2, 4 do
    host:restart()
    ws:send("b")
    t.eq(ws:recv().data, ("%d true a%s /chat b"):format(generation, ("b"):rep(generation - 2)))
  end
  -- A message in fragments, begun before the restart and ended after it.
  ws:frame(1, "one ", false)
  host:restart()
  ws:frame(0, "two", true)
  t.match(ws:recv().data, "^5 true abbb /chat one two$")
  -- Messages that are sent while nobody serves come in order.
  t.write(host.app_file, (text:gsub("state.ctx = ctx",
    "state.ctx = ctx gwhost.log('info', 'starting') gwhost.sleep(300)")))
  host:signal("sigusr1")
  host:wait("app.log")
  for i = 1, 5 do ws:send(tostring(i)) end
  for i = 1, 5 do t.match(ws:recv().data, "^6 true .* " .. i .. "$") end
  ws:close()
  host:stop()
end)

t.test("an answer is streamed piece by piece, and says when nobody reads", function()
  local host = start(app([[
    if req.path == "/slow" then
      return { stream = function(stream)
        local ok, why
        repeat ok, why = stream:write(("x"):rep(65536)) until not ok
        gwhost.log("info", why)
        repeat gwhost.sleep(10) ok, why = stream:write("y") until not ok and why == "closed"
        gwhost.log("info", why)
      end }
    end
    return { status = 201, headers = { ["Content-Type"] = "text/plain" }, stream = function(stream)
      for i = 1, 3 do stream:write("piece " .. i .. "\n") gwhost.sleep(20) end
    end } ]]))
  local c = t.connect(host)
  for _ = 1, 2 do
    local a = c:request("GET", "/")
    t.eq(a.status, 201)
    t.eq(a.headers["content-type"], "text/plain")
    t.eq(a.body, "piece 1\npiece 2\npiece 3\n")
  end
  c.stream:read_stop()
  c:send("GET /slow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " .. host.token .. "\r\n\r\n")
  t.eq(host:wait("app.log").msg, "slow")
  c:close()
  t.eq(host:wait("app.log").msg, "closed")
  host:stop()
end)

t.test("luv is there, without what would take the host's loop, signals or process", function()
  local host = start(app([[
    local uv = require("luv")
    local out = { absent = {}, same = uv == require("luv"), version = uv.version_string() }
    for _, name in ipairs({ "run", "stop", "walk", "loop_close", "loop_configure", "fs_scandir", "random", "spawn",
        "kill", "new_signal", "new_thread", "new_work", "queue_work", "os_setenv", "chdir", "setuid",
        "print_all_handles" }) do
      if uv[name] == nil then out.absent[#out.absent + 1] = name end
    end
    package.loaded.luv = nil
    out.again = require("luv") == uv
    local tcp = uv.new_tcp()
    out.write = { pcall(tcp.write, tcp, {}) }
    out.write_fn = { pcall(uv.write, tcp, {}) }
    tcp:close()
    out.exit = { pcall(os.exit, 0) }
    out.loadlib = package.loadlib == nil and package.cpath == ""
    out.cmodule = { pcall(require, "luv.core") }
    local timer, fired = uv.new_timer(), false
    timer:start(10, 0, function() fired = true timer:close() end)
    gwhost.sleep(100)
    out.fired = fired
    return { body = out } ]]))
  local out = host:get("/").json
  t.eq(#out.absent, 17)
  t.eq(out.same, true)
  t.eq(out.again, true)
  t.eq(out.write[1], false)
  t.eq(out.write_fn[1], false)
  t.eq(out.exit[1], false)
  t.match(out.exit[2], "gwhost.restart")
  t.eq(out.loadlib, true)
  t.eq(out.cmodule[1], false)
  t.eq(out.fired, true)
  t.match(out.version, "^1%.")
  host:stop()
end)

t.test("what a handler gets wrong is a 500 for the client and a line with file and line for the operator", function()
  local host = start(app([[
    if req.path == "/raise" then
      error("broken inside") end
    if req.path == "/table" then error({ code = 1 }) end
    if req.path == "/nothing" then return end
    if req.path == "/status" then return { status = 99 } end
    if req.path == "/body" then return { body = print } end
    if req.path == "/header" then return { headers = { ["X-A"] = "a\r\nX-B: b" } } end
    if req.path == "/stream" then return { stream = function(s) s:write("begun") error("midway") end } end
    if req.path == "/go" then gwhost.go(function() gwhost.sleep(1) error("aside") end) end
    if req.path == "/luv" then require("luv").new_timer():start(1, 0, function() error("in a callback") end) end
    return { body = "fine" } ]]))
  for path, say in pairs({ ["/raise"] = "app.lua:10: broken inside", ["/table"] = "",
    ["/nothing"] = "nil, not an answer",
    ["/status"] = "99", ["/body"] = "body" }) do
    local a = host:get(path)
    t.eq(a.status, 500, path .. " " .. a.body)
    t.eq(a.json.error.code, "internal")
    t.match(host:wait("app.error").error, say)
  end
  t.eq(host:get("/header").headers["x-b"], nil) -- no header smuggles in another
  t.match(select(2, pcall(host.get, host, "/stream")), "short") -- what failed does not look whole
  t.match(host:wait("app.error").error, "app.lua:%d+: midway")
  t.eq(host:get("/go").body, "fine")
  t.match(host:wait("app.error").error, "app.lua:%d+: aside")
  t.eq(host:get("/luv").body, "fine")
  t.match(host:wait("app.error").error, "app.lua:%d+: in a callback")
  t.eq(host:get("/").body, "fine")
  host:stop()
end)

local ZOO = [[
local uv = require("luv")
local function nop() end
local function zoo(port)
  for i = 1, 5 do uv.new_timer():start(i % 2 == 0 and 1 or 10000, i == 2 and 1 or 0, nop) end
  local got, server = {}, uv.new_tcp()
  assert(server:bind("127.0.0.1", 0))
  assert(server:listen(8, function()
    local c = uv.new_tcp()
    server:accept(c)
    got[#got + 1] = c
    c:read_start(function(_, data) if data then c:write(data) end end)
  end))
  local client = uv.new_tcp()
  client:connect("127.0.0.1", server:getsockname().port, function(err)
    if err then return end
    client:read_start(nop)
    client:write(("x"):rep(4000000), nop)
    client:shutdown(nop)
  end)
  uv.new_timer():close(nop)
  uv.new_prepare():start(nop)
  uv.new_check():start(nop)
  uv.new_async(nop):send()
  uv.new_fs_event():start("/tmp", {}, nop)
  uv.new_fs_poll():start("/tmp", 1000, nop)
  local udp = uv.new_udp()
  udp:bind("127.0.0.1", 0)
  udp:recv_start(nop)
  uv.fs_stat("/tmp", nop)
  uv.fs_open("/dev/null", "r", 420, function(_, fd) if fd then uv.fs_close(fd) end end)
  uv.getaddrinfo("localhost", nil, {}, nop)
  gwhost.go(function() gwhost.sleep(60000) end)
  gwhost.spawn({ argv = { "sleep", "60" } })
  coroutine.wrap(function()
    local co, timer = coroutine.running(), uv.new_timer()
    timer:start(5000, 0, function() coroutine.resume(co) end)
    coroutine.yield()
  end)()
  do local unreferenced = uv.new_timer() end -- luacheck: ignore
end
state.on_start = zoo
]]

t.test("handles, requests, children and coroutines left open are gone after each of 30 restarts", function()
  local host = start(app("return { body = state.ctx }", ZOO))
  host:restart()
  host:get("/")
  local before = host:fds()
  for _ = 1, 30 do host:restart() end
  t.eq(host:get("/").json.generation, 32)
  local children = #io.popen("cat /proc/" .. host.pid .. "/task/*/children"):read("a"):gsub("%s*%d+%s*", "x")
  t.ok(children <= 2, children .. " children are left")
  local after = host:fds()
  t.ok(after <= before + 3, ("%d descriptors at first, %d after 30 restarts"):format(before, after))
  t.eq(#host:all("app.leaked"), 0)
  host:stop(60000)
end)

t.test("the example that ships counts through a restart", function()
  local host = t.start({ args = { "--open", "--app", t.source .. "/lua/examples/counter.lua" } })
  local ws = t.ok(t.websocket(host, "/count"))
  t.eq(host:get("/").json.asked, 1)
  ws:send("a")
  t.eq(ws:recv().data, "1: a")
  host:restart()
  ws:send("b")
  t.eq(ws:recv().data, "2: b")
  t.eq(host:get("/").json.asked, 2)
  ws:close()
  host:stop()
end)

t.main()
