//! Keys of ES256: ECDSA with P-256 and SHA-256 (RFC 7518, section 3.4).

use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};

use super::json::Object;

/// The length of a coordinate of P-256.
const COORDINATE_LEN: usize = 32;

/// Why a JWK is no key of ES256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadKey {
    /// It is another kind of key, or lacks something.
    Malformed,
    Base64,
    Curve,
    /// The point is not on the curve.
    Point,
}

/// The public key of a JWK (RFC 7518, section 6.2).
pub(crate) fn from_jwk(jwk: &Object) -> Result<VerifyingKey, BadKey> {
    if jwk.text("kty") != Some("EC") {
        return Err(BadKey::Malformed);
    }
    if jwk.text("crv") != Some("P-256") {
        return Err(BadKey::Curve);
    }
    let (x, y) = (coordinate(jwk, "x")?, coordinate(jwk, "y")?);
    if x.len() != COORDINATE_LEN || y.len() != COORDINATE_LEN {
        return Err(BadKey::Malformed);
    }
    let uncompressed = [&[4][..], &x, &y].concat();
    VerifyingKey::from_sec1_bytes(&uncompressed).map_err(|_| BadKey::Point)
}

fn coordinate(jwk: &Object, name: &str) -> Result<Vec<u8>, BadKey> {
    let text = jwk.text(name).ok_or(BadKey::Malformed)?;
    super::decode(text).ok_or(BadKey::Base64)
}

/// Whether this key has signed the message.
pub(crate) fn verifies(key: &VerifyingKey, message: &[u8], signature: &[u8]) -> bool {
    let signature = Signature::from_slice(signature);
    signature.is_ok_and(|signature| key.verify(message, &signature).is_ok())
}
