-- Nobody connected notices: twenty restarts of each kind under 64 keep-alive clients, 64 that connect anew for
-- each request, and 100 open WebSockets.
local t = require("support.harness")
local uv = require("luv")

local RESTARTS, KEPT, ANEW, SOCKETS = 20, 64, 64, 100

--- again(host, n) restarts it for the nth time.
local function unnoticed(mode, again)
  local host = t.start({ args = { "--set", "mode=" .. mode },
    policy = [[return { restart_mode = function(ctx) return ctx.vars.mode end,
      authorize_sigusr1 = function() return true end }]] })
  local over, jobs = false, {}
  local stats = { kept = 0, anew = 0, echoes = 0, held = 0 }
  local trouble = {}
  local function note(what, why) trouble[#trouble + 1] = what .. ": " .. tostring(why) end

  for _ = 1, KEPT do
    jobs[#jobs + 1] = t.go(function()
      local c = t.ok(t.connect(host))
      while not over do
        local a, why = c:request("GET", "/v1/tasks?limit=1")
        if not a or a.status ~= 200 or a.headers.connection == "close" then
          note("keep-alive", why or a.status .. " " .. tostring(a.headers.connection))
          return
        end
        stats.kept = stats.kept + 1
      end
      c:close()
    end)
  end
  for _ = 1, ANEW do
    jobs[#jobs + 1] = t.go(function()
      while not over do
        local c, refused = t.connect(host)
        if not c then
          note("connect", refused)
          return
        end
        local a, why = c:request("GET", "/healthz", nil, { Connection = "close" })
        if not a or a.status ~= 200 then note("anew", why or a.status) end
        stats.anew = stats.anew + 1
        c:close()
      end
    end)
  end
  local sockets = {}
  for i = 1, SOCKETS do
    jobs[#jobs + 1] = t.go(function()
      local ws = t.ok(t.websocket(host))
      sockets[i] = ws
      local n = 0
      while not over do
        n = n + 1
        ws:send(("%d of %d"):format(n, i))
        local frame, why = ws:recv()
        if not frame or frame.data ~= ("%d of %d"):format(n, i) then
          note("WebSocket", why or frame.opcode)
          return
        end
        stats.echoes = stats.echoes + 1
      end
    end)
  end
  t.until_true("all WebSockets", function() return #sockets == SOCKETS or #trouble > 0 end)
  local fds = host:fds()
  for i = 1, RESTARTS do
    local before = stats.kept + stats.anew + stats.echoes
    again(host, i)
    t.until_true("traffic after restart " .. i, function()
      return stats.kept + stats.anew + stats.echoes > before + 200 or #trouble > 0
    end)
  end
  over = true
  t.join(jobs)
  t.eq(#trouble, 0, table.concat(trouble, "; ", 1, math.min(#trouble, 10)))
  t.ok(stats.kept > 0 and stats.anew > 0 and stats.echoes > 0)
  print(("     %d keep-alive answers, %d on new connections, %d echoes through %d restarts"):format(
    stats.kept, stats.anew, stats.echoes, RESTARTS))
  t.ok(host:fds() <= fds + ANEW, "descriptors grow")
  for _, ws in ipairs(sockets) do ws:close() end
  host:stop()
end

t.test("20 restarts in place: 0 refused, 0 reset, 0 short answers, 0 WebSockets dropped", function()
  unnoticed("in_process", function(host, i)
    host:signal("sigusr1")
    t.eq(host:wait("host.ready").generation, i + 1)
  end)
end)

t.test("20 respawns, the same", function()
  local before = {}
  unnoticed("respawn", function(host)
    before[host.boot_id] = host.pid
    host:signal("sigusr1")
    t.eq(host:wait("restart.outcome").outcome, "restarted")
    t.eq(before[host.boot_id], nil, "the boot id of another process")
  end)
end)

t.test("20 updates to and fro between two programs, the same", function()
  local other = t.dir() .. "/gwhost"
  assert(uv.fs_copyfile(t.binary, other))
  unnoticed("respawn", function(host, i)
    local program = i % 2 == 1 and other or t.binary
    t.eq(host:restarted({ update = true, exec = program }).outcome, "restarted")
    t.eq(uv.fs_readlink("/proc/" .. host.pid .. "/exe"), uv.fs_realpath(program), "the program of pid " .. host.pid)
  end)
end)

t.test("20 times another image in the same process, the same", function()
  unnoticed("reexec", function(host)
    local pid, boot_id = host.pid, host.boot_id
    host:signal("sigusr1")
    t.eq(host:wait("restart.outcome").outcome, "restarted")
    t.eq(host.pid, pid)
    t.ok(host.boot_id ~= boot_id, "the same boot id")
  end)
end)

t.main()
