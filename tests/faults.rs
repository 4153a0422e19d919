//! Stores and generators that fail, requests that are dropped, and handlers that panic.

#![allow(clippy::unwrap_used)]

mod support;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use cloakroom::{
    MemoryStore, Session, SessionError, SessionLayer, SessionStore, SqliteStore, TestClock,
};
use http::Request;
use http::header::COOKIE;
use support::{Browser, Spy, app, builder, key, routes};
use tower::{Layer, ServiceExt};

fn setup() -> (Spy<MemoryStore>, Browser) {
    let spy = Spy::new(MemoryStore::new());
    let layer = builder(spy.clone())
        .store_timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    let browser = Browser::new(&app(layer));
    (spy, browser)
}

#[tokio::test]
async fn while_the_store_is_down_requests_are_answered_503_and_the_cookie_is_good_afterwards() {
    let (spy, mut browser) = setup();
    browser.get("/log_in/ada").await;
    let cookies = browser.cookies();
    for trouble in [Spy::is_down, Spy::hangs] {
        trouble(&spy);
        for path in [
            "/",
            "/get/theme",
            "/user",
            "/insert/theme/dark",
            "/log_out",
            "/regenerate",
        ] {
            spy.calls();
            let started = Instant::now();
            let reply = browser.get(path).await;
            reply.assert(503, "");
            reply.assert_no_cookie();
            assert_eq!(reply.header("retry-after"), Some("1"));
            assert_eq!(reply.header("cache-control"), Some("no-store"));
            assert_eq!(
                spy.calls(),
                ["load"],
                "the handler ran, or the store was asked again"
            );
            assert!(
                started.elapsed() < Duration::from_secs(1),
                "{path} took {:?}",
                started.elapsed()
            );
        }
        // Visitors without a session do not notice.
        browser.clone().get_with("/", &[]).await;
        assert_eq!(browser.cookies(), cookies);
    }
    spy.is_well();
    browser.get("/user").await.assert(200, "ada");
}

#[tokio::test]
async fn a_visitor_does_not_notice_that_the_store_is_down_until_something_has_to_be_stored() {
    let (spy, mut browser) = setup();
    spy.is_down();
    browser.get("/").await.assert(200, "untouched");
    browser.get("/get/theme").await.assert(200, "nothing");
    let reply = browser.get("/insert/theme/dark").await;
    reply.assert(503, "");
    reply.assert_no_cookie();
}

#[tokio::test]
async fn a_write_that_failed_is_answered_503_and_the_session_is_as_before() {
    for (path, call) in [
        ("/insert/theme/light", "replace"),
        ("/update/visits", "replace"),
        ("/regenerate", "replace"),
        ("/log_in/eve", "replace"),
        ("/log_out", "remove"),
    ] {
        let (spy, mut browser) = setup();
        browser.get("/insert/theme/dark").await;
        spy.fails(call);
        let reply = browser.get(path).await;
        reply.assert(503, "");
        reply.assert_no_cookie();
        spy.is_well();
        browser.get("/get/theme").await.assert(200, "dark");
        browser.get("/user").await.assert(401, "");
    }
}

#[tokio::test]
async fn when_the_answer_to_a_write_is_lost_the_record_has_the_old_token_or_the_new_one() {
    for path in ["/regenerate", "/log_in/ada"] {
        let (spy, mut browser) = setup();
        browser.get("/insert/theme/dark").await;
        spy.loses_the_answer("replace");
        let reply = browser.get(path).await;
        reply.assert(503, "");
        reply.assert_no_cookie();
        spy.is_well();
        // The write took effect and nobody has its token: the old one is dead, and no third one came about.
        browser.get("/get/theme").await.assert(200, "nothing");
        assert_eq!(spy.store.len(), 1);
    }
}

#[tokio::test]
async fn a_failed_touch_spoils_no_answer() {
    let clock = TestClock::new();
    let spy = Spy::new(MemoryStore::new());
    let mut browser = Browser::new(&app(builder(spy.clone())
        .clock(clock.clone())
        .build()
        .unwrap()));
    browser.get("/remember/ada").await;
    clock.advance(Duration::from_secs(5 * 24 * 60 * 60));
    spy.fails("touch");
    let reply = browser.get("/user").await;
    reply.assert(200, "ada");
    reply.assert_no_cookie();
    spy.is_well();
    spy.calls();
    browser.get("/user").await.assert(200, "ada");
    assert_eq!(spy.calls(), ["load", "touch"]);
}

#[tokio::test]
async fn a_random_generator_that_fails_is_an_error_and_never_a_token() {
    let spy = Spy::new(MemoryStore::new());
    let layer = builder(spy.clone())
        .random(|_| Err("no entropy"))
        .build()
        .unwrap();
    let mut browser = Browser::new(&app(layer));
    for path in ["/insert/theme/dark", "/log_in/ada"] {
        let reply = browser.get(path).await;
        reply.assert(500, "");
        reply.assert_no_cookie();
    }
    assert_eq!(spy.calls(), Vec::<&str>::new());

    let good = Browser::new(&app(SessionLayer::new(spy.clone(), key())))
        .get("/insert/theme/dark")
        .await;
    browser.keep(&good);
    for path in ["/regenerate", "/log_in/ada"] {
        let reply = browser.get(path).await;
        reply.assert(500, "");
        reply.assert_no_cookie();
    }
    browser.get("/get/theme").await.assert(200, "dark");
}

#[tokio::test]
async fn a_random_generator_that_repeats_itself_overwrites_no_session() {
    let store = MemoryStore::new();
    let fill = |bytes: &mut [u8]| {
        bytes.fill(1);
        Ok::<_, std::io::Error>(())
    };
    let app = app(builder(store.clone()).random(fill).build().unwrap());
    let mut first = Browser::new(&app);
    first.get("/insert/theme/dark").await.assert(200, "done");
    let reply = Browser::new(&app).get("/insert/theme/light").await;
    reply.assert(500, "");
    reply.assert_no_cookie();
    first.get("/get/theme").await.assert(200, "dark");
    assert_eq!(store.len(), 1);
}

#[tokio::test]
async fn a_memory_store_that_is_full_refuses_new_sessions_and_keeps_the_others() {
    let mut browsers = Vec::new();
    let app = app(SessionLayer::new(MemoryStore::with_max_sessions(2), key()));
    for _ in 0..2 {
        let mut browser = Browser::new(&app);
        browser.get("/insert/theme/dark").await.assert(200, "done");
        browsers.push(browser);
    }
    let mut third = Browser::new(&app);
    third.get("/insert/theme/dark").await.assert(503, "");
    browsers[0]
        .get("/insert/theme/light")
        .await
        .assert(200, "done");
    browsers[0].get("/log_out").await.assert(200, "done");
    third.get("/insert/theme/dark").await.assert(200, "done");
    browsers[1].get("/get/theme").await.assert(200, "dark");
}

/// Every byte of a stored record, flipped: no session, nothing overwritten, nothing deleted.
#[tokio::test]
async fn a_corrupt_record_is_no_session_and_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sessions.sqlite3");
    let store = SqliteStore::open(&path).await.unwrap();
    let app = app(SessionLayer::new(store, key()));
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await;
    browser.get("/insert/theme/dark").await;

    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let read = || {
        sqlx::query_scalar::<_, Vec<u8>>("SELECT record FROM cloakroom_sessions ORDER BY rowid")
            .fetch_all(&pool)
    };
    let write = |bytes: Vec<u8>| {
        sqlx::query("UPDATE cloakroom_sessions SET record = ?")
            .bind(bytes)
            .execute(&pool)
    };
    let good = read().await.unwrap().remove(0);

    let flipped = (0..good.len()).map(|index| {
        let mut bytes = good.clone();
        bytes[index] ^= 1 << (index % 8);
        bytes
    });
    let others = [
        vec![],
        vec![1],
        vec![0; 9],
        good[..good.len() - 1].to_vec(),
        [&good[..], b" "].concat(),
        vec![0xff; 4096],
    ];
    for bytes in flipped.chain(others) {
        write(bytes.clone()).await.unwrap();
        let mut visitor = browser.clone();
        visitor.get("/user").await.assert(401, "");
        assert_eq!(
            read().await.unwrap(),
            std::slice::from_ref(&bytes),
            "the corrupt record was changed"
        );
        visitor.get("/log_out").await.assert_no_cookie();
        assert_eq!(
            read().await.unwrap(),
            [bytes],
            "the corrupt record was removed"
        );
    }
    // A write starts another session beside it.
    write(vec![0; 9]).await.unwrap();
    let mut visitor = browser.clone();
    visitor.get("/insert/theme/light").await.assert(200, "done");
    assert_eq!(read().await.unwrap().len(), 2);
    assert_eq!(read().await.unwrap()[0], vec![0; 9]);
    sqlx::query("DELETE FROM cloakroom_sessions WHERE rowid > 1")
        .execute(&pool)
        .await
        .unwrap();
    write(good).await.unwrap();
    browser.get("/get/theme").await.assert(200, "dark");
}

/// A request's future, dropped after each number of polls that it can take.
#[tokio::test]
async fn a_request_that_is_dropped_at_any_await_is_written_whole_or_not_at_all() {
    /// Answers at the second poll, before and after it takes effect.
    #[derive(Clone, Debug)]
    struct Slow(MemoryStore);

    #[async_trait::async_trait]
    impl SessionStore for Slow {
        async fn load(
            &self,
            id: cloakroom::RecordId,
        ) -> Result<Option<cloakroom::Record>, cloakroom::StoreError> {
            slowly(self.0.load(id)).await
        }
        async fn insert(
            &self,
            id: cloakroom::RecordId,
            record: &cloakroom::Record,
        ) -> Result<bool, cloakroom::StoreError> {
            slowly(self.0.insert(id, record)).await
        }
        async fn replace(
            &self,
            id: cloakroom::RecordId,
            expected: cloakroom::Version,
            record: &cloakroom::Record,
        ) -> Result<cloakroom::Replaced, cloakroom::StoreError> {
            slowly(self.0.replace(id, expected, record)).await
        }
        async fn touch(
            &self,
            id: cloakroom::RecordId,
            record: &cloakroom::Record,
        ) -> Result<bool, cloakroom::StoreError> {
            slowly(self.0.touch(id, record)).await
        }
        async fn remove(&self, id: cloakroom::RecordId) -> Result<bool, cloakroom::StoreError> {
            slowly(self.0.remove(id)).await
        }
        async fn purge_expired(
            &self,
            now: cloakroom::Timestamp,
        ) -> Result<u64, cloakroom::StoreError> {
            self.0.purge_expired(now).await
        }
    }

    async fn slowly<T>(call: impl Future<Output = T>) -> T {
        tokio::task::yield_now().await;
        let answer = call.await;
        tokio::task::yield_now().await;
        answer
    }

    async fn two_changes(session: Session) -> Result<(), SessionError> {
        session.insert("first", 1)?;
        tokio::task::yield_now().await;
        session.insert("second", 2)
    }

    let mut outcomes = std::collections::BTreeSet::new();
    for path in ["/two_changes", "/log_out", "/regenerate"] {
        for polls in 0.. {
            let store = Slow(MemoryStore::new());
            let app = routes()
                .route("/two_changes", get(two_changes))
                .layer(SessionLayer::new(store.clone(), key()));
            let mut browser = Browser::new(&app);
            browser.get("/insert/theme/dark").await;
            let finished = {
                let mut request = pin!(browser.send(path, &[]));
                let mut context = Context::from_waker(Waker::noop());
                (0..polls).any(|_| matches!(request.as_mut().poll(&mut context), Poll::Ready(_)))
            };
            // The session is whole, and can be written still: no lock is held.
            let mut window = browser.clone();
            let keys = window.get("/keys").await.body;
            match path {
                "/two_changes" => {
                    assert!(["theme", "first,second,theme"].contains(&&*keys), "{keys}");
                    window.get("/update/visits").await.assert(200, "1");
                }
                _ => assert!(["theme", ""].contains(&&*keys), "{keys}"),
            }
            outcomes.insert((path, keys));
            if finished {
                break;
            }
        }
    }
    assert_eq!(
        outcomes.len(),
        6,
        "not every outcome came about: {outcomes:?}"
    );
}

#[tokio::test]
async fn a_handler_that_panics_commits_nothing_and_blocks_nobody() {
    async fn panics(session: Session) -> Result<(), SessionError> {
        session.insert("theme", "of the panic")?;
        session.log_in("eve")?;
        session.update("visits", |_: Option<u64>| panic!("in the update"))?;
        Ok(())
    }
    let spy = Spy::new(MemoryStore::new());
    let app: Router = routes()
        .route("/panic", get(panics))
        .layer(SessionLayer::new(spy.clone(), key()));
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    spy.calls();
    assert!(
        tokio::spawn(browser.send("/panic", &[]))
            .await
            .unwrap_err()
            .is_panic()
    );
    assert_eq!(spy.calls(), ["load"]);
    browser.get("/get/theme").await.assert(200, "dark");
    browser.get("/user").await.assert(401, "");
    browser.get("/update/visits").await.assert(200, "1");
}

/// As with a timeout between the layer and the handler.
#[tokio::test]
async fn an_error_of_the_inner_service_writes_nothing_but_an_end_and_is_passed_on() {
    let spy = Spy::new(MemoryStore::new());
    let layer = SessionLayer::new(spy.clone(), key());
    let app = app(layer.clone());
    let service = layer.layer(tower::service_fn(|request: Request<Body>| async move {
        let session = Session::from_extensions(request.extensions()).unwrap();
        match request.uri().path() {
            "/insert" => session.insert("theme", "late").unwrap(),
            "/log_in" => session.log_in("grace").unwrap(),
            _ => session.log_out().unwrap(),
        }
        Err::<http::Response<Body>, _>("too late")
    }));
    for (path, status) in [("/insert", 200), ("/log_in", 200), ("/log_out", 401)] {
        let mut browser = Browser::new(&app);
        browser.get("/log_in/ada").await;
        let mut request = support::request(path);
        let cookie = browser.cookies()[0].parse().unwrap();
        request.headers_mut().insert(COOKIE, cookie);
        let error = service.clone().oneshot(request).await.unwrap_err();
        assert_eq!(error, "too late");
        browser.get("/keys").await.assert(200, "");
        assert_eq!(browser.get("/user").await.status.as_u16(), status, "{path}");
    }
    // The error is passed on as well where the end cannot be written.
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await;
    spy.fails("remove");
    let mut request = support::request("/log_out");
    let cookie = browser.cookies()[0].parse().unwrap();
    request.headers_mut().insert(COOKIE, cookie);
    assert_eq!(service.oneshot(request).await.unwrap_err(), "too late");
}
