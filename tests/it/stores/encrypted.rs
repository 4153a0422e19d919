//! Encryption at rest: which records open, which do not, and what becomes of those.

use std::fs;
use std::time::Duration;

use axum::Router;
use cloakroom::{
    AtLimit, EncryptedStore, EncryptionKey, EncryptionKeys, MemoryStore, NearCache, Plaintext,
    Record, RecordId, RedisStore, Session, SessionCatalog, SessionFilter, SessionLayer,
    SessionStore, TestClock, Timestamp, UserHashKey, UserId, UserIndex,
};
use cloakroom_fuzz::sealed;
use support::servers::{Server, run_redis};
use support::{Browser, app, builder, id_of, key};

use crate::secrecy::logging::Log;

const IN_2100: Timestamp = Timestamp::from_millis(4_102_444_800_000);

fn encryption_key(byte: u8) -> EncryptionKey {
    EncryptionKey::from_bytes(&[byte; 32]).unwrap()
}

fn hash_key(byte: u8) -> UserHashKey {
    UserHashKey::from_bytes(&[byte; 32]).unwrap()
}

fn encrypted<S: SessionStore>(store: S) -> EncryptedStore<S> {
    EncryptedStore::new(store, encryption_key(1))
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// A browser with a session that has a value and a user, in this store.
async fn ada_in(store: impl SessionStore) -> Browser {
    let mut browser = Browser::new(&app(SessionLayer::new(store, key())));
    browser.get("/insert/theme/dark").await.assert(200, "done");
    browser.get("/log_in/ada").await.assert(200, "done");
    browser
}

/// The same browser, as a client of an application on this store.
fn moved(browser: &Browser, store: impl SessionStore) -> Browser {
    with_cookie_of(browser, &app(SessionLayer::new(store, key())))
}

fn with_cookie_of(browser: &Browser, app: &Router) -> Browser {
    let mut other = Browser::new(app);
    other.adopt(browser);
    other
}

/// Gives the session the external id `sid`.
async fn name_at_provider(browser: &Browser, store: impl SessionStore) {
    let call = async |session: Session| session.set_external_id("sid");
    let site = support::routes().route("/external", axum::routing::get(call));
    let site = site.layer(SessionLayer::new(store, key()));
    let mut named = with_cookie_of(browser, &site);
    named.get("/external").await.assert(200, "");
}

async fn is_live(browser: &mut Browser) -> bool {
    match browser.get("/get/theme").await.body.as_str() {
        "dark" => true,
        "nothing" => false,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_session_is_as_it_was_and_the_store_has_only_ciphertext_of_it() {
    let inner = MemoryStore::new();
    let mut browser = ada_in(encrypted(inner.clone())).await;
    assert!(is_live(&mut browser).await);
    browser.get("/user").await.assert(200, "ada");
    browser.get("/update/n").await.assert(200, "1");
    browser.get("/update/n").await.assert(200, "2");

    let id = id_of(&browser.token());
    let stored = inner.load(id).await.unwrap().unwrap();
    let shown: serde_json::Value = serde_json::from_str(&stored.to_json()).unwrap();
    assert_eq!(shown["encrypted"], true);
    assert_eq!(shown["data"], serde_json::json!({}));
    assert_eq!(stored.user().unwrap().as_str(), "__Host-session:ada");
    let opened = encrypted(inner).load(id).await.unwrap().unwrap();
    assert_eq!(opened.version(), stored.version());
    assert_eq!(opened.expires_at(), stored.expires_at());

    browser.get("/log_out").await.assert(200, "done");
    assert!(!is_live(&mut browser).await);
}

#[tokio::test]
async fn two_encryptions_of_one_record_have_nothing_in_common() {
    let inner = MemoryStore::new();
    let browser = ada_in(inner.clone()).await;
    let record = inner.load(id_of(&browser.token())).await.unwrap().unwrap();
    let id = RecordId::from_bytes([9; 16]);
    let mut texts = Vec::new();
    for _ in 0..2 {
        let other = MemoryStore::new();
        assert!(encrypted(other.clone()).insert(id, &record).await.unwrap());
        let stored = other.load(id).await.unwrap().unwrap();
        texts.push(stored.encode().unwrap());
    }
    let [a, b] = &texts[..] else { panic!() };
    // The head is the same, up to the id of the key.
    let end = a.iter().zip(b).rposition(|(a, b)| a == b).unwrap_or(0);
    let same = a.iter().zip(b).skip(120).filter(|(a, b)| a == b).count();
    assert!(same < 12, "{same} of {} bytes, the last at {end}", a.len());
}

#[tokio::test]
async fn a_record_gets_the_new_key_with_its_next_write_and_the_old_key_can_go() {
    let inner = MemoryStore::new();
    let with = |keys: EncryptionKeys| EncryptedStore::new(inner.clone(), keys);
    let (old, new) = (encryption_key(1), encryption_key(2));
    let first = ada_in(with(old.clone().into())).await;
    let second = ada_in(with(old.clone().into())).await;

    // A node that has not got the new key to encrypt with reads what the others write.
    let both = EncryptionKeys::new(new.clone()).also_decrypt(old.clone());
    let mut browser = moved(&first, with(both));
    assert!(is_live(&mut browser).await);
    browser.get("/update/n").await.assert(200, "1");
    let not_yet = EncryptionKeys::new(old.clone()).also_decrypt(new.clone());
    assert!(is_live(&mut moved(&browser, with(not_yet))).await);

    let mut written = moved(&browser, with(new.clone().into()));
    assert!(is_live(&mut written).await);
    let mut unwritten = moved(&second, with(new.into()));
    assert!(!is_live(&mut unwritten).await);
    // The key comes back, and so does the session.
    assert!(is_live(&mut moved(&second, with(old.into()))).await);
}

#[tokio::test]
async fn a_record_without_its_key_is_no_session_and_stays_with_a_warning() {
    let inner = MemoryStore::new();
    let browser = ada_in(encrypted(inner.clone())).await;
    let id = id_of(&browser.token());
    let before = inner.load(id).await.unwrap().unwrap().encode().unwrap();
    let other = EncryptedStore::new(inner.clone(), encryption_key(2));
    let (log, _guard) = Log::start();
    assert!(other.load(id).await.unwrap().is_none());
    let line = log.assert("WARN", "unopened_record");
    assert!(
        line.contains(&id.to_string()) && line.contains("no key decrypts it"),
        "{line}"
    );
    assert!(!line.contains("ada"), "{line}");
    assert!(other.reload(id).await.unwrap().is_none());
    log.assert("WARN", "unopened_record");
    // The third is none of the 1st, the 2nd, the 4th and so on.
    assert!(other.load(id).await.unwrap().is_none());
    log.assert("DEBUG", "unopened_record");
    let listed = other.find_by_user(&user("__Host-session:ada")).await;
    assert_eq!(listed.unwrap().len(), 0);

    let after = inner.load(id).await.unwrap().unwrap();
    assert_eq!(after.encode().unwrap(), before);
    assert!(!other.insert(id, &after).await.unwrap(), "the id is taken");
    // A logout everywhere does not need the key.
    let ada = user("__Host-session:ada");
    assert_eq!(other.remove_by_user(&ada, None).await.unwrap(), 1);
    assert!(inner.is_empty());
}

#[tokio::test]
async fn an_encrypted_record_is_no_session_to_a_layer_without_an_encrypted_store() {
    let inner = MemoryStore::new();
    let browser = ada_in(encrypted(inner.clone())).await;
    name_at_provider(&browser, encrypted(inner.clone())).await;
    let layer = SessionLayer::new(inner.clone(), key());
    let sessions = layer.sessions();
    let mut plain = with_cookie_of(&browser, &app(layer));
    let (log, _guard) = Log::start();
    assert!(!is_live(&mut plain).await);
    let line = log.assert("WARN", "unopened_record");
    assert!(
        line.contains("no `EncryptedStore` is around the store"),
        "{line}"
    );
    assert_eq!(sessions.list_for("ada").await.unwrap().len(), 0);
    let all = SessionFilter::new();
    assert_eq!(sessions.count(&all).await.unwrap(), 0);
    assert!(
        sessions
            .page(&all, None, 9)
            .await
            .unwrap()
            .sessions
            .is_empty()
    );
    assert_eq!(sessions.end_everything().await.unwrap(), 0);
    assert_eq!(sessions.end_external("sid").await.unwrap(), 0);
    // The record is still there for those who can read it.
    assert!(is_live(&mut moved(&browser, encrypted(inner))).await);
}

#[tokio::test]
async fn a_plain_record_is_no_session_unless_the_application_says_so() {
    let inner = MemoryStore::new();
    let plain = ada_in(inner.clone()).await;
    let id = id_of(&plain.token());
    let (log, _guard) = Log::start();
    assert!(!is_live(&mut moved(&plain, encrypted(inner.clone()))).await);
    let line = log.assert("WARN", "unopened_record");
    assert!(line.contains("it is not encrypted"), "{line}");

    let accepting = || {
        encrypted(inner.clone())
            .hash_users(hash_key(3))
            .plaintext(Plaintext::Accept)
    };
    let layer = SessionLayer::new(accepting(), key());
    let sessions = layer.sessions();
    let mut browser = with_cookie_of(&plain, &app(layer));
    assert!(is_live(&mut browser).await);
    assert_eq!(sessions.list_for("ada").await.unwrap().len(), 1);
    assert!(format!("{:?}", inner.load(id).await.unwrap()).contains("ada"));

    browser.get("/update/n").await.assert(200, "1");
    let stored = inner.load(id).await.unwrap().unwrap();
    assert!(stored.to_json().contains("\"encrypted\": true"));
    assert!(!format!("{stored:?}").contains("ada"));
    assert_eq!(sessions.list_for("ada").await.unwrap().len(), 1);
    assert!(is_live(&mut moved(&browser, encrypted(inner.clone()))).await);

    // A logout everywhere finds both kinds.
    ada_in(inner.clone()).await;
    assert_eq!(sessions.list_for("ada").await.unwrap().len(), 2);
    assert_eq!(sessions.revoke_user("ada").await.unwrap(), 2);
    assert!(inner.is_empty());
}

/// A node at each step of the way in `docs/operations.md`.
fn node(step: Option<Plaintext>, inner: &MemoryStore) -> Box<dyn SessionCatalog> {
    let inner = inner.clone();
    match step {
        None => Box::new(inner),
        Some(plaintext) => Box::new(
            encrypted(inner)
                .hash_users(hash_key(3))
                .plaintext(plaintext),
        ),
    }
}

#[tokio::test]
async fn a_store_in_use_comes_to_encryption_and_back_and_nobody_is_logged_out() {
    let [write, accept, refuse] =
        [Plaintext::Write, Plaintext::Accept, Plaintext::Refuse].map(Some);
    let way = [None, write, accept, refuse, accept, write, None];
    let ada = user("__Host-session:ada");
    for steps in way.windows(2) {
        // Some nodes are still at the step before.
        let inner = MemoryStore::new();
        let mut browsers = Vec::new();
        for step in steps {
            browsers.push(ada_in(node(*step, &inner)).await);
        }
        for count in 1..=4 {
            let here = node(steps[count % 2], &inner);
            let found = here.find_by_user(&ada).await.unwrap();
            assert_eq!(found.len(), 2, "{steps:?}");
            let site = app(SessionLayer::new(here, key()));
            for browser in &browsers {
                let mut browser = with_cookie_of(browser, &site);
                browser.get("/user").await.assert(200, "ada");
                let update = browser.get("/update/n").await;
                update.assert(200, &count.to_string());
            }
        }
        let last = node(steps[1], &inner);
        assert_eq!(last.remove_by_user(&ada, None).await.unwrap(), 2);
        assert!(inner.is_empty());
    }
}

#[tokio::test]
async fn a_store_that_writes_plain_records_reads_both_kinds_and_touches_both() {
    let inner = MemoryStore::new();
    let writes = || {
        encrypted(inner.clone())
            .hash_users(hash_key(3))
            .plaintext(Plaintext::Write)
    };
    let sealed = ada_in(encrypted(inner.clone()).hash_users(hash_key(3))).await;
    let plain = ada_in(writes()).await;
    for (browser, is_encrypted) in [(&sealed, true), (&plain, false)] {
        let id = id_of(&browser.token());
        let record = writes().load(id).await.unwrap().unwrap();
        let later = record.with_expires_at(IN_2100);
        assert!(writes().touch(id, &later).await.unwrap());
        let stored = inner.load(id).await.unwrap().unwrap();
        assert_eq!(stored.expires_at(), IN_2100);
        assert_eq!(
            stored.to_json().contains("\"encrypted\": true"),
            is_encrypted
        );
        // Its next write is plain in any case.
        let mut browser = moved(browser, writes());
        browser.get("/update/n").await.assert(200, "1");
        let stored = inner.load(id).await.unwrap().unwrap();
        assert!(stored.to_json().contains("dark"));
    }
}

#[tokio::test]
async fn ciphertext_opens_only_under_its_own_id_version_user_and_external_id() {
    let inner = MemoryStore::new();
    let store = encrypted(inner.clone());
    let browser = ada_in(store.clone()).await;
    name_at_provider(&browser, store.clone()).await;
    let mine = id_of(&browser.token());
    let theirs = id_of(&ada_in(store.clone()).await.token());
    let record = inner.load(mine).await.unwrap().unwrap();
    let is_opened = |id: RecordId, bytes: Vec<u8>| {
        let inner = inner.clone();
        let store = store.clone();
        async move {
            inner.remove(id).await.unwrap();
            let Some(record) = Record::decode(id, bytes) else {
                return false;
            };
            assert!(inner.insert(id, &record).await.unwrap());
            store.load(id).await.unwrap().is_some()
        }
    };
    let bytes = record.encode().unwrap();
    assert!(is_opened(mine, bytes.clone()).await);
    assert!(!is_opened(theirs, bytes.clone()).await, "another id");
    let mut changed = bytes.clone();
    changed[8] ^= 1;
    assert!(!is_opened(mine, sealed(&changed)).await, "another version");
    let mut changed = bytes.clone();
    let at = memchr::memmem::find(&bytes, b":ada").unwrap() + 1;
    changed[at..at + 3].copy_from_slice(b"eve");
    assert!(!is_opened(mine, sealed(&changed)).await, "another user");
    let mut changed = bytes.clone();
    let at = memchr::memmem::find(&bytes, b"sid").unwrap();
    changed[at..at + 3].copy_from_slice(b"sod");
    let is_other = is_opened(mine, sealed(&changed)).await;
    assert!(!is_other, "another external id");
    // From the id of the key on, everything is authentic or nothing is.
    for at in at + 3..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(!is_opened(mine, sealed(&changed)).await, "byte {at}");
    }
    for length in [0, 1, 16, 40] {
        let short = bytes[..bytes.len() - length].to_vec();
        assert_eq!(
            is_opened(mine, sealed(&short)).await,
            length == 0,
            "{length}"
        );
    }
}

#[tokio::test]
async fn who_can_write_to_the_store_moves_the_expiry_but_not_the_absolute_timeout() {
    let clock = TestClock::new();
    let inner = MemoryStore::new().with_clock(clock.clone());
    let hour = Duration::from_secs(60 * 60);
    let layer = builder(encrypted(inner.clone()))
        .clock(clock.clone())
        .absolute_timeout(3 * hour)
        .build()
        .unwrap();
    let mut browser = Browser::new(&app(layer));
    browser.get("/log_in/ada").await.assert(200, "done");
    browser.get("/insert/theme/dark").await.assert(200, "done");
    let id = id_of(&browser.token());
    let stored = inner.load(id).await.unwrap().unwrap();
    assert!(
        inner
            .touch(id, &stored.with_expires_at(IN_2100))
            .await
            .unwrap()
    );
    clock.advance(2 * hour);
    assert!(is_live(&mut browser).await);
    clock.advance(hour);
    assert!(!is_live(&mut browser).await);
}

#[tokio::test]
async fn hashed_users_are_listed_limited_and_logged_out_everywhere() {
    let inner = MemoryStore::new();
    let store = encrypted(inner.clone()).hash_users(hash_key(3));
    let layer = builder(store)
        .session_limit(2, AtLimit::EndOldest)
        .build()
        .unwrap();
    let sessions = layer.sessions();
    let app = app(layer);
    let mut browsers = Vec::new();
    for name in ["ada", "ada", "ada", "grace"] {
        let mut browser = Browser::new(&app);
        browser
            .get(&format!("/log_in/{name}"))
            .await
            .assert(200, "done");
        browsers.push(browser);
    }
    let listed = sessions.list_for("ada").await.unwrap();
    assert_eq!(listed.len(), 2);
    assert!(
        listed
            .iter()
            .all(|session| session.user().unwrap().as_str() == "ada")
    );
    browsers[0].get("/user").await.assert(401, "");
    browsers[2].get("/user").await.assert(200, "ada");
    for session in &listed {
        let stored = inner.load(session.id()).await.unwrap().unwrap();
        let name = stored.user().unwrap().as_str().to_owned();
        assert!(name.len() == 43 && !name.contains("ada"), "{name}");
    }
    assert_eq!(sessions.revoke_user("ada").await.unwrap(), 2);
    browsers[2].get("/user").await.assert(401, "");
    browsers[3].get("/user").await.assert(200, "grace");
}

#[tokio::test]
async fn users_are_found_under_a_former_hash_and_under_their_name_until_the_next_write() {
    let inner = MemoryStore::new();
    let plain = || encrypted(inner.clone());
    let first = ada_in(plain().hash_users(hash_key(3))).await;
    ada_in(plain()).await;
    let new = || plain().hash_users(hash_key(4));
    let found = async |store: EncryptedStore<MemoryStore>| {
        let found = store.find_by_user(&user("__Host-session:ada")).await;
        found.unwrap().len()
    };
    assert_eq!(found(new()).await, 0);
    assert_eq!(found(new().also_find_users_by(hash_key(3))).await, 1);
    assert_eq!(found(new().also_find_plain_users(true)).await, 1);
    let all = || {
        new()
            .also_find_users_by(hash_key(3))
            .also_find_plain_users(true)
    };
    assert_eq!(found(all()).await, 2);
    moved(&first, all()).get("/update/n").await.assert(200, "1");
    assert_eq!(found(new()).await, 1);
    assert_eq!(found(all()).await, 2);
    let ada = user("__Host-session:ada");
    assert_eq!(all().remove_by_user(&ada, None).await.unwrap(), 2);
    assert!(inner.is_empty());
}

/// A touch writes nothing but the expiry, so that the record stays under its former name.
#[tokio::test]
async fn a_touch_keeps_a_session_in_the_index_that_it_is_in() {
    let server = Server::redis(&[]);
    let url = format!("redis://{}", server.address());
    let redis = RedisStore::connect(&url).await.unwrap();
    let old = encrypted(redis.clone()).hash_users(hash_key(3));
    let mut browser = ada_in(old.clone()).await;
    name_at_provider(&browser, old.clone()).await;
    browser.get("/user").await.assert(200, "ada");
    let id = id_of(&browser.token());
    let new = encrypted(redis)
        .hash_users(hash_key(4))
        .also_find_users_by(hash_key(3));
    let record = new.load(id).await.unwrap().unwrap();
    let later = record.clone().with_expires_at(IN_2100);
    assert!(new.touch(id, &later).await.unwrap());
    let ada = user("__Host-session:ada");
    for store in [&old, &new] {
        let found = store.find_by_user(&ada).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1.expires_at(), IN_2100);
        assert_eq!(store.find_by_external_id("sid").await.unwrap().len(), 1);
    }
    for indexes in ["*user:*", "*external:*"] {
        let index = run_redis(&server.address(), &["KEYS", indexes]);
        assert_eq!(index.lines().count(), 1, "{index}");
        let lasts = run_redis(&server.address(), &["TTL", index.trim()]);
        assert!(
            lasts.trim().parse::<u64>().unwrap() > 1_000_000_000,
            "{lasts}"
        );
    }
}

#[tokio::test]
async fn a_near_cache_keeps_what_was_decrypted() {
    let inner = MemoryStore::new();
    let near = NearCache::open(encrypted(inner.clone())).await.unwrap();
    let browser = ada_in(near.clone()).await;
    let id = id_of(&browser.token());
    while !near.stats().is_fresh {
        tokio::task::yield_now().await;
    }
    near.load(id).await.unwrap().unwrap();
    let hits = near.stats().hits;
    let record = near.load(id).await.unwrap().unwrap();
    assert_eq!(near.stats().hits, hits + 1);
    assert!(record.to_json().contains("dark"), "{}", record.to_json());
    // Another node's write takes the decrypted record out of the cache.
    let known = near.stats().invalidations;
    let mut other = moved(&browser, encrypted(inner));
    other.get("/insert/theme/light").await.assert(200, "done");
    while near.stats().invalidations == known {
        tokio::task::yield_now().await;
    }
    moved(&browser, near)
        .get("/get/theme")
        .await
        .assert(200, "light");
}

#[tokio::test]
async fn a_session_goes_on_after_its_request_in_an_encrypted_store() {
    let store = encrypted(MemoryStore::new()).hash_users(hash_key(3));
    let mut browser = ada_in(store.clone()).await;
    let later = |session: Session| async move {
        let mut later = session.detach();
        later.insert("theme", "light").unwrap();
        later.save().await.unwrap();
        "done"
    };
    let route = axum::routing::get(later);
    let app = Router::new()
        .route("/later", route)
        .merge(support::routes())
        .layer(SessionLayer::new(store, key()));
    browser = with_cookie_of(&browser, &app);
    browser.get("/later").await.assert(200, "done");
    browser.get("/get/theme").await.assert(200, "light");
}

#[test]
fn keys_come_from_bytes_digits_and_files_and_show_nothing() {
    let hex = "01".repeat(32);
    let key = encryption_key(1);
    assert_eq!(key.to_hex(), hex);
    assert_eq!(hex.parse::<EncryptionKey>().unwrap().to_hex(), hex);
    assert_eq!(
        UserHashKey::from_hex(&format!(" {hex}\n"))
            .unwrap()
            .to_hex(),
        hex
    );
    let keys = EncryptionKeys::new(key.clone()).also_decrypt(encryption_key(2));
    let store = EncryptedStore::new(MemoryStore::new(), keys.clone()).hash_users(hash_key(3));
    let shown = format!("{key:?} {keys:?} {:?} {store:?}", hash_key(3));
    assert!(!shown.contains("01") && !shown.contains("1, 1"), "{shown}");

    for bad in [
        &hex[2..],
        &format!("{hex}01"),
        &format!("{}zz", &hex[2..]),
        "",
    ] {
        for error in [
            EncryptionKey::from_hex(bad).unwrap_err(),
            UserHashKey::from_hex(bad).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(text.contains("openssl rand -hex 32"), "{text}");
            assert!(!text.contains(&hex[..16]), "{text}");
        }
    }
    assert!(EncryptionKey::from_bytes(&[1; 33]).is_err());
    assert_ne!(
        EncryptionKey::generate().unwrap().to_hex(),
        EncryptionKey::generate().unwrap().to_hex()
    );

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    assert!(EncryptionKeys::from_file(&path).is_err());
    fs::write(&path, format!("{hex}\n")).unwrap();
    assert_eq!(EncryptionKey::from_file(&path).unwrap().to_hex(), hex);
    fs::write(&path, format!("{hex}, {}", "02".repeat(32))).unwrap();
    assert!(EncryptionKeys::from_file(&path).is_ok());
    let several = EncryptionKey::from_file(&path).unwrap_err().to_string();
    assert!(several.contains("one key was expected"), "{several}");
    fs::write(&path, format!("{hex} short")).unwrap();
    let error = EncryptionKeys::from_file(&path).unwrap_err().to_string();
    assert!(
        error.contains("holds a bad key") && !error.contains(&hex),
        "{error}"
    );
    for name in ["CLOAKROOM_NO_SUCH_VARIABLE", "CARGO_PKG_NAME"] {
        assert!(EncryptionKeys::from_env(name).is_err());
        assert!(UserHashKey::from_env(name).is_err());
    }
}
