-- Moves the expiry of a session that has the expected version.
--
-- KEYS: the session; on one server, if somebody is logged in, also the indexes that find it.
-- ARGV: see the first line. `expected` is what a record of the version begins with.
-- Answers DONE, or CONFLICT if the session has another version or is missing.
local expiry, ttl, expected = unpack(ARGV)
local stored = redis.pcall('GETRANGE', KEYS[1], '0', 'VERSION_LAST')
--include or_fail
if stored ~= expected then return CONFLICT end
--include index_session
redis.call('SETRANGE', KEYS[1], 'EXPIRY_AT', expiry)
redis.call('PEXPIRE', KEYS[1], ttl)
return DONE
