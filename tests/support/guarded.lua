--- Runs a test so that it leaves nothing behind, whichever way it ends: lua5.4 guarded.lua COMMAND [ARG]...
---
--- The command gets a scratch folder (TMPDIR) and a mark in its environment, which whatever it starts inherits. What
--- carries the mark when the command has ended is killed and fails the test, and so do files that are left by a test
--- that passed. Somebody else, who is nobody's child and waits for this process's end, cleans up when it is killed
--- itself, as ctest does at a time-out.
local uv = require("luv")

local guarded = { MARK = "GWHOST_TEST_RUN" }

local function marked(mark)
  local found, own = {}, uv.os_getpid()
  local wanted = "\0" .. guarded.MARK .. "=" .. mark .. "\0"
  local proc = uv.fs_scandir("/proc")
  for name in function() return uv.fs_scandir_next(proc) end do
    local pid = math.tointeger(tonumber(name))
    local f = pid and pid ~= own and io.open("/proc/" .. name .. "/environ")
    local environ = f and f:read("a") -- of another user's, or of one that has ended: none
    if f then f:close() end
    if environ and ("\0" .. environ .. "\0"):find(wanted, 1, true) then
      local words = io.open("/proc/" .. name .. "/cmdline")
      found[#found + 1] = { pid = pid, words = words and words:read("a"):gsub("\0", " "):sub(1, 200) or "" }
      if words then words:close() end
    end
  end
  return found
end

--- Whoever carries the mark, but not this process, gets limit_ms to end by itself. Kills the others and returns a line
--- that names them; nil: there were none. turn is called while it waits.
function guarded.end_marked(mark, limit_ms, turn)
  local until_ns, left = uv.hrtime() + limit_ms * 1000000, marked(mark)
  while #left > 0 and uv.hrtime() < until_ns do
    if turn then turn() end
    uv.sleep(10)
    left = marked(mark)
  end
  if #left == 0 then return nil end
  local named = {}
  for i, p in ipairs(left) do named[i] = ("pid %d (%s)"):format(p.pid, p.words) end
  for _ = 1, 200 do -- one that forks may be faster than one walk
    for _, p in ipairs(left) do pcall(uv.kill, p.pid, "sigkill") end
    uv.sleep(10)
    left = marked(mark)
    if #left == 0 then break end
  end
  return "left running: " .. table.concat(named, ", ")
end

local function quoted(path) return "'" .. path:gsub("'", "'\\''") .. "'" end

local function remove(scratch)
  for line in io.lines("/proc/self/mounts") do
    local at = line:match("^%S+ (%S+)")
    if at:sub(1, #scratch + 1) == scratch .. "/" then os.execute("umount -l " .. quoted(at) .. " 2>/dev/null") end
  end
  os.execute("rm -rf " .. quoted(scratch))
end

local function names_in(folder)
  local names, entries = {}, uv.fs_scandir(folder)
  for name in function() return entries and uv.fs_scandir_next(entries) end do names[#names + 1] = name end
  return names
end

--- The one that waits: standard input ends with the process that it waits for, unless that says that all is done.
local function wait_for_the_end(mark)
  if io.read("a") == "done" then return end
  guarded.end_marked(mark, 0)
  remove(mark)
end

local function start_the_one_that_waits(own_file, mark)
  local pipe = assert(uv.pipe())
  local here = false
  assert(uv.spawn("/bin/sh", { args = { "-c", '"$@" <&3 3<&- >/dev/null 2>&1 &', "sh", uv.exepath(), own_file, "--wait", mark },
    stdio = { nil, nil, nil, pipe.read }, cwd = "/", detached = true }, function() here = true end))
  uv.fs_close(pipe.read)
  while not here do uv.run("once") end
  return function()
    uv.fs_write(pipe.write, "done")
    uv.fs_close(pipe.write)
  end
end

--- Runs the words as a test and exits as it did.
function guarded.run(own_file, words)
  local base = os.getenv("TMPDIR") or "/tmp"
  if #base > 16 then base = "/tmp" end -- sockets are made below it, and their addresses are short
  local mark = assert(uv.fs_mkdtemp(base .. "/gwhost-test-XXXXXX"))
  local done = start_the_one_that_waits(own_file, mark)
  local env = { guarded.MARK .. "=" .. mark, "TMPDIR=" .. mark }
  for name, value in pairs(uv.os_environ()) do
    if name ~= guarded.MARK and name ~= "TMPDIR" then env[#env + 1] = name .. "=" .. value end
  end
  local code, signal
  local handle, why = uv.spawn(words[1], { args = { table.unpack(words, 2) }, env = env, stdio = { 0, 1, 2 } },
    function(c, s) code, signal = c, s end)
  if not handle then io.stderr:write(("%s: %s\n"):format(words[1], why)) end
  while handle and not code do uv.run("once") end
  if signal and signal ~= 0 then io.stderr:write(("%s: ended by signal %d\n"):format(words[1], signal)) end
  local passed = code == 0 and signal == 0
  local left = guarded.end_marked(mark, 2000)
  if left then
    io.stderr:write("FAIL " .. left .. "\n")
    passed = false
  end
  local files = names_in(mark)
  if #files > 0 and passed then
    io.stderr:write("FAIL left behind: " .. table.concat(files, ", ") .. "\n")
    passed = false
  elseif #files > 0 then
    print("what the test left is in " .. mark)
  end
  if passed or #files == 0 then remove(mark) end
  done()
  io.stdout:flush()
  os.exit(passed) -- without closing the state: luv's own end is not ours to test
end

if arg and arg[0] and arg[0]:match("guarded%.lua$") then
  if arg[1] == "--wait" then
    wait_for_the_end(assert(arg[2]))
  else
    guarded.run(assert(uv.fs_realpath(arg[0])), { table.unpack(arg) })
  end
end

return guarded
