//! The setting of binding sessions to devices.

use std::marker::PhantomData;

use super::SessionLayerBuilder;
use crate::binding::device::devices::Devices;
use crate::binding::device::settings::DeviceBinding;
use crate::error::ConfigError;
use crate::layer::answer::WithDevices;
use crate::store::SessionStore;
use crate::token::transport::Transport;

/// # Devices
impl<St: SessionStore, D> SessionLayerBuilder<St, D> {
    /// Binds sessions to the devices of their browsers, where the browser can do that (Device Bound
    /// Session Credentials, W3C). Whoever steals all cookies of such a browser has the session for
    /// the lifetime of the bound cookie, 10 minutes by default. With `None` it binds nothing, so
    /// that a configuration can decide.
    ///
    /// After each login, the layer offers the browser to register a key that its device keeps. The
    /// layer then answers the two paths of the [`DeviceBinding`] itself. Nothing changes for
    /// browsers that cannot do this, and for clients with bearer tokens.
    /// [`Session::device`](crate::Session::device) tells them apart.
    ///
    /// Put the layer around the whole router, so that requests to the two paths reach it. A layer
    /// further out must not send them to somebody else, and must not add CORS headers with
    /// credentials to their answers. A proxy in front must hand on the header `Host` as the browser
    /// sent it. If two layers bind sessions, give each one paths of its own.
    ///
    /// Set it at all nodes. A layer without it asks nobody for a proof.
    ///
    /// # What it needs
    ///
    /// HTTPS, and the session cookie as the transport or one of the two. The body of the responses
    /// must be `From<String>`, as axum's is. So in a `ServiceBuilder`, put layers that change the
    /// type of the body, such as compression, further out.
    ///
    /// # If an answer is lost
    ///
    /// If the answer to a registration is lost, the session is bound to a key that the browser has
    /// given up. Then the user has to log in again, once the
    /// [grace period](DeviceBinding::grace_period) is over.
    ///
    /// ```
    /// use cloakroom::{DeviceBinding, MemoryStore, SessionLayer, SigningKey};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
    ///     .bind_to_device(DeviceBinding::default())
    ///     .build()?;
    /// let app: axum::Router = axum::Router::new().layer(layer);
    /// # Ok(()) }
    /// ```
    ///
    /// A setting that does not fit is an error of [`build`](Self::build).
    #[doc(alias("dbsc", "device_bound"))]
    pub fn bind_to_device(
        self,
        binding: impl Into<Option<DeviceBinding>>,
    ) -> SessionLayerBuilder<St, WithDevices> {
        SessionLayerBuilder {
            store: self.store,
            key_source: self.key_source,
            keys: self.keys,
            attributes: self.attributes,
            transport: self.transport,
            lifetimes: self.lifetimes,
            sets_visitors: self.sets_visitors,
            store_timeout: self.store_timeout,
            commit_timeout: self.commit_timeout,
            poll_interval: self.poll_interval,
            data_limit: self.data_limit,
            loading: self.loading,
            clear_site_data: self.clear_site_data,
            session_limit: self.session_limit,
            realm: self.realm,
            commit_rule: self.commit_rule,
            hooks: self.hooks,
            rotate_every: self.rotate_every,
            describe: self.describe,
            clock: self.clock,
            random: self.random,
            #[cfg(feature = "login")]
            users: self.users,
            devices: binding.into(),
            #[cfg(feature = "jwt")]
            assertions: self.assertions,
            kind: PhantomData,
        }
    }

    /// How the layer binds sessions to devices, with the other settings.
    pub(super) fn resolve_devices(&self) -> Result<Option<Devices>, ConfigError> {
        let Some(settings) = &self.devices else {
            return Ok(None);
        };
        if self.transport == Transport::Bearer {
            let reason = "only browsers with the session cookie can be bound to a device";
            return Err(ConfigError::new("transport", reason));
        }
        Devices::new(settings.clone(), &self.keys.keys, &self.attributes).map(Some)
    }
}
