-- Work at its edges: a child that prints a gigabyte, one whose pipe outlives it, a disk that is full, a store
-- that is damaged, a queue that is long.
local t = require("support.harness")
local uv = require("luv")

local function rss_kb(pid)
  return tonumber(t.read("/proc/" .. pid .. "/status"):match("VmHWM:%s*(%d+)"))
end

t.test("a child printing 1 GiB finishes, with flat memory of the host", function()
  local host = t.start({ args = { "--allow-exec" } })
  local small = host:submit({ handler = "exec", input = { argv = { "sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x" } } })
  host:until_status(small, "succeeded")
  local before = rss_kb(host.pid)
  local id = host:submit({ handler = "exec", input = { argv = { "sh", "-c", "head -c 1073741824 /dev/zero; echo end" } } })
  host:wait("task.changed", function(e) return e.task_id == id and e.status == "succeeded" end, 120000)
  local task = host:get("/v1/tasks/" .. id).json
  t.eq(task.status, "succeeded")
  t.eq(task.result.truncated, true)
  t.match(task.result.stdout, "end\n$")
  t.ok(rss_kb(host.pid) - before < 20000, ("the host grew from %d to %d KiB"):format(before, rss_kb(host.pid)))
  host:stop()
end)

t.test("a grandchild that holds the pipe does not hold the task, and ends with it", function()
  local host = t.start({ args = { "--allow-exec" } })
  local id = host:submit({ handler = "exec", input = { argv = { "sh", "-c", "sleep 120 & echo $!" } } })
  local task = host:until_status(id, "succeeded")
  local pid = tonumber(task.result.stdout)
  t.poll("the end of " .. pid, function() return not uv.fs_stat("/proc/" .. pid) end)
  host:stop()
end)

t.test("a full disk: submits get 503 store_unavailable, running work goes on, service resumes when there is room", function()
  local dir = t.dir()
  os.execute("mkdir " .. dir .. "/state && chmod 700 " .. dir .. "/state")
  if not os.execute(("mount -t tmpfs -o size=4m,mode=0700 none '%s/state' 2>/dev/null"):format(dir)) then
    t.skip_this("mounting a small tmpfs needs root")
  end
  local ok, err = pcall(function()
    local host = t.start({ dir = dir })
    local running = host:submit({ handler = "sleep", input = { ms = 2500 } })
    host:until_status(running, "running")
    os.execute(("head -c 16000000 /dev/zero > '%s/state/ballast' 2>/dev/null"):format(dir))
    local refused
    for _ = 1, 200 do
      refused = host:post("/v1/tasks", { handler = "echo", input = { fill = ("x"):rep(20000) } })
      if refused.status ~= 202 then break end
    end
    t.eq(refused.status, 503)
    t.eq(refused.json.error.code, "store_unavailable")
    t.ok(tonumber(refused.headers["retry-after"]) >= 1)
    host:wait("store.unavailable")
    t.eq(host:get("/healthz").status, 200)
    t.eq(host:get("/readyz").json.store, "unavailable")
    t.match(host:get("/metrics").body, "gwhost_store_available 0\n")
    t.pause(2600) -- the running task ends meanwhile, and its end cannot be written
    assert(os.remove(dir .. "/state/ballast"))
    host:wait("store.recovered")
    t.eq(host:until_status(running, "succeeded").result.slept_ms, 2500)
    host:submit({ handler = "echo" })
    t.eq(host:get("/v1/status").json.store, "ok")
    host:stop()
  end)
  os.execute(("umount -l '%s/state'"):format(dir))
  if not ok then error(err, 0) end
end)

t.test("a damaged store is moved aside, never deleted, and a new one serves", function()
  local host = t.start({})
  host:submit({ handler = "echo" })
  host:stop()
  t.write(host.state_dir .. "/tasks.db", ("garbage "):rep(1000))
  local again = t.start({ state_dir = host.state_dir })
  local moved = again:all("store.corrupt")[1].moved_to
  t.match(t.read(moved), "^garbage")
  again:submit({ handler = "echo" })
  again:stop()
end)

t.test("a store that another program keeps locked gets words that help", function()
  local host = t.start({})
  host:submit({ handler = "echo" })
  host:stop()
  os.execute("rm -rf '" .. host.state_dir .. "/tasks.db'* && mkdir '" .. host.state_dir .. "/tasks.db'")
  local again = t.start({ state_dir = host.state_dir, ready = false })
  t.eq(again:wait_exit(), 1)
  t.match(again:wait("app.start_failed").error, "tasks.db")
end)

t.main()
