//! [`MemoryStore`]: sessions in this process.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::collections::binary_heap::{BinaryHeap, PeekMut};
use std::collections::hash_map::{Entry, HashMap};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::StoreError;
use crate::record::{Record, UserId, Version};
use crate::report;
use crate::store::{Replaced, SessionStore, UserIndex};
use crate::token::RecordId;

/// More than the cores of a large machine, so that two requests seldom meet.
const SHARDS: usize = 64;

/// How many expired records of its shard a new one collects at most, so that none takes long.
const COLLECTED_BY_AN_INSERT: usize = 4;

/// How many visitors' records of a shard one look for the oldest goes through, so that none holds
/// its lock for long.
const LOOKED_AT_ONCE: usize = 256;

/// Sessions in this process: for one node, for development and for tests. They end with the process.
///
/// It is bounded. Once it is full, a new session takes the place of a visitor's, whether it is a
/// visitor's itself or a login: of the one that was not used for longest, which is the one that
/// would expire next. So a bot that puts something into very many sessions locks nobody out. A
/// logged-in session is never evicted: where there are no others, new ones fail with a 503 while
/// the present ones go on. [`evicted`](Self::evicted) counts, and each is an event.
///
/// Expired sessions go first. They are collected as new ones are made, so that nothing has to purge
/// the store. A read copies no data. Clones share one store.
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
    /// The records, and the places that are taken for one which is about to be put.
    count: AtomicUsize,
    max: usize,
    evicted: AtomicU64,
    /// Whoever finds the store full waits here for a turn, and puts the record before the next one
    /// looks. Without it, a place could be nobody's for a moment, between a visitor's record that
    /// went and one that comes, and a login would be refused though visitors have places. It is
    /// taken before a shard's lock, never under one.
    turn: Mutex<()>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Shard {
    records: HashMap<RecordId, Record, BuildHasherDefault<IdHasher>>,
    /// When to look at which record of a visitor, and at which of a user. Each record is in the one
    /// that it belongs to.
    visitors: Expiries,
    logged_in: Expiries,
}

/// When to look at which record, the earliest first. Never later than the record expires: where its
/// expiry has moved, or it has gone, that is found out when it is looked at.
type Expiries = BinaryHeap<Reverse<(Timestamp, RecordId)>>;

/// Whether nobody has logged in, so that the record may be evicted.
fn is_visitor(record: &Record) -> bool {
    record.user().is_none()
}

impl Shard {
    fn expiries(&mut self, of_visitors: bool) -> &mut Expiries {
        if of_visitors {
            &mut self.visitors
        } else {
            &mut self.logged_in
        }
    }

    /// Looks at the record when it expires.
    fn watch(&mut self, id: RecordId, is_visitor: bool, expires_at: Timestamp) {
        self.expiries(is_visitor).push(Reverse((expires_at, id)));
        self.compact();
    }

    /// What is left of removed records and of former expiries must not outgrow the live records.
    fn compact(&mut self) {
        if self.visitors.len() + self.logged_in.len() > 2 * self.records.len() + 64 {
            let expiries = |of_visitors| {
                let records = self.records.iter();
                records
                    .filter(|(_, record)| is_visitor(record) == of_visitors)
                    .map(|(id, record)| Reverse((record.expires_at(), *id)))
                    .collect()
            };
            (self.visitors, self.logged_in) = (expiries(true), expiries(false));
        }
    }

    /// No record of a visitor expires before this.
    fn first_visitor(&self) -> Option<Timestamp> {
        self.visitors.peek().map(|Reverse((time, _))| *time)
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let is_due = |expiries: &Expiries| {
            expiries
                .peek()
                .is_some_and(|Reverse((time, _))| *time <= now)
        };
        is_due(&self.visitors) || is_due(&self.logged_in)
    }

    /// Takes out the visitor's record that expires first, if it does so at `latest` or before.
    /// `None` may also mean that it takes another look.
    fn take_visitor(&mut self, latest: Timestamp) -> Option<RecordId> {
        for _ in 0..LOOKED_AT_ONCE {
            let mut first = self.visitors.peek_mut()?;
            let Reverse((time, id)) = *first;
            let record = self.records.get(&id).filter(|record| is_visitor(record));
            match record.map(Record::expires_at) {
                Some(expires_at) if expires_at != time => *first = Reverse((expires_at, id)),
                Some(_) if time > latest => return None,
                Some(_) => {
                    PeekMut::pop(first);
                    self.records.remove(&id);
                    return Some(id);
                }
                None => {
                    PeekMut::pop(first);
                }
            }
        }
        None
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
            evicted: AtomicU64::new(0),
            turn: Mutex::default(),
            clock: Arc::new(clock),
        }))
    }

    /// How many sessions there are, expired ones that are not collected yet among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.count.load(Ordering::Relaxed)
    }

    /// How many visitors' sessions were evicted, since the store was full and a new one needed the
    /// place.
    ///
    /// More and more of them tell of bots, or of a store that is too small.
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
        read(self.shard(id))
    }

    fn write(&self, id: RecordId) -> RwLockWriteGuard<'_, Shard> {
        write(self.shard(id))
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

    /// Looks at up to `max` records of visitors, and as many others, that may have expired. Removes
    /// those that have, and says how many.
    fn collect(&self, shard: &mut Shard, now: Timestamp, max: usize) -> u64 {
        let of = |of_visitors, shard: &mut Shard| {
            let mut collected = 0;
            for _ in 0..max {
                match shard.expiries(of_visitors).peek() {
                    Some(Reverse((time, _))) if *time <= now => {}
                    _ => break,
                }
                let Some(Reverse((_, id))) = shard.expiries(of_visitors).pop() else {
                    break;
                };
                let record = shard.records.get(&id);
                let record = record.filter(|record| is_visitor(record) == of_visitors);
                match record.map(Record::expires_at) {
                    None => {}
                    Some(expires_at) if expires_at <= now => {
                        self.remove(shard, id);
                        collected += 1;
                    }
                    Some(expires_at) => shard.expiries(of_visitors).push(Reverse((expires_at, id))),
                }
            }
            collected
        };
        of(true, shard) + of(false, shard)
    }

    /// Removes all records that have expired, and says how many.
    fn collect_all(&self, now: Timestamp) -> u64 {
        let collect = |lock: &RwLock<Shard>| {
            // Mostly, nothing is due, and then nobody's read has to wait.
            if !read(lock).is_due(now) {
                return 0;
            }
            let mut shard = write(lock);
            let all = shard.visitors.len().max(shard.logged_in.len());
            self.collect(&mut shard, now, all)
        };
        self.shards.iter().map(collect).sum()
    }

    /// Takes out the visitor's record that expires first of all, and leaves its place to the
    /// caller.
    fn evict(&self) -> Option<RecordId> {
        loop {
            let mut first = None;
            let mut latest = Timestamp::from_millis(u64::MAX);
            for lock in &self.shards {
                let Some(time) = read(lock).first_visitor() else {
                    continue;
                };
                match first {
                    Some((earliest, _)) if time >= earliest => latest = latest.min(time),
                    Some((earliest, _)) => {
                        latest = earliest;
                        first = Some((time, lock));
                    }
                    None => first = Some((time, lock)),
                }
            }
            let (_, lock) = first?;
            // Where that shard's first one has been used since, or has gone, another one is the
            // first of all.
            if let Some(id) = write(lock).take_visitor(latest) {
                return Some(id);
            }
        }
    }

    /// Keeps a new record, whose place is taken.
    fn put(&self, shard: &mut Shard, id: RecordId, record: &Record) {
        shard.records.insert(id, record.clone());
        shard.watch(id, is_visitor(record), record.expires_at());
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

    /// Keeps a new record in a store that was full. `false` where the id is taken.
    fn insert_into_full(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut evicted = None;
        if !self.take_place() && (self.collect_all(self.clock.now()) == 0 || !self.take_place()) {
            evicted = self.evict();
            if evicted.is_none() {
                return Err(StoreError::message(format!(
                    "the memory store is full with {} logged-in sessions; make it with `MemoryStore::with_max_sessions`",
                    self.max
                )));
            }
        }
        let mut shard = self.write(id);
        let is_new = !shard.records.contains_key(&id);
        if is_new {
            self.put(&mut shard, id, record);
        } else {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        drop(shard);
        drop(turn);
        if let Some(evicted) = evicted {
            let count = self.evicted.fetch_add(1, Ordering::Relaxed) + 1;
            report::evicted(evicted, count);
        }
        Ok(is_new)
    }
}

fn read(shard: &RwLock<Shard>) -> RwLockReadGuard<'_, Shard> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(shard: &RwLock<Shard>) -> RwLockWriteGuard<'_, Shard> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
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
            // One shard's lock at a time, or two of these would wait for each other.
            drop(shard);
            return self.0.insert_into_full(id, record);
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
        let (expires_at, is_a_visitors) = (new.expires_at(), is_visitor(&new));
        let old = std::mem::replace(stored, new);
        if expires_at < old.expires_at() || is_a_visitors != is_visitor(&old) {
            shard.watch(id, is_a_visitors, expires_at);
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
        let is_a_visitors = is_visitor(stored);
        stored.set_expires_at(expires_at);
        if is_earlier {
            shard.watch(id, is_a_visitors, expires_at);
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
            .field("evicted", &self.evicted())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Content, Login};
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
        let of = |login| {
            Record::new(Content {
                version: Version::FIRST,
                secret_hash: SecretHash::from_bytes([0; 16]),
                login,
                created_at: now,
                expires_at: late,
                idle_timeout: 1_800_000,
                token_replaced_at: None,
                remember: false,
                client: None,
                data: crate::data::Data::default(),
                keeps_later_expiry: false,
                #[cfg(feature = "memcached")]
                loaded_cas: None,
            })
        };
        let record = of(None);
        let user = UserId::from("ada");
        let logged_in = of(Some(Login { user, at: now }));
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
