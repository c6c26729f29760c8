-- Lends a block of a bucket, or corrects it, by the server's clock. Atomic, as every script is.
-- KEYS[1] the bucket; ARGV: units a minute, burst, units that are needed, block, units given back.
-- A bucket that is not there is full. Returns the units lent and the level, as text.
local scale = 60000000
local per_minute, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local need, block, back = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local found = redis.call('HMGET', KEYS[1], 'level', 'at')
local level, at = burst * scale, now
if found[1] then
  at = math.max(tonumber(found[2]), now)
  level = math.min(burst * scale, tonumber(found[1]) + (at - tonumber(found[2])) * per_minute)
end
level = math.min(burst * scale, level + back * scale)
local lent = 0
if need > 0 and level >= math.min(need, burst) * scale then
  lent = math.max(need, math.min(block, math.floor(level / scale)))
  level = level - lent * scale
end
redis.call('HSET', KEYS[1], 'level', string.format('%.0f', level), 'at', string.format('%.0f', at))
redis.call('PEXPIRE', KEYS[1], math.ceil((burst * scale - level) / per_minute / 1000) + 60000)
return {string.format('%.0f', lent), string.format('%.0f', level)}
