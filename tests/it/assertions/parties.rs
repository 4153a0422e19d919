//! A gateway, a service behind it, and a forger who can sign anything.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::routing::get;
use cloakroom::assertion::{
    Asserted, AssertionError, AssertionErrorKind, AssertionKey, AssertionKeys, AssertionVerifier,
    Assertions, Jwks,
};
use cloakroom::testing::FaultyStore;
use cloakroom::{
    Authentication, Clock, MemoryStore, Session, SessionError, SessionLayer, SessionLayerBuilder,
    Sessions, TestClock, Timestamp,
};
use http::Request;
use serde_json::{Value, json};
use support::base64::decode;
use support::device::Device;
use support::{Browser, Reply, builder, routes, send};

pub(super) const ISSUER: &str = "https://example.com";
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);

/// The name of the forger's good key.
pub(super) const KID: &str = "key 1";

pub(super) type Store = FaultyStore<MemoryStore>;

pub(super) fn seconds(time: Timestamp) -> u64 {
    time.as_millis() / 1000
}

/// The header and the claims of a token.
pub(super) fn parts(token: &str) -> [Value; 2] {
    let mut parts = token.split('.');
    [(); 2].map(|()| serde_json::from_slice(&decode(parts.next().unwrap())).unwrap())
}

pub(super) struct Gateway {
    pub(super) clock: TestClock,
    pub(super) store: Store,
    pub(super) keys: AssertionKeys,
    pub(super) sessions: Sessions<Store>,
    pub(super) app: Router,
}

pub(super) async fn assertion(
    session: Session,
    Path((audience, millis)): Path<(String, u64)>,
) -> Result<String, SessionError> {
    // A path has no empty part.
    let audience = if audience == "nobody" { "" } else { &audience };
    session.assertion(audience, Duration::from_millis(millis))
}

/// The routes of a gateway.
pub(super) fn gateway_routes() -> Router {
    async fn act_as(session: Session, Path(user): Path<String>) -> Result<(), SessionError> {
        session.act_as(user)
    }
    async fn sign_on(session: Session, Path(auth_time): Path<u64>) -> Result<(), SessionError> {
        let how = Authentication::at(Timestamp::from_millis(auth_time * 1000))
            .with_methods(["pwd", "otp"])
            .with_level("aal2");
        session.log_in_with("ada", how)
    }
    routes()
        .route("/assertion/{audience}/{millis}", get(assertion))
        .route("/act_as/{user}", get(act_as))
        .route("/sign_on/{auth_time}", get(sign_on))
}

impl Gateway {
    pub(super) fn new() -> Self {
        Self::with(|builder, assertions| builder.assertions(assertions))
    }

    pub(super) fn with(
        set: impl FnOnce(SessionLayerBuilder<Store>, Assertions) -> SessionLayerBuilder<Store>,
    ) -> Self {
        let clock = TestClock::new();
        let store = FaultyStore::new(MemoryStore::new());
        let keys = AssertionKeys::new(AssertionKey::generate().unwrap());
        let builder = builder(store.clone()).clock(clock.clone());
        let layer: SessionLayer<Store> = set(builder, Assertions::new(ISSUER, keys.clone()))
            .build()
            .unwrap();
        Self {
            clock,
            store,
            keys,
            sessions: layer.sessions(),
            app: gateway_routes().layer(layer),
        }
    }

    pub(super) async fn logged_in(&self) -> Browser {
        let mut browser = Browser::new(&self.app);
        browser.get("/log_in/ada").await;
        browser
    }

    /// An assertion of a user who has just logged in.
    pub(super) async fn assertion(&self) -> String {
        minute(&mut self.logged_in().await).await
    }

    pub(super) fn verifier(&self) -> AssertionVerifier {
        AssertionVerifier::new(ISSUER, "orders", self.keys.jwks()).clock(self.clock.clone())
    }
}

/// An assertion for the orders, for a minute.
pub(super) async fn minute(browser: &mut Browser) -> String {
    let reply = browser.get("/assertion/orders/60000").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.body
}

/// A service that trusts one key, which the forger has.
pub(super) struct Service {
    pub(super) clock: TestClock,
    pub(super) issuer: Device,
    pub(super) verifier: AssertionVerifier,
    pub(super) app: Router,
}

async fn orders(user: Asserted) -> String {
    format!("the orders of {}", user.user())
}

async fn maybe(user: Option<Asserted>) -> String {
    user.map_or_else(|| "nobody".to_owned(), |user| user.user().to_string())
}

/// A service with two routes: one needs a user.
pub(super) fn service_app(verifier: AssertionVerifier) -> Router {
    Router::new()
        .route("/orders", get(orders))
        .route("/maybe", get(maybe))
        .with_state(verifier)
}

/// The JWKS of these keys.
pub(super) fn jwks(keys: &[(&str, Value)]) -> String {
    let named = |(kid, jwk): &(&str, Value)| {
        let mut jwk = jwk.clone();
        jwk["kid"] = (*kid).into();
        jwk
    };
    json!({ "keys": keys.iter().map(named).collect::<Vec<_>>() }).to_string()
}

impl Service {
    pub(super) fn new() -> Self {
        let issuer = Device::es256(1);
        let other = ("key 2", Device::es256(2).jwk());
        let keys = Jwks::parse(jwks(&[(KID, issuer.jwk()), other])).unwrap();
        let clock = TestClock::new();
        let verifier = AssertionVerifier::new(ISSUER, "orders", keys).clock(clock.clone());
        Self {
            clock,
            issuer,
            app: service_app(verifier.clone()),
            verifier,
        }
    }

    pub(super) fn now(&self) -> u64 {
        seconds(self.clock.now())
    }

    /// The header of a good assertion.
    pub(super) fn header() -> Value {
        json!({ "typ": "assertion+jwt", "alg": "ES256", "kid": KID })
    }

    /// The claims of a good assertion, with everything that one can have.
    pub(super) fn claims(&self) -> Value {
        json!({
            "iss": ISSUER,
            "aud": "orders",
            "sub": "ada",
            "sid": "AAECAwQFBgcICQoLDA0ODw",
            "iat": self.now(),
            "exp": self.now() + 60,
            "jti": "9b2f",
            "auth_time": self.now() - 5,
            "acr": "aal2",
            "amr": ["pwd", "otp"],
            "act": { "sub": "bob" },
        })
    }

    pub(super) fn signed(&self, header: &Value, claims: &Value) -> String {
        self.issuer.token(&header.to_string(), &claims.to_string())
    }

    pub(super) fn good(&self) -> String {
        self.signed(&Self::header(), &self.claims())
    }

    /// A good assertion, but for one member of its header. `Null` takes the member away.
    pub(super) fn with_header(&self, name: &str, value: Value) -> String {
        self.signed(&changed(Self::header(), name, value), &self.claims())
    }

    /// A good assertion, but for one claim. `Null` takes the claim away.
    pub(super) fn with_claim(&self, name: &str, value: Value) -> String {
        self.signed(&Self::header(), &changed(self.claims(), name, value))
    }

    pub(super) async fn send(&self, token: &str) -> Reply {
        send_to(&self.app, token).await
    }

    /// Checks that the service refuses a token, and why. The answer says nothing of it.
    pub(super) async fn assert_refused(&self, token: &str, reason: &str) {
        let error = self.verifier.verify(token).await.expect_err(reason);
        assert_refused(&error, token, reason);
        if http::HeaderValue::from_str(token).is_ok() {
            let reply = self.send(token).await;
            reply.assert(401, "");
            let challenge = reply.header("www-authenticate");
            assert_eq!(challenge, Some(r#"Bearer error="invalid_token""#));
            assert_eq!(reply.header("cache-control"), Some("no-store"));
        }
        // The service is not at fault: the good assertion gets through.
        self.assert_good(&self.good()).await;
    }

    pub(super) async fn assert_good(&self, token: &str) {
        self.send(token).await.assert(200, "the orders of ada");
    }
}

pub(super) fn assert_refused(error: &AssertionError, token: &str, reason: &str) {
    assert_eq!(error.to_string(), reason, "{token}");
    assert_eq!(error.kind(), AssertionErrorKind::Refused);
    let shown = format!("{error} {error:?}");
    let shows = |part: &str| part.len() > 8 && shown.contains(part);
    assert!(!token.split('.').any(shows), "{shown}");
}

pub(super) fn changed(mut object: Value, name: &str, value: Value) -> Value {
    let members = object.as_object_mut().unwrap();
    match value {
        Value::Null => drop(members.remove(name)),
        value => drop(members.insert(name.to_owned(), value)),
    }
    object
}

pub(super) async fn send_to(app: &Router, token: &str) -> Reply {
    let request = Request::get("/orders").header("authorization", format!("Bearer {token}"));
    send(app, request.body(Body::empty()).unwrap()).await
}
