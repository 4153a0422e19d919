//! [`ContextSource`]: the context that a new request gets, even if keys change while the layer
//! runs.

use std::sync::Arc;

use super::{LayerContext, Settings};
use crate::secret::{KeySource, MadeOfKeys};
use crate::token::keys::SigningKeys;
use crate::token::signer::Signer;

/// A request takes its context once, when the request comes. So no request sees half of a change.
pub(crate) type ContextSource = MadeOfKeys<SigningKeys, LayerContext>;

impl ContextSource {
    /// `first` has the keys of this number.
    pub(crate) fn of_layer(
        keys: KeySource<SigningKeys>,
        number: u64,
        first: &Arc<LayerContext>,
    ) -> Self {
        let base = Arc::clone(first);
        Self::new(keys, number, Arc::clone(first), move |keys| {
            base.with_keys(keys)
        })
    }
}

impl LayerContext {
    /// The same layer, with other keys.
    fn with_keys(self: &Arc<Self>, keys: &SigningKeys) -> Self {
        let settings = &self.settings;
        Self {
            store: Arc::clone(&self.store),
            settings: Settings {
                signer: Signer::new(keys, settings.transport.name()),
                #[cfg(feature = "dbsc")]
                devices: settings
                    .devices
                    .as_ref()
                    .map(|devices| devices.with_keys(keys)),
                ..settings.clone()
            },
            commit_locks: Arc::clone(&self.commit_locks),
            warnings: Arc::clone(&self.warnings),
            live: Arc::clone(&self.live),
            _first: Some(Arc::clone(self)),
        }
    }

    /// Whether both are of the same layer, with the same keys or not.
    pub(crate) fn is_same_layer(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.live, &other.live)
    }
}
