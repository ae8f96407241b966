-- A thousand restarts in one process, and thirty under valgrind, with everything an application can leave open.
local t = require("support.harness")

local RELEASE = os.getenv("GWHOST_RELEASE")

local APP = [[
local gwhost, uv = require "gwhost", require "luv"
return { start = function(ctx)
  -- Left open on purpose: the host has to end all of it.
  uv.new_timer():start(1, 1, function() end)
  uv.new_timer():start(3600000, 0, function() end)
  local server = uv.new_tcp()
  server:bind("127.0.0.1", 0)
  server:listen(8, function() end)
  local client = uv.new_tcp()
  client:connect("127.0.0.1", server:getsockname().port, function(err)
    if not err then client:write(("x"):rep(100000), function() end) end
  end)
  local pipe = uv.new_pipe(false)
  uv.fs_stat(".", function() end)
  uv.fs_open("/dev/null", "r", 420, function(_, fd) if fd then uv.fs_close(fd) end end)
  gwhost.go(function() gwhost.sleep(3600000) end)
  gwhost.go(function() gwhost.spawn{ argv = { "sleep", "1000" } }:wait() end)
  local count = (gwhost.kept("starts") or 0) + 1
  gwhost.keep("starts", count)
  gwhost.serve {
    request = function() return { body = tostring(count) } end,
    websocket = function(ws, req, resumed)
      if not resumed then ws.value = "0" end
      ws.on_message = function(data)
        ws.value = tostring(tonumber(ws.value) + 1)
        ws:send(("%s %s %d"):format(data, ws.value, ctx.generation))
      end
    end,
  }
  return { close = function() gwhost.sleep(1) end }
end }
]]
local POLICY = "return { authorize_sigusr1 = function() return true end }"

local function rss_kb(pid)
  return tonumber(t.read("/proc/" .. pid .. "/status"):match("VmRSS:%s*(%d+)"))
end

--- Restarts n times; a WebSocket's next message reaches the next generation with its value each time.
local function go(host, n, seen)
  local ws = t.ok(t.websocket(host, "/"))
  for i = 1, n do
    host:restart()
    ws:send("m" .. i)
    t.eq(ws:recv().data, ("m%d %d %d"):format(i, i, host.generation))
    if seen then seen(i) end
    host.events, host.lines, host.seen = {}, {}, {}
  end
  t.eq(tonumber(host:get("/").body), host.generation)
  ws:close()
end

t.test("1,000 restarts: descriptors and memory stay flat, each next generation gets the WebSocket's next message", function()
  t.ok(RELEASE, "set GWHOST_RELEASE to a program built without sanitizers (make test does)")
  local host = t.start({ app = APP, policy = POLICY, program = RELEASE })
  local fds, rss
  go(host, 1000, function(i)
    if i == 200 then fds, rss = host:fds(), rss_kb(host.pid) end
  end)
  local fds_after, rss_after = host:fds(), rss_kb(host.pid)
  print(("     descriptors %d then %d, resident %d then %d KiB"):format(fds, fds_after, rss, rss_after))
  t.ok(math.abs(fds_after - fds) <= 3, ("descriptors: %d, then %d"):format(fds, fds_after))
  t.ok(rss_after < rss * 1.2 + 1024, ("resident memory: %d, then %d KiB"):format(rss, rss_after))
  host:stop()
end)

t.test("100 restarts of the sanitized program: no error, no leak at its end", function()
  local host = t.start({ app = APP, policy = POLICY })
  local fds
  go(host, 100, function(i)
    if i == 20 then fds = host:fds() end
  end)
  t.ok(math.abs(host:fds() - fds) <= 3, "descriptors grow")
  host:stop()
end)

t.test("30 restarts under valgrind: no error, nothing lost", function()
  t.ok(RELEASE, "set GWHOST_RELEASE to a program built without sanitizers (make test does)")
  local report = t.dir() .. "/valgrind"
  local host = t.start({
    app = APP, policy = POLICY, program = RELEASE,
    wrap = { "valgrind", "-q", "--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=definite",
      "--errors-for-leak-kinds=definite", "--log-file=" .. report .. ".%p", "--trace-children=no" },
  })
  go(host, 30)
  host:signal("sigterm")
  local code = host:wait_exit(60000)
  local f = io.popen("cat " .. report .. ".*")
  local said = f:read("a")
  f:close()
  t.eq(code, 0, said)
  t.eq(said:match("ERROR SUMMARY: [1-9][^\n]*"), nil, said)
  t.eq(said:match("definitely lost[^\n]*"), nil, said)
end)

t.main()
