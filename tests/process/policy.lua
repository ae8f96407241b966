-- Policies that are wrong, in the real program at real restarts: each time the restart happens, the log names
-- the line, and a good policy answers rightly straight afterwards. And how policies come into force.
local t = require("support.harness")
local uv = require("luv")

local GOOD = [[
return {
  name = "good",
  authorize_sigusr1 = function(ctx) return true, "good sees " .. tostring(ctx.sender.pid) end,
  drain_budget = function(ctx) return 61234, "good budget" end,
  format_blockers = function(blockers) return "good: " .. #blockers end,
}
]]

-- Line 2 holds what is wrong, whatever hook is asked.
local BAD = [[
local function bad(ctx)
  %s
end
return { name = "bad", authorize_sigusr1 = bad, drain_budget = bad, restart_mode = bad, format_blockers = bad }
]]

local FAULTS = {
  { "an endless loop", "while true do end" },
  { "an endless loop behind pcall", "while true do pcall(function() while true do end end) end" },
  { "a time-out that pcall caught", "pcall(function() while true do end end) return 1" },
  { "a memory hog", "local all = {} for i = 1, 1e9 do all[i] = ('x'):rep(1000) .. i end" },
  { "a string too large", "return ('x'):rep(1 << 30)" },
  { "a wrong answer", "return { { {} } }" },
  { "an error with a table", "error({ code = 5 })" },
  { "an error with nothing", "error()" },
  { "a field of nil", "return ctx.nothing.field" },
  { "a pattern that backtracks for ever", "return (('a'):rep(60)):find(('a?'):rep(60) .. ('a'):rep(60) .. 'b')" },
  { "a sort that never ends", "local list = {} for i = 1, 200 do list[i] = i end " ..
    "while true do table.sort(list, function(a, b) return true end) end" },
  { "a sort of what is large", "local list = {} for i = 1, 30000 do list[i] = ('x'):rep(60) .. i end " ..
    "for _ = 1, 1000 do table.sort(list) table.sort(list, function(a, b) return b < a end) end" },
  { "recursion without end", "local function f() return 1 + f() end return f()" },
}

local slowest = 0

--- Holds that the good policy, now in force, rules a restart by SIGUSR1.
local function good_rules(host)
  local generation = host.generation
  host:signal("sigusr1")
  local decision = host:wait("policy.decision",
    function(e) return e.hook == "authorize_sigusr1" and e.answer == "true" end)
  t.match(decision.why, "^good sees ")
  host:wait("policy.decision", function(e) return e.hook == "drain_budget" and e.why == "good budget" end)
  t.eq(host:wait("host.ready").generation, generation + 1)
end

for _, fault in ipairs(FAULTS) do
  t.test(fault[1] .. " in every hook: the restart happens with the built-in answers", function()
    local host = t.start({ policy = GOOD })
    local file = host.policy_file
    t.write(file, BAD:format(fault[2]))
    good_rules(host)
    t.eq(host:get("/v1/status").json.policy.name, "bad")

    host:signal("sigusr1")
    local failed = host:wait("policy.hook_failed")
    t.eq(failed.hook, "authorize_sigusr1")
    t.match(failed.error, "policy.lua:%d")
    host:wait("signal.ignored")

    local id = host:submit({ handler = "sleep", input = { ms = 400 } })
    host:until_status(id, "running")
    local request = host:post("/v1/restart", {}).json
    t.eq(host:wait("drain.started").budget_ms, 300000)
    t.match(host:wait("drain.blocked").blockers, "^task=" .. id)
    t.write(file, GOOD)
    host:wait("host.ready")
    t.eq(host:get("/v1/restarts/" .. request.request_id).json.outcome, "restarted")
    t.eq(host:get("/v1/tasks/" .. id).json.status, "succeeded")
    local hooks = {}
    for _, e in ipairs(host:all("policy.hook_failed")) do
      hooks[e.hook] = e.error
      t.match(e.error, "/policy%.lua:[1-4]:")
    end
    for _, hook in ipairs({ "restart_mode", "drain_budget", "format_blockers" }) do
      t.ok(hooks[hook], hook .. " failed")
    end
    for _, e in ipairs(host:all("policy.decision")) do slowest = math.max(slowest, e.us) end

    good_rules(host)
    t.eq(#host:all("policy.rejected"), 0)
    host:stop()
  end)
end

t.test("a policy that does not load is refused at a restart, and the last good one rules", function()
  local host = t.start({ policy = GOOD })
  for _, case in ipairs({
    { "return {\n  drain_budget = function() return 1 end\n  restart_mode = 5\n}", "policy.lua:3:" },
    { "local x = 1\nwhile true do end", "policy.lua:2:" },
    { "local all = {}\nfor i = 1, 1e9 do all[i] = ('x'):rep(1000) .. i end", "policy.lua:2:" },
    { "local s = ('a'):rep(60)\nreturn s:find(('a?'):rep(60) .. s .. 'b')", "policy.lua:%d" },
    { "error({})", "policy.lua:1:" },
    { "return 5", "policy.lua:%d?" },
    { "return { drain_budget = 5 }", "policy.lua:1" },
    { "return { drian_budget = function() end }", "drian_budget" },
    { "x = 1\nreturn {}", "policy.lua:1:" },
    { "return require('missing')", "missing" },
    { "\27Lua", "policy.lua" },
    { "", "policy.lua" },
  }) do
    t.write(host.policy_file, case[1])
    local sha = host:get("/v1/status").json.policy.sha256
    local generation = host.generation
    host:signal("sigusr1")
    t.match(host:wait("policy.rejected").error, case[2])
    t.eq(host:wait("host.ready").generation, generation + 1)
    t.match(host:wait("policy.rejected").error, case[2])
    t.eq(host:get("/v1/status").json.policy.sha256, sha)
    good_rules(host)
    host.seen["policy.rejected"] = #host.events
  end
  assert(uv.fs_unlink(host.policy_file))
  good_rules(host)
  t.match(host:wait("policy.rejected").error, "policy.lua")
  t.write(host.policy_file, GOOD:gsub("good", "better"))
  host:signal("sigusr1")
  host:wait("host.ready")
  t.eq(host:get("/v1/status").json.policy.name, "better")
  host:stop()
end)

t.test("SIGHUP loads a good policy, says its file and hash, and refuses a bad one", function()
  local host = t.start({ policy = GOOD })
  local first = host:wait("policy.loaded")
  t.eq(first.path, uv.fs_realpath(host.policy_file))
  t.eq(first.name, "good")
  local sum = io.popen("sha256sum '" .. host.policy_file .. "'"):read("a"):match("^%x+")
  t.eq(first.sha256, sum)
  t.write(host.policy_file, (GOOD:gsub("61234", "1234")))
  host:signal("sighup")
  local second = host:wait("policy.loaded")
  t.ok(second.sha256 ~= sum)
  local status = host:get("/v1/status").json
  t.eq(status.policy.sha256, second.sha256)
  t.ok(status.policy.loaded_at > 1.6e12)
  t.write(host.policy_file, "return {\n  oops\n")
  host:signal("sighup")
  t.match(host:wait("policy.rejected").error, "policy.lua:%d")
  t.eq(host:get("/v1/status").json.policy.sha256, second.sha256)
  t.eq(host:get("/healthz").json.generation, 1)
  host:stop()
end)

t.test("with --watch a save by rename, and one in place, is taken into use", function()
  local host = t.start({ policy = GOOD, args = { "--watch" } })
  t.write(host.policy_file, (GOOD:gsub("good", "renamed")))
  t.eq(host:wait("policy.loaded", function(e) return e.because == "watch" end).name, "renamed")
  local f = assert(io.open(host.policy_file, "w"))
  f:write((GOOD:gsub("good", "rewritten")))
  f:close()
  t.eq(host:wait("policy.loaded", function(e) return e.because == "watch" end).name, "rewritten")
  t.write(host.policy_file, "return {")
  t.match(host:wait("policy.rejected").error, "policy.lua:1")
  t.write(host.policy_file, GOOD)
  t.eq(host:wait("policy.loaded", function(e) return e.because == "watch" end).name, "good")
  good_rules(host)
  host:stop()
end)

t.test("with --watch whatever changes what is read is taken: links, folders, modules; what cannot be used is said once", function()
  local dir = t.dir()
  local function tree(name, word)
    for _, folder in ipairs({ "", "/rules" }) do assert(uv.fs_mkdir(dir .. "/" .. name .. folder, 493)) end
    t.write(dir .. "/" .. name .. "/policy.lua", "return { name = require('rules.words').name }")
    t.write(dir .. "/" .. name .. "/rules/words.lua", ("return { name = %q }"):format(word))
  end
  local function link(target, name)
    assert(uv.fs_symlink(target, dir .. "/" .. name .. ".new"))
    assert(os.rename(dir .. "/" .. name .. ".new", dir .. "/" .. name))
  end
  local function in_place(name, text)
    local f = assert(io.open(dir .. "/" .. name, "w"))
    f:write(text)
    f:close()
  end
  tree("one", "first")
  tree("two", "second")
  assert(uv.fs_mkdir(dir .. "/mount", 493))
  link("../one", "mount/..data") -- as a ConfigMap is mounted
  link("..data/policy.lua", "mount/policy.lua")
  link("..data/rules", "mount/rules")
  local host = t.start({ args = { "--watch", "--policy", dir .. "/mount/policy.lua" } })
  local function taken(name)
    t.eq(host:wait("policy.loaded", function(e) return e.because == "watch" end).name, name)
  end
  link("../two", "mount/..data")
  taken("second")
  in_place("two/rules/words.lua", "return { name = 'Second' }") -- as long as before
  taken("Second")
  in_place("two/policy.lua", "local ok, more = pcall(require, 'more')\nreturn { name = ok and more or 'no more' }")
  taken("no more")
  t.write(dir .. "/two/more.lua", "return 'some more'")
  link("..data/more.lua", "mount/more.lua") -- was looked for and not there
  taken("some more")
  in_place("two/policy.lua", "return { name = require('fresh.words') }")
  t.match(host:wait("policy.rejected").error, "fresh")
  assert(uv.fs_mkdir(dir .. "/mount/fresh", 493))
  in_place("mount/fresh/words.lua", "return oops oops")
  t.match(host:wait("policy.rejected").error, "words.lua:1")
  in_place("mount/fresh/words.lua", "return 'mended'") -- a file that no policy in force has read
  taken("mended")
  t.eq(#host:all("policy.rejected"), 2, "said once")
  t.write(dir .. "/mount/other.txt", "of no concern")
  assert(os.rename(dir .. "/mount", dir .. "/old"))
  t.pause(700) -- the folder is away for a while
  tree("mount", "another folder")
  taken("another folder")
  t.eq(host:control({ op = "reload", back = true }).ok, true)
  host:wait("policy.loaded", function(e) return e.because == "back" end)
  t.write(dir .. "/mount/policy.lua", t.read(dir .. "/mount/policy.lua")) -- the same again is no edit
  t.write(dir .. "/mount/rules/words.lua", "return { name = 'last' }")
  taken("last")
  t.eq(#host:all("policy.rejected"), 2)
  host:stop()
end)

t.test("a policy sees who sent the signal, the parameters, and modules beside it", function()
  local dir = t.dir()
  t.write(dir .. "/rules.lua",
    "return { words = function(s) return ('pid %d uid %d %s'):format(s.pid, s.uid, s.exe or '?') end }")
  local text = [[
local rules = require("rules")
return { authorize_sigusr1 = function(ctx)
  return true, ("%s %s %s %s %s %d"):format(rules.words(ctx.sender), tostring(ctx.sender.descendant), ctx.vars.colour,
    ctx.signal, ctx.builtin, ctx.generation)
end }]]
  local host = t.start({ dir = dir, policy = text, args = { "--set", "colour=deep blue", "--set", "x=1" } })
  host:signal("sigusr1")
  local why = host:wait("policy.decision", function(e) return e.hook == "authorize_sigusr1" end).why
  local pid, uid = math.tointeger(uv.os_getpid()), math.tointeger(uv.getuid())
  t.eq(why, ("pid %d uid %d %s false deep blue SIGUSR1 when_idle 1"):format(pid, uid, uv.fs_realpath("/proc/self/exe")))
  host:wait("host.ready")
  local received = host:wait("signal.received")
  t.eq(received.sender_pid, pid)
  t.eq(received.sender_uid, uid)
  -- A module is read with the policy that requires it, and edited with it.
  t.write(dir .. "/rules.lua", "return { words = function() return 'edited' end }")
  host:signal("sighup")
  host:wait("policy.loaded", function(e) return e.because == "SIGHUP" end)
  host:signal("sigusr1")
  t.match(host:wait("policy.decision", function(e) return e.hook == "authorize_sigusr1" end).why, "^edited")
  host:wait("host.ready")
  host:stop()
end)

t.test("the built-in answer refuses a SIGUSR1 from a child of a task, and takes one from its user", function()
  local host = t.start({ args = { "--allow-exec" } })
  local id = host:submit({ handler = "exec", input = { argv = { "sh", "-c",
    ("kill -USR1 %d; sleep 0.3; sh -c 'kill -USR1 %d; sleep 0.3'"):format(host.pid, host.pid) } } })
  for _ = 1, 2 do
    local ignored = host:wait("signal.ignored")
    t.eq(ignored.signal, "SIGUSR1")
    t.match(ignored.why, "descends from the host")
    t.ok(ignored.sender_pid ~= host.pid and ignored.sender_pid > 1)
  end
  host:until_status(id, "succeeded")
  -- One that ends before it can be looked at is not trusted while a command runs.
  host:submit({ handler = "exec", input = { argv = { "sh", "-c",
    ("(kill -USR1 %d) & wait; sleep 0.3"):format(host.pid) } } })
  local why = host:wait("signal.ignored").why
  t.ok(why:find("descends from the host") or why:find("may have been a running task's"), why)
  t.eq(#host:all("restart.requested"), 0)
  host:stop()
end)

t.test("strict.lua refuses every SIGUSR1 with words that help, and waits for work without end", function()
  local host = t.start({ args = { "--policy", t.source .. "/policies/strict.lua" } })
  host:signal("sigusr1")
  local ignored = host:wait("signal.ignored")
  t.match(ignored.why, "gwhost restart")
  t.match(ignored.why, "strict")
  local id = host:submit({ handler = "sleep", input = { ms = 500 } })
  host:until_status(id, "running")
  host:post("/v1/restart", {})
  t.eq(host:wait("drain.started").budget_ms, nil)
  host:wait("host.ready")
  t.eq(host:get("/v1/tasks/" .. id).json.status, "succeeded")
  host:stop()
end)

t.test("no failing hook took long", function()
  print(("     the slowest question took %.1f ms"):format(slowest / 1000))
  t.ok(slowest < 1000000) -- 75 ms on a machine that has nothing else to do
end)

t.main()
