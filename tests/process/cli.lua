-- The subcommands against a real host: what they print, how they exit, and that neither side's death is a hang.
local t = require("support.harness")
local uv = require("luv")

--- Starts the program (or spec.program) with these words; finish(run) waits for its end. spec: env, cwd.
local function begin(host, words, spec)
  spec = spec or {}
  local run = { out = "", err = "", open = 2 }
  local env = {}
  for name, value in pairs(uv.os_environ()) do
    if not name:match("^GWHOST_") then env[#env + 1] = name .. "=" .. value end
  end
  if host then env[#env + 1] = "GWHOST_STATE_DIR=" .. (type(host) == "string" and host or host.state_dir) end
  for _, pair in ipairs(spec.env or {}) do env[#env + 1] = pair end
  local out, err = uv.new_pipe(false), uv.new_pipe(false)
  local function read(pipe, key)
    pipe:read_start(function(failed, data)
      if failed or not data then
        pipe:close()
        run.open = run.open - 1
      else
        run[key] = run[key] .. data
      end
      t.wake()
    end)
  end
  local options = { args = words, env = env, cwd = spec.cwd, stdio = { nil, out, err } }
  run.handle, run.pid = uv.spawn(spec.program or t.binary, options, function(code, signal)
    run.code, run.signal = code, signal
    run.handle:close()
    t.wake()
  end)
  assert(run.handle, run.pid)
  read(out, "out")
  read(err, "err")
  return run
end

local function finish(run, limit_ms)
  t.until_true(function() return "the end of the command; it says: " .. run.out .. run.err end,
    function() return run.code and run.open == 0 end, limit_ms)
  return run
end

local function cli(host, words, spec) return finish(begin(host, words, spec)) end

--- Runs it and holds that it succeeded.
local function fine(host, ...)
  local run = cli(host, { ... })
  t.eq(run.code, 0, table.concat({ ... }, " ") .. ": " .. run.err)
  return run
end

local function says(run, what)
  t.until_true(function() return what .. " in " .. run.out .. run.err end,
    function() return (run.out .. run.err):find(what, 1, true) or run.code end)
  t.ok((run.out .. run.err):find(what, 1, true), what .. " is not in: " .. run.out .. run.err)
end

--- Until n tasks run that did not before.
local function running(host, n)
  for _ = 1, n do
    host:wait("task.changed", function(e) return e.status == "running" and e.progress == nil end)
  end
end

--- A command that runs until the file "go" is there.
local function held(host)
  return { "sh", "-c", "until [ -e " .. host.dir .. "/go ]; do sleep 0.02; done" }
end

local PATIENT = "return { drain_budget = function() return 'unlimited' end }"

t.test("without a host every subcommand fails with 1 and says where it looked", function()
  local dir = t.dir()
  for _, words in ipairs({ { "status" }, { "restart" }, { "stop" }, { "reload" }, { "tasks" }, { "submit", "echo" },
    { "restart", "--dry-run" }, { "restart", "--cancel", "r1" }, { "submit", "--wait", "exec", "--", "true" } }) do
    local run = cli(dir, words)
    t.eq(run.code, 1, table.concat(words, " "))
    t.eq(run.out, "")
    local wanted = "gwhost: no gwhost runs on %s (nothing answers at %s/control.sock): start one with"
    wanted = wanted:format(dir, dir)
    t.ok(run.err:find(wanted, 1, true), run.err)
  end
  local run = cli(dir, { "restart", "--signal" })
  t.eq(run.code, 1)
  t.match(run.err, "nobody holds the lock")
end)

t.test("wrong usage exits with 2 and help with 0", function()
  local dir = t.dir()
  for _, words in ipairs({ { "status", "more" }, { "status", "--nonsense" }, { "restart", "--force", "--wait", "5" },
    { "restart", "--wait", "soon" }, { "restart", "--wait" }, { "restart", "--exec", "/bin/true" },
    { "restart", "now" }, { "restart", "--signal", "--when-idle" }, { "restart", "--signal", "--update" },
    { "restart", "--cancel", "r1", "--force" }, { "stop", "please" }, { "reload", "--forward" }, { "submit" },
    { "submit", "echo", "{" }, { "submit", "echo", "[]" }, { "submit", "echo", "{}", "{}" },
    { "submit", "exec", "--" }, { "submit", "echo", "--", "x" }, { "tasks", "all" },
    { "bundle" }, { "bundle", "eat" }, { "bundle", "list", "x" }, { "bundle", "show", "x", "y" } }) do
    local run = cli(dir, words)
    t.eq(run.code, 2, table.concat(words, " ") .. ": " .. run.err)
    t.match(run.err, "try 'gwhost " .. words[1] .. " %-%-help'")
  end
  for _, name in ipairs({ "status", "restart", "stop", "reload", "submit", "tasks", "bundle" }) do
    local run = cli(dir, { name, "--help" })
    t.eq(run.code, 0)
    t.match(run.out, "^usage: gwhost " .. name)
  end
end)

t.test("status is a screen for people and an object for machines", function()
  local host = t.start({})
  local people = fine(host, "status").out
  t.match(people, "state +running\n")
  t.ok(people:find("pid " .. host.pid .. ", generation 1", 1, true), people)
  t.ok(people:find(host.boot_id, 1, true) and people:find(host.address, 1, true), people)
  t.ok(not people:find("\27"), "colours without a terminal")
  local object = t.json.decode(fine(host, "status", "--json").out)
  t.eq(object.pid, host.pid)
  t.eq(object.state, "running")
  host:stop()
end)

t.test("a restart is followed to its end and names the generation that answered", function()
  local host = t.start({ args = { "--allow-exec" } })
  local id = host:submit({ handler = "exec", title = "held", input = { argv = held(host) } })
  host:until_status(id, "running")
  local run = begin(host, { "restart", "--reason", "new rules" })
  says(run, "title=held")
  local status = fine(host, "status").out
  t.match(status, "^state +draining\n")
  t.match(status, "\ndrain +to restart, for ")
  t.eq(run.code, nil)
  t.write(host.dir .. "/go", "")
  finish(run)
  t.eq(run.code, 0, run.err)
  t.match(run.out, "^restarted: generation 2, boot id " .. host.boot_id .. ", pid " .. host.pid .. " %(in_process, ")
  t.match(run.err, "new rules")
  t.eq(host:get("/v1/tasks/" .. id).json.status, "succeeded")
  local object = t.json.decode(fine(host, "restart", "--json", "--force").out)
  t.eq(object.outcome, "restarted")
  t.eq(object.answered_by.generation, 3)
  t.eq(object.answered_by.boot_id, host.boot_id)
  host:stop()
end)

t.test("on a terminal one line shows the time, the budget as a bar, and what still runs", function()
  local host = t.start({})
  local id = host:submit({ handler = "sleep", title = "red \27[31m", input = { ms = 1000 } })
  host:until_status(id, "running")
  local words = { "-qec", "stty cols 200; exec '" .. t.binary .. "' restart --wait 2", "/dev/null" }
  local run = finish(begin(host, words, { program = "script", env = { "TERM=xterm" } }))
  t.eq(run.code, 0, run.out)
  local line = "\r\27%[K +[%d.]+ m?s  draining  %[[#-]+%] [%d.]+ m?s left  1 task, 0 runs: "
  t.match(run.out, line .. "task=" .. id .. "[^\r]*red ")
  t.match(run.out, "%[##+%-+%]")
  t.match(run.out, "\r\27%[Krestarted: generation 2")
  t.ok(not run.out:find("\27[31m", 1, true), "a title reached the terminal as a command")
  host:stop()
end)

t.test("a host that starts or has failed is told of, and restarted", function()
  local dir = t.dir()
  local host = t.start({ dir = dir, ready = false, app = ([[
    local gwhost = require "gwhost"
    return { start = function()
      while not io.open("%s/go") do gwhost.sleep(20) end
      if io.open("%s/bad") then error("broken on purpose") end
      return { close = function() end }
    end }]]):format(dir, dir) })
  host:wait("lock.acquired")
  t.poll("the socket", function() return uv.fs_stat(host.state_dir .. "/control.sock") end)
  t.match(fine(host, "status").out, "state +starting")
  local early = begin(host, { "restart" })
  host:wait("restart.requested")
  t.write(dir .. "/go", "")
  t.eq(finish(early).code, 0, early.err)
  t.match(early.out, "generation 2")
  t.write(dir .. "/bad", "")
  local failed = cli(host, { "restart" })
  t.eq(failed.code, 1)
  t.match(failed.err, "not restarted: .*broken on purpose")
  t.match(fine(host, "status").out, "state +failed")
  t.eq(cli(host, { "submit", "echo" }).code, 1)
  assert(os.remove(dir .. "/bad"))
  t.match(fine(host, "restart").out, "^restarted: generation .*%(in_process, ")
  fine(host, "stop")
  t.eq(host:wait_exit(), 0)
end)

t.test("a merged request is followed to the one that it was merged into", function()
  local host = t.start({ policy = PATIENT })
  local id = host:submit({ handler = "sleep", input = { ms = 60000 } })
  host:until_status(id, "running")
  local first = begin(host, { "restart" })
  host:wait("drain.started")
  local second = begin(host, { "restart", "--force" })
  finish(first)
  finish(second)
  t.eq(first.code, 0, first.err)
  t.eq(second.code, 0, second.err)
  t.match(second.err, "into which it was merged")
  t.match(second.out, "generation 2")
  t.eq(host:get("/v1/status").json.generation, 2)
  host:stop()
end)

t.test("a restart that is refused fails with the reason", function()
  local host = t.start({ app = "return { start = function() return { close = function() end } end }" })
  t.write(host.app_file, "return {\n")
  local run = cli(host, { "restart" })
  t.eq(run.code, 1)
  t.eq(run.out, "")
  t.match(run.err, "not restarted: request %w+ is refused: .*app.lua:2")
  host:stop()
end)

t.test("a dry run shows mode, budget, blockers and policy, and does nothing", function()
  local host = t.start({ policy = [[
    return { drain_budget = function(ctx) return ctx.action == "restart" and 7000 or 0 end }]] })
  local id = host:submit({ handler = "sleep", title = "a nap", input = { ms = 60000 } })
  host:until_status(id, "running")
  local plan = fine(host, "restart", "--dry-run").out
  t.match(plan, "mode +in_process")
  t.match(plan, "budget +7%.0 s")
  t.match(plan, "blockers +task=.*a nap")
  t.match(plan, "policy.lua")
  t.eq(t.json.decode(fine(host, "restart", "--dry-run", "--json", "--wait", "0").out).mode, "in_process")
  t.eq(host:get("/v1/status").json.generation, 1)
  t.eq(#host:all("restart.requested"), 0)
  host:stop()
end)

t.test("a request that waits for an idle moment can be withdrawn, and whoever waits for it is told", function()
  local host = t.start({})
  local id = host:submit({ handler = "sleep", input = { ms = 60000 } })
  host:until_status(id, "running")
  local waiting = begin(host, { "restart", "--when-idle" })
  local request = host:wait("restart.deferred").request_id
  fine(host, "restart", "--cancel", request)
  finish(waiting)
  t.eq(waiting.code, 1)
  t.match(waiting.err, "is cancelled")
  t.eq(cli(host, { "restart", "--cancel", request }).code, 1)
  t.match(cli(host, { "restart", "--cancel", "nobody" }).err, "nobody")
  host:stop()
end)

t.test("without waiting the id of the request is all that is printed", function()
  local host = t.start({})
  local id = fine(host, "restart", "--no-wait").out:match("^(%w+)\n$")
  t.eq(host:wait("restart.outcome").request_id, t.ok(id))
  host:stop()
end)

t.test("a command that ends early changes nothing", function()
  local host = t.start({ args = { "--allow-exec" } })
  local id = host:submit({ handler = "exec", input = { argv = held(host) } })
  host:until_status(id, "running")
  local restart = begin(host, { "restart" })
  local submit = begin(host, { "submit", "--wait", "echo", '{"a":1}' })
  host:wait("drain.started")
  uv.kill(restart.pid, "sigkill")
  uv.kill(submit.pid, "sigkill")
  finish(restart)
  finish(submit)
  t.write(host.dir .. "/go", "")
  t.eq(host:wait("restart.outcome").outcome, "restarted")
  t.eq(host:get("/v1/tasks/" .. id).json.status, "succeeded")
  host:stop()
end)

t.test("a host that is killed leaves each waiting command an outcome within half a minute", function()
  local host = t.start({ policy = PATIENT })
  fine(host, "submit", "sleep", '{"ms":60000}')
  local task = begin(host, { "submit", "--wait", "sleep", '{"ms":60000}' })
  running(host, 2)
  local restart = begin(host, { "restart" })
  host:wait("drain.started")
  says(restart, "waiting for")
  local began = t.now()
  host:signal("sigkill")
  host:wait_exit()
  finish(restart, 45000)
  finish(task, 45000)
  local took = (t.now() - began) / 1e9
  t.ok(took < 40, "took " .. took .. " s")
  for _, run in ipairs({ restart, task }) do
    t.eq(run.code, 1)
    t.eq(run.out, "")
    t.match(run.err, "is not known: the host is gone")
  end
end)

t.test("a host that comes back is asked for the same task, and says lost", function()
  local host = t.start({})
  local run = begin(host, { "submit", "--wait", "sleep", '{"ms":60000}' })
  running(host, 1)
  host:signal("sigkill")
  host:wait_exit()
  local again = t.start({ state_dir = host.state_dir })
  finish(run)
  t.eq(run.code, 1)
  t.match(run.err, "task %w+ is lost")
  again:stop()
end)

t.test("a command's output and end are those of the command", function()
  local host = t.start({ args = { "--allow-exec" } })
  local where = uv.fs_realpath(t.dir())
  local script = "printf out; printf err >&2; pwd; exit 7"
  local run = cli(host, { "submit", "--wait", "exec", "--", "sh", "-c", script }, { cwd = where })
  t.eq(run.code, 7)
  t.eq(run.out, "out" .. where .. "\n")
  t.eq(run.err, "err")
  t.eq(cli(host, { "submit", "--wait", "exec", "--", "sh", "-c", "kill -9 $$" }).code, 137)
  t.eq(cli(host, { "submit", "--wait", "exec", "--", "true", "--force" }).code, 0)
  host:stop()
end)

t.test("a command is waited for through a restart of its host", function()
  local host = t.start({ args = { "--allow-exec" } })
  local run = begin(host, { "submit", "--wait", "--title", "build", "exec", "--", "sh", "-c",
    "until [ -e " .. host.dir .. "/go ]; do sleep 0.02; done; echo built" })
  running(host, 1)
  local restart = begin(host, { "restart" })
  says(restart, "title=build")
  t.write(host.dir .. "/go", "")
  t.eq(finish(run).code, 0, run.err)
  t.eq(run.out, "built\n")
  t.eq(finish(restart).code, 0, restart.err)
  host:stop()
end)

t.test("tasks shows the work in hand, and others by their status", function()
  local host = t.start({ args = { "--lane", "main=1" } })
  local a = fine(host, "submit", "--title", "a nap", "sleep", '{"ms":60000}').out:match("%w+")
  host:until_status(a, "running")
  local b = fine(host, "submit", "echo").out:match("%w+")
  local shown = fine(host, "tasks").out
  t.match(shown, a .. " +running .*a nap")
  t.match(shown, b .. " +queued ")
  t.eq(#t.json.decode(fine(host, "tasks", "--json").out).tasks, 2)
  t.eq(fine(host, "tasks", "--status", "failed").out, "")
  t.eq(cli(host, { "tasks", "--status", "odd" }).code, 1)
  t.eq(cli(host, { "submit", "nonsense" }).code, 1)
  t.eq(cli(host, { "submit", "--lane", "none", "echo" }).code, 1)
  host:stop()
end)

t.test("reload loads the policy that is written, refuses a bad one, and goes back", function()
  local host = t.start({ policy = "return {}" })
  t.match(fine(host, "reload").out, "unchanged")
  t.write(host.policy_file, "return { drain_budget = function() return 5 end }")
  t.match(fine(host, "reload").out, "^policy .* is loaded: .*policy.lua")
  local sha = t.json.decode(fine(host, "status", "--json").out).policy.sha256
  t.write(host.policy_file, "return {\n  drain_budget = 5 }")
  local bad = cli(host, { "reload" })
  t.eq(bad.code, 1)
  t.match(bad.err, "drain_budget")
  t.eq(t.json.decode(fine(host, "status", "--json").out).policy.sha256, sha)
  fine(host, "reload", "--back")
  t.ok(t.json.decode(fine(host, "status", "--json").out).policy.sha256 ~= sha)
  host:stop()
end)

t.test("stop returns once the process has ended, with its word for how", function()
  local host = t.start({})
  local run = fine(host, "stop")
  t.match(run.out, "pid " .. host.pid .. " has stopped")
  t.eq(uv.kill(host.pid, 0), nil)
  t.eq(host:wait_exit(), 0)
  local stuck = t.start({ app = 'return { start = function() return { close = function() error("door") end } end }' })
  run = cli(stuck, { "stop" })
  t.eq(run.code, 1)
  t.match(run.err, "exit code 1")
  t.eq(stuck:wait_exit(), 1)
end)

t.test("under a supervisor a stop is refused and the host goes on", function()
  local host = t.start({ env = { "GWHOST_SUPERVISOR=external" } })
  local run = cli(host, { "stop" })
  t.eq(run.code, 1)
  t.match(run.err, "supervisor")
  t.eq(host:get("/healthz").status, 200)
  host:stop()
end)

t.test("a host whose socket is gone is restarted by an intent and a signal", function()
  local host = t.start({})
  assert(os.remove(host.state_dir .. "/control.sock"))
  local run = cli(host, { "status" })
  t.eq(run.code, 1)
  t.match(run.err, "pid " .. host.pid .. " runs on .*gwhost restart %-%-signal")
  run = fine(host, "restart", "--signal", "--reason", "by hand", "--wait", "3")
  t.match(run.out, "pid " .. host.pid .. " has taken")
  t.eq(host:wait("restart.requested").reason, "by hand")
  t.eq(host:wait("restart.outcome").outcome, "restarted")
  t.eq(uv.fs_stat(host.state_dir .. "/restart-intent.json"), nil)
  host:stop()
end)

t.test("a signal is not sent to a process that gwhost.lock only names", function()
  local host = t.start({})
  local lock = t.read(host.state_dir .. "/gwhost.lock")
  local victim = t.start({})
  local f = assert(io.open(host.state_dir .. "/gwhost.lock", "w"))
  f:write((lock:gsub('"pid":%d+', '"pid":' .. victim.pid)))
  f:close()
  local run = cli(host, { "restart", "--signal" })
  t.eq(run.code, 1)
  t.match(run.err, "not by pid " .. victim.pid)
  t.eq(#victim:all("signal.received"), 0)
  t.eq(uv.fs_stat(host.state_dir .. "/restart-intent.json"), nil)
  victim:stop()
  host:stop()
end)

t.test("an intent that a stuck host does not take is removed again", function()
  local host = t.start({})
  host:signal("sigstop")
  local run = cli(host, { "restart", "--signal" })
  t.eq(run.code, 1)
  t.match(run.err, "does not look at it")
  t.eq(uv.fs_stat(host.state_dir .. "/restart-intent.json"), nil)
  run = cli(host, { "status" })
  t.eq(run.code, 1)
  t.match(run.err, "does not answer")
  host:signal("sigcont")
  host:stop()
end)

t.test("a socket that belongs to somebody else is not used", function()
  local host = t.start({})
  if uv.getuid() == 0 then
    assert(uv.fs_chown(host.state_dir .. "/control.sock", 4321, 4321))
    local run = cli(host, { "status" })
    t.eq(run.code, 1)
    t.match(run.err, "belongs to uid 4321")
  end
  os.remove(host.state_dir .. "/control.sock")
  t.write(host.state_dir .. "/control.sock", "")
  t.match(cli(host, { "status" }).err, "is not a socket")
  os.remove(host.state_dir .. "/control.sock")
  host:stop()
end)

t.test("bundles are listed and shown without a host", function()
  local host = t.start({ ready = false, app = 'return { start = function() error("no") end }' })
  t.eq(host:wait_exit(), 1)
  local id = t.ok(fine(host, "bundle", "list").out:match("^(%d[%w%.%-_]+)\n$"))
  t.eq(t.json.decode(fine(host, "bundle", "show").out).reason, "gateway.startup_failed")
  t.eq(t.json.decode(fine(host, "bundle", "show", id).out).pid, host.pid)
  t.eq(t.json.decode(fine(host, "bundle", "show", id:sub(1, 4)).out).pid, host.pid)
  t.eq(cli(host, { "bundle", "show", "9999" }).code, 1)
  t.eq(cli(t.dir(), { "bundle", "show" }).code, 1)
  t.eq(fine(t.dir(), "bundle", "list").out, "")
end)

for _, mode in ipairs({ "reexec", "respawn", "in_process" }) do
  t.test("restart returns on a terminal and without one when work is in hand and it comes back by " .. mode, function()
    local host = t.start({ policy = ("return { restart_mode = function() return %q end }"):format(mode) })
    for _, program in ipairs({ "script", t.binary }) do
      for _, ms in ipairs({ 150, 400, 650 }) do -- the line is drawn anew every 200
        local id = host:submit({ handler = "sleep", input = { ms = ms } })
        host:until_status(id, "running")
        local words = { "restart", "--reason", "in hand" }
        if mode ~= "in_process" then words[#words + 1] = "--update" end
        if program == "script" then
          words = { "-qec", ("'%s' %s"):format(t.binary, table.concat(words, " "):gsub("in hand", "terminal")), "/dev/null" }
        end
        local run = finish(begin(host, words, { program = program }), 20000)
        t.eq(run.code, 0, run.out .. run.err)
        t.match(run.out, "restarted: generation %d+, boot id %x+, pid " .. host.pid)
        host:until_status(id, "succeeded")
      end
    end
    host:stop()
  end)
end

t.main()
