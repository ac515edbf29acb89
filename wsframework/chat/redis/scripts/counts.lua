-- Count the people of rooms.
--
-- ARGV  rooms
-- Returns  the number of people of each

local counts = {}
for i, room in ipairs(ARGV) do counts[i] = redis.call('ZCARD', base .. 'people:' .. room) end
return counts
