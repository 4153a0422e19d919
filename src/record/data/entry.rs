//! [`Entry`] and [`EntryRef`]: a key and its value.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use smallvec::SmallVec;

use super::{MAX_SIZE, json, unordered};
use crate::error::{SessionError, SessionErrorKind};

/// A key and its value, which is JSON: both in one piece, and so in one allocation.
#[derive(Clone)]
pub(crate) struct Entry {
    text: Arc<[u8]>,
    key_len: usize,
}

impl Entry {
    /// The value as it is kept, or an error where it could not be read back.
    pub(crate) fn new<T: Serialize>(key: &str, value: &T) -> Result<Self, SessionError> {
        // Most values are short, and then the entry itself is the only allocation.
        let mut text = SmallVec::<[u8; 128]>::from_slice(key.as_bytes());
        // serde_json's message may quote the value, so it is left out.
        json::write(&mut text, value)
            .map_err(|_| SessionError::new(SessionErrorKind::Unserializable).with_key(key))?;
        if text.len() > MAX_SIZE {
            return Err(SessionError::new(SessionErrorKind::TooLarge).with_key(key));
        }
        Ok(Self {
            text: Arc::from(&*text),
            key_len: key.len(),
        })
    }

    /// The key, and the value behind it.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    pub(super) fn key_len(&self) -> usize {
        self.key_len
    }

    pub(crate) fn as_ref(&self) -> EntryRef<'_> {
        let (key, json) = self
            .text
            .split_at_checked(self.key_len)
            .unwrap_or((&self.text, &[]));
        EntryRef { key, json }
    }

    pub(crate) fn key(&self) -> &str {
        self.as_ref().key()
    }

    /// The value as the application knows it.
    pub(crate) fn value<T: DeserializeOwned>(&self) -> Result<T, SessionError> {
        self.as_ref().value()
    }
}

/// A key and its value, which are a part of something larger.
#[derive(Clone, Copy)]
pub(crate) struct EntryRef<'a> {
    pub(super) key: &'a [u8],
    pub(super) json: &'a [u8],
}

impl<'a> EntryRef<'a> {
    pub(crate) fn key(self) -> &'a str {
        str::from_utf8(self.key).unwrap_or_default()
    }

    pub(crate) fn is_empty_list(self) -> bool {
        self.json == b"[]"
    }

    /// The value as the application knows it.
    pub(crate) fn value<T: DeserializeOwned>(self) -> Result<T, SessionError> {
        // serde_json's message may quote the value, so it is left out.
        serde_json::from_slice(self.json)
            .map_err(|_| SessionError::new(SessionErrorKind::WrongType).with_key(self.key()))
    }

    /// Whether the values are equal. A value that is written in another order is equal: enough to
    /// see that the application did not change it.
    pub(super) fn has_value_of(self, other: EntryRef<'_>) -> bool {
        self.json == other.json || self.is_compound() && self.is_reordered(other)
    }

    #[cold]
    fn is_reordered(self, other: EntryRef<'_>) -> bool {
        match (str::from_utf8(self.json), str::from_utf8(other.json)) {
            (Ok(own), Ok(other)) => unordered::is_equal(own, other),
            _ => false,
        }
    }

    /// Whether the value is an array or an object, so that its parts can be in another order.
    fn is_compound(self) -> bool {
        matches!(self.json.first(), Some(b'[' | b'{'))
    }
}

impl PartialEq for EntryRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.has_value_of(*other)
    }
}
