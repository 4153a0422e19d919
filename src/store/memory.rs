//! [`MemoryStore`]: sessions in this process.

use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;

use self::shard::is_visitor;
use self::shards::Shards;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::StoreError;
use crate::id::RecordId;
use crate::record::user::UserId;
use crate::record::{Record, Version};
use crate::store::catalog::walk::IdWalk;
use crate::store::catalog::{Accept, Cursor, Scan, SessionCatalog};
use crate::store::feed::{Feed, SessionFeed};
use crate::store::{Replaced, SessionStore, UserIndex};

mod listeners;
mod shard;
mod shards;

/// How many sessions a store has room for, if the application does not say.
const DEFAULT_MAX_SESSIONS: usize = 100_000;

/// How many expired records of its shard a new record removes at most, so that no insert takes
/// long.
const REMOVED_BY_AN_INSERT: usize = 4;

/// Sessions in this process: for one node, for development and for tests. They end with the
/// process.
///
/// It is bounded. If the store is full, a new session evicts a visitor's session: the one that was
/// not used for longest, and would expire next. So a bot that puts something into very many
/// sessions locks nobody out. A logged-in session is never evicted. If only logged-in sessions are
/// left, new sessions fail with a 503, and the present ones go on. [`evicted`](Self::evicted)
/// counts the evicted sessions, and each of them is an event.
///
/// Expired sessions go first. New sessions remove them, so that nothing has to purge the store. A
/// read copies no data. Clones share one store.
///
/// ```
/// use cloakroom::MemoryStore;
///
/// let store = MemoryStore::new();
/// let large = MemoryStore::new().with_max_sessions(2_000_000);
/// ```
#[derive(Clone)]
#[doc(alias("InMemoryStore", "HashMapStore"))]
pub struct MemoryStore(Arc<Shards>);

impl MemoryStore {
    /// A store for 100,000 sessions.
    #[must_use]
    pub fn new() -> Self {
        Self::empty(DEFAULT_MAX_SESSIONS, Arc::new(SystemClock))
    }

    /// An empty store with room for this many sessions. A store that was made by [`new`](Self::new)
    /// has room for 100,000.
    ///
    /// Call this before you use the store. The sessions of the old store do not come along, and a
    /// clone that was made before is still the old store.
    #[must_use]
    #[doc(alias("with_capacity", "capacity"))]
    pub fn with_max_sessions(self, max: usize) -> Self {
        Self::empty(max, Arc::clone(&self.0.clock))
    }

    /// An empty store that removes expired sessions by this clock. Give it the layer's clock. A
    /// store that was made by [`new`](Self::new) has the system's clock.
    ///
    /// Call this before you use the store. The sessions of the old store do not come along, and a
    /// clone that was made before is still the old store.
    ///
    /// ```
    /// use cloakroom::{MemoryStore, SessionLayer, SigningKey, TestClock};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let clock = TestClock::new();
    /// let store = MemoryStore::new().with_clock(clock.clone());
    /// let layer = SessionLayer::builder(store, SigningKey::generate()?).clock(clock).build()?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn with_clock(self, clock: impl Clock) -> Self {
        Self::empty(self.0.max, Arc::new(clock))
    }

    fn empty(max: usize, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shards::new(max, clock)))
    }

    /// How many sessions there are, with expired ones that are not removed yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.count.load(Ordering::Relaxed)
    }

    /// Whether there is no session.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many visitors' sessions were evicted because the store was full and a new session needed
    /// room.
    ///
    /// If the number grows fast, bots are at work, or the store is too small.
    ///
    /// ```
    /// # use cloakroom::MemoryStore;
    /// let store = MemoryStore::new();
    /// assert_eq!(store.evicted(), 0);
    /// ```
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.0.evicted.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl SessionStore for MemoryStore {
    async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        let shard = self.0.read(id);
        Ok(shard.records.get(&id).cloned())
    }

    async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        let mut shard = self.0.write(id);
        // Only inserts make the store larger. The layer made the new record a moment ago. If nothing
        // was due at that moment, this insert does not read the clock, which takes long on virtual
        // machines.
        if shard.is_due(record.fields().created_at()) {
            self.0
                .remove_expired(&mut shard, self.0.clock.now(), REMOVED_BY_AN_INSERT);
        }
        let Entry::Vacant(place) = shard.records.entry(id) else {
            return Ok(false);
        };
        if !self.0.reserve_capacity() {
            // A call holds one shard's lock at a time. Two calls with two locks each could wait for
            // each other for ever.
            drop(shard);
            return self.0.insert_into_full(id, record);
        }
        place.insert(record.clone());
        self.0.index_new(&mut shard, id, record);
        self.0.listeners.changed(id);
        Ok(true)
    }

    async fn replace(
        &self,
        id: RecordId,
        expected: Version,
        record: &Record,
    ) -> Result<Replaced, StoreError> {
        let mut shard = self.0.write(id);
        let Some(stored) = shard.records.get_mut(&id) else {
            return Ok(Replaced::Missing);
        };
        if stored.version() != expected {
            return Ok(Replaced::Conflict);
        }
        let mut new = record.clone();
        if record.keeps_later_expiry() && stored.expires_at() > record.expires_at() {
            new.set_expires_at(stored.expires_at());
        }
        let (expires_at, is_visitors) = (new.expires_at(), is_visitor(&new));
        let old = std::mem::replace(stored, new);
        if expires_at < old.expires_at() || is_visitors != is_visitor(&old) {
            shard.schedule_expiry(id, is_visitors, expires_at);
        }
        self.0.reindex(id, Some(&old), Some(record));
        self.0.listeners.changed(id);
        Ok(Replaced::Done)
    }

    async fn touch(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        let mut shard = self.0.write(id);
        let stored = shard.records.get_mut(&id);
        let Some(stored) = stored.filter(|stored| stored.version() == record.version()) else {
            return Ok(false);
        };
        let expires_at = record.expires_at();
        let is_earlier = expires_at < stored.expires_at();
        let is_visitors = is_visitor(stored);
        stored.set_expires_at(expires_at);
        if is_earlier {
            shard.schedule_expiry(id, is_visitors, expires_at);
        }
        self.0.listeners.changed(id);
        Ok(true)
    }

    async fn remove(&self, id: RecordId) -> Result<bool, StoreError> {
        let mut shard = self.0.write(id);
        Ok(self.0.remove(&mut shard, id))
    }

    async fn purge_expired(&self, now: Timestamp) -> Result<u64, StoreError> {
        Ok(self.0.remove_all_expired(now))
    }

    fn session_feed(&self) -> Option<&dyn SessionFeed> {
        Some(self)
    }
}

/// It tells what happens in this process. Nothing else can change the store.
#[async_trait]
impl SessionFeed for MemoryStore {
    async fn subscribe(&self) -> Result<Feed, StoreError> {
        Ok(self.0.listeners.subscribe())
    }
}

#[async_trait]
impl UserIndex for MemoryStore {
    async fn find_by_user(&self, user: &UserId) -> Result<Vec<(RecordId, Record)>, StoreError> {
        let ids = self.0.ids_of(user);
        let record = |id| Some((id, self.0.read(id).records.get(&id)?.clone()));
        let is_theirs = |(_, record): &(RecordId, Record)| record.user() == Some(user);
        Ok(ids
            .into_iter()
            .filter_map(record)
            .filter(is_theirs)
            .collect())
    }

    async fn remove_by_user(
        &self,
        user: &UserId,
        except: Option<RecordId>,
    ) -> Result<u64, StoreError> {
        let ids = self.0.ids_of(user);
        let mut removed = 0;
        for id in ids.into_iter().filter(|id| Some(*id) != except) {
            let mut shard = self.0.write(id);
            let is_theirs = shard
                .records
                .get(&id)
                .is_some_and(|record| record.user() == Some(user));
            if is_theirs && self.0.remove(&mut shard, id) {
                removed += 1;
            }
        }
        Ok(removed)
    }
}

#[async_trait]
impl SessionCatalog for MemoryStore {
    async fn scan(
        &self,
        after: Option<&Cursor>,
        limit: usize,
        accept: &Accept<'_>,
    ) -> Result<Option<Scan>, StoreError> {
        Ok(IdWalk::new(after, limit, accept).map(|walk| self.0.scan(walk)))
    }

    async fn find_by_external_id(
        &self,
        external_id: &str,
    ) -> Result<Vec<(RecordId, Record)>, StoreError> {
        let ids = self.0.ids_of_external(external_id);
        let record = |id| Some((id, self.0.read(id).records.get(&id)?.clone()));
        let has_it = |(_, record): &(RecordId, Record)| record.external_id() == Some(external_id);
        Ok(ids.into_iter().filter_map(record).filter(has_it).collect())
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("sessions", &self.len())
            .field("max_sessions", &self.0.max)
            .field("evicted", &self.evicted())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordFields;
    use crate::record::data::Data;
    use crate::record::login::Login;
    use crate::record::secret_hash::SecretHash;
    use std::time::Duration;

    /// The entries of former expiries cannot be seen from outside.
    #[tokio::test]
    async fn expiries_that_move_to_and_fro_do_not_grow_the_store() -> Result<(), StoreError> {
        let store = MemoryStore::new();
        let now = SystemClock.now();
        let (soon, late) = (
            now + Duration::from_secs(60),
            now + Duration::from_secs(120),
        );
        let id = RecordId::from_bytes([0; 16]);
        let of = |login: Option<Login>| {
            let secret_hash = SecretHash::from_bytes([0; 16]);
            let mut fields = RecordFields::new(secret_hash, now, Data::default());
            if let Some(login) = login {
                fields.log_in(login);
            }
            fields.use_until(late, 1_800_000);
            Record::new(fields)
        };
        let record = of(None);
        let logged_in = of(Some(Login::plain(UserId::from(1), now)));
        store.insert(id, &record).await?;
        for _ in 0..1000 {
            store.replace(id, Version::FIRST, &logged_in).await?;
            for expires_at in [soon, late] {
                let moved = record.clone().with_expires_at(expires_at);
                store.touch(id, &moved).await?;
                store.replace(id, Version::FIRST, &moved).await?;
            }
            let moved = record.clone().with_expires_at(soon);
            store.replace(id, Version::FIRST, &moved).await?;
        }
        let shard = store.0.read(id);
        assert!(shard.visitors.len() + shard.logged_in.len() < 100);
        Ok(())
    }
}
