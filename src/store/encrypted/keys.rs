//! The keys of an [`EncryptedStore`](super::EncryptedStore), and where they come from.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use hmac::{Hmac, KeyInit};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::{BoxError, ConfigError};
use crate::secret::watched::WatchedKeys;
use crate::secret::{self, KeySource, SecretKey, Several};

/// The length of a key, in bytes.
const KEY_LEN: usize = 32;

/// How to make a key, for the errors about a bad one.
const HOW_TO_MAKE_A_KEY: &str =
    "make a key with `openssl rand -hex 32`, keep it secret, and give every node the same";

/// A type of key. All of them are 32 secret bytes.
macro_rules! key {
    ($(#[$doc:meta])* $Key:ident, $lost:literal) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $Key(
            /// They are wiped from memory when the key goes.
            Zeroizing<[u8; KEY_LEN]>,
        );

        impl $Key {
            /// The length of a key, in bytes.
            pub const LEN: usize = KEY_LEN;

            /// A new random key.
            #[doc = $lost]
            ///
            /// # Errors
            ///
            /// The operating system's random generator failed.
            pub fn generate() -> Result<Self, ConfigError> {
                secret::random_bytes().map(Self)
            }

            /// The key of these random bytes.
            ///
            /// # Errors
            ///
            /// There are more or fewer bytes than [`LEN`](Self::LEN).
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, ConfigError> {
                let mut key = Zeroizing::new([0; KEY_LEN]);
                if bytes.len() != KEY_LEN {
                    let length = bytes.len();
                    let reason =
                        format!("a key has 32 bytes, this one has {length}; {HOW_TO_MAKE_A_KEY}");
                    return Err(ConfigError::new("key", reason));
                }
                key.copy_from_slice(bytes);
                Ok(Self(key))
            }

            /// The key of these hexadecimal digits, as `openssl rand -hex 32` prints them.
            ///
            /// # Errors
            ///
            /// The text is not hexadecimal, or the key has not 32 bytes.
            pub fn from_hex(digits: &str) -> Result<Self, ConfigError> {
                Self::from_bytes(&secret::bytes_of_hex::<Self>(digits)?)
            }

            /// Reads the key in hexadecimal digits from an environment variable.
            ///
            /// # Errors
            ///
            /// The variable is not set, is malformed, or holds more than one key. The error says
            /// how to make a key.
            pub fn from_env(variable: &str) -> Result<Self, ConfigError> {
                Self::only(secret::keys_of_env(variable)?)
            }

            /// Reads the key in hexadecimal digits from a file. Nobody but the owner of the file
            /// should be able to read it.
            ///
            /// # Errors
            ///
            /// The file cannot be read, is malformed, or holds more than one key. The error says
            /// how to make a key.
            pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
                Self::only(secret::keys_of_file(path.as_ref())?)
            }

            /// The key in hexadecimal digits, for a secret store. The text is as secret as the
            /// key.
            #[must_use]
            pub fn to_hex(&self) -> String {
                secret::hex_of(&*self.0)
            }

            fn only(keys: Several<Self>) -> Result<Self, ConfigError> {
                match keys.others.len() {
                    0 => Ok(keys.first),
                    more => Err(ConfigError::new(
                        "key",
                        format!("one key was expected, and there are {}", 1 + more),
                    )),
                }
            }

            pub(super) fn mac(&self) -> Hmac<Sha256> {
                // A key of the length of a block is the same key, filled up with zeros (RFC 2104).
                let mut block = Zeroizing::new([0; 64]);
                let (key, _) = block.split_at_mut(KEY_LEN);
                key.copy_from_slice(&*self.0);
                Hmac::new(&(*block).into())
            }
        }

        impl SecretKey for $Key {
            const HOW_TO_MAKE_ONE: &'static str = HOW_TO_MAKE_A_KEY;

            fn from_hex(digits: &str) -> Result<Self, ConfigError> {
                Self::from_hex(digits)
            }
        }

        /// Reads hexadecimal digits, as `from_hex` does.
        impl FromStr for $Key {
            type Err = ConfigError;

            fn from_str(digits: &str) -> Result<Self, ConfigError> {
                Self::from_hex(digits)
            }
        }

        impl TryFrom<&[u8]> for $Key {
            type Error = ConfigError;

            fn try_from(bytes: &[u8]) -> Result<Self, ConfigError> {
                Self::from_bytes(bytes)
            }
        }

        impl fmt::Debug for $Key {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($Key), "(..)"))
            }
        }
    };
}

key! {
    /// A secret key of 32 bytes that encrypts the records of an
    /// [`EncryptedStore`](crate::EncryptedStore).
    ///
    /// ```
    /// use cloakroom::EncryptionKey;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let key = EncryptionKey::generate()?;
    /// assert_eq!(format!("{key:?}"), "EncryptionKey(..)");
    /// assert!(EncryptionKey::from_bytes(b"too short").is_err());
    /// # Ok(()) }
    /// ```
    EncryptionKey, "Sessions last only as long as you keep the key that encrypted them."
}

key! {
    /// A secret key of 32 bytes that hides the users of an
    /// [`EncryptedStore`](crate::EncryptedStore): see
    /// [`hash_users`](crate::EncryptedStore::hash_users).
    ///
    /// ```
    /// use cloakroom::UserHashKey;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let key = UserHashKey::generate()?;
    /// assert_eq!(UserHashKey::from_hex(&key.to_hex())?.to_hex(), key.to_hex());
    /// # Ok(()) }
    /// ```
    UserHashKey, "The sessions of a user are found only as long as you keep the key."
}

/// The keys of an [`EncryptedStore`](crate::EncryptedStore). One key encrypts, and any number of
/// other keys decrypt.
///
/// To rotate a key, let the new key encrypt and the old key decrypt. Each record that is written
/// from then on has the new key. Once the longest absolute timeout has passed, no live session has
/// the old key, and you can remove it. If several nodes do not restart at once, first let all of
/// them decrypt with the new key. See
/// [operations](crate::docs::operations#encryption-at-rest).
///
/// ```
/// use cloakroom::{EncryptionKey, EncryptionKeys};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (new, old) = (EncryptionKey::generate()?, EncryptionKey::generate()?);
/// let keys = EncryptionKeys::new(new).also_decrypt(old);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct EncryptionKeys {
    encrypting: EncryptionKey,
    decrypting: Vec<EncryptionKey>,
}

impl EncryptionKeys {
    /// One key, which encrypts and decrypts.
    #[must_use]
    pub fn new(key: EncryptionKey) -> Self {
        Self {
            encrypting: key,
            decrypting: Vec::new(),
        }
    }

    /// The same keys, and `key` decrypts as well. It does not encrypt.
    #[must_use]
    pub fn also_decrypt(mut self, key: EncryptionKey) -> Self {
        self.decrypting.push(key);
        self
    }

    /// Reads keys in hexadecimal digits from an environment variable. White space or commas
    /// separate the keys. The first key encrypts, and the others only decrypt.
    ///
    /// # Errors
    ///
    /// The variable is not set, or a key is malformed. The error says how to make one.
    ///
    /// ```no_run
    /// use cloakroom::{EncryptedStore, EncryptionKeys, MemoryStore};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let keys = EncryptionKeys::from_env("SESSION_ENCRYPTION_KEYS")?;
    /// let store = EncryptedStore::new(MemoryStore::new(), keys);
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
    /// The file cannot be read, or a key is malformed. The error says how to make one.
    ///
    /// ```no_run
    /// use cloakroom::EncryptionKeys;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let keys = EncryptionKeys::from_file("/run/secrets/encryption_keys")?;
    /// # Ok(()) }
    /// ```
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        secret::keys_of_file(path.as_ref()).map(Self::from)
    }

    pub(super) fn encrypting(&self) -> &EncryptionKey {
        &self.encrypting
    }

    pub(super) fn decrypting(&self) -> &[EncryptionKey] {
        &self.decrypting
    }
}

/// # Keys that change without a restart
impl EncryptionKeys {
    /// The keys of a file. A task reads the file again at this interval, as that of
    /// [`SigningKeys::watch_file`](crate::SigningKeys::watch_file) does.
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
    /// use cloakroom::{EncryptedStore, EncryptionKeys, MemoryStore};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let interval = Duration::from_secs(30);
    /// let keys = EncryptionKeys::watch_file("/run/secrets/encryption_keys", interval)?;
    /// let store = EncryptedStore::new(MemoryStore::new(), keys);
    /// # Ok(()) }
    /// ```
    pub fn watch_file(
        path: impl AsRef<Path>,
        interval: Duration,
    ) -> Result<WatchedKeys<Self>, ConfigError> {
        let path = path.as_ref().to_owned();
        WatchedKeys::new("encryption", interval, Self::is_same, move || {
            Self::from_file(&path)
        })
    }

    /// The keys that a function gives. A task calls the function again at this interval, as that of
    /// [`SigningKeys::watch`](crate::SigningKeys::watch) does. The log shows the function's error,
    /// so the error must hold no key.
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
    /// use cloakroom::EncryptionKeys;
    ///
    /// # fn text_of_vault() -> std::io::Result<String> { Ok(String::new()) }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let keys = EncryptionKeys::watch(Duration::from_secs(60), || {
    ///     let key = text_of_vault()?.parse()?;
    ///     Ok::<_, Box<dyn std::error::Error + Send + Sync>>(EncryptionKeys::new(key))
    /// })?;
    /// # Ok(()) }
    /// ```
    pub fn watch<E: Into<BoxError>>(
        interval: Duration,
        keys: impl Fn() -> Result<Self, E> + Send + Sync + 'static,
    ) -> Result<WatchedKeys<Self>, ConfigError> {
        WatchedKeys::new("encryption", interval, Self::is_same, move || {
            keys().map_err(secret::source_failed)
        })
    }

    fn is_same(&self, other: &Self) -> bool {
        let all = |keys: &Self| {
            let keys = std::iter::once(&keys.encrypting).chain(&keys.decrypting);
            keys.map(|key| key.0.clone()).collect::<Vec<_>>()
        };
        all(self) == all(other)
    }
}

impl From<EncryptionKeys> for KeySource<EncryptionKeys> {
    fn from(keys: EncryptionKeys) -> Self {
        Self::fixed(keys)
    }
}

impl From<EncryptionKey> for KeySource<EncryptionKeys> {
    fn from(key: EncryptionKey) -> Self {
        Self::fixed(key.into())
    }
}

/// The first key encrypts.
impl From<Several<EncryptionKey>> for EncryptionKeys {
    fn from(Several { first, others }: Several<EncryptionKey>) -> Self {
        Self {
            encrypting: first,
            decrypting: others,
        }
    }
}

impl From<EncryptionKey> for EncryptionKeys {
    fn from(key: EncryptionKey) -> Self {
        Self::new(key)
    }
}
