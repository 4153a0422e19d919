//! Keys that change while the application runs.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use cloakroom::{
    EncryptedStore, EncryptionKey, EncryptionKeys, MemoryStore, Session, SessionLayer,
    SessionStore, SigningKey, SigningKeys, WatchedKeys,
};
use support::{Browser, app, id_of, routes};
use tokio::time::sleep;

use crate::secrecy::logging::Log;

/// The tests ask for a reload themselves. No interval passes in them.
const NEVER: Duration = Duration::from_secs(1_000_000);

fn signing_key(byte: u8) -> SigningKey {
    SigningKey::from_bytes(&[byte; 64]).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    let hex = |byte: &u8| signing_key(*byte).to_hex();
    bytes.iter().map(hex).collect::<Vec<_>>().join(" ")
}

/// Replaces a file by another one, as one should.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

/// The same browser, as a client of another application.
fn moved(browser: &Browser, app: &Router) -> Browser {
    let mut other = Browser::new(app);
    other.adopt(browser);
    other
}

async fn logged_in(app: &Router) -> Browser {
    let mut browser = Browser::new(app);
    browser.get("/log_in/ada").await.assert(200, "done");
    browser
}

/// Keys that a test sets.
#[derive(Clone)]
struct Settable(Arc<Mutex<Result<SigningKeys, &'static str>>>);

impl Settable {
    fn new(keys: SigningKeys) -> (Self, WatchedKeys<SigningKeys>) {
        let set = Arc::new(Mutex::new(Ok(keys)));
        let source = set.clone();
        let keys = SigningKeys::watch(NEVER, move || source.lock().unwrap().clone()).unwrap();
        (Self(set), keys)
    }

    fn set(&self, keys: SigningKeys) {
        *self.0.lock().unwrap() = Ok(keys);
    }
}

#[tokio::test]
async fn the_keys_of_a_file_rotate_without_a_restart_and_nobody_is_logged_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    replace(&path, &hex(&[1]));
    let keys = SigningKeys::watch_file(&path, NEVER).unwrap();
    let store = MemoryStore::new();
    let site = app(SessionLayer::new(store.clone(), keys.clone()));
    let of_new_key = app(SessionLayer::new(store, signing_key(2)));

    let mut first = logged_in(&site).await;
    moved(&first, &of_new_key)
        .get("/user")
        .await
        .assert(401, "");
    assert!(!keys.reload().unwrap(), "nothing has changed");

    // The new key verifies, and does not sign yet.
    replace(&path, &hex(&[1, 2]));
    assert!(keys.reload().unwrap());
    first.get("/user").await.assert(200, "ada");
    let of_before = logged_in(&site).await;
    moved(&of_before, &of_new_key)
        .get("/user")
        .await
        .assert(401, "");

    replace(&path, &hex(&[2, 1]));
    assert!(keys.reload().unwrap());
    first.get("/user").await.assert(200, "ada");
    let mut second = logged_in(&site).await;
    moved(&second, &of_new_key)
        .get("/user")
        .await
        .assert(200, "ada");
    first.get("/regenerate").await.assert(200, "done");
    moved(&first, &of_new_key)
        .get("/user")
        .await
        .assert(200, "ada");

    // Without the old key, its tokens are refused from now on.
    replace(&path, &hex(&[2]));
    assert!(keys.reload().unwrap());
    second.get("/user").await.assert(200, "ada");
    first.get("/user").await.assert(200, "ada");
    moved(&of_before, &site).get("/user").await.assert(401, "");
}

#[tokio::test]
async fn a_broken_file_keeps_the_old_keys_and_says_so_without_a_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    let good = hex(&[1]);
    replace(&path, &good);
    let keys = SigningKeys::watch_file(&path, NEVER).unwrap();
    let site = app(SessionLayer::new(MemoryStore::new(), keys.clone()));
    let mut browser = logged_in(&site).await;
    let (log, _guard) = Log::start();
    let broken = [
        (String::new(), "holds no key"),
        (good[..100].to_owned(), "holds a bad key"),
        (format!("{good} {}", "zz".repeat(64)), "holds a bad key"),
        (format!("{good}\n").repeat(1000), "too long for keys"),
    ];
    for (number, (text, reason)) in (1..).zip(broken) {
        replace(&path, &text);
        let error = keys.reload().unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        // The log warns of the 1st, the 2nd, the 4th and so on.
        let level = if number == 3 { "DEBUG" } else { "WARN" };
        let line = log.assert(level, "keys_rejected");
        assert!(line.contains(reason) && line.contains("signing"), "{line}");
        assert!(!line.contains(&good[..16]), "{line}");
        browser.get("/user").await.assert(200, "ada");
        log.take();
    }
    fs::remove_file(&path).unwrap();
    keys.reload().unwrap_err();
    log.assert("DEBUG", "keys_rejected");
    browser.get("/user").await.assert(200, "ada");

    log.take();
    replace(&path, &good);
    assert!(!keys.reload().unwrap());
    let line = log.assert("INFO", "keys_accepted");
    assert!(line.contains("changed=false"), "{line}");
    replace(&path, &hex(&[2, 1]));
    assert!(keys.reload().unwrap());
    let line = log.assert("INFO", "keys_accepted");
    assert!(line.contains("changed=true"), "{line}");
    browser.get("/user").await.assert(200, "ada");
}

#[tokio::test]
async fn a_function_that_fails_or_panics_keeps_the_old_keys() {
    let (set, keys) = Settable::new(signing_key(1).into());
    let site = app(SessionLayer::new(MemoryStore::new(), keys.clone()));
    let mut browser = logged_in(&site).await;
    *set.0.lock().unwrap() = Err("the vault is sealed");
    let (log, _guard) = Log::start();
    keys.reload().unwrap_err();
    let line = log.assert("WARN", "keys_rejected");
    assert!(line.contains("the vault is sealed"), "{line}");
    browser.get("/user").await.assert(200, "ada");
    set.set(SigningKeys::new(signing_key(2)).also_verify(signing_key(1)));
    assert!(keys.reload().unwrap());
    browser.get("/user").await.assert(200, "ada");

    let panics = Arc::new(AtomicBool::new(false));
    let will = panics.clone();
    let keys = SigningKeys::watch(NEVER, move || {
        assert!(!will.load(Ordering::Relaxed), "of the test");
        Ok::<_, cloakroom::ConfigError>(signing_key(1).into())
    });
    let keys = keys.unwrap();
    let site = app(SessionLayer::new(MemoryStore::new(), keys.clone()));
    let mut browser = logged_in(&site).await;
    panics.store(true, Ordering::Relaxed);
    let error = keys.reload().unwrap_err().to_string();
    assert!(error.contains("panicked"), "{error}");
    browser.get("/user").await.assert(200, "ada");
    panics.store(false, Ordering::Relaxed);
    assert!(!keys.reload().unwrap());

    let fails = SigningKeys::watch(NEVER, || Err::<SigningKeys, _>("the vault is sealed"));
    assert!(fails.is_err(), "a layer cannot begin without keys");
    assert!(SigningKeys::watch_file("/no/such/file", NEVER).is_err());
}

#[tokio::test]
async fn a_request_has_the_keys_of_when_it_came_to_its_end() {
    let (set, keys) = Settable::new(signing_key(1).into());
    let store = MemoryStore::new();
    let layer = SessionLayer::new(store.clone(), keys.clone());
    let change = {
        let keys = keys.clone();
        move |session: Session| {
            set.set(signing_key(2).into());
            assert!(keys.reload().unwrap());
            session.insert("theme", "dark").unwrap();
            session.regenerate().unwrap();
            std::future::ready("changed")
        }
    };
    let site = routes().route("/change", get(change)).layer(layer);
    let mut browser = logged_in(&site).await;
    browser.get("/change").await.assert(200, "changed");
    // The token was signed with the key that the request came with.
    let of_key = |byte| app(SessionLayer::new(store.clone(), signing_key(byte)));
    moved(&browser, &of_key(1))
        .get("/get/theme")
        .await
        .assert(200, "dark");
    moved(&browser, &of_key(2))
        .get("/get/theme")
        .await
        .assert(200, "nothing");
    browser.get("/user").await.assert(401, "");
    let other = logged_in(&site).await;
    moved(&other, &of_key(2))
        .get("/user")
        .await
        .assert(200, "ada");
}

#[tokio::test]
async fn a_layer_around_a_clone_of_itself_stays_one_layer_when_keys_change() {
    let (set, keys) = Settable::new(signing_key(1).into());
    let layer = SessionLayer::new(MemoryStore::new(), keys.clone());
    let number = Arc::new(AtomicUsize::new(3));
    let middle = axum::middleware::from_fn(move |request, next: axum::middleware::Next| {
        // One more change on the way from the outer layer to the inner one.
        let byte = u8::try_from(number.fetch_add(1, Ordering::Relaxed)).unwrap();
        set.set(SigningKeys::new(signing_key(byte)).also_verify(signing_key(1)));
        assert!(keys.reload().unwrap());
        next.run(request)
    });
    let site = routes().layer(layer.clone()).layer(middle).layer(layer);
    let (log, _guard) = Log::start();
    let mut browser = logged_in(&site).await;
    browser.get("/user").await.assert(200, "ada");
    browser.get("/log_out").await.assert(200, "done");
    let log = log.take();
    assert!(!log.contains("rival_layer"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_two_keys_change_places_no_request_is_refused() {
    let (set, keys) = Settable::new(signing_key(1).into());
    let site = app(SessionLayer::new(MemoryStore::new(), keys.clone()));
    let is_done = Arc::new(AtomicBool::new(false));
    let changes = {
        let is_done = is_done.clone();
        tokio::task::spawn_blocking(move || {
            let mut changes = 0;
            for byte in [1, 2].into_iter().cycle() {
                let (new, old) = (signing_key(3 - byte), signing_key(byte));
                set.set(SigningKeys::new(new).also_verify(old));
                changes += usize::from(keys.reload().unwrap());
                if is_done.load(Ordering::Relaxed) {
                    return changes;
                }
            }
            unreachable!()
        })
    };
    let visit = |site: Router| async move {
        let mut browser = logged_in(&site).await;
        for _ in 0..100 {
            browser.get("/user").await.assert(200, "ada");
            browser.get("/regenerate").await.assert(200, "done");
        }
    };
    let visits: Vec<_> = (0..4).map(|_| tokio::spawn(visit(site.clone()))).collect();
    for visit in visits {
        visit.await.unwrap();
    }
    is_done.store(true, Ordering::Relaxed);
    assert!(changes.await.unwrap() > 10);
}

#[tokio::test(start_paused = true)]
async fn a_task_reads_the_keys_at_the_interval_and_ends_with_the_layer() {
    let minute = Duration::from_secs(60);
    let reads = Arc::new(AtomicUsize::new(0));
    let read = reads.clone();
    let keys = SigningKeys::watch(minute, move || {
        let byte = u8::try_from(1 + read.fetch_add(1, Ordering::Relaxed)).unwrap();
        let keys = SigningKeys::new(signing_key(byte)).also_verify(signing_key(1));
        Ok::<_, cloakroom::ConfigError>(keys)
    });
    let store = MemoryStore::new();
    let layer = SessionLayer::new(store.clone(), keys.unwrap());
    let site = app(layer);
    let first = logged_in(&site).await;
    assert_eq!(reads.load(Ordering::Relaxed), 1);
    sleep(minute + minute / 2).await;
    assert_eq!(reads.load(Ordering::Relaxed), 2);
    moved(&first, &site).get("/user").await.assert(200, "ada");
    let second = logged_in(&site).await;
    let of_key = |byte| app(SessionLayer::new(store.clone(), signing_key(byte)));
    moved(&second, &of_key(2))
        .get("/user")
        .await
        .assert(200, "ada");
    sleep(10 * minute).await;
    let at_end = reads.load(Ordering::Relaxed);
    assert!((11..=12).contains(&at_end), "{at_end}");

    drop((first, second, site));
    sleep(10 * minute).await;
    assert_eq!(reads.load(Ordering::Relaxed), at_end);
    assert_eq!(
        Arc::strong_count(&reads),
        1,
        "something still has the function"
    );
}

#[tokio::test]
async fn a_function_that_hangs_keeps_the_old_keys_and_says_so() {
    let (answer, answers) = std::sync::mpsc::channel();
    answer.send(1).unwrap();
    let answers = Mutex::new(answers);
    let keys = SigningKeys::watch(Duration::from_secs(1), move || {
        let byte = answers.lock().unwrap().recv()?;
        Ok::<SigningKeys, std::sync::mpsc::RecvError>(signing_key(byte).into())
    });
    let keys = keys.unwrap();
    let store = MemoryStore::new();
    let site = app(SessionLayer::new(store.clone(), keys.clone()));
    let mut browser = logged_in(&site).await;
    let (log, _guard) = Log::start();
    let mut told = String::new();
    while !told.contains("keys_rejected") {
        sleep(Duration::from_millis(20)).await;
        told += &log.take();
    }
    assert!(
        told.contains("WARN") && told.contains("no keys for an interval"),
        "{told}"
    );
    browser.get("/user").await.assert(200, "ada");
    // Late keys are good keys.
    answer.send(2).unwrap();
    while !format!("{keys:?}").contains("changes: 1") {
        sleep(Duration::from_millis(20)).await;
    }
    let new = logged_in(&site).await;
    moved(&new, &app(SessionLayer::new(store, signing_key(2))))
        .get("/user")
        .await
        .assert(200, "ada");
}

#[tokio::test]
async fn hooks_and_limits_stay_those_of_the_layer_when_keys_change() {
    let (set, keys) = Settable::new(signing_key(1).into());
    let heard = Arc::new(AtomicUsize::new(0));
    let hears = heard.clone();
    let layer = SessionLayer::builder(MemoryStore::new(), keys.clone())
        .session_limit(1, cloakroom::AtLimit::EndOldest)
        .on_event(move |_| {
            hears.fetch_add(1, Ordering::Relaxed);
        })
        .build()
        .unwrap();
    let site = app(layer);
    let mut first = logged_in(&site).await;
    set.set(SigningKeys::new(signing_key(2)).also_verify(signing_key(1)));
    assert!(keys.reload().unwrap());
    let before = heard.load(Ordering::Relaxed);
    let mut second = logged_in(&site).await;
    assert!(heard.load(Ordering::Relaxed) > before);
    first.get("/user").await.assert(401, "");
    second.get("/user").await.assert(200, "ada");
}

#[tokio::test]
async fn encryption_keys_rotate_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    let hex = |bytes: &[u8]| {
        let hex = |byte: &u8| EncryptionKey::from_bytes(&[*byte; 32]).unwrap().to_hex();
        bytes.iter().map(hex).collect::<Vec<_>>().join("\n")
    };
    replace(&path, &hex(&[1]));
    let keys = EncryptionKeys::watch_file(&path, NEVER).unwrap();
    let inner = MemoryStore::new();
    let store = EncryptedStore::new(inner.clone(), keys.clone());
    let of_new_key = {
        let key = EncryptionKey::from_bytes(&[2; 32]).unwrap();
        EncryptedStore::new(inner, key)
    };
    let site = app(SessionLayer::new(store.clone(), signing_key(1)));
    let mut browser = logged_in(&site).await;
    let id = id_of(&browser.token());

    replace(&path, "nonsense");
    keys.reload().unwrap_err();
    browser.get("/user").await.assert(200, "ada");
    replace(&path, &hex(&[2, 1]));
    assert!(keys.reload().unwrap());
    browser.get("/user").await.assert(200, "ada");
    assert!(of_new_key.load(id).await.unwrap().is_none());
    browser.get("/update/n").await.assert(200, "1");
    assert!(of_new_key.load(id).await.unwrap().is_some());
    let unwritten = logged_in(&site).await;
    replace(&path, &hex(&[3]));
    assert!(keys.reload().unwrap());
    browser.get("/user").await.assert(401, "");
    moved(&unwritten, &site).get("/user").await.assert(401, "");
    assert!(
        of_new_key.load(id).await.unwrap().is_some(),
        "the record stays"
    );

    let shown = format!("{keys:?} {store:?}");
    assert!(
        !shown.contains("0101") && !shown.contains("1, 1"),
        "{shown}"
    );
    let gives = || {
        Ok::<_, cloakroom::ConfigError>(EncryptionKeys::new(EncryptionKey::from_bytes(&[1; 32])?))
    };
    assert!(
        !EncryptionKeys::watch(NEVER, gives)
            .unwrap()
            .reload()
            .unwrap()
    );
}
