//! How long a session lives. The tests move the clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use cloakroom::testing::{FaultyStore, StoreCall};
use cloakroom::{Clock, MemoryStore, Session, SessionLayer, SessionStore, TestClock, Timestamp};
use support::{Browser, app, builder};
use tokio::sync::Notify;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct Setup {
    clock: TestClock,
    spy: FaultyStore<MemoryStore>,
    layer: SessionLayer<FaultyStore<MemoryStore>>,
    app: Router,
}

/// The default timeouts, and a store that does not collect anything by itself.
fn setup() -> Setup {
    let clock = TestClock::new();
    let stopped = TestClock::new();
    let spy = FaultyStore::new(
        MemoryStore::new()
            .with_max_sessions(1000)
            .with_clock(stopped),
    );
    let layer = builder(spy.clone())
        .idle_timeout(30 * MINUTE)
        .clock(clock.clone())
        .build()
        .unwrap();
    Setup {
        app: app(layer.clone()),
        layer,
        clock,
        spy,
    }
}

async fn is_alive(browser: &mut Browser) -> bool {
    browser.get("/get/theme").await.body == "dark"
}

#[tokio::test]
async fn a_session_ends_30_minutes_after_its_last_request_though_the_store_still_has_it() {
    let Setup {
        clock, spy, app, ..
    } = setup();
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    clock.advance(30 * MINUTE - Duration::from_millis(1));
    assert!(is_alive(&mut browser).await);
    clock.advance(30 * MINUTE);
    assert!(!is_alive(&mut browser).await);
    assert_eq!(
        spy.inner().len(),
        1,
        "the store collected it, so that the layer's own check was not tested"
    );
}

#[tokio::test]
async fn activity_keeps_a_session_alive_until_12_hours_after_its_creation() {
    let Setup { clock, app, .. } = setup();
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    for _ in 0..35 {
        clock.advance(20 * MINUTE);
        assert!(is_alive(&mut browser).await);
    }
    clock.advance(20 * MINUTE);
    assert!(!is_alive(&mut browser).await, "12 hours have passed");
}

#[tokio::test]
async fn a_regenerated_token_does_not_restart_the_absolute_timeout_and_a_login_does() {
    for (path, lives_on) in [("/regenerate", false), ("/log_in/ada", true)] {
        let Setup { clock, app, .. } = setup();
        let mut browser = Browser::new(&app);
        browser.get("/insert/theme/dark").await;
        for _ in 0..33 {
            clock.advance(20 * MINUTE);
            assert!(is_alive(&mut browser).await);
        }
        browser.get(path).await;
        for _ in 0..4 {
            clock.advance(20 * MINUTE);
            browser.get("/get/theme").await;
        }
        assert_eq!(is_alive(&mut browser).await, lives_on, "{path}");
    }
}

#[tokio::test]
async fn a_thousand_reads_in_the_touch_interval_write_nothing() {
    let Setup {
        clock, spy, app, ..
    } = setup();
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    spy.take_calls();
    for _ in 0..1000 {
        clock.advance(Duration::from_millis(179));
        browser.get("/get/theme").await;
    }
    let calls = spy.take_calls();
    assert_eq!(calls.len(), 1000);
    assert!(calls.iter().all(|call| *call == StoreCall::Load));
}

#[tokio::test]
async fn a_read_after_the_touch_interval_touches_once_and_writes_no_data() {
    let Setup {
        clock, spy, app, ..
    } = setup();
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    clock.advance(3 * MINUTE);
    spy.take_calls();
    browser.get("/get/theme").await.assert_no_cookie();
    browser.get("/get/theme").await;
    assert_eq!(
        spy.take_calls(),
        [StoreCall::Load, StoreCall::Touch, StoreCall::Load]
    );
}

#[tokio::test]
async fn the_touch_interval_is_configurable() {
    let clock = TestClock::new();
    let spy = FaultyStore::new(MemoryStore::new());
    let layer = builder(spy.clone())
        .idle_timeout(30 * MINUTE)
        .clock(clock.clone())
        .touch_interval(Duration::ZERO)
        .build()
        .unwrap();
    let mut browser = Browser::new(&app(layer));
    browser.get("/insert/theme/dark").await;
    clock.advance(Duration::from_millis(1));
    spy.take_calls();
    browser.get("/get/theme").await;
    assert_eq!(spy.take_calls(), [StoreCall::Load, StoreCall::Touch]);

    // In the same millisecond there is nothing to change.
    browser.get("/get/theme").await;
    assert_eq!(spy.take_calls(), [StoreCall::Load]);
}

#[tokio::test]
async fn a_write_moves_the_expiry_as_a_read_does() {
    let Setup { clock, app, .. } = setup();
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    clock.advance(20 * MINUTE);
    browser.get("/update/visits").await;
    clock.advance(20 * MINUTE);
    assert!(is_alive(&mut browser).await);
}

#[tokio::test]
async fn a_passive_request_is_no_activity() {
    for path in ["/passive", "/passive_write"] {
        let Setup { clock, layer, .. } = setup();
        let passive_write = axum::routing::get(|session: cloakroom::Session| async move {
            session.skip_touch()?;
            session
                .update("polls", |n: Option<u64>| n.unwrap_or(0) + 1)
                .map(|_| ())
        });
        let app = support::routes()
            .route("/passive_write", passive_write)
            .layer(layer);
        let mut browser = Browser::new(&app);
        browser.get("/insert/theme/dark").await;
        clock.advance(20 * MINUTE);
        browser.get(path).await.assert_no_cookie();
        clock.advance(10 * MINUTE);
        assert!(!is_alive(&mut browser).await, "{path}");
    }
}

#[tokio::test]
async fn a_remembered_session_outlives_the_browser_and_lasts_14_days_without_a_request() {
    let Setup { clock, app, .. } = setup();
    let mut browser = Browser::new(&app);
    browser.get("/remember/ada").await;
    browser.get("/insert/theme/dark").await;
    browser.restart();
    clock.advance(13 * DAY);
    assert!(is_alive(&mut browser).await);
    clock.advance(13 * DAY);
    assert!(
        is_alive(&mut browser).await,
        "the request before did not count"
    );
    clock.advance(14 * DAY);
    assert!(!is_alive(&mut browser).await);
}

#[tokio::test]
async fn a_remembered_session_ends_after_90_days_in_any_case() {
    let Setup { clock, app, .. } = setup();
    let mut browser = Browser::new(&app);
    browser.get("/remember/ada").await;
    browser.get("/insert/theme/dark").await;
    for _ in 0..8 {
        clock.advance(10 * DAY);
        assert!(is_alive(&mut browser).await);
    }
    clock.advance(10 * DAY);
    assert!(!is_alive(&mut browser).await);
}

#[tokio::test]
async fn a_session_that_is_not_remembered_ends_with_the_browser() {
    let Setup { app, .. } = setup();
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    browser.restart();
    assert!(!is_alive(&mut browser).await);
}

#[tokio::test]
async fn the_cookie_of_a_remembered_session_lasts_to_its_absolute_end_and_is_never_sent_again() {
    let Setup { clock, app, .. } = setup();
    let mut browser = Browser::new(&app);
    let max_age = |reply: &support::Reply| -> Option<u64> {
        reply
            .cookies()
            .first()?
            .split("Max-Age=")
            .nth(1)?
            .parse()
            .ok()
    };
    let reply = browser.get("/remember/ada").await;
    assert_eq!(max_age(&reply), Some(90 * DAY.as_secs()));
    for path in ["/get/theme", "/insert/theme/dark", "/update/visits"] {
        clock.advance(5 * DAY);
        browser.get(path).await.assert_no_cookie();
    }
    // A new token keeps only the rest of the time.
    let reply = browser.get("/regenerate").await;
    assert_eq!(max_age(&reply), Some(75 * DAY.as_secs()));
    // The server still ends an idle session.
    clock.advance(14 * DAY);
    assert!(!browser.cookies().is_empty());
    browser.get("/user").await.assert(401, "");
}

#[tokio::test]
async fn a_handler_that_outlives_its_session_does_not_bring_it_back() {
    for path in ["/slow/read", "/slow/insert", "/slow/regenerate"] {
        let Setup {
            clock, layer, spy, ..
        } = setup();
        let slow = axum::routing::get(
            move |session: Session, Path(operation): Path<String>| async move {
                clock.advance(30 * MINUTE);
                match &*operation {
                    "insert" => session.insert("theme", "late"),
                    "regenerate" => session.regenerate(),
                    _ => Ok(()),
                }
            },
        );
        let app = support::routes()
            .route("/slow/{operation}", slow)
            .layer(layer);
        let mut browser = Browser::new(&app);
        browser.get("/insert/theme/dark").await;
        spy.take_calls();
        let reply = browser.get(path).await;
        reply.assert(200, "");
        reply.assert_no_cookie();
        assert!(
            !spy.take_calls()
                .iter()
                .any(|call| [StoreCall::Touch, StoreCall::Replace].contains(call)),
            "{path} wrote"
        );
        browser.get("/keys").await.assert(200, "");
    }
}

/// No touch is due when a request arrives. But a touch is due when the first request gets its
/// answer.
#[tokio::test]
async fn slow_requests_one_after_the_other_keep_a_session_alive() {
    let Setup { clock, layer, .. } = setup();
    let slow = axum::routing::get(move |session: Session| async move {
        clock.advance(20 * MINUTE);
        session
            .get::<String>("theme")
            .map(Option::unwrap_or_default)
    });
    let app = support::routes().route("/slow", slow).layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    for _ in 0..3 {
        browser.get("/slow").await.assert(200, "dark");
    }
    assert!(is_alive(&mut browser).await);
}

#[tokio::test]
async fn a_slow_write_is_kept_where_another_request_kept_the_session_alive() {
    let Setup { clock, layer, .. } = setup();
    let go_on = Arc::new(Notify::new());
    let signal = go_on.clone();
    let slow = axum::routing::get(move |session: Session| async move {
        signal.notified().await;
        session.insert("slow", "kept")
    });
    let app = support::routes().route("/slow", slow).layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    let slow = tokio::spawn(browser.send("/slow", &[]));
    tokio::task::yield_now().await;
    clock.advance(20 * MINUTE);
    assert!(is_alive(&mut browser).await);
    clock.advance(20 * MINUTE);
    go_on.notify_one();
    slow.await.unwrap().assert(200, "");
    browser.get("/keys").await.assert(200, "slow,theme");
}

#[tokio::test]
async fn a_slow_login_starts_a_session_where_the_old_one_has_expired_meanwhile() {
    let Setup { clock, layer, .. } = setup();
    let slow = axum::routing::get(move |session: Session| async move {
        clock.advance(30 * MINUTE);
        session.set_remembered(true)?;
        session.log_in("ada")
    });
    let app = support::routes().route("/slow", slow).layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    let reply = browser.get("/slow").await;
    assert!(reply.cookies()[0].contains("; Max-Age="), "{reply:?}");
    browser.get("/user").await.assert(200, "ada");
    browser.get("/keys").await.assert(200, "");
}

#[tokio::test]
async fn a_cookie_lasts_400_days_at_most() {
    let layer = builder(MemoryStore::new())
        .idle_timeout(30 * MINUTE)
        .remember_idle_timeout(1000 * DAY)
        .remember_absolute_timeout(1000 * DAY)
        .build()
        .unwrap();
    let reply = Browser::new(&app(layer)).get("/remember/ada").await;
    assert!(
        reply.cookies()[0].ends_with("; Max-Age=34560000"),
        "{reply:?}"
    );
}

#[tokio::test]
async fn remember_can_be_turned_on_and_off_for_a_session_that_is_there() {
    let Setup { clock, layer, .. } = setup();
    let remember = |on| {
        axum::routing::get(
            move |session: cloakroom::Session| async move { session.set_remembered(on) },
        )
    };
    let app = support::routes()
        .route("/on", remember(true))
        .route("/off", remember(false))
        .layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    let token = browser.token();
    assert!(browser.get("/on").await.cookies()[0].ends_with("Path=/; Max-Age=7776000"));
    assert_ne!(browser.token(), token, "the old token got another Max-Age");
    browser.get("/on").await.assert_no_cookie();
    clock.advance(11 * HOUR);
    assert!(is_alive(&mut browser).await);
    assert!(browser.get("/off").await.cookies()[0].ends_with("Path=/"));
    clock.advance(30 * MINUTE);
    assert!(!is_alive(&mut browser).await);
}

#[tokio::test]
async fn a_session_that_is_too_old_to_be_remembered_no_more_ends_and_its_cookie_goes() {
    let Setup {
        clock, layer, spy, ..
    } = setup();
    let off =
        axum::routing::get(
            |session: cloakroom::Session| async move { session.set_remembered(false) },
        );
    let app = support::routes().route("/off", off).layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/remember/ada").await;
    clock.advance(20 * HOUR);
    browser.get("/off").await.assert(200, "");
    assert_eq!(browser.cookies(), Vec::<String>::new());
    assert!(spy.inner().is_empty());
    // If a login came first, the session is young, and the request does not end it.
    browser.get("/remember/ada").await;
    clock.advance(20 * HOUR);
    let mut gate = spy.hold_next(StoreCall::Replace);
    let late = tokio::spawn(browser.send("/off", &[]));
    gate.arrived().await;
    browser.get("/log_in/ada").await.assert(200, "done");
    gate.release();
    late.await.unwrap().assert(409, "");
    browser.get("/user").await.assert(200, "ada");
    browser.get("/log_out").await;
    // After a login, the session's age begins again.
    browser.get("/remember/ada").await;
    clock.advance(20 * HOUR);
    let both = axum::routing::get(|session: cloakroom::Session| async move {
        session.set_remembered(false)?;
        session.log_in("ada")
    });
    let app = support::routes().route("/both", both).layer(
        support::builder(spy.clone())
            .idle_timeout(30 * MINUTE)
            .clock(clock.clone())
            .build()
            .unwrap(),
    );
    let mut again = Browser::new(&app);
    again.adopt(&browser);
    again.get("/both").await.assert(200, "");
    again.get("/user").await.assert(200, "ada");
}

#[tokio::test]
async fn a_layer_with_shorter_timeouts_shortens_sessions_at_their_next_request() {
    let clock = TestClock::new();
    let store = MemoryStore::new();
    let layer = |idle| {
        app(builder(store.clone())
            .idle_timeout(30 * MINUTE)
            .clock(clock.clone())
            .idle_timeout(idle)
            .build()
            .unwrap())
    };
    let (long, short) = (layer(2 * HOUR), layer(10 * MINUTE));
    let reply = Browser::new(&long).get("/insert/theme/dark").await;
    let mut browser = Browser::new(&short);
    browser.keep(&reply);
    clock.advance(HOUR);
    assert!(is_alive(&mut browser).await);
    clock.advance(10 * MINUTE);
    assert!(!is_alive(&mut browser).await);
}

#[tokio::test]
async fn the_end_of_a_session_can_be_asked_for() {
    let Setup { clock, layer, .. } = setup();
    let expires_at = axum::routing::get(|session: cloakroom::Session| async move {
        Ok::<_, cloakroom::SessionError>(format!(
            "{:?}",
            session.expires_at().map(|end| end.as_millis())
        ))
    });
    let app = support::routes()
        .route("/expires_at", expires_at)
        .layer(layer);
    let mut browser = Browser::new(&app);
    assert_eq!(browser.get("/expires_at").await.body, "None");
    let now = cloakroom::Clock::now(&clock);
    browser.get("/insert/theme/dark").await;
    assert_eq!(
        browser.get("/expires_at").await.body,
        format!("{:?}", Some((now + 30 * MINUTE).as_millis()))
    );
}

#[tokio::test]
async fn a_clock_may_look_at_the_session_when_it_is_asked() {
    /// An example is an application that keeps a time zone with the session.
    #[derive(Clone, Debug, Default)]
    struct Looking {
        clock: TestClock,
        session: Arc<Mutex<Option<Session>>>,
    }

    impl Clock for Looking {
        fn now(&self) -> Timestamp {
            if let Some(session) = self.session.lock().unwrap().take() {
                let theme = session.get::<String>("theme").unwrap();
                assert_eq!(theme.as_deref(), Some("dark"));
            }
            self.clock.now()
        }
    }

    let clock = Looking::default();
    let kept = clock.session.clone();
    let keep = axum::routing::get(async move |session: Session| {
        *kept.lock().unwrap() = Some(session);
    });
    let layer = builder(MemoryStore::new())
        .idle_timeout(30 * MINUTE)
        .clock(clock.clone())
        .build();
    let app = support::routes().route("/keep", keep).layer(layer.unwrap());
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    browser.get("/keep").await.assert(200, "");
    assert!(clock.session.lock().unwrap().is_none(), "it was asked");
}

/// A handler that takes this long. If `waits` is set, it also waits once, so that the layer can
/// work at the same time.
fn slow(clock: &TestClock, takes: std::time::Duration, waits: bool) -> axum::routing::MethodRouter {
    let clock = clock.clone();
    axum::routing::get(
        move |session: Session, Path(what): Path<String>| async move {
            if waits {
                tokio::task::yield_now().await;
            }
            clock.advance(takes);
            match &*what {
                "insert" => session.insert("slow", "kept")?,
                "log_in" => session.log_in("ada")?,
                "passive" => session.skip_touch()?,
                _ => drop(session.get::<String>("theme")?),
            }
            Ok::<_, cloakroom::SessionError>(())
        },
    )
}

#[tokio::test]
async fn the_use_of_a_session_that_is_nearly_over_counts_from_the_requests_arrival() {
    for waits in [false, true] {
        for lazy in [false, true] {
            for what in ["insert", "read", "log_in"] {
                let clock = TestClock::new();
                let mut layer = builder(MemoryStore::new())
                    .clock(clock.clone())
                    .idle_timeout(30 * MINUTE);
                if lazy {
                    layer = layer.lazy(true);
                }
                let app = support::routes()
                    .route("/slow/{what}", slow(&clock, 5 * MINUTE, waits))
                    .layer(layer.build().unwrap());
                let mut browser = Browser::new(&app);
                browser.get("/insert/theme/dark").await;
                clock.advance(27 * MINUTE);
                browser.get(&format!("/slow/{what}")).await.assert(200, "");
                assert!(is_alive(&mut browser).await, "{what} {waits} {lazy}");
                clock.advance(29 * MINUTE);
                let keys = if what == "insert" {
                    "slow,theme"
                } else {
                    "theme"
                };
                browser.get("/keys").await.assert(200, keys);
            }
        }
    }
}

/// The layer touches the session while the upload runs.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_nearly_over_is_touched_while_its_handler_waits() {
    let Setup {
        clock, layer, spy, ..
    } = setup();
    let go_on = Arc::new(Notify::new());
    let signal = go_on.clone();
    let upload = axum::routing::get(move |session: Session| async move {
        signal.notified().await;
        session.insert("slow", "kept")
    });
    let app = support::routes().route("/upload", upload).layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    clock.advance(27 * MINUTE);
    spy.take_calls();
    let upload = tokio::spawn(browser.send("/upload", &[]));
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(spy.take_calls(), [StoreCall::Load]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(spy.take_calls(), [StoreCall::Touch]);
    clock.advance(5 * MINUTE);
    assert!(is_alive(&mut browser).await);
    clock.advance(20 * MINUTE);
    go_on.notify_one();
    upload.await.unwrap().assert(200, "");
    browser.get("/keys").await.assert(200, "slow,theme");
}

#[tokio::test]
async fn a_slow_request_does_not_bring_back_what_ended_long_ago() {
    for waits in [false, true] {
        let clock = TestClock::new();
        let app = support::routes()
            .route("/slow/{what}", slow(&clock, 45 * MINUTE, waits))
            .layer(
                builder(MemoryStore::new())
                    .clock(clock.clone())
                    .build()
                    .unwrap(),
            );
        let mut browser = Browser::new(&app);
        browser.get("/insert/theme/dark").await;
        clock.advance(27 * MINUTE);
        browser.get("/slow/insert").await.assert(200, "");
        assert!(!is_alive(&mut browser).await);
    }
}

#[tokio::test]
async fn a_passive_request_keeps_no_session_alive_that_is_nearly_over() {
    let Setup {
        clock, layer, spy, ..
    } = setup();
    let app = support::routes()
        .route("/slow/{what}", slow(&clock, MINUTE, false))
        .layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    spy.take_calls();
    for _ in 0..30 {
        browser.get("/slow/passive").await.assert(200, "");
    }
    assert!(!spy.take_calls().contains(&StoreCall::Touch));
    assert!(!is_alive(&mut browser).await);
}

/// The handler's extractors may wait for a body or for a database.
#[tokio::test(start_paused = true)]
async fn a_passive_request_that_waits_first_keeps_no_session_alive_that_is_nearly_over() {
    let Setup {
        clock, layer, spy, ..
    } = setup();
    let poll = axum::routing::get(|session: Session| async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        session.skip_touch()
    });
    let app = support::routes().route("/poll", poll).layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    clock.advance(21 * MINUTE);
    for _ in 0..9 {
        browser.get("/poll").await.assert(200, "");
        clock.advance(MINUTE);
    }
    assert!(!spy.take_calls().contains(&StoreCall::Touch));
    assert!(!is_alive(&mut browser).await);
}

/// A passive request writes between the upload's load and its touch.
#[tokio::test(start_paused = true)]
async fn the_touch_of_a_slow_request_looks_again_where_another_has_written() {
    let Setup {
        clock, layer, spy, ..
    } = setup();
    let upload = axum::routing::get(|session: Session| async move {
        tokio::time::sleep(10 * MINUTE).await;
        session.insert("slow", "kept")
    });
    let poll = axum::routing::get(|session: Session| async move {
        session.skip_touch()?;
        session.insert("poll", "written")
    });
    let app = support::routes()
        .route("/upload", upload)
        .route("/poll", poll)
        .layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    clock.advance(27 * MINUTE);
    let upload = tokio::spawn(browser.send("/upload", &[]));
    tokio::task::yield_now().await;
    browser.get("/poll").await.assert(200, "");
    spy.take_calls();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        spy.take_calls(),
        [StoreCall::Touch, StoreCall::Load, StoreCall::Touch]
    );
    clock.advance(15 * MINUTE);
    upload.await.unwrap().assert(200, "");
    browser.get("/keys").await.assert(200, "poll,slow,theme");
}

/// A passive request loads, then a click touches the session, and then the passive request writes.
async fn a_passive_write_and_a_click(store: impl SessionStore, touch_first: bool) {
    let clock = TestClock::new();
    let spy = FaultyStore::new(store);
    let poll = axum::routing::get(|session: Session| async move {
        session.skip_touch()?;
        session
            .update("polls", |n: Option<u64>| n.unwrap_or(0) + 1)
            .map(drop)
    });
    let layer = builder(spy.clone())
        .idle_timeout(30 * MINUTE)
        .clock(clock.clone())
        .build()
        .unwrap();
    let app = support::routes().route("/poll", poll).layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    clock.advance(15 * MINUTE);
    let held = match touch_first {
        true => (StoreCall::Replace, "/poll", "/keys"),
        false => (StoreCall::Touch, "/keys", "/poll"),
    };
    let mut gate = spy.hold_next(held.0);
    let late = tokio::spawn(browser.send(held.1, &[]));
    gate.arrived().await;
    assert_eq!(browser.get(held.2).await.status.as_u16(), 200);
    gate.release();
    assert_eq!(late.await.unwrap().status.as_u16(), 200);
    // The click was 29 minutes ago. Since then nobody has used the session.
    clock.advance(29 * MINUTE);
    assert!(is_alive(&mut browser).await, "the click was forgotten");
    browser.get("/get/polls").await.assert(200, "1");
}

#[tokio::test]
async fn a_passive_write_neither_undoes_nor_swallows_a_clicks_touch_in_memory() {
    for touch_first in [true, false] {
        a_passive_write_and_a_click(MemoryStore::new(), touch_first).await;
    }
}

#[tokio::test]
async fn a_passive_write_neither_undoes_nor_swallows_a_clicks_touch_in_sqlite() {
    for touch_first in [true, false] {
        let store = cloakroom::SqliteStore::open(":memory:").await.unwrap();
        a_passive_write_and_a_click(store, touch_first).await;
    }
}
