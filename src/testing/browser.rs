//! [`Browser`]: a client that keeps cookies.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use cookie_store::CookieStore;
use http::header::{CONTENT_TYPE, COOKIE, HOST, HeaderMap, ORIGIN, SET_COOKIE};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use tower_layer::Layer as _;
use tower_service::Service;
use url::{Url, form_urlencoded};

use crate::error::{BoxError, SessionError};
use crate::layer::SessionLayer;
use crate::session::Session;
use crate::store::SessionStore;

/// Sends requests to a service, as an Axum `Router`, and keeps cookies by the rules of browsers: their domain and path,
/// `Secure`, `Max-Age`. Nothing goes over a network.
///
/// It is at `https://localhost`; a request to an absolute URI, such as `http://shop.example.com/`, is one to another site. What
/// is not a GET has an `Origin`, as from a form of the same site. Redirects are not followed. A clone is a second window at
/// first: it has the same cookies, and its own from then on.
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
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
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
    jar: CookieStore,
}

impl<S> Browser<S> {
    /// A browser without cookies.
    #[must_use]
    pub fn new(app: S) -> Self {
        Self {
            app,
            jar: CookieStore::default(),
        }
    }

    /// The value of the cookie of this name, whatever site and path it is for.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let mut kept = self.jar.iter_unexpired();
        kept.find(|cookie| cookie.name() == name)
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

    /// Runs `work` as a handler inside of this layer, with the session of this browser's cookie, and keeps what comes of it as
    /// after any request. So a test makes a session without the application's own pages, or looks into it.
    ///
    /// When the future is dropped, what `work` did may or may not be stored.
    ///
    /// ```
    /// # use cloakroom::{MemoryStore, SessionLayer, SigningKey, testing::Browser};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
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
    /// That of `work`, and then nothing is stored; or the layer answered with an error, since the store failed, say.
    pub async fn with_session<St, T, F>(
        &mut self,
        layer: &SessionLayer<St>,
        work: F,
    ) -> Result<T, BoxError>
    where
        St: SessionStore,
        T: Send + 'static,
        F: FnOnce(&Session) -> Result<T, SessionError> + Send + 'static,
    {
        let mut request = Request::new(());
        let url = self.prepare(&mut request)?;
        let mut service = layer.layer(Handler(Arc::new(Mutex::new(Some(work)))));
        poll_fn(|cx| Service::<Request<()>>::poll_ready(&mut service, cx)).await?;
        let response = service.call(request).await?;
        self.keep(response.headers(), &url);
        let status = response.status();
        let answer = response.into_body();
        answer
            .filter(|_| status.is_success())
            .ok_or_else(|| format!("the layer answered {status}").into())
    }

    /// Makes a request as a browser sends it, and says where to.
    fn prepare<B>(&self, request: &mut Request<B>) -> Result<Url, BoxError> {
        let path = match request.uri().path_and_query() {
            Some(path) => path.clone(),
            None => http::uri::PathAndQuery::from_static("/"),
        };
        let url = match request.uri().host() {
            Some(_) => Url::parse(&request.uri().to_string())?,
            None => Url::parse(&format!("https://localhost{path}"))?,
        };
        *request.uri_mut() = Uri::from(path);

        let is_safe = request.method().is_safe();
        let headers = request.headers_mut();
        let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
        headers.entry(HOST).or_insert(host.parse()?);
        if !is_safe {
            headers
                .entry(ORIGIN)
                .or_insert(url.origin().ascii_serialization().parse()?);
        }
        let pairs: Vec<_> = self
            .jar
            .get_request_values(&url)
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if !pairs.is_empty() {
            headers.entry(COOKIE).or_insert(pairs.join("; ").parse()?);
        }
        Ok(url)
    }

    fn keep(&mut self, headers: &HeaderMap, url: &Url) {
        let texts = headers.get_all(SET_COOKIE).iter().map(HeaderValue::to_str);
        for text in texts.flatten() {
            // What the jar refuses, a browser drops.
            let _ = self.jar.parse(text, url);
        }
    }
}

impl<S> Browser<S> {
    /// Sends a GET.
    ///
    /// When the future is dropped, cookies of the answer are not kept.
    ///
    /// # Errors
    ///
    /// The URI is malformed, or the service or the body of its answer failed.
    pub async fn get<R>(&mut self, uri: &str) -> Result<Response<Bytes>, BoxError>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone,
        S::Error: Into<BoxError>,
        R: BodyExt,
        R::Error: Into<BoxError>,
    {
        self.send(Request::get(uri).body(Bytes::new())?).await
    }

    /// Sends a POST of a form with these fields.
    ///
    /// When the future is dropped, cookies of the answer are not kept.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn post<R>(
        &mut self,
        uri: &str,
        fields: &[(&str, &str)],
    ) -> Result<Response<Bytes>, BoxError>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone,
        S::Error: Into<BoxError>,
        R: BodyExt,
        R::Error: Into<BoxError>,
    {
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let request = Request::post(uri)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form)?;
        self.send(request).await
    }

    /// Sends any request, with the cookies that belong to it unless it has a `Cookie` header, and reads the answer to its end.
    ///
    /// When the future is dropped, cookies of the answer are not kept.
    ///
    /// ```
    /// # use cloakroom::testing::Browser;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
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
    pub async fn send<R>(
        &mut self,
        request: Request<impl Into<Bytes>>,
    ) -> Result<Response<Bytes>, BoxError>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone,
        S::Error: Into<BoxError>,
        R: BodyExt,
        R::Error: Into<BoxError>,
    {
        let mut request = request.map(|body| Full::new(body.into()));
        let url = self.prepare(&mut request)?;
        let mut app = self.app.clone();
        poll_fn(|cx| app.poll_ready(cx)).await.map_err(Into::into)?;
        let response = app.call(request).await.map_err(Into::into)?;
        self.keep(response.headers(), &url);
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(Into::into)?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }
}

/// The cookies' names alone: their values are credentials.
impl<S> fmt::Debug for Browser<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.jar.iter_unexpired().map(|kept| kept.name()).collect();
        f.debug_struct("Browser")
            .field("cookies", &names)
            .finish_non_exhaustive()
    }
}

/// The work of a test in the place of a handler. It is done once.
struct Handler<F>(Arc<Mutex<Option<F>>>);

impl<F> Clone for Handler<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T, F> Service<Request<()>> for Handler<F>
where
    F: FnOnce(&Session) -> Result<T, SessionError> + Send + 'static,
{
    /// What it came to. The layer's own answers have nothing.
    type Response = Response<Option<T>>;
    type Error = SessionError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, SessionError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SessionError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let work = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        Box::pin(async move {
            let session = Session::from_extensions(request.extensions())?;
            session.load().await?;
            let answer = work.map(|work| work(&session)).transpose()?;
            Ok(Response::new(answer))
        })
    }
}
