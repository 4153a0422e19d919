//! What a gateway says in an assertion, and when it says nothing.

use std::error::Error as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::routing::get;
use cloakroom::assertion::{AssertionKey, AssertionKeys, Assertions};
use cloakroom::{
    Authentication, Clock, ConfigError, MemoryStore, RecordId, Session, SessionError,
    SessionErrorKind, SessionLayer, TestClock, Timestamp, UserId,
};
use serde_json::{Value, json};
use support::base64::decode;
use support::{Browser, Reply, builder};

use super::parties::{
    Gateway, HOUR, ISSUER, MINUTE, SECOND, gateway_routes, minute, parts, seconds,
};

/// Why a gateway refused, from the extensions and the log of nobody: the routes of this file answer
/// with it.
async fn why(session: Session, audience: &str, ttl: Duration) -> String {
    match session.assertion(audience, ttl) {
        Ok(_) => "an assertion".to_owned(),
        Err(error) => {
            let source = error.source().map(ToString::to_string).unwrap_or_default();
            format!("{:?}: {source}", error.kind())
        }
    }
}

#[tokio::test]
async fn an_assertion_says_who_is_logged_in_and_how() {
    let gateway = Gateway::new();
    let mut browser = Browser::new(&gateway.app);
    let now = seconds(gateway.clock.now());
    browser.get(&format!("/sign_on/{}", now - 300)).await;
    gateway.clock.advance(10 * SECOND);
    let token = minute(&mut browser).await;
    let [header, claims] = parts(&token);
    let kid = gateway.keys.jwks().to_string();
    let kid: Value = serde_json::from_str(&kid).unwrap();
    assert_eq!(
        header,
        json!({ "typ": "assertion+jwt", "alg": "ES256", "kid": kid["keys"][0]["kid"] })
    );
    let session = gateway.sessions.list_for("ada").await.unwrap()[0].id();
    let jti = claims["jti"].as_str().unwrap();
    assert_eq!(decode(jti).len(), 16);
    assert_eq!(
        claims,
        json!({
            "iss": ISSUER,
            "aud": "orders",
            "sub": "ada",
            "sid": session.to_string(),
            "iat": now + 10,
            "exp": now + 70,
            "jti": jti,
            "auth_time": now - 300,
            "acr": "aal2",
            "amr": ["pwd", "otp"],
        })
    );

    let asserted = gateway.verifier().verify(&token).await.unwrap();
    let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
    assert_eq!(asserted.user(), &"ada".parse::<UserId>().unwrap());
    assert_eq!(asserted.session(), session);
    assert_eq!(asserted.issued_at(), at(now + 10));
    assert_eq!(asserted.expires_at(), at(now + 70));
    assert_eq!(asserted.jti(), jti);
    assert_eq!(asserted.actor(), None);
    let how = Authentication::at(at(now - 300))
        .with_methods(["pwd", "otp"])
        .with_level("aal2");
    assert_eq!(asserted.authentication(), &how);
}

#[tokio::test]
async fn an_assertion_of_a_plain_login_has_its_time_and_no_more() {
    let gateway = Gateway::new();
    let mut browser = Browser::new(&gateway.app);
    browser.get("/log_in/42").await;
    let login = seconds(gateway.clock.now());
    gateway.clock.advance(MINUTE);
    let token = minute(&mut browser).await;
    let [_, claims] = parts(&token);
    let names: Vec<_> = claims.as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        names,
        ["aud", "auth_time", "exp", "iat", "iss", "jti", "sid", "sub"]
    );
    assert_eq!(claims["auth_time"], login);
    let asserted = gateway.verifier().verify(&token).await.unwrap();
    assert_eq!(asserted.user().parse(), Ok(42_i64));
    assert_eq!(asserted.authentication().level(), None);
    assert!(asserted.authentication().methods().is_empty());
}

#[tokio::test]
async fn an_assertion_names_the_user_as_the_application_does_in_every_realm() {
    for user in [
        "ada",
        "customers:ada",
        "a:b:c",
        "ada@example.com",
        "\u{e4}\"\\",
    ] {
        let gateway =
            Gateway::with(|builder, assertions| builder.realm("customers").assertions(assertions));
        let mut browser = Browser::new(&gateway.app);
        let path = user
            .replace('"', "%22")
            .replace('\\', "%5C")
            .replace('\u{e4}', "%C3%A4");
        browser
            .get(&format!("/log_in/{path}"))
            .await
            .assert(200, "done");
        let token = minute(&mut browser).await;
        assert_eq!(parts(&token)[1]["sub"], user);
        let asserted = gateway.verifier().verify(&token).await.unwrap();
        assert_eq!(asserted.user().as_str(), user);
    }
}

#[tokio::test]
async fn an_assertion_says_who_acts_for_whom_and_how_the_actor_logged_in() {
    let gateway = Gateway::new();
    let mut browser = Browser::new(&gateway.app);
    let login = seconds(gateway.clock.now()) - 300;
    browser.get(&format!("/sign_on/{login}")).await;
    gateway.clock.advance(MINUTE);
    browser.get("/act_as/bob").await;
    let token = minute(&mut browser).await;
    let [_, claims] = parts(&token);
    assert_eq!(claims["sub"], "bob");
    assert_eq!(claims["act"], json!({ "sub": "ada" }));
    assert_eq!(claims["auth_time"], login);
    assert_eq!(claims["acr"], "aal2");
    let session = gateway.sessions.list_for("bob").await.unwrap()[0].id();
    let asserted = gateway.verifier().verify(&token).await.unwrap();
    assert_eq!(asserted.user().as_str(), "bob");
    assert_eq!(asserted.actor().unwrap().as_str(), "ada");
    assert_eq!(asserted.session(), session);
}

fn assert_no_token(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert_eq!(reply.body, "");
}

#[tokio::test]
async fn nobody_asserts_a_visitor_or_an_ended_session() {
    let gateway = Gateway::new();
    let mut browser = Browser::new(&gateway.app);
    assert_no_token(&browser.get("/assertion/orders/60000").await, 401);
    browser.get("/insert/theme/dark").await;
    assert_no_token(&browser.get("/assertion/orders/60000").await, 401);
    browser.get("/log_in/ada").await;
    minute(&mut browser).await;
    gateway.sessions.revoke_user("ada").await.unwrap();
    assert_no_token(&browser.get("/assertion/orders/60000").await, 401);
    browser.get("/log_in/ada").await;
    gateway.clock.advance(HOUR);
    assert_no_token(&browser.get("/assertion/orders/60000").await, 401);
}

/// The store may refuse the login or the end that a request asks for. So the request says nothing.
#[tokio::test]
async fn the_request_that_logs_in_or_out_or_acts_gets_no_assertion() {
    let gateway = Gateway::with(|builder, assertions| builder.assertions(assertions));
    let routes = |layer: SessionLayer<MemoryStore>| {
        gateway_routes()
            .route(
                "/log_in_first",
                get(async |session: Session| {
                    session.log_in("ada").unwrap();
                    why(session, "orders", MINUTE).await
                }),
            )
            .route(
                "/act_first",
                get(async |session: Session| {
                    session.act_as("bob").unwrap();
                    why(session, "orders", MINUTE).await
                }),
            )
            .route(
                "/log_out_first",
                get(async |session: Session| {
                    session.log_out().unwrap();
                    why(session, "orders", MINUTE).await
                }),
            )
            .layer(layer)
    };
    let layer = builder(MemoryStore::new())
        .assertions(Assertions::new(ISSUER, gateway.keys.clone()))
        .build()
        .unwrap();
    let app = routes(layer);
    let refused = "InvalidAssertion: this request has made the login, and has not stored it yet; \
                   ask in the next one";
    let mut browser = Browser::new(&app);
    // A visitor with and without a session, the same user again, and another user.
    browser.get("/log_in_first").await.assert(200, refused);
    minute(&mut browser).await;
    browser.get("/log_in_first").await.assert(200, refused);
    minute(&mut browser).await;
    let mut visitor = Browser::new(&app);
    visitor.get("/insert/theme/dark").await;
    visitor.get("/log_in_first").await.assert(200, refused);
    minute(&mut visitor).await;
    let mut bob = Browser::new(&app);
    bob.get("/log_in/bob").await;
    bob.get("/log_in_first").await.assert(200, refused);

    browser.get("/act_first").await.assert(200, refused);
    let token = minute(&mut browser).await;
    assert_eq!(parts(&token)[1]["act"]["sub"], "ada");
    browser
        .get("/log_out_first")
        .await
        .assert(200, "NotLoggedIn: ");
}

#[tokio::test]
async fn a_ttl_is_from_a_second_to_the_longest_one() {
    for (max_ttl, longest, max) in [(None, 3_600_000, 3600), (Some(90 * SECOND), 90_000, 90)] {
        let gateway = Gateway::with(|builder, assertions| {
            builder.idle_timeout(6 * HOUR).assertions(match max_ttl {
                Some(max_ttl) => assertions.max_ttl(max_ttl),
                None => assertions,
            })
        });
        let mut browser = gateway.logged_in().await;
        for millis in [1_000, 1_001, longest] {
            let reply = browser.get(&format!("/assertion/orders/{millis}")).await;
            let [_, claims] = parts(&reply.body);
            let ttl = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
            // The end of the ttl is never exceeded, whatever the fraction of the second is now.
            assert!(ttl.abs_diff(millis / 1000) <= 1, "{ttl} of {millis}");
            let ends = gateway.clock.now() + Duration::from_millis(millis);
            assert!(claims["exp"].as_u64().unwrap() <= seconds(ends));
            assert!(gateway.verifier().verify(&reply.body).await.is_ok());
        }
        for millis in [0, 1, 999, longest + 1, u64::MAX] {
            let reply = browser.get(&format!("/assertion/orders/{millis}")).await;
            assert_no_token(&reply, 500);
        }
        let reply = browser.get("/assertion/nobody/60000").await;
        assert_no_token(&reply, 500);
        assert!(max <= 3600);
    }
}

#[tokio::test]
async fn an_error_says_what_is_wrong_with_a_ttl_or_an_audience() {
    let keys = AssertionKeys::new(AssertionKey::generate().unwrap());
    let layer = builder(MemoryStore::new())
        .assertions(Assertions::new(ISSUER, keys))
        .build()
        .unwrap();
    let app = gateway_routes()
        .route(
            "/long",
            get(async |session: Session| why(session, "orders", 2 * HOUR).await),
        )
        .route(
            "/empty",
            get(async |session: Session| why(session, "", MINUTE).await),
        )
        .route(
            "/endless",
            get(async |session: Session| why(session, &"a".repeat(10_000), MINUTE).await),
        )
        .layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await;
    let long = "InvalidAssertion: the ttl must be from one second to the layer's `max_ttl` of 3600 \
                seconds";
    browser.get("/long").await.assert(200, long);
    let empty = "InvalidAssertion: the audience is empty; name the service";
    browser.get("/empty").await.assert(200, empty);
    let endless = "InvalidAssertion: the assertion would be too long for a header; log in with \
                   shorter methods and levels";
    browser.get("/endless").await.assert(200, endless);
}

#[tokio::test]
async fn a_layer_without_keys_says_what_to_do() {
    let gateway = Gateway::with(|builder, _| builder);
    let mut browser = gateway.logged_in().await;
    assert_no_token(&browser.get("/assertion/orders/60000").await, 500);
    let error = SessionError::from(SessionErrorKind::NoAssertions);
    assert_eq!(
        error.to_string(),
        "the layer makes no assertions; call `assertions` on its builder"
    );
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let refused = |set: &dyn Fn(Assertions) -> Assertions, issuer: &str| -> ConfigError {
        let keys = AssertionKey::generate().unwrap();
        builder(MemoryStore::new())
            .assertions(set(Assertions::new(issuer, keys)))
            .build()
            .unwrap_err()
    };
    let error = refused(&|assertions| assertions, "");
    assert_eq!(error.setting(), "assertions");
    assert!(error.to_string().contains("the issuer is empty"), "{error}");
    for max_ttl in [
        Duration::ZERO,
        SECOND / 2,
        24 * HOUR + SECOND,
        Duration::MAX,
    ] {
        let error = refused(&|assertions| assertions.max_ttl(max_ttl), ISSUER);
        assert!(
            error.to_string().contains("from one second to 24 hours"),
            "{error}"
        );
    }
}

/// The session's own end is the latest.
/// A socket of the gateway may keep the `Session` of its request for hours.
#[tokio::test]
async fn a_session_that_is_kept_beyond_its_response_or_its_expiry_makes_no_assertion() {
    let kept = Arc::new(Mutex::new(None));
    let keeps = kept.clone();
    let keep = async move |session: Session| {
        *keeps.lock().unwrap() = Some(session);
    };
    let clock = TestClock::new();
    let layer = builder(MemoryStore::new())
        .clock(clock.clone())
        .assertions(Assertions::new(
            ISSUER,
            AssertionKeys::new(AssertionKey::generate().unwrap()),
        ))
        .build()
        .unwrap();
    let late = {
        let clock = clock.clone();
        async move |session: Session| {
            clock.advance(HOUR);
            why(session, "orders", MINUTE).await
        }
    };
    let app = gateway_routes()
        .route("/keep", get(keep))
        .route("/late", get(late))
        .layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await.assert(200, "done");
    browser.get("/keep").await.assert(200, "");
    let session = kept.lock().unwrap().take().unwrap();
    assert!(why(session, "orders", MINUTE).await.starts_with("Sealed"));
    let refused = browser.get("/late").await;
    assert!(refused.body.contains("may be over by now"), "{refused:?}");
}

#[tokio::test]
async fn an_assertion_does_not_outlive_the_expiry_of_its_session() {
    let gateway = Gateway::new();
    let mut browser = gateway.logged_in().await;
    gateway.clock.advance(29 * MINUTE);
    let reply = browser.get("/assertion/orders/3600000").await;
    let [_, claims] = parts(&reply.body);
    let left = claims["exp"].as_u64().unwrap() - seconds(gateway.clock.now());
    assert!(left <= 60, "{left} seconds");
}

/// This is what a token without a store gives up.
#[tokio::test]
async fn the_end_of_a_session_takes_effect_after_the_ttl() {
    let gateway = Gateway::new();
    let mut browser = gateway.logged_in().await;
    let token = minute(&mut browser).await;
    browser.get("/log_out").await;
    assert_no_token(&browser.get("/assertion/orders/60000").await, 401);
    let verifier = gateway.verifier();
    assert!(verifier.verify(&token).await.is_ok());
    gateway.clock.advance(MINUTE + 30 * SECOND);
    assert!(verifier.verify(&token).await.is_err());
}

#[tokio::test]
async fn each_assertion_has_an_id_of_its_own() {
    let gateway = Gateway::new();
    let mut browser = gateway.logged_in().await;
    let mut seen = std::collections::HashSet::new();
    for _ in 0..50 {
        let token = minute(&mut browser).await;
        assert!(seen.insert(parts(&token)[1]["jti"].to_string()));
    }
}

#[tokio::test]
async fn a_random_generator_that_fails_is_an_error_and_no_assertion() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    let fails = Arc::new(AtomicBool::new(false));
    let fault = fails.clone();
    let gateway = Gateway::with(move |builder, assertions| {
        let random = move |bytes: &mut [u8]| {
            if fault.load(Ordering::SeqCst) {
                return Err("no entropy");
            }
            bytes.fill(7);
            Ok(())
        };
        builder.random(random).assertions(assertions)
    });
    let mut browser = gateway.logged_in().await;
    minute(&mut browser).await;
    fails.store(true, Ordering::SeqCst);
    assert_no_token(&browser.get("/assertion/orders/60000").await, 500);
}

/// One load for the request, as for every other one.
#[tokio::test]
async fn an_assertion_costs_no_store_call() {
    let gateway = Gateway::new();
    let mut browser = gateway.logged_in().await;
    gateway.store.take_calls();
    minute(&mut browser).await;
    let with = gateway.store.take_calls();
    browser.get("/user").await;
    assert_eq!(with, gateway.store.take_calls());
    assert_eq!(with.len(), 1, "{with:?}");
}

#[tokio::test]
async fn an_answer_with_an_assertion_varies_by_cookie() {
    let gateway = Gateway::new();
    let reply = gateway
        .logged_in()
        .await
        .get("/assertion/orders/60000")
        .await;
    assert_eq!(reply.header("vary"), Some("Cookie"));
}

/// The setting stays when a layer binds sessions to devices, in either order.
#[tokio::test]
async fn a_layer_that_binds_devices_makes_assertions_too() {
    let keys = AssertionKeys::new(AssertionKey::generate().unwrap());
    let assertions = Assertions::new(ISSUER, keys);
    let binding = cloakroom::DeviceBinding::default();
    let before = builder(MemoryStore::new())
        .assertions(assertions.clone())
        .bind_to_device(binding.clone());
    let after = builder(MemoryStore::new())
        .bind_to_device(binding)
        .assertions(assertions);
    for builder in [before, after] {
        let app = gateway_routes().layer(builder.build().unwrap());
        let mut browser = Browser::new(&app);
        browser.get("/log_in/ada").await;
        let _: RecordId = parts(&minute(&mut browser).await)[1]["sid"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
    }
}
