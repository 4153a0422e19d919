//! [`AssertionError`]: a request that does not say who the user is.

use std::error::Error;
use std::fmt;

use http::header::{CACHE_CONTROL, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};

/// Why a request has no good assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AssertionErrorKind {
    /// The request has no bearer token. The answer is a 401.
    Missing,
    /// The request has a bearer token that is no good assertion for this service. The answer is a
    /// 401 with `error="invalid_token"` (RFC 6750).
    Refused,
    /// The service has no keys of the issuer, because it could not fetch them. The answer is a 503.
    Unavailable,
}

/// A request has no good assertion.
///
/// With the feature `axum` it is a response. The response does not say what was wrong. The text of
/// the error does. If the service has refused an assertion, the event `assertion_rejected` has the
/// text too. Nothing of the token is in it.
///
/// ```
/// use cloakroom::assertion::{AssertionError, AssertionErrorKind};
///
/// fn is_visitor(error: &AssertionError) -> bool {
///     error.kind() == AssertionErrorKind::Missing
/// }
/// ```
pub struct AssertionError {
    kind: AssertionErrorKind,
    reason: &'static str,
}

impl AssertionError {
    pub(super) fn new(kind: AssertionErrorKind, reason: &'static str) -> Self {
        Self { kind, reason }
    }

    pub(super) fn missing() -> Self {
        Self::new(
            AssertionErrorKind::Missing,
            "the request has no bearer token",
        )
    }

    pub(super) fn unavailable() -> Self {
        Self::new(
            AssertionErrorKind::Unavailable,
            "the keys of the issuer could not be fetched",
        )
    }

    /// Why the error occurred.
    #[must_use]
    pub fn kind(&self) -> AssertionErrorKind {
        self.kind
    }

    pub(super) fn reason(&self) -> &'static str {
        self.reason
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.kind {
            AssertionErrorKind::Missing | AssertionErrorKind::Refused => StatusCode::UNAUTHORIZED,
            AssertionErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The answer to a request that fails with this error. It has no body.
    #[must_use]
    pub fn to_response<B: Default>(&self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // A request without a token has made no error (RFC 6750, section 3.1).
        let (name, value) = match self.kind {
            AssertionErrorKind::Missing => (WWW_AUTHENTICATE, "Bearer"),
            AssertionErrorKind::Refused => (WWW_AUTHENTICATE, r#"Bearer error="invalid_token""#),
            AssertionErrorKind::Unavailable => (RETRY_AFTER, "1"),
        };
        headers.insert(name, HeaderValue::from_static(value));
        response
    }
}

impl fmt::Debug for AssertionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AssertionError")
            .field("kind", &self.kind)
            .field("reason", &self.reason)
            .finish()
    }
}

impl fmt::Display for AssertionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl Error for AssertionError {}
