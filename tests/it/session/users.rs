//! Logging in, and a user's sessions: how to list, revoke and limit them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use cloakroom::testing::{Fault, FaultyStore, StoreCall};
use cloakroom::{
    AtLimit, Client, Clock, MemoryStore, RecordId, Session, SessionError, SessionErrorKind,
    SessionLayer, SessionStore, Sessions, SqliteStore, TestClock, UserIndex,
};
use support::{Browser, app, builder, key, routes};
use tokio::task::JoinSet;

const MINUTE: Duration = Duration::from_secs(60);

struct Setup {
    clock: TestClock,
    spy: FaultyStore<MemoryStore>,
    sessions: Sessions<FaultyStore<MemoryStore>>,
    app: Router,
}

fn setup() -> Setup {
    let clock = TestClock::new();
    let spy = FaultyStore::new(MemoryStore::new());
    let layer = builder(spy.clone()).clock(clock.clone()).build().unwrap();
    Setup {
        sessions: layer.sessions(),
        app: app(layer),
        clock,
        spy,
    }
}

async fn logged_in(app: &Router, user: &str) -> Browser {
    let mut browser = Browser::new(app);
    browser
        .get(&format!("/log_in/{user}"))
        .await
        .assert(200, "done");
    browser
}

/// The record id that the handler sees.
async fn id(browser: &mut Browser) -> RecordId {
    let text = browser.get("/id").await.body;
    text.trim_start_matches("Some(RecordId(")
        .trim_end_matches("))")
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_login_replaces_the_token_keeps_the_data_and_the_old_token_is_dead_at_once() {
    let Setup { app, spy, .. } = setup();
    let mut browser = Browser::new(&app);
    browser.get("/insert/cart/book").await;
    let fixated = browser.clone();
    let id_before = id(&mut browser).await;
    browser.get("/log_in/ada").await;
    browser.get("/user").await.assert(200, "ada");
    browser.get("/get/cart").await.assert(200, "book");
    assert_eq!(id(&mut browser).await, id_before);
    fixated.clone().get("/user").await.assert(409, "");
    fixated
        .clone()
        .get("/get/cart")
        .await
        .assert(200, "nothing");
    assert_eq!(spy.inner().len(), 1);
}

#[tokio::test]
async fn logging_in_again_replaces_the_token_again() {
    let Setup { app, .. } = setup();
    let mut browser = logged_in(&app, "ada").await;
    let old = browser.clone();
    browser.get("/log_in/ada").await;
    browser.get("/user").await.assert(200, "ada");
    old.clone().get("/user").await.assert(409, "");
}

#[tokio::test]
async fn another_user_gets_a_session_of_their_own_without_the_first_ones_data() {
    let Setup { app, spy, .. } = setup();
    let mut browser = logged_in(&app, "ada").await;
    browser.get("/insert/diary/secret").await;
    let ada = browser.clone();
    let id_before = id(&mut browser).await;
    browser.get("/log_in/grace").await;
    browser.get("/user").await.assert(200, "grace");
    browser.get("/get/diary").await.assert(200, "nothing");
    assert_ne!(id(&mut browser).await, id_before);
    ada.clone().get("/user").await.assert(401, "");
    assert_eq!(spy.inner().len(), 1);
}

#[tokio::test]
async fn a_request_sees_its_own_login_and_logout() {
    async fn handler(session: Session) -> Result<(), SessionError> {
        assert_eq!(session.user(), None);
        session.log_in(42_i64)?;
        assert_eq!(session.user().unwrap().parse(), Ok(42));
        assert!(session.logged_in_at().is_some());
        session.log_in(43_u32)?;
        assert_eq!(session.user().unwrap().as_str(), "43");
        session.log_out()?;
        assert_eq!(session.user(), None);
        session.log_in(String::from("ada"))
    }
    let app = routes()
        .route("/handler", get(handler))
        .layer(SessionLayer::new(MemoryStore::new(), key()));
    let mut browser = Browser::new(&app);
    browser.get("/handler").await.assert(200, "");
    browser.get("/user").await.assert(200, "ada");
}

#[tokio::test]
async fn a_user_id_that_is_empty_or_too_long_is_an_error() {
    async fn handler(session: Session) -> Result<(), SessionError> {
        for bad in [String::new(), "x".repeat(256)] {
            assert_eq!(
                session.log_in(bad).unwrap_err().kind(),
                SessionErrorKind::InvalidUserId
            );
        }
        session.log_in("x".repeat(255))
    }
    let app = routes()
        .route("/handler", get(handler))
        .layer(SessionLayer::new(MemoryStore::new(), key()));
    let mut browser = Browser::new(&app);
    browser.get("/handler").await.assert(200, "");
    browser.get("/user").await.assert(200, &"x".repeat(255));
}

#[tokio::test]
async fn a_recent_login_can_be_demanded_and_activity_does_not_refresh_it() {
    async fn handler(session: Session) -> Result<&'static str, SessionError> {
        session.require_recent_login(5 * MINUTE)?;
        Ok("fresh")
    }
    let clock = TestClock::new();
    let layer = builder(MemoryStore::new())
        .clock(clock.clone())
        .build()
        .unwrap();
    let app = routes().route("/fresh", get(handler)).layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    browser.get("/fresh").await.assert(401, "");
    browser.get("/log_in/ada").await;
    for _ in 0..5 {
        browser.get("/fresh").await.assert(200, "fresh");
        clock.advance(MINUTE);
    }
    browser.get("/fresh").await.assert(200, "fresh");
    browser.get("/regenerate").await;
    clock.advance(Duration::from_millis(1));
    browser.get("/fresh").await.assert(401, "");
    browser.get("/log_in/ada").await;
    browser.get("/fresh").await.assert(200, "fresh");
}

#[tokio::test]
async fn sessions_are_listed_with_what_the_application_recorded_the_last_used_first() {
    async fn log_in(session: Session, Path(agent): Path<String>) -> Result<(), SessionError> {
        session.set_client(
            Client::new()
                .with_user_agent(&agent)
                .with_address("192.0.2.7"),
        )?;
        session.log_in("ada")
    }
    let clock = TestClock::new();
    let layer = builder(MemoryStore::new())
        .clock(clock.clone())
        .build()
        .unwrap();
    let sessions = layer.sessions();
    let app = routes().route("/from/{agent}", get(log_in)).layer(layer);
    let start = clock.now();
    let mut phone = Browser::new(&app);
    phone.get("/from/phone").await;
    clock.advance(10 * MINUTE);
    let mut desk = Browser::new(&app);
    desk.get(&format!("/from/{}", "d".repeat(1000))).await;
    clock.advance(10 * MINUTE);
    phone.get("/").await;
    logged_in(&app, "grace").await;

    let list = sessions.list_for("ada").await.unwrap();
    let [first, second] = &list[..] else {
        panic!("{list:?}")
    };
    assert_eq!(first.id(), id(&mut phone).await);
    assert_eq!(first.user().unwrap().as_str(), "ada");
    assert_eq!(first.client().unwrap().user_agent(), Some("phone"));
    assert_eq!(first.client().unwrap().address(), Some("192.0.2.7"));
    assert_eq!(first.created_at(), start);
    assert_eq!(first.last_seen_at(), start + 20 * MINUTE);
    assert_eq!(first.expires_at(), start + 50 * MINUTE);
    assert_eq!(second.id(), id(&mut desk).await);
    assert_eq!(
        second.client().unwrap().user_agent(),
        Some(&*"d".repeat(512))
    );
    assert_eq!(second.last_seen_at(), start + 10 * MINUTE);

    clock.advance(30 * MINUTE);
    assert!(
        sessions.list_for("ada").await.unwrap().is_empty(),
        "expired sessions are listed"
    );
}

#[tokio::test]
async fn a_client_that_has_not_changed_is_not_written_again() {
    async fn record(session: Session) -> Result<(), SessionError> {
        session.set_client(Client::new().with_user_agent("phone"))
    }
    let spy = FaultyStore::new(MemoryStore::new());
    let app = routes()
        .route("/record", get(record))
        .layer(SessionLayer::new(spy.clone(), key()));
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    spy.take_calls();
    browser.get("/record").await;
    browser.get("/record").await;
    assert_eq!(
        spy.take_calls(),
        [StoreCall::Load, StoreCall::Replace, StoreCall::Load]
    );
}

#[tokio::test]
async fn a_revoked_session_is_dead_at_its_next_request_and_only_that_one() {
    let Setup { app, sessions, .. } = setup();
    let mut first = logged_in(&app, "ada").await;
    let mut second = logged_in(&app, "ada").await;
    assert!(sessions.revoke(id(&mut first).await).await.unwrap());
    let first_id = sessions.list_for("ada").await.unwrap();
    assert_eq!(first_id.len(), 1);
    first.get("/user").await.assert(401, "");
    second.get("/user").await.assert(200, "ada");
    assert!(
        !sessions
            .revoke(RecordId::from_bytes([0; 16]))
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_user_can_revoke_their_own_sessions_only() {
    let Setup { app, sessions, .. } = setup();
    let mut ada = logged_in(&app, "ada").await;
    let mut grace = logged_in(&app, "grace").await;
    let graces = id(&mut grace).await;
    assert!(!sessions.revoke_owned("ada", graces).await.unwrap());
    grace.get("/user").await.assert(200, "grace");
    let adas = id(&mut ada).await;
    assert!(sessions.revoke_owned("ada", adas).await.unwrap());
    ada.get("/user").await.assert(401, "");
}

#[tokio::test]
async fn all_other_sessions_of_a_user_are_ended_and_a_racing_write_brings_none_back() {
    let Setup {
        app, sessions, spy, ..
    } = setup();
    let mut browsers = Vec::new();
    for _ in 0..5 {
        browsers.push(logged_in(&app, "ada").await);
    }
    let mut grace = logged_in(&app, "grace").await;
    // At this moment, a request is writing a change to one of the sessions.
    let mut gate = spy.hold_next(StoreCall::Replace);
    let racing = tokio::spawn(browsers[4].send("/update/visits", &[]));
    gate.arrived().await;
    let keep = id(&mut browsers[0]).await;
    assert_eq!(sessions.revoke_others("ada", keep).await.unwrap(), 4);
    gate.release();
    racing.await.unwrap().assert_no_cookie();
    for (n, browser) in browsers.iter_mut().enumerate() {
        let status = browser.get("/user").await.status.as_u16();
        assert_eq!(status, if n == 0 { 200 } else { 401 }, "browser {n}");
    }
    grace.get("/user").await.assert(200, "grace");
    assert_eq!(sessions.revoke_user("ada").await.unwrap(), 1);
    browsers[0].get("/user").await.assert(401, "");
}

/// The documentation says so: the login in flight has itself proved who the user is. The store
/// writes the application's own value together with the login.
#[tokio::test]
async fn a_login_in_flight_is_not_ended_with_the_other_sessions_of_its_user() {
    async fn log_in(session: Session) -> Result<(), SessionError> {
        session.log_in("ada")?;
        session.insert("password", "the first")
    }
    for how in ["revoke", "revoke_others", "revoke_user"] {
        for is_new in [true, false] {
            let spy = FaultyStore::new(MemoryStore::new());
            let layer = SessionLayer::new(spy.clone(), key());
            let sessions = layer.sessions();
            let app = routes().route("/log_in", get(log_in)).layer(layer);
            let mut kept = logged_in(&app, "ada").await;
            let mut revoked = logged_in(&app, "ada").await;
            revoked.get("/insert/diary/secret").await;
            let ended = id(&mut revoked).await;
            let mut browser = match is_new {
                true => Browser::new(&app),
                false => revoked.clone(),
            };
            let mut gate = spy.hold_next(match is_new {
                true => StoreCall::Insert,
                false => StoreCall::Replace,
            });
            let login = tokio::spawn(browser.send("/log_in", &[]));
            gate.arrived().await;
            let count = match how {
                "revoke" => u64::from(sessions.revoke(ended).await.unwrap()),
                "revoke_others" => {
                    let keep = id(&mut kept).await;
                    sessions.revoke_others("ada", keep).await.unwrap()
                }
                _ => sessions.revoke_user("ada").await.unwrap(),
            };
            assert_eq!(count, if how == "revoke_user" { 2 } else { 1 }, "{how}");
            gate.release();
            let reply = login.await.unwrap();
            reply.assert(200, "");
            browser.keep(&reply);
            // The login has its own new session. The data of the ended session is not in it.
            browser.get("/user").await.assert(200, "ada");
            browser.get("/keys").await.assert(200, "password");
            assert_ne!(id(&mut browser).await, ended, "{how}");
            revoked.get("/user").await.assert(401, "");
            let status = kept.get("/user").await.status.as_u16();
            assert_eq!(
                status,
                if how == "revoke_user" { 401 } else { 200 },
                "{how}"
            );
            // The next call finds the session.
            assert!(sessions.revoke_user("ada").await.unwrap() >= 1);
            browser.get("/user").await.assert(401, "");
        }
    }
}

#[tokio::test]
async fn a_record_id_is_no_credential() {
    let Setup {
        app, sessions, spy, ..
    } = setup();
    let browser = logged_in(&app, "ada").await;
    let id = sessions.list_for("ada").await.unwrap()[0].id().to_string();
    // This text is as long as a token, so only its signature is wrong.
    let filled = format!("{id}{}", "A".repeat(48));
    assert_eq!(filled.len(), browser.token().len());
    spy.take_calls();
    for value in [id, filled] {
        let cookie = format!("__Host-session={value}");
        Browser::new(&app)
            .get_with("/user", &[("cookie", &cookie)])
            .await
            .assert(401, "");
    }
    assert_eq!(spy.take_calls(), []);
}

#[tokio::test]
async fn purge_removes_what_has_expired() {
    let Setup {
        app,
        sessions,
        clock,
        spy,
    } = setup();
    logged_in(&app, "ada").await;
    clock.advance(20 * MINUTE);
    logged_in(&app, "grace").await;
    clock.advance(10 * MINUTE);
    // The purge leaves a record for ten more minutes, because the clocks of other nodes may be
    // behind.
    assert_eq!(sessions.purge_expired().await.unwrap(), 0);
    clock.advance(10 * MINUTE);
    assert_eq!(sessions.purge_expired().await.unwrap(), 1);
    assert_eq!(spy.inner().len(), 1);
    assert_eq!(sessions.clone().purge_expired().await.unwrap(), 0);
}

async fn capped<S: UserIndex + Clone>(
    store: S,
    at_limit: AtLimit,
) -> (Router, Sessions<S>, TestClock) {
    let clock = TestClock::new();
    let layer = builder(store)
        .clock(clock.clone())
        .session_limit(2, at_limit)
        .build()
        .unwrap();
    let sessions = layer.sessions();
    (app(layer), sessions, clock)
}

#[tokio::test]
async fn a_login_over_the_cap_ends_the_oldest_session() {
    let (app, sessions, clock) = capped(MemoryStore::new(), AtLimit::EndOldest).await;
    let mut browsers = Vec::new();
    for _ in 0..3 {
        browsers.push(logged_in(&app, "ada").await);
        clock.advance(MINUTE);
    }
    browsers[0].get("/user").await.assert(401, "");
    browsers[1].get("/user").await.assert(200, "ada");
    browsers[2].get("/user").await.assert(200, "ada");
    assert_eq!(sessions.list_for("ada").await.unwrap().len(), 2);
    // Another login in one of these browsers ends no session.
    browsers[1].get("/log_in/ada").await;
    browsers[2].get("/user").await.assert(200, "ada");
    logged_in(&app, "grace")
        .await
        .get("/user")
        .await
        .assert(200, "grace");
}

#[tokio::test]
async fn a_login_over_the_cap_is_refused_and_the_session_is_as_it_was() {
    let (app, sessions, clock) = capped(MemoryStore::new(), AtLimit::RefuseLogin).await;
    let mut browsers = [logged_in(&app, "ada").await, logged_in(&app, "ada").await];
    let mut third = Browser::new(&app);
    let refused = third.get("/log_in/ada").await;
    refused.assert(403, "");
    refused.assert_no_cookie();
    third.get("/insert/cart/book").await;
    third.get("/log_in/ada").await.assert(403, "");
    third.get("/get/cart").await.assert(200, "book");
    browsers[0].get("/log_in/ada").await.assert(200, "done");
    assert_eq!(sessions.list_for("ada").await.unwrap().len(), 2);
    browsers[0].get("/log_out").await;
    third.get("/log_in/ada").await.assert(200, "done");
    // Expired sessions do not count.
    clock.advance(30 * MINUTE);
    logged_in(&app, "ada").await;
}

async fn parallel_logins_settle_at_the_cap<S: UserIndex + Clone>(store: S) {
    for at_limit in [AtLimit::EndOldest, AtLimit::RefuseLogin] {
        let (app, sessions, _) = capped(store.clone(), at_limit).await;
        let user = format!("{at_limit:?}");
        let path = format!("/log_in/{user}");
        let logins: JoinSet<_> = (0..16)
            .map(|_| Browser::new(&app).send(&path, &[]))
            .collect();
        let replies = logins.join_all().await;
        let live = sessions.list_for(&*user).await.unwrap().len();
        // Logins that race may refuse or end each other, except the newest one.
        assert!(live <= 2, "{live} sessions");
        if at_limit == AtLimit::EndOldest {
            assert!(live >= 1);
        }
        let accepted = replies.iter().filter(|reply| reply.status == 200).count();
        assert!(accepted >= live);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_logins_never_exceed_the_cap_once_settled() {
    parallel_logins_settle_at_the_cap(MemoryStore::new()).await;
    parallel_logins_settle_at_the_cap(SqliteStore::open(":memory:").await.unwrap()).await;
}

/// Two logins at once, with a limit of one session. The first login is written last. Returns its
/// answer, its browser, and the other browser.
async fn crossing_logins(
    at_limit: AtLimit,
    has_session: bool,
    spy: FaultyStore<MemoryStore>,
) -> (support::Reply, Browser, Browser) {
    let clock = TestClock::new();
    let layer = builder(spy.clone())
        .clock(clock.clone())
        .session_limit(1, at_limit)
        .build()
        .unwrap();
    let app = app(layer);
    let mut first = Browser::new(&app);
    let mut written_by = StoreCall::Insert;
    if has_session {
        first.get("/insert/theme/dark").await;
        written_by = StoreCall::Replace;
    }
    let mut gate = spy.hold_next(written_by);
    let login = tokio::spawn(first.send("/log_in/ada", &[]));
    gate.arrived().await;
    clock.advance(MINUTE);
    let second = logged_in(&app, "ada").await;
    gate.release();
    let reply = login.await.unwrap();
    first.keep(&reply);
    (reply, first, second)
}

fn spy() -> FaultyStore<MemoryStore> {
    FaultyStore::new(MemoryStore::new())
}

#[tokio::test]
async fn the_last_of_crossing_logins_is_refused_though_it_was_a_visitors_session_before() {
    let (reply, mut first, mut second) = crossing_logins(AtLimit::RefuseLogin, true, spy()).await;
    reply.assert(403, "");
    reply.assert_no_cookie();
    first.get("/user").await.assert(401, "");
    second.get("/user").await.assert(200, "ada");
}

/// Otherwise the client would get a 200, and a token without a session.
#[tokio::test]
async fn the_last_of_crossing_logins_is_refused_though_the_answer_to_its_end_is_lost() {
    let spy = spy();
    spy.fail_once(StoreCall::Remove, Fault::AnswerLost);
    let (reply, mut first, mut second) =
        crossing_logins(AtLimit::RefuseLogin, false, spy.clone()).await;
    reply.assert(403, "");
    reply.assert_no_cookie();
    assert_eq!(
        spy.take_calls()
            .iter()
            .filter(|call| **call == StoreCall::Remove)
            .count(),
        2
    );
    first.get("/user").await.assert(401, "");
    second.get("/user").await.assert(200, "ada");
}

#[tokio::test]
async fn the_last_of_crossing_logins_is_refused_though_its_session_is_the_older_one() {
    let (reply, mut first, mut second) = crossing_logins(AtLimit::RefuseLogin, false, spy()).await;
    reply.assert(403, "");
    reply.assert_no_cookie();
    first.get("/user").await.assert(401, "");
    second.get("/user").await.assert(200, "ada");
}

#[tokio::test]
async fn a_login_never_ends_its_own_session_though_it_is_the_oldest() {
    let (reply, mut first, mut second) = crossing_logins(AtLimit::EndOldest, false, spy()).await;
    reply.assert(200, "done");
    first.get("/user").await.assert(200, "ada");
    second.get("/user").await.assert(401, "");
}

#[tokio::test]
async fn a_login_of_another_user_that_fails_leaves_the_first_ones_session() {
    // What fails: the random generator, the store before and after it has the new session, and the
    // handler. The last case is the session limit.
    for (trouble, path, status) in [
        ("random", "/log_in/grace", 500),
        ("insert", "/log_in/grace", 503),
        ("remove", "/log_in/grace", 503),
        ("handler", "/fail/log_in", 500),
        ("cap", "/log_in/grace", 403),
    ] {
        let spy = FaultyStore::new(MemoryStore::new());
        let has_entropy = Arc::new(AtomicBool::new(true));
        let entropy = has_entropy.clone();
        let counter = AtomicU64::new(0);
        let random = move |bytes: &mut [u8]| {
            let next = counter.fetch_add(1, Ordering::SeqCst).to_be_bytes();
            bytes.fill(7);
            bytes[..8].copy_from_slice(&next);
            entropy
                .load(Ordering::SeqCst)
                .then_some(())
                .ok_or("no entropy")
        };
        let layer = builder(spy.clone())
            .random(random)
            .session_limit(1, AtLimit::RefuseLogin)
            .build()
            .unwrap();
        let app = app(layer);
        let mut browser = logged_in(&app, "ada").await;
        browser.get("/insert/diary/secret").await;
        match trouble {
            "random" => has_entropy.store(false, Ordering::SeqCst),
            "cap" => drop(logged_in(&app, "grace").await),
            "insert" => spy.fail_at(StoreCall::Insert, Fault::Refused),
            "remove" => spy.fail_at(StoreCall::Remove, Fault::Refused),
            _ => {}
        }
        let reply = browser.get(path).await;
        assert_eq!(reply.status.as_u16(), status, "{trouble}");
        reply.assert_no_cookie();
        spy.recover();
        browser.get("/user").await.assert(200, "ada");
        browser.get("/get/diary").await.assert(200, "secret");
    }
}

#[tokio::test]
async fn what_is_known_of_the_browser_goes_over_to_the_next_users_session() {
    async fn switch(session: Session) -> Result<(), SessionError> {
        session.set_remembered(true)?;
        session.set_client(Client::new().with_user_agent("phone"))?;
        session.log_in("grace")
    }
    let layer = SessionLayer::new(MemoryStore::new(), key());
    let sessions = layer.sessions();
    let app = routes().route("/switch", get(switch)).layer(layer);
    // In the second case the last session was remembered already, so `set_remembered` seems to
    // change nothing.
    for first in ["/log_in/ada", "/remember/ada"] {
        let mut browser = Browser::new(&app);
        browser.get(first).await;
        let reply = browser.get("/switch").await;
        assert!(reply.cookies()[0].contains("; Max-Age="), "{reply:?}");
        let graces = sessions.list_for("grace").await.unwrap();
        assert_eq!(graces[0].client().unwrap().user_agent(), Some("phone"));
        sessions.revoke_user("grace").await.unwrap();
        assert!(sessions.list_for("ada").await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_store_that_fails_after_a_login_was_written_does_not_take_the_login_away() {
    let spy = FaultyStore::new(MemoryStore::new());
    let layer = builder(spy.clone())
        .session_limit(1, AtLimit::EndOldest)
        .build()
        .unwrap();
    let app = app(layer);
    let mut first = logged_in(&app, "ada").await;
    spy.fail_at(StoreCall::FindByUser, Fault::Refused);
    let mut second = logged_in(&app, "ada").await;
    spy.recover();
    second.get("/user").await.assert(200, "ada");
    first.get("/user").await.assert(200, "ada");
    // The next login ends the extra session.
    second.get("/log_in/ada").await;
    first.get("/user").await.assert(401, "");
}

/// If a store has no index, `Sessions` offers only what works without an index.
#[tokio::test]
async fn a_store_without_a_user_index_can_revoke_and_purge() {
    #[derive(Debug)]
    struct NoIndex(MemoryStore);

    #[async_trait::async_trait]
    impl SessionStore for NoIndex {
        support::forward_store! {
            self => self.0; load, insert, replace, touch, remove, purge_expired
        }
    }

    let layer = SessionLayer::new(NoIndex(MemoryStore::new()), key());
    let sessions = layer.sessions();
    let app = app(layer);
    let mut browser = logged_in(&app, "ada").await;
    assert_eq!(sessions.purge_expired().await.unwrap(), 0);
    assert!(sessions.revoke(id(&mut browser).await).await.unwrap());
    browser.get("/user").await.assert(401, "");
}
