-- Names on disk lead to a host until somebody removes them, or puts something else there.
local t = require("support.harness")
local uv = require("luv")

local POLICY = [[return { authorize_sigusr1 = function() return true end,
  restart_mode = function() return "in_process" end }]]

--- The pid of the host that answers at a unix socket; nil: nobody.
local function who_at(path)
  local c = t.connect({}, "unix:" .. path)
  if not c then return nil end
  c:send("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
  local answer = c:answer()
  c:close()
  return answer and answer.json.pid
end

local function exists(path) return uv.fs_lstat(path) ~= nil end

for _, mode in ipairs({ "in_process", "respawn", "reexec", "reload" }) do
  t.test("sockets whose names are gone have them again after a " .. mode, function()
    local path = t.dir() .. "/gw.sock"
    local host = t.start({ listen = "unix:" .. path, policy = POLICY })
    local waits = t.ok(t.connect(host, "unix:" .. path)) -- what is connected stays
    t.eq(waits:request("GET", "/healthz").status, 200)
    local control = host.state_dir .. "/control.sock"
    for _ = 1, 2 do
      assert(os.remove(path))
      assert(os.remove(control))
      if mode == "reload" then
        host:signal("sighup")
        host:wait("policy.loaded", function(e) return e.because == "SIGHUP" end)
      else
        t.write(host.policy_file, (POLICY:gsub('"in_process" end', '"' .. mode .. '" end')))
        host:signal("sighup") -- the names come back with it, and are taken again
        host:wait("policy.loaded", function(e) return e.because == "SIGHUP" end)
        assert(os.remove(path))
        assert(os.remove(control))
        host:signal("sigusr1")
        host:wait("restart.outcome")
      end
      t.eq(who_at(path), host.pid)
      t.eq(host:control({ op = "status" }).ok, true)
      t.eq(waits:request("GET", "/healthz").json.pid, host.pid)
    end
    waits:close()
    host:stop()
    t.ok(not exists(path) and not exists(control), "a stop removes its own")
  end)
end

t.test("a stop removes no socket, and no file, of another", function()
  local path = t.dir() .. "/gw.sock"
  local first = t.start({ listen = "unix:" .. path })
  assert(os.remove(path))
  local second = t.start({ listen = "unix:" .. path })
  first:stop()
  t.eq(who_at(path), second.pid)
  assert(os.remove(path))
  t.write(path, "mine")
  second:stop()
  t.eq(t.read(path), "mine")
end)

t.test("a name that another host has taken stays with it, and the log says so", function()
  local path = t.dir() .. "/gw.sock"
  local first = t.start({ listen = "unix:" .. path, policy = POLICY })
  assert(os.remove(path))
  local second = t.start({ listen = "unix:" .. path })
  first:restart()
  t.match(first:wait("listener.lost").error, "another process listens")
  t.eq(who_at(path), second.pid)
  first:stop()
  t.eq(who_at(path), second.pid)
  second:stop()
end)

local AS_PASSED = [[
import os, socket, sys
path, gone = sys.argv[1], sys.argv[2] == "gone"
s = socket.socket(socket.AF_UNIX) if path.startswith("/") else socket.socket(socket.AF_INET6)
s.bind(path if path.startswith("/") else ("::", int(path)))
s.listen(16)
if gone: os.unlink(path)
os.dup2(os.dup2(s.fileno(), 60), 3) # it may be 3 already, and closed at the exec
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="web")
os.execv(sys.argv[3], sys.argv[3:])
]]

t.test("a socket that was passed without its file is bound anew; one with it stays with whoever passed it", function()
  for _, state in ipairs({ "gone", "there" }) do
    local path = t.dir() .. "/gw.sock"
    local host = t.start({ listen = "unix:" .. path, wrap = { "python3", "-c", AS_PASSED, path, state } })
    t.eq(who_at(path), host.pid)
    host:stop()
    t.eq(exists(path), state == "there")
  end
end)

t.test("a socket that was passed and that no --listen asks for is named, and what cannot be bound for it ends with 78", function()
  local port = t.free_port()
  local host = t.start({ listen = "127.0.0.1:" .. port, ready = false, wrap = { "python3", "-c", [[
import os, socket, sys
s = socket.socket(socket.AF_INET6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("::", int(sys.argv[1])))
s.listen(16)
os.dup2(s.fileno(), 200) # as the manager itself, which goes on holding it
os.dup2(os.dup2(s.fileno(), 60), 3) # it may be 3 already, and closed at the exec
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])]], tostring(port) } })
  t.eq(host:wait("listener.unwanted").address, "[::]:" .. port)
  t.eq(host:wait_exit(), 78)
  t.match(table.concat(host.lines, "\n"), "give %-%-listen %[::%]:" .. port)
end)

t.test("a state directory whose path is too long for a socket's address is served all the same", function()
  local dir = t.dir() .. "/" .. ("d"):rep(120)
  assert(uv.fs_mkdir(dir, 448))
  local host = t.start({ state_dir = dir .. "/state" })
  local f = assert(io.popen(("'%s' restart --state-dir '%s' 2>&1"):format(t.binary, host.state_dir)))
  local text = f:read("a")
  t.ok(f:close(), text)
  host:stop()
  t.ok(not exists(host.state_dir .. "/control.sock"))
end)

t.main()
