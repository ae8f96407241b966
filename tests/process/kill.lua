-- Killed at random moments and started again: what was accepted ends in exactly one final status, and is
-- executed at most once unless a retry was asked for. GWHOST_KILLS and GWHOST_TASKS make it longer (make soak).
local t = require("support.harness")

local KILLS = tonumber(os.getenv("GWHOST_KILLS") or 10)
local TASKS = tonumber(os.getenv("GWHOST_TASKS") or 400)
local CLIENTS = 8

-- Says in a file that it begins, before anything else happens.
local HANDLER = [[
local gwhost = require "gwhost"
return function(task)
  local f = assert(io.open("%s", "a"))
  f:write(task.id, " ", task.attempt, "\n")
  f:close()
  gwhost.sleep(task.input.ms)
  return { number = task.input.number }
end
]]

t.test(("%d tasks under %d kills: each accepted one is found, final exactly once, executed once"):format(TASKS, KILLS), function()
  local dir = t.dir()
  local journal = dir .. "/journal"
  os.execute("mkdir " .. dir .. "/handlers")
  t.write(dir .. "/handlers/note.lua", HANDLER:format(journal))
  local seed = os.time()
  math.randomseed(seed)
  print("     seed " .. seed)
  local host
  local function start()
    host = t.start({ dir = dir, args = { "--handlers", dir .. "/handlers", "--lane", "main=16" } })
  end
  start()
  local accepted, order, retried, unknown = {}, {}, {}, 0
  local number, over = 0, false
  local clients = {}
  for _ = 1, CLIENTS do
    clients[#clients + 1] = t.go(function()
      while number < TASKS and not over do
        number = number + 1
        local mine = number
        local retry = mine % 5 == 0
        local task = { handler = "note", input = { ms = math.random(0, 30), number = mine }, on_crash = retry and "retry" or nil }
        local ok, answer = pcall(host.post, host, "/v1/tasks", task)
        if ok and answer.status == 202 then
          local id = answer.json.task_id
          t.ok(not accepted[id], "an id was given twice")
          accepted[id] = mine
          retried[id] = retry
          order[#order + 1] = id
        else
          unknown = unknown + 1
          local target = host
          t.until_true("the next host", function() return host ~= target or not (target.exit or target.dying) end)
        end
      end
    end)
  end
  for _ = 1, KILLS do
    local before = #order
    t.until_true("some accepted tasks", function() return #order >= before + math.random(1, TASKS // KILLS // 2 + 1) or number >= TASKS end)
    t.pause(math.random(0, 20))
    local old = host
    old.dying = true
    old:signal("sigkill")
    old:wait_exit()
    start()
    t.wake()
  end
  t.join(clients, 120000)
  -- All of them are final in the end, whatever became of them.
  t.ask_until("an empty lane", function()
    local work = host:get("/v1/status").json.work
    return work.queued == 0 and work.tasks == 0
  end, 120000)
  local statuses, counted, after, seen = {}, 0, nil, {}
  repeat
    local page = host:get("/v1/tasks?limit=1000" .. (after and "&after=" .. after or "")).json
    for _, task in ipairs(page.tasks) do
      t.ok(not seen[task.task_id], "listed twice")
      seen[task.task_id] = task
      statuses[task.status] = (statuses[task.status] or 0) + 1
    end
    after = page.next
  until not after
  local executions = {}
  for line in io.lines(journal) do
    local id = line:match("^(%S+)")
    executions[id] = (executions[id] or 0) + 1
  end
  for _, id in ipairs(order) do
    local task = t.ok(seen[id], id .. " was accepted and is gone")
    counted = counted + 1
    t.ok(task.status == "succeeded" or task.status == "lost", id .. " is " .. task.status)
    local times = executions[id] or 0
    if retried[id] then
      t.ok(times <= 3, id .. " was executed " .. times .. " times")
    else
      t.ok(times <= 1, id .. " was executed " .. times .. " times")
    end
    if task.status == "succeeded" then
      t.ok(times >= 1, id .. " succeeded without being executed")
      t.eq(task.result.number, accepted[id])
    end
  end
  local words = {}
  for status, n in pairs(statuses) do words[#words + 1] = n .. " " .. status end
  table.sort(words)
  print(("     %d accepted, %d unanswered; %s"):format(counted, unknown, table.concat(words, ", ")))
  t.ok(counted >= TASKS // 2, "too few were accepted to mean anything")
  host:stop()
end)

t.main()
