//! [`AssertionVerifier`]: what a service behind a gateway trusts.

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

/// Verifies assertions at a service. It trusts one issuer, and accepts one audience.
///
/// | setting | default |
/// | --- | --- |
/// | [`leeway`](Self::leeway) | 30 seconds |
/// | [`max_ttl`](Self::max_ttl) | 1 hour |
/// | [`clock`](Self::clock) | the system's |
///
/// It accepts two algorithms, ES256 and EdDSA, each for keys of its own type, and one type of
/// token. If the issuer or the audience is empty, it accepts nothing. Clones share the fetched
/// keys.
///
/// [`Asserted`] is the extractor for Axum. Other services call
/// [`verify_headers`](Self::verify_headers).
///
/// ```
/// use std::time::Duration;
/// use cloakroom::assertion::{AssertionKey, AssertionKeys, AssertionVerifier};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let keys = AssertionKeys::new(AssertionKey::generate()?);
/// let verifier = AssertionVerifier::new("https://example.com", "orders", keys.jwks())
///     .leeway(Duration::from_secs(10))
///     .max_ttl(Duration::from_secs(5 * 60));
/// # Ok(()) }
/// ```
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
    /// A verifier with these keys. It is for tests, and for a service that learns of new keys in
    /// another way.
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

    /// A verifier that fetches the keys of its issuer. `fetch` asks the gateway for its JWKS, with
    /// the HTTP client of the application, and returns the body. If the status is not 200, it should
    /// fail. Fetch over HTTPS or a network of your own: whoever can change the answer can speak for
    /// everybody.
    ///
    /// The first assertion waits for the keys. The verifier fetches them again when an assertion
    /// comes and the keys are five minutes old: then it fetches them in the background. Once they
    /// are ten minutes old, the assertion waits for the new keys. So a retired key is good for ten
    /// minutes at most, if the fetch succeeds and no cache is on the way.
    ///
    /// If an assertion names a key that is not among the keys, the verifier fetches them at once.
    /// Two fetches are at least ten seconds apart, so a flood of bad assertions is no flood of
    /// fetches.
    ///
    /// If a fetch fails, or takes more than five seconds, the log has the event `jwks_failed`, and
    /// the old keys are good for a day at most. Without any keys, the error is
    /// [`AssertionErrorKind::Unavailable`]. A fetch is a task, so the verifier needs a Tokio
    /// runtime.
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

    /// How far the clocks of the gateway and of this service may be apart. The service accepts an
    /// assertion for so much longer.
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// The longest time for which an assertion may be good, without the leeway. It does not depend
    /// on the gateway's own [`max_ttl`](crate::assertion::Assertions::max_ttl).
    #[must_use]
    pub fn max_ttl(mut self, max_ttl: Duration) -> Self {
        self.max_ttl = max_ttl;
        self
    }

    /// The clock by which assertions end and keys grow old. It is for tests.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Verifies an assertion.
    ///
    /// If the future is dropped, nothing has happened. A fetch that the call has started goes on.
    ///
    /// # Errors
    ///
    /// [`AssertionErrorKind::Refused`] if the text is no good assertion of this issuer for this
    /// service. [`AssertionErrorKind::Unavailable`] if the service could not fetch the keys.
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
    /// If the future is dropped, nothing has happened, as with [`verify`](Self::verify).
    ///
    /// # Errors
    ///
    /// [`AssertionErrorKind::Missing`] if the request has no bearer token.
    /// [`AssertionErrorKind::Refused`] if it has several `Authorization` headers. Others as
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
