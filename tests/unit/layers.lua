-- Holds the layering of src/: includes only ever point down. Run: lua5.4 tests/unit/layers.lua SOURCE_DIR
local root = assert(arg[1], "give the source directory")

-- What a folder may include beside itself; src/README.md tells why.
local MAY_USE = {
  base = {},
  lifecycle = { "base" },
  script = { "base" },
  work = { "base" },
  os = { "base" },
  policy = { "script", "base" },
  loop = { "os", "base" },
  net = { "loop", "os", "base" },
  app = { "net", "work", "loop", "script", "base" },
  host = { "app", "net", "work", "policy", "script", "loop", "lifecycle", "os", "base" },
  cli = { "policy", "os", "base" },
}
-- Foreign headers, and the folders (or the one file) that may name them.
local FOREIGN = {
  ["uv.h"] = { "loop", "net", "host", "app" },
  ["lua.h"] = { "script", "policy", "app" },
  ["lauxlib.h"] = { "script", "policy", "app" },
  ["luv/luv.h"] = { "app" },
  ["sqlite3.h"] = { "work" },
  ["llhttp.h"] = { "net" },
  ["wslay/wslay.h"] = { "net" },
}
local MAX_LINES = 600

local function set(list)
  local out = {}
  for _, v in ipairs(list) do out[v] = true end
  return out
end

local passed, failed, users = 0, 0, {}
local function check(ok, message)
  if ok then
    passed = passed + 1
  else
    failed = failed + 1
    print("FAIL " .. message)
  end
end

local listing = assert(io.popen(("cd '%s' && find src -name '*.[ch]' | sort"):format(root)))
for path in listing:lines() do
  local folder = path:match("^src/([^/]+)/") or "main"
  local allowed = set(MAY_USE[folder] or {})
  check(folder == "main" or MAY_USE[folder], ("%s: the folder '%s' is not a layer"):format(path, folder))
  local number = 0
  for line in io.lines(root .. "/" .. path) do
    number = number + 1
    local own = line:match('^%s*#%s*include%s+"([^"]+)"')
    local foreign = line:match("^%s*#%s*include%s+<([^>]+)>")
    if own then
      local target = own:match("^([^/]+)/")
      check(folder == "main" or target == folder or (target and allowed[target]),
        ("%s:%d: %s may not include \"%s\""):format(path, number, folder, own))
    elseif foreign and FOREIGN[foreign] then
      check(set(FOREIGN[foreign])[folder], ("%s:%d: %s may not include <%s>"):format(path, number, folder, foreign))
      users[foreign] = users[foreign] or {}
      table.insert(users[foreign], path)
    end
  end
  check(number <= MAX_LINES, ("%s has %d lines, more than %d: look for its second concern"):format(path, number, MAX_LINES))
end
listing:close()
check(#(users["sqlite3.h"] or {}) <= 1,
  "sqlite3.h is included in more than one file: " .. table.concat(users["sqlite3.h"] or {}, ", "))
check(passed > 100, "too few includes were seen: is SOURCE_DIR right?")

print(("%d passed, %d failed"):format(passed, failed))
os.exit(failed == 0)
