//! [`Shards`]: all sessions of a store, and room for new ones.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::listeners::Listeners;
use super::shard::{Shard, is_visitor};
use crate::clock::{Clock, Timestamp};
use crate::error::StoreError;
use crate::events;
use crate::id::RecordId;
use crate::record::Record;
use crate::record::user::UserId;

/// More than the cores of a large machine, so that two requests seldom meet.
const SHARDS: usize = 64;

/// All sessions of a store.
pub(super) struct Shards {
    shards: [RwLock<Shard>; SHARDS],
    /// The record ids of each user. A lock of these is taken while a shard's lock is held, and
    /// never the other way round.
    users: [Mutex<HashMap<UserId, HashSet<RecordId>>>; SHARDS],
    /// How many records there are, with those for which capacity is reserved.
    pub(super) count: AtomicUsize,
    pub(super) max: usize,
    pub(super) evicted: AtomicU64,
    /// An insert that finds the store full waits for this lock, and holds it until its record is
    /// written. Without the lock, an insert could look at the store after a visitor's record was
    /// evicted and before the new record is written. It would find no visitor, and refuse a login.
    /// The lock is taken before a shard's lock, and never while a shard's lock is held.
    eviction: Mutex<()>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) listeners: Arc<Listeners>,
}

impl Shards {
    pub(super) fn new(max: usize, clock: Arc<dyn Clock>) -> Self {
        Self {
            shards: std::array::from_fn(|_| RwLock::default()),
            users: std::array::from_fn(|_| Mutex::default()),
            count: AtomicUsize::new(0),
            max,
            evicted: AtomicU64::new(0),
            eviction: Mutex::default(),
            clock,
            listeners: Arc::default(),
        }
    }

    #[expect(clippy::indexing_slicing, reason = "the index is a remainder")]
    fn shard(&self, id: RecordId) -> &RwLock<Shard> {
        &self.shards[usize::from(id.as_bytes()[0]) % SHARDS]
    }

    pub(super) fn read(&self, id: RecordId) -> RwLockReadGuard<'_, Shard> {
        read(self.shard(id))
    }

    pub(super) fn write(&self, id: RecordId) -> RwLockWriteGuard<'_, Shard> {
        write(self.shard(id))
    }

    #[expect(clippy::indexing_slicing, reason = "the index is a remainder")]
    fn users(&self, user: &UserId) -> MutexGuard<'_, HashMap<UserId, HashSet<RecordId>>> {
        use std::hash::BuildHasher as _;
        // An attacker may know which user is in which of these maps. Within a map, `HashMap`'s own
        // hashing has a secret key.
        let hash = BuildHasherDefault::<std::collections::hash_map::DefaultHasher>::default()
            .hash_one(user);
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        self.users[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the record is the user's.
    pub(super) fn index(&self, id: RecordId, user: &UserId) {
        self.users(user).entry(user.clone()).or_default().insert(id);
    }

    /// The ids are copied: a shard's lock must not be taken while a user's lock is held.
    pub(super) fn ids_of(&self, user: &UserId) -> Vec<RecordId> {
        let users = self.users(user);
        users.get(user).into_iter().flatten().copied().collect()
    }

    /// Notes that the record is not the user's any more.
    pub(super) fn unindex(&self, id: RecordId, user: &UserId) {
        if let Entry::Occupied(mut ids) = self.users(user).entry(user.clone()) {
            ids.get_mut().remove(&id);
            if ids.get().is_empty() {
                ids.remove();
            }
        }
    }

    pub(super) fn remove(&self, shard: &mut Shard, id: RecordId) -> bool {
        let Some(record) = shard.records.remove(&id) else {
            return false;
        };
        self.count.fetch_sub(1, Ordering::Relaxed);
        if let Some(user) = record.user() {
            self.unindex(id, user);
        }
        self.listeners.changed(id);
        shard.compact();
        true
    }

    /// Looks at up to `max` records of visitors that may have expired, and at as many records of
    /// users. Removes those that have, and says how many.
    pub(super) fn remove_expired(&self, shard: &mut Shard, now: Timestamp, max: usize) -> u64 {
        let of = |of_visitors, shard: &mut Shard| {
            let mut removed = 0;
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
                        removed += 1;
                    }
                    Some(expires_at) => shard.expiries(of_visitors).push(Reverse((expires_at, id))),
                }
            }
            removed
        };
        of(true, shard) + of(false, shard)
    }

    /// Removes all records that have expired, and says how many.
    pub(super) fn remove_all_expired(&self, now: Timestamp) -> u64 {
        let remove = |lock: &RwLock<Shard>| {
            // Mostly nothing is due, and then no read has to wait.
            if !read(lock).is_due(now) {
                return 0;
            }
            let mut shard = write(lock);
            let all = shard.visitors.len().max(shard.logged_in.len());
            self.remove_expired(&mut shard, now, all)
        };
        self.shards.iter().map(remove).sum()
    }

    /// Takes out the visitor's record that expires first of all. The caller has its capacity.
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
            // That record may have been used since, or may be gone. Then another record expires
            // first.
            if let Some(id) = write(lock).take_visitor(latest) {
                return Some(id);
            }
        }
    }

    /// Notes when a new record expires, and whose it is. The caller has reserved the capacity for
    /// the record, and has written it.
    pub(super) fn index_new(&self, shard: &mut Shard, id: RecordId, record: &Record) {
        shard.schedule_expiry(id, is_visitor(record), record.expires_at());
        if let Some(user) = record.user() {
            self.index(id, user);
        }
    }

    /// Reserves the capacity for one more record, if there is any.
    pub(super) fn reserve_capacity(&self) -> bool {
        let reserved = self
            .count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < self.max).then_some(count + 1)
            });
        reserved.is_ok()
    }

    /// Writes a new record into a store that was full. The answer is `false` if the id is taken.
    pub(super) fn insert_into_full(
        &self,
        id: RecordId,
        record: &Record,
    ) -> Result<bool, StoreError> {
        let eviction = self.eviction.lock().unwrap_or_else(PoisonError::into_inner);
        let mut evicted = None;
        if !self.reserve_capacity()
            && (self.remove_all_expired(self.clock.now()) == 0 || !self.reserve_capacity())
        {
            evicted = self.evict();
            if evicted.is_none() {
                return Err(StoreError::new(format!(
                    "the memory store is full with {} logged-in sessions; give it room for more \
                     with `MemoryStore::with_max_sessions`",
                    self.max
                )));
            }
        }
        let mut shard = self.write(id);
        let is_new = !shard.records.contains_key(&id);
        if is_new {
            shard.records.insert(id, record.clone());
            self.index_new(&mut shard, id, record);
            self.listeners.changed(id);
        } else {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        drop(shard);
        drop(eviction);
        if let Some(evicted) = evicted {
            let count = self.evicted.fetch_add(1, Ordering::Relaxed) + 1;
            self.listeners.changed(evicted);
            events::evicted(evicted, count);
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
