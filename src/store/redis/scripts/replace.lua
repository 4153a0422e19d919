-- Replaces a session that has the expected version.
--
-- KEYS: the session; on one server, if somebody is logged in, also the indexes that find it.
-- ARGV: see the first line. `expected` is what a record of the version begins with.
-- `keeps_later_expiry` is '1' or empty. `write` is the name of this write. On one server there is
-- none.
-- Answers MISSING, CONFLICT or DONE; or the TTL that was kept, which is more than DONE.
local record, ttl, expected, keeps_later_expiry, write = unpack(ARGV)
local stored = redis.pcall('GETRANGE', KEYS[1], '0', 'HEAD_LAST')
--include or_fail
if #stored <= HEAD_LAST or string.byte(stored) ~= FORMAT then return MISSING end
if write then
    -- The last writes count, and not only the last one: other writes may come before the client
    -- sends this one again. No name is a part of another name.
    --include last_writes
    if string.find(writes, write, 1, true) then return DONE end
    record = record .. string.sub(write .. writes, 1, WRITES_MAX)
end
if string.sub(stored, 1, EXPIRY_AT) ~= expected then return CONFLICT end
if keeps_later_expiry == '1' then
    -- Two numbers of four bytes, because a number of Lua has only 53 bits. Lua would compare texts
    -- in the order of the server's language.
    local high, low = struct.unpack('>I4I4', stored, EXPIRY_AT + 1)
    local own_high, own_low = struct.unpack('>I4I4', record, EXPIRY_AT + 1)
    if high > own_high or high == own_high and low > own_low then
        ttl = redis.call('PTTL', KEYS[1])
        --include index_session
        record = string.sub(record, 1, EXPIRY_AT) .. string.sub(stored, EXPIRY_AT + 1, LENGTH_AT)
            .. string.sub(record, LENGTH_AT + 1)
        redis.call('SET', KEYS[1], record, 'KEEPTTL')
        return math.max(ttl, DONE + 1)
    end
end
if ttl == '0' then return redis.call('DEL', KEYS[1]) end
--include index_session
redis.call('SET', KEYS[1], record, 'PX', ttl)
return DONE
