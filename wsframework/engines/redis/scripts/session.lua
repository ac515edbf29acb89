-- One step in the life of a session.
--
-- KEYS  the session (hash)
-- ARGV  1 step, 2 the claim's tag, 3 its generation, 4 seconds for which to keep the session, and for
--       "create" and "save": 5 user, 6 secret, 7 channel of the claim's node, 8 version, 9 body
--       "resume": 5 user, 6 the secret that was shown, 7 the new secret, 8 channel, 9 overlap in milliseconds
-- Returns  {1, ...} if it was done; {0} if not: another claim has the session, or the secret is not its own;
--          {-1} if there is no session; {2} if Redis has lost that this claim took it. "resume" adds the
--          generation, the version and the body.
--
-- Fields: g generation, o tags of the newest claims, the holder's first, c its channel; u user, s secret,
-- p the former secret and x when it ends, in milliseconds; v version, b body.
-- A step that is sent again has no further effect, nor has a copy of it that arrives late.

local step, tag, mine, seconds = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local known = redis.call('HMGET', KEYS[1], 'g', 'o', 'v')
local generation, tags, version = tonumber(known[1]), known[2], tonumber(known[3])
local holder = tags and string.match(tags, '^%S+')

if step == 'create' then
  if generation then return {holder == tag and 1 or 0} end
  redis.call('HSET', KEYS[1], 'g', 1, 'o', tag, 'c', ARGV[7], 'u', ARGV[5], 's', ARGV[6], 'v', ARGV[8], 'b', ARGV[9])
  redis.call('EXPIRE', KEYS[1], seconds)
  return {1}
end

if not generation then return {-1} end

if step == 'resume' then
  if holder == tag then return {1, generation, version, redis.call('HGET', KEYS[1], 'b')} end
  if string.find(' ' .. tags .. ' ', ' ' .. tag .. ' ', 1, true) then return {0} end
  local found = redis.call('HMGET', KEYS[1], 'u', 's', 'p', 'x', 'c', 'b')
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  if found[1] ~= ARGV[5] then return {0} end
  local former, ends = found[3], tonumber(found[4])
  if ARGV[6] == found[2] then
    former, ends = ARGV[6], now + tonumber(ARGV[9])
  elseif not former or ARGV[6] ~= former or now >= ends then
    return {0}
  end
  local newest, count = tag, 1
  for before in string.gmatch(tags, '%S+') do
    if count < 8 then newest, count = newest .. ' ' .. before, count + 1 end
  end
  redis.call('HSET', KEYS[1], 'g', generation + 1, 'o', newest, 'c', ARGV[8], 's', ARGV[7], 'p', former,
    'x', string.format('%.0f', ends))
  redis.call('EXPIRE', KEYS[1], seconds)
  redis.call('PUBLISH', found[5], holder)
  return {1, generation + 1, version, found[6]}
end

if generation > mine or (generation == mine and holder ~= tag) then return {0} end

if step == 'end' then
  redis.call('DEL', KEYS[1])
elseif step == 'confirm' then
  if generation < mine then return {2} end
  redis.call('HDEL', KEYS[1], 'p', 'x')
elseif generation < mine then
  -- A failover to a replica that was behind: what this claim did is done again.
  redis.call('HSET', KEYS[1], 'g', mine, 'o', tag .. ' ' .. tags, 'c', ARGV[7], 'u', ARGV[5], 's', ARGV[6],
    'v', ARGV[8], 'b', ARGV[9])
  redis.call('EXPIRE', KEYS[1], seconds)
elseif version < tonumber(ARGV[8]) then
  redis.call('HSET', KEYS[1], 'v', ARGV[8], 'b', ARGV[9])
  redis.call('EXPIRE', KEYS[1], seconds)
end
return {1}
