--- The handlers of the built-in gateway: sleep, echo and, where --allow-exec is given, exec.
---
--- A handler is a function of a task or a run. What it returns is the result; an error means `failed`; a
--- second result is an error beside the result.
local gwhost = require("gwhost")

local handlers = {}

local MAX_SLEEP_MS = 7 * 24 * 3600 * 1000
local MAX_RESULT_BYTES = 60000

local function field(work, name, kind)
  local value = work.input[name]
  if value ~= nil and type(value) ~= kind and math.type(value) ~= kind then
    error(("input.%s is a %s, not a %s"):format(name, type(value), kind), 0)
  end
  return value
end

--- {"ms":N,"phase"?:"compacting"}
function handlers.sleep(work)
  local ms = field(work, "ms", "number") or 0
  if ms < 0 or ms > MAX_SLEEP_MS then
    error(("input.ms is not within 0 and %d"):format(MAX_SLEEP_MS), 0)
  end
  gwhost.sleep(ms)
  return { slept_ms = ms }
end

function handlers.echo(work)
  return work.input
end

--- Output of many control characters is several times as long in JSON: what does not fit into a result is
--- left out from the front, so that the exit code and the end of the output stay.
local function fit(result)
  while #gwhost.json.encode(result) > MAX_RESULT_BYTES do
    result.stdout = result.stdout:sub(-(#result.stdout // 2) - 1)
    result.stderr = result.stderr:sub(-(#result.stderr // 2) - 1)
    result.truncated = true
  end
  return result
end

--- {"argv":[…],"cwd"?,"env"?,"stdin"?}
function handlers.exec(work)
  local argv = field(work, "argv", "table")
  if not argv or #argv == 0 then
    error("input.argv is not a list of at least one string", 0)
  end
  local child, message = gwhost.spawn({
    argv = argv, cwd = field(work, "cwd", "string"), env = field(work, "env", "table"), stdin = field(work, "stdin", "string"),
  })
  if not child then
    error(message, 0)
  end
  -- The command ends first, so that nothing of it goes on behind a task that is said to be over.
  work.on_abort = function() child:stop() end
  local result = fit(child:wait())
  if result.signal then
    return result, ("ended by signal %d"):format(result.signal)
  end
  if not result.exit_code then
    return result, "it has ended, but how is not known: something else in this process has waited for it"
  end
  if result.exit_code ~= 0 then
    return result, ("exited with %d"):format(result.exit_code)
  end
  return result
end

return handlers
