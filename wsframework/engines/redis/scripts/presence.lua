-- Let members enter (or change their data) and leave, and tell all nodes of the room.
--
-- KEYS  the room's members (hash)
-- ARGV  1 channel, 2 an epoch in case there is none, then for each member: "E" or "L", its id, its data (JSON)
--
-- The field "v" is "epoch version places": each change has the next version, so that a node sees a hole, and
-- each member that enters the next place, so that all nodes list the members in one order.

local epoch, version, places = ARGV[2], 0, 0
local known = redis.call('HGET', KEYS[1], 'v')
if known then
  epoch, version, places = string.match(known, '^(%S+) (%d+) (%d+)$')
  version, places = tonumber(version), tonumber(places)
end
local before, parts = version, {}
for i = 3, #ARGV, 3 do
  local id, data = ARGV[i + 1], ARGV[i + 2]
  local old = redis.call('HGET', KEYS[1], id)
  if ARGV[i] == 'E' then
    local place
    if old then
      place = string.match(old, '^%d+')
    else
      places = places + 1
      place = string.format('%.0f', places)
    end
    redis.call('HSET', KEYS[1], id, place .. ' ' .. data)
    parts[#parts + 1] = 'E ' .. #id .. ' ' .. #data .. ':' .. id .. data
    version = version + 1
  elseif old then
    redis.call('HDEL', KEYS[1], id)
    parts[#parts + 1] = 'L ' .. #id .. ' 0:' .. id
    version = version + 1
  end
end
if #parts > 0 then
  redis.call('HSET', KEYS[1], 'v', string.format('%s %.0f %.0f', epoch, version, places))
  if redis.call('HLEN', KEYS[1]) == 1 then redis.call('DEL', KEYS[1]) end
  redis.call('PUBLISH', ARGV[1],
    string.format('p %s %.0f %d\n', epoch, before, #parts) .. table.concat(parts))
end
return #parts
