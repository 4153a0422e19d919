//! [`Hooks`]: the functions of the application that get each [`SessionEvent`].

pub(crate) mod cause;
pub(crate) mod event;
mod recent;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use self::event::SessionEvent;
use self::recent::RecentIds;
use crate::events;
use crate::id::RecordId;

type Hook = dyn Fn(&SessionEvent) + Send + Sync;

/// The hooks of a layer, and the sessions of which they have heard that the time is over.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    hooks: Vec<Arc<Hook>>,
    expired: Arc<RecentIds>,
    retired: Arc<RecentIds>,
}

impl Hooks {
    pub(crate) fn add(&mut self, hook: impl Fn(&SessionEvent) + Send + Sync + 'static) {
        self.hooks.push(Arc::new(hook));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.hooks.is_empty()
    }

    /// Calls all hooks, in the order in which they were added. A hook that panics keeps neither the
    /// request nor the other hooks from going on.
    pub(crate) fn raise(&self, event: &SessionEvent) {
        for hook in &self.hooks {
            // The layer shares no state with the hook that a panic could leave half changed.
            if catch_unwind(AssertUnwindSafe(|| hook(event))).is_err() {
                events::hook_panicked(event.kind().as_str());
            }
        }
    }

    /// Whether the hooks have not heard yet that this session has expired. They hear it once.
    pub(crate) fn is_first_expiry(&self, id: RecordId) -> bool {
        self.expired.insert(id)
    }

    /// Notes that the credentials of the user have changed, so that this session ends soon.
    pub(crate) fn note_retired(&self, id: RecordId) {
        self.retired.insert(id);
    }

    /// Notes that a new login has saved this session from its end.
    pub(crate) fn forget_retired(&self, id: RecordId) {
        self.retired.remove(id);
    }

    pub(crate) fn is_retired(&self, id: RecordId) -> bool {
        self.retired.contains(id)
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hooks({})", self.hooks.len())
    }
}
