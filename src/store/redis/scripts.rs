//! What runs on the server.

use redis::Script;

use super::layout::{LONGEST_WRITES, Number, USER_END, WRITES, WRITES_END};

/// In a cluster, how many seconds after its entry a session may be written at the latest. A younger
/// entry stays, whatever a reader finds under the session's key.
pub(super) const FILED_BEFORE: u64 = 600;

/// An index may have so many entries before a write looks at the oldest ones.
const KEPT: usize = 64;

/// How many entries a write looks at. It adds one at most.
const LOOKED_AT: usize = 16;

/// The characters of a record id, with which a session's key ends.
const ID_LEN: usize = 22;

/// The first key is a session's, or the index of a user in `list`, `remove_all` and in those for a
/// cluster.
///
/// An entry's score is the time at which it was last known to be good, in seconds of the server's
/// own clock: those of the nodes may be wrong by hours. Time only says which entries to look at,
/// and whether the session is there says what becomes of them.
///
/// On one server, a write has the index for its second key. It files the session first, so that
/// nothing is written if that fails. The scripts look at keys that no call names, which a cluster
/// does not allow; there, an index and its sessions are on different nodes.
pub(super) struct Scripts {
    /// Arguments of the writes: version, expiry, TTL and expected version; those of all but a
    /// touch, besides: user, record and the write's name; and of a replace, whether it keeps a
    /// later expiry. They answer 1, or more than 1 for the TTL that a replace has kept.
    pub(super) insert: Script,
    pub(super) replace: Script,
    pub(super) touch: Script,
    /// What the keys of indexes begin with, on one server. Answers with the user, too.
    pub(super) remove: Script,
    /// What the keys of sessions begin with, user, cursor, count. Answers with the next cursor, and
    /// with the user's sessions.
    pub(super) list: Script,
    /// The same, and the session that stays. Answers with the next cursor, and how many went.
    pub(super) remove_all: Script,
    /// For a cluster: id and TTL. Answers with entries of which one would have to look at the
    /// session.
    pub(super) file: Script,
    /// For a cluster: how old an entry has to be in seconds, and the ids.
    pub(super) unfile: Script,
    /// For a cluster: ids whose sessions are there.
    pub(super) refile: Script,
    /// For a cluster: the user.
    pub(super) remove_of: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        // An index never ends before one of its sessions.
        const FILE: &str = "
            local now = redis.call('TIME')[1]
            redis.call('ZADD', index, now, id)
            if redis.call('PTTL', index) < tonumber(ttl) then
                redis.call('PEXPIRE', index, ttl)
            end
        ";
        // Those that are there go to the end of the queue, and the new one is about to be there.
        let prune = format!(
            "if redis.call('ZCARD', index) > {KEPT} then
                local keys = string.sub(KEYS[1], 1, -{ID_LEN} - 1)
                for _, old in ipairs(redis.call('ZRANGE', index, '0', '{}')) do
                    if old == id or redis.call('EXISTS', keys .. old) == 1 then
                        redis.call('ZADD', index, now, old)
                    else
                        redis.call('ZREM', index, old)
                    end
                end
            end",
            LOOKED_AT - 1
        );
        let write = |check: &str, write: &str| {
            Script::new(&format!(
                "local ttl = ARGV[3]
                {check}
                if KEYS[2] then
                    local index, id = KEYS[2], string.sub(KEYS[1], -{ID_LEN})
                    {FILE}
                    {prune}
                end
                {write}"
            ))
        };
        // An error is a table. That of a key that holds something else is a missing record, and any
        // other is the answer.
        const OR_FAIL: &str = "
            if type(stored) == 'table' then
                if not string.find(stored.err, 'WRONGTYPE', 1, true) then return stored end
                stored = ''
            end
        ";
        let expiry = Number::LEN + 1;
        let version = Number::LEN;
        let version_end = version - 1;
        let writes = WRITES + 1;
        let user_of = |key: &str| {
            format!(
                "local stored = redis.pcall('GETRANGE', {key}, '{WRITES}', '{USER_END}')
                {OR_FAIL}
                local user = string.match(stored, '^%Z*%z(%Z*)%z')"
            )
        };
        // Goes through a part of an index, with code for each session, whose key is `key`, that is
        // the user's. The entries of all others are taken out.
        let scan = |begin: &str, each: &str, end: &str| {
            Script::new(&format!(
                "local scan = redis.call('ZSCAN', KEYS[1], ARGV[3], 'COUNT', ARGV[4])
                {begin}
                for i = 1, #scan[2], 2 do
                    local id = scan[2][i]
                    local key = ARGV[1] .. id
                    {}
                    if user == ARGV[2] then
                        {each}
                    else
                        redis.call('ZREM', KEYS[1], id)
                    end
                end
                {end}",
                user_of("key")
            ))
        };
        // Numbers of a call are written as texts, since Lua would have to render them, and no
        // function is defined, since each call would make it again.
        Self {
            // What is over already is not kept: SET takes no TTL of 0.
            insert: write(
                &format!(
                    "local write = ARGV[7]
                    if redis.call('EXISTS', KEYS[1]) == 1 then
                        if write == '' or ttl == '0' then return 0 end
                        -- It may be this very write that is there.
                        local stored = redis.pcall('GETRANGE', KEYS[1], '{WRITES}', '{WRITES_END}')
                        {OR_FAIL}
                        return string.find(string.match(stored, '^%Z*'), write, 1, true) and 1 or 0
                    end
                    if ttl == '0' then return 1 end"
                ),
                "local value = ARGV[1] .. ARGV[2] .. write .. '\\0' .. ARGV[5] .. '\\0' .. ARGV[6]
                redis.call('SET', KEYS[1], value, 'PX', ttl)
                return 1",
            ),
            replace: write(
                &format!(
                    "local writes, expires_at, keeps = ARGV[7], ARGV[2], false
                    local last = writes == '' and '{WRITES}' or '{WRITES_END}'
                    local stored = redis.pcall('GETRANGE', KEYS[1], '0', last)
                    {OR_FAIL}
                    if not string.find(stored, '^%d') then return -1 end
                    if writes ~= '' then
                        -- The last writes, since others may come before one is sent again. No name
                        -- is a part of another.
                        local others = string.match(stored, '^%Z*', {writes})
                        if string.find(others, writes, 1, true) then return 1 end
                        writes = string.sub(writes .. others, 1, {LONGEST_WRITES})
                    end
                    if string.sub(stored, 1, {version}) ~= ARGV[4] then return 0 end
                    if ARGV[8] == '1' and string.sub(stored, {expiry}, {WRITES}) > expires_at then
                        expires_at, keeps = string.sub(stored, {expiry}, {WRITES}), true
                        ttl = redis.call('PTTL', KEYS[1])
                    elseif ttl == '0' then
                        return redis.call('DEL', KEYS[1])
                    end"
                ),
                "local value =
                    ARGV[1] .. expires_at .. writes .. '\\0' .. ARGV[5] .. '\\0' .. ARGV[6]
                if keeps then
                    redis.call('SET', KEYS[1], value, 'KEEPTTL')
                    return math.max(ttl, 2)
                end
                redis.call('SET', KEYS[1], value, 'PX', ttl)
                return 1",
            ),
            touch: write(
                &format!(
                    "local stored = redis.pcall('GETRANGE', KEYS[1], '0', '{version_end}')
                    {OR_FAIL}
                    if stored ~= ARGV[4] then return 0 end"
                ),
                &format!(
                    "redis.call('SETRANGE', KEYS[1], '{version}', ARGV[2])
                    redis.call('PEXPIRE', KEYS[1], ttl)
                    return 1"
                ),
            ),
            remove: Script::new(&format!(
                "{}
                if ARGV[1] and user and user ~= '' then
                    redis.pcall('ZREM', ARGV[1] .. user, string.sub(KEYS[1], -{ID_LEN}))
                end
                return {{ redis.call('DEL', KEYS[1]), user or '' }}",
                user_of("KEYS[1]")
            )),
            list: scan(
                "local answer = { scan[1] }",
                "answer[#answer + 1] = id
                answer[#answer + 1] = redis.call('GET', key)",
                "return answer",
            ),
            remove_all: scan(
                "local removed = 0",
                "if id ~= ARGV[5] then
                    removed = removed + redis.call('DEL', key)
                    redis.call('ZREM', KEYS[1], id)
                end",
                "return { scan[1], removed }",
            ),
            file: Script::new(&format!(
                "local index, id, ttl = KEYS[1], unpack(ARGV)
                {FILE}
                if redis.call('ZCARD', index) <= {KEPT} then return {{}} end
                local before = '(' .. now - {FILED_BEFORE}
                return redis.call(
                    'ZRANGE', index, '-inf', before, 'BYSCORE', 'LIMIT', 0, {LOOKED_AT}
                )"
            )),
            unfile: Script::new(
                "local now = redis.call('TIME')[1]
                for i = 2, #ARGV do
                    local at = redis.call('ZSCORE', KEYS[1], ARGV[i])
                    -- One of a time to come is of a clock that was set back since.
                    if at and math.abs(now - at) >= tonumber(ARGV[1]) then
                        redis.call('ZREM', KEYS[1], ARGV[i])
                    end
                end",
            ),
            refile: Script::new(
                "local now = redis.call('TIME')[1]
                for i = 1, #ARGV do
                    redis.call('ZADD', KEYS[1], 'XX', now, ARGV[i])
                end",
            ),
            remove_of: Script::new(&format!(
                "{}
                if user ~= ARGV[1] then return 0 end
                return redis.call('DEL', KEYS[1])",
                user_of("KEYS[1]")
            )),
        }
    }
}
