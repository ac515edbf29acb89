-- Let guests of a node out of all rooms, and free their names.
--
-- ARGV  1 node, 2 "these" or "others", numbers of guests

local numbers = {}
for i = 3, #ARGV do numbers[ARGV[i]] = true end
if ARGV[2] == 'these' then
  for i = 3, #ARGV do depart(ARGV[1] .. ' ' .. ARGV[i]) end
else
  for _, number in ipairs(redis.call('HKEYS', base .. 'guests:' .. ARGV[1])) do
    if not numbers[number] then depart(ARGV[1] .. ' ' .. number) end
  end
end
return 1
