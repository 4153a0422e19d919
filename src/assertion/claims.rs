//! [`Unverified`]: an assertion that came with a request, and the checks of what it says.

use std::time::Duration;

use serde::Deserialize;

use super::algorithm::{Algorithm, Public};
use super::refusal::Refusal;
use super::{Asserted, MAX_LEN, TYPE};
use crate::clock::Timestamp;
use crate::jose::compact::Compact;
use crate::jose::json::{Json, Object};
use crate::record::login::Authentication;
use crate::record::user::UserId;

/// An assertion whose signature nobody has verified yet.
#[derive(Debug)]
pub(super) struct Unverified<'a> {
    token: Compact<'a>,
    algorithm: Algorithm,
    kid: String,
}

/// What a service expects of an assertion.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) audience: &'a str,
    pub(super) leeway: Duration,
    pub(super) max_ttl: Duration,
    pub(super) now: Timestamp,
}

/// The claims that are numbers of seconds. An assertion has no fractions.
#[derive(Deserialize)]
struct Times {
    iat: u64,
    exp: u64,
    nbf: Option<u64>,
    auth_time: u64,
}

impl<'a> Unverified<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Refusal> {
        let token = Compact::parse(text, MAX_LEN)?;
        let header = &token.header;
        // An access token of the same issuer is no assertion.
        if header.text("typ") != Some(TYPE) {
            return Err(Refusal::Type);
        }
        // Whoever does not know an extension of this kind must refuse it (RFC 7515, section
        // 4.1.11).
        if header.get("crit").is_some() {
            return Err(Refusal::Critical);
        }
        let algorithm = header.text("alg").and_then(Algorithm::parse);
        let algorithm = algorithm.ok_or(Refusal::Algorithm)?;
        // No assertion brings its own key, or says where to get one.
        if !header.has_only(&["typ", "alg", "kid"]) {
            return Err(Refusal::Header);
        }
        let kid = header.text("kid").ok_or(Refusal::NoKid)?.to_owned();
        Ok(Self {
            token,
            algorithm,
            kid,
        })
    }

    /// The name of the key that must have signed it.
    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    /// Checks the signature. The key decides on the algorithm, and not the assertion.
    pub(super) fn verify(&self, key: &Public) -> Result<(), Refusal> {
        if self.algorithm != key.algorithm() {
            return Err(Refusal::OtherAlgorithm);
        }
        match key.verifies(self.token.signed.as_bytes(), &self.token.signature) {
            true => Ok(()),
            false => Err(Refusal::Signature),
        }
    }

    /// What it says, if it is for this service and of this time.
    pub(super) fn check(&self, expected: &Expected<'_>) -> Result<Asserted, Refusal> {
        let claims = &self.token.payload;
        // A service that has forgotten to name them accepts nothing.
        let is = |name, expected: &str| !expected.is_empty() && claims.text(name) == Some(expected);
        if !is("iss", expected.issuer) {
            return Err(Refusal::Issuer);
        }
        // A list of audiences is refused too: one of these services could use the assertion at
        // another one.
        if !is("aud", expected.audience) {
            return Err(Refusal::Audience);
        }
        let times: Times =
            serde_json::from_slice(&self.token.payload_json).map_err(|_| Refusal::Claims)?;
        let (issued_at, expires_at) = times.check(expected)?;
        let text = |name| claims.text(name).ok_or(Refusal::Claims);
        Ok(Asserted {
            user: user(text("sub")?)?,
            session: text("sid")?.parse().map_err(|_| Refusal::Claims)?,
            authentication: authentication(claims, seconds(times.auth_time))?,
            actor: actor(claims)?,
            issued_at,
            expires_at,
            jti: Some(text("jti")?)
                .filter(|jti| !jti.is_empty())
                .ok_or(Refusal::Claims)?
                .into(),
        })
    }
}

impl Times {
    /// When the assertion was issued, and when it ends.
    fn check(&self, expected: &Expected<'_>) -> Result<(Timestamp, Timestamp), Refusal> {
        let (issued_at, expires_at) = (seconds(self.iat), seconds(self.exp));
        let (now, leeway) = (expected.now, expected.leeway);
        if now >= expires_at + leeway || expires_at <= issued_at {
            return Err(Refusal::Expired);
        }
        if issued_at > now + leeway {
            return Err(Refusal::FromTheFuture);
        }
        if self.nbf.is_some_and(|nbf| seconds(nbf) > now + leeway) {
            return Err(Refusal::NotYet);
        }
        if expires_at.since(issued_at) > expected.max_ttl {
            return Err(Refusal::TooLongLived);
        }
        Ok((issued_at, expires_at))
    }
}

fn seconds(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds.saturating_mul(1000))
}

fn user(text: &str) -> Result<UserId, Refusal> {
    UserId::new(text).map_err(|_| Refusal::Claims)
}

fn authentication(claims: &Object, time: Timestamp) -> Result<Authentication, Refusal> {
    let mut how = Authentication::at(time);
    match claims.get("acr") {
        None => {}
        Some(Json::Text(level)) => how = how.with_level(level.as_str()),
        Some(_) => return Err(Refusal::Claims),
    }
    match claims.get("amr") {
        None => {}
        Some(Json::List(methods)) => {
            let text = |method: &Json| match method {
                Json::Text(method) => Ok(method.as_str().into()),
                _ => Err(Refusal::Claims),
            };
            let methods: Result<Vec<Box<str>>, _> = methods.iter().map(text).collect();
            how = how.with_methods(methods?);
        }
        Some(_) => return Err(Refusal::Claims),
    }
    Ok(how)
}

fn actor(claims: &Object) -> Result<Option<UserId>, Refusal> {
    match claims.get("act") {
        None => Ok(None),
        Some(Json::Object(act)) => Ok(Some(user(act.text("sub").ok_or(Refusal::Claims)?)?)),
        Some(_) => Err(Refusal::Claims),
    }
}
