//! A browser for tests. It searches the log after each request, and checks how responses remove
//! cookies.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::response::Response;
use cloakroom::testing::{self, RequestBody};
use cookie::Cookie;
use futures_util::FutureExt;
use http::header::{COOKIE, Entry, HOST, SET_COOKIE};
use http::{HeaderMap, HeaderName, Request, StatusCode};
use http_body_util::BodyExt;
use tower::{Service, ServiceExt};

use crate::log::Logged;

/// The site of all browsers.
const HOST_OF_SITE: &str = "example.com";

/// A response, with its whole body.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Reply {
    /// The Set-Cookie headers.
    pub fn cookies(&self) -> Vec<&str> {
        self.all("set-cookie")
    }

    pub fn all(&self, header: &str) -> Vec<&str> {
        self.headers
            .get_all(header)
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect()
    }

    pub fn header(&self, header: &str) -> Option<&str> {
        self.all(header).first().copied()
    }

    /// The value of the session cookie that the response sets.
    pub fn token(&self) -> Option<String> {
        let cookie = self.cookies().first()?.to_string();
        let (_, rest) = cookie.split_once('=')?;
        Some(rest.split(';').next()?.to_owned())
    }

    #[track_caller]
    pub fn assert(&self, status: u16, body: &str) {
        assert_eq!(
            (self.status.as_u16(), &*self.body),
            (status, body),
            "{self:?}"
        );
    }

    /// Checks that the response neither sets nor removes a cookie.
    #[track_caller]
    pub fn assert_no_cookie(&self) {
        assert_eq!(self.cookies(), Vec::<&str>::new());
    }

    async fn read(response: http::Response<impl HttpBody<Error: std::fmt::Debug>>) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap(),
        }
    }
}

/// Sends one request without changes. Panics if a token or a value is in the log.
pub async fn send(app: &Router, request: Request<Body>) -> Reply {
    let logged = Logged::start(&request);
    let reply = send_unwatched(app, request).await;
    logged.assert_no_secret(&reply.headers);
    reply
}

/// Does the same, but does not search the log. It is for tests with very many requests.
pub async fn send_unwatched(app: &Router, request: Request<Body>) -> Reply {
    Reply::read(app.clone().oneshot(request).await.unwrap()).await
}

pub fn request(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

/// [`cloakroom::testing::Browser`] for this crate's own tests. A clone is a second window: from
/// then on it has its own jar.
///
/// After each request, this browser searches the log. It checks each removal of a cookie. It can
/// keep an answer some time after the answer came, for tests that run several requests at once.
/// answer later than the answer came, for tests with several requests under way.
#[derive(Clone)]
pub struct Browser {
    app: Router,
    client: testing::Browser<AppOfRequest>,
    /// The cookies that responses set, with their attributes.
    set: Vec<Cookie<'static>>,
}

impl Browser {
    pub fn new(app: &Router) -> Self {
        Self {
            app: app.clone(),
            client: testing::Browser::new(AppOfRequest)
                .at(&format!("https://{HOST_OF_SITE}"))
                .unwrap(),
            set: Vec::new(),
        }
    }

    pub async fn get(&mut self, path: &str) -> Reply {
        self.get_with(path, &[]).await
    }

    pub async fn get_with(&mut self, path: &str, headers: &[(&str, &str)]) -> Reply {
        let reply = self.send(path, headers).await;
        self.keep(&reply);
        reply
    }

    /// Sends a request. The browser does not keep the cookies of the answer yet.
    pub fn send(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> impl Future<Output = Reply> + Send + 'static + use<> {
        let mut client = self.client.clone();
        let mut request = asking(self.app.clone(), path);
        // The inner browser adds its cookies only if the request has none. This browser always adds
        // them.
        let cookies = self.cookies_at(path);
        if headers.iter().any(|(name, _)| *name == "cookie") && !cookies.is_empty() {
            let cookies = cookies.join("; ").parse().unwrap();
            request.headers_mut().append(COOKIE, cookies);
        }
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        async move {
            // The application sees what the browser adds to the request: see `AppOfRequest`.
            let response = client.send(request).await.unwrap();
            Reply::read(response.map(http_body_util::Full::new)).await
        }
    }

    /// Copies the cookies of another browser, which visited the same site.
    pub fn adopt(&mut self, other: &Self) {
        self.client = other.client.clone();
        self.set = other.set.clone();
    }

    /// Keeps the cookies of an answer, as a real browser does when the answer arrives.
    pub fn keep(&mut self, reply: &Reply) {
        let cookies: Vec<_> = reply
            .headers
            .get_all(SET_COOKIE)
            .iter()
            .map(|header| Cookie::parse(header.to_str().unwrap().to_owned()).unwrap())
            .collect();
        for cookie in &cookies {
            self.assert_removes_what_is_kept(cookie);
        }
        // The inner browser keeps the cookies of each answer that it gets. So this code gives it an
        // answer with these headers.
        let headers = reply.headers.clone();
        let answer = Router::new().fallback(async move || headers);
        let sent = self.client.send(asking(answer, "/"));
        sent.now_or_never().unwrap().unwrap();
        for cookie in cookies {
            self.set
                .retain(|set| set.name() != cookie.name() || place(set) != place(&cookie));
            if !is_removal(&cookie) {
                // If the jar refuses a cookie, a real browser would drop it.
                let kept = self.cookies_at(cookie.path().unwrap_or("/"));
                let (name, value) = cookie.name_value();
                assert!(kept.contains(&format!("{name}={value}")), "{cookie}");
                self.set.push(cookie);
            }
        }
    }

    /// Checks the removal of cookies. For example, a removal without Partitioned removes a
    /// different cookie in a real browser. The jar does not look at all attributes.
    #[track_caller]
    fn assert_removes_what_is_kept(&self, cookie: &Cookie<'_>) {
        fn attributes<'a>(cookie: &'a Cookie<'_>) -> impl PartialEq + use<'a> {
            (place(cookie), cookie.secure(), cookie.same_site())
        }
        let mut set = self.set.iter().filter(|set| set.name() == cookie.name());
        assert!(
            !is_removal(cookie)
                || self.client.cookie(cookie.name()).is_none()
                || set.any(|set| attributes(set) == attributes(cookie)),
            "{cookie} removes another cookie than the one that is kept"
        );
    }

    /// All cookies that a request to `/` would carry, as `name=value`.
    pub fn cookies(&self) -> Vec<String> {
        self.cookies_at("/")
    }

    fn cookies_at(&self, path: &str) -> Vec<String> {
        // The application answers with the headers of its request.
        let echo = Router::new().fallback(async |headers: HeaderMap| headers);
        let mut client = self.client.clone();
        let sent = client.send(asking(echo, path)).now_or_never();
        let sent = sent.unwrap().unwrap();
        let cookies = sent.headers().get(COOKIE);
        let cookies = cookies.map_or("", |cookies| cookies.to_str().unwrap());
        let pairs = cookies.split("; ").filter(|pair| !pair.is_empty());
        pairs.map(str::to_owned).collect()
    }

    /// The names of all cookies, for every path.
    pub fn kept(&self) -> Vec<&str> {
        let names = self.set.iter().map(Cookie::name);
        names
            .filter(|name| self.client.cookie(name).is_some())
            .collect()
    }

    /// The value of the only cookie.
    pub fn token(&self) -> String {
        let cookies = self.cookies();
        assert_eq!(cookies.len(), 1, "{cookies:?}");
        cookies[0].split_once('=').unwrap().1.to_owned()
    }

    /// The user closes the browser and opens it again. Only persistent cookies are left.
    pub fn restart(&mut self) {
        self.client.restart();
    }
}

/// The place of a cookie in a browser: domain, path, and whether it is partitioned.
fn place<'a>(cookie: &'a Cookie<'_>) -> (Option<&'a str>, Option<&'a str>, Option<bool>) {
    (cookie.path(), cookie.domain(), cookie.partitioned())
}

fn is_removal(cookie: &Cookie<'_>) -> bool {
    cookie.max_age().is_some_and(|max_age| max_age.is_zero())
}

/// A request that carries the application which answers it.
fn asking(app: Router, path: &str) -> Request<&'static str> {
    let mut request = Request::get(path).body("").unwrap();
    request.extensions_mut().insert(app);
    request
}

/// Sends a request to the application that the request carries. Panics if a token or a value is in
/// the log.
#[derive(Clone)]
struct AppOfRequest;

impl Service<Request<RequestBody>> for AppOfRequest {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> Self::Future {
        let app: Router = request.extensions_mut().remove().unwrap();
        // The request does not get the browser's own Host. Each test adds the headers that it
        // needs.
        if let Entry::Occupied(host) = request.headers_mut().entry(HOST)
            && host.get() == HOST_OF_SITE
        {
            host.remove();
        }
        Box::pin(async move {
            let request = request.map(Body::new);
            let logged = Logged::start(&request);
            let response = app.oneshot(request).await?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            logged.assert_no_secret(&parts.headers);
            Ok(Response::from_parts(parts, body.into()))
        })
    }
}
