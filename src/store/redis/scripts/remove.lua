-- Removes a session.
--
-- KEYS: the session.
-- ARGV: on one server, what the keys of indexes begin with.
-- Answers whether there was a session, and its user.
local index_prefix = ARGV[1]
local key = KEYS[1]
--include user_of
if index_prefix and user and user ~= '' then
    redis.pcall('ZREM', index_prefix .. user, string.sub(key, -ID_LEN))
end
return { redis.call('DEL', key), user or '' }
