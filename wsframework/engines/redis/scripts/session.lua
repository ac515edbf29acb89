-- One step in the life of a session.
--
-- KEYS  the session (string)
-- ARGV  1 step, 2 the claim's tag, 3 its generation, 4 seconds for which to keep the session, and for
--       "create" and "save": 5 user, 6 secret, 7 node, 8 version, 9 body
--       "resume": 5 user, 6 the secret that was shown, 7 the new secret, 8 node, 9 overlap in milliseconds,
--       10 what the channels of nodes begin with
-- Returns  {1, ...} if it was done; {0} if not: another claim has the session, or the secret is not its own;
--          {-1} if there is no session; {2} if Redis has lost that this claim took it. "resume" adds the
--          generation, the version and the body.
--
-- A session is a line and its body. The line: generation, version, user, secret, the former secret ("-" for none),
-- when that ends in milliseconds, the node of the claim that has it, the tags of the newest claims, that one first.
-- A step that is sent again has no further effect, nor has a copy of it that arrives late.

local step, tag, mine, seconds = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local generation, version, user, secret, former, ends, node, tags, body

local function write()
  local line = string.format('%.0f %.0f %s %s %s %.0f %s %s\n', generation, version, user, secret, former, ends, node, tags)
  redis.call('SET', KEYS[1], line .. body, 'EX', seconds)
end

local known = redis.call('GET', KEYS[1])
if known then
  generation, version, user, secret, former, ends, node, tags, body =
    string.match(known, '^(%d+) (%d+) (%S+) (%S+) (%S+) (%d+) (%S+) (%S+)\n(.*)$')
  if not generation then return redis.error_reply('ERR the key holds no session') end
  generation, version, ends = tonumber(generation), tonumber(version), tonumber(ends)
end
local holder = known and string.match(tags, '^[^,]+')

if step == 'create' then
  if known then return {holder == tag and 1 or 0} end
  generation, version, user, secret, former, ends = 1, ARGV[8], ARGV[5], ARGV[6], '-', 0
  node, tags, body = ARGV[7], tag, ARGV[9]
  write()
  return {1}
end

if not known then return {-1} end

if step == 'resume' then
  if holder == tag then return {1, generation, version, body} end
  -- A late copy: it had the session, and another one has taken it since.
  if string.find(',' .. tags .. ',', ',' .. tag .. ',', 1, true) then return {0} end
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  if user ~= ARGV[5] then return {0} end
  if secret == ARGV[6] then
    former, ends = secret, now + tonumber(ARGV[9])
  elseif former ~= ARGV[6] or now >= ends then
    return {0}
  end
  local loser = ARGV[10] .. node
  local newest, count = tag, 1
  for before in string.gmatch(tags, '[^,]+') do
    if count < 4 then newest, count = newest .. ',' .. before, count + 1 end
  end
  generation, secret, node, tags = generation + 1, ARGV[7], ARGV[8], newest
  write()
  redis.call('PUBLISH', loser, holder)
  return {1, generation, version, body}
end

if generation > mine or (generation == mine and holder ~= tag) then return {0} end

if step == 'end' then
  redis.call('DEL', KEYS[1])
elseif step == 'confirm' then
  if generation < mine then return {2} end
  if former ~= '-' then
    former, ends = '-', 0
    write()
  end
elseif generation < mine then
  -- A failover to a replica that was behind: what this claim did is done again.
  generation, version, user, secret, node, tags = mine, ARGV[8], ARGV[5], ARGV[6], ARGV[7], tag .. ',' .. tags
  body = ARGV[9]
  write()
elseif version < tonumber(ARGV[8]) then
  version, body = ARGV[8], ARGV[9]
  write()
end
return {1}
