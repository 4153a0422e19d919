//! [`CommitLocks`]: conflicting commits of one process take turns.

use tokio::sync::Mutex;

use crate::id::RecordId;

/// There are more locks than a large machine has cores, so that two busy sessions seldom share one.
const COMMIT_LOCKS: usize = 64;

/// Where commits of one session wait for each other, once a conflict has shown that there are
/// several.
#[derive(Debug)]
pub(crate) struct CommitLocks([Mutex<()>; COMMIT_LOCKS]);

impl CommitLocks {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(())))
    }

    #[expect(clippy::indexing_slicing, reason = "the index is a remainder")]
    pub(super) fn of(&self, id: RecordId) -> &Mutex<()> {
        &self.0[usize::from(id.as_bytes()[0]) % COMMIT_LOCKS]
    }
}
