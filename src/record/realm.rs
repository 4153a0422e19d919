//! [`Realm`]: whose users a layer's users are.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::user::UserId;
use crate::error::ConfigError;

/// The set of users that a layer's users belong to. Two layers of one realm have the same users.
#[derive(Clone, Debug)]
pub(crate) struct Realm(Arc<str>);

impl Realm {
    /// The length of the longest realm, in bytes.
    pub(super) const MAX_LEN: usize = 64;

    /// The realm that the application named.
    pub(crate) fn named(name: &str) -> Result<Self, ConfigError> {
        let is_good =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte);
        match name.len() {
            1..=Self::MAX_LEN if name.bytes().all(is_good) => Ok(Self(name.into())),
            _ => Err(ConfigError::new(
                "realm",
                "it must be 1 to 64 ASCII letters, digits or signs such as - and _, without a colon",
            )),
        }
    }

    /// The realm of a layer whose application named none. It comes from the cookie's name.
    pub(crate) fn of_cookie(name: &str) -> Self {
        match name.len() {
            0..=Self::MAX_LEN => Self(name.into()),
            // Two long names have two hashes.
            _ => {
                let hash = Sha256::digest(name);
                let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
                Self(hex.into())
            }
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// A user of this realm, as a store gets them.
    pub(crate) fn qualify(&self, user: &UserId) -> UserId {
        UserId::stored(format!("{}:{user}", self.0).into())
    }

    /// Whether a user, as a store has them, is of this realm.
    pub(crate) fn has(&self, user: &UserId) -> bool {
        let rest = user.as_str().strip_prefix(&*self.0);
        rest.is_some_and(|rest| rest.starts_with(':'))
    }
}
