//! What time it is: [`Timestamp`], and the [`Clock`] that gives it.

use std::fmt;
use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize};

/// A point in time: milliseconds since the Unix epoch.
///
/// It never exceeds `i64::MAX`, so that every database can hold it, and its arithmetic saturates.
///
/// ```
/// use std::time::Duration;
/// use cloakroom::Timestamp;
///
/// let noon = Timestamp::from_millis(1_700_000_000_000);
/// let later = noon + Duration::from_secs(60);
/// assert_eq!(later.as_millis(), 1_700_000_060_000);
/// assert_eq!(later.since(noon), Duration::from_secs(60));
/// assert_eq!(noon.since(later), Duration::ZERO);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(#[serde(deserialize_with = "at_most_max")] u64);

/// What was stored keeps to the limit as well.
fn at_most_max<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(Timestamp::from_millis(u64::deserialize(deserializer)?).0)
}

impl Timestamp {
    const MAX: u64 = i64::MAX as u64;

    /// The time `millis` milliseconds after the Unix epoch; what is beyond `i64::MAX` becomes `i64::MAX`.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(if millis > Self::MAX {
            Self::MAX
        } else {
            millis
        })
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time that has passed since `earlier`, or zero if it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The time between this and `other`, whichever is earlier.
    pub(crate) fn distance(self, other: Self) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }

    /// This time less `duration`, or the Unix epoch if that is later.
    pub(crate) fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self::from_millis(self.0.saturating_add(millis(duration)))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(0) + time.duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        UNIX_EPOCH + Duration::from_millis(time.0)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The layer's source of time. All that expires does so by this clock.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// A shared clock is a clock.
impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

/// The operating system's clock, the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }
}

/// A clock that stands still until it is moved, so that a test of a timeout need not wait for it.
///
/// Clones share one time. It starts at the system's time, so that stores which look at their own clock (a key's TTL
/// in Redis, say) agree with it at first.
///
/// ```
/// use std::time::Duration;
/// use cloakroom::{Clock, MemoryStore, SessionLayer, SigningKey, TestClock};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let clock = TestClock::new();
/// let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
///     .clock(clock.clone())
///     .build()?;
/// let before = clock.now();
/// clock.advance(Duration::from_secs(31 * 60)); // every session is idle for too long now
/// assert_eq!(clock.now().since(before), Duration::from_secs(31 * 60));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct TestClock(Arc<AtomicU64>);

impl TestClock {
    /// A clock that stands at the system's present time.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(SystemClock.now().as_millis())))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(millis(by), Ordering::SeqCst);
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}
