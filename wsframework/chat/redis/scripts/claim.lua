-- Give a name to a guest: its first one, or another.
--
-- ARGV  1 "hello" or "name", 2 holder, 3 name, 4 digest of the guest's token, 5 of the token that it shows or "",
--       6 "1" to take the name from an earlier connection that does not end by itself, 7 "1" if the name is
--       reserved, 8 number of keys, the keys; then names to suggest, each as number of keys, the keys
-- Returns  {"ok"}, {"gone"}: it has no name to change, {"ghost"}: an earlier connection of the same guest has it,
--          and is told to end, or {"taken", which suggestion is free, or 0}

local me = ARGV[2]
local record = guest(me)
if ARGV[1] == 'name' and not record then return {'gone'} end

local at = 8
local function next_keys()
  local keys, count = {}, tonumber(ARGV[at])
  for i = 1, count do keys[i] = ARGV[at + i] end
  at = at + count + 1
  return keys
end

local keys = next_keys()
local holder = holder_of(keys, me)
if holder and ARGV[5] ~= '' and guest(holder) and guest(holder).digest == ARGV[5] then
  tell('end', {holder = holder, why = 'back'})
  if ARGV[6] ~= '1' then return {'ghost'} end
  depart(holder)
  holder = holder_of(keys, me)
end
if holder or ARGV[7] == '1' then
  local number = 0
  while at <= #ARGV do
    number = number + 1
    if not holder_of(next_keys(), me) then return {'taken', number} end
  end
  return {'taken', 0}
end

local before = record and record.name
if record then free(me, record.keys) end
record = record or {rooms = {}, order = {}, digest = ARGV[4]}
record.name, record.keys = ARGV[3], keys
for _, key in ipairs(keys) do redis.call('HSET', base .. 'names', key, me) end
keep(me, record)
if ARGV[1] == 'name' and before ~= ARGV[3] then
  local rooms = {}
  for i, room in ipairs(record.order) do
    rooms[i] = {room, redis.call('ZCARD', base .. 'people:' .. room), record.rooms[room]}
  end
  if #rooms > 0 then tell('renamed', {rooms = rooms, name = before, to = ARGV[3]}) end
end
return {'ok'}
