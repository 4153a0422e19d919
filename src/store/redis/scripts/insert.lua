-- Writes a new session, if there is none under its key.
--
-- KEYS: the session; on one server, if somebody is logged in, also the indexes that find it.
-- ARGV: see the first line. `write` is the name of this write. On one server there is none.
-- Answers DONE, or CONFLICT if the key is taken.
local record, ttl, write = unpack(ARGV)
if redis.call('EXISTS', KEYS[1]) == 1 then
    if not write or ttl == '0' then return CONFLICT end
    -- What is stored may be this very write, which the client has sent again.
    local stored = redis.pcall('GETRANGE', KEYS[1], '0', 'HEAD_LAST')
    --include or_fail
    if #stored <= HEAD_LAST then return CONFLICT end
    --include last_writes
    return string.find(writes, write, 1, true) and DONE or CONFLICT
end
-- A session that has expired already is not kept: SET takes no TTL of 0.
if ttl == '0' then return DONE end
--include index_session
redis.call('SET', KEYS[1], record .. (write or ''), 'PX', ttl)
return DONE
