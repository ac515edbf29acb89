-- Let guests of a node whose lease is over depart, some at once.
--
-- ARGV  1 node, 2 how many
-- Returns  1 if there may be more

local node = ARGV[1]
if lives(node .. ' 0') then return 0 end
local guests = redis.call('HSCAN', base .. 'guests:' .. node, 0, 'COUNT', ARGV[2])[2]
for i = 1, #guests, 2 do depart(node .. ' ' .. guests[i]) end
if redis.call('HLEN', base .. 'guests:' .. node) > 0 then return 1 end
redis.call('ZREM', base .. 'nodes', node)
return 0
