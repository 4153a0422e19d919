//! How a service gets the keys of its issuer, and what it does while it cannot.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloakroom::assertion::{
    AssertionError, AssertionErrorKind, AssertionKey, AssertionKeys, AssertionVerifier,
};
use cloakroom::{Clock, TestClock};
use futures_util::FutureExt;
use futures_util::future::join_all;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::parties::{
    Gateway, HOUR, ISSUER, MINUTE, SECOND, Service, assert_refused, minute, seconds, send_to,
    service_app,
};
use crate::secrecy::logging::Log;

const UNKNOWN: &str = "the issuer does not publish the key of the assertion";

/// A JWKS that a service fetches, and how often it did.
#[derive(Clone, Default)]
struct Published(Arc<State>);

#[derive(Default)]
struct State {
    fetches: AtomicUsize,
    document: Mutex<Option<String>>,
    /// If it is there, a fetch waits for a permit.
    gate: Mutex<Option<Arc<Semaphore>>>,
}

impl Published {
    /// The keys of a gateway, as they are now.
    fn of(keys: &AssertionKeys) -> Self {
        let published = Self::default();
        published.set(keys);
        published
    }

    fn set(&self, keys: &AssertionKeys) {
        *self.0.document.lock().unwrap() = Some(keys.jwks().to_string());
    }

    /// From now on, each fetch fails.
    fn fail(&self) {
        *self.0.document.lock().unwrap() = None;
    }

    /// From now on, each fetch waits for a permit.
    fn close(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        *self.0.gate.lock().unwrap() = Some(gate.clone());
        gate
    }

    fn fetches(&self) -> usize {
        self.0.fetches.load(Ordering::SeqCst)
    }

    async fn fetch(self) -> Result<String, io::Error> {
        self.0.fetches.fetch_add(1, Ordering::SeqCst);
        let gate = self.0.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.acquire().await.unwrap().forget();
        }
        let document = self.0.document.lock().unwrap().clone();
        document.ok_or_else(|| io::Error::other("no route to the gateway"))
    }

    fn verifier(&self, clock: &TestClock) -> AssertionVerifier {
        let published = self.clone();
        AssertionVerifier::fetching(ISSUER, "orders", move || published.clone().fetch())
            .clock(clock.clone())
    }
}

fn assert_unavailable(error: &AssertionError) {
    assert_eq!(error.kind(), AssertionErrorKind::Unavailable);
    assert_eq!(
        error.to_string(),
        "the keys of the issuer could not be fetched"
    );
}

/// A good token, but for its key: anybody can send it.
fn unknown(clock: &TestClock, number: usize) -> String {
    let service = Service::new();
    let now = seconds(clock.now());
    let claims = service.claims();
    let claims = super::parties::changed(claims, "iat", now.into());
    let claims = super::parties::changed(claims, "exp", (now + 60).into());
    let header = super::parties::changed(
        Service::header(),
        "kid",
        Value::from(format!("unknown {number}")),
    );
    service.signed(&header, &claims)
}

#[tokio::test]
async fn keys_are_fetched_once_and_again_every_five_minutes_in_the_background() {
    let gateway = Gateway::new();
    let mut browser = gateway.logged_in().await;
    let published = Published::of(&gateway.keys);
    let verifier = published.verifier(&gateway.clock);
    for _ in 0..3 {
        let token = minute(&mut browser).await;
        assert!(verifier.verify(&token).await.is_ok());
    }
    // Clones share the keys.
    assert!(
        verifier
            .clone()
            .verify(&minute(&mut browser).await)
            .await
            .is_ok()
    );
    assert_eq!(published.fetches(), 1);

    gateway.clock.advance(5 * MINUTE);
    let gate = published.close();
    let token = minute(&mut browser).await;
    // Nobody waits for this fetch.
    let now = verifier.verify(&token).now_or_never();
    assert!(now.is_some_and(|verified| verified.is_ok()));
    tokio::task::yield_now().await;
    assert_eq!(published.fetches(), 2);
    gate.add_permits(1);
}

#[tokio::test]
async fn parallel_requests_share_the_first_fetch() {
    let gateway = Gateway::new();
    let token = gateway.assertion().await;
    let published = Published::of(&gateway.keys);
    let gate = published.close();
    let app = service_app(published.verifier(&gateway.clock));
    let requests = (0..20).map(|_| {
        tokio::spawn({
            let (app, token) = (app.clone(), token.clone());
            async move { send_to(&app, &token).await }
        })
    });
    let requests: Vec<_> = requests.collect();
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(published.fetches(), 1);
    gate.add_permits(1);
    for reply in join_all(requests).await {
        reply.unwrap().assert(200, "the orders of ada");
    }
    assert_eq!(published.fetches(), 1);
}

/// A key that signs is known at once, even if nobody published it before.
#[tokio::test]
async fn an_unknown_key_is_fetched_at_once() {
    let gateway = Gateway::new();
    let mut browser = gateway.logged_in().await;
    let published = Published::of(&gateway.keys);
    let verifier = published.verifier(&gateway.clock);
    assert!(verifier.verify(&minute(&mut browser).await).await.is_ok());

    gateway.clock.advance(10 * SECOND);
    let new = AssertionKeys::new(AssertionKey::generate().unwrap());
    gateway.keys.replace(&new);
    published.set(&gateway.keys);
    assert!(verifier.verify(&minute(&mut browser).await).await.is_ok());
    assert_eq!(published.fetches(), 2);
}

#[tokio::test]
async fn a_flood_of_unknown_keys_is_no_flood_of_fetches() {
    let gateway = Gateway::new();
    let mut browser = gateway.logged_in().await;
    let published = Published::of(&gateway.keys);
    let verifier = published.verifier(&gateway.clock);
    let start = gateway.clock.now();
    for number in 0..200 {
        let token = unknown(&gateway.clock, number);
        let error = verifier.verify(&token).await.unwrap_err();
        assert_refused(&error, &token, UNKNOWN);
        if number % 4 == 0 {
            // The flood does not stop the others.
            assert!(verifier.verify(&minute(&mut browser).await).await.is_ok());
        }
        gateway.clock.advance(SECOND / 2);
    }
    let most = gateway.clock.now().since(start).as_secs() / 10 + 1;
    let fetches = published.fetches();
    assert!(
        u64::try_from(fetches).unwrap() <= most,
        "{fetches} in {most}0 seconds"
    );
    assert!(fetches > 1);
    // What is not even a token for this service costs no fetch at all.
    gateway.clock.advance(MINUTE);
    for bad in ["", "a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
        assert!(verifier.verify(bad).await.is_err());
    }
    assert_eq!(published.fetches(), fetches);
}

/// A retired key is good for ten minutes at most, and then no assertion of it gets through: also
/// where nobody asked for long.
#[tokio::test]
async fn an_expired_key_is_refused_after_the_rotation() {
    for quiet in [10 * MINUTE, 3 * HOUR] {
        let gateway = Gateway::with(|builder, assertions| {
            builder.idle_timeout(5 * HOUR).assertions(assertions)
        });
        let mut browser = gateway.logged_in().await;
        let published = Published::of(&gateway.keys);
        let verifier = published.verifier(&gateway.clock);
        assert!(verifier.verify(&minute(&mut browser).await).await.is_ok());

        // The thief has the old key, and goes on signing with it.
        let new = AssertionKeys::new(AssertionKey::generate().unwrap());
        published.set(&new);
        gateway.clock.advance(quiet);
        let token = minute(&mut browser).await;
        let error = verifier.verify(&token).await.unwrap_err();
        assert_refused(&error, &token, UNKNOWN);
        gateway.keys.replace(&new);
        assert!(verifier.verify(&minute(&mut browser).await).await.is_ok());
    }
}

#[tokio::test]
async fn old_keys_go_on_for_a_day_while_fetches_fail() {
    let (log, _guard) = Log::start();
    let gateway = Gateway::with(|builder, assertions| {
        builder
            .idle_timeout(100 * HOUR)
            .absolute_timeout(200 * HOUR)
            .assertions(assertions)
    });
    let mut browser = gateway.logged_in().await;
    let published = Published::of(&gateway.keys);
    let verifier = published.verifier(&gateway.clock);
    assert!(verifier.verify(&minute(&mut browser).await).await.is_ok());
    log.assert("DEBUG", "jwks_fetched");
    published.fail();
    for _ in 0..23 {
        gateway.clock.advance(HOUR);
        assert!(verifier.verify(&minute(&mut browser).await).await.is_ok());
        // A stranger is refused all the same.
        let token = unknown(&gateway.clock, 1);
        let error = verifier.verify(&token).await.unwrap_err();
        assert_refused(&error, &token, UNKNOWN);
    }
    let lines = log.assert("WARN", "jwks_failed");
    assert!(lines.contains("no route to the gateway"), "{lines}");
    gateway.clock.advance(HOUR);
    let error = verifier
        .verify(&minute(&mut browser).await)
        .await
        .unwrap_err();
    assert_unavailable(&error);
    // The gateway is back.
    published.set(&gateway.keys);
    gateway.clock.advance(10 * SECOND);
    assert!(verifier.verify(&minute(&mut browser).await).await.is_ok());
}

/// A document that is no JWKS is a fetch that failed.
#[tokio::test]
async fn a_bad_document_replaces_no_keys() {
    let gateway = Gateway::new();
    let mut browser = gateway.logged_in().await;
    let published = Published::of(&gateway.keys);
    let verifier = published.verifier(&gateway.clock);
    assert!(verifier.verify(&minute(&mut browser).await).await.is_ok());
    for bad in ["", "<html>", r#"{"keys":[]}"#, "{}"] {
        *published.0.document.lock().unwrap() = Some(bad.to_owned());
        gateway.clock.advance(11 * MINUTE);
        assert!(verifier.verify(&minute(&mut browser).await).await.is_ok());
    }
    assert_eq!(published.fetches(), 5);
}

#[tokio::test]
async fn without_any_keys_the_answer_is_a_503_and_the_next_fetch_comes_soon() {
    let gateway = Gateway::new();
    let mut browser = gateway.logged_in().await;
    let published = Published::of(&gateway.keys);
    published.fail();
    let verifier = published.verifier(&gateway.clock);
    let app = service_app(verifier.clone());
    let token = minute(&mut browser).await;
    for _ in 0..20 {
        let reply = send_to(&app, &token).await;
        reply.assert(503, "");
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert_eq!(reply.header("www-authenticate"), None);
    }
    assert_eq!(published.fetches(), 1);
    assert_unavailable(&verifier.verify(&token).await.unwrap_err());
    published.set(&gateway.keys);
    gateway.clock.advance(10 * SECOND);
    send_to(&app, &token).await.assert(200, "the orders of ada");
    assert_eq!(published.fetches(), 2);
}

/// Whoever goes away stops no fetch, or an attacker could keep a service from its keys.
#[tokio::test]
async fn a_client_that_goes_away_stops_no_fetch() {
    let gateway = Gateway::new();
    let token = gateway.assertion().await;
    let published = Published::of(&gateway.keys);
    let gate = published.close();
    let verifier = published.verifier(&gateway.clock);
    let hostile = unknown(&gateway.clock, 1);
    assert!(verifier.verify(&hostile).now_or_never().is_none());
    tokio::task::yield_now().await;
    gate.add_permits(1);
    assert!(verifier.verify(&token).await.is_ok());
    assert_eq!(published.fetches(), 1);
}

/// Tokio's clock is paused, so that the timeout of the fetch needs no time.
#[tokio::test(start_paused = true)]
async fn a_fetch_that_hangs_or_panics_is_a_fetch_that_failed() {
    let gateway = Gateway::new();
    let token = gateway.assertion().await;
    let published = Published::of(&gateway.keys);
    let _gate = published.close();
    let verifier = published.verifier(&gateway.clock);
    let before = tokio::time::Instant::now();
    assert_unavailable(&verifier.verify(&token).await.unwrap_err());
    assert_eq!(before.elapsed().as_secs(), 5);

    let panics = AssertionVerifier::fetching(ISSUER, "orders", || async {
        if true {
            panic!("a bug of the application");
        }
        Ok::<_, io::Error>(String::new())
    });
    let panics = panics.clock(gateway.clock.clone());
    assert_unavailable(&panics.verify(&token).await.unwrap_err());
    let panics_at_once = AssertionVerifier::fetching(ISSUER, "orders", || {
        if true {
            panic!("a bug of the application");
        }
        std::future::ready(Ok::<_, io::Error>(String::new()))
    });
    let panics_at_once = panics_at_once.clock(gateway.clock.clone());
    assert_unavailable(&panics_at_once.verify(&token).await.unwrap_err());
}

/// A wrong clock that was set right does not stop the fetches until its old time has come.
#[tokio::test]
async fn a_clock_that_was_set_back_stops_no_fetch() {
    #[derive(Clone, Debug)]
    struct Wrong(TestClock, Arc<Mutex<Duration>>);
    impl Clock for Wrong {
        fn now(&self) -> cloakroom::Timestamp {
            self.0.now() + *self.1.lock().unwrap()
        }
    }

    let gateway = Gateway::new();
    let token = gateway.assertion().await;
    let published = Published::of(&gateway.keys);
    published.fail();
    let ahead = Arc::new(Mutex::new(24 * 365 * HOUR));
    let verifier = published
        .verifier(&gateway.clock)
        .clock(Wrong(gateway.clock.clone(), ahead.clone()));
    let early = unknown(&gateway.clock, 1);
    // By the wrong clock, this token is long over. One of its time makes it fetch.
    assert!(verifier.verify(&early).await.is_err());
    assert_eq!(published.fetches(), 0);
    let future = TestClock::new();
    future.advance(24 * 365 * HOUR);
    assert_unavailable(&verifier.verify(&unknown(&future, 1)).await.unwrap_err());
    assert_eq!(published.fetches(), 1);
    *ahead.lock().unwrap() = Duration::ZERO;
    published.set(&gateway.keys);
    assert!(verifier.verify(&token).await.is_ok());
}
