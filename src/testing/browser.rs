//! [`Browser`]: a client that keeps cookies.

use std::cmp::Reverse;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
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
use tower_layer::Layer as _;
use tower_service::Service;
use url::{Position, Url, form_urlencoded};

use crate::cookie::has_prefix;
use crate::error::{BoxError, ErrorKind, SessionError};
use crate::layer::SessionLayer;
use crate::session::Session;
use crate::store::SessionStore;
use crate::transport::{Carrier, Transport};

/// Sends requests to a service, such as an Axum `Router`, and keeps cookies as browsers do: by their domain and path, `Secure`,
/// `Max-Age` and the prefixes of names. Nothing goes over a network. A token of [`Transport::Bearer`] is kept and sent as
/// well.
///
/// It is at `https://localhost`, or where [`at`](Self::at) says; a request to an absolute URI goes to that site. Each request
/// is as from a page of the site that it goes to: a POST has that site's `Origin`, and SameSite is not looked at. Redirects are not
/// followed. A clone is a second window at first: it has the same cookies, and its own from then on.
///
/// A cookie's `Max-Age` runs by the system's clock, whatever the layer's clock says.
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
/// let app: Router = Router::new().route("/", get(visits)).route("/login", post(log_in)).layer(layer);
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
    /// Of a layer with [`Transport::Bearer`].
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

    /// The browser at another site, for an application whose cookies have a domain, or that is used without TLS.
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
    /// It is no URL of HTTP.
    pub fn at(mut self, site: &str) -> Result<Self, BrowserError> {
        self.site = parse(site)?.origin().ascii_serialization();
        Ok(self)
    }

    /// The value of the cookie of this name, whatever site it is for; of several the one with the longest path.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let kept = self.jar.iter_unexpired();
        kept.filter(|cookie| cookie.name() == name)
            .max_by_key(|cookie| cookie.path().map(str::len))
            .map(|cookie| cookie.value())
    }

    /// Closes the browser and opens it again: only persistent cookies are left, which have a `Max-Age` or `Expires`.
    pub fn restart(&mut self) {
        let persistent = self
            .jar
            .iter_unexpired()
            .filter(|kept| kept.is_persistent());
        let persistent = persistent.map(|kept| Ok::<_, BoxError>(kept.clone()));
        self.jar = CookieStore::from_cookies(persistent, false).unwrap_or_default();
    }

    /// Runs `work` as a handler inside of this layer, with the session of this browser's cookie or token, and keeps what comes of
    /// it as after any request. So a test makes a session without the application's own pages, or looks into it.
    ///
    /// It counts as use of the session; a look that must not calls [`passive`](Session::passive). When the future is dropped,
    /// what `work` did may or may not be stored.
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
    /// let cart = browser.with_session(&layer, |session| session.get::<Vec<String>>("cart")).await?;
    /// assert_eq!(cart, Some(vec!["hat".to_owned()]));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// That of `work`, and then nothing is stored but an end; or that of the layer, where the store failed, say.
    pub async fn with_session<St, T, F>(
        &mut self,
        layer: &SessionLayer<St>,
        work: F,
    ) -> Result<T, SessionError>
    where
        St: SessionStore,
        T: Send,
        F: FnOnce(&Session) -> Result<T, SessionError> + Send,
    {
        let carrier = &layer.engine().carrier;
        let mut request = Request::new(());
        // Whatever path and domain the cookie is for.
        let (header, value) = match carrier {
            Carrier::Cookie { cookie, .. } => {
                let name = cookie.name();
                (
                    COOKIE,
                    self.cookie(name).map(|token| format!("{name}={token}")),
                )
            }
            Carrier::Bearer { .. } => (AUTHORIZATION, self.bearer()),
        };
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            request.headers_mut().insert(header, value);
        }
        let mut service = layer.layer(Handler {
            work: Arc::new(Mutex::new(Some(work))),
            lifetime: PhantomData,
        });
        poll_fn(|cx| Service::<Request<()>>::poll_ready(&mut service, cx)).await?;
        let response = service.call(request).await?;
        self.keep(response.headers(), None);
        let refused = response.extensions().get::<ErrorKind>().copied();
        match (refused, response.into_body()) {
            (None, Some(answer)) => Ok(answer),
            (refused, _) => Err(refused.unwrap_or(ErrorKind::MissingLayer).into()),
        }
    }

    fn bearer(&self) -> Option<String> {
        let token = self.token.as_ref()?;
        Some(format!("Bearer {token}"))
    }

    /// Makes a request as a browser sends it, and says where to.
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
            // A test may have set its own.
            if let Some(value) = value
                && let Entry::Vacant(header) = request.headers_mut().entry(name)
            {
                header.insert(HeaderValue::try_from(value).map_err(BrowserError::new)?);
            }
        }
        Ok(url)
    }

    /// A place of this site, or of the cookie's domain, from which the cookie can be set.
    fn place_of(&self, cookie: &Cookie<'_>) -> Result<Url, BrowserError> {
        let mut url = parse(&self.site)?;
        if let Some(domain) = cookie.domain() {
            url.set_host(Some(domain)).map_err(BrowserError::new)?;
        }
        url.set_path(cookie.path().unwrap_or("/"));
        Ok(url)
    }

    /// Keeps what a response from this URL, or from the session layer by itself, has for a client to keep.
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
                // What the jar refuses, a browser drops as well.
                let _ = self.jar.parse(text, &url);
            }
        }
    }
}

fn parse(url: &str) -> Result<Url, BrowserError> {
    let url = Url::parse(url).map_err(BrowserError::new)?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(BrowserError::new("it is no URL of HTTP")),
    }
}

fn authority(url: &Url) -> &str {
    &url[Position::BeforeHost..Position::AfterPort]
}

/// What browsers ask of a cookie, and the jar does not (RFC 6265bis, sections 4.1.3 and 5.7).
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

/// The body of a request that a [`Browser`] sends. A service that takes only `axum::body::Body` has it behind
/// `map_request(|request| request.map(axum::body::Body::new))` of `tower::ServiceExt`; a `Router` takes any.
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
    /// Cookies are kept as soon as the answer's head has come, whether the future is dropped afterwards or not.
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
    /// Cookies are kept as soon as the answer's head has come, whether the future is dropped afterwards or not.
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

    /// Sends any request, with the cookies that belong to it unless it has a `Cookie` header, and reads the answer to its end.
    ///
    /// Cookies are kept as soon as the answer's head has come, whether the future is dropped afterwards or not.
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

/// Of the cookies their names alone: values are credentials.
impl<S> fmt::Debug for Browser<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.jar.iter_unexpired().map(|kept| kept.name()).collect();
        f.debug_struct("Browser")
            .field("cookies", &names)
            .finish_non_exhaustive()
    }
}

/// The work of a test in the place of a handler. It is done once.
struct Handler<'work, F> {
    work: Arc<Mutex<Option<F>>>,
    lifetime: PhantomData<&'work ()>,
}

impl<F> Clone for Handler<'_, F> {
    fn clone(&self) -> Self {
        Self {
            work: self.work.clone(),
            lifetime: PhantomData,
        }
    }
}

impl<'work, T, F> Service<Request<()>> for Handler<'work, F>
where
    T: 'work,
    F: FnOnce(&Session) -> Result<T, SessionError> + Send + 'work,
{
    /// What it came to. The layer's own answers have nothing.
    type Response = Response<Option<T>>;
    type Error = SessionError;
    type Future =
        Pin<Box<dyn Future<Output = Result<Self::Response, SessionError>> + Send + 'work>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SessionError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let work = work.take();
        Box::pin(async move {
            let session = Session::from_extensions(request.extensions())?;
            session.load().await?;
            let answer = work.map(|work| work(&session)).transpose()?;
            Ok(Response::new(answer))
        })
    }
}
