//! How a token travels: in a cookie, or in the `Authorization` header.

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, Entry, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    SET_COOKIE, VARY, WWW_AUTHENTICATE,
};

use crate::cookie::{Attributes, CookieWriter};
use crate::error::{ConfigError, ErrorKind, PLAIN_CHALLENGE, SessionHeaders};
use crate::record::Realm;
use crate::token::{Presented, Token};

/// How the session token travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// In the session cookie.
    #[default]
    Cookie,
    /// For clients without a cookie jar: they send `Authorization: Bearer <token>`. A new token comes to them in the response
    /// header [`x-session-token`](Self::TOKEN_HEADER), and an empty one there says that the session ended.
    Bearer,
}

impl Transport {
    /// The response header of a new token with [`Transport::Bearer`].
    pub const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-session-token");
}

/// What a browser is to forget when a user logs out. Its cookies are not among it: the session's own is
/// removed by name, and others are not this crate's.
const CLEAR_SITE_DATA: (HeaderName, HeaderValue) = (
    HeaderName::from_static("clear-site-data"),
    HeaderValue::from_static("\"cache\", \"storage\""),
);

/// Whether a header tells single caches what to do, which then follow it in place of `Cache-Control`
/// (RFC 9213, and what came before it).
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

/// Drops what the handler says to single caches, which would keep a token.
fn drop_exceptions_for_caches(headers: &mut HeaderMap) {
    while let Some(name) = headers.keys().find(|name| is_for_some_caches(name)) {
        let name = name.clone();
        headers.remove(name);
    }
}

/// A layer's transport, ready for use.
#[derive(Clone, Debug)]
pub(crate) enum Carrier {
    Cookie {
        cookie: CookieWriter,
        /// What a 401 asks for.
        challenge: HeaderValue,
    },
    Bearer {
        /// The cookie's name, which a token is bound to and a layer is known by, is this one's name as well.
        name: String,
    },
}

impl Carrier {
    pub(crate) fn new(
        transport: Transport,
        attributes: &Attributes,
        realm: &Realm,
    ) -> Result<Self, ConfigError> {
        // The cookie's settings must be right even where they are not in use: the transport is one call away.
        let cookie = CookieWriter::new(attributes)?;
        Ok(match transport {
            Transport::Cookie => Self::Cookie {
                cookie,
                challenge: HeaderValue::try_from(format!("Cookie realm=\"{}\"", realm.as_str()))
                    .map_err(|error| {
                        ConfigError::new("realm", "it makes a header that HTTP does not allow")
                            .caused_by(error)
                    })?,
            },
            Transport::Bearer => Self::Bearer {
                name: attributes.name.clone(),
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
    pub(crate) fn presented(&self, headers: &HeaderMap) -> Presented {
        match self {
            Self::Cookie { cookie, .. } => cookie.presented(headers),
            Self::Bearer { .. } => {
                let mut presented = Presented::default();
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
    pub(crate) fn issue(&self, headers: &mut HeaderMap, token: &Token, max_age: Option<u64>) {
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

    /// Takes the token from the client.
    pub(crate) fn withdraw(&self, headers: &mut HeaderMap) {
        drop_exceptions_for_caches(headers);
        match self {
            Self::Cookie { cookie, .. } => set_session_cookie(cookie, headers, cookie.removal()),
            Self::Bearer { .. } => set_token_header(headers, HeaderValue::from_static("")),
        }
        self.keep_out_of_caches(headers);
    }

    /// A token in a cache would be handed to others (CVE-2023-30861). What the handler says of caching stands where it keeps
    /// shared caches away.
    fn keep_out_of_caches(&self, headers: &mut HeaderMap) {
        self.vary(headers);
        let is_private = headers.get_all(CACHE_CONTROL).iter().any(|value| {
            value
                .as_bytes()
                .split(|&byte| byte == b',')
                .any(|directive| {
                    // `private="…"` is about single header fields (RFC 9111, section 5.2.2.7), and is not enough.
                    let directive = directive.trim_ascii();
                    directive.eq_ignore_ascii_case(b"private")
                        || directive.eq_ignore_ascii_case(b"no-store")
                })
        });
        if !is_private {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
    }

    /// Lets the browser forget what it keeps of the site, besides what the handler wants of it.
    pub(crate) fn clear_site_data(headers: &mut HeaderMap) {
        let (name, value) = CLEAR_SITE_DATA;
        headers.append(name, value);
    }

    /// Says what a client has to present, in a 401 of this crate (RFC 9110, section 15.5.2). An inner layer
    /// may have done so.
    pub(crate) fn challenge(&self, kind: ErrorKind, is_token_dead: bool, headers: &mut HeaderMap) {
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
                (ErrorKind::LoginTooOld, _) => "Bearer error=\"insufficient_user_authentication\"",
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

    /// Whether a browser that sends this will drop the cookie: it came over plain HTTP, from a host that
    /// is not its own.
    pub(crate) fn is_dropped_at(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Cookie { cookie, .. } if cookie.is_secure() => {
                let origin = headers.get(ORIGIN).map(HeaderValue::as_bytes);
                origin.is_some_and(|origin| is_plain_http(origin) && is_own(origin, headers))
            }
            _ => false,
        }
    }

    /// Whether two layers, one inside of the other, take each other's tokens.
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

/// Whether an origin is one of plain HTTP that browsers do not trust as they trust their own host (Secure
/// Contexts, section 3.1).
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

/// Whether an origin is the site itself, as far as the request tells, and not one that posts to it.
fn is_own(origin: &[u8], headers: &HeaderMap) -> bool {
    let own = headers.get(HOST).map(HeaderValue::as_bytes);
    own.is_none_or(|host| origin.strip_prefix(b"http://") == Some(host))
}

/// Sets the header of the token, before one that the handler has set for whatever reason.
fn set_token_header(headers: &mut HeaderMap, value: HeaderValue) {
    if let Some(other) = headers.insert(Transport::TOKEN_HEADER, value) {
        headers.append(Transport::TOKEN_HEADER, other);
    }
}

/// Sets the session cookie beside the handler's other cookies, and in place of another of the same name: a response has one
/// (RFC 6265, section 4.1.1).
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
