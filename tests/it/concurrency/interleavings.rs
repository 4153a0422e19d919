//! The tests try every order in which two or three requests on one session can reach the store.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cloakroom::testing::StoreCall;
use cloakroom::{
    Feed, FeedSender, MemoryStore, NearCache, Notice, Record, RecordId, Session, SessionError,
    SessionFeed, SessionStore, StoreError, TestClock,
};
use http::header::{COOKIE, SET_COOKIE};
use http::{Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use support::{builder, id_of};
use tokio::runtime::Runtime;
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt, service_fn};

/// What a request does. `Revoke` comes from somebody else at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    /// A read. If a touch is due, it also touches the session.
    Read,
    Write,
    Update,
    Regenerate,
    LogIn,
    LogOut,
    /// Somebody revokes the session from outside, by its record id.
    Revoke,
    /// Another user logs in, and gets a new session.
    Switch,
    Remember,
    /// Ends the session, and stores something in a new one.
    StartAnew,
    /// A read that never touches the session. Only the test itself sends it.
    Passive,
}

impl Act {
    const ALL: [Self; 10] = [
        Self::Read,
        Self::Write,
        Self::Update,
        Self::Regenerate,
        Self::LogIn,
        Self::LogOut,
        Self::Revoke,
        Self::Switch,
        Self::Remember,
        Self::StartAnew,
    ];
}

/// The session that all the requests come with.
#[derive(Clone, Copy, Debug)]
enum Start {
    Anonymous,
    /// Ada is logged in.
    LoggedIn,
    /// Ada is logged in. Her last use was so long ago that the layer records the next one.
    TouchDue,
}

/// The places at which a call of the store waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stops {
    /// Before the call takes effect. Between two effects, a request touches nothing that requests
    /// share. So these places give all orders.
    Before,
    /// Also before the call's answer.
    BeforeAndAfter,
}

/// A store in which each call waits for its turn.
#[derive(Clone, Debug)]
struct Turns {
    store: MemoryStore,
    stops: Stops,
    turns: Arc<AtomicUsize>,
    made: Arc<Mutex<BTreeSet<RecordId>>>,
    /// The sessions that were removed.
    ended: Arc<Mutex<BTreeSet<RecordId>>>,
    /// The feeds of the nodes, which get a notice when the test delivers it.
    feeds: Arc<Mutex<Vec<FeedSender>>>,
}

impl Turns {
    async fn turn(&self) {
        let take = |turns: usize| turns.checked_sub(1);
        poll_fn(|_| {
            match self
                .turns
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
            {
                Ok(_) => Poll::Ready(()),
                Err(_) => Poll::Pending,
            }
        })
        .await;
    }

    async fn call<T>(&self, _: StoreCall, answer: impl Future<Output = T>) -> T {
        self.turn().await;
        let answer = answer.await;
        if self.stops == Stops::BeforeAndAfter {
            self.turn().await;
        }
        answer
    }
}

#[async_trait::async_trait]
impl SessionStore for Turns {
    support::forward_store! { self => self.store, through call; load, replace, touch }

    async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        self.call(StoreCall::Insert, async {
            self.made.lock().unwrap().insert(id);
            self.store.insert(id, record).await
        })
        .await
    }

    async fn remove(&self, id: RecordId) -> Result<bool, StoreError> {
        self.call(StoreCall::Remove, async {
            let removed = self.store.remove(id).await?;
            if removed {
                self.ended.lock().unwrap().insert(id);
            }
            Ok(removed)
        })
        .await
    }

    support::forward_store! { self => self.store; purge_expired }
}

#[async_trait::async_trait]
impl SessionFeed for Turns {
    async fn subscribe(&self) -> Result<Feed, StoreError> {
        let (sender, feed) = Feed::channel();
        self.feeds.lock().unwrap().push(sender);
        Ok(feed)
    }
}

/// What a handler reports: the session that its request came with, and the content of that session.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Seen {
    id: Option<String>,
    user: Option<String>,
    keys: Vec<String>,
    count: u64,
}

impl Seen {
    fn id(&self) -> Option<RecordId> {
        self.id.as_deref().map(|id| id.parse().unwrap())
    }
}

async fn handler(request: Request<()>) -> Result<Response<String>, Infallible> {
    Ok(match act(&request) {
        Ok(seen) => Response::new(serde_json::to_string(&seen).unwrap()),
        Err(error) => error.to_response(),
    })
}

fn act(request: &Request<()>) -> Result<Seen, SessionError> {
    let session = Session::from_extensions(request.extensions())?;
    let id = session.id().map(|id| id.to_string());
    let own_key = request.uri().query().unwrap_or_default();
    match request.uri().path() {
        "/Read" => {}
        "/Passive" => session.skip_touch()?,
        "/Write" => session.insert(own_key, true)?,
        "/Update" => {
            session.update("count", |n: Option<u64>| n.unwrap_or(0) + 1)?;
        }
        "/Regenerate" => session.regenerate()?,
        "/LogIn" => session.log_in("ada")?,
        "/LogOut" => session.log_out()?,
        "/Switch" => session.log_in("grace")?,
        "/Remember" => session.set_remembered(true)?,
        "/StartAnew" => {
            session.destroy()?;
            session.insert(own_key, true)?;
        }
        other => panic!("{other}"),
    }
    Ok(Seen {
        id,
        user: session.user().map(|user| user.to_string()),
        keys: session.keys(),
        count: session.get("count")?.unwrap_or(0),
    })
}

/// What a response does to the browser's cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cookie {
    Kept,
    Set(String),
    Removed,
}

#[derive(Debug)]
struct Answer {
    act: Act,
    key: String,
    status: StatusCode,
    seen: Seen,
    cookie: Cookie,
}

impl Answer {
    fn of(act: Act, key: String, response: Response<String>) -> Self {
        let cookies: Vec<_> = response.headers().get_all(SET_COOKIE).iter().collect();
        assert!(cookies.len() <= 1, "{cookies:?}");
        let cookie = match cookies.first() {
            None => Cookie::Kept,
            Some(cookie) => {
                let cookie = cookie.to_str().unwrap();
                let value = cookie.split(['=', ';']).nth(1).unwrap();
                match value.is_empty() {
                    true => Cookie::Removed,
                    false => Cookie::Set(value.to_owned()),
                }
            }
        };
        Self {
            act,
            key,
            status: response.status(),
            seen: serde_json::from_str(response.body()).unwrap_or_default(),
            cookie,
        }
    }

    fn is_good(&self) -> bool {
        self.status.is_success()
    }
}

type Running = Pin<Box<dyn Future<Output = Answer>>>;

type App = BoxCloneSyncService<Request<()>, Response<String>, Infallible>;
type Revoke = Box<dyn Fn(RecordId) -> Pin<Box<dyn Future<Output = ()>>>>;

/// A process that serves requests.
struct Node {
    app: App,
    revoke: Revoke,
}

impl Node {
    fn new(store: impl SessionStore, clock: &TestClock) -> Self {
        let layer = builder(store).clock(clock.clone()).build().unwrap();
        let sessions = layer.sessions();
        Self {
            app: BoxCloneSyncService::new(layer.layer(service_fn(handler))),
            revoke: Box::new(move |id| {
                let sessions = sessions.clone();
                Box::pin(async move {
                    sessions.revoke(id).await.unwrap();
                })
            }),
        }
    }
}

/// What happens to the records, before the nodes with near caches are told.
struct LateFeed<'a> {
    notices: Mutex<Feed>,
    runtime: &'a Runtime,
}

/// The session that all the requests come with.
#[derive(Clone, Debug)]
struct Begun {
    token: String,
    id: RecordId,
    record: Record,
}

/// An application. The test moves its requests on by hand.
struct World<'a> {
    store: Turns,
    clock: TestClock,
    /// The first request goes to the first node, the second to the second, and so on.
    nodes: Vec<Node>,
    /// If the nodes have near caches.
    feed: Option<LateFeed<'a>>,
    start: Start,
}

impl<'a> World<'a> {
    fn new(start: Start, stops: Stops) -> Self {
        let store = Turns {
            store: MemoryStore::new(),
            stops,
            turns: Arc::default(),
            made: Arc::default(),
            ended: Arc::default(),
            feeds: Arc::default(),
        };
        let clock = TestClock::new();
        Self {
            nodes: vec![Node::new(store.clone(), &clock)],
            store,
            clock,
            feed: None,
            start,
        }
    }

    /// Two nodes with a near cache each. Their feed may be late at every step.
    fn with_near_caches(start: Start, runtime: &'a Runtime) -> Self {
        let mut world = Self::new(start, Stops::Before);
        world.nodes.clear();
        runtime.block_on(async {
            for _ in 0..2 {
                let near = NearCache::builder(world.store.clone());
                // The feed is never so late.
                let near = near.max_stale(Duration::from_secs(3600)).open();
                let near = near.await.unwrap();
                let mut feed = world.store.feeds.lock().unwrap().last().unwrap().clone();
                let ping = feed.pinged().await.unwrap();
                feed.pong(ping);
                while !near.stats().is_fresh {
                    tokio::task::yield_now().await;
                }
                world.nodes.push(Node::new(near, &world.clock));
            }
            let notices = Mutex::new(world.store.store.subscribe().await.unwrap());
            world.feed = Some(LateFeed { notices, runtime });
        });
        world
    }

    /// Delivers the oldest notice that the nodes do not have yet. Returns whether there was one.
    fn deliver(&self) -> bool {
        let Some(LateFeed { notices, runtime }) = &self.feed else {
            return false;
        };
        let mut notices = notices.lock().unwrap();
        let polled = pin!(notices.next()).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(notice) = polled else {
            return false;
        };
        let Some(Notice::Changed(id)) = notice else {
            panic!("{notice:?}");
        };
        for feed in &*self.store.feeds.lock().unwrap() {
            feed.changed(id);
        }
        // The tasks that follow the feed take the notice in.
        runtime.block_on(async {
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        });
        true
    }

    fn deliver_all(&self) {
        while self.deliver() {}
    }

    fn request(&self, act: Act, key: &str, token: Option<&str>) -> Running {
        self.request_at(&self.nodes[0], act, key, token)
    }

    fn request_at(&self, node: &Node, act: Act, key: &str, token: Option<&str>) -> Running {
        let mut request = Request::get(format!("/{act:?}?{key}"));
        if let Some(token) = token {
            request = request.header(COOKIE, format!("__Host-session={token}"));
        }
        let request = request.body(()).unwrap();
        let answer = node.app.clone().oneshot(request);
        let key = key.to_owned();
        Box::pin(async move { Answer::of(act, key, answer.await.unwrap()) })
    }

    fn revocation(&self, node: &Node, id: RecordId) -> Running {
        let revocation = (node.revoke)(id);
        Box::pin(async move {
            revocation.await;
            let mut answer = Answer::of(Act::Revoke, String::new(), Response::default());
            answer.seen.id = Some(id.to_string());
            answer
        })
    }

    /// Runs a request from start to end without a stop.
    fn now<T>(&self, future: impl Future<Output = T>) -> T {
        self.store.turns.store(usize::MAX, Ordering::SeqCst);
        let polled = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
        self.store.turns.store(0, Ordering::SeqCst);
        match polled {
            Poll::Ready(answer) => answer,
            Poll::Pending => panic!("something stops it"),
        }
    }

    /// What a request with this token sees.
    fn probe(&self, token: &str) -> Seen {
        let answer = self.now(self.request(Act::Read, "", Some(token)));
        assert!(answer.is_good());
        assert_eq!(answer.cookie, Cookie::Kept);
        answer.seen
    }

    /// Makes the session that all the requests come with, and takes it out of the store.
    fn begin(&self) -> Begun {
        let mut first = self.now(self.request(Act::Write, "first", None));
        if !matches!(self.start, Start::Anonymous) {
            let Cookie::Set(token) = &first.cookie else {
                panic!("{first:?}");
            };
            let token = token.clone();
            first = self.now(self.request(Act::LogIn, "", Some(&token)));
        }
        let Cookie::Set(token) = first.cookie else {
            panic!("{first:?}");
        };
        let id = id_of(&token);
        let record = self.now(self.store.store.load(id)).unwrap().unwrap();
        if matches!(self.start, Start::TouchDue) {
            self.clock.advance(Duration::from_secs(600));
        }
        if self.feed.is_none() {
            self.forget();
        }
        Begun { token, id, record }
    }

    /// Puts the session into the store again, if it is not there.
    fn restore(&self, id: RecordId, record: &Record) {
        self.now(self.store.store.insert(id, record)).unwrap();
        self.store.made.lock().unwrap().insert(id);
    }

    /// Runs these acts in every order. Returns the number of orders.
    fn explore(&self, acts: &[Act]) -> usize {
        let mut orders = 0;
        let begun = self.begin();
        // For each step: the number of the request that moved on, and how many requests there are.
        let mut path: Vec<(usize, usize)> = Vec::new();
        loop {
            let Begun { token, id, record } = match self.feed {
                // Each order begins with the same record.
                None => begun.clone(),
                // A near cache takes no ended session back.
                Some(_) => self.begin(),
            };
            self.restore(id, &record);
            let running = acts
                .iter()
                .enumerate()
                .map(|(number, act)| {
                    let node = &self.nodes[number % self.nodes.len()];
                    let key = format!("own-{number}");
                    match act {
                        Act::Revoke => self.revocation(node, id),
                        act => self.request_at(node, *act, &key, Some(&token)),
                    }
                })
                .collect();
            // All nodes have the session in their caches, if they have caches.
            self.deliver_all();
            for node in self.nodes.iter().filter(|_| self.feed.is_some()) {
                self.now(self.request_at(node, Act::Passive, "", Some(&token)));
            }
            if let Some(answers) = self.run(acts, running, &mut path) {
                orders += 1;
                self.deliver_all();
                self.check(&token, id, &answers);
            }
            self.forget();
            // The next order is equal to this one for as many steps as possible.
            loop {
                match path.pop() {
                    None => return orders,
                    Some((which, of)) if which + 1 < of => {
                        path.push((which + 1, of));
                        break;
                    }
                    Some(_) => {}
                }
            }
        }
    }

    /// Moves the requests on in the order of `path`. After the end of `path`, it takes the first
    /// request that can move on, and adds it to `path`. Returns `None` if every remaining choice
    /// belongs to another order.
    fn run(
        &self,
        acts: &[Act],
        running: Vec<Running>,
        path: &mut Vec<(usize, usize)>,
    ) -> Option<Vec<Answer>> {
        let mut running: Vec<Option<Running>> = running.into_iter().map(Some).collect();
        let mut has_begun = vec![false; acts.len()];
        let mut answers = Vec::new();
        let mut step = 0;
        while running.iter().any(Option::is_some) {
            let (mut which, _) = path.get(step).copied().unwrap_or_default();
            loop {
                if which == running.len() && self.deliver() {
                    break;
                }
                let slot = running.get_mut(which);
                let Some(slot) = slot else {
                    assert!(
                        path.get(step).is_some_and(|(first, _)| *first > 0),
                        "the requests wait for each other"
                    );
                    path.truncate(step);
                    return None;
                };
                // Of two requests that do the same at the same node, the first begins first. The
                // order with the second before it is the same order, under other names.
                let is_twin = !has_begun[which]
                    && (0..which).any(|other| {
                        !has_begun[other]
                            && acts[other] == acts[which]
                            && (which - other).is_multiple_of(self.nodes.len())
                    });
                if let Some(request) = slot.as_mut().filter(|_| !is_twin) {
                    self.store.turns.store(1, Ordering::SeqCst);
                    let polled = request
                        .as_mut()
                        .poll(&mut Context::from_waker(Waker::noop()));
                    let went_on = self.store.turns.swap(0, Ordering::SeqCst) == 0;
                    has_begun[which] |= went_on || polled.is_ready();
                    if let Poll::Ready(answer) = polled {
                        answers.push(answer);
                        *slot = None;
                        break;
                    }
                    if went_on {
                        break;
                    }
                }
                which += 1;
            }
            let taken = (which, running.len() + usize::from(self.feed.is_some()));
            match path.get_mut(step) {
                Some(planned) => *planned = taken,
                None => path.push(taken),
            }
            step += 1;
        }
        Some(answers)
    }

    /// Removes the sessions that a run has made.
    fn forget(&self) {
        for id in std::mem::take(&mut *self.store.made.lock().unwrap()) {
            self.now(self.store.store.remove(id)).unwrap();
        }
        self.store.ended.lock().unwrap().clear();
        self.deliver_all();
    }

    /// Checks what must hold at the end, in every order.
    fn check(&self, token: &str, id: RecordId, answers: &[Answer]) {
        let ended = self.store.ended.lock().unwrap().clone();
        let mut tokens = vec![token];
        for answer in answers {
            if let Cookie::Set(token) = &answer.cookie {
                tokens.push(token);
            }
        }
        let probes: BTreeMap<&str, Seen> = tokens
            .iter()
            .map(|token| (*token, self.probe(token)))
            .collect();
        let good = |token: &str| probes[token].id.is_some();
        // The good token of each session shows this.
        let mut by_id: BTreeMap<RecordId, &Seen> = BTreeMap::new();
        for seen in probes.values() {
            if let Some(id) = seen.id() {
                let other = by_id.insert(id, seen);
                assert!(
                    other.is_none(),
                    "two tokens of one session are good: {answers:#?}"
                );
            }
        }

        // An ended session is dead. No token that a client ever got reaches it.
        for answer in answers {
            let ends = matches!(
                answer.act,
                Act::LogOut | Act::Revoke | Act::StartAnew | Act::Switch
            );
            // In a visitor's session, a `Switch` ends nothing: it is a plain login.
            let ends =
                ends && !(answer.act == Act::Switch && matches!(self.start, Start::Anonymous));
            if let Some(seen) = answer.seen.id()
                && ends
                && answer.is_good()
            {
                assert!(
                    !by_id.contains_key(&seen),
                    "an ended session lives: {answers:#?}"
                );
            }
        }
        for id in &ended {
            assert!(
                !by_id.contains_key(id),
                "a removed session is back: {answers:#?}"
            );
        }

        // The session at the start is still there, unless it was ended. Somebody knows its good
        // token.
        assert!(
            ended.contains(&id) || by_id.contains_key(&id),
            "a session is lost: {answers:#?}"
        );

        // If a write got a good answer, its value is there, unless its session was ended.
        for answer in answers.iter().filter(|answer| answer.is_good()) {
            let home = match (&answer.cookie, answer.seen.id()) {
                (Cookie::Set(token), _) => probes[&**token].id(),
                (_, id) => id,
            };
            let Some(home) = home else { continue };
            if ended.contains(&home) {
                continue;
            }
            let kept = by_id[&home];
            match answer.act {
                Act::Write | Act::StartAnew => {
                    assert!(
                        kept.keys.contains(&answer.key),
                        "a write is lost: {answers:#?}"
                    );
                }
                Act::LogIn => assert_eq!(kept.user.as_deref(), Some("ada"), "{answers:#?}"),
                Act::Update => {
                    let updates = answers.iter().filter(|other| {
                        let is_there = match (&other.cookie, other.seen.id()) {
                            (Cookie::Set(token), _) => probes[&**token].id() == Some(home),
                            (_, id) => id == Some(home),
                        };
                        other.act == Act::Update && other.is_good() && is_there
                    });
                    assert_eq!(kept.count, updates.count() as u64, "{answers:#?}");
                }
                _ => {}
            }
        }

        // A response removes a cookie only if its own request asked for that. A response sets a
        // cookie only with a good token, or the session was ended later. So a late answer to any
        // other request takes no good cookie away, in whatever order the answers arrive.
        for answer in answers {
            match &answer.cookie {
                Cookie::Kept => {}
                Cookie::Removed => {
                    assert_eq!(answer.act, Act::LogOut, "{answers:#?}");
                    assert!(answer.is_good(), "{answers:#?}");
                }
                Cookie::Set(token) => assert!(
                    good(token) || ended.contains(&id_of(token)),
                    "a dead token was given out: {answers:#?}"
                ),
            }
        }
        // If the answers arrive in the order in which they were made, the browser still has a good
        // cookie at the end, unless its user logged out.
        if self.store.stops == Stops::Before {
            let mut has = good(token);
            for answer in answers {
                let had = has;
                has = match &answer.cookie {
                    Cookie::Kept => has,
                    Cookie::Set(token) => good(token),
                    Cookie::Removed => false,
                };
                assert!(
                    has || !had || answer.act == Act::LogOut,
                    "a good cookie was taken away: {answers:#?}"
                );
            }
        }
    }
}

/// The requests use Tokio's clock, and nothing else of the runtime.
fn in_runtime(test: impl FnOnce(&Runtime)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _guard = runtime.enter();
    test(&runtime);
}

fn pairs(start: Start) {
    in_runtime(|_| {
        let world = World::new(start, Stops::BeforeAndAfter);
        let mut orders = 0;
        for (number, first) in Act::ALL.into_iter().enumerate() {
            for second in Act::ALL.into_iter().skip(number) {
                orders += world.explore(&[first, second]);
            }
        }
        println!("{start:?}: {orders} orders of two requests");
    });
}

/// The two requests go to two nodes, each with a near cache that has the session. The feed brings
/// each notice at every possible time.
fn pairs_with_near_caches(start: Start) {
    in_runtime(|runtime| {
        let world = World::with_near_caches(start, runtime);
        let mut orders = 0;
        for first in Act::ALL {
            for second in Act::ALL {
                orders += world.explore(&[first, second]);
            }
        }
        println!("{start:?}: {orders} orders of two requests with near caches");
    });
}

fn triples(start: Start) {
    in_runtime(|_| {
        let world = World::new(start, Stops::Before);
        let mut orders = 0;
        for (number, first) in Act::ALL.into_iter().enumerate() {
            for (further, second) in Act::ALL.into_iter().enumerate().skip(number) {
                for third in Act::ALL.into_iter().skip(further) {
                    orders += world.explore(&[first, second, third]);
                }
            }
        }
        println!("{start:?}: {orders} orders of three requests");
    });
}

#[test]
fn every_order_of_two_requests_on_an_anonymous_session_keeps_the_promises() {
    pairs(Start::Anonymous);
}

#[test]
fn every_order_of_two_requests_on_a_users_session_keeps_the_promises() {
    pairs(Start::LoggedIn);
}

#[test]
fn every_order_of_two_requests_on_a_session_to_be_touched_keeps_the_promises() {
    pairs(Start::TouchDue);
}

#[test]
fn every_order_of_three_requests_on_an_anonymous_session_keeps_the_promises() {
    triples(Start::Anonymous);
}

#[test]
fn every_order_of_three_requests_on_a_users_session_keeps_the_promises() {
    triples(Start::LoggedIn);
}

#[test]
fn every_order_of_three_requests_on_a_session_to_be_touched_keeps_the_promises() {
    triples(Start::TouchDue);
}

#[test]
fn every_order_of_two_requests_with_near_caches_on_an_anonymous_session_keeps_the_promises() {
    pairs_with_near_caches(Start::Anonymous);
}

#[test]
fn every_order_of_two_requests_with_near_caches_on_a_users_session_keeps_the_promises() {
    pairs_with_near_caches(Start::LoggedIn);
}

#[test]
fn every_order_of_two_requests_with_near_caches_on_a_session_to_be_touched_keeps_the_promises() {
    pairs_with_near_caches(Start::TouchDue);
}
