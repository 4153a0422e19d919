//! Secret keys of all kinds: where they come from, and their text.

pub(crate) mod watched;

use std::borrow::Cow;
use std::env::VarError;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use rand::TryRng;
use zeroize::Zeroizing;

use self::watched::{Following, Snapshot, WatchedKeys};
use crate::error::{BoxError, ConfigError};

/// A key that has a text of hexadecimal digits.
pub(crate) trait SecretKey: Sized {
    /// How to make such a key, for the errors about a bad one.
    const HOW_TO_MAKE_ONE: &'static str;

    fn from_hex(digits: &str) -> Result<Self, ConfigError>;
}

/// The keys of a text.
pub(crate) struct Several<K> {
    pub(crate) first: K,
    pub(crate) others: Vec<K>,
}

/// The function that gives the keys failed.
pub(crate) fn source_failed(error: impl Into<BoxError>) -> ConfigError {
    ConfigError::new("keys", "the function that gives the keys failed").with_source(error)
}

/// Random bytes for a new key.
pub(crate) fn random_bytes<const N: usize>() -> Result<Zeroizing<[u8; N]>, ConfigError> {
    let mut bytes = Zeroizing::new([0; N]);
    match rand::rngs::SysRng.try_fill_bytes(&mut *bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => {
            Err(ConfigError::new("key", "the random generator failed").with_source(error))
        }
    }
}

/// The bytes of a key's hexadecimal digits.
pub(crate) fn bytes_of_hex<K: SecretKey>(digits: &str) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
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
    let how = K::HOW_TO_MAKE_ONE;
    match is_hex {
        true => Ok(bytes),
        false => Err(ConfigError::new(
            "key",
            format!("a key consists of hexadecimal digits; {how}"),
        )),
    }
}

pub(crate) fn hex_of(bytes: &[u8]) -> String {
    let hex = String::with_capacity(bytes.len() * 2);
    bytes.iter().fold(hex, |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The keys in an environment variable. White space or commas separate them.
pub(crate) fn keys_of_env<K: SecretKey>(variable: &str) -> Result<Several<K>, ConfigError> {
    let how = K::HOW_TO_MAKE_ONE;
    match std::env::var(variable).map(Zeroizing::new) {
        Ok(text) => keys_of_text(&text, &format!("the environment variable {variable}")),
        // The error has no source, because the source would show the value. That may be a key with
        // one wrong byte.
        Err(VarError::NotUnicode(_)) => Err(ConfigError::new(
            "keys",
            format!("the environment variable {variable} is not text; {how}"),
        )),
        Err(error @ VarError::NotPresent) => Err(ConfigError::new(
            "keys",
            format!("the environment variable {variable} holds no key; {how}"),
        )
        .with_source(error)),
    }
}

/// The keys in a file. White space or commas separate them.
pub(crate) fn keys_of_file<K: SecretKey>(path: &Path) -> Result<Several<K>, ConfigError> {
    match read(path) {
        Ok(text) if text.len() > LONGEST_FILE => Err(ConfigError::new(
            "keys",
            format!("the file {} is too long for keys", path.display()),
        )),
        Ok(text) => keys_of_text(&text, &format!("the file {}", path.display())),
        Err(error) => {
            let how = match error.kind() {
                io::ErrorKind::NotFound => format!("; {}", K::HOW_TO_MAKE_ONE),
                _ => String::new(),
            };
            let reason = format!("cannot read keys from the file {}{how}", path.display());
            Err(ConfigError::new("keys", reason).with_source(error))
        }
    }
}

/// A file of keys is not longer. Whatever else is at the path must not fill the memory.
const LONGEST_FILE: usize = 64 * 1024;

fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    let limit = LONGEST_FILE as u64 + 1;
    let file = File::open(path)?;
    // It has room for all of the file, so that no copy of it stays behind.
    let mut text = Zeroizing::new(String::with_capacity(LONGEST_FILE + 1));
    file.take(limit).read_to_string(&mut text)?;
    Ok(text)
}

fn keys_of_text<K: SecretKey>(text: &str, place: &str) -> Result<Several<K>, ConfigError> {
    let mut keys = text
        .split(|c: char| c.is_whitespace() || c == ',')
        .filter(|word| !word.is_empty())
        .map(|word| {
            K::from_hex(word).map_err(|error| {
                ConfigError::new("keys", format!("{place} holds a bad key")).with_source(error)
            })
        });
    let first = keys.next().unwrap_or_else(|| {
        let how = K::HOW_TO_MAKE_ONE;
        Err(ConfigError::new(
            "keys",
            format!("{place} holds no key; {how}"),
        ))
    })?;
    let others = keys.collect::<Result<_, _>>()?;
    Ok(Several { first, others })
}

/// Where a layer or a store gets its keys from: keys that stay as they are, or
/// [`WatchedKeys`](crate::WatchedKeys). Nobody has to name this type: each kind of keys turns into
/// a `KeySource` by itself.
///
/// ```
/// use cloakroom::{KeySource, SigningKey, SigningKeys};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let source: KeySource<SigningKeys> = SigningKey::generate()?.into();
/// assert_eq!(format!("{source:?}"), "KeySource(..)");
/// # Ok(()) }
/// ```
pub struct KeySource<K>(Source<K>);

enum Source<K> {
    Fixed(Arc<K>),
    Watched(WatchedKeys<K>),
}

impl<K> KeySource<K> {
    pub(crate) fn fixed(keys: K) -> Self {
        Self(Source::Fixed(Arc::new(keys)))
    }

    /// The keys of now.
    pub(crate) fn snapshot(&self) -> Snapshot<K> {
        match &self.0 {
            Source::Fixed(keys) => Snapshot {
                number: 0,
                keys: Arc::clone(keys),
            },
            Source::Watched(keys) => keys.snapshot(),
        }
    }
}

impl<K> From<WatchedKeys<K>> for KeySource<K> {
    fn from(keys: WatchedKeys<K>) -> Self {
        Self(Source::Watched(keys))
    }
}

impl<K> fmt::Debug for KeySource<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Fixed(_) => f.write_str("KeySource(..)"),
            Source::Watched(keys) => f.debug_tuple("KeySource").field(keys).finish(),
        }
    }
}

/// What a layer or a store makes of its keys, once, or again when they change.
pub(crate) enum MadeOfKeys<K, P> {
    Once(Arc<P>),
    Following(Arc<Following<K, P>>),
}

impl<K, P> MadeOfKeys<K, P> {
    /// `first` was made of the keys of this number.
    pub(crate) fn new(
        source: KeySource<K>,
        number: u64,
        first: Arc<P>,
        make: impl Fn(&K) -> P + Send + Sync + 'static,
    ) -> Self {
        match source.0 {
            Source::Fixed(_) => Self::Once(first),
            Source::Watched(keys) => {
                Self::Following(Arc::new(Following::new(keys, number, first, make)))
            }
        }
    }

    /// What was made of the first keys. It is for what needs no keys.
    pub(crate) fn first(&self) -> &Arc<P> {
        match self {
            Self::Once(made) => made,
            Self::Following(following) => following.first(),
        }
    }

    /// What is made of the newest keys.
    #[inline]
    pub(crate) fn now(&self) -> Cow<'_, Arc<P>> {
        match self {
            Self::Once(made) => Cow::Borrowed(made),
            Self::Following(following) => Cow::Owned(following.now()),
        }
    }
}

impl<K, P> Clone for MadeOfKeys<K, P> {
    fn clone(&self) -> Self {
        match self {
            Self::Once(made) => Self::Once(Arc::clone(made)),
            Self::Following(following) => Self::Following(Arc::clone(following)),
        }
    }
}

impl<K, P: fmt::Debug> fmt::Debug for MadeOfKeys<K, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.now().fmt(f)
    }
}
