//! [`SessionLayerBuilder`]: the settings of a layer, and the checks of them.

#[cfg(feature = "jwt")]
mod assertions;
#[cfg(feature = "dbsc")]
mod device;
mod finish;
mod hooks;
mod lifetimes;
mod live;
mod rotation;
#[cfg(feature = "login")]
mod users;

#[cfg(feature = "login")]
use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use self::finish::CheckedParts;
use super::SessionLayer;
use super::answer::NoDevices;
#[cfg(feature = "jwt")]
use crate::assertion::Assertions;
#[cfg(feature = "dbsc")]
use crate::binding::device::settings::DeviceBinding;
use crate::clock::{Clock, SystemClock};
use crate::context::Loading;
use crate::context::commit_rule::CommitRule;
use crate::context::describe::DescribeClient;
use crate::context::session_limit::{AtLimit, SessionLimit};
use crate::error::{BoxError, ConfigError};
use crate::hooks::Hooks;
use crate::record::lifetime::settings::LifetimeSettings;
use crate::record::realm::Realm;
use crate::secret::KeySource;
use crate::secret::watched::Snapshot;
use crate::store::{SessionStore, UserIndex};
use crate::token::cookie::{Attributes, SameSite};
use crate::token::keys::SigningKeys;
use crate::token::random::RandomSource;
use crate::token::transport::{TokenTransport, Transport};

/// More than any client waits, and so little that it can be added to the time now.
const LONGEST_COMMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The settings of a [`SessionLayer`].
///
/// | setting | default |
/// | --- | --- |
/// | [`cookie_name`](Self::cookie_name) | `__Host-session`; `session` with `secure(false)` |
/// | [`cookie_path`](Self::cookie_path), [`cookie_domain`](Self::cookie_domain) | `/`, none |
/// | [`secure`](Self::secure), [`same_site`](Self::same_site), [`partitioned`](Self::partitioned) | yes, `Lax`, no |
/// | HttpOnly | always |
/// | [`idle_timeout`](Self::idle_timeout), [`absolute_timeout`](Self::absolute_timeout) | 30 minutes (20 until a user logs in), 12 hours |
/// | [`remember_idle_timeout`](Self::remember_idle_timeout), [`remember_absolute_timeout`](Self::remember_absolute_timeout) | 14 days, 90 days |
/// | [`lifetime`](Self::lifetime), [`persistent_lifetime`](Self::persistent_lifetime) | none of the application's own |
/// | [`touch_interval`](Self::touch_interval) | a tenth of the idle timeout |
/// | [`store_timeout`](Self::store_timeout), [`commit_timeout`](Self::commit_timeout) | 5 seconds, 10 seconds |
/// | [`poll_interval`](Self::poll_interval) | 2 seconds |
/// | [`data_limit`](Self::data_limit) | 64 KiB |
/// | [`realm`](Self::realm) | the cookie's name |
/// | [`commit_when`](Self::commit_when) | no 5xx, no 408, no gRPC error |
/// | [`users`](Self::users) (feature `login`) | none |
/// | [`bind_to_device`](Self::bind_to_device) (feature `dbsc`) | nothing is bound |
/// | [`assertions`](Self::assertions) (feature `jwt`) | none |
/// | [`rotate_every`](Self::rotate_every), [`client_from`](Self::client_from) | no, none |
/// | [`on_event`](Self::on_event) | no hook |
/// | [`lazy`](Self::lazy), [`clear_site_data`](Self::clear_site_data) | no, no |
///
/// Every switch takes a `bool`, so that a configuration can set it. A setting has `cookie_` in its
/// name if the rest of the name says too little alone.
///
/// ```
/// use std::time::Duration;
/// use cloakroom::{SigningKeys, MemoryStore, SameSite, SessionLayer, SigningKey};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (key, old) = (SigningKey::generate()?, SigningKey::generate()?);
/// let layer = SessionLayer::builder(MemoryStore::new(), SigningKeys::new(key).also_verify(old))
///     .idle_timeout(Duration::from_secs(15 * 60))
///     .same_site(SameSite::Strict)
///     .build()?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a builder makes nothing until `build` is called"]
pub struct SessionLayerBuilder<St, D = NoDevices> {
    store: Arc<St>,
    key_source: KeySource<SigningKeys>,
    /// The keys that the source has at first.
    keys: Snapshot<SigningKeys>,
    attributes: Attributes,
    transport: Transport,
    lifetimes: LifetimeSettings,
    sets_visitors: bool,
    store_timeout: Duration,
    commit_timeout: Duration,
    poll_interval: Duration,
    data_limit: usize,
    loading: Loading,
    clear_site_data: bool,
    session_limit: Option<SessionLimit>,
    realm: Option<String>,
    commit_rule: CommitRule,
    hooks: Hooks,
    rotate_every: Option<Duration>,
    describe: Option<DescribeClient>,
    clock: Arc<dyn Clock>,
    random: RandomSource,
    #[cfg(feature = "login")]
    users: Option<Arc<dyn Any + Send + Sync>>,
    #[cfg(feature = "dbsc")]
    devices: Option<DeviceBinding>,
    #[cfg(feature = "jwt")]
    assertions: Option<Assertions>,
    kind: PhantomData<fn() -> D>,
}

impl<St: SessionStore> SessionLayerBuilder<St> {
    pub(super) fn new(store: St, keys: KeySource<SigningKeys>) -> Self {
        Self {
            store: Arc::new(store),
            keys: keys.snapshot(),
            key_source: keys,
            attributes: Attributes::default(),
            transport: Transport::default(),
            lifetimes: LifetimeSettings::default(),
            sets_visitors: false,
            store_timeout: Duration::from_secs(5),
            commit_timeout: Duration::from_secs(10),
            poll_interval: Duration::from_secs(2),
            data_limit: 64 * 1024,
            loading: Loading::default(),
            clear_site_data: false,
            session_limit: None,
            realm: None,
            commit_rule: CommitRule::default(),
            hooks: Hooks::default(),
            rotate_every: None,
            describe: None,
            clock: Arc::new(SystemClock),
            random: RandomSource::default(),
            #[cfg(feature = "login")]
            users: None,
            #[cfg(feature = "dbsc")]
            devices: None,
            #[cfg(feature = "jwt")]
            assertions: None,
            kind: PhantomData,
        }
    }
}

impl<St: SessionStore, D> SessionLayerBuilder<St, D> {
    /// The cookie's name. Tokens are bound to this name. Users are bound to it as well, if no
    /// [`realm`](Self::realm) is set.
    ///
    /// If one layer is inside another, each layer has a session of its own. Only clones of one
    /// layer share the session of a request.
    pub fn cookie_name(mut self, name: impl Into<String>) -> Self {
        self.attributes.name = Some(name.into());
        self
    }

    /// The cookie's Path. It does not protect the cookie: a script of another path can send
    /// requests that carry the cookie.
    pub fn cookie_path(mut self, path: impl Into<String>) -> Self {
        self.attributes.path = path.into();
        self
    }

    /// The cookie's Domain. The host and all its subdomains get the cookie. It needs a name without
    /// `__Host-`.
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionLayer, SigningKey};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
    ///     .cookie_name("__Secure-session")
    ///     .cookie_domain("example.com")
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn cookie_domain(mut self, domain: impl Into<String>) -> Self {
        self.attributes.domain = Some(domain.into());
        self
    }

    /// The cookie's SameSite. It is the second line of defence against CSRF. The first is a check
    /// of the Origin.
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.attributes.same_site = same_site;
        self
    }

    /// Whether the cookie travels over HTTPS only. Set `false` for development over plain HTTP,
    /// from the same configuration that sets the address.
    ///
    /// Browsers drop a `__Host-` cookie that is not Secure. So with `false` the default name is
    /// `session`. With `false`, a name of your own must not begin with `__Host-`, `__Secure-` or
    /// `__Http-`.
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionLayer, SigningKey};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
    ///     .secure(std::env::var_os("PLAIN_HTTP").is_none())
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn secure(mut self, secure: bool) -> Self {
        self.attributes.secure = secure;
        self
    }

    /// Whether browsers keep one cookie for each site that embeds this one (CHIPS). Use it for
    /// frames in other sites. In such a frame, browsers send only cookies with
    /// `same_site(SameSite::None)`.
    pub fn partitioned(mut self, partitioned: bool) -> Self {
        self.attributes.partitioned = partitioned;
        self
    }

    /// How the token travels.
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionLayer, SigningKey, Transport};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
    ///     .transport(Transport::Bearer)
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// How long one call of the store may take. After that, the layer answers with a 503.
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.store_timeout = timeout;
        self
    }

    /// How long the layer tries to write a session that parallel requests keep changing. After
    /// that, it answers with a 503.
    pub fn commit_timeout(mut self, timeout: Duration) -> Self {
        self.commit_timeout = timeout;
        self
    }

    /// How many bytes the keys and the JSON values of a session may have together. No session may
    /// have more than 1 GiB.
    pub fn data_limit(mut self, bytes: usize) -> Self {
        self.data_limit = bytes;
        self
    }

    /// Whether the layer loads a session only when an extractor first asks for it. Then a route
    /// without an extractor costs no store call. A request to such a route is not a use of the
    /// session, and does not move its expiry.
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionLayer, SigningKey};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?).lazy(true).build()?;
    /// # Ok(()) }
    /// ```
    pub fn lazy(mut self, lazy: bool) -> Self {
        self.loading = if lazy { Loading::Lazy } else { Loading::Eager };
        self
    }

    /// Whether the response to a [`Session::log_out`](crate::Session::log_out) has the header
    /// `Clear-Site-Data: "cache", "storage"`.
    pub fn clear_site_data(mut self, clear: bool) -> Self {
        self.clear_site_data = clear;
        self
    }

    /// How many sessions a user may have, and what a login does at the limit.
    ///
    /// Parallel logins can exceed the limit for a moment. Then they end or refuse each other. With
    /// [`AtLimit::RefuseLogin`], the session of a login that loses such a race ends.
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionLayer, SigningKey, AtLimit};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
    ///     .session_limit(5, AtLimit::EndOldest)
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn session_limit(mut self, max: usize, at_limit: AtLimit) -> Self
    where
        St: UserIndex,
    {
        self.session_limit = Some(SessionLimit::new(self.store.clone(), max, at_limit));
        self
    }

    /// The realm: the set of users that this layer's users belong to. The default is the cookie's
    /// name.
    ///
    /// Two layers on one store with the same realm have the same users, for example a site and its
    /// mobile API. Then [`Sessions::revoke_user`](crate::Sessions::revoke_user) and
    /// [`session_limit`](Self::session_limit) reach a user's sessions of both layers. Give the two
    /// layers the same timeouts, because a layer does not list or count a session that is over by
    /// its own timeouts.
    ///
    /// Layers of different realms do not change each other's sessions, even if two users have the
    /// same id. For example, give customers and operators different realms.
    ///
    /// A change of the realm logs everybody out.
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionLayer, SigningKey, Transport};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (store, key) = (std::sync::Arc::new(MemoryStore::new()), SigningKey::generate()?);
    /// let site = SessionLayer::builder(store.clone(), key.clone()).realm("customers").build()?;
    /// let api = SessionLayer::builder(store, key)
    ///     .cookie_name("api")
    ///     .transport(Transport::Bearer)
    ///     .realm("customers")
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        self.realm = Some(realm.into());
        self
    }

    /// Says which responses come from a handler that succeeded. The layer writes only the changes
    /// of such a handler. If the handler failed, the layer drops its changes and logs an event. It
    /// still ends the session if the handler asked for that.
    ///
    /// By default a handler fails with a status of 5xx, with a 408 (as of a `TimeoutLayer` inside
    /// of this layer, which gives up midway), and with a `grpc-status` header that is not 0. A gRPC
    /// status in the trailers comes too late, because the trailers come after the head of the
    /// response. If the inner service returns an error, the layer always drops the changes.
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionLayer, SigningKey};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // A handler that answers with any error has not done what it should.
    /// let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
    ///     .commit_when(|response| response.status.is_success() || response.status.is_redirection())
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn commit_when(
        mut self,
        succeeded: impl Fn(&http::response::Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.commit_rule = CommitRule::Own(Arc::new(succeeded));
        self
    }

    /// The clock by which sessions expire. The default is the system's clock.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Another source of random bytes than the operating system: a hardware generator, or one that
    /// fails, for a test. The bytes must be good enough for cryptography.
    pub fn random<E>(
        mut self,
        fill: impl Fn(&mut [u8]) -> Result<(), E> + Send + Sync + 'static,
    ) -> Self
    where
        E: Into<BoxError>,
    {
        self.random = RandomSource::new(move |bytes| fill(bytes).map_err(Into::into));
        self
    }

    /// The layer of these settings.
    ///
    /// # Errors
    ///
    /// A setting is unsafe, or two settings together are, or a browser would drop the cookie. The
    /// error names the setting.
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionLayer, SigningKey};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let http = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
    ///     .cookie_name("__Host-id")
    ///     .secure(false);
    /// assert_eq!(http.build().unwrap_err().setting(), "secure"); // browsers would drop this cookie
    /// # Ok(()) }
    /// ```
    pub fn build(self) -> Result<SessionLayer<St, D>, ConfigError> {
        self.check()?;
        let realm = match &self.realm {
            Some(name) => Realm::named(name)?,
            None => Realm::of_cookie(self.attributes.name()),
        };
        let transport = TokenTransport::new(self.transport, &self.attributes, &realm)?;
        #[cfg(feature = "dbsc")]
        let devices = self.resolve_devices()?;
        Ok(self.finish(CheckedParts {
            transport,
            realm,
            #[cfg(feature = "dbsc")]
            devices,
        }))
    }

    /// Refuses settings that make no sense.
    fn check(&self) -> Result<(), ConfigError> {
        self.lifetimes.check()?;
        self.check_rotation()?;
        #[cfg(feature = "jwt")]
        if let Some(assertions) = &self.assertions {
            assertions.check()?;
        }
        for (setting, timeout) in [
            ("store_timeout", self.store_timeout),
            ("commit_timeout", self.commit_timeout),
        ] {
            if timeout.is_zero() {
                return Err(ConfigError::new(setting, "no store can answer in no time"));
            }
        }
        if self.poll_interval.is_zero() {
            return Err(ConfigError::new(
                "poll_interval",
                "the layer would ask the store without a pause",
            ));
        }
        if self.data_limit == 0 {
            return Err(ConfigError::new(
                "data_limit",
                "nothing would fit into a session",
            ));
        }
        if self
            .session_limit
            .as_ref()
            .is_some_and(|limit| limit.max() == 0)
        {
            return Err(ConfigError::new("session_limit", "nobody could log in"));
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "memory"))]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::token::keys::SigningKey;

    /// `SessionLayer::new` builds without checks, so that it cannot fail.
    #[test]
    fn the_default_layer_is_what_the_builder_builds() {
        let key = SigningKey::from_bytes(&[7; 64]).unwrap();
        let store = MemoryStore::new();
        let built = SessionLayer::builder(store.clone(), key.clone())
            .build()
            .unwrap();
        let default = SessionLayer::new(store, key);
        assert_eq!(
            format!("{:?}", built.contexts),
            format!("{:?}", default.contexts)
        );
    }
}
