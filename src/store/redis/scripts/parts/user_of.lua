-- Whose session is under a key. `user` is nil if there is no session, and '' if it is a visitor's.
--
-- Needs: key. Makes: user.
local stored = redis.pcall('GETRANGE', key, '0', 'USER_LAST')
--include or_fail
local user
if #stored > USER_AT + 1 and string.byte(stored) == FORMAT then
    local length = struct.unpack('>I2', stored, USER_AT + 1)
    user = string.sub(stored, USER_AT + 3, USER_AT + 2 + length)
end
