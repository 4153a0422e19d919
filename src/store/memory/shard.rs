//! [`Shard`]: a part of the sessions, and when they expire.

use std::cmp::Reverse;
use std::collections::binary_heap::{BinaryHeap, PeekMut};

use crate::clock::Timestamp;
use crate::id::RecordId;
use crate::id::maps::IdMap;
use crate::record::Record;

/// How many entries one look for the oldest visitor's record goes through, so that no look holds
/// the shard's lock for long.
const LOOKED_AT_ONCE: usize = 256;

/// A part of the sessions, chosen by their ids. Each shard has a lock of its own.
#[derive(Default)]
pub(super) struct Shard {
    pub(super) records: IdMap<Record>,
    /// When to look at which visitor's record. Each record without a user is here.
    pub(super) visitors: Expiries,
    /// When to look at which user's record. Each record with a user is here.
    pub(super) logged_in: Expiries,
}

/// When to look at which record, the earliest first.
///
/// The store looks at a record when it expires, or earlier. A record whose expiry has moved, or
/// that is gone, may still have old entries here. The store notices this when it looks at the
/// record.
pub(super) type Expiries = BinaryHeap<Reverse<(Timestamp, RecordId)>>;

/// Whether nobody has logged in. A visitor's record may be evicted.
pub(super) fn is_visitor(record: &Record) -> bool {
    record.user().is_none()
}

impl Shard {
    pub(super) fn expiries(&mut self, of_visitors: bool) -> &mut Expiries {
        if of_visitors {
            &mut self.visitors
        } else {
            &mut self.logged_in
        }
    }

    /// Has the store look at the record when it expires.
    pub(super) fn schedule_expiry(
        &mut self,
        id: RecordId,
        is_visitor: bool,
        expires_at: Timestamp,
    ) {
        self.expiries(is_visitor).push(Reverse((expires_at, id)));
        self.compact();
    }

    /// Drops the entries of removed records and of former expiries, if there are more of them than
    /// live records.
    pub(super) fn compact(&mut self) {
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

    /// No visitor's record expires before this.
    pub(super) fn first_visitor(&self) -> Option<Timestamp> {
        self.visitors.peek().map(|Reverse((time, _))| *time)
    }

    /// Whether a record may have expired.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let is_due = |expiries: &Expiries| {
            expiries
                .peek()
                .is_some_and(|Reverse((time, _))| *time <= now)
        };
        is_due(&self.visitors) || is_due(&self.logged_in)
    }

    /// Takes out the visitor's record that expires first, if it expires at `latest` or before.
    /// `None` may also mean that the caller has to ask again.
    pub(super) fn take_visitor(&mut self, latest: Timestamp) -> Option<RecordId> {
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
