-- Writes a new session, if there is none under its key.
--
-- KEYS: the session; on one server, if somebody is logged in, also the user's index.
-- ARGV: see the first line. `write` is the name of this write, and empty on one server.
-- Answers DONE, or CONFLICT if the key is taken.
local version, expires_at, ttl, _, user, record, write = unpack(ARGV)
if redis.call('EXISTS', KEYS[1]) == 1 then
    if write == '' or ttl == '0' then return CONFLICT end
    -- What is stored may be this very write, which the client has sent again.
    local stored = redis.pcall('GETRANGE', KEYS[1], 'WRITES_AT', 'WRITES_END')
    --include or_fail
    return string.find(string.match(stored, '^%Z*'), write, 1, true) and DONE or CONFLICT
end
-- A session that has expired already is not kept: SET takes no TTL of 0.
if ttl == '0' then return DONE end
--include index_session
local value = version .. expires_at .. write .. '\0' .. user .. '\0' .. record
redis.call('SET', KEYS[1], value, 'PX', ttl)
return DONE
