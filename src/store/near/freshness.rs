//! [`Freshness`]: whether the cache may answer now.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;

use super::moment::Moment;

/// How many pings without an answer are kept. A store that answers none for so long is gone.
const MAX_PINGS: usize = 64;

const NEVER: u64 = u64::MAX;

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).map_or(NEVER - 1, |nanos| nanos.min(NEVER - 1))
}

/// Whether the cache may answer now: only if the last answered ping was *sent* at most `max_stale`
/// ago.
///
/// The answer to a ping comes after the notices of all that happened before the ping. So what the
/// cache has was current when the ping was sent, or later.
pub(super) struct Freshness {
    start: Instant,
    max_stale: u64,
    /// When the last answered ping was sent, by the two clocks: in nanoseconds since `start`, and
    /// since the Unix epoch. [`NEVER`] if no answered ping counts.
    ///
    /// Each read looks at these, so there is no lock. A read that sees one of them from before and
    /// the other from after is right as well: each of the two clocks has its own proof.
    steady: AtomicU64,
    wall: AtomicU64,
    pings: Mutex<Pings>,
}

/// The pings without an answer, the oldest first, and when they were sent.
type Pings = VecDeque<(u64, Moment)>;

impl Freshness {
    pub(super) fn new(start: Instant, max_stale: Duration) -> Self {
        Self {
            start,
            max_stale: nanos(max_stale),
            steady: AtomicU64::new(NEVER),
            wall: AtomicU64::new(NEVER),
            pings: Mutex::default(),
        }
    }

    pub(super) fn may_answer(&self, now: Moment) -> bool {
        let (steady, wall) = (self.steady.load(SeqCst), self.wall.load(SeqCst));
        if steady == NEVER || wall == NEVER {
            return false;
        }
        let (now_steady, now_wall) = self.nanos(now);
        let age = now_steady.saturating_sub(steady);
        age.max(now_wall.saturating_sub(wall)) <= self.max_stale
    }

    /// Sends a ping. `send` returns its number, and `clock` the time now.
    ///
    /// This keeps the lock until both are done. So a ping of before [`lose`](Self::lose) never
    /// counts after it.
    pub(super) fn ping(&self, clock: impl FnOnce() -> Moment, send: impl FnOnce() -> u64) {
        let mut pings = self.pings();
        // The order matters: the ping is sent after this moment.
        let now = clock();
        let number = send();
        if pings.len() == MAX_PINGS {
            pings.pop_front();
        }
        pings.push_back((number, now));
    }

    /// The ping of this number was answered, and all pings before it.
    pub(super) fn answered(&self, number: u64) {
        let mut pings = self.pings();
        let mut proven = None;
        while let Some(&(waiting, sent)) = pings.front()
            && waiting <= number
        {
            pings.pop_front();
            proven = Some(sent);
        }
        if proven.is_some() {
            self.prove(proven);
        }
    }

    /// Counts as not fresh until the store answers a ping of after this call.
    pub(super) fn lose(&self) {
        let mut pings = self.pings();
        pings.clear();
        self.prove(None);
    }

    /// The caller has the lock of the pings, so that no two proofs mix.
    fn prove(&self, proven: Option<Moment>) {
        let (steady, wall) = proven.map_or((NEVER, NEVER), |sent| self.nanos(sent));
        self.steady.store(steady, SeqCst);
        self.wall.store(wall, SeqCst);
    }

    /// No moment is before `start`.
    fn nanos(&self, moment: Moment) -> (u64, u64) {
        let steady = moment.steady.saturating_duration_since(self.start);
        let wall = moment.wall.duration_since(UNIX_EPOCH);
        (nanos(steady), nanos(wall.unwrap_or_default()))
    }

    fn pings(&self) -> MutexGuard<'_, Pings> {
        self.pings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
