//! The near cache: what it answers by itself, and what it asks the store for.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cloakroom::testing::{Fault, FaultyStore, StoreCall};
use cloakroom::{
    Feed, FeedSender, MemoryStore, NearCache, Record, RecordId, SessionFeed, SessionLayer,
    SessionStore, StoreError, TestClock, UserIndex,
};
use support::{Browser, app, builder, id_of, key};
use tokio::task::JoinSet;
use tokio::time::advance;

const MAX_STALE: Duration = Duration::from_secs(2);

/// A store whose feed the test plays. It counts the calls, and lets them fail.
#[derive(Clone, Debug)]
pub(crate) struct Played {
    store: FaultyStore<MemoryStore>,
    feeds: Arc<Mutex<Vec<FeedSender>>>,
}

impl Played {
    pub(crate) fn new() -> Self {
        Self {
            store: FaultyStore::new(MemoryStore::new()),
            feeds: Arc::default(),
        }
    }

    /// The feed of the node that was opened last.
    fn feed(&self) -> FeedSender {
        self.feeds.lock().unwrap().last().unwrap().clone()
    }

    fn calls(&self) -> Vec<StoreCall> {
        self.store.take_calls()
    }
}

#[async_trait::async_trait]
impl SessionStore for Played {
    support::forward_store! {
        self => self.store; load, insert, replace, touch, remove, purge_expired
    }
}

#[async_trait::async_trait]
impl UserIndex for Played {
    support::forward_store! { self => self.store; find_by_user, remove_by_user }
}

#[async_trait::async_trait]
impl SessionFeed for Played {
    async fn subscribe(&self) -> Result<Feed, StoreError> {
        let (sender, feed) = Feed::channel();
        self.feeds.lock().unwrap().push(sender);
        Ok(feed)
    }
}

pub(crate) type Near = NearCache<Played>;

/// A node, with the store's side of its feed. Its cache may answer.
pub(crate) async fn node(store: &Played) -> (Near, FeedSender) {
    let near = NearCache::builder(store.clone())
        .max_stale(MAX_STALE)
        .open()
        .await
        .unwrap();
    let mut feed = store.feed();
    pong(&near, &mut feed).await;
    (near, feed)
}

async fn pong(near: &Near, feed: &mut FeedSender) {
    let ping = feed.pinged().await.unwrap();
    feed.pong(ping);
    settle().await;
    assert!(near.stats().is_fresh);
}

/// Lets the task of the cache take in what it was told.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// The record of a session in which somebody logged in, as a layer has written it.
async fn insert(store: &Played, user: &str) -> (RecordId, Record) {
    let mut browser = Browser::new(&app(SessionLayer::new(store.store.clone(), key())));
    browser.get(&format!("/log_in/{user}")).await;
    let id = id_of(&browser.token());
    let record = store.store.inner().load(id).await.unwrap().unwrap();
    store.calls();
    (id, record)
}

#[tokio::test(start_paused = true)]
async fn a_hit_costs_no_call_of_the_store() {
    let store = Played::new();
    let (near, _feed) = node(&store).await;
    let (id, record) = insert(&store, "ada").await;
    for _ in 0..5 {
        let loaded = near.load(id).await.unwrap().unwrap();
        assert_eq!(loaded.version(), record.version());
        assert_eq!(loaded.encode().unwrap(), record.encode().unwrap());
    }
    assert_eq!(store.calls(), [StoreCall::Load]);
    let stats = near.stats();
    assert_eq!((stats.hits, stats.misses, stats.bypasses), (4, 1, 0));
    assert_eq!(stats.entries, 1);
    assert!(stats.bytes > 100, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn a_notice_takes_the_record_away_and_no_other() {
    let store = Played::new();
    let (near, feed) = node(&store).await;
    let (id, _) = insert(&store, "ada").await;
    let (other, _) = insert(&store, "grace").await;
    for id in [id, other] {
        near.load(id).await.unwrap().unwrap();
    }
    store.store.inner().remove(id).await.unwrap();
    feed.changed(id);
    settle().await;
    store.calls();
    assert!(near.load(id).await.unwrap().is_none());
    assert!(near.load(other).await.unwrap().is_some());
    assert_eq!(store.calls(), [StoreCall::Load]);
    assert_eq!(near.stats().invalidations, 1);
}

#[tokio::test(start_paused = true)]
async fn after_a_gap_each_read_asks_until_a_ping_is_answered() {
    let store = Played::new();
    let (near, mut feed) = node(&store).await;
    let (id, _) = insert(&store, "ada").await;
    near.load(id).await.unwrap();
    // This ping was sent before the gap.
    let old = {
        advance(MAX_STALE / 4).await;
        feed.pinged().await.unwrap()
    };
    feed.gap();
    feed.pong(old);
    settle().await;
    assert!(!near.stats().is_fresh);
    store.calls();
    near.load(id).await.unwrap();
    near.load(id).await.unwrap();
    assert_eq!(store.calls().len(), 2);
    // A ping follows the gap at once.
    pong(&near, &mut feed).await;
    near.load(id).await.unwrap();
    near.load(id).await.unwrap();
    assert_eq!(store.calls().len(), 1);
    let stats = near.stats();
    assert_eq!((stats.gaps, stats.bypasses), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_silent_feed_is_trusted_for_the_time_that_was_set_and_no_longer() {
    let store = Played::new();
    let (near, mut feed) = node(&store).await;
    let (id, _) = insert(&store, "ada").await;
    near.load(id).await.unwrap().unwrap();
    store.store.inner().remove(id).await.unwrap();
    advance(MAX_STALE).await;
    settle().await;
    assert!(near.load(id).await.unwrap().is_some(), "within the bound");
    advance(Duration::from_millis(1)).await;
    assert!(near.load(id).await.unwrap().is_none(), "after the bound");
    assert!(!near.stats().is_fresh);
    // The pong proves the time of its ping, and not the time at which it comes.
    let ping = feed.pinged().await.unwrap();
    advance(MAX_STALE * 2).await;
    feed.pong(ping);
    settle().await;
    assert!(!near.stats().is_fresh);
}

#[tokio::test(start_paused = true)]
async fn a_dead_id_costs_one_read_a_minute() {
    let store = Played::new();
    let (near, mut feed) = node(&store).await;
    let dead = RecordId::from_bytes([9; 16]);
    for minute in 0..3 {
        for _ in 0..50 {
            assert!(near.load(dead).await.unwrap().is_none());
            advance(Duration::from_secs(1)).await;
            pong(&near, &mut feed).await;
        }
        let calls = store.calls().len();
        assert!(calls == 1 || minute > 0 && calls == 2, "{calls} reads");
        advance(Duration::from_secs(11)).await;
        pong(&near, &mut feed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_with_a_remembered_dead_id_is_seen_by_its_own_node() {
    let store = Played::new();
    let (near, _feed) = node(&store).await;
    let (id, record) = insert(&store, "ada").await;
    store.store.inner().remove(id).await.unwrap();
    assert!(near.load(id).await.unwrap().is_none());
    assert!(near.insert(id, &record).await.unwrap());
    assert!(near.load(id).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_node_sees_its_own_writes_before_any_notice() {
    let store = Played::new();
    let (near, _feed) = node(&store).await;
    let app = app(SessionLayer::new(near.clone(), key()));
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await;
    for n in 1..20 {
        let visits = n.to_string();
        browser.get("/update/visits").await.assert(200, &visits);
        browser.get("/get/visits").await.assert(200, &visits);
    }
    browser.get("/log_out").await;
    browser.get("/get/visits").await.assert(200, "nothing");
}

#[tokio::test(start_paused = true)]
async fn sessions_that_a_node_removes_by_user_are_not_answered_by_its_cache() {
    let store = Played::new();
    let (near, mut feed) = node(&store).await;
    let layer = SessionLayer::new(near.clone(), key());
    let (sessions, app) = (layer.sessions(), app(layer));
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await;
    browser.get("/user").await.assert(200, "ada");
    assert_eq!(sessions.revoke_user("ada").await.unwrap(), 1);
    browser.get("/user").await.assert(401, "");
    assert!(!near.stats().is_fresh);
    // It asks the feed at once, and answers again.
    pong(&near, &mut feed).await;
}

/// The write takes effect, and its caller goes away before the answer.
#[tokio::test(start_paused = true)]
async fn a_write_whose_caller_goes_away_takes_the_record_away() {
    let store = Played::new();
    let (near, _feed) = node(&store).await;
    let (id, _) = insert(&store, "ada").await;
    near.load(id).await.unwrap().unwrap();
    let mut hold = store.store.hold_next(StoreCall::Remove);
    {
        let mut removal = pin!(near.remove(id));
        let polled = removal
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        hold.arrived().await;
        store.store.inner().remove(id).await.unwrap();
    }
    assert!(near.load(id).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn reads_that_miss_at_once_share_one_question() {
    let store = Played::new();
    let (near, _feed) = node(&store).await;
    let (id, _) = insert(&store, "ada").await;
    let mut hold = store.store.hold_next(StoreCall::Load);
    let reads: JoinSet<_> = (0..64)
        .map(|_| {
            let near = near.clone();
            async move { near.load(id).await.unwrap().is_some() }
        })
        .collect();
    hold.arrived().await;
    settle().await;
    hold.release();
    assert!(reads.join_all().await.into_iter().all(|found| found));
    assert_eq!(store.calls(), [StoreCall::Load]);
}

/// The one who asks goes away, or fails. The others still get an answer.
#[tokio::test(start_paused = true)]
async fn a_read_that_others_wait_for_may_go_away_or_fail() {
    let store = Played::new();
    let (near, _feed) = node(&store).await;
    let (id, _) = insert(&store, "ada").await;
    let poll = |read: &mut _| {
        let read: &mut std::pin::Pin<Box<dyn Future<Output = _> + Send>> = read;
        read.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    };
    let _hold = store.store.hold_next(StoreCall::Load);
    let mut first: std::pin::Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(near.load(id));
    let mut second: std::pin::Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(near.load(id));
    assert!(poll(&mut first).is_pending());
    assert!(poll(&mut second).is_pending());
    drop(first);
    let Poll::Ready(found) = poll(&mut second) else {
        panic!("the second read waits for one that is gone");
    };
    assert!(found.unwrap().is_some());
    // A failure belongs to the one who asked.
    let (other, _) = insert(&store, "grace").await;
    store.store.fail_once(StoreCall::Load, Fault::Refused);
    assert!(near.load(other).await.is_err());
    assert!(near.load(other).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_full_cache_stays_within_its_bytes_and_keeps_what_is_asked_for() {
    let store = Played::new();
    let near = NearCache::builder(store.clone())
        .max_bytes(256 * 1024)
        .max_stale(Duration::from_secs(3600))
        .open()
        .await
        .unwrap();
    let mut feed = store.feed();
    pong(&near, &mut feed).await;
    let app = app(SessionLayer::new(store.store.clone(), key()));
    let mut ids = Vec::new();
    for _ in 0..3000 {
        let mut browser = Browser::new(&app);
        browser.get("/log_in/ada").await;
        ids.push(id_of(&browser.token()));
    }
    let popular = &ids[..20];
    for id in &ids {
        for popular in popular {
            near.load(*popular).await.unwrap().unwrap();
        }
        near.load(*id).await.unwrap().unwrap();
        assert!(near.stats().bytes <= 256 * 1024, "{:?}", near.stats());
    }
    let stats = near.stats();
    assert!(stats.entries < 1000, "{stats:?}");
    store.calls();
    for popular in popular {
        near.load(*popular).await.unwrap().unwrap();
    }
    assert_eq!(store.calls(), [], "what everybody asks for is still there");
}

/// No notice ever comes. The client's token says that the record is out of date.
#[tokio::test(start_paused = true)]
async fn a_login_on_one_node_counts_on_the_next_at_once() {
    let store = Played::new();
    let (here, _first) = node(&store).await;
    let (there, _second) = node(&store).await;
    let here = app(SessionLayer::new(here, key()));
    let there = app(SessionLayer::new(there, key()));
    for _ in 0..1000 {
        let mut browser = Browser::new(&here);
        browser.get("/insert/cart/2").await;
        let mut other = Browser::new(&there);
        other.adopt(&browser);
        other.get("/get/cart").await.assert(200, "2");
        browser.get("/log_in/ada").await;
        other.adopt(&browser);
        other.get("/user").await.assert(200, "ada");
    }
}

/// The cache of one node has a record whose use another node has noted since.
#[tokio::test(start_paused = true)]
async fn a_session_that_another_node_keeps_alive_does_not_expire_here() {
    let clock = TestClock::new();
    let store = Played::new();
    let near = NearCache::builder(store.clone()).max_stale(Duration::from_secs(36_000));
    let near = near.open().await.unwrap();
    pong(&near, &mut store.feed()).await;
    let minute = Duration::from_secs(60);
    let here = builder(near).clock(clock.clone());
    let here = app(here.idle_timeout(30 * minute).build().unwrap());
    let there = builder(store.store.clone()).clock(clock.clone());
    let there = app(there.idle_timeout(30 * minute).build().unwrap());
    let mut browser = Browser::new(&here);
    browser.get("/log_in/ada").await;
    browser.get("/user").await.assert(200, "ada");
    let mut other = Browser::new(&there);
    other.adopt(&browser);
    clock.advance(20 * minute);
    other.get("/user").await.assert(200, "ada");
    clock.advance(20 * minute);
    browser.get("/user").await.assert(200, "ada");
    clock.advance(40 * minute);
    browser.get("/user").await.assert(401, "");
}

/// What changes nothing in the cached record may change something in the newest one.
#[tokio::test(start_paused = true)]
async fn a_change_back_to_what_the_cache_has_is_written() {
    let store = Played::new();
    let (here, _feed) = node(&store).await;
    let here = app(SessionLayer::new(here, key()));
    let there = app(SessionLayer::new(store.store.clone(), key()));
    let mut browser = Browser::new(&here);
    browser.get("/insert/theme/dark").await;
    browser.get("/get/theme").await.assert(200, "dark");
    let mut other = Browser::new(&there);
    other.adopt(&browser);
    for (change, undo, expected) in [
        ("/insert/theme/light", "/insert/theme/dark", "dark"),
        ("/insert/elevated/yes", "/remove/elevated", "dark"),
    ] {
        other.get(change).await;
        // No notice has come.
        browser.get(undo).await;
        other.get("/get/theme").await.assert(200, expected);
        other.get("/keys").await.assert(200, "theme");
        browser.get("/get/theme").await.assert(200, "dark");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_parallel_updates_over_two_nodes_are_all_counted() {
    let store = MemoryStore::new();
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let near = NearCache::open(store.clone()).await.unwrap();
        nodes.push(app(SessionLayer::new(near, key())));
    }
    let mut browser = Browser::new(&nodes[0]);
    browser.get("/insert/theme/dark").await;
    let mut other = Browser::new(&nodes[1]);
    other.adopt(&browser);
    let updates: JoinSet<_> = (0..64)
        .map(|n| [&browser, &other][n % 2].send("/update/counter", &[]))
        .collect();
    for reply in updates.join_all().await {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    browser.get("/get/counter").await.assert(200, "64");
    other.get("/get/counter").await.assert(200, "64");
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_dropped_leaves_no_subscription() {
    let store = Played::new();
    let (near, feed) = node(&store).await;
    let clone = near.clone();
    drop(near);
    settle().await;
    assert!(!feed.is_closed());
    drop(clone);
    settle().await;
    assert!(feed.is_closed());
}

/// A feed ends if its store gives up. The cache subscribes again.
#[tokio::test(start_paused = true)]
async fn a_feed_that_ends_is_replaced() {
    let store = Played::new();
    let (near, feed) = node(&store).await;
    let (id, _) = insert(&store, "ada").await;
    near.load(id).await.unwrap().unwrap();
    drop(feed);
    store.feeds.lock().unwrap().clear();
    settle().await;
    assert!(!near.stats().is_fresh);
    store.store.inner().remove(id).await.unwrap();
    assert!(near.load(id).await.unwrap().is_none());
    while store.feeds.lock().unwrap().is_empty() {
        advance(Duration::from_millis(50)).await;
    }
    pong(&near, &mut store.feed()).await;
    assert!(near.load(id).await.unwrap().is_none());
}
