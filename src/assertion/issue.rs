//! How an assertion is made.

use std::time::Duration;

use serde::Serialize;

use super::{Assertions, MAX_LEN, TYPE};
use crate::clock::Timestamp;
use crate::error::{SessionError, SessionErrorKind};
use crate::id::RecordId;
use crate::jose::encode;
use crate::record::login::Login;
use crate::token::random::RandomSource;

/// Who an assertion is about: a login of a session that the store has.
pub(crate) struct Subject<'a> {
    pub(crate) login: &'a Login,
    pub(crate) session: RecordId,
    /// When the session ends, if nobody uses it any more.
    pub(crate) ends: Timestamp,
}

#[derive(Serialize)]
struct Header<'a> {
    typ: &'static str,
    alg: &'static str,
    kid: &'a str,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    sid: RecordId,
    iat: u64,
    exp: u64,
    jti: String,
    auth_time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    acr: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    amr: &'a [Box<str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Actor<'a>>,
}

#[derive(Serialize)]
struct Actor<'a> {
    sub: &'a str,
}

impl Assertions {
    /// An assertion for this audience.
    pub(crate) fn issue(
        &self,
        subject: &Subject<'_>,
        audience: &str,
        ttl: Duration,
        now: Timestamp,
        random: &RandomSource,
    ) -> Result<String, SessionError> {
        if audience.is_empty() {
            return Err(invalid("the audience is empty; name the service"));
        }
        if ttl < Duration::from_secs(1) || ttl > self.max_ttl {
            let longest = self.max_ttl.as_secs();
            return Err(invalid(format!(
                "the ttl must be from one second to the layer's `max_ttl` of {longest} seconds"
            )));
        }
        let login = subject.login;
        let user = login.user().without_realm();
        let actor = login.actor().map(|actor| actor.user.without_realm());
        let how = login.authentication();
        let id: [u8; 16] = random.bytes()?;
        let key = self.keys.signing();
        let issued_at = seconds(now);
        // Times are rounded down, so that the assertion ends in time. Even if the session is about
        // to end, the assertion is good for a second: the service gets it at once.
        let ends = seconds((now + ttl).min(subject.ends)).max(issued_at + 1);
        let claims = Claims {
            iss: &self.issuer,
            aud: audience,
            sub: user.as_str(),
            sid: subject.session,
            iat: issued_at,
            exp: ends,
            jti: encode(id),
            auth_time: seconds(login.proved_at()),
            acr: how.level(),
            amr: how.methods(),
            act: actor.as_ref().map(|actor| Actor {
                sub: actor.as_str(),
            }),
        };
        let header = Header {
            typ: TYPE,
            alg: key.algorithm().as_str(),
            kid: key.kid(),
        };
        let mut token = format!("{}.{}", part(&header)?, part(&claims)?);
        let signature = key.sign(token.as_bytes()).map_err(|error| {
            SessionError::new(SessionErrorKind::InvalidAssertion).with_source(error)
        })?;
        token.push('.');
        token.push_str(&encode(signature));
        match token.len() {
            0..=MAX_LEN => Ok(token),
            _ => Err(invalid(
                "the assertion would be too long for a header; log in with shorter methods and levels",
            )),
        }
    }
}

fn part(json: &impl Serialize) -> Result<String, SessionError> {
    let json = serde_json::to_vec(json);
    let json = json.map_err(|error| {
        SessionError::new(SessionErrorKind::InvalidAssertion).with_source(error)
    })?;
    Ok(encode(json))
}

fn seconds(time: Timestamp) -> u64 {
    time.as_millis() / 1000
}

pub(crate) fn invalid(reason: impl Into<String>) -> SessionError {
    SessionError::new(SessionErrorKind::InvalidAssertion).with_source(reason.into())
}
