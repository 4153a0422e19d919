-- For one server: reads some of a user's sessions.
--
-- It goes through a part of the index, and takes out each entry that has no session of the user.
--
-- KEYS: the user's index.
-- ARGV: see the first line. `session_prefix` is what the keys of sessions begin with.
-- Answers the next cursor, and then an id and a session by turns.
local session_prefix, owner, cursor, count = unpack(ARGV)
local scan = redis.call('ZSCAN', KEYS[1], cursor, 'COUNT', count)
local answer = { scan[1] }
-- Each entry is followed by its score.
for i = 1, #scan[2], 2 do
    local id = scan[2][i]
    local key = session_prefix .. id
    --include user_of
    if user == owner then
        answer[#answer + 1] = id
        answer[#answer + 1] = redis.call('GET', key)
    else
        redis.call('ZREM', KEYS[1], id)
    end
end
return answer
