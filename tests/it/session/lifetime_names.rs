//! Lifetimes by name, of visitors, and an end for one session.

use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use cloakroom::{
    Clock as _, MemoryStore, Session, SessionError, SessionLayerBuilder, TestClock, Timestamp,
};
use support::{Browser, builder, routes};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn app(
    clock: &TestClock,
    settings: impl FnOnce(SessionLayerBuilder<MemoryStore>) -> SessionLayerBuilder<MemoryStore>,
) -> Router {
    app_of(clock, MemoryStore::new(), settings)
}

fn app_of(
    clock: &TestClock,
    store: MemoryStore,
    settings: impl FnOnce(SessionLayerBuilder<MemoryStore>) -> SessionLayerBuilder<MemoryStore>,
) -> Router {
    async fn lifetime(session: Session, Path(name): Path<String>) -> Result<(), SessionError> {
        session.set_lifetime(&name)
    }
    async fn log_in(session: Session, Path(name): Path<String>) -> Result<(), SessionError> {
        session.log_in("ada")?;
        session.set_lifetime(&name)
    }
    let layer = settings(builder(store).clock(clock.clone()))
        .build()
        .unwrap();
    let ends_in = {
        let clock = clock.clone();
        move |session: Session, Path(seconds): Path<u64>| async move {
            session.ends_by(clock.now() + Duration::from_secs(seconds))
        }
    };
    let log_in_until = {
        let clock = clock.clone();
        move |session: Session, Path(seconds): Path<u64>| async move {
            session.ends_by(clock.now() + Duration::from_secs(seconds))?;
            session.log_in("ada")
        }
    };
    routes()
        .route("/lifetime/{name}", get(lifetime))
        .route("/log_in_with/{name}", get(log_in))
        .route("/ends_in/{seconds}", get(ends_in))
        .route("/log_in_until/{seconds}", get(log_in_until))
        .route(
            "/ended",
            get(|session: Session| async move { session.ends_by(Timestamp::from_millis(0)) }),
        )
        .layer(layer)
}

async fn is_alive(browser: &mut Browser) -> bool {
    browser.get("/get/theme").await.body == "dark"
}

async fn visitor(app: &Router) -> Browser {
    let mut browser = Browser::new(app);
    browser.get("/insert/theme/dark").await.assert(200, "done");
    browser
}

#[tokio::test]
async fn a_visitors_session_ends_after_20_minutes_and_a_users_after_30() {
    let clock = TestClock::new();
    let app = app(&clock, |it| it);
    let mut bot = visitor(&app).await;
    let mut user = visitor(&app).await;
    user.get("/log_in/ada").await;
    clock.advance(20 * MINUTE);
    assert!(!is_alive(&mut bot).await);
    assert!(is_alive(&mut user).await);
    clock.advance(30 * MINUTE - Duration::from_millis(1));
    assert!(is_alive(&mut user).await);
    clock.advance(30 * MINUTE);
    assert!(!is_alive(&mut user).await);
}

#[tokio::test]
async fn visitors_have_the_timeouts_of_all_unless_they_have_their_own() {
    let clock = TestClock::new();
    let same = app(&clock, |it| it.idle_timeout(2 * HOUR));
    let own = app(&clock, |it| {
        it.lifetime("visitor", 5 * MINUTE, HOUR)
            .idle_timeout(2 * HOUR)
    });
    let mut of_same = visitor(&same).await;
    let mut of_own = visitor(&own).await;
    clock.advance(5 * MINUTE);
    assert!(!is_alive(&mut of_own).await);
    clock.advance(110 * MINUTE);
    assert!(is_alive(&mut of_same).await);
}

#[tokio::test]
async fn a_visitors_absolute_timeout_starts_again_with_a_login() {
    let clock = TestClock::new();
    let app = app(&clock, |it| {
        it.lifetime("visitor", 10 * MINUTE, 30 * MINUTE)
    });
    let mut bot = visitor(&app).await;
    let mut user = visitor(&app).await;
    for _ in 0..3 {
        assert!(is_alive(&mut bot).await);
        assert!(is_alive(&mut user).await);
        clock.advance(9 * MINUTE);
    }
    user.get("/log_in/ada").await.assert(200, "done");
    clock.advance(5 * MINUTE);
    assert!(!is_alive(&mut bot).await);
    clock.advance(20 * MINUTE);
    assert!(is_alive(&mut user).await);
}

#[tokio::test]
async fn a_lifetime_of_the_applications_own_holds_for_the_sessions_that_got_it() {
    let clock = TestClock::new();
    let app = app(&clock, |it| it.lifetime("kiosk", 2 * MINUTE, 10 * MINUTE));
    let mut kiosk = Browser::new(&app);
    kiosk.get("/log_in_with/kiosk").await.assert(200, "");
    let mut idle = Browser::new(&app);
    idle.get("/log_in_with/kiosk").await.assert(200, "");
    let mut desk = Browser::new(&app);
    desk.get("/log_in/ada").await;
    for _ in 0..5 {
        clock.advance(MINUTE);
        kiosk.get("/user").await.assert(200, "ada");
    }
    idle.get("/user").await.assert(401, "");
    for _ in 0..5 {
        clock.advance(MINUTE);
        kiosk.get("/get/x").await;
    }
    kiosk.get("/user").await.assert(401, "");
    desk.get("/user").await.assert(200, "ada");
}

#[tokio::test]
async fn only_a_persistent_lifetime_has_a_cookie_that_outlives_the_browser() {
    let clock = TestClock::new();
    let app = app(&clock, |it| {
        it.lifetime("kiosk", MINUTE, HOUR)
            .persistent_lifetime("tenant", HOUR, DAY)
    });
    let mut browser = Browser::new(&app);
    let reply = browser.get("/log_in_with/tenant").await;
    assert!(reply.cookies()[0].contains("Max-Age=86400"), "{reply:?}");
    let reply = browser.get("/lifetime/kiosk").await;
    assert!(!reply.cookies()[0].contains("Max-Age"), "{reply:?}");
    let reply = browser.get("/lifetime/remembered").await;
    assert!(reply.cookies()[0].contains("Max-Age=7776000"), "{reply:?}");
    browser.get("/lifetime/remembered").await.assert_no_cookie();
}

#[tokio::test]
async fn a_name_that_the_layer_does_not_know_is_an_error() {
    let app = app(&TestClock::new(), |it| it);
    let mut browser = visitor(&app).await;
    browser.get("/lifetime/kiosk").await.assert(500, "");
    assert!(is_alive(&mut browser).await);
}

#[tokio::test]
async fn a_session_with_a_name_of_another_version_has_the_timeouts_of_the_browser() {
    let clock = TestClock::new();
    let store = MemoryStore::new();
    let before = app_of(&clock, store.clone(), |it| it.lifetime("kiosk", HOUR, HOUR));
    let after = app_of(&clock, store, |it| it);
    let mut browser = Browser::new(&before);
    browser.get("/log_in_with/kiosk").await;
    let mut moved = Browser::new(&after);
    moved.adopt(&browser);
    moved.get("/user").await.assert(200, "ada");
    clock.advance(31 * MINUTE);
    moved.get("/user").await.assert(401, "");
}

#[tokio::test]
async fn a_session_with_an_end_ends_then_even_if_it_is_used() {
    let clock = TestClock::new();
    let app = app(&clock, |it| it);
    let mut browser = visitor(&app).await;
    browser.get("/ends_in/600").await.assert(200, "");
    clock.advance(10 * MINUTE - Duration::from_millis(1));
    assert!(is_alive(&mut browser).await);
    browser.get("/insert/more/1").await;
    clock.advance(Duration::from_millis(1));
    assert!(!is_alive(&mut browser).await);
}

#[tokio::test]
async fn an_end_moves_no_timeout_back() {
    let clock = TestClock::new();
    let app = app(&clock, |it| it);
    let mut browser = visitor(&app).await;
    browser.get("/ends_in/864000").await;
    clock.advance(20 * MINUTE);
    assert!(!is_alive(&mut browser).await);
}

#[tokio::test]
async fn an_end_in_the_past_ends_the_session_with_the_request() {
    let app = app(&TestClock::new(), |it| it);
    let mut browser = visitor(&app).await;
    let reply = browser.get("/ended").await;
    assert!(reply.cookies()[0].contains("Max-Age=0"), "{reply:?}");
    assert!(!is_alive(&mut browser).await);
}

#[tokio::test]
async fn a_session_that_would_be_over_at_once_is_not_stored() {
    let store = MemoryStore::new();
    let app = app_of(&TestClock::new(), store.clone(), |it| it);
    let mut browser = Browser::new(&app);
    let reply = browser.get("/log_in_until/0").await;
    reply.assert(200, "");
    assert_eq!(reply.cookies(), [""; 0]);
    assert!(store.is_empty());
}

#[tokio::test]
async fn a_login_takes_an_end_back_unless_it_comes_with_one() {
    let clock = TestClock::new();
    let app = app(&clock, |it| it);
    let mut browser = visitor(&app).await;
    browser.get("/ends_in/60").await;
    browser.get("/log_in/ada").await;
    clock.advance(2 * MINUTE);
    browser.get("/user").await.assert(200, "ada");
    browser.get("/log_in_until/60").await.assert(200, "");
    browser.get("/user").await.assert(200, "ada");
    clock.advance(MINUTE);
    browser.get("/user").await.assert(401, "");
}

#[tokio::test]
async fn a_cookie_that_outlives_the_browser_ends_with_its_session() {
    let clock = TestClock::new();
    let app = app(&clock, |it| it);
    let mut browser = visitor(&app).await;
    browser.get("/ends_in/600").await;
    let reply = browser.get("/lifetime/remembered").await;
    assert!(reply.cookies()[0].contains("Max-Age=600"), "{reply:?}");
}

#[test]
fn a_lifetime_without_sense_is_an_error_of_the_builder() {
    let error = |settings: fn(SessionLayerBuilder<MemoryStore>) -> SessionLayerBuilder<_>| {
        let error = settings(builder(MemoryStore::new())).build().unwrap_err();
        error.to_string()
    };
    for (text, part) in [
        (
            error(|it| it.lifetime("", MINUTE, HOUR)),
            "lifetime: a name",
        ),
        (
            error(|it| it.lifetime("kiosk", HOUR, MINUTE)),
            "lifetime: the idle timeout of \"kiosk\" is longer",
        ),
        (
            error(|it| it.lifetime("kiosk", Duration::ZERO, MINUTE)),
            "lifetime: a session that ends at once",
        ),
        (
            error(|it| {
                it.lifetime("kiosk", MINUTE, HOUR)
                    .touch_interval(2 * MINUTE)
            }),
            "touch_interval: it must be shorter",
        ),
    ] {
        assert!(text.starts_with(part), "{text}");
    }
}
