-- List people of a room behind a seat.
--
-- ARGV  1 room, 2 seat or "-inf", 3 most people
-- Returns  {number of people, {seat, name, ...}, 1 if there are more}

local key, most = base .. 'people:' .. ARGV[1], tonumber(ARGV[3])
local found = redis.call('ZRANGEBYSCORE', key, ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0, most + 1)
local page = {}
for i = 1, math.min(#found, 2 * most), 2 do
  local record = guest(found[i])
  page[#page + 1], page[#page + 2] = tonumber(found[i + 1]), record and record.name or '?'
end
return {redis.call('ZCARD', key), page, #found > 2 * most and 1 or 0}
