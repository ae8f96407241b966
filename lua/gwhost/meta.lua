---@meta gwhost
--- Types of the module `gwhost`, which applications (--app FILE) and task handlers use. This file is the
--- reference of the Lua API: a test compares its functions with those that the program has.
---
--- Functions marked "waits" yield and must be called inside a coroutine; start, close, request handlers,
--- task handlers and WebSocket handlers run in one already. Times are milliseconds, sizes bytes. A wrong
--- argument raises an error, and so does a text that holds a NUL where it is no payload; what the world refuses comes back as nil and a reason.

---@class gwhost.App what an application's file returns
---@field start fun(ctx: gwhost.StartContext): gwhost.Server prepares and calls gwhost.serve{}; may wait

---@class gwhost.Server what start returns
---@field close fun(self: gwhost.Server, opts: gwhost.CloseOptions) lets go of what the application holds; may
--- wait, for at most 20 s. Requests, streamed answers, tasks and runs in hand are waited for by the host.

---@class gwhost.CloseOptions
---@field reason string "gateway restarting" or "gateway stopping"
---@field restart_expected_ms integer? about how long until the next generation serves; nil at a stop

---@class gwhost.StartContext
---@field generation integer starts in this process, counted from 1
---@field boot_id string names the process image
---@field listeners string[] addresses as they are bound
---@field startup_started_at_ms integer Unix time; first start: before the lock was taken; later: after the close
---@field vars table<string, string> --set KEY=VALUE
---@field allow_exec boolean --allow-exec was given
---@field continuation any? what gwhost.restart{continuation=} was given, once

---@class gwhost.Failure
---@field code string an error code of the HTTP API: "bad_request", "not_found", "conflict", "busy", "draining",
--- "store_unavailable"
---@field message string for people

---@class gwhost.Request
---@field method string upper case
---@field target string as sent
---@field path string without the query, not percent-decoded
---@field query string behind the '?', "" without one
---@field headers table<string, string> names in lower case; one that came twice is joined with ", ", cookies
--- with "; "
---@field body string whole, at most 1 MiB
---@field peer string "127.0.0.1:5000" or "unix"
---@field upgrade boolean a WebSocket handshake
---@field protocols string[]? of a handshake: the subprotocols that the client offers
---@field connection integer unique in this process

---@class gwhost.Answer
---@field status integer? 200 to 599, default 200
---@field headers table<string, string>? Content-Length, Date and Connection are the core's
---@field body any? a string as it is; anything else becomes JSON
---@field events boolean? true: the connection becomes a stream of the host's events (server-sent events)
---@field stream (fun(stream: gwhost.Stream))? writes the body piece by piece; the answer is whole when it returns. When
--- it raises an error, or has not returned in the time that closing may take, the connection is cut without the last
--- chunk (reset for HTTP/1.0), so that its client knows. One that has no end of its own ends when close() is called.

---@class gwhost.Stream
local Stream = {}
--- Sends a piece. nil and "slow" when the client does not keep up (nothing was taken: wait and try again),
--- nil and "closed" when it has gone.
---@param data string
---@return true? ok, string? reason
function Stream:write(data) end
--- Waits until the client has room for it, and sends it; pieces go out in the order of the calls.
---@param data string
---@return true? ok, string? reason "closed"
function Stream:write_wait(data) end

---@class gwhost.WebSocket fields that are set on it stay until this generation ends
---@field value string the application's own bytes, at most 64 KiB; kept through restarts
---@field protocol string? the subprotocol that upgrade chose; kept through restarts
---@field on_message (fun(data: string, kind: "text"|"binary"))? one call at a time, in order
---@field on_close (fun(code: integer))?
local WebSocket = {}
---@param data string
---@param kind "text"|"binary"|nil default "text", which must be UTF-8
---@return true? ok, string? reason "slow" (nothing was taken) or "closed"
function WebSocket:send(data, kind) end
--- Waits until the client has room for it, and sends it; messages go out in the order of the calls. Called in
--- on_message it also keeps the next message from coming before this one is answered.
---@param data string
---@param kind "text"|"binary"|nil
---@return true? ok, string? reason "closed"
function WebSocket:send_wait(data, kind) end
---@param code integer? default 1000
---@param reason string?
function WebSocket:close(code, reason) end
--- From now on it gets each of the host's events as a text frame {"event":…}, through restarts.
function WebSocket:subscribe() end

---@class gwhost.Work what a handler gets
---@field id string
---@field handler string
---@field input table
---@field aborted string? why it was told to end: "cancel", "timeout", "compacting", "drain"
---@field on_abort (fun(why: string))? called instead of raising an error where the handler waits; the handler
--- then ends by itself, or finalizes first

---@class gwhost.Task : gwhost.Work
---@field lane string
---@field attempt integer from 1
local Task = {}
--- Says how far it is; shown by GET /v1/tasks/ID and among the blockers of a restart.
---@param text string
function Task:progress(text) end

---@class gwhost.Run : gwhost.Work ends when finish is called, when its coroutine ends, or as a <close> variable
local Run = {}
function Run:finish() end
---@param on boolean a compacting run is aborted first when a restart begins
function Run:compacting(on) end
---@param text string
function Run:progress(text) end

---@class gwhost.Child
---@field pid integer
local Child = {}
--- Waits for its end.
---@return {exit_code: integer?, signal: integer?, stdout: string, stderr: string, truncated: boolean} result
function Child:wait() end
--- Asks its process group to end: SIGTERM, after the grace time SIGKILL.
---@param grace_ms integer? default 5000
function Child:stop(grace_ms) end

local gwhost = {}

---@type boolean --allow-exec was given
gwhost.allow_exec = nil
---@type string? folder of --handlers
gwhost.handlers_dir = nil
---@type gwhost.Json
gwhost.json = nil

---@class gwhost.Json
---@field null lightuserdata JSON's null
---@field encode fun(value: any): string
---@field decode fun(text: string): any raises with line and column; integers stay integers
---@field array fun(list: table?): table marks a table as an array, also an empty one
---@field object fun(map: table?): table

--- Waits.
---@param ms number
function gwhost.sleep(ms) end

--- Whole milliseconds from what somebody gave: a number from min (0) to ten years, its fraction left out; else nil and
--- words that follow the name of the field.
---@param value any
---@param min integer?
---@return integer? ms, string? words
function gwhost.ms(value, min) end

--- Runs fn in a new coroutine, at once until it first waits.
---@param fn function
function gwhost.go(fn, ...) end

---@param level "debug"|"info"|"warn"|"error"
---@param message string
---@param fields table?
function gwhost.log(level, message, fields) end

---@return integer Unix time in ms
function gwhost.now() end

---@param text string
---@return string hex
function gwhost.sha256(text) end

--- Keeps a small JSON value for the next generation (at most 64 KiB); nil forgets it.
---@param key string
---@param value any?
function gwhost.keep(key, value) end

---@param key string
---@return any? value
function gwhost.kept(key) end

---@return table the object of GET /v1/status
function gwhost.status() end

--- Asks for a restart. Returns its id, "accepted", "deferred" or "merged", and the object that POST /v1/restart answers
--- (request_id, status; of a merged one also merged_into, and changed: what of it counts), or nil and why not.
---@param ask {reason: string?, when: "now"|"idle"|nil, force: boolean?, wait_ms: integer?, source: "app"|"http"|nil, continuation: any}?
---@return string? id, string answer, table? told
function gwhost.restart(ask) end

---@param id string
---@return table? the object of GET /v1/restarts/ID
function gwhost.restart_outcome(id) end

--- Starts a command in its own process group. It dies with the host, and what a task or run has started ends with it:
--- the commands, and what these have started, wherever it has gone. nil and why when it cannot be run.
---@param spec {argv: string[], cwd: string?, env: table<string, string>?, stdin: string?, keep_bytes: integer?}
---@return gwhost.Child? child, string? reason
function gwhost.spawn(spec) end

--- What NAME.lua in the folder of --handlers returns, by NAME.
---@return table<string, fun(work: gwhost.Work): any, any>
function gwhost.handler_files() end

--- Says who answers. Without `upgrade` every WebSocket handshake is accepted; it may return true or an answer, and
--- behind true the subprotocol, one of req.protocols.
--- `websocket` is called for each accepted one, and with resumed = true for those of the generation before.
--- With public = true the core asks nobody for a token: the application sees to it itself.
---@param server {request: (fun(req: gwhost.Request): gwhost.Answer)?, websocket: (fun(ws: gwhost.WebSocket, req: gwhost.Request, resumed: boolean))?, upgrade: (fun(req: gwhost.Request): true|gwhost.Answer, string?)?, public: boolean?}
function gwhost.serve(server) end

--- Who executes tasks, by the name of the handler. A handler returns the result; an error means `failed`; a
--- second result is an error beside the result.
---@param handlers table<string, fun(task: gwhost.Task): any, any>
function gwhost.handlers(handlers) end

--- Hands in a task. Waits until it is durable. The second result tells whether an idempotency key named an
--- earlier one.
---@param spec {handler: string, lane: string?, priority: "high"|"normal"|"low"|nil, label: string?, title: string?, input: table?, timeout_ms: integer?, on_crash: "lose"|"retry"|nil, on_interrupt: "interrupt"|"retry"|nil, idempotency_key: string?, body_sha256: string?}
---@return table? task, boolean|gwhost.Failure existing
function gwhost.submit(spec) end

--- Waits for the store.
---@param id string
---@return table? task, gwhost.Failure? failure
function gwhost.task(id) end

--- Waits for the store. Oldest first; the second result is the id to go on after, or nil.
---@param filter {status: string?, limit: integer?, after: string?}?
---@return table[]? tasks, string|gwhost.Failure|nil next
function gwhost.tasks(filter) end

--- Waits for the store.
---@param id string
---@return table? task, gwhost.Failure? failure
function gwhost.cancel(id) end

--- Begins a run: work inside the process that is not stored, but that a restart waits for.
---@param spec {handler: string, label: string?, title: string?, compacting: boolean?}
---@return gwhost.Run? run, gwhost.Failure? failure
function gwhost.run(spec) end

return gwhost
