//! [`Challenges`]: what a browser signs to prove that it has the key of its device.

use std::time::Duration;

use super::refusal::Refusal;
use super::signed_time::{About, TimeSigner};
use crate::clock::Timestamp;
use crate::error::SessionError;
use crate::id::RecordId;
use crate::record::device::BoundDevice;
use crate::token::keys::SigningKeys;
use crate::token::random::RandomSource;

/// What a challenge is for. One of another purpose is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The registration that follows this login.
    Registration { login_at: Timestamp },
    /// A refresh of this binding.
    Refresh {
        bound_at: Timestamp,
        last_challenge: Timestamp,
    },
}

impl Purpose {
    /// A refresh of this device.
    pub(crate) fn refresh_of(device: &BoundDevice) -> Self {
        Self::Refresh {
            bound_at: device.bound_at,
            last_challenge: device.last_challenge,
        }
    }
}

/// Makes challenges, each for one session, and knows them again. No store keeps them.
#[derive(Clone, Debug)]
pub(crate) struct Challenges {
    registration: TimeSigner,
    refresh: TimeSigner,
    lifetime: Duration,
}

impl Challenges {
    pub(super) fn new(keys: &SigningKeys, name: &str, lifetime: Duration) -> Self {
        Self {
            registration: TimeSigner::new(keys, "registration challenge", name),
            refresh: TimeSigner::new(keys, "refresh challenge", name),
            lifetime,
        }
    }

    /// A challenge that is issued now. It is newer than the last one that was used, even if the
    /// clock of another node is ahead.
    pub(crate) fn issue(
        &self,
        purpose: Purpose,
        id: RecordId,
        now: Timestamp,
        random: &RandomSource,
    ) -> Result<String, SessionError> {
        let issued_at = match purpose {
            Purpose::Registration { .. } => now,
            Purpose::Refresh { last_challenge, .. } => now.max(last_challenge.plus_millis(1)),
        };
        let (signer, about) = self.signer(purpose, id);
        signer.sign(about, issued_at, random)
    }

    /// When a challenge was issued, if it is still good. Each challenge is good once, and none that
    /// is older than one that was used.
    pub(crate) fn check(
        &self,
        challenge: &str,
        purpose: Purpose,
        id: RecordId,
        now: Timestamp,
    ) -> Result<Timestamp, Refusal> {
        let (signer, about) = self.signer(purpose, id);
        let issued_at = signer
            .verify(about, challenge.as_bytes())
            .ok_or(Refusal::ChallengeOfOthers)?;
        if now.since(issued_at) >= self.lifetime {
            return Err(Refusal::ChallengeTooOld);
        }
        match purpose {
            Purpose::Refresh { last_challenge, .. } if issued_at <= last_challenge => {
                Err(Refusal::ChallengeUsed)
            }
            _ => Ok(issued_at),
        }
    }

    fn signer(&self, purpose: Purpose, id: RecordId) -> (&TimeSigner, About) {
        let (signer, time) = match purpose {
            Purpose::Registration { login_at } => (&self.registration, login_at),
            Purpose::Refresh { bound_at, .. } => (&self.refresh, bound_at),
        };
        let number = time.as_millis();
        (signer, About { id, number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::keys::SigningKey;

    const ID: RecordId = RecordId::from_bytes([1; 16]);
    const OTHER: RecordId = RecordId::from_bytes([2; 16]);
    const LIFETIME: Duration = Duration::from_secs(300);

    const BOUND_AT: Timestamp = Timestamp::from_millis(500_000);

    fn challenges() -> Challenges {
        let key = SigningKey::from_bytes(&[7; 64]).unwrap();
        Challenges::new(&key.into(), "name", LIFETIME)
    }

    fn refresh_after(last: u64) -> Purpose {
        Purpose::Refresh {
            bound_at: BOUND_AT,
            last_challenge: Timestamp::from_millis(last),
        }
    }

    #[test]
    fn a_challenge_is_good_for_its_session_and_purpose_for_a_while() {
        let challenges = challenges();
        let now = Timestamp::from_millis(1_000_000);
        let refresh = refresh_after(0);
        let registration = Purpose::Registration { login_at: BOUND_AT };
        let other_binding = Purpose::Refresh {
            bound_at: now,
            last_challenge: BOUND_AT,
        };
        let random = RandomSource::default();
        for (purpose, others) in [
            (refresh, [registration, other_binding]),
            (
                registration,
                [refresh, Purpose::Registration { login_at: now }],
            ),
        ] {
            let text = challenges.issue(purpose, ID, now, &random).unwrap();
            let check = |purpose, id, now| challenges.check(&text, purpose, id, now);
            assert_eq!(check(purpose, ID, now), Ok(now));
            let end = now + LIFETIME;
            assert_eq!(check(purpose, ID, end.minus_millis(1)), Ok(now));
            assert_eq!(check(purpose, ID, end), Err(Refusal::ChallengeTooOld));
            // The clock of another node is ahead.
            assert_eq!(check(purpose, ID, now.minus_millis(5)), Ok(now));
            let foreign = Err(Refusal::ChallengeOfOthers);
            assert_eq!(check(purpose, OTHER, now), foreign);
            for other in others {
                assert_eq!(check(other, ID, now), foreign);
            }
        }
    }

    #[test]
    fn a_challenge_is_used_once_and_the_next_is_always_newer() {
        let challenges = challenges();
        let random = RandomSource::default();
        let now = Timestamp::from_millis(1_000_000);
        let mut last = 0;
        let mut used = Vec::new();
        // The clock stands still.
        for _ in 0..3 {
            let purpose = refresh_after(last);
            let text = challenges.issue(purpose, ID, now, &random).unwrap();
            last = challenges
                .check(&text, purpose, ID, now)
                .unwrap()
                .as_millis();
            used.push(text);
        }
        for text in &used {
            let again = challenges.check(text, refresh_after(last), ID, now);
            assert_eq!(again, Err(Refusal::ChallengeUsed));
        }
        // Two challenges are under way. The browser may answer the older one first.
        let older = challenges
            .issue(refresh_after(last), ID, now, &random)
            .unwrap();
        let newer = now.plus_millis(10);
        assert!(
            challenges
                .check(&older, refresh_after(last), ID, newer)
                .is_ok()
        );
        let newer = challenges
            .issue(refresh_after(last), ID, newer, &random)
            .unwrap();
        let later = now.plus_millis(20);
        let used = challenges
            .check(&newer, refresh_after(last), ID, later)
            .unwrap();
        let again = challenges.check(&older, refresh_after(used.as_millis()), ID, later);
        assert_eq!(again, Err(Refusal::ChallengeUsed));
    }
}
