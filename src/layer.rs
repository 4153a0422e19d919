//! [`SessionLayer`]: what an application puts around its router.

pub(crate) mod answer;
pub(crate) mod builder;
#[cfg(feature = "dbsc")]
mod devices;
#[cfg(feature = "axum")]
pub(crate) mod extract;
pub(crate) mod future;
mod headers;
#[cfg(test)]
mod rotation_explorer;
pub(crate) mod service;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use tower_layer::Layer;

use self::answer::NoDevices;
use self::builder::SessionLayerBuilder;
use self::service::SessionService;
#[cfg(feature = "testing")]
use crate::context::LayerContext;
use crate::context::keys::ContextSource;
use crate::registry::Sessions;
use crate::secret::KeySource;
use crate::store::SessionStore;
use crate::token::keys::SigningKeys;

/// Gives every request a [`Session`](crate::Session).
///
/// A clone of a layer is the same layer. If both are around one handler, they share the session.
///
/// ```
/// use axum::{Router, routing::get};
/// use cloakroom::{MemoryStore, Session, SessionError, SessionLayer, SigningKey};
///
/// async fn home(session: Session) -> Result<String, SessionError> {
///     let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
///     Ok(format!("visit {visits}"))
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let layer = SessionLayer::new(MemoryStore::new(), SigningKey::generate()?);
/// let app: Router = Router::new().route("/", get(home)).layer(layer);
/// # Ok(()) }
/// ```
///
/// The second parameter is the kind of the layer: [`NoDevices`], or `WithDevices` after
/// [`bind_to_device`](SessionLayerBuilder::bind_to_device).
pub struct SessionLayer<St, D = NoDevices> {
    /// Axum clones the layer with each request, so it has as few parts as can be.
    contexts: ContextSource,
    store: Arc<St>,
    kind: PhantomData<fn() -> D>,
}

impl<St: SessionStore> SessionLayer<St> {
    /// A layer with the default settings, which are safe. See [`SessionLayerBuilder`].
    ///
    /// ```
    /// use cloakroom::{MemoryStore, SessionLayer, SigningKey};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = SessionLayer::new(MemoryStore::new(), SigningKey::generate()?);
    /// let app: axum::Router = axum::Router::new().layer(layer);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn new(store: St, keys: impl Into<KeySource<SigningKeys>>) -> Self {
        SessionLayerBuilder::new(store, keys.into()).build_defaults()
    }

    /// A builder of a layer with other settings.
    pub fn builder(store: St, keys: impl Into<KeySource<SigningKeys>>) -> SessionLayerBuilder<St> {
        SessionLayerBuilder::new(store, keys.into())
    }
}

impl<St: SessionStore, D> SessionLayer<St, D> {
    /// The sessions of all users, to list, revoke and purge them. It works outside of a request as
    /// well.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use cloakroom::{MemoryStore, SessionLayer, SigningKey};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = SessionLayer::new(MemoryStore::new(), SigningKey::generate()?);
    /// let sessions = layer.sessions(); // for the state of a router, or a job
    /// let purge = sessions.spawn_purge(Duration::from_secs(300));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn sessions(&self) -> Sessions<St> {
        Sessions::new(self.contexts.first().clone(), self.store.clone())
    }

    #[cfg(feature = "testing")]
    pub(crate) fn context(&self) -> &Arc<LayerContext> {
        self.contexts.first()
    }
}

impl<St, D> Clone for SessionLayer<St, D> {
    fn clone(&self) -> Self {
        Self {
            contexts: self.contexts.clone(),
            store: self.store.clone(),
            kind: PhantomData,
        }
    }
}

impl<St: fmt::Debug, D> fmt::Debug for SessionLayer<St, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLayer")
            .field("store", &self.store)
            .field("live", self.contexts.first().live())
            .finish_non_exhaustive()
    }
}

impl<St, D, S> Layer<S> for SessionLayer<St, D> {
    type Service = SessionService<S, D>;

    fn layer(&self, inner: S) -> SessionService<S, D> {
        SessionService::new(inner, self.contexts.clone())
    }
}
