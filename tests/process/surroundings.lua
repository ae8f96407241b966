-- What a process is born with: closed standard streams, ignored and blocked signals, few descriptors.
local t = require("support.harness")
local uv = require("luv")

local RESTARTS = { "in_process", "respawn", "reexec" }
local POLICY = [[return { restart_mode = function(ctx) return ctx.reason ~= "SIGUSR1" and ctx.reason or "in_process" end,
  authorize_sigusr1 = function() return true end }]]

--- Runs a command of this host, its own program, in the shell; returns whether it went well and what it printed.
local function cli(host, words)
  local f = assert(io.popen(("'%s' %s 2>&1"):format(t.binary, words:gsub("@", "--state-dir '" .. host.state_dir .. "'", 1))))
  local text = f:read("a")
  return f:close(), text
end

t.test("who starts it may have ignored SIGCHLD: ends of commands are known", function()
  local host = t.start({ wrap = { "sh", "-c", 'trap "" CHLD ALRM USR2; exec "$@"', "sh" }, args = { "--allow-exec" }, policy = POLICY })
  local id = host:submit({ handler = "exec", input = { argv = { "sh", "-c", "exit 3" } } })
  t.eq(host:until_status(id, "failed").result.exit_code, 3)
  id = host:submit({ handler = "exec", input = { argv = { "grep", "SigIgn", "/proc/self/status" } } })
  t.match(host:until_status(id, "succeeded").result.stdout, "SigIgn:%s*0000000000000000")
  for _, mode in ipairs(RESTARTS) do
    t.eq(host:restarted({ reason = mode }).outcome, "restarted")
  end
  -- SIGPIPE (13) and SIGXFSZ (25) and nothing else; the C library's own two (32, 33) are not for anyone to change.
  local ignored = tonumber(t.read("/proc/" .. host.pid .. "/status"):match("SigIgn:%s*(%x+)"), 16)
  t.eq(ignored & ~(3 << 31), 1 << 12 | 1 << 24)
  host:stop()
end)

t.test("who starts it may have blocked every signal: it takes its own and lets the others come", function()
  local host = t.start({ wrap = { "env", "--block-signal", "--ignore-signal=TERM" }, policy = POLICY })
  local blocked = tonumber(t.read("/proc/" .. host.pid .. "/status"):match("SigBlk:%s*(%x+)"), 16)
  for number, name in pairs({ [17] = "SIGCHLD", [14] = "SIGALRM", [28] = "SIGWINCH" }) do
    t.eq(blocked & 1 << number - 1, 0, name)
  end
  host:restart()
  host:stop()
end)

t.test("with its standard streams closed it uses their numbers for nothing else", function()
  local host = t.start({ wrap = { "sh", "-c", 'exec "$@" <&- >&-', "sh" } })
  for fd = 0, 1 do
    local f = assert(io.popen(("readlink /proc/%d/fd/%d"):format(host.pid, fd)))
    t.eq(f:read("l"), "/dev/null")
    f:close()
  end
  host:stop()
end)

t.test("room for all descriptors is made before there are threads, in each kind of start", function()
  local host = t.start({ policy = POLICY })
  for _, mode in ipairs({ "", table.unpack(RESTARTS) }) do
    if mode ~= "" then host:restarted({ reason = mode }) end
    local limit = tonumber(t.read("/proc/" .. host.pid .. "/limits"):match("Max open files%s+(%d+)"))
    local size = tonumber(t.read("/proc/" .. host.pid .. "/status"):match("FDSize:%s*(%d+)"))
    t.ok(size >= math.min(limit, 10000), ("%s: the table has room for %d"):format(mode, size))
  end
  host:stop()
end)

for _, limit in ipairs({ 64, 128 }) do
  t.test(("with %d descriptors and as many silent clients as come, everything else goes on"):format(limit), function()
    local host = t.start({ wrap = { "sh", "-c", "ulimit -n " .. limit .. '; exec "$@"', "sh" },
      args = { "--allow-exec" }, policy = POLICY })
    local room = host:wait("connections.limited").connections
    t.eq(room, limit / 4)
    local clients = {}
    for i = 1, limit do clients[i] = assert(t.connect(host)) end
    t.eq(host:wait("connections.full").connections, room)
    for _, mode in ipairs(RESTARTS) do
      local ok, text = cli(host, "status @")
      t.ok(ok, text)
      ok, text = cli(host, "reload @")
      t.ok(ok, text)
      host:signal("sighup")
      host:wait("policy.loaded")
      for _ = 1, 4 do
        ok, text = cli(host, "submit @ --wait exec -- echo done")
        t.ok(ok, text)
      end
      ok, text = cli(host, "restart @ --reason " .. mode)
      t.ok(ok, text)
      host:wait("host.ready")
    end
    t.eq(#host:all("connections.limited"), 1)
    t.ok(#host:all("connections.full") <= 3, "said more often than once by a process")
    for i = 1, limit do clients[i]:close() end
    host:wait("connections.room")
    t.eq(host:get("/readyz").status, 200)
    host:stop()
  end)
end

-- ---- what the system refuses ----

--- A host, or the image after a reexec, whose nth call is refused; strace stays in between and passes its exit code on.
local function refused(call, why, nth, spec)
  spec.env = { "ASAN_OPTIONS=detect_leaks=0" } -- which a process that is traced cannot do
  spec.wrap = { "strace", "-f", "-qq", "-o", "/dev/null", "-e", "signal=none", "-e", "trace=" .. call,
    "-e", ("inject=%s:error=%s:when=%d"):format(call, why, nth) }
  spec.env = { "ASAN_OPTIONS=detect_leaks=0" } -- which does not work under ptrace, and ends with 1
  return t.start(spec)
end

for _, case in ipairs({ { "epoll_create1", "EMFILE", 1 }, { "eventfd2", "EMFILE", 1 }, { "eventfd2", "EMFILE", 2 },
  { "clone3", "EAGAIN", 1 }, { "timer_create", "EAGAIN", 1 }, { "epoll_ctl", "ENOSPC", 1 },
  { "flock", "ENOLCK", 1 } }) do
  t.test(("a first start whose %s is refused with %s says so and exits with 1 (%d)"):format(case[1], case[2], case[3]), function()
    local host = refused(case[1], case[2], case[3], { ready = false })
    t.eq(host:wait_exit(), 1)
    local said
    for _, e in ipairs(host.events) do said = said or e.level == "error" end
    t.ok(said, host:log_tail())
  end)
end

t.test("a first start that has no descriptors for an event loop says so and exits with 1", function()
  local host = t.start({ ready = false, wrap = { "prlimit", "--nofile=5:5" } })
  t.eq(host:wait_exit(), 1)
  t.match(host:wait("app.start_failed").error, "event loop")
end)

--- strace without -f stays with the main thread, over its execve: the calls are those of the images that come next.
for _, case in ipairs({
  { "goes back to the one that it comes from", "epoll_create1", "EMFILE", "2", "event loop" },
  { "goes back, and what that one lacks too is waited for", "epoll_create1", "EMFILE", "2..4", "event loop" },
  { "serves without it until it can be had", "clone3", "EAGAIN", "3..6" } }) do
  local name, call, why, when, lacks = table.unpack(case)
  t.test(("an image whose %s is refused (%s) %s"):format(call, when, name), function()
    local host = t.start({ policy = [[return { restart_mode = function() return "reexec" end }]],
      env = { "ASAN_OPTIONS=detect_leaks=0" },
      wrap = { "strace", "-qq", "-o", "/dev/null", "-e", "signal=none", "-e", "trace=" .. call,
        "-e", ("inject=%s:error=%s:when=%s"):format(call, why, when) } })
    local c = t.ok(t.connect(host)) -- lives through all of them
    local before = c:request("GET", "/healthz").json
    t.eq(before.pid, host.pid)
    local pid, outcome = host.pid, host:restarted({})
    t.eq(outcome.outcome, lacks and "failed" or "restarted")
    if lacks then t.match(outcome.why, lacks) end
    local after = c:request("GET", "/healthz").json
    t.eq(after.pid, pid)
    t.ok(after.boot_id ~= before.boot_id)
    t.eq(host:get("/readyz").status, 200)
    host:until_status(host:submit({ handler = "echo" }), "succeeded")
    c:close()
    host:signal("sigterm") -- heard, whoever takes the signals by now
    t.eq(host:wait_exit(), 0)
  end)
end

-- What passes is 1, and a supervisor tries again; what was given and cannot be used is 78, and it does not.
t.test("a file that was given and cannot be read ends with 1 where that passes, with 78 where it does not", function()
  local dir = t.dir()
  t.write(dir .. "/module.lua", "return {}")
  local files = { module = dir .. "/module.lua", token = t.write(dir .. "/token", "sesam"),
    policy = t.write(dir .. "/policy.lua", 'local m = require("module") return {}'),
    app = t.write(dir .. "/app.lua", "return { start = function() return { close = function() end } end }") }
  for file, path in pairs(files) do
    local jobs = {}
    for why, code in pairs({ EMFILE = 1, EIO = 1, EACCES = 78, ENOENT = 78 }) do
      jobs[#jobs + 1] = t.go(function()
        local host = t.start({ ready = false, env = { "ASAN_OPTIONS=detect_leaks=0" },
          args = { "--policy", files.policy, "--app", files.app, "--token-file", files.token },
          wrap = { "strace", "-f", "-qq", "-o", "/dev/null", "-e", "signal=none", "-P", path, "-e", "trace=openat",
            "-e", "inject=openat:error=" .. why } })
        t.eq(host:wait_exit(), code, file .. " " .. why)
      end)
    end
    t.join(jobs)
  end
end)

t.test("an interrupted call is made again", function()
  for nth = 1, 3 do
    local host = refused("getrandom", "EINTR", nth, {})
    host:signal("sigterm")
    t.eq(host:wait_exit(), 0)
  end
end)

-- ---- the log ----

t.test("a log that nobody reads stops neither service nor a stop", function()
  local dir = t.dir()
  assert(os.execute("mkfifo " .. dir .. "/log"))
  local reader = assert(uv.fs_open(dir .. "/log", "r+", 0))
  local host = t.start({ wrap = { "sh", "-c", 'exec "$@" 2>' .. dir .. "/log", "sh" }, listen = "unix:" .. dir .. "/gw.sock",
    ready = false })
  host.address = "unix:" .. dir .. "/gw.sock"
  t.poll("the socket", function() return uv.fs_stat(host.state_dir .. "/control.sock") end)
  t.ask_until("a start", function() return host:get("/readyz").status == 200 end)
  local c = t.connect(host, "unix:" .. host.state_dir .. "/control.sock")
  for _ = 1, 20 do
    c:send(('{"op":"reload"}\n'):rep(100))
    t.eq(host:get("/healthz").status, 200)
  end
  local lost = t.read(host.state_dir .. "/token")
  host.token = lost:match("%x+")
  t.ask_until("lost lines", function()
    c:send(('{"op":"reload"}\n'):rep(100))
    return tonumber(host:get("/metrics").body:match("log_lost_total (%d+)")) > 0
  end)
  c:close()
  host:signal("sigterm")
  t.eq(host:wait_exit(), 0)
  uv.fs_close(reader)
end)

t.test("the end of what its reader took late comes without another line", function()
  local host = t.start({}) -- its log is a socket, as under systemd
  local c = t.connect(host, "unix:" .. host.state_dir .. "/control.sock")
  c.stream:try_write(('{"op":"reload"}\n'):rep(1000))
  uv.sleep(1500) -- nobody reads meanwhile
  c:send('{"op":"status","id":1}\n')
  c:until_match('"id":1[,}]')
  t.until_true("the last lines", function()
    local lost = host:all("log.lost")[1]
    return #host:all("policy.loaded") + (lost and lost.lines or 0) > 1000
  end)
  host:stop()
end)

t.main()
