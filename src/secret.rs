//! Secret keys of all kinds: where they come from, and their text.

use std::env::VarError;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use rand::TryRng;
use zeroize::Zeroizing;

use crate::error::ConfigError;

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
    match std::fs::read_to_string(path).map(Zeroizing::new) {
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
