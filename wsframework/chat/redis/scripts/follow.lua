-- Read what was said after a message, in all rooms; or learn that the log is another one.
--
-- ARGV  1 log or "" if none is known, 2 id and 3 tag of the newest message that is known, 4 an identity in case
--       a new log begins, 5 most messages, 6 most bytes
-- Returns  {log, newest id, its tag, {id, tag, time, room, body, ...}}; a forgotten message has no body
--
-- A failover may have lost the newest messages, so that ids are given again. Then the log gets a new identity,
-- by which clients learn that they cannot go on where they were.

local state = load_log(ARGV[4])
local known, id, tag = ARGV[1], tonumber(ARGV[2]), ARGV[3]
if not state.wall then
  tick(state)
  save_log(state)
end
if known == '' then return {state.log, state.id, state.tag, {}} end
if state.log ~= known then return {state.log, state.id, state.tag, {}} end
local its_tag = tag
if id == state.id then
  its_tag = state.tag
elseif id > 0 and id < state.id then
  local entry = message(id)
  if entry then its_tag = entry.tag end
end
if id > state.id or its_tag ~= tag then
  state.log, state.id = ARGV[4], math.max(id, state.id)
  save_log(state)
  tell('log', {log = state.log})
  return {state.log, state.id, state.tag, {}}
end
local entries, bytes = {}, 0
for next = id + 1, math.min(state.id, id + tonumber(ARGV[5])) do
  if bytes > tonumber(ARGV[6]) then break end
  local entry = message(next)
  local at = #entries
  entries[at + 1] = next
  if entry then
    entries[at + 2], entries[at + 3], entries[at + 4], entries[at + 5] = entry.tag, entry.time, entry.room, entry.body
    bytes = bytes + #entry.body
  else
    entries[at + 2], entries[at + 3], entries[at + 4], entries[at + 5] = '', 0, '', ''
  end
end
return {state.log, state.id, state.tag, entries}
