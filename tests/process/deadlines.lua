-- Deadlines: what is changed counts from the change, what has come is looked at before it is judged, no client decides
-- how a host ends, and a stop reaches every process of the host.
local t = require("support.harness")
local uv = require("luv")

local function policy(budget, extra)
  return ("return { authorize_sigusr1 = function() return true end, drain_budget = function(ctx) return %s end %s }")
    :format(budget, extra or "")
end

local function napping(spec, ms)
  local host = t.start(spec)
  local id = host:submit({ handler = "sleep", input = { ms = ms or 600000 }, title = "a long nap" })
  host:until_status(id, "running")
  return host, id
end

local function is_dead(pid)
  t.poll("the end of pid " .. pid, function()
    local f = io.open("/proc/" .. pid .. "/stat")
    local state = f and f:read("a"):match("^.*%) (%S)")
    if f then f:close() end
    return not state or state == "Z"
  end)
end

local function no_bundles(host)
  for _, e in ipairs(host.events) do t.ok(e.event ~= "bundle.written" and e.event ~= "watchdog.fired", e.event) end
end

t.test("a drain that is shortened when it is older than the forced exit goes on to its end", function()
  local names = { "force", "reload", "sighup", "sigterm", "stop", "force a leaving one", "reload a stop" }
  local hosts = {}
  for _, name in ipairs(names) do
    local external = name == "force a leaving one"
    -- A stop by signal or command asks for its own budget.
    local own = (name == "sigterm" or name == "stop") and 'ctx.action == "stop" and 0 or 600000' or "600000"
    local host = napping({ policy = policy(own), env = { "GWHOST_SUPERVISOR=" .. (external and "external" or "none") } })
    hosts[name] = host
    if name == "reload a stop" then host:signal("sigterm") else host:control({ op = "restart" }) end
    host:wait("drain.started")
  end
  t.pause(26000) -- the age that is meant
  local ids = {}
  for name, host in pairs(hosts) do
    t.write(host.policy_file, policy("0"))
    if name:match("^force") then
      local told = host:control({ op = "restart", force = true }).result
      t.eq(told.status, "merged")
      t.eq(t.json.encode(told.changed), '["force"]')
      ids[name] = told.merged_into
    elseif name:match("^reload") then
      t.eq(host:control({ op = "reload" }).ok, true)
    elseif name == "stop" then
      t.eq(host:control({ op = "stop" }).ok, true)
    else
      host:signal(name)
    end
  end
  for name, host in pairs(hosts) do
    local ends = name == "stop" or name == "sigterm" or name == "reload a stop" or name == "force a leaving one"
    if ends then
      t.eq(host:wait_exit(), 0, name)
    else
      t.eq(host:wait("host.ready").generation, 2)
      t.eq(host:wait("restart.outcome", ids[name] and function(e) return e.request_id == ids[name] end).outcome, "restarted", name)
      host:stop()
    end
    no_bundles(host)
  end
end)

t.test("a request that joins the restart under way changes its budget, and is told so", function()
  local host = napping({ policy = policy("ctx.intent and ctx.intent.wait_ms or 600000") })
  host:control({ op = "restart" })
  t.eq(host:wait("drain.started").budget_ms, 600000)
  local longer = host:control({ op = "restart", wait_ms = 60000 }).result
  t.eq(longer.status, "merged")
  t.eq(t.json.encode(longer.changed), '["wait_ms"]')
  t.eq(host:wait("drain.budget_changed").budget_ms, 60000)
  local again = host:control({ op = "restart", wait_ms = 90000 }).result
  t.eq(#again.changed, 0)
  local http = host:post("/v1/restart", { wait_ms = 200 })
  t.eq(http.status, 202)
  t.eq(http.json.status, "merged")
  t.eq(t.json.encode(http.json.changed), '["wait_ms"]')
  t.eq(http.json.merged_into, longer.merged_into)
  host:wait("drain.timeout")
  t.eq(host:wait("host.ready").generation, 2)
  host:stop()
end)

t.test("more events in a turn than there are kinds end nothing", function()
  local host = napping({ policy = policy("600000") })
  host:control({ op = "restart" })
  host:wait("drain.started")
  t.write(host.policy_file, policy("0"))
  local c = t.connect(host, "unix:" .. host.state_dir .. "/control.sock")
  c:send(('{"op":"reload"}\n'):rep(100))
  for _ = 1, 100 do uv.kill(host.pid, "sighup") end
  t.eq(host:wait("host.ready").generation, 2)
  c:close()
  host:stop()
end)

-- ---- a stop ----

t.test("clients that do not go on with what they began cost a stop its closing time and no more", function()
  -- Half a body, half a head, an answer that is not read, an idle one. The supervisor's time makes closing short.
  local host = t.start({ policy = policy("0"), env = { "GWHOST_STOP_TIMEOUT=6s", "GWHOST_SUPERVISOR=external" } })
  local body = t.connect(host)
  body:send("POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"han")
  local head = t.connect(host)
  head:send("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Ha")
  local idle = t.connect(host)
  t.eq(idle:request("GET", "/healthz").status, 200)
  local deaf = t.connect(host)
  deaf.stream:read_stop()
  for _ = 1, 40 do deaf:send(("GET /v1/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " .. host.token .. "\r\n\r\n"):rep(200)) end
  t.ask_until("requests that are served", function() return host:get("/v1/status").json.connections.open >= 4 end)
  host:signal("sigterm")
  host:wait("connections.cut")
  t.eq(host:wait_exit(), 0)
  no_bundles(host)
  for _, c in ipairs({ body, head, idle, deaf }) do c:close() end
  local again = t.start({ state_dir = host.state_dir })
  t.eq(again:get("/v1/status").json.safe_mode, false)
  again:stop()
end)

t.test("while a stop waits for clients nobody new is taken, to be reset in the end", function()
  local host = t.start({ policy = policy("0"), env = { "GWHOST_STOP_TIMEOUT=8s", "GWHOST_SUPERVISOR=external" } })
  local body = t.connect(host)
  body:send("POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
  t.ask_until("the open request", function() return host:get("/v1/status").json.connections.open >= 2 end)
  host:signal("sigterm")
  host:wait("host.state", function(e) return e.state == "closing" end)
  local refused
  t.ask_until("a refusal", function()
    local c, why = t.connect(host)
    if c then
      c:send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
      local answer, short = c:answer(false)
      t.ok(answer, "a newcomer is cut: " .. tostring(short))
      t.eq(answer.headers.connection, "close")
      c:close()
    end
    refused = why
    return not c
  end)
  t.match(refused, "ECONNREFUSED")
  t.ok(not host.exit, "the host waits for its client still")
  body:close()
  t.eq(host:wait_exit(), 0)
end)

t.test("stops under clients that come back all the time reset none of them", function()
  for round = 1, 5 do
    local host = t.start({ policy = policy("0") })
    local over, resets, jobs = false, {}, {}
    for _ = 1, 4 do
      jobs[#jobs + 1] = t.go(function()
        while not over do
          local c, why = t.connect(host)
          if not c then
            if why == "ECONNREFUSED" then return end
            resets[#resets + 1] = why
            return
          end
          c:send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
          local answer, cut = c:answer(false)
          if not answer then resets[#resets + 1] = cut end
          if answer and answer.headers.connection ~= "close" and math.random(3) > 1 then
            local second, why_not = c:request("GET", "/healthz")
            if not second then resets[#resets + 1] = "kept: " .. why_not end
          end
          c:close()
        end
      end)
    end
    t.pause(20)
    host:signal("sigterm")
    t.eq(host:wait_exit(), 0)
    over = true
    t.join(jobs)
    t.eq(table.concat(resets, ", "), "", "round " .. round)
  end
end)

-- ---- all processes ----

local HANG = [[local gw = require("gwhost")
  return function(task)
    gw.sleep(task.input.after)
    local f <close> = assert(io.open(task.input.file, "w"))
    f:write("hangs")
    f:close()
    while true do end
  end]]

t.test("a stop that finds the loop stuck ends the process that stands by as well", function()
  for _, how in ipairs({ "sigterm", "sigint" }) do
    local dir = t.dir()
    t.write(dir .. "/hang.lua", HANG)
    local host = t.start({ args = { "--handlers", dir },
      policy = policy("600000", ', restart_mode = function() return "respawn" end') })
    local id = host:submit({ handler = "hang", input = { after = 1500, file = dir .. "/hangs" } })
    host:until_status(id, "running")
    host:control({ op = "restart" })
    local child = host:wait("respawn.ready").child_pid
    host:wait("drain.started")
    t.poll("a stuck loop", function() return uv.fs_stat(dir .. "/hangs") end)
    host:signal(how)
    is_dead(child) -- long before the last resort ends the first one
    t.ok(not host.exit)
    uv.kill(host.pid, "sigkill") -- as who stops it does when that takes too long
    host:wait_exit()
    t.eq(#host:all("standby.orphaned"), 0)
    local again = t.start({ state_dir = host.state_dir })
    t.eq(again:get("/v1/tasks/" .. id).json.status, "lost")
    again:stop()
  end
end)

-- ---- standing still ----

local function stand_still(pid, ms)
  assert(uv.kill(pid, "sigstop"))
  t.pause(ms)
  assert(uv.kill(pid, "sigcont"))
end

t.test("work that ended while the host stood still has ended, whatever its drain's budget says", function()
  local host = t.start({ policy = policy("700"), args = { "--allow-exec" } })
  local id = host:submit({ handler = "exec", input = { argv = { "sleep", "0.5" } } })
  host:until_status(id, "running")
  host:signal("sigusr1")
  host:wait("drain.started")
  stand_still(host.pid, 1500)
  t.eq(host:wait("host.ready").generation, 2)
  t.eq(host:get("/v1/tasks/" .. id).json.status, "succeeded")
  host:stop()
end)

t.test("a successor that was ready in time is, also for a host that stood still", function()
  local host = t.start({ policy = policy("0",
    ', restart_mode = function() return { mode = "respawn", health_timeout_ms = 3000 } end') })
  local pid = host.pid
  host:control({ op = "restart" })
  host:wait("respawn.spawned")
  stand_still(pid, 4000)
  local ready = host:wait("host.ready")
  t.ok(ready.pid ~= pid, "it went on in the old process: " .. host:log_tail())
  no_bundles(host)
  host:stop()
end)

t.test("a client whose request has come meanwhile is answered by one who stood still", function()
  local host = t.start({ policy = policy("0") })
  local half = t.connect(host)
  half:send("GET /healthz HTTP/1.1\r\nHost: x\r\n")
  t.ask_until("the half request", function() return host:get("/v1/status").json.connections.open >= 2 end)
  assert(uv.kill(host.pid, "sigstop"))
  half:send("\r\n")
  t.pause(10500) -- the time for a head is 10 s
  assert(uv.kill(host.pid, "sigcont"))
  t.eq(t.ok(half:answer(false), "cut").status, 200)
  half:close()
  host:stop()
end)

t.test("one that runs never says that it stood still, whoever follows it, connects or is slow", function()
  local host = t.start({ policy = policy("4000") })
  local id = host:submit({ handler = "sleep", input = { ms = 600000 } })
  host:until_status(id, "running")
  local follower = t.connect(host, "unix:" .. host.state_dir .. "/control.sock")
  follower:send('{"op":"follow"}\n{"op":"status"}\n')
  follower:until_match("connections")
  local began = t.now()
  host:control({ op = "restart" })
  host:wait("drain.started")
  local silent = {}
  for i = 1, 2 do -- each one changes what the loop waits for, behind its back
    silent[i] = t.connect(host)
    t.pause(1300)
    follower:send('{"op":"status"}\n')
  end
  t.eq(host:wait("host.ready").generation, 2)
  local took = (t.now() - began) // 1000000
  t.ok(took >= 3900 and took < 15000, "a budget of 4 s took " .. took .. " ms")
  t.eq(#host:all("host.stood_still"), 0)
  for _, c in ipairs(silent) do c:close() end
  follower:close()
  host:stop()
end)

t.main()
