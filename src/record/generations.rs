//! [`Generations`]: which tokens of a session are known, where the layer rotates tokens.

use super::secret_hash::SecretHash;
use crate::clock::Timestamp;

/// The number of a token. The tokens of one session are counted from 1. A token of a layer that
/// does not rotate tokens has the number 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Serial(u32);

impl Serial {
    /// The length of a serial, in bytes.
    pub(crate) const LEN: usize = size_of::<u32>();

    /// The serial of every token of a layer that does not rotate tokens.
    pub(crate) const NONE: Self = Self(0);

    pub(crate) const FIRST: Self = Self(1);

    pub(crate) const fn from_u32(number: u32) -> Self {
        Self(number)
    }

    pub(crate) const fn as_u32(self) -> u32 {
        self.0
    }

    pub(crate) const fn next(self) -> Self {
        // A client would need thousands of years to get there.
        Self(self.0.saturating_add(1))
    }
}

/// A token that the record knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownToken {
    pub(crate) serial: Serial,
    pub(crate) secret_hash: SecretHash,
}

/// Which tokens of a session are known besides the newest one, whose hash is the record's own.
#[derive(Clone, Debug)]
pub(crate) struct Generations {
    /// The first token of this login. Older tokens are dead.
    pub(crate) first: Serial,
    pub(crate) newest: Serial,
    /// The other tokens of the newest generation. The layer makes a second token of a generation if
    /// the answer with the first one seems to be lost.
    pub(crate) siblings: Vec<KnownToken>,
    /// The tokens that those of the newest generation replace.
    pub(crate) parents: Vec<KnownToken>,
    /// When a token of the newest generation was first used.
    pub(crate) seen_at: Option<Timestamp>,
    /// When the newest token was made.
    pub(crate) made_at: Timestamp,
}

impl Generations {
    /// Those of a session that has only this token.
    pub(crate) fn beginning_with(newest: Serial, now: Timestamp) -> Self {
        Self {
            first: newest,
            newest,
            siblings: Vec::new(),
            parents: Vec::new(),
            // Nobody asks, since there are no parents.
            seen_at: Some(now),
            made_at: now,
        }
    }

    /// About how many bytes of memory they take.
    #[cfg(feature = "near-cache")]
    pub(crate) fn memory_size(&self) -> usize {
        let tokens = self.siblings.len() + self.parents.len();
        size_of::<Self>() + tokens * size_of::<KnownToken>()
    }
}
