//! [`UserCell`]: where the room `login` keeps the look-up of a request.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::MutexGuard;

/// What a look-up has found. Only the room `login` knows its type.
type Found = Arc<dyn Any + Send + Sync>;

/// The look-up of a request. Its session keeps it, without an allocation until there is one.
#[derive(Default)]
pub(crate) struct UserCell {
    found: Mutex<Option<Found>>,
    /// Whoever looks up the user. The others wait.
    turn: tokio::sync::Mutex<()>,
}

impl UserCell {
    pub(crate) fn found<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.clone()?.downcast().ok()
    }

    pub(crate) fn set_found(&self, found: Found) {
        // What it replaces is dropped after the lock: it may be code of the application.
        let _old = self
            .found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(found);
    }

    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(_) => self.turn.lock().await,
        }
    }
}
