//! What the tests share: a browser, an application, and a store that watches and misbehaves.

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

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::response::IntoResponse;
use axum::routing::get;
use cloakroom::{
    CurrentUser, Record, RecordId, Replaced, Session, SessionError, SessionLayer,
    SessionLayerBuilder, SessionStore, SigningKey, StoreError, Timestamp, UserId, UserIndex,
    Version,
};
use cookie::Cookie;
use cookie_store::CookieStore;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
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

    /// Keeps the cookies of an answer, as its browser would when it comes in.
    pub fn keep(&mut self, reply: &Reply) {
        for header in reply.headers.get_all(SET_COOKIE) {
            let header = header.to_str().unwrap();
            self.assert_removes_what_is_kept(header);
            // A cookie that the jar refuses is one that a browser would drop.
            self.jar.parse(header, &self.url).unwrap();
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

/// How a store misbehaves.
#[derive(Clone, Debug, Default)]
enum Trouble {
    #[default]
    None,
    /// Every call fails.
    Down,
    /// Calls of this name fail.
    Failing(&'static str),
    /// Calls of this name fail after they took effect, as when the connection breaks.
    AnswerLost(&'static str),
    /// The same of one call alone.
    OneAnswerLost(&'static str),
    /// No call is answered.
    Hanging,
}

/// A store that counts its calls, lets a test stop them, and fails when it is told to.
#[derive(Clone)]
pub struct Spy<S> {
    pub store: S,
    calls: Arc<Mutex<Vec<&'static str>>>,
    trouble: Arc<Mutex<Trouble>>,
    gate: Arc<Mutex<Option<Gate>>>,
}

/// Calls of one name wait here until the test opens it.
#[derive(Clone)]
pub struct Gate {
    call: &'static str,
    pub arrived: Arc<Semaphore>,
    pub open: Arc<Semaphore>,
}

impl<S> Spy<S> {
    pub fn new(store: S) -> Self {
        Self {
            store,
            calls: Arc::default(),
            trouble: Arc::default(),
            gate: Arc::default(),
        }
    }

    /// The calls since the last time this was asked.
    pub fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    pub fn is_down(&self) {
        *self.trouble.lock().unwrap() = Trouble::Down;
    }

    pub fn fails(&self, call: &'static str) {
        *self.trouble.lock().unwrap() = Trouble::Failing(call);
    }

    pub fn loses_the_answer(&self, call: &'static str) {
        *self.trouble.lock().unwrap() = Trouble::AnswerLost(call);
    }

    pub fn loses_one_answer(&self, call: &'static str) {
        *self.trouble.lock().unwrap() = Trouble::OneAnswerLost(call);
    }

    pub fn hangs(&self) {
        *self.trouble.lock().unwrap() = Trouble::Hanging;
    }

    pub fn is_well(&self) {
        *self.trouble.lock().unwrap() = Trouble::None;
    }

    /// Stops calls of this name before they reach the store.
    pub fn stop_at(&self, call: &'static str) -> Gate {
        let gate = Gate {
            call,
            arrived: Arc::new(Semaphore::new(0)),
            open: Arc::new(Semaphore::new(0)),
        };
        *self.gate.lock().unwrap() = Some(gate.clone());
        gate
    }

    pub fn stop_nowhere(&self) {
        *self.gate.lock().unwrap() = None;
    }

    async fn call<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.calls.lock().unwrap().push(name);
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate.filter(|gate| gate.call == name) {
            gate.arrived.add_permits(1);
            gate.open.acquire().await.unwrap().forget();
        }
        let trouble = self.trouble.lock().unwrap().clone();
        match trouble {
            Trouble::Down => Err(broken()),
            Trouble::Failing(failing) if failing == name => Err(broken()),
            Trouble::AnswerLost(lost) if lost == name => {
                call.await?;
                Err(broken())
            }
            Trouble::OneAnswerLost(lost) if lost == name => {
                self.is_well();
                call.await?;
                Err(broken())
            }
            Trouble::Hanging => std::future::pending().await,
            _ => call.await,
        }
    }
}

impl Gate {
    /// Waits until so many calls have come here.
    pub async fn arrived(&self, calls: u32) {
        self.arrived.acquire_many(calls).await.unwrap().forget();
    }

    /// Lets so many calls through.
    pub fn let_through(&self, calls: usize) {
        self.open.add_permits(calls);
    }
}

fn broken() -> StoreError {
    StoreError::new(
        "the test's store is down",
        std::io::Error::from(std::io::ErrorKind::ConnectionRefused),
    )
}

impl<S> fmt::Debug for Spy<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spy")
    }
}

#[async_trait::async_trait]
impl<S: SessionStore> SessionStore for Spy<S> {
    async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        self.call("load", self.store.load(id)).await
    }

    async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        self.call("insert", self.store.insert(id, record)).await
    }

    async fn replace(
        &self,
        id: RecordId,
        expected: Version,
        record: &Record,
    ) -> Result<Replaced, StoreError> {
        self.call("replace", self.store.replace(id, expected, record))
            .await
    }

    async fn touch(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        self.call("touch", self.store.touch(id, record)).await
    }

    async fn remove(&self, id: RecordId) -> Result<bool, StoreError> {
        self.call("remove", self.store.remove(id)).await
    }

    async fn purge_expired(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.call("purge_expired", self.store.purge_expired(now))
            .await
    }
}

#[async_trait::async_trait]
impl<S: UserIndex> UserIndex for Spy<S> {
    async fn sessions_of(&self, user: &UserId) -> Result<Vec<(RecordId, Record)>, StoreError> {
        self.call("sessions_of", self.store.sessions_of(user)).await
    }

    async fn remove_all_of(
        &self,
        user: &UserId,
        except: Option<RecordId>,
    ) -> Result<u64, StoreError> {
        self.call("remove_all_of", self.store.remove_all_of(user, except))
            .await
    }
}
