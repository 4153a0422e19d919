//! [`IdWalk`]: a scan of a store whose order follows from the ids.

use std::time::Instant;

use super::bounds::{LONGEST_LOOK, MOST_LOOKED_AT};
use super::{Accept, Cursor, Scan};
use crate::id::RecordId;
use crate::record::Record;

/// A [`scan`](super::SessionCatalog::scan) of a store whose order follows from the ids.
pub(crate) struct IdWalk<'a> {
    after: Option<RecordId>,
    limit: usize,
    accept: &'a Accept<'a>,
    records: Vec<(RecordId, Record)>,
    looked_at: usize,
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    part: usize,
    began: Instant,
}

impl<'a> IdWalk<'a> {
    /// The most records that a store reads at once. Each may have 64 KiB or more.
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    const LARGEST_PART: usize = 500;

    /// `None` if the cursor is not one of such a store.
    pub(crate) fn new(
        after: Option<&Cursor>,
        limit: usize,
        accept: &'a Accept<'a>,
    ) -> Option<Self> {
        let after = match after {
            None => None,
            Some(cursor) => Some(cursor.record()?),
        };
        Some(Self {
            after,
            limit: limit.max(1),
            accept,
            records: Vec::new(),
            looked_at: 0,
            #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
            part: limit.clamp(1, Self::LARGEST_PART),
            began: Instant::now(),
        })
    }

    /// The record behind which the store goes on.
    pub(crate) fn after(&self) -> Option<RecordId> {
        self.after
    }

    /// How many records the store should read next. Each part is larger than the one before: if one
    /// part was not enough, few records are accepted.
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    pub(crate) fn next_part(&mut self) -> usize {
        let part = self.part;
        self.part = (part * 2).min(Self::LARGEST_PART);
        part
    }

    /// Whether the call should end here, although other records follow.
    pub(crate) fn is_full(&self) -> bool {
        self.records.len() >= self.limit
            || self.looked_at >= MOST_LOOKED_AT
            || self.looked_at > 0 && self.began.elapsed() >= LONGEST_LOOK
    }

    /// Looks at the next record. `None` is a record that could not be decoded.
    pub(crate) fn look_at(&mut self, id: RecordId, record: Option<Record>) {
        self.after = Some(id);
        self.looked_at += 1;
        if let Some(record) = record
            && (self.accept)(id, &record)
        {
            self.records.push((id, record));
        }
    }

    /// The answer. `is_over` says whether the last record was looked at.
    pub(crate) fn finish(self, is_over: bool) -> Scan {
        let next = self.after.filter(|_| !is_over).map(Cursor::behind);
        Scan {
            records: self.records,
            next,
        }
    }
}
