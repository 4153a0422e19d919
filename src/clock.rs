//! What time it is: [`Timestamp`], and the [`Clock`] that gives it.

use std::fmt;
use std::future::Future;
use std::ops::Add;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Notify;
use tokio::time::sleep;

/// A point in time: milliseconds since the Unix epoch.
///
/// It is never later than `i64::MAX` milliseconds, so that every database can hold it. Its
/// arithmetic saturates. As text, and for serde, it is a time of RFC 3339, which ends with the year
/// 9999.
///
/// ```
/// use std::time::Duration;
/// use cloakroom::Timestamp;
///
/// let start = Timestamp::from_millis(1_700_000_000_000);
/// let later = start + Duration::from_secs(60);
/// assert_eq!(later.as_millis(), 1_700_000_060_000);
/// assert_eq!(later.since(start), Duration::from_secs(60));
/// assert_eq!(start.since(later), Duration::ZERO);
/// assert_eq!(start.to_string(), "2023-11-14T22:13:20Z");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    const MAX: u64 = i64::MAX as u64;

    /// The last second that RFC 3339 can write: the end of the year 9999.
    const LAST_SECOND: i64 = 253_402_300_799;

    /// The time `millis` milliseconds after the Unix epoch. A number above `i64::MAX` becomes
    /// `i64::MAX`.
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

    /// This time plus so many milliseconds.
    pub(crate) const fn plus_millis(self, millis: u64) -> Self {
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// This time minus so many milliseconds, and at least the Unix epoch.
    pub(crate) const fn minus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_sub(millis))
    }

    /// This time minus `duration`, and at least the Unix epoch.
    pub(crate) fn before(self, duration: Duration) -> Self {
        self.minus_millis(millis(duration))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        self.plus_millis(millis(duration))
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

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.0 / 1000).unwrap_or(i64::MAX);
        let time = OffsetDateTime::from_unix_timestamp(seconds.min(Self::LAST_SECOND))
            .map(|time| time + Duration::from_millis(self.0 % 1000))
            .map_err(|_| fmt::Error)?;
        f.pad(&time.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A time before the Unix epoch becomes the epoch.
impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = OffsetDateTime::parse(&text, &Rfc3339).map_err(D::Error::custom)?;
        let millis = time.unix_timestamp_nanos() / 1_000_000;
        Ok(Self::from_millis(u64::try_from(millis).unwrap_or(0)))
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

/// The layer's source of time. Every session expires by this clock.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// Waits until this clock shows `time`. The future may be ready too early or too late: the
    /// caller looks at the clock again. When the future is dropped, nothing is left of it.
    ///
    /// The default waits on Tokio's timer for the time that is missing now. It waits a minute at
    /// most, because somebody may set the clock. A clock that a test moves has to implement this.
    fn sleep_until(&self, time: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(sleep(time.since(self.now()).min(LONGEST_SLEEP)))
    }
}

/// How long the default of [`Clock::sleep_until`] waits at most.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// A shared clock is a clock.
impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }

    fn sleep_until(&self, time: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        (**self).sleep_until(time)
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

/// A clock that stands still until a test moves it. So a test of a timeout need not wait.
///
/// Clones share one time. The clock starts at the system's time. Some stores look at a clock of
/// their own, for example Redis for a key's TTL. At the start, both clocks show the same time.
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
/// clock.advance(Duration::from_secs(31 * 60)); // longer than the idle timeout
/// assert_eq!(clock.now().since(before), Duration::from_secs(31 * 60));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct TestClock(Arc<TestTime>);

#[derive(Debug)]
struct TestTime {
    millis: AtomicU64,
    moved: Notify,
}

impl TestClock {
    /// A clock that stands at the system's present time.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(TestTime {
            millis: AtomicU64::new(SystemClock.now().as_millis()),
            moved: Notify::new(),
        }))
    }

    /// Moves the clock forward. This wakes those who wait for a time that has come.
    pub fn advance(&self, by: Duration) {
        self.0.millis.fetch_add(millis(by), Ordering::SeqCst);
        self.0.moved.notify_waiters();
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.millis.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, time: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            loop {
                let moved = self.0.moved.notified();
                if self.now() >= time {
                    return;
                }
                moved.await;
            }
        })
    }
}
