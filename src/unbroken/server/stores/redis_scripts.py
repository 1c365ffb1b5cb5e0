"""What Redis does in one atomic step for the store: Lua scripts, each for keys of one hash slot.

A session is a hash of the fields that change, beside a text of those that do not. In the hash a missing or empty
field is None. Numbers are as Python wrote them and are passed on unchanged, so nothing is rounded:

    g b t1 b1 t2 b2 a s u i x r w v   the changing fields of a ``SessionRow`` (``redis_rows.CHANGING_FIELDS``)
    d p h k ue                        the same, of the parties; empty for the default
    j                                 the thumbprint of the session's key; it never changes
    e                                 the subject's epoch at login; a later epoch revokes the session
    o                                 the announce_until of a revocation that was not announced yet
    n                                 the id of the last change: a repeated change is made once

An epoch is a hash: n is its number, r when it revoked all earlier sessions, w why.

1. Only scripts whose numbers must grow after the store was restored from a backup read the clock (``TIME``).
"""

from __future__ import annotations

from unbroken._drivers.redis import script
from unbroken.server.keys.keyring import ENCRYPTED_PREFIX

__all__ = [
    "ADD_TO_EXPIRIES",
    "ADD_TO_SUBJECT",
    "ADVANCE_MARKER",
    "ANNOUNCE",
    "CHANGE_ACCOUNT",
    "COMPARE_AND_SET",
    "INSERT",
    "RECORD_FIRST_USE",
    "REVOKE",
    "REVOKE_SUBJECT",
    "ROTATE",
    "SAVE_KEYS",
]

# KEYS: hash, text. ARGV: lifetime in ms, text, then fields and values.
INSERT = script("""
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[1])
return 1
""")

# R1: the condition is that of ``rotation.present``, the change that of ``rotation.rotate``. Returns the session's
# epoch if it rotated. KEYS: hash; the subject's epoch, where it is in the same slot. ARGV: generation, branch, now,
# now + refresh_ttl, idempotency_hash, generation + 1, party, grace, the hour of now, 1 for a coordinated session, the
# proven thumbprint or empty, the scope of the tokens or empty.
ROTATE = script("""
local row = redis.call('HMGET', KEYS[1], 'g', 's', 'r', 'i', 'x', 't1', 'b1', 'e', 'b', 'a', 'h', 'k', 'u', 'ue', 'j')
local generation, first_used, revoked_at, idle_expires_at, expires_at = row[1], row[2], row[3], row[4], row[5]
local rotated_at, promoted_branch, epoch, branch, key = row[6], row[7], row[8], row[9], row[10]
local shared, streak, used_at, used_earlier_at = row[11], row[12], row[13], row[14]
local now = tonumber(ARGV[3])
if generation ~= ARGV[1] or (revoked_at or '') ~= '' then return false end
if (row[15] or '') ~= '' and row[15] ~= ARGV[11] then return false end
if tonumber(idle_expires_at) <= now or tonumber(expires_at) <= now then return false end
if (first_used or '') == '' and ARGV[10] == '1' then first_used = branch end
if (first_used or '') ~= '' and first_used ~= ARGV[2] then return false end
if KEYS[2] and tonumber(redis.call('HGET', KEYS[2], 'n') or 0) > tonumber(epoch) then return false end
local idle = ARGV[4]
if tonumber(idle) > tonumber(expires_at) then idle = expires_at end
if (shared or '') ~= '' then
    streak = string.format('%d', (tonumber(streak or '') or 0) + 1)
elseif (rotated_at or '') == '' or math.abs(now - tonumber(rotated_at)) >= tonumber(ARGV[8]) then
    streak = ''
end
local repeated = ARGV[5] ~= '' and key == ARGV[5] and '1' or ''
if tonumber(used_at) < tonumber(ARGV[9]) then used_earlier_at = used_at end
redis.call('HSET', KEYS[1], 'g', ARGV[6], 'b', '0', 't1', ARGV[3], 'b1', ARGV[2],
    't2', rotated_at or '', 'b2', promoted_branch or '', 'a', ARGV[5], 's', '', 'u', ARGV[3], 'i', idle,
    'd', repeated, 'p', ARGV[7], 'h', '', 'k', streak or '', 'ue', used_earlier_at or '', 'sc', ARGV[12])
return epoch
""")

# Returns 1 if the row was replaced, or had been by this same change, else 0. KEYS: hash, text. ARGV: number of fields,
# their names, values before, values after; id of the change; announce_until or empty; the text if it changes, or
# empty; lifetime in ms at least, or empty.
COMPARE_AND_SET = script("""
local count = tonumber(ARGV[1])
local rest = 1 + 3 * count
if ARGV[rest + 1] == redis.call('HGET', KEYS[1], 'n') then return 1 end
local names, change = {}, {'n', ARGV[rest + 1], 'o', ARGV[rest + 2]}
for at = 1, count do
    names[at] = ARGV[1 + at]
    change[#change + 1] = names[at]
    change[#change + 1] = ARGV[1 + 2 * count + at]
end
local stored = redis.call('HMGET', KEYS[1], unpack(names))
if not stored[1] then return 0 end
for at = 1, count do
    if (stored[at] or '') ~= ARGV[1 + count + at] then return 0 end
end
redis.call('HSET', KEYS[1], unpack(change))
if ARGV[rest + 3] ~= '' then redis.call('SET', KEYS[2], ARGV[rest + 3], 'KEEPTTL') end
if ARGV[rest + 4] ~= '' then
    local lifetime = tonumber(ARGV[rest + 4])
    for at = 1, 2 do
        if redis.call('PTTL', KEYS[at]) < lifetime then redis.call('PEXPIRE', KEYS[at], lifetime) end
    end
end
return 1
""")

# Returns 1 if an active session was revoked, or had been by this same change; 2 if it was revoked before, but not
# announced; -1 if there is no session; else 0. KEYS: hash, text. ARGV: now, reason, announce_until, id of the change,
# lifetime in ms at least.
REVOKE = script("""
local row = redis.call('HMGET', KEYS[1], 'g', 'r', 'i', 'x', 'n', 'o')
local generation, revoked_at, idle_expires_at, expires_at, change, unannounced = unpack(row, 1, 6)
if not generation then return -1 end
if (revoked_at or '') ~= '' then
    if change == ARGV[4] then return 1 end
    return (unannounced or '') ~= '' and 2 or 0
end
local now = tonumber(ARGV[1])
if tonumber(idle_expires_at) <= now or tonumber(expires_at) <= now then return 0 end
redis.call('HSET', KEYS[1], 'r', ARGV[1], 'w', ARGV[2], 'o', ARGV[3], 'n', ARGV[4])
for at = 1, 2 do
    if redis.call('PTTL', KEYS[at]) < tonumber(ARGV[5]) then redis.call('PEXPIRE', KEYS[at], ARGV[5]) end
end
return 1
""")

# KEYS: hash. ARGV: generation, branch.
RECORD_FIRST_USE = script("""
local row = redis.call('HMGET', KEYS[1], 'g', 's')
local generation, first_used = row[1], row[2]
if generation == ARGV[1] and (first_used or '') == '' then redis.call('HSET', KEYS[1], 's', ARGV[2]) end
return 1
""")

# Adds a session to the list of its subject, and returns the subject's epoch. Deletes up to a hundred expired entries.
# The lists and the epoch live as long as any session. KEYS: list, epoch, list of the unrevoked. ARGV: entry,
# expires_at, lifetime in ms, now.
ADD_TO_SUBJECT = script("""
for _, expired in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[4], 'LIMIT', 0, 100)) do
    redis.call('ZREM', KEYS[1], expired)
    redis.call('ZREM', KEYS[3], expired)
end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1])
for at = 1, 3 do
    local left = redis.call('PTTL', KEYS[at])
    if left ~= -2 and left < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[at], ARGV[3]) end
end
return redis.call('HGET', KEYS[2], 'n') or '0'
""")

# Revokes all sessions of a subject with a new epoch, and returns the entries of its list. KEYS: list, epoch. ARGV: now,
# reason, lifetime of the epoch in ms at least.
REVOKE_SUBJECT = script("""
local time = redis.call('TIME')
local number = math.max(tonumber(redis.call('HGET', KEYS[2], 'n') or 0) + 1, time[1] * 1000000 + time[2])
redis.call('HSET', KEYS[2], 'n', string.format('%.0f', number), 'r', ARGV[1], 'w', ARGV[2])
local lifetime = math.max(tonumber(ARGV[3]), redis.call('PTTL', KEYS[1]), redis.call('PTTL', KEYS[2]))
redis.call('PEXPIRE', KEYS[2], string.format('%.0f', lifetime))
return redis.call('ZRANGE', KEYS[1], 0, -1)
""")

# Adds a session to the list of all by expiry; deletes up to a hundred expired entries, and returns them.
# KEYS: list. ARGV: entry, expires_at, now.
ADD_TO_EXPIRIES = script("""
local expired = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[3], 'LIMIT', 0, 100)
for _, entry in ipairs(expired) do redis.call('ZREM', KEYS[1], entry) end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return expired
""")

# Adds revocations, and notifies. Deletes those that have ended among the oldest hundred. KEYS: revocations, their last
# number. ARGV: channel, now, announce_until, sids.
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

# What ``KeyRecord.merged_with`` returns. KEYS: keys. ARGV: channel; 1 to store only the first keys; then of each key
# its id, the text of its fixed fields, verifies_until or empty, token_ttl.
SAVE_KEYS = script(f"""
if ARGV[2] == '1' and redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
for at = 3, #ARGV, 4 do
    local name, text, ends, ttl = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
    local stored = redis.call('HMGET', KEYS[1], 'ends ' .. name, 'ttl ' .. name)
    local stored_ends, stored_ttl = stored[1] or '', stored[2]
    if ends == '' or (stored_ends ~= '' and tonumber(stored_ends) < tonumber(ends)) then ends = stored_ends end
    if stored_ttl and tonumber(stored_ttl) > tonumber(ttl) then ttl = stored_ttl end
    local is_encrypted = string.find(text, '"{ENCRYPTED_PREFIX}', 1, true)
    redis.call(is_encrypted and 'HSET' or 'HSETNX', KEYS[1], 'text ' .. name, text)
    redis.call('HSET', KEYS[1], 'ends ' .. name, ends, 'ttl ' .. name, ttl)
end
redis.call('PUBLISH', ARGV[1], 'keys')
return 1
""")

# KEYS: accounts. ARGV: name, text before, text after or empty to delete.
CHANGE_ACCOUNT = script("""
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
if ARGV[3] == '' then return redis.call('HDEL', KEYS[1], ARGV[1]) end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
""")

# KEYS: marker. ARGV: now, step, max_ahead. A marker lives a minute longer than it is ahead: hosts' clocks differ.
ADVANCE_MARKER = script("""
local now, step, max_ahead = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local marker = math.min(math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + step, now + max_ahead)
local text = string.format('%.17g', marker)
redis.call('SET', KEYS[1], text, 'PX', string.format('%.0f', math.max(marker - now, 0) * 1000 + 60000))
return text
""")
