//! [`Warnings`]: what a layer warns of once, and not at each request.

use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(feature = "encryption")]
use crate::events;

/// Which warnings a layer has given.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    pub(crate) insecure_origin: Once,
    pub(crate) rival_layer: Once,
    #[cfg(feature = "login")]
    pub(crate) login_without_stamp: Once,
    #[cfg(feature = "encryption")]
    pub(crate) unopened_record: events::Count,
}

/// Something that happens once.
#[derive(Debug, Default)]
pub(crate) struct Once(AtomicBool);

impl Once {
    /// Does it, unless it was done before.
    pub(crate) fn call(&self, action: impl FnOnce()) {
        if !self.0.swap(true, Ordering::Relaxed) {
            action();
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
