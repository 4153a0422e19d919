//! The promises of the public types: auto traits, text and JSON forms, and user ids of all kinds.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cloakroom::testing::{FaultyStore, StoreCall};
use cloakroom::{
    AnyStore, AtLimit, Client, Clock, ConfigError, CurrentUser, DetachedSession, EncryptedStore,
    EncryptionKey, EncryptionKeys, EndCause, Flash, IntoUserId, InvalidRecordId, InvalidUserId,
    Key, KeySource, MemoryStore, PurgeTask, Record, RecordId, ResponseFuture, SameSite, Session,
    SessionError, SessionErrorKind, SessionEvent, SessionEventKind, SessionInfo, SessionLayer,
    SessionLayerBuilder, SessionService, Sessions, SigningKey, SigningKeys, StoreError, TestClock,
    Timestamp, Transport, UserHashKey, UserId, Version, WatchedKeys,
};
use support::{Browser, builder, routes};

/// An application moves these types between threads and tasks, and shares them.
#[test]
fn public_types_can_be_sent_and_shared() {
    fn is_shared<T: Send + Sync + Unpin + 'static>() {}

    is_shared::<AnyStore>();
    is_shared::<AtLimit>();
    is_shared::<Client>();
    is_shared::<ConfigError>();
    is_shared::<CurrentUser>();
    is_shared::<DetachedSession>();
    is_shared::<EncryptedStore<MemoryStore>>();
    is_shared::<EncryptionKey>();
    is_shared::<EncryptionKeys>();
    is_shared::<EndCause>();
    is_shared::<Flash>();
    is_shared::<InvalidRecordId>();
    is_shared::<InvalidUserId>();
    is_shared::<KeySource<SigningKeys>>();
    is_shared::<Key<std::cell::Cell<u8>>>();
    is_shared::<MemoryStore>();
    is_shared::<PurgeTask>();
    is_shared::<Record>();
    is_shared::<RecordId>();
    is_shared::<SameSite>();
    is_shared::<Session>();
    is_shared::<SessionError>();
    is_shared::<SessionErrorKind>();
    is_shared::<SessionEvent>();
    is_shared::<SessionEventKind>();
    is_shared::<SessionInfo>();
    is_shared::<SessionLayer<MemoryStore>>();
    is_shared::<SessionLayerBuilder<MemoryStore>>();
    is_shared::<SessionService<()>>();
    is_shared::<Sessions<MemoryStore>>();
    is_shared::<SigningKey>();
    is_shared::<SigningKeys>();
    is_shared::<StoreError>();
    is_shared::<TestClock>();
    is_shared::<Timestamp>();
    is_shared::<Transport>();
    is_shared::<UserHashKey>();
    is_shared::<UserId>();
    is_shared::<Version>();
    is_shared::<WatchedKeys<SigningKeys>>();

    fn is_sent<T: Send + 'static>() {}

    is_sent::<ResponseFuture<std::future::Ready<()>>>();
}

#[test]
fn every_integer_a_text_and_a_uuid_is_a_user_id_and_comes_back() {
    fn check<T>(id: T, text: &str)
    where
        T: IntoUserId + std::str::FromStr + PartialEq + std::fmt::Debug + Clone,
        T::Err: std::fmt::Debug,
    {
        let user = id.clone().into_user_id().unwrap();
        assert_eq!(user.as_str(), text);
        assert_eq!(user.parse::<T>().unwrap(), id);
    }

    check(i8::MIN, "-128");
    check(i16::MIN, "-32768");
    check(-1_i32, "-1");
    check(i64::MAX, "9223372036854775807");
    check(i128::MIN, "-170141183460469231731687303715884105728");
    check(-7_isize, "-7");
    check(u8::MAX, "255");
    check(u16::MAX, "65535");
    check(42_u32, "42");
    check(u64::MAX, "18446744073709551615");
    check(u128::MAX, "340282366920938463463374607431768211455");
    check(7_usize, "7");
    check(String::from("ada@example.com"), "ada@example.com");
    let uuid = uuid::Uuid::from_u128(0x67e5_5044_10b1_426f_9247_bb68_0e5f_e0c8);
    check(uuid, "67e55044-10b1-426f-9247-bb680e5fe0c8");
    assert_eq!((&uuid).into_user_id(), uuid.into_user_id());
    assert_eq!((&42_i64).into_user_id(), "42".into_user_id());
}

#[test]
fn a_user_id_is_valid_once_it_is_made() {
    let longest = "x".repeat(255);
    assert_eq!(UserId::new(&*longest).unwrap().as_str(), longest);
    for bad in ["", "a\0b", &"x".repeat(256)] {
        assert!(UserId::new(bad).is_err());
        assert!(UserId::try_from(bad).is_err());
        assert!(bad.parse::<UserId>().is_err());
        assert!(serde_json::from_value::<UserId>(bad.into()).is_err());
        assert!(bad.into_user_id().is_err());
    }
    let ada: UserId = serde_json::from_str("\"ada\"").unwrap();
    assert_eq!(serde_json::to_string(&ada).unwrap(), "\"ada\"");
    assert_eq!(HashMap::from([(ada, 1)]).get("ada"), Some(&1));
}

#[test]
fn a_time_is_written_as_rfc_3339_and_read_back() {
    for (millis, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (1_700_000_000_000, "2023-11-14T22:13:20Z"),
        (1_700_000_000_250, "2023-11-14T22:13:20.25Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ] {
        let time = Timestamp::from_millis(millis);
        assert_eq!(time.to_string(), text);
        assert_eq!(serde_json::to_value(time).unwrap(), text);
        assert_eq!(
            serde_json::from_value::<Timestamp>(text.into()).unwrap(),
            time
        );
    }
    let with_offset = "2023-11-14T23:13:20+01:00";
    let time: Timestamp = serde_json::from_value(with_offset.into()).unwrap();
    assert_eq!(time, Timestamp::from_millis(1_700_000_000_000));
    // A wrong clock must not make a page fail.
    assert!(
        Timestamp::from_millis(u64::MAX)
            .to_string()
            .starts_with("9999-12-31T23:59:59")
    );
    assert!(serde_json::from_value::<Timestamp>("yesterday".into()).is_err());
}

#[test]
fn a_record_id_is_its_text_in_json_and_in_forms() {
    let text = "AAECAwQFBgcICQoLDA0ODw";
    let id: RecordId = text.parse().unwrap();
    assert_eq!(serde_json::to_value(id).unwrap(), text);
    assert_eq!(serde_json::from_value::<RecordId>(text.into()).unwrap(), id);
    assert!(serde_json::from_value::<RecordId>("no id".into()).is_err());
}

/// An administrator's page uses these.
#[tokio::test]
async fn the_sessions_of_a_user_are_json_for_a_page() {
    let clock = TestClock::new();
    let layer = builder(MemoryStore::new())
        .clock(clock.clone())
        .idle_timeout(Duration::from_secs(60))
        .build()
        .unwrap();
    let app = routes().layer(layer.clone());
    Browser::new(&app).get("/log_in/ada").await;
    let sessions = layer.sessions().list_for("ada").await.unwrap();
    let json = serde_json::to_value(&sessions).unwrap();
    let now = clock.now();
    assert_eq!(
        json,
        serde_json::json!([{
            "id": sessions[0].id().to_string(),
            "user": "ada",
            "client": null,
            "created_at": now.to_string(),
            "last_seen_at": now.to_string(),
            "expires_at": (now + Duration::from_secs(60)).to_string(),
        }])
    );
    let client = Client::new().with_address("192.0.2.1");
    assert_eq!(
        serde_json::to_value(client).unwrap(),
        serde_json::json!({ "user_agent": null, "address": "192.0.2.1" })
    );
}

#[test]
fn what_a_page_or_a_log_shows_has_a_text() {
    assert_eq!(Version::from_u64(7).to_string(), "7");
    assert_eq!(CurrentUser(UserId::from(7)).to_string(), "7");
    assert_eq!(format!("[{:>5}]", UserId::from(7)), "[    7]");
    let kind = SessionErrorKind::NotLoggedIn;
    assert_eq!(kind.to_string(), SessionError::from(kind).to_string());
}

#[test]
fn a_signing_key_is_read_from_digits_and_from_bytes() {
    let digits = "ab".repeat(64);
    let key: SigningKey = digits.parse().unwrap();
    assert_eq!(key.to_hex(), digits);
    assert_eq!(
        SigningKey::try_from(&[0xab; 64][..]).unwrap().to_hex(),
        digits
    );
    assert!("ab".parse::<SigningKey>().is_err());
}

/// The closure owns the value, and each run of the closure gets it.
#[tokio::test]
async fn update_with_hands_its_value_to_every_run_of_the_closure() {
    use axum::extract::Path;
    use axum::routing::get;

    const TODOS: Key<Vec<String>> = Key::new("todos");
    static RUNS: AtomicUsize = AtomicUsize::new(0);

    async fn add(session: Session, Path(todo): Path<String>) -> Result<String, SessionError> {
        let todos = session.update_with(TODOS, todo, |todos, todo| {
            RUNS.fetch_add(1, Ordering::SeqCst);
            let mut todos = todos.unwrap_or_default();
            todos.push(todo);
            todos
        })?;
        Ok(todos.join(" "))
    }

    let store = FaultyStore::new(MemoryStore::new());
    let layer = builder(store.clone()).build().unwrap();
    let app = routes().route("/add/{todo}", get(add)).layer(layer.clone());
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await;
    // The other request writes first, so that the closure of this one runs a second time.
    let mut held = store.hold_next(StoreCall::Replace);
    let first = tokio::spawn(browser.send("/add/one", &[]));
    held.arrived().await;
    browser.get("/add/two").await.assert(200, "two");
    held.release();
    first.await.unwrap().assert(200, "one");
    assert_eq!(RUNS.load(Ordering::SeqCst), 3);
    browser.get("/add/three").await.assert(200, "two one three");
}

#[tokio::test]
async fn a_session_tells_what_is_in_it_without_the_type_of_the_value() {
    use axum::routing::get;

    async fn look(session: Session) -> String {
        format!("{} {}", session.is_empty(), session.contains_key("theme"))
    }

    let layer = builder(MemoryStore::new()).build().unwrap();
    let app = routes().route("/look", get(look)).layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/look").await.assert(200, "true false");
    browser.get("/insert/theme/dark").await;
    browser.get("/look").await.assert(200, "false true");
}

#[test]
fn a_service_gives_its_inner_service_back() {
    use tower::Layer as _;

    let layer = SessionLayer::new(MemoryStore::new(), SigningKey::generate().unwrap());
    let mut service = layer.layer(1);
    *service.get_mut() += 1;
    assert_eq!(*service.get_ref(), 2);
    assert_eq!(service.into_inner(), 2);
}

#[tokio::test]
async fn the_default_name_has_a_prefix_only_where_a_browser_keeps_it() {
    for (secure, start) in [(true, "__Host-session="), (false, "session=")] {
        let layer = builder(MemoryStore::new()).secure(secure).build().unwrap();
        let app = routes().layer(layer);
        let reply = Browser::new(&app).get("/insert/theme/dark").await;
        let cookie = reply.header("set-cookie").unwrap();
        assert!(cookie.starts_with(start), "{cookie}");
    }
    // A Domain would remove the protection that the prefix gives. So the application must choose
    // another name.
    let domain = builder(MemoryStore::new())
        .cookie_domain("example.com")
        .build();
    assert_eq!(domain.unwrap_err().setting(), "cookie_domain");
}
