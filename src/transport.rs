//! How a token travels: in a cookie, or in the `Authorization` header.

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, Entry, HeaderMap, HeaderName, HeaderValue, SET_COOKIE, VARY,
};

use crate::cookie::{Attributes, CookieWriter};
use crate::error::ConfigError;
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

/// A layer's transport, ready for use.
#[derive(Clone, Debug)]
pub(crate) enum Carrier {
    Cookie(CookieWriter),
    Bearer {
        /// The cookie's name, which a token is bound to and a layer is known by, is this one's name as well.
        name: String,
    },
}

impl Carrier {
    pub(crate) fn new(transport: Transport, attributes: &Attributes) -> Result<Self, ConfigError> {
        // The cookie's settings must be right even where they are not in use: the transport is one call away.
        let cookie = CookieWriter::new(attributes)?;
        Ok(match transport {
            Transport::Cookie => Self::Cookie(cookie),
            Transport::Bearer => Self::Bearer {
                name: attributes.name.clone(),
            },
        })
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Cookie(cookie) => cookie.name(),
            Self::Bearer { name } => name,
        }
    }

    /// What the request presents as its token.
    pub(crate) fn presented(&self, headers: &HeaderMap) -> Presented {
        match self {
            Self::Cookie(cookie) => cookie.presented(headers),
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
        match self {
            Self::Cookie(cookie) => {
                if let Some(value) = cookie.set(token, max_age) {
                    set_session_cookie(cookie, headers, value);
                }
            }
            Self::Bearer { .. } => {
                if let Ok(mut value) = HeaderValue::from_bytes(token.as_bytes()) {
                    value.set_sensitive(true);
                    headers.insert(Transport::TOKEN_HEADER, value);
                }
            }
        }
        self.keep_out_of_caches(headers);
    }

    /// Takes the token from the client.
    pub(crate) fn withdraw(&self, headers: &mut HeaderMap) {
        match self {
            Self::Cookie(cookie) => set_session_cookie(cookie, headers, cookie.removal()),
            Self::Bearer { .. } => {
                headers.insert(Transport::TOKEN_HEADER, HeaderValue::from_static(""));
            }
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

    /// Tells caches that the response depends on the session.
    pub(crate) fn vary(&self, headers: &mut HeaderMap) {
        const COOKIE: HeaderValue = HeaderValue::from_static("Cookie");
        const AUTHORIZATION: HeaderValue = HeaderValue::from_static("Authorization");
        let name = match self {
            Self::Cookie(_) => COOKIE,
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
