-- SIGUSR2 and SIGQUIT, and what is a crash for the next start.
local t = require("support.harness")

local NAP = 'return { authorize_sigusr1 = function(ctx) return ctx.update, "updates only" end, drain_budget = function() return 0 end%s }'

t.test("SIGUSR2 asks for an update, by the policy, as SIGUSR1 asks for a restart", function()
  local host = t.start({ policy = NAP:format(', restart_mode = function(ctx) return ctx.update and "respawn" or "in_process" end') })
  local pid = host.pid
  host:signal("sigusr1")
  t.match(host:wait("signal.ignored").why, "updates only")
  host:signal("sigusr2")
  local asked = host:wait("restart.requested")
  t.eq(asked.reason, "SIGUSR2")
  t.eq(host:wait("restart.outcome").outcome, "restarted")
  host:wait("host.ready", function(e) return e.pid ~= pid end)
  t.eq(t.json.decode(t.read(host.state_dir .. "/restart-sentinel.json")).payload.status, "ok")
  host:stop()
  local strict = t.start({ policy = "return { authorize_sigusr1 = function() return false end }" })
  strict:signal("sigusr2")
  t.eq(strict:wait("signal.ignored").signal, "SIGUSR2")
  strict:stop()
end)

local APP = [[
  local gwhost = require("gwhost")
  local function spin() while true do end end
  local function nap() gwhost.sleep(600000) end
  return { start = function()
    gwhost.go(nap)
    gwhost.serve { request = function(req)
      if req.path == "/spin" then spin() end
      return { status = 200, body = "here" }
    end }
    return { close = function() end }
  end }]]

t.test("SIGQUIT says where scripts stand, and stops", function()
  local host = t.start({ app = APP, policy = NAP:format("") })
  host:signal("sigquit")
  t.match(host:wait("script.waits").at, "app.lua:3")
  t.eq(host:wait_exit(), 0)
end)

t.test("SIGQUIT says at once where a script is that does not return", function()
  local host = t.start({ app = APP, policy = NAP:format(""), env = { "GWHOST_SUPERVISOR=external" } })
  local c = t.connect(host)
  c:send("GET /spin HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " .. host.token .. "\r\n\r\n")
  t.poll("a loop that is stuck", function()
    local fields = {}
    for word in t.read("/proc/" .. host.pid .. "/stat"):gmatch("%S+") do fields[#fields + 1] = word end
    return tonumber(fields[14]) >= 20
  end)
  host:signal("sigquit")
  t.match(host:wait("script.stands").at, "app.lua:2 in .*spin.*app.lua:%d+")
  host:signal("sigkill")
  host:wait_exit()
end)

-- ---- what is a crash ----

local function end_by(host, how)
  host:signal("sigterm")
  host:wait("host.state", function(e) return e.state ~= "running" end)
  if how then host:signal(how) end
  host:wait_exit()
end

local function again(host)
  local next_one = t.start({ state_dir = host.state_dir, policy = NAP:format("") })
  local mode = next_one:get("/v1/status").json.safe_mode
  return next_one, mode
end

t.test("ends that were asked for and starts that never served bring no safe mode, however often", function()
  local slow = t.start({ policy = 'return { drain_budget = function() return 600000 end }' })
  for _ = 1, 4 do
    local id = slow:submit({ handler = "sleep", input = { ms = 600000 } })
    slow:until_status(id, "running")
    end_by(slow, "sigkill") -- as who stops it does when that takes too long
    slow = t.start({ state_dir = slow.state_dir, policy = 'return { drain_budget = function() return 600000 end }' })
    t.eq(#slow:all("boot.unclean"), 0)
    t.eq(slow:get("/v1/status").json.safe_mode, false)
  end
  slow:signal("sigkill")
  slow:wait_exit()
  for _ = 1, 4 do
    local typo = t.start({ state_dir = slow.state_dir, app = "return { start = function() nil_thing.x = 1 end }", ready = false })
    t.eq(typo:wait_exit(), 1)
  end
  local host, mode = again(slow)
  t.eq(mode, false)
  host:stop()
end)

t.test("a crash is told at the next start: who died, and where its report is; three of them bring safe mode", function()
  local host = t.start({ policy = NAP:format("") })
  for n = 1, 3 do
    local dead = host.pid
    host:signal("sigkill")
    host:wait_exit()
    host = t.start({ state_dir = host.state_dir, policy = NAP:format("") })
    local said = host:wait("boot.unclean")
    t.eq(said.dead_pid, dead)
    t.match(said.msg, "no report")
    t.eq(host:get("/v1/status").json.safe_mode, n == 3)
  end
  host:wait("safe_mode.entered")
  t.eq(host:restarted({}).outcome, "restarted")
  host:wait("safe_mode.left")
  host:stop()
end)

t.main()
