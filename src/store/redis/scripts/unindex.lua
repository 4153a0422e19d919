-- For a cluster: takes entries out of an index.
--
-- KEYS: the index.
-- ARGV: how many seconds old an entry must be, and then the ids.
local age = tonumber(ARGV[1])
local now = redis.call('TIME')[1]
for i = 2, #ARGV do
    local at = redis.call('ZSCORE', KEYS[1], ARGV[i])
    -- A score in the future is of a clock that was set back since.
    if at and math.abs(now - at) >= age then
        redis.call('ZREM', KEYS[1], ARGV[i])
    end
end
