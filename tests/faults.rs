//! Stores and generators that fail, requests that are dropped, and handlers that panic.

#![allow(clippy::unwrap_used)]

mod support;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::middleware::{Next, from_fn};
use axum::routing::get;
use cloakroom::testing::StoreCall::{
    self, Insert, Load, PurgeExpired, Remove, RemoveAllOf, Replace, SessionsOf, Touch,
};
use cloakroom::testing::{Fault, FaultyStore};
use cloakroom::{
    ErrorKind, MemoryStore, Record, RecordId, Replaced, Session, SessionError, SessionLayer,
    SessionStore, SqliteStore, StoreError, TestClock, Timestamp, UserId, UserIndex, Version,
    WhenFull,
};
use http::Request;
use http::header::COOKIE;
use support::{Browser, app, builder, key, send};
use tower::{Layer, ServiceExt};

fn setup() -> (FaultyStore<MemoryStore>, Browser) {
    let spy = FaultyStore::new(MemoryStore::new());
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
    for fault in [Fault::Refused, Fault::Hangs] {
        spy.fail(fault);
        for path in [
            "/",
            "/get/theme",
            "/user",
            "/insert/theme/dark",
            "/log_out",
            "/regenerate",
        ] {
            spy.take_calls();
            let started = Instant::now();
            let reply = browser.get(path).await;
            reply.assert(503, "");
            reply.assert_no_cookie();
            assert_eq!(reply.header("retry-after"), Some("1"));
            assert_eq!(reply.header("cache-control"), Some("no-store"));
            assert_eq!(
                spy.take_calls(),
                [Load],
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
    spy.recover();
    browser.get("/user").await.assert(200, "ada");
}

#[tokio::test]
async fn a_visitor_does_not_notice_that_the_store_is_down_until_something_has_to_be_stored() {
    let (spy, mut browser) = setup();
    spy.fail(Fault::Refused);
    browser.get("/").await.assert(200, "untouched");
    browser.get("/get/theme").await.assert(200, "nothing");
    let reply = browser.get("/insert/theme/dark").await;
    reply.assert(503, "");
    reply.assert_no_cookie();
}

#[tokio::test]
async fn a_write_that_failed_is_answered_503_and_the_session_is_as_before() {
    for (path, call) in [
        ("/insert/theme/light", Replace),
        ("/update/visits", Replace),
        ("/regenerate", Replace),
        ("/log_in/eve", Replace),
        ("/log_out", Remove),
    ] {
        let (spy, mut browser) = setup();
        browser.get("/insert/theme/dark").await;
        spy.fail_at(call, Fault::Refused);
        let reply = browser.get(path).await;
        reply.assert(503, "");
        reply.assert_no_cookie();
        spy.recover();
        browser.get("/get/theme").await.assert(200, "dark");
        browser.get("/user").await.assert(401, "");
    }
}

#[tokio::test]
async fn when_the_answer_to_a_write_is_lost_the_record_has_the_old_token_or_the_new_one() {
    for path in ["/regenerate", "/log_in/ada"] {
        let (spy, mut browser) = setup();
        browser.get("/insert/theme/dark").await;
        spy.fail_at(Replace, Fault::AnswerLost);
        let reply = browser.get(path).await;
        reply.assert(503, "");
        reply.assert_no_cookie();
        spy.recover();
        // The write took effect and nobody has its token: the old one is dead, and no third one came about.
        browser.get("/get/theme").await.assert(200, "nothing");
        assert_eq!(spy.inner().len(), 1);
    }
}

#[tokio::test]
async fn a_failed_touch_spoils_no_answer() {
    let clock = TestClock::new();
    let spy = FaultyStore::new(MemoryStore::new());
    let mut browser = Browser::new(&app(builder(spy.clone())
        .clock(clock.clone())
        .build()
        .unwrap()));
    browser.get("/remember/ada").await;
    clock.advance(Duration::from_secs(5 * 24 * 60 * 60));
    spy.fail_at(Touch, Fault::Refused);
    let reply = browser.get("/user").await;
    reply.assert(200, "ada");
    reply.assert_no_cookie();
    spy.recover();
    spy.take_calls();
    browser.get("/user").await.assert(200, "ada");
    assert_eq!(spy.take_calls(), [Load, Touch]);
}

#[tokio::test]
async fn a_random_generator_that_fails_is_an_error_and_never_a_token() {
    let spy = FaultyStore::new(MemoryStore::new());
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
    assert_eq!(spy.take_calls(), []);

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
async fn a_memory_store_full_of_logged_in_sessions_refuses_new_ones_and_keeps_the_others() {
    let mut browsers = Vec::new();
    let app = app(SessionLayer::new(MemoryStore::with_max_sessions(2), key()));
    for _ in 0..2 {
        let mut browser = Browser::new(&app);
        browser.get("/log_in/ada").await.assert(200, "done");
        browsers.push(browser);
    }
    let mut third = Browser::new(&app);
    third.get("/insert/theme/dark").await.assert(503, "");
    third.get("/log_in/grace").await.assert(503, "");
    browsers[0]
        .get("/insert/theme/light")
        .await
        .assert(200, "done");
    browsers[0].get("/log_out").await.assert(200, "done");
    third.get("/insert/theme/dark").await.assert(200, "done");
    browsers[1].get("/user").await.assert(200, "ada");
    // A login takes the visitor's place.
    browsers[0].get("/log_in/ada").await.assert(200, "done");
    third.get("/get/theme").await.assert(200, "nothing");
    third.get("/log_in/grace").await.assert(503, "");
    browsers[1].get("/user").await.assert(200, "ada");
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
        visitor.get("/log_out").await.assert(200, "done");
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

/// A store whose calls a test can hold, fail and cross, each by itself.
#[derive(Clone, Default)]
struct Rigged {
    store: MemoryStore,
    calls: Arc<Mutex<Vec<StoreCall>>>,
    pace: Arc<Mutex<Pace>>,
    /// The call of this number fails.
    fault: Arc<Mutex<Option<(usize, Fault)>>>,
    /// What somebody else does just before the first call that writes.
    meanwhile: Arc<Mutex<Option<Meanwhile>>>,
}

type Meanwhile = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Each call has two steps: the one that takes effect, and the one that answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pace {
    #[default]
    Free,
    Stopped,
    /// A call waits for its next step.
    Asked,
    Granted,
}

impl Rigged {
    /// The calls since the last time this was asked.
    fn calls(&self) -> Vec<StoreCall> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// Ready where a step is granted, and only then: a layer may poll a call as often as it likes.
    async fn step(&self) {
        poll_fn(|_| {
            let mut pace = self.pace.lock().unwrap();
            match *pace {
                Pace::Free => return Poll::Ready(()),
                Pace::Granted => {
                    *pace = Pace::Stopped;
                    return Poll::Ready(());
                }
                Pace::Stopped | Pace::Asked => *pace = Pace::Asked,
            }
            Poll::Pending
        })
        .await;
    }

    async fn call<T>(
        &self,
        name: StoreCall,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let number = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(name);
            calls.len() - 1
        };
        if !matches!(name, Load | SessionsOf) {
            let meanwhile = self.meanwhile.lock().unwrap().take();
            if let Some(meanwhile) = meanwhile {
                meanwhile.await;
            }
        }
        let fault = *self.fault.lock().unwrap();
        self.step().await;
        if fault == Some((number, Fault::Refused)) {
            return Err(StoreError::message("the call failed"));
        }
        let answer = call.await;
        self.step().await;
        if fault == Some((number, Fault::AnswerLost)) {
            return Err(StoreError::message("the answer was lost"));
        }
        answer
    }

    /// Polls a future so many times at most, and drops it. A call that waits for a step gets one a poll.
    fn poll<T>(&self, future: impl Future<Output = T>, polls: usize) -> Option<T> {
        // Tokio's budget for a task would end a poll where no test has asked for it.
        let mut future = pin!(tokio::task::unconstrained(future));
        let mut context = Context::from_waker(Waker::noop());
        *self.pace.lock().unwrap() = Pace::Stopped;
        let answer = (0..polls).find_map(|_| {
            let mut pace = self.pace.lock().unwrap();
            if *pace == Pace::Asked {
                *pace = Pace::Granted;
            }
            drop(pace);
            match future.as_mut().poll(&mut context) {
                Poll::Ready(answer) => Some(answer),
                Poll::Pending => None,
            }
        });
        *self.pace.lock().unwrap() = Pace::Free;
        answer
    }
}

impl fmt::Debug for Rigged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rigged")
    }
}

#[async_trait::async_trait]
impl SessionStore for Rigged {
    async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        self.call(Load, self.store.load(id)).await
    }

    async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        self.call(Insert, self.store.insert(id, record)).await
    }

    async fn replace(
        &self,
        id: RecordId,
        expected: Version,
        record: &Record,
    ) -> Result<Replaced, StoreError> {
        self.call(Replace, self.store.replace(id, expected, record))
            .await
    }

    async fn touch(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
        self.call(Touch, self.store.touch(id, record)).await
    }

    async fn remove(&self, id: RecordId) -> Result<bool, StoreError> {
        self.call(Remove, self.store.remove(id)).await
    }

    async fn purge_expired(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.call(PurgeExpired, self.store.purge_expired(now)).await
    }
}

#[async_trait::async_trait]
impl UserIndex for Rigged {
    async fn sessions_of(&self, user: &UserId) -> Result<Vec<(RecordId, Record)>, StoreError> {
        self.call(SessionsOf, self.store.sessions_of(user)).await
    }

    async fn remove_all_of(
        &self,
        user: &UserId,
        except: Option<RecordId>,
    ) -> Result<u64, StoreError> {
        self.call(RemoveAllOf, self.store.remove_all_of(user, except))
            .await
    }
}

/// A request that something may happen to.
#[derive(Clone, Copy, Debug, Default)]
struct Scenario {
    path: &'static str,
    /// The requests of the same browser before.
    before: &'static [&'static str],
    /// Somebody else changes the session between this request's load and its write.
    is_overtaken: bool,
    is_lazy: bool,
    cap: Option<WhenFull>,
    /// The user has another session, which is all that the cap allows.
    is_elsewhere: bool,
    /// What the request asks of the store, where nothing goes wrong.
    calls: &'static [StoreCall],
    /// How often the handler itself waits.
    waits: usize,
    /// What is seen of the session by the old token, the new one, and the session elsewhere, as far as there are such: before
    /// the request, after each of its steps that others can tell apart, and after it.
    states: &'static [&'static str],
}

/// An application in which a scenario takes place. Its tokens are random, and the same in each application of a scenario.
struct Rig {
    store: Rigged,
    app: Router,
    /// Another application on the same sessions, to which nothing happens.
    other: Router,
    browser: Browser,
    elsewhere: Option<String>,
    /// The sessions that handlers got since the last time that this was emptied.
    kept: Arc<Mutex<Vec<Session>>>,
}

impl Rig {
    async fn new(scenario: &Scenario) -> Self {
        Self::with(scenario, Router::new()).await
    }

    /// With routes besides the usual ones.
    async fn with(scenario: &Scenario, routes: Router) -> Self {
        async fn two_changes(session: Session) -> Result<(), SessionError> {
            session.insert("first", 1)?;
            tokio::task::yield_now().await;
            session.insert("second", 2)
        }
        async fn destroy_and_insert(session: Session) -> Result<(), SessionError> {
            session.destroy()?;
            session.insert("first", 1)
        }
        /// All that there is in the session.
        async fn whole(session: Session) -> Result<String, SessionError> {
            if session.id()?.is_none() {
                return Ok("nothing".to_owned());
            }
            let mut whole = match session.user()? {
                Some(user) => user.to_string(),
                None => "visitor".to_owned(),
            };
            for key in session.keys()? {
                let value = session.get::<serde_json::Value>(&*key)?.unwrap();
                whole.push_str(&format!(" {key}={value}"));
            }
            Ok(whole)
        }
        let store = Rigged::default();
        let counter = AtomicU8::new(0);
        let mut builder = builder(store.clone()).random(move |bytes| {
            bytes.fill(counter.fetch_add(1, Ordering::SeqCst));
            Ok::<_, std::io::Error>(())
        });
        if scenario.is_lazy {
            builder = builder.lazy();
        }
        if let Some(when_full) = scenario.cap {
            builder = builder.max_sessions_per_user(1, when_full);
        }
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = kept.clone();
        let app = support::routes()
            .merge(routes)
            .route("/two_changes", get(two_changes))
            .route("/destroy_and_insert", get(destroy_and_insert))
            .route(
                "/stay",
                get(async |session: Session| session.remember(true)),
            )
            .route("/whole", get(whole))
            .layer(from_fn(move |request: Request<Body>, next: Next| {
                let session = Session::from_extensions(request.extensions()).unwrap();
                keep.lock().unwrap().push(session);
                next.run(request)
            }))
            .layer(builder.build().unwrap());
        let other = support::app(SessionLayer::new(store.store.clone(), key()));
        let mut browser = Browser::new(&app);
        for path in scenario.before {
            assert_eq!(browser.get(path).await.status, 200);
        }
        let elsewhere = match scenario.is_elsewhere {
            true => Browser::new(&other).get("/log_in/ada").await.token(),
            false => None,
        };
        let rig = Self {
            store,
            app,
            other,
            browser,
            elsewhere,
            kept,
        };
        if scenario.is_overtaken {
            rig.overtake(&rig.old_token().unwrap());
        }
        rig.forget();
        rig
    }

    fn old_token(&self) -> Option<String> {
        let cookie = self.browser.cookies().pop()?;
        Some(cookie.split_once('=').unwrap().1.to_owned())
    }

    /// Has the next write of the session of this token met by another.
    fn overtake(&self, token: &str) {
        let other = self.other.clone();
        let request = with_token("/update/visits", token);
        *self.store.meanwhile.lock().unwrap() = Some(Box::pin(async move {
            assert_eq!(send(&other, request).await.status, 200);
        }));
    }

    fn forget(&self) {
        self.store.calls();
        self.kept.lock().unwrap().clear();
    }

    async fn seen_by(&self, token: &str) -> String {
        send(&self.app, with_token("/whole", token)).await.body
    }

    async fn state(&self, new_token: Option<&String>) -> String {
        let old_token = self.old_token();
        let mut seen = Vec::new();
        let tokens = [old_token.as_ref(), new_token, self.elsewhere.as_ref()];
        for token in tokens.into_iter().flatten() {
            seen.push(self.seen_by(token).await);
        }
        seen.join(" | ")
    }

    /// Sends a request of the session of this token, which has to wait for others that met another one, and goes through.
    async fn assert_not_blocked(&self, token: &str) {
        if self.seen_by(token).await == "nothing" {
            return;
        }
        self.overtake(token);
        self.store.calls();
        let reply = send(&self.app, with_token("/update/others", token)).await;
        assert_eq!(reply.status, 200, "a lock is held");
        assert_eq!(
            self.store.calls(),
            [Load, Replace, Load, Replace],
            "it met no other request"
        );
    }
}

fn with_token(path: &str, token: &str) -> Request<Body> {
    let mut request = support::request(path);
    let cookie = format!("__Host-session={token}").parse().unwrap();
    request.headers_mut().insert(COOKIE, cookie);
    request
}

#[tokio::test]
async fn a_request_that_is_dropped_at_any_await_is_written_whole_or_not_at_all() {
    let visitor = Scenario {
        before: &["/insert/theme/dark"],
        ..Scenario::default()
    };
    let scenarios = [
        Scenario {
            path: "/two_changes",
            calls: &[Load, Replace],
            waits: 1,
            states: &[
                "visitor theme=\"dark\"",
                "visitor first=1 second=2 theme=\"dark\"",
            ],
            ..visitor
        },
        Scenario {
            path: "/two_changes",
            is_lazy: true,
            calls: &[Load, Replace],
            waits: 1,
            states: &[
                "visitor theme=\"dark\"",
                "visitor first=1 second=2 theme=\"dark\"",
            ],
            ..visitor
        },
        Scenario {
            path: "/two_changes",
            before: &[],
            calls: &[Insert],
            waits: 1,
            states: &["nothing", "visitor first=1 second=2"],
            ..visitor
        },
        Scenario {
            path: "/regenerate",
            calls: &[Load, Replace],
            states: &[
                "visitor theme=\"dark\" | nothing",
                "nothing | visitor theme=\"dark\"",
            ],
            ..visitor
        },
        Scenario {
            path: "/log_in/ada",
            calls: &[Load, Replace],
            states: &[
                "visitor theme=\"dark\" | nothing",
                "nothing | ada theme=\"dark\"",
            ],
            ..visitor
        },
        Scenario {
            path: "/stay",
            calls: &[Load, Replace],
            states: &[
                "visitor theme=\"dark\" | nothing",
                "nothing | visitor theme=\"dark\"",
            ],
            ..visitor
        },
        Scenario {
            path: "/log_out",
            calls: &[Load, Remove],
            states: &["visitor theme=\"dark\"", "nothing"],
            ..visitor
        },
        // These two have two steps by their documentation, and may stop between them.
        Scenario {
            path: "/log_in/grace",
            before: &["/log_in/ada", "/insert/theme/dark"],
            calls: &[Load, Insert, Remove],
            states: &[
                "ada theme=\"dark\" | nothing",
                "ada theme=\"dark\" | grace",
                "nothing | grace",
            ],
            ..visitor
        },
        Scenario {
            path: "/destroy_and_insert",
            calls: &[Load, Remove, Insert],
            states: &[
                "visitor theme=\"dark\" | nothing",
                "nothing | nothing",
                "nothing | visitor first=1",
            ],
            ..visitor
        },
        // A login is whole before the session that it is one too many for is ended. The next login makes up for that.
        Scenario {
            path: "/log_in/ada",
            cap: Some(WhenFull::EndOldest),
            is_elsewhere: true,
            calls: &[Load, Replace, SessionsOf, Remove],
            states: &[
                "visitor theme=\"dark\" | nothing | ada",
                "nothing | ada theme=\"dark\" | ada",
                "nothing | ada theme=\"dark\" | nothing",
            ],
            ..visitor
        },
        Scenario {
            path: "/log_in/ada",
            cap: Some(WhenFull::Refuse),
            calls: &[Load, SessionsOf, Replace, SessionsOf],
            states: &[
                "visitor theme=\"dark\" | nothing",
                "nothing | ada theme=\"dark\"",
            ],
            ..visitor
        },
        Scenario {
            path: "/log_in/ada",
            cap: Some(WhenFull::Refuse),
            is_elsewhere: true,
            calls: &[Load, SessionsOf],
            states: &["visitor theme=\"dark\" | ada"],
            ..visitor
        },
        // What the other request wrote is a state of its own.
        Scenario {
            path: "/two_changes",
            is_overtaken: true,
            calls: &[Load, Replace, Load, Replace],
            waits: 1,
            states: &[
                "visitor theme=\"dark\"",
                "visitor theme=\"dark\" visits=1",
                "visitor first=1 second=2 theme=\"dark\" visits=1",
            ],
            ..visitor
        },
        Scenario {
            path: "/update/visits",
            is_overtaken: true,
            calls: &[Load, Replace, Load, Replace],
            states: &[
                "visitor theme=\"dark\"",
                "visitor theme=\"dark\" visits=1",
                "visitor theme=\"dark\" visits=2",
            ],
            ..visitor
        },
        Scenario {
            path: "/log_in/ada",
            is_overtaken: true,
            calls: &[Load, Replace, Load, Replace],
            states: &[
                "visitor theme=\"dark\" | nothing",
                "visitor theme=\"dark\" visits=1 | nothing",
                "nothing | ada theme=\"dark\" visits=1",
            ],
            ..visitor
        },
    ];
    for scenario in scenarios {
        // Nothing happens to this one: it tells the calls, and the token that a request may get.
        let whole = Rig::new(&scenario).await;
        let new_token = whole.browser.send(scenario.path, &[]).await.token();
        let new_token = new_token.filter(|token| !token.is_empty());
        assert_eq!(whole.store.calls(), scenario.calls, "{scenario:?}");

        let mut states: Vec<String> = Vec::new();
        for polls in 0.. {
            let rig = Rig::new(&scenario).await;
            let request = rig.browser.send(scenario.path, &[]);
            let is_done = rig.store.poll(request, polls).is_some();
            // What would be left of it must not come to another request.
            drop(rig.store.meanwhile.lock().unwrap().take());
            let until_it_is_loaded = match scenario.calls {
                [Load, ..] if !scenario.is_lazy => 2,
                _ => 0,
            };
            let kept = std::mem::take(&mut *rig.kept.lock().unwrap());
            assert_eq!(kept.len() == 1, polls > until_it_is_loaded, "{scenario:?}");
            for session in kept {
                let error = session.insert("late", 1).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Sealed, "{scenario:?}");
            }
            let state = rig.state(new_token.as_ref()).await;
            if states.last() != Some(&state) {
                states.push(state);
            }
            for token in rig.old_token().iter().chain(&new_token) {
                rig.assert_not_blocked(token).await;
            }
            if is_done {
                // A stop before and after the effect of each call, and where the handler waits.
                let stops = 2 * scenario.calls.len() + scenario.waits;
                assert_eq!(polls, stops + 1, "{scenario:?}");
                break;
            }
        }
        assert_eq!(states, scenario.states, "{scenario:?}");
    }
}

/// Each call of the store fails before its effect, and loses its answer after it.
#[tokio::test]
async fn a_fault_at_any_store_call_leaves_the_old_token_good_or_the_new_one_and_never_none() {
    let visitor = Scenario {
        before: &["/insert/theme/dark"],
        calls: &[Load, Replace],
        ..Scenario::default()
    };
    let overtaken = Scenario {
        is_overtaken: true,
        calls: &[Load, Replace, Load, Replace],
        ..visitor
    };
    let of_another_user = Scenario {
        path: "/log_in/grace",
        before: &["/log_in/ada", "/insert/theme/dark"],
        calls: &[Load, Insert, Remove],
        ..visitor
    };
    let end_oldest = Scenario {
        path: "/log_in/ada",
        cap: Some(WhenFull::EndOldest),
        is_elsewhere: true,
        ..visitor
    };
    let refuse = Scenario {
        path: "/log_in/ada",
        cap: Some(WhenFull::Refuse),
        ..visitor
    };
    const OLD: &str = "visitor theme=\"dark\" | nothing";
    const OLD_AFTER_ANOTHER: &str = "visitor theme=\"dark\" visits=1 | nothing";
    let scenarios = [
        Scenario {
            path: "/regenerate",
            states: &[OLD, "nothing | visitor theme=\"dark\""],
            ..visitor
        },
        Scenario {
            path: "/regenerate",
            states: &[
                OLD,
                OLD_AFTER_ANOTHER,
                "nothing | visitor theme=\"dark\" visits=1",
            ],
            ..overtaken
        },
        Scenario {
            path: "/stay",
            states: &[OLD, "nothing | visitor theme=\"dark\""],
            ..visitor
        },
        Scenario {
            path: "/stay",
            states: &[
                OLD,
                OLD_AFTER_ANOTHER,
                "nothing | visitor theme=\"dark\" visits=1",
            ],
            ..overtaken
        },
        Scenario {
            path: "/log_in/ada",
            states: &[OLD, "nothing | ada theme=\"dark\""],
            ..visitor
        },
        Scenario {
            path: "/log_in/ada",
            states: &[
                OLD,
                OLD_AFTER_ANOTHER,
                "nothing | ada theme=\"dark\" visits=1",
            ],
            ..overtaken
        },
        Scenario {
            calls: &[Load, Replace, SessionsOf, Remove],
            states: &[
                "visitor theme=\"dark\" | nothing | ada",
                "nothing | ada theme=\"dark\" | ada",
                "nothing | ada theme=\"dark\" | nothing",
            ],
            ..end_oldest
        },
        Scenario {
            is_overtaken: true,
            calls: &[Load, Replace, Load, Replace, SessionsOf, Remove],
            states: &[
                "visitor theme=\"dark\" | nothing | ada",
                "visitor theme=\"dark\" visits=1 | nothing | ada",
                "nothing | ada theme=\"dark\" visits=1 | ada",
                "nothing | ada theme=\"dark\" visits=1 | nothing",
            ],
            ..end_oldest
        },
        Scenario {
            calls: &[Load, SessionsOf, Replace, SessionsOf],
            states: &[OLD, "nothing | ada theme=\"dark\""],
            ..refuse
        },
        Scenario {
            is_overtaken: true,
            calls: &[Load, SessionsOf, Replace, Load, Replace, SessionsOf],
            states: &[
                OLD,
                OLD_AFTER_ANOTHER,
                "nothing | ada theme=\"dark\" visits=1",
            ],
            ..refuse
        },
        Scenario {
            states: &[
                "ada theme=\"dark\" | nothing",
                "ada theme=\"dark\" | grace",
                "nothing | grace",
            ],
            ..of_another_user
        },
        Scenario {
            is_overtaken: true,
            states: &[
                "ada theme=\"dark\" | nothing",
                "ada theme=\"dark\" visits=1 | nothing",
                "ada theme=\"dark\" visits=1 | grace",
                "nothing | grace",
            ],
            ..of_another_user
        },
    ];
    for scenario in scenarios {
        let whole = Rig::new(&scenario).await;
        let new_token = whole.browser.send(scenario.path, &[]).await.token();
        assert_eq!(whole.store.calls(), scenario.calls, "{scenario:?}");

        let mut states: Vec<String> = Vec::new();
        for (number, call) in scenario.calls.iter().enumerate() {
            for fault in [Fault::Refused, Fault::AnswerLost] {
                let rig = Rig::new(&scenario).await;
                *rig.store.fault.lock().unwrap() = Some((number, fault));
                let reply = rig.browser.send(scenario.path, &[]).await;
                *rig.store.fault.lock().unwrap() = None;
                drop(rig.store.meanwhile.lock().unwrap().take());
                let state = rig.state(new_token.as_ref()).await;
                let place = format!("{fault:?} of {call:?} {number}: {state}\n{scenario:?}");
                let seen: Vec<_> = state.split(" | ").collect();
                let is_old_good = seen[0] != "nothing";
                let is_new_good = seen[1] != "nothing";
                if (*call, fault) == (Insert, Fault::AnswerLost) {
                    // A login of another user has two steps. This is as if the request was dropped between them: the client
                    // has the first user's session still, and nobody has the token of the other.
                    assert!(is_old_good && is_new_good, "{place}");
                } else {
                    assert!(is_old_good != is_new_good, "{place}");
                }
                match reply.status.as_u16() {
                    200 => {
                        assert!(is_new_good, "{place}");
                        assert_eq!(reply.token(), new_token, "{place}");
                    }
                    status => {
                        assert_eq!(status, 503, "{place}");
                        reply.assert_no_cookie();
                    }
                }
                if !states.contains(&state) {
                    states.push(state);
                }
            }
        }
        assert_eq!(states, scenario.states, "{scenario:?}");
    }
}

#[tokio::test]
async fn a_save_that_is_dropped_at_any_await_is_written_whole_or_not_at_all_and_can_be_repeated() {
    for (is_overtaken, calls, expected) in [
        (
            false,
            &[Replace][..],
            &["visitor theme=\"dark\"", "visitor first=1 theme=\"light\""][..],
        ),
        (
            true,
            &[Replace, Load, Replace],
            &[
                "visitor theme=\"dark\"",
                "visitor theme=\"dark\" visits=1",
                "visitor first=1 theme=\"light\" visits=1",
            ],
        ),
    ] {
        let mut states: Vec<String> = Vec::new();
        for polls in 0.. {
            let rig = Rig::new(&Scenario {
                before: &["/insert/theme/dark"],
                ..Scenario::default()
            })
            .await;
            let token = rig.old_token().unwrap();
            rig.browser.send("/", &[]).await.assert(200, "untouched");
            let session = rig.kept.lock().unwrap().pop().unwrap();
            let mut later = session.detach().unwrap();
            later.insert("first", 1).unwrap();
            later.insert("theme", "light").unwrap();
            rig.forget();
            if is_overtaken {
                rig.overtake(&token);
            }
            let saved = rig.store.poll(later.save(), polls);
            drop(rig.store.meanwhile.lock().unwrap().take());
            let state = rig.state(None).await;
            if states.last() != Some(&state) {
                states.push(state);
            }
            if let Some(saved) = saved {
                saved.unwrap();
                assert_eq!(polls, 2 * calls.len() + 1);
                // The last call is that of this look at it.
                assert_eq!(rig.store.calls(), [calls, &[Load]].concat());
                break;
            }
            rig.assert_not_blocked(&token).await;
            later.save().await.unwrap();
            let state = rig.seen_by(&token).await;
            assert!(
                state.starts_with("visitor first=1 others=1 theme=\"light\""),
                "{state}"
            );
        }
        assert_eq!(states, expected);
    }
}

#[tokio::test]
async fn a_handler_that_panics_commits_nothing_and_blocks_nobody() {
    struct Panics;

    impl serde::Serialize for Panics {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("in the value")
        }
    }

    type Handler = fn(&Session) -> Result<(), SessionError>;
    let in_the_handler: [Handler; 4] = [
        |session| {
            session.insert("theme", "of the panic")?;
            session.log_in("eve")?;
            panic!("in the handler")
        },
        |session| {
            session.log_out()?;
            session.insert("theme", "of the panic")?;
            panic!("after the end")
        },
        |session| {
            session.insert("theme", "of the panic")?;
            session.regenerate()?;
            let in_the_update = |_: Option<u64>| panic!("in the update");
            session.update::<u64, _>("visits", in_the_update).map(drop)
        },
        |session| {
            session.insert("theme", "of the panic")?;
            session.insert("value", Panics)
        },
    ];
    // While it is written, since another request has made the same count: the first try was in the handler.
    let in_the_commit: Handler = |session| {
        session.insert("theme", "of the panic")?;
        session.log_in("eve")?;
        let count = |n: Option<u64>| n.map_or(1, |n| panic!("again, with {n}"));
        session.update("visits", count).map(drop)
    };
    let in_the_handler = in_the_handler
        .into_iter()
        .map(|handler| (handler, false, &[Load][..]));
    let in_the_commit = (in_the_commit, true, &[Load, Replace, Load][..]);
    for (handler, is_overtaken, calls) in in_the_handler.chain([in_the_commit]) {
        let route = get(move |session: Session| async move { handler(&session) });
        let scenario = Scenario {
            before: &["/insert/theme/dark"],
            is_overtaken,
            ..Scenario::default()
        };
        let rig = Rig::with(&scenario, Router::new().route("/handler", route)).await;
        let token = rig.old_token().unwrap();
        let request = tokio::spawn(rig.browser.send("/handler", &[]));
        assert!(request.await.unwrap_err().is_panic());
        assert_eq!(rig.store.calls(), calls);
        let expected = match is_overtaken {
            true => "visitor theme=\"dark\" visits=1",
            false => "visitor theme=\"dark\"",
        };
        assert_eq!(rig.seen_by(&token).await, expected);
        assert_eq!(rig.store.store.len(), 1);
        let session = rig.kept.lock().unwrap().remove(0);
        let error = session.insert("late", 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Sealed);
        rig.assert_not_blocked(&token).await;
    }
}

/// As with a timeout between the layer and the handler.
#[tokio::test]
async fn an_error_of_the_inner_service_writes_nothing_but_an_end_and_is_passed_on() {
    let spy = FaultyStore::new(MemoryStore::new());
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
    spy.fail_at(Remove, Fault::Refused);
    let mut request = support::request("/log_out");
    let cookie = browser.cookies()[0].parse().unwrap();
    request.headers_mut().insert(COOKIE, cookie);
    assert_eq!(service.oneshot(request).await.unwrap_err(), "too late");
}
