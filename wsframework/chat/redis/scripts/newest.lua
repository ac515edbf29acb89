-- Read the newest messages of a room up to an id.
--
-- ARGV  1 log, 2 room, 3 id, 4 most messages, 5 most bytes
-- Returns  {1 if there are older ones, {id, time, body, ...}}, the newest first; or {"other"}: the log is none

if redis.call('HGET', base .. 'log', 'log') ~= ARGV[1] then return {'other'} end
local entries, bytes, most = {}, 0, tonumber(ARGV[4])
local ids = redis.call('XREVRANGE', base .. 'room:' .. ARGV[2], ARGV[3] .. '-0', '-', 'COUNT', most + 1)
for i, found in ipairs(ids) do
  if i > most or (i > 1 and bytes > tonumber(ARGV[5])) then return {1, entries} end
  local id = tonumber(string.match(found[1], '^%d+'))
  local entry = message(id)
  if entry then
    entries[#entries + 1], entries[#entries + 2], entries[#entries + 3] = id, entry.time, entry.body
    bytes = bytes + #entry.body
  end
end
return {0, entries}
