//! Tokens. They are random, and nobody stores or shows them.

use std::collections::HashSet;
use std::convert::Infallible;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::routing::get;
use cloakroom::testing::{Fault, FaultyStore};
use cloakroom::{
    AnyStore, AtLimit, MemoryStore, RecordId, Session, SessionError, SessionErrorKind,
    SessionLayer, SessionStore, SigningKey, SigningKeys, SqliteStore, TestClock,
};
use http::{Request, Response};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use support::base64::decode;
use support::servers::Server;
use support::{Browser, app, key};
use tower::{Layer, Service};

#[tokio::test]
async fn a_hundred_thousand_tokens_are_distinct_and_every_random_bit_is_even() {
    const TOKENS: usize = 100_000;
    let app = app(SessionLayer::new(
        MemoryStore::new().with_max_sessions(TOKENS),
        key(),
    ));
    let mut seen = HashSet::new();
    let mut ones = [0_usize; 256];
    for _ in 0..TOKENS {
        let token = support::send_unwatched(&app, support::request("/insert/a/b"))
            .await
            .token()
            .unwrap();
        assert_eq!(token.len(), 70);
        let bytes = decode(&token);
        // The serial between the id and the secret is not random.
        let bytes = [&bytes[..16], &bytes[20..]].concat();
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

/// The bytes as `Debug` prints them, but without brackets.
fn listed(bytes: &[u8]) -> String {
    let list = format!("{bytes:?}");
    list.trim_matches(['[', ']']).to_owned()
}

#[tokio::test]
async fn nothing_that_can_be_printed_shows_a_secret_or_data() {
    let store = MemoryStore::new();
    let keys = SigningKeys::new(key()).also_verify(SigningKey::from_bytes(&[9; 64]).unwrap());
    let builder =
        SessionLayer::builder(store.clone(), keys.clone()).session_limit(3, AtLimit::EndOldest);
    let printed = format!("{keys:?} {:?} {builder:?}", key());
    let layer = builder.build().unwrap();
    let sessions = layer.sessions();
    let service = layer.layer(tower::service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(Response::new(Body::empty()))
    }));
    let printed = Arc::new(Mutex::new(format!("{printed} {layer:?} {sessions:?}")));
    let print = printed.clone();
    let handler = get(async move |session: Session| {
        let mut printed = print.lock().unwrap();
        printed.push_str(&format!("{session:?} {:?}", session.detach()));
        session.insert("diary", "dear diary").unwrap();
        session
            .update("n", |_: Option<String>| "dear diary, again".to_owned())
            .unwrap();
        session.log_in("ada").unwrap();
        printed.push_str(&format!("{session:?}"));
    });
    let app = support::routes().route("/print", handler).layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/insert/diary/dear%20diary").await;
    let first = browser.token();
    browser.get("/print").await.assert(200, "");
    let second = browser.token();

    let mut request = support::request("/");
    let cookie = browser.cookies()[0].parse().unwrap();
    request.headers_mut().insert("cookie", cookie);
    let future = service.clone().call(request);
    let purge = sessions.spawn_purge(Duration::from_secs(60));
    let list = sessions.list_for("ada").await.unwrap();
    let id = RecordId::from_bytes(decode(&first)[..16].try_into().unwrap());
    let record = store.load(id).await.unwrap().unwrap();
    let printed = format!(
        "{} {future:?} {purge:?} {list:?} {record:?} {store:?}",
        printed.lock().unwrap()
    );

    for name in [
        "SigningKeys",
        "SigningKey",
        "SessionLayerBuilder",
        "SessionLayer",
        "Sessions",
        "Session",
        "DetachedSession",
        "SessionToken",
        "ResponseFuture",
        "SessionInfo",
        "Record",
        "MemoryStore",
    ] {
        assert!(printed.contains(name), "no {name} in {printed}");
    }
    let (first_bytes, second_bytes) = (decode(&first), decode(&second));
    let hash = listed(&record.encode().unwrap()[29..45]);
    for secret in [
        "dear diary",
        &listed(b"dear diary"),
        &first[22..50],
        &second[22..50],
        &listed(&first_bytes[16..32]),
        &listed(&second_bytes[16..32]),
        &listed(&second_bytes[32..]),
        &hash,
        "07070707",
        "7, 7, 7",
        "09090909",
        "9, 9, 9",
    ] {
        assert!(!printed.contains(secret), "{secret} is in {printed}");
    }
}

/// An error with all its causes, in the `Display` and the `Debug` form.
fn whole(error: &dyn Error) -> String {
    let mut text = format!("{error:?}");
    let mut next = Some(error);
    while let Some(error) = next {
        text.push_str(&format!(" {error}"));
        next = error.source();
    }
    text
}

#[tokio::test]
async fn no_error_shows_a_token_or_data() {
    /// This type puts its own value into its errors. A type of the application may do that.
    #[derive(Debug)]
    struct Frank;

    impl Serialize for Frank {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("not dear diary"))
        }
    }

    impl<'de> Deserialize<'de> for Frank {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            Err(serde::de::Error::custom(format!("not {text}")))
        }
    }

    let clock = TestClock::new();
    let spy = FaultyStore::new(MemoryStore::new());
    let layer = support::builder(spy.clone())
        .clock(clock.clone())
        .data_limit(100)
        .store_timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    let kept = Arc::new(Mutex::new(None));
    let keep = kept.clone();
    let handler = get(async move |session: Session| {
        let large = "dear diary".repeat(10);
        let too_long = "dear diary".repeat(26);
        let minute = Duration::from_secs(60);
        let errors = vec![
            session.get::<u64>("diary").unwrap_err(),
            session.get::<Frank>("diary").unwrap_err(),
            session.remove::<Frank>("diary").unwrap_err(),
            session.update("diary", |_: Option<u64>| 1).unwrap_err(),
            session.insert("diary", Frank).unwrap_err(),
            session.insert("diary", large).unwrap_err(),
            session.log_in(too_long).unwrap_err(),
            session.require_recent_login(minute).unwrap_err(),
        ];
        *keep.lock().unwrap() = Some((session.clone(), session.detach(), errors));
    });
    let app = support::routes().route("/errors", handler).layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/insert/diary/dear%20diary").await;
    browser.get("/errors").await.assert(200, "");
    let (session, mut later, mut errors) = kept.lock().unwrap().take().unwrap();
    errors.push(session.insert("diary", "dear diary").unwrap_err());
    later.insert("diary", "dear diary, again").unwrap();
    spy.fail(Fault::Refused);
    errors.push(later.save().await.unwrap_err());
    spy.fail(Fault::Hangs);
    errors.push(later.save().await.unwrap_err());
    spy.recover();
    let first = browser.token();
    browser.get("/log_in/ada").await;
    let second = browser.token();
    errors.push(later.save().await.unwrap_err());
    browser.get("/log_out").await;
    errors.push(later.save().await.unwrap_err());

    let kinds: Vec<_> = errors.iter().map(SessionError::kind).collect();
    use SessionErrorKind::*;
    assert_eq!(
        kinds,
        [
            WrongType,
            WrongType,
            WrongType,
            WrongType,
            Unserializable,
            TooLarge,
            InvalidUserId,
            NotLoggedIn,
            Sealed,
            Store,
            Store,
            TokenRotated,
            Ended,
        ]
    );
    for error in &errors {
        let text = whole(error);
        for secret in ["dear diary", &first[22..50], &second[22..50]] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
}

#[tokio::test]
async fn no_store_that_a_url_opened_shows_its_password_and_no_error_of_it_data() {
    let postgres = Server::postgres();
    let mysql = Server::mariadb();
    let redis = Server::redis(&["--requirepass", "secret"]);
    let urls = [
        format!(
            "postgres://cloakroom:secret@{}/cloakroom",
            postgres.address()
        ),
        format!("mysql://cloakroom:secret@{}/cloakroom", mysql.address()),
        format!("redis://:secret@{}", redis.address()),
    ];
    let mut opened = Vec::new();
    for url in &urls {
        let store = AnyStore::connect(url).await.unwrap();
        let layer = SessionLayer::new(store.clone(), key());
        let printed = format!("{store:?} {layer:?} {:?}", layer.sessions());
        assert!(printed.contains("Store"), "{printed}");
        assert!(!printed.contains("secret"), "{printed}");
        let mut browser = Browser::new(&app(layer));
        browser.get("/insert/diary/dear%20diary").await;
        let id = decode(&browser.token())[..16].try_into().unwrap();
        let record = store.load(RecordId::from_bytes(id)).await.unwrap();
        opened.push((store, record.unwrap()));
    }
    // If a database refuses a row, its error may show the row. `Debug` of that error shows
    // everything.
    let postgres_pool = sqlx::PgPool::connect(&urls[0]).await.unwrap();
    let mysql_pool = sqlx::MySqlPool::connect(&urls[1]).await.unwrap();
    let mut errors = Vec::new();
    for spoil in [
        "DELETE FROM cloakroom_sessions",
        "ALTER TABLE cloakroom_sessions ADD CONSTRAINT refuses CHECK (version > 1)",
        "DROP TABLE cloakroom_sessions",
    ] {
        sqlx::query(spoil).execute(&postgres_pool).await.unwrap();
        sqlx::query(spoil).execute(&mysql_pool).await.unwrap();
        if spoil.starts_with("DELETE") {
            continue;
        }
        for (store, record) in &opened[..2] {
            let other = RecordId::from_bytes([1; 16]);
            errors.push(store.insert(other, record).await.unwrap_err());
        }
    }
    let refused = format!("{:?}", errors[0]);
    assert!(refused.contains("Failing row contains"), "{refused}");
    let hex: String = b"dear diary"
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    for error in errors {
        let text = whole(&error);
        for secret in ["secret", "dear diary", &hex, &listed(b"dear diary")] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
}
