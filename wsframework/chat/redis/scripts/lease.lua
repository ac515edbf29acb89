-- Extend a node's lease, and name the nodes whose lease is over.
--
-- ARGV  1 node, 2 lease in milliseconds
-- Returns  {1 if the node had a lease that was not over, the nodes whose lease is}

local now = milliseconds()
local had = lives(ARGV[1] .. ' 0')
redis.call('ZADD', base .. 'nodes', now + tonumber(ARGV[2]), ARGV[1])
return {had and 1 or 0, redis.call('ZRANGEBYSCORE', base .. 'nodes', '-inf', now, 'LIMIT', 0, 16)}
