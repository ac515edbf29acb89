-- Tell a room that is no crowd of somebody who types.
--
-- ARGV  1 room, 2 holder, 3 name, 4 "1" or "0", 5 the size of a crowd

local count = redis.call('ZCARD', base .. 'people:' .. ARGV[1])
if count <= tonumber(ARGV[5]) then
  tell('typing', {room = ARGV[1], holder = ARGV[2], name = ARGV[3], on = ARGV[4] == '1', count = count})
end
return 1
