--- An application of its own: run it with `gwhost run --open --app lua/examples/counter.lua`.
---
--- GET / tells how often it has been asked, through restarts. A WebSocket at /count counts its own messages, and
--- goes on counting in the next generation: `ws.value` belongs to the connection, not to this Lua state.
local gwhost = require("gwhost")

local function answer(req)
  if req.path ~= "/" then
    return { status = 404, body = { error = { code = "not_found", message = "ask for /" } } }
  end
  local asked = (gwhost.kept("asked") or 0) + 1
  gwhost.keep("asked", asked)
  return { body = { asked = asked } }
end

local function on_socket(ws, _, resumed)
  if not resumed then
    ws.value = "0"
  end
  ws.on_message = function(text)
    local n = math.tointeger(tonumber(ws.value)) + 1
    ws.value = tostring(n)
    ws:send(("%d: %s"):format(n, text))
  end
end

return {
  start = function(ctx)
    gwhost.serve({ request = answer, websocket = on_socket })
    gwhost.log("info", "the counter serves", { generation = ctx.generation })
    return {
      close = function(_, opts)
        gwhost.log("info", "the counter closes", { reason = opts.reason })
      end,
    }
  end,
}
