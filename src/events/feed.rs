//! The events of feeds.

use std::error::Error as _;

use crate::error::StoreError;

/// The feed of a store lost its subscription. Changes may be missed until it works again.
pub(crate) fn lost(store: &'static str, error: &StoreError) {
    let cause = error.source().map(tracing::field::display);
    event!(
        warn,
        "feed_lost",
        store,
        error = %error,
        cause,
        "the store does not tell what happens to sessions until its feed is connected again"
    );
}

/// The feed of a store works again.
pub(crate) fn restored(store: &'static str) {
    event!(
        info,
        "feed_restored",
        store,
        "the store tells again what happens to sessions"
    );
}

/// A server has sent a feed something that is not about a session.
pub(crate) fn ignored(store: &'static str, count: u64) {
    event!(
        debug,
        "feed_ignored"; count,
        store,
        count,
        "a feed ignored what is not about a session"
    );
}
