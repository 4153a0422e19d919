//! The session token: what the browser holds, and the [`Keys`] that sign it.
//!
//! A token is 16 bytes of record id, 16 bytes of secret, and 16 bytes of a MAC over a context and both, in base64url: 64
//! characters. The store keeps the record under the id, with the other 16 bytes of the MAC as the hash of the secret: whoever
//! reads the store learns nothing of the secret or of the first half, and a request costs one MAC instead of a MAC and a hash.
//! Half of HMAC-SHA256 is as much as RFC 2104, section 5, asks for.

use std::cell::RefCell;
use std::env::VarError;
use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use rand::TryRng;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::error::{BoxError, ConfigError, ErrorKind, SessionError};

const ID_LEN: usize = 16;
const SECRET_LEN: usize = 16;
const TAG_LEN: usize = 16;
const SIGNED_LEN: usize = ID_LEN + SECRET_LEN;
const TOKEN_LEN: usize = SIGNED_LEN + TAG_LEN;

/// The length of an encoded token, in bytes.
pub(crate) const ENCODED_LEN: usize = (TOKEN_LEN * 4).div_ceil(3);

/// The store's key for a session: random, and the same for the session's life.
///
/// It is no credential: it may be logged, shown on a "your devices" page, and used to revoke the session.
///
/// ```
/// use cloakroom::RecordId;
///
/// let id: RecordId = "AAECAwQFBgcICQoLDA0ODw".parse()?;
/// assert_eq!(id.to_string(), "AAECAwQFBgcICQoLDA0ODw");
/// assert!("AAECAwQFBgcICQoLDA0OD!".parse::<RecordId>().is_err());
/// # Ok::<(), cloakroom::InvalidRecordId>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
// What holds one is moved in whole words.
#[repr(align(8))]
pub struct RecordId([u8; ID_LEN]);

impl RecordId {
    /// The id of these bytes, as a store kept them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes that a store keeps.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; (ID_LEN * 4).div_ceil(3)];
        let _ = BASE64.encode_slice(self.0, &mut text);
        f.write_str(str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordId({self})")
    }
}

/// A text that is no [`RecordId`]: it must be 22 characters of base64url.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidRecordId(());

impl fmt::Display for InvalidRecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record id is 22 characters of base64url")
    }
}

impl std::error::Error for InvalidRecordId {}

impl FromStr for RecordId {
    type Err = InvalidRecordId;

    fn from_str(text: &str) -> Result<Self, InvalidRecordId> {
        let mut bytes = [0; ID_LEN];
        match BASE64.decode_slice(text, &mut bytes) {
            Ok(ID_LEN) => Ok(Self(bytes)),
            _ => Err(InvalidRecordId(())),
        }
    }
}

/// What the store keeps of a token's secret: the half of its MAC that no client has.
#[derive(Clone, Copy)]
pub(crate) struct SecretHash([u8; TAG_LEN]);

impl SecretHash {
    pub(crate) const fn from_bytes(bytes: [u8; TAG_LEN]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; TAG_LEN] {
        &self.0
    }

    pub(crate) fn matches(&self, other: &Self) -> bool {
        is_equal(self.0, other.0)
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

/// What a good token says, once the MAC of one that came from a client is verified. Its secret is not kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verified {
    pub(crate) id: RecordId,
    pub(crate) secret_hash: SecretHash,
}

/// Where the random bytes of new tokens come from.
#[derive(Clone)]
pub(crate) struct Random(Arc<Fill>);

type Fill = dyn Fn(&mut [u8]) -> Result<(), BoxError> + Send + Sync;

impl Random {
    pub(crate) fn new(
        fill: impl Fn(&mut [u8]) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(fill))
    }

    pub(crate) fn record_id(&self) -> Result<RecordId, SessionError> {
        self.bytes().map(RecordId)
    }

    /// A failing generator is an error, never a weaker token (CVE-2025-66630).
    pub(crate) fn bytes<const N: usize>(&self) -> Result<[u8; N], SessionError> {
        let mut bytes = [0; N];
        match (self.0)(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) => Err(SessionError::with_source(ErrorKind::Random, error)),
        }
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new(|bytes| Ok(Reserve::take(bytes)?))
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random")
    }
}

/// Bytes of the operating system's generator for the next tokens of a thread. A call of it costs more than all else that a new
/// token needs, whether for 32 bytes or for some more.
struct Reserve {
    bytes: [u8; Self::LEN],
    left: usize,
}

impl Reserve {
    const LEN: usize = 512;

    /// Fills `out`, which is shorter than the reserve.
    fn take(out: &mut [u8]) -> Result<(), rand::rngs::SysError> {
        thread_local! {
            static RESERVE: RefCell<Reserve> = const { RefCell::new(Reserve { bytes: [0; Reserve::LEN], left: 0 }) };
        }
        RESERVE.with_borrow_mut(|reserve| {
            if reserve.left < out.len() {
                rand::rngs::SysRng.try_fill_bytes(&mut reserve.bytes)?;
                reserve.left = Self::LEN;
            }
            let end = reserve.left;
            reserve.left = end.saturating_sub(out.len());
            if let Some(bytes) = reserve.bytes.get_mut(reserve.left..end) {
                out.copy_from_slice(bytes);
                // What is given out is kept by nobody else.
                bytes.fill(0);
            }
            Ok(())
        })
    }
}

/// A secret key of 64 bytes or more that signs session tokens.
///
/// ```
/// use cloakroom::SigningKey;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let key = SigningKey::generate()?;
/// assert_eq!(format!("{key:?}"), "SigningKey(..)");
/// assert!(SigningKey::from_bytes(b"too short").is_err());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SigningKey {
    bytes: Box<[u8]>,
    mac: Hmac<Sha256>,
}

/// How to make a key, for the errors about one.
const HOW_TO_MAKE_A_KEY: &str =
    "make a key with `openssl rand -hex 64`, keep it secret, and give every node the same";

impl SigningKey {
    /// The fewest bytes that a key may have: one block of SHA-256, what RFC 2104 calls B.
    pub const MIN_LEN: usize = 64;

    /// A new random key. Sessions signed with it last only as long as you keep it.
    ///
    /// # Errors
    ///
    /// The operating system's random generator failed.
    pub fn generate() -> Result<Self, ConfigError> {
        let mut bytes = vec![0; Self::MIN_LEN];
        match rand::rngs::SysRng.try_fill_bytes(&mut bytes) {
            Ok(()) => Self::from_bytes(&bytes),
            Err(error) => {
                Err(ConfigError::new("key", "the random generator failed").caused_by(error))
            }
        }
    }

    /// The key of these random bytes.
    ///
    /// # Errors
    ///
    /// They are fewer than [`MIN_LEN`](Self::MIN_LEN).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ConfigError> {
        if bytes.len() < Self::MIN_LEN {
            let length = bytes.len();
            return Err(ConfigError::new(
                "key",
                format!("a key needs 64 bytes, this one has {length}; {HOW_TO_MAKE_A_KEY}"),
            ));
        }
        let mac = Hmac::new_from_slice(bytes).map_err(|error| {
            ConfigError::new("key", "HMAC does not take this key").caused_by(error)
        })?;
        Ok(Self {
            bytes: bytes.into(),
            mac,
        })
    }

    /// The key that these hexadecimal digits stand for, as `openssl rand -hex 64` prints them.
    ///
    /// # Errors
    ///
    /// They are not hexadecimal, or stand for fewer than [`MIN_LEN`](Self::MIN_LEN) bytes.
    pub fn from_hex(digits: &str) -> Result<Self, ConfigError> {
        let nibble = |digit: &u8| char::from(*digit).to_digit(16);
        let byte = |pair: &[u8]| match pair {
            [high, low] => u8::try_from(nibble(high)? << 4 | nibble(low)?).ok(),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = digits.trim().as_bytes().chunks(2).map(byte).collect();
        match bytes {
            Some(bytes) => Self::from_bytes(&bytes),
            None => Err(ConfigError::new(
                "key",
                format!("a key is written in hexadecimal digits; {HOW_TO_MAKE_A_KEY}"),
            )),
        }
    }

    /// The key in hexadecimal digits, to keep it in a secret store. It is as secret as the key.
    #[must_use]
    pub fn to_hex(&self) -> String {
        use fmt::Write as _;
        self.bytes.iter().fold(
            String::with_capacity(self.bytes.len() * 2),
            |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            },
        )
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// The keys of a layer: one signs, and any number of retiring ones still verify.
///
/// To rotate: put the new key first and the old one among the retiring. Once the absolute timeout has passed, no token of
/// the old key is good any more, and it can go. Where several nodes do not restart at once, let all of them know the new key
/// first, among the retiring: see [operations](crate::docs::operations#rotating-the-signing-key).
///
/// ```
/// use cloakroom::{Keys, SigningKey};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (new, old) = (SigningKey::generate()?, SigningKey::generate()?);
/// let keys = Keys::new(new).retiring(old);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Keys {
    signing: SigningKey,
    retiring: Vec<SigningKey>,
}

impl Keys {
    /// These keys sign with `key`, and nothing else verifies.
    #[must_use]
    pub fn new(key: SigningKey) -> Self {
        Self {
            signing: key,
            retiring: Vec::new(),
        }
    }

    /// Lets `key` verify, but not sign.
    #[must_use]
    pub fn retiring(mut self, key: SigningKey) -> Self {
        self.retiring.push(key);
        self
    }

    /// Keys in hexadecimal digits from an environment variable: the first signs, the others retire. White space or commas
    /// stand between them.
    ///
    /// # Errors
    ///
    /// The variable is not set, or a key is malformed or too short. The error says how to make one.
    ///
    /// ```no_run
    /// use cloakroom::{Keys, MemoryStore, SessionLayer};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = SessionLayer::new(MemoryStore::new(), Keys::from_env("SESSION_KEYS")?);
    /// # Ok(()) }
    /// ```
    pub fn from_env(variable: &str) -> Result<Self, ConfigError> {
        match std::env::var(variable) {
            Ok(text) => Self::parse(&text, &format!("the environment variable {variable}")),
            // The error as a source would show the value, which may be a key with one wrong byte.
            Err(VarError::NotUnicode(_)) => Err(ConfigError::new(
                "keys",
                format!("the environment variable {variable} is not text; {HOW_TO_MAKE_A_KEY}"),
            )),
            Err(error @ VarError::NotPresent) => Err(ConfigError::new(
                "keys",
                format!("the environment variable {variable} holds no key; {HOW_TO_MAKE_A_KEY}"),
            )
            .caused_by(error)),
        }
    }

    /// Keys in hexadecimal digits from a file, as [`from_env`](Self::from_env) reads them. Only its owner should be able to
    /// read the file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a key is malformed or too short. The error says how to make one.
    ///
    /// ```no_run
    /// use cloakroom::{Keys, MemoryStore, SessionLayer};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = SessionLayer::new(MemoryStore::new(), Keys::from_file("/run/secrets/session_keys")?);
    /// # Ok(()) }
    /// ```
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, &format!("the file {}", path.display())),
            Err(error) => {
                let how = match error.kind() {
                    io::ErrorKind::NotFound => format!("; {HOW_TO_MAKE_A_KEY}"),
                    _ => String::new(),
                };
                let reason = format!("cannot read keys from the file {}{how}", path.display());
                Err(ConfigError::new("keys", reason).caused_by(error))
            }
        }
    }

    fn parse(text: &str, place: &str) -> Result<Self, ConfigError> {
        let mut keys = text
            .split(|c: char| c.is_whitespace() || c == ',')
            .filter(|word| !word.is_empty())
            .map(|word| {
                SigningKey::from_hex(word).map_err(|error| {
                    ConfigError::new("keys", format!("{place} holds a key that is not good"))
                        .caused_by(error)
                })
            });
        let signing = keys.next().unwrap_or_else(|| {
            let reason = format!("{place} holds no key; {HOW_TO_MAKE_A_KEY}");
            Err(ConfigError::new("keys", reason))
        })?;
        let retiring = keys.collect::<Result<_, _>>()?;
        Ok(Self { signing, retiring })
    }
}

impl From<SigningKey> for Keys {
    fn from(key: SigningKey) -> Self {
        Self::new(key)
    }
}

/// Signs and verifies the tokens of one cookie name. The state of each MAC is prepared once.
#[derive(Clone)]
pub(crate) struct Signer {
    signing: Hmac<Sha256>,
    retiring: Vec<Hmac<Sha256>>,
}

impl Signer {
    pub(crate) fn new(keys: &Keys, name: &str) -> Self {
        // The MAC covers the format's version and the cookie's name, so that a value is worth nothing under another name.
        // The context fills whole blocks of SHA-256, which are digested here and not once a request; a name holds no NUL.
        let mut context = format!("cloakroom token 1\0{name}").into_bytes();
        context.resize(context.len().next_multiple_of(64), 0);
        let prepare = |key: &SigningKey| key.mac.clone().chain_update(&context);
        Self {
            signing: prepare(&keys.signing),
            retiring: keys.retiring.iter().map(prepare).collect(),
        }
    }

    /// A token of this id with a new secret, and as the client gets it.
    pub(crate) fn token(
        &self,
        id: RecordId,
        random: &Random,
    ) -> Result<(Verified, Token), SessionError> {
        let secret: [u8; SECRET_LEN] = random.bytes()?;
        let mut bytes = [0; TOKEN_LEN];
        let (signed, tag) = bytes.split_at_mut(SIGNED_LEN);
        let (own_id, own_secret) = signed.split_at_mut(ID_LEN);
        own_id.copy_from_slice(&id.0);
        own_secret.copy_from_slice(&secret);
        let (new_tag, secret_hash) = mac(&self.signing, signed);
        tag.copy_from_slice(&new_tag);
        let mut encoded = [0; ENCODED_LEN];
        let _ = BASE64.encode_slice(bytes, &mut encoded);
        Ok((Verified { id, secret_hash }, Token(encoded)))
    }

    /// The good tokens among those presented: nearly always one.
    pub(crate) fn verify(&self, presented: &Presented) -> Result<GoodTokens, Rejected> {
        let mut candidates = presented.candidates().iter();
        let (first, token) = candidates
            .find_map(|candidate| Some((candidate, self.verified(candidate)?)))
            .ok_or(Rejected::BadSignature)?;
        let mut good = GoodTokens::One(token);
        let mut seen = vec![];
        for candidate in candidates {
            let is_known = std::iter::once(&first)
                .chain(&seen)
                .any(|known| known.is_equal(candidate));
            if is_known {
                continue;
            }
            if let Some(token) = self.verified(candidate) {
                seen.push(candidate);
                // One that is left out could be the live one, so none is taken.
                if seen.len() >= GoodTokens::MAX {
                    return Err(Rejected::TooMany);
                }
                good.push(token);
            }
        }
        Ok(good)
    }

    fn verified(&self, token: &Token) -> Option<Verified> {
        let mut bytes = [0; TOKEN_LEN];
        if BASE64.decode_slice(token.0, &mut bytes) != Ok(TOKEN_LEN) {
            return None;
        }
        let (signed, presented) = bytes.split_at(SIGNED_LEN);
        let id = RecordId(*signed.first_chunk()?);
        let presented = *presented.first_chunk()?;
        std::iter::once(&self.signing)
            .chain(&self.retiring)
            .find_map(|key| {
                let (tag, secret_hash) = mac(key, signed);
                is_equal(tag, presented).then_some(Verified { id, secret_hash })
            })
    }
}

/// In constant time (CVE-2013-0263).
fn is_equal(a: [u8; TAG_LEN], b: [u8; TAG_LEN]) -> bool {
    u128::from_ne_bytes(a).ct_eq(&u128::from_ne_bytes(b)).into()
}

/// The half of the MAC that goes to the client, and the half that goes to the store.
fn mac(prepared: &Hmac<Sha256>, signed: &[u8]) -> ([u8; TAG_LEN], SecretHash) {
    let mut mac = prepared.clone();
    mac.update(signed);
    let mac: [u8; 2 * TAG_LEN] = mac.finalize().into_bytes().into();
    let (mut tag, mut hash) = ([0; TAG_LEN], [0; TAG_LEN]);
    let (left, right) = mac.split_at(TAG_LEN);
    tag.copy_from_slice(left);
    hash.copy_from_slice(right);
    (tag, SecretHash(hash))
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(..)")
    }
}

/// The well-signed tokens of one request. A browser has several where the cookie's path or domain
/// was changed: it sends the old cookie beside the new one.
#[derive(Debug)]
pub(crate) enum GoodTokens {
    One(Verified),
    Several(Vec<Verified>),
}

impl GoodTokens {
    /// Each costs a call of the store. A browser has one for each path and domain that the site
    /// has ever set the cookie for.
    const MAX: usize = 4;

    fn push(&mut self, token: Verified) {
        match self {
            Self::One(first) => *self = Self::Several(vec![*first, token]),
            Self::Several(all) => all.push(token),
        }
    }
}

/// Why what a client presented is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    BadSignature,
    /// More well-signed ones than [`GoodTokens::MAX`].
    TooMany,
}

/// A token as it travels, or what is as long as one and is not verified yet.
#[derive(Clone)]
#[repr(align(8))] // As a record id is.
pub(crate) struct Token([u8; ENCODED_LEN]);

impl Token {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// In constant time as well: who can plant a cookie beside the good one must not find that out letter by letter.
    fn is_equal(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(&other.0).into()
    }
}

/// What a request presented under the token's name: values of the right length, not yet verified.
#[derive(Clone, Default)]
pub(crate) enum Presented {
    #[default]
    Nothing,
    /// Only values of another length, which are no tokens.
    Malformed,
    One(Token),
    /// Several values of one name, as a browser sends for cookies of several paths or domains.
    Several(Vec<Token>),
}

impl Presented {
    /// Adds a value if it could be a token.
    pub(crate) fn push(&mut self, value: &[u8]) {
        let Ok(token) = value.try_into().map(Token) else {
            if let Self::Nothing = self {
                *self = Self::Malformed;
            }
            return;
        };
        *self = match std::mem::take(self) {
            Self::Nothing | Self::Malformed => Self::One(token),
            Self::One(first) => Self::Several(vec![first, token]),
            Self::Several(mut all) => {
                all.push(token);
                Self::Several(all)
            }
        };
    }

    /// Whether the client sent anything under the name, good or not.
    pub(crate) fn is_anything(&self) -> bool {
        !matches!(self, Self::Nothing)
    }

    /// Whether there is something to verify.
    pub(crate) fn has_candidates(&self) -> bool {
        matches!(self, Self::One(_) | Self::Several(_))
    }

    fn candidates(&self) -> &[Token] {
        match self {
            Self::Nothing | Self::Malformed => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(all) => all,
        }
    }
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Presented({})", self.candidates().len())
    }
}

#[cfg(test)]
mod tests {
    use std::marker::PhantomData;

    use super::*;

    /// Whether a type has an `==`: the constant of the type itself goes before that of the trait, where its bound holds.
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
            Equality::<Verified>::IS_THERE,
            Equality::<Token>::IS_THERE,
            Equality::<Presented>::IS_THERE,
            Equality::<SigningKey>::IS_THERE,
            Equality::<Keys>::IS_THERE,
        ];
        assert_eq!(secrets, [false; 6]);
        // What is no secret shows that the test would see one.
        let public = [
            Equality::<RecordId>::IS_THERE,
            Equality::<Rejected>::IS_THERE,
        ];
        assert_eq!(public, [true; 2]);
    }
}
