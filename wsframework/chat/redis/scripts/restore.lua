-- Put a guest back as its node knows it, after a time in which other nodes may have let it depart.
--
-- ARGV  1 holder, 2 name, 3 digest of its token, 4 number of keys of the name, the keys, then room, seat, ...

local me = ARGV[1]
local record = guest(me)
local keys, at = {}, 5 + tonumber(ARGV[4])
for i = 5, at - 1 do keys[#keys + 1] = ARGV[i] end
if holder_of(keys, me) then
  depart(me)
  tell('end', {holder = me, why = 'taken'})
  return 0
end
local changed = {}
if record then
  free(me, record.keys)
  if record.name ~= ARGV[2] then
    for room in pairs(record.rooms) do changed[room] = true end
  end
end
local before = record and record.rooms or {}
record = {name = ARGV[2], digest = ARGV[3], keys = keys, rooms = {}, order = {}}
for i = at, #ARGV, 2 do
  local room, seat = ARGV[i], tonumber(ARGV[i + 1])
  record.rooms[room], record.order[#record.order + 1] = seat, room
  if before[room] ~= seat then
    redis.call('ZADD', base .. 'people:' .. room, seat, me)
    changed[room] = true
  end
end
for room in pairs(before) do
  if not record.rooms[room] then
    redis.call('ZREM', base .. 'people:' .. room, me)
    changed[room] = true
  end
end
for _, key in ipairs(keys) do redis.call('HSET', base .. 'names', key, me) end
keep(me, record)
for room in pairs(changed) do tell('changed', {room = room, count = counted(room)}) end
local seats = tonumber(redis.call('HGET', base .. 'log', 'seat') or 0)
for _, seat in pairs(record.rooms) do
  if seat > seats then redis.call('HSET', base .. 'log', 'seat', text(seat)) seats = seat end
end
return 1
