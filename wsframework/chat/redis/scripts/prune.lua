-- Forget what is too old or too much, a number of messages at once.
--
-- ARGV  1 an identity in case there is no log, 2 messages, 3 bytes, 4 milliseconds or ""
-- Returns  1 if that was all

local state = load_log(ARGV[1])
tick(state)
local all = prune(state, tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], 500)
merge_floors(state)
save_log(state)
return all and 1 or 0
