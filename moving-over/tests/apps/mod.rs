//! The same few routes with each session layer, and a browser's part.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use actix_web::dev::{Service, ServiceResponse};
use async_trait::async_trait;
use axum::body::Body;
use axum::extract::Path;
use axum::http::header::{COOKIE, SET_COOKIE, USER_AGENT};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::{Router, routing::get};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tower::ServiceExt;

/// So many keys of their own may requests set.
pub const KEYS: usize = 50;

/// Requests to `/count` and `/set` wait here after they have read, and before they write.
#[derive(Clone)]
pub struct Gate {
    arrived: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Gate {
    fn new() -> Self {
        Self {
            arrived: Arc::new(Semaphore::new(0)),
            open: Arc::new(Semaphore::new(0)),
        }
    }

    async fn pass(&self) {
        self.arrived.add_permits(1);
        self.open.acquire().await.unwrap().forget();
    }

    /// Waits until so many requests have come here.
    pub async fn arrived(&self, requests: usize) {
        let requests = requests.try_into().unwrap();
        self.arrived.acquire_many(requests).await.unwrap().forget();
    }

    /// Lets so many requests through.
    pub fn let_through(&self, requests: usize) {
        self.open.add_permits(requests);
    }
}

/// Cookies, and who sends them.
#[derive(Clone, Default)]
pub struct Jar {
    cookies: HashMap<String, String>,
    pub user_agent: &'static str,
}

impl Jar {
    pub fn of(cookie: &str) -> Self {
        let (name, value) = cookie.split_once('=').unwrap();
        Self {
            cookies: HashMap::from([(name.to_owned(), value.to_owned())]),
            ..Self::default()
        }
    }

    pub fn value(&self, name: &str) -> &str {
        &self.cookies[name]
    }

    pub fn keep(&mut self, answer: &Answer) {
        for set_cookie in &answer.set_cookies {
            let (pair, attributes) = set_cookie.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    fn header(&self) -> String {
        let pairs = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join("; ")
    }
}

pub struct Answer {
    pub status: u16,
    pub body: String,
    pub set_cookies: Vec<String>,
}

/// Some routes:
///
/// - `/log_in` logs ada in
/// - `/log_out` ends the session
/// - `/show` says who is logged in, and the counter
/// - `/count` reads the counter, passes the gate, and writes it
/// - `/set/{key}` reads a key of its own, passes the gate, and sets it
/// - `/keys` says how many of such keys there are
/// - `/fail` sets the counter to 100, and fails
/// - `/renew_and_fail` asks for a new id, and fails (cloakroom and tower-sessions)
/// - `/count_by_insert` is `/count` without `update` (cloakroom)
/// - `/update` updates the counter (actix-session)
pub trait App {
    async fn get(&self, path: &str, jar: &Jar) -> Answer;

    async fn follow(&self, path: &str, jar: &mut Jar) -> Answer {
        let answer = self.get(path, jar).await;
        jar.keep(&answer);
        answer
    }
}

pub struct AxumApp(Router);

impl App for AxumApp {
    async fn get(&self, path: &str, jar: &Jar) -> Answer {
        let request = Request::get(path)
            .header(COOKIE, jar.header())
            .header(USER_AGENT, jar.user_agent)
            .body(Body::empty())
            .unwrap();
        let response = self.0.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status.as_u16(),
            body: String::from_utf8(body.into()).unwrap(),
            set_cookies: set_cookies(&parts.headers),
        }
    }
}

fn set_cookies(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(SET_COOKIE).iter();
    values.map(|it| it.to_str().unwrap().to_owned()).collect()
}

pub fn cloakroom() -> (AxumApp, Gate) {
    let key = cloakroom::SigningKey::generate().unwrap();
    cloakroom_over(Arc::new(cloakroom::MemoryStore::new()), key)
}

pub fn cloakroom_over(
    store: impl cloakroom::SessionStore,
    key: cloakroom::SigningKey,
) -> (AxumApp, Gate) {
    use cloakroom::{Session, SessionError};

    type Answer<T = &'static str> = Result<T, SessionError>;

    let gate = Gate::new();
    let (at_gate, before_insert, before_set) = (gate.clone(), gate.clone(), gate.clone());
    let routes = Router::new()
        .route(
            "/log_in",
            get(async |session: Session| -> Answer {
                session.log_in("ada")?;
                Ok("logged in")
            }),
        )
        .route(
            "/log_out",
            get(async |session: Session| -> Answer {
                session.log_out()?;
                Ok("logged out")
            }),
        )
        .route(
            "/show",
            get(async |session: Session| -> Answer<String> {
                let count = session.get::<u64>("count")?.unwrap_or(0);
                Ok(match session.user()? {
                    Some(user) => format!("{user} {count}"),
                    None => format!("nobody {count}"),
                })
            }),
        )
        .route(
            "/count",
            get(async move |session: Session| -> Answer {
                session.update("count", |n: Option<u64>| n.unwrap_or(0) + 1)?;
                at_gate.pass().await;
                Ok("counted")
            }),
        )
        .route(
            "/count_by_insert",
            get(async move |session: Session| -> Answer {
                let count = session.get::<u64>("count")?.unwrap_or(0);
                before_insert.pass().await;
                session.insert("count", count + 1)?;
                Ok("counted")
            }),
        )
        .route(
            "/set/{key}",
            get(
                async move |session: Session, Path(key): Path<String>| -> Answer {
                    before_set.pass().await;
                    session.insert(key, true)?;
                    Ok("set")
                },
            ),
        )
        .route(
            "/keys",
            get(async |session: Session| -> Answer<String> {
                Ok(session.keys()?.len().to_string())
            }),
        )
        .route(
            "/fail",
            get(async |session: Session| -> Answer<StatusCode> {
                session.insert("count", 100_u64)?;
                Ok(StatusCode::INTERNAL_SERVER_ERROR)
            }),
        )
        .route(
            "/renew_and_fail",
            get(async |session: Session| -> Answer<StatusCode> {
                session.regenerate()?;
                Ok(StatusCode::INTERNAL_SERVER_ERROR)
            }),
        );
    let layer = cloakroom::SessionLayer::new(store, key);
    (AxumApp(routes.layer(layer)), gate)
}

pub fn tower_sessions(store: tower_sessions::MemoryStore) -> (AxumApp, Gate) {
    use tower_sessions::Session;

    let gate = Gate::new();
    let (at_gate, before_set) = (gate.clone(), gate.clone());
    let routes = Router::new()
        .route(
            "/log_in",
            get(async |session: Session| {
                session.cycle_id().await.unwrap();
                session.insert("user", "ada").await.unwrap();
            }),
        )
        .route(
            "/log_out",
            get(async |session: Session| session.flush().await.unwrap()),
        )
        .route(
            "/show",
            get(async |session: Session| {
                let user: Option<String> = session.get("user").await.unwrap();
                let count: Option<u64> = session.get("count").await.unwrap();
                show(user, count)
            }),
        )
        .route(
            "/count",
            get(async move |session: Session| {
                let count: Option<u64> = session.get("count").await.unwrap();
                at_gate.pass().await;
                session
                    .insert("count", count.unwrap_or(0) + 1)
                    .await
                    .unwrap();
                "counted"
            }),
        )
        .route(
            "/set/{key}",
            get(async move |session: Session, Path(key): Path<String>| {
                let _: Option<bool> = session.get(&key).await.unwrap();
                before_set.pass().await;
                session.insert(&key, true).await.unwrap();
                "set"
            }),
        )
        .route(
            "/keys",
            get(async |session: Session| {
                let mut keys = 0;
                for key in 0..KEYS {
                    let value: Option<bool> = session.get(&key.to_string()).await.unwrap();
                    keys += usize::from(value.is_some());
                }
                keys.to_string()
            }),
        )
        .route(
            "/fail",
            get(async |session: Session| {
                session.insert("count", 100_u64).await.unwrap();
                StatusCode::INTERNAL_SERVER_ERROR
            }),
        )
        .route(
            "/renew_and_fail",
            get(async |session: Session| {
                session.cycle_id().await.unwrap();
                StatusCode::INTERNAL_SERVER_ERROR
            }),
        );
    let layer = tower_sessions::SessionManagerLayer::new(store).with_expiry(
        tower_sessions::Expiry::OnInactivity(tower_sessions::cookie::time::Duration::hours(1)),
    );
    (AxumApp(routes.layer(layer)), gate)
}

fn show(user: Option<String>, count: Option<u64>) -> String {
    let user = user.unwrap_or_else(|| "nobody".to_owned());
    format!("{user} {}", count.unwrap_or(0))
}

pub async fn axum_session(database: Option<Database>) -> (AxumApp, Gate) {
    axum_session_of(database, axum_session::SessionConfig::default()).await
}

pub async fn axum_session_with_key() -> (AxumApp, Gate) {
    let key = axum_session::Key::generate();
    axum_session_of(None, axum_session::SessionConfig::default().with_key(key)).await
}

async fn axum_session_of(
    database: Option<Database>,
    config: axum_session::SessionConfig,
) -> (AxumApp, Gate) {
    type Session = axum_session::Session<Database>;

    let gate = Gate::new();
    let (at_gate, before_set) = (gate.clone(), gate.clone());
    let routes = Router::new()
        .route(
            "/log_in",
            get(async |session: Session| {
                session.renew();
                session.set("user", "ada");
            }),
        )
        .route("/log_out", get(async |session: Session| session.destroy()))
        .route(
            "/show",
            get(async |session: Session| show(session.get("user"), session.get("count"))),
        )
        .route(
            "/count",
            get(async move |session: Session| {
                let count: Option<u64> = session.get("count");
                at_gate.pass().await;
                session.set("count", count.unwrap_or(0) + 1);
                "counted"
            }),
        )
        .route(
            "/set/{key}",
            get(async move |session: Session, Path(key): Path<String>| {
                let _: Option<bool> = session.get(&key);
                before_set.pass().await;
                session.set(&key, true);
                "set"
            }),
        )
        .route(
            "/keys",
            get(async |session: Session| {
                let has = |key: &usize| session.get::<bool>(&key.to_string()).is_some();
                (0..KEYS).filter(has).count().to_string()
            }),
        )
        .route(
            "/fail",
            get(async |session: Session| {
                session.set("count", 100_u64);
                StatusCode::INTERNAL_SERVER_ERROR
            }),
        );
    let store = axum_session::SessionStore::new(database, config)
        .await
        .unwrap();
    (
        AxumApp(routes.layer(axum_session::SessionLayer::new(store))),
        gate,
    )
}

pub fn ruts() -> (AxumApp, Gate) {
    use ruts::store::{Ttl, moka::MokaStore};

    type Session = ruts::Session<MokaStore>;

    fn hour() -> Ttl {
        Ttl::new(3600).unwrap()
    }

    let gate = Gate::new();
    let (at_gate, before_set) = (gate.clone(), gate.clone());
    let routes = Router::new()
        .route(
            "/log_in",
            get(async |session: Session| {
                session.prepare_regenerate();
                session.set("user", &"ada", hour(), None).await.unwrap();
            }),
        )
        .route(
            "/log_out",
            get(async |session: Session| {
                session.delete().await.unwrap();
            }),
        )
        .route(
            "/show",
            get(async |session: Session| {
                let user: Option<String> = session.get("user").await.unwrap();
                let count: Option<u64> = session.get("count").await.unwrap();
                show(user, count)
            }),
        )
        .route(
            "/count",
            get(async move |session: Session| {
                let count: Option<u64> = session.get("count").await.unwrap();
                at_gate.pass().await;
                let count = count.unwrap_or(0) + 1;
                session.set("count", &count, hour(), None).await.unwrap();
                "counted"
            }),
        )
        .route(
            "/set/{key}",
            get(async move |session: Session, Path(key): Path<String>| {
                let _: Option<bool> = session.get(&key).await.unwrap();
                before_set.pass().await;
                session.set(&key, &true, hour(), None).await.unwrap();
                "set"
            }),
        )
        .route(
            "/keys",
            get(async |session: Session| {
                let mut keys = 0;
                for key in 0..KEYS {
                    let value: Option<bool> = session.get(&key.to_string()).await.unwrap();
                    keys += usize::from(value.is_some());
                }
                keys.to_string()
            }),
        );
    let cookie = ruts::CookieOptions::build().name("session").path("/");
    let store = MokaStore::builder().max_capacity(1_000).build();
    let layer = ruts::SessionLayer::new(Arc::new(store)).with_cookie_options(cookie);
    // The cookies of tower-cookies are around it.
    let routes = routes.layer(layer);
    let app = routes.layer(tower_cookies::CookieManagerLayer::new());
    (AxumApp(app), gate)
}

/// A table of a database that several processes have.
#[derive(Clone, Debug, Default)]
pub struct Database(Arc<Mutex<HashMap<String, String>>>);

type Done<T> = Result<T, axum_session::DatabaseError>;

#[async_trait]
impl axum_session::DatabasePool for Database {
    async fn initiate(&self, _table: &str) -> Done<()> {
        Ok(())
    }

    async fn count(&self, _table: &str) -> Done<i64> {
        Ok(self.0.lock().unwrap().len().try_into().unwrap())
    }

    async fn store(&self, id: &str, session: &str, _expires: i64, _table: &str) -> Done<()> {
        let mut sessions = self.0.lock().unwrap();
        sessions.insert(id.to_owned(), session.to_owned());
        Ok(())
    }

    async fn load(&self, id: &str, _table: &str) -> Done<Option<String>> {
        Ok(self.0.lock().unwrap().get(id).cloned())
    }

    async fn delete_one_by_id(&self, id: &str, _table: &str) -> Done<()> {
        self.0.lock().unwrap().remove(id);
        Ok(())
    }

    async fn exists(&self, id: &str, _table: &str) -> Done<bool> {
        Ok(self.0.lock().unwrap().contains_key(id))
    }

    async fn delete_by_expiry(&self, _table: &str) -> Done<Vec<String>> {
        Ok(Vec::new())
    }

    async fn delete_all(&self, _table: &str) -> Done<()> {
        self.0.lock().unwrap().clear();
        Ok(())
    }

    async fn get_ids(&self, _table: &str) -> Done<Vec<String>> {
        Ok(self.0.lock().unwrap().keys().cloned().collect())
    }

    fn auto_handles_expiry(&self) -> bool {
        false
    }
}

pub struct ActixApp<S>(S);

impl<S> App for ActixApp<S>
where
    S: Service<actix_http::Request, Response = ServiceResponse, Error = actix_web::Error>,
{
    async fn get(&self, path: &str, jar: &Jar) -> Answer {
        let request = actix_web::test::TestRequest::get()
            .uri(path)
            .insert_header(("cookie", jar.header()))
            .insert_header(("user-agent", jar.user_agent))
            .to_request();
        let response = self.0.call(request).await.unwrap();
        let set_cookies = response.headers().get_all("set-cookie");
        Answer {
            status: response.status().as_u16(),
            set_cookies: set_cookies
                .map(|it| it.to_str().unwrap().to_owned())
                .collect(),
            body: String::from_utf8(actix_web::test::read_body(response).await.into()).unwrap(),
        }
    }
}

pub async fn actix_session(
    store: impl actix_session::storage::SessionStore + 'static,
) -> (impl App, Gate) {
    use actix_session::Session;
    use actix_web::{HttpResponse, web};

    type Answer<T = &'static str> = Result<T, actix_web::Error>;

    let gate = Gate::new();
    let (at_gate, before_set) = (gate.clone(), gate.clone());
    let key = actix_web::cookie::Key::generate();
    let app = actix_web::App::new()
        .route(
            "/log_in",
            web::get().to(async |session: Session| -> Answer {
                session.renew();
                session.insert("user", "ada")?;
                Ok("logged in")
            }),
        )
        .route(
            "/log_out",
            web::get().to(async |session: Session| {
                session.purge();
                "logged out"
            }),
        )
        .route(
            "/show",
            web::get().to(async |session: Session| -> Answer<String> {
                Ok(show(session.get("user")?, session.get("count")?))
            }),
        )
        .route(
            "/count",
            web::get().to(move |session: Session| {
                let at_gate = at_gate.clone();
                async move {
                    let count: Option<u64> = session.get("count")?;
                    at_gate.pass().await;
                    session.insert("count", count.unwrap_or(0) + 1)?;
                    Ok::<_, actix_web::Error>("counted")
                }
            }),
        )
        .route(
            "/set/{key}",
            web::get().to(move |session: Session, key: web::Path<String>| {
                let before_set = before_set.clone();
                async move {
                    before_set.pass().await;
                    session.insert(key.into_inner(), true)?;
                    Ok::<_, actix_web::Error>("set")
                }
            }),
        )
        .route(
            "/keys",
            web::get().to(async |session: Session| {
                let has = |key: &usize| session.contains_key(&key.to_string());
                (0..KEYS).filter(has).count().to_string()
            }),
        )
        .route(
            "/fail",
            web::get().to(async |session: Session| -> Answer<HttpResponse> {
                session.insert("count", 100_u64)?;
                Ok(HttpResponse::InternalServerError().finish())
            }),
        )
        .route(
            "/update",
            web::get().to(async |session: Session| -> Answer {
                session.update("count", |n: u64| n + 1)?;
                Ok("updated")
            }),
        )
        .wrap(actix_session::SessionMiddleware::new(store, key));
    (ActixApp(actix_web::test::init_service(app).await), gate)
}
