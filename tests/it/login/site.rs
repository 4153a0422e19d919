//! A site with users. Its database counts the look-ups, and fails or waits on demand.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use cloakroom::login::{BoxError, Users};
use cloakroom::testing::{Browser, FaultyStore, TestClock};
use cloakroom::{IntoUserId, MemoryStore, SessionLayer, SessionLayerBuilder, Stamp, UserId};
use http::header::{HeaderName, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Request, Response};
use support::builder;
use tokio::sync::Semaphore;

pub(crate) type Store = FaultyStore<MemoryStore>;
pub(crate) type Layer = SessionLayer<Store>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    /// `None` for a user of an identity provider.
    pub(crate) password: Option<String>,
    pub(crate) is_staff: bool,
}

#[derive(Clone)]
pub(crate) struct Db(Arc<State>);

struct State {
    users: Mutex<BTreeMap<String, User>>,
    look_ups: AtomicUsize,
    is_down: AtomicBool,
    /// Each look-up goes through it.
    gate: Semaphore,
}

impl Db {
    /// Ada of the staff, Bob, and Carol, who has no password.
    pub(crate) fn new() -> Self {
        let user = |name: &str| User {
            name: name.to_owned(),
            password: (name != "carol").then(|| format!("{name}'s first")),
            is_staff: name == "ada",
        };
        let users = ["ada", "bob", "carol"].map(|name| (name.to_owned(), user(name)));
        Self(Arc::new(State {
            users: Mutex::new(users.into()),
            look_ups: AtomicUsize::new(0),
            is_down: AtomicBool::new(false),
            gate: Semaphore::new(1_000_000),
        }))
    }

    pub(crate) fn user(&self, name: &str) -> Option<User> {
        self.0.users.lock().unwrap().get(name).cloned()
    }

    pub(crate) fn set_password(&self, name: &str, password: &str) -> User {
        let mut users = self.0.users.lock().unwrap();
        let user = users.get_mut(name).unwrap();
        user.password = Some(password.to_owned());
        user.clone()
    }

    pub(crate) fn delete(&self, name: &str) {
        self.0.users.lock().unwrap().remove(name);
    }

    /// How many look-ups there were since the last call.
    pub(crate) fn look_ups(&self) -> usize {
        self.0.look_ups.swap(0, Ordering::SeqCst)
    }

    pub(crate) fn set_down(&self, is_down: bool) {
        self.0.is_down.store(is_down, Ordering::SeqCst);
    }

    /// From now on, a look-up waits until it is let through.
    pub(crate) fn hold(&self) {
        self.0.gate.forget_permits(1_000_000);
    }

    pub(crate) fn let_through(&self, look_ups: usize) {
        self.0.gate.add_permits(look_ups);
    }

    fn answer<T>(&self, answer: T) -> Result<T, BoxError> {
        match self.0.is_down.load(Ordering::SeqCst) {
            true => Err(io::Error::from(io::ErrorKind::ConnectionRefused).into()),
            false => Ok(answer),
        }
    }
}

impl Users for Db {
    type User = User;

    async fn find(&self, id: &UserId) -> Result<Option<User>, BoxError> {
        self.0.look_ups.fetch_add(1, Ordering::SeqCst);
        self.0.gate.acquire().await?.forget();
        self.answer(self.user(id.as_str()))
    }

    fn id(user: &User) -> impl IntoUserId {
        user.name.as_str()
    }

    fn credentials(user: &User) -> Stamp {
        user.password.as_ref().map(Stamp::of).unwrap_or_default()
    }

    async fn has_permission(&self, user: &User, permission: &str) -> Result<bool, BoxError> {
        match permission {
            "breaks" => Err("no table of permissions".into()),
            _ => self.answer(user.is_staff && permission == "stock.write"),
        }
    }
}

pub(crate) struct Site {
    pub(crate) db: Db,
    pub(crate) store: Store,
    pub(crate) clock: TestClock,
    pub(crate) layer: Layer,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub(crate) fn with(
        set: impl FnOnce(SessionLayerBuilder<Store>) -> SessionLayerBuilder<Store>,
    ) -> Self {
        let db = Db::new();
        let store = FaultyStore::new(MemoryStore::new());
        let clock = TestClock::new();
        let builder = builder(store.clone())
            .clock(clock.clone())
            .users(db.clone());
        let layer = set(builder).build().unwrap();
        Self {
            db,
            store,
            clock,
            layer,
        }
    }

    pub(crate) fn visitor(&self, app: &Router) -> Browser<Router> {
        Browser::new(app.clone())
    }

    /// A browser that is logged in.
    pub(crate) async fn member(&self, app: &Router, name: &str) -> Browser<Router> {
        let mut browser = self.visitor(app);
        let account = Db::account(&self.db.user(name).unwrap());
        browser
            .with_session(&self.layer, |session| session.log_in(account))
            .await
            .unwrap();
        browser
    }
}

/// What a client sees of a response.
pub(crate) fn seen<B>(response: &Response<B>) -> String {
    let header = |name: HeaderName| {
        let value = response.headers().get(&name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    let parts = [
        Some(response.status().as_u16().to_string()),
        header(LOCATION),
        header(HeaderName::from_static("hx-redirect")).map(|page| format!("hx {page}")),
        header(WWW_AUTHENTICATE),
        header(RETRY_AFTER).map(|seconds| format!("after {seconds}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// A request with these headers.
pub(crate) fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Request<&'static str> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body("").unwrap()
}
