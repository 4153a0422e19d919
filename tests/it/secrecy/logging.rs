//! What the log contains, and what it never contains.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::middleware::{Next, from_fn};
use axum::routing::get;
use cloakroom::login::{Auth, required};
use cloakroom::testing::{Fault, FaultyStore, StoreCall};
use cloakroom::{MemcachedStore, MemoryStore, SessionLayer, SqliteStore, TestClock, Transport};
use http::{HeaderMap, Request};
use support::processes::one_test;
use support::servers::Server;
use support::{Browser, app, builder, key};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::login::site::{Db, Site};

/// The log of this thread.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn start() -> (Self, impl Drop) {
        let log = Self::default();
        let guard = tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
            .with_ansi(false)
            .with_writer(log.clone())
            .set_default();
        (log, guard)
    }

    /// The log since the last time a test asked for it.
    pub(crate) fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }

    #[track_caller]
    pub(crate) fn assert(&self, level: &str, event: &str) -> String {
        let log = self.take();
        let is_there = log.lines().any(|line| {
            line.contains(&format!(" {level} "))
                && line.contains("cloakroom:")
                && line.contains(&format!("event=\"{event}\""))
        });
        assert!(is_there, "no {level} {event} in:\n{log}");
        log
    }

    /// Checks for a rejection in the log. Every rejection must be in the span that loads a session,
    /// for every reason.
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
    let app = app(builder(MemoryStore::new()).lazy(true).build().unwrap());
    let cookie = format!("__Host-session={}", "A".repeat(70));
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
    log.assert("DEBUG", "rotated");
    old.clone().get("/").await;
    assert!(log.assert_rejected().contains("the token was rotated"));

    // A conflict, and a write to a session that was ended in between.
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
    log.assert("DEBUG", "ended");
    gate.release();
    slow.await.unwrap();
    assert!(
        log.assert("INFO", "dropped_write")
            .contains("the session was ended")
    );
    old.clone().get("/").await;
    assert!(log.assert_rejected().contains("no such session"));

    let cookie = format!("__Host-session={}", "A".repeat(70));
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
    assert!(
        log.assert("WARN", "rejected")
            .contains("two different tokens")
    );

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
        (good[..good.len() - 1].to_vec(), "it is cut short"),
        ([&good, &[0][..]].concat(), "its checksum is wrong"),
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
        // After the record id come the secret and its signature.
        for start in (24..token.len() - 8).step_by(8) {
            let part = &token[start..start + 8];
            assert!(
                !log.contains(part),
                "{part} of {token} is in the log:\n{log}"
            );
        }
    }
}

/// Each case runs in its own process, because all tests of a process share one log.
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
        let child = one_test(module_path!(), name)
            .env(CHILD, leak)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr);
        assert_eq!(!child.status.success(), is_secret, "{leak}: {said}");
        assert_eq!(said.contains("is in the log"), is_secret, "{leak}: {said}");
    }
}

/// Sends requests, and logs something around them.
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
    assert_eq!(sessions.revoke_user("grace").await.unwrap(), 0);
    assert!(!log.take().contains("ended"));
    assert_eq!(sessions.revoke_user("ada").await.unwrap(), 2);
    let told = log.assert("DEBUG", "ended");
    for field in ["count=2", "user=\"ada\"", "cause=\"revoked\""] {
        assert!(told.contains(field), "no {field} in {told}");
    }
    assert!(!told.contains("asked_by"), "{told}");
    spy.fail(Fault::Refused);
    sessions.purge_expired().await.unwrap_err();
    let told = log.assert("ERROR", "store_error");
    assert!(told.contains("operation=\"purge_expired\""), "{told}");
}

#[tokio::test]
async fn a_value_that_memcached_does_not_take_is_told_with_what_to_do_and_the_session_lives_on() {
    let server = Server::memcached(&["-I", "512k"]);
    let url = format!("memcache://{}", server.address());
    let store = MemcachedStore::connect(&url).await.unwrap();
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

/// If changes of a request are not written, the log says so, with the reason.
#[tokio::test]
async fn every_drop_of_changes_is_told_with_its_reason() {
    use axum::http::StatusCode;
    use axum::routing::get;
    use cloakroom::{Session, SessionError};

    let fail = |status: StatusCode| {
        get(move |session: Session| async move {
            session.log_in("eve")?;
            Ok::<_, SessionError>(status)
        })
    };
    let switch = get(|session: Session| async move {
        session.insert("cart", "book")?;
        session.log_in("grace")
    });
    let leave = get(|session: Session| async move {
        session.insert("cart", "book")?;
        session.destroy()
    });
    let endless = get(|session: Session| async move {
        session.log_in("eve")?;
        std::future::pending::<Result<(), SessionError>>().await
    });
    let leave_and_wait = get(|session: Session| async move {
        session.log_out()?;
        std::future::pending::<Result<(), SessionError>>().await
    });
    let (log, _guard) = Log::start();
    let spy = FaultyStore::new(MemoryStore::new());
    let layer = builder(spy.clone()).commit_when(|response| {
        response.status != StatusCode::CONFLICT && !response.status.is_server_error()
    });
    let default = builder(spy.clone()).build().unwrap();
    let all = support::routes()
        .route("/500", fail(StatusCode::INTERNAL_SERVER_ERROR))
        .route("/409", fail(StatusCode::CONFLICT))
        .route("/switch", switch)
        .route("/leave", leave)
        .route("/endless", endless)
        .route("/leave_and_wait", leave_and_wait);
    let app = all.clone().layer(default);
    let with_rule = all.layer(layer.build().unwrap());
    let mut browser = Browser::new(&app);
    let dropped = |reason: &str, login: bool| {
        let lines = log.assert("INFO", "dropped_write");
        let line = lines.lines().find(|line| line.contains("dropped_write"));
        let line = line.unwrap();
        assert!(line.contains(&format!("reason=\"{reason}\"")), "{line}");
        assert!(line.contains(&format!("login={login}")), "{line}");
        line.contains("record=")
    };
    // A visitor logs in. The session does not have a record yet.
    browser.get("/500").await;
    assert!(!dropped("the handler failed", true));
    browser.get("/log_in/ada").await;
    log.take();
    browser.get("/500").await;
    assert!(dropped("the handler failed", true));
    browser.get("/fail/insert").await;
    assert!(dropped("the handler failed", false));
    browser.get("/fail/destroy_and_insert").await;
    assert!(dropped("the handler failed", false));
    browser.get("/log_in/ada").await;
    let mut ruled = Browser::new(&with_rule);
    ruled.adopt(&browser);
    log.take();
    ruled.get("/409").await;
    assert!(dropped("`commit_when` refused the response", true));
    for (path, login) in [("/endless", true), ("/leave_and_wait", false)] {
        let request = tokio::spawn(browser.send(path, &[]));
        tokio::task::yield_now().await;
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
        assert!(dropped(
            "the request was dropped before it was answered",
            login
        ));
    }
    // The request is dropped while its commit waits for the store.
    let mut gate = spy.hold_next(StoreCall::Replace);
    let request = tokio::spawn(browser.send("/log_in/ada", &[]));
    gate.arrived().await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    gate.release();
    assert!(dropped(
        "the request was dropped before it was answered",
        true
    ));
    spy.fail_at(StoreCall::Replace, Fault::Refused);
    browser.get("/insert/theme/light").await.assert(503, "");
    spy.recover();
    assert!(dropped("the changes could not be stored", false));
    let old = browser.clone();
    browser.get("/regenerate").await;
    log.take();
    old.clone().get("/insert/theme/light").await.assert(409, "");
    assert!(dropped("the token was rotated", false));
    browser.get("/switch").await;
    assert!(dropped("the same request logged in another user", false));
    browser.get("/leave").await;
    assert!(dropped("the same request ended the session", false));

    // A request without changes logs nothing.
    browser.get("/insert/theme/dark").await;
    for path in ["/fail/read", "/keys", "/get/theme", "/log_out"] {
        browser.get(path).await;
        assert!(!log.take().contains("dropped_write"), "{path}");
    }
}

#[tokio::test]
async fn a_secure_cookie_over_plain_http_is_warned_of_once_and_not_where_browsers_keep_it() {
    let (log, _guard) = Log::start();
    for (origin, is_warned) in [
        ("http://app.test", true),
        ("http://192.168.1.7:3000", true),
        ("http://localhost.example.com", true),
        ("http://localhost:3000", false),
        ("http://app.localhost:3000", false),
        ("http://127.0.0.1:3000", false),
        ("http://[::1]:3000", false),
        ("https://app.test", false),
        ("null", false),
    ] {
        for (is_secure, transport) in [
            (true, Transport::Cookie),
            (false, Transport::Cookie),
            (true, Transport::Bearer),
            (true, Transport::CookieOrBearer),
        ] {
            let layer = builder(MemoryStore::new())
                .cookie_name("sid")
                .secure(is_secure)
                .transport(transport);
            let app = app(layer.build().unwrap());
            for times in 0..2 {
                // A visitor who only reads does not get a cookie.
                for (path, sets) in [("/get/theme", false), ("/insert/theme/dark", true)] {
                    Browser::new(&app)
                        .get_with(path, &[("origin", origin)])
                        .await;
                    let is_expected = is_warned
                        && sets
                        && times == 0
                        && is_secure
                        && transport != Transport::Bearer;
                    let lines = log.take();
                    let is_there = lines.contains("event=\"insecure_origin\"");
                    assert_eq!(is_there, is_expected, "{origin} {path} {transport:?}");
                    assert!(!is_there || lines.contains(" WARN "));
                }
            }
        }
    }
}

/// A client that gets its token in a header loses no cookie.
#[tokio::test]
async fn a_client_that_chooses_a_bearer_token_over_plain_http_is_not_warned_of() {
    let (log, _guard) = Log::start();
    let layer = builder(MemoryStore::new()).transport(Transport::CookieOrBearer);
    let app = app(layer.build().unwrap());
    let origin = ("origin", "http://app.test");
    let path = "/insert/theme/dark";
    let ask = |choice| [origin, ("x-session-transport", choice)];
    let is_warned_of = async |headers: &[(&str, &str)]| {
        Browser::new(&app).get_with(path, headers).await;
        log.take().contains("event=\"insecure_origin\"")
    };
    let bad = ("authorization", "Bearer x");
    assert!(!is_warned_of(&ask("bearer")).await);
    assert!(!is_warned_of(&[origin, bad]).await);
    assert!(is_warned_of(&ask("cookie")).await);
}

#[tokio::test]
async fn layers_that_fight_over_a_cookie_or_a_header_are_told_so_once() {
    let (log, _guard) = Log::start();
    let layer = |name: &str, transport| {
        builder(MemoryStore::new())
            .cookie_name(name)
            .secure(false)
            .transport(transport)
            .build()
            .unwrap()
    };
    let (cookie, bearer) = (Transport::Cookie, Transport::Bearer);
    let both = Transport::CookieOrBearer;
    for (inner, outer, fights) in [
        (layer("a", cookie), layer("a", cookie), true),
        (layer("a", bearer), layer("b", bearer), true),
        (layer("a", cookie), layer("b", cookie), false),
        (layer("a", bearer), layer("a", cookie), false),
        (layer("a", both), layer("a", cookie), true),
        (layer("a", cookie), layer("a", both), true),
        (layer("a", both), layer("b", cookie), false),
        (layer("a", both), layer("b", bearer), true),
        (layer("a", bearer), layer("b", both), true),
        (layer("a", both), layer("b", both), true),
    ] {
        let between = layer("between", cookie);
        let app = support::routes()
            .layer(inner.clone())
            .layer(inner)
            .layer(between)
            .layer(outer);
        for times in 0..2 {
            Browser::new(&app).get("/keys").await;
            let is_told = log.take().contains("event=\"rival_layer\"");
            assert_eq!(is_told, fights && times == 0);
        }
    }
}

#[tokio::test]
async fn a_look_up_that_fails_is_logged_once_with_its_cause() {
    let (log, _guard) = Log::start();
    let site = Site::new();
    let guard = required::<Db>().redirect_to("/login");
    let app = Router::new()
        .route("/", get(|Auth(user): Auth<Db>| async move { user.name }))
        .layer(guard)
        .layer(site.layer.clone());
    let mut ada = site.member(&app, "ada").await;
    site.db.set_down(true);
    log.take();
    assert_eq!(ada.get("/").await.unwrap().status(), 503);
    let lines = log.assert("ERROR", "users_error");
    assert!(lines.contains("connection refused"), "{lines}");
    assert_eq!(lines.matches(" ERROR ").count(), 1, "{lines}");
}

#[tokio::test]
async fn a_login_without_a_stamp_is_warned_of_once() {
    let (log, _guard) = Log::start();
    let site = Site::new();
    let app = Router::new()
        .route(
            "/",
            get(|user: Option<Auth<Db>>| async move { user.is_some().to_string() }),
        )
        .layer(site.layer.clone());
    let mut browser = site.visitor(&app);
    for (user, is_warned) in [("carol", false), ("ada", true), ("bob", false)] {
        let login = browser.with_session(&site.layer, |session| session.log_in(user));
        login.await.unwrap();
        log.take();
        assert_eq!(
            browser.get("/").await.unwrap().body(),
            &(user == "carol").to_string()
        );
        let lines = log.take();
        let is_there = lines.contains("event=\"login_without_stamp\"");
        assert_eq!(is_there, is_warned, "{user}");
        assert!(!is_there || lines.contains("Db::account(&user)"));
    }
}

#[tokio::test]
async fn a_memory_store_that_evicts_warns_and_not_each_time() {
    let (log, _guard) = Log::start();
    let store = MemoryStore::new().with_max_sessions(1);
    let app = app(builder(store.clone()).build().unwrap());
    let insert = async || {
        let reply = Browser::new(&app).get("/insert/theme/dark").await;
        support::id_of(&reply.token().unwrap()).to_string()
    };
    let first = insert().await;
    assert!(!log.take().contains("evicted"));
    insert().await;
    let line = log.assert("WARN", "evicted");
    assert!(line.contains(&format!("record={first}")), "{line}");
    insert().await;
    log.assert("WARN", "evicted");
    insert().await;
    log.assert("DEBUG", "evicted");
    insert().await;
    log.assert("WARN", "evicted");
    assert_eq!(store.evicted(), 4);
}
