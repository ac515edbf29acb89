-- Remove the members of a node that is gone from one room, as many as one step should, and tell the others.
--
-- KEYS  the room's members (hash)
-- ARGV  1 channel, 2 what the ids of the node's members begin with, 3 cursor
-- Returns  the next cursor, "0" at the end

local answer = redis.call('HSCAN', KEYS[1], ARGV[3], 'COUNT', 500)
local known = redis.call('HGET', KEYS[1], 'v')
if not known then return '0' end
local epoch, version, places = string.match(known, '^(%S+) (%d+) (%d+)$')
local before, parts = tonumber(version), {}
for i = 1, #answer[2], 2 do
  local id = answer[2][i]
  if string.sub(id, 1, #ARGV[2]) == ARGV[2] and redis.call('HDEL', KEYS[1], id) == 1 then
    parts[#parts + 1] = 'L ' .. #id .. ' 0:' .. id
  end
end
if #parts > 0 then
  redis.call('HSET', KEYS[1], 'v', string.format('%s %.0f %s', epoch, before + #parts, places))
  if redis.call('HLEN', KEYS[1]) == 1 then redis.call('DEL', KEYS[1]) end
  redis.call('PUBLISH', ARGV[1],
    string.format('p %s %.0f %d\n', epoch, before, #parts) .. table.concat(parts))
end
return answer[1]
