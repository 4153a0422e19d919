//! [`Next`]: where a login leads back to.

use std::borrow::Cow;
use std::fmt;

use http::{Extensions, Request, Uri};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::session::lazy::SessionSlot;

/// The query parameter that holds the page.
pub(super) const PARAMETER: &str = "next";

/// Servers and proxies refuse a header that is much longer.
const LONGEST: usize = 2000;

/// Nobody encodes a path as often as this by mistake.
const MOST_DECODINGS: usize = 5;

/// What a header and an attribute of HTML may not have. Text beyond ASCII is encoded as well.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'\'')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Where to go after the login: the query parameter `next`, checked.
///
/// [`required`](super::required) puts the page that a visitor asked for into this parameter. But
/// anybody can write a link to the login page, with any `next`. So this type only gives a path of
/// this site. If the parameter holds anything else, it counts as missing:
///
/// - `https://evil.example`, `//evil.example`, `/\evil.example`: another site, or what browsers
///   take for one
/// - the same in percent-encoding, encoded once or several times, and dot segments in the path
///   (`/.//evil.example`): a proxy may decode the path
/// - control characters, and white space, which browsers drop
/// - the login page itself, which would lead in a circle
/// - more than 2000 bytes
///
/// Keep the `next` from the login page to the request that logs in. A form without an `action`
/// does that by itself, because it is sent to the address of its page.
///
/// ```
/// use axum::Form;
/// use axum::response::{Html, Redirect};
/// use cloakroom::{Session, SessionError, login};
///
/// #[derive(serde::Deserialize)]
/// struct Login { name: String, password: String }
///
/// async fn show_login() -> Html<&'static str> {
///     Html("<form method=post><input name=name><input name=password><button>Log in</button></form>")
/// }
///
/// async fn log_in(
///     session: Session,
///     next: login::Next,
///     Form(login): Form<Login>,
/// ) -> Result<Redirect, SessionError> {
///     // … check the password …
///     session.log_in(login.name)?;
///     Ok(Redirect::to(next.path()))
/// }
/// ```
///
/// Without Axum, [`Next::of`] reads it from a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[doc(alias(
    "return_to",
    "redirect_back",
    "stored_location",
    "continue",
    "redirect_uri"
))]
pub struct Next(Option<Box<str>>);

impl Next {
    /// The `next` of a request.
    ///
    /// ```
    /// use cloakroom::login::Next;
    ///
    /// let request = |uri| http::Request::get(uri).body(()).unwrap();
    /// assert_eq!(Next::of(&request("/login?next=%2Fcart%3Fpage%3D2")).path(), "/cart?page=2");
    /// assert_eq!(Next::of(&request("/login?next=//evil.example")).path(), "/");
    /// assert_eq!(Next::of(&request("/login")).path(), "/");
    /// ```
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Self {
        Self::find(request.uri(), request.extensions())
    }

    pub(super) fn find(uri: &Uri, extensions: &Extensions) -> Self {
        let Some(query) = uri.query() else {
            return Self::default();
        };
        let mut parameters = form_urlencoded::parse(query.as_bytes());
        match parameters.find(|(name, _)| name == PARAMETER) {
            Some((_, value)) => Self::checked(&value, Some(page_of(uri, extensions).0)),
            None => Self::default(),
        }
    }

    /// A `next` from elsewhere, such as the hidden field of a form, or the `state` of an OAuth
    /// login. It is checked in the same way. What it does not check is whether `value` is the login
    /// page.
    ///
    /// ```
    /// use cloakroom::login::Next;
    ///
    /// assert_eq!(Next::new("/cart").path(), "/cart");
    /// assert_eq!(Next::new("https://evil.example").path(), "/");
    /// ```
    #[must_use]
    pub fn new(value: &str) -> Self {
        Self::checked(value, None)
    }

    fn checked(value: &str, login_page: Option<&str>) -> Self {
        Self(check(value, login_page).map(|path| path.into_owned().into()))
    }

    /// The page, as a path of this site with its query: `/cart?page=2`. Without a good `next` it is
    /// `/`.
    ///
    /// It is ASCII, and has no quote and no angle bracket.
    #[must_use]
    pub fn path(&self) -> &str {
        self.or("/")
    }

    /// The page, or `default` without a good `next`.
    ///
    /// ```
    /// # use axum::response::Redirect;
    /// # use cloakroom::login::Next;
    /// # fn show(next: Next) -> Redirect {
    /// Redirect::to(next.or("/dashboard"))
    /// # }
    /// ```
    #[must_use]
    pub fn or<'a>(&'a self, default: &'a str) -> &'a str {
        self.0.as_deref().unwrap_or(default)
    }

    /// The page, or `None` without a good `next`.
    #[must_use]
    pub fn get(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// A link to `page` that keeps the `next`, for the way over another page: from the login to the
    /// registration, or to an identity provider.
    ///
    /// ```
    /// use cloakroom::login::Next;
    ///
    /// assert_eq!(Next::new("/cart").link_to("/register"), "/register?next=%2Fcart");
    /// assert_eq!(Next::new("/cart").link_to("/login?lang=de"), "/login?lang=de&next=%2Fcart");
    /// assert_eq!(Next::default().link_to("/register"), "/register");
    /// ```
    #[must_use]
    pub fn link_to(&self, page: &str) -> String {
        match &self.0 {
            Some(next) => with_next(page, next),
            None => page.to_owned(),
        }
    }
}

impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.path())
    }
}

#[cfg(feature = "axum")]
impl<S: Sync> axum_core::extract::FromRequestParts<S> for Next {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        _state: &S,
    ) -> Result<Self, Self::Rejection> {
        Ok(Self::find(&parts.uri, &parts.extensions))
    }
}

/// `page` with the parameter `next`.
pub(super) fn with_next(page: &str, next: &str) -> String {
    let (page, fragment) = page.split_at(page.find('#').unwrap_or(page.len()));
    let separator = if page.contains('?') { '&' } else { '?' };
    let next = form_urlencoded::byte_serialize(next.as_bytes());
    let mut link = format!("{page}{separator}{PARAMETER}=");
    link.extend(next);
    link + fragment
}

/// The page that the client asked for: its path, and its path with the query. A nested router has
/// taken the beginning off the URI of its requests, but the session layer around it saw the whole.
pub(super) fn page_of<'a>(uri: &'a Uri, extensions: &'a Extensions) -> (&'a str, &'a str) {
    let slot = SessionSlot::from_extensions(extensions).ok();
    let seen = slot.and_then(SessionSlot::page).or(uri.path_and_query());
    seen.map_or(("/", "/"), |page| (page.path(), page.as_str()))
}

/// The path and the query of a page of this site, as a header may have them. `None` if `page` is
/// anything else, or if it is the login page.
pub(super) fn check<'a>(page: &'a str, login_page: Option<&str>) -> Option<Cow<'a, str>> {
    let is_bad = |char: char| char.is_control() || char.is_whitespace();
    if page.len() > LONGEST || page.contains(is_bad) {
        return None;
    }
    let end = page.find(['?', '#']).unwrap_or(page.len());
    let path = page.get(..end)?;
    if !is_local(path) || login_page.is_some_and(|login| is_same_page(path, login)) {
        return None;
    }
    Some(utf8_percent_encode(page, ENCODED).into())
}

/// Whether a path leads to this site, however often somebody on the way decodes it.
fn is_local(path: &str) -> bool {
    let mut path = Cow::Borrowed(path);
    for _ in 0..=MOST_DECODINGS {
        if !is_plainly_local(&path) {
            return false;
        }
        match decode_once(&path) {
            Ok(Cow::Borrowed(_)) => return true,
            Ok(Cow::Owned(decoded)) => path = decoded.into(),
            // Not UTF-8: whoever decodes it may make anything of it.
            Err(_) => return false,
        }
    }
    false
}

fn is_plainly_local(path: &str) -> bool {
    // Browsers drop white space, and a space may be a `+` that was decoded too often.
    let mut visible = path.chars().filter(|char| !char.is_whitespace());
    visible.next() == Some('/')
        && visible.next() != Some('/')
        && !path.contains(|char: char| char == '\\' || char.is_control())
        && !path.split('/').any(|part| matches!(part, "." | ".."))
}

/// Whether two paths lead to the same page.
pub(super) fn is_same_page(path: &str, other: &str) -> bool {
    let plain = |path| -> String {
        let decoded = percent_decode_str(path).decode_utf8_lossy();
        decoded.trim_end_matches('/').to_owned()
    };
    plain(path) == plain(other)
}

fn decode_once(path: &str) -> Result<Cow<'_, str>, std::str::Utf8Error> {
    percent_decode_str(path).decode_utf8()
}
