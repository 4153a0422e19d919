//! Sessions that are bound to the device of their browser: from the login to the logout, and what a
//! thief has of a copy of all cookies.

mod hostile;
mod races;
mod settings;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::routing::get;
use cloakroom::testing::FaultyStore;
use cloakroom::{
    ConfigError, DeviceBinding, EndCause, KeySource, MemoryStore, RecordId, Session, SessionError,
    SessionEvent, SessionEventKind, SessionLayer, SessionStore, Sessions, SigningKey, SigningKeys,
    TestClock, WhenUnbound,
};
use http::{Method, Request};
use serde_json::{Value, json};
use support::device::Device;
use support::{Reply, builder, id_of, key, routes, send};

use crate::secrecy::logging::Log;

type Store = FaultyStore<MemoryStore>;

const BIND: &str = "/session/bind";
const REFRESH: &str = "/session/refresh";
const TOKEN: &str = "__Host-session";
const BOUND: &str = "__Host-session-bound";

const MINUTE: Duration = Duration::from_secs(60);

/// Longer than the grace period, and shorter than the bound cookie lasts.
const A_WHILE: Duration = MINUTE;

/// As long as the bound cookie lasts.
const COOKIE_LIFETIME: Duration = Duration::from_secs(600);

/// A site that binds sessions, and what it told of them.
struct Site {
    clock: TestClock,
    store: Store,
    app: Router,
    sessions: Sessions<Store>,
    heard: Arc<Mutex<Vec<String>>>,
    log: Log,
    _guard: Box<dyn std::any::Any>,
}

impl Site {
    fn new(binding: DeviceBinding) -> Self {
        Self::with_keys(binding, key())
    }

    fn with_keys(binding: DeviceBinding, keys: impl Into<KeySource<SigningKeys>>) -> Self {
        async fn act(session: Session, Path(user): Path<String>) -> Result<(), SessionError> {
            session.act_as(user)
        }
        async fn stop(session: Session) -> Result<String, SessionError> {
            Ok(session.stop_acting().await?.to_string())
        }
        let (log, guard) = Log::start();
        let clock = TestClock::new();
        let store = FaultyStore::new(MemoryStore::new());
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let hears = heard.clone();
        let layer = SessionLayer::builder(store.clone(), keys)
            .clock(clock.clone())
            .idle_timeout(Duration::from_secs(2 * 60 * 60))
            .on_event(move |event| hears.lock().unwrap().push(line(event)))
            .bind_to_device(binding)
            .build()
            .unwrap();
        let sessions = layer.sessions();
        let app = routes()
            .route(
                "/device",
                get(async |session: Session| format!("{:?}", session.device())),
            )
            .route("/act/{user}", get(act))
            .route("/stop", get(stop))
            .layer(layer);
        Self {
            clock,
            store,
            app,
            sessions,
            heard,
            log,
            _guard: Box::new(guard),
        }
    }

    fn browser(&self) -> Browser {
        Browser {
            app: self.app.clone(),
            cookies: BTreeMap::new(),
        }
    }

    /// What the hooks heard since the last time.
    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut *self.heard.lock().unwrap())
    }

    /// The version of a record. It counts the writes.
    async fn version(&self, id: RecordId) -> u64 {
        let record = self.store.inner().load(id).await.unwrap();
        record.unwrap().version().as_u64()
    }

    #[track_caller]
    fn assert_rejected(&self, reason: &str) {
        let log = self.log.take();
        let events: Vec<_> = log
            .lines()
            .filter(|line| line.contains("event=\"device_rejected\""))
            .collect();
        let reason = format!("reason=\"{reason}\"");
        assert_eq!(events.len(), 1, "{reason} in {log}");
        assert!(events[0].contains(&reason), "{reason} in {events:?}");
    }
}

fn line(event: &SessionEvent) -> String {
    let what = match (event.kind(), event.cause(), event.reason()) {
        (SessionEventKind::Ended, Some(cause), _) => format!("ended, {cause}"),
        (kind, _, Some(reason)) => format!("{kind}, {reason}"),
        (kind, ..) => kind.to_string(),
    };
    match event.user() {
        Some(user) => format!("{what}: {user}"),
        None => what,
    }
}

/// A browser, or a thief with the cookies of one.
#[derive(Clone)]
struct Browser {
    app: Router,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    async fn get(&mut self, path: &str) -> Reply {
        self.send(Method::GET, path, &[]).await
    }

    /// Sends a request, and keeps the cookies of the answer.
    async fn send(&mut self, method: Method, path: &str, headers: &[(&str, &str)]) -> Reply {
        let reply = self.lose(method, path, headers).await;
        self.keep(&reply);
        reply
    }

    /// Sends a request whose answer is lost.
    async fn lose(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header("host", "example.com");
        if !self.cookies.is_empty() {
            let pairs = self
                .cookies
                .iter()
                .map(|(name, value)| format!("{name}={value}"));
            request = request.header("cookie", pairs.collect::<Vec<_>>().join("; "));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(&self.app, request.body(Body::empty()).unwrap()).await
    }

    fn keep(&mut self, reply: &Reply) {
        for cookie in reply.cookies() {
            let (pair, attributes) = cookie.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            match attributes.contains("Max-Age=0") {
                true => self.cookies.remove(name),
                false => self.cookies.insert(name.to_owned(), value.to_owned()),
            };
        }
    }

    fn id(&self) -> RecordId {
        id_of(&self.cookies[TOKEN])
    }

    /// Logs in. Returns the challenge of the offer to bind the session.
    async fn log_in(&mut self, user: &str) -> String {
        let reply = self.get(&format!("/log_in/{user}")).await;
        reply.assert(200, "done");
        offered(&reply).unwrap()
    }

    async fn register(&mut self, proof: &str) -> Reply {
        self.send(Method::POST, BIND, &[("secure-session-response", proof)])
            .await
    }

    /// Asks for the refresh of a session, with a proof or without.
    async fn refresh(&mut self, id: RecordId, proof: Option<&str>) -> Reply {
        let reply = self.lose_refresh(id, proof).await;
        self.keep(&reply);
        reply
    }

    async fn lose_refresh(&self, id: RecordId, proof: Option<&str>) -> Reply {
        let id = id.to_string();
        let mut headers = vec![("sec-secure-session-id", &*id)];
        if let Some(proof) = proof {
            headers.push(("secure-session-response", proof));
        }
        self.lose(Method::POST, REFRESH, &headers).await
    }

    /// Logs in and binds the session to this device.
    async fn bind(&mut self, user: &str, device: &Device) -> RecordId {
        let challenge = self.log_in(user).await;
        let reply = self.register(&device.registration(&challenge)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        self.id()
    }

    /// The challenge that a refresh without a proof gets.
    async fn challenge(&mut self, id: RecordId) -> String {
        let reply = self.refresh(id, None).await;
        assert_eq!(reply.status, 403, "{reply:?}");
        asked(&reply, id)
    }

    /// Renews the bound cookie, as a browser does.
    async fn renew(&mut self, id: RecordId, device: &Device) -> Reply {
        let challenge = self.challenge(id).await;
        self.refresh(id, Some(&device.refresh(&challenge))).await
    }
}

/// The challenge of an offer to bind the session, if there is one.
fn offered(reply: &Reply) -> Option<String> {
    let offer = reply.header("secure-session-registration")?;
    let challenge = offer.strip_prefix("(ES256 RS256);path=\"/session/bind\";challenge=\"");
    Some(challenge.unwrap().strip_suffix('"').unwrap().to_owned())
}

/// The challenge of an answer that asks for a proof.
#[track_caller]
fn asked(reply: &Reply, id: RecordId) -> String {
    let header = reply.header("secure-session-challenge").unwrap();
    let challenge = header.strip_suffix(&format!(";id=\"{id}\"")).unwrap();
    challenge.trim_matches('"').to_owned()
}

fn site() -> Site {
    Site::new(DeviceBinding::default())
}

#[track_caller]
fn is_over(reply: &Reply, id: RecordId) {
    assert_eq!(reply.status, 200, "{reply:?}");
    let body: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(body, json!({ "session_identifier": id, "continue": false }));
    reply.assert_no_cookie();
}

async fn goes_from_the_login_to_the_logout(device: Device) {
    let site = Site::new(DeviceBinding::default().exclude("/static"));
    let mut browser = site.browser();
    let challenge = browser.log_in("ada").await;
    let id = browser.id();
    browser.get("/device").await.assert(200, "NotBound");
    assert_eq!(site.heard(), ["created: ada", "logged_in: ada"]);

    site.clock.advance(Duration::from_secs(1));
    let bound = browser.register(&device.registration(&challenge)).await;
    assert_eq!(bound.status, 200);
    let instructions: Value = serde_json::from_str(&bound.body).unwrap();
    let attributes = "HttpOnly; SameSite=Lax; Secure; Path=/";
    assert_eq!(
        instructions,
        json!({
            "session_identifier": id,
            "refresh_url": "/session/refresh",
            "scope": {
                "include_site": false,
                "scope_specification": [{ "type": "exclude", "domain": "*", "path": "/static" }],
            },
            "credentials": [{ "type": "cookie", "name": BOUND, "attributes": attributes }],
            "allowed_refresh_initiators": [],
        })
    );
    let first = browser.cookies[BOUND].clone();
    assert_eq!(
        bound.cookies(),
        [format!("{BOUND}={first}; {attributes}; Max-Age=570")]
    );
    assert_eq!(bound.header("content-type"), Some("application/json"));
    assert_eq!(bound.header("cache-control"), Some("no-store"));
    // No challenge belongs on the answer to a registration.
    assert_eq!(bound.header("secure-session-challenge"), None);
    assert_eq!(site.heard(), ["bound: ada"]);
    site.log.assert("DEBUG", "bound");

    site.clock.advance(A_WHILE);
    browser.get("/device").await.assert(200, "Bound");
    browser.get("/user").await.assert(200, "ada");
    let sessions = site.sessions.list_for("ada").await.unwrap();
    let bound_at = sessions[0].device_bound_at().unwrap();
    assert_eq!(
        bound_at.since(sessions[0].created_at()),
        Duration::from_secs(1)
    );

    // Each refresh brings a new cookie. The browser lost the old one when it was over.
    for _ in 0..3 {
        site.clock.advance(COOKIE_LIFETIME);
        let old = browser.cookies.remove(BOUND).unwrap();
        let renewed = browser.renew(id, &device).await;
        assert_eq!(renewed.status, 200);
        assert_eq!(renewed.body, bound.body);
        assert_ne!(browser.cookies[BOUND], old);
        site.log.assert("DEBUG", "device_refreshed");
        browser.get("/user").await.assert(200, "ada");
    }
    // A new token keeps the binding.
    browser.get("/regenerate").await.assert(200, "done");
    browser.get("/device").await.assert(200, "Bound");

    browser.get("/log_out").await.assert(200, "done");
    assert_eq!(browser.cookies, BTreeMap::new());
    is_over(&browser.refresh(id, None).await, id);
    let rest = ["rotated: ada", "ended, logged_out: ada"];
    assert_eq!(site.heard(), rest);
}

#[tokio::test]
async fn a_session_is_bound_from_the_login_to_the_logout_with_es256() {
    goes_from_the_login_to_the_logout(Device::es256(1)).await;
}

#[tokio::test]
async fn a_session_is_bound_from_the_login_to_the_logout_with_rs256() {
    goes_from_the_login_to_the_logout(Device::rs256()).await;
}

/// As the draft says. Chromium sends them without quotes, and so does the browser of these tests.
#[tokio::test]
async fn strings_with_quotes_and_parameters_are_understood() {
    let (site, device) = (site(), Device::es256(1));
    let mut browser = site.browser();
    let challenge = browser.log_in("ada").await;
    let proof = format!("\"{}\";x=1", device.registration(&challenge));
    assert_eq!(browser.register(&proof).await.status, 200);
    let id = browser.id();
    let proof = format!("\"{}\"", device.refresh(&browser.challenge(id).await));
    let id = format!("\"{id}\";x");
    let headers = [
        ("sec-secure-session-id", &*id),
        ("secure-session-response", &*proof),
    ];
    assert_eq!(
        browser.send(Method::POST, REFRESH, &headers).await.status,
        200
    );
}

#[tokio::test]
async fn a_copy_of_all_cookies_ends_with_the_bound_cookie_while_the_browser_goes_on() {
    let (site, device) = (site(), Device::es256(1));
    let mut browser = site.browser();
    let id = browser.bind("ada", &device).await;
    site.clock.advance(A_WHILE);
    let mut thief = browser.clone();
    thief.get("/user").await.assert(200, "ada");

    site.clock.advance(COOKIE_LIFETIME);
    let version = site.version(id).await;
    site.heard();
    thief.get("/user").await.assert(401, "");
    assert_eq!(site.heard(), ["unbound, the bound cookie is over: ada"]);
    // The thief gets a challenge like everybody, and cannot sign it.
    let challenge = thief.challenge(id).await;
    let refused = thief
        .refresh(id, Some(&Device::es256(2).refresh(&challenge)))
        .await;
    assert_eq!(refused.status, 403);
    refused.assert_no_cookie();
    assert_eq!(site.version(id).await, version);

    assert_eq!(browser.renew(id, &device).await.status, 200);
    browser.get("/user").await.assert(200, "ada");
    thief.get("/user").await.assert(401, "");
}

#[tokio::test]
async fn a_request_without_the_bound_cookie_is_a_visitors_and_changes_nothing() {
    let (site, device) = (site(), Device::es256(1));
    let mut browser = site.browser();
    let id = browser.bind("ada", &device).await;
    browser.get("/insert/theme/dark").await.assert(200, "done");
    site.clock.advance(A_WHILE);
    site.heard();
    let version = site.version(id).await;
    let mut thief = browser.clone();
    thief.cookies.remove(BOUND);
    thief.get("/device").await.assert(200, "Unproven");
    thief.get("/get/theme").await.assert(200, "nothing");
    thief.get("/").await.assert(200, "untouched");
    for change in ["/insert/theme/light", "/update/visits"] {
        let refused = thief.get(change).await;
        refused.assert(401, "");
        assert_eq!(
            refused.header("www-authenticate"),
            Some("Cookie realm=\"__Host-session\"")
        );
        refused.assert_no_cookie();
    }
    thief.get("/user").await.assert(401, "");
    thief.get("/regenerate").await.assert_no_cookie();
    assert_eq!(site.version(id).await, version);
    let unbound = "unbound, the request has no bound cookie: ada";
    assert_eq!(site.heard(), [unbound; 7]);
    site.log.assert("INFO", "unbound");
    browser.get("/get/theme").await.assert(200, "dark");
}

#[tokio::test]
async fn a_logout_without_the_bound_cookie_ends_the_session() {
    let (site, device) = (site(), Device::es256(1));
    let mut browser = site.browser();
    browser.bind("ada", &device).await;
    site.clock.advance(A_WHILE);
    browser.cookies.remove(BOUND);
    site.heard();
    browser.get("/log_out").await.assert(200, "done");
    assert_eq!(browser.cookies, BTreeMap::new());
    assert!(site.store.inner().is_empty());
    assert!(
        site.heard()
            .contains(&format!("ended, {}: ada", EndCause::LoggedOut))
    );
}

#[tokio::test]
async fn a_login_without_the_bound_cookie_gets_through_and_ends_the_old_session() {
    let (site, device) = (site(), Device::es256(1));
    let mut browser = site.browser();
    let old = browser.bind("ada", &device).await;
    site.clock.advance(A_WHILE);
    browser.cookies.remove(BOUND);
    site.heard();
    let new = browser.bind("ada", &Device::es256(2)).await;
    assert_ne!(new, old);
    browser.get("/device").await.assert(200, "Bound");
    assert_eq!(site.store.inner().len(), 1);
    assert!(
        site.heard()
            .contains(&format!("ended, {}: ada", EndCause::Replaced))
    );
}

#[tokio::test]
async fn a_layer_that_allows_it_leaves_the_decision_to_the_application() {
    let allow = DeviceBinding::default().when_unbound(WhenUnbound::Allow);
    let (site, device) = (Site::new(allow), Device::es256(1));
    let mut browser = site.browser();
    browser.bind("ada", &device).await;
    site.clock.advance(A_WHILE);
    site.heard();
    browser.get("/device").await.assert(200, "Bound");
    let mut thief = browser.clone();
    thief.cookies.remove(BOUND);
    thief.get("/device").await.assert(200, "Unproven");
    thief.get("/user").await.assert(200, "ada");
    thief.get("/insert/theme/light").await.assert(200, "done");
    let unbound = "unbound, the request has no bound cookie: ada";
    assert_eq!(site.heard(), [unbound; 3]);
}

#[tokio::test]
async fn requests_that_were_sent_before_the_bound_cookie_came_have_a_grace_period() {
    let grace = Duration::from_secs(30);
    let (site, device) = (site(), Device::es256(1));
    let mut browser = site.browser();
    browser.bind("ada", &device).await;
    browser.cookies.remove(BOUND);
    site.clock.advance(grace - Duration::from_millis(1));
    browser.get("/device").await.assert(200, "Bound");
    browser.get("/user").await.assert(200, "ada");
    site.clock.advance(Duration::from_millis(1));
    browser.get("/user").await.assert(401, "");
}

#[tokio::test]
async fn the_event_says_why_the_browser_skipped_the_refresh() {
    let (site, device) = (site(), Device::es256(1));
    let mut browser = site.browser();
    browser.bind("ada", &device).await;
    site.clock.advance(COOKIE_LIFETIME);
    browser.cookies.remove(BOUND);
    site.heard();
    let skipped = "unreachable;session_identifier=\"x\"";
    let headers = [("secure-session-skipped", skipped)];
    browser
        .send(Method::GET, "/user", &headers)
        .await
        .assert(401, "");
    assert_eq!(
        site.heard(),
        ["unbound, the browser could not reach the refresh: ada"]
    );
}

#[tokio::test]
async fn the_bound_cookie_of_another_session_or_binding_is_worth_nothing() {
    let (site, device) = (site(), Device::es256(1));
    let mut browser = site.browser();
    browser.bind("ada", &device).await;
    let mut other = site.browser();
    other.bind("bob", &Device::es256(2)).await;
    site.clock.advance(A_WHILE);
    let own = browser.cookies[BOUND].clone();
    site.heard();
    for cookie in [
        &*other.cookies[BOUND],
        "x",
        &own[1..],
        &own.replace(&own[..4], "AAAA"),
    ] {
        let mut thief = browser.clone();
        thief.cookies.insert(BOUND.to_owned(), cookie.to_owned());
        thief.get("/user").await.assert(401, "");
    }
    let foreign = "unbound, the bound cookie does not belong to the session: ada";
    assert_eq!(site.heard(), [foreign; 4]);
    // The same session has another binding after the next login.
    browser.bind("ada", &Device::es256(3)).await;
    site.clock.advance(A_WHILE);
    browser.get("/user").await.assert(200, "ada");
    browser.cookies.insert(BOUND.to_owned(), own);
    browser.get("/user").await.assert(401, "");
}

#[tokio::test]
async fn a_new_login_of_the_same_session_begins_without_a_device() {
    let (site, device) = (site(), Device::es256(1));
    let mut browser = site.browser();
    let id = browser.bind("ada", &device).await;
    let challenge = browser.challenge(id).await;
    browser.log_in("ada").await;
    assert_eq!(browser.id(), id);
    browser.get("/device").await.assert(200, "NotBound");
    // The browser learns that the old binding is over.
    is_over(
        &browser.refresh(id, Some(&device.refresh(&challenge))).await,
        id,
    );
}

#[tokio::test]
async fn who_acts_as_another_proves_the_device_of_their_own_session() {
    let (site, device) = (site(), Device::es256(1));
    let mut browser = site.browser();
    let own = browser.bind("ada", &device).await;
    let reply = browser.get("/act/bob").await;
    assert_eq!(offered(&reply), None);
    site.clock.advance(A_WHILE);
    browser.get("/user").await.assert(200, "bob");
    let mut thief = browser.clone();
    thief.cookies.remove(BOUND);
    thief.get("/user").await.assert(401, "");
    site.clock.advance(COOKIE_LIFETIME);
    browser.get("/user").await.assert(401, "");
    assert_eq!(browser.renew(own, &device).await.status, 200);
    browser.get("/user").await.assert(200, "bob");
    browser.get("/stop").await.assert(200, "true");
    browser.get("/user").await.assert(200, "ada");
    browser.get("/device").await.assert(200, "Bound");
    // A logout without a proof ends both.
    browser.get("/act/bob").await;
    browser.cookies.remove(BOUND);
    browser.get("/log_out").await.assert(200, "done");
    assert!(site.store.inner().is_empty());
}

#[tokio::test]
async fn the_bound_token_is_worth_no_more_as_a_bearer_token() {
    use cloakroom::Transport;
    let store = MemoryStore::new();
    let clock = TestClock::new();
    let layer = builder(store)
        .clock(clock.clone())
        .transport(Transport::CookieOrBearer)
        .bind_to_device(DeviceBinding::default())
        .build()
        .unwrap();
    let app = routes().layer(layer);
    let cookies = BTreeMap::new();
    let mut browser = Browser { app, cookies };
    browser.bind("ada", &Device::es256(1)).await;
    clock.advance(A_WHILE);
    browser.get("/user").await.assert(200, "ada");
    let bearer = format!("Bearer {}", browser.cookies[TOKEN]);
    let mut thief = browser.clone();
    thief.cookies.clear();
    let headers = [("authorization", &*bearer)];
    thief
        .send(Method::GET, "/user", &headers)
        .await
        .assert(401, "");
    // Nobody offers a binding to a client with a bearer token.
    let headers = [("x-session-transport", "bearer")];
    let reply = thief.send(Method::GET, "/log_in/eve", &headers).await;
    reply.assert(200, "done");
    assert_eq!(offered(&reply), None);
    assert!(reply.header("x-session-token").is_some());
}

#[tokio::test]
async fn a_bound_session_outlives_a_change_of_the_keys_without_a_restart() {
    let of = |byte: u8| SigningKey::from_bytes(&[byte; 64]).unwrap();
    let (old, new) = (of(1), of(2));
    let set = Arc::new(Mutex::new(SigningKeys::new(old.clone())));
    let source = set.clone();
    let never = Duration::from_secs(1_000_000);
    let keys = SigningKeys::watch(never, move || {
        Ok::<_, ConfigError>(source.lock().unwrap().clone())
    });
    let keys = keys.unwrap();
    let site = Site::with_keys(DeviceBinding::default(), keys.clone());
    let device = Device::es256(1);
    let mut browser = site.browser();
    let id = browser.bind("ada", &device).await;
    site.clock.advance(A_WHILE);

    let challenge = browser.challenge(id).await;
    *set.lock().unwrap() = SigningKeys::new(new.clone()).also_verify(old);
    assert!(keys.reload().unwrap());
    browser.get("/user").await.assert(200, "ada");
    let proof = device.refresh(&challenge);
    assert_eq!(browser.refresh(id, Some(&proof)).await.status, 200);
    browser.get("/regenerate").await.assert(200, "done");
    browser.get("/device").await.assert(200, "Bound");

    // The token and the bound cookie are of the new key now.
    *set.lock().unwrap() = new.into();
    assert!(keys.reload().unwrap());
    browser.get("/user").await.assert(200, "ada");
    assert_eq!(browser.renew(id, &device).await.status, 200);
}
