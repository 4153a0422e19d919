//! [`PresentedTokens`]: what a client sent as its token, before anybody verified it.

use std::fmt;

use subtle::ConstantTimeEq;

use super::ENCODED_LEN;

/// A token as it travels, or text of the same length that nobody has verified yet.
#[derive(Clone)]
#[repr(align(8))] // As a record id is.
pub(crate) struct EncodedToken([u8; ENCODED_LEN]);

impl EncodedToken {
    pub(super) fn new(text: [u8; ENCODED_LEN]) -> Self {
        Self(text)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// In constant time as well. Somebody who can plant a cookie beside the good one must not find
    /// the good one letter by letter.
    pub(super) fn is_equal(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(&other.0).into()
    }
}

/// The values of the right length that a request presented as its token.
#[derive(Clone, Default)]
pub(crate) enum PresentedTokens {
    #[default]
    Nothing,
    /// Only values of another length. They cannot be tokens.
    Malformed,
    One(EncodedToken),
    Several {
        /// A browser sends several for cookies of several paths or domains.
        tokens: Vec<EncodedToken>,
        /// How many of the first are bearer tokens, if the request has a bearer token and a cookie.
        /// The rest are of the cookie. Each may have none, because malformed values are not here.
        bearer: Option<usize>,
    },
}

impl PresentedTokens {
    /// What a request presented as its bearer token, and what it presented as its cookie.
    pub(super) fn beside(bearer: Self, cookie: Self) -> Self {
        match (bearer.is_anything(), cookie.is_anything()) {
            (true, true) => Self::Several {
                tokens: [bearer.candidates(), cookie.candidates()].concat(),
                bearer: Some(bearer.candidates().len()),
            },
            (true, false) => bearer,
            (false, _) => cookie,
        }
    }

    /// Values that came in one way.
    pub(super) fn of_one_way(tokens: &[EncodedToken]) -> Self {
        Self::Several {
            tokens: tokens.to_vec(),
            bearer: None,
        }
    }

    /// Whether the request has a bearer token and a cookie, good or not.
    pub(super) fn is_of_both(&self) -> bool {
        matches!(
            self,
            Self::Several {
                bearer: Some(_),
                ..
            }
        )
    }

    /// Adds a value if it could be a token.
    pub(super) fn push(&mut self, value: &[u8]) {
        let Ok(token) = value.try_into().map(EncodedToken) else {
            if let Self::Nothing = self {
                *self = Self::Malformed;
            }
            return;
        };
        *self = match std::mem::take(self) {
            Self::Nothing | Self::Malformed => Self::One(token),
            Self::One(first) => Self::Several {
                tokens: vec![first, token],
                bearer: None,
            },
            Self::Several { mut tokens, bearer } => {
                tokens.push(token);
                Self::Several { tokens, bearer }
            }
        };
    }

    /// Whether the client sent anything under the name, good or not.
    pub(crate) fn is_anything(&self) -> bool {
        !matches!(self, Self::Nothing)
    }

    /// Whether there is something to verify.
    pub(crate) fn has_candidates(&self) -> bool {
        matches!(self, Self::One(_) | Self::Several { .. })
    }

    pub(super) fn candidates(&self) -> &[EncodedToken] {
        match self {
            Self::Nothing | Self::Malformed => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Several { tokens, .. } => tokens,
        }
    }
}

impl fmt::Debug for PresentedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PresentedTokens({})", self.candidates().len())
    }
}
