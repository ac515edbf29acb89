-- Let a guest into a room.
--
-- ARGV  1 holder, 2 room, 3 most people to return
-- Returns  {"ok", seat, number of people, {seat, name, ...}}, or {"gone"}: the guest has no name

local holder, room = ARGV[1], ARGV[2]
local record = guest(holder)
if not record then return {'gone'} end
leave(holder, record, room)  -- in case it is a repetition
record.order[#record.order + 1] = room
local seat = redis.call('HINCRBY', base .. 'log', 'seat', 1)
record.rooms[room] = seat
keep(holder, record)
redis.call('ZADD', base .. 'people:' .. room, seat, holder)
local count = counted(room)
tell('entered', {room = room, name = record.name, holder = holder, seat = seat, count = count})
local people = redis.call('ZRANGE', base .. 'people:' .. room, 0, tonumber(ARGV[3]) - 1, 'WITHSCORES')
local page = {}
for i = 1, #people, 2 do
  local its_record = guest(people[i])
  page[#page + 1], page[#page + 2] = tonumber(people[i + 1]), its_record and its_record.name or '?'
end
return {'ok', seat, count, page}
