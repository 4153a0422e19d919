-- Puts an entry into an index. An index never ends before one of its sessions.
--
-- The index lasts longer than the session, which gets its TTL a moment later: in Redis 7.0, each
-- command of a script reads the clock.
--
-- Needs: index, id, ttl. Makes: now.
local now = redis.call('TIME')[1]
redis.call('ZADD', index, now, id)
local lasts = ttl + INDEX_LONGER
if redis.call('PTTL', index) < lasts then
    redis.call('PEXPIRE', index, lasts)
end
