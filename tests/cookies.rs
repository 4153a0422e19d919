//! What a request's Cookie headers may hold.

#![allow(clippy::unwrap_used)]

mod support;

use axum::Router;
use axum::body::Body;
use cloakroom::{Keys, MemoryStore, SessionLayer, SigningKey};
use http::header::COOKIE;
use http::{HeaderValue, Request};
use proptest::prelude::*;
use support::{Browser, Reply, Spy, app, builder, key, request, send};

/// An application, and the cookie values of two sessions in it.
async fn two_sessions() -> (Router, Spy<MemoryStore>, String, String) {
    let spy = Spy::new(MemoryStore::new());
    let app = app(SessionLayer::new(spy.clone(), key()));
    let mut tokens = Vec::new();
    for value in ["first", "second"] {
        tokens.push(
            Browser::new(&app)
                .get(&format!("/insert/theme/{value}"))
                .await
                .token()
                .unwrap(),
        );
    }
    spy.calls();
    let [first, second] = tokens.try_into().unwrap();
    (app, spy, first, second)
}

async fn with_cookies<H: AsRef<[u8]>>(app: &Router, headers: &[H]) -> Reply {
    let mut request = request("/get/theme");
    for header in headers {
        request
            .headers_mut()
            .append(COOKIE, HeaderValue::from_bytes(header.as_ref()).unwrap());
    }
    send(app, request).await
}

#[tokio::test]
async fn the_session_is_found_among_other_cookies_and_over_several_headers() {
    let (app, _, token, _) = two_sessions().await;
    for headers in [
        vec![format!("__Host-session={token}")],
        vec![format!("a=1; __Host-session={token}; b=2")],
        vec![format!("a=1;__Host-session={token};b=2")],
        vec![format!("a=1;  \t__Host-session={token} \t; b=2")],
        vec![
            "a=1".to_owned(),
            format!("__Host-session={token}"),
            "b=2".to_owned(),
        ],
        vec![format!("; ;;=;x; __Host-session={token};")],
        vec![format!("__Host-session={token}; __Host-session={token}")],
    ] {
        assert_eq!(
            with_cookies(&app, &headers).await.body,
            "first",
            "{headers:?}"
        );
    }
}

#[tokio::test]
async fn among_bad_values_of_the_name_the_good_one_is_found_in_any_order() {
    let (app, _, good, _) = two_sessions().await;
    let forged = format!("{}{}", "A".repeat(85), "A");
    for bad in [forged, String::new(), "short".to_owned(), "x".repeat(200)] {
        for pair in [[&good, &bad], [&bad, &good]] {
            let both = pair.map(|value| format!("__Host-session={value}"));
            assert_eq!(
                with_cookies(&app, &[both.join("; ")]).await.body,
                "first",
                "{both:?}"
            );
            assert_eq!(with_cookies(&app, &both).await.body, "first", "{both:?}");
        }
    }
}

#[tokio::test]
async fn two_different_good_values_are_an_anonymous_request() {
    let (app, spy, first, second) = two_sessions().await;
    for pair in [[&first, &second], [&second, &first]] {
        let both = pair.map(|value| format!("__Host-session={value}"));
        assert_eq!(with_cookies(&app, &[both.join("; ")]).await.body, "nothing");
        assert_eq!(with_cookies(&app, &both).await.body, "nothing");
    }
    assert_eq!(spy.calls(), Vec::<&str>::new());
}

#[tokio::test]
async fn the_name_is_compared_byte_for_byte() {
    let (app, spy, token, _) = two_sessions().await;
    for name in [
        "__%48ost-session",
        "__host-session",
        "__HOST-SESSION",
        "__Host-session2",
        "_Host-session",
        "session",
        "",
    ] {
        assert_eq!(
            with_cookies(&app, &[format!("{name}={token}")]).await.body,
            "nothing",
            "{name}"
        );
    }
    // Unicode white space is no white space here: U+00A0 and U+2003.
    for space in ["\u{a0}", "\u{2003}"] {
        assert_eq!(
            with_cookies(&app, &[format!("{space}__Host-session={token}")])
                .await
                .body,
            "nothing"
        );
        assert_eq!(
            with_cookies(&app, &[format!("__Host-session={token}{space}")])
                .await
                .body,
            "nothing"
        );
    }
    assert_eq!(
        with_cookies(&app, &[format!("__Host-session=\"{token}\"")])
            .await
            .body,
        "nothing"
    );
    assert_eq!(spy.calls(), Vec::<&str>::new());
}

#[tokio::test]
async fn a_token_is_good_nowhere_but_in_the_cookie() {
    let (app, spy, token, _) = two_sessions().await;
    let requests = [
        Request::get(format!("/get/theme?__Host-session={token}")).body(Body::empty()),
        Request::get("/get/theme")
            .header("authorization", format!("Bearer {token}"))
            .body(Body::empty()),
        Request::get("/get/theme")
            .header("x-session-token", &token)
            .body(Body::empty()),
        Request::get("/get/theme")
            .header("set-cookie", format!("__Host-session={token}"))
            .body(Body::empty()),
        Request::get("/get/theme").body(Body::from(format!("__Host-session={token}"))),
    ];
    for request in requests {
        assert_eq!(send(&app, request.unwrap()).await.body, "nothing");
    }
    assert_eq!(spy.calls(), Vec::<&str>::new());
}

#[tokio::test]
async fn any_changed_or_cut_token_is_anonymous_and_costs_no_store_call() {
    let (app, spy, token, _) = two_sessions().await;
    for index in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert_eq!(
            with_cookies(&app, &[format!("__Host-session={changed}")])
                .await
                .body,
            "nothing",
            "byte {index}"
        );
        let cut = &token[..index];
        assert_eq!(
            with_cookies(&app, &[format!("__Host-session={cut}")])
                .await
                .body,
            "nothing",
            "cut to {index}"
        );
    }
    for padded in [
        format!("{token}="),
        format!("{token}A"),
        format!(" {token}x"),
        token.replace('-', "+"),
    ] {
        if padded != token {
            assert_eq!(
                with_cookies(&app, &[format!("__Host-session={padded}")])
                    .await
                    .body,
                "nothing"
            );
        }
    }
    assert_eq!(spy.calls(), Vec::<&str>::new());
}

#[tokio::test]
async fn a_token_of_another_name_or_another_key_is_anonymous() {
    let store = MemoryStore::new();
    let first = app(builder(store.clone()).build().unwrap());
    let token = Browser::new(&first)
        .get("/insert/theme/first")
        .await
        .token()
        .unwrap();

    let spy = Spy::new(store);
    let renamed = app(builder(spy.clone())
        .cookie_name("__Host-other")
        .build()
        .unwrap());
    assert_eq!(
        with_cookies(&renamed, &[format!("__Host-other={token}")])
            .await
            .body,
        "nothing"
    );
    let foreign = app(SessionLayer::new(
        spy.clone(),
        SigningKey::from_bytes(&[8; 64]).unwrap(),
    ));
    assert_eq!(
        with_cookies(&foreign, &[format!("__Host-session={token}")])
            .await
            .body,
        "nothing"
    );
    assert_eq!(spy.calls(), Vec::<&str>::new());
}

#[tokio::test]
async fn keys_rotate_in_three_phases_and_nobody_is_logged_out_before_the_last() {
    let store = MemoryStore::new();
    let (old, new) = (
        SigningKey::from_bytes(&[1; 64]).unwrap(),
        SigningKey::from_bytes(&[2; 64]).unwrap(),
    );
    let app = |keys: Keys| app(SessionLayer::new(store.clone(), keys));
    let before = app(Keys::new(old.clone()));
    let rotating = app(Keys::new(new.clone()).retiring(old));
    let after = app(Keys::new(new));

    let of_old = Browser::new(&before).get("/insert/theme/old").await;
    let mut browser = Browser::new(&rotating);
    browser.keep(&of_old);
    browser.get("/get/theme").await.assert(200, "old");
    let cookie = browser.cookies();
    assert_eq!(
        with_cookies(&after, &cookie).await.body,
        "nothing",
        "a removed key still verifies"
    );

    // The next Set-Cookie is signed with the new key.
    browser.get("/regenerate").await;
    assert_eq!(with_cookies(&after, &browser.cookies()).await.body, "old");
    assert_eq!(
        with_cookies(&before, &browser.cookies()).await.body,
        "nothing"
    );
}

#[tokio::test]
async fn large_empty_and_nameless_headers_are_anonymous() {
    let (app, spy, ..) = two_sessions().await;
    let name = "__Host-session=";
    for header in [
        String::new(),
        "=".to_owned(),
        ";".to_owned(),
        "=value".to_owned(),
        "__Host-session".to_owned(),
        name.to_owned(),
        "x".repeat(8 * 1024),
        format!("{name}{}", "A".repeat(64 * 1024)),
        "__Host-session=A;".repeat(4 * 1024),
        format!("{name}{};", "A".repeat(64)).repeat(600),
    ] {
        assert_eq!(with_cookies(&app, &[header]).await.body, "nothing");
    }
    assert_eq!(spy.calls(), Vec::<&str>::new());
}

#[tokio::test]
async fn an_unknown_id_that_is_well_signed_is_never_adopted() {
    let store = MemoryStore::new();
    let app = app(SessionLayer::new(store, key()));
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    let mut attacker = browser.clone();
    let gone = browser.token();
    browser.get("/destroy").await;
    // The attacker's cookie is well signed, and its session is gone: what is written starts under another record id.
    let id = |token: &str| token[..21].to_owned();
    let reply = attacker.get("/insert/theme/light").await;
    assert_ne!(id(&reply.token().unwrap()), id(&gone));
    assert_ne!(reply.token().unwrap(), gone);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_a_cookie_header_are_an_anonymous_request_without_a_store_call(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            // Bytes that look like the cookie.
            proptest::collection::vec(prop_oneof![
                Just(b"__Host-session=".to_vec()), Just(b"; ".to_vec()), Just(vec![b'A'; 64]), "[A-Za-z0-9_=;-]{0,90}".prop_map(String::into_bytes),
            ], 0..8).prop_map(|parts| parts.concat()),
        ],
    ) {
        // What HTTP itself refuses never gets here.
        let allow = |byte: u8| if byte < b' ' || byte == 0x7f { b'\t' } else { byte };
        let bytes: Vec<u8> = bytes.into_iter().map(allow).collect();
        let spy = Spy::new(MemoryStore::new());
        let app = app(SessionLayer::new(spy.clone(), key()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let reply = runtime.block_on(with_cookies(&app, &[&bytes]));
        prop_assert_eq!((reply.status.as_u16(), &*reply.body), (200, "nothing"));
        prop_assert!(reply.cookies().is_empty());
        prop_assert!(spy.calls().is_empty());
    }
}
