//! The fuzz target of assertions, as a service behind reads them.

use std::time::Duration;

use cloakroom::assertion::{AssertionVerifier, Jwks};
use cloakroom::{Clock, Timestamp};
use serde_json::Value;

use crate::devices::{jwk, key, signed, written};
use crate::run;

const ISSUER: &str = "https://example.com";
const AUDIENCE: &str = "orders";
const NOW: u64 = 1_700_000_000;

#[derive(Debug)]
struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(NOW * 1000)
    }
}

/// Sends the input to a service in two ways.
///
/// As a token: the byte 0 becomes a good token, and the byte 1 a token with a letter changed. And
/// as the header and the claims of a token, each on one line, signed with the key of the issuer:
/// the byte 0 becomes a good header without its braces, and the byte 1 good claims without theirs.
pub fn assertion(input: &[u8]) {
    let mut own = jwk(&key(1));
    own.insert_str(1, r#""kid":"1","#);
    let keys = Jwks::parse(format!(r#"{{"keys":[{own}]}}"#)).unwrap();
    let verifier = AssertionVerifier::new(ISSUER, AUDIENCE, keys).clock(Fixed);
    let header = r#""typ":"assertion+jwt","alg":"ES256","kid":"1""#;
    let claims = format!(
        r#""iss":"{ISSUER}","aud":"{AUDIENCE}","sub":"ada","sid":"AAECAwQFBgcICQoLDA0ODw","iat":{NOW},"exp":{},"jti":"1","auth_time":{NOW}"#,
        NOW + 60
    );
    let braces = |members: &str| format!("{{{members}}}").into_bytes();
    let good = signed(&key(1), &braces(header), &braces(&claims));
    let mut changed = good.clone();
    changed.replace_range(10..11, if &good[10..11] == "A" { "B" } else { "A" });
    run(async {
        let token = written(input, &[&good, &changed]);
        let token = String::from_utf8_lossy(&token);
        let is_good = verifier.verify(&token).await.is_ok();
        assert_eq!(is_good, *token == *good, "{token}");

        let input = written(input, &[header, &claims]);
        let mut lines = input.splitn(2, |&byte| byte == b'\n');
        let [header, claims] = [lines.next(), lines.next()].map(Option::unwrap_or_default);
        let verified = verifier.verify(&signed(&key(1), header, claims)).await;
        let Ok(user) = verified else {
            return;
        };
        // A reader that takes the last of two equal names sees the same.
        let header: Value = serde_json::from_slice(header).unwrap();
        let claims: Value = serde_json::from_slice(claims).unwrap();
        let expected = serde_json::json!({ "typ": "assertion+jwt", "alg": "ES256", "kid": "1" });
        assert_eq!(header, expected);
        assert_eq!(claims["iss"], ISSUER);
        assert_eq!(claims["aud"], AUDIENCE);
        assert_eq!(claims["sub"], user.user().as_str());
        assert_eq!(claims["sid"], user.session().to_string());
        assert_eq!(claims["jti"], user.jti());
        let seconds = |time: Timestamp| Value::from(time.as_millis() / 1000);
        assert_eq!(claims["iat"], seconds(user.issued_at()));
        assert_eq!(claims["exp"], seconds(user.expires_at()));
        let actor = user.actor().map(|actor| actor.as_str());
        assert_eq!(claims["act"]["sub"].as_str(), actor);
        let leeway = Duration::from_secs(30);
        assert!(user.issued_at() <= Fixed.now() + leeway);
        assert!(user.expires_at() + leeway > Fixed.now());
    });
}
