//! [`Signer`]: makes and verifies tokens. The format of a token is here alone.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::keys::{SigningKey, SigningKeys};
use super::presented::{EncodedToken, PresentedTokens};
use super::random::RandomSource;
use super::{
    ENCODED_LEN, Rejected, SECRET_LEN, SIGNED_LEN, SessionToken, TAG_LEN, TOKEN_LEN, VerifiedTokens,
};
use crate::error::SessionError;
use crate::id::RecordId;
use crate::record::generations::Serial;
use crate::record::secret_hash::{SecretHash, is_equal_in_constant_time};

/// Signs and verifies the tokens of one cookie name. It prepares the state of each MAC once.
#[derive(Clone)]
pub(crate) struct Signer {
    signing: Hmac<Sha256>,
    verifying: Vec<Hmac<Sha256>>,
}

impl Signer {
    pub(crate) fn new(keys: &SigningKeys, name: &str) -> Self {
        // The MAC covers the format's version and the cookie's name, so that a value is worth
        // nothing under another name. The context fills whole blocks of SHA-256. They are digested
        // here, and not once a request. A name holds no NUL.
        let mut context = format!("cloakroom token 2\0{name}").into_bytes();
        context.resize(context.len().next_multiple_of(64), 0);
        let prepare = |key: &SigningKey| key.mac_after(&context);
        Self {
            signing: prepare(keys.signing()),
            verifying: keys.verifying().iter().map(prepare).collect(),
        }
    }

    /// A token of this id and serial with a new secret, and the text of it that the client gets.
    pub(crate) fn issue(
        &self,
        id: RecordId,
        serial: Serial,
        random: &RandomSource,
    ) -> Result<(SessionToken, EncodedToken), SessionError> {
        let secret: [u8; SECRET_LEN] = random.bytes()?;
        let mut bytes = [0; TOKEN_LEN];
        let (signed, tag) = bytes.split_at_mut(SIGNED_LEN);
        let (own_id, rest) = signed.split_at_mut(RecordId::LEN);
        own_id.copy_from_slice(id.as_bytes());
        let (own_serial, own_secret) = rest.split_at_mut(Serial::LEN);
        own_serial.copy_from_slice(&serial.as_u32().to_be_bytes());
        own_secret.copy_from_slice(&secret);
        let (new_tag, secret_hash) = mac(&self.signing, signed);
        tag.copy_from_slice(&new_tag);
        let mut encoded = [0; ENCODED_LEN];
        let _ = URL_SAFE_NO_PAD.encode_slice(bytes, &mut encoded);
        let token = SessionToken {
            id,
            serial,
            secret_hash,
        };
        Ok((token, EncodedToken::new(encoded)))
    }

    /// The good tokens among those presented. Nearly always there is one.
    pub(crate) fn verify(&self, presented: &PresentedTokens) -> Result<VerifiedTokens, Rejected> {
        if let PresentedTokens::Several {
            tokens,
            bearer: Some(bearer),
        } = presented
        {
            return self.verify_both(tokens, *bearer);
        }
        let mut candidates = presented.candidates().iter();
        let (first, token) = candidates
            .find_map(|candidate| Some((candidate, self.verify_one(candidate)?)))
            .ok_or(Rejected::BadSignature)?;
        let mut good = VerifiedTokens::One(token);
        let mut seen = vec![];
        for candidate in candidates {
            let is_known = std::iter::once(&first)
                .chain(&seen)
                .any(|known| known.is_equal(candidate));
            if is_known {
                continue;
            }
            if let Some(token) = self.verify_one(candidate) {
                seen.push(candidate);
                // A token that is left out could be the one of the live session. So none is taken.
                if seen.len() >= VerifiedTokens::MAX {
                    return Err(Rejected::TooMany);
                }
                good.push(token);
            }
        }
        Ok(good)
    }

    /// The good tokens of a request with a bearer token and a cookie.
    #[cold]
    fn verify_both(
        &self,
        presented: &[EncodedToken],
        bearer: usize,
    ) -> Result<VerifiedTokens, Rejected> {
        let (bearer, cookie) = presented
            .split_at_checked(bearer)
            .unwrap_or((presented, &[]));
        let of = |one_way| match self.verify(&PresentedTokens::of_one_way(one_way)) {
            Ok(good) => Ok(good.as_slice().to_vec()),
            Err(Rejected::BadSignature) => Ok(Vec::new()),
            Err(Rejected::TooMany) => Err(Rejected::TooMany),
        };
        let (mut tokens, mut of_cookie) = (of(bearer)?, of(cookie)?);
        let bearer = tokens.len();
        of_cookie.retain(|token| !tokens.iter().any(|known| known.is_same(token)));
        tokens.append(&mut of_cookie);
        match *tokens {
            [] => Err(Rejected::BadSignature),
            [token] if bearer == 1 => Ok(VerifiedTokens::One(token)),
            _ if tokens.len() > VerifiedTokens::MAX => Err(Rejected::TooMany),
            _ => Ok(VerifiedTokens::Several {
                bearer: (bearer < tokens.len()).then_some(bearer),
                tokens,
            }),
        }
    }

    fn verify_one(&self, token: &EncodedToken) -> Option<SessionToken> {
        let mut bytes = [0; TOKEN_LEN];
        if URL_SAFE_NO_PAD.decode_slice(token.as_bytes(), &mut bytes) != Ok(TOKEN_LEN) {
            return None;
        }
        let (signed, presented) = bytes.split_at(SIGNED_LEN);
        let (id, rest) = signed.split_first_chunk()?;
        let id = RecordId::from_bytes(*id);
        let serial = Serial::from_u32(u32::from_be_bytes(*rest.first_chunk()?));
        let presented = *presented.first_chunk()?;
        std::iter::once(&self.signing)
            .chain(&self.verifying)
            .find_map(|key| {
                let (tag, secret_hash) = mac(key, signed);
                is_equal_in_constant_time(tag, presented).then_some(SessionToken {
                    id,
                    serial,
                    secret_hash,
                })
            })
    }
}

/// The half of the MAC that the client gets, and the half that the store gets.
fn mac(prepared: &Hmac<Sha256>, signed: &[u8]) -> ([u8; TAG_LEN], SecretHash) {
    let mut mac = prepared.clone();
    mac.update(signed);
    let mac: [u8; 2 * TAG_LEN] = mac.finalize().into_bytes().into();
    let (mut tag, mut hash) = ([0; TAG_LEN], [0; TAG_LEN]);
    let (left, right) = mac.split_at(TAG_LEN);
    tag.copy_from_slice(left);
    hash.copy_from_slice(right);
    (tag, SecretHash::from_bytes(hash))
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(..)")
    }
}
