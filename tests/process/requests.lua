-- Who may restart and what became of it: intents, many requesters at once, the control socket under strangers.
local t = require("support.harness")
local uv = require("luv")

local ALLOW = "return { authorize_sigusr1 = function() return true end }"

--- A client of the control socket: ask(request) gives the answer, events skipped.
local function control(host)
  local c = t.ok(t.connect(host, "unix:" .. host.state_dir .. "/control.sock"))
  local self = { connection = c, n = 0 }
  function self.line(limit_ms)
    local line = c:until_match("^([^\n]*)\n", limit_ms)
    if not line then return nil end
    c.data = c.data:sub(#line + 2)
    return t.json.decode(line)
  end
  function self.ask(request)
    self.n = self.n + 1
    request.id = self.n
    c:send(t.json.encode(request) .. "\n")
    while true do
      local answer = self.line()
      if not answer then return nil end
      if answer.id == self.n then return answer end
    end
  end
  self.hello = self.line().hello
  return self
end

local function write_intent(host, fields)
  local intent = { kind = "gateway-restart", pid = host.pid, created_at_ms = os.time() * 1000 }
  for key, value in pairs(fields) do intent[key] = value end
  local path = t.write(host.state_dir .. "/restart-intent.json", t.json.encode(intent))
  assert(uv.fs_chmod(path, 384))
  return path
end

t.test("a SIGTERM with a valid intent restarts, without one it stops", function()
  local host = t.start({})
  local path = write_intent(host, { reason = "deploy", wait_ms = 1234 })
  host:signal("sigterm")
  local accepted = host:wait("restart.accepted")
  t.eq(accepted.reason, "deploy")
  t.eq(accepted.wait_ms, 1234)
  t.eq(host:wait("host.ready").generation, 2)
  t.eq(uv.fs_stat(path), nil)
  t.eq(host:wait("restart.outcome").outcome, "restarted")
  host:stop()
end)

t.test("a SIGUSR1 with an intent is not asked for authorization, and SIGINT never looks at one", function()
  local host = t.start({ policy = "return { authorize_sigusr1 = function() return false end }" })
  host:signal("sigusr1")
  t.match(host:wait("signal.ignored").why, "gwhost restart")
  local path = write_intent(host, {})
  host:signal("sigusr1")
  t.eq(host:wait("restart.accepted").reason, "gateway.restart")
  t.eq(host:wait("host.ready").generation, 2)
  write_intent(host, {})
  host:signal("sigint")
  t.eq(host:wait_exit(), 0)
  t.ok(uv.fs_stat(path), "the intent is untouched")
end)

t.test("an intent that breaks a rule is removed, the rule is named, and the signal means what it means without", function()
  local host = t.start({ policy = ALLOW })
  local cases = {
    { fields = { pid = 1 }, rule = "pid" },
    { fields = { created_at_ms = os.time() * 1000 - 61000 }, rule = "age" },
    { fields = { kind = "other" }, rule = "kind" },
    { fields = { wait_ms = -1 }, rule = "wait_ms" },
    { fields = {}, mode = 438, rule = "mode" },
  }
  for _, case in ipairs(cases) do
    local path = write_intent(host, case.fields)
    if case.mode then assert(uv.fs_chmod(path, case.mode)) end
    host:signal("sigusr1")
    t.eq(host:wait("intent.refused").rule, case.rule)
    host:wait("host.ready")
    t.eq(uv.fs_stat(path), nil)
  end
  local path = write_intent(host, { pid = 1 })
  host:signal("sigterm")
  t.eq(host:wait_exit(), 0)
  t.eq(uv.fs_stat(path), nil)
end)

t.test("a forced intent waits for nothing", function()
  local host = t.start({})
  local id = host:submit({ handler = "sleep", input = { ms = 60000 } })
  host:until_status(id, "running")
  write_intent(host, { force = true })
  host:signal("sigterm")
  host:wait("drain.skipped")
  host:wait("host.ready")
  t.eq(host:get("/v1/tasks/" .. id).json.status, "interrupted")
  host:stop()
end)

t.test("250 requests at once over socket, HTTP and signals: at most two restarts, an outcome for each", function()
  local host = t.start({ policy = ALLOW })
  local id = host:submit({ handler = "sleep", input = { ms = 600000 } }) -- all come while it is waited for
  host:until_status(id, "running")
  local ids, jobs = {}, {}
  for client = 1, 8 do
    jobs[client] = t.go(function()
      local c = client <= 4 and control(host) or t.connect(host)
      for i = 1, 30 do
        if client <= 4 then
          local answer = t.ok(c.ask({ op = "restart", reason = ("c%d.%d"):format(client, i) }))
          t.ok(answer.ok, t.json.encode(answer))
          ids[#ids + 1] = answer.result.request_id
        else
          local answer = t.ok(c:request("POST", "/v1/restart", { reason = ("h%d.%d"):format(client, i) }))
          t.eq(answer.status, 202)
          ids[#ids + 1] = answer.json.request_id
        end
      end
    end)
  end
  for _ = 1, 10 do host:signal("sigusr1") end
  t.join(jobs, 60000)
  t.eq(#ids, 240)
  t.eq(host:post("/v1/tasks/" .. id .. "/cancel").status, 202)
  host:wait("host.ready")
  t.ask_until("the end of all", function() return not host:get("/v1/status").json.restart.current end)
  local c = control(host)
  local restarted, outcomes = 0, {}
  for _, e in ipairs(host:all("restart.outcome")) do
    t.eq(outcomes[e.request_id], nil)
    outcomes[e.request_id] = e.outcome
    if e.outcome == "restarted" then restarted = restarted + 1 end
  end
  for _, request in ipairs(ids) do
    t.ok(outcomes[request] == "restarted" or outcomes[request] == "merged", request .. ": " .. tostring(outcomes[request]))
  end
  t.ok(restarted >= 1 and restarted <= 2, restarted .. " restarts")
  t.eq(c.ask({ op = "restart_outcome", request_id = ids[#ids] }).ok, true)
  t.eq(host:get("/healthz").json.generation, 1 + restarted)
  host:stop()
end)

t.test("outcomes are known to the next process", function()
  local host = t.start({})
  local filler = io.open(host.state_dir .. "/restarts.jsonl", "a")
  for i = 1, 3000 do
    filler:write(('{"request_id":"old%d","source":"http","reason":"%s","outcome":"restarted"}\n'):format(i, ("x"):rep(60)))
  end
  filler:close()
  local id = host:post("/v1/restart", { reason = "once" }).json.request_id
  host:wait("host.ready")
  host:get("/healthz")
  t.ok(#t.read(host.state_dir .. "/restarts.jsonl") < 50000, "the history grows without end")
  host:stop()
  local again = t.start({ state_dir = host.state_dir })
  local found = again:get("/v1/restarts/" .. id).json
  t.eq(found.outcome, "restarted")
  t.eq(found.reason, "once")
  again:stop()
end)

t.test("what waits for an idle moment can be cancelled, what is under way cannot", function()
  local host = t.start({})
  local id = host:submit({ handler = "sleep", input = { ms = 60000 } })
  host:until_status(id, "running")
  local c = control(host)
  local waiting = c.ask({ op = "restart", when = "idle" }).result
  t.eq(waiting.status, "deferred")
  t.eq(c.ask({ op = "restart_cancel", request_id = waiting.request_id }).result.outcome, "cancelled")
  t.eq(c.ask({ op = "restart_cancel", request_id = waiting.request_id }).error.code, "conflict")
  t.eq(c.ask({ op = "restart_cancel", request_id = "r0" }).error.code, "not_found")
  host:post("/v1/tasks/" .. id .. "/cancel")
  host:until_status(id, "cancelled")
  t.eq(#host:all("restart.accepted"), 0)
  host:stop()
end)

t.test("an update that comes back in the same process has failed, and says that the image is unchanged", function()
  local host = t.start({ policy = "return { restart_mode = function() return 'in_process' end }" })
  local c = control(host)
  local id = c.ask({ op = "restart", update = true, reason = "new version" }).result.request_id
  local outcome = host:wait("restart.outcome")
  t.eq(outcome.request_id, id)
  t.eq(outcome.outcome, "failed")
  t.eq(outcome.why, "image unchanged")
  t.eq(host:get("/healthz").json.generation, 2)
  host:stop()
end)

t.test("a dry run says what would happen, and nothing does", function()
  local host = t.start({ policy = [[return {
    restart_mode = function() return "in_process", "because" end,
    drain_budget = function(ctx) return ctx.intent.wait_ms or 777 end }]] })
  local id = host:submit({ handler = "sleep", input = { ms = 60000 }, title = "long" })
  host:until_status(id, "running")
  local c = control(host)
  local plan = c.ask({ op = "restart", dry_run = true }).result
  t.eq(plan.mode, "in_process")
  t.eq(plan.why, "because")
  t.eq(plan.budget_ms, 777)
  t.match(plan.blockers, "title=long")
  t.eq(plan.policy.path, host.policy_file)
  t.eq(c.ask({ op = "restart", dry_run = true, wait_ms = 5 }).result.budget_ms, 5)
  t.eq(#host:all("restart.requested"), 0)
  host:stop()
end)

t.test("reload and back: the last versions can be gone back to", function()
  local one, two = "return { name = 'one' }", "return { name = 'two' }"
  local host = t.start({ policy = one })
  local c = control(host)
  t.eq(c.ask({ op = "reload", back = true }).error.code, "not_found")
  t.write(host.policy_file, two)
  t.eq(c.ask({ op = "reload" }).result.name, "two")
  t.write(host.policy_file, "return {\n  nonsense")
  local refused = c.ask({ op = "reload" })
  t.match(refused.error.message, "policy.lua:")
  t.eq(host:get("/v1/status").json.policy.name, "two")
  t.eq(c.ask({ op = "reload", back = true }).result.name, "one")
  host:stop()
end)

t.test("strangers on the control socket harm nobody", function()
  local host = t.start({})
  t.eq(uv.fs_stat(host.state_dir .. "/control.sock").mode & 511, 384)
  local good = control(host)
  local garbage = t.connect(host, "unix:" .. host.state_dir .. "/control.sock")
  garbage:send("\0\1\2 not JSON\n[1,2]\n{\"op\":5}\n{\"op\":\"nothing\"}\n{\"op\":\"restart\",\"wait\":1}\n")
  local function answer()
    local line = garbage:until_match("^([^\n]*)\n")
    garbage.data = garbage.data:sub(#line + 2)
    return t.json.decode(line)
  end
  t.eq(answer().hello.pid, host.pid)
  for _ = 1, 5 do t.eq(answer().error.code, "bad_request") end
  local endless = t.connect(host, "unix:" .. host.state_dir .. "/control.sock")
  endless:send(("x"):rep(1200000))
  t.until_true("the end of an endless line", function() return endless.closed end)
  -- One that follows and never reads is let go; everybody else is served meanwhile.
  local deaf = t.connect(host, "unix:" .. host.state_dir .. "/control.sock")
  deaf:send('{"op":"follow"}\n')
  deaf:until_match('"ok":true')
  deaf.stream:read_stop()
  local crowd = {}
  for i = 1, 80 do crowd[i] = t.connect(host, "unix:" .. host.state_dir .. "/control.sock") end
  t.eq(good.ask({ op = "status" }).result.pid, host.pid)
  for _, c in ipairs(crowd) do c:close() end
  t.eq(host:get("/healthz").status, 200)
  host:stop()
end)

t.test("a follower is told of each event as it happens", function()
  local host = t.start({})
  local c = control(host)
  t.eq(c.ask({ op = "follow" }).ok, true)
  host:post("/v1/restart", { reason = "watched" })
  local seen = {}
  while seen[#seen] ~= "restart.outcome" do
    local line = t.ok(c.line())
    if line.event then seen[#seen + 1] = line.event.event end
  end
  local order = table.concat(seen, " ")
  t.match(order, "restart.requested.*restart.accepted.*app.closed.*host.ready.*restart.outcome")
  host:stop()
end)

if os.execute("command -v strace >/dev/null 2>&1") then
  t.test("a history that cannot be read for a moment is not made a shorter one", function()
    local dir = t.dir()
    local file = dir .. "/state/restarts.jsonl"
    local host = t.start({ dir = dir, env = { "ASAN_OPTIONS=detect_leaks=0" }, wrap = { "strace", "-D", "-f", "-qq", "-o", "/dev/null",
      "-P", file, "-e", "trace=pread64", "-e", "inject=pread64:error=EIO" } })
    local old = {}
    for i = 1, 3000 do old[i] = ('{"request_id":"old%d","reason":"%s","outcome":"restarted"}\n'):format(i, ("x"):rep(80)) end
    t.write(file, table.concat(old))
    t.eq(host:restarted({}).outcome, "restarted")
    t.ok(#t.read(file) > #table.concat(old), "what could not be read is gone")
    host:stop()
  end)
end

t.test("whatever a crash leaves of the history costs itself only, and what it left open gets its outcome", function()
  local host = t.start({})
  t.eq(host:restarted({ reason = "kept" }).outcome, "restarted")
  local kept = host:all("restart.accepted")[1].request_id
  local file = host.state_dir .. "/restarts.jsonl"
  host:stop()
  local f = assert(io.open(file, "r"))
  local good = f:read("a")
  f:close()
  f = assert(io.open(file, "w")) -- more than anyone reads, then what was there, zeros of a power cut, and half a line
  f:write((('{"request_id":"rold","source":"x"}\n'):rep(60000)), good, ("\0"):rep(100), "\n", '{"request_id":"rtorn","sou')
  f:close()
  host = t.start({ state_dir = host.state_dir })
  t.eq(host:get("/v1/restarts/" .. kept).json.outcome, "restarted")
  host:submit({ handler = "sleep", input = { ms = 60000 } })
  host:wait("task.changed", function(e) return e.status == "running" end)
  local open = host:control({ op = "restart", reason = "never carried out" }).result.request_id
  host:wait("drain.started")
  host:signal("sigkill")
  host:wait_exit()
  host = t.start({ state_dir = host.state_dir })
  local outcome = host:wait("restart.outcome")
  t.eq(outcome.request_id, open)
  t.eq(outcome.outcome, "failed")
  t.eq(outcome.why, "the host died before it was carried out")
  t.eq(host:get("/v1/restarts/" .. open).json.outcome, "failed")
  t.eq(host:get("/v1/restarts/" .. kept).json.outcome, "restarted")
  t.ok(#t.read(file) < 50000)
  host:stop()
  t.eq(#t.start({ state_dir = host.state_dir }):all("restart.outcome"), 0, "it is told once")
end)

t.test("a number of milliseconds is good, or refused, alike at every door", function()
  local host = t.start({ policy = [[return { restart_mode = function() return "in_process" end,
    drain_budget = function(ctx) return ctx.intent and ctx.intent.wait_ms or 777 end,
    authorize_sigusr1 = function() return false end }]], app = [[
    local gwhost, gateway = require("gwhost"), require("gwhost.gateway")
    return { start = function(ctx)
      gwhost.go(function()
        for _, text in ipairs({ "-1", "0.5", "1500.7", "315360000000", "315360000001", "1e300", '"5"', "true" }) do
          local ok, why = pcall(gwhost.submit, { handler = "echo", timeout_ms = gwhost.json.decode(text) })
          gwhost.log("info", "timeout", { text = text, good = ok or not tostring(why):find("timeout_ms") })
        end
      end)
      return gateway.start(ctx)
    end }]] })
  local doors = {
    control = function(text)
      local c = t.connect(host, "unix:" .. host.state_dir .. "/control.sock")
      c:send('{"id":1,"op":"restart","dry_run":true,"wait_ms":' .. text .. "}\n")
      c:until_match('"id":1[,}][^\n]*\n')
      local answer = t.json.decode(c.data:match('([^\n]*"id":1[,}][^\n]*)\n'))
      c:close()
      return answer.ok, answer.ok and answer.result.budget_ms or answer.error.message
    end,
    http = function(text)
      local answer = host:post("/v1/restart", '{"wait_ms":' .. text .. "}")
      if answer.status ~= 202 then return false, answer.json.error.message end
      local accepted = host:wait("restart.accepted")
      host:wait("restart.outcome")
      return true, accepted.wait_ms
    end,
    intent = function(text)
      t.write(host.state_dir .. "/restart-intent.json",
        ('{"kind":"gateway-restart","pid":%d,"created_at_ms":%d,"wait_ms":%s}'):format(host.pid, os.time() * 1000, text))
      host:signal("sigusr1")
      local e = host:wait("restart.accepted", function() return true end, 3000)
      host:wait("restart.outcome")
      return true, e.wait_ms
    end,
  }
  for text, ms in pairs({ ["0.5"] = 1, ["1500.7"] = 1500, ["315360000000"] = 315360000000, ["1"] = 1 }) do
    for name, door in pairs(doors) do
      local good, got = door(text)
      t.ok(good, name .. " " .. text .. ": " .. tostring(got))
      t.eq(got, ms, name .. " " .. text)
    end
  end
  doors.intent = nil -- what it refuses it says in the log: tests/unit/os/test_intent.c
  for _, text in ipairs({ "-1", "315360000001", "9007199254740992", "1e300", '"5"', "true" }) do
    for name, door in pairs(doors) do
      local good, why = door(text)
      t.eq(good, false, name .. " " .. text)
      t.match(why, "wait_ms' is not a number of milliseconds from 0 to 315360000000")
    end
  end
  host:wait("app.log", function(e) return e.text == "true" end)
  for _, e in ipairs(host:all("app.log")) do
    t.eq(e.good, e.text == "1500.7" or e.text == "315360000000", e.text)
  end
  host:stop()
end)

t.main()
