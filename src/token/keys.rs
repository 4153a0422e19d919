//! [`SigningKey`] and [`SigningKeys`]: the keys that sign tokens, and where they come from.

use std::env::VarError;
use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use rand::TryRng;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::ConfigError;

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
    /// For [`to_hex`](Self::to_hex). They are wiped from memory when the key goes.
    bytes: Zeroizing<Box<[u8]>>,
    mac: Hmac<Sha256>,
}

/// How to make a key, for the errors about a bad one.
const HOW_TO_MAKE_A_KEY: &str =
    "make a key with `openssl rand -hex 64`, keep it secret, and give every node the same";

impl SigningKey {
    /// The fewest bytes that a key may have. It is one block of SHA-256, which RFC 2104 calls B.
    pub const MIN_LEN: usize = 64;

    /// A new random key. Sessions last only as long as you keep the key that signed them.
    ///
    /// # Errors
    ///
    /// The operating system's random generator failed.
    pub fn generate() -> Result<Self, ConfigError> {
        let mut bytes = Zeroizing::new([0; Self::MIN_LEN]);
        match rand::rngs::SysRng.try_fill_bytes(&mut *bytes) {
            Ok(()) => Self::from_bytes(&*bytes),
            Err(error) => {
                Err(ConfigError::new("key", "the random generator failed").with_source(error))
            }
        }
    }

    /// The key of these random bytes.
    ///
    /// # Errors
    ///
    /// There are fewer bytes than [`MIN_LEN`](Self::MIN_LEN).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ConfigError> {
        if bytes.len() < Self::MIN_LEN {
            let length = bytes.len();
            return Err(ConfigError::new(
                "key",
                format!("a key needs 64 bytes, this one has {length}; {HOW_TO_MAKE_A_KEY}"),
            ));
        }
        let mac = Hmac::new_from_slice(bytes).map_err(|error| {
            ConfigError::new("key", "HMAC does not take this key").with_source(error)
        })?;
        Ok(Self {
            bytes: Zeroizing::new(bytes.into()),
            mac,
        })
    }

    /// The key of these hexadecimal digits, as `openssl rand -hex 64` prints them.
    ///
    /// # Errors
    ///
    /// The text is not hexadecimal, or the key has fewer than [`MIN_LEN`](Self::MIN_LEN) bytes.
    pub fn from_hex(digits: &str) -> Result<Self, ConfigError> {
        let nibble = |digit: &u8| char::from(*digit).to_digit(16);
        let byte = |pair: &[u8]| match pair {
            [high, low] => u8::try_from(nibble(high)? << 4 | nibble(low)?).ok(),
            _ => None,
        };
        let digits = digits.trim().as_bytes();
        // It has room for all bytes, so that no copy of them stays behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(digits.len().div_ceil(2)));
        let is_hex = digits.chunks(2).map(byte).all(|byte| {
            bytes.extend(byte);
            byte.is_some()
        });
        match is_hex {
            true => Self::from_bytes(&bytes),
            false => Err(ConfigError::new(
                "key",
                format!("a key consists of hexadecimal digits; {HOW_TO_MAKE_A_KEY}"),
            )),
        }
    }

    /// The key in hexadecimal digits, for a secret store. The text is as secret as the key.
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

impl SigningKey {
    /// The MAC of this key, after `context`.
    pub(super) fn mac_after(&self, context: &[u8]) -> Hmac<Sha256> {
        self.mac.clone().chain_update(context)
    }

    /// A secret of its own for each context.
    #[cfg(feature = "dbsc")]
    pub(crate) fn derive(&self, context: &[u8]) -> [u8; 32] {
        self.mac_after(context).finalize().into_bytes().into()
    }
}

/// Reads hexadecimal digits: see [`SigningKey::from_hex`].
impl FromStr for SigningKey {
    type Err = ConfigError;

    fn from_str(digits: &str) -> Result<Self, ConfigError> {
        Self::from_hex(digits)
    }
}

impl TryFrom<&[u8]> for SigningKey {
    type Error = ConfigError;

    fn try_from(bytes: &[u8]) -> Result<Self, ConfigError> {
        Self::from_bytes(bytes)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// The keys of a layer. One key signs, and any number of other keys verify.
///
/// To rotate a key, let the new key sign and the old key verify. Once the absolute timeout has
/// passed, no token of the old key is good any more, and you can remove the key. If several nodes
/// do not restart at once, first let all of them verify with the new key. See
/// [operations](crate::docs::operations#rotating-the-signing-key).
///
/// ```
/// use cloakroom::{SigningKey, SigningKeys};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (new, old) = (SigningKey::generate()?, SigningKey::generate()?);
/// let keys = SigningKeys::new(new).also_verify(old);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SigningKeys {
    signing: SigningKey,
    verifying: Vec<SigningKey>,
}

impl SigningKeys {
    /// Keys of which `key` signs, and no other verifies.
    #[must_use]
    pub fn new(key: SigningKey) -> Self {
        Self {
            signing: key,
            verifying: Vec::new(),
        }
    }

    /// The same keys, and `key` verifies as well. It does not sign.
    #[must_use]
    pub fn also_verify(mut self, key: SigningKey) -> Self {
        self.verifying.push(key);
        self
    }

    pub(crate) fn signing(&self) -> &SigningKey {
        &self.signing
    }

    pub(crate) fn verifying(&self) -> &[SigningKey] {
        &self.verifying
    }

    /// Reads keys in hexadecimal digits from an environment variable. White space or commas
    /// separate the keys. The first key signs, and the others verify.
    ///
    /// # Errors
    ///
    /// The variable is not set, or a key is malformed or too short. The error says how to make one.
    ///
    /// ```no_run
    /// use cloakroom::{SigningKeys, MemoryStore, SessionLayer};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = SessionLayer::new(MemoryStore::new(), SigningKeys::from_env("SESSION_KEYS")?);
    /// # Ok(()) }
    /// ```
    pub fn from_env(variable: &str) -> Result<Self, ConfigError> {
        match std::env::var(variable).map(Zeroizing::new) {
            Ok(text) => Self::parse(&text, &format!("the environment variable {variable}")),
            // The error has no source, because the source would show the value. That may be a key
            // with one wrong byte.
            Err(VarError::NotUnicode(_)) => Err(ConfigError::new(
                "keys",
                format!("the environment variable {variable} is not text; {HOW_TO_MAKE_A_KEY}"),
            )),
            Err(error @ VarError::NotPresent) => Err(ConfigError::new(
                "keys",
                format!("the environment variable {variable} holds no key; {HOW_TO_MAKE_A_KEY}"),
            )
            .with_source(error)),
        }
    }

    /// Reads keys in hexadecimal digits from a file, in the form of [`from_env`](Self::from_env).
    /// Nobody but the owner of the file should be able to read it.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a key is malformed or too short. The error says how to make one.
    ///
    /// ```no_run
    /// use cloakroom::{SigningKeys, MemoryStore, SessionLayer};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = SessionLayer::new(MemoryStore::new(), SigningKeys::from_file("/run/secrets/session_keys")?);
    /// # Ok(()) }
    /// ```
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        match std::fs::read_to_string(path).map(Zeroizing::new) {
            Ok(text) => Self::parse(&text, &format!("the file {}", path.display())),
            Err(error) => {
                let how = match error.kind() {
                    io::ErrorKind::NotFound => format!("; {HOW_TO_MAKE_A_KEY}"),
                    _ => String::new(),
                };
                let reason = format!("cannot read keys from the file {}{how}", path.display());
                Err(ConfigError::new("keys", reason).with_source(error))
            }
        }
    }

    fn parse(text: &str, place: &str) -> Result<Self, ConfigError> {
        let mut keys = text
            .split(|c: char| c.is_whitespace() || c == ',')
            .filter(|word| !word.is_empty())
            .map(|word| {
                SigningKey::from_hex(word).map_err(|error| {
                    ConfigError::new("keys", format!("{place} holds a bad key")).with_source(error)
                })
            });
        let signing = keys.next().unwrap_or_else(|| {
            let reason = format!("{place} holds no key; {HOW_TO_MAKE_A_KEY}");
            Err(ConfigError::new("keys", reason))
        })?;
        let verifying = keys.collect::<Result<_, _>>()?;
        Ok(Self { signing, verifying })
    }
}

impl From<SigningKey> for SigningKeys {
    fn from(key: SigningKey) -> Self {
        Self::new(key)
    }
}
