-- Read where a room is, and its messages from an offset on (with that one, to compare its tag).
--
-- KEYS  the room's state (hash) and history (stream)
-- ARGV  1 an epoch in case there is none, 2 offset (-1: no messages), 3 most messages, 4 most bytes,
--       5 seconds until an unused state is forgotten, 6 epoch and 7 tag that are expected at the offset, if any
-- Returns  {epoch, newest offset, its tag, {offset, tag, envelope, ...}}, without the envelope of the message at
--          that offset; the epoch is "-" if none can be stored

local state = redis.call('HGET', KEYS[1], 's')
local epoch, offset, tag
if state then epoch, offset, tag = string.match(state, '^(%S+) (%d+) (%S*) ') end
if not epoch or #offset > 15 then -- as in publish
  epoch, offset, tag = ARGV[1], '0', ''
  local answer = redis.pcall('HSET', KEYS[1], 's', epoch .. ' 0  0 0')
  if type(answer) == 'table' and answer.err then return {'-', 0, '', {}} end
  redis.call('DEL', KEYS[2])
end
-- A room may keep messages for longer than the engine of this node does.
if redis.call('TTL', KEYS[1]) < tonumber(ARGV[5]) then redis.call('EXPIRE', KEYS[1], ARGV[5]) end

local entries, from = {}, tonumber(ARGV[2])
if from >= 0 and (ARGV[6] == '' or ARGV[6] == epoch) then
  local bytes, most = 0, tonumber(ARGV[4])
  local start, left = ARGV[2] .. '-0', tonumber(ARGV[3])
  -- What is after the newest one was refused, or is somebody else's.
  local stop = string.format('%.0f', tonumber(offset)) .. '-0'
  if ARGV[7] ~= '' then
    -- Of another history one message is enough to tell: what a client makes up should cost no more.
    local first = redis.call('XRANGE', KEYS[2], start, stop, 'COUNT', 1)[1]
    if first and first[2][2] ~= ARGV[7] then left = 1 end
  end
  while left > 0 and bytes < most do
    local page = redis.call('XRANGE', KEYS[2], start, stop, 'COUNT', math.min(left, 50))
    for _, entry in ipairs(page) do
      local its_offset = tonumber(string.match(entry[1], '^%d+'))
      -- The first one is there already: only its tag is wanted.
      local envelope = its_offset ~= from and entry[2][4] or ''
      bytes = bytes + #envelope
      if bytes > most and #entries >= 6 then break end
      entries[#entries + 1] = its_offset
      entries[#entries + 1] = entry[2][2] or ''
      entries[#entries + 1] = envelope
    end
    if #page < 50 then break end
    left, start = left - #page, '(' .. page[#page][1]
  end
end
return {epoch, tonumber(offset), tag, entries}
