-- What the scripts of the chat share; it comes before each of them.
--
-- KEYS[1] is what the names of all keys of the chat begin with; they are in one slot of a cluster.
--
--   events          channel: everything that all processes must know, in one order
--   nodes           sorted set: node -> the end of its lease, in milliseconds by this server's clock
--   guests:<node>   hash: number -> name, digest of the token, keys of the name, rooms (room -> seat), and their
--                   order (MessagePack)
--   names           hash: key of a name -> holder, which is "<node> <number>"
--   people:<room>   sorted set: holder -> seat
--   busiest         sorted set: room -> minus the number of its people
--   log             hash: log, id, tag (of the newest message), count, bytes, oldest, floor, wall, age, seat
--   messages        hash: id -> room, body, time, age, tag, key (MessagePack)
--   room:<room>     stream: the ids of a room's messages
--   keys            hash: room, sender and key -> id
--   once:<tag>      string: id of a message without a key, for as long as it may be sent again
--   floors          sorted set: room -> the newest id that it has forgotten

local base = KEYS[1]

local function text(number) return string.format('%.0f', number) end

local function milliseconds()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function tell(kind, value) redis.call('PUBLISH', base .. 'events', kind .. ' ' .. cjson.encode(value)) end

-- People

local function split(holder) return string.match(holder, '^(%S+) (%S+)$') end

local function guest(holder)
  local node, number = split(holder)
  local packed = redis.call('HGET', base .. 'guests:' .. node, number)
  return packed and cmsgpack.unpack(packed)
end

local function keep(holder, record)
  local node, number = split(holder)
  redis.call('HSET', base .. 'guests:' .. node, number, cmsgpack.pack(record))
end

-- Whether the node of a holder is alive, or is at least not known to be gone.
local function lives(holder)
  local ends = redis.call('ZSCORE', base .. 'nodes', (split(holder)))
  return ends and tonumber(ends) > milliseconds()
end

local function counted(room)
  local count = redis.call('ZCARD', base .. 'people:' .. room)
  if count > 0 then
    redis.call('ZADD', base .. 'busiest', -count, room)
  else
    redis.call('ZREM', base .. 'busiest', room)
  end
  return count
end

local function leave(holder, record, room)
  local seat = record.rooms[room]
  if not seat then return end
  record.rooms[room] = nil
  local order = {}
  for _, other in ipairs(record.order) do
    if other ~= room then order[#order + 1] = other end
  end
  record.order = order
  redis.call('ZREM', base .. 'people:' .. room, holder)
  tell('left', {room = room, name = record.name, seat = seat, count = counted(room)})
end

local function free(holder, keys)
  for _, key in ipairs(keys) do
    if redis.call('HGET', base .. 'names', key) == holder then redis.call('HDEL', base .. 'names', key) end
  end
end

local function depart(holder)
  local record = guest(holder)
  if not record then return end
  for _, room in ipairs(record.order) do leave(holder, record, room) end
  free(holder, record.keys)
  local node, number = split(holder)
  redis.call('HDEL', base .. 'guests:' .. node, number)
end

-- Who has one of the keys, besides `me`. A guest of a node whose lease is over has none any more, and is told so
-- in case the node is only late.
local function holder_of(keys, me)
  for _, key in ipairs(keys) do
    local holder = redis.call('HGET', base .. 'names', key)
    if holder and holder ~= me then
      if lives(holder) then return holder end
      depart(holder)
      tell('end', {holder = holder, why = 'taken'})
      redis.call('HDEL', base .. 'names', key)
    end
  end
end

-- Messages

-- The clock: messages are forgotten by an age of the log's own, which does not go on when the clock jumps.
local function tick(state)
  local wall = milliseconds()
  local before = tonumber(state.wall or wall)
  local passed = wall - before
  state.age = tonumber(state.age or wall)
  if passed > 0 and passed <= 7 * 86400000 then state.age = state.age + passed end
  state.wall = wall
  return wall
end

local fields = {'log', 'id', 'tag', 'count', 'bytes', 'oldest', 'floor', 'wall', 'age'}

local function load_log(new)
  local values, state = redis.call('HMGET', base .. 'log', unpack(fields)), {}
  for i, field in ipairs(fields) do state[field] = values[i] or nil end
  state.log, state.tag = state.log or new, state.tag or ''
  for _, field in ipairs({'id', 'count', 'bytes', 'floor'}) do state[field] = tonumber(state[field] or 0) end
  state.oldest = tonumber(state.oldest or 1)
  return state
end

local function save_log(state)
  redis.call('HSET', base .. 'log', 'log', state.log, 'id', text(state.id), 'tag', state.tag,
    'count', text(state.count), 'bytes', text(state.bytes), 'oldest', text(state.oldest),
    'floor', text(state.floor), 'wall', text(state.wall), 'age', text(state.age))
end

local function message(id)
  local packed = redis.call('HGET', base .. 'messages', text(id))
  return packed and cmsgpack.unpack(packed)
end

-- What a message takes in memory, about: its texts (memory comes in sizes that are a tenth larger on average, and
-- a fifth at worst), its key twice, and what Redis needs for each entry. Measured with 10 to 4,000 characters.
local function size(entry)
  return math.ceil(1.2 * #entry.body) + #entry.room + 2 * #entry.key + 300
end

-- Forget a message, which is the oldest of its room.
local function forget(state, id, entry)
  redis.call('HDEL', base .. 'messages', text(id))
  redis.call('XTRIM', base .. 'room:' .. entry.room, 'MINID', text(id + 1) .. '-0')
  if redis.call('XLEN', base .. 'room:' .. entry.room) == 0 then redis.call('DEL', base .. 'room:' .. entry.room) end
  if entry.key ~= '' then redis.call('HDEL', base .. 'keys', entry.key) end
  redis.call('ZADD', base .. 'floors', 'GT', text(id), entry.room)
  state.count, state.bytes = state.count - 1, state.bytes - size(entry)
end

-- Forget what is too old or too much of all rooms, at most so many steps; return whether that was all.
local function prune(state, most, bytes, days, steps)
  while state.oldest <= state.id do
    local entry = message(state.oldest)
    if entry then
      local too_old = days ~= '' and tonumber(entry.age) < state.age - tonumber(days)
      if state.count <= most and state.bytes <= bytes and not too_old then return true end
      if steps <= 0 then return false end
      forget(state, state.oldest, entry)
    end
    if steps <= 0 then return false end
    state.oldest, steps = state.oldest + 1, steps - 1
  end
  return true
end

-- Keep the floors of so many rooms; the log's own floor stands for the rest.
local function merge_floors(state)
  local excess = redis.call('ZCARD', base .. 'floors') - 10000
  if excess > 0 then
    local gone = redis.call('ZPOPMIN', base .. 'floors', excess)
    state.floor = math.max(state.floor, tonumber(gone[#gone]))
  end
end
