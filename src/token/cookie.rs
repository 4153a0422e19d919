//! The session cookie: its attributes, Set-Cookie and removal.

use cookie::Cookie;
use http::HeaderValue;
use http::header::{COOKIE, HeaderMap};
use memchr::memchr_iter;

use super::ENCODED_LEN;
use super::presented::{EncodedToken, PresentedTokens};
use crate::error::ConfigError;

/// The longest that browsers accept (RFC 6265bis, section 5.6): a name and its value together, and
/// an attribute.
const MAX_NAME_AND_VALUE: usize = 4096;
const MAX_ATTRIBUTE: usize = 1024;

/// With which requests of other sites a browser sends the cookie (RFC 6265bis, section 5.6.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SameSite {
    /// With none. Somebody who follows a link from a mail or another site comes as a visitor.
    Strict,
    /// With links that somebody follows, and with no other request. This is the default.
    #[default]
    Lax,
    /// With all. Such a cookie must be `Secure`.
    None,
}

impl From<SameSite> for cookie::SameSite {
    fn from(same_site: SameSite) -> Self {
        match same_site {
            SameSite::Strict => Self::Strict,
            SameSite::Lax => Self::Lax,
            SameSite::None => Self::None,
        }
    }
}

/// The cookie's attributes as the application set them.
#[derive(Clone, Debug)]
pub(crate) struct Attributes {
    /// What the application chose. See [`name`](Self::name).
    pub(crate) name: Option<String>,
    pub(crate) path: String,
    pub(crate) domain: Option<String>,
    pub(crate) same_site: SameSite,
    pub(crate) secure: bool,
    pub(crate) partitioned: bool,
}

impl Default for Attributes {
    fn default() -> Self {
        Self {
            name: None,
            path: "/".into(),
            domain: None,
            same_site: SameSite::default(),
            secure: true,
            partitioned: false,
        }
    }
}

impl Attributes {
    /// The cookie's name. Browsers drop a `__Host-` cookie that is not Secure, so the default name
    /// has that prefix only where the cookie is Secure.
    pub(crate) fn name(&self) -> &str {
        match (&self.name, self.secure) {
            (Some(name), _) => name,
            (None, true) => "__Host-session",
            (None, false) => "session",
        }
    }

    /// Refuses what a browser would drop, or would read as something else.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.name().is_empty() || !self.name().bytes().all(is_token_byte) {
            return Err(ConfigError::new(
                "cookie_name",
                "it must be a token: letters, digits and !#$%&'*+-.^_`|~ (RFC 9110, section 5.6.2)",
            ));
        }
        if self.name().len() + ENCODED_LEN > MAX_NAME_AND_VALUE {
            return Err(ConfigError::new(
                "cookie_name",
                "name and value would exceed the 4096 bytes that browsers accept",
            ));
        }
        if !self.path.starts_with('/') || !self.path.bytes().all(is_attribute_byte) {
            return Err(ConfigError::new(
                "cookie_path",
                "it must start with a slash, and hold visible ASCII without a semicolon",
            ));
        }
        if self.path.len() > MAX_ATTRIBUTE {
            return Err(ConfigError::new(
                "cookie_path",
                "it exceeds the 1024 bytes that browsers accept",
            ));
        }
        if let Some(domain) = &self.domain {
            let labels_are_good = domain.split('.').all(|label| {
                !label.is_empty()
                    && label
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            });
            if !labels_are_good || domain.len() > 253 {
                return Err(ConfigError::new(
                    "cookie_domain",
                    "it must be a host name, without a dot at either end",
                ));
            }
        }
        if self.same_site == SameSite::None && !self.secure {
            return Err(ConfigError::new(
                "same_site",
                "browsers drop a SameSite=None cookie that is not Secure",
            ));
        }
        if self.partitioned && !self.secure {
            return Err(ConfigError::new(
                "partitioned",
                "browsers drop a Partitioned cookie that is not Secure",
            ));
        }
        if self.partitioned && self.same_site != SameSite::None {
            return Err(ConfigError::new(
                "partitioned",
                "a Partitioned cookie is for frames of other sites, where browsers send only \
                 SameSite=None; set `same_site(SameSite::None)` as well",
            ));
        }
        self.check_prefix()
    }

    /// The rules of cookie name prefixes (RFC 6265bis, section 4.1.3). Browsers apply them in upper
    /// and lower case.
    fn check_prefix(&self) -> Result<(), ConfigError> {
        let has_prefix = |prefix| has_prefix(self.name(), prefix);
        let is_host = has_prefix("__Host-");
        if (is_host || has_prefix("__Secure-") || has_prefix("__Http-")) && !self.secure {
            return Err(ConfigError::new(
                "secure",
                "browsers drop a cookie of this name that is not Secure; name it without the prefix as well",
            ));
        }
        if is_host && self.domain.is_some() {
            return Err(ConfigError::new(
                "cookie_domain",
                "browsers drop a __Host- cookie with a Domain; name it `__Secure-…` to share it between hosts",
            ));
        }
        if is_host && self.path != "/" {
            return Err(ConfigError::new(
                "cookie_path",
                "browsers drop a __Host- cookie whose Path is not /; name it `__Secure-…` to narrow the path",
            ));
        }
        Ok(())
    }
}

/// Whether a cookie's name has this prefix, in upper or lower case.
pub(crate) fn has_prefix(name: &str, prefix: &str) -> bool {
    let start = name.as_bytes().get(..prefix.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_attribute_byte(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b';'
}

/// Reads and writes the session cookie. What does not change from request to request is rendered
/// once.
#[derive(Clone, Debug)]
pub(crate) struct CookieWriter {
    name: String,
    /// `; Path=/; …`: everything after the value except Max-Age.
    attributes: String,
    removal: HeaderValue,
    is_secure: bool,
}

/// The writer of the default [`Attributes`].
impl Default for CookieWriter {
    fn default() -> Self {
        Self {
            name: "__Host-session".to_owned(),
            attributes: "; HttpOnly; SameSite=Lax; Secure; Path=/".to_owned(),
            removal: HeaderValue::from_static(
                "__Host-session=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0; \
                 Expires=Thu, 01 Jan 1970 00:00:00 GMT",
            ),
            is_secure: true,
        }
    }
}

impl CookieWriter {
    pub(crate) fn new(attributes: &Attributes) -> Result<Self, ConfigError> {
        attributes.check()?;
        let mut cookie = Cookie::build((attributes.name(), ""))
            .path(&attributes.path)
            .secure(attributes.secure)
            .http_only(true)
            .same_site(cookie::SameSite::from(attributes.same_site))
            .partitioned(attributes.partitioned);
        if let Some(domain) = &attributes.domain {
            cookie = cookie.domain(domain);
        }
        let empty = cookie.build().to_string();
        let rendered = empty.get(attributes.name().len() + 1..).unwrap_or_default();
        // Expires is for clients that do not know Max-Age.
        let removal = format!("{empty}; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT");
        Ok(Self {
            name: attributes.name().to_owned(),
            is_secure: attributes.secure,
            attributes: rendered.to_owned(),
            removal: HeaderValue::try_from(removal).map_err(|error| {
                ConfigError::new("cookie_name", "it makes a header that HTTP does not allow")
                    .with_source(error)
            })?,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// The Set-Cookie header of this token. Without a Max-Age, the cookie ends with the browser.
    pub(crate) fn set(&self, token: &EncodedToken, max_age: Option<u64>) -> Option<HeaderValue> {
        self.set_value(token.as_bytes(), max_age)
    }

    /// The Set-Cookie header of this value.
    #[inline]
    pub(crate) fn set_value(&self, value: &[u8], max_age: Option<u64>) -> Option<HeaderValue> {
        use std::io::Write as _;
        let mut header =
            Vec::with_capacity(self.name.len() + 1 + value.len() + self.attributes.len() + 20);
        header.extend_from_slice(self.name.as_bytes());
        header.push(b'=');
        header.extend_from_slice(value);
        header.extend_from_slice(self.attributes.as_bytes());
        if let Some(seconds) = max_age {
            let _ = write!(header, "; Max-Age={seconds}");
        }
        HeaderValue::try_from(header).ok()
    }

    /// The Set-Cookie header that removes the cookie. It has the same Path, Domain and Secure, or a
    /// browser would keep the cookie.
    pub(crate) fn removal(&self) -> HeaderValue {
        self.removal.clone()
    }

    /// Whether this Set-Cookie header sets the session cookie.
    pub(crate) fn is_set_by(&self, header: &HeaderValue) -> bool {
        value_of(header.as_bytes(), self.name.as_bytes()).is_some()
    }

    /// What the request's Cookie headers hold under the cookie's name, byte for byte. Nothing is
    /// decoded or folded, and nothing is trimmed except what RFC 6265 puts between cookies
    /// (CVE-2020-8184).
    pub(crate) fn presented(&self, headers: &HeaderMap) -> PresentedTokens {
        let mut presented = PresentedTokens::default();
        self.each_value(headers, |value| presented.push(value));
        presented
    }

    /// Hands over each value that the request's Cookie headers hold under the cookie's name.
    #[inline]
    pub(crate) fn each_value(&self, headers: &HeaderMap, mut take: impl FnMut(&[u8])) {
        for header in headers.get_all(COOKIE) {
            let header = header.as_bytes();
            let mut start = 0;
            for end in memchr_iter(b';', header).chain([header.len()]) {
                let pair = header.get(start..end).unwrap_or_default();
                if let Some(value) = value_of(pair, self.name.as_bytes()) {
                    take(unquoted(value));
                }
                start = end.saturating_add(1);
            }
        }
    }

    /// The attributes, as they stand behind the value: `Path=/; …`.
    #[cfg(feature = "dbsc")]
    pub(crate) fn attributes(&self) -> &str {
        self.attributes.trim_start_matches("; ")
    }
}

/// The value of the `name=value` at the start of `pair`, if it has this name.
fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    trim(pair).strip_prefix(name)?.strip_prefix(b"=").map(trim)
}

/// The value without its pair of quotes, which belongs to the syntax (RFC 6265, section 4.1.1).
/// Clients in Java send quotes.
fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

/// The bytes without the white space that RFC 6265 ignores: spaces and tabs.
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_writer_is_that_of_the_default_attributes() {
        let built = CookieWriter::new(&Attributes::default()).unwrap();
        assert_eq!(
            format!("{built:?}"),
            format!("{:?}", CookieWriter::default())
        );
    }
}
