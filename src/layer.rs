//! [`SessionLayer`], and the builder that checks its settings.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cookie::SameSite;
use tower_layer::Layer;

use crate::clock::{Clock, SystemClock};
use crate::cookie::Attributes;
use crate::engine::{Engine, Loading, Queues, UserLimit, Warned, WhenFull};
use crate::error::{BoxError, ConfigError};
use crate::lifetime::Lifetimes;
use crate::outcome::CommitRule;
use crate::record::Realm;
use crate::service::SessionService;
use crate::store::{SessionStore, UserIndex};
use crate::token::{Keys, Random, Signer};
use crate::transport::{Carrier, Transport};
use crate::users::Sessions;

/// More than any client waits, and little enough to be added to the time now.
const LONGEST_COMMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Gives every request a [`Session`](crate::Session).
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
pub struct SessionLayer<St> {
    engine: Arc<Engine>,
    store: Arc<St>,
}

impl<St: SessionStore> SessionLayer<St> {
    /// A layer with the defaults, which are safe: see [`SessionLayerBuilder`].
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
    pub fn new(store: St, keys: impl Into<Keys>) -> Self {
        match Self::builder(store, keys).build() {
            Ok(layer) => layer,
            // A test builds the defaults, and nothing in them depends on the arguments.
            Err(error) => unreachable!("the defaults are good: {error}"),
        }
    }

    /// A layer with settings of its own.
    pub fn builder(store: St, keys: impl Into<Keys>) -> SessionLayerBuilder<St> {
        SessionLayerBuilder {
            store: Arc::new(store),
            keys: keys.into(),
            attributes: Attributes::default(),
            transport: Transport::default(),
            lifetimes: Lifetimes::default(),
            store_timeout: Duration::from_secs(5),
            commit_timeout: Duration::from_secs(10),
            data_limit: 64 * 1024,
            loading: Loading::default(),
            clear_site_data: false,
            user_limit: None,
            realm: None,
            commit_rule: CommitRule::default(),
            clock: Arc::new(SystemClock),
            random: Random::default(),
        }
    }

    /// The sessions of all users: to list, revoke and purge, outside of a request as well.
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
        Sessions::new(self.engine.clone(), self.store.clone())
    }

    #[cfg(feature = "testing")]
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }
}

impl<St> Clone for SessionLayer<St> {
    fn clone(&self) -> Self {
        Self {
            engine: self.engine.clone(),
            store: self.store.clone(),
        }
    }
}

impl<St: fmt::Debug> fmt::Debug for SessionLayer<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLayer")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl<St, S> Layer<S> for SessionLayer<St> {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> SessionService<S> {
        SessionService::new(inner, self.engine.clone())
    }
}

/// The settings of a [`SessionLayer`].
///
/// | setting | default |
/// | --- | --- |
/// | [`cookie_name`](Self::cookie_name) | `__Host-session` |
/// | [`cookie_path`](Self::cookie_path), [`cookie_domain`](Self::cookie_domain) | `/`, none |
/// | [`secure`](Self::secure), [`same_site`](Self::same_site), [`partitioned`](Self::partitioned) | yes, `Lax`, no |
/// | HttpOnly | always |
/// | [`idle_timeout`](Self::idle_timeout), [`absolute_timeout`](Self::absolute_timeout) | 30 minutes, 12 hours |
/// | [`remember_idle_timeout`](Self::remember_idle_timeout), [`remember_absolute_timeout`](Self::remember_absolute_timeout) | 14 days, 90 days |
/// | [`touch_interval`](Self::touch_interval) | a tenth of the idle timeout |
/// | [`store_timeout`](Self::store_timeout), [`commit_timeout`](Self::commit_timeout) | 5 seconds, 10 seconds |
/// | [`data_limit`](Self::data_limit) | 64 KiB |
/// | [`realm`](Self::realm) | the cookie's name |
/// | [`commit_when`](Self::commit_when) | no 5xx, no 408, no gRPC error |
///
/// ```
/// use std::time::Duration;
/// use cloakroom::{Keys, MemoryStore, SameSite, SessionLayer, SigningKey};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (key, old) = (SigningKey::generate()?, SigningKey::generate()?);
/// let layer = SessionLayer::builder(MemoryStore::new(), Keys::new(key).retiring(old))
///     .idle_timeout(Duration::from_secs(15 * 60))
///     .same_site(SameSite::Strict)
///     .build()?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a builder makes nothing until `build` is called"]
pub struct SessionLayerBuilder<St> {
    store: Arc<St>,
    keys: Keys,
    attributes: Attributes,
    transport: Transport,
    lifetimes: Lifetimes,
    store_timeout: Duration,
    commit_timeout: Duration,
    data_limit: usize,
    loading: Loading,
    clear_site_data: bool,
    user_limit: Option<UserLimit>,
    realm: Option<String>,
    commit_rule: CommitRule,
    clock: Arc<dyn Clock>,
    random: Random,
}

impl<St: SessionStore> SessionLayerBuilder<St> {
    /// The cookie's name. Tokens are bound to it, and so are users, unless a [`realm`](Self::realm) is set.
    ///
    /// A layer inside of another one has a session of its own. Only clones of one layer share a request's
    /// session.
    pub fn cookie_name(mut self, name: impl Into<String>) -> Self {
        self.attributes.name = name.into();
        self
    }

    /// The cookie's Path. It is no protection: scripts of other paths can reach the cookie's requests.
    pub fn cookie_path(mut self, path: impl Into<String>) -> Self {
        self.attributes.path = path.into();
        self
    }

    /// The cookie's Domain: the host and all its subdomains get it. Needs a name without `__Host-`.
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

    /// The cookie's SameSite. It is a second line against CSRF, not the first: check the Origin as well.
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.attributes.same_site = same_site;
        self
    }

    /// Whether the cookie travels over HTTPS only. `false` is for development over plain HTTP, and needs a name without
    /// `__Host-`.
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionLayer, SigningKey};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
    ///     .cookie_name("session")
    ///     .secure(false)
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn secure(mut self, secure: bool) -> Self {
        self.attributes.secure = secure;
        self
    }

    /// Whether the cookie is kept apart for each site that embeds this one (CHIPS). It is for frames in other
    /// sites, where browsers send only cookies with `same_site(SameSite::None)`.
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

    /// How long a session lasts without a request.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.lifetimes.browser.idle = timeout;
        self
    }

    /// How long a session lasts at all, from its creation or its last login on.
    pub fn absolute_timeout(mut self, timeout: Duration) -> Self {
        self.lifetimes.browser.absolute = timeout;
        self
    }

    /// The idle timeout of a session that is remembered.
    pub fn remember_idle_timeout(mut self, timeout: Duration) -> Self {
        self.lifetimes.remember.idle = timeout;
        self
    }

    /// The absolute timeout of a session that is remembered. The cookie itself lasts 400 days at most, as browsers have it.
    pub fn remember_absolute_timeout(mut self, timeout: Duration) -> Self {
        self.lifetimes.remember.absolute = timeout;
        self
    }

    /// How long requests that change nothing go unrecorded after one that was recorded. It saves writes, and makes the idle
    /// timeout shorter by as much at most.
    pub fn touch_interval(mut self, interval: Duration) -> Self {
        self.lifetimes.touch_interval = Some(interval);
        self
    }

    /// How long one call of the store may take, before the request is answered with a 503.
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.store_timeout = timeout;
        self
    }

    /// How long a request tries to write a session that parallel requests keep changing, before it is answered with a 503.
    pub fn commit_timeout(mut self, timeout: Duration) -> Self {
        self.commit_timeout = timeout;
        self
    }

    /// How many bytes the keys and JSON values of a session may have in all.
    pub fn data_limit(mut self, bytes: usize) -> Self {
        self.data_limit = bytes;
        self
    }

    /// Loads a session when an extractor first asks for it, so that routes without one cost no store call. A request to such a
    /// route is no use of the session, and does not extend its idle timeout.
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionLayer, SigningKey};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?).lazy().build()?;
    /// # Ok(()) }
    /// ```
    pub fn lazy(mut self) -> Self {
        self.loading = Loading::Lazy;
        self
    }

    /// Sends `Clear-Site-Data: "cache", "storage"` with the response to a [`Session::log_out`](crate::Session::log_out).
    pub fn clear_site_data(mut self) -> Self {
        self.clear_site_data = true;
        self
    }

    /// How many sessions a user may have, and what a login beyond that does.
    ///
    /// Parallel logins may exceed it for a moment, and may then end or refuse each other. With [`WhenFull::Refuse`], a login
    /// that loses such a race loses the session that it was made in.
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionLayer, SigningKey, WhenFull};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
    ///     .max_sessions_per_user(5, WhenFull::EndOldest)
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn max_sessions_per_user(mut self, max: usize, when_full: WhenFull) -> Self
    where
        St: UserIndex,
    {
        self.user_limit = Some(UserLimit {
            index: self.store.clone(),
            max,
            when_full,
        });
        self
    }

    /// Whose users this layer's users are. By default it is the cookie's name.
    ///
    /// Layers on one store that have the same realm have the same users: a site and its mobile API, say. Then
    /// [`Sessions::revoke_all`](crate::Sessions::revoke_all) and
    /// [`max_sessions_per_user`](Self::max_sessions_per_user) reach a user's sessions of both. Give them the
    /// same timeouts: a session that is over by a layer's own is not listed or counted by it. Layers of
    /// different realms, as for customers and for operators, do not touch each other's sessions, even where
    /// two users have the same id.
    ///
    /// Another realm logs everybody out: what the old one's users have is no session to the layer.
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionLayer, SigningKey, Transport};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (store, key) = (std::sync::Arc::new(MemoryStore::new()), SigningKey::generate()?);
    /// let site = SessionLayer::builder(store.clone(), key.clone()).realm("customers").build()?;
    /// let api = SessionLayer::builder(store, key)
    ///     .cookie_name("api")
    ///     .transport(Transport::Bearer)
    ///     .secure(false) // the cookie is not in use, and its name has no `__Host-`
    ///     .realm("customers")
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        self.realm = Some(realm.into());
        self
    }

    /// Says which responses are those of a handler that succeeded, so that its changes are written. Changes
    /// of other requests are dropped, except that a session that was ended stays ended. Each drop is an event.
    ///
    /// By default a handler fails with a status of 5xx, with a 408 (as of a `TimeoutLayer` inside of this
    /// layer, which gives up midway), and with a `grpc-status` header that is not 0. A gRPC status in the
    /// trailers comes after the head of the response, and too late. Where the inner service itself fails, its
    /// changes are always dropped.
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

    /// The clock by which sessions expire; the system's by default.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Fills tokens with random bytes from elsewhere than the operating system: from a hardware generator, or in a test of
    /// its failure. It must be fit for cryptography.
    pub fn random<E>(
        mut self,
        fill: impl Fn(&mut [u8]) -> Result<(), E> + Send + Sync + 'static,
    ) -> Self
    where
        E: Into<BoxError>,
    {
        self.random = Random::new(move |bytes| fill(bytes).map_err(Into::into));
        self
    }

    /// The layer of these settings.
    ///
    /// # Errors
    ///
    /// A setting, or how two of them go together, is unsafe, or makes a cookie that a browser would drop. The error names it.
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionLayer, SigningKey};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let http = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?).secure(false);
    /// assert_eq!(http.build().unwrap_err().setting(), "secure"); // the name begins with `__Host-`
    /// # Ok(()) }
    /// ```
    pub fn build(self) -> Result<SessionLayer<St>, ConfigError> {
        self.lifetimes.check()?;
        for (setting, timeout) in [
            ("store_timeout", self.store_timeout),
            ("commit_timeout", self.commit_timeout),
        ] {
            if timeout.is_zero() {
                return Err(ConfigError::new(setting, "no store can answer in no time"));
            }
        }
        if self.data_limit == 0 {
            return Err(ConfigError::new(
                "data_limit",
                "nothing would fit into a session",
            ));
        }
        if self.user_limit.as_ref().is_some_and(|limit| limit.max == 0) {
            return Err(ConfigError::new(
                "max_sessions_per_user",
                "nobody could log in",
            ));
        }
        let realm = match &self.realm {
            Some(name) => Realm::named(name)?,
            None => Realm::of_cookie(&self.attributes.name),
        };
        let carrier = Carrier::new(self.transport, &self.attributes, &realm)?;
        let engine = Engine {
            store: self.store.clone(),
            signer: Signer::new(&self.keys, carrier.name()),
            carrier,
            random: self.random,
            clock: self.clock,
            lifetimes: self.lifetimes,
            store_timeout: self.store_timeout,
            commit_timeout: self.commit_timeout.min(LONGEST_COMMIT),
            data_limit: self.data_limit,
            loading: self.loading,
            clear_site_data: self.clear_site_data,
            user_limit: self.user_limit,
            realm,
            commit_rule: self.commit_rule,
            warned: Warned::default(),
            queues: Queues::new(),
        };
        Ok(SessionLayer {
            engine: Arc::new(engine),
            store: self.store,
        })
    }
}
