-- Restarting in place: same process, same lock, same port, the policy edited meanwhile.
local t = require("support.harness")

local ALLOW = [[
return {
  authorize_sigusr1 = function() return true, "tests may" end,
  drain_budget = function(ctx) return %d end,
  format_blockers = function(blockers) return "%s " .. #blockers .. " left" end,
}
]]

t.test("a policy edited before the signal takes effect at the switch, and both pieces of work finish", function()
  local host = t.start({ policy = ALLOW:format(60000, "old"), args = { "--allow-exec" } })
  local old_hash = host:all("policy.loaded")[1].sha256
  local id = host:submit({ handler = "exec", input = { argv = { "sh", "-c", "sleep 3; echo done" } } })
  host:until_status(id, "running")
  local run
  local job = t.go(function() run = host:post("/v1/runs", { handler = "sleep", input = { ms = 2000 } }) end)
  t.ask_until("the run", function() return host:get("/v1/status").json.work.runs == 1 end)
  t.write(host.policy_file, ALLOW:format(50000, "new"))
  host:signal("sigusr1")

  local started = host:wait("drain.started")
  t.eq(started.budget_ms, 60000)
  t.eq(started.tasks, 1)
  t.eq(started.runs, 1)
  t.eq(host:wait("drain.blocked").blockers, "old 2 left")
  local draining = host:post("/v1/tasks", { handler = "echo" })
  t.eq(draining.status, 503)
  t.eq(draining.json.error.code, "draining")
  t.ok(tonumber(draining.headers["retry-after"]) >= 1)
  t.ok(draining.json.error.retry_after_ms > 0)
  t.eq(host:post("/v1/tasks", { handler = "echo" }).status, 503)
  t.eq(host:wait("lane.draining").lane, "main")
  t.eq(host:get("/readyz").json.status, "draining")
  local completed = host:wait("drain.completed")
  t.ok(completed.elapsed_ms >= 1500, "the drain took " .. completed.elapsed_ms)
  local loaded = host:wait("policy.loaded", function(e) return e.because == "restart" end)
  t.ok(loaded.sha256 ~= old_hash, "the new hash")
  t.eq(host:wait("lane.drained").refused, 2)
  t.eq(#host:all("lane.draining"), 1)
  local ready = host:wait("host.ready")
  t.eq(ready.generation, 2)
  t.eq(ready.pid, host.pid)
  t.join({ job })
  t.eq(run.status, 200)
  t.eq(run.json.slept_ms, 2000)
  local task = host:get("/v1/tasks/" .. id).json
  t.eq(task.status, "succeeded")
  t.eq(task.result.stdout, "done\n")

  -- The second restart goes by the new rules.
  id = host:submit({ handler = "sleep", input = { ms = 500 } })
  host:until_status(id, "running")
  host:signal("sigusr1")
  t.eq(host:wait("drain.started").budget_ms, 50000)
  t.eq(host:wait("drain.blocked").blockers, "new 1 left")
  t.eq(host:wait("host.ready").generation, 3)
  t.eq(host:get("/v1/status").json.policy.sha256, loaded.sha256)
  host:stop()
end)

t.test("queued tasks wait through a restart and run in the next generation", function()
  local host = t.start({ policy = ALLOW:format(60000, "x"), args = { "--lane", "main=1" } })
  local first = host:submit({ handler = "sleep", input = { ms = 600 } })
  host:until_status(first, "running")
  local ids = {}
  for i = 1, 5 do ids[i] = host:submit({ handler = "echo", input = { number = i } }) end
  host:restart()
  for i, id in ipairs(ids) do t.eq(host:until_status(id, "succeeded").result.number, i) end
  t.eq(host:get("/v1/tasks/" .. first).json.status, "succeeded")
  host:stop()
end)

t.test("with accept = queue, tasks submitted during the drain get 202 and run in the next generation", function()
  local host = t.start({ policy = [[return {
    authorize_sigusr1 = function() return true end,
    drain_budget = function(ctx) return { budget_ms = 60000, accept = "queue" } end }]] })
  local first = host:submit({ handler = "sleep", input = { ms = 800 } })
  host:until_status(first, "running")
  host:signal("sigusr1")
  host:wait("drain.started")
  local id = host:submit({ handler = "echo", input = { late = true } })
  t.eq(host:get("/v1/tasks/" .. id).json.status, "queued")
  host:wait("host.ready")
  t.eq(host:until_status(id, "succeeded").result.late, true)
  host:stop()
end)

t.test("a restart that waits for an idle moment goes when the last work ends, and work goes on meanwhile", function()
  local host = t.start({})
  local id = host:submit({ handler = "sleep", input = { ms = 700 } })
  host:until_status(id, "running")
  local answer = host:post("/v1/restart", { when = "idle", reason = "tidy" })
  t.eq(answer.status, 202)
  t.eq(answer.json.status, "deferred")
  host:wait("restart.deferred")
  local second = host:submit({ handler = "sleep", input = { ms = 900 } })
  host:wait("host.ready")
  t.eq(host:get("/v1/tasks/" .. id).json.status, "succeeded")
  t.eq(host:get("/v1/tasks/" .. second).json.status, "succeeded")
  t.eq(#host:all("drain.started"), 0)
  local outcome = host:get("/v1/restarts/" .. answer.json.request_id).json
  t.eq(outcome.outcome, "restarted")
  t.eq(outcome.reason, "tidy")
  t.eq(outcome.source, "http")
  t.eq(outcome.generation, 2)
  host:stop()
end)

t.test("after the deferral's time-out it goes as an ordinary restart that drains", function()
  local host = t.start({
    args = { "--defer-timeout", "300ms" },
    policy = [[return { drain_budget = function(ctx) return 60000, "deferred " .. ctx.deferred_ms end }]],
  })
  local id = host:submit({ handler = "sleep", input = { ms = 1500 } })
  host:until_status(id, "running")
  host:post("/v1/restart", { when = "idle" })
  host:wait("restart.deferred")
  host:wait("drain.started")
  local decision = host:wait("policy.decision", function(e) return e.hook == "drain_budget" end)
  t.ok(tonumber(decision.why:match("deferred (%d+)")) >= 300, decision.why)
  host:wait("host.ready")
  t.eq(host:get("/v1/tasks/" .. id).json.status, "succeeded")
  host:stop()
end)

t.test("requests made while one is under way are merged, later ones make exactly one more", function()
  local host = t.start({ policy = ALLOW:format(60000, "x") })
  local id = host:submit({ handler = "sleep", input = { ms = 700 } })
  host:until_status(id, "running")
  local first = host:post("/v1/restart", { reason = "one" }).json
  t.eq(first.status, "accepted")
  host:wait("drain.started")
  local merged = {}
  for i = 1, 5 do
    merged[i] = host:post("/v1/restart", { reason = "n" .. i }).json
    t.eq(merged[i].status, "merged")
  end
  host:wait("host.ready")
  t.eq(host:get("/v1/restarts/" .. first.request_id).json.outcome, "restarted")
  for i = 1, 5 do
    local o = host:get("/v1/restarts/" .. merged[i].request_id).json
    t.eq(o.outcome, "merged")
    t.eq(o.merged_into, first.request_id)
  end
  t.eq(host:get("/healthz").json.generation, 2)
  host:stop()
end)

t.test("a forced request cuts a drain that is under way", function()
  local host = t.start({ policy = ALLOW:format(60000, "x") })
  local id = host:submit({ handler = "sleep", input = { ms = 60000 } })
  host:until_status(id, "running")
  host:signal("sigusr1")
  host:wait("drain.started")
  t.eq(host:post("/v1/restart", { force = true }).json.status, "merged")
  host:wait("drain.skipped")
  host:wait("host.ready")
  t.eq(host:get("/v1/tasks/" .. id).json.status, "interrupted")
  host:stop()
end)

t.test("a forced restart asks no hook about the drain and waits for nothing", function()
  local host = t.start({ policy = ALLOW:format(60000, "x") })
  local id = host:submit({ handler = "sleep", input = { ms = 60000 } })
  host:until_status(id, "running")
  host:post("/v1/restart", { force = true })
  host:wait("drain.skipped")
  local aborted = host:wait("work.aborted")
  t.eq(aborted.mode, "all")
  t.eq(aborted.tasks, 1)
  host:wait("host.ready")
  t.eq(#host:all("drain.started"), 0)
  for _, e in ipairs(host:all("policy.decision")) do t.ok(e.hook ~= "drain_budget", "drain_budget was asked") end
  t.eq(host:get("/v1/tasks/" .. id).json.status, "interrupted")
  host:stop()
end)

t.test("wait_ms of the request is the budget under the built-in rule", function()
  local host = t.start({})
  local id = host:submit({ handler = "sleep", input = { ms = 60000 } })
  host:until_status(id, "running")
  host:post("/v1/restart", { wait_ms = 300 })
  t.eq(host:wait("drain.started").budget_ms, 300)
  host:wait("drain.timeout")
  host:wait("host.ready")
  id = host:submit({ handler = "sleep", input = { ms = 500 } })
  host:until_status(id, "running")
  host:post("/v1/restart", { wait_ms = 0 })
  t.eq(host:wait("drain.started").budget_ms, nil)
  host:wait("host.ready")
  t.eq(host:get("/v1/tasks/" .. id).json.status, "succeeded")
  host:stop()
end)

t.test("requests that arrive between close and start are answered by the next generation", function()
  local host = t.start({
    policy = ALLOW:format(60000, "x"),
    app = [[
      local gwhost = require "gwhost"
      return { start = function(ctx)
        if ctx.generation > 1 then gwhost.sleep(800) end
        gwhost.serve { request = function() return { body = "generation " .. ctx.generation } end }
        return { close = function() end }
      end }]],
  })
  local c = t.connect(host)
  t.eq(c:request("GET", "/").body, "generation 1")
  host:signal("sigusr1")
  host:wait("app.closed")
  t.eq(host:get("/readyz").json.status, "starting")
  t.eq(c:request("GET", "/").body, "generation 2")
  local status = host:get("/v1/status").json
  t.eq(status.state, "running")
  t.eq(status.restart.last.outcome, "restarted")
  c:close()
  host:stop()
end)

t.test("a task or a run that asks for the restart itself does not wait for itself", function()
  local dir = t.dir()
  os.execute("mkdir " .. dir .. "/handlers")
  t.write(dir .. "/handlers/self.lua", [[
    local gwhost = require "gwhost"
    return function(work)
      gwhost.restart { reason = "by " .. work.handler, when = work.input.when }
      gwhost.sleep(60000)
    end]])
  local host = t.start({ dir = dir, args = { "--handlers", dir .. "/handlers" } })
  local id = host:submit({ handler = "self", input = { when = "idle" } })
  t.eq(host:wait("restart.requested").source, "app")
  host:wait("host.ready")
  t.eq(host:get("/v1/tasks/" .. id).json.status, "interrupted")
  t.eq(#host:all("drain.started"), 0)
  local other = host:submit({ handler = "sleep", input = { ms = 800 } })
  host:until_status(other, "running")
  local answer
  local job = t.go(function() answer = host:post("/v1/runs", { handler = "self", input = { when = "now" } }) end)
  local started = host:wait("drain.started")
  t.eq(started.tasks, 1)
  t.eq(started.runs, 0)
  host:wait("host.ready")
  t.join({ job })
  t.eq(answer.json.error.code, "aborted")
  t.eq(host:get("/v1/tasks/" .. other).json.status, "succeeded")
  host:stop()
end)

t.test("under a supervisor the process drains, closes WebSockets with 1012, gives up the lock and exits 0", function()
  local host = t.start({ env = { "GWHOST_SUPERVISOR=external" } })
  t.eq(host:get("/v1/status").json.supervisor, "external")
  local id = host:submit({ handler = "sleep", input = { ms = 600 } })
  host:until_status(id, "running")
  local ws = t.ok(t.websocket(host))
  local request = host:post("/v1/restart", {}).json.request_id
  t.eq(host:wait("restart.mode").mode, "supervised")
  t.eq((">I2"):unpack(ws:recv().data), 1012)
  ws:close()
  t.eq(host:wait_exit(), 0)
  t.ok(host:position("drain.completed") < host:position("lock.released"))
  t.eq(host:wait("restart.outcome").outcome, "restarted")
  local again = t.start({ state_dir = host.state_dir })
  t.eq(again:get("/v1/tasks/" .. id).json.status, "succeeded")
  t.eq(again:get("/v1/restarts/" .. request).json.outcome, "restarted")
  again:stop()
end)

t.test("twenty restarts in a row leave no descriptor, no child and no thread behind", function()
  local host = t.start({ policy = ALLOW:format(60000, "x"), args = { "--allow-exec" } })
  host:restart()
  local before = host:fds()
  for _ = 1, 20 do
    host:submit({ handler = "exec", input = { argv = { "true" } } })
    host:restart()
  end
  t.eq(host:fds(), before)
  host:stop()
end)

t.main()
