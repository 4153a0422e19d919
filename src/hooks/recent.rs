//! [`RecentIds`]: a bounded set of record ids.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::id::RecordId;

/// A set of the ids that were added last. An older id makes room for a new one.
#[derive(Debug, Default)]
pub(super) struct RecentIds(Mutex<Ids>);

#[derive(Debug, Default)]
struct Ids {
    known: HashSet<RecordId>,
    /// The same ids, from the oldest to the newest.
    order: VecDeque<RecordId>,
}

impl RecentIds {
    const MAX: usize = 4096;

    /// Adds an id. Returns whether it is new.
    pub(super) fn insert(&self, id: RecordId) -> bool {
        let mut ids = self.lock();
        let is_new = ids.known.insert(id);
        if is_new {
            ids.order.push_back(id);
            if ids.order.len() > Self::MAX
                && let Some(oldest) = ids.order.pop_front()
            {
                ids.known.remove(&oldest);
            }
        }
        is_new
    }

    pub(super) fn remove(&self, id: RecordId) {
        let mut ids = self.lock();
        if ids.known.remove(&id) {
            ids.order.retain(|known| *known != id);
        }
    }

    pub(super) fn contains(&self, id: RecordId) -> bool {
        self.lock().known.contains(&id)
    }

    /// No code of the application runs while this lock is held. So the ids of a poisoned lock are
    /// whole.
    fn lock(&self) -> MutexGuard<'_, Ids> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> RecordId {
        RecordId::from_bytes((number as u128).to_be_bytes())
    }

    #[test]
    fn an_id_is_new_once_and_the_oldest_makes_room() {
        let ids = RecentIds::default();
        for number in 0..RecentIds::MAX {
            assert!(ids.insert(id(number)));
            assert!(!ids.insert(id(number)));
        }
        assert!(ids.contains(id(0)));
        assert!(ids.insert(id(RecentIds::MAX)));
        assert!(!ids.contains(id(0)));
        assert!(ids.contains(id(1)));
        ids.remove(id(1));
        assert!(!ids.contains(id(1)));
        let ids = ids.lock();
        assert_eq!(ids.known.len(), RecentIds::MAX - 1);
        assert_eq!(ids.order.len(), RecentIds::MAX - 1);
    }
}
