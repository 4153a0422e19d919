//! Clocks that jump, and nodes whose clocks are wrong by hours.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use cloakroom::{Clock, MemoryStore, Session, SessionError, Timestamp};
use support::{Browser, builder, routes};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// A clock that a test moves forward and back.
#[derive(Clone, Debug)]
struct AnyClock(Arc<AtomicU64>);

impl AnyClock {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_800_000_000_000)))
    }

    fn forward(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap();
        self.0.fetch_add(by, Ordering::SeqCst);
    }

    fn back(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap();
        self.0.fetch_sub(by, Ordering::SeqCst);
    }

    /// The clock of another node. It is ahead by this much.
    fn ahead(&self, by: Duration) -> Self {
        let other = Self(Arc::new(AtomicU64::new(self.0.load(Ordering::SeqCst))));
        other.forward(by);
        other
    }
}

impl Clock for AnyClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

async fn fresh(session: Session) -> Result<&'static str, SessionError> {
    session.require_recent_login(5 * MINUTE)?;
    Ok("fresh")
}

/// A node with this store and this clock.
fn node(
    store: &Arc<MemoryStore>,
    clock: &AnyClock,
) -> (Router, cloakroom::Sessions<Arc<MemoryStore>>) {
    let layer = builder(store.clone())
        .idle_timeout(30 * MINUTE)
        .clock(clock.clone())
        .build()
        .unwrap();
    let sessions = layer.sessions();
    (routes().route("/fresh", get(fresh)).layer(layer), sessions)
}

fn store(clock: &AnyClock) -> Arc<MemoryStore> {
    Arc::new(
        MemoryStore::new()
            .with_max_sessions(1000)
            .with_clock(clock.clone()),
    )
}

#[tokio::test]
async fn the_grace_period_is_a_minute_though_the_clock_steps_back() {
    let clock = AnyClock::new();
    let (app, _) = node(&store(&clock), &clock);
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await;
    let mut old = browser.clone();
    browser.get("/regenerate").await;
    old.get("/user").await.assert(409, "");
    clock.back(HOUR);
    old.get("/user").await.assert(401, "");
    browser.get("/user").await.assert(200, "ada");
    // A difference between the clocks of two nodes does not count as a jump.
    clock.forward(HOUR);
    clock.back(Duration::from_secs(2));
    old.get("/user").await.assert(409, "");
}

#[tokio::test]
async fn a_login_from_the_future_is_not_fresh() {
    let clock = AnyClock::new();
    let (app, _) = node(&store(&clock), &clock);
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await;
    clock.back(HOUR);
    browser.get("/fresh").await.assert(401, "");
    browser.get("/user").await.assert(200, "ada");
    clock.forward(HOUR);
    browser.get("/fresh").await.assert(200, "fresh");
    clock.back(Duration::from_secs(30));
    browser.get("/fresh").await.assert(200, "fresh");
    clock.forward(6 * MINUTE);
    browser.get("/fresh").await.assert(401, "");
}

#[tokio::test]
async fn a_node_whose_clock_is_ahead_purges_no_live_session() {
    let clock = AnyClock::new();
    let store = store(&clock);
    let (app, _) = node(&store, &clock);
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    clock.forward(29 * MINUTE);
    let (_, ahead) = node(&store, &clock.ahead(10 * MINUTE));
    assert_eq!(ahead.purge_expired().await.unwrap(), 0);
    browser.get("/get/theme").await.assert(200, "dark");
}

/// Without care, this node would write an expiry that has already passed for all other nodes.
#[tokio::test]
async fn a_node_whose_clock_is_behind_ends_nobodys_session() {
    let clock = AnyClock::new();
    let store = store(&clock);
    let (app, _) = node(&store, &clock);
    let slow_clock = clock.ahead(Duration::ZERO);
    slow_clock.back(3 * HOUR);
    let (behind, _) = node(&store, &slow_clock);
    // The session is new, or was in use for hours.
    let ages = [Duration::ZERO, 4 * HOUR];
    let paths = ["/get/theme", "/insert/other/value", "/passive"];
    for (age, path) in ages.iter().flat_map(|age| paths.map(|path| (*age, path))) {
        let mut browser = Browser::new(&app);
        browser.get("/log_in/ada").await;
        browser.get("/insert/theme/dark").await;
        let mut passed = Duration::ZERO;
        while passed < age {
            for clock in [&clock, &slow_clock] {
                clock.forward(20 * MINUTE);
            }
            passed += 20 * MINUTE;
            browser.get("/user").await.assert(200, "ada");
        }
        let mut there = Browser::new(&behind);
        there.adopt(&browser);
        there.get("/user").await.assert(200, "ada");
        assert_eq!(there.get(path).await.status.as_u16(), 200);
        browser.get("/get/theme").await.assert(200, "dark");
        browser.get("/user").await.assert(200, "ada");
    }
}

/// The node takes live sessions for expired ones. That is a problem for its own users. But it
/// leaves the sessions to the other nodes.
#[tokio::test]
async fn a_node_whose_clock_is_hours_ahead_ends_nobodys_session_with_its_requests() {
    let clock = AnyClock::new();
    let store = store(&clock);
    let (app, _) = node(&store, &clock);
    let (ahead, _) = node(&store, &clock.ahead(3 * HOUR));
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await;
    let mut there = Browser::new(&ahead);
    there.adopt(&browser);
    there.get("/user").await.assert(401, "");
    let late = there.get("/get/theme").await;
    late.assert_no_cookie();
    browser.get("/user").await.assert(200, "ada");
    // A session from that node is good on this node.
    let mut there = Browser::new(&ahead);
    there.get("/log_in/grace").await;
    let mut here = Browser::new(&app);
    here.adopt(&there);
    here.get("/user").await.assert(200, "grace");
    here.get("/insert/theme/dark").await.assert(200, "done");
    there.get("/user").await.assert(200, "grace");
}

#[tokio::test]
async fn a_clock_that_steps_back_while_a_request_runs_ends_nothing() {
    let clock = AnyClock::new();
    let steps = clock.clone();
    let step = get(move |session: Session| async move {
        steps.back(2 * HOUR);
        session.insert("after", "step")
    });
    let store = store(&clock);
    let layer = builder(store)
        .idle_timeout(30 * MINUTE)
        .clock(clock.clone())
        .build()
        .unwrap();
    let app = routes().route("/step", step).layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    clock.forward(27 * MINUTE);
    browser.get("/step").await.assert(200, "");
    browser.get("/keys").await.assert(200, "after,theme");
}
