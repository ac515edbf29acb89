-- Store a message, unless it is there already, and tell all processes.
--
-- ARGV  1 room, 2 body (JSON), 3 room, sender and key, or "", 4 tag, 5 holder or "", 6 name,
--       7 an identity in case there is no log, then how much is kept: 8 messages, 9 of a room, 10 bytes,
--       11 milliseconds or ""
-- Returns  {"new" or "old", id, time, body}, or {"gone"}: the holder has no longer the name

local room, body, key, tag = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if ARGV[5] ~= '' then
  local record = guest(ARGV[5])
  if not record or record.name ~= ARGV[6] then return {'gone'} end
end
local known = key ~= '' and redis.call('HGET', base .. 'keys', key) or redis.call('GET', base .. 'once:' .. tag)
if known then
  local entry = message(tonumber(known))
  if entry then return {'old', tonumber(known), entry.time, entry.body} end
end

local state = load_log(ARGV[7])
local time = tick(state)
local id = state.id + 1
local entry = {room = room, body = body, time = time, age = state.age, tag = tag, key = key}
redis.call('HSET', base .. 'messages', text(id), cmsgpack.pack(entry))
redis.call('XADD', base .. 'room:' .. room, text(id) .. '-0', 'i', '')
if key ~= '' then
  redis.call('HSET', base .. 'keys', key, text(id))
else
  redis.call('SET', base .. 'once:' .. tag, text(id), 'PX', 60000)
end
state.id, state.tag = id, tag
state.count, state.bytes = state.count + 1, state.bytes + size(entry)
redis.call('PUBLISH', base .. 'events',
  'said ' .. state.log .. ' ' .. text(id) .. ' ' .. tag .. ' ' .. text(time) .. ' ' .. room .. ' ' .. body)

prune(state, tonumber(ARGV[8]), tonumber(ARGV[10]), ARGV[11], 50)
local stream, most = base .. 'room:' .. room, tonumber(ARGV[9])
local excess = redis.call('XLEN', stream) - most
if excess > 0 then
  for _, oldest in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', math.min(excess, 50))) do
    local its_id = tonumber(string.match(oldest[1], '^%d+'))
    local its_entry = message(its_id)
    if its_entry then forget(state, its_id, its_entry) end
  end
end
merge_floors(state)
save_log(state)
return {'new', id, time, body}
