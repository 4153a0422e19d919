//! Every order in which two and three requests on one session can reach the store.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cloakroom::{
    MemoryStore, Record, RecordId, Replaced, Session, SessionError, SessionStore, Sessions,
    StoreError, TestClock, Timestamp, Version,
};
use http::header::{COOKIE, SET_COOKIE};
use http::{Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use support::{builder, id_of};
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt, service_fn};

/// What a request does, or somebody else meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    /// Where a touch is due, it touches.
    Read,
    Write,
    Update,
    Regenerate,
    LogIn,
    LogOut,
    /// From outside, by the record id.
    Revoke,
    /// A login of somebody else, who gets a session of their own.
    Switch,
    Remember,
    /// Ends the session, and puts something into a new one.
    StartAnew,
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
    /// The same, and its last use was so long ago that the next is recorded.
    TouchDue,
}

/// Where a call of the store waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stops {
    /// Before it takes effect. What comes between two effects touches nothing that requests share, so that these are all orders.
    Before,
    /// And again before its answer is given.
    BeforeAndAfter,
}

/// A store whose calls each wait until it is their turn.
#[derive(Clone, Debug)]
struct Turns {
    store: MemoryStore,
    stops: Stops,
    turns: Arc<AtomicUsize>,
    made: Arc<Mutex<BTreeSet<RecordId>>>,
    /// What was removed.
    ended: Arc<Mutex<BTreeSet<RecordId>>>,
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

    async fn call<T>(&self, call: impl Future<Output = T>) -> T {
        self.turn().await;
        let answer = call.await;
        if self.stops == Stops::BeforeAndAfter {
            self.turn().await;
        }
        answer
    }
}

#[async_trait::async_trait]
impl SessionStore for Turns {
    async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        self.call(self.store.load(id)).await
    }

    async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        self.call(async {
            self.made.lock().unwrap().insert(id);
            self.store.insert(id, record).await
        })
        .await
    }

    async fn replace(
        &self,
        id: RecordId,
        expected: Version,
        record: &Record,
    ) -> Result<Replaced, StoreError> {
        self.call(self.store.replace(id, expected, record)).await
    }

    async fn touch(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        self.call(self.store.touch(id, record)).await
    }

    async fn remove(&self, id: RecordId) -> Result<bool, StoreError> {
        self.call(async {
            let removed = self.store.remove(id).await?;
            if removed {
                self.ended.lock().unwrap().insert(id);
            }
            Ok(removed)
        })
        .await
    }

    async fn purge_expired(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.store.purge_expired(now).await
    }
}

/// What a handler says: the session that its request came with, and what it finds in it.
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
    let id = session.id()?.map(|id| id.to_string());
    let own_key = request.uri().query().unwrap_or_default();
    match request.uri().path() {
        "/Read" => {}
        "/Write" => session.insert(own_key, true)?,
        "/Update" => {
            session.update("count", |n: Option<u64>| n.unwrap_or(0) + 1)?;
        }
        "/Regenerate" => session.regenerate()?,
        "/LogIn" => session.log_in("ada")?,
        "/LogOut" => session.log_out()?,
        "/Switch" => session.log_in("grace")?,
        "/Remember" => session.remember(true)?,
        "/StartAnew" => {
            session.destroy()?;
            session.insert(own_key, true)?;
        }
        other => panic!("{other}"),
    }
    Ok(Seen {
        id,
        user: session.user()?.map(|user| user.to_string()),
        keys: session.keys()?,
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

/// An application whose requests are moved on by hand.
struct World {
    store: Turns,
    clock: TestClock,
    sessions: Sessions<Turns>,
    app: BoxCloneSyncService<Request<()>, Response<String>, Infallible>,
    start: Start,
}

impl World {
    fn new(start: Start, stops: Stops) -> Self {
        let store = Turns {
            store: MemoryStore::new(),
            stops,
            turns: Arc::default(),
            made: Arc::default(),
            ended: Arc::default(),
        };
        let clock = TestClock::new();
        let layer = builder(store.clone()).clock(clock.clone()).build().unwrap();
        Self {
            store,
            clock,
            sessions: layer.sessions(),
            app: BoxCloneSyncService::new(layer.layer(service_fn(handler))),
            start,
        }
    }

    fn request(&self, act: Act, key: &str, token: Option<&str>) -> Running {
        let mut request = Request::get(format!("/{act:?}?{key}"));
        if let Some(token) = token {
            request = request.header(COOKIE, format!("__Host-session={token}"));
        }
        let request = request.body(()).unwrap();
        let answer = self.app.clone().oneshot(request);
        let key = key.to_owned();
        Box::pin(async move { Answer::of(act, key, answer.await.unwrap()) })
    }

    fn revocation(&self, id: RecordId) -> Running {
        let sessions = self.sessions.clone();
        Box::pin(async move {
            sessions.revoke(id).await.unwrap();
            let mut answer = Answer::of(Act::Revoke, String::new(), Response::default());
            answer.seen.id = Some(id.to_string());
            answer
        })
    }

    /// Answers a request that nothing stops.
    fn now<T>(&self, future: impl Future<Output = T>) -> T {
        self.store.turns.store(usize::MAX, Ordering::SeqCst);
        let polled = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
        self.store.turns.store(0, Ordering::SeqCst);
        match polled {
            Poll::Ready(answer) => answer,
            Poll::Pending => panic!("something stops it"),
        }
    }

    /// What a token leads to.
    fn probe(&self, token: &str) -> Seen {
        let answer = self.now(self.request(Act::Read, "", Some(token)));
        assert!(answer.is_good());
        assert_eq!(answer.cookie, Cookie::Kept);
        answer.seen
    }

    /// Runs these in every order, and says how many there were.
    fn explore(&self, acts: &[Act]) -> usize {
        let mut orders = 0;
        // At each step, which of the running ones went on, and of how many.
        let mut path: Vec<(usize, usize)> = Vec::new();
        loop {
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
            let id = self.probe(&token).id().unwrap();
            if matches!(self.start, Start::TouchDue) {
                self.clock.advance(Duration::from_secs(600));
            }
            let running = acts
                .iter()
                .enumerate()
                .map(|(number, act)| match act {
                    Act::Revoke => self.revocation(id),
                    act => self.request(*act, &format!("own-{number}"), Some(&token)),
                })
                .collect();
            if let Some(answers) = self.run(running, &mut path) {
                orders += 1;
                self.check(&token, id, &answers);
            }
            self.forget();
            // The next order differs from this one as late as it can.
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

    /// Moves the running ones on in the order of `path`, and then in the first that there is, which it writes there. There is
    /// none where all others wait for one that had its turn in another order.
    fn run(&self, running: Vec<Running>, path: &mut Vec<(usize, usize)>) -> Option<Vec<Answer>> {
        let mut running: Vec<Option<Running>> = running.into_iter().map(Some).collect();
        let mut answers = Vec::new();
        let mut step = 0;
        while running.iter().any(Option::is_some) {
            let (mut which, _) = path.get(step).copied().unwrap_or_default();
            loop {
                let slot = running.get_mut(which);
                let Some(slot) = slot else {
                    assert!(
                        path.get(step).is_some_and(|(first, _)| *first > 0),
                        "the requests wait for each other"
                    );
                    path.truncate(step);
                    return None;
                };
                if let Some(request) = slot {
                    self.store.turns.store(1, Ordering::SeqCst);
                    let polled = request
                        .as_mut()
                        .poll(&mut Context::from_waker(Waker::noop()));
                    let went_on = self.store.turns.swap(0, Ordering::SeqCst) == 0;
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
            let taken = (which, running.len());
            match path.get_mut(step) {
                Some(planned) => *planned = taken,
                None => path.push(taken),
            }
            step += 1;
        }
        Some(answers)
    }

    /// Removes what a run has made.
    fn forget(&self) {
        for id in std::mem::take(&mut *self.store.made.lock().unwrap()) {
            self.now(self.store.store.remove(id)).unwrap();
        }
        self.store.ended.lock().unwrap().clear();
    }

    /// What holds in the end, whatever the order was.
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
        // The token that a session has.
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

        // What was ended is dead, for every token that was ever given out.
        for answer in answers {
            let ends = matches!(
                answer.act,
                Act::LogOut | Act::Revoke | Act::StartAnew | Act::Switch
            );
            // Who is not logged in switches to nobody else.
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

        // The session that the requests came with is there unless it was ended, and has a token that somebody knows.
        assert!(
            ended.contains(&id) || by_id.contains_key(&id),
            "a session is lost: {answers:#?}"
        );

        // What was answered is there, unless its session was ended.
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

        // A cookie goes where this very request asked for it, and one that comes is good, unless its session was ended since:
        // so that a late answer of a request that did neither takes no good one away, in whatever order the answers come in.
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
        // Where they come in as they were made, the browser is left with a good one, unless its user logged out.
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

/// What a request waits for asks for Tokio's clock, and never for more than that.
fn in_runtime(test: impl FnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _guard = runtime.enter();
    test();
}

fn pairs(start: Start) {
    in_runtime(|| {
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

fn triples(start: Start) {
    in_runtime(|| {
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
