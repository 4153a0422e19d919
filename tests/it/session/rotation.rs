//! Tokens that rotate by themselves, and what becomes of a session whose token two clients have.

mod alarm;
mod nodes;
mod orders;
mod requests;

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use cloakroom::testing::FaultyStore;
use cloakroom::{
    Client, DetachedSession, MemoryStore, Session, SessionEventKind, SessionLayer,
    SessionLayerBuilder, SessionStore, TestClock, Transport,
};
use http::{Extensions, HeaderMap, Request};
use support::{Reply, builder, routes, send};
use tokio::sync::Notify;

type Store = FaultyStore<MemoryStore>;
type Builder<S> = SessionLayerBuilder<S>;

const MINUTE: Duration = Duration::from_secs(60);
const MILLI: Duration = Duration::from_millis(1);

/// The interval of most tests.
const EVERY: Duration = Duration::from_secs(600);

/// How long a parent stays good after its child was first used.
const GRACE: Duration = MINUTE;

use super::hooks::Heard;

const NAME: &str = "__Host-session";

const OWNER: &str = "192.0.2.1";
const THIEF: &str = "198.51.100.7";

impl Heard {
    /// The kinds of the events since the last call.
    fn kinds(&self) -> Vec<&'static str> {
        self.take()
            .iter()
            .map(|event| event.kind().as_str())
            .collect()
    }

    /// How often the layer found that two clients have a token.
    fn alarms(&self) -> usize {
        let heard = self.0.lock().unwrap();
        let alarms = heard.iter();
        alarms
            .filter(|event| event.kind() == SessionEventKind::Reuse)
            .count()
    }
}

/// Where a handler of `/slow` is.
#[derive(Clone, Default)]
struct Slow {
    arrived: Arc<Notify>,
    go_on: Arc<Notify>,
}

type Kept = Arc<Mutex<Vec<DetachedSession>>>;

/// A node, and what it says.
struct Site<S = Store> {
    clock: TestClock,
    store: S,
    app: Router,
    heard: Heard,
    slow: Slow,
    kept: Kept,
}

impl Site {
    fn new() -> Self {
        Self::with(|builder| builder.rotate_every(EVERY))
    }

    fn with(set: impl FnOnce(Builder<Store>) -> Builder<Store>) -> Self {
        let store = FaultyStore::new(MemoryStore::new());
        Self::over(store, TestClock::new(), set)
    }

    /// Another node over the same store, whose clock is so far ahead.
    fn ahead(&self, by: Duration, set: impl FnOnce(Builder<Store>) -> Builder<Store>) -> Self {
        let clock = TestClock::new();
        clock.advance(by);
        Self::over(self.store.clone(), clock, set)
    }
}

impl<S: SessionStore + Clone> Site<S> {
    fn over(store: S, clock: TestClock, set: impl FnOnce(Builder<S>) -> Builder<S>) -> Self {
        let heard = Heard::default();
        let builder = builder(store.clone())
            .clock(clock.clone())
            .client_from(client)
            .on_event(heard.hook());
        let layer = set(builder).build().unwrap();
        let (slow, kept) = (Slow::default(), Kept::default());
        Self {
            app: app(layer, &slow, &kept),
            clock,
            store,
            heard,
            slow,
            kept,
        }
    }

    /// Somebody without a token.
    fn visitor(&self) -> Holder {
        Holder {
            app: self.app.clone(),
            token: String::new(),
            address: OWNER,
            way: Way::Cookie,
        }
    }

    /// The owner of a session with some data. Nobody remembers the calls and events of the login.
    async fn logged_in(&self) -> Holder {
        self.logged_in_by(Way::Cookie).await
    }

    async fn logged_in_by(&self, way: Way) -> Holder {
        let mut owner = self.visitor();
        owner.way = way;
        let choice = Transport::CHOICE_HEADER;
        let headers: &[(&str, &str)] = match way {
            Way::Cookie => &[],
            Way::Bearer => &[(choice.as_str(), "bearer")],
        };
        owner.get_with("/log_in/ada", headers).await;
        owner.get("/insert/theme/dark").await.assert(200, "done");
        self.heard.take();
        owner
    }

    /// The handle that a request to `/detach` leaves.
    async fn detached(&self, holder: &mut Holder) -> DetachedSession {
        holder.get("/detach").await.assert(200, "");
        self.kept.lock().unwrap().pop().unwrap()
    }

    /// The owner's token rotates, and the owner uses the new one for longer than the old one is
    /// good.
    async fn rotates(&self, owner: &mut Holder) {
        self.clock.advance(EVERY);
        let old = owner.token.clone();
        owner.get("/").await.assert(200, "untouched");
        assert_ne!(owner.token, old);
        owner.get("/user").await.assert(200, "ada");
        self.clock.advance(GRACE);
    }
}

fn client(headers: &HeaderMap, _: &Extensions) -> Client {
    let address = headers.get("x-address").unwrap();
    Client::new().with_address(address.to_str().unwrap())
}

fn app<S: SessionStore>(layer: SessionLayer<S>, slow: &Slow, kept: &Kept) -> Router {
    let (slow, late, kept) = (slow.clone(), slow.clone(), kept.clone());
    // A handler of a lazy layer, which asks for the session late.
    let late = move |request: Request<Body>| async move {
        late.arrived.notify_one();
        late.go_on.notified().await;
        let session = Session::load_from(request.extensions()).await?;
        session.require_user().map(|user| user.to_string())
    };
    let insert = move |session: Session| async move {
        slow.arrived.notify_one();
        slow.go_on.notified().await;
        session.insert("slow", "kept")
    };
    let detach = move |session: Session| async move {
        kept.lock().unwrap().push(session.detach());
    };
    routes()
        .route("/slow", get(insert))
        .route("/late", get(late))
        .route("/detach", get(detach))
        .layer(layer)
}

/// How somebody sends the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Cookie,
    Bearer,
}

/// Somebody who holds a token. A clone has a copy of the token.
#[derive(Clone)]
struct Holder {
    app: Router,
    token: String,
    address: &'static str,
    way: Way,
}

impl Holder {
    /// Somebody else takes a copy of the token.
    fn stolen(&self) -> Self {
        Self {
            address: THIEF,
            ..self.clone()
        }
    }

    /// The same client, at another node.
    fn at<S>(&self, site: &Site<S>) -> Self {
        Self {
            app: site.app.clone(),
            ..self.clone()
        }
    }

    fn request(&self, path: &str, headers: &[(&str, &str)]) -> Request<Body> {
        let mut request = Request::get(path).header("x-address", self.address);
        request = match (&*self.token, self.way) {
            ("", _) => request,
            (token, Way::Cookie) => request.header("cookie", format!("{NAME}={token}")),
            (token, Way::Bearer) => request.header("authorization", format!("Bearer {token}")),
        };
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    /// Sends a request. Nobody gets the answer's token yet.
    fn send(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> impl Future<Output = Reply> + Send + 'static + use<> {
        let (app, request) = (self.app.clone(), self.request(path, headers));
        async move { send(&app, request).await }
    }

    async fn get(&mut self, path: &str) -> Reply {
        self.get_with(path, &[]).await
    }

    async fn get_with(&mut self, path: &str, headers: &[(&str, &str)]) -> Reply {
        let reply = self.send(path, headers).await;
        self.keep(&reply);
        reply
    }

    /// Asks for a page, and gets no new token.
    async fn gets_no_token(&mut self, path: &str, status: u16, body: &str) {
        let reply = self.send(path, &[]).await;
        reply.assert(status, body);
        assert_eq!(given(&reply, self.way), None, "{reply:?}");
    }

    /// Loads a page, and gets a new token.
    async fn gets_a_token(&mut self) {
        let old = self.token.clone();
        self.get("/user").await.assert(200, "ada");
        assert_ne!(self.token, old);
    }

    async fn is_a_visitor(&mut self) {
        self.gets_no_token("/user", 401, "").await;
        self.gets_no_token("/get/theme", 200, "nothing").await;
    }

    fn keep(&mut self, reply: &Reply) {
        if let Some(token) = given(reply, self.way) {
            self.token = token;
        }
    }
}

/// The token that an answer gives. It comes in one way only.
fn given(reply: &Reply, way: Way) -> Option<String> {
    match way {
        Way::Cookie => {
            assert_eq!(reply.header("x-session-token"), None);
            reply.token()
        }
        Way::Bearer => {
            reply.assert_no_cookie();
            reply.header("x-session-token").map(str::to_owned)
        }
    }
}
