-- An error of `redis.pcall` is a table. If the key holds something of another type, it counts as a
-- key without a session. Any other error is the script's answer.
--
-- Needs: stored.
if type(stored) == 'table' then
    if not string.find(stored.err, 'WRONGTYPE', 1, true) then return stored end
    stored = ''
end
