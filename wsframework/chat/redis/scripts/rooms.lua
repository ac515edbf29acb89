-- List the rooms behind one, the busiest first, and those with equally many people by name.
--
-- ARGV  1 number of people of that room or "", 2 its name, 3 most rooms
-- Returns  {{room, number of people, ...}, 1 if there are more}

-- As Redis sorts; Lua would sort as the language of the machine does.
local function is_behind(one, other)
  for i = 1, math.min(#one, #other) do
    local difference = string.byte(one, i) - string.byte(other, i)
    if difference ~= 0 then return difference > 0 end
  end
  return #one > #other
end

local key, most, from = base .. 'busiest', tonumber(ARGV[3]), 0
if ARGV[1] ~= '' then
  local score = -tonumber(ARGV[1])
  from = redis.call('ZCOUNT', key, '-inf', '(' .. text(score))
  local to = from + redis.call('ZCOUNT', key, text(score), text(score))
  -- The first one behind the name, among those with as many people.
  while from < to do
    local middle = math.floor((from + to) / 2)
    local room = redis.call('ZRANGE', key, middle, middle)[1]
    if is_behind(room, ARGV[2]) then to = middle else from = middle + 1 end
  end
end
local found = redis.call('ZRANGE', key, from, from + most, 'WITHSCORES')
local page = {}
for i = 1, math.min(#found, 2 * most), 2 do
  page[#page + 1], page[#page + 2] = found[i], -tonumber(found[i + 1])
end
return {page, #found > 2 * most and 1 or 0}
