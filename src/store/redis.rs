//! [`RedisStore`]: sessions in Redis or Valkey.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::ConnectionManager;
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, Script, ServerErrorKind};

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
/// A session is a hash with a TTL that follows its expiry. A read is one round trip, and so is a write: a script on the server
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

    /// Runs a script that writes a record, with these arguments after those of every write, and files the record under its user
    /// if the script says that it wrote.
    async fn write(
        &self,
        script: &Script,
        id: RecordId,
        record: &Record,
        arguments: &[&[u8]],
    ) -> RedisResult<i64> {
        let now = SystemClock.now().as_millis();
        let expires_at = record.expires_at().as_millis();
        let ttl = expires_at.saturating_sub(now).min(LONGEST_TTL);
        let pruned = now.saturating_sub(u64::try_from(PRUNED_AFTER.as_millis()).unwrap_or(0));
        let user = record.user();

        let spans_slots = matches!(self.connection, Connection::Cluster(_));
        let index = user
            .filter(|_| !spans_slots)
            .map(|user| self.index_key(user));
        let size: usize = arguments.iter().map(|argument| argument.len()).sum();
        let keys = 1 + usize::from(index.is_some());
        let mut call = call_of(script, keys, size);
        call.arg(self.session_key(id))
            .arg(index)
            .arg(id.to_string())
            .arg(user.map_or("", UserId::as_str))
            .arg(record.version().number())
            .arg(expires_at)
            .arg(ttl)
            .arg(pruned)
            .arg(arguments);
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

    /// What is kept of several sessions, in their order.
    async fn rows(&self, ids: &[RecordId]) -> RedisResult<Vec<Row>> {
        let mut connection = self.connection.clone();
        let commands = ids.iter().map(|id| {
            let mut command = redis::cmd("HMGET");
            command.arg(self.session_key(*id)).arg(Row::FIELDS);
            command
        });
        if matches!(connection, Connection::Cluster(_)) {
            // A pipeline goes to one node.
            let mut rows = Vec::new();
            for command in commands {
                rows.push(Row::of(command.query_async(&mut connection).await)?);
            }
            return Ok(rows);
        }
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for command in commands {
            pipeline.add_command(command);
        }
        let answers: Vec<RedisResult<Row>> = pipeline.query_async(&mut connection).await?;
        answers.into_iter().map(Row::of).collect()
    }
}

/// What the scripts answer.
const DONE: i64 = 1;
const CONFLICT: i64 = 0;

/// The fields of a session's hash, of which each may be missing.
#[derive(Default)]
struct Row {
    record: Option<Vec<u8>>,
    expires_at: Option<u64>,
    user: Option<Vec<u8>>,
    /// Something else is kept under the key.
    is_foreign: bool,
}

impl Row {
    const FIELDS: &[&str] = &["record", "expires_at", "user"];

    /// An answer, in which a value of another type is a corrupt record and no error.
    fn of(answer: RedisResult<Self>) -> RedisResult<Self> {
        match answer {
            Err(error) if error.code() == Some("WRONGTYPE") => Ok(Self {
                is_foreign: true,
                ..Self::default()
            }),
            answer => answer,
        }
    }

    fn is_of(&self, user: &UserId) -> bool {
        self.user.as_deref() == Some(user.as_str().as_bytes())
    }

    fn decode(&self, id: RecordId) -> Option<Record> {
        if self.is_foreign {
            report::corrupt_record(id, "its key holds something else");
        }
        let expires_at = Timestamp::from_millis(self.expires_at.unwrap_or(0));
        Some(Record::decode(id, self.record.as_deref()?)?.with_expires_at(expires_at))
    }
}

impl FromRedisValue for Row {
    fn from_redis_value(value: redis::Value) -> Result<Self, redis::ParsingError> {
        let (record, expires_at, user): (_, Option<Vec<u8>>, _) = redis::from_redis_value(value)?;
        let number = |bytes: Vec<u8>| str::from_utf8(&bytes).ok()?.parse().ok();
        Ok(Self {
            record,
            expires_at: expires_at.and_then(number),
            user,
            is_foreign: false,
        })
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

/// What runs on the server. The arguments of a write are: id, user, version, expiry, TTL, what the index is pruned before;
/// then the write's name, the record, and the expected version.
struct Scripts {
    insert: Script,
    replace: Script,
    touch: Script,
    file: Script,
    remove_of: Script,
}

impl Scripts {
    fn new() -> Self {
        // `expires_at` is a text, since a Lua number would be rendered with an exponent.
        const FILE: &str = "
            local function file(index, id, expires_at, ttl, pruned)
                redis.call('ZREMRANGEBYSCORE', index, '-inf', pruned)
                redis.call('ZADD', index, expires_at, id)
                if redis.call('PTTL', index) < tonumber(ttl) then
                    redis.call('PEXPIRE', index, ttl)
                end
            end
        ";
        const WRITE: &str = "
            local key, index = KEYS[1], KEYS[2]
            local id, user, version, expires_at, ttl, pruned, write, record, expected = unpack(ARGV)
            local function get(field)
                -- An error, of a key that holds something else, is a table.
                local value = redis.pcall('HGET', key, field)
                return type(value) == 'string' and value
            end
            local function keep()
                redis.call('PEXPIRE', key, ttl)
                if index then file(index, id, expires_at, ttl, pruned) end
                return 1
            end
            -- The last writes, since others may come before one is sent again. No name is a part of another.
            local function is_done()
                return write ~= '' and string.find(get('writes') or '', write, 1, true)
            end
            local function save()
                if write ~= '' then
                    redis.call('HSET', key, 'writes', string.sub(write .. (get('writes') or ''), 1, 256))
                end
                redis.call('HSET', key, 'version', version, 'user', user, 'record', record, 'expires_at', expires_at)
                return keep()
            end
        ";
        let script = |code: &str| Script::new(&format!("{FILE}{WRITE}{code}"));
        Self {
            insert: script(
                "if redis.call('EXISTS', key) == 0 then return save() end
                return is_done() and 1 or 0",
            ),
            replace: script(
                "local stored = get('version')
                if not stored then return -1 end
                if is_done() then return 1 end
                if stored ~= expected then return 0 end
                return save()",
            ),
            touch: script(
                "if get('version') ~= version then return 0 end
                redis.call('HSET', key, 'expires_at', expires_at)
                return keep()",
            ),
            file: Script::new(&format!("{FILE} file(KEYS[1], unpack(ARGV))")),
            remove_of: Script::new(
                "local removed = 0
                for _, key in ipairs(KEYS) do
                    if redis.pcall('HGET', key, 'user') == ARGV[1] then
                        removed = removed + redis.call('DEL', key)
                    end
                end
                return removed",
            ),
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
        let answer = Cmd::with_capacity(5, CALL_OVERHEAD)
            .arg("HMGET")
            .arg(self.session_key(id))
            .arg(Row::FIELDS)
            .query_async(&mut self.connection.clone())
            .await;
        let row = Row::of(answer).map_err(failed("read a session"))?;
        Ok(row.decode(id))
    }

    async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        let bytes = record.encode()?;
        let answer = self
            .write(
                &self.scripts.insert,
                id,
                record,
                &[self.write_name().as_bytes(), &bytes],
            )
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
            .write(
                &self.scripts.replace,
                id,
                record,
                &[
                    self.write_name().as_bytes(),
                    &bytes,
                    expected.number().to_string().as_bytes(),
                ],
            )
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
            .write(&self.scripts.touch, id, record, &[])
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
        let rows = self.rows(&ids).await.map_err(&failed)?;
        let mut sessions = Vec::new();
        let mut ended = Vec::new();
        for (id, row) in ids.into_iter().zip(rows) {
            match row.is_of(user) {
                true => sessions.extend(row.decode(id).map(|record| (id, record))),
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
