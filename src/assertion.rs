//! Assertions: a gateway with sessions tells the services behind it who the user is.
//!
//! An assertion is a short-lived JWT, signed with ES256 or EdDSA. [`Session::assertion`] makes an
//! assertion for one service. The service reads it with the extractor [`Asserted`], which verifies
//! it with the public keys that the gateway publishes. The service needs no store call for that,
//! and no shared secret. [The page on assertions](crate::docs::assertions) says when to use them,
//! and what they give up.
//!
//! At the gateway:
//!
//! ```
//! # #[cfg(all(feature = "axum", feature = "memory"))] {
//! use std::time::Duration;
//! use axum::{Router, routing::get};
//! use cloakroom::assertion::{AssertionKey, AssertionKeys, Assertions, JwksRoute};
//! use cloakroom::{MemoryStore, Session, SessionError, SessionLayer, SigningKey};
//!
//! async fn orders(session: Session) -> Result<String, SessionError> {
//!     let assertion = session.assertion("orders", Duration::from_secs(60))?;
//!     // Here the gateway sends the request on, with `Authorization: Bearer` and the assertion.
//!     Ok(assertion)
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keys = AssertionKeys::new(AssertionKey::generate()?);
//! let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
//!     .assertions(Assertions::new("https://example.com", keys.clone()))
//!     .build()?;
//! let app: Router = Router::new()
//!     .route("/orders", get(orders))
//!     .layer(layer)
//!     .route(JwksRoute::PATH, get(keys.jwks_route()));
//! # Ok(()) } }
//! ```
//!
//! At the service:
//!
//! ```
//! # #[cfg(feature = "axum")] {
//! use axum::{Router, routing::get};
//! use cloakroom::assertion::{Asserted, AssertionVerifier};
//!
//! async fn orders(user: Asserted) -> String {
//!     format!("The orders of {}.", user.user())
//! }
//!
//! # async fn ask(_: &str) -> Result<String, std::io::Error> { Ok(String::new()) }
//! // `ask` is a GET by the HTTP client of the application.
//! let verifier = AssertionVerifier::fetching("https://example.com", "orders", || {
//!     ask("https://example.com/.well-known/jwks.json")
//! });
//! let app: Router = Router::new().route("/orders", get(orders)).with_state(verifier);
//! # }
//! ```
//!
//! [`Session::assertion`]: crate::Session::assertion

mod algorithm;
mod asserted;
mod claims;
mod error;
#[cfg(feature = "axum")]
mod extract;
mod issue;
mod jwks;
mod keys;
mod refusal;
mod source;
mod verifier;

use std::time::Duration;

pub use self::asserted::Asserted;
pub use self::error::{AssertionError, AssertionErrorKind};
pub(crate) use self::issue::{Subject, invalid};
pub use self::jwks::{InvalidJwks, Jwks, JwksRoute};
pub use self::keys::{AssertionKey, AssertionKeys};
pub use self::verifier::AssertionVerifier;
use crate::error::ConfigError;

/// The type of an assertion, in its header (RFC 8725, section 3.11). No other JWT of the same
/// issuer passes for an assertion, and no assertion passes for an access token of OAuth.
const TYPE: &str = "assertion+jwt";

/// The longest assertion, in bytes. Many servers refuse a header that is longer than 8 KiB.
const MAX_LEN: usize = 8 * 1024 - 256;

/// How long an assertion may be good, unless the application sets another time.
const DEFAULT_MAX_TTL: Duration = Duration::from_secs(60 * 60);

/// The longest time that an application can allow.
const LONGEST_MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes the assertions of a layer: who issues them, and with which keys.
///
/// | setting | default |
/// | --- | --- |
/// | [`max_ttl`](Self::max_ttl) | 1 hour |
///
/// ```
/// # use std::time::Duration;
/// # use cloakroom::assertion::{AssertionKeys, Assertions};
/// # fn show() -> Result<(), Box<dyn std::error::Error>> {
/// let keys = AssertionKeys::from_file("/run/secrets/assertion_keys.pem")?;
/// let assertions = Assertions::new("https://example.com", keys)
///     .max_ttl(Duration::from_secs(5 * 60));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "hand it to `assertions` of the layer's builder"]
pub struct Assertions {
    issuer: String,
    keys: AssertionKeys,
    max_ttl: Duration,
}

impl Assertions {
    /// Assertions of this issuer, signed with these keys. The issuer is the name by which services
    /// know the gateway, for example its URL.
    ///
    /// Give each [realm](crate::SessionLayerBuilder::realm) an issuer of its own. An assertion
    /// names the user as the application does, without the realm. So with one issuer, a service
    /// could not tell customer 42 from operator 42.
    pub fn new(issuer: impl Into<String>, keys: impl Into<AssertionKeys>) -> Self {
        Self {
            issuer: issuer.into(),
            keys: keys.into(),
            max_ttl: DEFAULT_MAX_TTL,
        }
    }

    /// The longest `ttl` that [`Session::assertion`](crate::Session::assertion) takes: from one
    /// second to 24 hours. The default is 1 hour. By default, services refuse assertions that last
    /// for more than an hour: see [`AssertionVerifier::max_ttl`].
    pub fn max_ttl(mut self, max_ttl: Duration) -> Self {
        self.max_ttl = max_ttl;
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        const SECOND: Duration = Duration::from_secs(1);
        if self.issuer.is_empty() {
            return Err(ConfigError::new(
                "assertions",
                "the issuer is empty; name the gateway, for example by its URL",
            ));
        }
        if !(SECOND..=LONGEST_MAX_TTL).contains(&self.max_ttl) {
            return Err(ConfigError::new(
                "assertions",
                "`max_ttl` must be from one second to 24 hours",
            ));
        }
        Ok(())
    }
}
