//! [`Refusal`]: why a service refuses an assertion.

use super::{AssertionError, AssertionErrorKind};
use crate::jose::compact::Malformed;

/// What is wrong with an assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    SeveralHeaders,
    TooLong,
    NotAToken,
    Base64,
    Json,
    Type,
    Critical,
    Header,
    Algorithm,
    OtherAlgorithm,
    NoKid,
    Issuer,
    Audience,
    Claims,
    Expired,
    FromTheFuture,
    NotYet,
    TooLongLived,
    UnknownKey,
    Signature,
}

impl Refusal {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::SeveralHeaders => "the request has several Authorization headers",
            Self::TooLong => "the assertion is too long",
            Self::NotAToken => "the assertion is not three parts of a JWT",
            Self::Base64 => "a part of the assertion is not base64url",
            Self::Json => "a part of the assertion is not a JSON object, or names something twice",
            Self::Type => "the type of the token is not assertion+jwt",
            Self::Critical => "the assertion has an extension that must be understood",
            Self::Header => "the header of the assertion has more than typ, alg and kid",
            Self::Algorithm => "the algorithm of the assertion is neither ES256 nor EdDSA",
            Self::OtherAlgorithm => "the algorithm of the assertion is not that of its key",
            Self::NoKid => "the assertion does not name its key",
            Self::Issuer => "the assertion is of another issuer",
            Self::Audience => "the assertion is for another audience",
            Self::Claims => "a claim of the assertion is missing or malformed",
            Self::Expired => "the assertion has expired",
            Self::FromTheFuture => "the assertion was issued in the future",
            Self::NotYet => "the assertion is not good yet",
            Self::TooLongLived => "the assertion is good for longer than the service allows",
            Self::UnknownKey => "the issuer does not publish the key of the assertion",
            Self::Signature => "the signature is wrong",
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

impl From<Refusal> for AssertionError {
    fn from(refusal: Refusal) -> Self {
        Self::new(AssertionErrorKind::Refused, refusal.as_str())
    }
}
