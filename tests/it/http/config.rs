//! What `build()` and the keys refuse, and the text of their errors.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use cloakroom::{
    AtLimit, Clock, MemoryStore, SameSite, SessionLayer, SessionLayerBuilder, SigningKey,
    SigningKeys, TestClock,
};
use support::builder;
use support::processes::one_test;

type Builder = SessionLayerBuilder<MemoryStore>;

#[track_caller]
fn refused(setting: &str, configure: impl FnOnce(Builder) -> Builder) -> String {
    let error = configure(builder(MemoryStore::new()))
        .build()
        .expect_err("it was accepted");
    assert_eq!(error.setting(), setting, "{error}");
    error.to_string()
}

#[track_caller]
fn accepted(configure: impl FnOnce(Builder) -> Builder) {
    configure(builder(MemoryStore::new())).build().unwrap();
}

#[test]
fn the_defaults_are_accepted() {
    accepted(|layer| layer);
    let _ = SessionLayer::new(MemoryStore::new(), SigningKey::generate().unwrap());
}

#[test]
fn a_prefixed_name_is_refused_where_its_rules_are_broken() {
    for name in [
        "__Host-id",
        "__host-id",
        "__HOST-id",
        "__Host-Http-id",
        "__Secure-id",
        "__secure-id",
        "__Http-id",
    ] {
        let error = refused("secure", |layer| layer.cookie_name(name).secure(false));
        assert!(error.contains("not Secure"), "{error}");
        accepted(|layer| layer.cookie_name(name));
    }
    for name in ["__Host-id", "__hOST-id", "__Host-Http-id"] {
        let error = refused("cookie_domain", |layer| {
            layer.cookie_name(name).cookie_domain("example.com")
        });
        assert!(error.contains("__Host-"), "{error}");
        refused("cookie_path", |layer| {
            layer.cookie_name(name).cookie_path("/app")
        });
    }
    accepted(|layer| {
        layer
            .cookie_name("__Secure-id")
            .cookie_domain("example.com")
            .cookie_path("/app")
    });
}

#[test]
fn same_site_none_and_partitioned_are_refused_without_secure() {
    let plain = |layer: Builder| layer.cookie_name("id").secure(false);
    accepted(plain);
    refused("same_site", |layer| plain(layer).same_site(SameSite::None));
    refused("partitioned", |layer| plain(layer).partitioned(true));
    accepted(|layer| plain(layer).same_site(SameSite::Strict));
    accepted(|layer| layer.same_site(SameSite::None).partitioned(true));
}

#[test]
fn control_characters_and_separators_are_refused_in_every_setting() {
    for bad in ["\r", "\n", "\0", ";", "\u{7f}", "ä", "\r\nSet-Cookie: x=y"] {
        refused("cookie_name", |layer| layer.cookie_name(format!("id{bad}")));
        refused("cookie_path", |layer| {
            layer.cookie_name("id").cookie_path(format!("/{bad}"))
        });
        refused("cookie_domain", |layer| {
            layer
                .cookie_name("id")
                .cookie_domain(format!("example{bad}.com"))
        });
    }
    for bad in [
        "", "a b", "a=b", "a,b", "\"a\"", "a/b", "a@b", "(a)", "a[b", "a{b", "a\\b",
    ] {
        refused("cookie_name", |layer| layer.cookie_name(bad));
    }
    for bad in ["", "app", "app/"] {
        refused("cookie_path", |layer| {
            layer.cookie_name("id").cookie_path(bad)
        });
    }
    for bad in [
        "",
        ".",
        ".example.com",
        "example.com.",
        "a..b",
        "example.com:443",
        "https://example.com",
        "a_b",
    ] {
        refused("cookie_domain", |layer| {
            layer.cookie_name("id").cookie_domain(bad)
        });
    }
}

#[test]
fn sizes_that_browsers_drop_are_refused() {
    accepted(|layer| layer.cookie_name("n".repeat(4096 - 70)));
    let error = refused("cookie_name", |layer| {
        layer.cookie_name("n".repeat(4096 - 69))
    });
    assert!(error.contains("4096"), "{error}");
    accepted(|layer| {
        layer
            .cookie_name("id")
            .cookie_path(format!("/{}", "p".repeat(1023)))
    });
    refused("cookie_path", |layer| {
        layer
            .cookie_name("id")
            .cookie_path(format!("/{}", "p".repeat(1024)))
    });
    // The longest name that the DNS allows.
    let domain = |last: &str| format!("{}.{last}", vec!["label"; 42].join("."));
    accepted(|layer| layer.cookie_name("id").cookie_domain(domain("x")));
    refused("cookie_domain", |layer| {
        layer.cookie_name("id").cookie_domain(domain("xy"))
    });
}

#[test]
fn zero_and_crossed_timeouts_are_refused() {
    const SECOND: Duration = Duration::from_secs(1);
    const MILLISECOND: Duration = Duration::from_millis(1);
    accepted(|layer| {
        layer
            .idle_timeout(MILLISECOND)
            .absolute_timeout(MILLISECOND)
    });
    refused("idle_timeout", |layer| layer.idle_timeout(Duration::ZERO));
    refused("absolute_timeout", |layer| {
        layer.absolute_timeout(Duration::from_nanos(1))
    });
    refused("remember_idle_timeout", |layer| {
        layer.remember_idle_timeout(Duration::ZERO)
    });
    refused("remember_absolute_timeout", |layer| {
        layer.remember_absolute_timeout(Duration::ZERO)
    });
    let error = refused("idle_timeout", |layer| {
        layer.idle_timeout(2 * SECOND).absolute_timeout(SECOND)
    });
    assert!(error.contains("absolute_timeout"), "{error}");
    refused("remember_idle_timeout", |layer| {
        layer
            .remember_idle_timeout(2 * SECOND)
            .remember_absolute_timeout(SECOND)
    });
    refused("touch_interval", |layer| {
        layer.idle_timeout(60 * SECOND).touch_interval(60 * SECOND)
    });
    refused("store_timeout", |layer| layer.store_timeout(Duration::ZERO));
    refused("commit_timeout", |layer| {
        layer.commit_timeout(Duration::ZERO)
    });
    accepted(|layer| layer.idle_timeout(SECOND).absolute_timeout(SECOND));
}

#[test]
fn limits_of_nothing_are_refused() {
    refused("data_limit", |layer| layer.data_limit(0));
    refused("session_limit", |layer| {
        layer.session_limit(0, AtLimit::EndOldest)
    });
}

#[test]
fn a_short_key_is_refused_and_the_error_says_how_to_make_one() {
    for length in [0, 1, 32, 63] {
        let error = SigningKey::from_bytes(&vec![1; length])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("this one has {length}"))
                && error.contains("openssl rand -hex 64"),
            "{error}"
        );
    }
    for length in [64, 65, 1000] {
        SigningKey::from_bytes(&vec![1; length]).unwrap();
    }
}

#[test]
fn hexadecimal_keys_are_read_and_written() {
    let key = SigningKey::from_bytes(&(0..64).collect::<Vec<u8>>()).unwrap();
    let hex = key.to_hex();
    assert!(hex.starts_with("000102") && hex.len() == 128);
    assert_eq!(SigningKey::from_hex(&hex).unwrap().to_hex(), hex);
    assert_eq!(
        SigningKey::from_hex(&hex.to_uppercase()).unwrap().to_hex(),
        hex
    );
    for bad in [&hex[1..], &hex[2..], &hex.replace('0', "g"), "", "ä"] {
        let error = SigningKey::from_hex(bad).unwrap_err().to_string();
        assert!(error.contains("openssl rand -hex 64"), "{error}");
        assert!(
            bad.len() < 10 || !error.contains(&bad[..10]),
            "the error tells the key: {error}"
        );
    }
}

#[test]
fn generated_keys_differ() {
    assert_ne!(
        SigningKey::generate().unwrap().to_hex(),
        SigningKey::generate().unwrap().to_hex()
    );
}

#[test]
fn keys_come_from_the_environment() {
    // Cargo sets this variable, and its value is not a key. To change the environment would be
    // unsafe.
    let error = SigningKeys::from_env("CARGO_PKG_NAME").unwrap_err();
    assert!(error.to_string().contains("CARGO_PKG_NAME"), "{error}");
    assert!(
        error
            .source()
            .unwrap()
            .to_string()
            .contains("openssl rand -hex 64")
    );
    let error = SigningKeys::from_env("CLOAKROOM_NO_SUCH_VARIABLE")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("CLOAKROOM_NO_SUCH_VARIABLE") && error.contains("openssl rand -hex 64"),
        "{error}"
    );
}

#[tokio::test]
async fn keys_come_from_a_file_the_first_signs_and_the_others_retire() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    let missing = SigningKeys::from_file(&path).unwrap_err().to_string();
    assert!(
        missing.contains("keys") && missing.contains("openssl rand -hex 64"),
        "{missing}"
    );
    std::fs::write(&path, " \n").unwrap();
    assert!(
        SigningKeys::from_file(&path)
            .unwrap_err()
            .to_string()
            .contains("holds no key")
    );
    std::fs::write(&path, "abc").unwrap();
    assert!(SigningKeys::from_file(&path).is_err());
    assert!(
        SigningKeys::from_file(directory.path()).is_err(),
        "a directory is no file of keys"
    );

    let (old, new) = (
        SigningKey::generate().unwrap(),
        SigningKey::generate().unwrap(),
    );
    std::fs::write(&path, format!("{}\n{}\n", new.to_hex(), old.to_hex())).unwrap();
    let store = MemoryStore::new();
    let app = |keys: SigningKeys| support::app(SessionLayer::new(store.clone(), keys));
    let set = support::Browser::new(&app(SigningKeys::new(old)))
        .get("/insert/theme/dark")
        .await;
    let mut browser = support::Browser::new(&app(SigningKeys::from_file(&path).unwrap()));
    browser.keep(&set);
    browser.get("/get/theme").await.assert(200, "dark");
    browser.get("/regenerate").await;
    let reply = browser.send("/get/theme", &[]).await;
    reply.assert(200, "dark");
    let mut only_new = support::Browser::new(&app(SigningKeys::new(new)));
    only_new
        .get_with("/get/theme", &[("cookie", &browser.cookies()[0])])
        .await
        .assert(200, "dark");
}

#[tokio::test]
async fn timeouts_without_end_are_no_overflow() {
    let layer = builder(MemoryStore::new())
        .idle_timeout(Duration::MAX)
        .absolute_timeout(Duration::MAX)
        .store_timeout(Duration::MAX)
        .commit_timeout(Duration::MAX)
        .build()
        .unwrap();
    let mut browser = support::Browser::new(&support::app(layer));
    browser.get("/insert/theme/dark").await.assert(200, "done");
    browser.get("/insert/theme/light").await.assert(200, "done");
    browser.get("/get/theme").await.assert(200, "light");
}

/// The test runs itself in a second process, because it cannot safely set a variable in this one.
#[cfg(unix)]
#[test]
fn a_key_that_is_not_text_is_not_shown() {
    use std::os::unix::ffi::OsStrExt;

    const VARIABLE: &str = "CLOAKROOM_TEST_KEY";
    if std::env::var_os(VARIABLE).is_some() {
        let error = SigningKeys::from_env(VARIABLE).unwrap_err();
        let shown = format!("{error} {error:?} {:?}", error.source());
        assert!(
            error.to_string().contains("not text") && !shown.contains("abcdef"),
            "{shown}"
        );
        return;
    }
    let output = one_test(module_path!(), "a_key_that_is_not_text_is_not_shown")
        .env(VARIABLE, std::ffi::OsStr::from_bytes(b"abcdef\xff"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && told.contains("1 passed"),
        "{told}"
    );
}

#[tokio::test]
async fn a_clock_can_be_shared() {
    let clock: Arc<dyn Clock> = Arc::new(TestClock::new());
    let layer = builder(MemoryStore::new()).clock(clock.clone()).build();
    let app = support::app(layer.unwrap());
    let reply = support::Browser::new(&app).get("/insert/theme/dark").await;
    reply.assert(200, "done");
}

/// Such a cookie exists only for frames. But with these settings, browsers do not send it to a
/// frame.
#[test]
fn a_partitioned_cookie_is_refused_unless_same_site_is_none() {
    for same_site in [SameSite::Lax, SameSite::Strict] {
        let error = refused("partitioned", |layer| {
            layer.same_site(same_site).partitioned(true)
        });
        assert!(error.contains("SameSite=None"), "{error}");
    }
    refused("partitioned", |layer| layer.partitioned(true));
    accepted(|layer| layer.partitioned(false));
}

#[test]
fn a_realm_is_a_short_name_without_a_colon() {
    for realm in ["people", "a", "shop.example/customers", &*"r".repeat(64)] {
        accepted(|layer| layer.realm(realm));
    }
    for realm in ["", "a:b", "a b", "a\"", "é", "a\0", &*"r".repeat(65)] {
        refused("realm", |layer| layer.realm(realm));
    }
}
