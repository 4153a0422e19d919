//! What can go wrong: [`SessionError`] in a handler, [`StoreError`] in a store, [`ConfigError`] while a layer is built.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::StatusCode;

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// A store's system failed: no connection, a full disk, no answer in time.
///
/// A missing, expired or undecodable record is an answer, not an error. The source keeps what the backend said.
///
/// ```
/// use cloakroom::StoreError;
///
/// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
/// let error = StoreError::new("could not reach the session database at db:5432", refused);
/// assert_eq!(error.to_string(), "could not reach the session database at db:5432");
/// assert!(std::error::Error::source(&error).is_some());
/// ```
pub struct StoreError(Box<Failure>);

/// Boxed, since a `Result` is as large as its error, and is moved through several futures.
struct Failure {
    what: Cow<'static, str>,
    source: Option<BoxError>,
}

impl StoreError {
    /// An error that says what failed (and what to do, where that is known), with the backend's error as its source.
    ///
    /// Neither may hold a secret or session data: both are logged.
    pub fn new(what: impl Into<Cow<'static, str>>, source: impl Into<BoxError>) -> Self {
        Self(Box::new(Failure {
            what: what.into(),
            source: Some(source.into()),
        }))
    }

    /// An error that no other error caused.
    pub fn message(what: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Failure {
            what: what.into(),
            source: None,
        }))
    }

    pub(crate) fn timeout(after: Duration) -> Self {
        Self::message(format!("the session store did not answer within {after:?}"))
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreError")
            .field("what", &self.0.what)
            .field("source", &self.0.source)
            .finish()
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Why a [`SessionError`] came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store failed or did not answer in time. Answered with 503.
    Store,
    /// Parallel requests kept changing this session for longer than the commit timeout. Answered with 503.
    Contended,
    /// The request did not pass a [`SessionLayer`](crate::SessionLayer). Answered with 500.
    MissingLayer,
    /// The layer is lazy, and nobody has awaited [`Session::load`](crate::Session::load) yet. Answered with 500.
    NotLoaded,
    /// The response has been sent, so that a change can no longer be saved. Answered with 500.
    Sealed,
    /// The session was ended, here or by another request, or its request never stored one. Answered with
    /// 500.
    Ended,
    /// Another request replaced the session's token, and this request's changes were not saved. Answered with 409.
    Superseded,
    /// The value has another type than the one asked for. Answered with 500.
    WrongType,
    /// The value cannot be written as JSON, or not be read back. Answered with 500.
    Unserializable,
    /// The session's data would exceed the layer's limit. Answered with 500.
    TooLarge,
    /// A user id is empty, longer than 255 bytes, or has a NUL in it. Answered with 500.
    InvalidUserId,
    /// Nobody is logged in. Answered with 401.
    NotLoggedIn,
    /// The login is too long ago for what was asked. Answered with 401.
    LoginTooOld,
    /// The user has as many sessions as the layer allows. Answered with 403.
    TooManySessions,
    /// The random generator failed. Answered with 500.
    Random,
}

impl ErrorKind {
    fn message(self) -> &'static str {
        match self {
            Self::Store => "the session store failed",
            Self::Contended => {
                "parallel requests kept changing the session; save less often, or raise the commit timeout"
            }
            Self::MissingLayer => {
                "no session in the request; add a `SessionLayer` to the router, outside of this handler"
            }
            Self::NotLoaded => {
                "the layer is lazy and the session is not loaded yet; await `Session::load` first"
            }
            Self::Sealed => {
                "the response is on its way, so the session can no longer change; use `Session::detach` for later changes"
            }
            Self::Ended => "the session has been ended, or its request has stored none",
            Self::Superseded => {
                "another request replaced the session's token; ask the client to try again"
            }
            Self::WrongType => "the session holds a value of another type",
            Self::Unserializable => "the value cannot be written as JSON, or not be read back",
            Self::TooLarge => {
                "the session's data would be too large; keep large data elsewhere, or raise the data limit"
            }
            Self::InvalidUserId => "a user id must have 1 to 255 bytes, none of them NUL",
            Self::NotLoggedIn => "nobody is logged in",
            Self::LoginTooOld => "the login is too long ago; ask for the password again",
            Self::TooManySessions => "the user has as many sessions as allowed; end one first",
            Self::Random => "the random generator failed",
        }
    }
}

/// What a session's methods fail with.
///
/// With the `axum` feature it is a response of its own: the status of its [`kind`](Self::kind), and no inner detail.
///
/// ```
/// use cloakroom::{ErrorKind, Session, SessionError};
///
/// fn theme(session: &Session) -> Result<String, SessionError> {
///     match session.get::<String>("theme") {
///         Err(error) if error.kind() == ErrorKind::WrongType => Ok("light".into()),
///         other => Ok(other?.unwrap_or_else(|| "light".into())),
///     }
/// }
/// ```
pub struct SessionError(Box<Reason>);

/// Boxed, as a store's failure is.
struct Reason {
    kind: ErrorKind,
    key: Option<Box<str>>,
    source: Option<BoxError>,
}

impl SessionError {
    pub(crate) fn with_source(kind: ErrorKind, source: impl Into<BoxError>) -> Self {
        Self(Box::new(Reason {
            kind,
            key: None,
            source: Some(source.into()),
        }))
    }

    pub(crate) fn of_key(kind: ErrorKind, key: &str) -> Self {
        Self(Box::new(Reason {
            kind,
            key: Some(key.into()),
            source: None,
        }))
    }

    /// Why it came about.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The status that it is answered with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.0.kind {
            ErrorKind::Store | ErrorKind::Contended => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::NotLoggedIn | ErrorKind::LoginTooOld => StatusCode::UNAUTHORIZED,
            ErrorKind::TooManySessions => StatusCode::FORBIDDEN,
            ErrorKind::Superseded => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The answer to a request that fails with this error: status, `Retry-After` for a 503, and no body. A 401 has a
    /// `WWW-Authenticate` (RFC 9110, section 15.5.2), to which the layer adds what its transport needs. The
    /// response's extensions have the [`ErrorKind`], by which a layer further out can make a page of it.
    ///
    /// ```
    /// # use cloakroom::SessionError;
    /// fn answer(error: &SessionError) -> http::Response<String> {
    ///     error.to_response()
    /// }
    /// ```
    #[must_use]
    pub fn to_response<B: Default>(&self) -> http::Response<B> {
        let mut response = http::Response::new(B::default());
        *response.status_mut() = self.status();
        response.extensions_mut().insert(self.kind());
        let headers = response.headers_mut();
        headers.insert(
            http::header::CACHE_CONTROL,
            http::HeaderValue::from_static("no-store"),
        );
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(
                http::header::RETRY_AFTER,
                http::HeaderValue::from_static("1"),
            );
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(http::header::WWW_AUTHENTICATE, PLAIN_CHALLENGE);
        }
        response
    }

    /// Puts this error in a response's place. What a client needs to read the answer stays, and what
    /// inner layers have to say of their own sessions.
    pub(crate) fn replace_response<B: Default>(&self, response: &mut http::Response<B>) {
        let old = std::mem::replace(response, self.to_response());
        let (mut old, _body) = old.into_parts();
        let inner = old.extensions.remove::<SessionHeaders>();
        let headers = response.headers_mut();
        for (name, value) in &old.headers {
            if stays_with_error(name) {
                headers.append(name, value.clone());
            }
        }
        for (name, value) in inner.iter().flat_map(|inner| &inner.0) {
            headers.append(name, value.clone());
        }
        if let Some(inner) = inner {
            response.extensions_mut().insert(inner);
        }
    }
}

/// The challenge of a 401 whose layer has not seen it.
pub(crate) const PLAIN_CHALLENGE: http::HeaderValue = http::HeaderValue::from_static("Cookie");

/// The headers that a session layer has set, in the extensions of its response: a layer further out that
/// puts an error in the response's place has to keep them.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionHeaders(pub(crate) Vec<(http::HeaderName, http::HeaderValue)>);

/// Without CORS headers, no script of another site could read the error. The others say how to treat the
/// site, whatever it answers. All else is about the answer that is replaced.
fn stays_with_error(name: &http::HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("access-control-")
        || name.starts_with("cross-origin-")
        || matches!(
            name,
            "vary"
                | "timing-allow-origin"
                | "strict-transport-security"
                | "x-content-type-options"
                | "x-request-id"
                | "traceparent"
        )
}

impl From<ErrorKind> for SessionError {
    fn from(kind: ErrorKind) -> Self {
        Self(Box::new(Reason {
            kind,
            key: None,
            source: None,
        }))
    }
}

impl From<StoreError> for SessionError {
    fn from(source: StoreError) -> Self {
        Self::with_source(ErrorKind::Store, source)
    }
}

impl fmt::Debug for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionError")
            .field("kind", &self.0.kind)
            .field("key", &self.0.key)
            .field("source", &self.0.source)
            .finish()
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.kind.message())?;
        match &self.0.key {
            Some(key) => write!(f, " (key {key:?})"),
            None => Ok(()),
        }
    }
}

impl Error for SessionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// A layer that a browser would not understand, or that is not safe: which setting, and why.
///
/// ```
/// use cloakroom::{MemoryStore, SessionLayer, SigningKey};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let error = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
///     .secure(false)
///     .build()
///     .unwrap_err();
/// assert_eq!(error.setting(), "secure");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct ConfigError {
    setting: &'static str,
    reason: Cow<'static, str>,
    source: Option<BoxError>,
}

impl ConfigError {
    pub(crate) fn new(setting: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            setting,
            reason: reason.into(),
            source: None,
        }
    }

    pub(crate) fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The builder's method, or the source of a key, that is at fault.
    #[must_use]
    pub fn setting(&self) -> &str {
        self.setting
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.reason)
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
