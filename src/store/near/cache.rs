//! [`Cache`]: the rule of the near cache, without a task and without a store.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use quick_cache::sync::DefaultLifecycle;
use quick_cache::{DefaultHashBuilder, Weighter, sync};
use tokio::time::Instant;

use super::NearCacheStats;
use super::freshness::Freshness;
use super::moment::Moment;
use crate::error::StoreError;
use crate::events;
use crate::id::RecordId;
use crate::record::Record;
use crate::store::feed::Notice;

/// How long the cache remembers that there is no session of an id. A removed id stays removed. The
/// limit is for a database that somebody restores.
const REMEMBERED_AS_GONE: Duration = Duration::from_secs(60);

/// What an entry takes beside the record: its place in the cache's tables.
const ENTRY_SIZE: u64 = 128;

/// What a record takes on average, to size the cache's tables.
const USUAL_RECORD: u64 = 1024;

/// What the cache has of an id.
#[derive(Clone)]
enum Entry {
    Record(Record),
    /// There was no such session at this moment.
    Gone(Moment),
}

#[derive(Clone)]
struct SizeInBytes;

impl Weighter<RecordId, Entry> for SizeInBytes {
    fn weight(&self, _: &RecordId, entry: &Entry) -> u64 {
        match entry {
            Entry::Record(record) => ENTRY_SIZE + record.memory_size() as u64,
            Entry::Gone(_) => ENTRY_SIZE,
        }
    }
}

/// The records that somebody read lately, and whether the cache may answer with them.
///
/// A read first puts a placeholder into the cache, then asks the store, and then puts the answer in
/// the place of the placeholder. A notice that comes in between takes the placeholder away, and the
/// answer is not kept: it may be older than the change.
pub(super) struct Cache {
    entries: sync::Cache<RecordId, Entry, SizeInBytes>,
    freshness: Freshness,
    counts: [Counts; STRIPES],
}

/// How many groups of counts there are. Two threads that count at the same time seldom meet.
const STRIPES: usize = 16;

/// The counts of [`NearCacheStats`](super::NearCacheStats), for a part of the ids. Each group has
/// cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    bypasses: AtomicU64,
    invalidations: AtomicU64,
    gaps: AtomicU64,
}

impl Cache {
    /// A cache that nobody asks before `start`.
    pub(super) fn new(start: Instant, max_bytes: u64, max_stale: Duration) -> Self {
        let records = usize::try_from(max_bytes / USUAL_RECORD).unwrap_or(usize::MAX);
        Self {
            entries: sync::Cache::with(
                records,
                max_bytes,
                SizeInBytes,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            freshness: Freshness::new(start, max_stale),
            counts: Default::default(),
        }
    }

    /// The record of this id, from the cache or by `read`. Callers that miss the same record share
    /// one read.
    ///
    /// `now` is when the call begins. The cache answers if it is fresh at that time. A caller may
    /// also get the record of a read that another caller began: no notice of a change had come.
    pub(super) async fn load(
        &self,
        id: RecordId,
        now: Moment,
        read: impl Future<Output = Result<Option<Record>, StoreError>>,
    ) -> Result<Option<Record>, StoreError> {
        let counts = self.counts(id);
        if !self.freshness.may_answer(now) {
            counts.bypasses.fetch_add(1, Relaxed);
            return read.await;
        }
        let guard = match self.entries.get_value_or_guard_async(&id).await {
            Ok(Entry::Record(record)) => {
                counts.hits.fetch_add(1, Relaxed);
                return Ok(Some(record));
            }
            Ok(Entry::Gone(since)) if now.since(since) <= REMEMBERED_AS_GONE => {
                counts.hits.fetch_add(1, Relaxed);
                return Ok(None);
            }
            Ok(Entry::Gone(_)) => {
                counts.misses.fetch_add(1, Relaxed);
                self.entries.remove(&id);
                return read.await;
            }
            Err(guard) => guard,
        };
        counts.misses.fetch_add(1, Relaxed);
        let record = read.await?;
        let entry = match &record {
            Some(record) => Entry::Record(record.clone()),
            None => Entry::Gone(now),
        };
        // It fails if the placeholder is gone, and then the answer is not kept.
        let _ = guard.insert(entry);
        Ok(record)
    }

    /// Takes in a notice of the feed.
    pub(super) fn notice(&self, notice: Notice) {
        match notice {
            Notice::Changed(id) => {
                if self.forget(id) {
                    self.counts(id).invalidations.fetch_add(1, Relaxed);
                }
            }
            Notice::Gap => {
                // There is no id, so it counts with the first group.
                let [counts, ..] = &self.counts;
                counts.gaps.fetch_add(1, Relaxed);
                self.lose();
            }
            Notice::Pong(number) => self.freshness.answered(number),
        }
    }

    /// Sends a ping. `send` returns its number, and `clock` the time now.
    pub(super) fn ping(&self, clock: impl FnOnce() -> Moment, send: impl FnOnce() -> u64) {
        self.freshness.ping(clock, send);
    }

    /// Takes the record and the placeholder of this id away, because the record may have changed.
    /// Returns whether there was a record.
    pub(super) fn forget(&self, id: RecordId) -> bool {
        self.entries.remove(&id).is_some()
    }

    /// Forgets all records, and does not answer until the store answers a ping of after this call.
    pub(super) fn lose(&self) {
        self.freshness.lose();
        self.entries.clear();
        events::near_cache_emptied();
    }

    /// Does not answer until the store answers a ping of after this call. By then, the feed has
    /// reported all that happened before the call.
    pub(super) fn wait_for_feed(&self) {
        self.freshness.lose();
    }

    #[cfg(test)]
    pub(super) fn may_answer(&self, now: Moment) -> bool {
        self.freshness.may_answer(now)
    }

    #[expect(clippy::indexing_slicing, reason = "the index is a remainder")]
    fn counts(&self, id: RecordId) -> &Counts {
        &self.counts[usize::from(id.as_bytes()[0]) % STRIPES]
    }

    /// The sums of all counts.
    pub(super) fn stats(&self) -> NearCacheStats {
        let sum = |of: fn(&Counts) -> &AtomicU64| {
            self.counts
                .iter()
                .map(|counts| of(counts).load(Relaxed))
                .sum()
        };
        NearCacheStats {
            hits: sum(|counts| &counts.hits),
            misses: sum(|counts| &counts.misses),
            bypasses: sum(|counts| &counts.bypasses),
            invalidations: sum(|counts| &counts.invalidations),
            gaps: sum(|counts| &counts.gaps),
            entries: self.entries.len(),
            bytes: self.entries.weight(),
            is_fresh: self.freshness.may_answer(Moment::now()),
        }
    }
}
