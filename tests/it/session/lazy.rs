//! A lazy layer loads the session when an extractor first asks for it.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::routing::get;
use cloakroom::testing::{Fault, FaultyStore, StoreCall};
use cloakroom::{MemoryStore, Session, SessionError, SessionErrorKind, TestClock};
use support::{Browser, builder, routes};

fn setup() -> (FaultyStore<MemoryStore>, Router, TestClock) {
    async fn unloaded(request: Request) -> Result<String, SessionError> {
        let extensions = request.extensions();
        let error = Session::from_extensions(extensions).map(drop).unwrap_err();
        assert_eq!(error.kind(), SessionErrorKind::NotLoaded);
        assert!(error.to_string().contains("Session::load_from"), "{error}");
        let (first, second) = tokio::join!(
            Session::load_from(extensions),
            Session::load_from(extensions)
        );
        first?.insert("place", "one session")?;
        assert_eq!(
            second?.get::<String>("place")?.as_deref(),
            Some("one session")
        );
        let session = Session::from_extensions(extensions)?;
        Ok(session.get("theme")?.unwrap_or_default())
    }
    let spy = FaultyStore::new(MemoryStore::new());
    let clock = TestClock::new();
    let layer = builder(spy.clone())
        .clock(clock.clone())
        .lazy(true)
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
    let cookie = format!("__Host-session={}", "A".repeat(70));
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
        *keep.lock().unwrap() = Some(request.extensions().clone());
    });
    let layer = builder(MemoryStore::new()).lazy(true).build().unwrap();
    let app = routes().route("/keep", handler).layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await;
    browser.get("/keep").await.assert(200, "");
    let extensions: http::Extensions = kept.lock().unwrap().take().unwrap();
    for session in [
        Session::from_extensions(&extensions),
        Session::load_from(&extensions).await,
    ] {
        assert_eq!(session.unwrap_err().kind(), SessionErrorKind::Sealed);
    }
}

/// A handler below two lazy layers, whose extractor loads the inner session alone.
fn two_layers() -> (FaultyStore<MemoryStore>, Router) {
    async fn outer_user(inner: Session) -> Result<String, SessionError> {
        let outer = inner.of_layer("outer").await?;
        Ok(outer
            .user()
            .map_or("nobody".to_owned(), |user| user.to_string()))
    }
    let store = FaultyStore::new(MemoryStore::new());
    let outer = builder(store.clone())
        .cookie_name("outer")
        .lazy(true)
        .build()
        .unwrap();
    let inner = builder(MemoryStore::new())
        .cookie_name("inner")
        .lazy(true)
        .build()
        .unwrap();
    let sessions = outer.sessions();
    let everywhere = get(move |inner: Session| {
        let sessions = sessions.clone();
        async move { Ok::<_, SessionError>(sessions.log_out_everywhere(&inner).await?.to_string()) }
    });
    let log_in_outer = get(async |inner: Session| inner.of_layer("outer").await?.log_in("ada"));
    let app = Router::new()
        .route("/outer_user", get(outer_user))
        .route("/log_in_outer", log_in_outer)
        .route("/everywhere", everywhere)
        .layer(inner)
        .layer(outer);
    (store, app)
}

#[tokio::test]
async fn the_session_of_a_lazy_layer_further_out_is_loaded_when_it_is_asked_for() {
    let (store, app) = two_layers();
    let mut browser = Browser::new(&app);
    browser.get("/log_in_outer").await.assert(200, "");
    store.take_calls();
    browser.get("/outer_user").await.assert(200, "ada");
    assert_eq!(store.take_calls(), [StoreCall::Load]);
    store.fail(Fault::Refused);
    browser.get("/outer_user").await.assert(503, "");
    store.recover();
    browser.get("/everywhere").await.assert(200, "1");
    browser.get("/outer_user").await.assert(200, "nobody");
}

#[tokio::test]
async fn clones_of_a_lazy_layer_share_one_session_and_one_load() {
    async fn change(session: Session) -> Result<(), SessionError> {
        session.insert("theme", "dark")
    }
    let spy = FaultyStore::new(MemoryStore::new());
    let layer = builder(spy.clone()).lazy(true).build().unwrap();
    let router = routes().route("/change", get(change));
    let mut browser = Browser::new(&router.layer(layer.clone()).layer(layer));
    browser.get("/insert/theme/light").await;
    spy.take_calls();
    browser.get("/change").await.assert(200, "");
    assert_eq!(spy.take_calls(), [StoreCall::Load, StoreCall::Replace]);
    browser.get("/get/theme").await.assert(200, "dark");
}

#[tokio::test]
async fn a_load_that_ends_after_the_response_fails_since_nobody_would_write_its_changes() {
    let spy = FaultyStore::new(MemoryStore::new());
    let (to_test, mut loads) = tokio::sync::mpsc::unbounded_channel();
    let handler = get(move |request: Request| async move {
        let extensions = request.extensions().clone();
        let load = tokio::spawn(async move { Session::load_from(&extensions).await.map(drop) });
        tokio::task::yield_now().await;
        to_test.send(load).unwrap();
    });
    let layer = builder(spy.clone()).lazy(true).build().unwrap();
    let mut browser = Browser::new(&routes().route("/late", handler).layer(layer));
    browser.get("/insert/theme/dark").await;
    let mut held = spy.hold_next(StoreCall::Load);
    browser.get("/late").await.assert(200, "");
    held.arrived().await;
    held.release();
    let load = loads.recv().await.unwrap().await.unwrap();
    assert_eq!(load.unwrap_err().kind(), SessionErrorKind::Sealed);
}
