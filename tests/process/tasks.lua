-- Tasks and commands as an outsider meets them: lanes, priorities, time-outs, cancelling, exec, handler files.
local t = require("support.harness")
local uv = require("luv")

local FINAL = { succeeded = true, failed = true, timed_out = true, cancelled = true, interrupted = true, lost = true }

--- The task once it is final.
local function ended(host, id)
  local last
  t.until_true(function() return "the end of " .. t.json.encode(last) end, function()
    return #host:all("host.exiting") > 0 or (function()
      for i = #host.events, 1, -1 do
        local e = host.events[i]
        if e.event == "task.changed" and e.task_id == id and FINAL[e.status] then return true end
      end
    end)()
  end)
  last = host:get("/v1/tasks/" .. id).json
  t.ok(FINAL[last.status], "final: " .. last.status)
  return last
end

local function running(host, id)
  host:wait("task.changed", function(e) return e.task_id == id and e.status == "running" end)
  host.seen["task.changed"] = nil
end

--- Whether a process of this group lives; one that is dead but not yet waited for does not.
local function group_lives(pid)
  for line in io.popen("cat /proc/[0-9]*/stat 2>/dev/null"):lines() do
    local state, group = line:match("^%d+ %(.*%) (%a) %d+ (%d+)")
    if tonumber(group) == pid and state ~= "Z" then return true end
  end
end

local function exec(host, input)
  return ended(host, host:submit({ handler = "exec", input = input }))
end

t.test("a task is accepted with 202, has all its fields from the start, and keeps its result", function()
  local host = t.start({})
  local a = host:post("/v1/tasks", { handler = "echo", input = { v = 1 }, label = "l", title = "grüße",
    priority = "high" })
  t.eq(a.status, 202)
  t.eq(a.json.status, "queued")
  local task = ended(host, a.json.task_id)
  local raw = host:get("/v1/tasks/" .. a.json.task_id).body
  local want = { task_id = "string", handler = "string", lane = "string", priority = "string", label = "string",
    title = "string", status = "string", created_at = "integer", started_at = "integer", ended_at = "integer",
    attempts = "integer", boot_id = "string", ended_by_boot_id = "string", result = "table" }
  for name, kind in pairs(want) do t.eq(math.type(task[name]) or type(task[name]), kind, name) end
  for _, name in ipairs({ "progress", "error" }) do t.match(raw, ('"%s":null'):format(name)) end
  for name in pairs(task) do t.ok(want[name], name .. " is not in the contract") end
  t.eq(task.lane, "main")
  t.eq(task.priority, "high")
  t.eq(task.title, "grüße")
  t.eq(task.status, "succeeded")
  t.eq(task.attempts, 1)
  t.eq(task.result.v, 1)
  t.eq(task.boot_id, host.boot_id)
  t.ok(task.created_at > 1.6e12 and task.created_at <= task.started_at and task.started_at <= task.ended_at)
  local second = host:post("/v1/tasks", { handler = "sleep", input = { ms = 60000 } }).json.task_id
  running(host, second)
  raw = host:get("/v1/tasks/" .. second).body
  for _, name in ipairs({ "ended_at", "ended_by_boot_id", "result", "label", "title" }) do
    t.match(raw, ('"%s":null'):format(name))
  end
  host:stop()
end)

t.test("a lane of one keeps the order, a full queue refuses with 429, a lane of none waits", function()
  local host = t.start({ args = { "--lane", "one=1", "--lane", "full=1:2", "--lane", "off=0" } })
  local ids = {}
  for i = 1, 20 do ids[i] = host:submit({ handler = "echo", lane = "one", input = { i = i } }) end
  local last = 0
  for _, id in ipairs(ids) do
    local task = ended(host, id)
    t.ok(task.started_at >= last, "in order")
    last = task.ended_at
  end
  local first = host:submit({ handler = "sleep", lane = "full", input = { ms = 60000 } })
  running(host, first)
  for _ = 1, 2 do host:submit({ handler = "echo", lane = "full" }) end
  local a = host:post("/v1/tasks", { handler = "echo", lane = "full" })
  t.eq(a.status, 429, a.body)
  t.eq(a.json.error.code, "busy")
  t.match(a.json.error.message, "full")
  t.ok(tonumber(a.headers["retry-after"]) >= 1 and a.json.error.retry_after_ms > 0, a.body)
  local waiting = host:submit({ handler = "echo", lane = "off" })
  ended(host, host:submit({ handler = "echo" }))
  t.eq(host:get("/v1/tasks/" .. waiting).json.status, "queued")
  t.eq(host:get("/v1/status").json.work.lanes.off.queued, 1)
  host:stop()
end)

t.test("high goes before normal before low, each in the order of its arrival", function()
  local host = t.start({ args = { "--lane", "one=1" } })
  running(host, host:submit({ handler = "sleep", lane = "one", input = { ms = 400 } }))
  local want = {}
  for _, p in ipairs({ "low", "normal", "high" }) do
    for i = 1, 3 do
      local id = host:submit({ handler = "sleep", lane = "one", priority = p, input = { ms = 2 } })
      want[#want + 1] = { p = p, i = i, id = id }
    end
  end
  local rank = { high = 1, normal = 2, low = 3 }
  table.sort(want, function(a, b) return rank[a.p] * 10 + a.i < rank[b.p] * 10 + b.i end)
  for _, w in ipairs(want) do ended(host, w.id) end
  local started = {}
  for _, e in ipairs(host:all("task.changed")) do
    if e.status == "running" then started[#started + 1] = e.task_id end
  end
  for i, w in ipairs(want) do t.eq(started[i + 1], w.id, "number " .. i) end
  host:stop()
end)

t.test("a task that takes too long is timed_out, and its command is ended", function()
  local host = t.start({ args = { "--allow-exec" } })
  local nap = ended(host, host:submit({ handler = "sleep", timeout_ms = 100, input = { ms = 60000 } }))
  t.eq(nap.status, "timed_out")
  t.match(nap.error, "100")
  local id = host:submit({ handler = "exec", timeout_ms = 300, input = { argv = { "sh", "-c",
    "echo $$; exec sleep 60" } } })
  local task = ended(host, id)
  t.eq(task.status, "timed_out")
  t.eq(uv.kill(tonumber(task.result.stdout), 0), nil)
  host:stop()
end)

t.test("cancelling: a queued task at once, a running one with its command, a final one never", function()
  local host = t.start({ args = { "--allow-exec", "--lane", "off=0" } })
  local queued = host:submit({ handler = "echo", lane = "off" })
  local a = host:post("/v1/tasks/" .. queued .. "/cancel")
  t.eq(a.status, 202, a.body)
  t.eq(ended(host, queued).status, "cancelled")
  a = host:post("/v1/tasks/" .. queued .. "/cancel")
  t.eq(a.status, 409, a.body)
  t.eq(a.json.error.code, "conflict")
  t.match(a.json.error.message, "ended already")

  local nap = host:submit({ handler = "sleep", input = { ms = 60000 } })
  running(host, nap)
  t.eq(host:post("/v1/tasks/" .. nap .. "/cancel").status, 202)
  t.eq(ended(host, nap).status, "cancelled")

  -- One that ends at TERM, and one that has to be killed: the whole group goes.
  for _, case in ipairs({ { "trap 'echo bye; exit 7' TERM; echo $$ > %s; while :; do sleep 0.05; done", 0 },
    { "trap '' TERM; echo $$ > %s; while :; do sleep 0.05; done", 4500 } }) do
    local file = t.dir() .. "/pid"
    local id = host:submit({ handler = "exec", input = { argv = { "sh", "-c", case[1]:format(file) } } })
    t.poll("the command", function() return (uv.fs_stat(file) or { size = 0 }).size > 1 end)
    local pid, began = tonumber(t.read(file)), t.now()
    t.eq(host:post("/v1/tasks/" .. id .. "/cancel").status, 202)
    local task = ended(host, id)
    t.eq(task.status, "cancelled")
    t.ok((t.now() - began) / 1e6 >= case[2], "TERM comes first")
    t.ok(not group_lives(pid), "nothing of the group is left")
  end
  host:stop()
end)

t.test("an Idempotency-Key names one task, and another body with it is a conflict", function()
  local host = t.start({})
  local key = { ["Idempotency-Key"] = "order-17" }
  local first = host:post("/v1/tasks", '{"handler":"echo","input":{"a":1}}', key)
  t.eq(first.status, 202)
  for _ = 1, 3 do
    local again = host:post("/v1/tasks", '{"handler":"echo","input":{"a":1}}', key)
    t.eq(again.status, 202)
    t.eq(again.json.task_id, first.json.task_id)
  end
  local other = host:post("/v1/tasks", '{"handler":"echo","input":{"a":2}}', key)
  t.eq(other.status, 409, other.body)
  t.eq(other.json.error.code, "conflict")
  t.match(other.json.error.message, "[Ii]dempotency")
  host:signal("sigusr1")
  host:wait("host.ready")
  t.eq(host:post("/v1/tasks", '{"handler":"echo","input":{"a":1}}', key).json.task_id, first.json.task_id)
  t.eq(#host:get("/v1/tasks").json.tasks, 1)
  host:stop()
end)

t.test("a list goes page by page, oldest first, and by status", function()
  local host = t.start({ args = { "--lane", "off=0" } })
  local ids, seen = {}, {}
  for i = 1, 7 do ids[i] = host:submit({ handler = "echo", lane = i % 2 == 0 and "off" or nil }) end
  for i = 1, 7, 2 do ended(host, ids[i]) end
  local after, pages = nil, 0
  repeat
    local a = host:get("/v1/tasks?limit=3" .. (after and "&after=" .. after or "")).json
    t.ok(#a.tasks <= 3)
    for _, task in ipairs(a.tasks) do seen[#seen + 1] = task.task_id end
    after, pages = a.next, pages + 1
  until not after
  t.eq(table.concat(seen, " "), table.concat(ids, " "))
  t.eq(pages, 3)
  t.eq(#host:get("/v1/tasks?status=queued").json.tasks, 3)
  t.eq(#host:get("/v1/tasks?status=succeeded").json.tasks, 4)
  t.eq(#host:get("/v1/tasks?status=failed").json.tasks, 0)
  t.match(host:get("/v1/tasks?limit=1000").body, '"next":null')
  host:stop()
end)

t.test("exec brings exit code, output, directory, environment and input", function()
  local host = t.start({ args = { "--allow-exec" }, env = { "FROM_HOST=yes" } })
  local dir = uv.fs_realpath(t.dir())
  local task = exec(host, {
    argv = { "sh", "-c", "pwd; echo $A $FROM_HOST $GWHOST_TASK_ID; cat; echo oops >&2" },
    cwd = dir, env = { A = "b c" }, stdin = "from stdin\n",
  })
  t.eq(task.status, "succeeded", task.error)
  t.eq(task.result.stdout, ("%s\nb c yes %s\nfrom stdin\n"):format(dir, task.task_id))
  t.eq(task.result.stderr, "oops\n")
  t.eq(task.result.exit_code, 0)
  t.eq(task.result.signal, nil)
  t.eq(task.result.truncated, false)
  task = exec(host, { argv = { "sh", "-c", "echo out; exit 3" } })
  t.eq(task.status, "failed")
  t.eq(task.result.exit_code, 3)
  t.eq(task.result.stdout, "out\n")
  t.match(task.error, "3")
  task = exec(host, { argv = { "sh", "-c", "kill -9 $$" } })
  t.eq(task.status, "failed")
  t.eq(task.result.signal, 9)
  t.eq(task.result.exit_code, nil)
  task = exec(host, { argv = { "printf", "a\\377b\\303" } })
  t.eq(task.result.stdout, "a\u{fffd}b\u{fffd}")
  task = exec(host, { argv = { "sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x" } })
  t.eq(task.status, "succeeded")
  t.eq(task.result.truncated, true)
  t.ok(#task.result.stdout > 1000 and #task.result.stdout < 2000000, #task.result.stdout)
  for input, say in pairs({
    ['{"argv":["/no/such/command"]}'] = "/no/such/command", ['{"argv":[]}'] = "argv", ['{"argv":"ls"}'] = "argv",
      ["{}"] = "argv",
    ['{"argv":["true"],"cwd":"/no/such/folder"}'] = "/no/such/folder", ['{"argv":["true",{}]}'] = "argv",
    ['{"argv":["true"],"env":{"A":[]}}'] = "env",
  }) do
    local a = host:post("/v1/tasks", ('{"handler":"exec","input":%s}'):format(input))
    task = ended(host, a.json.task_id)
    t.eq(task.status, "failed", input)
    t.match(task.error, say)
  end
  host:stop()
end)

t.test("a command inherits nothing but its three descriptors, its own group and plain signals", function()
  local host = t.start({ args = { "--allow-exec" } })
  local idle = t.connect(host)
  t.eq(idle:request("GET", "/healthz").status, 200)
  local task = exec(host, { argv = { "sh", "-c",
    "ls /proc/$$/fd; grep -E 'Sig(Blk|Ign)' /proc/self/status; cut -d' ' -f5 /proc/$$/stat; echo $$" } })
  local lines = {}
  for line in task.result.stdout:gmatch("[^\n]+") do lines[#lines + 1] = line end
  t.eq(table.concat(lines, " ", 1, 3), "0 1 2")
  t.eq(lines[4], "SigBlk:\t0000000000000000")
  t.eq(lines[5], "SigIgn:\t0000000000000000")
  t.eq(lines[6], lines[7], "its group is its own")
  t.eq(#lines, 7)
  idle:close()
  host:stop()
end)

t.test("handler files report progress, finish what they are at when aborted, fail with a line", function()
  local dir = t.dir()
  t.write(dir .. "/slow.lua", [[
local gwhost = require("gwhost")
local helper = require("lib.helper")
return function(task)
  task:progress("half of " .. task.input.what .. helper.suffix)
  local told
  task.on_abort = function(why) told = why end
  while not told do gwhost.sleep(5) end
  gwhost.sleep(50)
  return { finalized = true, why = told, attempt = task.attempt, lane = task.lane, id = task.id }
end]])
  t.write(dir .. "/fails.lua", "return function(task)\n  error('broken ' .. task.input.what)\nend")
  t.write(dir .. "/both.lua", "return function() return { part = 1 }, 'the rest is missing' end")
  assert(uv.fs_mkdir(dir .. "/lib", 448))
  t.write(dir .. "/lib/helper.lua", "return { suffix = '!' }")
  local host = t.start({ args = { "--handlers", dir },
    policy = "return { authorize_sigusr1 = function() return true end }" })
  local id = host:submit({ handler = "slow", input = { what = "it" } })
  t.poll("progress", function() return host:get("/v1/tasks/" .. id).json.progress == "half of it!" end)
  host:post("/v1/tasks/" .. id .. "/cancel")
  local task = ended(host, id)
  t.eq(task.status, "cancelled")
  t.eq(task.result.finalized, true)
  t.eq(task.result.why, "cancel")
  t.eq(task.result.attempt, 1)
  t.eq(task.result.lane, "main")
  t.eq(task.result.id, id)
  task = ended(host, host:submit({ handler = "fails", input = { what = "glass" } }))
  t.eq(task.status, "failed")
  t.match(task.error, "fails.lua:2: broken glass")
  task = ended(host, host:submit({ handler = "both" }))
  t.eq(task.status, "failed")
  t.eq(task.result.part, 1)
  t.eq(task.error, "the rest is missing")
  -- Files are read afresh by a restart; one that is broken refuses it.
  t.write(dir .. "/fails.lua", "return function() return 'mended' end")
  host:restart()
  t.eq(ended(host, host:submit({ handler = "fails" })).result, "mended")
  t.write(dir .. "/fails.lua", "return function(\n")
  host:signal("sigusr1")
  t.match(host:wait("restart.refused").why, "fails.lua:%d")
  t.eq(ended(host, host:submit({ handler = "fails" })).result, "mended")
  host:stop()
end)

-- ---- what a command leaves behind ----

-- Grandchildren out of its group and session: one whose parent lives, one whose parent is gone, one that hears no SIGTERM.
local LEAVES = [[setsid sh -c 'sleep 300 & wait' & (setsid sleep 300 &); (trap '' TERM; setsid sleep 300 &); %s]]

local function of_task(id)
  local pids = {}
  for name in io.popen("ls /proc"):lines() do
    local f = name:match("^%d+$") and io.open("/proc/" .. name .. "/environ")
    if f and ("\0" .. (f:read("a") or "")):find("\0GWHOST_TASK_ID=" .. id, 1, true) then pids[#pids + 1] = name end
    if f then f:close() end
  end
  return pids
end

local function leave(host, last, more)
  local task = { handler = "exec", input = { argv = { "sh", "-c", LEAVES:format(last) } } }
  for key, value in pairs(more or {}) do task[key] = value end
  local id = host:submit(task)
  t.ask_until("all that it starts", function()
    return #of_task(id) >= 4 or host:get("/v1/tasks/" .. id).json.status ~= "running"
  end)
  return id
end

local function nothing_left(id)
  t.ask_until("the end of what " .. id .. " started", function() return #of_task(id) == 0 end)
end

t.test("what a command started ends with it: its end, a failure, a cancel, a time-out", function()
  local host = t.start({ args = { "--allow-exec" } })
  local other = leave(host, "wait")
  for _, how in ipairs({ { "exit 0", "succeeded" }, { "exit 3", "failed" }, { "kill -9 $$", "failed" },
    { "wait", "cancelled" }, { "wait", "timed_out", { timeout_ms = 300 } } }) do
    local id = leave(host, how[1], how[3])
    if how[2] == "cancelled" then host:post("/v1/tasks/" .. id .. "/cancel") end
    host:until_status(id, how[2])
    nothing_left(id)
  end
  t.ok(#of_task(other) >= 4, "what another task has started is not touched")
  t.eq(host:control({ op = "status" }).ok, true)
  host:signal("sigterm")
  t.eq(host:wait_exit(), 0)
  t.eq(#of_task(other), 0, "left by a stop")
end)

for _, mode in ipairs({ "in_process", "respawn", "reexec" }) do
  t.test("an attempt that a drain has cut leaves nothing that the next one would run beside: " .. mode, function()
    local host = t.start({ args = { "--allow-exec" }, policy = ([[return { restart_mode = function() return %q end,
      drain_budget = function() return 0 end }]]):format(mode) })
    local dir = t.dir()
    local first = ("test -e %s/one || { : >%s/one; wait; }; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | "
      .. "grep -c '^LEFT=1' >%s/count; exit 0"):format(dir, dir, dir)
    local id = host:submit({ handler = "exec", on_interrupt = "retry", input = { argv = { "sh", "-c",
      ("test -e %s/one || { export LEFT=1; %s }; unset LEFT; %s"):format(dir, LEAVES:format(""), first) } } })
    t.ask_until("all that it starts", function() return uv.fs_stat(dir .. "/one") and #of_task(id) >= 5 end)
    t.eq(host:restarted({}).outcome, "restarted")
    t.eq(host:until_status(id, "succeeded").attempts, 2)
    t.eq(t.read(dir .. "/count"), "0\n")
    host:stop()
  end)
end

t.test("a handler's commands are its task's, and so is what they leave", function()
  local dir = t.dir()
  os.execute("mkdir " .. dir .. "/handlers")
  t.write(dir .. "/handlers/two.lua", [[local gwhost = require("gwhost")
    return function(task)
      gwhost.spawn({ argv = { "sh", "-c", "(setsid sleep 300 &)" } }):wait() -- what it leaves is used by the next one
      gwhost.spawn({ argv = { "sleep", "300" } }) -- and nobody waits for this one
      return {}
    end]])
  local host = t.start({ args = { "--handlers", dir .. "/handlers" } })
  local id = host:submit({ handler = "two" })
  host:until_status(id, "succeeded")
  t.eq(host:wait("task.leftovers").processes, 2)
  nothing_left(id)
  host:stop()
end)

t.main()
