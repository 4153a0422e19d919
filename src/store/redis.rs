//! [`RedisStore`]: sessions in Redis or Valkey.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::ConnectionManager;
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, Script, ServerErrorKind};

use self::connection::{Connection, Manager};
use self::layout::{Number, Value};
use self::scripts::{FILED_BEFORE, Scripts};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::StoreError;
use crate::record::{Record, UserId, Version};
use crate::store::{Replaced, SessionStore, UserIndex};
use crate::token::RecordId;

mod connection;
mod layout;
mod link;
mod scripts;

/// The longest TTL, a century: Redis refuses one that reaches beyond its numbers, when the rest of a script is done already.
const LONGEST_TTL: u64 = 100 * 365 * 24 * 60 * 60 * 1000;

/// Bytes of a call besides its largest arguments, so that it is written without growing.
const CALL_OVERHEAD: usize = 320;

/// How much of an index one call goes through: about so many entries.
const READ_AT_ONCE: usize = 250;

/// The same in a cluster, where each session is asked for by itself. A part has to be cleared before the
/// caller's time is up, or a long index would never get shorter.
const READ_AT_ONCE_IN_CLUSTER: usize = 32;

/// How long a task goes on in which no caller waits.
const TASK_TIMEOUT: Duration = Duration::from_secs(10);

/// Sessions in Redis 7 or Valkey, for any number of machines: one server, Sentinel or Cluster.
///
/// The contract is tested on Redis 7.0 by each run of the tests, and on Redis 8 and Valkey 8 by the
/// project's workflow.
///
/// A session is a string with a TTL that follows its expiry. A read is one round trip, and so is a
/// write: a script on the server compares the version. Clones share one connection.
///
/// # A user's sessions
///
/// They are listed in a sorted set, the index. No key is ever searched for. A session is put into
/// the index before it is written, and an index never ends before one of its sessions. What is
/// listed counts only where the session is there and is the user's. A logout takes its session out
/// of the index. Reading takes out all that ended otherwise, a part at a time, so that a call which
/// comes to its timeout has made a start; and so does a write to a long index, a few at a time. No
/// clock of an application's node decides what is taken out: whether the session is there does.
///
/// In a cluster, the index may lie on another node than the session. A write to a logged-in session
/// takes a second round trip there, and an entry without a session stays for ten minutes: its
/// session may be about to be written. A cluster's client sends a call again whose answer was lost;
/// a removal is then done, but may be told as that of a session which was not there.
///
/// # A server that fails
///
/// A store that was made by [`open`](Self::open) replaces its connection
///
/// - when it is closed, also while nobody uses it;
/// - when it has gone silent, as behind a proxy whose server is gone: calls wait for an answer, and
///   a `PING` of the store's own has none after two seconds;
/// - when the server is the wrong one since a failover, and answers `READONLY`, `MASTERDOWN`,
///   `LOADING` or `NOREPLICAS`. A call that was refused so is made again on the next connection, if
///   that comes within a second.
///
/// A task of the store does so, so that it makes no difference whether a caller waits. It connects
/// for all, and at most once a second in the long run. It asks the sentinels, or the nodes of the
/// cluster, each time.
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
/// Replication is asynchronous in every setting: after a failover, the last writes that had not
/// reached the replica are gone, a logout among them. Where that matters more than the sessions do,
/// use one server with `appendfsync always`, or a SQL store. Set `maxmemory-policy noeviction`: an
/// index that was evicted would hide sessions from
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
    /// When the future is dropped, nothing of the store stays.
    ///
    /// # Errors
    ///
    /// The URL is wrong, the server cannot be reached, or it refuses the login or the database.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        Connection::open(url).await.map(Self::on)
    }

    /// A store on the application's own connection.
    ///
    /// The manager makes a new connection only where the old one was closed. So the store asks a
    /// demoted server to close it (`QUIT`, at most once a second), which ends what else is under
    /// way on this connection. It can do nothing about a connection that went silent: that stays
    /// until the operating system gives it up. A store that was made by [`open`](Self::open)
    /// replaces it.
    #[must_use]
    pub fn new(connection: ConnectionManager) -> Self {
        Self::on(Connection::Manager(Manager::new(connection)))
    }

    /// A store on the application's own connection to a cluster, which must not read from replicas.
    ///
    /// The client follows a failover by itself. It does not replace a connection to a node that
    /// went silent; a store that was made by [`open`](Self::open) does.
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

    /// What all keys begin with; `cloakroom:` if this is not called. Any text can be one. Stores of
    /// two prefixes are strangers, unless one prefix begins with the other and `user:`.
    #[must_use]
    pub fn with_prefix(self, prefix: &str) -> Self {
        Self {
            prefix: prefix.into(),
            ..self
        }
    }

    /// What a write is known by; nothing where the client library never sends it again.
    fn write_name(&self) -> String {
        match self.connection.is_cluster() {
            true => self.writes.name(),
            false => String::new(),
        }
    }

    fn session_keys(&self) -> String {
        format!("{}session:", self.prefix)
    }

    fn session_key(&self, id: RecordId) -> String {
        use std::fmt::Write as _;
        let mut key = String::with_capacity(self.prefix.len() + "session:".len() + 22);
        let _ = write!(key, "{}session:{id}", self.prefix);
        key
    }

    fn index_keys(&self) -> String {
        format!("{}user:", self.prefix)
    }

    fn index_key(&self, user: &UserId) -> String {
        format!("{}user:{user}", self.prefix)
    }

    /// Runs a script that writes a record, or for a [`Write::Touch`] its expiry, and files the
    /// record under its user.
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
        let user = record.user();

        let is_cluster = self.connection.is_cluster();
        if let Some(user) = user
            && is_cluster
            && ttl > 0
        {
            // Before the session: a caller who goes away in between must not leave one that is in
            // no index.
            self.file(user, id, ttl).await?;
        }
        let index = user
            .filter(|_| !is_cluster)
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
        if let Write::Replace(..) = write {
            call.arg(if record.keeps_later_expiry() { "1" } else { "" });
        }
        let answer: i64 = self.run(script, &call).await?;

        if let Some(user) = user
            && is_cluster
            && let Ok(kept @ 2..) = u64::try_from(answer)
        {
            // The session lasts longer than the index was told.
            self.file(user, id, kept).await?;
        }
        Ok(answer)
    }

    /// In a cluster, puts a session into its user's index, which may be on another node.
    async fn file(&self, user: &UserId, id: RecordId, ttl: u64) -> RedisResult<()> {
        let ttl = (ttl + FILED_BEFORE * 1000).min(LONGEST_TTL);
        let mut call = call_of(&self.scripts.file, 1, 0);
        call.arg(self.index_key(user)).arg(id.to_string()).arg(ttl);
        let doubtful: Vec<String> = self.run(&self.scripts.file, &call).await?;
        let doubtful: Vec<RecordId> = doubtful.iter().filter_map(|id| id.parse().ok()).collect();
        if !doubtful.is_empty() {
            let (store, user) = (self.clone(), user.clone());
            in_the_background(async move { store.look_at(&user, &doubtful).await });
        }
        Ok(())
    }

    /// In a cluster, looks at sessions that the index has, and takes out those that ended.
    async fn look_at(&self, user: &UserId, ids: &[RecordId]) -> RedisResult<()> {
        let mut ended = Vec::new();
        let mut call = call_of(&self.scripts.refile, 1, 0);
        call.arg(self.index_key(user));
        for id in ids {
            match self.value(*id).await?.is_of(user) {
                true => drop(call.arg(id.to_string())),
                false => ended.push(*id),
            }
        }
        let () = self.run(&self.scripts.refile, &call).await?;
        self.unfile(user, &ended, FILED_BEFORE).await
    }

    /// In a cluster, takes sessions out of the index whose entries are so many seconds old.
    async fn unfile(&self, user: &UserId, ids: &[RecordId], age: u64) -> RedisResult<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut call = call_of(&self.scripts.unfile, 1, 0);
        call.arg(self.index_key(user)).arg(age);
        for id in ids {
            call.arg(id.to_string());
        }
        self.run(&self.scripts.unfile, &call).await
    }

    /// In a cluster, some sessions that the index has, and where to go on.
    async fn filed(&self, user: &UserId, cursor: &str) -> RedisResult<(String, Vec<RecordId>)> {
        let (cursor, entries): (String, Vec<String>) = redis::cmd("ZSCAN")
            .arg(self.index_key(user))
            .arg(cursor)
            .arg("COUNT")
            .arg(READ_AT_ONCE_IN_CLUSTER)
            .query_async(&mut self.connection.clone())
            .await?;
        // Each is followed by its score.
        let ids = entries.iter().step_by(2).filter_map(|id| id.parse().ok());
        Ok((cursor, ids.collect()))
    }

    async fn value(&self, id: RecordId) -> RedisResult<Value> {
        let answer = Cmd::with_capacity(2, CALL_OVERHEAD)
            .arg("GET")
            .arg(self.session_key(id))
            .query_async(&mut self.connection.clone())
            .await;
        Value::of(answer)
    }

    /// Adds a part of a user's sessions, and says where to go on. What has no session any more is
    /// taken out of the index at once, so that a call which comes to its timeout has made a start.
    async fn list_some(
        &self,
        user: &UserId,
        cursor: &str,
        sessions: &mut HashMap<RecordId, Record>,
    ) -> RedisResult<String> {
        if self.connection.is_cluster() {
            let (cursor, ids) = self.filed(user, cursor).await?;
            let mut ended = Vec::new();
            for id in ids {
                let value = self.value(id).await?;
                match value.is_of(user) {
                    true => sessions.extend(value.decode(id).map(|record| (id, record))),
                    false => ended.push(id),
                }
            }
            self.unfile(user, &ended, FILED_BEFORE).await?;
            return Ok(cursor);
        }
        let mut call = call_of(&self.scripts.list, 1, 0);
        call.arg(self.index_key(user))
            .arg(self.session_keys())
            .arg(user.as_str())
            .arg(cursor)
            .arg(READ_AT_ONCE);
        let answer: Vec<Vec<u8>> = self.run(&self.scripts.list, &call).await?;
        let mut answer = answer.into_iter();
        let cursor = answer.next().and_then(|text| String::from_utf8(text).ok());
        while let (Some(id), Some(text)) = (answer.next(), answer.next()) {
            let id = str::from_utf8(&id).ok().and_then(|id| id.parse().ok());
            sessions.extend(id.and_then(|id| Some((id, Value::Text(text).decode(id)?))));
        }
        Ok(cursor.unwrap_or_else(|| END.into()))
    }

    /// Removes a part of a user's sessions, and says where to go on, and how many went.
    async fn remove_some(
        &self,
        user: &UserId,
        cursor: &str,
        except: Option<RecordId>,
    ) -> RedisResult<(String, u64)> {
        if self.connection.is_cluster() {
            let (cursor, ids) = self.filed(user, cursor).await?;
            let (mut removed, mut gone) = (0, Vec::new());
            for id in ids.into_iter().filter(|id| Some(*id) != except) {
                let mut call = call_of(&self.scripts.remove_of, 1, 0);
                call.arg(self.session_key(id)).arg(user.as_str());
                if self.run(&self.scripts.remove_of, &call).await? {
                    removed += 1;
                }
                gone.push(id);
            }
            // A young entry stays: the client may send the session's insert again, if its answer was lost.
            self.unfile(user, &gone, FILED_BEFORE).await?;
            return Ok((cursor, removed));
        }
        let mut call = call_of(&self.scripts.remove_all, 1, 0);
        call.arg(self.index_key(user))
            .arg(self.session_keys())
            .arg(user.as_str())
            .arg(cursor)
            .arg(READ_AT_ONCE)
            .arg(except.map_or_else(String::new, |id| id.to_string()));
        self.run(&self.scripts.remove_all, &call).await
    }

    /// Runs a call of a script, which the server has to be told the first time.
    async fn run<T: FromRedisValue>(&self, script: &Script, call: &Cmd) -> RedisResult<T> {
        let mut connection = self.connection.clone();
        let mut answer = call.query_async(&mut connection).await;
        // The next server has to be told as well, where the first one was demoted since.
        for _ in 0..2 {
            match &answer {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    script.load_async(&mut connection).await?;
                    answer = call.query_async(&mut connection).await;
                }
                _ => break,
            }
        }
        answer
    }
}

/// Where a scan begins and ends.
const END: &str = "0";

/// Goes on with something when the caller has gone away. Nobody waits for it; what it leaves
/// undone, the next reader of the index does.
fn in_the_background(work: impl Future<Output = RedisResult<()>> + Send + 'static) {
    tokio::spawn(async move {
        let _ = tokio::time::timeout(TASK_TIMEOUT, work).await;
    });
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

/// The beginning of a call of a script with so many keys, with room for arguments of this size: [`Script`]'s own grows as it is
/// written.
fn call_of(script: &Script, keys: usize, size: usize) -> Cmd {
    let mut call = Cmd::with_capacity(16, size + CALL_OVERHEAD);
    call.arg("EVALSHA").arg(script.get_hash()).arg(keys);
    call
}

/// The user whose name a script found.
fn user_of(name: Vec<u8>) -> Option<UserId> {
    let name = String::from_utf8(name).ok()?;
    (!name.is_empty()).then(|| name.into())
}

fn failed(what: &'static str) -> impl Fn(RedisError) -> StoreError {
    move |error| StoreError::new(format!("could not {what} in Redis"), error)
}

#[async_trait]
impl SessionStore for RedisStore {
    async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        let value = self.value(id).await.map_err(failed("read a session"))?;
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
            DONE.. => Replaced::Done,
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
        let is_cluster = self.connection.is_cluster();
        let mut call = call_of(&self.scripts.remove, 1, 0);
        call.arg(self.session_key(id))
            .arg((!is_cluster).then(|| self.index_keys()));
        let (removed, user): (bool, Vec<u8>) = self
            .run(&self.scripts.remove, &call)
            .await
            .map_err(failed("remove a session"))?;
        if is_cluster && let Some(user) = user_of(user) {
            let store = self.clone();
            in_the_background(async move { store.unfile(&user, &[id], 0).await });
        }
        Ok(removed)
    }

    /// Redis does so by itself.
    async fn purge_expired(&self, _: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }
}

#[async_trait]
impl UserIndex for RedisStore {
    async fn sessions_of(&self, user: &UserId) -> Result<Vec<(RecordId, Record)>, StoreError> {
        // A scan may come by an entry twice.
        let mut sessions = HashMap::new();
        let mut cursor = String::from(END);
        loop {
            cursor = self
                .list_some(user, &cursor, &mut sessions)
                .await
                .map_err(failed("list a user's sessions"))?;
            if cursor == END {
                return Ok(sessions.into_iter().collect());
            }
        }
    }

    async fn remove_all_of(
        &self,
        user: &UserId,
        except: Option<RecordId>,
    ) -> Result<u64, StoreError> {
        let mut removed = 0;
        let mut cursor = String::from(END);
        loop {
            let some;
            (cursor, some) = self
                .remove_some(user, &cursor, except)
                .await
                .map_err(failed("remove a user's sessions"))?;
            removed += some;
            if cursor == END {
                return Ok(removed);
            }
        }
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
