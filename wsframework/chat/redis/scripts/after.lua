-- Read the messages of a room behind an id.
--
-- ARGV  1 log, 2 room, 3 id, 4 the last id to read, 5 how many may be behind it, 6 most messages, 7 most bytes
-- Returns  {floor, how many are behind it, 1 if there are newer ones, {id, time, body, ...}}; or {"other"}: the
--          log is none

local state = load_log('')
if state.log ~= ARGV[1] then return {'other'} end
local floor = math.max(state.floor, tonumber(redis.call('ZSCORE', base .. 'floors', ARGV[2]) or 0))
local entries, bytes, more = {}, 0, 0
local ids = redis.call('XRANGE', base .. 'room:' .. ARGV[2], '(' .. ARGV[3] .. '-0', ARGV[4] .. '-0',
  'COUNT', tonumber(ARGV[5]) + 1)
for i, found in ipairs(ids) do
  if i > tonumber(ARGV[6]) or (i > 1 and bytes > tonumber(ARGV[7])) then
    more = 1
    break
  end
  local id = tonumber(string.match(found[1], '^%d+'))
  local entry = message(id)
  if entry then
    entries[#entries + 1], entries[#entries + 2], entries[#entries + 3] = id, entry.time, entry.body
    bytes = bytes + #entry.body
  end
end
return {floor, #ids, more, entries}
