//! What may be in a request's Cookie headers.

use std::collections::BTreeSet;

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use cloakroom::testing::{FaultyStore, StoreCall};
use cloakroom::{MemoryStore, Session, SessionError, SessionLayer, SigningKey, SigningKeys};
use http::header::COOKIE;
use http::{HeaderValue, Request};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use support::base64::{decode, encode};
use support::{Browser, Reply, app, builder, key, request, routes, send};

/// An application with two sessions, and their cookie values.
async fn two_sessions() -> (Router, FaultyStore<MemoryStore>, String, String) {
    let spy = FaultyStore::new(MemoryStore::new());
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
    spy.take_calls();
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
    // This token is as long as a good one, so only its signature is wrong.
    let forged = "A".repeat(70);
    assert_eq!(forged.len(), good.len());
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
async fn the_tokens_of_two_live_sessions_are_an_anonymous_request() {
    let (app, spy, first, second) = two_sessions().await;
    for pair in [[&first, &second], [&second, &first]] {
        let both = pair.map(|value| format!("__Host-session={value}"));
        assert_eq!(with_cookies(&app, &[both.join("; ")]).await.body, "nothing");
        assert_eq!(with_cookies(&app, &both).await.body, "nothing");
    }
    assert_eq!(spy.take_calls(), [StoreCall::Load; 8]);
}

#[tokio::test]
async fn of_several_good_tokens_the_one_of_the_live_session_counts_in_any_order() {
    let (app, spy, live, ended) = two_sessions().await;
    let named = |token: &str| format!("__Host-session={token}");
    Browser::new(&app)
        .send("/log_out", &[("cookie", &named(&ended))])
        .await
        .assert(200, "done");
    // One of the tokens was rotated, and the session of the other one was ended.
    let mut replaced = Browser::new(&app);
    replaced.get("/insert/theme/third").await;
    let before = replaced.token();
    replaced.get("/regenerate").await;
    let (after, all) = (replaced.token(), [named(&ended), named(&before)]);
    spy.take_calls();
    for headers in orders_and_cuts(&[named(&live), all[0].clone(), all[1].clone()]) {
        assert_eq!(with_cookies(&app, &headers).await.body, "first");
    }
    // The old token and the new token of one session.
    for headers in orders_and_cuts(&[named(&before), named(&after)]) {
        assert_eq!(with_cookies(&app, &headers).await.body, "third");
    }
}

/// The browser keeps the old path's cookie next to the new path's cookie, and sends both.
#[tokio::test]
async fn a_release_that_changes_the_cookies_path_or_domain_logs_nobody_out_for_good() {
    let store = std::sync::Arc::new(MemoryStore::new());
    for lazy in [false, true] {
        let release = |path: &str| {
            let mut layer = builder(store.clone())
                .cookie_name("sid")
                .secure(false)
                .cookie_path(path);
            if lazy {
                layer = layer.lazy(true);
            }
            let app = axum::Router::new().nest("/app", support::routes());
            app.layer(layer.build().unwrap())
        };
        let mut browser = Browser::new(&release("/app"));
        browser.get("/app/log_in/ada").await;
        let mut newer = Browser::new(&release("/"));
        newer.adopt(&browser);
        newer.get("/app/user").await.assert(200, "ada");
        // The login gives a new token. From now on the browser sends the old token with it.
        newer.get("/app/log_in/ada").await;
        assert_eq!(newer.kept(), ["sid", "sid"]);
        newer.get("/app/user").await.assert(200, "ada");
        newer
            .get("/app/insert/theme/dark")
            .await
            .assert(200, "done");
        newer.get("/app/get/theme").await.assert(200, "dark");
        newer.get("/app/log_out").await.assert(200, "done");
        newer.get("/app/user").await.assert(401, "");
        newer.get("/app/log_in/grace").await.assert(200, "done");
        newer.get("/app/user").await.assert(200, "grace");
    }
}

#[tokio::test]
async fn a_flood_of_good_tokens_costs_a_few_store_calls_and_leads_to_no_session() {
    let (app, spy, first, _) = two_sessions().await;
    let mut headers = Vec::new();
    for _ in 0..40 {
        let mut browser = Browser::new(&app);
        browser.get("/insert/theme/planted").await;
        headers.push(format!("__Host-session={}", browser.token()));
    }
    headers.push(format!("__Host-session={first}"));
    spy.take_calls();
    assert_eq!(with_cookies(&app, &headers).await.body, "nothing");
    assert_eq!(spy.take_calls(), []);
}

/// Every order of these cookies, and every way to divide them among headers.
fn orders_and_cuts(cookies: &[String]) -> Vec<Vec<String>> {
    fn orders(cookies: &[String]) -> BTreeSet<Vec<String>> {
        let mut all = BTreeSet::new();
        for at in 0..cookies.len() {
            let mut rest = cookies.to_vec();
            let first = rest.remove(at);
            for order in orders(&rest) {
                all.insert([vec![first.clone()], order].concat());
            }
        }
        if all.is_empty() {
            all.insert(Vec::new());
        }
        all
    }
    let mut all = Vec::new();
    for order in orders(cookies) {
        for cuts in 0..1 << (cookies.len() - 1) {
            let mut headers: Vec<String> = Vec::new();
            for (at, cookie) in order.iter().enumerate() {
                match headers.last_mut() {
                    Some(header) if cuts >> (at - 1) & 1 == 0 => {
                        header.push_str("; ");
                        header.push_str(cookie);
                    }
                    _ => headers.push(cookie.clone()),
                }
            }
            all.push(headers);
        }
    }
    all
}

#[tokio::test]
async fn every_order_and_every_cut_into_headers_of_good_bad_and_repeated_values_means_the_same() {
    let (app, spy, first, second) = two_sessions().await;
    let foreign = support::app(SessionLayer::new(
        MemoryStore::new(),
        SigningKey::from_bytes(&[8; 64]).unwrap(),
    ));
    let foreign = Browser::new(&foreign).get("/insert/a/b").await;
    let named = |value: &str| format!("__Host-session={value}");
    let (good, other_good) = (named(&first), named(&second));
    // The id and the secret come from the good token, and the signature from the other one.
    let forged = named(&format!("{}{}", &first[..43], &second[43..]));
    let of_another_key = named(&foreign.token().unwrap());
    let other = "theme=light".to_owned();

    let one_good = [
        good.clone(),
        good.clone(),
        forged.clone(),
        of_another_key.clone(),
        named(""),
        other.clone(),
    ];
    let all = orders_and_cuts(&one_good);
    assert_eq!(all.len(), 360 * 32);
    for headers in all {
        assert_eq!(
            with_cookies(&app, &headers).await.body,
            "first",
            "{headers:?}"
        );
    }
    spy.take_calls();

    for with_another in [
        [good.clone(), good.clone(), other_good.clone(), forged],
        [good, other_good, of_another_key, other],
    ] {
        for headers in orders_and_cuts(&with_another) {
            assert_eq!(
                with_cookies(&app, &headers).await.body,
                "nothing",
                "{headers:?}"
            );
            assert_eq!(spy.take_calls(), [StoreCall::Load; 2]);
        }
    }
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
    // U+00A0 and U+2003 are white space in Unicode, but not in a cookie.
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
    assert_eq!(spy.take_calls(), []);
}

/// The quotes are part of the syntax (RFC 6265, section 4.1.1). Java's clients send them.
#[tokio::test]
async fn a_token_in_one_pair_of_quotes_is_good_and_in_no_other_quotes() {
    let (app, spy, token, _) = two_sessions().await;
    let theme = async |value: String| {
        with_cookies(&app, &[format!("a=\"b\"; __Host-session={value}; c=d")])
            .await
            .body
    };
    assert_eq!(theme(format!("\"{token}\"")).await, "first");
    assert_eq!(theme(format!(" \"{token}\" ")).await, "first");
    spy.take_calls();
    for value in [
        format!("\"{token}"),
        format!("{token}\""),
        format!("\"\"{token}\"\""),
        format!("'{token}'"),
        format!("\" {token}\""),
        format!("\"{}\"", &token[1..]),
        "\"\"".to_owned(),
        "\"".to_owned(),
    ] {
        assert_eq!(theme(value.clone()).await, "nothing", "{value}");
    }
    assert_eq!(spy.take_calls(), []);
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
    assert_eq!(spy.take_calls(), []);
}

#[tokio::test]
async fn a_token_in_a_form_is_no_session() {
    /// Answers with the form, so a test sees that the whole form arrived.
    async fn handler(session: Session, form: String) -> Result<String, SessionError> {
        let theme = session.get::<String>("theme")?;
        Ok(format!("{theme:?} and {} bytes", form.len()))
    }
    let spy = FaultyStore::new(MemoryStore::new());
    let app = routes()
        .route("/form", post(handler))
        .layer(SessionLayer::new(spy.clone(), key()));
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/first").await;
    let token = browser.token();
    spy.take_calls();
    let part = |name: &str| {
        format!(
            "--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{token}\r\n--x--\r\n"
        )
    };
    for name in ["__Host-session", "session", "access_token"] {
        for (content_type, form) in [
            (
                "application/x-www-form-urlencoded",
                format!("{name}={token}"),
            ),
            ("multipart/form-data; boundary=x", part(name)),
        ] {
            let expected = format!("None and {} bytes", form.len());
            let request = Request::post("/form")
                .header("content-type", content_type)
                .body(Body::from(form));
            send(&app, request.unwrap()).await.assert(200, &expected);
        }
    }
    assert_eq!(spy.take_calls(), []);
    let with_the_cookie = Request::post("/form")
        .header(COOKIE, format!("__Host-session={token}"))
        .body(Body::empty());
    send(&app, with_the_cookie.unwrap())
        .await
        .assert(200, "Some(\"first\") and 0 bytes");
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
    ] {
        assert_eq!(
            with_cookies(&app, &[format!("__Host-session={padded}")])
                .await
                .body,
            "nothing"
        );
    }
    assert_eq!(spy.take_calls(), []);
}

#[tokio::test]
async fn an_unsigned_or_otherwise_encoded_token_is_anonymous_and_costs_no_store_call() {
    let spy = FaultyStore::new(MemoryStore::new());
    // The alphabets of base64 differ in some letters. This token contains such letters.
    let random = |bytes: &mut [u8]| {
        bytes.fill(0xff);
        Ok::<_, std::io::Error>(())
    };
    let app = app(builder(spy.clone()).random(random).build().unwrap());
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/first").await;
    browser.get("/get/theme").await.assert(200, "first");
    spy.take_calls();
    let token = browser.token();
    assert!(token.contains('_'));
    let bytes = decode(&token);
    assert_eq!(encode(&bytes), token);
    let (id, unsigned) = (&bytes[..16], &bytes[..32]);
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    for value in [
        encode(unsigned),
        format!("{}=", encode(unsigned)),
        encode(&[unsigned, &[0; 16]].concat()),
        encode(&[unsigned, &[0xff; 16]].concat()),
        encode(&[unsigned, id].concat()),
        hex(unsigned),
        hex(&bytes),
        hex(&bytes).to_uppercase(),
        token.replace('-', "+").replace('_', "/"),
        token.replace('_', "%5F"),
        token.bytes().map(|byte| format!("%{byte:02X}")).collect(),
        format!("\"\"{token}\"\""),
    ] {
        assert_ne!(value, token);
        assert_eq!(
            with_cookies(&app, &[format!("__Host-session={value}")])
                .await
                .body,
            "nothing",
            "{value}"
        );
    }
    assert_eq!(spy.take_calls(), []);
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

    let spy = FaultyStore::new(store);
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
    assert_eq!(spy.take_calls(), []);
}

#[tokio::test]
async fn keys_rotate_in_three_phases_and_nobody_is_logged_out_before_the_last() {
    let store = MemoryStore::new();
    let (old, new) = (
        SigningKey::from_bytes(&[1; 64]).unwrap(),
        SigningKey::from_bytes(&[2; 64]).unwrap(),
    );
    let app = |keys: SigningKeys| app(SessionLayer::new(store.clone(), keys));
    let before = app(SigningKeys::new(old.clone()));
    let rotating = app(SigningKeys::new(new.clone()).also_verify(old));
    let after = app(SigningKeys::new(new));

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

    // The new key signs the next Set-Cookie.
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
    let name = b"__Host-session=";
    let named = |value: &[u8]| [name, value].concat();
    for header in [
        Vec::new(),
        b"=".to_vec(),
        b";".to_vec(),
        b"=value".to_vec(),
        b"__Host-session".to_vec(),
        name.to_vec(),
        b"x".repeat(8 * 1024),
        named(&b"A".repeat(64 * 1024)),
        b"__Host-session=A;".repeat(4 * 1024),
        [named(&b"A".repeat(70)), b";".to_vec()]
            .concat()
            .repeat(600),
        // These bytes are not UTF-8. Some values are as long as a token, and some are longer.
        named(&[0xff; 70]),
        named(&[0x80; 70]),
        [named(&[0xff; 70]), b";".to_vec()].concat().repeat(600),
        named(&[0xff; 64 * 1024]),
        vec![0xff; 64 * 1024],
    ] {
        assert_eq!(with_cookies(&app, &[header]).await.body, "nothing");
    }
    assert_eq!(spy.take_calls(), []);
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
    // The attacker's cookie has a good signature, but its session has gone. The write starts a
    // session with another record id.
    let id = |token: &str| token[..21].to_owned();
    let reply = attacker.get("/insert/theme/light").await;
    assert_ne!(id(&reply.token().unwrap()), id(&gone));
    assert_ne!(reply.token().unwrap(), gone);
}

/// HTTP itself refuses the other bytes, so they never reach the layer.
fn allowed(bytes: Vec<u8>) -> Vec<u8> {
    let allow = |byte: u8| {
        if byte < b' ' || byte == 0x7f {
            b'\t'
        } else {
            byte
        }
    };
    bytes.into_iter().map(allow).collect()
}

/// An application with one session, and the session's token.
fn one_session() -> (Router, FaultyStore<MemoryStore>, Vec<u8>) {
    let spy = FaultyStore::new(MemoryStore::new());
    let app = app(SessionLayer::new(spy.clone(), key()));
    let token = now(Browser::new(&app).get("/insert/theme/dark")).token();
    spy.take_calls();
    (app, spy, token.unwrap().into_bytes())
}

/// Runs a future, because a property cannot be an async function.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_a_cookie_header_are_an_anonymous_request_without_a_store_call(
        bytes in prop_oneof![
            vec(any::<u8>(), 0..300),
            // Bytes that look like the cookie. There are up to 64 KiB.
            (
                vec(prop_oneof![
                    Just(b"__Host-session=".to_vec()), Just(b"; ".to_vec()), Just(vec![b'A'; 70]),
                    "[A-Za-z0-9_=;-]{0,90}".prop_map(String::into_bytes), vec(any::<u8>(), 0..80),
                ], 0..8),
                prop_oneof![19 => Just(1), 1 => 1..1000_usize],
            ).prop_map(|(parts, times)| {
                let mut bytes = parts.concat().repeat(times);
                bytes.truncate(64 * 1024);
                bytes
            }),
        ],
    ) {
        let (app, spy, _) = one_session();
        let reply = now(with_cookies(&app, &[allowed(bytes)]));
        prop_assert_eq!((reply.status.as_u16(), &*reply.body), (200, "nothing"));
        prop_assert!(reply.cookies().is_empty());
        prop_assert!(spy.take_calls().is_empty());
    }

    #[test]
    fn any_bytes_as_the_cookies_value_are_an_anonymous_request_without_a_store_call(
        value in prop_oneof![
            vec(any::<u8>(), 0..100),
            // These bytes are as long as a token.
            vec(any::<u8>(), 70),
            "[A-Za-z0-9_-]{70}".prop_map(String::into_bytes),
        ],
    ) {
        let (app, spy, _) = one_session();
        let header = [b"__Host-session=".to_vec(), allowed(value)].concat();
        let reply = now(with_cookies(&app, &[header]));
        prop_assert_eq!((reply.status.as_u16(), &*reply.body), (200, "nothing"));
        prop_assert!(reply.cookies().is_empty());
        prop_assert!(spy.take_calls().is_empty());
    }

    #[test]
    fn a_good_token_with_any_byte_changed_added_or_left_out_is_anonymous_without_a_store_call(
        change in 0..3, at in any::<Index>(), byte in any::<u8>(),
    ) {
        let (app, spy, token) = one_session();
        let mut value = token.clone();
        match change {
            0 => value[at.index(token.len())] = byte,
            1 => value.insert(at.index(token.len() + 1), byte),
            _ => drop(value.remove(at.index(token.len()))),
        }
        let value = allowed(value);
        // The header allows white space around a value and a semicolon after it.
        let presented = value.split(|&byte| byte == b';').next().unwrap();
        prop_assume!(presented.trim_ascii() != token);
        let header = [b"__Host-session=".to_vec(), value].concat();
        let reply = now(with_cookies(&app, &[header]));
        prop_assert_eq!((reply.status.as_u16(), &*reply.body), (200, "nothing"));
        prop_assert!(reply.cookies().is_empty());
        prop_assert!(spy.take_calls().is_empty());
    }
}

/// One of the two cookies is the user's. An attacker may have planted the other one.
#[tokio::test]
async fn a_logout_with_the_tokens_of_two_live_sessions_ends_both() {
    for end in ["/log_out", "/destroy", "/fail/destroy"] {
        let (app, spy, first, second) = two_sessions().await;
        let both = [&first, &second].map(|token| format!("__Host-session={token}"));
        let headers = [("cookie", &*both[0]), ("cookie", &*both[1])];
        let reply = Browser::new(&app).send(end, &headers).await;
        assert!(reply.cookies()[0].contains("Max-Age=0"), "{reply:?}");
        assert!(spy.inner().is_empty(), "{end}");
    }
}

#[tokio::test]
async fn a_login_with_the_tokens_of_two_live_sessions_leaves_its_own_alone() {
    let (app, spy, first, second) = two_sessions().await;
    let both = [&first, &second].map(|token| format!("__Host-session={token}"));
    let headers = [("cookie", &*both[0]), ("cookie", &*both[1])];
    let mut browser = Browser::new(&app);
    let reply = browser.send("/log_in/ada", &headers).await;
    browser.keep(&reply);
    assert_eq!(spy.inner().len(), 1);
    // The browser has replaced one of the cookies. It still sends the other one.
    for left in &both {
        let reply = browser.send("/user", &[("cookie", left)]).await;
        reply.assert(200, "ada");
    }
    browser.get("/user").await.assert(200, "ada");
    browser.get("/keys").await.assert(200, "");
    // A request without a login ends no session.
    let (app, spy, first, second) = two_sessions().await;
    let both = [first, second].map(|token| format!("__Host-session={token}"));
    with_cookies(&app, &both).await;
    assert_eq!(spy.inner().len(), 2);
}
