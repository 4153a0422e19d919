//! [`NearCache`]: a cache in this process, around a store with a feed.

mod cache;
#[cfg(test)]
mod explorer;
mod follow;
mod freshness;
mod moment;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::cache::Cache;
use self::moment::Moment;
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::RecordId;
use crate::record::user::UserId;
use crate::record::{Record, Version};
use crate::store::catalog::{Accept, Cursor, Scan, SessionCatalog};
use crate::store::feed::{Feed, SessionFeed};
use crate::store::{Replaced, SessionStore, UserIndex};

/// How much memory a cache uses, if the application does not say.
const DEFAULT_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// How old an answer may be, if the application does not say.
const DEFAULT_MAX_STALE: Duration = Duration::from_secs(2);

/// A shorter time would only cause pings without end.
const SHORTEST_MAX_STALE: Duration = Duration::from_millis(100);

/// How many pings there are in the time that an answer may be old. If one ping is late, the next
/// one is in time.
const PINGS_IN_MAX_STALE: u32 = 4;

/// A store around another store: it keeps in this process the records that somebody read lately. A
/// read that the cache answers costs no round trip.
///
/// The [feed](SessionFeed) of the store names each record that changes on any node, and the cache
/// forgets that record. This usually takes about a millisecond, and up to 50 milliseconds with
/// SQLite and a change by another process.
///
/// # What you give up
///
/// If the network between a node and the store is broken, the node does not learn of changes. The
/// cache may then answer with an old record for at most
/// [`max_stale`](NearCacheBuilder::max_stale), two seconds by default. So the node may serve a
/// request of a session that another node has ended. After that time, each read asks the store
/// until the feed works again.
///
/// The bound holds whatever is late or lost on the network. The cache pings the store over the connection that
/// brings the notices. The answer to a ping comes after the notices of all that happened before the
/// ping. The cache answers only while the last answered ping was sent at most `max_stale` ago.
///
/// Nothing else changes:
///
/// - Writes go to the store, with their check of the version. No write is lost, and no session
///   comes back.
/// - A login on one node counts on the next node at once. If a record does not fit the client's
///   token, the layer asks the store by [`reload`](SessionStore::reload).
/// - A node sees its own writes at once.
///
/// # Memory
///
/// The cache is bounded in bytes. If it is full, it keeps the records that requests ask for often.
/// It remembers for a minute that a session is gone. So a dead cookie costs one read a minute, and
/// not one read a request.
///
/// ```
/// use std::time::Duration;
/// use cloakroom::{MemoryStore, NearCache, SessionLayer, SigningKey};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // With a store of one process there is little to gain. Use it with Redis or PostgreSQL.
/// let store = MemoryStore::new();
/// let store = NearCache::builder(store)
///     .max_bytes(128 * 1024 * 1024)
///     .max_stale(Duration::from_secs(1))
///     .open()
///     .await?;
/// let layer = SessionLayer::new(store.clone(), SigningKey::generate()?);
/// assert_eq!(store.stats().hits, 0);
/// # Ok(()) }
/// ```
#[doc(alias("cache", "CachingSessionStore", "local cache"))]
pub struct NearCache<S> {
    inner: Arc<Inner<S>>,
}

struct Inner<S> {
    store: Arc<S>,
    cache: Arc<Cache>,
    /// Has the task ping now.
    ping: Arc<Notify>,
    task: AbortHandle,
}

/// The settings of a [`NearCache`]. See [`NearCache::builder`].
#[derive(Debug)]
#[must_use = "a builder makes nothing until `open` is called"]
pub struct NearCacheBuilder<S> {
    store: S,
    max_bytes: u64,
    max_stale: Duration,
}

/// What a [`NearCache`] did since it was opened, and what it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NearCacheStats {
    /// Reads that the cache answered.
    pub hits: u64,
    /// Reads that the store answered, because the cache did not have the record.
    pub misses: u64,
    /// Reads that the store answered, because the cache was not [fresh](Self::is_fresh).
    pub bypasses: u64,
    /// Records that the cache forgot because of a notice.
    pub invalidations: u64,
    /// How often the feed lost notices, so that the cache forgot everything.
    pub gaps: u64,
    /// How many entries the cache has now: records, and ids whose session is gone.
    pub entries: usize,
    /// How many bytes of memory the entries take, by an estimate.
    pub bytes: u64,
    /// Whether the cache may answer now: the store answered a ping of at most `max_stale` ago.
    pub is_fresh: bool,
}

impl<S: SessionFeed> NearCache<S> {
    /// Opens a cache with the default settings: 64 MiB, and answers that are at most two seconds
    /// old. See [`NearCacheBuilder::open`].
    ///
    /// When the future is dropped, nothing of the cache is left.
    ///
    /// # Errors
    ///
    /// The store cannot be reached, or its server cannot report changes.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub async fn open(store: S) -> Result<Self, StoreError> {
        Self::builder(store).open().await
    }

    /// The settings of a cache around this store.
    pub fn builder(store: S) -> NearCacheBuilder<S> {
        NearCacheBuilder {
            store,
            max_bytes: DEFAULT_MAX_BYTES,
            max_stale: DEFAULT_MAX_STALE,
        }
    }
}

impl<S> NearCache<S> {
    /// What the cache did since it was opened, and what it has now.
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, NearCache};
    /// # fn example(store: &NearCache<MemoryStore>) {
    /// let stats = store.stats();
    /// println!("{} of {} reads were hits", stats.hits, stats.hits + stats.misses + stats.bypasses);
    /// # }
    /// ```
    #[must_use]
    pub fn stats(&self) -> NearCacheStats {
        self.inner.cache.stats()
    }

    /// The store that the cache is around.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.inner.store
    }

    /// Forgets the record when this is dropped: after a write, and also if its caller goes away.
    fn forget_after(&self, id: RecordId) -> Forget<'_> {
        Forget {
            cache: &self.inner.cache,
            id,
        }
    }
}

impl<S: SessionFeed> NearCacheBuilder<S> {
    /// How many bytes of memory the records may take. 64 MiB by default. The cache estimates the
    /// size of a record, so the real number may be some percent higher.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How old an answer of the cache may be, if the network between this node and the store is
    /// broken. Two seconds by default. A time below 100 milliseconds counts as 100 milliseconds.
    /// The cache pings the store four times in this time.
    pub fn max_stale(mut self, time: Duration) -> Self {
        self.max_stale = time.max(SHORTEST_MAX_STALE);
        self
    }

    /// Subscribes to the store's feed, and starts a task that follows the feed. The task ends with
    /// the last clone of the cache.
    ///
    /// Until the first ping is answered, each read asks the store.
    ///
    /// When the future is dropped, nothing of the cache is left.
    ///
    /// # Errors
    ///
    /// The store cannot be reached, or its server cannot report changes. The error then says what
    /// the server lacks.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub async fn open(self) -> Result<NearCache<S>, StoreError> {
        let store = Arc::new(self.store);
        let feed = store.subscribe().await?;
        let cache = Arc::new(Cache::new(Instant::now(), self.max_bytes, self.max_stale));
        let ping = Arc::new(Notify::new());
        let follower = follow::Follower {
            store: Arc::clone(&store),
            cache: Arc::clone(&cache),
            ping: Arc::clone(&ping),
            heartbeat: self.max_stale / PINGS_IN_MAX_STALE,
        };
        let task = tokio::spawn(follower.run(feed)).abort_handle();
        Ok(NearCache {
            inner: Arc::new(Inner {
                store,
                cache,
                ping,
                task,
            }),
        })
    }
}

struct Forget<'a> {
    cache: &'a Cache,
    id: RecordId,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.cache.forget(self.id);
    }
}

impl<S> Drop for Inner<S> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SessionFeed> SessionStore for NearCache<S> {
    async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        let Inner { store, cache, .. } = &*self.inner;
        // The store makes the future in a box, and a hit does not need it.
        let read = async { store.load(id).await };
        cache.load(id, Moment::now(), read).await
    }

    async fn reload(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        self.inner.store.reload(id).await
    }

    fn answers_from_cache(&self) -> bool {
        true
    }

    fn session_feed(&self) -> Option<&dyn SessionFeed> {
        Some(self)
    }

    async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        let _forget = self.forget_after(id);
        self.inner.store.insert(id, record).await
    }

    async fn replace(
        &self,
        id: RecordId,
        expected: Version,
        record: &Record,
    ) -> Result<Replaced, StoreError> {
        let _forget = self.forget_after(id);
        self.inner.store.replace(id, expected, record).await
    }

    async fn touch(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        let _forget = self.forget_after(id);
        self.inner.store.touch(id, record).await
    }

    async fn remove(&self, id: RecordId) -> Result<bool, StoreError> {
        let _forget = self.forget_after(id);
        self.inner.store.remove(id).await
    }

    async fn purge_expired(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.inner.store.purge_expired(now).await
    }
}

/// Each call asks the store: the cache does not know the sessions of a user.
#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SessionFeed + UserIndex> UserIndex for NearCache<S> {
    async fn find_by_user(&self, user: &UserId) -> Result<Vec<(RecordId, Record)>, StoreError> {
        self.inner.store.find_by_user(user).await
    }

    async fn remove_by_user(
        &self,
        user: &UserId,
        except: Option<RecordId>,
    ) -> Result<u64, StoreError> {
        let _wait = WaitForFeed {
            cache: &self.inner.cache,
            ping: &self.inner.ping,
        };
        self.inner.store.remove_by_user(user, except).await
    }
}

/// Each call asks the store, as the calls of [`UserIndex`] do.
#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SessionFeed + SessionCatalog> SessionCatalog for NearCache<S> {
    async fn scan(
        &self,
        after: Option<&Cursor>,
        limit: usize,
        accept: &Accept<'_>,
    ) -> Result<Option<Scan>, StoreError> {
        self.inner.store.scan(after, limit, accept).await
    }

    async fn find_by_external_id(
        &self,
        external_id: &str,
    ) -> Result<Vec<(RecordId, Record)>, StoreError> {
        self.inner.store.find_by_external_id(external_id).await
    }
}

/// When this is dropped, the cache stops to answer until the feed has named all changes so far.
/// That takes one round trip. It is for a removal of sessions whose ids the cache does not know.
struct WaitForFeed<'a> {
    cache: &'a Cache,
    ping: &'a Notify,
}

impl Drop for WaitForFeed<'_> {
    fn drop(&mut self) {
        self.cache.wait_for_feed();
        self.ping.notify_one();
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SessionFeed> SessionFeed for NearCache<S> {
    async fn subscribe(&self) -> Result<Feed, StoreError> {
        self.inner.store.subscribe().await
    }
}

impl<S> Clone for NearCache<S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for NearCache<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NearCache")
            .field("store", &self.inner.store)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
