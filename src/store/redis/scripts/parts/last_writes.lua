-- In a cluster: the names of the last writes, which follow the record.
--
-- Needs: stored, with the whole head. Makes: writes.
local length = struct.unpack('>I4', stored, LENGTH_AT + 1)
local writes = redis.call('GETRANGE', KEYS[1], length, '-1')
