//! [`DroppedChanges`]: changes of a request that nobody writes.

use crate::events::{self, DropReason};
use crate::id::RecordId;

/// Changes that a request has made and dropped. The session reports them once it holds no lock,
/// since code of the application may listen to events.
#[must_use]
pub(in crate::session) struct DroppedChanges {
    pub(super) id: Option<RecordId>,
    pub(super) has_login: bool,
    pub(super) reason: DropReason,
}

impl DroppedChanges {
    pub(in crate::session) fn report(dropped: Option<Self>) {
        if let Some(dropped) = dropped {
            events::dropped_write(dropped.id, dropped.has_login, dropped.reason);
        }
    }
}
