//! [`SecretHash`]: what the store keeps of a token's secret.

use std::fmt;

use subtle::ConstantTimeEq;

/// The half of a token's MAC that no client has.
#[derive(Clone, Copy)]
pub(crate) struct SecretHash([u8; Self::LEN]);

impl SecretHash {
    /// The length of a hash, in bytes.
    pub(crate) const LEN: usize = 16;

    pub(crate) const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
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
