//! [`MemcachedStore`]: sessions in Memcached servers.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use async_memcached::{Error, MetaProtocol, Status};
use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use self::loads::{Loads, Stored, key};
use self::server::{Failure, Server};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::StoreError;
use crate::id::RecordId;
use crate::record::{Record, Version};
use crate::store::batch::{Batches, READ_LANES};
use crate::store::pool::CONNECTION_TIMEOUT;
use crate::store::{Replaced, SessionStore};

mod loads;
mod server;

/// In seconds. Memcached takes a larger number for a time since 1970.
const LONGEST_RELATIVE_EXPIRY: u64 = 30 * 24 * 60 * 60;

/// A key of Memcached has up to 250 bytes, and the record's id takes some of them.
const LONGEST_PREFIX: usize = 200;

/// Memcached adds fewer bytes than this to a value: a header, the key, flags.
const OVERHEAD: usize = 512;

/// Sessions in one or several Memcached servers, version 1.6 and later, for any number of machines.
///
/// Memcached is a cache: a session ends early if its server restarts or runs out of memory. The
/// store cannot find the sessions of a user, so it does not implement
/// [`UserIndex`](crate::UserIndex). A session that has ended does not come back. No write is lost
/// while the session lives: each is a compare-and-swap. Clones share the connections. They use
/// IPv4, and no login.
///
/// # Several servers
///
/// The id of a session says which server keeps it. While that server is down, the session's
/// requests are answered with 503. If the list of servers changes, some sessions belong to another
/// server from then on, and are gone. Flush the servers before you go back to an older list of
/// servers. Otherwise, sessions of that time come back.
///
/// ```no_run
/// use cloakroom::{MemcachedStore, SessionLayer, SigningKey};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let url = "memcache://cache-1.example:11211,cache-2.example:11211";
/// let store = MemcachedStore::connect(url).await?;
/// let layer = SessionLayer::new(store, SigningKey::generate()?);
/// # Ok(()) }
/// ```
///
/// A call that finds the sessions of a user does not compile with it:
///
/// ```compile_fail,E0277
/// # use cloakroom::{MemcachedStore as Store, SessionError, Sessions};
/// async fn ban(sessions: Sessions<Store>, user: &str) -> Result<u64, SessionError> {
///     sessions.revoke_user(user).await
/// }
/// ```
///
/// With another store, the same call compiles:
///
/// ```
/// # #[cfg(feature = "memory")]
/// # use cloakroom::{MemoryStore as Store, SessionError, Sessions};
/// # #[cfg(feature = "memory")]
/// async fn ban(sessions: Sessions<Store>, user: &str) -> Result<u64, SessionError> {
///     sessions.revoke_user(user).await
/// }
/// ```
#[derive(Clone)]
pub struct MemcachedStore {
    servers: Arc<[Place]>,
    prefix: Arc<str>,
    /// The largest value that every server takes. A server that refuses a value drops the old one.
    largest_value: usize,
}

/// A server, and the reads that wait for it.
struct Place {
    server: Arc<Server>,
    loads: Batches<Loads>,
}

impl MemcachedStore {
    /// Connects to the servers of a URL: `memcache://host:port,host:port`.
    ///
    /// # Errors
    ///
    /// The URL is wrong, or one of the servers cannot be reached.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let hosts = url
            .split_once("://")
            .filter(|(scheme, _)| matches!(*scheme, "memcache" | "memcached"))
            .map(|(_, hosts)| hosts.trim_end_matches('/'))
            .filter(|hosts| hosts.split(',').all(is_host))
            .ok_or_else(|| {
                StoreError::new("the Memcached URL must look like memcache://host:port,host:port")
            })?;
        let mut servers = Vec::new();
        let mut largest_value = usize::MAX;
        for host in hosts.split(',') {
            let server = Server::new(host)?;
            let largest_item = server.largest_item();
            let largest_item = timeout(CONNECTION_TIMEOUT, largest_item).await;
            let largest_item = largest_item.unwrap_or_else(|elapsed| Err(elapsed.into()));
            let largest_item = largest_item.map_err(|error| {
                StoreError::new(format!(
                    "could not connect to Memcached at {}",
                    server.address
                ))
                .with_source(error)
            })?;
            largest_value = largest_value.min(largest_item.saturating_sub(OVERHEAD));
            servers.push(Arc::new(server));
        }
        Ok(Self::over(servers, "cloakroom:".into(), largest_value))
    }

    /// What all keys begin with: up to 200 bytes, and no white space or control characters among
    /// them. If this is not called, it is `cloakroom:`.
    ///
    /// # Errors
    ///
    /// The prefix is too long, or has such a character in it.
    pub fn with_prefix(self, prefix: impl Into<String>) -> Result<Self, StoreError> {
        let prefix = prefix.into();
        let is_refused = |c: char| c.is_whitespace() || c.is_control();
        if prefix.len() > LONGEST_PREFIX || prefix.contains(is_refused) {
            return Err(StoreError::new(format!(
                "the prefix of the keys in Memcached must have up to {LONGEST_PREFIX} bytes, and \
                 no white space or control characters in it; this one has {} bytes",
                prefix.len()
            )));
        }
        let servers = self.servers.iter().map(|place| place.server.clone());
        Ok(Self::over(
            servers.collect(),
            prefix.into(),
            self.largest_value,
        ))
    }

    fn over(servers: Vec<Arc<Server>>, prefix: Arc<str>, largest_value: usize) -> Self {
        let place = |server: Arc<Server>| {
            let loads = Loads {
                server: server.clone(),
                prefix: prefix.clone(),
            };
            let loads = Batches::new(loads, READ_LANES);
            Place { server, loads }
        };
        Self {
            servers: servers.into_iter().map(place).collect(),
            prefix,
            largest_value,
        }
    }

    /// The server that a session belongs to: the one with the highest hash. If a server is added or
    /// taken away, no session moves between the others.
    fn place_of(&self, id: RecordId) -> Result<&Place, Failure> {
        let hash = |place: &&Place| -> [u8; 32] {
            Sha256::new_with_prefix(&place.server.address)
                .chain_update(id.as_bytes())
                .finalize()
                .into()
        };
        match &*self.servers {
            [place] => Ok(place),
            places => places
                .iter()
                .max_by_key(hash)
                .ok_or_else(|| Failure::from("there is no server".to_owned())),
        }
    }

    /// The value under a key.
    async fn get(&self, id: RecordId) -> Result<Option<Stored>, Failure> {
        Ok(self.place_of(id)?.loads.run(id).await?)
    }

    /// Writes a value under a condition: that there is no value, or that it has this CAS number.
    async fn set(
        &self,
        id: RecordId,
        record: &Record,
        bytes: &[u8],
        condition: &str,
    ) -> Result<Status, Failure> {
        if bytes.len() > self.largest_value {
            return Err(Failure::from(format!(
                "the session has {} bytes, and the servers keep values of up to {}; raise that \
                 with Memcached's option `-I`, or lower the layer's data limit",
                bytes.len(),
                self.largest_value,
            )));
        }
        let server = &self.place_of(id)?.server;
        let expiry = format!("T{}", expiry(record.expires_at()));
        let flags = Some(&[condition, &*expiry][..]);
        let mut connection = server.connection().await?;
        match connection
            .meta_set(key(&self.prefix, id), bytes, false, None, flags)
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

    /// Replaces a record that has the expected version. The CAS number is the one that came with
    /// the record when it was loaded; if that is not known, it is the one that the record has now.
    /// With `keeps_later_expiry`, a stored expiry that is later than the new one stays.
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
            .fields()
            .loaded_cas()
            .filter(|loaded| loaded.version == expected)
            .map(|loaded| (loaded.cas, loaded.expires_at));
        loop {
            let (cas, stored_expiry) = match known.take() {
                Some(known) => known,
                None => {
                    let Some(Stored { bytes, cas }) = self.get(id).await? else {
                        return Ok(Replaced::Missing);
                    };
                    match Record::decode(id, bytes) {
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
                // Another write or a touch came first. Look again.
                _ => {}
            }
        }
    }
}

#[async_trait]
impl SessionStore for MemcachedStore {
    async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        let value = self.get(id).await.map_err(failed("read a session"))?;
        Ok(value.and_then(|Stored { bytes, cas }| {
            let record = Record::decode(id, bytes)?;
            Some(record.with(|fields| fields.set_loaded_cas(cas)))
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
        let server = &self.place_of(id).map_err(&failed)?.server;
        let mut connection = server.connection().await.map_err(&failed)?;
        match connection
            .meta_delete(key(&self.prefix, id), false, None, None)
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

    /// Memcached removes expired sessions by itself.
    async fn purge_expired(&self, _: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }
}

fn failed(what: &'static str) -> impl Fn(Failure) -> StoreError {
    move |failure| StoreError::new(format!("could not {what} in Memcached")).with_source(failure)
}

fn is_host(host: &str) -> bool {
    !host.is_empty() && !host.contains(['@', '/', '?', ' '])
}

/// Seconds from now; or since 1970, if the time is far away; or -1, if it is over.
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
    // The server reads a number of 32 bits.
    i64::from(i32::try_from(expiry).unwrap_or(i32::MAX))
}

impl fmt::Debug for MemcachedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.servers.iter().map(|place| &place.server.address);
        let servers: Vec<_> = servers.collect();
        f.debug_struct("MemcachedStore")
            .field("servers", &servers)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
