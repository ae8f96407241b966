--- Text helpers for policies.
local text = {}

--- The first `max` characters of s. Cuts between characters, never inside one.
---@param s string
---@param max integer
---@return string
function text.clip(s, max)
  local seen = 0
  -- Every byte but a continuation byte begins a character.
  for at in s:gmatch("()[^\128-\191]") do
    seen = seen + 1
    if seen > max then return s:sub(1, at - 1) end
  end
  return s
end

--- Milliseconds for people: "250ms", "30s", "5m", "1h 10m".
---@param ms integer
---@return string
function text.duration(ms)
  if ms < 1000 then return ("%dms"):format(ms) end
  local s = ms // 1000
  if s < 60 then return ("%ds"):format(s) end
  if s < 3600 then return s % 60 == 0 and ("%dm"):format(s // 60) or ("%dm %ds"):format(s // 60, s % 60) end
  local m = s % 3600 // 60
  return m == 0 and ("%dh"):format(s // 3600) or ("%dh %dm"):format(s // 3600, m)
end

return text
