//! [`TimeSigner`]: short texts that say a time of a session, and that nobody else can make.

use std::fmt;
use std::hash::Hasher as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::clock::Timestamp;
use crate::error::SessionError;
use crate::id::RecordId;
use crate::record::secret_hash::is_equal_in_constant_time;
use crate::token::keys::{SigningKey, SigningKeys};
use crate::token::random::RandomSource;

const TIME_LEN: usize = size_of::<u64>();
const NONCE_LEN: usize = 8;
const SIGNED_LEN: usize = TIME_LEN + NONCE_LEN;
const TAG_LEN: usize = 16;
const LEN: usize = SIGNED_LEN + TAG_LEN;

/// The length of such a text, in bytes.
pub(super) const TEXT_LEN: usize = (LEN * 4).div_ceil(3);

/// Signs times of sessions, and verifies them.
///
/// A text is 8 bytes of time, 8 random bytes and 16 bytes of a MAC, in base64url. The MAC covers
/// the session and a number as well, which the text does not have.
///
/// The MAC is SipHash-2-4 with 128 bits and a key of its own for each use, which HMAC-SHA256
/// derives from the signing key. SipHash is made for short messages. A guess needs a request, and
/// what a text is good for ends after minutes. HMAC-SHA256 would cost each request of a bound
/// session ten times as much.
#[derive(Clone)]
pub(super) struct TimeSigner {
    signing: SipHasher24,
    verifying: Vec<SipHasher24>,
}

/// What the time is about: a session, and a number of it.
#[derive(Clone, Copy)]
pub(super) struct About {
    pub(super) id: RecordId,
    pub(super) number: u64,
}

impl TimeSigner {
    /// A signer for one use, of the layer with this cookie name.
    pub(super) fn new(keys: &SigningKeys, usage: &str, name: &str) -> Self {
        let context = format!("cloakroom {usage} 1\0{name}");
        let prepare = |key: &SigningKey| {
            let derived = key.derive(context.as_bytes());
            let (left, _) = derived.split_at(16);
            let mut own = [0; 16];
            own.copy_from_slice(left);
            SipHasher24::new_with_key(&own)
        };
        Self {
            signing: prepare(keys.signing()),
            verifying: keys.verifying().iter().map(prepare).collect(),
        }
    }

    pub(super) fn sign(
        &self,
        about: About,
        time: Timestamp,
        random: &RandomSource,
    ) -> Result<String, SessionError> {
        let nonce: [u8; NONCE_LEN] = random.bytes()?;
        let mut bytes = [0; LEN];
        let (signed, tag) = bytes.split_at_mut(SIGNED_LEN);
        let (own_time, own_nonce) = signed.split_at_mut(TIME_LEN);
        own_time.copy_from_slice(&time.as_millis().to_be_bytes());
        own_nonce.copy_from_slice(&nonce);
        tag.copy_from_slice(&mac(&self.signing, about, signed));
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The time that a text says, if this signer has made it about the same.
    pub(super) fn verify(&self, about: About, text: &[u8]) -> Option<Timestamp> {
        let mut bytes = [0; LEN];
        if text.len() != TEXT_LEN || URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) != Ok(LEN) {
            return None;
        }
        let (signed, presented) = bytes.split_at(SIGNED_LEN);
        let presented = *presented.first_chunk()?;
        let mut keys = std::iter::once(&self.signing).chain(&self.verifying);
        let is_good = keys.any(|key| is_equal_in_constant_time(mac(key, about, signed), presented));
        let time = u64::from_be_bytes(*signed.first_chunk()?);
        is_good.then(|| Timestamp::from_millis(time))
    }
}

fn mac(prepared: &SipHasher24, about: About, signed: &[u8]) -> [u8; TAG_LEN] {
    let mut mac = *prepared;
    mac.write(about.id.as_bytes());
    mac.write(&about.number.to_be_bytes());
    mac.write(signed);
    mac.finish128().as_bytes()
}

impl fmt::Debug for TimeSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TimeSigner(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [u8; 2] = [7, 8];

    fn key(byte: u8) -> SigningKey {
        SigningKey::from_bytes(&[byte; 64]).unwrap()
    }

    fn about(id: u8, number: u64) -> About {
        About {
            id: RecordId::from_bytes([id; 16]),
            number,
        }
    }

    #[test]
    fn a_text_is_good_for_its_session_number_use_and_name_only() {
        let keys = SigningKeys::new(key(KEYS[0]));
        let signer = TimeSigner::new(&keys, "a", "name");
        let time = Timestamp::from_millis(1_700_000_000_000);
        let text = signer
            .sign(about(1, 2), time, &RandomSource::default())
            .unwrap();
        assert_eq!(text.len(), TEXT_LEN);
        assert_eq!(signer.verify(about(1, 2), text.as_bytes()), Some(time));
        assert_eq!(signer.verify(about(1, 3), text.as_bytes()), None);
        assert_eq!(signer.verify(about(2, 2), text.as_bytes()), None);
        for (usage, name) in [("b", "name"), ("a", "other")] {
            let other = TimeSigner::new(&keys, usage, name);
            assert_eq!(other.verify(about(1, 2), text.as_bytes()), None);
        }
        for at in 0..TEXT_LEN {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(signer.verify(about(1, 2), &changed), None, "{at}");
        }
        for other in [&text[1..], &format!("{text}="), &format!("{text}A"), ""] {
            assert_eq!(signer.verify(about(1, 2), other.as_bytes()), None);
        }
    }

    #[test]
    fn a_key_that_only_verifies_is_good_too() {
        let old = TimeSigner::new(&SigningKeys::new(key(7)), "a", "name");
        let time = Timestamp::from_millis(5);
        let text = old
            .sign(about(1, 2), time, &RandomSource::default())
            .unwrap();
        let both = SigningKeys::new(key(8)).also_verify(key(7));
        let both = TimeSigner::new(&both, "a", "name");
        assert_eq!(both.verify(about(1, 2), text.as_bytes()), Some(time));
        let new = TimeSigner::new(&SigningKeys::new(key(8)), "a", "name");
        assert_eq!(new.verify(about(1, 2), text.as_bytes()), None);
    }
}
