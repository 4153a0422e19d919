//! A store whose calls a test can stop, fail or disturb, and an application that runs a scenario on
//! it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use axum::Router;
use axum::body::Body;
use axum::middleware::{Next, from_fn};
use axum::routing::get;
use cloakroom::testing::Fault;
use cloakroom::testing::StoreCall::{self, FindByUser, Load, Replace};
use cloakroom::{
    AtLimit, MemoryStore, Session, SessionError, SessionLayer, SessionStore, StoreError, UserIndex,
};
use http::header::COOKIE;
use http::{Extensions, Request};
use support::{Browser, builder, key, send};

/// A store whose calls a test can stop, fail or disturb, one by one.
#[derive(Clone, Default)]
pub(super) struct Rigged {
    pub(super) store: MemoryStore,
    pub(super) calls: Arc<Mutex<Vec<StoreCall>>>,
    pub(super) pace: Arc<Mutex<Pace>>,
    /// The call with this number fails.
    pub(super) fault: Arc<Mutex<Option<(usize, Fault)>>>,
    /// What another request does just before the first call that writes.
    pub(super) meanwhile: Arc<Mutex<Option<Meanwhile>>>,
}

pub(super) type Meanwhile = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Each call has two steps: in the first it takes effect, and in the second it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pace {
    #[default]
    Free,
    Stopped,
    /// A call waits for its next step.
    Asked,
    Granted,
}

impl Rigged {
    /// The calls since the last time a test asked for them.
    pub(super) fn calls(&self) -> Vec<StoreCall> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// Waits until the test grants a step. Only that matters: the layer may poll a call as often as
    /// it likes.
    pub(super) async fn step(&self) {
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

    pub(super) async fn call<T>(
        &self,
        name: StoreCall,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let number = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(name);
            calls.len() - 1
        };
        if !matches!(name, Load | FindByUser) {
            let meanwhile = self.meanwhile.lock().unwrap().take();
            if let Some(meanwhile) = meanwhile {
                meanwhile.await;
            }
        }
        let fault = *self.fault.lock().unwrap();
        self.step().await;
        if fault == Some((number, Fault::Refused)) {
            return Err(StoreError::new("the call failed"));
        }
        let answer = call.await;
        self.step().await;
        if fault == Some((number, Fault::AnswerLost)) {
            return Err(StoreError::new("the answer was lost"));
        }
        answer
    }

    /// Polls a future at most this many times, and drops it. If a call waits for a step, each poll
    /// grants one step.
    pub(super) fn poll<T>(&self, future: impl Future<Output = T>, polls: usize) -> Option<T> {
        // Tokio gives each task a budget. Without `unconstrained`, it could end a poll too early.
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
    support::forward_store! {
        self => self.store, through call; load, insert, replace, touch, remove, purge_expired
    }
}

#[async_trait::async_trait]
impl UserIndex for Rigged {
    support::forward_store! { self => self.store, through call; find_by_user, remove_by_user }
}

/// A request, and what happens to it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scenario {
    pub(super) path: &'static str,
    /// The requests that the same browser sent before.
    pub(super) before: &'static [&'static str],
    /// Another request changes the session between this request's load and its write.
    pub(super) is_overtaken: bool,
    pub(super) is_lazy: bool,
    pub(super) cap: Option<AtLimit>,
    /// The user has another session. So the session limit is reached.
    pub(super) is_elsewhere: bool,
    /// The calls that the request makes to the store, if nothing goes wrong.
    pub(super) calls: &'static [StoreCall],
    /// How many times the handler itself waits.
    pub(super) waits: usize,
    /// What the tests see in the session with the old token, with the new token, and in the session
    /// elsewhere. Tokens that a scenario does not have are left out. There is one state for the
    /// time before the request, one for the time after it, and one for each visible step between
    /// them.
    pub(super) states: &'static [&'static str],
}

/// An application that runs a scenario. Its tokens are random, but each application of one scenario
/// has the same tokens.
pub(super) struct Rig {
    pub(super) store: Rigged,
    pub(super) app: Router,
    /// Another application on the same sessions. Nothing disturbs it.
    pub(super) other: Router,
    pub(super) browser: Browser,
    pub(super) elsewhere: Option<String>,
    /// The sessions that the handlers got since a test last emptied this list.
    pub(super) kept: Arc<Mutex<Vec<Extensions>>>,
}

impl Rig {
    pub(super) async fn new(scenario: &Scenario) -> Self {
        Self::with(scenario, Router::new()).await
    }

    /// An application with these routes besides the usual ones.
    pub(super) async fn with(scenario: &Scenario, routes: Router) -> Self {
        async fn two_changes(session: Session) -> Result<(), SessionError> {
            session.insert("first", 1)?;
            tokio::task::yield_now().await;
            session.insert("second", 2)
        }
        async fn destroy_and_insert(session: Session) -> Result<(), SessionError> {
            session.destroy()?;
            session.insert("first", 1)
        }
        /// Everything that is in the session.
        async fn whole(session: Session) -> Result<String, SessionError> {
            if session.id().is_none() {
                return Ok("nothing".to_owned());
            }
            let mut whole = match session.user() {
                Some(user) => user.to_string(),
                None => "visitor".to_owned(),
            };
            for key in session.keys() {
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
            builder = builder.lazy(true);
        }
        if let Some(at_limit) = scenario.cap {
            builder = builder.session_limit(1, at_limit);
        }
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = kept.clone();
        let app = support::routes()
            .merge(routes)
            .route("/two_changes", get(two_changes))
            .route("/destroy_and_insert", get(destroy_and_insert))
            .route(
                "/stay",
                get(async |session: Session| session.set_remembered(true)),
            )
            .route("/whole", get(whole))
            .layer(from_fn(move |request: Request<Body>, next: Next| {
                keep.lock().unwrap().push(request.extensions().clone());
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

    pub(super) fn old_token(&self) -> Option<String> {
        let cookie = self.browser.cookies().pop()?;
        Some(cookie.split_once('=').unwrap().1.to_owned())
    }

    /// Another request will write to this token's session just before the next write.
    pub(super) fn overtake(&self, token: &str) {
        let other = self.other.clone();
        let request = with_token("/update/visits", token);
        *self.store.meanwhile.lock().unwrap() = Some(Box::pin(async move {
            assert_eq!(send(&other, request).await.status, 200);
        }));
    }

    pub(super) fn forget(&self) {
        self.store.calls();
        self.kept.lock().unwrap().clear();
    }

    pub(super) async fn seen_by(&self, token: &str) -> String {
        send(&self.app, with_token("/whole", token)).await.body
    }

    pub(super) async fn state(&self, new_token: Option<&String>) -> String {
        let old_token = self.old_token();
        let mut seen = Vec::new();
        let tokens = [old_token.as_ref(), new_token, self.elsewhere.as_ref()];
        for token in tokens.into_iter().flatten() {
            seen.push(self.seen_by(token).await);
        }
        seen.join(" | ")
    }

    /// Sends a request for this token's session. Another request writes first, so this request must
    /// wait and try again. It succeeds, so nobody holds a lock.
    pub(super) async fn assert_not_blocked(&self, token: &str) {
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

pub(super) fn with_token(path: &str, token: &str) -> Request<Body> {
    let mut request = support::request(path);
    let cookie = format!("__Host-session={token}").parse().unwrap();
    request.headers_mut().insert(COOKIE, cookie);
    request
}
