-- Let members enter (or change their data) and leave, and tell all nodes of the room.
--
-- KEYS  the room's members (hash), the node's newest connection (string), the node's rooms (set)
-- ARGV  1 channel, 2 an epoch in case there is none, 3 the number of the node's connection,
--       4 "+" if the node has members in the room then, else "-",
--       then for each member: "E" or "L", its id, its data (JSON)
-- Returns  the number of changes
--
-- A call over a connection that the node has given up may arrive behind those over the next one, which have
-- told of everything again. It changes nothing.
--
-- The field "v" is "epoch version places": each change has the next version, so that a node sees a hole, and
-- each member that enters the next place, so that all nodes list the members in one order.

-- pcall: a stranger's junk at these two keys hurts no room.
local newest = redis.pcall('GET', KEYS[2])
newest = type(newest) == 'string' and tonumber(newest) or 0
if tonumber(ARGV[3]) < newest then return 0 end
if tonumber(ARGV[3]) > newest then redis.pcall('SET', KEYS[2], ARGV[3], 'EX', 3600) end
-- A node that removes ours later finds the room.
redis.pcall(ARGV[4] == '+' and 'SADD' or 'SREM', KEYS[3], ARGV[1])

local known = redis.call('HGET', KEYS[1], 'v')
local epoch, version, places
if known then epoch, version, places = string.match(known, '^(%S+) (%d+) (%d+)$') end
-- Longer numbers are a stranger's: they are exact up to 2^53, and one more would be the same one.
if epoch and #version <= 15 and #places <= 15 then
  version, places = tonumber(version), tonumber(places)
else
  epoch, version, places = ARGV[2], 0, 0
end
local before, parts = version, {}
for i = 5, #ARGV, 3 do
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
