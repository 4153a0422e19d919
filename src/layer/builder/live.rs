//! How the layer learns that a session has ended while somebody waits for the end.

use std::time::Duration;

use super::SessionLayerBuilder;
use crate::store::SessionStore;

impl<St: SessionStore, D> SessionLayerBuilder<St, D> {
    /// How often the layer asks the store for the sessions whose end somebody waits for, with
    /// [`DetachedSession::ended`](crate::DetachedSession::ended). The layer asks for all of them in
    /// one batch. Two seconds by default. [`build`](Self::build) refuses zero.
    ///
    /// A store with a [feed](crate::SessionFeed) reports an end at once. The layer then only pings
    /// the feed at this interval. While the feed does not answer, the layer asks the store.
    ///
    /// ```
    /// use std::time::Duration;
    /// use cloakroom::{MemoryStore, SessionLayer, SigningKey};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
    ///     .poll_interval(Duration::from_secs(5))
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }
}
