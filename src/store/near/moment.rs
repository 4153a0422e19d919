//! [`Moment`]: a point in time that neither a set clock nor a sleeping machine can fake.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Now, by two clocks.
///
/// The steady clock never jumps, but it stands still while a virtual machine is suspended. The wall
/// clock goes on, but somebody may set it. What is old by one of them counts as old.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) steady: Instant,
    pub(super) wall: SystemTime,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self {
            steady: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// The time since `earlier`, by the clock that says more.
    pub(super) fn since(self, earlier: Self) -> Duration {
        let steady = self.steady.saturating_duration_since(earlier.steady);
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        steady.max(wall)
    }
}
