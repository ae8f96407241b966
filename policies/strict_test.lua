test("every SIGUSR1 is refused, root's too", function()
  for _, uid in ipairs { 0, 1000, 4711 } do
    local allowed, why = ask("authorize_sigusr1", facts { sender = { uid = uid } })
    eq(allowed, false)
    eq(why:find("gwhost restart", 1, true) ~= nil, true)
  end
end)

test("restarts are in-process, updates by respawn, whoever supervises", function()
  for _, supervisor in ipairs { "systemd", "s6", "external" } do
    eq((ask("restart_mode", facts { supervisor = supervisor })), "in_process")
    eq((ask("restart_mode", facts { supervisor = supervisor, update = true })), "respawn")
  end
end)

test("a restart never cuts work off, also when a shorter wait is asked for", function()
  eq((ask("drain_budget", facts())), "unlimited")
  eq((ask("drain_budget", facts { intent = { wait_ms = 1000 } })), "unlimited")
end)

test("force is the only way to cut work off", function()
  eq((ask("drain_budget", facts { force = true })), 0)
end)

test("a stop gives the work five minutes", function()
  eq((ask("drain_budget", facts { action = "stop" })), 300000)
end)

test("the line about blockers is the built-in one", function()
  eq(policy.format_blockers, nil)
end)
