#!/usr/bin/env lua5.4
-- A program that is a gwhost as far as `--version` goes, and then does what its file name says:
-- exits, hangs, another-boot-id, other-listeners, dies-ready, hangs-ready, garbage, half-a-letter, says-fail, contract-9.
local what = arg[0]:match("([^/]+)$")

if arg[1] == "--version" then
  print("gwhost 9.9.9 contract " .. (what == "contract-9" and 9 or 1))
  os.exit(0)
end
if what == "exits" then os.exit(3) end

local uv, json = require("luv"), require("dkjson")
local pair = uv.new_pipe(false)
assert(pair:open(tonumber(os.getenv("GWHOST_HANDOVER"))))

local function send(head, after)
  local text = json.encode(head)
  pair:write(("<I4I4"):pack(#text, 0) .. text, after)
end

local function on_hello(hello)
  local listeners = {}
  for i, l in ipairs(hello.listeners) do listeners[i] = l.address end
  if what == "other-listeners" then listeners[1] = "127.0.0.1:1" end
  local ready = { type = "ready", contract = 1, boot_id = hello.boot_id, version = "9.9.9", policy_sha256 = "",
    app_sha256 = "", listeners = listeners, connections = 1 }
  if what == "another-boot-id" then ready.boot_id = ("0"):rep(32) end
  if what == "garbage" then
    pair:write("HTTP/1.1 400 Bad Request\r\n\r\n")
  elseif what == "half-a-letter" then
    pair:write(("<I4I4"):pack(100, 0) .. "{", function() os.exit(4) end)
  elseif what == "says-fail" then
    send({ type = "fail", error = "no room on the moon" })
  elseif what == "dies-ready" then
    send(ready, function() os.exit(5) end)
  elseif what ~= "hangs" then
    send(ready)
  end
end

local rest = ""
pair:read_start(function(_, data)
  if not data then os.exit(6) end
  rest = rest .. data
  while #rest >= 8 do
    local n, blob = ("<I4I4"):unpack(rest)
    if #rest < 8 + n + blob then return end
    local letter = json.decode(rest:sub(9, 8 + n))
    rest = rest:sub(9 + n + blob)
    if letter.type ~= "ack" then send({ type = "ack" }) end
    if letter.type == "hello" then on_hello(letter) end
  end
end)
uv.run()
