//! [`RedisStore`]: sessions in Redis or Valkey.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use redis::aio::ConnectionManager;
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, ServerErrorKind};

use self::connection::{Connection, Manager};
use self::index::{END, in_the_background};
use self::layout::{IndexedBy, Key, KeyOf, Value};
use self::scripts::{CONFLICT, DONE, MISSING, Script, Scripts};
use self::write::{Write, Writes};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::RecordId;
use crate::record::user::UserId;
use crate::record::{Record, Version};
use crate::store::feed::SessionFeed;
use crate::store::{Replaced, SessionStore, UserIndex};

mod catalog;
mod connection;
mod feed;
mod index;
mod layout;
mod link;
mod scripts;
mod servers;
mod write;

/// The longest TTL, a century. Redis refuses a TTL that is too large for its numbers, and a script
/// has then done a part of its work already.
const LONGEST_TTL: u64 = 100 * 365 * 24 * 60 * 60 * 1000;

/// How many bytes a call has beside its largest arguments. With this room, it is written without
/// growing.
const CALL_OVERHEAD: usize = 320;

/// Sessions in Redis 7 or Valkey, for any number of machines: one server, Sentinel or Cluster.
///
/// The contract is tested on Redis 7.0 by each run of the tests, and on Redis 8 and Valkey 8 by the
/// project's workflow.
///
/// A session is a string whose TTL follows the session's expiry. A read is one round trip, and so
/// is a write: a script on the server compares the version. Clones share one connection.
///
/// # A user's sessions
///
/// A sorted set lists them: the index. The store never searches through keys. It puts a session
/// into the index before it writes the session, and an index never ends before one of its sessions.
/// An entry counts only if its session is there and is the user's.
///
/// A logout removes its session's entry from the index. A reader removes the entries of all other
/// sessions that have ended. It does so part by part, so a call that reaches its timeout has
/// removed some of them. A new entry in a long index removes a few of them too. An entry is removed
/// because its session is gone, and never because of a node's clock.
///
/// In a cluster, the index and the session may be on different nodes. A write to a logged-in
/// session takes a second round trip there. An entry without a session stays for ten minutes,
/// because its session may be about to be written. A cluster's client sends a call again if the
/// answer was lost. If it sends a removal again, the second answer may be that there was no
/// session.
///
/// If the application sets external ids, each external id has an index of the same kind. A logout
/// leaves the session's entry there. The index expires a second after the last expiry of its
/// sessions, and in a cluster ten minutes after that.
///
/// # All sessions
///
/// A walk through all sessions uses `SCAN`, which goes through all keys of the database, in a
/// cluster at each master in turn. It is for administration, and too slow for requests of users. A
/// session can come up twice. The cursor of a walk belongs to one server: after a failover, or
/// after the masters of a cluster have changed, begin the walk again.
///
/// # A server that fails
///
/// A store that was made by [`connect`](Self::connect) replaces its connection in three cases:
///
/// - The connection is closed, also while no call uses it.
/// - The connection is silent, for example behind a proxy whose server is gone: calls wait for an
///   answer, and the store's own `PING` gets no answer for two seconds.
/// - The server lost its role in a failover, and answers `READONLY`, `MASTERDOWN`, `LOADING` or
///   `NOREPLICAS`. If the next connection comes within a second, the store makes the refused call
///   again on it.
///
/// A task of the store replaces the connection, whether a caller waits or not. The task connects
/// for all callers, and on average at most once a second. Each time, it asks the sentinels, or the
/// nodes of the cluster, which server to use.
///
/// # Feed
///
/// The store reports what happens to its records, on whichever node: see
/// [`SessionFeed`](crate::SessionFeed). The server itself names the keys, because the feed asks it
/// for `CLIENT TRACKING` in broadcast mode. So the feed reports the writes of all nodes and of
/// `redis-cli`, expiries, and evictions.
///
/// - **What it costs.** Each feed has a connection of its own, in a cluster one to each master.
///   `CLIENT LIST` shows it with the flags `tB`. While a feed is on, the server compares each key
///   that changes with the prefix, and sends the key to each feed. A write stays one round trip.
///   Without a feed, nothing is different.
/// - **What the server must allow.** The user needs `HELLO`, `PING` and `CLIENT TRACKING`, in a
///   cluster also `CLUSTER SHARDS` and `CLUSTER MYID`. If the user may call `INFO`, the feed also
///   makes sure that it has reached the server that the store uses. A managed service or a proxy
///   must let client tracking through, over RESP3. If the server refuses it,
///   [`subscribe`](crate::SessionFeed::subscribe) returns an error.
/// - **What a failover does.** The feed follows the store. It connects again if the store replaces
///   its connection, if the server becomes a replica or closes the feed's connection, or if the
///   server does not answer the feed within two seconds. An idle feed asks every five seconds. In a
///   cluster, the feed connects again if there is another master, and all masters must agree on
///   which nodes are masters. The feed answers no ping until it works again. Then it sends a
///   [`Gap`](crate::Notice::Gap). The events `feed_lost` and `feed_restored` say when that was.
///   `FLUSHALL` and `FLUSHDB` cause a gap too.
/// - **What it cannot know.** A master that is cut off from its sentinels may still answer this
///   node. Then all reads of this node go to the old master, and the feed stays there too, until
///   the old master refuses a write. The setting `min-replicas-to-write` shortens that time. In a
///   cluster, an operator's `CLUSTER FAILOVER` reaches the other nodes some milliseconds after the
///   new master takes writes.
///
/// A feed cannot tell the databases of a server apart. If stores in two databases have the same
/// prefix, each feed reports the changes of both.
///
/// A store on the application's own connection has no feed: it has no address to connect to.
///
/// # What a crash can lose
///
/// By default, Redis answers before a write is safe. If a crash loses a logout, the session is
/// back:
///
/// | setting | a crash of the server loses |
/// | --- | --- |
/// | no persistence | everything: all users are logged out, and no session comes back |
/// | snapshots (`save`) | what changed since the last snapshot: sessions that ended since are back |
/// | `appendonly yes`, `appendfsync everysec` | up to two seconds, if the machine goes down too; nothing, if only the process ends |
/// | `appendonly yes`, `appendfsync always` | nothing that was answered |
///
/// Replication is asynchronous in every setting. After a failover, the last writes that had not
/// reached the replica are gone, and a logout may be among them. If a lost logout is worse for you
/// than an outage, use one server with `appendfsync always`, or a SQL store.
///
/// Set `maxmemory-policy noeviction`. If Redis evicted an index,
/// [`Sessions::revoke_user`](crate::Sessions::revoke_user) would not find its sessions.
///
/// ```no_run
/// use cloakroom::{RedisStore, SessionLayer, SigningKey};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisStore::connect("redis://:secret@cache.example:6379/0").await?;
/// let layer = SessionLayer::new(store, SigningKey::generate()?);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[doc(alias("ValkeyStore", "valkey"))]
pub struct RedisStore {
    connection: Connection,
    prefix: Arc<str>,
    scripts: Arc<Scripts>,
    writes: Arc<Writes>,
}

impl RedisStore {
    /// Connects to the servers of a URL:
    ///
    /// - `redis://user:password@host:port/database`, or `rediss://…` for TLS, with the feature
    ///   `tls`;
    /// - `redis+cluster://user:password@host:port,host:port`: some nodes of a cluster;
    /// - `redis+sentinel://user:password@host:port,host:port/master/database`: the sentinels, the
    ///   name of the master, and the login of the servers.
    ///
    /// When the future is dropped, nothing of the store is left.
    ///
    /// # Errors
    ///
    /// The URL is wrong, the server cannot be reached, or it refuses the login or the database.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Connection::open(url).await.map(Self::on)
    }

    /// A store on the application's own connection.
    ///
    /// The manager makes a new connection only if the old one was closed. So the store asks a
    /// demoted server to close it (`QUIT`, at most once a second). This ends all other calls on the
    /// connection too.
    ///
    /// The store cannot replace a connection that went silent: the connection stays until the
    /// operating system closes it. A store that was made by [`connect`](Self::connect) replaces
    /// such a connection.
    #[must_use]
    pub fn from_connection(connection: ConnectionManager) -> Self {
        Self::on(Connection::Manager(Manager::new(connection)))
    }

    /// A store on the application's own connection to a cluster, which must not read from replicas.
    ///
    /// The client follows a failover by itself. If a node goes silent, the client does not replace
    /// its connection to that node. A store that was made by [`connect`](Self::connect) does so.
    #[must_use]
    pub fn from_cluster_connection(connection: ClusterConnection) -> Self {
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

    /// What all keys begin with. If this is not called, it is `cloakroom:`. Redis takes any text.
    ///
    /// Stores with different prefixes share no session. Do not give one store a prefix that is
    /// another store's prefix followed by `user:` or `external:`.
    #[must_use]
    pub fn with_prefix(self, prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into().into(),
            ..self
        }
    }

    fn session_keys(&self) -> String {
        format!("{}session:", self.prefix)
    }

    fn session_key(&self, id: RecordId) -> Key<'_> {
        Key {
            prefix: &self.prefix,
            of: KeyOf::Session(id),
        }
    }

    fn index_keys(&self) -> String {
        format!("{}user:", self.prefix)
    }

    fn index_key<'a>(&'a self, by: &'a IndexedBy) -> Key<'a> {
        Key {
            prefix: &self.prefix,
            of: KeyOf::Index(by),
        }
    }

    async fn value(&self, id: RecordId) -> RedisResult<Value> {
        let mut get = Cmd::with_capacity(2, CALL_OVERHEAD);
        get.arg("GET").arg(self.session_key(id));
        Value::of(self.connection.ask(&get).await)
    }

    /// Runs a call of a script. A server that does not know the script gets it first.
    async fn run<T: FromRedisValue>(&self, script: &Script, call: &Cmd) -> RedisResult<T> {
        let mut answer = self.connection.ask(call).await;
        // If the first server was demoted since, the next one does not know the script either.
        for _ in 0..2 {
            match &answer {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    let _hash: String = self.connection.ask(&script.load()).await?;
                    answer = self.connection.ask(call).await;
                }
                _ => break,
            }
        }
        answer
    }
}

/// The beginning of a call of a script with so many keys. It has room for arguments of this size.
fn call_of(script: &Script, keys: usize, size: usize) -> Cmd {
    let mut call = Cmd::with_capacity(16, size + CALL_OVERHEAD);
    call.arg("EVALSHA").arg(script.hash()).arg(keys);
    call
}

/// The user that a script answered with; `None` if it is empty, as a visitor's.
fn user_of(name: Vec<u8>) -> Option<UserId> {
    let name = String::from_utf8(name).ok()?;
    (!name.is_empty()).then(|| UserId::stored(name.into()))
}

fn failed(what: &'static str) -> impl Fn(RedisError) -> StoreError {
    move |error| StoreError::new(format!("could not {what} in Redis")).with_source(error)
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
            ..=MISSING => Replaced::Missing,
            CONFLICT => Replaced::Conflict,
            DONE.. => Replaced::Done,
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
            let by = IndexedBy::User(user);
            in_the_background(async move { store.unindex(&by, &[id], 0).await });
        }
        Ok(removed)
    }

    /// A store on the application's own connection has none.
    fn session_feed(&self) -> Option<&dyn SessionFeed> {
        matches!(self.connection, Connection::Own(_)).then_some(self)
    }

    /// Redis removes expired sessions by itself.
    async fn purge_expired(&self, _: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }
}

#[async_trait]
impl UserIndex for RedisStore {
    async fn find_by_user(&self, user: &UserId) -> Result<Vec<(RecordId, Record)>, StoreError> {
        // A scan may answer with an entry twice.
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

    async fn remove_by_user(
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
