//! [`SecretHash`]: what the store keeps of a token's secret.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;

/// The half of a token's MAC that no client has.
#[derive(Clone, Copy)]
pub(crate) struct SecretHash([u8; Self::LEN]);

impl SecretHash {
    /// The length of a hash, in bytes.
    pub(crate) const LEN: usize = 16;

    /// The length of its text in a record, in bytes.
    const TEXT_LEN: usize = (Self::LEN * 4).div_ceil(3);

    pub(crate) const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Whether two hashes are equal, in constant time.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        is_equal_in_constant_time(self.0, other.0)
    }
}

/// A comparison that takes the same time wherever the first difference is (CVE-2013-0263).
pub(crate) fn is_equal_in_constant_time(
    a: [u8; SecretHash::LEN],
    b: [u8; SecretHash::LEN],
) -> bool {
    u128::from_ne_bytes(a).ct_eq(&u128::from_ne_bytes(b)).into()
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

impl Serialize for SecretHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = [0; Self::TEXT_LEN];
        let _ = STANDARD_NO_PAD.encode_slice(self.0, &mut text);
        serializer.serialize_str(str::from_utf8(&text).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for SecretHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let mut bytes = [0; Self::LEN];
        match STANDARD_NO_PAD.decode_slice(&*text, &mut bytes) {
            Ok(Self::LEN) => Ok(Self(bytes)),
            _ => Err(D::Error::custom("not a hash")),
        }
    }
}
