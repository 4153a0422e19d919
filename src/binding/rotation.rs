//! The rule of the rotation of tokens, with the detection of reuse (RFC 9700, section 4.14.2).
//!
//! The layer replaces a token once it is older than the interval. The replaced token, the *parent*,
//! stays good until somebody uses the new one, and for a grace period after that. So parallel
//! requests do not fight, and an answer that is lost logs nobody out: a client that comes again
//! with the parent gets another new token, a *sibling* of the first. If a client comes with any
//! other token of this login, two clients have had it, and one of them has a copy.
//!
//! This file is pure: it calls no store and no clock.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::record::RecordFields;
use crate::record::generations::{Generations, KnownToken, Serial};
use crate::record::secret_hash::SecretHash;
use crate::token::SessionToken;

/// How many tokens of one generation the record knows.
const MAX_SIBLINGS: usize = 4;

/// For how long a parent stays good after its child was first used. It is half a minute for
/// requests that are under way, and half a minute for clocks of nodes that differ.
const GRACE: Duration = Duration::from_secs(60);

/// What the holder of a good MAC brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// A token of the newest generation.
    Current,
    /// A token that was just replaced, and is still good.
    Parent,
    /// A token of before the last login, or one that no longer means anything. It is refused in
    /// silence.
    Dead,
    /// A token of this login that two clients have.
    Reused,
}

/// What a request with a good token makes of the record's generations.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The client has received its new token.
    Seen(Generations),
    /// The client gets a new token, whose serial is the newest.
    Replace(Generations),
}

/// When a request may carry a new token to its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Chance {
    /// The answer cannot carry a token, or nobody waits for an answer.
    #[default]
    Never,
    /// A part of a page, such as a script's request. If its answer came after that of a login, it
    /// would take the login away. So it carries a token only if one is long due.
    Late,
    /// A navigation, or a client that does not say.
    Now,
}

/// The setting of a layer that rotates tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rotation {
    every: Duration,
}

/// Where a token stands in a record.
pub(crate) fn standing(fields: &RecordFields, token: &SessionToken, now: Timestamp) -> Standing {
    let (serial, hash) = (token.serial(), &token.secret_hash());
    if fields.secret_hash().matches(hash) {
        return Standing::Current;
    }
    let Some(known) = fields.generations() else {
        // The layer rotates tokens only at logins and the like.
        return Standing::Dead;
    };
    let among = |tokens: &[KnownToken]| tokens.iter().find(|it| it.serial == serial).copied();
    let is_good = |token: KnownToken| token.secret_hash.matches(hash);
    if let Some(sibling) = among(&known.siblings) {
        return match is_good(sibling) {
            true => Standing::Current,
            false => Standing::Dead,
        };
    }
    if let Some(parent) = among(&known.parents) {
        return match (is_good(parent), known.seen_at) {
            (false, _) => Standing::Dead,
            // By a clock that is behind, it was seen in the future, and the grace period goes on.
            (true, Some(seen)) if now.since(seen) >= GRACE => Standing::Reused,
            (true, _) => Standing::Parent,
        };
    }
    // The store may have lost the last writes, for example in a failover. Then the client's token
    // is newer than the record knows, and nobody has copied anything.
    if serial < known.first || serial >= known.newest {
        return Standing::Dead;
    }
    Standing::Reused
}

/// Whether the newest token was made after a request that came at this time, or so shortly before
/// that its token may have been good then.
pub(crate) fn was_replaced_since(fields: &RecordFields, arrived_at: Timestamp) -> bool {
    fields
        .generations()
        .is_some_and(|known| arrived_at <= known.made_at + GRACE)
}

/// Whether a request or a socket that was let in with this token may still go on. The token may be
/// a parent of a parent by now, since handlers and sockets can last longer than any interval.
pub(crate) fn is_of_this_login(
    newest: &SecretHash,
    generations: Option<&Generations>,
    token: &SessionToken,
) -> bool {
    if newest.matches(&token.secret_hash()) {
        return true;
    }
    generations.is_some_and(|known| {
        let serial = token.serial();
        let is_parent = known.parents.iter().any(|parent| parent.serial == serial);
        is_parent || (known.first <= serial && serial < known.newest)
    })
}

impl Rotation {
    /// The shortest interval.
    pub(crate) const MIN: Duration = Duration::from_secs(60);

    pub(crate) fn new(every: Duration) -> Self {
        Self { every }
    }

    /// What a request with this token, which is good, makes of the record. `None` if nothing
    /// changes.
    pub(crate) fn step(
        self,
        fields: &RecordFields,
        token: &SessionToken,
        now: Timestamp,
        chance: Chance,
    ) -> Option<Step> {
        if chance == Chance::Never {
            return None;
        }
        let Some(known) = fields.generations() else {
            return self.begin(fields, token, now, chance);
        };
        match standing(fields, token, now) {
            Standing::Current => {
                if self.is_due(known.made_at, self.every, now, chance) {
                    let parents = current(fields, known);
                    return Some(replace(known, parents, Vec::new(), now));
                }
                known.seen_at.is_none().then(|| {
                    Step::Seen(Generations {
                        seen_at: Some(now),
                        ..known.clone()
                    })
                })
            }
            // The answer with the child seems to be lost.
            Standing::Parent
                if known.seen_at.is_none() && self.is_due(known.made_at, GRACE, now, chance) =>
            {
                let mut siblings = current(fields, known);
                let surplus = (siblings.len() + 1).saturating_sub(MAX_SIBLINGS);
                siblings.drain(..surplus);
                Some(replace(known, known.parents.clone(), siblings, now))
            }
            Standing::Parent | Standing::Dead | Standing::Reused => None,
        }
    }

    /// The first rotation of a session that a layer without rotation has made.
    fn begin(
        self,
        fields: &RecordFields,
        token: &SessionToken,
        now: Timestamp,
        chance: Chance,
    ) -> Option<Step> {
        let made_at = fields.token_rotated_at().unwrap_or(fields.created_at());
        let hash = token.secret_hash();
        let is_due =
            fields.secret_hash().matches(&hash) && self.is_due(made_at, self.every, now, chance);
        is_due.then(|| {
            // The old token has no number, and neither have those of before it.
            let parents = vec![KnownToken {
                serial: Serial::NONE,
                secret_hash: hash,
            }];
            Step::Replace(Generations {
                parents,
                seen_at: None,
                ..Generations::beginning_with(Serial::FIRST, now)
            })
        })
    }

    /// Whether a client gets a new token now, if one was made at `made` and the next is due `after`
    /// that time.
    fn is_due(self, made: Timestamp, after: Duration, now: Timestamp, chance: Chance) -> bool {
        match chance {
            Chance::Never => false,
            Chance::Late => is_over(after.saturating_add(self.every), made, now),
            Chance::Now => is_over(after, made, now),
        }
    }
}

/// Whether a time is over that began at `start`. A start that lies far ahead comes from a wrong
/// clock.
fn is_over(time: Duration, start: Timestamp, now: Timestamp) -> bool {
    now.distance(start) >= time
}

/// The tokens of the newest generation, the oldest first.
fn current(fields: &RecordFields, known: &Generations) -> Vec<KnownToken> {
    let newest = KnownToken {
        serial: known.newest,
        secret_hash: fields.secret_hash(),
    };
    known.siblings.iter().copied().chain([newest]).collect()
}

fn replace(
    known: &Generations,
    parents: Vec<KnownToken>,
    siblings: Vec<KnownToken>,
    now: Timestamp,
) -> Step {
    Step::Replace(Generations {
        first: known.first,
        newest: known.newest.next(),
        siblings,
        parents,
        seen_at: None,
        made_at: now,
    })
}
