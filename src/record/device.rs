//! [`BoundDevice`]: the device that a session is bound to.

use std::sync::Arc;

use crate::clock::Timestamp;

/// How the key of a device signs (RFC 7518, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyAlgorithm {
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
}

impl KeyAlgorithm {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

/// The public key of a device, as the record keeps it.
///
/// A key of ES256 is a point of P-256 in its compressed form (SEC 1, section 2.3.3). A key of RS256
/// is the exponent in 8 bytes, and the modulus. Only a key that was checked gets here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceKey {
    pub(crate) algorithm: KeyAlgorithm,
    pub(crate) bytes: Arc<[u8]>,
}

/// The device that a session is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BoundDevice {
    pub(crate) key: DeviceKey,
    /// When the browser registered the key. It tells this binding from others of the session.
    pub(crate) bound_at: Timestamp,
    /// When the last challenge was issued that the browser has answered.
    pub(crate) last_challenge: Timestamp,
}
