-- Keep sessions that connections have.
--
-- KEYS  sessions
-- ARGV  for each: the claim's tag, its generation, the version that it has stored, seconds for which to keep it
-- Returns  for each: 1 if it was kept; 0 if another claim has it; -1 if there is none; 2 if Redis has lost what
--          this claim did

local answer = {}
for i, key in ipairs(KEYS) do
  local at = 4 * i - 3
  local tag, mine, stored, seconds = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), ARGV[at + 3]
  local known = redis.pcall('GET', key)
  local generation, version, holder
  if type(known) == 'string' then
    generation, version, holder = string.match(known, '^(%d+) (%d+) %S+ %S+ %S+ %d+ %S+ ([^,\n]+)')
    generation, version = tonumber(generation), tonumber(version)
  end
  if not generation then
    answer[i] = -1
  elseif generation > mine or (generation == mine and holder ~= tag) then
    answer[i] = 0
  else
    redis.call('EXPIRE', key, seconds)
    answer[i] = (generation < mine or version < stored) and 2 or 1
  end
end
return answer
