//! [`Contention`]: how conflicting commits of one process take turns.

use tokio::sync::MutexGuard;
use tokio::time::{Instant, timeout_at};

use crate::context::LayerContext;
use crate::error::{SessionError, SessionErrorKind};
use crate::id::RecordId;

/// A commit that has met a conflict. It holds the lock of its session, so that the commits of this
/// process do not make each other's next try fail.
pub(super) struct Contention<'a> {
    deadline: Instant,
    _turn: MutexGuard<'a, ()>,
}

impl<'a> Contention<'a> {
    /// Waits for the turn, at most for the commit timeout.
    pub(super) async fn begin(
        context: &'a LayerContext,
        id: RecordId,
    ) -> Result<Self, SessionError> {
        let deadline = Instant::now() + context.commit_timeout();
        match timeout_at(deadline, context.commit_lock(id).lock()).await {
            Ok(turn) => Ok(Self {
                deadline,
                _turn: turn,
            }),
            Err(_) => Err(SessionErrorKind::Contended.into()),
        }
    }

    /// Fails once the commit has tried for longer than the commit timeout.
    pub(super) fn check_deadline(&self) -> Result<(), SessionError> {
        if Instant::now() >= self.deadline {
            return Err(SessionErrorKind::Contended.into());
        }
        Ok(())
    }
}
