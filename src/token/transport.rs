//! How a token travels: in a cookie, or in the `Authorization` header.

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, Entry, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    SET_COOKIE, VARY, WWW_AUTHENTICATE,
};

use super::cookie::{Attributes, CookieWriter};
use super::presented::{EncodedToken, PresentedTokens};
use crate::error::{ConfigError, PLAIN_CHALLENGE, SessionErrorKind, SessionHeaders};
use crate::record::realm::Realm;

/// How the session token travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// In the session cookie.
    #[default]
    Cookie,
    /// In headers, for clients without a cookie jar. The client sends `Authorization: Bearer
    /// <token>`. It gets a new token in the response header
    /// [`x-session-token`](Self::TOKEN_HEADER). An empty header says that the session has ended.
    Bearer,
}

impl Transport {
    /// The response header that has a new token, with [`Transport::Bearer`].
    pub const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-session-token");
}

/// What a browser must forget when a user logs out. Cookies are not part of it. The layer removes
/// the session's own cookie by name, and other cookies belong to the application.
const CLEAR_SITE_DATA: (HeaderName, HeaderValue) = (
    HeaderName::from_static("clear-site-data"),
    HeaderValue::from_static("\"cache\", \"storage\""),
);

/// Whether a header tells particular caches what to do. Those caches follow it in place of
/// `Cache-Control` (RFC 9213, and older headers of that kind).
fn is_for_some_caches(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "cdn-cache-control"
            | "cloudflare-cdn-cache-control"
            | "edge-control"
            | "netlify-cdn-cache-control"
            | "surrogate-control"
            | "vercel-cdn-cache-control"
            | "x-accel-expires"
    )
}

/// Drops what the handler says to particular caches, because they could keep a token.
fn drop_exceptions_for_caches(headers: &mut HeaderMap) {
    while let Some(name) = headers.keys().find(|name| is_for_some_caches(name)) {
        let name = name.clone();
        headers.remove(name);
    }
}

/// The transport of one layer, with everything that is rendered once.
#[derive(Clone, Debug)]
pub(crate) enum TokenTransport {
    Cookie {
        cookie: CookieWriter,
        /// What a 401 asks for.
        challenge: HeaderValue,
    },
    Bearer {
        /// The cookie's name. The token is bound to it, and the layer is known by it.
        name: String,
    },
}

/// The transport of a layer with the default settings.
impl Default for TokenTransport {
    fn default() -> Self {
        Self::Cookie {
            cookie: CookieWriter::default(),
            challenge: HeaderValue::from_static("Cookie realm=\"__Host-session\""),
        }
    }
}

impl TokenTransport {
    pub(crate) fn new(
        transport: Transport,
        attributes: &Attributes,
        realm: &Realm,
    ) -> Result<Self, ConfigError> {
        // The cookie's settings must be right even if the transport does not use them, because one
        // call changes the transport.
        let cookie = CookieWriter::new(attributes)?;
        Ok(match transport {
            Transport::Cookie => Self::Cookie {
                cookie,
                challenge: HeaderValue::try_from(format!("Cookie realm=\"{}\"", realm.as_str()))
                    .map_err(|error| {
                        ConfigError::new("realm", "it makes a header that HTTP does not allow")
                            .with_source(error)
                    })?,
            },
            Transport::Bearer => Self::Bearer {
                name: attributes.name().to_owned(),
            },
        })
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Cookie { cookie, .. } => cookie.name(),
            Self::Bearer { name } => name,
        }
    }

    /// What the request presents as its token.
    pub(crate) fn presented(&self, headers: &HeaderMap) -> PresentedTokens {
        match self {
            Self::Cookie { cookie, .. } => cookie.presented(headers),
            Self::Bearer { .. } => {
                let mut presented = PresentedTokens::default();
                for header in headers.get_all(AUTHORIZATION) {
                    // The scheme's name has no case (RFC 9110, section 11.1).
                    if let Some((scheme, token)) =
                        header.as_bytes().split_at_checked("Bearer ".len())
                        && scheme.eq_ignore_ascii_case(b"Bearer ")
                    {
                        presented.push(token.trim_ascii());
                    }
                }
                presented
            }
        }
    }

    /// Gives the client this token.
    pub(crate) fn set_token(
        &self,
        headers: &mut HeaderMap,
        token: &EncodedToken,
        max_age: Option<u64>,
    ) {
        drop_exceptions_for_caches(headers);
        match self {
            Self::Cookie { cookie, .. } => {
                if let Some(value) = cookie.set(token, max_age) {
                    set_session_cookie(cookie, headers, value);
                }
            }
            Self::Bearer { .. } => {
                if let Ok(mut value) = HeaderValue::from_bytes(token.as_bytes()) {
                    value.set_sensitive(true);
                    set_token_header(headers, value);
                }
            }
        }
        self.keep_out_of_caches(headers);
    }

    /// Tells the client to forget its token.
    pub(crate) fn remove_token(&self, headers: &mut HeaderMap) {
        drop_exceptions_for_caches(headers);
        match self {
            Self::Cookie { cookie, .. } => set_session_cookie(cookie, headers, cookie.removal()),
            Self::Bearer { .. } => set_token_header(headers, HeaderValue::from_static("")),
        }
        self.keep_out_of_caches(headers);
    }

    /// Keeps the response out of shared caches, because a shared cache would hand the token to
    /// others (CVE-2023-30861). If the handler itself keeps the response out of shared caches, the
    /// handler's `Cache-Control` stays.
    fn keep_out_of_caches(&self, headers: &mut HeaderMap) {
        self.vary(headers);
        let is_private = headers.get_all(CACHE_CONTROL).iter().any(|value| {
            value
                .as_bytes()
                .split(|&byte| byte == b',')
                .any(|directive| {
                    // `private="…"` is about some header fields only (RFC 9111, section 5.2.2.7).
                    // It is not enough.
                    let directive = directive.trim_ascii();
                    directive.eq_ignore_ascii_case(b"private")
                        || directive.eq_ignore_ascii_case(b"no-store")
                })
        });
        if !is_private {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
    }

    /// Tells the browser to forget what it keeps of the site. A header that the handler has set
    /// stays.
    pub(crate) fn clear_site_data(headers: &mut HeaderMap) {
        let (name, value) = CLEAR_SITE_DATA;
        headers.append(name, value);
    }

    /// Says in a 401 of this crate what the client must present (RFC 9110, section 15.5.2), unless
    /// an inner layer has said so.
    pub(crate) fn challenge(
        &self,
        kind: SessionErrorKind,
        is_token_dead: bool,
        headers: &mut HeaderMap,
    ) {
        if headers
            .get(WWW_AUTHENTICATE)
            .is_some_and(|value| value != PLAIN_CHALLENGE)
        {
            return;
        }
        let value = match self {
            Self::Cookie { challenge, .. } => challenge.clone(),
            // RFC 6750, section 3, and RFC 9470, section 3.
            Self::Bearer { .. } => HeaderValue::from_static(match (kind, is_token_dead) {
                (SessionErrorKind::LoginTooOld, _) => {
                    "Bearer error=\"insufficient_user_authentication\""
                }
                (_, true) => "Bearer error=\"invalid_token\"",
                (_, false) => "Bearer",
            }),
        };
        headers.insert(WWW_AUTHENTICATE, value);
    }

    /// The headers that this layer has set for its client.
    pub(crate) fn session_headers(
        &self,
        headers: &HeaderMap,
        clears_site_data: bool,
    ) -> SessionHeaders {
        let own = match self {
            Self::Cookie { cookie, .. } => headers
                .get_all(SET_COOKIE)
                .iter()
                .find(|value| cookie.is_set_by(value))
                .map(|value| (SET_COOKIE, value.clone())),
            Self::Bearer { .. } => headers
                .get(Transport::TOKEN_HEADER)
                .map(|value| (Transport::TOKEN_HEADER, value.clone())),
        };
        let cleared = clears_site_data.then_some(CLEAR_SITE_DATA);
        SessionHeaders(own.into_iter().chain(cleared).collect())
    }

    /// Whether the browser that sent this request will drop the cookie. It will if it came over
    /// plain HTTP from another host than its own.
    pub(crate) fn is_dropped_at(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Cookie { cookie, .. } if cookie.is_secure() => {
                let origin = headers.get(ORIGIN).map(HeaderValue::as_bytes);
                origin.is_some_and(|origin| is_plain_http(origin) && is_own(origin, headers))
            }
            _ => false,
        }
    }

    /// Whether two layers read the same cookie or header, so that each gets the other's token.
    pub(crate) fn rivals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cookie { .. }, Self::Cookie { .. }) => self.name() == other.name(),
            (Self::Bearer { .. }, Self::Bearer { .. }) => true,
            _ => false,
        }
    }

    /// Tells caches that the response depends on the session.
    pub(crate) fn vary(&self, headers: &mut HeaderMap) {
        const COOKIE: HeaderValue = HeaderValue::from_static("Cookie");
        const AUTHORIZATION: HeaderValue = HeaderValue::from_static("Authorization");
        let name = match self {
            Self::Cookie { .. } => COOKIE,
            Self::Bearer { .. } => AUTHORIZATION,
        };
        let names = |value: &HeaderValue| {
            value.as_bytes().split(|&byte| byte == b',').any(|field| {
                let field = field.trim_ascii();
                field == b"*" || field.eq_ignore_ascii_case(name.as_bytes())
            })
        };
        match headers.entry(VARY) {
            Entry::Vacant(vary) => {
                vary.insert(name);
            }
            Entry::Occupied(mut vary) => {
                if !vary.iter().any(names) {
                    vary.append(name);
                }
            }
        }
    }
}

/// Whether an origin is one of plain HTTP, and is not on the browser's own machine. Browsers trust
/// their own machine (Secure Contexts, section 3.1).
fn is_plain_http(origin: &[u8]) -> bool {
    let Some(host) = origin.strip_prefix(b"http://") else {
        return false;
    };
    let is_local = host.starts_with(b"127.")
        || host.starts_with(b"[::1]")
        || host
            .split(|&byte| byte == b':')
            .next()
            .is_some_and(|name| name == b"localhost" || name.ends_with(b".localhost"));
    !is_local
}

/// Whether an origin is the site itself, as far as the request shows. Another site may have posted
/// to it.
fn is_own(origin: &[u8], headers: &HeaderMap) -> bool {
    let own = headers.get(HOST).map(HeaderValue::as_bytes);
    own.is_none_or(|host| origin.strip_prefix(b"http://") == Some(host))
}

/// Sets the header of the token. If the handler has set one, that comes after it.
fn set_token_header(headers: &mut HeaderMap, value: HeaderValue) {
    if let Some(other) = headers.insert(Transport::TOKEN_HEADER, value) {
        headers.append(Transport::TOKEN_HEADER, other);
    }
}

/// Sets the session cookie. The handler's other cookies stay, except one of the same name, because
/// a response must not set a cookie twice (RFC 6265, section 4.1.1).
fn set_session_cookie(cookie: &CookieWriter, headers: &mut HeaderMap, mut value: HeaderValue) {
    if headers
        .get_all(SET_COOKIE)
        .iter()
        .any(|other| cookie.is_set_by(other))
    {
        let others: Vec<_> = headers
            .get_all(SET_COOKIE)
            .iter()
            .filter(|other| !cookie.is_set_by(other))
            .cloned()
            .collect();
        headers.remove(SET_COOKIE);
        for other in others {
            headers.append(SET_COOKIE, other);
        }
    }
    value.set_sensitive(true);
    headers.append(SET_COOKIE, value);
}
