-- For one server: removes some of a user's sessions.
--
-- It goes through a part of the index, and takes out each entry that has no session of the user.
--
-- KEYS: the user's index.
-- ARGV: see the first line. `session_prefix` is what the keys of sessions begin with, and `except`
-- is the id of the session that stays.
-- Answers the next cursor, and how many sessions it removed.
local session_prefix, owner, cursor, count, except = unpack(ARGV)
local scan = redis.call('ZSCAN', KEYS[1], cursor, 'COUNT', count)
local removed = 0
-- Each entry is followed by its score.
for i = 1, #scan[2], 2 do
    local id = scan[2][i]
    local key = session_prefix .. id
    --include user_of
    if user == owner then
        if id ~= except then
            removed = removed + redis.call('DEL', key)
            redis.call('ZREM', KEYS[1], id)
        end
    else
        redis.call('ZREM', KEYS[1], id)
    end
end
return { scan[1], removed }
