//! A hostile client of a service. Each test makes one thing wrong, and the service says what.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use support::base64::{decode, encode};
use support::device::Device;
use support::{Browser, builder, routes};

use super::parties::{
    Gateway, HOUR, KID, MINUTE, SECOND, Service, assert_refused, changed, minute,
};
use cloakroom::assertion::{AssertionKey, AssertionVerifier, Jwks};
use cloakroom::{MemoryStore, Transport};

const SHAPE: &str = "the assertion is not three parts of a JWT";
const BASE64: &str = "a part of the assertion is not base64url";
const JSON: &str = "a part of the assertion is not a JSON object, or names something twice";
const TYPE: &str = "the type of the token is not assertion+jwt";
const CRITICAL: &str = "the assertion has an extension that must be understood";
const HEADER: &str = "the header of the assertion has more than typ, alg and kid";
const ALGORITHM: &str = "the algorithm of the assertion is neither ES256 nor EdDSA";
const OTHER_ALGORITHM: &str = "the algorithm of the assertion is not that of its key";
const NO_KID: &str = "the assertion does not name its key";
const KEY: &str = "the issuer does not publish the key of the assertion";
const SIGNATURE: &str = "the signature is wrong";
const ISSUER: &str = "the assertion is of another issuer";
const AUDIENCE: &str = "the assertion is for another audience";
const CLAIMS: &str = "a claim of the assertion is missing or malformed";
const EXPIRED: &str = "the assertion has expired";
const FUTURE: &str = "the assertion was issued in the future";
const NOT_YET: &str = "the assertion is not good yet";
const TOO_LONG_LIVED: &str = "the assertion is good for longer than the service allows";
const TOO_LONG: &str = "the assertion is too long";

#[tokio::test]
async fn alg_none_is_refused_with_and_without_a_signature() {
    let service = Service::new();
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let signed = service.with_header("alg", none.into());
        let (unsigned, _) = signed.rsplit_once('.').unwrap();
        service.assert_refused(&signed, ALGORITHM).await;
        service
            .assert_refused(&format!("{unsigned}."), ALGORITHM)
            .await;
        service.assert_refused(unsigned, SHAPE).await;
    }
    let good = service.good();
    let (unsigned, _) = good.rsplit_once('.').unwrap();
    service
        .assert_refused(&format!("{unsigned}."), SIGNATURE)
        .await;
    let without = service.with_header("alg", Value::Null);
    service.assert_refused(&without, ALGORITHM).await;
}

#[tokio::test]
async fn hs256_with_the_public_key_as_the_secret_is_refused() {
    let service = Service::new();
    let jwk = service.issuer.jwk();
    let point = [
        vec![4],
        decode(jwk["x"].as_str().unwrap()),
        decode(jwk["y"].as_str().unwrap()),
    ]
    .concat();
    for secret in [&*point, jwk.to_string().as_bytes(), b""] {
        for algorithm in ["HS256", "ES256"] {
            let header = changed(Service::header(), "alg", algorithm.into());
            let header = encode(header.to_string().as_bytes());
            let claims = encode(service.claims().to_string().as_bytes());
            let signed = format!("{header}.{claims}");
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
            mac.update(signed.as_bytes());
            let mac = encode(&mac.finalize().into_bytes());
            let reason = if algorithm == "ES256" {
                SIGNATURE
            } else {
                ALGORITHM
            };
            service
                .assert_refused(&format!("{signed}.{mac}"), reason)
                .await;
        }
    }
}

#[tokio::test]
async fn an_algorithm_of_another_key_type_is_refused() {
    let service = Service::new();
    for other in [
        "RS256", "PS256", "ES384", "ES512", "ES256K", "Ed25519", "Ed448", "HS512", "es256",
        "eddsa", " ES256",
    ] {
        let token = service.with_header("alg", other.into());
        service.assert_refused(&token, ALGORITHM).await;
    }
    // A good algorithm for a key of the other type, with the signature of either.
    let token = service.with_header("alg", "EdDSA".into());
    service.assert_refused(&token, OTHER_ALGORITHM).await;
    let gateway = Gateway::new();
    gateway
        .keys
        .replace(&AssertionKey::generate_ed25519().unwrap().into());
    let token = gateway.assertion().await;
    assert!(gateway.verifier().verify(&token).await.is_ok());
    let [header, _] = super::parties::parts(&token);
    let (_, claims) = token.split_once('.').unwrap();
    let changed = encode(
        changed(header, "alg", "ES256".into())
            .to_string()
            .as_bytes(),
    );
    let token = format!("{changed}.{claims}");
    let error = gateway.verifier().verify(&token).await.unwrap_err();
    assert_refused(&error, &token, OTHER_ALGORITHM);
    for other in [json!(["ES256"]), json!(256), json!({ "alg": "ES256" })] {
        let token = service.with_header("alg", other);
        service.assert_refused(&token, ALGORITHM).await;
    }
}

/// The issuer has a good RSA key as well, for something else.
#[tokio::test]
async fn a_published_key_of_rsa_verifies_nothing() {
    let (good, rsa) = (Device::es256(1), Device::rs256());
    let mut rsa_jwk = rsa.jwk();
    rsa_jwk["kid"] = "rsa".into();
    let mut good_jwk = good.jwk();
    good_jwk["kid"] = KID.into();
    let keys = Jwks::parse(json!({ "keys": [good_jwk, rsa_jwk] }).to_string()).unwrap();
    let service = Service::new();
    let verifier =
        AssertionVerifier::new("https://example.com", "orders", keys).clock(service.clock.clone());
    for (algorithm, reason) in [("RS256", ALGORITHM), ("ES256", KEY)] {
        let header = json!({ "typ": "assertion+jwt", "alg": algorithm, "kid": "rsa" });
        let token = rsa.token(&header.to_string(), &service.claims().to_string());
        let error = verifier.verify(&token).await.unwrap_err();
        assert_refused(&error, &token, reason);
    }
    assert!(verifier.verify(&service.good()).await.is_ok());
}

#[tokio::test]
async fn the_signature_of_another_key_is_refused() {
    let service = Service::new();
    let (header, claims) = (Service::header().to_string(), service.claims().to_string());
    // Another published key, and one of a stranger.
    for number in [2, 3] {
        let token = Device::es256(number).token(&header, &claims);
        service.assert_refused(&token, SIGNATURE).await;
    }
    let token = service.with_header("kid", "key 2".into());
    service.assert_refused(&token, SIGNATURE).await;
}

#[tokio::test]
async fn a_kid_that_nobody_published_is_refused() {
    let service = Service::new();
    for unknown in [
        "key 3",
        "",
        "KEY 1",
        "key 1 ",
        "../key 1",
        "key\u{0}1",
        "key 1\u{0}",
    ] {
        let token = service.with_header("kid", unknown.into());
        service.assert_refused(&token, KEY).await;
    }
    for none in [Value::Null, json!(1), json!([KID]), json!({ "kid": KID })] {
        let token = service.with_header("kid", none);
        service.assert_refused(&token, NO_KID).await;
    }
}

#[tokio::test]
async fn a_key_that_the_token_brings_or_points_to_is_refused() {
    let service = Service::new();
    let mut jwk = service.issuer.jwk();
    jwk["kid"] = KID.into();
    for (name, value) in [
        ("jwk", jwk),
        ("jku", json!("https://example.com/.well-known/jwks.json")),
        ("x5u", json!("https://example.com/certificate")),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("AAAA")),
        ("cty", json!("JWT")),
        ("zip", json!("DEF")),
    ] {
        let token = service.with_header(name, value);
        service.assert_refused(&token, HEADER).await;
    }
}

#[tokio::test]
async fn crit_is_refused_whatever_it_names() {
    let service = Service::new();
    for critical in [
        json!([]),
        json!(["b64"]),
        json!(["exp"]),
        json!("alg"),
        json!({}),
    ] {
        let token = service.with_header("crit", critical);
        service.assert_refused(&token, CRITICAL).await;
    }
    let header = json!({
        "typ": "assertion+jwt", "alg": "ES256", "kid": KID, "crit": ["b64"], "b64": false,
    });
    let token = service.signed(&header, &service.claims());
    service.assert_refused(&token, CRITICAL).await;
}

#[tokio::test]
async fn another_type_of_token_of_the_same_issuer_is_refused() {
    let service = Service::new();
    for other in [
        "JWT",
        "at+jwt",
        "dbsc+jwt",
        "logout+jwt",
        "Assertion+JWT",
        "",
    ] {
        let token = service.with_header("typ", other.into());
        service.assert_refused(&token, TYPE).await;
    }
    // An ID token has no type.
    let token = service.with_header("typ", Value::Null);
    service.assert_refused(&token, TYPE).await;
}

#[tokio::test]
async fn another_audience_is_refused() {
    let service = Service::new();
    for other in [
        json!("invoices"),
        json!(""),
        json!("Orders"),
        json!("orders "),
        json!("orders\u{0}"),
        json!("order"),
        json!("*"),
        // Whoever gets one of several could use it at the others.
        json!(["orders"]),
        json!(["orders", "invoices"]),
        json!({ "orders": true }),
        json!(true),
        Value::Null,
    ] {
        let token = service.with_claim("aud", other);
        service.assert_refused(&token, AUDIENCE).await;
    }
}

#[tokio::test]
async fn another_issuer_is_refused() {
    let service = Service::new();
    for other in [
        json!("https://example.org"),
        json!("https://example.com/"),
        json!("HTTPS://example.com"),
        json!("http://example.com"),
        json!(""),
        json!(["https://example.com"]),
        Value::Null,
    ] {
        let token = service.with_claim("iss", other);
        service.assert_refused(&token, ISSUER).await;
    }
}

#[tokio::test]
async fn an_old_assertion_is_refused_after_its_end_and_the_leeway() {
    let service = Service::new();
    let token = service.good();
    service.clock.advance(89 * SECOND);
    service.assert_good(&token).await;
    service.clock.advance(SECOND);
    service.assert_refused(&token, EXPIRED).await;
    service.clock.advance(24 * HOUR);
    service.assert_refused(&token, EXPIRED).await;

    let strict = service.verifier.clone().leeway(std::time::Duration::ZERO);
    let token = service.good();
    service.clock.advance(59 * SECOND);
    assert!(strict.verify(&token).await.is_ok());
    service.clock.advance(SECOND);
    let error = strict.verify(&token).await.unwrap_err();
    assert_refused(&error, &token, EXPIRED);
}

#[tokio::test]
async fn an_assertion_of_the_future_is_refused_beyond_the_leeway() {
    let service = Service::new();
    let at = |seconds: u64| {
        let claims = changed(service.claims(), "iat", (service.now() + seconds).into());
        let claims = changed(claims, "exp", (service.now() + seconds + 60).into());
        service.signed(&Service::header(), &claims)
    };
    service.assert_good(&at(30)).await;
    for seconds in [32, 3600, u64::from(u32::MAX)] {
        service.assert_refused(&at(seconds), FUTURE).await;
    }
    let later = |seconds: u64| service.with_claim("nbf", (service.now() + seconds).into());
    service.assert_good(&later(0)).await;
    service.assert_good(&later(30)).await;
    service.assert_refused(&later(32), NOT_YET).await;
    service
        .assert_refused(&later(u64::MAX - service.now()), NOT_YET)
        .await;
}

#[tokio::test]
async fn an_assertion_that_lasts_too_long_or_not_at_all_is_refused() {
    let service = Service::new();
    let until = |seconds: u64| service.with_claim("exp", (service.now() + seconds).into());
    service.assert_good(&until(3600)).await;
    for seconds in [3601, 24 * 3600, u64::MAX - service.now()] {
        service
            .assert_refused(&until(seconds), TOO_LONG_LIVED)
            .await;
    }
    service.assert_refused(&until(0), EXPIRED).await;
    service
        .assert_refused(&service.with_claim("exp", 0.into()), EXPIRED)
        .await;
    let long_ago = service.with_claim("iat", 0.into());
    service.assert_refused(&long_ago, TOO_LONG_LIVED).await;

    let strict = service.verifier.clone().max_ttl(MINUTE);
    assert!(strict.verify(&until(60)).await.is_ok());
    let token = until(61);
    let error = strict.verify(&token).await.unwrap_err();
    assert_refused(&error, &token, TOO_LONG_LIVED);
}

#[tokio::test]
async fn a_claim_that_is_missing_or_of_another_type_is_refused() {
    let service = Service::new();
    let now = service.now();
    let no_text = [
        Value::Null,
        json!(7),
        json!(["ada"]),
        json!({}),
        json!(true),
    ];
    for name in ["sub", "sid", "jti"] {
        for value in no_text.clone() {
            let token = service.with_claim(name, value);
            service.assert_refused(&token, CLAIMS).await;
        }
    }
    for name in ["iat", "exp", "auth_time"] {
        for value in [
            Value::Null,
            json!(now.to_string()),
            json!(now as f64 + 0.5),
            json!(-1),
            json!([now]),
            json!(true),
        ] {
            let token = service.with_claim(name, value);
            service.assert_refused(&token, CLAIMS).await;
        }
    }
    for (name, value) in [
        ("sub", json!("")),
        ("sub", json!("a\u{0}b")),
        ("sub", json!("a".repeat(256))),
        ("sid", json!("")),
        ("sid", json!("AAECAwQFBgcICQoLDA0OD")),
        ("sid", json!("AAECAwQFBgcICQoLDA0ODx")),
        ("jti", json!("")),
        ("nbf", json!("now")),
        ("acr", json!(2)),
        ("amr", json!("pwd")),
        ("amr", json!(["pwd", 2])),
        ("act", json!("bob")),
        ("act", json!(["bob"])),
        ("act", json!({})),
        ("act", json!({ "sub": "" })),
        ("act", json!({ "sub": 7 })),
    ] {
        let token = service.with_claim(name, value);
        service.assert_refused(&token, CLAIMS).await;
    }
    // What nobody has to say may be missing, and what nobody knows may be there.
    for name in ["acr", "amr", "act", "anything"] {
        service
            .assert_good(&service.with_claim(name, Value::Null))
            .await;
    }
    service
        .assert_good(&service.with_claim("anything", json!([1, { "a": 2.5 }])))
        .await;
}

#[tokio::test]
async fn a_name_that_comes_twice_is_refused_at_any_depth() {
    let service = Service::new();
    let (header, claims) = (Service::header().to_string(), service.claims().to_string());
    for twice in [
        r#""alg":"none""#,
        r#""alg":"ES256""#,
        r#""\u0061lg":"none""#,
        r#""kid":"key 2""#,
        r#""typ":"JWT""#,
    ] {
        for header in [
            header.replacen('{', &format!("{{{twice},"), 1),
            header.replacen('}', &format!(",{twice}}}"), 1),
        ] {
            let token = service.issuer.token(&header, &claims);
            service.assert_refused(&token, JSON).await;
        }
    }
    for twice in [
        r#""sub":"eve""#,
        r#""s\u0075b":"eve""#,
        r#""aud":"orders""#,
        r#""exp":99999999999"#,
        r#""act":{"sub":"eve"}"#,
        r#""other":{"a":1,"a":1}"#,
        r#""other":[{"a":1,"a":1}]"#,
    ] {
        for claims in [
            claims.replacen('{', &format!("{{{twice},"), 1),
            format!("{},{twice}}}", claims.strip_suffix('}').unwrap()),
        ] {
            let token = service.issuer.token(&header, &claims);
            service.assert_refused(&token, JSON).await;
        }
    }
}

#[tokio::test]
async fn an_assertion_that_is_too_long_is_refused() {
    let service = Service::new();
    let padded = |length| service.with_claim("other", "a".repeat(length).into());
    service.assert_good(&padded(4000)).await;
    for length in [6_000, 100_000] {
        service.assert_refused(&padded(length), TOO_LONG).await;
    }
    // What is deep is refused as well, and does not exhaust the stack.
    let deep = "[".repeat(5_000);
    let token = service
        .issuer
        .token(&Service::header().to_string(), &format!(r#"{{"a":{deep}"#));
    service.assert_refused(&token, JSON).await;
    let deep = deep.repeat(1000);
    service.assert_refused(&deep, TOO_LONG).await;
}

/// There is one way to write an assertion. So nobody can make two texts of one.
#[tokio::test]
async fn non_canonical_base64_is_refused() {
    let service = Service::new();
    let good = service.good();
    let parts: Vec<_> = good.split('.').collect();
    let mut checked = 0;
    for at in 0..3 {
        let part = parts[at];
        let with = |changed: &str| {
            let mut parts = parts.clone();
            parts[at] = changed;
            parts.join(".")
        };
        for changed in [
            format!("{part}="),
            format!("{part}=="),
            format!("{part}\u{e4}"),
            format!("{part}\0"),
            format!("{part}%3D"),
            part.replacen(&part[4..5], "+", 1),
            part.replacen(&part[4..5], "/", 1),
            format!("{} {}", &part[..4], &part[4..]),
            format!("{}\n{}", &part[..4], &part[4..]),
        ] {
            service.assert_refused(&with(&changed), BASE64).await;
        }
        // The last letter has bits that are left over, unless the length is a multiple of four.
        let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        if part.len() % 4 != 0 {
            let (rest, last) = part.split_at(part.len() - 1);
            let value = letters.find(last).unwrap();
            let next = &letters[value + 1..value + 2];
            service
                .assert_refused(&with(&format!("{rest}{next}")), BASE64)
                .await;
            checked += 1;
        }
    }
    assert!(checked > 0, "no part has bits that are left over");
}

#[tokio::test]
async fn another_shape_of_a_token_is_refused() {
    let service = Service::new();
    let good = service.good();
    let parts: Vec<_> = good.split('.').collect();
    let [header, claims, signature] = &*parts else {
        panic!("three parts")
    };
    for shape in [
        "",
        "a",
        *header,
        &format!("{header}.{claims}"),
        &format!("{good}."),
        &format!(".{good}"),
        &format!("{good}.{signature}"),
        // An encrypted one has five parts.
        &format!("{header}.{claims}.{signature}.{signature}.{signature}"),
    ] {
        service.assert_refused(shape, SHAPE).await;
    }
    // The JSON form of a JWS.
    let json = json!({ "payload": claims, "protected": header, "signature": signature });
    service.assert_refused(&json.to_string(), SHAPE).await;
    for shape in [
        "..".to_owned(),
        format!("{header}.."),
        format!("{header}..{signature}"),
        format!("{header}.{}.{signature}", encode(b"[]")),
        format!("{header}.{}.{signature}", encode(b"null")),
        format!("{header}.{}.{signature}", encode(b"{} {}")),
        format!("{}.{claims}.{signature}", encode(b"\"ES256\"")),
        format!("{}.{claims}.{signature}", encode(b"\xff\xff")),
    ] {
        service.assert_refused(&shape, JSON).await;
    }
}

#[tokio::test]
async fn any_changed_part_is_refused() {
    let service = Service::new();
    let good = service.good();
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let bytes = decode(signature);
    for at in [0, 1, 31, 32, 63] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let token = format!("{signed}.{}", encode(&changed));
        service.assert_refused(&token, SIGNATURE).await;
    }
    // The halves may not be zero (CVE-2022-21449), and the encoding is not DER.
    let mut der = vec![0x30, 68, 2, 32];
    der.extend(&bytes[..32]);
    der.extend([2, 32]);
    der.extend(&bytes[32..]);
    for other in [
        vec![0; 64],
        vec![0xff; 64],
        vec![],
        bytes[..63].to_vec(),
        [&*bytes, &[0]].concat(),
        der,
    ] {
        let token = format!("{signed}.{}", encode(&other));
        service.assert_refused(&token, SIGNATURE).await;
    }
    // The signature of another assertion of the same key.
    let other = service.with_claim("sub", "eve".into());
    let (_, signature) = other.rsplit_once('.').unwrap();
    service
        .assert_refused(&format!("{signed}.{signature}"), SIGNATURE)
        .await;
    // The same JSON in another form.
    let claims = encode(format!("{} ", service.claims()).as_bytes());
    let (header, _) = signed.split_once('.').unwrap();
    let (_, signature) = good.rsplit_once('.').unwrap();
    service
        .assert_refused(&format!("{header}.{claims}.{signature}"), SIGNATURE)
        .await;
}

/// EdDSA has one signature of a message and a key.
#[tokio::test]
async fn any_changed_part_of_an_assertion_of_ed25519_is_refused() {
    let gateway = Gateway::new();
    gateway
        .keys
        .replace(&AssertionKey::generate_ed25519().unwrap().into());
    let good = gateway.assertion().await;
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let bytes = decode(signature);
    let mut others = vec![vec![0; 64], vec![0xff; 64], vec![], bytes[..63].to_vec()];
    for at in [0, 31, 32, 63] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        others.push(changed);
    }
    // The same number, plus the order of the group.
    const ORDER: [u8; 16] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14,
    ];
    let mut malleable = bytes.clone();
    let mut carry = 0;
    for (at, byte) in malleable[32..].iter_mut().enumerate() {
        let order = ORDER
            .get(at)
            .copied()
            .unwrap_or(if at == 31 { 0x10 } else { 0 });
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    others.push(malleable);
    let verifier = gateway.verifier();
    for other in others {
        let token = format!("{signed}.{}", encode(&other));
        let error = verifier.verify(&token).await.unwrap_err();
        assert_refused(&error, &token, SIGNATURE);
    }
    assert!(verifier.verify(&good).await.is_ok());
}

/// An assertion is good for whoever has it, until it ends. A service that must not do anything
/// twice keeps the ids.
#[tokio::test]
async fn a_replayed_assertion_is_good_until_it_ends_and_its_jti_tells() {
    let gateway = Gateway::new();
    let verifier = gateway.verifier();
    let mut seen = std::collections::HashMap::new();
    let mut browser = gateway.logged_in().await;
    let first = minute(&mut browser).await;
    let second = minute(&mut browser).await;
    let mut is_new = async |token: &str| {
        let asserted = verifier.verify(token).await.unwrap();
        seen.insert(asserted.jti().to_owned(), asserted.expires_at())
            .is_none()
    };
    assert!(is_new(&first).await);
    assert!(!is_new(&first).await, "the same assertion again");
    assert!(is_new(&second).await);
    assert!(!is_new(&second).await);
    gateway.clock.advance(MINUTE + 30 * SECOND);
    let error = verifier.verify(&first).await.unwrap_err();
    assert_refused(&error, &first, EXPIRED);
}

/// Nobody gets from one kind of token to the other.
#[tokio::test]
async fn a_session_token_is_no_assertion_and_an_assertion_is_no_session_token() {
    let gateway = Gateway::new();
    let mut browser = gateway.logged_in().await;
    let token = browser.token();
    let error = gateway.verifier().verify(&token).await.unwrap_err();
    assert_refused(&error, &token, SHAPE);

    let assertion = minute(&mut browser).await;
    let layer = builder(MemoryStore::new())
        .transport(Transport::Bearer)
        .build()
        .unwrap();
    let app = routes().layer(layer);
    let bearer = format!("Bearer {assertion}");
    let reply = Browser::new(&app)
        .get_with("/user", &[("authorization", &bearer)])
        .await;
    assert_eq!(reply.status, 401);
    let cookie = format!("__Host-session={assertion}");
    let reply = Browser::new(&gateway.app)
        .get_with("/user", &[("cookie", &cookie)])
        .await;
    assert_eq!(reply.status, 401);
}

/// A service cannot use what it gets at another one.
#[tokio::test]
async fn an_assertion_for_one_service_is_refused_by_another() {
    let gateway = Gateway::new();
    let token = gateway.assertion().await;
    let keys = gateway.keys.jwks();
    let clock = gateway.clock.clone();
    let invoices = AssertionVerifier::new("https://example.com", "invoices", keys.clone());
    let error = invoices
        .clock(clock.clone())
        .verify(&token)
        .await
        .unwrap_err();
    assert_refused(&error, &token, AUDIENCE);
    let other = AssertionVerifier::new("https://example.org", "orders", keys.clone());
    let error = other.clock(clock.clone()).verify(&token).await.unwrap_err();
    assert_refused(&error, &token, ISSUER);
    assert!(gateway.verifier().verify(&token).await.is_ok());
}

#[tokio::test]
async fn a_service_that_names_no_issuer_or_no_audience_accepts_nothing() {
    let service = Service::new();
    let keys = Jwks::parse(super::parties::jwks(&[(KID, service.issuer.jwk())])).unwrap();
    for (issuer, audience, reason) in [
        ("", "orders", ISSUER),
        ("https://example.com", "", AUDIENCE),
    ] {
        let claims = changed(service.claims(), "iss", issuer.into());
        let token = service.signed(&Service::header(), &changed(claims, "aud", audience.into()));
        let verifier = AssertionVerifier::new(issuer, audience, keys.clone());
        let verifier = verifier.clock(service.clock.clone());
        let error = verifier.verify(&token).await.unwrap_err();
        assert_refused(&error, &token, reason);
    }
}
