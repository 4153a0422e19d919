//! The document with the public keys: what a gateway publishes, and what a service reads.

use axum::Router;
use axum::routing::get;
use cloakroom::assertion::{AssertionKey, AssertionKeys, Jwks, JwksRoute};
use serde_json::{Value, json};
use support::base64::encode;
use support::device::Device;
use support::{request, send};

use super::parties::{KID, jwks};

#[tokio::test]
async fn the_route_publishes_the_public_halves_as_they_are_now() {
    let key = AssertionKey::generate().unwrap();
    let keys = AssertionKeys::new(key.clone());
    let app = Router::new().route(JwksRoute::PATH, get(keys.jwks_route()));
    let reply = send(&app, request("/.well-known/jwks.json")).await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.header("content-type"),
        Some("application/jwk-set+json")
    );
    assert_eq!(reply.header("cache-control"), Some("public, max-age=300"));
    let document: Value = serde_json::from_str(&reply.body).unwrap();
    let jwk = &document["keys"][0];
    assert_eq!(
        document,
        json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "x": jwk["x"], "y": jwk["y"],
            "kid": key.kid(), "alg": "ES256", "use": "sig",
        }] })
    );
    for coordinate in ["x", "y"] {
        assert_eq!(jwk[coordinate].as_str().unwrap().len(), 43);
    }

    let next = AssertionKey::generate().unwrap();
    keys.replace(&AssertionKeys::new(key).also_publish(next));
    let reply = send(&app, request("/.well-known/jwks.json")).await;
    let document: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(document["keys"].as_array().unwrap().len(), 2);
    assert_eq!(Jwks::parse(&reply.body).unwrap(), keys.jwks());
    let response: http::Response<String> = keys.jwks_route().to_response();
    assert_eq!(*response.body(), reply.body);
}

/// The key of RFC 8037, appendix A.
const ED25519: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

fn good() -> Value {
    let mut jwk = Device::es256(1).jwk();
    jwk["kid"] = KID.into();
    jwk
}

fn with(name: &str, value: Value) -> Value {
    super::parties::changed(good(), name, value)
}

fn parse(keys: &[Value]) -> Result<Jwks, String> {
    Jwks::parse(json!({ "keys": keys }).to_string()).map_err(|error| error.to_string())
}

#[test]
fn a_key_that_verifies_no_assertion_is_left_out() {
    let only = parse(&[good()]).unwrap();
    let [x, y] = [&good()["x"], &good()["y"]].map(|text| text.as_str().unwrap().to_owned());
    for other in [
        Device::rs256().jwk(),
        json!({ "kty": "OKP", "crv": "X25519", "x": ED25519, "kid": "ed" }),
        json!({ "kty": "EC", "crv": "Ed25519", "x": ED25519, "kid": "ed" }),
        json!({ "kty": "OKP", "crv": "Ed25519", "x": &ED25519[..42], "kid": "ed" }),
        json!({ "kty": "OKP", "crv": "Ed25519", "x": ED25519, "alg": "ES256", "kid": "ed" }),
        // Anybody can sign for these points.
        json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(&[0; 32]), "kid": "ed" }),
        json!({ "kty": "OKP", "crv": "Ed25519", "x": format!("AQ{}", "A".repeat(41)), "kid": "ed" }),
        json!({ "kty": "oct", "k": x, "kid": "mac" }),
        json!({ "kty": "EC", "crv": "P-256", "x": x, "kid": "half" }),
        json!({}),
        with("kid", Value::Null),
        with("kid", json!("")),
        with("kid", json!(1)),
        with("kty", json!("ec")),
        with("crv", json!("P-384")),
        with("crv", json!("secp256k1")),
        with("x", json!(y)),
        with("x", json!(format!("{x}="))),
        with("x", json!(format!("AA{x}"))),
        with("y", json!("")),
        with("use", json!("enc")),
        with("alg", json!("ECDH-ES")),
        with("alg", json!("ES384")),
        with("key_ops", json!(["sign"])),
        with("key_ops", json!([])),
        with("key_ops", json!("verify")),
        // A private key that is published is nobody's.
        with("d", json!(x)),
    ] {
        let mut named = other.clone();
        if named["kid"] == KID {
            named["kid"] = "other".into();
        }
        assert_eq!(
            parse(&[named.clone(), good()]).as_ref(),
            Ok(&only),
            "{named}"
        );
        let error = parse(&[other]).unwrap_err();
        assert_eq!(error, "the JWKS has no key of ES256 or EdDSA with a `kid`");
    }
    for same in [
        with("use", json!("sig")),
        with("alg", json!("ES256")),
        with("key_ops", json!(["verify"])),
        with("key_ops", json!(["sign", "verify"])),
        with("x5t", json!("anything")),
    ] {
        assert_eq!(parse(&[same]).as_ref(), Ok(&only));
    }
}

#[test]
fn keys_of_both_types_are_read_and_written_again() {
    let ed25519 = json!({ "kty": "OKP", "crv": "Ed25519", "x": ED25519, "kid": "ed" });
    let keys = parse(&[good(), ed25519.clone()]).unwrap();
    assert_eq!(Jwks::parse(keys.to_string()).unwrap(), keys);
    let document: Value = serde_json::from_str(&keys.to_string()).unwrap();
    let written = super::parties::changed(ed25519, "alg", "EdDSA".into());
    let written = super::parties::changed(written, "use", "sig".into());
    assert_eq!(document["keys"][1], written);
}

#[test]
fn a_document_that_two_readers_may_read_differently_is_refused() {
    let jwk = good().to_string();
    let twice = "the JWKS is not a JSON object, or names something twice";
    for (document, why) in [
        (
            jwks(&[(KID, Device::es256(1).jwk()), (KID, Device::es256(2).jwk())]),
            "two keys of the JWKS have the same `kid`",
        ),
        (format!(r#"{{"keys":[{jwk}],"keys":[{jwk}]}}"#), twice),
        (
            format!(
                r#"{{"keys":[{}]}}"#,
                jwk.replacen('{', r#"{"kid":"key 2","#, 1)
            ),
            twice,
        ),
        (String::new(), twice),
        ("[]".to_owned(), twice),
        (format!("[{jwk}]"), twice),
        (jwk.clone(), "the JWKS has no list `keys`"),
        (
            format!(r#"{{"keys":{jwk}}}"#),
            "the JWKS has no list `keys`",
        ),
        (
            r#"{"keys":["a"]}"#.to_owned(),
            "a key of the JWKS is not a JSON object",
        ),
        (
            r#"{"keys":[]}"#.to_owned(),
            "the JWKS has no key of ES256 or EdDSA with a `kid`",
        ),
        (
            format!(r#"{{"keys":[{jwk}]}}{}"#, " ".repeat(65_536)),
            "the JWKS has more than 64 KiB",
        ),
    ] {
        let error = Jwks::parse(&document).unwrap_err();
        assert_eq!(error.to_string(), why, "{document}");
    }
}

#[test]
fn a_name_that_another_issuer_chose_stays_as_it_is() {
    let keys = parse(&[with("kid", json!("a \"name\"\\\u{1}"))]).unwrap();
    assert_eq!(Jwks::parse(keys.to_string()).unwrap(), keys);
    assert_ne!(keys, parse(&[good()]).unwrap());
}
