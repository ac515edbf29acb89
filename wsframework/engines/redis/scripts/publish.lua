-- Store messages of one room and send them to all its nodes, in one step.
--
-- KEYS  the room's state (hash) and history (stream); for a message with a key, the key's place (string)
-- ARGV  1 node, 2 an epoch in case there is none, 3 channel, 4 messages and 5 bytes to keep (0: nothing),
--       6 seconds to keep them (0: do not set expiries now); if 4 is negative, they are kept as those who know
--       the room keep them, or else as many as that says without its sign,
--       then for each message: its number at the node (ascending), its tag, its envelope
-- Returns  {epoch, how many were there already, offset, tag, offset, tag, ...}
--
-- State: "epoch offset tag bytes count": the newest message's place, and what the history holds. Beside it there
-- is the newest number of each node, with its place and the time, how many nodes there were, and what is kept.
-- No command follows one that has changed something if it can fail for want of memory, disk or replicas: a
-- script is not rolled back. It can still fail in the middle if the user's rights change.

local function text(number) return string.format('%.0f', number) end

-- Redis cuts each subscriber for which 32 MB wait, and would cut it again when it reads this from the history.
for i = 9, #ARGV, 3 do
  if #ARGV[i] > 16777217 then
    return redis.error_reply('TOOLONG a message of ' .. #ARGV[i] - 1 .. ' bytes; 16 MiB are the most')
  end
end

if KEYS[3] then
  local known = redis.call('GET', KEYS[3])
  if known then
    local epoch, offset, tag = string.match(known, '^(%S+) (%d+) (%S+)$')
    return {epoch, 1, tonumber(offset), tag}
  end
end

local values = redis.call('HMGET', KEYS[1], 's', 'p:' .. ARGV[1])
local epoch, offset, tag, bytes, count
if values[1] then
  epoch, offset, tag, bytes, count = string.match(values[1], '^(%S+) (%d+) (%S*) (%d+) (%d+)$')
end
local expire, keep, most = tonumber(ARGV[6]), tonumber(ARGV[4]), tonumber(ARGV[5])
local knows = keep >= 0 and expire > 0
if keep < 0 then
  keep = -keep
  local kept, its_bytes, its_seconds = string.match(redis.call('HGET', KEYS[1], 'k') or '', '^(%d+) (%d+) (%d+)$')
  if kept then
    keep, most = tonumber(kept), tonumber(its_bytes)
    if expire > 0 then expire = tonumber(its_seconds) end
  end
end
-- A longer one is a stranger's: numbers are exact up to 2^53, and one more would be the same one.
if epoch and #offset <= 15 then
  offset, bytes, count = tonumber(offset), tonumber(bytes), tonumber(count)
  if expire > 0 and count > 0 and redis.call('EXISTS', KEYS[2]) == 0 then bytes, count = 0, 0 end
else
  epoch, offset, tag, bytes, count = ARGV[2], 0, '', 0, 0
  if expire == 0 then expire = 600 end
  redis.call('DEL', KEYS[2])
end

local seen, seen_offset, seen_tag = 0, 0, ''
if values[2] then
  seen, seen_offset, seen_tag = string.match(values[2], '^(%d+) (%d+) (%S+) ')
  seen, seen_offset = tonumber(seen), tonumber(seen_offset)
end

-- A retry has its place already. Its tag names it, as long as the history has it.
local function place_of(number, its_tag)
  if number == seen then return seen_offset, seen_tag end
  for _, entry in ipairs(redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1000)) do
    if entry[2][2] == its_tag then return tonumber(string.match(entry[1], '^%d+')), its_tag end
  end
  return seen_offset, seen_tag
end

local answer, parts, first, number = {epoch, 0}, {}, offset + 1, seen
for i = 7, #ARGV, 3 do
  local its_number, its_tag, envelope = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  if its_number <= seen then
    answer[2] = answer[2] + 1
    local its_offset, known_tag = place_of(its_number, its_tag)
    answer[#answer + 1], answer[#answer + 2] = its_offset, known_tag
  else
    offset, tag, number = offset + 1, its_tag, its_number
    if keep > 0 then
      local added = redis.pcall('XADD', KEYS[2], text(offset) .. '-0', 't', tag, 'd', envelope)
      if type(added) == 'table' and added.err then
        if not string.find(added.err, 'equal or smaller', 1, true) then return added end
        -- The history is ahead of the state: somebody else has written to it, or a script could not finish.
        redis.call('DEL', KEYS[2])
        bytes, count = 0, 0
        redis.call('XADD', KEYS[2], text(offset) .. '-0', 't', tag, 'd', envelope)
      end
      bytes, count = bytes + #envelope, count + 1
    elseif count > 0 then
      -- Of two nodes, one keeps nothing: the history would have a hole.
      redis.call('DEL', KEYS[2])
      bytes, count = 0, 0
    end
    parts[#parts + 1] = tag .. ' ' .. #envelope .. ':' .. envelope
    answer[#answer + 1], answer[#answer + 2] = offset, tag
  end
end
if #parts == 0 then return answer end

-- In portions: trimming one message at a time would cost as much as storing it.
if keep > 0 and (count > keep + 100 or bytes > most) then
  while count > 1 and (count > keep or bytes > most) do
    local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 100)
    local from
    for _, entry in ipairs(oldest) do
      if count <= 1 or (count <= keep and bytes <= most) then break end
      count, bytes = count - 1, bytes - #(entry[2][4] or '')
      from = tonumber(string.match(entry[1], '^%d+')) + 1
    end
    if not from then break end
    redis.call('XTRIM', KEYS[2], 'MINID', text(from) .. '-0')
  end
end

-- By the server's clock, and a call less while expiries are not set either.
local at = expire == 0 and values[2] and string.match(values[2], ' (%d+)$') or redis.call('TIME')[1]
local place = text(offset) .. ' ' .. tag
local fields = {
  's', epoch .. ' ' .. place .. ' ' .. text(bytes) .. ' ' .. text(count),
  'p:' .. ARGV[1], text(number) .. ' ' .. place .. ' ' .. at}
if knows then fields[5], fields[6] = 'k', ARGV[4] .. ' ' .. ARGV[5] .. ' ' .. ARGV[6] end
redis.call('HSET', KEYS[1], unpack(fields))
if KEYS[3] then redis.call('SET', KEYS[3], epoch .. ' ' .. place, 'PX', 600000) end
if expire > 0 then
  redis.call('EXPIRE', KEYS[2], expire)
  -- Nodes with members extend it more often than that: a new state would look like a loss to them.
  redis.call('EXPIRE', KEYS[1], math.max(660, 2 * expire + 60))
  -- Nodes that have not published for an hour have no retries left. They are looked for when there are twice
  -- as many as the last time: a program may be a new node with each message.
  local nodes = redis.call('HLEN', KEYS[1])
  if nodes > 32 and nodes > 2 * tonumber(redis.call('HGET', KEYS[1], 'c') or 0) then
    local fields = redis.call('HGETALL', KEYS[1])
    for i = 1, #fields, 2 do
      local its = string.match(fields[i + 1], '^%d+ %d+ %S+ (%d+)$')
      if string.sub(fields[i], 1, 2) == 'p:' and its and tonumber(its) + 3600 < tonumber(at) then
        redis.call('HDEL', KEYS[1], fields[i])
      end
    end
    redis.call('HSET', KEYS[1], 'c', redis.call('HLEN', KEYS[1]))
  end
end
redis.call('PUBLISH', ARGV[3], 'm ' .. epoch .. ' ' .. text(first) .. ' ' .. #parts .. '\n' .. table.concat(parts))
return answer
