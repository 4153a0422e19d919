//! A service behind: its extractor, its answers, and what it logs.

use axum::Router;
use axum::body::Body;
use cloakroom::assertion::AssertionErrorKind;
use http::{HeaderMap, HeaderValue, Request};
use support::{Reply, request, send};

use super::parties::{Gateway, Service};
use crate::secrecy::logging::Log;

async fn send_headers(app: &Router, path: &str, values: &[&[u8]]) -> Reply {
    let mut request = Request::get(path).body(Body::empty()).unwrap();
    for value in values {
        let value = HeaderValue::from_bytes(value).unwrap();
        request.headers_mut().append("authorization", value);
    }
    send(app, request).await
}

#[tokio::test]
async fn a_request_without_a_bearer_token_is_asked_for_one() {
    let service = Service::new();
    let good = service.good();
    let basic = format!("Basic {good}");
    let glued = format!("Bearer{good}");
    let bare: [&[&[u8]]; 5] = [
        &[],
        &[b""],
        &[basic.as_bytes()],
        &[glued.as_bytes()],
        &[b"\xff"],
    ];
    for headers in bare {
        let reply = send_headers(&service.app, "/orders", headers).await;
        reply.assert(401, "");
        // Without a token, there is no error to name (RFC 6750, section 3.1).
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        let reply = send_headers(&service.app, "/maybe", headers).await;
        reply.assert(200, "nobody");
    }
}

#[tokio::test]
async fn the_scheme_has_no_case_and_spaces_around_the_token_are_none_of_it() {
    let service = Service::new();
    let good = service.good();
    for header in [
        format!("Bearer {good}"),
        format!("bearer {good}"),
        format!("BEARER   {good} "),
    ] {
        let reply = send_headers(&service.app, "/orders", &[header.as_bytes()]).await;
        reply.assert(200, "the orders of ada");
        let reply = send_headers(&service.app, "/maybe", &[header.as_bytes()]).await;
        reply.assert(200, "ada");
    }
}

#[tokio::test]
async fn two_headers_and_a_bad_token_are_refused_even_where_nobody_must_be_there() {
    let service = Service::new();
    let good = format!("Bearer {}", service.good());
    let bad = good.replacen("eyJ", "eyK", 1);
    let several: [&[&[u8]]; 6] = [
        &[good.as_bytes(), good.as_bytes()],
        &[good.as_bytes(), b"Basic YTpi"],
        &[b"Basic YTpi", good.as_bytes()],
        &[bad.as_bytes()],
        &[b"Bearer"],
        &[b"Bearer \xff\xfe"],
    ];
    for headers in several {
        for path in ["/orders", "/maybe"] {
            let reply = send_headers(&service.app, path, headers).await;
            reply.assert(401, "");
            let challenge = reply.header("www-authenticate");
            assert_eq!(challenge, Some(r#"Bearer error="invalid_token""#));
        }
    }
}

#[tokio::test]
async fn an_assertion_in_a_query_or_a_cookie_counts_for_nothing() {
    let service = Service::new();
    let good = service.good();
    let mut in_cookie = request("/orders");
    let cookie = format!("__Host-session={good}; access_token={good}");
    in_cookie
        .headers_mut()
        .insert("cookie", cookie.parse().unwrap());
    for request in [in_cookie, request(&format!("/orders?access_token={good}"))] {
        send(&service.app, request).await.assert(401, "");
    }
}

#[tokio::test]
async fn a_service_without_axum_verifies_the_headers_itself() {
    let service = Service::new();
    let mut headers = HeaderMap::new();
    let error = service.verifier.verify_headers(&headers).await.unwrap_err();
    assert_eq!(error.kind(), AssertionErrorKind::Missing);
    assert_eq!(error.status(), 401);
    let bearer = format!("Bearer {}", service.good());
    headers.insert("authorization", bearer.parse().unwrap());
    let asserted = service.verifier.verify_headers(&headers).await.unwrap();
    assert_eq!(asserted.user().as_str(), "ada");
    assert_eq!(asserted.actor().unwrap().as_str(), "bob");
    let debug = format!("{:?} {asserted:?}", service.verifier);
    assert!(!debug.contains(&bearer[7..40]), "{debug}");
}

/// The log says why, and shows nothing of the token.
#[tokio::test]
async fn the_log_has_the_reason_of_a_refusal_and_no_token() {
    let (log, _guard) = Log::start();
    let service = Service::new();
    let old = service.with_claim("exp", 1.into());
    let foreign = service.with_header("kid", "a kid that is a secret".into());
    for token in [&old, &foreign] {
        assert!(service.verifier.verify(token).await.is_err());
    }
    let gateway = Gateway::new();
    let token = gateway.assertion().await;
    let log = log.take();
    assert!(log.contains("assertion_rejected"), "{log}");
    assert!(log.contains("the assertion has expired"), "{log}");
    assert!(
        log.contains("the issuer does not publish the key of the assertion"),
        "{log}"
    );
    assert!(log.contains("event=\"asserted\""), "{log}");
    for token in [old, foreign, token] {
        for part in token.split('.') {
            assert!(!log.contains(part), "{log}");
        }
    }
    assert!(!log.contains("a kid that is a secret"), "{log}");
}

#[test]
fn types_of_assertions_can_be_sent_and_shared() {
    use cloakroom::assertion::*;

    fn is_shared<T: Send + Sync + Unpin + 'static>() {}

    is_shared::<Asserted>();
    is_shared::<AssertionError>();
    is_shared::<AssertionErrorKind>();
    is_shared::<AssertionKey>();
    is_shared::<AssertionKeys>();
    is_shared::<AssertionVerifier>();
    is_shared::<Assertions>();
    is_shared::<InvalidJwks>();
    is_shared::<Jwks>();
    is_shared::<JwksRoute>();
    fn is_sent<T: Send>(_: T) {}
    fn verifies(verifier: &AssertionVerifier) {
        is_sent(verifier.verify(""));
    }
    let _ = verifies;
}
