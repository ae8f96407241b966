-- For wrk: submits echo tasks. TOKEN in the environment.
wrk.method = "POST"
wrk.path = "/v1/tasks"
wrk.body = '{"handler":"echo","input":{"bench":true}}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("TOKEN")
local refused = 0
function response(status) if status ~= 202 then refused = refused + 1 end end
function done(summary)
  io.write(("%.0f\n"):format(summary.requests / summary.duration * 1e6))
end
