-- For a cluster: notes that the sessions of these entries are there.
--
-- KEYS: the index.
-- ARGV: the ids.
local now = redis.call('TIME')[1]
for i = 1, #ARGV do
    redis.call('ZADD', KEYS[1], 'XX', now, ARGV[i])
end
