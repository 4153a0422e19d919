//! Loading when an extractor first asks.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::routing::get;
use cloakroom::testing::{Fault, FaultyStore};
use cloakroom::{ErrorKind, MemoryStore, Session, SessionError, TestClock};
use support::{Browser, builder, routes};

fn setup() -> (FaultyStore<MemoryStore>, Router, TestClock) {
    async fn unloaded(request: Request) -> Result<String, SessionError> {
        let session = Session::from_extensions(request.extensions())?;
        for error in [
            session.get::<String>("theme").map(drop).unwrap_err(),
            session.insert("theme", "light").unwrap_err(),
            session.user().map(drop).unwrap_err(),
            session.destroy().unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::NotLoaded);
            assert!(error.to_string().contains("Session::load"), "{error}");
        }
        let (first, second) = tokio::join!(session.load(), session.load());
        first.and(second)?;
        Ok(session.get("theme")?.unwrap_or_default())
    }
    let spy = FaultyStore::new(MemoryStore::new());
    let clock = TestClock::new();
    let layer = builder(spy.clone())
        .clock(clock.clone())
        .lazy()
        .build()
        .unwrap();
    (
        spy,
        routes().route("/unloaded", get(unloaded)).layer(layer),
        clock,
    )
}

#[tokio::test]
async fn a_route_that_does_not_ask_for_the_session_costs_no_store_call_and_varies_on_nothing() {
    let (spy, app, clock) = setup();
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    spy.take_calls();
    clock.advance(std::time::Duration::from_secs(600));
    let reply = browser.get("/").await;
    reply.assert(200, "untouched");
    assert_eq!(reply.header("vary"), None);
    assert_eq!(spy.take_calls(), []);
}

#[tokio::test]
async fn a_route_that_asks_loads_once_and_works_as_without_lazy() {
    use cloakroom::testing::StoreCall::{Load, Remove, Replace};

    let (spy, app, _) = setup();
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    spy.take_calls();
    for (path, body, calls) in [
        ("/get/theme", "dark", &[Load][..]),
        ("/update/visits", "1", &[Load, Replace]),
        ("/log_in/ada", "done", &[Load, Replace]),
        ("/user", "ada", &[Load]),
        ("/log_out", "done", &[Load, Remove]),
        ("/get/theme", "nothing", &[]),
    ] {
        let reply = browser.get(path).await;
        reply.assert(200, body);
        assert_eq!(reply.header("vary"), Some("Cookie"), "{path}");
        assert_eq!(spy.take_calls(), calls, "{path}");
    }
}

#[tokio::test]
async fn a_store_that_is_down_spoils_only_the_routes_that_ask() {
    let (spy, app, _) = setup();
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    spy.fail(Fault::Refused);
    browser.get("/").await.assert(200, "untouched");
    let reply = browser.get("/get/theme").await;
    reply.assert(503, "");
    reply.assert_no_cookie();
    spy.recover();
    browser.get("/get/theme").await.assert(200, "dark");
}

#[tokio::test]
async fn a_session_that_is_not_loaded_says_so_until_it_is() {
    let (spy, app, _) = setup();
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    spy.take_calls();
    browser.get("/unloaded").await.assert(200, "dark");
}

#[tokio::test]
async fn a_bad_cookie_is_anonymous() {
    let (spy, app, _) = setup();
    let cookie = format!("__Host-session={}", "A".repeat(64));
    Browser::new(&app)
        .get_with("/get/theme", &[("cookie", &cookie)])
        .await
        .assert(200, "nothing");
    assert_eq!(spy.take_calls(), []);
}

#[tokio::test]
async fn a_session_that_nobody_loaded_before_the_response_is_an_error_and_no_visitor() {
    let kept = Arc::new(Mutex::new(None));
    let keep = kept.clone();
    let handler = get(move |request: Request| async move {
        let session = Session::from_extensions(request.extensions()).unwrap();
        *keep.lock().unwrap() = Some(session);
    });
    let layer = builder(MemoryStore::new()).lazy().build().unwrap();
    let app = routes().route("/keep", handler).layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await;
    browser.get("/keep").await.assert(200, "");
    let session: Session = kept.lock().unwrap().take().unwrap();
    for error in [
        session.user().unwrap_err(),
        session.load().await.unwrap_err(),
        session.get::<String>("theme").unwrap_err(),
        session.insert("theme", "dark").unwrap_err(),
        session.detach().unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Sealed);
    }
}
