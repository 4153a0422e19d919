//! What caches must know of a response that depends on a session, or has a token in it.

use http::header::{CACHE_CONTROL, Entry, HeaderMap, HeaderName, HeaderValue, VARY};

use super::TokenTransport;

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
pub(super) fn drop_exceptions_for_caches(headers: &mut HeaderMap) {
    while let Some(name) = headers.keys().find(|name| is_for_some_caches(name)) {
        let name = name.clone();
        headers.remove(name);
    }
}

impl TokenTransport {
    /// Keeps the response out of shared caches, because a shared cache would hand the token to
    /// others (CVE-2023-30861). If the handler itself keeps the response out of shared caches, the
    /// handler's `Cache-Control` stays.
    pub(super) fn keep_out_of_caches(&self, headers: &mut HeaderMap) {
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

    /// Tells caches that the response depends on the session.
    pub(crate) fn vary(&self, headers: &mut HeaderMap) {
        match self {
            Self::Cookie { .. } => vary_by(COOKIE, headers),
            Self::Bearer { .. } => vary_by(AUTHORIZATION, headers),
            Self::CookieOrBearer { .. } => {
                vary_by(COOKIE, headers);
                vary_by(AUTHORIZATION, headers);
            }
        }
    }
}

const COOKIE: HeaderValue = HeaderValue::from_static("Cookie");
const AUTHORIZATION: HeaderValue = HeaderValue::from_static("Authorization");

/// [`Transport::CHOICE_HEADER`](super::Transport::CHOICE_HEADER).
const CHOICE: HeaderValue = HeaderValue::from_static("X-Session-Transport");

/// Tells caches that the response depends on the transport that the client chose.
pub(super) fn vary_by_choice(headers: &mut HeaderMap) {
    vary_by(CHOICE, headers);
}

/// Tells caches that the response depends on the request's header of this name.
fn vary_by(name: HeaderValue, headers: &mut HeaderMap) {
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
