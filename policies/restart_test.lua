-- restart.lua spells the built-in answers out: wherever both are asked, they must agree.

local blocker = { id = "t1", kind = "task", status = "running", runtime = "exec", lane = "main", age_ms = 10 }

test("the mode is the built-in one in every combination of facts", function()
  for bits = 0, 31 do
    local ctx = facts {
      update = bits & 1 ~= 0,
      respawn_disabled = bits & 2 ~= 0,
      container = bits & 4 ~= 0,
      supervisor = bits & 8 ~= 0 and "systemd" or nil,
      pid = bits & 16 ~= 0 and 1 or 4000,
    }
    eq((ask("restart_mode", ctx)), builtin("restart_mode", ctx))
  end
end)

test("a restart under a supervisor is left to it", function()
  eq({ ask("restart_mode", facts { supervisor = "systemd" }) }, { "supervised", "started by systemd" })
end)

test("an update starts a new process, but keeps the pid in a container", function()
  eq((ask("restart_mode", facts { update = true })), "respawn")
  eq((ask("restart_mode", facts { update = true, container = true })), "reexec")
  eq((ask("restart_mode", facts { update = true, pid = 1 })), "reexec")
end)

test("an update is done by the supervisor even when respawning is disabled", function()
  eq((ask("restart_mode", facts { update = true, respawn_disabled = true, supervisor = "s6" })), "supervised")
  eq((ask("restart_mode", facts { update = true, respawn_disabled = true })), "in_process")
end)

test("the drain budget is five minutes", function()
  eq((ask("drain_budget", facts())), 300000)
end)

test("the drain budget is the built-in one whatever the request says", function()
  for _, action in ipairs { "restart", "stop" } do
    for _, wait_ms in ipairs { -1, 0, 1, 2.75, 60000, 1e9 } do
      for _, force in ipairs { true, false } do
        local ctx = facts { action = action, intent = { wait_ms = wait_ms, force = force } }
        eq((ask("drain_budget", ctx)), builtin("drain_budget", ctx))
      end
    end
  end
end)

test("a request for no limit waits for ever, and a forced one not at all", function()
  eq((ask("drain_budget", facts { intent = { wait_ms = 0 } })), "unlimited")
  eq((ask("drain_budget", facts { intent = { wait_ms = 5000 } })), 5000)
  eq((ask("drain_budget", facts { force = true })), 0)
end)

test("a stop waits for nothing", function()
  eq((ask("drain_budget", facts { action = "stop" })), 0)
end)

test("nothing is said when nothing blocks", function()
  eq((ask("format_blockers", {}, facts())), nil)
end)

test("a blocking task is named with what is known about it", function()
  eq((ask("format_blockers", { blocker }, facts())), "task=t1 status=running runtime=exec")
end)

test("a run is named without a task", function()
  local run = { id = "r9", kind = "run", status = "compacting", label = "chat", age_ms = 1 }
  eq((ask("format_blockers", { run }, facts())), "run=r9 status=compacting label=chat")
end)

test("a long title is cut between characters", function()
  local line = ask("format_blockers", { { id = "t", kind = "task", title = ("ä"):rep(200) } }, facts())
  eq(line, "task=t title=" .. ("ä"):rep(80))
end)

test("eight blockers are named and the others counted", function()
  local many = {}
  for i = 1, 11 do many[i] = { id = "t" .. i, kind = "task", status = "running" } end
  local line = ask("format_blockers", many, facts())
  eq(select(2, line:gsub("task=", "")), 8)
  eq(line:match("; %+%d+ more$"), "; +3 more")
  eq(ask("format_blockers", many, facts { blockers_total = 500 }):match("%+%d+ more$"), "+492 more")
end)

test("the line about blockers is the built-in one", function()
  for _, titles in ipairs { {}, { "one" }, { "a", "b", "c" }, { ("…"):rep(81), "", "x\u{1F600}" } } do
    local list = {}
    for i, title in ipairs(titles) do
      list[i] = { id = "t" .. i, kind = i % 2 == 0 and "run" or "task", run_id = i == 3 and "r3" or nil,
        status = "running", runtime = "lua", label = i == 1 and "first" or nil, title = title }
    end
    eq((ask("format_blockers", list, facts())), builtin("format_blockers", list, facts()))
  end
end)

test("a signal is answered as the built-in rules say, whoever sent it", function()
  for _, uid in ipairs { 0, 1000, 1001 } do
    for _, descendant in ipairs { true, false, "gone" } do
      for _, exec_running in ipairs { true, false } do
        local ctx = facts { exec_running = exec_running, sender = { uid = uid } }
        ctx.sender.descendant = descendant
        if descendant == "gone" then ctx.sender.descendant, ctx.sender.exe = nil, nil end
        eq((ask("authorize_sigusr1", ctx)), builtin("authorize_sigusr1", ctx))
      end
    end
  end
  eq((ask("authorize_sigusr1", facts({}, { "sender" }))), false)
end)

test("the host's own user restarts it at the next idle moment", function()
  eq((ask("authorize_sigusr1", facts())), "when_idle")
end)

test("a task cannot restart its host", function()
  eq((ask("authorize_sigusr1", facts { sender = { descendant = true } })), false)
end)
