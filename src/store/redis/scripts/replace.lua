-- Replaces a session that has the expected version.
--
-- KEYS: the session; on one server, if somebody is logged in, also the user's index.
-- ARGV: see the first line. `write` is the name of this write, and empty on one server.
-- `keeps_later_expiry` is '1' or empty.
-- Answers MISSING, CONFLICT or DONE; or the TTL that was kept, which is more than DONE.
local version, expires_at, ttl, expected, user, record, write, keeps_later_expiry = unpack(ARGV)
local last = write == '' and 'WRITES_AT' or 'WRITES_END'
local stored = redis.pcall('GETRANGE', KEYS[1], '0', last)
--include or_fail
if not string.find(stored, '^%d') then return MISSING end
local writes = write
if write ~= '' then
    -- The last writes count, and not only the last one: other writes may come before the client
    -- sends this one again. No name is a part of another name.
    local others = string.match(stored, '^%Z*', WRITES_AT + 1)
    if string.find(others, write, 1, true) then return DONE end
    writes = string.sub(write .. others, 1, WRITES_MAX)
end
if string.sub(stored, 1, NUMBER_LEN) ~= expected then return CONFLICT end
local keeps = keeps_later_expiry == '1'
    and string.sub(stored, NUMBER_LEN + 1, WRITES_AT) > expires_at
if keeps then
    expires_at = string.sub(stored, NUMBER_LEN + 1, WRITES_AT)
    ttl = redis.call('PTTL', KEYS[1])
elseif ttl == '0' then
    return redis.call('DEL', KEYS[1])
end
--include index_session
local value = version .. expires_at .. writes .. '\0' .. user .. '\0' .. record
if keeps then
    redis.call('SET', KEYS[1], value, 'KEEPTTL')
    return math.max(ttl, DONE + 1)
end
redis.call('SET', KEYS[1], value, 'PX', ttl)
return DONE
