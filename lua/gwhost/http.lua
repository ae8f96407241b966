--- Answers, errors and request bodies, as the gateway's HTTP API has them.
local gwhost = require("gwhost")

local http = {}

--- Status of each error code of the API.
local STATUS = {
  bad_request = 400, unauthorized = 401, forbidden = 403, not_found = 404, method_not_allowed = 405,
  conflict = 409, too_large = 413, unsupported_media_type = 415, misdirected = 421, busy = 429,
  draining = 503, aborted = 503, stopping = 503, store_unavailable = 503, failed = 500, internal = 500,
}

--- When to come back, where that can be said.
local RETRY_MS = { busy = 1000, draining = 2000, aborted = 1000, store_unavailable = 5000 }

function http.json(status, value, headers)
  return { status = status, headers = headers, body = value }
end

function http.fail(code, message, headers)
  local err = { code = code, message = message, retry_after_ms = RETRY_MS[code] }
  headers = headers or {}
  if err.retry_after_ms then
    headers["Retry-After"] = tostring((err.retry_after_ms + 999) // 1000)
  end
  return { status = STATUS[code] or 500, headers = headers, body = { error = err } }
end

--- The answer that refuses a body of another type than JSON, or nil. A page of the web can make a browser send
--- a form anywhere; JSON it cannot send without being asked whether it may.
function http.check_type(req)
  if #req.body == 0 then return nil end
  if (req.headers["content-encoding"] or "identity"):lower() ~= "identity" then
    return http.fail("unsupported_media_type", "send the body as it is: no Content-Encoding is decoded here",
      { ["Accept-Encoding"] = "identity" })
  end
  local kind = (req.headers["content-type"] or ""):match("^%s*([^;%s]*)"):lower()
  if kind ~= "application/json" then
    return http.fail("unsupported_media_type", "send Content-Type: application/json")
  end
end

--- What JSON calls the types of Lua.
local JSON_NAMES = {
  table = "an object or array", string = "a string", number = "a number", boolean = "true or false",
}

--- The JSON object of a POST, or nil and the answer that refuses it.
function http.object(req)
  local ok, value = pcall(gwhost.json.decode, req.body)
  if not ok then
    return nil, http.fail("bad_request", "the body is not JSON: " .. tostring(value))
  end
  if type(value) ~= "table" or value[1] ~= nil or not req.body:match("^%s*{") then
    return nil, http.fail("bad_request", "the body is not a JSON object")
  end
  return value
end

--- Checks fields against {name = type or predicate}; returns the answer that names the first bad one, or nil.
--- A JSON null counts as absent and is taken out.
function http.check(value, fields)
  for name, given in pairs(value) do
    local want = fields[name]
    if want == nil then
      return http.fail("bad_request", ("unknown field '%s'"):format(name))
    end
    if given == gwhost.json.null then
      value[name] = nil
    elseif type(want) == "function" then
      local complaint = want(given)
      if complaint then
        return http.fail("bad_request", ("field '%s' %s"):format(name, complaint))
      end
    elseif want ~= "any" and type(given) ~= want then
      local is, should = JSON_NAMES[type(given)], JSON_NAMES[want]
      return http.fail("bad_request", ("field '%s' is %s, not %s"):format(name, is, should))
    end
  end
end

function http.text(max)
  return function(value)
    if type(value) ~= "string" then return "is not a string" end
    if value:find("\0", 1, true) then return "holds a NUL" end
    if #value > max then return ("is longer than %d bytes"):format(max) end
  end
end

function http.one_of(...)
  local allowed = { ... }
  return function(value)
    for _, name in ipairs(allowed) do
      if value == name then return nil end
    end
    return "is not one of " .. table.concat(allowed, ", ")
  end
end

--- Milliseconds, as everywhere.
function http.ms(min)
  return function(value)
    local _, words = gwhost.ms(value, min)
    return words
  end
end

local function decode(s)
  return (s:gsub("+", " "):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

--- The parameters of a query as strings by name, or nil and the answer that names an unknown one.
function http.query(req, known)
  local out = {}
  for pair in req.query:gmatch("[^&]+") do
    local name, value = pair:match("^([^=]*)=?(.*)$")
    name = decode(name)
    if not known[name] then
      return nil, http.fail("bad_request", ("unknown parameter '%s'"):format(name))
    end
    value = decode(value)
    if value:find("\0", 1, true) then
      return nil, http.fail("bad_request", ("parameter '%s' holds a NUL"):format(name))
    end
    out[name] = value
  end
  return out
end

return http
