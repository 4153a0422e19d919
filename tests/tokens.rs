//! Tokens: random, never stored, never shown.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashSet;

use cloakroom::{MemoryStore, RecordId, SessionLayer, SqliteStore};
use support::base64::decode;
use support::{Browser, Spy, app, key};

#[tokio::test]
async fn a_hundred_thousand_tokens_are_distinct_and_every_random_bit_is_even() {
    const TOKENS: usize = 100_000;
    let app = app(SessionLayer::new(
        MemoryStore::with_max_sessions(TOKENS),
        key(),
    ));
    let mut seen = HashSet::new();
    let mut ones = [0_usize; 256];
    for _ in 0..TOKENS {
        let token = support::send_unwatched(&app, support::request("/insert/a/b"))
            .await
            .token()
            .unwrap();
        assert_eq!(token.len(), 64);
        let bytes = decode(&token);
        for (bit, ones) in ones.iter_mut().enumerate() {
            *ones += usize::from(bytes[bit / 8] >> (bit % 8) & 1);
        }
        seen.insert(bytes);
    }
    assert_eq!(seen.len(), TOKENS);
    for (bit, ones) in ones.into_iter().enumerate() {
        let share = ones as f64 / TOKENS as f64;
        assert!(
            (0.49..0.51).contains(&share),
            "bit {bit} is set in {share} of the tokens"
        );
    }
}

#[tokio::test]
async fn the_store_holds_neither_the_token_nor_its_secret() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("sessions.sqlite3"))
        .await
        .unwrap();
    let app = app(SessionLayer::new(store, key()));
    let mut browser = Browser::new(&app);
    let mut tokens = Vec::new();
    for path in [
        "/insert/theme/dark",
        "/regenerate",
        "/log_in/ada",
        "/remember/ada",
    ] {
        browser.get(path).await;
        tokens.push(browser.token());
    }
    let mut dump = Vec::new();
    for file in std::fs::read_dir(directory.path()).unwrap() {
        dump.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    let holds = |needle: &[u8]| dump.windows(needle.len()).any(|window| window == needle);
    for token in tokens {
        let bytes = decode(&token);
        assert!(
            holds(&bytes[..16]),
            "the record id is not where it should be, so the dump shows nothing"
        );
        let secret = &bytes[16..32];
        assert!(!holds(secret), "the secret is in the store");
        assert!(!holds(&bytes[32..]), "the signature is in the store");
        assert!(
            !holds(&token.as_bytes()[22..42]),
            "the token's text is in the store"
        );
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(
            !holds(hex.as_bytes()),
            "the secret is in the store in hexadecimal"
        );
    }
}

#[tokio::test]
async fn the_record_id_is_the_same_for_the_sessions_life_and_the_secret_changes() {
    let app = app(SessionLayer::new(MemoryStore::new(), key()));
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    let first = decode(&browser.token());
    for path in ["/regenerate", "/log_in/ada"] {
        browser.get(path).await;
        let next = decode(&browser.token());
        assert_eq!(first[..16], next[..16], "{path}");
        assert_ne!(first[16..32], next[16..32], "{path}");
    }
    let shown = browser.get("/id").await.body;
    let id = RecordId::from_bytes(first[..16].try_into().unwrap());
    assert_eq!(shown, format!("Some(RecordId({id}))"));
}

#[test]
fn record_ids_are_read_and_written_as_text() {
    let id = RecordId::from_bytes(*b"0123456789abcdef");
    assert_eq!(id.to_string(), "MDEyMzQ1Njc4OWFiY2RlZg");
    assert_eq!("MDEyMzQ1Njc4OWFiY2RlZg".parse(), Ok(id));
    assert_eq!(id.as_bytes(), b"0123456789abcdef");
    for bad in [
        "",
        "MDEyMzQ1Njc4OWFiY2RlZ",
        "MDEyMzQ1Njc4OWFiY2RlZg==",
        "MDEyMzQ1Njc4OWFiY2RlZh",
        "MDEyMzQ1Njc4OWFiY2RlZgAA",
        "ä",
    ] {
        let error = bad.parse::<RecordId>().unwrap_err();
        assert!(error.to_string().contains("22 characters"));
    }
}

#[tokio::test]
async fn nothing_that_can_be_printed_shows_a_secret_or_data() {
    let spy = Spy::new(MemoryStore::new());
    let layer = SessionLayer::new(spy.clone(), key());
    let printed = std::sync::Arc::new(std::sync::Mutex::new(format!(
        "{layer:?} {:?} {:?}",
        layer.sessions(),
        key()
    )));
    let print = printed.clone();
    let handler = axum::routing::get(move |session: cloakroom::Session| async move {
        let mut printed = print.lock().unwrap();
        printed.push_str(&format!("{session:?} {:?}", session.detach().unwrap()));
        session.insert("diary", "dear diary").unwrap();
        session.regenerate().unwrap();
        printed.push_str(&format!("{session:?}"));
    });
    let app = support::routes().route("/print", handler).layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/insert/diary/dear%20diary").await;
    let first = browser.token();
    browser.get("/print").await.assert(200, "");
    let second = browser.token();
    let record = cloakroom::SessionStore::load(
        &spy.store,
        first[..22]
            .parse()
            .unwrap_or_else(|_| RecordId::from_bytes(decode(&first)[..16].try_into().unwrap())),
    )
    .await
    .unwrap()
    .unwrap();
    let printed = format!("{} {record:?}", printed.lock().unwrap());
    assert!(printed.contains("SessionToken"), "{printed}");
    for secret in [
        "dear diary",
        &first[22..50],
        &second[22..50],
        "07070707",
        "7, 7, 7",
    ] {
        assert!(!printed.contains(secret), "{secret} is in {printed}");
    }
}
