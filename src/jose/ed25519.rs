//! Keys of EdDSA with the curve Ed25519 (RFC 8037).

use ed25519_dalek::{Signature, VerifyingKey};

use super::json::Object;

/// The public key of a JWK (RFC 8037, section 2). A key of small order is refused, because anybody
/// can sign for it.
pub(crate) fn from_jwk(jwk: &Object) -> Option<VerifyingKey> {
    if jwk.text("kty") != Some("OKP") || jwk.text("crv") != Some("Ed25519") {
        return None;
    }
    let bytes = super::decode(jwk.text("x")?)?;
    let key = VerifyingKey::from_bytes(&bytes.try_into().ok()?).ok()?;
    (!key.is_weak()).then_some(key)
}

/// Whether this key has signed the message. A key has exactly one good signature of a message.
pub(crate) fn verifies(key: &VerifyingKey, message: &[u8], signature: &[u8]) -> bool {
    let signature = Signature::from_slice(signature);
    signature.is_ok_and(|signature| key.verify_strict(message, &signature).is_ok())
}
