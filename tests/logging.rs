//! What the log says, and what it never says.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::middleware::{Next, from_fn};
use cloakroom::testing::{Fault, FaultyStore, StoreCall};
use cloakroom::{MemcachedStore, MemoryStore, SessionLayer, SqliteStore, TestClock, Transport};
use http::{HeaderMap, Request};
use support::servers::Server;
use support::{Browser, app, builder, key};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

/// The log of this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn start() -> (Self, impl Drop) {
        let log = Self::default();
        let guard = tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
            .with_ansi(false)
            .with_writer(log.clone())
            .set_default();
        (log, guard)
    }

    /// What was logged since the last time this was asked.
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }

    #[track_caller]
    fn assert(&self, level: &str, event: &str) -> String {
        let log = self.take();
        let is_there = log.lines().any(|line| {
            line.contains(&format!(" {level} "))
                && line.contains("cloakroom:")
                && line.contains(&format!("event=\"{event}\""))
        });
        assert!(is_there, "no {level} {event} in:\n{log}");
        log
    }

    /// Whatever the reason is, it is told where a session is loaded.
    #[track_caller]
    fn assert_rejected(&self) -> String {
        let log = self.assert("DEBUG", "rejected");
        let mut rejections = log
            .lines()
            .filter(|line| line.contains("event=\"rejected\""));
        assert!(
            rejections.all(|line| line.contains("session_load:")),
            "{log}"
        );
        log
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_lazy_layer_tells_a_rejection_when_the_session_is_asked_for() {
    let (log, _guard) = Log::start();
    let app = app(builder(MemoryStore::new()).lazy().build().unwrap());
    let cookie = format!("__Host-session={}", "A".repeat(64));
    let mut browser = Browser::new(&app);
    browser.get_with("/get/theme", &[("cookie", &cookie)]).await;
    assert!(log.assert_rejected().contains("bad signature"));
}

#[tokio::test]
async fn the_life_of_a_session_is_told() {
    let (log, _guard) = Log::start();
    let clock = TestClock::new();
    let spy = FaultyStore::new(MemoryStore::new());
    let app = app(builder(spy.clone()).clock(clock.clone()).build().unwrap());
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    log.assert("DEBUG", "created");
    let id = browser.get("/id").await.body;
    let id = id
        .trim_start_matches("Some(RecordId(")
        .trim_end_matches("))");
    assert!(
        log.assert("TRACE", "loaded").contains(id),
        "the record id is not told"
    );
    let old = browser.clone();
    browser.get("/regenerate").await;
    log.assert("DEBUG", "regenerated");
    old.clone().get("/").await;
    assert!(log.assert_rejected().contains("the token was replaced"));

    // A conflict, and a write of a session that was ended meanwhile.
    let mut gate = spy.hold_next(StoreCall::Replace);
    let slow = tokio::spawn(browser.send("/update/visits", &[]));
    gate.arrived().await;
    browser.get("/insert/theme/light").await;
    gate.release();
    slow.await.unwrap();
    log.assert("DEBUG", "conflict");
    let mut gate = spy.hold_next(StoreCall::Replace);
    let slow = tokio::spawn(browser.send("/update/visits", &[]));
    gate.arrived().await;
    let old = browser.clone();
    browser.get("/log_out").await;
    log.assert("DEBUG", "destroyed");
    gate.release();
    slow.await.unwrap();
    assert!(
        log.assert("INFO", "dropped_write")
            .contains("the session was ended")
    );
    old.clone().get("/").await;
    assert!(log.assert_rejected().contains("no such session"));

    let cookie = format!("__Host-session={}", "A".repeat(64));
    browser.get_with("/", &[("cookie", &cookie)]).await;
    assert!(log.assert_rejected().contains("bad signature"));
    browser.get("/insert/theme/dark").await;
    let other = Browser::new(&app)
        .get("/insert/theme/dark")
        .await
        .token()
        .unwrap();
    log.take();
    browser
        .send("/", &[("cookie", &format!("__Host-session={other}"))])
        .await;
    assert!(log.assert_rejected().contains("two different tokens"));

    clock.advance(Duration::from_secs(30 * 60));
    browser.get("/").await;
    log.assert("DEBUG", "expired");
}

#[tokio::test]
async fn failures_are_told_with_their_cause() {
    let (log, _guard) = Log::start();
    let spy = FaultyStore::new(MemoryStore::new());
    let mut browser = Browser::new(&app(SessionLayer::new(spy.clone(), key())));
    browser.get("/insert/theme/dark").await;
    spy.fail(Fault::Refused);
    browser.get("/").await.assert(503, "");
    let line = log.assert("ERROR", "store_error");
    assert!(
        line.contains("operation=\"load\"") && line.contains("the test's store is down"),
        "{line}"
    );
    assert!(
        line.contains("connection refused"),
        "the source is lost: {line}"
    );

    let layer = builder(MemoryStore::new())
        .random(|_| Err("no entropy"))
        .build()
        .unwrap();
    Browser::new(&app(layer))
        .get("/insert/theme/dark")
        .await
        .assert(500, "");
    assert!(log.assert("ERROR", "refused").contains("no entropy"));

    Browser::new(&support::routes())
        .get("/get/theme")
        .await
        .assert(500, "");
    let line = log.take();
    assert!(
        line.contains("ERROR") && line.contains("add a `SessionLayer`"),
        "{line}"
    );
}

#[tokio::test]
async fn a_corrupt_record_is_a_warning_without_its_content() {
    let (log, _guard) = Log::start();
    let pool = sqlx::SqlitePool::connect("sqlite::memory:").await.unwrap();
    let store = SqliteStore::new(pool.clone());
    store.migrate().await.unwrap();
    let mut browser = Browser::new(&app(SessionLayer::new(store, key())));
    browser.get("/insert/diary/dear%20diary").await;
    let good: Vec<u8> = sqlx::query_scalar("SELECT record FROM cloakroom_sessions")
        .fetch_one(&pool)
        .await
        .unwrap();
    log.take();
    let other_format = [&[9], &good[1..]].concat();
    for (bytes, reason) in [
        (vec![], "it is empty"),
        (other_format, "it has format 9"),
        (good[..4].to_vec(), "it is cut short"),
        (good[..good.len() - 1].to_vec(), "its checksum is wrong"),
    ] {
        sqlx::query("UPDATE cloakroom_sessions SET record = ?")
            .bind(bytes)
            .execute(&pool)
            .await
            .unwrap();
        browser.get("/").await.assert(200, "untouched");
        let line = log.assert("WARN", "corrupt_record");
        assert!(line.contains(reason), "{line}");
        assert!(!line.contains("dear diary"), "{line}");
    }
}

#[tokio::test]
async fn the_whole_log_holds_no_token_and_no_data() {
    let (log, _guard) = Log::start();
    let spy = FaultyStore::new(MemoryStore::new());
    let app = app(SessionLayer::new(spy.clone(), key()));
    let mut browser = Browser::new(&app);
    let mut tokens = Vec::new();
    for path in [
        "/insert/diary/dear%20diary",
        "/regenerate",
        "/log_in/ada",
        "/update/diary",
        "/fail/insert",
        "/get/diary",
        "/remove/diary",
        "/log_out",
    ] {
        browser.get(path).await;
        tokens.extend(
            browser
                .cookies()
                .iter()
                .map(|cookie| cookie.split_once('=').unwrap().1.to_owned()),
        );
    }
    spy.fail(Fault::Refused);
    browser.get("/insert/diary/dear%20diary").await;
    let log = log.take();
    assert!(
        log.contains("session_load") && log.contains("session_commit"),
        "the spans are missing: {log}"
    );
    assert!(!log.contains("dear diary"), "{log}");
    assert!(tokens.len() >= 7);
    for token in tokens {
        // What follows the record id is the secret and its signature.
        for start in (24..token.len() - 8).step_by(8) {
            let part = &token[start..start + 8];
            assert!(
                !log.contains(part),
                "{part} of {token} is in the log:\n{log}"
            );
        }
    }
}

/// In processes of their own, since the log is that of all tests in one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_or_a_value_in_the_log_of_any_test_makes_its_request_panic() {
    const CHILD: &str = "CLOAKROOM_TEST_LEAK";
    if let Ok(leak) = std::env::var(CHILD) {
        return leaks(&leak).await;
    }
    for (leak, is_secret) in [
        ("token", true),
        ("a part of the token", true),
        ("new token", true),
        ("bearer token", true),
        ("value", true),
        ("value on another thread", true),
        ("value without tracing", true),
        ("value of an earlier request", true),
        ("record id", false),
        ("key", false),
    ] {
        let name = "a_token_or_a_value_in_the_log_of_any_test_makes_its_request_panic";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, leak)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr);
        assert_eq!(!child.status.success(), is_secret, "{leak}: {said}");
        assert_eq!(said.contains("is in the log"), is_secret, "{leak}: {said}");
    }
}

/// Requests around which something is logged.
async fn leaks(leak: &str) {
    fn say(text: &str) {
        tracing::trace!(target: "an application", "{text}");
    }
    let what = leak.to_owned();
    let leaking = from_fn(move |request: Request<Body>, next: Next| {
        let what = what.clone();
        async move {
            let header = |headers: &HeaderMap, name: &str| {
                let value = headers.get(name).map(|value| value.to_str().unwrap());
                value.unwrap_or_default().to_owned()
            };
            let cookie = header(request.headers(), "cookie");
            let token = cookie.rsplit('=').next().unwrap_or_default();
            let response = next.run(request).await;
            match &*what {
                "token" => say(&cookie),
                "a part of the token" => say(token.get(30..50).unwrap_or_default()),
                "new token" => say(&header(response.headers(), "set-cookie")),
                "bearer token" => say(&header(response.headers(), "x-session-token")),
                "value" | "value of an earlier request" => say("it was: dear diary"),
                "value on another thread" => {
                    let logs = || say("it was: dear diary");
                    std::thread::spawn(logs).join().unwrap();
                }
                "value without tracing" => log::info!("it was: dear diary"),
                "record id" => say(token.get(..22).unwrap_or_default()),
                "key" => say("the key is diary"),
                other => panic!("{other}"),
            }
            response
        }
    });
    let transport = match leak {
        "bearer token" => Transport::Bearer,
        _ => Transport::Cookie,
    };
    let layer = builder(MemoryStore::new())
        .transport(transport)
        .build()
        .unwrap();
    let mut quiet = Browser::new(&app(layer.clone()));
    let mut browser = Browser::new(&app(layer).layer(leaking));
    if leak == "value of an earlier request" {
        quiet.get("/insert/diary/dear%20diary").await;
        browser.get("/").await;
    } else {
        browser.get("/insert/diary/dear%20diary").await;
        browser.get("/get/diary").await.assert(200, "dear diary");
    }
}

#[tokio::test]
async fn an_error_that_a_handler_answers_with_is_told_once_if_it_is_the_servers_fault() {
    let (log, _guard) = Log::start();
    let app = app(SessionLayer::new(MemoryStore::new(), key()));
    let mut browser = Browser::new(&app);
    browser.get("/user").await.assert(401, "");
    assert!(!log.take().contains("refused"));
    browser.get("/insert/visits/many").await;
    log.take();
    browser.get("/update/visits").await.assert(500, "");
    let told = log.assert("ERROR", "refused");
    assert_eq!(told.matches("refused").count(), 1, "{told}");
    assert!(told.contains("a value of another type"), "{told}");
    assert!(!told.contains("many"), "{told}");
}

#[tokio::test]
async fn what_happens_outside_of_requests_is_told_as_well() {
    let (log, _guard) = Log::start();
    let spy = FaultyStore::new(MemoryStore::new());
    let layer = SessionLayer::new(spy.clone(), key());
    let sessions = layer.sessions();
    let app = app(layer);
    for _ in 0..2 {
        Browser::new(&app).get("/log_in/ada").await;
    }
    log.take();
    assert_eq!(sessions.revoke_all("grace").await.unwrap(), 0);
    assert!(!log.take().contains("destroyed"));
    assert_eq!(sessions.revoke_all("ada").await.unwrap(), 2);
    let told = log.assert("DEBUG", "destroyed");
    assert!(told.contains("count=2") && !told.contains("ada"), "{told}");
    spy.fail(Fault::Refused);
    sessions.purge_expired().await.unwrap_err();
    let told = log.assert("ERROR", "store_error");
    assert!(told.contains("operation=\"purge_expired\""), "{told}");
}

#[tokio::test]
async fn a_value_that_memcached_does_not_take_is_told_with_what_to_do_and_the_session_lives_on() {
    let server = Server::memcached(&["-I", "512k"]);
    let url = format!("memcache://{}", server.address());
    let store = MemcachedStore::open(&url).await.unwrap();
    let layer = builder(store).data_limit(10_000_000).build().unwrap();
    let mut browser = Browser::new(&app(layer));
    let large = "x".repeat(50_000);
    for n in 0..10 {
        let path = format!("/insert/large-{n}/{large}");
        browser.get(&path).await.assert(200, "done");
    }
    let (log, _guard) = Log::start();
    let path = format!("/insert/too-much/{large}");
    browser.get(&path).await.assert(503, "");
    let said = log.take();
    assert!(said.contains("lower the layer's data limit"), "{said}");
    browser.get("/get/large-9").await.assert(200, &large);
}
