//! The keys of a gateway: where they come from, what nobody sees of them, and how they rotate.

use std::error::Error as _;

use cloakroom::ConfigError;
use cloakroom::assertion::{AssertionKey, AssertionKeys, AssertionVerifier};
use sha2::{Digest, Sha256};
use support::base64::encode;

use super::parties::{Gateway, ISSUER, assert_refused, minute, parts};

/// `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`
const PEM: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgWFaqrl6SAICEIUfW
FJg/m+L8RdA5UvPX3H2FF/CRJ/ihRANCAAQ/n85O9RElsIYu2099ibUDQrFPer0q
KIqaxos9WRa0H/fjNVzXc7Bu9vxEjL9kga4jTlm34R4IUE8roSyUQ+ym
-----END PRIVATE KEY-----
";

/// `openssl ecparam -name prime256v1 -genkey -noout`
const SEC1: &str = "-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIAmt2xXYb1mjHvkQm7uL8HzmP0W1mRWCZU/I3zff4X4UoAoGCCqGSM49
AwEHoUQDQgAE4vClXYNS5Kts7oklBtZyQZuCJfhplRqIjzXjijyRsHDGfYMiglYp
rP9JachrxbLD03ilhWw1mCdWEcEjujCerQ==
-----END EC PRIVATE KEY-----
";

/// `openssl genpkey -algorithm ED25519`
const ED25519: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIPrrR8P7E6r/5HPpDfdq9uYjcs6v+mRaJkuWaAlk6e7/
-----END PRIVATE KEY-----
";

/// `openssl genpkey -algorithm X25519`
const X25519: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VuBCIEIPrrR8P7E6r/5HPpDfdq9uYjcs6v+mRaJkuWaAlk6e7/
-----END PRIVATE KEY-----
";

const P384: &str = "-----BEGIN PRIVATE KEY-----
MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDBL8fSPaKB+Bh0GQr0N
2C63Du6tX0J21HDAAh9tl33M2EhEoZtfbXGueS08AXX18o+hZANiAAQhVDzyJUq1
hqE6BcqCVQL4H42TLQ3fjW/m9THUnEaODBU4Q4epOrKU0lD4hwm6mivoerscVHE1
N+PnjJQawPOesAalGZrbF3qbvSG/EEqVqXFpl0zSiIFksZfITKiazw0=
-----END PRIVATE KEY-----
";

fn new_key() -> AssertionKey {
    AssertionKey::generate().unwrap()
}

fn kids(keys: &AssertionKeys) -> Vec<String> {
    let jwks: serde_json::Value = serde_json::from_str(&keys.jwks().to_string()).unwrap();
    let kid = |jwk: &serde_json::Value| jwk["kid"].as_str().unwrap().to_owned();
    jwks["keys"].as_array().unwrap().iter().map(kid).collect()
}

#[test]
fn a_key_of_openssl_is_read_and_its_name_is_its_thumbprint() {
    let key: AssertionKey = PEM.parse().unwrap();
    // The point is the end of the key: an uncompressed one.
    let keys = AssertionKeys::new(key.clone());
    let jwks: serde_json::Value = serde_json::from_str(&keys.jwks().to_string()).unwrap();
    let jwk = &jwks["keys"][0];
    let x = [
        0x3f, 0x9f, 0xce, 0x4e, 0xf5, 0x11, 0x25, 0xb0, 0x86, 0x2e, 0xdb, 0x4f, 0x7d, 0x89, 0xb5,
        0x03, 0x42, 0xb1, 0x4f, 0x7a, 0xbd, 0x2a, 0x28, 0x8a, 0x9a, 0xc6, 0x8b, 0x3d, 0x59, 0x16,
        0xb4, 0x1f,
    ];
    assert_eq!(jwk["x"], encode(&x));
    let (x, y) = (jwk["x"].as_str().unwrap(), jwk["y"].as_str().unwrap());
    let thumbprint = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    assert_eq!(key.kid(), encode(&Sha256::digest(thumbprint)));
    assert_eq!(key.to_pem().unwrap(), PEM);
}

#[test]
fn a_key_of_ed25519_is_read_and_its_name_is_that_of_rfc_8037() {
    // The example of RFC 8037, appendix A, behind the prefix of PKCS#8.
    let pem = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
";
    let key = AssertionKey::from_pem(pem).unwrap();
    assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    assert_eq!(key.to_pem().unwrap(), pem);
    let openssl = AssertionKey::from_pem(ED25519).unwrap();
    assert_eq!(openssl.to_pem().unwrap(), ED25519);
    assert_eq!(
        kids(&AssertionKeys::from_pem(&format!("{ED25519}{PEM}")).unwrap()).len(),
        2
    );
}

/// From one type of key to the other, as from one key to the next.
#[tokio::test]
async fn a_key_of_either_type_signs_and_names_its_algorithm() {
    let gateway = Gateway::new();
    let mut browser = gateway.logged_in().await;
    let keys = [new_key(), AssertionKey::generate_ed25519().unwrap()];
    for (key, other, algorithm) in [(&keys[0], &keys[1], "ES256"), (&keys[1], &keys[0], "EdDSA")] {
        let set = AssertionKeys::new(key.clone()).also_publish(other.clone());
        gateway.keys.replace(&set);
        let token = minute(&mut browser).await;
        assert_eq!(parts(&token)[0]["alg"], algorithm);
        assert_eq!(parts(&token)[0]["kid"], key.kid());
        let asserted = gateway.verifier().verify(&token).await.unwrap();
        assert_eq!(asserted.user().as_str(), "ada");
    }
}

#[test]
fn a_key_survives_its_pem_and_two_keys_differ() {
    let (one, two) = (new_key(), new_key());
    let again = AssertionKey::from_pem(&one.to_pem().unwrap()).unwrap();
    assert_eq!(again.kid(), one.kid());
    assert_ne!(one.kid(), two.kid());
}

#[test]
fn several_keys_are_read_and_the_first_one_signs() {
    let pems: Vec<_> = (0..3).map(|_| new_key().to_pem().unwrap()).collect();
    let text = format!("# the new one\n{}\n{}\r\n{}", pems[0], pems[1], pems[2]);
    let keys = AssertionKeys::from_pem(&text).unwrap();
    let kid = |pem: &String| AssertionKey::from_pem(pem).unwrap().kid().to_owned();
    assert_eq!(kids(&keys), pems.iter().map(kid).collect::<Vec<_>>());
    assert!(format!("{keys:?}").contains(&format!("signing: {:?}", kid(&pems[0]))));
    // A key that is there twice is published once.
    let twice = AssertionKeys::from_pem(&format!("{PEM}{PEM}")).unwrap();
    assert_eq!(kids(&twice).len(), 1);
    assert!(AssertionKey::from_pem(&text).is_err());
}

#[test]
fn keys_come_from_a_file_and_from_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.pem");
    std::fs::write(&path, PEM).unwrap();
    let kid = AssertionKey::from_pem(PEM).unwrap().kid().to_owned();
    assert_eq!(kids(&AssertionKeys::from_file(&path).unwrap()), [&*kid]);

    let missing = AssertionKeys::from_file(directory.path().join("missing.pem")).unwrap_err();
    assert!(missing.to_string().contains("openssl genpkey"), "{missing}");
    assert!(missing.source().is_some());
    let error = AssertionKeys::from_env("CLOAKROOM_NO_SUCH_VARIABLE").unwrap_err();
    assert_eq!(error.setting(), "keys");
    assert!(error.to_string().contains("openssl genpkey"), "{error}");
    // Cargo sets this variable for each test. It is no key.
    let error = AssertionKeys::from_env("CARGO_MANIFEST_DIR").unwrap_err();
    assert!(error.to_string().contains("holds no key"), "{error}");
}

#[test]
fn a_bad_key_is_refused_and_the_error_shows_nothing_of_it() {
    let check = |pem: &str, error: &ConfigError, what: &str| {
        let mut shown = format!("{error} {error:?}");
        let mut source = error.source();
        while let Some(cause) = source {
            shown += &format!("{cause} {cause:?}");
            source = cause.source();
        }
        assert!(shown.contains(what), "{shown}");
        for line in pem.lines().filter(|line| !line.starts_with("--")) {
            assert!(line.len() < 8 || !shown.contains(&line[..8]), "{shown}");
        }
    };
    let not_p256 = "not one of P-256 or Ed25519 in PKCS#8; make a key with `openssl genpkey";
    let cut = &PEM[..PEM.len() - 60];
    let endless = &PEM[..PEM.len() - 27];
    let changed = PEM.replacen("WFaqrl6", "WFaqrl!", 1);
    let zero = PEM.replacen("WFaqrl6SAICEIUfW", "AAAAAAAAAAAAAAAA", 1);
    for (pem, what) in [
        (
            "",
            "the text holds no key; make a key with `openssl genpkey",
        ),
        ("correct horse battery staple", "holds no key"),
        (SEC1, "`openssl pkcs8 -topk8 -nocrypt` converts"),
        (X25519, not_p256),
        (P384, not_p256),
        (cut, not_p256),
        (endless, not_p256),
        (&*changed, not_p256),
        // The public half is not that of the private one.
        (&*zero, not_p256),
        ("-----BEGIN CERTIFICATE-----", "something else than keys"),
        ("-----BEGIN PRIVATE KEY-----", not_p256),
    ] {
        check(pem, &AssertionKey::from_pem(pem).unwrap_err(), what);
        check(pem, &AssertionKeys::from_pem(pem).unwrap_err(), what);
        let second = format!("{PEM}{pem}");
        if !pem.contains("BEGIN") {
            continue;
        }
        check(pem, &AssertionKeys::from_pem(&second).unwrap_err(), what);
    }
}

#[test]
fn debug_shows_names_and_no_key() {
    let key = AssertionKey::from_pem(PEM).unwrap();
    assert_eq!(format!("{key:?}"), format!("AssertionKey({})", key.kid()));
    let keys = AssertionKeys::new(key.clone()).also_publish(new_key());
    let verifier = AssertionVerifier::new(ISSUER, "orders", keys.jwks());
    let shown = format!(
        "{keys:?} {verifier:?} {:?} {:?}",
        keys.jwks(),
        keys.jwks_route()
    );
    // The private number, as hexadecimal digits and as a list of bytes, begins so.
    for secret in ["5856aa", "88, 86, 170", "WFaqrl"] {
        assert!(!shown.contains(secret), "{shown}");
        assert!(!keys.jwks().to_string().contains(secret));
    }
    assert!(shown.contains(key.kid()));
}

/// The steps of a rotation. At each of them, the services know every key that signs.
#[tokio::test]
async fn keys_rotate_in_three_steps_and_no_assertion_is_refused_before_the_last() {
    let gateway = Gateway::new();
    let mut browser = gateway.logged_in().await;
    let old = new_key();
    let new = new_key();
    let good = async |token: &str| gateway.verifier().verify(token).await.is_ok();
    let kid = |token: &str| parts(token)[0]["kid"].as_str().unwrap().to_owned();

    gateway.keys.replace(&AssertionKeys::new(old.clone()));
    let first = minute(&mut browser).await;
    assert_eq!(kid(&first), old.kid());

    // The new key is published, and the old one signs.
    let published = AssertionKeys::new(old.clone()).also_publish(new.clone());
    gateway.keys.replace(&published);
    let second = minute(&mut browser).await;
    assert_eq!(kid(&second), old.kid());
    assert!(good(&first).await && good(&second).await);

    // The new key signs, and the old one is published.
    let signing = AssertionKeys::new(new.clone()).also_publish(old.clone());
    gateway.keys.replace(&signing);
    let third = minute(&mut browser).await;
    assert_eq!(kid(&third), new.kid());
    assert!(good(&first).await && good(&second).await && good(&third).await);

    // The old key is retired.
    gateway.keys.replace(&AssertionKeys::new(new));
    assert!(good(&third).await);
    let error = gateway.verifier().verify(&second).await.unwrap_err();
    let reason = "the issuer does not publish the key of the assertion";
    assert_refused(&error, &second, reason);
}

#[test]
fn replaced_keys_reach_all_clones_and_further_keys_make_a_handle_of_their_own() {
    let (one, two) = (new_key(), new_key());
    let keys = AssertionKeys::new(one.clone());
    let clone = keys.clone();
    let longer = keys.clone().also_publish(two.clone());
    assert_eq!(kids(&clone), [one.kid()]);
    assert_eq!(kids(&longer), [one.kid(), two.kid()]);
    keys.replace(&AssertionKeys::from(two.clone()));
    assert_eq!(kids(&clone), [two.kid()]);
    assert_eq!(kids(&longer), [one.kid(), two.kid()]);
    // Even with itself.
    keys.replace(&clone);
    assert_eq!(kids(&keys), [two.kid()]);
}
