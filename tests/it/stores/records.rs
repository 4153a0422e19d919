//! The bytes of a record: what `encode` makes of it, what `decode` refuses, and what a person sees.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use cloakroom::{
    Account, AnyStore, Authentication, Client, MemoryStore, Record, RecordId, Session,
    SessionError, SessionStore, Stamp, Timestamp,
};
use cloakroom_fuzz::sealed;
use proptest::prelude::*;

use support::program::binary;
use support::{Browser, builder};

use crate::secrecy::logging::Log;

const ID: RecordId = RecordId::from_bytes([7; 16]);

/// The expiry and its checksum.
const EXPIRY: std::ops::Range<usize> = 9..21;
const USER_AT: usize = 61;

const IN_2100: Timestamp = Timestamp::from_millis(4_102_444_800_000);

/// The records of Ada, whose session has something in every field, and of Grace, as whom Ada acts.
async fn records() -> [(RecordId, Record); 2] {
    let store = MemoryStore::new();
    let log_in = |session: Session| async move {
        let how = Authentication::at(Timestamp::from_millis(1_700_000_000_000))
            .with_methods(["pwd", "otp"])
            .with_level("aal2");
        let ada = Account::new("ada").with_stamp(Stamp::of("hash"));
        session.log_in_with(ada, how)?;
        session.set_lifetime("kiosk")?;
        session.ends_by(IN_2100)?;
        session.set_client(
            Client::new()
                .with_user_agent("Browser/1.0")
                .with_address("192.0.2.1"),
        )?;
        session.insert("theme", "dark")?;
        session.insert("name", "Grüße 🙂")?;
        session.insert("cart", BTreeMap::from([("bread", 2), ("milk", 1)]))
    };
    let act = |session: Session| async move {
        session.act_as(Account::new("grace").with_stamp(Stamp::of("other")))
    };
    let day = Duration::from_secs(24 * 60 * 60);
    let layer = builder(store.clone())
        .lifetime("kiosk", day, 365 * day)
        .build()
        .unwrap();
    let sessions = layer.sessions();
    let app = Router::new()
        .route("/log_in", get(log_in))
        .route("/act", get(act))
        .layer(layer);
    let mut browser = Browser::new(&app);
    for path in ["/log_in", "/act"] {
        browser.get(path).await.assert(200, "");
    }
    let mut found = Vec::new();
    for user in ["ada", "grace"] {
        let listed = sessions.list_for(user).await.unwrap();
        let [session] = &*listed else {
            panic!("{user} has {} sessions", listed.len());
        };
        let record = store.load(session.id()).await.unwrap().unwrap();
        found.push((session.id(), record));
    }
    found.try_into().unwrap()
}

/// A visitor's record with these values.
async fn visitors_record(values: BTreeMap<String, String>) -> Result<Record, SessionError> {
    let store = MemoryStore::new();
    let values = Arc::new(values);
    let put = move |session: Session| {
        let values = Arc::clone(&values);
        async move {
            for (key, value) in &*values {
                session.insert(&**key, value)?;
            }
            // One more write, which has no other effect.
            session.insert("removed", true)?;
            Ok::<_, SessionError>(())
        }
    };
    let id = |session: Session| async move {
        session.remove::<bool>("removed")?;
        Ok::<_, SessionError>(session.id().unwrap().to_string())
    };
    let app = Router::new()
        .route("/put", get(put))
        .route("/id", get(id))
        .layer(builder(store.clone()).build().unwrap());
    let mut browser = Browser::new(&app);
    browser.get("/put").await.assert(200, "");
    let id = browser.get("/id").await.body.parse().unwrap();
    Ok(store.load(id).await.unwrap().unwrap())
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

#[tokio::test]
async fn every_field_of_a_record_comes_back_from_its_bytes() {
    for (id, record) in records().await {
        let bytes = record.encode().unwrap();
        let decoded = Record::decode(id, bytes.clone()).unwrap();
        assert_eq!(decoded.to_json(), record.to_json());
        assert_eq!(decoded.encode().unwrap(), bytes);
        assert_eq!(
            (decoded.version(), decoded.expires_at(), decoded.user()),
            (record.version(), record.expires_at(), record.user())
        );
    }
}

#[tokio::test]
async fn a_record_with_one_wrong_bit_is_no_record() {
    for (id, record) in records().await {
        let bytes = record.encode().unwrap();
        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::decode(id, damaged).is_none(), "bit {bit}");
        }
    }
}

#[tokio::test]
async fn a_record_that_is_cut_short_or_has_more_behind_it_is_no_record() {
    let [(id, record), _] = records().await;
    let bytes = record.encode().unwrap();
    for length in 0..bytes.len() {
        assert!(Record::decode(id, bytes[..length].to_vec()).is_none());
    }
    for more in [&[0][..], b"more", &bytes] {
        assert!(Record::decode(id, [&bytes, more].concat()).is_none());
    }
}

/// Redis moves an expiry in this way.
#[tokio::test]
async fn an_expiry_can_be_moved_with_its_checksum_in_the_bytes_of_a_record() {
    let [(id, record), _] = records().await;
    let moved = record.clone().with_expires_at(IN_2100);
    let mut bytes = record.encode().unwrap();
    bytes[EXPIRY].copy_from_slice(&moved.encode().unwrap()[EXPIRY]);
    assert_eq!(bytes, moved.encode().unwrap());
    assert_eq!(Record::decode(id, bytes).unwrap().expires_at(), IN_2100);
}

#[tokio::test]
async fn what_has_good_checksums_and_wrong_fields_is_no_record() {
    let (log, _guard) = Log::start();
    // A visitor's record, up to the length of the user.
    let head = [0; USER_AT];
    let user = |user: &[u8]| {
        let length = u16::try_from(user.len()).unwrap().to_be_bytes();
        [&length[..], user].concat()
    };
    let field = |number: u8, bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        [&[number][..], &length, bytes].concat()
    };
    let (nobody, ada) = (user(b""), user(b"ada"));
    let (time, end) = ([0; 8], [0]);
    let record = |parts: &[&[u8]]| sealed(&[&head[..], &parts.concat()].concat());

    let good = [
        record(&[&nobody, &end]),
        record(&[&ada, &field(1, &time), &end]),
        record(&[
            &nobody,
            &field(2, &time),
            &field(5, b""),
            &field(7, b"::1"),
            &end,
        ]),
    ];
    for bytes in good {
        assert!(Record::decode(ID, bytes.clone()).is_some(), "{bytes:?}");
    }
    log.take();

    let table = |numbers: &[u32], texts: &[u8]| {
        let numbers: Vec<u8> = numbers.iter().flat_map(|n| n.to_be_bytes()).collect();
        record(&[&nobody, &end, &numbers, texts])
    };
    assert!(Record::decode(ID, table(&[2, 2, 1, 4, 1], b"a1b2")).is_some());
    let max = u32::MAX;
    for (bytes, reason) in [
        (record(&[&nobody]), "cut short"),
        (record(&[&[0, 9], b"ada"]), "its user is cut short"),
        (record(&[&ada, &end]), "do not belong together"),
        (
            record(&[&nobody, &field(1, &time), &end]),
            "do not belong together",
        ),
        (
            record(&[&nobody, &field(10, b"aal2"), &end]),
            "do not belong together",
        ),
        (
            record(&[&user(b"\xff"), &field(1, &time), &end]),
            "is not text",
        ),
        (record(&[&nobody, &field(4, b"\xff"), &end]), "is not text"),
        (
            record(&[&nobody, &field(2, b"now"), &end]),
            "a wrong length",
        ),
        (
            record(&[&nobody, &field(3, &time), &field(2, &time), &end]),
            "in disorder",
        ),
        (
            record(&[&nobody, &field(2, &time), &field(2, &time), &end]),
            "in disorder",
        ),
        (
            record(&[&nobody, &field(6, b"Browser/1.0"), &end]),
            "no client",
        ),
        (
            record(&[&ada, &field(1, &time), &field(12, b"short"), &end]),
            "cut short",
        ),
        (
            record(&[&ada, &field(1, &time), &field(13, &[0; 16]), &end]),
            "no actor",
        ),
        (record(&[&nobody, &field(99, b""), &end]), "does not know"),
        (record(&[&nobody, &[2, 0, 9], &time]), "cut short"),
        // No entries, too many, one that ends elsewhere, one key twice, disorder, no text.
        (table(&[0], b""), "values"),
        (table(&[max], b"a1"), "values"),
        (table(&[1, 3, 1], b"a1"), "values"),
        (table(&[1, 1, 1], b"a1"), "values"),
        (table(&[1, 2, 3], b"a1"), "values"),
        (table(&[2, 2, 1, 4, 1], b"a1a2"), "values"),
        (table(&[2, 2, 1, 4, 1], b"b1a2"), "values"),
        (table(&[2, 4, 1, 2, 1], b"a1b2"), "values"),
        (table(&[2, max, max, 4, 1], b"a1b2"), "values"),
        (table(&[1, 2, 1], b"\xff1"), "values"),
    ] {
        assert!(Record::decode(ID, bytes).is_none(), "{reason}");
        let line = log.assert("WARN", "corrupt_record");
        assert!(line.contains(reason), "{line}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn all_values_of_a_session_come_back_from_the_bytes_of_its_record(
        values in prop::collection::btree_map(".{0,20}", ".{0,200}", 0..40)
    ) {
        let record = run(visitors_record(values.clone())).unwrap();
        let decoded = Record::decode(ID, record.encode().unwrap()).unwrap();
        let json: serde_json::Value = serde_json::from_str(&decoded.to_json()).unwrap();
        prop_assert_eq!(json["data"].clone(), serde_json::to_value(&values).unwrap());
        prop_assert_eq!(decoded.encode().unwrap(), record.encode().unwrap());
    }
}

#[tokio::test]
async fn a_person_sees_all_of_a_record_except_what_opens_a_session() {
    let [(_, ada), (_, grace)] = records().await;
    let json: serde_json::Value = serde_json::from_str(&ada.to_json()).unwrap();
    assert_eq!(
        json["data"],
        serde_json::json!({
            "cart": { "bread": 2, "milk": 1 },
            "name": "Grüße 🙂",
            "theme": "dark",
        })
    );
    assert_eq!(json["login"]["user"], ada.user().unwrap().as_str());
    assert_eq!(json["login"]["methods"], serde_json::json!(["pwd", "otp"]));
    assert_eq!(json["login"]["proved_at"], "2023-11-14T22:13:20Z");
    assert_eq!(json["login"]["has_stamp"], true);
    assert_eq!(json["client"]["user_agent"], "Browser/1.0");
    assert_eq!(json["ends_by"], IN_2100.to_string());
    assert_eq!(json["lifetime"], "kiosk");
    let shown = grace.to_json();
    assert!(shown.contains("\"actor\""), "{shown}");
    for (record, shown) in [(&ada, ada.to_json()), (&grace, shown)] {
        let hash = support::base64::encode(&record.encode().unwrap()[29..45]);
        assert!(
            !shown.contains(&hash) && !shown.contains("secret"),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn what_a_client_sent_controls_no_terminal() {
    let store = MemoryStore::new();
    let set_client = |session: Session| async move {
        let user_agent = "a\u{1b}[2Jb\u{9b}31mc\u{202e}d";
        session.set_client(Client::new().with_user_agent(user_agent))?;
        session.log_in("ada")
    };
    let layer = builder(store.clone()).build().unwrap();
    let sessions = layer.sessions();
    let app = Router::new().route("/", get(set_client)).layer(layer);
    Browser::new(&app).get("/").await.assert(200, "");
    let id = sessions.list_for("ada").await.unwrap()[0].id();
    let record = store.load(id).await.unwrap().unwrap();
    let json = record.to_json();
    assert!(json.contains(r"a\u001b[2Jb\u009b31mc\u202ed"), "{json}");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json["client"]["user_agent"],
        "a\u{1b}[2Jb\u{9b}31mc\u{202e}d"
    );
}

#[tokio::test]
async fn show_record_prints_a_stored_record() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sessions.db");
    let url = format!("sqlite:{}", file.display());
    let store = AnyStore::connect(&url).await.unwrap();
    let [(id, record), _] = records().await;
    assert!(store.insert(id, &record).await.unwrap());

    let show = |arguments: &[&str]| {
        let output = Command::new(binary("show_record")).args(arguments).output();
        let output = output.unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(printed).unwrap())
    };
    let (is_shown, printed) = show(&[&url, &id.to_string()]);
    assert!(is_shown, "{printed}");
    assert!(printed.contains(&record.to_json()), "{printed}");
    let size = format!("{} bytes", record.encode().unwrap().len());
    assert!(printed.contains(&size), "{printed}");

    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    sqlx::query("UPDATE cloakroom_sessions SET record = substr(record, 1, 40)")
        .execute(&pool)
        .await
        .unwrap();
    let (is_shown, printed) = show(&[&url, &id.to_string()]);
    assert!(
        !is_shown && printed.contains("it is cut short"),
        "{printed}"
    );

    let nowhere = format!("{url}.typo");
    for (arguments, reason) in [
        (
            vec![&*nowhere, "AAECAwQFBgcICQoLDA0ODw"],
            "there is no file",
        ),
        (vec![&*url], "give the URL"),
        (vec![&*url, "ada"], "22 characters"),
        (vec![&*url, "AAECAwQFBgcICQoLDA0ODw"], "has no record"),
    ] {
        let (is_shown, printed) = show(&arguments);
        assert!(!is_shown && printed.contains(reason), "{printed}");
    }
    assert!(!std::path::Path::new(&format!("{}.typo", file.display())).exists());
}
