//! What can go wrong: [`SessionError`] in a handler, [`StoreError`] in a store, [`ConfigError`]
//! while a layer is built.

mod step_up;
mod store;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use http::StatusCode;

pub(crate) use self::step_up::StepUp;
pub use self::store::StoreError;

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// Why a [`SessionError`] occurred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionErrorKind {
    /// The store failed or did not answer in time. The answer is a 503.
    Store,
    /// Parallel requests kept changing this session for longer than the commit timeout. The answer
    /// is a 503.
    Contended,
    /// The request did not pass the [`SessionLayer`](crate::SessionLayer). The answer is a 500.
    MissingLayer,
    /// The layer is lazy, and nobody has loaded the session yet. The answer is a 500.
    NotLoaded,
    /// The response is on its way, so the layer cannot write more changes. The answer is a 500.
    Sealed,
    /// The session has ended, or the request of this handle has stored no session. The answer is a
    /// 500.
    Ended,
    /// Another request rotated the session's token. The changes of this request are not written.
    /// The answer is a 409.
    TokenRotated,
    /// The value has another type than the handler asked for. The answer is a 500.
    WrongType,
    /// The value cannot be JSON, or nobody could read it back. The answer is a 500.
    Unserializable,
    /// The session's data would exceed the layer's limit. The answer is a 500.
    TooLarge,
    /// A user id is empty, has more than 255 bytes, or has a NUL in it. The answer is a 500.
    InvalidUserId,
    /// Nobody is logged in. The answer is a 401.
    NotLoggedIn,
    /// The login is too long ago. The answer is a 401.
    LoginTooOld,
    /// The login has not reached a level that is asked for. The answer is a 401.
    LevelTooLow,
    /// The session is bound to a device, and the request did not prove that it comes from there.
    /// The answer is a 401.
    #[cfg(feature = "dbsc")]
    DeviceUnproven,
    /// The user cannot act as another here: the session acts as somebody already, or the other is
    /// the user. The answer is a 403.
    CannotAct,
    /// A [guard](crate::login::required) lets through only other users. The answer is a 403.
    #[cfg(feature = "login")]
    NotAllowed,
    /// The look-up of the user failed. The answer is a 503.
    #[cfg(feature = "login")]
    Users,
    /// No layer around the handler has the users that were asked for. The answer is a 500.
    #[cfg(feature = "login")]
    NoUsers,
    /// The layer makes no [assertions](crate::Session::assertion). The answer is a 500.
    #[cfg(feature = "jwt")]
    NoAssertions,
    /// The [assertion](crate::Session::assertion) that was asked for cannot be made. The answer is
    /// a 500.
    #[cfg(feature = "jwt")]
    InvalidAssertion,
    /// The layer has no lifetime of this name. The answer is a 500.
    UnknownLifetime,
    /// An external id is empty, has more than 255 bytes, or has a NUL in it. The answer is a 500.
    InvalidExternalId,
    /// A filter of sessions, or the `limit` of a page, makes no sense. The error says why. The
    /// answer is a 400.
    InvalidFilter,
    /// A text is not a cursor that the store has made. The answer is a 400.
    InvalidCursor,
    /// The user has as many sessions as the layer allows. The answer is a 403.
    TooManySessions,
    /// The random generator failed. The answer is a 500.
    Random,
}

impl fmt::Display for SessionErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl SessionErrorKind {
    fn message(self) -> &'static str {
        match self {
            Self::Store => "the session store failed",
            Self::Contended => {
                "parallel requests kept changing the session; save less often, or raise the commit timeout"
            }
            Self::MissingLayer => {
                "no session in the request; add a `SessionLayer` to the router, around this handler"
            }
            Self::NotLoaded => {
                "the layer is lazy and the session is not loaded yet; await `Session::load_from`"
            }
            Self::Sealed => {
                "the response is on its way, so the session can no longer change; use `Session::detach` for later changes"
            }
            Self::Ended => "the session has ended, or its request has not stored one",
            Self::TokenRotated => {
                "another request rotated the session's token; ask the client to try again"
            }
            Self::WrongType => "the session holds a value of another type",
            Self::Unserializable => "the value cannot be JSON, or nobody could read it back",
            Self::TooLarge => {
                "the session's data would be too large; keep large data elsewhere, or raise the data limit"
            }
            Self::InvalidUserId => "a user id must have 1 to 255 bytes, none of them NUL",
            Self::NotLoggedIn => "nobody is logged in",
            Self::LoginTooOld => "the login is too long ago; ask for the password again",
            Self::LevelTooLow => {
                "the login has not reached the level that is asked for; ask for a stronger one"
            }
            #[cfg(feature = "dbsc")]
            Self::DeviceUnproven => {
                "the session is bound to a device, and the request does not prove that it comes from there"
            }
            Self::CannotAct => {
                "the user cannot act as this one: the session acts as somebody already, has just been \
                 logged in, or belongs to this user"
            }
            #[cfg(feature = "login")]
            Self::NotAllowed => "the user may not do this",
            #[cfg(feature = "login")]
            Self::Users => "the look-up of the user failed",
            #[cfg(feature = "login")]
            Self::NoUsers => {
                "no session layer around the handler has these users; call `.users(db)` on the layer's \
                 builder"
            }
            #[cfg(feature = "jwt")]
            Self::NoAssertions => "the layer makes no assertions; call `assertions` on its builder",
            #[cfg(feature = "jwt")]
            Self::InvalidAssertion => {
                "this assertion cannot be made, and the source of the error says why"
            }
            Self::UnknownLifetime => {
                "the layer has no lifetime of this name; call `lifetime` on its builder"
            }
            Self::InvalidExternalId => "an external id must have 1 to 255 bytes, none of them NUL",
            Self::InvalidFilter => "the filter or the limit makes no sense",
            Self::InvalidCursor => {
                "this is not a cursor that the store has made; begin with the first page"
            }
            Self::TooManySessions => "the user has as many sessions as allowed; end one first",
            Self::Random => "the random generator failed",
        }
    }
}

/// The error of a session's methods.
///
/// With the feature `axum` it is a response. The response has the status of the
/// [`kind`](Self::kind), and no detail of the cause.
///
/// ```
/// use cloakroom::{SessionErrorKind, Session, SessionError};
///
/// fn theme(session: &Session) -> Result<String, SessionError> {
///     match session.get::<String>("theme") {
///         Err(error) if error.kind() == SessionErrorKind::WrongType => Ok("light".into()),
///         other => Ok(other?.unwrap_or_else(|| "light".into())),
///     }
/// }
/// ```
pub struct SessionError(Box<Reason>);

/// Boxed, as a store's failure.
struct Reason {
    kind: SessionErrorKind,
    key: Option<Box<str>>,
    /// What is wrong with the caller's request, in words.
    why: Option<&'static str>,
    /// What a better login needs, for the challenge of a 401.
    step_up: Option<StepUp>,
    source: Option<BoxError>,
}

impl SessionError {
    pub(crate) fn new(kind: SessionErrorKind) -> Self {
        Self(Box::new(Reason {
            kind,
            key: None,
            why: None,
            step_up: None,
            source: None,
        }))
    }

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error, with what a better login needs.
    pub(crate) fn with_step_up(mut self, step_up: StepUp) -> Self {
        self.0.step_up = Some(step_up);
        self
    }

    /// The same error, which names the key of the value that is at fault.
    pub(crate) fn with_key(mut self, key: &str) -> Self {
        self.0.key = Some(key.into());
        self
    }

    /// The same error, which says what is wrong with what the caller asked for.
    pub(crate) fn because(mut self, why: &'static str) -> Self {
        self.0.why = Some(why);
        self
    }

    /// Why the error occurred.
    #[must_use]
    pub fn kind(&self) -> SessionErrorKind {
        self.0.kind
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.0.kind {
            SessionErrorKind::Store | SessionErrorKind::Contended => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            #[cfg(feature = "login")]
            SessionErrorKind::Users => StatusCode::SERVICE_UNAVAILABLE,
            #[cfg(feature = "login")]
            SessionErrorKind::NotAllowed => StatusCode::FORBIDDEN,
            #[cfg(feature = "dbsc")]
            SessionErrorKind::DeviceUnproven => StatusCode::UNAUTHORIZED,
            SessionErrorKind::NotLoggedIn
            | SessionErrorKind::LoginTooOld
            | SessionErrorKind::LevelTooLow => StatusCode::UNAUTHORIZED,
            SessionErrorKind::TooManySessions | SessionErrorKind::CannotAct => {
                StatusCode::FORBIDDEN
            }
            SessionErrorKind::TokenRotated => StatusCode::CONFLICT,
            SessionErrorKind::InvalidFilter | SessionErrorKind::InvalidCursor => {
                StatusCode::BAD_REQUEST
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The answer to a request that fails with this error. It has no body.
    ///
    /// A 503 has a `Retry-After`. A 401 has a `WWW-Authenticate` (RFC 9110, section 15.5.2), to
    /// which the layer adds what its transport needs. The extensions of the response have the
    /// [`SessionErrorKind`], so that a layer further out can replace it by a page.
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
        if let Some(step_up) = &self.0.step_up {
            response.extensions_mut().insert(step_up.clone());
        }
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

    /// Puts this error in the place of a response. Headers that a client needs to read the answer
    /// stay, and so do those of inner layers about their own sessions.
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

/// The challenge of a 401 that no layer has seen yet.
pub(crate) const PLAIN_CHALLENGE: http::HeaderValue = http::HeaderValue::from_static("Cookie");

/// The headers that a session layer has set. They are in the extensions of its response, because a
/// layer further out that puts an error in the place of the response must keep them.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionHeaders(pub(crate) Vec<(http::HeaderName, http::HeaderValue)>);

/// Whether a header of the old response stays. Without CORS headers, no script of another site
/// could read the error. Some headers say how to treat the site, whatever it answers. All others
/// are about the old response.
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

impl From<SessionErrorKind> for SessionError {
    fn from(kind: SessionErrorKind) -> Self {
        Self::new(kind)
    }
}

impl From<StoreError> for SessionError {
    fn from(source: StoreError) -> Self {
        Self::new(SessionErrorKind::Store).with_source(source)
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
        if let Some(why) = self.0.why {
            write!(f, ": {why}")?;
        }
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

/// A setting is unsafe, or a browser would not understand it. The error says which setting, and
/// why.
///
/// ```
/// use cloakroom::{MemoryStore, SessionLayer, SigningKey};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let error = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?)
///     .cookie_name("__Host-id")
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

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The name of the setting that is at fault: a method of the builder, or `key` or `keys`.
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
