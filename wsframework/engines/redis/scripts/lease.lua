-- Extend a node's lease by Redis' own clock, and name the nodes whose lease is over.
--
-- KEYS  the nodes (sorted set by the end of their lease, in milliseconds)
-- ARGV  1 node, 2 lease in milliseconds
-- Returns  {1 if the node had a lease that was not over, the nodes whose lease is over}

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local had = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
return {had and tonumber(had) > now and 1 or 0, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 16)}
