//! Parallel requests on one session: no write is lost, and no session comes back.

use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use cloakroom::testing::{Fault, FaultyStore, StoreCall};
use cloakroom::{
    CurrentUser, MemoryStore, Session, SessionError, SessionLayer, SessionStore, SqliteStore,
    TestClock,
};
use support::{Browser, app, builder, key, routes};
use tokio::task::JoinSet;

async fn sqlite() -> (tempfile::TempDir, SqliteStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("sessions.sqlite3"))
        .await
        .unwrap();
    (directory, store)
}

/// Sends 64 requests at once. Each one inserts its own key and increments the counter.
async fn sixty_four_requests_lose_nothing(store: impl SessionStore) {
    async fn handler(session: Session, Path(n): Path<u64>) -> Result<(), SessionError> {
        session.update("counter", |n: Option<u64>| n.unwrap_or(0) + 1)?;
        // The handlers overlap, so all of them start from the same record.
        tokio::time::sleep(Duration::from_millis(5)).await;
        session.insert(format!("key {n}"), n)
    }
    let app = routes()
        .route("/handler/{n}", get(handler))
        .layer(SessionLayer::new(store, key()));
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    let requests: JoinSet<_> = (0..64)
        .map(|n| browser.send(&format!("/handler/{n}"), &[]))
        .collect();
    for reply in requests.join_all().await {
        reply.assert(200, "");
        reply.assert_no_cookie();
    }
    browser.get("/get/counter").await.assert(200, "64");
    let keys = browser.get("/keys").await.body;
    assert_eq!(
        keys.split(',')
            .filter(|key| key.starts_with("key "))
            .count(),
        64,
        "{keys}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_parallel_requests_lose_nothing_in_memory() {
    sixty_four_requests_lose_nothing(MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_parallel_requests_lose_nothing_in_sqlite() {
    let (_directory, store) = sqlite().await;
    sixty_four_requests_lose_nothing(store).await;
}

/// The user logs out while a slow request has changes to write.
async fn a_logout_wins_over_a_slow_write(store: impl SessionStore + Clone) {
    for slow in [
        "/insert/slow/write",
        "/update/visits",
        "/remove/theme",
        "/clear",
        "/regenerate",
    ] {
        let spy = FaultyStore::new(store.clone());
        let app = app(SessionLayer::new(spy.clone(), key()));
        let mut browser = Browser::new(&app);
        browser.get("/insert/theme/dark").await;
        let old = browser.clone();

        let mut gate = spy.hold_next(StoreCall::Replace);
        let slow_request = tokio::spawn(browser.send(slow, &[]));
        gate.arrived().await;
        browser.get("/log_out").await.assert(200, "done");
        gate.release();
        let late = slow_request.await.unwrap();
        late.assert_no_cookie();

        assert_eq!(
            spy.take_calls()
                .iter()
                .filter(|call| **call == StoreCall::Insert)
                .count(),
            1,
            "{slow} made a session"
        );
        old.clone().get("/get/theme").await.assert(200, "nothing");
        old.clone().get("/keys").await.assert(200, "");
        assert!(browser.cookies().is_empty());
    }
}

#[tokio::test]
async fn a_logout_wins_over_a_slow_write_in_memory() {
    let store = MemoryStore::new();
    a_logout_wins_over_a_slow_write(store.clone()).await;
    assert_eq!(store.len(), 0);
}

#[tokio::test]
async fn a_logout_wins_over_a_slow_write_in_sqlite() {
    let (_directory, store) = sqlite().await;
    a_logout_wins_over_a_slow_write(store).await;
}

#[tokio::test]
async fn a_logout_wins_over_a_touch() {
    let clock = cloakroom::TestClock::new();
    let spy = FaultyStore::new(MemoryStore::new());
    let app = app(builder(spy.clone()).clock(clock.clone()).build().unwrap());
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    let old = browser.clone();
    clock.advance(Duration::from_secs(600));
    let mut gate = spy.hold_next(StoreCall::Touch);
    let read = tokio::spawn(browser.send("/get/theme", &[]));
    gate.arrived().await;
    browser.get("/log_out").await;
    gate.release();
    let read = read.await.unwrap();
    read.assert(200, "dark");
    read.assert_no_cookie();
    old.clone().get("/get/theme").await.assert(200, "nothing");
    assert_eq!(spy.inner().len(), 0);
}

/// Starts a slow request, which stops before it writes. Then sends a fast request. Then lets the
/// slow request continue.
async fn overtaken(
    browser: &mut Browser,
    spy: &FaultyStore<MemoryStore>,
    slow: &str,
    fast: &str,
) -> (support::Reply, support::Reply) {
    let mut gate = spy.hold_next(StoreCall::Replace);
    let slow = tokio::spawn(browser.send(slow, &[]));
    gate.arrived().await;
    let fast = browser.get(fast).await;
    gate.release();
    (slow.await.unwrap(), fast)
}

fn setup() -> (FaultyStore<MemoryStore>, Browser) {
    let spy = FaultyStore::new(MemoryStore::new());
    let browser = Browser::new(&app(SessionLayer::new(spy.clone(), key())));
    (spy, browser)
}

#[tokio::test]
async fn a_write_that_another_write_overtook_is_applied_to_the_newer_record() {
    for (slow, theme, visits) in [
        ("/insert/theme/slow", "slow", "2"),
        ("/update/visits", "fast", "3"),
        ("/remove/theme", "nothing", "2"),
        ("/clear", "nothing", "nothing"),
    ] {
        let (spy, mut browser) = setup();
        browser.get("/insert/theme/dark").await;
        browser.get("/update/visits").await;
        let mut gate = spy.hold_next(StoreCall::Replace);
        let slow_request = tokio::spawn(browser.send(slow, &[]));
        gate.arrived().await;
        browser.get("/insert/theme/fast").await;
        browser.get("/update/visits").await;
        gate.release();
        assert_eq!(slow_request.await.unwrap().status, 200);
        browser.get("/get/theme").await.assert(200, theme);
        browser.get("/get/visits").await.assert(200, visits);
    }
}

#[tokio::test]
async fn a_write_whose_token_was_replaced_meanwhile_is_refused_and_not_lost_in_silence() {
    for fast in ["/regenerate", "/log_in/ada"] {
        let (spy, mut browser) = setup();
        browser.get("/insert/theme/dark").await;
        let (slow, fast_reply) = overtaken(&mut browser, &spy, "/insert/theme/stolen", fast).await;
        slow.assert(409, "");
        slow.assert_no_cookie();
        assert_eq!(fast_reply.cookies().len(), 1);
        browser.get("/get/theme").await.assert(200, "dark");
    }
}

#[tokio::test]
async fn of_two_parallel_regenerates_one_token_is_good_and_the_browser_has_it() {
    let (spy, mut browser) = setup();
    browser.get("/insert/theme/dark").await;
    let (slow, _) = overtaken(&mut browser, &spy, "/regenerate", "/regenerate").await;
    slow.assert(200, "done");
    slow.assert_no_cookie();
    browser.get("/get/theme").await.assert(200, "dark");
    assert_eq!(spy.inner().len(), 1);
}

#[tokio::test]
async fn a_double_click_on_log_in_logs_in_whichever_answer_comes_last() {
    for last_is_slow in [true, false] {
        let (spy, mut browser) = setup();
        browser.get("/insert/theme/dark").await;
        let anonymous = browser.clone();
        let (slow, fast) = overtaken(&mut browser, &spy, "/log_in/ada", "/log_in/ada").await;
        slow.assert(200, "done");
        fast.assert(200, "done");
        browser.keep(if last_is_slow { &slow } else { &fast });
        browser.get("/user").await.assert(200, "ada");
        browser.get("/get/theme").await.assert(200, "dark");
        anonymous.clone().get("/user").await.assert(409, "");
    }
}

/// When the second login writes, the first login has already replaced the token.
#[tokio::test]
async fn the_second_of_two_logins_at_once_keeps_what_its_request_had_loaded() {
    for before in ["/insert/theme/dark", "/log_in/ada", "/remember/ada"] {
        let (spy, mut browser) = setup();
        browser.get(before).await;
        browser.get("/insert/cart/book").await;
        let (slow, _) = overtaken(&mut browser, &spy, "/log_in/ada", "/log_in/ada").await;
        slow.assert(200, "done");
        let is_remembered = before == "/remember/ada";
        assert_eq!(slow.cookies()[0].contains("Max-Age"), is_remembered);
        browser.keep(&slow);
        browser.get("/user").await.assert(200, "ada");
        browser.get("/get/cart").await.assert(200, "book");
    }
}

#[tokio::test]
async fn a_login_of_another_user_keeps_nothing_though_the_token_was_replaced_before() {
    let (spy, mut browser) = setup();
    browser.get("/log_in/ada").await;
    browser.get("/insert/cart/book").await;
    let mut gate = spy.hold_next(StoreCall::Insert);
    let slow = tokio::spawn(browser.send("/log_in/eve", &[]));
    gate.arrived().await;
    browser.get("/log_in/ada").await.assert(200, "done");
    gate.release();
    let slow = slow.await.unwrap();
    slow.assert(200, "done");
    browser.keep(&slow);
    browser.get("/user").await.assert(200, "eve");
    browser.get("/get/cart").await.assert(200, "nothing");
}

#[tokio::test]
async fn who_asks_for_the_user_with_a_token_that_was_just_replaced_is_told_to_ask_again() {
    let clock = TestClock::new();
    let fresh = get(|session: Session| async move {
        session.require_recent_login(Duration::from_secs(60))?;
        Ok::<_, SessionError>("fresh")
    });
    let optional = get(|user: Option<CurrentUser>| async move { user.is_some().to_string() });
    let app = support::routes()
        .route("/fresh", fresh)
        .route("/optional", optional)
        .layer(
            builder(MemoryStore::new())
                .clock(clock.clone())
                .build()
                .unwrap(),
        );
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await;
    let mut old = browser.clone();
    browser.get("/regenerate").await;
    old.get("/user").await.assert(409, "");
    old.get("/fresh").await.assert(409, "");
    old.get("/optional").await.assert(200, "false");
    clock.advance(Duration::from_secs(60));
    old.get("/user").await.assert(401, "");
    old.get("/fresh").await.assert(401, "");
}

#[tokio::test]
async fn a_login_whose_session_was_ended_meanwhile_starts_a_new_one_without_the_old_data() {
    let (spy, mut browser) = setup();
    browser.get("/insert/theme/dark").await;
    let id = browser.get("/id").await.body;
    let (slow, _) = overtaken(&mut browser, &spy, "/log_in/ada", "/log_out").await;
    slow.assert(200, "done");
    browser.keep(&slow);
    browser.get("/user").await.assert(200, "ada");
    browser.get("/get/theme").await.assert(200, "nothing");
    assert_ne!(browser.get("/id").await.body, id);
}

#[tokio::test]
async fn a_logout_wins_over_a_login_of_the_same_token() {
    let (spy, mut browser) = setup();
    browser.get("/insert/theme/dark").await;
    let mut gate = spy.hold_next(StoreCall::Remove);
    let log_out = tokio::spawn(browser.send("/log_out", &[]));
    gate.arrived().await;
    let login = browser.get("/log_in/ada").await;
    assert_eq!(login.cookies().len(), 1);
    gate.release();
    let log_out = log_out.await.unwrap();
    log_out.assert(200, "done");
    assert_eq!(spy.inner().len(), 0);
    browser.get("/user").await.assert(401, "");
}

#[tokio::test]
async fn parallel_changes_that_are_too_large_together_are_an_error_and_the_first_is_kept() {
    let spy = FaultyStore::new(MemoryStore::new());
    let app = app(builder(spy.clone()).data_limit(40).build().unwrap());
    let mut browser = Browser::new(&app);
    browser.get("/insert/a/b").await;
    let (slow, fast) = overtaken(
        &mut browser,
        &spy,
        "/insert/slow/xxxxxxxxxxxxxxxx",
        "/insert/fast/xxxxxxxxxxxxxxxx",
    )
    .await;
    fast.assert(200, "done");
    slow.assert(500, "");
    slow.assert_no_cookie();
    browser.get("/keys").await.assert(200, "a,fast");
}

#[tokio::test]
async fn an_update_whose_value_changed_its_type_meanwhile_is_an_error() {
    let (spy, mut browser) = setup();
    browser.get("/update/visits").await;
    let (slow, _) = overtaken(&mut browser, &spy, "/update/visits", "/insert/visits/many").await;
    slow.assert(500, "");
    browser.get("/get/visits").await.assert(200, "many");
}

#[tokio::test]
async fn a_commit_that_another_node_overtakes_again_and_again_is_tried_until_it_is_through() {
    let spy = FaultyStore::new(MemoryStore::new());
    let mut browser = Browser::new(&app(SessionLayer::new(spy.clone(), key())));
    // This layer has its own queue. So the first layer learns only from the store that another
    // write came first.
    let mut of_another_node = Browser::new(&app(SessionLayer::new(spy.inner().clone(), key())));
    let reply = browser.get("/update/visits").await;
    of_another_node.keep(&reply);
    let mut gate = spy.hold_next(StoreCall::Replace);
    let slow = tokio::spawn(browser.send("/update/visits", &[]));
    for overtaken in 2..6_u32 {
        gate.arrived().await;
        let visits = overtaken.to_string();
        of_another_node
            .get("/update/visits")
            .await
            .assert(200, &visits);
        let next = spy.hold_next(StoreCall::Replace);
        std::mem::replace(&mut gate, next).release();
    }
    gate.arrived().await;
    gate.release();
    slow.await.unwrap().assert(200, "2");
    of_another_node.get("/get/visits").await.assert(200, "6");
}

#[tokio::test]
async fn requests_that_cannot_get_their_turn_in_time_are_answered_503() {
    let store = FaultyStore::new(MemoryStore::new());
    // The store always reports that another node was faster.
    store.fail_at(StoreCall::Replace, Fault::Conflict);
    let layer = builder(store)
        .commit_timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    let mut browser = Browser::new(&app(layer));
    browser.get("/insert/theme/dark").await;
    let requests: JoinSet<_> = (0..3)
        .map(|_| browser.send("/update/visits", &[]))
        .collect();
    for reply in requests.join_all().await {
        reply.assert(503, "");
        assert_eq!(reply.header("retry-after"), Some("1"));
        reply.assert_no_cookie();
    }
}

#[tokio::test]
async fn two_stores_on_one_sqlite_file_lose_nothing() {
    // Two pools use one file, as two nodes do. `processes.rs` has two real processes.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sessions.sqlite3");
    let mut apps: Vec<Router> = Vec::new();
    for _ in 0..2 {
        apps.push(app(SessionLayer::new(
            SqliteStore::open(&path).await.unwrap(),
            key(),
        )));
    }
    let mut browsers: Vec<_> = apps.iter().map(Browser::new).collect();
    let first = browsers[0].get("/insert/theme/dark").await;
    browsers[1].keep(&first);
    let requests: JoinSet<_> = (0..64)
        .map(|n| browsers[n % 2].send("/update/visits", &[]))
        .collect();
    for reply in requests.join_all().await {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    browsers[1].get("/get/visits").await.assert(200, "64");
}

#[tokio::test]
async fn a_late_answer_never_puts_an_old_token_over_a_newer_one() {
    for late in ["/user", "/update/visits"] {
        for newer in ["/regenerate", "/log_in/ada"] {
            let clock = TestClock::new();
            let layer = builder(MemoryStore::new()).clock(clock.clone()).build();
            let mut browser = Browser::new(&app(layer.unwrap()));
            browser.get("/remember/ada").await;
            clock.advance(Duration::from_secs(5 * 24 * 60 * 60));
            let late = browser.send(late, &[]).await;
            assert_eq!(late.status, 200);
            browser.get(newer).await.assert(200, "done");
            browser.keep(&late);
            browser.get("/user").await.assert(200, "ada");
        }
    }
}

#[tokio::test]
async fn a_write_or_an_end_with_a_token_that_was_just_replaced_is_refused_and_leaves_the_new_one() {
    for newer in ["/regenerate", "/log_in/ada"] {
        for late in [
            "/insert/theme/light",
            "/update/visits",
            "/log_out",
            "/destroy",
        ] {
            let (spy, mut browser) = setup();
            browser.get("/insert/theme/dark").await;
            let late = browser.send(late, &[]);
            browser.get(newer).await.assert(200, "done");
            let late = late.await;
            late.assert(409, "");
            browser.keep(&late);
            browser.get("/get/theme").await.assert(200, "dark");
            assert_eq!(spy.inner().len(), 1);
        }
    }
}

#[tokio::test]
async fn a_read_with_a_token_that_was_just_replaced_is_a_visitors() {
    let (_, mut browser) = setup();
    browser.get("/insert/theme/dark").await;
    for (path, body) in [
        ("/get/theme", "nothing"),
        ("/regenerate", "done"),
        ("/fail/destroy", "failed"),
    ] {
        let late = browser.send(path, &[]);
        browser.get("/regenerate").await;
        let late = late.await;
        assert_eq!(late.body, body);
        late.assert_no_cookie();
    }
    browser.get("/get/theme").await.assert(200, "dark");
}

#[tokio::test]
async fn a_login_with_a_token_that_was_just_replaced_starts_a_session_of_its_own() {
    let (spy, mut browser) = setup();
    browser.get("/insert/theme/dark").await;
    let late = browser.send("/log_in/ada", &[]);
    browser.get("/log_in/ada").await;
    let mut other = browser.clone();
    let late = late.await;
    late.assert(200, "done");
    other.keep(&late);
    other.get("/user").await.assert(200, "ada");
    other.get("/get/theme").await.assert(200, "nothing");
    browser.get("/user").await.assert(200, "ada");
    assert_eq!(spy.inner().len(), 2);
}

#[tokio::test]
async fn a_client_that_never_received_its_new_token_is_a_visitor_after_a_minute() {
    let clock = TestClock::new();
    let layer = builder(MemoryStore::new()).clock(clock.clone()).build();
    let mut browser = Browser::new(&app(layer.unwrap()));
    browser.get("/insert/theme/dark").await;
    drop(browser.send("/regenerate", &[]).await);
    clock.advance(Duration::from_millis(59_999));
    browser.get("/insert/theme/light").await.assert(409, "");
    clock.advance(Duration::from_millis(1));
    browser.get("/log_out").await.assert(200, "done");
    browser.get("/insert/theme/light").await.assert(200, "done");
    browser.get("/get/theme").await.assert(200, "light");
}

/// An application with the usual routes and these ones. Its store counts its calls.
fn spied(more: Router) -> (FaultyStore<MemoryStore>, Browser) {
    let spy = FaultyStore::new(MemoryStore::new());
    let app = routes()
        .merge(more)
        .layer(SessionLayer::new(spy.clone(), key()));
    (spy, Browser::new(&app))
}

/// The slow request meets a conflict. Its changes are applied to what the fast request wrote.
async fn after_a_conflict(
    slow: impl Fn(&Session) -> Result<(), SessionError> + Clone + Send + Sync + 'static,
    fast: &str,
) -> (FaultyStore<MemoryStore>, Browser) {
    let slow = get(move |session: Session| async move { slow(&session) });
    let (spy, mut browser) = spied(Router::new().route("/slow", slow));
    browser.get("/insert/theme/dark").await;
    let (slow, _) = overtaken(&mut browser, &spy, "/slow", fast).await;
    slow.assert(200, "");
    browser.keep(&slow);
    (spy, browser)
}

/// The stock is 1. Two requests at once take one each. The stock never goes below zero.
#[tokio::test]
async fn an_update_that_changed_nothing_here_is_applied_after_a_conflict() {
    async fn take(session: Session) -> Result<(), SessionError> {
        session.update("stock", |n: Option<i64>| n.unwrap_or(1) - 1)?;
        session.update("stock", |n: Option<i64>| n.unwrap_or(1).max(0))?;
        Ok(())
    }
    let (spy, mut browser) = spied(Router::new().route("/take", get(take)));
    browser.get("/insert/theme/dark").await;
    let (slow, fast) = overtaken(&mut browser, &spy, "/take", "/take").await;
    slow.assert(200, "");
    fast.assert(200, "");
    browser.get("/get/stock").await.assert(200, "0");
}

#[tokio::test]
async fn what_changed_nothing_here_is_applied_after_a_conflict() {
    // The slow request inserts the value that was there.
    let (_, mut browser) = after_a_conflict(
        |session| {
            session.insert("theme", "dark")?;
            session.insert("other", "1")
        },
        "/insert/theme/light",
    )
    .await;
    browser.get("/get/theme").await.assert(200, "dark");

    // The slow request's update computes the value that was there.
    let (_, mut browser) = after_a_conflict(
        |session| {
            session.update("theme", |_: Option<String>| "dark".to_owned())?;
            session.insert("other", "1")
        },
        "/insert/theme/light",
    )
    .await;
    browser.get("/get/theme").await.assert(200, "dark");

    // The slow request removes a value that was not there.
    let (_, mut browser) = after_a_conflict(
        |session| {
            session.remove::<String>("draft")?;
            session.insert("other", "1")
        },
        "/insert/draft/text",
    )
    .await;
    browser.get("/keys").await.assert(200, "other,theme");

    // Two changes of the slow request cancel each other. Another change follows.
    let (_, mut browser) = after_a_conflict(
        |session| {
            session.insert("draft", "text")?;
            session.remove::<String>("draft")?;
            session.insert("other", "1")
        },
        "/insert/draft/text",
    )
    .await;
    browser.get("/keys").await.assert(200, "other,theme");
}

/// An attacker has the visitor's token. The attacker puts something into the session while its user
/// logs in.
#[tokio::test]
async fn a_clear_that_found_nothing_clears_what_came_before_the_login() {
    let clean_login = get(|session: Session| async move {
        session.clear()?;
        session.log_in("ada")
    });
    let (spy, mut browser) = spied(Router::new().route("/clean_login", clean_login));
    browser.get("/insert/theme/dark").await;
    browser.get("/clear").await;
    let (slow, _) = overtaken(&mut browser, &spy, "/clean_login", "/insert/cart/planted").await;
    browser.keep(&slow);
    browser.get("/user").await.assert(200, "ada");
    browser.get("/keys").await.assert(200, "");
}

/// The layer records such changes. They cost nothing if no other request wrote in between.
#[tokio::test]
async fn changes_that_change_nothing_write_nothing_and_make_no_conflict() {
    let idle = get(|session: Session| async move {
        session.remove::<String>("notice")?;
        session.insert("theme", "dark")?;
        session.update("theme", |theme: Option<String>| theme.unwrap_or_default())?;
        Ok::<_, SessionError>(())
    });
    let empty = get(|session: Session| async move {
        session.remove::<String>("notice")?;
        session.clear()
    });
    let more = Router::new().route("/idle", idle).route("/empty", empty);
    let (spy, mut browser) = spied(more);
    browser.get("/empty").await.assert_no_cookie();
    assert_eq!(spy.take_calls(), []);
    browser.get("/insert/theme/dark").await;
    spy.take_calls();
    browser.get("/idle").await.assert(200, "");
    assert_eq!(spy.take_calls(), [StoreCall::Load]);
    // With a token that was just rotated, the session looks empty. So `/idle` has something to
    // write and is refused. `/empty` has nothing to write and is not refused.
    let late = browser.send("/idle", &[]);
    browser.get("/regenerate").await;
    late.await.assert(409, "");
    let mut old = browser.clone();
    let late = browser.send("/empty", &[]);
    browser.get("/regenerate").await;
    late.await.assert(200, "");
    old.get("/empty").await.assert(200, "");
}
