"""What Redis does in one step. Time is the server's own: clients' clocks may differ."""

from __future__ import annotations

from posthouse.storage.bus.redis_link import Script

TAKE = Script("""
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local out = {}
for i, key in ipairs(KEYS) do
  local a = (i - 1) * 6
  local least, most, rate = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
  local burst, start, spent = tonumber(ARGV[a + 4]), tonumber(ARGV[a + 5]), tonumber(ARGV[a + 6])
  local held = redis.call('HMGET', key, 'level', 'at')
  local level = math.min(burst, start)
  if held[1] then
    level = math.min(burst, held[1] + math.max(0, now - held[2]) * rate / 1000000)
  end
  level = level - spent
  local needed, taken, wait = math.min(least, burst), 0, 0
  if level >= needed then
    taken = math.max(least, math.min(most, math.floor(level)))
    level = level - taken
  else
    wait = (needed - level) / rate
  end
  if taken > 0 or spent > 0 then
    redis.call('HSET', key, 'level', string.format('%.6f', level), 'at', string.format('%.0f', now))
    redis.call('PEXPIRE', key, math.ceil((burst - level) / rate * 1000) + 60000)
  end
  out[#out + 1] = string.format('%.0f', taken)
  out[#out + 1] = string.format('%.6f', wait)
  out[#out + 1] = string.format('%.6f', level)
end
return out""")
"""KEYS: buckets. ARGV, for each: least, most, rate, burst, level of a bucket that is not
there, tokens that were given out without it. Returns for each: taken, wait, level."""

HOLD = Script("""
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local me, ttl, since = ARGV[1], tonumber(ARGV[2]), redis.call('GET', KEYS[1])
if not since then
  since = now
  redis.call('SET', KEYS[1], string.format('%.0f', now))
end
local young = now - since < ttl
local out = {}
for i = 2, #KEYS do
  local a = 2 + (i - 2) * 4
  local wanted, used = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
  local most, share = tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4])
  local others, all = 0, {}
  if wanted > 0 then all[1] = {me, wanted} end
  local held = redis.call('HGETALL', KEYS[i])
  for j = 1, #held, 2 do
    local count, want, till = string.match(held[j + 1], '(%d+) (%d+) (%d+)')
    if held[j] ~= me then
      if tonumber(till) <= now then
        redis.call('HDEL', KEYS[i], held[j])
      else
        others = others + count
        if tonumber(want) > 0 then all[#all + 1] = {held[j], tonumber(want)} end
      end
    end
  end
  local left, fair, scarce = most, 0, most < #all
  table.sort(all, function(x, y)
    if not scarce and x[2] ~= y[2] then return x[2] < y[2] end
    return x[1] < y[1]
  end)
  local turn = math.floor(now / 5000)
  for n, one in ipairs(all) do
    local part = math.min(one[2], math.floor(left / (#all - n + 1)))
    if scarce then part = (n - 1 + turn) % #all < most and 1 or 0 end
    if one[1] == me then fair = part end
    left = left - part
  end
  if young then fair = math.min(fair, math.max(share, used)) end
  local may = math.max(0, math.min(fair, most - others))
  if wanted == 0 and used == 0 then
    redis.call('HDEL', KEYS[i], me)
  else
    local entry = string.format('%.0f %.0f %.0f', math.max(used, may), wanted, now + ttl)
    redis.call('HSET', KEYS[i], me, entry)
    redis.call('PEXPIRE', KEYS[i], ttl)
  end
  out[#out + 1] = may
end
return out""")
"""KEYS: since when slots are counted (after a wipe, for `ttl`, holders that have not renewed yet
are not known, so nobody gets more than its share), then hashes of holders. ARGV: holder, ttl in
ms, then for each hash: wanted, in use, most, share. Returns for each: how many may be used.

Wants are served from the smallest on, each an equal part of what is left; where there are more
holders than slots they take turns of five seconds."""

ALIVE = Script("""
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local out = {}
for i, key in ipairs(KEYS) do
  redis.call('ZADD', key, now, ARGV[1])
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - ARGV[2])
  redis.call('PEXPIRE', key, ARGV[2])
  out[i] = redis.call('ZCARD', key)
end
return out""")
"""KEYS: a sorted set for each group. ARGV: process, ms after which a silent one is gone.
Returns how many each has."""

GONE = Script("for _, key in ipairs(KEYS) do redis.call('ZREM', key, ARGV[1]) end return #KEYS")
"""KEYS: as ALIVE. ARGV: process."""

READ = Script("""
local out = redis.call('MGET', unpack(KEYS))
for i, key in ipairs(KEYS) do
  local value = out[i]
  out[2 * #KEYS - i + 1] = value and redis.call('PTTL', key) or -2
end
return out""")
"""KEYS: at most some hundreds. Returns the values in order, then their ms left in reverse."""

WRITE = Script("""
for i, key in ipairs(KEYS) do redis.call('SET', key, ARGV[2 * i - 1], 'PX', ARGV[2 * i]) end
return #KEYS""")
"""ARGV, for each key: value, ms."""
