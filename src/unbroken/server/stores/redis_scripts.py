"""What Redis does in one step for the store: scripts, each for keys of one hash slot.

A session is a hash of what changes, beside a text of what does not. In the hash, a field that is missing or empty is
None; numbers are as Python wrote them and are handed on as they are, so that nothing is rounded:

    g b t1 b1 t2 b2 a s u i x r w v   the fields of a ``Row`` that change (see ``redis_rows.py``)
    e                                 the epoch of its subject at login; a later one ends the session
    o                                 until when its revocation must be known to all, while it is not announced
    n                                 the name of the last change: a change that is asked for twice is made once

No script reads a clock, but where numbers must go on after the store was restored from an older state (``TIME``).
"""

from __future__ import annotations

from unbroken._drivers.redis import script

__all__ = [
    "ANNOUNCE",
    "BUMP",
    "CHANGE_ACCOUNT",
    "CONFIRM",
    "END",
    "ENDS",
    "INSERT",
    "LIST",
    "ROTATE",
    "SAVE_KEYS",
    "STRIKE",
    "SWAP",
]

# KEYS: hash, text. ARGV: life in ms, text, fields and values.
INSERT = script("""
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[1])
return 1
""")

# R1: the condition is that of ``rotation.present``, the change that of ``rotation.rotate``. The session's epoch if it
# was made. KEYS: hash; the subject's epoch, where it can be in the same step. ARGV: g, b, now, now + refresh_ttl,
# attempt, g + 1.
ROTATE = script("""
local is = redis.call('HMGET', KEYS[1], 'g', 's', 'r', 'i', 'x', 't1', 'b1', 'e')
local now = tonumber(ARGV[3])
if is[1] ~= ARGV[1] or (is[3] or '') ~= '' or tonumber(is[4]) <= now or tonumber(is[5]) <= now then return false end
if (is[2] or '') ~= '' and is[2] ~= ARGV[2] then return false end
if KEYS[2] and tonumber(redis.call('HGET', KEYS[2], 'n') or 0) > tonumber(is[8]) then return false end
local idle = ARGV[4]
if tonumber(idle) > tonumber(is[5]) then idle = is[5] end
redis.call('HSET', KEYS[1], 'g', ARGV[6], 'b', '0', 't1', ARGV[3], 'b1', ARGV[2], 't2', is[6] or '', 'b2', is[7] or '',
    'a', ARGV[5], 's', '', 'u', ARGV[3], 'i', idle)
return is[8]
""")

# Compare and set. KEYS: hash, text. ARGV: number of fields, their names, values before, values after; the name of the
# change; until when it must be announced, or nothing; the text, if it is another one; life in ms at least, or nothing.
SWAP = script("""
local many = tonumber(ARGV[1])
local rest = 1 + 3 * many
if ARGV[rest + 1] == redis.call('HGET', KEYS[1], 'n') then return 1 end
local names, change = {}, {'n', ARGV[rest + 1], 'o', ARGV[rest + 2]}
for at = 1, many do
    names[at] = ARGV[1 + at]
    change[#change + 1] = names[at]
    change[#change + 1] = ARGV[1 + 2 * many + at]
end
local is = redis.call('HMGET', KEYS[1], unpack(names))
if not is[1] then return 0 end
for at = 1, many do
    if (is[at] or '') ~= ARGV[1 + many + at] then return 0 end
end
redis.call('HSET', KEYS[1], unpack(change))
if ARGV[rest + 3] ~= '' then redis.call('SET', KEYS[2], ARGV[rest + 3], 'KEEPTTL') end
if ARGV[rest + 4] ~= '' then
    local life = tonumber(ARGV[rest + 4])
    for at = 1, 2 do
        if redis.call('PTTL', KEYS[at]) < life then redis.call('PEXPIRE', KEYS[at], life) end
    end
end
return 1
""")

# Ends a session that lives: 1. Else 0; 2 if it was ended, but that is not announced; -1 if there is none.
# KEYS: hash, text. ARGV: now, why, until when it must be known, the name of the change, life in ms at least.
END = script("""
local is = redis.call('HMGET', KEYS[1], 'g', 'r', 'i', 'x', 'n', 'o')
if not is[1] then return -1 end
if (is[2] or '') ~= '' then
    if is[5] == ARGV[4] then return 1 end
    return (is[6] or '') ~= '' and 2 or 0
end
local now = tonumber(ARGV[1])
if tonumber(is[3]) <= now or tonumber(is[4]) <= now then return 0 end
redis.call('HSET', KEYS[1], 'r', ARGV[1], 'w', ARGV[2], 'o', ARGV[3], 'n', ARGV[4])
for at = 1, 2 do
    if redis.call('PTTL', KEYS[at]) < tonumber(ARGV[5]) then redis.call('PEXPIRE', KEYS[at], ARGV[5]) end
end
return 1
""")

# KEYS: hash. ARGV: g, b.
CONFIRM = script("""
local is = redis.call('HMGET', KEYS[1], 'g', 's')
if is[1] == ARGV[1] and (is[2] or '') == '' then redis.call('HSET', KEYS[1], 's', ARGV[2]) end
return 1
""")

# Enters a session in the list of its subject; the subject's epoch. KEYS: list, epoch. ARGV: entry, expires_at, life in
# ms, now. What is over is cleared away, a hundred at a time; the list and the epoch live as long as any session.
LIST = script("""
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[4], 'LIMIT', 0, 100)) do
    redis.call('ZREM', KEYS[1], old)
end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
for at = 1, 2 do
    local left = redis.call('PTTL', KEYS[at])
    if left ~= -2 and left < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[at], ARGV[3]) end
end
return redis.call('HGET', KEYS[2], 'n') or '0'
""")

# Ends all sessions of a subject by a new epoch; the entries of its list. KEYS: list, epoch. ARGV: now, why, life in ms.
BUMP = script("""
local time = redis.call('TIME')
local number = math.max(tonumber(redis.call('HGET', KEYS[2], 'n') or 0) + 1, time[1] * 1000000 + time[2])
redis.call('HSET', KEYS[2], 'n', string.format('%.0f', number), 'r', ARGV[1], 'w', ARGV[2])
local life = math.max(tonumber(ARGV[3]), redis.call('PTTL', KEYS[1]), redis.call('PTTL', KEYS[2]))
redis.call('PEXPIRE', KEYS[2], string.format('%.0f', life))
return redis.call('ZRANGE', KEYS[1], 0, -1)
""")

# Enters a session in the list of all; the entries of some that are long over, which it clears away.
# KEYS: list. ARGV: entry, expires_at, now.
ENDS = script("""
local over = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[3], 'LIMIT', 0, 100)
for _, old in ipairs(over) do redis.call('ZREM', KEYS[1], old) end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return over
""")

# KEYS: feed, its last number. ARGV: channel, now, until, sids. Of the oldest, what nobody needs is forgotten.
ANNOUNCE = script("""
local time = redis.call('TIME')
local last = math.max(tonumber(redis.call('GET', KEYS[2]) or 0), time[1] * 1000000 + time[2])
for at = 4, #ARGV do
    last = last + 1
    redis.call('ZADD', KEYS[1], string.format('%.0f', last), ARGV[3] .. ' ' .. ARGV[at])
end
redis.call('SET', KEYS[2], string.format('%.0f', last))
for _, old in ipairs(redis.call('ZRANGE', KEYS[1], 0, 99)) do
    if tonumber(string.match(old, '^%S+')) < tonumber(ARGV[2]) then redis.call('ZREM', KEYS[1], old) end
end
redis.call('PUBLISH', ARGV[1], 'revoked')
return 1
""")

# What ``KeyRecord.joined`` does. KEYS: keys. ARGV: channel; 1 if only the first ones are wanted; then of each key its
# name, the text of what does not change, its end or nothing, its longest life.
SAVE_KEYS = script("""
if ARGV[2] == '1' and redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
for at = 3, #ARGV, 4 do
    local name, ends, life = ARGV[at], ARGV[at + 2], ARGV[at + 3]
    local is = redis.call('HMGET', KEYS[1], 'ends ' .. name, 'life ' .. name)
    if ends == '' or ((is[1] or '') ~= '' and tonumber(is[1]) < tonumber(ends)) then ends = is[1] or '' end
    if is[2] and tonumber(is[2]) > tonumber(life) then life = is[2] end
    local is_sealed = string.find(ARGV[at + 1], '"sealed:', 1, true)
    redis.call(is_sealed and 'HSET' or 'HSETNX', KEYS[1], 'text ' .. name, ARGV[at + 1])
    redis.call('HSET', KEYS[1], 'ends ' .. name, ends, 'life ' .. name, life)
end
redis.call('PUBLISH', ARGV[1], 'keys')
return 1
""")

# KEYS: accounts. ARGV: name, text before, text after or nothing.
CHANGE_ACCOUNT = script("""
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
if ARGV[3] == '' then return redis.call('HDEL', KEYS[1], ARGV[1]) end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
""")

# KEYS: the time that is kept. ARGV: now, every, most.
STRIKE = script("""
local now, every, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = math.min(math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + every, now + most)
local text = string.format('%.17g', time)
redis.call('SET', KEYS[1], text, 'PX', string.format('%.0f', math.max(time - now, 0) * 1000 + 60000))
return text
""")
