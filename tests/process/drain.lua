-- Waiting for work within a budget, changed while it runs, and without polling.
local t = require("support.harness")

local function policy(budget, extra)
  return ("return { authorize_sigusr1 = function() return true end, drain_budget = function(ctx) return %s end %s }")
    :format(budget, extra or "")
end

local function with_nap(spec, ms)
  local host = t.start(spec)
  local id = host:submit({ handler = "sleep", input = { ms = ms or 60000 }, title = "a long nap", label = "nap" })
  host:until_status(id, "running")
  return host, id
end

t.test("a budget that runs out aborts what is left, says what, and restarts", function()
  local host, id = with_nap({ policy = policy("400") })
  host:signal("sigusr1")
  t.match(host:wait("drain.blocked").blockers, "task=" .. id .. " .*label=nap title=a long nap")
  local over = host:wait("drain.timeout")
  t.eq(over.tasks, 1)
  t.eq(over.runs, 0)
  t.eq(host:wait("work.aborted").mode, "all")
  t.eq(host:wait("host.ready").generation, 2)
  local task = host:get("/v1/tasks/" .. id).json
  t.eq(task.status, "interrupted")
  t.eq(task.ended_by_boot_id, host.boot_id)
  t.ok(task.ended_at >= task.started_at)
  host:stop()
end)

t.test("a SIGHUP with a shorter budget ends an unlimited drain", function()
  local host, id = with_nap({ policy = policy('"unlimited"') })
  host:signal("sigusr1")
  t.eq(host:wait("drain.started").budget_ms, nil)
  t.write(host.policy_file, policy("300"))
  host:signal("sighup")
  t.eq(host:wait("drain.budget_changed").budget_ms, 300)
  host:wait("drain.timeout")
  t.eq(host:wait("host.ready").generation, 2)
  t.eq(host:get("/v1/tasks/" .. id).json.status, "interrupted")
  host:stop()
end)

t.test("a longer budget lets it go on, and it ends with the last work", function()
  local host, id = with_nap({ policy = policy("1000") }, 1800)
  host:signal("sigusr1")
  host:wait("drain.started")
  t.write(host.policy_file, policy("60000"))
  host:signal("sighup")
  host:wait("drain.budget_changed")
  host:wait("drain.completed")
  host:wait("host.ready")
  t.eq(#host:all("drain.timeout"), 0)
  t.eq(host:get("/v1/tasks/" .. id).json.status, "succeeded")
  host:stop()
end)

t.test("a SIGTERM turns a drain into a stop, within the stop's budget", function()
  local host, id = with_nap({ policy = policy('ctx.action == "stop" and 0 or "unlimited"') })
  host:signal("sigusr1")
  host:wait("drain.started")
  host:signal("sigterm")
  host:wait("restart.becomes_stop")
  t.eq(host:wait_exit(), 0)
  t.eq(#host:all("host.ready"), 1)
  local again = t.start({ state_dir = host.state_dir })
  t.eq(again:get("/v1/tasks/" .. id).json.status, "interrupted")
  again:stop()
end)

t.test("a stop with a budget drains too, and a second signal is ignored", function()
  local host, id = with_nap({ policy = policy("60000") }, 1200)
  local kept = t.connect(host)
  t.eq(kept:request("GET", "/healthz").headers.connection, nil)
  host:signal("sigterm")
  t.eq(host:wait("drain.started").budget_ms, 60000)
  local farewell = kept:request("GET", "/healthz")
  t.eq(farewell.status, 200)
  t.eq(farewell.headers.connection, "close")
  host:signal("sigusr1")
  t.eq(host:wait("signal.ignored").signal, "SIGUSR1")
  host:signal("sigint")
  t.eq(host:wait("signal.ignored").signal, "SIGINT")
  host:wait("drain.completed")
  t.eq(host:wait_exit(), 0)
  local again = t.start({ state_dir = host.state_dir })
  t.eq(again:get("/v1/tasks/" .. id).json.status, "succeeded")
  again:stop()
end)

t.test("a lane is cut at its own budget while the drain goes on", function()
  local host = t.start({
    policy = policy("{ budget_ms = 60000, lanes = { quick = 300 } }"),
    args = { "--lane", "quick=2", "--lane", "main=2" },
  })
  local quick = host:submit({ handler = "sleep", lane = "quick", input = { ms = 60000 } })
  local slow = host:submit({ handler = "sleep", input = { ms = 1500 } })
  host:until_status(quick, "running")
  host:until_status(slow, "running")
  host:signal("sigusr1")
  local aborted = host:wait("work.aborted")
  t.eq(aborted.mode, "lane")
  t.eq(aborted.lane, "quick")
  host:wait("drain.completed")
  host:wait("host.ready")
  t.eq(host:get("/v1/tasks/" .. quick).json.status, "interrupted")
  t.eq(host:get("/v1/tasks/" .. slow).json.status, "succeeded")
  host:stop()
end)

t.test("compacting runs are aborted first and answered 503 aborted, others are waited for", function()
  local host = t.start({ policy = policy("60000") })
  local compacting, other
  local jobs = {
    t.go(function() compacting = host:post("/v1/runs", { handler = "sleep", input = { ms = 60000, phase = "compacting" } }) end),
    t.go(function() other = host:post("/v1/runs", { handler = "sleep", input = { ms = 1200 } }) end),
  }
  t.ask_until("both runs", function() return host:get("/v1/status").json.work.runs == 2 end)
  host:signal("sigusr1")
  t.eq(host:wait("restart.accepted").reason, "SIGUSR1")
  host:wait("drain.started")
  local refused = host:post("/v1/runs", { handler = "echo" })
  t.eq(refused.status, 503)
  t.match(refused.json.error.message, "^draining: no new work is taken")
  t.join(jobs)
  t.eq(compacting.status, 503)
  t.eq(compacting.json.error.code, "aborted")
  t.eq(other.status, 200)
  local aborted = host:wait("work.aborted")
  t.eq(aborted.mode, "compacting")
  t.eq(aborted.runs, 1)
  host:wait("host.ready")
  host:stop()
end)

t.test("it reports while it waits, as often as the policy says", function()
  local host = with_nap({ policy = policy("{ budget_ms = 60000, report_every_ms = 200 }") }, 1500)
  host:signal("sigusr1")
  local pending = host:wait("drain.pending")
  t.eq(pending.tasks, 1)
  t.ok(pending.elapsed_ms >= 190)
  host:wait("drain.pending")
  host:wait("host.ready")
  host:stop()
end)

t.test("with nothing in hand there are no drain events", function()
  local host = t.start({ policy = policy("60000") })
  host:restart()
  for _, e in ipairs(host.events) do t.ok(not e.event:match("^drain%."), e.event) end
  host:stop()
end)

t.test("no timer but the budget's and the report's runs during a drain", function()
  local host = t.start({ policy = policy("60000"), args = { "--allow-exec" } })
  local id = host:submit({ handler = "exec", input = { argv = { "sleep", "7" } } })
  host:until_status(id, "running")
  host:signal("sigusr1")
  host:wait("drain.started")
  host:wait("drain.blocked")
  -- Five seconds of the drain, every system call of every thread: nothing may wake up in them.
  local trace = host.dir .. "/trace"
  local f = io.popen(("timeout -s INT 5 strace -f -qq -o %s -p %d 2>&1"):format(trace, host.pid))
  local said = f:read("a")
  f:close()
  local calls, woken = 0, {}
  for line in io.lines(trace) do
    -- strace itself interrupts what waits when it attaches and leaves; what then happens is a call that
    -- begins to wait again.
    local ends = line:match("<detached")
    local restarted = line:match("restart_syscall") or line:match("resuming interrupted")
    local waits = line:match("epoll_p?wait") or line:match("rt_sigtimedwait") or line:match("futex")
    if not ends and not (waits and (line:match("unfinished") or restarted)) and not line:match("^%d+ ?restart_syscall") then
      calls = calls + 1
      woken[#woken + 1] = line
    end
  end
  t.ok(calls <= 4, ("%d system calls in five seconds:\n%s\n%s"):format(calls, table.concat(woken, "\n", 1, math.min(#woken, 40)), said))
  host:wait("host.ready")
  t.eq(host:get("/v1/tasks/" .. id).json.status, "succeeded")
  host:stop()
end)

t.main()
