//! [`AssertionVerifier`]: what a service behind trusts.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::claims::{Expected, Unverified};
use super::refusal::Refusal;
use super::source::KeySource;
use super::{Asserted, AssertionError, AssertionErrorKind, DEFAULT_MAX_TTL, Jwks};
use crate::clock::{Clock, SystemClock};
use crate::error::BoxError;
use crate::events;

/// Verifies assertions at a service: those of one issuer, for one audience.
///
/// | setting | default |
/// | --- | --- |
/// | [`leeway`](Self::leeway) | 30 seconds |
/// | [`max_ttl`](Self::max_ttl) | 1 hour |
/// | [`clock`](Self::clock) | the system's |
///
/// It accepts two algorithms, ES256 and EdDSA, each for keys of its own type, and one type of token.
/// An issuer or an audience that is empty
/// accepts nothing. Clones share the fetched keys.
///
/// [`Asserted`] is the extractor for Axum. Other services call
/// [`verify_headers`](Self::verify_headers).
#[derive(Clone, Debug)]
pub struct AssertionVerifier {
    issuer: Arc<str>,
    audience: Arc<str>,
    leeway: Duration,
    max_ttl: Duration,
    clock: Arc<dyn Clock>,
    keys: Arc<KeySource>,
}

impl AssertionVerifier {
    /// A service that has the keys of its issuer. It is for tests, and for a service that learns of
    /// new keys in another way.
    ///
    /// ```
    /// use cloakroom::assertion::{AssertionKey, AssertionKeys, AssertionVerifier};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let keys = AssertionKeys::new(AssertionKey::generate()?);
    /// let verifier = AssertionVerifier::new("https://example.com", "orders", keys.jwks());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn new(issuer: impl Into<Arc<str>>, audience: impl Into<Arc<str>>, keys: Jwks) -> Self {
        Self::with_source(issuer.into(), audience.into(), KeySource::Given(keys))
    }

    /// A service that fetches the keys of its issuer. `fetch` asks the gateway for its JWKS, with
    /// the HTTP client of the application, and returns the body. Let it fail if the status is not
    /// 200. Trust the way: HTTPS, or a network of your own.
    ///
    /// The first assertion waits for the keys. They are fetched again every five minutes while
    /// assertions come, in the background. After ten minutes, an assertion waits for them. So a
    /// retired key is good for no longer, if the fetch succeeds and no cache is on the way. If an assertion names a key that is not among them, they
    /// are fetched at once, but at most every ten seconds. So a flood of bad assertions is no flood
    /// of fetches.
    ///
    /// If a fetch fails, or takes more than five seconds, the old keys go on for a day at most, and
    /// the log has the event `jwks_failed`. Without any keys, the error is
    /// [`AssertionErrorKind::Unavailable`].
    ///
    /// ```
    /// use cloakroom::assertion::AssertionVerifier;
    ///
    /// # async fn get(_: &str) -> Result<String, std::io::Error> { Ok(String::new()) }
    /// let verifier = AssertionVerifier::fetching("https://example.com", "orders", || async {
    ///     get("https://example.com/.well-known/jwks.json").await
    /// });
    /// ```
    #[must_use]
    pub fn fetching<F, Fut, T, E>(
        issuer: impl Into<Arc<str>>,
        audience: impl Into<Arc<str>>,
        fetch: F,
    ) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: AsRef<[u8]>,
        E: Into<BoxError>,
    {
        let keys = KeySource::fetching(fetch);
        Self::with_source(issuer.into(), audience.into(), keys)
    }

    fn with_source(issuer: Arc<str>, audience: Arc<str>, keys: KeySource) -> Self {
        Self {
            issuer,
            audience,
            leeway: Duration::from_secs(30),
            max_ttl: DEFAULT_MAX_TTL,
            clock: Arc::new(SystemClock),
            keys: Arc::new(keys),
        }
    }

    /// How far the clocks of the gateway and of this service may be apart. An assertion is good for
    /// so much longer.
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// The longest time for which an assertion may be good. It does not depend on the gateway's own
    /// [`max_ttl`](crate::assertion::Assertions::max_ttl).
    #[must_use]
    pub fn max_ttl(mut self, max_ttl: Duration) -> Self {
        self.max_ttl = max_ttl;
        self
    }

    /// The clock by which assertions end, and keys grow old.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Verifies an assertion.
    ///
    /// If the future is dropped, nothing has happened. A fetch that it has started goes on.
    ///
    /// # Errors
    ///
    /// [`AssertionErrorKind::Refused`] if it is no good assertion of this issuer for this service.
    /// [`AssertionErrorKind::Unavailable`] if the keys could not be fetched.
    ///
    /// ```
    /// # use cloakroom::assertion::{AssertionError, AssertionVerifier};
    /// # async fn show(verifier: &AssertionVerifier, assertion: &str) -> Result<(), AssertionError> {
    /// let user = verifier.verify(assertion).await?;
    /// println!("{} until {}", user.user(), user.expires_at());
    /// # Ok(()) }
    /// ```
    pub async fn verify(&self, assertion: &str) -> Result<Asserted, AssertionError> {
        report(self.check(assertion).await)
    }

    /// Verifies the assertion of a request: its bearer token (RFC 6750, section 2.1).
    ///
    /// If the future is dropped, it is as with [`verify`](Self::verify).
    ///
    /// # Errors
    ///
    /// [`AssertionErrorKind::Missing`] if the request has no bearer token. Others as
    /// [`verify`](Self::verify).
    ///
    /// ```
    /// # use cloakroom::assertion::AssertionVerifier;
    /// async fn service(
    ///     verifier: &AssertionVerifier,
    ///     request: http::Request<String>,
    /// ) -> http::Response<String> {
    ///     match verifier.verify_headers(request.headers()).await {
    ///         Ok(user) => http::Response::new(format!("The orders of {}.", user.user())),
    ///         Err(error) => error.to_response(),
    ///     }
    /// }
    /// ```
    pub async fn verify_headers(&self, headers: &HeaderMap) -> Result<Asserted, AssertionError> {
        match bearer_token(headers) {
            Ok(Some(token)) => self.verify(token).await,
            Ok(None) => Err(AssertionError::missing()),
            Err(refusal) => report(Err(refusal.into())),
        }
    }

    async fn check(&self, text: &str) -> Result<Asserted, AssertionError> {
        let now = self.clock.now();
        let assertion = Unverified::parse(text)?;
        // What is wrong without a look at the signature costs no fetch.
        let asserted = assertion.check(&Expected {
            issuer: &self.issuer,
            audience: &self.audience,
            leeway: self.leeway,
            max_ttl: self.max_ttl,
            now,
        })?;
        let key = self.keys.find(assertion.kid(), now).await?;
        assertion.verify(key.key())?;
        Ok(asserted)
    }
}

fn report(result: Result<Asserted, AssertionError>) -> Result<Asserted, AssertionError> {
    if let Err(error) = &result
        && error.kind() == AssertionErrorKind::Refused
    {
        events::assertion::rejected(error.reason());
    }
    result
}

/// The bearer token of a request, if it has one.
fn bearer_token(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let Some(header) = all.next() else {
        return Ok(None);
    };
    if all.next().is_some() {
        return Err(Refusal::SeveralHeaders);
    }
    // The scheme's name has no case (RFC 9110, section 11.1).
    let header = header.as_bytes();
    let scheme_ends = header.iter().position(|&byte| byte == b' ');
    let (scheme, token) = header.split_at(scheme_ends.unwrap_or(header.len()));
    if !scheme.eq_ignore_ascii_case(b"Bearer") {
        return Ok(None);
    }
    match str::from_utf8(token) {
        Ok(token) => Ok(Some(token.trim_matches(' '))),
        Err(_) => Err(Refusal::Base64),
    }
}
