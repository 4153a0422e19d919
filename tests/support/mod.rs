//! What the tests share: a browser, and an application.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test file uses a part of it"
)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

pub mod base64;
pub mod log;
pub mod processes;
pub mod servers;
pub mod stores;

use std::future::Future;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::response::IntoResponse;
use axum::routing::get;
use cloakroom::{
    CurrentUser, RecordId, Session, SessionError, SessionLayer, SessionLayerBuilder, SessionStore,
    SigningKey,
};
use cookie::Cookie;
use cookie_store::{CookieError, CookieStore};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;
use url::Url;

/// The key of all tests that need none of their own.
pub fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 64]).unwrap()
}

pub fn builder<S: SessionStore>(store: S) -> SessionLayerBuilder<S> {
    SessionLayer::builder(store, key())
}

/// The record id that a token begins with.
pub fn id_of(token: &str) -> RecordId {
    RecordId::from_bytes(*base64::decode(token).first_chunk().unwrap())
}

/// A response that was read to its end.
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

    /// Neither sets nor removes a cookie.
    #[track_caller]
    pub fn assert_no_cookie(&self) {
        assert_eq!(self.cookies(), Vec::<&str>::new());
    }
}

/// Sends one request, as it is. It panics if a token or a value is in the log.
pub async fn send(app: &Router, request: Request<Body>) -> Reply {
    let logged = log::Logged::start(&request);
    let reply = send_unwatched(app, request).await;
    logged.assert_no_secret(&reply.headers);
    reply
}

/// The same without a look at the log, for a test of very many requests.
pub async fn send_unwatched(app: &Router, request: Request<Body>) -> Reply {
    let response = app.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Reply {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap(),
    }
}

pub fn request(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

/// A client that keeps to the rules of cookies. A clone is a second window: it has a jar of its own from then on.
#[derive(Clone)]
pub struct Browser {
    app: Router,
    jar: CookieStore,
    url: Url,
}

impl Browser {
    pub fn new(app: &Router) -> Self {
        Self {
            app: app.clone(),
            jar: CookieStore::default(),
            url: Url::parse("https://example.com/").unwrap(),
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

    /// Sends a request without keeping the cookies of its answer yet.
    pub fn send(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> impl Future<Output = Reply> + Send + 'static + use<> {
        let mut request = request(path);
        let url = self.url.join(path).unwrap();
        let pairs: Vec<_> = self
            .jar
            .get_request_values(&url)
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if !pairs.is_empty() {
            request
                .headers_mut()
                .insert(COOKIE, pairs.join("; ").parse().unwrap());
        }
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        let app = self.app.clone();
        async move { send(&app, request).await }
    }

    /// Takes over the cookies of another, which visited the same site.
    pub fn adopt(&mut self, other: &Self) {
        self.jar = other.jar.clone();
    }

    /// Keeps the cookies of an answer, as its browser would when it comes in.
    pub fn keep(&mut self, reply: &Reply) {
        for header in reply.headers.get_all(SET_COOKIE) {
            let header = header.to_str().unwrap();
            self.assert_removes_what_is_kept(header);
            // A cookie that the jar refuses is one that a browser would drop. A removal may find nothing.
            match self.jar.parse(header, &self.url) {
                Ok(_) | Err(CookieError::Expired) => {}
                Err(error) => panic!("{header}: {error}"),
            }
        }
    }

    /// To a browser a removal without Partitioned, say, is of another cookie. The jar does not look at all attributes.
    #[track_caller]
    fn assert_removes_what_is_kept(&self, header: &str) {
        fn attributes<'a>(cookie: &'a Cookie<'_>) -> impl PartialEq + use<'a> {
            let place = (cookie.path(), cookie.domain(), cookie.partitioned());
            (place, cookie.secure(), cookie.same_site())
        }
        let set = Cookie::parse(header).unwrap();
        let is_removal = set.max_age().is_some_and(|max_age| max_age.is_zero());
        let mut kept = self
            .jar
            .iter_unexpired()
            .filter(|kept| kept.name() == set.name())
            .peekable();
        assert!(
            !is_removal
                || kept.peek().is_none()
                || kept.any(|kept| attributes(kept) == attributes(&set)),
            "{header} removes another cookie than the one that is kept"
        );
    }

    /// `name=value` of all cookies.
    pub fn cookies(&self) -> Vec<String> {
        self.jar
            .get_request_values(&self.url)
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    /// The names of all cookies, whatever path they are for.
    pub fn kept(&self) -> Vec<&str> {
        self.jar.iter_unexpired().map(|kept| kept.name()).collect()
    }

    /// The only cookie's value.
    pub fn token(&self) -> String {
        let cookies = self.cookies();
        assert_eq!(cookies.len(), 1, "{cookies:?}");
        cookies[0].split_once('=').unwrap().1.to_owned()
    }

    /// The browser was closed and opened: only persistent cookies are left.
    pub fn restart(&mut self) {
        let session_cookies: Vec<_> = self
            .jar
            .iter_any()
            .filter(|cookie| !cookie.is_persistent())
            .map(|cookie| cookie.name().to_owned())
            .collect();
        for name in session_cookies {
            self.jar.remove("example.com", "/", &name);
        }
    }
}

/// A route for each thing that a session can do.
pub fn app<S: SessionStore>(layer: SessionLayer<S>) -> Router {
    routes().layer(layer)
}

type Answer = Result<String, SessionError>;

pub fn routes() -> Router {
    Router::new()
        .route("/", get(|| async { "untouched" }))
        .route("/keys", get(|session: Session| async move { Ok::<_, SessionError>(session.keys()?.join(",")) }))
        .route("/get/{key}", get(read))
        .route("/insert/{key}/{value}", get(insert))
        .route("/update/{key}", get(update))
        .route("/visit/{key}", get(visit))
        .route("/remove/{key}", get(remove))
        .route("/clear", get(|session: Session| async move { done(session.clear()) }))
        .route("/regenerate", get(|session: Session| async move { done(session.regenerate()) }))
        .route("/log_in/{user}", get(log_in))
        .route("/remember/{user}", get(remember))
        .route("/log_out", get(|session: Session| async move { done(session.log_out()) }))
        .route("/destroy", get(|session: Session| async move { done(session.destroy()) }))
        .route("/passive", get(|session: Session| async move { done(session.passive()) }))
        .route("/user", get(|user: CurrentUser| async move { user.to_string() }))
        .route("/id", get(|session: Session| async move { Ok::<_, SessionError>(format!("{:?}", session.id()?)) }))
        .route("/fail/{operation}", get(fail))
}

fn done(result: Result<(), SessionError>) -> Answer {
    result.map(|()| "done".to_owned())
}

async fn read(session: Session, Path(key): Path<String>) -> Answer {
    Ok(match session.get::<serde_json::Value>(key)? {
        Some(serde_json::Value::String(text)) => text,
        Some(value) => value.to_string(),
        None => "nothing".to_owned(),
    })
}

async fn insert(session: Session, Path((key, value)): Path<(String, String)>) -> Answer {
    done(session.insert(key, value))
}

async fn update(session: Session, Path(key): Path<String>) -> Answer {
    let value = session.update(key, |n: Option<u64>| n.unwrap_or(0) + 1)?;
    Ok(value.to_string())
}

/// Counts up, and inserts a key of its own.
async fn visit(session: Session, Path(key): Path<String>) -> Answer {
    let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    session.insert(key, "was here")?;
    Ok(visits.to_string())
}

async fn remove(session: Session, Path(key): Path<String>) -> Answer {
    Ok(session
        .remove::<String>(key)?
        .unwrap_or_else(|| "nothing".to_owned()))
}

async fn log_in(session: Session, Path(user): Path<String>) -> Answer {
    done(session.log_in(user))
}

async fn remember(session: Session, Path(user): Path<String>) -> Answer {
    session.remember(true)?;
    done(session.log_in(user))
}

/// Changes the session, and then fails.
async fn fail(
    session: Session,
    Path(operation): Path<String>,
) -> Result<impl IntoResponse, SessionError> {
    match &*operation {
        "insert" => session.insert("key", "of a failed request")?,
        "regenerate" => session.regenerate()?,
        "log_in" => session.log_in("eve")?,
        "destroy" => session.destroy()?,
        "destroy_and_insert" => {
            session.destroy()?;
            session.insert("key", "of a failed request")?;
        }
        "read" => drop(session.get::<String>("key")?),
        other => panic!("{other}"),
    }
    Ok((StatusCode::INTERNAL_SERVER_ERROR, "failed"))
}
