//! [`MemoryStore`]: sessions in this process.

use std::cmp::Reverse;
use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BinaryHeap, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::StoreError;
use crate::record::{Record, UserId, Version};
use crate::store::{Replaced, SessionStore, UserIndex};
use crate::token::RecordId;

/// More than the cores of a large machine, so that two requests seldom meet.
const SHARDS: usize = 64;

/// How many expired records of its shard a new one collects at most, so that none takes long.
const COLLECTED_BY_AN_INSERT: usize = 4;

/// Sessions in this process: for one node, for development and for tests. They end with the process.
///
/// It is bounded: once it is full, new sessions fail with a 503 while the present ones go on. Expired sessions are collected
/// as new ones are made, so that nothing has to purge it. A read copies no data. Clones share one store.
///
/// ```
/// use cloakroom::MemoryStore;
///
/// let store = MemoryStore::new();
/// let large = MemoryStore::with_max_sessions(2_000_000);
/// ```
#[derive(Clone)]
pub struct MemoryStore(Arc<Inner>);

struct Inner {
    shards: [RwLock<Shard>; SHARDS],
    /// The record ids of each user. Its lock is taken under a shard's lock, never the other way round.
    users: [Mutex<HashMap<UserId, HashSet<RecordId>>>; SHARDS],
    count: AtomicUsize,
    max: usize,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Shard {
    records: HashMap<RecordId, Record, BuildHasherDefault<IdHasher>>,
    /// When to look at which record. A record's expiry may have moved since; then it is looked at again.
    expiries: BinaryHeap<Reverse<(Timestamp, RecordId)>>,
}

impl Shard {
    /// Looks at the record when it expires.
    fn watch(&mut self, id: RecordId, expires_at: Timestamp) {
        self.expiries.push(Reverse((expires_at, id)));
        self.compact();
    }

    /// What is left of removed records and of former expiries must not outgrow the live records.
    fn compact(&mut self) {
        if self.expiries.len() > 2 * self.records.len() + 64 {
            let records = self.records.iter();
            self.expiries = records
                .map(|(id, record)| Reverse((record.expires_at(), *id)))
                .collect();
        }
    }
}

/// A record id is random, so it is its own hash.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // The length comes first, and then the id, whose last bytes are the ones that the shards are not chosen by.
        if let Some(tail) = bytes.last_chunk() {
            self.0 = u64::from_ne_bytes(*tail);
        }
    }
}

impl MemoryStore {
    /// A store for 100,000 sessions.
    #[must_use]
    pub fn new() -> Self {
        Self::with_max_sessions(100_000)
    }

    /// A store for this many sessions.
    #[must_use]
    pub fn with_max_sessions(max: usize) -> Self {
        Self::with_clock(max, SystemClock)
    }

    /// A store that collects what has expired by this clock, which should be the layer's.
    #[must_use]
    pub fn with_clock(max_sessions: usize, clock: impl Clock) -> Self {
        Self(Arc::new(Inner {
            shards: std::array::from_fn(|_| RwLock::default()),
            users: std::array::from_fn(|_| Mutex::default()),
            count: AtomicUsize::new(0),
            max: max_sessions,
            clock: Arc::new(clock),
        }))
    }

    /// How many sessions there are, expired ones that are not collected yet among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.count.load(Ordering::Relaxed)
    }

    /// Whether there is no session.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    #[expect(clippy::indexing_slicing, reason = "the index is a remainder")]
    fn shard(&self, id: RecordId) -> &RwLock<Shard> {
        &self.shards[usize::from(id.as_bytes()[0]) % SHARDS]
    }

    fn read(&self, id: RecordId) -> RwLockReadGuard<'_, Shard> {
        self.shard(id)
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, id: RecordId) -> RwLockWriteGuard<'_, Shard> {
        self.shard(id)
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::indexing_slicing, reason = "the index is a remainder")]
    fn users(&self, user: &UserId) -> MutexGuard<'_, HashMap<UserId, HashSet<RecordId>>> {
        use std::hash::BuildHasher as _;
        // Which user is in which shard need not be a secret; within it, `HashMap`'s own hashing keeps floods away.
        let hash = BuildHasherDefault::<std::collections::hash_map::DefaultHasher>::default()
            .hash_one(user);
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        self.users[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, id: RecordId, user: &UserId) {
        self.users(user).entry(user.clone()).or_default().insert(id);
    }

    /// Copied, since a user's lock is not held while a shard's is taken.
    fn ids_of(&self, user: &UserId) -> Vec<RecordId> {
        let users = self.users(user);
        users.get(user).into_iter().flatten().copied().collect()
    }

    fn unfile(&self, id: RecordId, user: &UserId) {
        if let Entry::Occupied(mut ids) = self.users(user).entry(user.clone()) {
            ids.get_mut().remove(&id);
            if ids.get().is_empty() {
                ids.remove();
            }
        }
    }

    fn remove(&self, shard: &mut Shard, id: RecordId) -> bool {
        let Some(record) = shard.records.remove(&id) else {
            return false;
        };
        self.count.fetch_sub(1, Ordering::Relaxed);
        if let Some(user) = record.user() {
            self.unfile(id, user);
        }
        shard.compact();
        true
    }

    /// Removes up to `max` records that have expired, and says how many.
    fn collect(&self, shard: &mut Shard, now: Timestamp, max: usize) -> u64 {
        let mut collected = 0;
        for _ in 0..max {
            match shard.expiries.peek() {
                Some(Reverse((time, _))) if *time <= now => {}
                _ => break,
            }
            let Some(Reverse((_, id))) = shard.expiries.pop() else {
                break;
            };
            match shard.records.get(&id).map(|record| record.expires_at()) {
                None => {}
                Some(expires_at) if expires_at <= now => {
                    self.remove(shard, id);
                    collected += 1;
                }
                Some(expires_at) => shard.expiries.push(Reverse((expires_at, id))),
            }
        }
        collected
    }

    /// Removes all records that have expired, and says how many.
    fn collect_all(&self, now: Timestamp) -> u64 {
        let collect = |shard: &RwLock<Shard>| {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let all = shard.expiries.len();
            self.collect(&mut shard, now, all)
        };
        self.shards.iter().map(collect).sum()
    }

    /// Keeps a new record, whose place is taken.
    fn put(&self, shard: &mut Shard, id: RecordId, record: &Record) {
        shard.records.insert(id, record.clone());
        shard.watch(id, record.expires_at());
        if let Some(user) = record.user() {
            self.file(id, user);
        }
    }

    /// Counts one more record, if there is room.
    fn take_place(&self) -> bool {
        let taken = self
            .count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < self.max).then_some(count + 1)
            });
        taken.is_ok()
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
        // The store grows by inserts alone.
        self.0
            .collect(&mut shard, self.0.clock.now(), COLLECTED_BY_AN_INSERT);
        if shard.records.contains_key(&id) {
            return Ok(false);
        }
        if !self.0.take_place() {
            // One lock at a time, or two of these would wait for each other.
            drop(shard);
            self.0.collect_all(self.0.clock.now());
            if !self.0.take_place() {
                return Err(StoreError::message(format!(
                    "the memory store is full with {} sessions; make it with `MemoryStore::with_max_sessions`",
                    self.0.max
                )));
            }
            shard = self.0.write(id);
            if shard.records.contains_key(&id) {
                self.0.count.fetch_sub(1, Ordering::Relaxed);
                return Ok(false);
            }
        }
        self.0.put(&mut shard, id, record);
        Ok(true)
    }

    async fn replace(
        &self,
        id: RecordId,
        expected: Version,
        record: &Record,
    ) -> Result<Replaced, StoreError> {
        let mut shard = self.0.write(id);
        let Some(old) = shard.records.get_mut(&id) else {
            return Ok(Replaced::Missing);
        };
        if old.version() != expected {
            return Ok(Replaced::Conflict);
        }
        let old = std::mem::replace(old, record.clone());
        if record.expires_at() < old.expires_at() {
            shard.watch(id, record.expires_at());
        }
        if old.user() != record.user() {
            if let Some(user) = old.user() {
                self.0.unfile(id, user);
            }
            if let Some(user) = record.user() {
                self.0.file(id, user);
            }
        }
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
        stored.set_expires_at(expires_at);
        if is_earlier {
            shard.watch(id, expires_at);
        }
        Ok(true)
    }

    async fn remove(&self, id: RecordId) -> Result<bool, StoreError> {
        let mut shard = self.0.write(id);
        Ok(self.0.remove(&mut shard, id))
    }

    async fn purge_expired(&self, now: Timestamp) -> Result<u64, StoreError> {
        Ok(self.0.collect_all(now))
    }
}

#[async_trait]
impl UserIndex for MemoryStore {
    async fn sessions_of(&self, user: &UserId) -> Result<Vec<(RecordId, Record)>, StoreError> {
        let ids = self.0.ids_of(user);
        let record = |id| Some((id, self.0.read(id).records.get(&id)?.clone()));
        let is_theirs = |(_, record): &(RecordId, Record)| record.user() == Some(user);
        Ok(ids
            .into_iter()
            .filter_map(record)
            .filter(is_theirs)
            .collect())
    }

    async fn remove_all_of(
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
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Content;
    use crate::token::SecretHash;
    use std::time::Duration;

    /// What the store remembers of former expiries cannot be seen from outside.
    #[tokio::test]
    async fn expiries_that_move_to_and_fro_do_not_grow_the_store() -> Result<(), StoreError> {
        let store = MemoryStore::new();
        let now = SystemClock.now();
        let (soon, late) = (
            now + Duration::from_secs(60),
            now + Duration::from_secs(120),
        );
        let id = RecordId::from_bytes([0; 16]);
        let record = Record::new(Content {
            version: Version::FIRST,
            secret_hash: SecretHash::from_bytes([0; 16]),
            login: None,
            created_at: now,
            expires_at: late,
            token_replaced_at: None,
            remember: false,
            client: None,
            data: crate::data::Data::default(),
            #[cfg(feature = "memcached")]
            loaded_cas: None,
        });
        store.insert(id, &record).await?;
        for _ in 0..1000 {
            for expires_at in [soon, late] {
                let moved = record.clone().with_expires_at(expires_at);
                store.touch(id, &moved).await?;
                store.replace(id, Version::FIRST, &moved).await?;
            }
            let moved = record.clone().with_expires_at(soon);
            store.replace(id, Version::FIRST, &moved).await?;
        }
        assert!(store.0.read(id).expiries.len() < 100);
        Ok(())
    }
}
