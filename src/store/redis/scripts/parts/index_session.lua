-- On one server, puts a session into its indexes. This comes before the session is written, so that
-- nothing is written if it fails. Mostly the session is in the indexes already.
--
-- A long index that grows loses some entries without a session, the oldest first. Entries whose
-- sessions are there go to the end of the queue. The session of the new entry is about to be there.
--
-- Needs: ttl.
for i = 2, #KEYS do
    local index, id = KEYS[i], string.sub(KEYS[1], -ID_LEN)
    if redis.call('ZSCORE', index, id) then
        redis.call('PEXPIRE', index, ttl + INDEX_LONGER, 'GT')
    else
        --include add_entry
        if redis.call('ZCARD', index) > INDEX_KEPT then
            local session_prefix = string.sub(KEYS[1], 1, -ID_LEN - 1)
            for _, old in ipairs(redis.call('ZRANGE', index, '0', 'INDEX_CHECKED_LAST')) do
                if old == id or redis.call('EXISTS', session_prefix .. old) == 1 then
                    redis.call('ZADD', index, now, old)
                else
                    redis.call('ZREM', index, old)
                end
            end
        end
    end
end
