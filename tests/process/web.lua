-- What stands between a host and the people behind the network: browsers, proxies, slow and impatient clients.
local t = require("support.harness")

local ALLOW = "return { authorize_sigusr1 = function() return true end%s }"

local function policy(mode)
  return ALLOW:format(mode and (", restart_mode = function() return '%s' end"):format(mode) or "")
end

--- Streams pieces, one for each name that appears in the folder; "end" and "fail" are the last.
local STREAMS = [[
local gwhost = require("gwhost")
local uv = require("luv")
local dir
local function wait_for(name)
  while not uv.fs_stat(dir .. "/" .. name) do gwhost.sleep(5) end
end
return {
  start = function(ctx)
    dir = ctx.vars.dir
    gwhost.serve({ request = function(req)
      return { stream = function(stream)
        stream:write("begun ")
        wait_for(req.path:sub(2))
        if req.path == "/fail" then error("out of words") end
        stream:write("rest of " .. ctx.generation)
      end }
    end })
    return { close = function() gwhost.log("info", "closing") end }
  end,
}]]

for _, mode in ipairs({ "in_process", "respawn", "reexec" }) do
  t.test("a streamed answer is waited for by a restart and is whole: " .. mode, function()
    local dir = t.dir()
    local host = t.start({ app = STREAMS, policy = policy(mode), args = { "--open", "--set", "dir=" .. dir } })
    local c = t.connect(host)
    c:send("GET /end HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    c:until_match("begun ")
    host:signal("sigusr1")
    host:wait("app.log", function(e) return e.msg == "closing" end)
    t.write(dir .. "/end", "")
    host:wait("restart.outcome")
    t.eq(c:answer().body, "begun rest of 1")
    t.eq(c:request("GET", "/end").body, "begun rest of " .. (mode == "in_process" and 2 or 1))
    c:close()
    host:stop()
  end)
end

t.test("a streamed answer that fails does not look whole, whatever the version", function()
  local dir = t.dir()
  local host = t.start({ app = STREAMS, args = { "--open", "--set", "dir=" .. dir } })
  local new, old = t.connect(host), t.connect(host)
  new:send("GET /fail HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
  old:send("GET /fail HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
  new:until_match("begun ")
  old:until_match("begun ")
  t.write(dir .. "/fail", "")
  local answer, why = new:answer()
  t.eq(answer, nil)
  t.eq(why, "short")
  t.ok(not new.data:find("\r\n0\r\n", 1, true))
  t.until_true("a reset", function() return old.closed end)
  t.eq(old.error, "ECONNRESET")
  t.match(host:wait("app.error").error, "out of words")
  new:close()
  host:stop()
end)

t.test("who half-closes after the request gets all of a stream", function()
  local dir = t.dir()
  local host = t.start({ app = STREAMS, args = { "--open", "--set", "dir=" .. dir } })
  local c = t.connect(host)
  c:send("GET /end HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
  c.stream:shutdown()
  c:until_match("begun ")
  t.write(dir .. "/end", "")
  t.eq(c:answer().body, "begun rest of 1")
  host:stop()
end)

t.main()
