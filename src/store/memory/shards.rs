//! [`Shards`]: all sessions of a store, and room for new ones.

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hash};
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
use crate::store::catalog::Scan;
use crate::store::catalog::walk::IdWalk;

/// More than the cores of a large machine, so that two requests seldom meet.
const SHARDS: usize = 64;

/// All sessions of a store.
pub(super) struct Shards {
    shards: [RwLock<Shard>; SHARDS],
    /// The record ids of each user. A lock of these is taken while a shard's lock is held, and
    /// never the other way round.
    users: [Mutex<HashMap<UserId, HashSet<RecordId>>>; SHARDS],
    /// The record ids of each external id. This lock is taken in the same order as one of `users`.
    external_ids: Mutex<HashMap<Box<str>, HashSet<RecordId>>>,
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
            external_ids: Mutex::default(),
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
        &self.shards[number_of(id)]
    }

    /// Looks at the records that follow in the walk: the order is that of the shards, and in a
    /// shard that of the ids. Each shard is read by itself, so that no write waits for all of them.
    pub(super) fn scan(&self, mut walk: IdWalk<'_>) -> Scan {
        let first = walk.after().map_or(0, number_of);
        for lock in self.shards.iter().skip(first) {
            if walk.is_full() {
                return walk.finish(false);
            }
            let mut part: Vec<_> = {
                let shard = read(lock);
                let after = walk.after();
                let follows = |id: RecordId| after.is_none_or(|after| place(after) < place(id));
                let records = shard.records.iter().filter(|(id, _)| follows(**id));
                records.map(|(id, record)| (*id, record.clone())).collect()
            };
            part.sort_unstable_by_key(|(id, _)| *id);
            for (id, record) in part {
                if walk.is_full() {
                    return walk.finish(false);
                }
                walk.look_at(id, Some(record));
            }
        }
        walk.finish(true)
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

    /// Changes the indexes for a record that is new, changed or removed: those of users and of
    /// external ids.
    pub(super) fn reindex(&self, id: RecordId, old: Option<&Record>, new: Option<&Record>) {
        let users = [old.and_then(Record::user), new.and_then(Record::user)];
        if users[0] != users[1] {
            let [old, new] = users;
            if let Some(user) = old {
                take_out(&mut self.users(user), user, id);
            }
            if let Some(user) = new {
                self.users(user).entry(user.clone()).or_default().insert(id);
            }
        }
        let external_ids = [old, new].map(|record| record.and_then(Record::external_id));
        if external_ids[0] != external_ids[1] {
            let [old, new] = external_ids;
            let mut of_external_ids = self.external_ids();
            if let Some(external_id) = old {
                take_out(&mut of_external_ids, external_id, id);
            }
            if let Some(external_id) = new {
                let ids = of_external_ids.entry(external_id.into()).or_default();
                ids.insert(id);
            }
        }
    }

    fn external_ids(&self) -> MutexGuard<'_, HashMap<Box<str>, HashSet<RecordId>>> {
        self.external_ids
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The ids are copied, as those of a user.
    pub(super) fn ids_of_external(&self, external_id: &str) -> Vec<RecordId> {
        let of_external_ids = self.external_ids();
        let ids = of_external_ids.get(external_id);
        ids.into_iter().flatten().copied().collect()
    }

    /// The ids are copied: a shard's lock must not be taken while a user's lock is held.
    pub(super) fn ids_of(&self, user: &UserId) -> Vec<RecordId> {
        let users = self.users(user);
        users.get(user).into_iter().flatten().copied().collect()
    }

    pub(super) fn remove(&self, shard: &mut Shard, id: RecordId) -> bool {
        let Some(record) = shard.records.remove(&id) else {
            return false;
        };
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.reindex(id, Some(&record), None);
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
        self.reindex(id, None, Some(record));
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

/// Which shard a record is in.
fn number_of(id: RecordId) -> usize {
    usize::from(id.as_bytes()[0]) % SHARDS
}

/// The place of a record in a walk through all records.
fn place(id: RecordId) -> (usize, RecordId) {
    (number_of(id), id)
}

/// Takes a record out of the ids of a key.
fn take_out<Q, K>(ids_by: &mut HashMap<K, HashSet<RecordId>>, key: &Q, id: RecordId)
where
    Q: Hash + Eq + ?Sized,
    K: Borrow<Q> + Hash + Eq,
{
    if let Some(ids) = ids_by.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            ids_by.remove(key);
        }
    }
}

fn read(shard: &RwLock<Shard>) -> RwLockReadGuard<'_, Shard> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(shard: &RwLock<Shard>) -> RwLockWriteGuard<'_, Shard> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}
