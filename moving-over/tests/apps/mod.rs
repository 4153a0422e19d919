//! The same few routes with each session layer, and the cookies of a browser.

mod actix_session_app;
mod axum_session_app;
mod cloakroom_app;
mod ruts_app;
mod tower_sessions_app;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::header::{COOKIE, SET_COOKIE, USER_AGENT};
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tower::ServiceExt;

pub use actix_session_app::actix_session;
pub use axum_session_app::{Database, axum_session, axum_session_with_key};
pub use cloakroom_app::{cloakroom, cloakroom_over};
pub use ruts_app::ruts;
pub use tower_sessions_app::tower_sessions;

/// The number of keys that parallel requests set, one each.
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

    /// Waits until this many requests have arrived.
    pub async fn arrived(&self, requests: usize) {
        let requests = requests.try_into().unwrap();
        self.arrived.acquire_many(requests).await.unwrap().forget();
    }

    /// Lets this many requests through.
    pub fn let_through(&self, requests: usize) {
        self.open.add_permits(requests);
    }
}

/// The cookies of a browser, and its user agent.
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

/// An application with these routes:
///
/// - `/log_in` logs ada in
/// - `/log_out` ends the session
/// - `/show` shows who is logged in, and the counter
/// - `/count` reads the counter, passes the gate, and writes it
/// - `/set/{key}` reads a key of its own, passes the gate, and sets it
/// - `/keys` shows how many of these keys there are
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

fn show(user: Option<String>, count: Option<u64>) -> String {
    let user = user.unwrap_or_else(|| "nobody".to_owned());
    format!("{user} {}", count.unwrap_or(0))
}
