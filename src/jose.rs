//! JSON Web Signatures, read strictly: the [`compact`] form of a token, the [`json`] in it, and the
//! keys of [`es256`] and `ed25519`.
//!
//! A crate for JWTs would do more, and be less strict: it would take the last of two equal names,
//! and would accept extensions that it does not know.

pub(crate) mod compact;
#[cfg(feature = "jwt")]
pub(crate) mod ed25519;
pub(crate) mod es256;
pub(crate) mod json;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The bytes of base64url. There is one way to write them: without padding, and with zeros in the
/// bits that are left over.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(feature = "jwt")]
pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
