-- For a cluster: removes a session, if it is this user's.
--
-- KEYS: the session.
-- ARGV: the user.
-- Answers how many sessions it removed.
local owner = ARGV[1]
local key = KEYS[1]
--include user_of
if user ~= owner then return 0 end
return redis.call('DEL', key)
