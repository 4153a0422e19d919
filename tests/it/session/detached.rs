//! Handles that live longer than their request.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use cloakroom::testing::{Fault, FaultyStore, StoreCall};
use cloakroom::{
    Clock, DetachedSession, MemoryStore, Session, SessionError, SessionErrorKind, TestClock,
};
use support::{Browser, builder, routes};
use tokio::task::JoinSet;

type Kept = Arc<Mutex<Vec<DetachedSession>>>;

struct Setup {
    clock: TestClock,
    spy: FaultyStore<MemoryStore>,
    browser: Browser,
    app: Router,
    kept: Kept,
}

/// An application that keeps a detached handle from every request to `/detach…`.
fn setup() -> Setup {
    let clock = TestClock::new();
    let spy = FaultyStore::new(MemoryStore::new());
    let kept = Kept::default();
    let detach = |change: fn(&Session) -> Result<(), SessionError>| {
        let kept = kept.clone();
        get(move |session: Session| async move {
            kept.lock().unwrap().push(session.detach());
            change(&session)
        })
    };
    let app = routes()
        .route("/detach", detach(|_| Ok(())))
        .route(
            "/detach_and_insert",
            detach(|session| session.insert("theme", "new")),
        )
        .route("/detach_and_regenerate", detach(Session::regenerate))
        .route("/detach_and_destroy", detach(Session::destroy))
        .route(
            "/detach_and_log_in",
            detach(|session| session.log_in("grace")),
        )
        .layer(
            builder(spy.clone())
                .idle_timeout(Duration::from_secs(30 * 60))
                .clock(clock.clone())
                .build()
                .unwrap(),
        );
    Setup {
        browser: Browser::new(&app),
        clock,
        spy,
        app,
        kept,
    }
}

impl Setup {
    async fn detached(&mut self, path: &str) -> DetachedSession {
        self.browser.get(path).await.assert(200, "");
        self.kept.lock().unwrap().pop().unwrap()
    }
}

#[tokio::test]
async fn changes_are_saved_when_the_handle_says_so() {
    let mut setup = setup();
    setup.browser.get("/log_in/ada").await;
    let mut later = setup.detached("/detach").await;
    later.insert("progress", "half").unwrap();
    assert_eq!(
        later
            .update("count", |n: Option<u8>| n.unwrap_or(0) + 1)
            .unwrap(),
        1
    );
    setup.browser.get("/keys").await.assert(200, "");
    later.save().await.unwrap();
    setup
        .browser
        .get("/keys")
        .await
        .assert(200, "count,progress");
    later.insert("progress", "all").unwrap();
    assert_eq!(later.remove::<u8>("count").unwrap(), Some(1));
    later.save().await.unwrap();
    setup.browser.get("/keys").await.assert(200, "progress");
    setup.browser.get("/get/progress").await.assert(200, "all");
    later.clear().unwrap();
    later.save().await.unwrap();
    setup.browser.get("/keys").await.assert(200, "");
    assert_eq!(later.user().unwrap().as_str(), "ada");
}

#[tokio::test]
async fn a_session_that_the_request_made_can_be_saved_to_after_the_response() {
    let mut setup = setup();
    let mut later = setup.detached("/detach_and_insert").await;
    assert_eq!(later.get::<String>("theme").unwrap(), None);
    later.reload().await.unwrap();
    assert_eq!(
        later.get::<String>("theme").unwrap().as_deref(),
        Some("new")
    );
    later.insert("later", 1).unwrap();
    later.save().await.unwrap();
    setup.browser.get("/keys").await.assert(200, "later,theme");
}

#[tokio::test]
async fn reload_shows_what_others_did_and_keeps_what_is_not_saved_yet() {
    let mut setup = setup();
    setup.browser.get("/insert/theme/dark").await;
    let mut later = setup.detached("/detach").await;
    later.insert("mine", 1).unwrap();
    setup.browser.get("/insert/theme/light").await;
    assert_eq!(
        later.get::<String>("theme").unwrap().as_deref(),
        Some("dark")
    );
    later.reload().await.unwrap();
    assert_eq!(
        later.get::<String>("theme").unwrap().as_deref(),
        Some("light")
    );
    assert_eq!(later.get::<u8>("mine").unwrap(), Some(1));
    setup.browser.get("/keys").await.assert(200, "theme");
}

#[tokio::test]
async fn saves_of_sockets_and_requests_at_once_lose_nothing() {
    let mut setup = setup();
    setup.browser.get("/update/visits").await;
    let mut tasks = JoinSet::new();
    for _ in 0..32 {
        let mut later = setup.detached("/detach").await;
        tasks.spawn(async move {
            later
                .update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)
                .unwrap();
            later.save().await.unwrap();
        });
        let request = setup.browser.send("/update/visits", &[]);
        tasks.spawn(async move { assert_eq!(request.await.status, 200) });
    }
    tasks.join_all().await;
    setup.browser.get("/get/visits").await.assert(200, "65");
}

#[tokio::test]
async fn a_handle_goes_on_with_the_token_that_its_own_request_made() {
    let mut setup = setup();
    setup.browser.get("/insert/theme/dark").await;
    let mut later = setup.detached("/detach_and_regenerate").await;
    later.insert("later", 1).unwrap();
    later.save().await.unwrap();
    setup.browser.get("/keys").await.assert(200, "later,theme");
}

#[tokio::test]
async fn a_handle_is_no_use_after_the_session_has_another_token() {
    let mut setup = setup();
    setup.browser.get("/insert/theme/dark").await;
    let mut later = setup.detached("/detach").await;
    setup.browser.get("/log_in/ada").await;
    later.insert("theme", "stolen").unwrap();
    assert_eq!(
        later.save().await.unwrap_err().kind(),
        SessionErrorKind::TokenRotated
    );
    assert_eq!(
        later.reload().await.unwrap_err().kind(),
        SessionErrorKind::TokenRotated
    );
    setup.browser.get("/get/theme").await.assert(200, "dark");
}

#[tokio::test]
async fn a_handle_does_not_revive_a_session_that_has_ended() {
    for end in ["/log_out", "idle"] {
        let mut setup = setup();
        setup.browser.get("/insert/theme/dark").await;
        let mut later = setup.detached("/detach").await;
        match end {
            "idle" => setup.clock.advance(Duration::from_secs(30 * 60)),
            path => drop(setup.browser.send(path, &[]).await),
        }
        let old = setup.browser.clone();
        // Saving fails without a change, and also with one.
        assert_eq!(
            later.save().await.unwrap_err().kind(),
            SessionErrorKind::Ended
        );
        later.insert("later", 1).unwrap();
        assert_eq!(
            later.save().await.unwrap_err().kind(),
            SessionErrorKind::Ended
        );
        assert_eq!(
            later.reload().await.unwrap_err().kind(),
            SessionErrorKind::Ended
        );
        old.clone().get("/keys").await.assert(200, "");
    }
}

#[tokio::test]
async fn a_handle_of_one_user_never_writes_into_the_session_of_the_next() {
    let mut setup = setup();
    setup.browser.get("/log_in/ada").await;
    let mut adas = setup.detached("/detach_and_log_in").await;
    setup.browser.get("/user").await.assert(200, "grace");
    adas.insert("diary", "ada's").unwrap();
    assert_eq!(
        adas.save().await.unwrap_err().kind(),
        SessionErrorKind::Ended
    );
    assert_eq!(
        adas.reload().await.unwrap_err().kind(),
        SessionErrorKind::Ended
    );
    assert_eq!(adas.user().unwrap().as_str(), "ada");
    setup.browser.get("/keys").await.assert(200, "");
}

#[tokio::test]
async fn a_session_that_its_own_request_ended_or_never_made_cannot_be_saved() {
    let mut setup = setup();
    let mut of_visitor = setup.detached("/detach").await;
    of_visitor.insert("later", 1).unwrap();
    assert_eq!(
        of_visitor.save().await.unwrap_err().kind(),
        SessionErrorKind::Ended
    );
    setup.browser.get("/insert/theme/dark").await;
    let mut ended = setup.detached("/detach_and_destroy").await;
    ended.insert("later", 1).unwrap();
    assert_eq!(
        ended.save().await.unwrap_err().kind(),
        SessionErrorKind::Ended
    );
    assert_eq!(setup.spy.inner().len(), 0);
    Browser::new(&setup.app).get("/keys").await.assert(200, "");
}

#[tokio::test]
async fn a_save_that_failed_can_be_tried_again() {
    let mut setup = setup();
    setup.browser.get("/insert/theme/dark").await;
    let mut later = setup.detached("/detach").await;
    later.insert("later", 1).unwrap();
    setup.spy.fail(Fault::Refused);
    assert_eq!(
        later.save().await.unwrap_err().kind(),
        SessionErrorKind::Store
    );
    assert_eq!(
        later.reload().await.unwrap_err().kind(),
        SessionErrorKind::Store
    );
    setup.spy.recover();
    later.save().await.unwrap();
    setup.browser.get("/keys").await.assert(200, "later,theme");
}

#[tokio::test]
async fn a_save_without_changes_keeps_the_session_alive() {
    let mut setup = setup();
    setup.browser.get("/insert/theme/dark").await;
    let mut socket = setup.detached("/detach").await;
    for _ in 0..5 {
        setup.clock.advance(Duration::from_secs(20 * 60));
        socket.save().await.unwrap();
    }
    setup.browser.get("/get/theme").await.assert(200, "dark");
}

/// The job ends before the request that started it gets its answer.
#[tokio::test]
async fn a_quick_job_of_a_visitors_first_request_waits_for_its_session() {
    let spy = FaultyStore::new(MemoryStore::new());
    let jobs = Arc::new(Mutex::new(JoinSet::new()));
    let started = jobs.clone();
    let start = get(move |session: Session| async move {
        let mut later = session.detach();
        started.lock().unwrap().spawn(async move {
            later.reload().await?;
            later.insert("job", "done")?;
            later.save().await
        });
        tokio::task::yield_now().await;
        session.insert("job", "started")
    });
    let layer = builder(spy.clone()).build().unwrap();
    let mut browser = Browser::new(&routes().route("/start", start).layer(layer));
    let mut gate = spy.hold_next(StoreCall::Insert);
    let request = tokio::spawn(browser.send("/start", &[]));
    gate.arrived().await;
    tokio::task::yield_now().await;
    gate.release();
    let reply = request.await.unwrap();
    reply.assert(200, "");
    browser.keep(&reply);
    let mut jobs = std::mem::take(&mut *jobs.lock().unwrap());
    jobs.join_next().await.unwrap().unwrap().unwrap();
    browser.get("/get/job").await.assert(200, "done");
}

#[tokio::test(start_paused = true)]
async fn a_job_hears_that_its_request_has_stored_no_session() {
    async fn outcome(how: &'static str) -> SessionErrorKind {
        let spy = FaultyStore::new(MemoryStore::new());
        let (to_test, mut handles) = tokio::sync::mpsc::unbounded_channel();
        let start = get(move |session: Session| async move {
            to_test.send(session.detach()).unwrap();
            tokio::task::yield_now().await;
            match how {
                "empty" => return Ok(axum::http::StatusCode::OK),
                "dropped" | "never" => std::future::pending::<()>().await,
                _ => session.insert("theme", "dark")?,
            }
            Ok::<_, SessionError>(match how {
                "rule panics" => axum::http::StatusCode::IM_A_TEAPOT,
                "failed" => axum::http::StatusCode::INTERNAL_SERVER_ERROR,
                _ => axum::http::StatusCode::OK,
            })
        });
        let layer = builder(spy.clone()).commit_when(|response| {
            assert_ne!(response.status, axum::http::StatusCode::IM_A_TEAPOT);
            response.status.is_success()
        });
        let layer = layer.build().unwrap();
        let browser = Browser::new(&routes().route("/start", start).layer(layer));
        let begin = tokio::time::Instant::now();
        if how == "refused" {
            spy.fail(Fault::Refused);
        }
        let request = tokio::spawn(browser.send("/start", &[]));
        let mut handle = handles.recv().await.unwrap();
        let save = tokio::spawn(async move {
            handle.insert("job", "done").unwrap();
            handle.save().await.unwrap_err().kind()
        });
        tokio::task::yield_now().await;
        if how == "dropped" {
            request.abort();
        }
        let kind = save.await.unwrap();
        request.abort();
        // The clock is paused, so that it moves only if the job waits for its time limit.
        let has_waited = begin.elapsed() > std::time::Duration::from_secs(1);
        assert_eq!(has_waited, how == "never", "{how}");
        kind
    }
    for how in [
        "empty",
        "failed",
        "refused",
        "dropped",
        "rule panics",
        "never",
    ] {
        assert_eq!(outcome(how).await, SessionErrorKind::Ended, "{how}");
    }
}

#[tokio::test]
async fn a_handle_knows_its_session_as_of_its_last_reload() {
    let mut setup = setup();
    let half_an_hour = Duration::from_secs(30 * 60);
    let mut visitor = setup.detached("/detach").await;
    assert_eq!(
        (visitor.id(), visitor.expires_at(), visitor.logged_in_at()),
        (None, None, None)
    );
    assert!(visitor.reload().await.is_err());

    let logged_in_at = setup.clock.now();
    setup.browser.get("/log_in/ada").await;
    let mut later = setup.detached("/detach").await;
    let id = later.id().unwrap();
    setup
        .browser
        .get("/id")
        .await
        .assert(200, &format!("{:?}", Some(id)));
    assert_eq!(later.logged_in_at(), Some(logged_in_at));
    assert_eq!(later.expires_at(), Some(logged_in_at + half_an_hour));

    setup.clock.advance(half_an_hour / 2);
    let used_at = setup.clock.now();
    setup.browser.get("/user").await.assert(200, "ada");
    assert_eq!(later.expires_at(), Some(logged_in_at + half_an_hour));
    later.reload().await.unwrap();
    assert_eq!(later.expires_at(), Some(used_at + half_an_hour));
    assert_eq!(later.logged_in_at(), Some(logged_in_at));
    assert_eq!(later.id(), Some(id));
}
