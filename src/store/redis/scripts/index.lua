-- For a cluster: puts a session into an index.
--
-- KEYS: the index.
-- ARGV: see the first line.
-- Answers with old entries of a long index. The caller has to look whether their sessions are
-- there.
local id, ttl = unpack(ARGV)
local index = KEYS[1]
--include add_entry
if redis.call('ZCARD', index) <= INDEX_KEPT then return {} end
local before = '(' .. now - ENTRY_GRACE
return redis.call('ZRANGE', index, '-inf', before, 'BYSCORE', 'LIMIT', 0, INDEX_CHECKED)
