//! The way from checked settings to a layer.

use std::marker::PhantomData;

use super::{LONGEST_COMMIT, SessionLayerBuilder};
#[cfg(feature = "dbsc")]
use crate::binding::device::devices::Devices;
use crate::binding::rotation::Rotation;
use crate::context::keys::ContextSource;
use crate::context::{LayerContext, Settings};
use crate::layer::SessionLayer;
use crate::record::realm::Realm;
use crate::store::SessionStore;
use crate::token::signer::Signer;
use crate::token::transport::TokenTransport;

/// What `build` makes of several settings together.
pub(super) struct CheckedParts {
    pub(super) transport: TokenTransport,
    pub(super) realm: Realm,
    #[cfg(feature = "dbsc")]
    pub(super) devices: Option<Devices>,
}

impl<St: SessionStore> SessionLayerBuilder<St> {
    /// The layer of the default settings. They fit every store and all keys.
    pub(in crate::layer) fn build_defaults(self) -> SessionLayer<St> {
        let realm = Realm::of_cookie(self.attributes.name());
        let checked = CheckedParts {
            transport: TokenTransport::default(),
            realm,
            #[cfg(feature = "dbsc")]
            devices: None,
        };
        self.finish(checked)
    }
}

impl<St: SessionStore, D> SessionLayerBuilder<St, D> {
    pub(super) fn finish(self, checked: CheckedParts) -> SessionLayer<St, D> {
        let CheckedParts {
            transport,
            realm,
            #[cfg(feature = "dbsc")]
            devices,
        } = checked;
        let settings = Settings {
            signer: Signer::new(&self.keys.keys, transport.name()),
            transport,
            random: self.random,
            clock: self.clock,
            lifetimes: self.lifetimes.resolve(),
            store_timeout: self.store_timeout,
            commit_timeout: self.commit_timeout.min(LONGEST_COMMIT),
            data_limit: self.data_limit,
            loading: self.loading,
            clear_site_data: self.clear_site_data,
            session_limit: self.session_limit,
            realm,
            commit_rule: self.commit_rule,
            poll_interval: self.poll_interval,
            hooks: self.hooks,
            rotation: self.rotate_every.map(Rotation::new),
            describe: self.describe,
            #[cfg(feature = "login")]
            users: self.users,
            #[cfg(feature = "dbsc")]
            devices,
            #[cfg(feature = "jwt")]
            assertions: self.assertions,
        };
        let context = LayerContext::new(self.store.clone(), settings);
        SessionLayer {
            contexts: ContextSource::of_layer(self.key_source, self.keys.number, &context),
            store: self.store,
            kind: PhantomData,
        }
    }
}
