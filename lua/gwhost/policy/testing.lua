--- What the test file of a policy sees beside the sandbox. Run by `gwhost policy test FILE`, in a fresh state for
--- each test: the policy's table, the host's built-in answers, and the host's check of an answer.
local policy, builtin, accepted = ...
local tests, api = {}, {}

api.policy, api.builtin = policy, builtin

--- Registers a test. The sentence says what holds.
---@param sentence string
---@param run fun()
function api.test(sentence, run)
  assert(type(sentence) == "string" and type(run) == "function", "test(sentence, function() ... end)")
  tests[#tests + 1] = { sentence = sentence, run = run }
end

local function show(value, depth)
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) ~= "table" or depth > 3 then return tostring(value) end
  local keys, parts = {}, {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(keys) do parts[#parts + 1] = ("%s=%s"):format(tostring(key), show(value[key], depth + 1)) end
  return "{" .. table.concat(parts, ", ") .. "}"
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for key, value in pairs(a) do
    if not same(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

--- Fails unless both are the same; tables are compared by what is in them.
function api.eq(actual, expected)
  if not same(actual, expected) then
    error(("got %s, expected %s"):format(show(actual, 0), show(expected, 0)), 2)
  end
end

--- Fails unless run raises an error whose text contains `words`.
---@param run fun()
---@param words string
function api.fails(run, words)
  local ok, err = pcall(run)
  if ok then error("no error was raised", 2) end
  if not tostring(err):find(words, 1, true) then error(("the error is %q"):format(tostring(err)), 2) end
end

local function merge(into, over)
  for key, value in pairs(over) do
    if type(value) == "table" and type(into[key]) == "table" and value[1] == nil then
      merge(into[key], value)
    else
      into[key] = value
    end
  end
  return into
end

--- The facts of an ordinary restart by SIGUSR1 from the host's own user, changed by `over`, table by table.
--- `without` names facts to leave out.
---@param over? table
---@param without? string[]
function api.facts(over, without)
  local ctx = merge({
    action = "restart", source = "signal", reason = "gateway.restart", signal = "SIGUSR1",
    sender = { pid = 4242, uid = 1000, exe = "/usr/bin/kill", descendant = false },
    force = false, update = false, generation = 1, boot_id = "0123456789abcdef", pid = 4000, uid = 1000,
    uptime_ms = 3600000, container = false, respawn_disabled = false, exec_running = false,
    work = { tasks = 1, runs = 0, queued = 0, lanes = {} },
    elapsed_ms = 0, restarts = 0, vars = {},
  }, over or {})
  for _, name in ipairs(without or {}) do ctx[name] = nil end
  return ctx
end

-- What the host would say about an answer, told with the line of the test.
local function must_be_accepted(hook, ctx, answer, why)
  local ok, wrong = pcall(accepted, hook, ctx, answer, why)
  if not ok then error(("wrong answer of %s: %s"):format(hook, wrong), 3) end
end

--- Asks a hook as the host does: with ctx.builtin, and with the host's check of the answer.
--- ask("format_blockers", blockers, ctx) for the hook that takes two.
function api.ask(hook, ...)
  local first, ctx = ...
  if hook ~= "format_blockers" then ctx = first end
  ctx = ctx or api.facts()
  local run = policy[hook]
  if hook == "format_blockers" then
    ctx.builtin = builtin(hook, first, ctx)
    if not run then return ctx.builtin, "built-in" end
    local line, why = run(first, ctx)
    must_be_accepted(hook, ctx, line, why)
    return line, why
  end
  ctx.builtin = builtin(hook, ctx)
  if not run then return ctx.builtin, "built-in" end
  local answer, why = run(ctx)
  must_be_accepted(hook, ctx, answer, why)
  return answer, why
end

return { tests = tests, api = api }
