//! A socket, a stream or a task learns that its session has ended.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use cloakroom::testing::{Fault, FaultyStore};
use cloakroom::{
    DetachedSession, EndCause, Ended, MemoryStore, RecordId, Session, SessionError, SessionEvent,
    SessionEventKind, SessionFeed, SessionLayer, SessionStore, Sessions, StoreError, TestClock,
};
use futures_util::StreamExt;
use futures_util::stream;
use support::{Browser, builder, routes};
use tokio::time::{advance, timeout};

const MINUTE: Duration = Duration::from_secs(60);

/// Longer than any test. A store with a feed is not asked at an interval.
const NEVER: Duration = Duration::from_secs(1_000_000);

type Kept = Arc<Mutex<Vec<DetachedSession>>>;

type Hook = Box<dyn Fn(&SessionEvent) + Send + Sync>;

/// A process that serves requests. Nodes share the store and the clock.
struct Node<S> {
    app: Router,
    sessions: Sessions<S>,
    layer: SessionLayer<S>,
    kept: Kept,
}

impl<S: SessionStore + cloakroom::UserIndex> Node<S> {
    fn new(store: S, clock: &TestClock, interval: Duration) -> Self {
        Self::with_hook(store, clock, interval, None)
    }

    fn with_hook(store: S, clock: &TestClock, interval: Duration, hook: Option<Hook>) -> Self {
        let mut builder = builder(store)
            .clock(clock.clone())
            .poll_interval(interval)
            .idle_timeout(30 * MINUTE)
            .absolute_timeout(60 * MINUTE);
        if let Some(hook) = hook {
            builder = builder.on_event(hook);
        }
        let layer = builder.build().unwrap();
        let kept = Kept::default();
        let (before, after) = (kept.clone(), kept.clone());
        let app =
            routes()
                .route(
                    "/detach/{act}",
                    get(
                        move |session: Session, Path(act): Path<String>| async move {
                            before.lock().unwrap().push(session.detach());
                            match act.as_str() {
                                "nothing" => Ok(()),
                                "log_in" => session.log_in("ada"),
                                "switch" => session.log_in("grace"),
                                "regenerate" => session.regenerate(),
                                "insert" => session.insert("theme", "dark"),
                                other => panic!("{other}"),
                            }
                        },
                    ),
                )
                .route(
                    "/act_as/{user}",
                    get(|session: Session, Path(user): Path<String>| async move {
                        session.act_as(user)
                    }),
                )
                .route(
                    "/log_in_and_detach",
                    get(move |session: Session| async move {
                        session.log_in("ada")?;
                        after.lock().unwrap().push(session.detach());
                        Ok::<_, SessionError>(())
                    }),
                )
                .layer(layer.clone());
        Self {
            app,
            sessions: layer.sessions(),
            layer,
            kept,
        }
    }

    async fn detached(&self, browser: &mut Browser, path: &str) -> DetachedSession {
        browser.get(path).await.assert(200, "");
        self.kept.lock().unwrap().pop().unwrap()
    }

    /// A browser in which Ada is logged in, and a handle of her session.
    async fn logged_in(&self) -> (Browser, DetachedSession) {
        let mut browser = Browser::new(&self.app);
        browser.get("/log_in/ada").await;
        let session = self.detached(&mut browser, "/detach/nothing").await;
        (browser, session)
    }

    /// How many sessions somebody waits for.
    fn watched(&self) -> usize {
        let shown = format!("{:?}", self.layer);
        let (_, rest) = shown.split_once("watched: ").unwrap();
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap();
        digits.parse().unwrap()
    }
}

fn one_node() -> (Node<MemoryStore>, TestClock) {
    let clock = TestClock::new();
    let store = MemoryStore::new().with_clock(clock.clone());
    (Node::new(store, &clock, NEVER), clock)
}

fn two_nodes() -> (Node<MemoryStore>, Node<MemoryStore>, TestClock) {
    let clock = TestClock::new();
    let store = MemoryStore::new().with_clock(clock.clone());
    let other = Node::new(store.clone(), &clock, NEVER);
    (Node::new(store, &clock, NEVER), other, clock)
}

/// The other node's view of the same browser.
fn at<S>(node: &Node<S>, browser: &Browser) -> Browser {
    let mut other = Browser::new(&node.app);
    other.adopt(browser);
    other
}

type Waiting = Pin<Box<dyn Future<Output = Ended> + Send>>;

/// Begins to wait.
async fn waiting(session: &DetachedSession) -> Waiting {
    let mut ended: Waiting = Box::pin(session.ended());
    assert_eq!(poll(&mut ended), Poll::Pending);
    quiet().await;
    assert_eq!(poll(&mut ended), Poll::Pending);
    ended
}

fn poll(ended: &mut Waiting) -> Poll<Ended> {
    ended.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Lets all tasks do what they can do now.
async fn quiet() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

async fn soon(ended: Waiting) -> Ended {
    timeout(Duration::from_secs(10), ended)
        .await
        .expect("nobody was told of the end")
}

async fn goes_on(ended: &mut Waiting) {
    quiet().await;
    assert_eq!(poll(ended), Poll::Pending, "the session goes on");
}

#[tokio::test]
async fn a_logout_is_told_with_its_reason_in_the_same_process() {
    let (node, _) = one_node();
    for (act, cause) in [
        ("/log_out", EndCause::LoggedOut),
        ("/destroy", EndCause::Destroyed),
        ("/log_in/grace", EndCause::SwitchedUser),
    ] {
        let mut browser = Browser::new(&node.app);
        browser.get("/log_in/ada").await;
        let session = node.detached(&mut browser, "/detach/nothing").await;
        let ended = waiting(&session).await;
        browser.get(act).await;
        assert_eq!(soon(ended).await, Ended::Here(cause), "{act}");
    }
}

#[tokio::test]
async fn a_revocation_is_told_with_its_reason_to_all_who_wait() {
    let (node, _) = one_node();
    let (_, session) = node.logged_in().await;
    let (first, second) = (waiting(&session).await, waiting(&session).await);
    node.sessions.revoke(session.id().unwrap()).await.unwrap();
    let revoked = Ended::Here(EndCause::Revoked);
    assert_eq!(soon(first).await, revoked);
    assert_eq!(soon(second).await, revoked);
    // Who asks later is told the same way that it is over.
    assert_eq!(soon(Box::pin(session.ended())).await, Ended::Elsewhere);
}

#[tokio::test]
async fn the_sessions_of_a_user_that_are_revoked_are_told_and_no_others() {
    let (node, _) = one_node();
    let mut waits = Vec::new();
    for user in ["ada", "ada", "grace"] {
        let mut browser = Browser::new(&node.app);
        browser.get(&format!("/log_in/{user}")).await;
        let session = node.detached(&mut browser, "/detach/nothing").await;
        waits.push((session.id().unwrap(), waiting(&session).await));
    }
    let (kept, mut first) = waits.remove(0);
    node.sessions.revoke_others("ada", kept).await.unwrap();
    goes_on(&mut first).await;
    let (_, second) = waits.remove(0);
    assert_eq!(soon(second).await, Ended::Here(EndCause::Revoked));
    let (_, mut other) = waits.remove(0);
    goes_on(&mut other).await;
    node.sessions.revoke_user("ada").await.unwrap();
    assert_eq!(soon(first).await, Ended::Here(EndCause::Revoked));
    goes_on(&mut other).await;
}

#[tokio::test]
async fn an_end_on_another_node_is_told_by_the_feed() {
    let (here, there, _) = two_nodes();
    let (browser, session) = here.logged_in().await;
    let ended = waiting(&session).await;
    at(&there, &browser).get("/log_out").await;
    assert_eq!(soon(ended).await, Ended::Elsewhere);
}

#[tokio::test]
async fn an_expiry_is_told_by_a_timer_that_follows_use_on_another_node() {
    let (here, there, clock) = two_nodes();
    let (browser, session) = here.logged_in().await;
    let mut ended = waiting(&session).await;
    clock.advance(20 * MINUTE);
    at(&there, &browser).get("/user").await.assert(200, "ada");
    quiet().await;
    clock.advance(20 * MINUTE);
    goes_on(&mut ended).await;
    clock.advance(10 * MINUTE);
    assert_eq!(soon(ended).await, Ended::Expired);
}

#[tokio::test]
async fn an_expiry_that_the_timer_finds_out_is_heard_of_once() {
    let clock = TestClock::new();
    let store = MemoryStore::new().with_clock(clock.clone());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hook: Hook = {
        let heard = heard.clone();
        Box::new(move |event: &SessionEvent| {
            if event.kind() == SessionEventKind::Expired {
                heard
                    .lock()
                    .unwrap()
                    .push(event.user().unwrap().to_string());
            }
        })
    };
    let node = Node::with_hook(store, &clock, NEVER, Some(hook));
    let (mut browser, session) = node.logged_in().await;
    let (first, second) = (waiting(&session).await, waiting(&session).await);
    clock.advance(30 * MINUTE);
    assert_eq!(soon(first).await, Ended::Expired);
    assert_eq!(soon(second).await, Ended::Expired);
    browser.get("/user").await.assert(401, "");
    assert_eq!(*heard.lock().unwrap(), ["ada"]);
}

#[tokio::test]
async fn use_does_not_move_the_absolute_end() {
    let (here, there, clock) = two_nodes();
    let (browser, session) = here.logged_in().await;
    let mut ended = waiting(&session).await;
    for _ in 0..3 {
        clock.advance(19 * MINUTE);
        at(&there, &browser).get("/user").await.assert(200, "ada");
        goes_on(&mut ended).await;
    }
    clock.advance(3 * MINUTE);
    assert_eq!(soon(ended).await, Ended::Expired);
}

#[tokio::test]
async fn another_token_ends_the_wait_of_those_with_the_old_one() {
    let (here, there, _) = two_nodes();
    let (browser, session) = here.logged_in().await;
    let ended = waiting(&session).await;
    at(&there, &browser).get("/regenerate").await;
    assert_eq!(soon(ended).await, Ended::Superseded);
}

/// The old socket still waits, and nobody has read the record with the new token yet.
#[tokio::test(start_paused = true)]
async fn a_socket_with_the_new_token_is_not_taken_for_an_old_one() {
    let clock = TestClock::new();
    let spy = FaultyStore::new(MemoryStore::new());
    let here = Node::new(NoFeed(spy.clone()), &clock, MINUTE);
    let there = Node::new(NoFeed(spy), &clock, MINUTE);
    let mut browser = Browser::new(&here.app);
    browser.get("/log_in/ada").await;
    let old = here.detached(&mut browser, "/detach/nothing").await;
    let old_ended = waiting(&old).await;
    let mut elsewhere = at(&there, &browser);
    elsewhere.get("/regenerate").await;
    browser.adopt(&elsewhere);
    let new = here.detached(&mut browser, "/detach/nothing").await;
    let mut new_ended: Waiting = Box::pin(new.ended());
    goes_on(&mut new_ended).await;
    assert_eq!(old_ended.await, Ended::Superseded);
    goes_on(&mut new_ended).await;
    // The own saves are no news for `changed`, whoever else waits.
    let mut saved = new;
    saved.insert("seen", true).unwrap();
    saved.save().await.unwrap();
    let mut changed = Box::pin(saved.changed());
    for _ in 0..3 {
        quiet().await;
        let polled = changed
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Pending);
    }
    elsewhere.get("/log_out").await;
    assert_eq!(new_ended.await, Ended::Elsewhere);
}

/// The runtime of the first socket ends. The second socket, in another runtime, is still told.
#[test]
fn a_runtime_that_ends_takes_no_news_from_another_one() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let (first, second) = (runtime(), runtime());
    let (node, _) = one_node();
    let (mut browser, session) = second.block_on(async {
        let mut browser = Browser::new(&node.app);
        browser.get("/log_in/ada").await;
        let session = node.detached(&mut browser, "/detach/nothing").await;
        (browser, session)
    });
    let kept = first.block_on(async {
        let ended = waiting(&session).await;
        // A wait whose task never makes its first step.
        let mut other: Waiting = Box::pin(session.ended());
        assert_eq!(poll(&mut other), Poll::Pending);
        (ended, other)
    });
    let mut ended: Waiting = Box::pin(session.ended());
    second.block_on(async {
        assert_eq!(poll(&mut ended), Poll::Pending);
        quiet().await;
    });
    drop(first);
    second.block_on(async {
        goes_on(&mut ended).await;
        browser.get("/log_out").await;
        assert_eq!(soon(ended).await, Ended::Here(EndCause::LoggedOut));
    });
    drop(kept);
}

#[tokio::test]
async fn the_tokens_of_the_own_request_do_not_end_the_wait() {
    let (node, _) = one_node();
    let mut browser = Browser::new(&node.app);
    browser.get("/insert/theme/dark").await;
    for act in ["log_in", "regenerate"] {
        let session = node.detached(&mut browser, &format!("/detach/{act}")).await;
        let ended = waiting(&session).await;
        browser.get("/log_out").await;
        assert_eq!(soon(ended).await, Ended::Here(EndCause::LoggedOut), "{act}");
        browser.get("/insert/theme/dark").await;
    }
    // The handle is of the previous user's session.
    browser.get("/log_in/ada").await;
    let session = node.detached(&mut browser, "/detach/switch").await;
    let ended = soon(Box::pin(session.ended())).await;
    assert_eq!(ended, Ended::Elsewhere, "it was over before anybody waited");
}

#[tokio::test]
async fn a_wait_that_begins_before_the_response_follows_what_the_request_makes() {
    let (node, _) = one_node();
    let mut browser = Browser::new(&node.app);
    let session = node.detached(&mut browser, "/log_in_and_detach").await;
    let ended = waiting(&session).await;
    browser.get("/log_out").await;
    assert_eq!(soon(ended).await, Ended::Here(EndCause::LoggedOut));
}

#[tokio::test]
async fn a_visitor_has_nothing_that_could_end() {
    let (node, _) = one_node();
    let mut browser = Browser::new(&node.app);
    let session = node.detached(&mut browser, "/detach/nothing").await;
    let mut ended: Waiting = Box::pin(session.ended());
    goes_on(&mut ended).await;
    let session = node.detached(&mut browser, "/detach/insert").await;
    let ended = waiting(&session).await;
    browser.get("/destroy").await;
    assert_eq!(soon(ended).await, Ended::Here(EndCause::Destroyed));
}

#[tokio::test]
async fn who_acts_as_another_is_told_of_the_end_of_the_own_session() {
    let (here, there, _) = two_nodes();
    let mut browser = Browser::new(&here.app);
    browser.get("/log_in/ada").await;
    let own = here.detached(&mut browser, "/detach/nothing").await;
    browser.get("/act_as/bob").await.assert(200, "");
    let acting = here.detached(&mut browser, "/detach/nothing").await;
    assert_ne!(acting.id(), own.id());
    let ended = waiting(&acting).await;
    there.sessions.revoke(own.id().unwrap()).await.unwrap();
    assert_eq!(soon(ended).await, Ended::Elsewhere);
}

/// A store without a feed.
#[derive(Clone, Debug)]
struct NoFeed(FaultyStore<MemoryStore>);

#[async_trait::async_trait]
impl SessionStore for NoFeed {
    support::forward_store! {
        self => self.0; load, insert, replace, touch, remove, purge_expired
    }
}

#[async_trait::async_trait]
impl cloakroom::UserIndex for NoFeed {
    support::forward_store! { self => self.0; find_by_user, remove_by_user }
}

#[tokio::test(start_paused = true)]
async fn a_store_without_a_feed_is_asked_once_an_interval_for_all_who_wait() {
    let clock = TestClock::new();
    let spy = FaultyStore::new(MemoryStore::new());
    let here = Node::new(NoFeed(spy.clone()), &clock, MINUTE);
    let there = Node::new(NoFeed(spy.clone()), &clock, MINUTE);
    let (browser, session) = here.logged_in().await;
    let (first, second) = (waiting(&session).await, waiting(&session).await);
    spy.take_calls();
    for _ in 0..3 {
        advance(MINUTE).await;
        quiet().await;
        assert_eq!(spy.take_calls().len(), 1, "one question for both");
    }
    at(&there, &browser).get("/log_out").await;
    spy.take_calls();
    assert_eq!(first.await, Ended::Elsewhere);
    assert_eq!(second.await, Ended::Elsewhere);
    assert_eq!(spy.take_calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_store_is_not_an_end() {
    let clock = TestClock::new();
    let spy = FaultyStore::new(MemoryStore::new());
    let here = Node::new(NoFeed(spy.clone()), &clock, MINUTE);
    let there = Node::new(NoFeed(spy.clone()), &clock, MINUTE);
    let (browser, session) = here.logged_in().await;
    let mut ended = waiting(&session).await;
    at(&there, &browser).get("/log_out").await;
    for fault in [Fault::Refused, Fault::Hangs] {
        spy.fail(fault);
        for _ in 0..3 {
            advance(MINUTE).await;
            goes_on(&mut ended).await;
        }
    }
    spy.recover();
    assert_eq!(ended.await, Ended::Elsewhere);
}

/// A store whose feed the test plays.
#[derive(Clone, Debug)]
struct Played {
    store: FaultyStore<MemoryStore>,
    senders: Arc<Mutex<Vec<cloakroom::FeedSender>>>,
}

#[async_trait::async_trait]
impl SessionStore for Played {
    support::forward_store! {
        self => self.store; load, insert, replace, touch, remove, purge_expired
    }

    fn session_feed(&self) -> Option<&dyn SessionFeed> {
        Some(self)
    }
}

#[async_trait::async_trait]
impl cloakroom::UserIndex for Played {
    support::forward_store! { self => self.store; find_by_user, remove_by_user }
}

#[async_trait::async_trait]
impl SessionFeed for Played {
    async fn subscribe(&self) -> Result<cloakroom::Feed, StoreError> {
        let (sender, feed) = cloakroom::Feed::channel();
        self.senders.lock().unwrap().push(sender);
        Ok(feed)
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_gap_and_while_the_feed_is_silent_the_store_is_asked() {
    let clock = TestClock::new();
    let store = Played {
        store: FaultyStore::new(MemoryStore::new()),
        senders: Arc::default(),
    };
    let here = Node::new(store.clone(), &clock, MINUTE);
    let there = Node::new(store.store.clone(), &clock, NEVER);
    let mut browser = Browser::new(&here.app);

    browser.get("/log_in/ada").await;
    let session = here.detached(&mut browser, "/detach/nothing").await;
    let mut ended = waiting(&session).await;
    at(&there, &browser).get("/log_out").await;
    goes_on(&mut ended).await;
    store.senders.lock().unwrap().last().unwrap().gap();
    assert_eq!(ended.await, Ended::Elsewhere);

    browser.get("/log_in/ada").await;
    let session = here.detached(&mut browser, "/detach/nothing").await;
    let ended = waiting(&session).await;
    at(&there, &browser).get("/log_out").await;
    // No ping is answered.
    assert_eq!(ended.await, Ended::Elsewhere);

    // A feed that answers spares the store the questions, and a notice about a session that nobody
    // waits for does too.
    browser.get("/log_in/ada").await;
    let session = here.detached(&mut browser, "/detach/nothing").await;
    let mut ended = waiting(&session).await;
    let mut sender = store.senders.lock().unwrap().last().unwrap().clone();
    for round in 0..5 {
        if round == 1 {
            // From now on, each ping has its answer.
            store.store.take_calls();
        }
        advance(MINUTE).await;
        quiet().await;
        let ping = sender.pinged().await.unwrap();
        sender.pong(ping);
        sender.changed(RecordId::from_bytes([9; 16]));
        goes_on(&mut ended).await;
    }
    assert_eq!(store.store.take_calls(), []);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_when_the_socket_goes_first() {
    let clock = TestClock::new();
    let store = Played {
        store: FaultyStore::new(MemoryStore::new()),
        senders: Arc::default(),
    };
    let node = Node::new(store.clone(), &clock, MINUTE);
    let (mut browser, session) = node.logged_in().await;
    assert_eq!(node.watched(), 0);
    let (first, second) = (waiting(&session).await, waiting(&session).await);
    assert_eq!(node.watched(), 1);
    drop(first);
    assert_eq!(node.watched(), 1);
    drop(second);
    assert_eq!(node.watched(), 0);
    // After an interval, the subscription is gone as well.
    for _ in 0..3 {
        advance(MINUTE).await;
        quiet().await;
    }
    assert!(store.senders.lock().unwrap()[0].is_closed());
    // The next one who waits begins a new one.
    let ended = waiting(&session).await;
    assert_eq!(store.senders.lock().unwrap().len(), 2);
    browser.get("/log_out").await;
    assert_eq!(ended.await, Ended::Here(EndCause::LoggedOut));
}

#[tokio::test]
async fn a_stream_ends_with_its_session_and_yields_nothing_afterwards() {
    let (node, _) = one_node();
    let (mut browser, session) = node.logged_in().await;
    let numbers = stream::iter(0..).then(|number| async move {
        tokio::task::yield_now().await;
        number
    });
    let mut numbers = pin!(session.until_ended(numbers));
    assert_eq!(numbers.next().await, Some(0));
    assert_eq!(numbers.next().await, Some(1));
    assert_eq!(numbers.ended(), None);
    quiet().await;
    assert_eq!(numbers.next().await, Some(2));
    browser.get("/log_out").await;
    assert_eq!(numbers.next().await, None);
    assert_eq!(numbers.ended(), Some(Ended::Here(EndCause::LoggedOut)));
    assert_eq!(numbers.next().await, None);
    // A stream that ends by itself leaves nothing behind.
    browser.get("/log_in/ada").await;
    let session = node.detached(&mut browser, "/detach/nothing").await;
    let few: Vec<_> = session.until_ended(stream::iter(0..3)).collect().await;
    assert_eq!(few, [0, 1, 2]);
    quiet().await;
    assert_eq!(node.watched(), 0);
}

#[tokio::test]
async fn a_record_that_somebody_removes_from_the_store_is_an_end() {
    let clock = TestClock::new();
    let store = MemoryStore::new().with_clock(clock.clone());
    let node = Node::new(store.clone(), &clock, NEVER);
    let (_, session) = node.logged_in().await;
    let ended = waiting(&session).await;
    store.remove(session.id().unwrap()).await.unwrap();
    assert_eq!(soon(ended).await, Ended::Elsewhere);
}

#[tokio::test]
async fn a_change_by_another_request_is_told_and_the_own_saves_are_not() {
    let (here, there, clock) = two_nodes();
    let (browser, mut session) = here.logged_in().await;
    let wait = |session: &DetachedSession| {
        let changed = session.changed();
        let told: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(changed);
        told
    };
    let pending = async |changed: &mut Pin<Box<dyn Future<Output = Result<(), Ended>> + Send>>| {
        for _ in 0..3 {
            let polled = changed
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(polled, Poll::Pending);
            quiet().await;
        }
    };
    let mut changed = wait(&session);
    pending(&mut changed).await;
    let mut other = at(&there, &browser);
    other.get("/insert/theme/dark").await;
    assert_eq!(changed.await, Ok(()));
    // Until the handle reads the change, there is news.
    assert_eq!(session.changed().await, Ok(()));
    session.reload().await.unwrap();
    let mut changed = wait(&session);
    pending(&mut changed).await;
    // A touch is no change.
    clock.advance(20 * MINUTE);
    other.get("/user").await.assert(200, "ada");
    pending(&mut changed).await;
    drop(changed);
    session.insert("seen", true).unwrap();
    session.save().await.unwrap();
    let mut changed = wait(&session);
    pending(&mut changed).await;
    other.get("/log_out").await;
    assert_eq!(changed.await, Err(Ended::Elsewhere));
}
