//! What a client gets that a guard refuses. It depends on what the client can do with it.

use http::header::{
    ACCEPT, CACHE_CONTROL, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, UPGRADE, VARY,
};
use http::{Method, Request, Response, StatusCode, Uri};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::next::{check, is_same_page, page_of, with_next};
use crate::error::{SessionError, SessionErrorKind};
use crate::events;

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");
const HX_REQUEST: HeaderName = HeaderName::from_static("hx-request");
const HX_BOOSTED: HeaderName = HeaderName::from_static("hx-boosted");
const HX_CURRENT_URL: HeaderName = HeaderName::from_static("hx-current-url");
const HX_REDIRECT: HeaderName = HeaderName::from_static("hx-redirect");

/// The headers that the functions below look at.
const LOOKED_AT: HeaderValue = HeaderValue::from_static(
    "Accept, Sec-Fetch-Mode, Upgrade, X-Requested-With, HX-Request, HX-Boosted, HX-Current-URL",
);

/// A header may not have a line break. Browsers encode a space and what is not ASCII themselves.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ');

/// Where a guard sends those whom it refuses.
#[derive(Clone, Debug, Default)]
pub(super) struct Redirects {
    /// Who must log in, or log in again.
    pub(super) login: Option<Target>,
    /// Who is logged in, and may not enter.
    pub(super) refused: Option<Target>,
}

/// A page to redirect to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    address: Box<str>,
    header: HeaderValue,
}

impl Target {
    pub(super) fn new(address: &str) -> Self {
        let address = utf8_percent_encode(address, ENCODED).to_string();
        Self {
            // What is encoded has no character that a header may not have.
            header: HeaderValue::from_str(&address).unwrap_or(HeaderValue::from_static("/")),
            address: address.into(),
        }
    }

    /// The page, and the page to come back to.
    fn with_next(&self, next: Option<&str>) -> HeaderValue {
        let address = next.map(|next| with_next(&self.address, next));
        let header = address.and_then(|address| HeaderValue::try_from(address).ok());
        header.unwrap_or_else(|| self.header.clone())
    }

    fn path(&self) -> &str {
        let end = self.address.find(['?', '#']);
        self.address
            .get(..end.unwrap_or(self.address.len()))
            .unwrap_or_default()
    }

    /// Whether a request for `path` is one for this page. Then a redirect would lead in a circle. A
    /// session layer inside of a nested router sees only the end of the path.
    fn is_at(&self, path: &str) -> bool {
        is_same_page(self.path(), path) || (path != "/" && self.path().ends_with(path))
    }
}

/// What a client makes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    /// A browser that shows a page. It follows a redirect, and shows where that leads.
    Page,
    /// A script that puts parts of pages into a page. It takes the login page for such a part, but
    /// goes to another page if a header says so.
    Htmx,
    /// A script, a socket or a program. It wants the status.
    Program,
}

impl Client {
    fn of(headers: &HeaderMap) -> Self {
        let is = |name: &HeaderName, value: &[u8]| says(headers, name, value);
        if is(&HX_REQUEST, b"true") {
            return Self::Htmx;
        }
        let is_page = match headers.get(SEC_FETCH_MODE) {
            // Fetch Metadata: the browser says what it does with the answer.
            Some(mode) => mode == "navigate",
            None => {
                accepts_html(headers)
                    && !is(&UPGRADE, b"websocket")
                    && !is(&X_REQUESTED_WITH, b"XMLHttpRequest")
            }
        };
        if is_page { Self::Page } else { Self::Program }
    }
}

fn says(headers: &HeaderMap, name: &HeaderName, value: &[u8]) -> bool {
    let header = headers.get(name);
    header.is_some_and(|header| header.as_bytes().eq_ignore_ascii_case(value))
}

fn accepts_html(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).into_iter();
    let mut types = values.flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    types.any(|accepted| {
        let mut parts = accepted.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        name.eq_ignore_ascii_case(b"text/html") && !parts.any(is_weight_zero)
    })
}

/// Whether a parameter of a media type is `q=0`: the client does not want the type (RFC 9110,
/// section 12.4.2).
fn is_weight_zero(parameter: &[u8]) -> bool {
    let Some((name, weight)) = parameter.split_at_checked(2) else {
        return false;
    };
    name.eq_ignore_ascii_case(b"q=") && weight.iter().all(|byte| matches!(byte, b'0' | b'.'))
}

impl Redirects {
    /// The answer to a request that a guard has refused for this reason.
    pub(super) fn answer<B, ResponseBody: Default>(
        &self,
        error: &SessionError,
        request: &Request<B>,
    ) -> Response<ResponseBody> {
        events::refused(error);
        let (target, leads_back) = match error.kind() {
            SessionErrorKind::NotLoggedIn
            | SessionErrorKind::LoginTooOld
            | SessionErrorKind::LevelTooLow => (&self.login, true),
            // It reads as a visitor's, and a login gets through.
            #[cfg(feature = "dbsc")]
            SessionErrorKind::DeviceUnproven => (&self.login, true),
            SessionErrorKind::NotAllowed => (&self.refused, false),
            _ => return error.to_response(),
        };
        let Some(target) = target else {
            return error.to_response();
        };
        let (path, page) = page_of(request.uri(), request.extensions());
        let mut response = match Client::of(request.headers()) {
            Client::Page if target.is_at(path) => error.to_response(),
            Client::Page => {
                // A redirect cannot repeat a form that was sent.
                let is_shown = matches!(*request.method(), Method::GET | Method::HEAD);
                let next = Some(page).filter(|_| is_shown && leads_back);
                redirect(target.with_next(next.and_then(|page| check(page, None)).as_deref()))
            }
            Client::Htmx => {
                let shown = match is_boosted(request) {
                    true => Some(page.to_owned()),
                    false => htmx_page(request),
                };
                let shown = shown.filter(|_| leads_back);
                let next = shown
                    .as_ref()
                    .and_then(|page| check(page, Some(target.path())));
                let mut response = error.to_response();
                let header = target.with_next(next.as_deref());
                response.headers_mut().insert(HX_REDIRECT, header);
                response
            }
            Client::Program => error.to_response(),
        };
        response.headers_mut().insert(VARY, LOOKED_AT);
        response
    }
}

fn redirect<B: Default>(location: HeaderValue) -> Response<B> {
    let mut response = Response::new(B::default());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    headers.insert(LOCATION, location);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether htmx follows a link to another page.
fn is_boosted<B>(request: &Request<B>) -> bool {
    *request.method() == Method::GET && says(request.headers(), &HX_BOOSTED, b"true")
}

/// The page of this site that an htmx request was sent from.
fn htmx_page<B>(request: &Request<B>) -> Option<String> {
    let headers = request.headers();
    let url: Uri = headers.get(HX_CURRENT_URL)?.to_str().ok()?.parse().ok()?;
    let host = match request.uri().authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => headers.get(HOST)?.as_bytes(),
    };
    // Behind a proxy, the host may be the server's own name.
    let is_of_this_site = headers
        .get(SEC_FETCH_SITE)
        .is_some_and(|site| site == "same-origin")
        || url
            .authority()?
            .as_str()
            .as_bytes()
            .eq_ignore_ascii_case(host);
    let page = url.path_and_query()?;
    is_of_this_site.then(|| page.as_str().to_owned())
}
