//! The token: what the client holds. The other files of this folder make it, check it and carry it.
//!
//! A token is 16 bytes of record id, 4 bytes of serial, 16 bytes of secret and 16 bytes of a MAC,
//! in base64url: 70 characters. The MAC is over a context, the id, the serial and the secret. The
//! store keeps the record under the id, and the other 16 bytes of the MAC as the hash of the
//! secret. So whoever reads the store learns neither the secret nor the half that clients send. A
//! request costs one MAC, instead of a MAC and a hash. Half of HMAC-SHA256 is as much as RFC 2104,
//! section 5, asks for.

pub(crate) mod cookie;
pub(crate) mod keys;
pub(crate) mod presented;
pub(crate) mod random;
pub(crate) mod signer;
pub(crate) mod transport;

use crate::id::RecordId;
use crate::record::RecordFields;
use crate::record::generations::Serial;
use crate::record::secret_hash::SecretHash;

const SECRET_LEN: usize = 16;
const TAG_LEN: usize = SecretHash::LEN;
const SIGNED_LEN: usize = RecordId::LEN + Serial::LEN + SECRET_LEN;
const TOKEN_LEN: usize = SIGNED_LEN + TAG_LEN;

/// The length of an encoded token, in bytes.
const ENCODED_LEN: usize = (TOKEN_LEN * 4).div_ceil(3);

/// A token whose MAC is good. It does not keep the secret.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionToken {
    id: RecordId,
    serial: Serial,
    secret_hash: SecretHash,
}

impl SessionToken {
    /// The token that the record of this id has now. Only its client knows the secret.
    pub(crate) fn of_record(id: RecordId, fields: &RecordFields) -> Self {
        Self {
            id,
            serial: fields.newest_serial(),
            secret_hash: fields.secret_hash(),
        }
    }

    /// The id of the record that the token leads to.
    pub(crate) fn id(&self) -> RecordId {
        self.id
    }

    /// Which of the session's tokens it is, where the layer counts them.
    pub(crate) fn serial(&self) -> Serial {
        self.serial
    }

    /// Whether both are the same token.
    fn is_same(&self, other: &Self) -> bool {
        self.id == other.id && self.secret_hash.matches(&other.secret_hash)
    }

    /// The hash that the record has, unless the token was rotated.
    pub(crate) fn secret_hash(&self) -> SecretHash {
        self.secret_hash
    }
}

/// The tokens of one request whose MAC is good. A browser sends several if the site changed its
/// cookie's path or domain: it sends the old cookie beside the new one.
#[derive(Debug)]
pub(crate) enum VerifiedTokens {
    One(SessionToken),
    Several {
        tokens: Vec<SessionToken>,
        /// How many of the first are bearer tokens, if the request has a bearer token, good or not,
        /// and the rest are of the cookie.
        bearer: Option<usize>,
    },
}

impl VerifiedTokens {
    /// Each token costs a call of the store. A browser has one for each path and domain that the
    /// site ever used.
    const MAX: usize = 4;

    fn push(&mut self, token: SessionToken) {
        match self {
            Self::One(first) => {
                *self = Self::Several {
                    tokens: vec![*first, token],
                    bearer: None,
                };
            }
            Self::Several { tokens, .. } => tokens.push(token),
        }
    }

    fn as_slice(&self) -> &[SessionToken] {
        match self {
            Self::One(token) => std::slice::from_ref(token),
            Self::Several { tokens, .. } => tokens,
        }
    }
}

/// Why the layer accepts nothing of what a client presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    BadSignature,
    /// More good tokens than [`VerifiedTokens::MAX`].
    TooMany,
}

impl Rejected {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::BadSignature => "bad signature",
            Self::TooMany => "too many different tokens",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::marker::PhantomData;

    use super::keys::{SigningKey, SigningKeys};
    use super::presented::{EncodedToken, PresentedTokens};
    use super::*;

    /// Whether a type has an `==`. The compiler takes the constant of the type itself before that
    /// of the trait, where the bound of the type's own holds.
    struct Equality<T>(PhantomData<T>);

    impl<T: PartialEq> Equality<T> {
        const IS_THERE: bool = true;
    }

    trait NoEquality {
        const IS_THERE: bool = false;
    }

    impl<T> NoEquality for Equality<T> {}

    #[test]
    fn secrets_and_their_hashes_have_no_equality_but_that_in_constant_time() {
        let secrets = [
            Equality::<SecretHash>::IS_THERE,
            Equality::<SessionToken>::IS_THERE,
            Equality::<EncodedToken>::IS_THERE,
            Equality::<PresentedTokens>::IS_THERE,
            Equality::<SigningKey>::IS_THERE,
            Equality::<SigningKeys>::IS_THERE,
        ];
        assert_eq!(secrets, [false; 6]);
        // Types without a secret show that the test would see an `==`.
        let public = [
            Equality::<RecordId>::IS_THERE,
            Equality::<Rejected>::IS_THERE,
        ];
        assert_eq!(public, [true; 2]);
    }
}
