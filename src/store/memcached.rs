//! [`MemcachedStore`]: sessions in Memcached servers.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_memcached::{Client, Error, MetaProtocol, MetaValue, Status};
use async_trait::async_trait;
use deadpool::managed::{self, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::{BoxError, StoreError};
use crate::record::{Record, Version};
use crate::store::{Replaced, SessionStore};
use crate::token::RecordId;

const DEFAULT_PORT: u16 = 11211;

/// Connections to one server. Each carries one call at a time.
const CONNECTIONS: usize = 16;

/// How long a server may take to answer the first question.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that idled for longer is tried before it is used, which is a round trip.
const TRUSTED_IDLE: Duration = Duration::from_secs(10);

/// Memcached takes a longer relative expiry for an absolute one.
const LONGEST_RELATIVE_EXPIRY: u64 = 30 * 24 * 60 * 60;

/// A key of Memcached has up to 250 bytes, of which a record's id takes some.
const LONGEST_PREFIX: usize = 200;

/// More than what Memcached adds to a value: a header, the key, flags.
const OVERHEAD: usize = 512;

/// Sessions in one or several Memcached servers, version 1.6 and later, for any number of machines.
///
/// It is a cache: a session ends early where a server restarts or runs out of memory, and no user is found by their id, so that
/// there is no [`UserIndex`](crate::UserIndex). What has ended does not come back, and no write is lost while the session
/// lives: each is a compare-and-swap. A session belongs to one server, chosen by its id: while that is down, its requests are
/// answered with 503. When the list of servers changes, sessions that belong elsewhere from then on are gone; flush the
/// servers when an old list comes back, or sessions of then come back with it. Clones share the connections, which know IPv4
/// and no login.
///
/// ```no_run
/// use cloakroom::{MemcachedStore, SessionLayer, SigningKey};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemcachedStore::open("memcache://cache-1.example:11211,cache-2.example:11211").await?;
/// let layer = SessionLayer::new(store, SigningKey::generate()?);
/// # Ok(()) }
/// ```
///
/// What needs to find sessions by user does not compile:
///
/// ```compile_fail,E0599
/// # use cloakroom::{MemcachedStore as Store, SessionError, Sessions};
/// async fn ban(sessions: Sessions<Store>, user: &str) -> Result<u64, SessionError> {
///     sessions.revoke_all(user).await
/// }
/// ```
///
/// while with another store it does:
///
/// ```
/// # #[cfg(feature = "memory")]
/// # use cloakroom::{MemoryStore as Store, SessionError, Sessions};
/// # #[cfg(feature = "memory")]
/// async fn ban(sessions: Sessions<Store>, user: &str) -> Result<u64, SessionError> {
///     sessions.revoke_all(user).await
/// }
/// ```
#[derive(Clone)]
pub struct MemcachedStore {
    servers: Arc<[Server]>,
    prefix: Arc<str>,
    /// Of the server that takes least. One that refuses a value drops the value that it had.
    largest_value: usize,
}

struct Server {
    address: String,
    pool: Pool<Connector>,
}

impl MemcachedStore {
    /// Connects to the servers of a URL: `memcache://host:port,host:port`.
    ///
    /// # Errors
    ///
    /// The URL is wrong, or one of the servers cannot be reached.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let hosts = url
            .split_once("://")
            .filter(|(scheme, _)| matches!(*scheme, "memcache" | "memcached"))
            .map(|(_, hosts)| hosts.trim_end_matches('/'))
            .filter(|hosts| hosts.split(',').all(is_host))
            .ok_or_else(|| {
                StoreError::message(
                    "the Memcached URL must look like memcache://host:port,host:port",
                )
            })?;
        let mut servers = Vec::new();
        let mut largest_value = usize::MAX;
        for host in hosts.split(',') {
            let server = Server::new(host)?;
            let largest_item = server.largest_item();
            let largest_item = timeout(CONNECTION_TIMEOUT, largest_item).await;
            let largest_item = largest_item.unwrap_or_else(|elapsed| Err(elapsed.into()));
            let largest_item = largest_item.map_err(|error| {
                StoreError::new(
                    format!("could not connect to Memcached at {}", server.address),
                    error,
                )
            })?;
            largest_value = largest_value.min(largest_item.saturating_sub(OVERHEAD));
            servers.push(server);
        }
        Ok(Self {
            servers: servers.into(),
            prefix: "cloakroom:".into(),
            largest_value,
        })
    }

    /// What all keys begin with, up to 200 bytes without white space and control characters;
    /// `cloakroom:` if this is not called.
    ///
    /// # Errors
    ///
    /// The prefix is too long, or has such a character in it.
    pub fn with_prefix(self, prefix: &str) -> Result<Self, StoreError> {
        let is_refused = |c: char| c.is_whitespace() || c.is_control();
        if prefix.len() > LONGEST_PREFIX || prefix.contains(is_refused) {
            return Err(StoreError::message(format!(
                "the prefix of the keys in Memcached must have up to {LONGEST_PREFIX} bytes, and no \
                 white space or control characters in it; this one has {} bytes",
                prefix.len()
            )));
        }
        Ok(Self {
            prefix: prefix.into(),
            ..self
        })
    }

    fn key(&self, id: RecordId) -> String {
        format!("{}{id}", self.prefix)
    }

    /// The server that a session belongs to: the one with the highest hash, so that another server more or less moves no
    /// session between the others.
    fn server_of(&self, id: RecordId) -> Result<&Server, Failure> {
        let hash = |server: &&Server| -> [u8; 32] {
            Sha256::new_with_prefix(&server.address)
                .chain_update(id.as_bytes())
                .finalize()
                .into()
        };
        match &*self.servers {
            [server] => Ok(server),
            servers => servers
                .iter()
                .max_by_key(hash)
                .ok_or_else(|| Failure::from("there is no server".to_owned())),
        }
    }

    /// The value under a key, and its CAS number.
    async fn get(&self, id: RecordId) -> Result<Option<(Vec<u8>, u64)>, Failure> {
        let server = self.server_of(id)?;
        let key = self.key(id);
        let flags = Some(&["v", "c"][..]);
        let mut connection = server.connection().await?;
        let value = match connection.meta_get(&key, false, None, flags).await {
            // The server closed the connection while it was idle. A read can be asked again.
            Err(error) if server.is_broken(&error) => {
                drop(connection);
                let mut connection = server.connection().await?;
                connection.meta_get(&key, false, None, flags).await
            }
            value => value,
        };
        Ok(match value {
            Ok(Some(MetaValue {
                data,
                cas: Some(cas),
                ..
            })) => Some((data.unwrap_or_default(), cas)),
            Ok(_) | Err(Error::Protocol(Status::NotFound)) => None,
            Err(error) => return Err(error.into()),
        })
    }

    /// Writes a value under a condition: that there is none, or that it has this CAS number.
    async fn set(
        &self,
        id: RecordId,
        record: &Record,
        bytes: &[u8],
        condition: &str,
    ) -> Result<Status, Failure> {
        if bytes.len() > self.largest_value {
            return Err(Failure::from(format!(
                "the session has {} bytes, and the servers keep values of up to {}; raise that with Memcached's option \
                 `-I`, or lower the layer's data limit",
                bytes.len(),
                self.largest_value,
            )));
        }
        let server = self.server_of(id)?;
        let expiry = format!("T{}", expiry(record.expires_at()));
        let flags = Some(&[condition, &*expiry][..]);
        let mut connection = server.connection().await?;
        match connection
            .meta_set(self.key(id), bytes, false, None, flags)
            .await
        {
            Ok(_) => Ok(Status::Stored),
            Err(Error::Protocol(
                status @ (Status::NotStored | Status::Exists | Status::NotFound),
            )) => Ok(status),
            Err(error) => {
                server.is_broken(&error);
                Err(error.into())
            }
        }
    }

    /// Replaces a record that has the expected version: with the CAS number that came with the
    /// record when it was loaded, or else with the one that the record has now. An expiry that is
    /// later than the new one stays, where that is asked for.
    async fn swap(
        &self,
        id: RecordId,
        expected: Version,
        record: &Record,
        keeps_later_expiry: bool,
    ) -> Result<Replaced, Failure> {
        let own = record;
        let (mut record, mut bytes) = (Cow::Borrowed(own), own.encode()?);
        let mut known = record
            .content()
            .loaded_cas
            .filter(|(version, ..)| *version == expected)
            .map(|(_, cas, expires_at)| (cas, expires_at));
        loop {
            let (cas, stored_expiry) = match known.take() {
                Some(known) => known,
                None => {
                    let Some((stored, cas)) = self.get(id).await? else {
                        return Ok(Replaced::Missing);
                    };
                    match Record::decode(id, &stored) {
                        None => return Ok(Replaced::Missing),
                        Some(stored) if stored.version() != expected => {
                            return Ok(Replaced::Conflict);
                        }
                        Some(stored) => (cas, stored.expires_at()),
                    }
                }
            };
            let expires_at = match keeps_later_expiry {
                true => stored_expiry.max(own.expires_at()),
                false => own.expires_at(),
            };
            if expires_at != record.expires_at() {
                record = Cow::Owned(own.clone().with_expires_at(expires_at));
                bytes = record.encode()?;
            }
            match self.set(id, &record, &bytes, &format!("C{cas}")).await? {
                Status::Stored => return Ok(Replaced::Done),
                Status::NotFound => return Ok(Replaced::Missing),
                // Another version, or a touch.
                _ => {}
            }
        }
    }
}

#[async_trait]
impl SessionStore for MemcachedStore {
    async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        let value = self.get(id).await.map_err(failed("read a session"))?;
        Ok(value.and_then(|(bytes, cas)| {
            let record = Record::decode(id, &bytes)?;
            Some(record.with(|content| {
                content.loaded_cas = Some((content.version, cas, content.expires_at));
            }))
        }))
    }

    async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        let bytes = record.encode()?;
        let status = self
            .set(id, record, &bytes, "ME")
            .await
            .map_err(failed("write a new session"))?;
        Ok(status == Status::Stored)
    }

    async fn replace(
        &self,
        id: RecordId,
        expected: Version,
        record: &Record,
    ) -> Result<Replaced, StoreError> {
        self.swap(id, expected, record, record.keeps_later_expiry())
            .await
            .map_err(failed("write a session"))
    }

    async fn touch(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        let replaced = self
            .swap(id, record.version(), record, false)
            .await
            .map_err(failed("touch a session"))?;
        Ok(replaced == Replaced::Done)
    }

    async fn remove(&self, id: RecordId) -> Result<bool, StoreError> {
        let failed = failed("remove a session");
        let server = self.server_of(id).map_err(&failed)?;
        let mut connection = server.connection().await.map_err(&failed)?;
        match connection
            .meta_delete(self.key(id), false, None, None)
            .await
        {
            Ok(_) => Ok(true),
            Err(Error::Protocol(Status::NotFound)) => Ok(false),
            Err(error) => {
                server.is_broken(&error);
                Err(failed(error.into()))
            }
        }
    }

    /// Memcached does so by itself.
    async fn purge_expired(&self, _: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }
}

impl Server {
    fn new(host: &str) -> Result<Self, StoreError> {
        let address = match host.rsplit_once(':') {
            Some(_) => host.to_owned(),
            None => format!("{host}:{DEFAULT_PORT}"),
        };
        let connector = Connector {
            address: address.clone(),
        };
        let pool = Pool::builder(connector)
            .max_size(CONNECTIONS)
            .build()
            .map_err(|error| StoreError::new("could not make a pool of connections", error))?;
        Ok(Self { address, pool })
    }

    async fn connection(&self) -> Result<Object<Connector>, Failure> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error.into(),
            error => Failure(Box::new(error)),
        })
    }

    /// The size of an item that the server takes at most, which the client library does not ask for.
    async fn largest_item(&self) -> Result<usize, std::io::Error> {
        let mut stream = BufReader::new(TcpStream::connect(&self.address).await?);
        stream.write_all(b"stats settings\r\n").await?;
        let mut lines = stream.lines();
        let mut largest = None;
        while let Some(line) = lines.next_line().await? {
            if let Some(size) = line.strip_prefix("STAT item_size_max ") {
                largest = size.parse().ok();
            } else if !line.starts_with("STAT ") {
                break;
            }
        }
        largest.ok_or_else(|| {
            std::io::Error::other("the server does not tell its settings as Memcached does")
        })
    }

    /// Did the connection break? Then those that are idle did so, too, and are dropped.
    fn is_broken(&self, error: &Error) -> bool {
        let is_broken = matches!(error, Error::Io(_) | Error::ConnectionClosed);
        if is_broken {
            self.pool.retain(|_, _| false);
        }
        is_broken
    }
}

/// Makes the connections of a pool.
struct Connector {
    address: String,
}

impl managed::Manager for Connector {
    type Type = Client;
    type Error = Error;

    async fn create(&self) -> Result<Client, Error> {
        Client::new(format!("tcp://{}", self.address)).await
    }

    async fn recycle(&self, client: &mut Client, metrics: &Metrics) -> RecycleResult<Error> {
        // One whose call was dropped midway has closed itself.
        if client.is_closed() {
            return Err(RecycleError::message("the connection is closed"));
        }
        if metrics.last_used() > TRUSTED_IDLE {
            client.version().await?;
        }
        Ok(())
    }
}

/// Why a call failed.
struct Failure(BoxError);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(Box::new(error))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(Box::new(error))
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self(message.into())
    }
}

impl From<Failure> for BoxError {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}

fn failed(what: &'static str) -> impl Fn(Failure) -> StoreError {
    move |failure| StoreError::new(format!("could not {what} in Memcached"), failure)
}

fn is_host(host: &str) -> bool {
    !host.is_empty() && !host.contains(['@', '/', '?', ' '])
}

/// Seconds from now, or since 1970 where that is far; -1 for what is over.
fn expiry(expires_at: Timestamp) -> i64 {
    let now = SystemClock.now().as_millis();
    let Some(left) = expires_at.as_millis().checked_sub(now + 1) else {
        return -1;
    };
    let seconds = left / 1000 + 1;
    let expiry = match seconds {
        ..=LONGEST_RELATIVE_EXPIRY => seconds,
        _ => expires_at.as_millis().div_ceil(1000),
    };
    // The server reads 32 bits.
    i64::from(i32::try_from(expiry).unwrap_or(i32::MAX))
}

impl fmt::Debug for MemcachedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<_> = self.servers.iter().map(|server| &server.address).collect();
        f.debug_struct("MemcachedStore")
            .field("servers", &servers)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
