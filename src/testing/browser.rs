//! [`Browser`]: a client that keeps cookies.

use std::cmp::Reverse;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use cookie::Cookie;
use cookie_store::CookieStore;
use http::header::{
    AUTHORIZATION, CONTENT_TYPE, COOKIE, Entry, HOST, HeaderMap, ORIGIN, SET_COOKIE,
};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tower_service::Service;
use url::{Position, Url, form_urlencoded};

use crate::commit::lookup::find_presented;
use crate::error::{BoxError, SessionError, SessionErrorKind};
use crate::layer::SessionLayer;
use crate::layer::future::respond;
use crate::session::{ClientFacts, Session};
use crate::store::SessionStore;
use crate::token::cookie::has_prefix;
use crate::token::transport::Transport;

/// Sends requests to a service, such as an Axum `Router`, and keeps cookies as browsers do.
///
/// It follows their rules for domain and path, `Secure`, `Max-Age` and the prefixes of names. It
/// also keeps and sends a token of [`Transport::Bearer`] or [`Transport::CookieOrBearer`]. Nothing
/// goes over a network.
///
/// The browser is at `https://localhost`, or where [`at`](Self::at) says. A request to an absolute
/// URI goes to the site of the URI. Each request looks as if it came from a page of the site that
/// it goes to: a POST has that site's `Origin`, and SameSite makes no difference. The browser
/// follows no redirects. A clone begins with the same cookies, and from then on has cookies of its
/// own.
///
/// A cookie's `Max-Age` runs by the system's clock, and not by the layer's.
///
/// ```
/// use axum::{Router, routing::{get, post}};
/// use cloakroom::testing::Browser;
/// use cloakroom::{MemoryStore, Session, SessionError, SessionLayer, SigningKey};
///
/// async fn log_in(session: Session, user: String) -> Result<(), SessionError> {
///     session.log_in(user)
/// }
///
/// async fn visits(session: Session) -> Result<String, SessionError> {
///     let visits = session.update("visits", |n: Option<u32>| n.unwrap_or(0) + 1)?;
///     Ok(visits.to_string())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let layer = SessionLayer::new(MemoryStore::new(), SigningKey::generate()?);
/// let app: Router = Router::new()
///     .route("/", get(visits))
///     .route("/login", post(log_in))
///     .layer(layer);
/// let mut browser = Browser::new(app);
/// assert_eq!(browser.get("/").await?.body(), "1");
/// assert_eq!(browser.get("/").await?.body(), "2");
///
/// let visitors_token = browser.cookie("__Host-session").map(str::to_owned);
/// browser.post("/login", &[("user", "ada")]).await?;
/// assert_ne!(browser.cookie("__Host-session"), visitors_token.as_deref());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Browser<S> {
    app: S,
    /// The origin that relative URIs lead to.
    site: String,
    jar: CookieStore,
    /// Of a layer with [`Transport::Bearer`] or [`Transport::CookieOrBearer`].
    token: Option<String>,
}

impl<S> Browser<S> {
    /// A browser without cookies, at `https://localhost`.
    #[must_use]
    pub fn new(app: S) -> Self {
        Self {
            app,
            site: "https://localhost".into(),
            jar: CookieStore::default(),
            token: None,
        }
    }

    /// The same browser at another site. An application needs this if its cookies have a domain, or
    /// if it is used without TLS.
    ///
    /// ```
    /// # use cloakroom::testing::Browser;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let app = axum::Router::<()>::new();
    /// let mut browser = Browser::new(app).at("https://shop.example.com")?;
    /// browser.get("/cart").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The site is not a URL of HTTP.
    pub fn at(mut self, site: &str) -> Result<Self, BrowserError> {
        self.site = parse(site)?.origin().ascii_serialization();
        Ok(self)
    }

    /// The value of the cookie of this name, for any site. If several cookies have this name, this
    /// is the value of the one with the longest path.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let kept = self.jar.iter_unexpired();
        kept.filter(|cookie| cookie.name() == name)
            .max_by_key(|cookie| cookie.path().map(str::len))
            .map(|cookie| cookie.value())
    }

    /// Closes the browser and opens it again. Only persistent cookies are left: those with a
    /// `Max-Age` or an `Expires`.
    pub fn restart(&mut self) {
        let persistent = self
            .jar
            .iter_unexpired()
            .filter(|kept| kept.is_persistent());
        let persistent = persistent.map(|kept| Ok::<_, BoxError>(kept.clone()));
        self.jar = CookieStore::from_cookies(persistent, false).unwrap_or_default();
    }

    /// Runs `work` as a handler inside of this layer, with the session of this browser's cookie or
    /// token. The browser then keeps the new cookie or token, as after any request. So a test can
    /// make a session without the application's own pages, or look into it.
    ///
    /// The call counts as use of the session, unless `work` calls
    /// [`skip_touch`](Session::skip_touch). When the future is dropped, the changes of `work` may
    /// or may not be stored.
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionLayer, SigningKey, testing::Browser};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let app = axum::Router::<()>::new();
    /// let layer = SessionLayer::new(MemoryStore::new(), SigningKey::generate()?);
    /// let mut browser = Browser::new(app);
    /// browser.with_session(&layer, |session| {
    ///     session.log_in("ada")?;
    ///     session.insert("cart", ["hat"])
    /// }).await?;
    ///
    /// let cart: Option<Vec<String>> =
    ///     browser.with_session(&layer, |session| session.get("cart")).await?;
    /// assert_eq!(cart, Some(vec!["hat".to_owned()]));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The error of `work`, or an error of the layer, such as one of the store. After an error of
    /// `work`, the layer drops the changes. It still ends the session if `work` asked for that.
    pub async fn with_session<St, D, T, F>(
        &mut self,
        layer: &SessionLayer<St, D>,
        work: F,
    ) -> Result<T, SessionError>
    where
        St: SessionStore,
        T: Send,
        F: FnOnce(&Session) -> Result<T, SessionError> + Send,
    {
        let context = layer.context();
        let transport = context.transport();
        let mut headers = HeaderMap::new();
        // A transport does not read the header of another one. The path and the domain of the
        // cookie make no difference here.
        let name = transport.name();
        let cookie = self.cookie(name).map(|token| format!("{name}={token}"));
        for (header, value) in [(COOKIE, cookie), (AUTHORIZATION, self.bearer())] {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                headers.insert(header, value);
            }
        }
        #[cfg(feature = "dbsc")]
        if let Some(devices) = context.devices()
            && let Some(value) = self.cookie(devices.cookies().cookie().name())
        {
            let cookie = format!("{}={value}", devices.cookies().cookie().name());
            if let Ok(cookie) = HeaderValue::try_from(cookie) {
                headers.append(COOKIE, cookie);
            }
        }
        let presented = transport.presented(&headers);
        let proof = context.presented_proof(&headers);
        let client = ClientFacts {
            presents_token: presented.is_anything(),
            is_on_plain_http: false,
            transport: transport.client(&headers, &presented),
            chance: context.rotation_chance(&headers),
            described: None,
            #[cfg(feature = "dbsc")]
            presents_bound_cookie: proof.has_cookie(),
        };
        let base = find_presented(context, &presented, &proof).await?;
        let session = Session::new(context.clone(), None, client, base);
        let mut value = None;
        let answer = work(&session).map(|worked| {
            value = Some(worked);
            Response::new(())
        });
        let response = respond(session, answer).await?;
        self.keep(response.headers(), None);
        match (response.extensions().get::<SessionErrorKind>(), value) {
            (None, Some(value)) => Ok(value),
            (refused, _) => {
                let kind = refused.copied().unwrap_or(SessionErrorKind::MissingLayer);
                Err(kind.into())
            }
        }
    }

    fn bearer(&self) -> Option<String> {
        let token = self.token.as_ref()?;
        Some(format!("Bearer {token}"))
    }

    /// Makes a request as a browser sends it, and returns the URL that it goes to.
    fn prepare<B>(&self, request: &mut Request<B>) -> Result<Url, BrowserError> {
        let path = match request.uri().path_and_query() {
            Some(path) => path.clone(),
            None => PathAndQuery::from_static("/"),
        };
        let url = match (request.uri().scheme_str(), request.uri().authority()) {
            (Some(scheme), Some(authority)) => parse(&format!("{scheme}://{authority}{path}"))?,
            (None, None) => parse(&format!("{}{path}", self.site))?,
            _ => {
                return Err(BrowserError::new(
                    "it is neither a path nor an absolute URI",
                ));
            }
        };
        *request.uri_mut() = Uri::from(path);

        let is_safe = request.method().is_safe();
        let mut cookies = self.jar.matches(&url);
        // RFC 6265, section 5.4.
        cookies.sort_by_key(|cookie| Reverse(cookie.path().map(str::len)));
        let cookies: Vec<_> = cookies
            .iter()
            .map(|cookie| format!("{}={}", cookie.name(), cookie.value()))
            .collect();
        let of_a_browser = [
            (HOST, Some(authority(&url).to_owned())),
            (
                ORIGIN,
                Some(url.origin().ascii_serialization()).filter(|_| !is_safe),
            ),
            (
                COOKIE,
                Some(cookies.join("; ")).filter(|all| !all.is_empty()),
            ),
            (AUTHORIZATION, self.bearer()),
        ];
        for (name, value) in of_a_browser {
            // A test may have set this header itself.
            if let Some(value) = value
                && let Entry::Vacant(header) = request.headers_mut().entry(name)
            {
                header.insert(HeaderValue::try_from(value).map_err(BrowserError::new)?);
            }
        }
        Ok(url)
    }

    /// A URL of this site, or of the cookie's domain, that may set the cookie.
    fn place_of(&self, cookie: &Cookie<'_>) -> Result<Url, BrowserError> {
        let mut url = parse(&self.site)?;
        if let Some(domain) = cookie.domain() {
            url.set_host(Some(domain)).map_err(BrowserError::new)?;
        }
        url.set_path(cookie.path().unwrap_or("/"));
        Ok(url)
    }

    /// Keeps the cookies and the token of a response from this URL. Without a URL, the response is
    /// the session layer's own.
    fn keep(&mut self, headers: &HeaderMap, url: Option<&Url>) {
        if let Some(token) = headers.get(Transport::TOKEN_HEADER) {
            let token = token.to_str().ok().filter(|token| !token.is_empty());
            self.token = token.map(str::to_owned);
        }
        let texts = headers.get_all(SET_COOKIE).iter().map(HeaderValue::to_str);
        for text in texts.flatten() {
            let Ok(cookie) = Cookie::parse(text) else {
                continue;
            };
            let url = match url {
                Some(url) => Some(url.clone()),
                None => self.place_of(&cookie).ok(),
            };
            if let Some(url) = url
                && is_accepted(&cookie, &url)
            {
                // If the jar refuses a cookie, so does a browser.
                let _ = self.jar.parse(text, &url);
            }
        }
    }
}

fn parse(url: &str) -> Result<Url, BrowserError> {
    let url = Url::parse(url).map_err(BrowserError::new)?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(BrowserError::new("it is not a URL of HTTP")),
    }
}

fn authority(url: &Url) -> &str {
    &url[Position::BeforeHost..Position::AfterPort]
}

/// Whether a browser accepts a cookie. The jar does not check these rules (RFC 6265bis, sections
/// 4.1.3 and 5.7).
fn is_accepted(cookie: &Cookie<'_>, url: &Url) -> bool {
    let is_secure = cookie.secure() == Some(true);
    let is_trustworthy = url.scheme() == "https" || url.host_str() == Some("localhost");
    let has_prefix = |prefix| has_prefix(cookie.name(), prefix);
    let is_of_host = cookie.path() == Some("/") && cookie.domain().is_none();
    (is_trustworthy || !is_secure)
        && (is_secure || !has_prefix("__Secure-"))
        && (is_secure && is_of_host || !has_prefix("__Host-"))
}

/// A request that could not be sent, or whose answer could not be read.
#[derive(Debug)]
pub struct BrowserError(BoxError);

impl BrowserError {
    fn new(source: impl Into<BoxError>) -> Self {
        Self(source.into())
    }
}

impl fmt::Display for BrowserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request has no answer")
    }
}

impl Error for BrowserError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// The body of a request that a [`Browser`] sends.
///
/// A `Router` takes any body. If a service takes only `axum::body::Body`, put
/// `map_request(|request| request.map(axum::body::Body::new))` of `tower::ServiceExt` in front of
/// it.
#[derive(Debug)]
pub struct RequestBody(Bytes);

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = std::mem::take(&mut self.0);
        Poll::Ready((!data.is_empty()).then(|| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.0.len()).unwrap_or(u64::MAX))
    }
}

impl<S, R> Browser<S>
where
    S: Service<Request<RequestBody>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: Body,
    R::Error: Into<BoxError>,
{
    /// Sends a GET.
    ///
    /// The browser keeps cookies as soon as the head of the answer has come, also if the future is
    /// dropped after that.
    ///
    /// # Errors
    ///
    /// The URI is malformed, or the service or the body of its answer failed.
    pub async fn get(&mut self, uri: &str) -> Result<Response<Bytes>, BrowserError> {
        let request = Request::get(uri).body("").map_err(BrowserError::new)?;
        self.send(request).await
    }

    /// Sends a POST of a form with these fields.
    ///
    /// The browser keeps cookies as soon as the head of the answer has come, also if the future is
    /// dropped after that.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn post(
        &mut self,
        uri: &str,
        fields: &[(&str, &str)],
    ) -> Result<Response<Bytes>, BrowserError> {
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let request = Request::post(uri)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form)
            .map_err(BrowserError::new)?;
        self.send(request).await
    }

    /// Sends any request, and reads the answer to its end. The request gets the cookies that belong
    /// to it, unless it has a `Cookie` header.
    ///
    /// The browser keeps cookies as soon as the head of the answer has come, also if the future is
    /// dropped after that.
    ///
    /// ```
    /// # use cloakroom::testing::Browser;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut browser = Browser::new(axum::Router::<()>::new());
    /// let request = http::Request::delete("/cart/3").header("x-api-version", "2").body("")?;
    /// let response = browser.send(request).await?;
    /// assert_eq!(response.status(), 404);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn send(
        &mut self,
        request: Request<impl Into<Bytes>>,
    ) -> Result<Response<Bytes>, BrowserError> {
        let mut request = request.map(|body| RequestBody(body.into()));
        let url = self.prepare(&mut request)?;
        let failed = |error: S::Error| BrowserError::new(error);
        let mut app = self.app.clone();
        poll_fn(|cx| app.poll_ready(cx)).await.map_err(failed)?;
        let response = app.call(request).await.map_err(failed)?;
        self.keep(response.headers(), Some(&url));
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(BrowserError::new)?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }
}

/// Shows only the names of the cookies: their values are credentials.
impl<S> fmt::Debug for Browser<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.jar.iter_unexpired().map(|kept| kept.name()).collect();
        f.debug_struct("Browser")
            .field("cookies", &names)
            .finish_non_exhaustive()
    }
}
