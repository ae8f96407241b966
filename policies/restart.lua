--- The default policy: what gwhost does when nobody says otherwise, spelled out to be edited.
---
--- gwhost asks these functions short questions. Each gets one table of facts and returns an answer, and after it,
--- if you like, a reason for the log. Edit this file, then `gwhost policy check` it; a SIGHUP or the next restart
--- takes it into use. A function that you delete means the built-in answer, which is also in `ctx.builtin`.
--- A mistake here cannot keep gwhost from stopping or restarting: it logs the line and uses the built-in answer.
---@type gwhost.Policy
local policy = { api = 1, name = "restart" }
local clip = require("gwhost.policy.text").clip -- cuts between characters, never inside one

-- How long running work may take to finish before a restart cuts it off, in milliseconds.
local DRAIN_BUDGET_MS = 300000

-- How many tasks and runs the line about what holds a restart back names, and how much of a title it shows.
local MAX_SHOWN, MAX_TITLE = 8, 80

--- How to come back once the work is done and the application is closed.
---   "in_process"  the same process goes on with everything loaded afresh
---   "respawn"     a new process takes over the sockets and the connections
---   "reexec"      the same pid runs the program afresh
---   "supervised"  exit, and let systemd (or whoever started us) start the next one
---@param ctx gwhost.RestartContext
---@return gwhost.RestartMode mode, string? why
function policy.restart_mode(ctx)
  -- GWHOST_NO_RESPAWN says: never start another process. Only a supervisor may, and only for an update.
  if ctx.respawn_disabled and not (ctx.update and ctx.supervisor) then
    return "in_process", "starting another process is disabled"
  end
  if ctx.supervisor then return "supervised", "started by " .. ctx.supervisor end
  if not ctx.update then return "in_process", "nothing asks for another process" end
  -- An update needs the new program. Pid 1 and a container end when their first process does, so keep the pid.
  if ctx.pid == 1 or ctx.container then return "reexec", "the pid must stay" end
  return "respawn", "an update needs a new process"
end

--- How long running work may take to finish, in milliseconds; "unlimited" waits for all of it.
--- Asked again when this file is reloaded while a drain is running: the new answer counts at once.
---@param ctx gwhost.DrainContext
---@return integer|"unlimited" budget_ms, string? why
function policy.drain_budget(ctx)
  -- A stop does not wait: what still runs is marked as interrupted and ended.
  if ctx.action == "stop" then return 0, "a stop does not wait for work" end
  local intent = ctx.intent or {}
  if ctx.force or intent.force then return 0, "forced" end
  -- The request named a time (`gwhost restart --wait 30s`); 0 means as long as it takes.
  if intent.wait_ms and intent.wait_ms >= 0 then
    local wait_ms = math.floor(intent.wait_ms)
    return wait_ms > 0 and wait_ms or "unlimited", "as the request says"
  end
  return DRAIN_BUDGET_MS, "the default"
end

--- One line for the log and for `gwhost status`, naming what holds the restart back. nil: nothing to say.
---@param blockers gwhost.Blocker[] running tasks first
---@param ctx gwhost.BlockersContext
---@return string? line
function policy.format_blockers(blockers, ctx)
  if #blockers == 0 then return nil end
  local shown = {}
  for i = 1, math.min(#blockers, MAX_SHOWN) do
    local b, parts = blockers[i], {}
    local function add(name, value)
      if value then parts[#parts + 1] = name .. "=" .. value end
    end
    if b.kind == "run" then
      add("run", b.run_id or b.id)
    else
      add("task", b.id)
      add("run", b.run_id)
    end
    add("status", b.status)
    add("runtime", b.runtime)
    add("label", b.label)
    add("title", b.title and clip(b.title, MAX_TITLE))
    shown[i] = table.concat(parts, " ")
  end
  local more = math.max(ctx.blockers_total or 0, #blockers) - #shown
  if more > 0 then shown[#shown + 1] = ("+%d more"):format(more) end
  return table.concat(shown, "; ")
end

--- Whether a SIGUSR1 that somebody sent (`kill -USR1`) may restart the host.
---   true         at once
---   "when_idle"  as soon as no work is running
---   false        no; the log names the sender and the reason
---@param ctx gwhost.SignalContext
---@return boolean|"when_idle" allowed, string? why
function policy.authorize_sigusr1(ctx)
  local sender = ctx.sender
  if not sender or (sender.uid ~= 0 and sender.uid ~= ctx.uid) then return false, "the sender is another user" end
  -- A task must not restart its own host by accident.
  if sender.descendant then return false, "the sender descends from the host" end
  -- A sender that is gone cannot be traced; while a task runs a command, it may have been that command's.
  if sender.descendant == nil and ctx.exec_running then
    return false, "the sender is gone and may have been a running task's"
  end
  return "when_idle", sender.uid == 0 and "the sender is root" or "the sender is the host's own user"
end

return policy
