-- Remove the members of a node that is gone from one room, as many as one step should, and tell the others.
--
-- KEYS  the room's members (hash), the nodes (sorted set), the node's rooms (set)
-- ARGV  1 channel, 2 the node, 3 cursor; or "" to forget the node, which has no room any more
-- Returns  the next cursor, "0" at the end; "" if the node has come back: it tells of its members again
--
-- The node may come back between two steps, or before one that was delayed. Only in here is it certain that it
-- has not.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local lease = redis.call('ZSCORE', KEYS[2], ARGV[2])
if lease and tonumber(lease) > now then return '' end
if ARGV[3] == '' then
  redis.call('ZREM', KEYS[2], ARGV[2])
  return '0'
end

local answer = redis.call('HSCAN', KEYS[1], ARGV[3], 'COUNT', 500)
local known = redis.call('HGET', KEYS[1], 'v')
if known then
  local epoch, version, places = string.match(known, '^(%S+) (%d+) (%d+)$')
  local before, parts, prefix = tonumber(version), {}, ARGV[2] .. '/'
  for i = 1, #answer[2], 2 do
    local id = answer[2][i]
    if string.sub(id, 1, #prefix) == prefix and redis.call('HDEL', KEYS[1], id) == 1 then
      parts[#parts + 1] = 'L ' .. #id .. ' 0:' .. id
    end
  end
  if #parts > 0 then
    redis.call('HSET', KEYS[1], 'v', string.format('%s %.0f %s', epoch, before + #parts, places))
    if redis.call('HLEN', KEYS[1]) == 1 then redis.call('DEL', KEYS[1]) end
    redis.call('PUBLISH', ARGV[1],
      string.format('p %s %.0f %d\n', epoch, before, #parts) .. table.concat(parts))
  end
end
if not known or answer[1] == '0' then
  redis.call('SREM', KEYS[3], ARGV[1])
  return '0'
end
return answer[1]
