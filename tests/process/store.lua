-- The task store in trouble, at each step of coming back: another process has its lock, the disk is full, slow or fails,
-- the file goes away, is a newer program's or an older copy. Nobody is refused, nothing is told wrong, and it is as
-- before when the cause has gone.
local t = require("support.harness")
local uv = require("luv")

local function policy(mode, budget)
  return ([[return { authorize_sigusr1 = function() return true end,
    drain_budget = function(ctx) return ctx.action == "stop" and 0 or %d end,
    restart_mode = function() return "%s" end }]]):format(budget or 60000, mode)
end

local function has(program)
  return os.execute(("command -v %s >/dev/null 2>&1"):format(program))
end

local function sql(host, words)
  local f = assert(io.popen(("sqlite3 '%s/tasks.db' \"%s\" 2>&1"):format(host.state_dir, words)))
  local said = f:read("a")
  f:close()
  return (said:gsub("%s+$", ""))
end

--- Another process has the write lock of the store until the function that is returned is called.
local function locked(state_dir)
  local sign = t.dir() .. "/locked"
  local f = assert(io.popen(("sqlite3 '%s/tasks.db'"):format(state_dir), "w"))
  f:write(".timeout 5000\nBEGIN IMMEDIATE;\n.shell touch " .. sign .. "\n")
  f:flush()
  t.poll("the lock", function() return uv.fs_stat(sign) end)
  return function()
    f:write("ROLLBACK;\n.quit\n")
    f:close()
  end
end

--- strace puts a fault into the store thread's calls until the function that is returned is called.
local function inject(host, call, what)
  local tid
  for entry in uv.fs_scandir_next, uv.fs_scandir("/proc/" .. host.pid .. "/task") do
    if t.read(("/proc/%d/task/%s/comm"):format(host.pid, entry)):match("gwhost%-store") then tid = entry end
  end
  local tracer = uv.spawn("strace", { args = { "-q", "-qq", "-o", "/dev/null", "-e", "trace=" .. call, "-e",
    "inject=" .. call .. ":" .. what, "-p", t.ok(tid, "no store thread") } }, function() t.wake() end)
  t.poll("the tracer", function()
    return not t.read(("/proc/%d/task/%s/status"):format(host.pid, tid)):match("TracerPid:\t0\n")
  end)
  return function()
    if tracer:is_closing() then return end
    tracer:kill("sigint")
    t.poll("the end of the tracer", function()
      local f = io.open(("/proc/%d/task/%s/status"):format(host.pid, tid))
      local text = f and f:read("a")
      if f then f:close() end
      return not text or text:match("TracerPid:\t0\n")
    end)
    tracer:close()
  end
end

--- Clients that come all the time, each on a connection of its own. The function that is returned ends them, and fails
--- if one was not answered.
local function callers(host)
  local over, answered, failed = false, 0, nil
  local job = t.go(function()
    while not over do
      local ok, a = pcall(host.get, host, "/healthz")
      if ok and a.status == 200 then answered = answered + 1 else failed = failed or tostring(ok and a.status or a) end
      t.pause(10)
    end
  end)
  return function()
    over = true
    t.join({ job })
    t.eq(failed, nil, "a client that was not served")
    t.ok(answered > 0)
  end
end

local function is_well(host)
  t.ask_until("the store is well", function() return host:get("/readyz").json.store == "ok" end)
  host:until_status(host:submit({ handler = "echo" }), "succeeded")
end

local function test(name, needs, fn)
  for _, program in ipairs(needs) do
    if not has(program) then
      t.skip(name, ("no %s here"):format(program))
      return
    end
  end
  t.test(name, fn)
end

local function on_a_small_disk(fn)
  local dir = t.dir()
  os.execute("mkdir -p " .. dir .. "/state && chmod 700 " .. dir .. "/state")
  if not os.execute(("mount -t tmpfs -o size=3m,mode=0700 none '%s/state' 2>/dev/null"):format(dir)) then
    t.skip_this("mounting a small tmpfs needs root")
  end
  local ok, err = pcall(fn, dir)
  os.execute(("umount -l '%s/state'"):format(dir))
  if not ok then error(err, 0) end
end

test("a lock that another process has for a moment does not keep a host from its next process", { "sqlite3" }, function()
  for _, mode in ipairs { "respawn", "reexec" } do
    local host = t.start({ policy = policy(mode, 100) })
    local boot, old = host.boot_id, host:submit({ handler = "echo" })
    host:until_status(old, "succeeded")
    local done, release = callers(host), locked(host.state_dir)
    local id = host:control({ op = "restart" }).result.request_id
    t.pause(700)
    release()
    t.eq(host:wait("restart.outcome", function(e) return e.request_id == id end).outcome, "restarted", mode)
    t.ok(host:get("/healthz").json.boot_id ~= boot, "another boot after " .. mode)
    is_well(host)
    done()
    t.eq(host:get("/v1/tasks/" .. old).json.status, "succeeded")
    host:stop()
  end
end)

test("a lock that stays leaves the host where it is, and it serves on", { "sqlite3" }, function()
  for _, how in ipairs { { "respawn", "restarted" }, { "reexec", "restarted" }, { "respawn", "failed", update = true } } do
    local host = t.start({ policy = policy(how[1], 100) })
    local pid, boot = host.pid, host.boot_id
    local kept = host:submit({ handler = "sleep", input = { ms = 600000 }, on_interrupt = "retry" })
    host:until_status(kept, "running")
    local done, release = callers(host), locked(host.state_dir)
    t.eq(host:restarted({ update = how.update }).outcome, how[2], how[1])
    local health = host:get("/healthz").json
    t.ok(health.pid == pid and health.boot_id == boot, "the host itself after " .. how[1])
    t.eq(host:get("/readyz").json.store, "unavailable")
    t.match(host:get("/v1/status").json.store_error, "locked by another process")
    t.eq(host:post("/v1/tasks", { handler = "echo" }).json.error.code, "store_unavailable")
    -- What is known to be ill is not handed over, and an update is not begun.
    if how.update then
      t.eq(host:restarted({ update = true }).outcome, "rolled_back")
    else
      t.eq(host:restarted({}).outcome, "restarted")
      t.match(host:wait("restart.mode_changed").why, "store cannot be written")
    end
    release()
    is_well(host)
    done()
    t.eq(host:until_status(kept, "running").attempts, 2)
    host:stop()
  end
end)

test("a lock that comes between the two owners is waited for by the next one, or leaves the old one serving", { "sqlite3" },
  function()
    for _, stays in ipairs { false, true } do
      local host = t.start({ policy = [[return { authorize_sigusr1 = function() return true end,
        restart_mode = function() return "respawn" end,
        drain_budget = function(ctx) return ctx.action == "stop" and 0 or 60000 end }]] })
      local pid, id = host.pid, host:submit({ handler = "sleep", input = { ms = 600000 } })
      host:until_status(id, "running")
      local done = callers(host)
      local request = host:control({ op = "restart" }).result.request_id
      local child = host:wait("respawn.ready").child_pid
      host:wait("drain.started")
      assert(uv.kill(child, "sigstop"))
      t.eq(host:post("/v1/tasks/" .. id .. "/cancel").status, 202)
      t.poll("the old one lets go", function()
        for fd in uv.fs_scandir_next, uv.fs_scandir("/proc/" .. pid .. "/fd") do
          if (uv.fs_readlink("/proc/" .. pid .. "/fd/" .. fd) or ""):match("tasks%.db$") then return false end
        end
        return true
      end)
      local release = locked(host.state_dir)
      assert(uv.kill(child, "sigcont"))
      host:wait("store.unavailable", function(e) return e.pid == child end)
      -- Who asks the application meanwhile is answered by whoever goes on.
      local asked = t.go(function() t.eq(host:request("GET", "/nothing", nil, nil, 20000).status, 404) end)
      if not stays then release() end
      t.eq(host:wait("restart.outcome", function(e) return e.request_id == request end).outcome, "restarted")
      t.eq(host:get("/healthz").json.pid, stays and pid or child)
      t.join({ asked })
      if stays then
        t.match(host:wait("respawn.failed").error, "locked by another process")
        t.eq(host:get("/readyz").json.store, "unavailable")
        release()
      end
      is_well(host)
      done()
      t.eq(host:get("/v1/tasks/" .. id).json.status, "cancelled")
      host:stop()
    end
  end)

test("a first start waits for a lock, answers meanwhile, and remembers what it is asked", { "sqlite3" }, function()
  local host = t.start()
  local id = host:submit({ handler = "echo" })
  host:until_status(id, "succeeded")
  host:stop()
  local release = locked(host.state_dir)
  local again = t.start({ state_dir = host.state_dir, ready = false, policy = policy("in_process") })
  local said = again:wait("store.unavailable")
  t.match(said.error, "locked by another process")
  again.address = again:wait("listener.bound").address
  t.eq(again:get("/readyz").status, 503)
  again:signal("sigusr1")
  again:wait("restart.requested")
  release()
  t.eq(again:wait("host.ready").generation, 1)
  t.eq(again:wait("host.ready").generation, 2)
  again.token = t.read(again.state_dir .. "/token"):match("%x+")
  is_well(again)
  t.eq(again:get("/v1/tasks/" .. id).json.status, "succeeded")
  again:stop()

  release = locked(host.state_dir)
  local never = t.start({ state_dir = host.state_dir, ready = false })
  never:wait("store.unavailable")
  never:signal("sigterm") -- and a stop is heard
  t.eq(never:wait_exit(), 0)
  release()
end)

test("a store that cannot have its thread yet gets it", { "strace" }, function()
  local host = t.start({ env = { "ASAN_OPTIONS=detect_leaks=0" }, ready = false, wrap = { "strace", "-D", "-o", "/dev/null",
    "-e", "trace=clone3", "-e", "inject=clone3:error=EAGAIN:when=2..3" } })
  t.match(host:wait("store.unavailable").error, "thread")
  host:wait("store.recovered")
  host:wait("host.ready")
  host.token = t.read(host.state_dir .. "/token"):match("%x+")
  is_well(host)
  host:stop()
end)

t.test("on a full disk a host stays where it is, says why, and loses nothing", function()
  for _, how in ipairs { { "respawn", "restarted" }, { "reexec", "restarted" }, { "respawn", "rolled_back", update = true } } do
    on_a_small_disk(function(dir)
      local host = t.start({ dir = dir, policy = policy(how[1], 100) })
      local pid, boot = host.pid, host.boot_id
      local id = host:submit({ handler = "sleep", input = { ms = 300 } })
      host:until_status(id, "running")
      os.execute(("head -c 8000000 /dev/zero > '%s/state/ballast' 2>/dev/null"):format(dir))
      host:wait("store.unavailable") -- its end cannot be written
      t.match(host:get("/metrics").body, "gwhost_store_ends_waiting 1\n")
      local done = callers(host)
      t.eq(host:restarted({ update = how.update }).outcome, how[2], how[1])
      t.eq(host:get("/healthz").json.pid, pid)
      t.eq(host:get("/healthz").json.boot_id, boot)
      assert(os.remove(dir .. "/state/ballast"))
      is_well(host)
      t.eq(host:until_status(id, "succeeded").attempts, 1)
      done()
      host:stop()
    end)
  end
end)

test("tasks that are cut over a slow disk are interrupted or tried again, and never lost", { "strace" }, function()
  for _, mode in ipairs { "respawn", "reexec" } do
    local host = t.start({ policy = policy(mode, 0), args = { "--lane", "main=3" } })
    local cut = host:submit({ handler = "sleep", input = { ms = 600000 } })
    local again = host:submit({ handler = "sleep", input = { ms = 300 }, on_interrupt = "retry" })
    for _, id in ipairs { cut, again } do host:until_status(id, "running") end
    local done, quick = callers(host), inject(host, "fdatasync", "delay_enter=1300000")
    local id = host:control({ op = "restart" }).result.request_id
    t.eq(host:wait("restart.outcome", function(e) return e.request_id == id end).outcome, "restarted")
    quick()
    t.eq(host:until_status(cut, "interrupted").attempts, 1)
    t.ok(host:until_status(again, "succeeded").attempts <= 2)
    is_well(host)
    done()
    host:stop()
  end
end)

test("what was refused because a commit failed is not there after a kill", { "strace" }, function()
  local host = t.start()
  host:until_status(host:submit({ handler = "echo" }), "succeeded")
  local quick = inject(host, "fdatasync", "error=EIO:when=1")
  local refused = host:post("/v1/tasks", { handler = "echo", label = "refused" })
  t.eq(refused.status, 503)
  uv.kill(host.pid, "sigkill")
  host:wait_exit()
  quick()
  local again = t.start({ state_dir = host.state_dir })
  for _, task in ipairs(again:get("/v1/tasks").json.tasks) do t.ok(task.label ~= "refused", "it was refused") end
  again:stop()

  -- Where nothing can be written over it, the answer does not claim what is not known.
  again = t.start({ state_dir = host.state_dir })
  quick = inject(again, "fdatasync", "error=EIO")
  local unknown = again:post("/v1/tasks", { handler = "echo", label = "unknown" }, nil, 20000)
  t.eq(unknown.status, 503)
  t.match(unknown.json.error.message, "not known whether")
  quick()
  is_well(again)
  again:stop()
end)

test("a store that is removed under a host is put back, and what was accepted is found in the next process", {}, function()
  for _, mode in ipairs { "respawn", "reexec", "in_process" } do
    local host = t.start({ policy = policy(mode) })
    host:until_status(host:submit({ handler = "echo" }), "succeeded")
    os.execute(("rm '%s'/tasks.db*"):format(host.state_dir))
    local id = host:submit({ handler = "echo" })
    host:wait("store.put_back")
    t.eq(host:restarted({}).outcome, "restarted")
    t.eq(host:until_status(id, "succeeded").task_id, id)
    host:stop()
  end
end)

test("a store whose name something else has serves nobody, and is itself again when that has gone", {}, function()
  for _, mode in ipairs { "respawn", "reexec" } do
    local host = t.start({ policy = policy(mode) })
    local db, pid = host.state_dir .. "/tasks.db", host.pid
    local id = host:submit({ handler = "echo" })
    host:until_status(id, "succeeded")
    assert(os.rename(db, db .. ".away"))
    assert(uv.fs_mkdir(db, 448))
    local done = callers(host)
    t.eq(host:restarted({}).outcome, "restarted")
    t.eq(host:get("/healthz").json.pid, pid)
    t.eq(host:post("/v1/tasks", { handler = "echo" }).json.error.code, "store_unavailable")
    t.match(host:get("/v1/status").json.store_error, "move it away")
    assert(uv.fs_rmdir(db))
    assert(os.rename(db .. ".away", db))
    is_well(host)
    done()
    t.eq(host:get("/v1/tasks/" .. id).json.status, "succeeded")
    host:stop()
  end
end)

test("a store of a newer program is refused at a start, and by a successor, but not by the host that has it", { "sqlite3" },
  function()
    local host = t.start({ policy = policy("respawn") })
    host:until_status(host:submit({ handler = "echo" }), "succeeded")
    sql(host, "PRAGMA user_version = 99")
    local boot, done = host.boot_id, callers(host)
    t.eq(host:restarted({}).outcome, "restarted")
    t.match(host:wait("respawn.failed").error, "schema 99")
    t.eq(host:get("/healthz").json.boot_id, boot)
    is_well(host)
    done()
    host:stop()
    local refused = t.start({ state_dir = host.state_dir, ready = false })
    t.match(refused:wait("app.start_failed").error, "start the program that made it")
    t.eq(refused:wait_exit(), 78)
  end)

test("a store that is older than what was acknowledged is said, and shown", {}, function()
  local host = t.start()
  host:until_status(host:submit({ handler = "echo" }), "succeeded")
  uv.kill(host.pid, "sigkill")
  host:wait_exit()
  os.execute(("rm '%s'/tasks.db-wal"):format(host.state_dir))
  local again = t.start({ state_dir = host.state_dir })
  local said = again:wait("store.older")
  t.ok(said.acknowledged > said.commits)
  t.eq(again:get("/v1/status").json.store_older.acknowledged, said.acknowledged)
  again:stop()
  local third = t.start({ state_dir = host.state_dir })
  t.eq(#third:all("store.older"), 0)
  third:stop()
end)

test("tasks of a lane that no option names any more run, and that is said", {}, function()
  local host = t.start({ args = { "--lane", "old=0" } })
  local ids = {}
  for i = 1, 3 do ids[i] = host:submit({ handler = "echo", lane = "old" }) end
  host:stop()
  local again = t.start({ state_dir = host.state_dir })
  local said = again:wait("lane.unknown")
  t.eq(said.lane, "old")
  t.eq(said.queued, 3)
  for _, id in ipairs(ids) do again:until_status(id, "succeeded") end
  t.eq(again:post("/v1/tasks", { handler = "echo", lane = "old" }).status, 400)
  again:stop()
end)

test("how long tasks are kept is an option, and a word that is none is refused with what is right", {}, function()
  local host = t.start({ args = { "--keep-tasks", "2" } })
  local first
  for _ = 1, 12 do
    local id = host:submit({ handler = "echo" })
    host:until_status(id, "succeeded")
    first = first or id
  end
  t.ask_until("the first one has gone", function() return host:get("/v1/tasks/" .. first).status == 404 end)
  t.match(host:get("/metrics").body, "gwhost_store_log_bytes %d%d+")
  host:stop()
  local wrong = t.start({ args = { "--keep-tasks", "7 days" }, ready = false })
  t.eq(wrong:wait_exit(), 2)
  t.match(table.concat(wrong.lines, "\n"), "7d,100000,1GiB")
end)

t.main()
