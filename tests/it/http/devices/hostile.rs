//! A hostile client at the two paths. Each attempt is refused, writes nothing, gets no cookie, and
//! leaves an event that says why.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use support::base64::{decode, encode};

use super::*;

/// What a site looks like before an attack.
struct Victim {
    site: Site,
    browser: Browser,
    id: RecordId,
    version: u64,
    /// The challenge that the attack may answer.
    challenge: String,
    device: Device,
}

impl Victim {
    /// A user has logged in, and the browser has not registered a key yet.
    async fn logged_in() -> Self {
        let site = site();
        let mut browser = site.browser();
        let challenge = browser.log_in("ada").await;
        Self::new(site, browser, challenge).await
    }

    /// The session is bound, and the browser wants to renew its cookie.
    async fn bound() -> Self {
        let site = site();
        let mut browser = site.browser();
        let id = browser.bind("ada", &Device::es256(1)).await;
        site.clock.advance(COOKIE_LIFETIME);
        let challenge = browser.challenge(id).await;
        Self::new(site, browser, challenge).await
    }

    async fn new(site: Site, browser: Browser, challenge: String) -> Self {
        let id = browser.id();
        let version = site.version(id).await;
        site.heard();
        site.log.take();
        Self {
            site,
            browser,
            id,
            version,
            challenge,
            device: Device::es256(1),
        }
    }

    /// Checks that an attempt was refused, wrote nothing, and was reported once.
    async fn assert_refused(&self, reply: &Reply, reason: &str) {
        assert_eq!(reply.status, 403, "{reason}: {reply:?}");
        assert_eq!(reply.body, "");
        reply.assert_no_cookie();
        assert_eq!(self.site.version(self.id).await, self.version, "{reason}");
        assert_eq!(self.site.heard(), Vec::<String>::new(), "{reason}");
        self.site.assert_rejected(reason);
    }

    async fn assert_registration_refused(&mut self, proof: &str, reason: &str) {
        let reply = self.browser.register(&format!("\"{proof}\"")).await;
        self.assert_refused(&reply, reason).await;
        assert_eq!(reply.header("secure-session-challenge"), None);
    }

    async fn assert_refresh_refused(&mut self, proof: &str, reason: &str) {
        let proof = format!("\"{proof}\"");
        let reply = self.browser.refresh(self.id, Some(&proof)).await;
        self.assert_refused(&reply, reason).await;
        // The browser itself may answer the next challenge.
        asked(&reply, self.id);
    }

    /// A registration with this header, signed by the device.
    fn registration(&self, header: &Value) -> String {
        let payload = json!({ "jti": self.challenge }).to_string();
        self.device.token(&header.to_string(), &payload)
    }

    /// Checks that the right proof still gets through, so that each attempt failed for its own
    /// fault.
    async fn assert_registration_works(mut self) {
        let proof = self.device.registration(&self.challenge);
        assert_eq!(self.browser.register(&proof).await.status, 200);
    }

    async fn assert_refresh_works(mut self) {
        let proof = self.device.refresh(&self.challenge);
        assert_eq!(
            self.browser.refresh(self.id, Some(&proof)).await.status,
            200
        );
    }
}

const FOREIGN: &str = "the challenge was not made for this session and use";
const OLD: &str = "the challenge is too old";
const USED: &str = "the challenge, or a newer one, was used before";
const SIGNATURE: &str = "the signature is wrong";
const ALGORITHM: &str = "the algorithm of the proof is neither ES256 nor RS256";
const BASE64: &str = "a part of the proof is not base64url";
const JSON: &str = "a part of the proof is not a JSON object, or names something twice";
const KEY: &str = "the key is malformed";
const SIZE: &str = "the RSA key has a size or an exponent that is not safe";

#[tokio::test]
async fn a_wrong_challenge_is_refused() {
    let mut victim = Victim::logged_in().await;
    let challenge = victim.challenge.clone();
    let changed = challenge.replace(&challenge[20..], "AAAAAAAAAAAAAAAAAAAAAAA");
    for wrong in [
        "",
        "C1",
        &changed,
        &format!("{challenge}="),
        &challenge[1..],
    ] {
        let proof = victim.device.registration(wrong);
        victim.assert_registration_refused(&proof, FOREIGN).await;
    }
    let none = victim.device.token(
        &json!({ "typ": "dbsc+jwt", "alg": "ES256", "jwk": victim.device.jwk() }).to_string(),
        &json!({ "jti": 1 }).to_string(),
    );
    victim
        .assert_registration_refused(&none, "the proof has no challenge")
        .await;
    victim.assert_registration_works().await;

    let mut victim = Victim::bound().await;
    let proof = victim.device.refresh(&changed);
    victim.assert_refresh_refused(&proof, FOREIGN).await;
    victim.assert_refresh_works().await;
}

#[tokio::test]
async fn an_old_challenge_is_refused() {
    let mut victim = Victim::logged_in().await;
    victim.site.clock.advance(Duration::from_secs(300));
    let proof = victim.device.registration(&victim.challenge);
    victim.assert_registration_refused(&proof, OLD).await;

    let mut victim = Victim::bound().await;
    victim.site.clock.advance(Duration::from_secs(300));
    let proof = victim.device.refresh(&victim.challenge);
    victim.assert_refresh_refused(&proof, OLD).await;
}

#[tokio::test]
async fn a_challenge_of_another_session_or_use_is_refused() {
    let mut victim = Victim::logged_in().await;
    let mut eve = victim.site.browser();
    let of_eve = eve.log_in("eve").await;
    victim.site.heard();
    let proof = victim.device.registration(&of_eve);
    victim.assert_registration_refused(&proof, FOREIGN).await;
    let registration = victim.challenge.clone();
    victim.assert_registration_works().await;

    let mut victim = Victim::bound().await;
    let mut eve = victim.site.browser();
    let id = eve.bind("eve", &Device::es256(2)).await;
    let of_eve = eve.challenge(id).await;
    victim.site.heard();
    for other in [registration, of_eve] {
        let proof = victim.device.refresh(&other);
        victim.assert_refresh_refused(&proof, FOREIGN).await;
    }
    victim.assert_refresh_works().await;
}

#[tokio::test]
async fn a_challenge_that_was_used_is_refused() {
    let mut victim = Victim::bound().await;
    let older = victim.browser.challenge(victim.id).await;
    victim.site.clock.advance(Duration::from_secs(1));
    let newer = victim.browser.challenge(victim.id).await;
    let proof = victim.device.refresh(&newer);
    assert_eq!(
        victim.browser.refresh(victim.id, Some(&proof)).await.status,
        200
    );
    victim.version += 1;
    for used in [newer, older] {
        let proof = victim.device.refresh(&used);
        victim.assert_refresh_refused(&proof, USED).await;
    }
}

#[tokio::test]
async fn the_proof_of_another_session_or_key_is_refused() {
    let mut victim = Victim::bound().await;
    let proof = Device::es256(2).refresh(&victim.challenge);
    victim.assert_refresh_refused(&proof, SIGNATURE).await;
    let proof = Device::rs256().refresh(&victim.challenge);
    let other = "the algorithm is not that of the session's key";
    victim.assert_refresh_refused(&proof, other).await;
    // The signature of one proof, and the rest of another.
    let good = victim.device.refresh(&victim.challenge);
    let (_, signature) = good.rsplit_once('.').unwrap();
    let mut eve = victim.site.browser();
    let id = eve.bind("eve", &Device::es256(2)).await;
    victim.site.heard();
    let of_eve = Device::es256(2).refresh(&eve.challenge(id).await);
    victim.assert_refresh_refused(&of_eve, FOREIGN).await;
    let header = json!({ "typ": "dbsc+jwt", "alg": "ES256", "x": 1 }).to_string();
    let changed = victim
        .device
        .token(&header, &json!({ "jti": victim.challenge }).to_string());
    let (signed, _) = changed.rsplit_once('.').unwrap();
    victim
        .assert_refresh_refused(&format!("{signed}.{signature}"), SIGNATURE)
        .await;
    victim.assert_refresh_works().await;

    let mut victim = Victim::logged_in().await;
    let proof = victim
        .device
        .registration_with(Device::es256(2).jwk(), &victim.challenge);
    victim.assert_registration_refused(&proof, SIGNATURE).await;
    victim.assert_registration_works().await;
}

#[tokio::test]
async fn no_algorithm_but_es256_and_rs256_is_accepted() {
    let mut victim = Victim::logged_in().await;
    let jwk = victim.device.jwk();
    for algorithm in [
        "none", "None", "HS256", "ES384", "RS512", "PS256", "es256", "EdDSA", "",
    ] {
        let header = json!({ "typ": "dbsc+jwt", "alg": algorithm, "jwk": jwk });
        let proof = victim.registration(&header);
        victim.assert_registration_refused(&proof, ALGORITHM).await;
    }
    for header in [
        json!({ "typ": "dbsc+jwt", "jwk": jwk }),
        json!({ "typ": "dbsc+jwt", "alg": ["ES256"], "jwk": jwk }),
    ] {
        let proof = victim.registration(&header);
        victim.assert_registration_refused(&proof, ALGORITHM).await;
    }
    victim.assert_registration_works().await;
}

#[tokio::test]
async fn alg_none_without_a_signature_is_refused() {
    let mut victim = Victim::bound().await;
    for algorithm in ["none", "ES256"] {
        let header = json!({ "typ": "dbsc+jwt", "alg": algorithm }).to_string();
        let payload = json!({ "jti": victim.challenge }).to_string();
        let proof = format!(
            "{}.{}.",
            encode(header.as_bytes()),
            encode(payload.as_bytes())
        );
        let reason = if algorithm == "none" {
            ALGORITHM
        } else {
            SIGNATURE
        };
        victim.assert_refresh_refused(&proof, reason).await;
    }
    victim.assert_refresh_works().await;
}

#[tokio::test]
async fn hs256_with_the_public_key_as_the_secret_is_refused() {
    let mut victim = Victim::bound().await;
    let jwk = victim.device.jwk();
    let x = decode(jwk["x"].as_str().unwrap());
    let y = decode(jwk["y"].as_str().unwrap());
    for secret in [
        jwk.to_string().into_bytes(),
        x.clone(),
        [&[4][..], &x, &y].concat(),
    ] {
        let header = json!({ "typ": "dbsc+jwt", "alg": "HS256" }).to_string();
        let payload = json!({ "jti": victim.challenge }).to_string();
        let signed = format!(
            "{}.{}",
            encode(header.as_bytes()),
            encode(payload.as_bytes())
        );
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret).unwrap();
        mac.update(signed.as_bytes());
        let proof = format!("{signed}.{}", encode(&mac.finalize().into_bytes()));
        victim.assert_refresh_refused(&proof, ALGORITHM).await;
    }
    victim.assert_refresh_works().await;
}

#[tokio::test]
async fn rsa_keys_of_an_unsafe_size_or_exponent_are_refused() {
    let mut victim = Victim::logged_in().await;
    let weak = Device::weak_rs256().registration(&victim.challenge);
    victim.assert_registration_refused(&weak, SIZE).await;
    let device = Device::rs256();
    let modulus = decode(device.jwk()["n"].as_str().unwrap());
    let odd = |bytes: usize| [&[0xff][..], &vec![1; bytes - 1]].concat();
    let mut even = modulus.clone();
    *even.last_mut().unwrap() &= 0xfe;
    let mut half_empty = modulus.clone();
    half_empty[0] &= 0x7f;
    let key = |n: &[u8], e: &[u8]| json!({ "kty": "RSA", "n": encode(n), "e": encode(e) });
    for jwk in [
        key(&odd(64), &[1, 0, 1]),
        key(&odd(255), &[1, 0, 1]),
        key(&odd(513), &[1, 0, 1]),
        key(&odd(2048), &[1, 0, 1]),
        key(&even, &[1, 0, 1]),
        key(&half_empty, &[1, 0, 1]),
        key(&[&[0][..], &modulus].concat(), &[1, 0, 1]),
        key(&[], &[1, 0, 1]),
        key(&modulus, &[]),
        key(&modulus, &[1]),
        key(&modulus, &[2]),
        key(&modulus, &[1, 0, 0]),
        key(&modulus, &[0, 1, 0, 1]),
        key(&modulus, &[2, 0, 0, 0, 1]),
        key(&modulus, &[0xff; 9]),
    ] {
        let proof = device.registration_with(jwk.clone(), &victim.challenge);
        victim.assert_registration_refused(&proof, SIZE).await;
    }
    for jwk in [
        json!({ "kty": "RSA", "n": encode(&modulus) }),
        json!({ "kty": "RSA", "e": "AQAB" }),
        json!({ "kty": "EC", "n": encode(&modulus), "e": "AQAB" }),
        json!({ "kty": "RSA", "n": encode(&modulus), "e": "AQAB", "d": "AQAB" }),
    ] {
        let proof = device.registration_with(jwk, &victim.challenge);
        victim.assert_registration_refused(&proof, KEY).await;
    }
    victim.assert_registration_works().await;
}

#[tokio::test]
async fn a_key_of_another_curve_is_refused() {
    let mut victim = Victim::logged_in().await;
    let jwk = victim.device.jwk();
    for curve in [
        json!("P-384"),
        json!("secp256k1"),
        json!("p-256"),
        json!(null),
    ] {
        let mut jwk = jwk.clone();
        jwk["crv"] = curve;
        let proof = victim.device.registration_with(jwk, &victim.challenge);
        let reason = "the key is not of the curve P-256";
        victim.assert_registration_refused(&proof, reason).await;
    }
    victim.assert_registration_works().await;
}

#[tokio::test]
async fn a_point_that_is_not_on_the_curve_is_refused() {
    let mut victim = Victim::logged_in().await;
    let jwk = victim.device.jwk();
    let mut y = decode(jwk["y"].as_str().unwrap());
    *y.last_mut().unwrap() ^= 1;
    let not_on_it = json!({ "kty": "EC", "crv": "P-256", "x": jwk["x"], "y": encode(&y) });
    let zero = encode(&[0; 32]);
    let zero = json!({ "kty": "EC", "crv": "P-256", "x": zero, "y": zero });
    let large = encode(&[0xff; 32]);
    let large = json!({ "kty": "EC", "crv": "P-256", "x": large, "y": large });
    for jwk in [not_on_it, zero, large] {
        let proof = victim.device.registration_with(jwk, &victim.challenge);
        let reason = "the key is not a point of the curve";
        victim.assert_registration_refused(&proof, reason).await;
    }
    for coordinate in [&[0; 31][..], &[0; 33], &[]] {
        let mut jwk = jwk.clone();
        jwk["x"] = json!(encode(coordinate));
        let proof = victim.device.registration_with(jwk, &victim.challenge);
        victim.assert_registration_refused(&proof, KEY).await;
    }
    victim.assert_registration_works().await;
}

#[tokio::test]
async fn a_key_at_a_refresh_and_none_at_a_registration_are_refused() {
    let mut victim = Victim::bound().await;
    let proof = victim.device.registration(&victim.challenge);
    let reason = "the proof of a refresh brings a key";
    victim.assert_refresh_refused(&proof, reason).await;
    let proof = Device::es256(2).registration(&victim.challenge);
    victim.assert_refresh_refused(&proof, reason).await;
    victim.assert_refresh_works().await;

    let mut victim = Victim::logged_in().await;
    let proof = victim.device.refresh(&victim.challenge);
    victim
        .assert_registration_refused(&proof, "the registration has no key")
        .await;
    for jwk in [json!("key"), json!([victim.device.jwk()]), json!({})] {
        let proof = victim.device.registration_with(jwk, &victim.challenge);
        victim.assert_registration_refused(&proof, KEY).await;
    }
    victim.assert_registration_works().await;
}

#[tokio::test]
async fn two_keys_in_one_proof_are_refused() {
    let mut victim = Victim::logged_in().await;
    let (own, other) = (victim.device.jwk(), Device::es256(2).jwk());
    let payload = json!({ "jti": victim.challenge }).to_string();
    for (first, second) in [(&own, &other), (&other, &own), (&own, &own)] {
        let header = format!(r#"{{"typ":"dbsc+jwt","alg":"ES256","jwk":{first},"jwk":{second}}}"#);
        let proof = victim.device.token(&header, &payload);
        victim.assert_registration_refused(&proof, JSON).await;
    }
    let x = &own["x"];
    let twice = own
        .to_string()
        .replace("\"crv\"", &format!("\"x\":{x},\"crv\""));
    let header = format!(r#"{{"typ":"dbsc+jwt","alg":"ES256","jwk":{twice}}}"#);
    let proof = victim.device.token(&header, &payload);
    victim.assert_registration_refused(&proof, JSON).await;
    let payload = format!(r#"{{"jti":"a","jti":{}}}"#, json!(victim.challenge));
    let header = json!({ "typ": "dbsc+jwt", "alg": "ES256", "jwk": own }).to_string();
    let proof = victim.device.token(&header, &payload);
    victim.assert_registration_refused(&proof, JSON).await;
    victim.assert_registration_works().await;
}

#[tokio::test]
async fn huge_and_repeated_headers_are_refused() {
    let mut victim = Victim::logged_in().await;
    let header = json!({
        "typ": "dbsc+jwt", "alg": "ES256", "jwk": victim.device.jwk(), "x": "y".repeat(7000),
    });
    let proof = victim.registration(&header);
    victim
        .assert_registration_refused(&proof, "the proof is too long")
        .await;
    let huge = "a".repeat(100_000);
    victim
        .assert_registration_refused(&huge, "the proof is too long")
        .await;
    let proof = format!("\"{}\"", victim.device.registration(&victim.challenge));
    let twice = [
        ("secure-session-response", &*proof),
        ("secure-session-response", &*proof),
    ];
    let reply = victim.browser.send(Method::POST, BIND, &twice).await;
    let reason = "the request has several Secure-Session-Response headers";
    victim.assert_refused(&reply, reason).await;
    for value in [&proof[1..], "a b", "\"a\", \"b\"", "(\"a\")", ":YQ==:", ""] {
        let headers = [("secure-session-response", value)];
        let reply = victim.browser.send(Method::POST, BIND, &headers).await;
        victim
            .assert_refused(
                &reply,
                "the header is neither a string nor a text without quotes",
            )
            .await;
    }
    let reply = victim.browser.send(Method::POST, BIND, &[]).await;
    victim
        .assert_refused(&reply, "the request has no Secure-Session-Response")
        .await;
    victim.assert_registration_works().await;
}

#[tokio::test]
async fn non_canonical_base64_and_other_shapes_of_a_proof_are_refused() {
    let mut victim = Victim::logged_in().await;
    let good = victim.device.registration(&victim.challenge);
    let parts: Vec<_> = good.split('.').collect();
    let [header, payload, signature] = *parts else {
        unreachable!("a proof has three parts")
    };
    for shape in [
        header.to_owned(),
        format!("{header}.{payload}"),
        format!("{good}."),
        format!("{good}.{signature}"),
        format!(".{good}"),
    ] {
        let reason = "the proof is not three parts of a JWT";
        victim.assert_registration_refused(&shape, reason).await;
    }
    // 64 bytes are 86 letters, and the last one has four bits that say nothing.
    let last = signature.chars().last().unwrap();
    let spare = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = spare.find(last).unwrap();
    let other = &spare[at + 1..at + 2];
    let non_canonical = format!("{}{other}", &good[..good.len() - 1]);
    for bad in [
        format!("{good}="),
        format!("{good}=="),
        non_canonical,
        format!("{header}=.{payload}.{signature}"),
        format!("{header} .{payload}.{signature}"),
        good.replace('.', "+."),
        format!("/{good}"),
    ] {
        victim.assert_registration_refused(&bad, BASE64).await;
    }
    for (header, reason) in [
        ("[]", JSON),
        ("{}x", JSON),
        ("", JSON),
        ("{}", "the type of the proof is not dbsc+jwt"),
        (
            r#"{"typ":"JWT","alg":"ES256"}"#,
            "the type of the proof is not dbsc+jwt",
        ),
        (
            r#"{"typ":"dbsc+jwt","alg":"ES256","crit":["b64"],"b64":false}"#,
            "the proof has an extension that must be understood",
        ),
    ] {
        let proof = victim.device.token(header, "{}");
        victim.assert_registration_refused(&proof, reason).await;
    }
    let mut jwk = victim.device.jwk();
    jwk["x"] = json!(format!("{}=", jwk["x"].as_str().unwrap()));
    let proof = victim.device.registration_with(jwk, &victim.challenge);
    victim.assert_registration_refused(&proof, BASE64).await;
    victim.assert_registration_works().await;
}

#[tokio::test]
async fn a_registration_for_a_session_that_is_bound_already_is_refused() {
    let site = site();
    let mut browser = site.browser();
    let challenge = browser.log_in("ada").await;
    let proof = Device::es256(1).registration(&challenge);
    assert_eq!(browser.register(&proof).await.status, 200);
    let mut victim = Victim::new(site, browser, challenge.clone()).await;
    let reason = "the session is bound already";
    let other = Device::es256(2).registration(&challenge);
    for proof in [&other, &proof] {
        victim.assert_registration_refused(proof, reason).await;
    }
}

#[tokio::test]
async fn a_registration_without_the_session_is_refused() {
    let mut victim = Victim::logged_in().await;
    let proof = victim.device.registration(&victim.challenge);
    let session = victim.browser.cookies.remove(TOKEN).unwrap();
    victim
        .assert_registration_refused(&proof, "no live session")
        .await;
    let mut eve = victim.site.browser();
    eve.log_in("eve").await;
    let of_eve = eve.cookies[TOKEN].clone();
    victim.site.heard();
    // The challenge was made for another session.
    victim
        .browser
        .cookies
        .insert(TOKEN.to_owned(), of_eve.clone());
    victim.assert_registration_refused(&proof, FOREIGN).await;
    // Somebody planted a cookie beside the good one.
    let both = format!("{session}; {TOKEN}={of_eve}");
    victim.browser.cookies.insert(TOKEN.to_owned(), both);
    let reply = victim.browser.register(&proof).await;
    assert_eq!(reply.status, 403);
    victim
        .site
        .assert_rejected("the tokens of several live sessions");
    victim.browser.cookies.insert(TOKEN.to_owned(), session);
    victim.assert_registration_works().await;
}

#[tokio::test]
async fn requests_from_other_origins_are_refused() {
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", "x"),
        ("origin", "https://evil.example"),
        ("origin", "https://example.com.evil.example"),
        ("origin", "https://example.com:8443"),
        ("origin", "null"),
        ("origin", "example.com"),
    ] {
        assert_refused_at_both(name, value, "the request comes from another origin").await;
    }
}

#[tokio::test]
async fn requests_for_a_frame_are_refused() {
    for frame in ["iframe", "frame", "embed", "object", "fencedframe"] {
        assert_refused_at_both("sec-fetch-dest", frame, "the request is for a frame").await;
    }
}

async fn assert_refused_at_both(name: &str, value: &str, reason: &str) {
    let mut victim = Victim::logged_in().await;
    let proof = format!("\"{}\"", victim.device.registration(&victim.challenge));
    let headers = [("secure-session-response", &*proof), (name, value)];
    let reply = victim.browser.send(Method::POST, BIND, &headers).await;
    victim.assert_refused(&reply, reason).await;
    assert_eq!(reply.header("access-control-allow-origin"), None);
    assert_eq!(reply.header("access-control-allow-credentials"), None);
    assert_eq!(reply.header("x-frame-options"), Some("DENY"));
    let policy = reply.header("content-security-policy");
    assert_eq!(policy, Some("frame-ancestors 'none'"));

    let mut victim = Victim::bound().await;
    let proof = format!("\"{}\"", victim.device.refresh(&victim.challenge));
    let id = format!("\"{}\"", victim.id);
    let headers = [
        ("sec-secure-session-id", &*id),
        ("secure-session-response", &*proof),
        (name, value),
    ];
    let reply = victim.browser.send(Method::POST, REFRESH, &headers).await;
    victim.assert_refused(&reply, reason).await;
    // The place tells nobody whether there is a session.
    assert_eq!(reply.header("secure-session-challenge"), None);
}

#[tokio::test]
async fn requests_of_the_own_origin_are_answered() {
    for headers in [
        &[
            ("origin", "https://example.com"),
            ("sec-fetch-site", "same-origin"),
        ][..],
        &[("origin", "https://EXAMPLE.com:443")],
        &[("sec-fetch-site", "none"), ("sec-fetch-dest", "empty")],
    ] {
        let mut victim = Victim::logged_in().await;
        let proof = format!("\"{}\"", victim.device.registration(&victim.challenge));
        let headers = [&[("secure-session-response", &*proof)], headers].concat();
        assert_eq!(
            victim
                .browser
                .send(Method::POST, BIND, &headers)
                .await
                .status,
            200
        );
    }
}

#[tokio::test]
async fn a_refresh_must_name_the_session_whose_token_it_has() {
    let mut victim = Victim::bound().await;
    let proof = format!("\"{}\"", victim.device.refresh(&victim.challenge));
    let id = victim.id.to_string();
    let reason = "the request does not name its session in Sec-Secure-Session-Id";
    let quoted = format!("\"{id}\"");
    let name = "sec-secure-session-id";
    for ids in [
        vec![],
        vec![(name, "\"")],
        vec![(name, &*quoted), (name, &*quoted)],
    ] {
        let headers = [ids, vec![("secure-session-response", &*proof)]].concat();
        let reply = victim.browser.send(Method::POST, REFRESH, &headers).await;
        victim.assert_refused(&reply, reason).await;
    }
    // Nobody learns from the answer whether there is such a session.
    let mut stranger = victim.site.browser();
    is_over(&stranger.refresh(victim.id, None).await, victim.id);
    let other = RecordId::from_bytes([9; 16]);
    victim.site.log.take();
    is_over(&victim.browser.refresh(other, None).await, other);
    let reason = "the request names a session whose token it does not have";
    victim.site.assert_rejected(reason);
    let mut eve = victim.site.browser();
    eve.bind("eve", &Device::es256(2)).await;
    is_over(&eve.refresh(victim.id, None).await, victim.id);
    victim.site.heard();
    assert_eq!(victim.site.version(victim.id).await, victim.version);
    victim.assert_refresh_works().await;
}

#[tokio::test]
async fn the_two_paths_answer_nothing_but_post() {
    let mut victim = Victim::bound().await;
    for path in [BIND, REFRESH] {
        for method in [
            Method::GET,
            Method::HEAD,
            Method::PUT,
            Method::DELETE,
            Method::OPTIONS,
        ] {
            let origin = [("origin", "https://evil.example")];
            let reply = victim.browser.send(method, path, &origin).await;
            assert_eq!(reply.status, 405);
            assert_eq!(reply.header("allow"), Some("POST"));
            assert_eq!(reply.header("cache-control"), Some("no-store"));
            assert_eq!(reply.header("access-control-allow-origin"), None);
            reply.assert_no_cookie();
            victim.site.assert_rejected("the request is not a POST");
        }
    }
    assert_eq!(victim.site.version(victim.id).await, victim.version);
}
