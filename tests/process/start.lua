-- Starting: one instance, listeners, options, what is refused and how it is said.
local t = require("support.harness")
local uv = require("luv")

t.test("it says what it does, in order, and serves healthz and readyz without a token", function()
  local host = t.start({})
  local order = { "host.starting", "policy.loaded", "lock.acquired", "listener.bound", "app.started", "host.ready" }
  for i = 2, #order do
    t.ok(host:position(order[i - 1]) < host:position(order[i]), order[i - 1] .. " comes before " .. order[i])
  end
  local health = host:get("/healthz", { Authorization = false })
  t.eq(health.status, 200)
  t.eq(health.json.status, "ok")
  t.eq(health.json.pid, host.pid)
  t.eq(health.json.boot_id, host.boot_id)
  t.eq(health.json.generation, 1)
  t.eq(health.headers["gwhost-generation"], host.boot_id:sub(1, 8) .. ".1")
  local ready = host:get("/readyz", { Authorization = false })
  t.eq(ready.status, 200)
  t.eq(ready.json.status, "ready")
  host:stop()
end)

t.test("a second instance waits five seconds, exits 75 and names the pid that serves", function()
  local host = t.start({ policy = [[return { restart_mode = function() return "respawn" end,
    authorize_sigusr1 = function() return true end }]] })
  local taker = host.pid
  host:restart() -- the kernel's table goes on naming the process that took the lock
  t.ok(host.pid ~= taker)
  local began = uv.hrtime()
  local second = t.start({ state_dir = host.state_dir, ready = false })
  t.eq(second:wait_exit(), 75)
  local waited = (uv.hrtime() - began) / 1e6
  t.ok(waited > 4500 and waited < 20000, "waited " .. waited)
  t.eq(second:wait("lock.busy").owner_pid, host.pid)
  t.eq(host:get("/healthz").status, 200)
  host:stop()
end)

t.test("a second instance takes over when the first one ends meanwhile", function()
  local host = t.start({})
  local second = t.start({ state_dir = host.state_dir, ready = false })
  second:wait("host.starting")
  host:stop()
  second:wait("host.ready")
  second:stop()
end)

t.test("an intent that a host before was given is not this one's, whatever its pid", function()
  local host = t.start({})
  host:stop()
  local file = host.state_dir .. "/restart-intent.json"
  for age, stays in pairs({ [-2] = false, [60] = true }) do
    t.write(file, '{"kind":"gateway-restart","pid":1,"created_at_ms":1}')
    assert(uv.fs_utime(file, os.time() + age, os.time() + age))
    local next_one = t.start({ state_dir = host.state_dir })
    t.eq(#next_one:all("intent.removed"), stays and 0 or 1)
    t.eq(uv.fs_stat(file) ~= nil, stays)
    next_one:stop()
  end
end)

t.test("what the lock file holds is no condition", function()
  for _, text in ipairs({ "", "garbage", '{"pid":1}', ('{"pid":%d}'):format(uv.os_getpid()) }) do
    local dir = t.dir()
    assert(uv.fs_mkdir(dir .. "/state", 448))
    t.write(dir .. "/state/gwhost.lock", text)
    local host = t.start({ dir = dir })
    local info = t.json.decode(t.read(dir .. "/state/gwhost.lock"))
    t.eq(info.pid, host.pid)
    t.eq(info.boot_id, host.boot_id)
    t.eq(info.listen[1], host.address)
    host:stop()
  end
end)

t.test("it listens on v4, v6 and unix sockets, and on what it is passed", function()
  local dir = t.dir()
  local host = t.start({ args = { "--listen", "[::1]:0", "--listen", "unix:" .. dir .. "/s" } })
  local bound = host:all("listener.bound")
  t.eq(#bound, 3)
  for _, e in ipairs(bound) do
    local c = t.ok(t.connect(host, e.address))
    t.eq(c:request("GET", "/healthz").status, 200)
    c:close()
  end
  host:stop()
  t.eq(uv.fs_stat(dir .. "/s"), nil)
end)

t.test("a descriptor that was passed is served", function()
  local server = uv.new_tcp()
  server:bind("127.0.0.1", 0)
  server:listen(64, function() end)
  local port = server:getsockname().port
  local host = t.start({
    listen = false, pass = server, -- as descriptor 3
    wrap = { "sh", "-c", 'export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"', "sh" },
  })
  t.eq(host.address, ("127.0.0.1:%d"):format(port))
  t.eq(host:wait("listener.bound").inherited, true)
  t.eq(host:get("/healthz").status, 200)
  host:stop()
end)

t.test("an occupied port fails the start with 1, a bundle and words that help", function()
  local host = t.start({})
  local second = t.start({ listen = host.address, ready = false })
  t.eq(second:wait_exit(), 1)
  t.match(second:wait("app.start_failed").error, "in use")
  t.match(second:wait("bundle.written").path, "gateway%.startup_failed%.json$")
  host:stop()
end)

t.test("what cannot be used as given ends with 78 before anything is touched", function()
  local cases = {
    { args = { "--policy", "/nonexistent.lua" }, say = "nonexistent" },
    { args = { "--app", "/nonexistent.lua" }, say = "nonexistent" },
    { policy = "return { drain_budget = 5 }", say = "policy.lua:1" },
    { app = "return {}\n\nsyntax error", say = "app.lua:3" },
    { args = { "--open", "--allow-exec" }, say = "allow%-exec" },
    { args = { "--open" }, listen = "0.0.0.0:0", say = "open" },
    { listen = "nowhere", say = "HOST:PORT" },
    { args = { "--token-file", "/nonexistent" }, say = "nonexistent" },
  }
  for _, case in ipairs(cases) do
    case.ready = false
    local host = t.start(case)
    t.eq(host:wait_exit(), 78, table.concat(case.args or { case.say }, " "))
    t.match(table.concat(host.lines, "\n"), case.say)
  end
end)

t.test("wrong usage ends with 2 and says what is wrong", function()
  for _, args in ipairs({ { "--nonsense" }, { "--lane", "x" }, { "--set", "novalue" }, { "--log-level", "loud" },
    { "--defer-timeout", "soon" }, { "extra" } }) do
    local host = t.start({ args = args, ready = false })
    t.eq(host:wait_exit(), 2, table.concat(args, " "))
    t.match(table.concat(host.lines, "\n"), "gwhost")
  end
end)

t.test("a state directory that others may enter is refused", function()
  local dir = t.dir()
  assert(uv.fs_mkdir(dir .. "/state", 493))
  local host = t.start({ dir = dir, ready = false })
  t.eq(host:wait_exit(), 78)
  t.match(table.concat(host.lines), "chmod 700")
end)

t.test("signals that come before the first generation is ready are honoured", function()
  local app = [[
    local gwhost = require "gwhost"
    return { start = function() gwhost.log("info", "in start") gwhost.sleep(700) return { close = function() end } end }
  ]]
  local host = t.start({ app = app, ready = false,
    policy = "return { authorize_sigusr1 = function() return true end }" })
  host:wait("app.log")
  t.eq(host.exit, nil)
  host:signal("sigusr1")
  t.eq(host:wait("host.ready").generation, 1)
  t.eq(host:wait("host.ready").generation, 2)
  host:stop()
  local stopped = t.start({ app = app, ready = false })
  stopped:wait("app.log")
  stopped:signal("sigterm")
  t.eq(stopped:wait_exit(), 0)
  t.eq(#stopped:all("host.ready"), 0)
end)

t.test("a stop while it waits for the lock ends it at once with 0", function()
  local host = t.start({})
  local second = t.start({ state_dir = host.state_dir, ready = false })
  second:wait("policy.loaded")
  second:signal("sigterm")
  t.eq(second:wait_exit(), 0)
  host:stop()
end)

t.test("a first start that fails ends with 1 and leaves a bundle; one that is too slow too", function()
  local host = t.start({ app = "return { start = function() error('no luck') end }", ready = false })
  t.eq(host:wait_exit(), 1)
  t.match(host:wait("app.start_failed").error, "app.lua:1: no luck")
  local bundle = host:wait("bundle.written")
  t.eq(bundle.reason, "gateway.startup_failed")
  local report = t.json.decode(t.read(bundle.path))
  t.match(report.error, "no luck")
  t.eq(report.pid, host.pid)
  t.eq(uv.fs_stat(bundle.path).mode & 511, 384)
  local slow = t.start({
    app = "return { start = function() require('gwhost').sleep(60000) end }",
    args = { "--start-timeout", "200ms" }, ready = false,
  })
  t.eq(slow:wait_exit(), 1)
  t.match(slow:wait("app.start_failed").error, "start%-timeout")
end)

t.test("--version and --help print to standard output", function()
  for option, want in pairs({ ["--version"] = "^gwhost %d+%.%d+%.%d+ contract 1\n$", ["--help"] = "%-%-policy" }) do
    local f = io.popen(("'%s' %s"):format(t.binary, option))
    t.match(f:read("a"), want)
    t.ok(f:close())
  end
end)

t.main()
