//! The keys of devices: from a JWK into the record, and how they verify a signature.

use p256::ecdsa::VerifyingKey;
use rsa::{BoxedUint, Pkcs1v15Sign, PublicKey};
use sha2::{Digest as _, Sha256};

use super::refusal::Refusal;
use crate::jose::es256::{self, BadKey};
use crate::jose::json::Object;
use crate::record::device::{DeviceKey, KeyAlgorithm};

/// The sizes of an RSA modulus, in bytes: 2048 to 4096 bits.
const RSA_SIZES: std::ops::RangeInclusive<usize> = 256..=512;

/// The exponent of an RSA key in a record.
const EXPONENT_LEN: usize = size_of::<u64>();

/// The key of this JWK (RFC 7517), as the record keeps it.
pub(super) fn from_jwk(algorithm: KeyAlgorithm, jwk: &Object) -> Result<DeviceKey, Refusal> {
    // A private key does not travel.
    if jwk.get("d").is_some() {
        return Err(Refusal::Key);
    }
    if jwk.get("alg").is_some() && jwk.text("alg") != Some(algorithm.as_str()) {
        return Err(Refusal::OtherAlgorithm);
    }
    let bytes = match algorithm {
        KeyAlgorithm::Es256 => es256_from_jwk(jwk)?,
        KeyAlgorithm::Rs256 => rs256_from_jwk(jwk)?,
    };
    Ok(DeviceKey {
        algorithm,
        bytes: bytes.into(),
    })
}

fn es256_from_jwk(jwk: &Object) -> Result<Vec<u8>, Refusal> {
    let key = es256::from_jwk(jwk)?;
    Ok(key.to_sec1_point(true).as_bytes().to_vec())
}

impl From<BadKey> for Refusal {
    fn from(bad: BadKey) -> Self {
        match bad {
            BadKey::Malformed => Self::Key,
            BadKey::Base64 => Self::Base64,
            BadKey::Curve => Self::Curve,
            BadKey::Point => Self::Point,
        }
    }
}

fn rs256_from_jwk(jwk: &Object) -> Result<Vec<u8>, Refusal> {
    if jwk.text("kty") != Some("RSA") {
        return Err(Refusal::Key);
    }
    let (modulus, exponent) = (number(jwk, "n")?, number(jwk, "e")?);
    let is_sized = RSA_SIZES.contains(&modulus.len());
    // The shortest form has no zero in front (RFC 7518, section 6.3.1), and each size is whole.
    let is_whole = modulus.first().is_some_and(|first| first & 0x80 != 0);
    let is_odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
    if !is_sized || !is_whole || !is_odd(&modulus) || !is_odd(&exponent) {
        return Err(Refusal::KeySize);
    }
    if exponent.first() == Some(&0) || exponent.len() > EXPONENT_LEN {
        return Err(Refusal::KeySize);
    }
    let zeros = vec![0; EXPONENT_LEN - exponent.len()];
    let bytes = [zeros, exponent, modulus].concat();
    // This checks the range of the exponent.
    rsa_key(&bytes).ok_or(Refusal::KeySize)?;
    Ok(bytes)
}

/// A number of a JWK.
fn number(jwk: &Object, name: &str) -> Result<Vec<u8>, Refusal> {
    let text = jwk.text(name).ok_or(Refusal::Key)?;
    crate::jose::decode(text).ok_or(Refusal::Base64)
}

fn rsa_key(bytes: &[u8]) -> Option<PublicKey> {
    let (exponent, modulus) = bytes.split_first_chunk()?;
    let exponent = u64::from_be_bytes(*exponent);
    if exponent < 3 || !RSA_SIZES.contains(&modulus.len()) {
        return None;
    }
    let modulus = BoxedUint::from_be_slice_vartime(modulus);
    PublicKey::new(modulus, BoxedUint::from(exponent)).ok()
}

/// Whether this key has signed the message.
pub(super) fn verifies(key: &DeviceKey, message: &[u8], signature: &[u8]) -> bool {
    match key.algorithm {
        KeyAlgorithm::Es256 => {
            let key = VerifyingKey::from_sec1_bytes(&key.bytes);
            key.is_ok_and(|key| es256::verifies(&key, message, signature))
        }
        KeyAlgorithm::Rs256 => {
            let hash = Sha256::digest(message);
            let is_whole = signature.len() + EXPONENT_LEN == key.bytes.len();
            let verify = |key: PublicKey| {
                let scheme = Pkcs1v15Sign::new::<Sha256>();
                key.verify(scheme, &hash, signature).is_ok()
            };
            is_whole && rsa_key(&key.bytes).is_some_and(verify)
        }
    }
}
