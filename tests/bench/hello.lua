-- The application that the benchmark asks: it answers, and keeps WebSockets.
local gwhost = require("gwhost")

return {
  start = function()
    gwhost.serve({
      public = true,
      request = function() return { body = "hello\n" } end,
      websocket = function() end,
    })
    return { close = function() end }
  end,
}
