//! [`Proof`]: a JWT that the browser has signed with the key of its device.

use super::key;
use super::refusal::Refusal;
use crate::jose::compact::{Compact, Malformed};
use crate::jose::json::Json;
use crate::record::device::{DeviceKey, KeyAlgorithm};

/// Longer than a proof with a key of RSA-4096.
const MAX_LEN: usize = 8 * 1024;

/// A JWT of the type `dbsc+jwt`. Nobody has verified it yet.
#[derive(Debug)]
pub(crate) struct Proof<'a> {
    algorithm: KeyAlgorithm,
    /// The key that the proof brings.
    jwk: Option<Json>,
    challenge: String,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Proof<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, Refusal> {
        let Compact {
            mut header,
            payload,
            signed,
            signature,
            ..
        } = Compact::parse(text, MAX_LEN)?;
        if header.text("typ") != Some("dbsc+jwt") {
            return Err(Refusal::Type);
        }
        // Whoever does not know an extension of this kind must refuse it (RFC 7515, section
        // 4.1.11).
        if header.get("crit").is_some() {
            return Err(Refusal::Critical);
        }
        let algorithm = match header.text("alg") {
            Some("ES256") => KeyAlgorithm::Es256,
            Some("RS256") => KeyAlgorithm::Rs256,
            _ => return Err(Refusal::Algorithm),
        };
        let challenge = payload.text("jti").ok_or(Refusal::NoChallenge)?.to_owned();
        Ok(Self {
            algorithm,
            jwk: header.take("jwk"),
            challenge,
            signed,
            signature,
        })
    }

    /// What the browser has signed.
    pub(crate) fn challenge(&self) -> &str {
        &self.challenge
    }

    /// The key of a registration. The proof is signed with the key that it brings.
    pub(crate) fn registered_key(&self) -> Result<DeviceKey, Refusal> {
        let jwk = match &self.jwk {
            Some(Json::Object(jwk)) => jwk,
            Some(_) => return Err(Refusal::Key),
            None => return Err(Refusal::NoKey),
        };
        let key = key::from_jwk(self.algorithm, jwk)?;
        self.verify(&key)?;
        Ok(key)
    }

    /// Checks a proof of a refresh, which is signed with the key of the record and brings none.
    pub(crate) fn check_refresh(&self, key: &DeviceKey) -> Result<(), Refusal> {
        if self.jwk.is_some() {
            return Err(Refusal::KeyAtRefresh);
        }
        if self.algorithm != key.algorithm {
            return Err(Refusal::OtherAlgorithm);
        }
        self.verify(key)
    }

    fn verify(&self, key: &DeviceKey) -> Result<(), Refusal> {
        match key::verifies(key, self.signed.as_bytes(), &self.signature) {
            true => Ok(()),
            false => Err(Refusal::Signature),
        }
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::TooLong => Self::TooLong,
            Malformed::NotAToken => Self::NotAToken,
            Malformed::Base64 => Self::Base64,
            Malformed::Json => Self::Json,
        }
    }
}
