-- Whose session is under a key. `user` is nil if there is no session, and '' if it is a visitor's.
--
-- Needs: key. Makes: user.
local stored = redis.pcall('GETRANGE', key, 'WRITES_AT', 'USER_END')
--include or_fail
local user = string.match(stored, '^%Z*%z(%Z*)%z')
