//! [`StepUp`]: what a better login needs.

use std::sync::Arc;
use std::time::Duration;

/// What a login needs so that a request is allowed: the parameters of a challenge (RFC 9470,
/// section 3).
#[derive(Clone, Debug)]
pub(crate) struct StepUp(Arc<str>);

impl StepUp {
    /// A login that is at most this old.
    pub(crate) fn max_age(max_age: Duration) -> Self {
        Self(format!("max_age=\"{}\"", max_age.as_secs()).into())
    }

    /// A login of one of these levels. A level that a header cannot have is left out. `None` if
    /// there is no other.
    pub(crate) fn levels(accepted: &[&str]) -> Option<Self> {
        let is_good = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        let is_writable = |level: &&&str| !level.is_empty() && level.bytes().all(is_good);
        let mut levels = accepted.iter().filter(is_writable);
        let mut text = format!("acr_values=\"{}", levels.next()?);
        for level in levels {
            text.push(' ');
            text.push_str(level);
        }
        text.push('"');
        Some(Self(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}
