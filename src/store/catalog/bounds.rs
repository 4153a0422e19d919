//! How much one call of a scan looks at.

use std::time::Duration;

/// How many records a call looks at, at most, so that no call takes long.
pub(crate) const MOST_LOOKED_AT: usize = 10_000;

/// When a call stops to look, if records are large or the store is slow.
pub(crate) const LONGEST_LOOK: Duration = Duration::from_millis(500);
