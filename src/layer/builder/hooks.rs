//! The hooks of a layer.

use super::SessionLayerBuilder;
use crate::hooks::event::SessionEvent;
use crate::store::SessionStore;

/// # Hooks
impl<St: SessionStore, D> SessionLayerBuilder<St, D> {
    /// Adds a hook: a function that the layer calls with each [`SessionEvent`]. Use it for an audit
    /// trail, or to tell users of a login on a new device. Each call of `on_event` adds one more
    /// hook. There is none by default.
    ///
    /// The hook runs in the task of the request, before the client gets the response. So the hook
    /// must be cheap, and must not block. Let the hook send the event into a channel, and do the
    /// work in another task. `examples/audit_trail.rs` shows how to lose no event. If a hook
    /// panics, the request goes on, and the log has the event `hook_panicked`.
    ///
    /// # What a hook hears
    ///
    /// A hook hears what this layer and its [`Sessions`](crate::Sessions) do, on this node. For one
    /// request, the hook gets the events once the store has made each change, and in that order. If
    /// the store refuses a commit, there is no event. Anybody can send a bad token, so events of
    /// the kind [`Rejected`](crate::SessionEventKind::Rejected) can come in a flood.
    ///
    /// Some ends have no event. The layer finds out an expiry only when somebody comes with the
    /// token, while the store still has the record, or when somebody
    /// [waits for the end](crate::DetachedSession::ended). A store that removes a record by itself,
    /// such as a memory store that is full, reports nothing. If the answer of the store is lost,
    /// the layer does not know what happened. Then the log has a `store_error`, and an event may
    /// be missing.
    ///
    /// With a hook, the layer needs the record of a session that it ends, so that the event can say
    /// whose session it was. If the layer has no record yet, it loads the session first. Before it
    /// ends all sessions of a user, it lists them. Without a hook, it makes neither call.
    ///
    /// ```
    /// use cloakroom::{EndCause, MemoryStore, SessionLayer, SigningKey};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (sender, receiver) = std::sync::mpsc::channel();
    /// let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
    ///     .on_event(move |event| {
    ///         if event.cause() == Some(EndCause::Revoked) {
    ///             // Nobody receives any more while the application shuts down.
    ///             let _ = sender.send(event.clone());
    ///         }
    ///     })
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    #[doc(alias("hook", "listener", "callback", "audit"))]
    pub fn on_event(mut self, hook: impl Fn(&SessionEvent) + Send + Sync + 'static) -> Self {
        self.hooks.add(hook);
        self
    }
}
