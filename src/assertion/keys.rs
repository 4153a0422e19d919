//! [`AssertionKey`] and [`AssertionKeys`]: the keys that sign assertions, and where they come from.

use std::env::VarError;
use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

use rand::TryRng as _;
use zeroize::Zeroizing;

use super::algorithm::{Algorithm, PrivateKey};
use super::jwks::{Jwks, JwksRoute, PublicKey};
use crate::error::{BoxError, ConfigError};

/// How to make a key, for the errors about a bad one.
const HOW_TO_MAKE_A_KEY: &str = "make a key with `openssl genpkey -algorithm EC -pkeyopt \
     ec_paramgen_curve:P-256`, keep it secret, and give every node the same";

/// A private key that signs assertions: ECDSA with P-256, which gives ES256, or Ed25519, which
/// gives EdDSA. More gateways and languages know ES256, and EdDSA costs a fraction of it.
///
/// This is no [`SigningKey`](crate::SigningKey): an assertion key has a public half, which
/// everybody may know. Whoever has the private half can speak for any user to any service. The key
/// is wiped from memory when it is dropped.
///
/// ```
/// use cloakroom::assertion::AssertionKey;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let key = AssertionKey::generate()?;
/// let again = AssertionKey::from_pem(&key.to_pem()?)?;
/// assert_eq!(again.kid(), key.kid());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct AssertionKey {
    key: PrivateKey,
    public: PublicKey,
}

impl AssertionKey {
    /// A new random key of P-256. Services trust it once it is published.
    ///
    /// # Errors
    ///
    /// The operating system's random generator failed.
    pub fn generate() -> Result<Self, ConfigError> {
        loop {
            // One number in four billion is larger than the order of the curve.
            if let Ok(key) = p256::ecdsa::SigningKey::from_slice(&*random_bytes()?) {
                return Ok(Self::new(PrivateKey::P256(key)));
            }
        }
    }

    /// A new random key of Ed25519. Services trust it once it is published.
    ///
    /// # Errors
    ///
    /// The operating system's random generator failed.
    ///
    /// ```
    /// # use cloakroom::assertion::AssertionKey;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let key = AssertionKey::generate_ed25519()?;
    /// # Ok(()) }
    /// ```
    pub fn generate_ed25519() -> Result<Self, ConfigError> {
        let key = ed25519_dalek::SigningKey::from_bytes(&*random_bytes()?);
        Ok(Self::new(PrivateKey::Ed25519(key)))
    }

    fn new(key: PrivateKey) -> Self {
        Self {
            public: PublicKey::new(key.public()),
            key,
        }
    }

    /// The key of this PEM text: PKCS#8, which begins with `-----BEGIN PRIVATE KEY-----`. This
    /// command makes one: `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`. And
    /// this one makes a key of Ed25519: `openssl genpkey -algorithm ED25519`.
    ///
    /// # Errors
    ///
    /// The text is not one such key. The error says how to make one, and shows nothing of the text.
    pub fn from_pem(pem: &str) -> Result<Self, ConfigError> {
        let mut keys = parse(pem, "the text", "key")?.into_iter();
        match (keys.next(), keys.next()) {
            (Some(key), None) => Ok(key),
            (None, _) => Err(no_key("the text", "key")),
            (Some(_), Some(_)) => Err(ConfigError::new("key", "the text holds several keys")),
        }
    }

    /// The key as PEM (PKCS#8), for a secret store. The text is as secret as the key.
    ///
    /// # Errors
    ///
    /// The key cannot be encoded. That does not happen with a key of this type.
    pub fn to_pem(&self) -> Result<String, ConfigError> {
        let pem = self.key.to_pem();
        // The source is dropped, as everywhere in this file: it may show a part of the key.
        let pem = pem.map_err(|_| ConfigError::new("key", "the key cannot be encoded"))?;
        Ok(pem.as_str().to_owned())
    }

    /// The key's name, which assertions and the JWKS show: the thumbprint of the public half (RFC
    /// 7638).
    #[must_use]
    pub fn kid(&self) -> &str {
        self.public.kid()
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.public.key().algorithm()
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, BoxError> {
        self.key.sign(message)
    }
}

fn random_bytes() -> Result<Zeroizing<[u8; 32]>, ConfigError> {
    let mut bytes = Zeroizing::new([0; 32]);
    match rand::rngs::SysRng.try_fill_bytes(&mut *bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => {
            Err(ConfigError::new("key", "the random generator failed").with_source(error))
        }
    }
}

/// Reads PEM: see [`AssertionKey::from_pem`].
impl FromStr for AssertionKey {
    type Err = ConfigError;

    fn from_str(pem: &str) -> Result<Self, ConfigError> {
        Self::from_pem(pem)
    }
}

/// It shows the public name alone.
impl fmt::Debug for AssertionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AssertionKey({})", self.kid())
    }
}

/// The keys of a gateway. One key signs, and all of them are published.
///
/// To rotate, publish the new key first. Then let the new key sign. Once the last assertion of the
/// old key has ended, take the old key out. [The page on
/// assertions](crate::docs::assertions#rotating-the-keys) has the steps.
///
/// A clone is a handle for the same keys. [`replace`](Self::replace) gives all clones other keys,
/// without a restart.
///
/// ```
/// use cloakroom::assertion::{AssertionKey, AssertionKeys};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (old, new) = (AssertionKey::generate()?, AssertionKey::generate()?);
/// let keys = AssertionKeys::new(old).also_publish(new);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct AssertionKeys(Arc<RwLock<KeySet>>);

#[derive(Clone)]
struct KeySet {
    signing: Arc<AssertionKey>,
    published: Jwks,
}

impl AssertionKeys {
    /// One key, which signs and is published.
    #[must_use]
    pub fn new(key: AssertionKey) -> Self {
        Self::of(KeySet::new(key))
    }

    fn of(keys: KeySet) -> Self {
        Self(Arc::new(RwLock::new(keys)))
    }

    /// The same keys, and `key` is published as well. It does not sign. It is a key that signs
    /// soon, or that has signed until now. The result is a new handle: clones of `self` keep their
    /// keys.
    #[must_use]
    pub fn also_publish(self, key: AssertionKey) -> Self {
        let mut keys = self.read();
        keys.published.add(key.public);
        Self::of(keys)
    }

    /// Gives all clones of this handle the keys that `newer` has now. The layer signs with them,
    /// and the [route](Self::jwks_route) publishes them, from the next request on.
    ///
    /// ```
    /// # use cloakroom::ConfigError;
    /// # use cloakroom::assertion::AssertionKeys;
    /// fn read_again(keys: &AssertionKeys) -> Result<(), ConfigError> {
    ///     keys.replace(&AssertionKeys::from_file("/run/secrets/assertion_keys.pem")?);
    ///     Ok(())
    /// }
    /// ```
    pub fn replace(&self, newer: &Self) {
        let newer = newer.read();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = newer;
    }

    fn read(&self) -> KeySet {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone()
    }

    pub(super) fn signing(&self) -> Arc<AssertionKey> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        keys.signing.clone()
    }

    /// The public halves of the keys, as they are now.
    #[must_use]
    pub fn jwks(&self) -> Jwks {
        self.read().published
    }

    /// A handler for [`JwksRoute::PATH`], which publishes the keys.
    #[must_use]
    pub fn jwks_route(&self) -> JwksRoute {
        JwksRoute::new(self.clone())
    }

    /// The keys of this PEM text, one below the other. The first one signs, and the others are only
    /// published. Each is PKCS#8: see [`AssertionKey::from_pem`].
    ///
    /// # Errors
    ///
    /// The text has no key, or something else than such keys. The error says how to make a key, and
    /// shows nothing of the text.
    ///
    /// ```
    /// # use cloakroom::assertion::{AssertionKey, AssertionKeys};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (first, second) = (AssertionKey::generate()?, AssertionKey::generate()?);
    /// let keys = AssertionKeys::from_pem(&(first.to_pem()? + &second.to_pem()?))?;
    /// # Ok(()) }
    /// ```
    pub fn from_pem(pem: &str) -> Result<Self, ConfigError> {
        Self::parse(pem, "the text")
    }

    /// Reads keys from an environment variable, in the form of [`from_pem`](Self::from_pem).
    ///
    /// # Errors
    ///
    /// The variable is not set, or is malformed as for [`from_pem`](Self::from_pem).
    ///
    /// ```no_run
    /// # use cloakroom::assertion::AssertionKeys;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let keys = AssertionKeys::from_env("ASSERTION_KEYS")?;
    /// # Ok(()) }
    /// ```
    pub fn from_env(variable: &str) -> Result<Self, ConfigError> {
        let place = format!("the environment variable {variable}");
        match std::env::var(variable).map(Zeroizing::new) {
            Ok(pem) => Self::parse(&pem, &place),
            // The error has no source, because the source would show the value.
            Err(VarError::NotUnicode(_)) => Err(ConfigError::new(
                "keys",
                format!("{place} is not text; {HOW_TO_MAKE_A_KEY}"),
            )),
            Err(error @ VarError::NotPresent) => Err(no_key(&place, "keys").with_source(error)),
        }
    }

    /// Reads keys from a file, in the form of [`from_pem`](Self::from_pem). Nobody but the owner of
    /// the file should be able to read it.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is malformed as for [`from_pem`](Self::from_pem).
    ///
    /// ```no_run
    /// # use cloakroom::assertion::AssertionKeys;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let keys = AssertionKeys::from_file("/run/secrets/assertion_keys.pem")?;
    /// # Ok(()) }
    /// ```
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let (path, place) = (path.as_ref(), path.as_ref().display());
        match std::fs::read_to_string(path).map(Zeroizing::new) {
            Ok(pem) => Self::parse(&pem, &format!("the file {place}")),
            Err(error) => {
                let how = match error.kind() {
                    io::ErrorKind::NotFound => format!("; {HOW_TO_MAKE_A_KEY}"),
                    _ => String::new(),
                };
                let reason = format!("cannot read keys from the file {place}{how}");
                Err(ConfigError::new("keys", reason).with_source(error))
            }
        }
    }

    fn parse(pem: &str, place: &str) -> Result<Self, ConfigError> {
        let mut parsed = parse(pem, place, "keys")?.into_iter();
        let signing = parsed.next().ok_or_else(|| no_key(place, "keys"))?;
        let mut keys = KeySet::new(signing);
        parsed.for_each(|key| keys.published.add(key.public));
        Ok(Self::of(keys))
    }
}

impl KeySet {
    fn new(key: AssertionKey) -> Self {
        Self {
            published: Jwks::of(key.public.clone()),
            signing: Arc::new(key),
        }
    }
}

impl From<AssertionKey> for AssertionKeys {
    fn from(key: AssertionKey) -> Self {
        Self::new(key)
    }
}

/// It shows the public names alone.
impl fmt::Debug for AssertionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.read();
        f.debug_struct("AssertionKeys")
            .field("signing", &keys.signing.kid())
            .field("published", &keys.published)
            .finish()
    }
}

fn no_key(place: &str, setting: &'static str) -> ConfigError {
    ConfigError::new(
        setting,
        format!("{place} holds no key; {HOW_TO_MAKE_A_KEY}"),
    )
}

/// The keys of a PEM text, in their order. There may be other text between them.
fn parse(pem: &str, place: &str, setting: &'static str) -> Result<Vec<AssertionKey>, ConfigError> {
    const BEGIN: &str = "-----BEGIN ";
    const END: &str = "-----END PRIVATE KEY-----";
    // The error has no source. It may be about the bytes of the key.
    let no_such_key = || {
        let what = "a key that is not one of P-256 or Ed25519 in PKCS#8";
        ConfigError::new(
            setting,
            format!("{place} holds {what}; {HOW_TO_MAKE_A_KEY}"),
        )
    };
    let mut keys = Vec::new();
    let mut rest = pem;
    while let Some((_, from_label)) = rest.split_once(BEGIN) {
        if !from_label.starts_with("PRIVATE KEY-----") {
            let reason = format!(
                "{place} holds something else than keys in PKCS#8; `openssl pkcs8 -topk8 -nocrypt` \
                 converts a key that begins with `BEGIN EC PRIVATE KEY`"
            );
            return Err(ConfigError::new(setting, reason));
        }
        let (body, after) = from_label.split_once(END).ok_or_else(no_such_key)?;
        let block = Zeroizing::new(format!("{BEGIN}{body}{END}\n"));
        let key = PrivateKey::from_pem(&block).ok_or_else(no_such_key)?;
        keys.push(AssertionKey::new(key));
        rest = after;
    }
    Ok(keys)
}
