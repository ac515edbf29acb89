-- Read a part of a room's members.
--
-- KEYS  the room's members (hash)
-- ARGV  1 cursor ("0" at first), 2 how many members, about
-- Returns  {"epoch version places" or nothing, the next cursor ("0" at the end), {id, its place and data, ...}}

local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
return {redis.call('HGET', KEYS[1], 'v') or '', page[1], page[2]}
