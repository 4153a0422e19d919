//! [`SigningKey`] and [`SigningKeys`]: the keys that sign tokens, and where they come from.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::{BoxError, ConfigError};
use crate::secret::watched::WatchedKeys;
use crate::secret::{self, KeySource, SecretKey, Several};

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
        Self::from_bytes(&*secret::random_bytes::<{ Self::MIN_LEN }>()?)
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
        Self::from_bytes(&secret::bytes_of_hex::<Self>(digits)?)
    }

    /// The key in hexadecimal digits, for a secret store. The text is as secret as the key.
    #[must_use]
    pub fn to_hex(&self) -> String {
        secret::hex_of(&self.bytes)
    }
}

impl SecretKey for SigningKey {
    const HOW_TO_MAKE_ONE: &'static str = HOW_TO_MAKE_A_KEY;

    fn from_hex(digits: &str) -> Result<Self, ConfigError> {
        Self::from_hex(digits)
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
        secret::keys_of_env(variable).map(Self::from)
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
        secret::keys_of_file(path.as_ref()).map(Self::from)
    }
}

/// # Keys that change without a restart
impl SigningKeys {
    /// The keys of a file, in the form of [`from_file`](Self::from_file). A task reads the file
    /// again at this interval. An interval below a second counts as a second.
    ///
    /// Write the new keys into another file, and rename it. Then the task cannot read half of it.
    /// Kubernetes does so with the files of a secret.
    ///
    /// # Errors
    ///
    /// The errors of [`from_file`](Self::from_file), when the file is read for the first time. If a
    /// later read fails, the keys stay as they are: see [`WatchedKeys`].
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use cloakroom::{MemoryStore, SessionLayer, SigningKeys};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let keys = SigningKeys::watch_file("/run/secrets/session_keys", Duration::from_secs(30))?;
    /// let layer = SessionLayer::new(MemoryStore::new(), keys);
    /// # Ok(()) }
    /// ```
    pub fn watch_file(
        path: impl AsRef<Path>,
        interval: Duration,
    ) -> Result<WatchedKeys<Self>, ConfigError> {
        let path = path.as_ref().to_owned();
        WatchedKeys::new("signing", interval, Self::is_same, move || {
            Self::from_file(&path)
        })
    }

    /// The keys that a function gives. A task calls the function again at this interval, in a
    /// thread in which the function may block. An interval below a second counts as a second. The
    /// first call is in this thread.
    ///
    /// The log shows the function's error, so the error must hold no key.
    ///
    /// # Errors
    ///
    /// The first call of the function failed. If a later call fails, the keys stay as they are: see
    /// [`WatchedKeys`].
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use cloakroom::SigningKeys;
    ///
    /// # fn text_of_vault() -> std::io::Result<String> { Ok(String::new()) }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let keys = SigningKeys::watch(Duration::from_secs(60), || {
    ///     let key = text_of_vault()?.parse()?;
    ///     Ok::<_, Box<dyn std::error::Error + Send + Sync>>(SigningKeys::new(key))
    /// })?;
    /// # Ok(()) }
    /// ```
    pub fn watch<E: Into<BoxError>>(
        interval: Duration,
        keys: impl Fn() -> Result<Self, E> + Send + Sync + 'static,
    ) -> Result<WatchedKeys<Self>, ConfigError> {
        WatchedKeys::new("signing", interval, Self::is_same, move || {
            keys().map_err(secret::source_failed)
        })
    }

    fn is_same(&self, other: &Self) -> bool {
        let all = |keys: &Self| {
            let keys = std::iter::once(&keys.signing).chain(&keys.verifying);
            keys.map(|key| key.bytes.clone()).collect::<Vec<_>>()
        };
        all(self) == all(other)
    }
}

impl From<SigningKeys> for KeySource<SigningKeys> {
    fn from(keys: SigningKeys) -> Self {
        Self::fixed(keys)
    }
}

impl From<SigningKey> for KeySource<SigningKeys> {
    fn from(key: SigningKey) -> Self {
        Self::fixed(key.into())
    }
}

/// The first key signs.
impl From<Several<SigningKey>> for SigningKeys {
    fn from(Several { first, others }: Several<SigningKey>) -> Self {
        Self {
            signing: first,
            verifying: others,
        }
    }
}

impl From<SigningKey> for SigningKeys {
    fn from(key: SigningKey) -> Self {
        Self::new(key)
    }
}
