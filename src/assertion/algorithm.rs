//! [`Algorithm`]: the two algorithms that sign assertions, and their keys.

use ed25519_dalek::SigningKey as Ed25519Key;
use ed25519_dalek::VerifyingKey as Ed25519Public;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey as P256Key, VerifyingKey as P256Public};
use p256::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, Error, LineEnding};
use zeroize::Zeroizing;

use crate::error::BoxError;
use crate::jose::json::Object;
use crate::jose::{ed25519, encode, es256};

/// How an assertion is signed. A key has one algorithm, and verifies nothing that names another
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Es256,
    EdDsa,
}

impl Algorithm {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let all = [Self::Es256, Self::EdDsa];
        all.into_iter().find(|algorithm| algorithm.as_str() == text)
    }
}

/// A private key. Both types wipe their bytes when they are dropped.
#[derive(Clone)]
pub(super) enum PrivateKey {
    P256(P256Key),
    Ed25519(Ed25519Key),
}

impl PrivateKey {
    /// The key of one block of PEM. The answer does not say what is wrong with a bad block, because
    /// the block may be a key.
    pub(super) fn from_pem(block: &str) -> Option<Self> {
        let p256 = P256Key::from_pkcs8_pem(block).map(Self::P256);
        let key = p256.or_else(|_| Ed25519Key::from_pkcs8_pem(block).map(Self::Ed25519));
        key.ok()
    }

    pub(super) fn to_pem(&self) -> Result<Zeroizing<String>, Error> {
        match self {
            Self::P256(key) => key.to_pkcs8_pem(LineEnding::LF),
            // Without the public half, as openssl writes it.
            Self::Ed25519(key) => {
                let alone = ed25519_dalek::pkcs8::KeypairBytes {
                    secret_key: key.to_bytes(),
                    public_key: None,
                };
                alone.to_pkcs8_pem(LineEnding::LF)
            }
        }
    }

    pub(super) fn public(&self) -> Public {
        match self {
            Self::P256(key) => Public::P256(*key.verifying_key()),
            Self::Ed25519(key) => Public::Ed25519(key.verifying_key()),
        }
    }

    /// The signature of a message, as a JWS has it.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, BoxError> {
        Ok(match self {
            Self::P256(key) => {
                let signature: Signature = key.try_sign(message)?;
                signature.to_bytes().to_vec()
            }
            Self::Ed25519(key) => key.try_sign(message)?.to_bytes().to_vec(),
        })
    }
}

/// The public half of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Public {
    P256(P256Public),
    Ed25519(Ed25519Public),
}

impl Public {
    pub(super) fn from_jwk(jwk: &Object) -> Option<Self> {
        let p256 = es256::from_jwk(jwk).ok().map(Self::P256);
        p256.or_else(|| ed25519::from_jwk(jwk).map(Self::Ed25519))
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Self::P256(_) => Algorithm::Es256,
            Self::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    /// The members of a JWK that the key consists of, in the order of the alphabet and without
    /// white space (RFC 7638, section 3).
    pub(super) fn members(&self) -> String {
        match self {
            Self::P256(key) => {
                let point = key.to_sec1_point(false);
                // The first byte says that both coordinates follow.
                let coordinates = point.as_bytes().get(1..).unwrap_or_default();
                let (x, y) = coordinates.split_at(coordinates.len() / 2);
                let (x, y) = (encode(x), encode(y));
                format!(r#""crv":"P-256","kty":"EC","x":"{x}","y":"{y}""#)
            }
            Self::Ed25519(key) => {
                let x = encode(key.as_bytes());
                format!(r#""crv":"Ed25519","kty":"OKP","x":"{x}""#)
            }
        }
    }

    /// Whether this key has signed the message.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::P256(key) => es256::verifies(key, message, signature),
            Self::Ed25519(key) => ed25519::verifies(key, message, signature),
        }
    }
}
