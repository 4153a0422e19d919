//! [`RedisStore`]: sessions in Redis or Valkey.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::ConnectionManager;
use redis::cluster_async::ClusterConnection;
use redis::{
    Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, RedisWrite, Script, ServerErrorKind,
    ToRedisArgs,
};

use self::connection::Connection;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::StoreError;
use crate::record::{Record, UserId, Version};
use crate::report;
use crate::store::{Replaced, SessionStore, UserIndex};
use crate::token::RecordId;

mod connection;

/// How long an index keeps what should have expired, for nodes whose clocks differ.
const PRUNED_AFTER: Duration = Duration::from_secs(600);

/// The longest TTL, a century: Redis refuses one that reaches beyond its numbers, when the rest of a script is done already.
const LONGEST_TTL: u64 = 100 * 365 * 24 * 60 * 60 * 1000;

/// Bytes of a call besides its largest arguments, so that it is written without growing.
const CALL_OVERHEAD: usize = 320;

/// How many sessions of a user one call removes.
const REMOVED_AT_ONCE: usize = 250;

/// Sessions in Redis 7 or Valkey, for any number of machines: one server, Sentinel or Cluster.
///
/// A session is a string with a TTL that follows its expiry. A read is one round trip, and so is a write: a script on the server
/// compares the version. A user's sessions are listed in a sorted set by expiry, which is cleared of sessions that ended when
/// it is read, and of expired ones when it is written; no key is ever searched for. In a cluster the set may lie on another node than the
/// session, so that a write to a logged-in session takes a second round trip there. A cluster's client sends a call again whose
/// answer was lost; a removal is then done, but may be told as that of a session which was not there. Clones share one
/// connection.
///
/// # What a crash can lose
///
/// Redis answers before its data is safe, unless it is told otherwise. A lost write may be a logout, and then a session is back:
///
/// | setting | a crash of the server loses |
/// | --- | --- |
/// | no persistence | everything: all users are logged out, and no session comes back |
/// | snapshots (`save`) | what changed since the last snapshot: sessions that ended since are back |
/// | `appendonly yes`, `appendfsync everysec` | up to two seconds, if the machine goes down as well; nothing where only the process dies |
/// | `appendonly yes`, `appendfsync always` | nothing that was answered |
///
/// Replication is asynchronous in every setting: after a failover of Sentinel or Cluster, the last writes that had not reached
/// the replica are gone, a logout among them. Where that matters more than the sessions do, use one server with
/// `appendfsync always`, or a SQL store. Set `maxmemory-policy noeviction`: an index that was evicted would hide sessions from
/// [`Sessions::revoke_all`](crate::Sessions::revoke_all).
///
/// ```no_run
/// use cloakroom::{RedisStore, SessionLayer, SigningKey};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisStore::open("redis://:secret@cache.example:6379/0").await?;
/// let layer = SessionLayer::new(store, SigningKey::generate()?);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisStore {
    connection: Connection,
    prefix: Arc<str>,
    scripts: Arc<Scripts>,
    writes: Arc<Writes>,
}

impl RedisStore {
    /// Connects to the servers of a URL:
    ///
    /// - `redis://user:password@host:port/database`, or `rediss://…` for TLS, with the feature `tls`;
    /// - `redis+cluster://user:password@host:port,host:port`: some nodes of a cluster;
    /// - `redis+sentinel://user:password@host:port,host:port/master/database`: the sentinels, the name of the master, and the
    ///   login of the servers.
    ///
    /// # Errors
    ///
    /// The URL is wrong, the server cannot be reached, or it refuses the login or the database.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        Connection::open(url).await.map(Self::on)
    }

    /// A store on the application's own connection.
    #[must_use]
    pub fn new(connection: ConnectionManager) -> Self {
        Self::on(Connection::Server(connection))
    }

    /// A store on the application's own connection to a cluster, which must not read from replicas.
    #[must_use]
    pub fn new_cluster(connection: ClusterConnection) -> Self {
        Self::on(Connection::Cluster(connection))
    }

    fn on(connection: Connection) -> Self {
        Self {
            connection,
            prefix: "cloakroom:".into(),
            scripts: Arc::new(Scripts::new()),
            writes: Arc::new(Writes::new()),
        }
    }

    /// What all keys begin with; `cloakroom:` if this is not called.
    #[must_use]
    pub fn with_prefix(self, prefix: &str) -> Self {
        Self {
            prefix: prefix.into(),
            ..self
        }
    }

    /// What a write is known by; nothing where the client library never sends it again.
    fn write_name(&self) -> String {
        match self.connection {
            Connection::Cluster(_) => self.writes.name(),
            Connection::Server(_) | Connection::Sentinel(_) => String::new(),
        }
    }

    fn session_key(&self, id: RecordId) -> String {
        use std::fmt::Write as _;
        let mut key = String::with_capacity(self.prefix.len() + "session:".len() + 22);
        let _ = write!(key, "{}session:{id}", self.prefix);
        key
    }

    fn index_key(&self, user: &UserId) -> String {
        format!("{}user:{user}", self.prefix)
    }

    /// Runs a script that writes a record, or for a [`Write::Touch`] its expiry, and files the record under its user if the script
    /// says that it wrote.
    async fn write(&self, write: Write<'_>, id: RecordId, record: &Record) -> RedisResult<i64> {
        let scripts = &self.scripts;
        let (script, expected, bytes) = match write {
            Write::Insert(bytes) => (&scripts.insert, record.version(), bytes),
            Write::Replace(bytes, expected) => (&scripts.replace, expected, bytes),
            Write::Touch => (&scripts.touch, record.version(), &[][..]),
        };
        let now = SystemClock.now().as_millis();
        let expires_at = record.expires_at().as_millis();
        let ttl = expires_at.saturating_sub(now).min(LONGEST_TTL);
        let pruned = now.saturating_sub(u64::try_from(PRUNED_AFTER.as_millis()).unwrap_or(0));
        let user = record.user();

        let spans_slots = matches!(self.connection, Connection::Cluster(_));
        let index = user
            .filter(|_| !spans_slots)
            .map(|user| self.index_key(user));
        let keys = 1 + usize::from(index.is_some());
        let mut call = call_of(script, keys, bytes.len());
        call.arg(self.session_key(id))
            .arg(&index)
            .arg(Number(record.version().number()))
            .arg(Number(expires_at))
            .arg(ttl)
            .arg(Number(expected.number()));
        if let Write::Insert(_) | Write::Replace(..) = write {
            call.arg(user.map_or("", UserId::as_str))
                .arg(bytes)
                .arg(self.write_name());
        }
        if index.is_some() {
            call.arg(id.to_string()).arg(pruned);
        }
        let answer: i64 = self.run(script, &call).await?;

        if let Some(user) = user
            && spans_slots
            && answer == DONE
        {
            // After the session, or a reader could take the entry for one of a session that ended. And for as long again as the
            // session lasts: should the next write stop between the two, the entry must not end before the session. Readers
            // clear what outlasts it.
            let ttl = (2 * ttl).min(LONGEST_TTL);
            let mut call = call_of(&self.scripts.file, 1, 0);
            call.arg(self.index_key(user))
                .arg(id.to_string())
                .arg(now + ttl)
                .arg(ttl)
                .arg(pruned);
            let () = self.run(&self.scripts.file, &call).await?;
        }
        Ok(answer)
    }

    /// Runs a call of a script, which the server has to be told the first time.
    async fn run<T: FromRedisValue>(&self, script: &Script, call: &Cmd) -> RedisResult<T> {
        let mut connection = self.connection.clone();
        match call.query_async(&mut connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                script.load_async(&mut connection).await?;
                call.query_async(&mut connection).await
            }
            answer => answer,
        }
    }

    /// The sessions that the index has, some of which may be no more.
    async fn filed(&self, user: &UserId) -> RedisResult<Vec<RecordId>> {
        let ids: Vec<String> = redis::cmd("ZRANGE")
            .arg(self.index_key(user))
            .arg(0)
            .arg(-1)
            .query_async(&mut self.connection.clone())
            .await?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// Takes sessions that ended out of the index.
    async fn unfile(&self, user: &UserId, ended: &[RecordId]) -> RedisResult<()> {
        if ended.is_empty() {
            return Ok(());
        }
        let ended: Vec<_> = ended.iter().map(RecordId::to_string).collect();
        redis::cmd("ZREM")
            .arg(self.index_key(user))
            .arg(ended)
            .query_async(&mut self.connection.clone())
            .await
    }

    /// What is kept of several sessions, in their order. What is of another type is as missing to `MGET`.
    async fn values(&self, ids: &[RecordId]) -> RedisResult<Vec<Value>> {
        let mut connection = self.connection.clone();
        // In a cluster, each session may be on another node.
        let at_once = match connection {
            Connection::Cluster(_) => 1,
            Connection::Server(_) | Connection::Sentinel(_) => ids.len().max(1),
        };
        let mut values = Vec::with_capacity(ids.len());
        for ids in ids.chunks(at_once) {
            let keys: Vec<_> = ids.iter().map(|id| self.session_key(*id)).collect();
            let mut command = redis::cmd("MGET");
            let texts: Vec<_> = command.arg(keys).query_async(&mut connection).await?;
            values.extend(texts.into_iter().map(Value::text));
        }
        Ok(values)
    }
}

/// What a script is to write.
#[derive(Clone, Copy)]
enum Write<'a> {
    /// These bytes, where nothing is kept under the id.
    Insert(&'a [u8]),
    /// These bytes, where the record has this version.
    Replace(&'a [u8], Version),
    /// The expiry, where the record has the same version.
    Touch,
}

/// What the scripts answer.
const DONE: i64 = 1;
const CONFLICT: i64 = 0;

/// What is kept under a session's key.
enum Value {
    Missing,
    Text(Vec<u8>),
    /// Something of another type, which is a corrupt record and no error.
    Foreign,
}

impl Value {
    fn of(answer: RedisResult<Option<Vec<u8>>>) -> RedisResult<Self> {
        match answer {
            Ok(text) => Ok(Self::text(text)),
            Err(error) if error.code() == Some("WRONGTYPE") => Ok(Self::Foreign),
            Err(error) => Err(error),
        }
    }

    fn text(text: Option<Vec<u8>>) -> Self {
        text.map_or(Self::Missing, Self::Text)
    }

    fn stored(&self) -> Option<Stored<'_>> {
        match self {
            Self::Text(text) => Stored::parse(text),
            Self::Missing | Self::Foreign => None,
        }
    }

    fn is_of(&self, user: &UserId) -> bool {
        self.stored()
            .is_some_and(|stored| stored.user == user.as_str().as_bytes())
    }

    fn decode(&self, id: RecordId) -> Option<Record> {
        if matches!(self, Self::Missing) {
            return None;
        }
        let Some(stored) = self.stored() else {
            report::corrupt_record(id, "its key holds something else");
            return None;
        };
        let record = Record::decode(id, stored.record)?;
        let user = record.user().map_or("", UserId::as_str);
        if stored.version != record.version() || stored.user != user.as_bytes() {
            report::corrupt_record(id, "it is not the record of its version or user");
            return None;
        }
        Some(record.with_expires_at(stored.expires_at))
    }
}

/// A session as it is kept: what the scripts have to know stands before the record's bytes, at places that they know.
///
/// These are the version and the expiry, each of [`Number::LEN`] digits; then the names of the last writes to a cluster, a NUL,
/// the user, and another NUL. None of the texts holds one. Another layout has to begin with another character than a digit, and is
/// then no record to the scripts.
struct Stored<'a> {
    version: Version,
    expires_at: Timestamp,
    user: &'a [u8],
    record: &'a [u8],
}

impl<'a> Stored<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (version, rest) = text.split_at_checked(Number::LEN)?;
        let (expires_at, rest) = rest.split_at_checked(Number::LEN)?;
        let mut parts = rest.splitn(3, |&byte| byte == 0);
        let (_writes, user, record) = (parts.next()?, parts.next()?, parts.next()?);
        let number = |digits| str::from_utf8(digits).ok()?.parse().ok();
        Some(Self {
            version: Version::from_number(number(version)?),
            expires_at: Timestamp::from_millis(number(expires_at)?),
            user,
            record,
        })
    }
}

/// A number of always as many digits, so that scripts find what follows it, and compare it as a text: a Lua number has 53 bits.
struct Number(u64);

impl Number {
    /// Those of `i64::MAX`, which neither versions nor times exceed.
    const LEN: usize = 19;
}

impl ToRedisArgs for Number {
    fn write_redis_args<W: RedisWrite + ?Sized>(&self, out: &mut W) {
        out.write_arg_fmt(format_args!("{:0width$}", self.0, width = Self::LEN));
    }
}

/// Names each write to a cluster, so that one whose answer was lost, and which the client library sends again, counts once.
#[derive(Debug)]
struct Writes {
    store: u64,
    next: AtomicU64,
}

impl Writes {
    fn new() -> Self {
        use std::hash::{BuildHasher, Hasher, RandomState};
        Self {
            store: RandomState::new().build_hasher().finish(),
            next: AtomicU64::new(0),
        }
    }

    fn name(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{:x}-{number:x} ", self.store)
    }
}

/// What runs on the server. The keys of a write are the session's, and that of its user's index if that is on the same server.
/// Its arguments: version, expiry, TTL and expected version; but for a touch user, record and the write's name; and at last, for
/// the index, the record id and the time before which it is pruned.
struct Scripts {
    insert: Script,
    replace: Script,
    touch: Script,
    file: Script,
    remove_of: Script,
}

impl Scripts {
    fn new() -> Self {
        const FILE: &str = "
            redis.call('ZREMRANGEBYSCORE', index, '-inf', pruned)
            redis.call('ZADD', index, expires_at, id)
            if redis.call('PTTL', index) < tonumber(ttl) then
                redis.call('PEXPIRE', index, ttl)
            end
        ";
        let write = |code: &str| {
            Script::new(&format!(
                "{code}
                if KEYS[2] then
                    local index, expires_at, ttl = KEYS[2], ARGV[2], ARGV[3]
                    local id, pruned = ARGV[#ARGV - 1], ARGV[#ARGV]
                    {FILE}
                end
                return 1"
            ))
        };
        // An error is a table. That of a key that holds something else is a missing record, and any other is the answer.
        const OR_FAIL: &str = "
            if type(stored) == 'table' then
                if not string.find(stored.err, 'WRONGTYPE', 1, true) then return stored end
                stored = ''
            end
        ";
        // Numbers of a call are written as texts, since Lua would have to render them, and no function is defined, since each
        // call would make it anew.
        Self {
            // What is over already is not kept: SET takes no TTL of 0.
            insert: write(&format!(
                "local write = ARGV[7]
                if ARGV[3] == '0' then return 1 - redis.call('EXISTS', KEYS[1]) end
                local value = ARGV[1] .. ARGV[2] .. write .. '\\0' .. ARGV[5] .. '\\0' .. ARGV[6]
                if not redis.call('SET', KEYS[1], value, 'NX', 'PX', ARGV[3]) then
                    if write == '' then return 0 end
                    -- It may be this very write that is there.
                    local stored = redis.pcall('GETRANGE', KEYS[1], '38', '300')
                    {OR_FAIL}
                    return string.find(string.match(stored, '^%Z*'), write, 1, true) and 1 or 0
                end"
            )),
            replace: write(&format!(
                "local writes = ARGV[7]
                local stored = redis.pcall('GETRANGE', KEYS[1], '0', writes == '' and '18' or '300')
                {OR_FAIL}
                if not string.find(stored, '^%d') then return -1 end
                if writes ~= '' then
                    -- The last writes, since others may come before one is sent again. No name is a part of another.
                    local others = string.match(stored, '^%Z*', 39)
                    if string.find(others, writes, 1, true) then return 1 end
                    writes = string.sub(writes .. others, 1, 256)
                end
                if string.sub(stored, 1, 19) ~= ARGV[4] then return 0 end
                if ARGV[3] == '0' then return redis.call('DEL', KEYS[1]) end
                local value = ARGV[1] .. ARGV[2] .. writes .. '\\0' .. ARGV[5] .. '\\0' .. ARGV[6]
                redis.call('SET', KEYS[1], value, 'PX', ARGV[3])"
            )),
            touch: write(&format!(
                "local stored = redis.pcall('GETRANGE', KEYS[1], '0', '18')
                {OR_FAIL}
                if stored ~= ARGV[4] then return 0 end
                redis.call('SETRANGE', KEYS[1], '19', ARGV[2])
                redis.call('PEXPIRE', KEYS[1], ARGV[3])"
            )),
            file: Script::new(&format!(
                "local index, id, expires_at, ttl, pruned = KEYS[1], unpack(ARGV)
                {FILE}"
            )),
            remove_of: Script::new(&format!(
                "local removed = 0
                for _, key in ipairs(KEYS) do
                    local stored = redis.pcall('GETRANGE', key, '38', '600')
                    {OR_FAIL}
                    if string.match(stored, '^%Z*%z(%Z*)%z') == ARGV[1] then
                        removed = removed + redis.call('DEL', key)
                    end
                end
                return removed"
            )),
        }
    }
}

/// The beginning of a call of a script with so many keys, with room for arguments of this size: [`Script`]'s own grows as it is
/// written.
fn call_of(script: &Script, keys: usize, size: usize) -> Cmd {
    let mut call = Cmd::with_capacity(16, size + CALL_OVERHEAD);
    call.arg("EVALSHA").arg(script.get_hash()).arg(keys);
    call
}

fn failed(what: &'static str) -> impl Fn(RedisError) -> StoreError {
    move |error| StoreError::new(format!("could not {what} in Redis"), error)
}

#[async_trait]
impl SessionStore for RedisStore {
    async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        let answer = Cmd::with_capacity(2, CALL_OVERHEAD)
            .arg("GET")
            .arg(self.session_key(id))
            .query_async(&mut self.connection.clone())
            .await;
        let value = Value::of(answer).map_err(failed("read a session"))?;
        Ok(value.decode(id))
    }

    async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        let bytes = record.encode()?;
        let answer = self
            .write(Write::Insert(&bytes), id, record)
            .await
            .map_err(failed("write a new session"))?;
        Ok(answer == DONE)
    }

    async fn replace(
        &self,
        id: RecordId,
        expected: Version,
        record: &Record,
    ) -> Result<Replaced, StoreError> {
        let bytes = record.encode()?;
        let answer = self
            .write(Write::Replace(&bytes, expected), id, record)
            .await
            .map_err(failed("write a session"))?;
        Ok(match answer {
            DONE => Replaced::Done,
            CONFLICT => Replaced::Conflict,
            _ => Replaced::Missing,
        })
    }

    async fn touch(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        let answer = self
            .write(Write::Touch, id, record)
            .await
            .map_err(failed("touch a session"))?;
        Ok(answer == DONE)
    }

    async fn remove(&self, id: RecordId) -> Result<bool, StoreError> {
        redis::cmd("DEL")
            .arg(self.session_key(id))
            .query_async(&mut self.connection.clone())
            .await
            .map_err(failed("remove a session"))
    }

    /// Redis does so by itself.
    async fn purge_expired(&self, _: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }
}

#[async_trait]
impl UserIndex for RedisStore {
    async fn sessions_of(&self, user: &UserId) -> Result<Vec<(RecordId, Record)>, StoreError> {
        let failed = failed("list a user's sessions");
        let ids = self.filed(user).await.map_err(&failed)?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let values = self.values(&ids).await.map_err(&failed)?;
        let mut sessions = Vec::new();
        let mut ended = Vec::new();
        for (id, value) in ids.into_iter().zip(values) {
            match value.is_of(user) {
                true => sessions.extend(value.decode(id).map(|record| (id, record))),
                false => ended.push(id),
            }
        }
        self.unfile(user, &ended).await.map_err(&failed)?;
        Ok(sessions)
    }

    async fn remove_all_of(
        &self,
        user: &UserId,
        except: Option<RecordId>,
    ) -> Result<u64, StoreError> {
        let failed = failed("remove a user's sessions");
        let mut ids = self.filed(user).await.map_err(&failed)?;
        ids.retain(|id| Some(*id) != except);
        // In a cluster, each session may be on another node.
        let at_once = match self.connection {
            Connection::Cluster(_) => 1,
            Connection::Server(_) | Connection::Sentinel(_) => REMOVED_AT_ONCE,
        };
        let mut removed = 0;
        // What is removed is taken out of the index as it goes on, so that a call which comes to its timeout has made a start.
        for ids in ids.chunks(REMOVED_AT_ONCE) {
            for ids in ids.chunks(at_once) {
                let keys: Vec<_> = ids.iter().map(|id| self.session_key(*id)).collect();
                let mut call = call_of(&self.scripts.remove_of, keys.len(), 0);
                call.arg(keys).arg(user.as_str());
                let some: u64 = self
                    .run(&self.scripts.remove_of, &call)
                    .await
                    .map_err(&failed)?;
                removed += some;
            }
            self.unfile(user, ids).await.map_err(&failed)?;
        }
        Ok(removed)
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("connection", &self.connection)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
