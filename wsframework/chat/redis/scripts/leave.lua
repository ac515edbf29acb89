-- Let a guest out of a room.
--
-- ARGV  1 holder, 2 room

local record = guest(ARGV[1])
if record and record.rooms[ARGV[2]] then
  leave(ARGV[1], record, ARGV[2])
  keep(ARGV[1], record)
end
return 1
