-- Puts an entry into an index. An index never ends before one of its sessions.
--
-- Needs: index, id, ttl. Makes: now.
local now = redis.call('TIME')[1]
redis.call('ZADD', index, now, id)
if redis.call('PTTL', index) < tonumber(ttl) then
    redis.call('PEXPIRE', index, ttl)
end
